#include "queue/store_int.h"

/* Both sides of conservation, counted anew, and every body read; in a thread of its own, so that
 * acceptance and delivery go on.
 *
 * The three lanes are read in one transaction each, all begun by the loop's thread without a return
 * to the loop in between, fresh first. A move advances only through the loop, so between these
 * snapshots any message makes at most one step: it is seen in its source, in its target, or in
 * both; then only the higher generation counts. Counters come from the same snapshots.
 *
 * A snapshot keeps every page that is replaced meanwhile, so it ends with the counting: what bodies
 * there are is noted down, and they are read afterwards. Writers may by then have removed a body
 * whose message has ended: a body is bad only if its record is still there after reading it. */

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

struct noted { /* a body to read */
	struct queue_id id;
	struct store_body body;
};
struct auditor {
	struct op op;
	struct auditor *next; /* that waits for this one */
	struct store *store;
	struct lane_txn txn[QUEUE_LANES];
	struct queue_audit *out; /* = &result */
	struct queue_audit result;
	struct noted *noted;
	size_t count, size;
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
note_body(struct auditor *auditor, const struct store_message *message)
{
	if (auditor->count == auditor->size) {
		auditor->size = auditor->size ? 2 * auditor->size : 64;
		auditor->noted =
		    xreallocarray(auditor->noted, auditor->size, sizeof(*auditor->noted));
	}
	auditor->noted[auditor->count++] = (struct noted){message->id, message->body};
}

static void
check_body(struct auditor *auditor, const struct noted *noted)
{
	char text[QUEUE_ID_TEXT_SIZE];
	enum queue_lane lane;

	if (body_verify(&auditor->store->segments, &noted->id, &noted->body) != 0) {
		if (!store_find(auditor->store, &noted->id, &lane) || lane == QUEUE_LANES)
			return;
		auditor->out->bodies_bad++;
		log_error(queue_id_format(&noted->id, text), "body-bad",
		          "segment=%llu offset=%llu size=%llu",
		          (unsigned long long)noted->body.segment,
		          (unsigned long long)noted->body.offset,
		          (unsigned long long)noted->body.size);
	}
	auditor->out->bodies_checked++;
}

static void
audit_messages(struct auditor *auditor, unsigned lane)
{
	struct lane_txn *txn = &auditor->txn[lane];
	struct queue_audit *out = auditor->out;
	MDB_cursor *cursor = txn_cursor(txn, TABLE_MESSAGE);
	MDB_val k, v;

	while (cursor && mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		struct store_message *message;
		struct queue_id id;
		struct key key;
		uint32_t unfinished = 0;

		memcpy(id.octets, k.mv_data, STORE_ID_SIZE);
		message = txn_load(txn, &id, true);
		if (message == NULL) {
			out->orphans++;
			txn->rc = 0;
			continue;
		}
		key_due(&key, message->due, &id);
		if (!txn_get(txn, table_due(message), &key, &v))
			out->orphans++;
		key_account(&key, message->account, &id);
		if (!txn_get(txn, TABLE_ACCOUNT, &key, &v))
			out->orphans++;
		for (size_t i = 0; i < message->recipient_count; i++) {
			if (message->recipients[i].state != STORE_QUEUED)
				continue;
			unfinished++;
			if (has_domains(txn->lane) &&
			    !txn_has_domain(txn, message->recipients[i].address.domain, &id))
				out->orphans++;
		}
		if (unfinished != message->unfinished || unfinished == 0)
			out->orphans++;
		if (!is_superseded(auditor, message)) {
			out->messages++;
			out->queued += unfinished;
			note_body(auditor, message);
		}
		store_message_free(message);
	}
	if (cursor)
		mdb_cursor_close(cursor);
}

/* Rows whose id, at_end octets before their end or at the front, has no record. */
static void
audit_rows(struct auditor *auditor, unsigned lane, enum table table)
{
	struct lane_txn *txn = &auditor->txn[lane];
	MDB_cursor *cursor = txn_cursor(txn, table);
	MDB_val k, v;

	while (cursor && mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		bool front = table == TABLE_RECIPIENT || table == TABLE_PREFIX;
		struct key key = {.len = STORE_ID_SIZE};

		if (k.mv_size < STORE_ID_SIZE) {
			auditor->out->orphans++;
			continue;
		}
		memcpy(key.data,
		       (const uint8_t *)k.mv_data + (front ? 0 : k.mv_size - STORE_ID_SIZE),
		       STORE_ID_SIZE);
		if (!txn_get(txn, TABLE_MESSAGE, &key, &v))
			auditor->out->orphans++;
	}
	if (cursor)
		mdb_cursor_close(cursor);
}

/* The auditor's thread. */
static int
audit_run(struct op *op)
{
	static const enum table tables[] = {TABLE_RECIPIENT, TABLE_PREFIX, TABLE_DUE,
	                                    TABLE_ACCOUNT,   TABLE_HELD,   TABLE_DOMAIN};
	struct auditor *auditor = (struct auditor *)op;
	struct queue_audit *out = auditor->out;
	bool failed = false;

	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct lane_txn *txn = &auditor->txn[i];
		MDB_stat rows, dues, helds = {0};

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
		for (size_t t = 0; t < sizeof(tables) / sizeof(*tables); t++)
			if (txn->lane->tables & (1u << tables[t]))
				audit_rows(auditor, i, tables[t]);
		/* One due row each: a second one would have passed as belonging to a record. */
		if (mdb_stat(txn->txn, txn->lane->dbi[TABLE_MESSAGE], &rows) != 0 ||
		    mdb_stat(txn->txn, txn->lane->dbi[TABLE_DUE], &dues) != 0 ||
		    (i == QUEUE_FRESH &&
		     mdb_stat(txn->txn, txn->lane->dbi[TABLE_HELD], &helds) != 0) ||
		    rows.ms_entries != dues.ms_entries + helds.ms_entries)
			out->orphans++;
		failed |= txn->rc != 0;
	}
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		txn_abort(&auditor->txn[i]);
	for (size_t i = 0; i < auditor->count && !auditor->store->closing; i++)
		check_body(auditor, &auditor->noted[i]);
	out->conserved = !failed && out->bodies_bad == 0 && out->orphans == 0 &&
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
	free(auditor->noted);
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
