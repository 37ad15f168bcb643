#include "queue/store_int.h"

/* From the outbox of a lane to history, and what history knows.
 *
 * The transaction that ends a recipient writes its outcome, and the message's record as it is then,
 * to the outbox of its own lane, so no outcome depends on a second environment. The history writer
 * copies a bounded batch of rows under the same keys and commits; then the lane's writer deletes
 * those rows, but only where the value is still the one that was copied (the summary of a message
 * may have been written anew meanwhile; the next batch takes that one). A crash in between copies
 * the same rows again, which changes nothing. One sweep runs per lane at a time.
 *
 * Ids begin with the time of the transaction, so pruning is one range from the front of each table,
 * a batch at a time. */

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "core/mem.h"

#define SWEEP_ROWS 500
#define PRUNE_ROWS 1000

struct copied {
	uint8_t key[OUTBOX_KEY_SIZE];
	uint64_t value; /* XXH3-64 of what was copied */
};
struct sweep {
	struct op op;
	enum queue_lane from;
	size_t count;
	bool more;
	struct copied list[SWEEP_ROWS];
};

static bool
is_summary(const uint8_t *key)
{
	return be_get(key + STORE_ID_SIZE, 2) == OUTBOX_SUMMARY_INDEX;
}

static enum store_result
sweep_copy(struct op *op, struct lane_txn *txn)
{
	struct sweep *sweep = (struct sweep *)op;
	struct lane_txn source;
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc = 0;

	sweep->count = 0;
	sweep->more = false;
	txn_read(&op->store->lanes[sweep->from], &source);
	cursor = txn_cursor(&source, TABLE_OUTBOX);
	while (cursor && txn->rc == 0 && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		struct key key;

		if (k.mv_size != OUTBOX_KEY_SIZE) {
			rc = MDB_CORRUPTED;
			break;
		}
		if (sweep->count == SWEEP_ROWS) {
			sweep->more = true;
			break;
		}
		memcpy(key.data, k.mv_data, k.mv_size);
		key.len = is_summary(key.data) ? STORE_ID_SIZE : k.mv_size;
		memcpy(sweep->list[sweep->count].key, k.mv_data, OUTBOX_KEY_SIZE);
		sweep->list[sweep->count++].value = XXH3_64bits(v.mv_data, v.mv_size);
		txn_put(txn, key.len == STORE_ID_SIZE ? TABLE_SUMMARY : TABLE_OUTCOME, &key,
		        v.mv_data, v.mv_size);
	}
	if (txn->rc == 0)
		txn->rc = source.rc ? source.rc : rc == MDB_NOTFOUND ? 0 : rc;
	if (cursor)
		mdb_cursor_close(cursor);
	txn_abort(&source);
	return STORE_OK;
}

static enum store_result
sweep_delete(struct op *op, struct lane_txn *txn)
{
	struct sweep *sweep = (struct sweep *)op;

	for (size_t i = 0; i < sweep->count; i++) {
		struct key key = {.len = OUTBOX_KEY_SIZE};
		MDB_val v;

		memcpy(key.data, sweep->list[i].key, OUTBOX_KEY_SIZE);
		if (txn_get(txn, TABLE_OUTBOX, &key, &v) &&
		    XXH3_64bits(v.mv_data, v.mv_size) == sweep->list[i].value)
			txn_del(txn, TABLE_OUTBOX, &key);
	}
	return STORE_OK;
}

static void
sweep_complete(struct op *op)
{
	struct sweep *sweep = (struct sweep *)op;
	struct store *store = op->store;
	enum queue_lane from = sweep->from;

	if (op->result != STORE_OK) {
		/* The rows are safe where they are; the next tick tries again. */
		store->dirty[from] = true;
		store->sweeping[from] = false;
		free(sweep);
		return;
	}
	if (op->apply == sweep_copy && sweep->count) {
		op->apply = sweep_delete;
		store_post(store, &store->lanes[from], op);
		return;
	}
	store->sweeping[from] = false;
	if (sweep->more || store->dirty[from])
		history_sweep(store, from);
	free(sweep);
}

void
history_sweep(struct store *store, enum queue_lane lane)
{
	struct sweep *sweep;

	store->dirty[lane] = true;
	if (store->sweeping[lane] || store->closing)
		return;
	store->dirty[lane] = false;
	store->sweeping[lane] = true;
	sweep = xcalloc(1, sizeof(*sweep));
	sweep->from = lane;
	sweep->op.weight = SWEEP_ROWS;
	sweep->op.apply = sweep_copy;
	sweep->op.complete = sweep_complete;
	store_post(store, &store->history, &sweep->op);
}

struct prune {
	struct op op;
	msec_t before;
	bool more;
};

/* True when older rows may be left. */
static bool
prune_table(struct lane_txn *txn, enum table table, msec_t before)
{
	MDB_cursor *cursor = txn_cursor(txn, table);
	MDB_val k, v;

	bool more = true;

	if (cursor == NULL)
		return false;
	for (unsigned i = 0; more && i < PRUNE_ROWS && txn->rc == 0; i++) {
		more = mdb_cursor_get(cursor, &k, &v, MDB_FIRST) == 0 &&
		       (msec_t)be_get(k.mv_data, 6) < before;
		if (more)
			txn->rc = mdb_cursor_del(cursor, 0);
	}
	mdb_cursor_close(cursor);
	return more;
}

