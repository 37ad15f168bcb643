#include "queue/store_int.h"

/* From the outbox of a lane to history.
 *
 * The transaction that accepts, attempts, ends or moves writes what history is to know to the
 * outbox of its own lane, so nothing depends on a second environment. The history writer copies a
 * bounded batch of rows under the same keys and commits; then the lane's writer deletes those rows,
 * but only where the value is still the one that was copied (the summary of a message may have been
 * written anew meanwhile; the next batch takes that one). A crash in between copies the same rows
 * again, which changes nothing. One sweep runs per lane at a time.
 *
 * An acceptance or a move costs the lane one row without a value: the history writer looks the
 * record up in the lane. When it is not there any more, the message has moved, and the lane it went
 * to has such a row too. What is indexed comes from the record, and from each recipient's row.
 *
 * Two lanes' outboxes may tell of one message in any order, so a summary replaces only what is
 * older: of a lower generation, or with more unfinished recipients.
 *
 * A message's history is kept from its end on, in the order of ends, and goes as a whole. The bound
 * on octets takes the oldest ends first; where none are left, what is queued fills it, and loses
 * its deferrals. Forgetting takes pages before it gives any back, so nothing is copied into the
 * last part of the map. When history fails, rows stay in the outboxes; of more than outbox_max the
 * oldest are given up, because mail does not wait for history. */

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "core/log.h"
#include "core/mem.h"

#define SWEEP_ROWS  200
#define SWEEP_PUTS  600 /* of one batch, indexes included */
#define DELETE_ROWS 100 /* of one change in the lane, which others wait behind */
#define SWEEP_REST  10  /* ticks until the next sweep after one that failed */
#define PRUNE_ENDED 200 /* messages of one batch, each on pages of its own in the indexes */
#define TRIM_ROWS   2000
#define TRIM_REST   (60 * 60 * 1000) /* msec, after one that was not enough */
#define MAP_SHARE   75 /* percent of its map that history may fill, whatever it is allowed */

struct copied {
	uint8_t key[OUTBOX_KEY_SIZE];
	uint64_t value; /* XXH3-64 of what was copied */
};
struct sweep {
	struct op op;
	enum queue_lane from;
	size_t count, deleted; /* rows copied, and of these deleted */
	bool more;
	struct copied list[SWEEP_ROWS];
};

static unsigned
index_of(const uint8_t *key)
{
	return (unsigned)be_get(key + STORE_ID_SIZE, 2);
}

/* What is being copied. */
struct copy {
	struct lane_txn *txn;   /* of history */
	struct lane_txn source; /* a read transaction of the lane */
	size_t puts;
	/* The last end among the recipients of the message whose rows come just now: they stand
	 * before its summary. */
	struct queue_id id;
	msec_t ended;
};

static void
put(struct copy *copy, enum table table, const struct key *key, const void *data, size_t len)
{
	txn_put(copy->txn, table, key, data, len);
	copy->puts++;
}

static void
put_index(struct copy *copy, enum history_by by, const char *text, const struct queue_id *id)
{
	struct key key;

	if (text[0] == '\0')
		return;
	key_index(&key, by, text, id);
	put(copy, TABLE_INDEX, &key, "", 0);
}

static void
index_address(struct copy *copy, const struct address *address, const struct queue_id *id)
{
	char text[ADDRESS_FOLD_SIZE];

	put_index(copy, HISTORY_BY_ADDRESS, address_fold(address, text), id);
}

static struct store_message *
known_summary(struct lane_txn *txn, const struct queue_id *id)
{
	struct key key;
	MDB_val v;

	key_id(&key, id);
	return txn_get(txn, TABLE_SUMMARY, &key, &v) ? record_decode(v.mv_data, v.mv_size) : NULL;
}

