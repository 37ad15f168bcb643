/* History: what the outboxes tell reaches it once, in whatever order and however often it is told;
 * it forgets by time and by size as a whole; and mail does not wait for it. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "core/clock.h"
#include "core/loop.h"
#include "core/mem.h"
#include "queue/store_int.h"
#include "t/unit/tap.h"

static struct loop *loop;
static struct store *store;
static unsigned waiting;

static void
on_done(void *arg, enum store_result result)
{
	(void)arg;
	if (result != STORE_OK)
		printf("# %s\n", store_result_text(result));
	if (--waiting == 0)
		loop_stop(loop);
}

static void
wait_all(void)
{
	if (waiting)
		loop_run(loop);
}

static void
open_store(const char *dir)
{
	const struct store_opts opts = {.map_size = 256u << 20, .history_keep = 86400000};
	char path[64], error[256] = "";

	snprintf(path, sizeof(path), "mkdir -p %s", dir);
	if (system(path) != 0 || chdir(dir) < 0)
		abort();
	store = store_open(loop, &opts, error, sizeof(error));
	if (store == NULL) {
		printf("# %s\n", error);
		abort();
	}
	store->sweep_rest = 1000000; /* nothing is copied but by the test */
}

static void
close_store(void)
{
	store_close(store);
	if (chdir("..") < 0)
		abort();
}

static void
enqueue(struct queue_id *id, const char *account, const char *message_id, size_t count)
{
	static struct envelope_recipient list[STORE_DEFERRALS_MAX];
	struct store_message_new message = {.account = account,
	                                    .from = {"alice", "example.net"},
	                                    .recipients = list,
	                                    .recipient_count = count,
	                                    .created = clock_wall(),
	                                    .due = clock_wall(),
	                                    .message_id = message_id,
	                                    .body = "x",
	                                    .body_len = 1};

	for (size_t i = 0; i < count; i++) {
		snprintf(list[i].address.local, sizeof(list[i].address.local), "to%zu", i);
		strcpy(list[i].address.domain, "example.org");
	}
	queue_id_make(id, clock_wall());
	message.id = *id;
	waiting++;
	store_enqueue(store, &message, on_done, NULL);
	wait_all();
}

static void
attempt_at(msec_t when, enum queue_lane lane, const struct queue_id *id, unsigned number,
           uint16_t index, enum store_state state)
{
	const struct queue_contact contact = {.host = "mx.example.org", .address = "192.0.2.9"};
	const struct store_outcome outcome = {.index = index, .state = state, .reply = "250 ok"};
	const struct store_batch batch = {.lane = lane,
	                                  .id = *id,
	                                  .attempt = number,
	                                  .outcomes = &outcome,
	                                  .count = 1,
	                                  .contact = &contact,
	                                  .when = when};

	waiting++;
	store_finish(store, &batch, on_done, NULL);
	wait_all();
}

static void
attempt(enum queue_lane lane, const struct queue_id *id, unsigned number, uint16_t index,
        enum store_state state)
{
	attempt_at(clock_wall(), lane, id, number, index, state);
}

static void
move(const struct queue_id *id)
{
	waiting++;
	store_move(store, id, QUEUE_FRESH, QUEUE_RETRY, clock_wall(), on_done, NULL);
	wait_all();
}

static bool
is_busy(void)
{
	bool busy = store->pruning;

	for (unsigned i = 0; i < QUEUE_LANES; i++)
		busy = busy || store->sweeping[i];
	return busy;
}

static void
on_look(void *arg)
{
	if (is_busy())
		loop_defer(loop, on_look, arg);
	else
		loop_stop(loop);
}

static void
wait_history(void)
{
	loop_defer(loop, on_look, NULL);
	loop_run(loop);
}

static void
sweep(enum queue_lane lane)
{
	history_sweep(store, lane);
	wait_history();
	store->sweep_rest = 1000000;
}

