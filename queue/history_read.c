#include "queue/match.h"
#include "queue/store_int.h"

/* Reading history, together with what is still in the lanes and their outboxes.
 *
 * A message that is known to some lane, or ended a moment ago, is found by its id without history
 * (history_merge, on the loop's thread, as part of store_load_detail). Everything that has to walk
 * history is done by the reader's thread, one question after the other, with read transactions of
 * its own; what it finds in two environments may be a moment apart, which shows at worst an event
 * twice, and such are dropped.
 *
 * A list is found in the index, newest id first. An index row has a hash only, so what it leads to
 * is compared once more. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

#define FIND_LOOK 300  /* index rows looked at for one page */
#define ACTS_LOOK 5000 /* acts looked at for one message, the latest of its life */
#define ACTS_MAX  50   /* told of one message */

static unsigned
index_of(const uint8_t *key)
{
	return (unsigned)be_get(key + STORE_ID_SIZE, 2);
}

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
	if (recipient.state == STORE_QUEUED) { /* one attempt of it */
		recipient_clear(&recipient);
		return;
	}
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
			    index_of(k.mv_data) >= OUTBOX_ACT_INDEX)
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

/* --- one message's life --- */

struct life {
	struct op op;
	struct queue_id id;
	struct store_message *message;
	struct queue_event *events;
	size_t count, size;
	history_on_life *on_life;
	void *arg;
};

static struct queue_event *
add_event(struct life *life, const char *what, msec_t when)
{
	struct queue_event *event;

	if (life->count == life->size) {
		life->size = life->size ? 2 * life->size : 16;
		life->events = xreallocarray(life->events, life->size, sizeof(*life->events));
	}
	event = &life->events[life->count++];
	memset(event, 0, sizeof(*event));
	snprintf(event->what, sizeof(event->what), "%s", what);
	event->when = when;
	return event;
}

static void
set_lane(char out[12], enum queue_lane lane)
{
	snprintf(out, 12, "%s", queue_lane_name(lane));
}

/* Two places may tell of the same attempt; there is one end, whatever its number. */
static bool
has_attempt(const struct life *life, const char *what, const char *address, unsigned attempt)
{
	const bool is_end = strcmp(what, "deferred") != 0;

	for (size_t i = 0; i < life->count; i++)
		if ((is_end || life->events[i].attempt == attempt) &&
		    strcmp(life->events[i].address, address) == 0 &&
		    strcmp(life->events[i].what, what) == 0)
			return true;
	return false;
}

static void
add_attempt(struct life *life, const struct store_recipient *recipient, unsigned attempt)
{
	const char *what =
	    recipient->state == STORE_QUEUED ? "deferred" : store_state_name(recipient->state);
	char address[ADDRESS_TEXT_SIZE];
	struct queue_event *event;

	address_format(&recipient->address, address, sizeof(address));
	address[sizeof(event->address) - 1] = '\0';
	if (has_attempt(life, what, address, attempt))
		return;
	event = add_event(life, what, recipient->when);
	strcpy(event->address, address);
	event->attempt = attempt;
	set_lane(event->lane, recipient->lane);
	snprintf(event->host, sizeof(event->host), "%s", recipient->host);
	snprintf(event->peer, sizeof(event->peer), "%s", recipient->peer);
	snprintf(event->tls, sizeof(event->tls), "%s", recipient->tls);
	snprintf(event->text, sizeof(event->text), "%s", recipient->reply);
}

static bool
is_same(const struct queue_event *a, const struct queue_event *b)
{
	return a->when == b->when && strcmp(a->what, b->what) == 0 &&
	       strcmp(a->lane, b->lane) == 0 && queue_id_equal(&a->other, &b->other);
}

static void
add_moment(struct life *life, const struct event *moment)
{
	static const char *const kinds[] = {"of a failure", "of a delay", "that it was relayed"};
	static const char *const names[] = {[EVENT_MOVED] = "moved",
	                                    [EVENT_NOTICE] = "notified",
	                                    [EVENT_ABOUT] = "generated",
	                                    [EVENT_REROUTED] = "rerouted"};
	const char *what = names[moment->kind];
	struct queue_event *event = add_event(life, what, moment->when);

	set_lane(event->lane, moment->lane);
	if (moment->kind == EVENT_MOVED) {
		set_lane(event->from, moment->from);
	} else if (moment->kind == EVENT_REROUTED) {
		snprintf(event->host, sizeof(event->host), "%.255s",
		         moment->next_hop[0] ? moment->next_hop : QUEUE_NEXT_HOP_DEFAULT);
		snprintf(event->text, sizeof(event->text), "%s", moment->why);
	} else {
		event->has_other = true;
		event->other = moment->other;
		snprintf(event->text, sizeof(event->text), "%s", kinds[moment->action]);
	}
	for (size_t i = 0; i + 1 < life->count; i++)
		if (is_same(&life->events[i], event)) {
			life->count--; /* two places told of it */
			break;
		}
}