static void
copy_summary(struct copy *copy, const struct queue_id *id, MDB_val v)
{
	struct store_message *message, *known;
	struct key key;

	key_id(&key, id);
	if (v.mv_size == 0 && !txn_get(&copy->source, TABLE_MESSAGE, &key, &v))
		return; /* it has moved */
	message = record_decode(v.mv_data, v.mv_size);
	if (message == NULL)
		return;
	known = known_summary(copy->txn, id);
	if (known == NULL) {
		struct store_message *whole = txn_load(&copy->source, id, true);

		if (copy->source.rc == MDB_CORRUPTED)
			copy->source.rc = 0; /* one that does not read holds up no others */
		index_address(copy, &message->from, id);
		put_index(copy, HISTORY_BY_MESSAGE_ID, message->message_id, id);
		put_index(copy, HISTORY_BY_ACCOUNT, message->account, id);
		for (size_t i = 0; whole && i < whole->recipient_count; i++)
			index_address(copy, &whole->recipients[i].address, id);
		store_message_free(whole);
	}
	if (known == NULL || known->generation < message->generation ||
	    (known->generation == message->generation && known->unfinished >= message->unfinished))
		put(copy, TABLE_SUMMARY, &key, v.mv_data, v.mv_size);
	if (message->unfinished == 0 && (known == NULL || known->unfinished)) {
		const bool is_told = copy->ended && queue_id_equal(&copy->id, id);

		key_due(&key, is_told ? copy->ended : clock_wall(), id);
		put(copy, TABLE_ENDED, &key, "", 0);
	}
	store_message_free(known);
	store_message_free(message);
}

static void
note_end(struct copy *copy, const struct queue_id *id, const struct store_recipient *recipient)
{
	if (!queue_id_equal(&copy->id, id)) {
		copy->id = *id;
		copy->ended = 0;
	}
	if (recipient->state != STORE_QUEUED && recipient->when > copy->ended)
		copy->ended = recipient->when;
}

static void
copy_row(struct copy *copy, const uint8_t *outbox_key, MDB_val v)
{
	const unsigned index = index_of(outbox_key);
	struct store_recipient recipient;
	struct queue_id id;
	struct key key = {.len = OUTBOX_KEY_SIZE};

	memcpy(id.octets, outbox_key, STORE_ID_SIZE);
	memcpy(key.data, outbox_key, OUTBOX_KEY_SIZE);
	if (index == OUTBOX_SUMMARY_INDEX) {
		copy_summary(copy, &id, v);
		return;
	}
	if (index == OUTBOX_ACT_INDEX) {
		key_id(&key, &id);
		put(copy, TABLE_ACT, &key, v.mv_data, v.mv_size);
		return;
	}
	put(copy, TABLE_OUTCOME, &key, v.mv_data, v.mv_size);
	if (index != OUTBOX_EVENT_INDEX &&
	    recipient_decode(v.mv_data, v.mv_size, (uint16_t)index, &recipient)) {
		index_address(copy, &recipient.address, &id);
		note_end(copy, &id, &recipient);
		recipient_clear(&recipient);
	}
}