static size_t
rows_of(struct lane *lane, enum table table)
{
	struct lane_txn txn;
	MDB_stat stat = {0};

	txn_read(lane, &txn);
	mdb_stat(txn.txn, lane->dbi[table], &stat);
	txn_abort(&txn);
	return stat.ms_entries;
}

static size_t
rows(enum table table)
{
	return rows_of(&store->history, table);
}

/* A hash over everything that history holds but the times of its own. */
static uint64_t
content(void)
{
	static const enum table tables[] = {TABLE_SUMMARY, TABLE_OUTCOME, TABLE_INDEX, TABLE_ACT};
	uint64_t hash = rows(TABLE_ENDED);
	struct lane_txn txn;

	txn_read(&store->history, &txn);
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		MDB_cursor *cursor = txn_cursor(&txn, tables[i]);
		MDB_val k, v;

		while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
			hash = XXH3_64bits_withSeed(k.mv_data, k.mv_size, hash);
			hash = XXH3_64bits_withSeed(v.mv_data, v.mv_size, hash);
		}
		mdb_cursor_close(cursor);
	}
	txn_abort(&txn);
	return hash;
}

/* --- rows of an outbox, kept and put back --- */

struct kept {
	struct key key;
	uint8_t *value;
	size_t len;
};

static size_t
keep(enum queue_lane lane, struct kept *out, size_t max)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	MDB_val k, v;
	size_t count = 0;

	txn_read(&store->lanes[lane], &txn);
	cursor = txn_cursor(&txn, TABLE_OUTBOX);
	while (count < max && mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		out[count].key.len = k.mv_size;
		memcpy(out[count].key.data, k.mv_data, k.mv_size);
		out[count].value = (uint8_t *)xmemdup0(v.mv_data, v.mv_size);
		out[count++].len = v.mv_size;
	}
	mdb_cursor_close(cursor);
	txn_abort(&txn);
	return count;
}

static void
put_back(enum queue_lane lane, struct kept *list, size_t count)
{
	struct lane_txn txn;

	txn_write(&store->lanes[lane], &txn);
	for (size_t i = 0; i < count; i++) {
		txn_put(&txn, TABLE_OUTBOX, &list[i].key, list[i].value, list[i].len);
		free(list[i].value);
	}
	if (txn_commit(&txn) != 0)
		abort();
}

/* --- what is known --- */

static size_t found, found_ended;
static unsigned event_count;
static char story[512];

static void
on_page(void *arg, struct store_message **messages, size_t count, bool more,
        const struct queue_id *last)
{
	(void)arg;
	(void)more;
	(void)last;
	found = count;
	found_ended = 0;
	for (size_t i = 0; i < count; i++) {
		found_ended += messages[i]->finished;
		store_message_free(messages[i]);
	}
	loop_stop(loop);
}

static size_t
find(enum history_by by, const char *text)
{
	struct history_query query = {.by = by};

	snprintf(query.text, sizeof(query.text), "%s", text);
	history_find(store, &query, 100, on_page, NULL);
	loop_run(loop);
	return found;
}

static void
on_life(void *arg, struct store_message *message, struct queue_event *events, size_t count)
{
	(void)arg;
	story[0] = '\0';
	for (size_t i = 0; i < count && strlen(story) < 400; i++)
		sprintf(story + strlen(story), "%s%s", i ? " " : "", events[i].what);
	event_count = (unsigned)count;
	free(events);
	store_message_free(message);
	loop_stop(loop);
}

static const char *
life(const struct queue_id *id)
{
	history_life(store, id, on_life, NULL);
	loop_run(loop);
	return story;
}

/* --- */