/* The rows of the message in one table. */
static void
add_rows(struct life *life, struct lane *lane, enum table table)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;
	int rc;

	txn_read(lane, &txn);
	cursor = txn_cursor(&txn, table);
	key_id(&key, &life->id);
	k = (MDB_val){key.len, key.data};
	for (rc = cursor ? mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE) : MDB_NOTFOUND; rc == 0;
	     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
		const uint8_t *at = k.mv_data;
		unsigned index;
		struct store_recipient recipient;
		struct event moment;

		if (k.mv_size != OUTBOX_KEY_SIZE || memcmp(at, life->id.octets, STORE_ID_SIZE) != 0)
			break;
		index = index_of(at);
		if (index == OUTBOX_EVENT_INDEX) {
			if (event_decode(v.mv_data, v.mv_size, &moment))
				add_moment(life, &moment);
		} else if (index < OUTBOX_ACT_INDEX &&
		           recipient_decode(v.mv_data, v.mv_size, (uint16_t)index, &recipient)) {
			add_attempt(life, &recipient, (unsigned)be_get(at + STORE_ID_SIZE + 2, 4));
			recipient_clear(&recipient);
		}
	}
	if (cursor)
		mdb_cursor_close(cursor);
	txn_abort(&txn);
}

static bool
add_act(struct life *life, const MDB_val *v, msec_t end)
{
	struct queue_event *event;
	struct history_act act;

	if (!act_decode(v->mv_data, v->mv_size, &act) || act.when < life->message->created ||
	    act.when > end || !match_lasting(&act.selector, life->message))
		return false;
	for (size_t i = 0; i < life->count; i++)
		if (life->events[i].when == act.when && strcmp(life->events[i].what, act.what) == 0)
			return false;
	event = add_event(life, act.what, act.when);
	snprintf(event->host, sizeof(event->host), "%.255s", act.goal);
	snprintf(event->text, sizeof(event->text), "by %s%s%s", act.by, act.reason[0] ? ": " : "",
	         act.reason);
	return true;
}

/* What operators did that took the message while it lived, the latest first. */
static void
add_acts(struct life *life, struct lane *lane, enum table table, msec_t end)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	uint8_t from[STORE_ID_SIZE] = {0};
	size_t found = 0, looked = 0;
	MDB_val k, v;
	int rc;

	/* Behind the last that could be meant; an act is written a moment after it. */
	be_put(from, 6, (uint64_t)end + 1);
	txn_read(lane, &txn);
	cursor = txn_cursor(&txn, table);
	k = (MDB_val){sizeof(from), from};
	rc = cursor ? mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE) : MDB_NOTFOUND;
	if (cursor)
		rc = mdb_cursor_get(cursor, &k, &v, rc == 0 ? MDB_PREV : MDB_LAST);
	for (; rc == 0 && found < ACTS_MAX && looked < ACTS_LOOK;
	     rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV), looked++) {
		if (k.mv_size < 6 || (msec_t)be_get(k.mv_data, 6) < life->message->created)
			break;
		if (table == TABLE_OUTBOX && index_of(k.mv_data) != OUTBOX_ACT_INDEX)
			continue;
		found += add_act(life, &v, end);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	txn_abort(&txn);
}

static int
by_time(const void *a, const void *b)
{
	const struct queue_event *one = a, *other = b;

	return (one->when > other->when) - (one->when < other->when);
}

/* Where lanes and history were read a moment apart, the greatest time is the end. */
static msec_t
last_time(const struct life *life)
{
	msec_t last = life->message->created;

	for (size_t i = 0; i < life->count; i++)
		if (life->events[i].when > last)
			last = life->events[i].when;
	return last;
}

/* The last that is known of a recipient, which history may not have heard of. What was put off met
 * nobody: host and lane are those of the attempt before. */
static void
add_last(struct life *life, const struct store_recipient *recipient)
{
	struct store_recipient last = *recipient;
	char nobody[] = "";

	if (recipient->when == 0)
		return;
	if (recipient->state == STORE_QUEUED && !life->message->finished &&
	    strncmp(recipient->reply, STORE_PUT_OFF, sizeof(STORE_PUT_OFF) - 1) == 0) {
		last.host = nobody;
		last.peer[0] = last.tls[0] = '\0';
		last.lane = life->message->lane;
	}
	add_attempt(life, &last, last.attempts);
}

