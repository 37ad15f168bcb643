#include "queue/store_int.h"

/* Both sides of conservation, counted anew; in a thread of its own, so that acceptance and delivery
 * go on. What each record and body is worth is check.c's to say.
 *
 * The three lanes are read in one transaction each, all begun by the loop's thread without a return
 * to the loop in between, fresh first. A move advances only through the loop, so between these
 * snapshots any message makes at most one step: it is seen in its source, in its target, or in
 * both; then only the higher generation counts. Counters come from the same snapshots. A snapshot
 * keeps every page that is replaced meanwhile, so it ends with the counting. */

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

struct auditor {
	struct op op;
	struct auditor *next; /* that waits for this one */
	struct store *store;
	struct lane_txn txn[QUEUE_LANES];
	struct queue_audit *out; /* = &result */
	struct queue_audit result;
	store_on_audit *on_audit;
	void *arg;
};

/* True when a copy of a higher generation is in another lane. */
static bool
is_superseded(struct auditor *auditor, const struct store_message *message)
{
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct store_message *other;
		bool higher;

		if (i == (unsigned)message->lane)
			continue;
		other = txn_load(&auditor->txn[i], &message->id, false);
		higher = other && other->generation > message->generation;
		store_message_free(other);
		if (higher)
			return true;
	}
	return false;
}

static void
audit_messages(struct auditor *auditor, unsigned lane)
{
	struct lane_txn *txn = &auditor->txn[lane];
	struct queue_audit *out = auditor->out;
	MDB_cursor *cursor = txn_cursor(txn, TABLE_MESSAGE);
	MDB_val k, v;

	while (cursor && mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		struct store_message *message = record_decode(v.mv_data, v.mv_size);

		if (message == NULL || k.mv_size != STORE_ID_SIZE) {
			out->orphans++;
			store_message_free(message);
			continue;
		}
		memcpy(message->id.octets, k.mv_data, STORE_ID_SIZE);
		message->lane = (enum queue_lane)lane;
		if (!is_superseded(auditor, message)) {
			out->messages++;
			out->queued += message->unfinished;
		}
		store_message_free(message);
	}
	if (cursor)
		mdb_cursor_close(cursor);
}

/* As many rows as that table has. */
static uint64_t
entries(struct lane_txn *txn, enum table table)
{
	MDB_stat stat = {0};

	if ((txn->lane->tables & (1u << table)) && txn->rc == 0)
		txn->rc = mdb_stat(txn->txn, txn->lane->dbi[table], &stat);
	return stat.ms_entries;
}

/* The reader's thread. */
static int
audit_run(struct op *op)
{
	struct auditor *auditor = (struct auditor *)op;
	struct queue_audit *out = auditor->out;
	bool failed = false;

	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct lane_txn *txn = &auditor->txn[i];

		if (txn->rc) {
			failed = true;
			continue;
		}
		out->accepted += txn_counter(txn, COUNTER_ACCEPTED);
		out->generated += txn_counter(txn, COUNTER_GENERATED);
		out->delivered += txn_counter(txn, COUNTER_DELIVERED);
		out->bounced += txn_counter(txn, COUNTER_BOUNCED);
		out->expired += txn_counter(txn, COUNTER_EXPIRED);
		out->removed += txn_counter(txn, COUNTER_REMOVED);
		audit_messages(auditor, i);
		const uint64_t messages = entries(txn, TABLE_MESSAGE);
		out->orphans += messages != entries(txn, TABLE_DUE) + entries(txn, TABLE_HELD) ||
		                messages != entries(txn, TABLE_ACCOUNT);
		failed |= txn->rc != 0;
	}
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		txn_abort(&auditor->txn[i]);
	out->conserved = !failed && out->orphans == 0 &&
	                 out->accepted + out->generated == out->delivered + out->bounced +
	                                                       out->expired + out->removed +
	                                                       out->queued;
	return 0;
}

static void
audit_start(struct auditor *auditor)
{
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		txn_read(&auditor->store->lanes[i], &auditor->txn[i]);
	store_post(auditor->store, &auditor->store->audit, &auditor->op);
}

static void
audit_complete(struct op *op)
{
	struct auditor *auditor = (struct auditor *)op;
	struct store *store = auditor->store;

	store->auditor = auditor->next;
	if (store->auditor)
		audit_start(store->auditor);
	auditor->on_audit(auditor->arg, auditor->out);
	free(auditor);
}

void
store_audit(struct store *store, store_on_audit *on_audit, void *arg)
{
	struct auditor *auditor = xcalloc(1, sizeof(*auditor)), **last = &store->auditor;

	auditor->store = store;
	auditor->out = &auditor->result;
	auditor->on_audit = on_audit;
	auditor->arg = arg;
	auditor->op.prepare = audit_run;
	auditor->op.complete = audit_complete;
	while (*last)
		last = &(*last)->next;
	*last = auditor;
	if (store->auditor == auditor)
		audit_start(auditor);
}