static void
test_once(void)
{
	struct kept list[32];
	struct queue_id id;

	open_store("once");
	enqueue(&id, "alice@example.net", "1@pc", 2);
	ok(rows_of(&store->lanes[QUEUE_FRESH], TABLE_OUTBOX) == 1,
	   "an acceptance is one row in the outbox");
	sweep(QUEUE_FRESH);
	ok(find(HISTORY_BY_ADDRESS, "to1@example.org") == 1 && found_ended == 0 &&
	       find(HISTORY_BY_ADDRESS, "alice@example.net") == 1 &&
	       find(HISTORY_BY_MESSAGE_ID, "1@pc") == 1 &&
	       find(HISTORY_BY_ACCOUNT, "alice@example.net") == 1,
	   "what is queued is found by everything");
	ok(find(HISTORY_BY_ADDRESS, "to2@example.org") == 0, "and by nothing else");
	attempt(QUEUE_FRESH, &id, 1, 0, STORE_DELIVERED);
	attempt(QUEUE_FRESH, &id, 1, 1, STORE_QUEUED);
	const char *before = life(&id);
	ok(strcmp(before, "accepted delivered deferred") == 0,
	   "what is in the outbox only is told");
	size_t count = keep(QUEUE_FRESH, list, 32);
	sweep(QUEUE_FRESH);
	uint64_t then = content();
	ok(count == 3 && rows_of(&store->lanes[QUEUE_FRESH], TABLE_OUTBOX) == 0,
	   "rows that were copied go");
	ok(strcmp(life(&id), "accepted delivered deferred") == 0, "and are told all the same");
	/* As after a crash between the copy and the deletion. */
	put_back(QUEUE_FRESH, list, count);
	ok(strcmp(life(&id), "accepted delivered deferred") == 0, "what both have is told once");
	sweep(QUEUE_FRESH);
	ok(content() == then, "copied again it changes nothing");

	/* The source's last rows come behind the target's. */
	move(&id);
	attempt(QUEUE_RETRY, &id, 2, 1, STORE_DELIVERED);
	count = keep(QUEUE_RETRY, list, 32);
	sweep(QUEUE_RETRY);
	ok(strcmp(life(&id), "accepted delivered deferred moved delivered ended") == 0,
	   "a whole life");
	then = content();
	put_back(QUEUE_RETRY, list, count);
	sweep(QUEUE_RETRY);
	ok(content() == then && rows(TABLE_ENDED) == 1, "an end is one, however often it is told");
	close_store();
}

static void
test_order(void)
{
	struct queue_id id;
	struct store_message *message;

	open_store("order");
	enqueue(&id, "alice@example.net", "", 2);
	attempt(QUEUE_FRESH, &id, 1, 0, STORE_DELIVERED); /* a summary with one unfinished */
	move(&id);
	attempt(QUEUE_RETRY, &id, 2, 1, STORE_BOUNCED);
	sweep(QUEUE_RETRY);
	sweep(QUEUE_FRESH);
	message = store_load_detail(store, &id);
	ok(message && message->finished && message->unfinished == 0 &&
	       message->recipient_count == 2,
	   "the later summary stays, whichever lane tells first");
	store_message_free(message);
	ok(find(HISTORY_BY_ADDRESS, "to0@example.org") == 1 &&
	       find(HISTORY_BY_ADDRESS, "to1@example.org") == 1,
	   "and each recipient is found");
	close_store();
}

static void
test_bounds(void)
{
	struct queue_id id, last;

	open_store("bounds");
	enqueue(&id, "alice@example.net", "", 1);
	for (unsigned n = 1; n <= STORE_DEFERRALS_MAX + 20; n++)
		attempt(QUEUE_FRESH, &id, n, 0, STORE_QUEUED);
	sweep(QUEUE_FRESH);
	life(&id);
	ok(rows(TABLE_OUTCOME) == STORE_DEFERRALS_MAX && event_count == STORE_DEFERRALS_MAX + 2,
	   "so many deferrals of a message are kept, and the last one");
	attempt(QUEUE_FRESH, &id, 2000, 0, STORE_DELIVERED);
	for (unsigned i = 0; i < 500; i++) {
		enqueue(&last, "bob@example.net", "", 1);
		attempt(QUEUE_FRESH, &last, 1, 0, STORE_DELIVERED);
	}
	sweep(QUEUE_FRESH);
	ok(rows(TABLE_SUMMARY) == 501, "as many messages as there were");
	store_keep_history(store, 86400000, 300000);
	history_prune(store, clock_wall());
	wait_history();
	ok(rows(TABLE_SUMMARY) < 501 && rows(TABLE_SUMMARY) > 50 &&
	       rows(TABLE_SUMMARY) == rows(TABLE_ENDED),
	   "too much is forgotten");
	printf("# %zu left\n", rows(TABLE_SUMMARY));
	ok(strcmp(life(&last), "accepted delivered ended") == 0 && strcmp(life(&id), "") == 0,
	   "the oldest first");
	close_store();
}