static int
life_read(struct op *op)
{
	struct life *life = (struct life *)op;
	struct store *store = op->store;
	struct store_message *message = store_load_detail(store, &life->id);

	life->message = message;
	if (message == NULL)
		return 0;
	if (!message->generated) {
		struct queue_event *event = add_event(life, "accepted", message->created);

		snprintf(event->text, sizeof(event->text), "%u recipient%s", message->total,
		         message->total == 1 ? "" : "s");
	}
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		add_rows(life, &store->lanes[i], TABLE_OUTBOX);
	add_rows(life, &store->history, TABLE_OUTCOME);
	for (size_t i = 0; i < message->recipient_count; i++)
		add_last(life, &message->recipients[i]);
	const msec_t end = message->finished ? last_time(life) : clock_wall();
	add_acts(life, &store->lanes[QUEUE_FRESH], TABLE_OUTBOX, end);
	add_acts(life, &store->history, TABLE_ACT, end);
	qsort(life->events, life->count, sizeof(*life->events), by_time);
	if (message->finished)
		add_event(life, "ended", end);
	return 0;
}

static void
life_complete(struct op *op)
{
	struct life *life = (struct life *)op;

	life->on_life(life->arg, life->message, life->events, life->count);
	free(life);
}

void
history_life(struct store *store, const struct queue_id *id, history_on_life *on_life, void *arg)
{
	struct life *life = xcalloc(1, sizeof(*life));

	life->id = *id;
	life->on_life = on_life;
	life->arg = arg;
	life->op.prepare = life_read;
	life->op.complete = life_complete;
	store_post(store, &store->reader, &life->op);
}

/* --- lists --- */

struct find {
	struct op op;
	struct history_query query;
	size_t max;
	struct store_message **messages;
	size_t count, size, recipients;
	bool more;
	struct queue_id last;
	history_on_page *on_page;
	void *arg;
};

bool
history_concerns(const struct history_query *query, const struct store_message *message,
                 size_t recipient)
{
	char text[ADDRESS_FOLD_SIZE];

	switch (query->by) {
	case HISTORY_BY_ADDRESS:
		return strcmp(address_fold(&message->from, text), query->text) == 0 ||
		       strcmp(address_fold(&message->recipients[recipient].address, text),
		              query->text) == 0;
	case HISTORY_BY_MESSAGE_ID:
		return strcmp(message->message_id, query->text) == 0;
	default:
		return strcmp(message->account, query->text) == 0;
	}
}

static void
take(struct find *find, struct store_message *message)
{
	const struct queue_trace_place *from = &find->query.from;
	const bool is_first = from->is_set && queue_id_equal(&from->id, &message->id);
	size_t concerned = 0;

	for (size_t i = 0; i < message->recipient_count; i++)
		concerned += history_concerns(&find->query, message, i) &&
		             (!is_first || message->recipients[i].index >= from->index);
	if (concerned == 0) { /* another text with the same hash */
		store_message_free(message);
		return;
	}
	if (find->count == find->size) {
		find->size = find->size ? 2 * find->size : 16;
		find->messages =
		    xreallocarray(find->messages, find->size, sizeof(struct store_message *));
	}
	find->messages[find->count++] = message;
	find->recipients += concerned;
}

static int
find_read(struct op *op)
{
	struct find *find = (struct find *)op;
	const struct queue_trace_place *from = &find->query.from;
	struct queue_id start = from->id;
	const size_t front = 9;
	size_t looked = 0;
	struct lane_txn txn;
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;
	int rc;

	if (!from->is_set)
		memset(start.octets, 0xff, sizeof(start.octets));
	key_index(&key, find->query.by, find->query.text, &start);
	txn_read(&op->store->history, &txn);
	cursor = txn_cursor(&txn, TABLE_INDEX);
	k = (MDB_val){key.len, key.data};
	rc = cursor ? mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE) : MDB_NOTFOUND;
	if (cursor &&
	    (rc != 0 || k.mv_size != key.len || memcmp(k.mv_data, key.data, key.len) != 0))
		rc = mdb_cursor_get(cursor, &k, &v, rc == 0 ? MDB_PREV : MDB_LAST);
	for (; rc == 0; rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV)) {
		struct store_message *message;

		if (k.mv_size != key.len || memcmp(k.mv_data, key.data, front) != 0)
			break;
		if (find->recipients >= find->max || looked++ == FIND_LOOK) {
			find->more = true;
			break;
		}
		memcpy(find->last.octets, (const uint8_t *)k.mv_data + front, STORE_ID_SIZE);
		if ((msec_t)be_get(find->last.octets, 6) < find->query.since)
			break;
		if ((message = store_load_detail(op->store, &find->last)) != NULL)
			take(find, message);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	txn_abort(&txn);
	return 0;
}

static void
find_complete(struct op *op)
{
	struct find *find = (struct find *)op;

	find->on_page(find->arg, find->messages, find->count, find->more, &find->last);
	free(find->messages);
	free(find);
}

void
history_find(struct store *store, const struct history_query *query, size_t max,
             history_on_page *on_page, void *arg)
{
	struct find *find = xcalloc(1, sizeof(*find));

	find->query = *query;
	find->max = max;
	find->on_page = on_page;
	find->arg = arg;
	find->op.prepare = find_read;
	find->op.complete = find_complete;
	store_post(store, &store->reader, &find->op);
}