static enum store_result
sweep_copy(struct op *op, struct lane_txn *txn)
{
	struct sweep *sweep = (struct sweep *)op;
	struct copy copy = {.txn = txn};
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc = 0;

	sweep->count = sweep->deleted = 0;
	sweep->more = false;
	if (!txn_has_room(txn, true))
		return op_fail(op, MDB_MAP_FULL);
	txn_read(&op->store->lanes[sweep->from], &copy.source);
	cursor = txn_cursor(&copy.source, TABLE_OUTBOX);
	while (cursor && txn->rc == 0 && copy.source.rc == 0 &&
	       (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		struct copied *copied = &sweep->list[sweep->count];

		if (k.mv_size != OUTBOX_KEY_SIZE) {
			rc = MDB_CORRUPTED;
			break;
		}
		if (sweep->count == SWEEP_ROWS || copy.puts >= SWEEP_PUTS) {
			sweep->more = true;
			break;
		}
		memcpy(copied->key, k.mv_data, OUTBOX_KEY_SIZE);
		copied->value = XXH3_64bits(v.mv_data, v.mv_size);
		copy_row(&copy, copied->key, v);
		sweep->count++;
	}
	if (txn->rc == 0)
		txn->rc = copy.source.rc ? copy.source.rc : rc == MDB_NOTFOUND ? 0 : rc;
	if (cursor)
		mdb_cursor_close(cursor);
	txn_abort(&copy.source);
	return STORE_OK;
}

static size_t
end_of_deletion(const struct sweep *sweep)
{
	const size_t left = sweep->count - sweep->deleted;

	return sweep->deleted + (left < DELETE_ROWS ? left : DELETE_ROWS);
}

static enum store_result
sweep_delete(struct op *op, struct lane_txn *txn)
{
	struct sweep *sweep = (struct sweep *)op;

	for (size_t i = sweep->deleted; i < end_of_deletion(sweep); i++) {
		struct key key = {.len = OUTBOX_KEY_SIZE};
		MDB_val v;

		memcpy(key.data, sweep->list[i].key, OUTBOX_KEY_SIZE);
		if (txn_get(txn, TABLE_OUTBOX, &key, &v) &&
		    XXH3_64bits(v.mv_data, v.mv_size) == sweep->list[i].value)
			txn_del(txn, TABLE_OUTBOX, &key);
	}
	return STORE_OK;
}

/* --- too many rows while history fails --- */

struct shed {
	struct op op;
	size_t excess, rows; /* to be given up in this batch, and that were */
};

static size_t
outbox_rows(struct lane *lane)
{
	struct lane_txn txn;
	MDB_stat stat = {0};

	txn_read(lane, &txn);
	if (txn.rc == 0)
		(void)mdb_stat(txn.txn, lane->dbi[TABLE_OUTBOX], &stat);
	txn_abort(&txn);
	return stat.ms_entries;
}

static enum store_result
shed_apply(struct op *op, struct lane_txn *txn)
{
	struct shed *shed = (struct shed *)op;
	MDB_cursor *cursor = txn_cursor(txn, TABLE_OUTBOX);
	MDB_val k, v;

	for (shed->rows = 0; cursor && shed->rows < shed->excess && txn->rc == 0; shed->rows++) {
		if (mdb_cursor_get(cursor, &k, &v, MDB_FIRST) != 0)
			break;
		txn->rc = mdb_cursor_del(cursor, 0);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	return STORE_OK;
}

static void shed_again(struct store *store, enum queue_lane from, struct shed *shed);

static void
shed_complete(struct op *op)
{
	struct shed *shed = (struct shed *)op;
	struct store *store = op->store;

	if (op->result == STORE_OK)
		log_error("-", "history-lost", "lane=%s rows=%zu", op->lane->name, shed->rows);
	if (op->result == STORE_OK && !store->closing)
		shed_again(store, (enum queue_lane)(op->lane - store->lanes), shed);
	else
		free(shed);
}

/* The oldest of what nobody takes, a batch at a time. Takes shed. */
static void
shed_again(struct store *store, enum queue_lane from, struct shed *shed)
{
	const size_t rows = outbox_rows(&store->lanes[from]);

	if (rows <= store->outbox_max) {
		free(shed);
		return;
	}
	shed->excess = rows - store->outbox_max;
	if (shed->excess > SWEEP_PUTS)
		shed->excess = SWEEP_PUTS;
	shed->op.weight = shed->excess;
	shed->op.apply = shed_apply;
	shed->op.complete = shed_complete;
	store_post(store, &store->lanes[from], &shed->op);
}

static void
sweep_complete(struct op *op)
{
	struct sweep *sweep = (struct sweep *)op;
	struct store *store = op->store;
	enum queue_lane from = sweep->from;

	if (op->result != STORE_OK) {
		/* The rows are safe where they are, and tried again later. */
		store->dirty[from] = true;
		store->sweeping[from] = false;
		store->sweep_rest = SWEEP_REST;
		if (op->apply == sweep_copy && !store->closing)
			shed_again(store, from, xcalloc(1, sizeof(struct shed)));
		free(sweep);
		return;
	}
	if (op->apply == sweep_delete)
		sweep->deleted = end_of_deletion(sweep);
	if (sweep->deleted < sweep->count) {
		op->apply = sweep_delete;
		op->weight = DELETE_ROWS;
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

/* --- what operators do --- */

struct note {
	struct op op;
	struct queue_id id;
	struct history_act act;
};

static enum store_result
note_apply(struct op *op, struct lane_txn *txn)
{
	struct note *note = (struct note *)op;
	struct key key;
	struct buf buf;

	buf_init(&buf);
	act_encode(&note->act, &buf);
	key_outbox(&key, &note->id, OUTBOX_ACT_INDEX, 0);
	txn_put(txn, TABLE_OUTBOX, &key, buf.data, buf.len);
	buf_clear(&buf);
	return STORE_OK;
}

static void
note_complete(struct op *op)
{
	op->store->dirty[QUEUE_FRESH] |= op->result == STORE_OK;
	free(op);
}

void
history_note(struct store *store, const struct history_act *act)
{
	struct note *note = xcalloc(1, sizeof(*note));

	queue_id_make(&note->id, act->when);
	note->act = *act;
	note->op.weight = 1;
	note->op.apply = note_apply;
	note->op.complete = note_complete;
	store_post(store, &store->lanes[QUEUE_FRESH], &note->op);
}

/* --- forgetting --- */

struct prune {
	struct op op;
	msec_t before;
	uint64_t octets; /* that it may fill */
	bool more, too_much;
	bool may_trim; /* from there on */
	struct key trimmed;
};

static void
delete_index(struct lane_txn *txn, enum history_by by, const char *text, const struct queue_id *id)
{
	struct key key;

	key_index(&key, by, text, id);
	txn_del(txn, TABLE_INDEX, &key);
}

/* All that a message has, but for its place in the order of ends. */
static void
forget(struct lane_txn *txn, const struct queue_id *id)
{
	struct store_message *message = known_summary(txn, id);
	char text[ADDRESS_FOLD_SIZE];
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;

	if (message) {
		delete_index(txn, HISTORY_BY_ADDRESS, address_fold(&message->from, text), id);
		delete_index(txn, HISTORY_BY_MESSAGE_ID, message->message_id, id);
		delete_index(txn, HISTORY_BY_ACCOUNT, message->account, id);
		store_message_free(message);
	}
	key_id(&key, id);
	txn_del(txn, TABLE_SUMMARY, &key);
	cursor = txn_cursor(txn, TABLE_OUTCOME);
	while (cursor && txn->rc == 0) {
		struct store_recipient recipient;

		k = (MDB_val){key.len, key.data};
		if (mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE) != 0 ||
		    k.mv_size != OUTBOX_KEY_SIZE || memcmp(k.mv_data, id, STORE_ID_SIZE) != 0)
			break;
		if (index_of(k.mv_data) != OUTBOX_EVENT_INDEX &&
		    recipient_decode(v.mv_data, v.mv_size, 0, &recipient)) {
			delete_index(txn, HISTORY_BY_ADDRESS,
			             address_fold(&recipient.address, text), id);
			recipient_clear(&recipient);
		}
		txn->rc = mdb_cursor_del(cursor, 0);
	}
	if (cursor)
		mdb_cursor_close(cursor);
}

/* Whether older acts may be left. */
static bool
prune_acts(struct lane_txn *txn, msec_t before)
{
	MDB_cursor *cursor = txn_cursor(txn, TABLE_ACT);
	MDB_val k, v;
	bool more = cursor != NULL;

	for (unsigned i = 0; more && i < PRUNE_ENDED && txn->rc == 0; i++) {
		more = mdb_cursor_get(cursor, &k, &v, MDB_FIRST) == 0 &&
		       (msec_t)be_get(k.mv_data, 6) < before;
		if (more)
			txn->rc = mdb_cursor_del(cursor, 0);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	return more;
}

/* Deferrals of what is queued, the oldest mail's first, behind *at; false at the end. */
static bool
trim(struct lane_txn *txn, struct key *at)
{
	MDB_cursor *cursor = txn_cursor(txn, TABLE_OUTCOME);
	MDB_val k = {at->len, at->data}, v;
	int rc = MDB_NOTFOUND;

	if (cursor)
		rc = mdb_cursor_get(cursor, &k, &v, at->len ? MDB_SET_RANGE : MDB_FIRST);
	for (unsigned i = 0; rc == 0 && i < TRIM_ROWS && txn->rc == 0; i++) {
		struct store_recipient recipient;
		bool deferred = false;

		at->len = OUTBOX_KEY_SIZE;
		memcpy(at->data, k.mv_data, OUTBOX_KEY_SIZE);
		if (index_of(k.mv_data) != OUTBOX_EVENT_INDEX &&
		    recipient_decode(v.mv_data, v.mv_size, 0, &recipient)) {
			deferred = recipient.state == STORE_QUEUED;
			recipient_clear(&recipient);
		}
		if (deferred)
			txn->rc = mdb_cursor_del(cursor, 0);
		rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	return rc == 0;
}

static enum store_result
prune_apply(struct op *op, struct lane_txn *txn)
{
	struct prune *prune = (struct prune *)op;
	MDB_cursor *cursor = txn_cursor(txn, TABLE_ENDED);
	MDB_val k, v;
	bool more = cursor != NULL;

	prune->too_much = false;
	for (unsigned i = 0; more && i < PRUNE_ENDED && txn->rc == 0; i++) {
		struct queue_id id;

		prune->too_much = txn_used(txn) > prune->octets;
		const bool any = mdb_cursor_get(cursor, &k, &v, MDB_FIRST) == 0;
		more = any && (prune->too_much || (msec_t)be_get(k.mv_data, 8) < prune->before);
		if (!any && prune->too_much && prune->may_trim) {
			prune->may_trim = trim(txn, &prune->trimmed);
			prune->too_much = txn_used(txn) > prune->octets;
			more = prune->too_much && prune->may_trim;
		}
		if (!any || !more)
			break;
		memcpy(id.octets, (const uint8_t *)k.mv_data + 8, STORE_ID_SIZE);
		if ((txn->rc = mdb_cursor_del(cursor, 0)) == 0)
			forget(txn, &id);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	prune->more = prune_acts(txn, prune->before) || more;
	return STORE_OK;
}

static void
prune_complete(struct op *op)
{
	struct prune *prune = (struct prune *)op;

	if (op->result == STORE_OK && prune->more && !op->store->closing) {
		if (prune->too_much) {
			store_post(op->store, &op->store->history, op);
		} else {
			/* What is too old is in no hurry: the disk is others', too. */
			op->next = op->store->again;
			op->store->again = op;
		}
		return;
	}
	if (op->result == STORE_OK && prune->too_much)
		op->store->trimmed = clock_mono(); /* all that it could do */
	op->store->pruning = false;
	free(prune);
}

void
store_keep_history(struct store *store, msec_t keep, uint64_t size)
{
	store->opts.history_keep = keep;
	store->opts.history_size = size;
}

void
history_prune(struct store *store, msec_t now)
{
	const uint64_t share = store->opts.map_size / 100 * MAP_SHARE;
	struct prune *prune;

	if (store->pruning || store->closing || store->opts.history_keep <= 0)
		return;
	store->pruning = true;
	prune = xcalloc(1, sizeof(*prune));
	prune->before = now - store->opts.history_keep;
	prune->may_trim = clock_mono() - store->trimmed >= TRIM_REST;
	prune->octets = store->opts.history_size && store->opts.history_size < share
	                    ? store->opts.history_size
	                    : share;
	prune->op.weight = 10 * PRUNE_ENDED;
	prune->op.apply = prune_apply;
	prune->op.complete = prune_complete;
	store_post(store, &store->history, &prune->op);
}

/* --- what older versions kept --- */

#define UPGRADE_ROWS 20000 /* of one transaction */

/* Gives at most UPGRADE_ROWS of the finished messages behind *after their place; false at the end,
 * which it notes. */
static bool
upgrade_some(struct lane_txn *txn, struct queue_id *after)
{
	MDB_cursor *cursor = txn_cursor(txn, TABLE_SUMMARY);
	struct key key;
	MDB_val k, v;
	int rc = MDB_NOTFOUND;

	key_id(&key, after);
	k = (MDB_val){key.len, key.data};
	if (cursor)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
	for (unsigned i = 0; rc == 0 && i < UPGRADE_ROWS && txn->rc == 0; i++) {
		struct store_message *message = record_decode(v.mv_data, v.mv_size);

		memcpy(after->octets, k.mv_data, STORE_ID_SIZE);
		key_due(&key, (msec_t)be_get(after->octets, 6), after);
		if (message && message->unfinished == 0)
			txn_put(txn, TABLE_ENDED, &key, "", 0);
		store_message_free(message);
		rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	if (rc == 0)
		return true;
	key_text(&key, "ends");
	txn_put(txn, TABLE_META, &key, "", 0);
	return false;
}

int
history_upgrade(struct store *store)
{
	struct queue_id after = {{0}};
	struct lane_txn txn;
	struct key key;
	MDB_val v;
	bool more;

	txn_read(&store->history, &txn);
	key_text(&key, "ends");
	more = !txn_get(&txn, TABLE_META, &key, &v);
	txn_abort(&txn);
	while (more) {
		txn_write(&store->history, &txn);
		more = upgrade_some(&txn, &after);
		if (txn_commit(&txn) != 0)
			return txn.rc;
	}
	return 0;
}