/* History may come to it days late, or a test's clock go on in between. */
static void
test_end(void)
{
	const msec_t now = clock_wall(), keep = 86400000;
	struct queue_id old, young;

	open_store("end");
	enqueue(&old, "alice@example.net", "", 2);
	enqueue(&young, "alice@example.net", "", 2);
	attempt_at(now - 2 * keep, QUEUE_FRESH, &old, 1, 0, STORE_DELIVERED);
	attempt_at(now - 2 * keep, QUEUE_FRESH, &old, 1, 1, STORE_BOUNCED);
	attempt_at(now - 2 * keep, QUEUE_FRESH, &young, 1, 1, STORE_DELIVERED);
	attempt_at(now - keep / 2, QUEUE_FRESH, &young, 2, 0, STORE_DELIVERED);
	sweep(QUEUE_FRESH);
	ok(rows(TABLE_ENDED) == 2, "two have ended");
	history_prune(store, now);
	wait_history();
	ok(strcmp(life(&old), "") == 0, "what is kept is kept from its end, whenever it was told");
	ok(strstr(life(&young), "ended") != NULL, "and that is its last recipient's");
	close_store();
}

/* The disk has damaged a recipient before history heard of its message. */
static void
test_damaged(void)
{
	struct queue_id bad, good;
	struct lane_txn txn;
	struct key key;

	open_store("damaged");
	enqueue(&bad, "alice@example.net", "bad@pc", 2);
	enqueue(&good, "alice@example.net", "good@pc", 1);
	txn_write(&store->lanes[QUEUE_FRESH], &txn);
	key_recipient(&key, &bad, 1);
	txn_put(&txn, TABLE_RECIPIENT, &key, "rubbish", 7);
	if (txn_commit(&txn) != 0)
		abort();
	sweep(QUEUE_FRESH);
	ok(rows_of(&store->lanes[QUEUE_FRESH], TABLE_OUTBOX) == 0 &&
	       find(HISTORY_BY_MESSAGE_ID, "good@pc") == 1,
	   "what does not read keeps nothing else from history");
	close_store();
}

static void
test_failing(void)
{
	struct lane *fresh;
	struct queue_id id;
	MDB_dbi good;

	open_store("failing");
	fresh = &store->lanes[QUEUE_FRESH];
	store->outbox_max = 100;
	good = store->history.dbi[TABLE_SUMMARY];
	store->history.dbi[TABLE_SUMMARY] = 9999; /* every transaction fails */
	for (unsigned i = 0; i < 90; i++)
		enqueue(&id, "alice@example.net", "", 1);
	sweep(QUEUE_FRESH);
	ok(rows_of(fresh, TABLE_OUTBOX) == 90, "what history does not take stays in the outbox");
	for (unsigned i = 0; i < 90; i++)
		enqueue(&id, "alice@example.net", "", 1);
	sweep(QUEUE_FRESH);
	enqueue(&id, "alice@example.net", "", 1); /* its lane's writer is through with that */
	ok(rows_of(fresh, TABLE_OUTBOX) <= 101, "up to a bound");
	attempt(QUEUE_FRESH, &id, 1, 0, STORE_DELIVERED);
	store->history.dbi[TABLE_SUMMARY] = good;
	sweep(QUEUE_FRESH);
	ok(rows_of(fresh, TABLE_OUTBOX) == 0 && find(HISTORY_BY_ADDRESS, "to0@example.org") > 0,
	   "and goes there when it can");
	ok(strcmp(life(&id), "accepted delivered ended") == 0, "mail went on");
	close_store();
}