static enum store_result
prune_apply(struct op *op, struct lane_txn *txn)
{
	struct prune *prune = (struct prune *)op;

	prune->more = prune_table(txn, TABLE_OUTCOME, prune->before);
	prune->more |= prune_table(txn, TABLE_SUMMARY, prune->before);
	return STORE_OK;
}

static void
prune_complete(struct op *op)
{
	struct prune *prune = (struct prune *)op;

	if (op->result == STORE_OK && prune->more && !op->store->closing) {
		store_post(op->store, &op->store->history, op);
		return;
	}
	op->store->pruning = false;
	free(prune);
}

void
store_keep_history(struct store *store, msec_t history_keep)
{
	store->opts.history_keep = history_keep;
}

void
history_prune(struct store *store, msec_t now)
{
	struct prune *prune;

	if (store->pruning || store->closing || store->opts.history_keep <= 0)
		return;
	store->pruning = true;
	prune = xcalloc(1, sizeof(*prune));
	prune->before = now - store->opts.history_keep;
	prune->op.weight = 2 * PRUNE_ROWS;
	prune->op.apply = prune_apply;
	prune->op.complete = prune_complete;
	store_post(store, &store->history, &prune->op);
}

/* --- reading --- */

static int
by_index(const void *a, const void *b)
{
	const struct store_recipient *one = a, *other = b;

	return (one->index > other->index) - (one->index < other->index);
}

static void
merge_recipient(struct store_message *message, uint16_t index, const MDB_val *v)
{
	struct store_recipient recipient;

	if (!recipient_decode(v->mv_data, v->mv_size, index, &recipient))
		return;
	for (size_t i = 0; i < message->recipient_count; i++) {
		if (message->recipients[i].index == index) {
			recipient_clear(&recipient);
			return;
		}
	}
	message->recipients =
	    xreallocarray(message->recipients, message->recipient_count + 1, sizeof(recipient));
	message->recipients[message->recipient_count++] = recipient;
}

/* Summary first, if the message is not known yet; then the outcomes of its recipients. */
static void
merge_from(struct lane *lane, enum table table, const struct queue_id *id,
           struct store_message **message)
{
	bool outbox = table == TABLE_OUTBOX;
	struct lane_txn txn;
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;
	int rc;

	txn_read(lane, &txn);
	if (outbox)
		key_outbox(&key, id, OUTBOX_SUMMARY_INDEX, OUTBOX_SUMMARY_ATTEMPT);
	else
		key_id(&key, id);
	if (*message == NULL && txn_get(&txn, outbox ? TABLE_OUTBOX : TABLE_SUMMARY, &key, &v)) {
		*message = record_decode(v.mv_data, v.mv_size);
		if (*message) {
			(*message)->id = *id;
			(*message)->finished = true;
			(*message)->lane = QUEUE_LANES;
		}
	}
	cursor = *message ? txn_cursor(&txn, table) : NULL;
	if (cursor) {
		key_id(&key, id);
		k = (MDB_val){key.len, key.data};
		for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0;
		     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
			if (k.mv_size != OUTBOX_KEY_SIZE ||
			    memcmp(k.mv_data, id->octets, STORE_ID_SIZE) != 0 ||
			    is_summary(k.mv_data))
				break;
			merge_recipient(
			    *message,
			    (uint16_t)be_get((const uint8_t *)k.mv_data + STORE_ID_SIZE, 2), &v);
		}
		mdb_cursor_close(cursor);
	}
	txn_abort(&txn);
}

void
history_merge(struct store *store, const struct queue_id *id, struct store_message **message)
{
	/* Outboxes first, the last lane first: theirs is the newer summary. */
	for (unsigned i = QUEUE_LANES; i-- > 0;)
		merge_from(&store->lanes[i], TABLE_OUTBOX, id, message);
	merge_from(&store->history, TABLE_OUTCOME, id, message);
	if (*message == NULL)
		return;
	/* What was only in a lane that came before the summary did. */
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		merge_from(&store->lanes[i], TABLE_OUTBOX, id, message);
	qsort((*message)->recipients, (*message)->recipient_count, sizeof(*(*message)->recipients),
	      by_index);
}

bool
history_knows(struct store *store, const struct queue_id *id)
{
	struct lane_txn txn;
	struct key key;
	MDB_val v;
	bool known;

	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		txn_read(&store->lanes[i], &txn);
		key_outbox(&key, id, OUTBOX_SUMMARY_INDEX, OUTBOX_SUMMARY_ATTEMPT);
		known = txn_get(&txn, TABLE_OUTBOX, &key, &v);
		txn_abort(&txn);
		if (known)
			return true;
	}
	txn_read(&store->history, &txn);
	key_id(&key, id);
	known = txn_get(&txn, TABLE_SUMMARY, &key, &v);
	txn_abort(&txn);
	return known;
}