/* What is queued alone is more than history may hold. */
static void
test_full(void)
{
	enum { MAIL = 20, TRIES = 60 };
	struct queue_id ids[MAIL];
	struct lane_txn txn;
	size_t before, kept = 0;

	open_store("full");
	store->history.map_size = 128u << 10;
	store->history.reserve = 128u << 10; /* filled to the half */
	for (unsigned i = 0; i < MAIL; i++)
		enqueue(&ids[i], "alice@example.net", "", 1);
	for (unsigned n = 1; n <= TRIES; n++) {
		for (unsigned i = 0; i < MAIL; i++)
			attempt(QUEUE_FRESH, &ids[i], n, 0, STORE_QUEUED);
		if (n % 20 == 0)
			sweep(QUEUE_FRESH);
	}
	before = rows(TABLE_OUTCOME);
	txn_read(&store->history, &txn);
	ok(!txn_has_room(&txn, true) && rows_of(&store->lanes[QUEUE_FRESH], TABLE_OUTBOX) > 100 &&
	       before < (size_t)MAIL * TRIES,
	   "a full history takes no more, and the rows wait");
	txn_abort(&txn);
	attempt(QUEUE_FRESH, &ids[0], TRIES + 1, 0, STORE_DELIVERED);
	store_keep_history(store, 30LL * 86400 * 1000, 64u << 10);
	history_prune(store, clock_wall());
	wait_history();
	ok(rows(TABLE_SUMMARY) == MAIL && rows(TABLE_OUTCOME) < before,
	   "of what is queued deferrals are forgotten, the messages are not");
	sweep(QUEUE_FRESH);
	ok(rows_of(&store->lanes[QUEUE_FRESH], TABLE_OUTBOX) == 0, "and it takes more again");
	const char *told = life(&ids[0]);
	ok(strncmp(told, "accepted ", 9) == 0 && strstr(told, " delivered ended"),
	   "what has ended meanwhile is told");
	printf("# %s\n", told);
	for (unsigned i = 1; i < MAIL; i++)
		kept += strncmp(life(&ids[i]), "accepted", 8) == 0;
	ok(kept == MAIL - 1, "and what waits");
	close_store();
}

/* As formats below 4 left it. */
static void
test_upgrade(void)
{
	struct lane_txn txn;
	struct queue_id id;
	struct key key;

	open_store("old");
	enqueue(&id, "alice@example.net", "", 1);
	attempt(QUEUE_FRESH, &id, 1, 0, STORE_DELIVERED);
	sweep(QUEUE_FRESH);
	txn_write(&store->history, &txn);
	mdb_drop(txn.txn, store->history.dbi[TABLE_ENDED], 0);
	key_text(&key, "ends");
	txn_del(&txn, TABLE_META, &key);
	if (txn_commit(&txn) != 0)
		abort();
	close_store();
	open_store("old");
	ok(rows(TABLE_ENDED) == 1, "what an older version kept has an end");
	history_prune(store, clock_wall() + 2 * store->opts.history_keep);
	wait_history();
	ok(rows(TABLE_SUMMARY) == 0 && rows(TABLE_OUTCOME) == 0, "and is forgotten in its time");
	close_store();
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-history-XXXXXX", command[64];

	if (mkdtemp(dir) == NULL || chdir(dir) < 0)
		abort();
	loop = loop_new();
	test_once();
	test_order();
	test_bounds();
	test_end();
	test_damaged();
	test_failing();
	test_full();
	test_upgrade();
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (system(command) != 0)
		abort();
	return tap_end();
}
