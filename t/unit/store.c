/* The store: what was acknowledged is there, after a close, after kill -9, and whatever files a
 * crash left behind. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xxhash.h>

#include "core/clock.h"
#include "core/loop.h"
#include "core/mem.h"
#include "queue/proto.h"
#include "queue/store.h"
#include "queue/store_int.h"
#include "ratelimit/row.h"
#include "t/unit/spool.h"
#include "t/unit/tap.h"

static unsigned due_seen;

static bool
on_due(void *arg, const struct store_key *key)
{
	(void)arg;
	(void)key;
	due_seen++;
	return true;
}

static uint32_t charged;

static void
on_row(void *arg, const char *account, uint32_t row, const uint8_t *data, size_t len)
{
	struct window window;
	struct pace pace = {0};

	(void)arg;
	(void)account;
	window_init(&window);
	if (row_load(data, len, row, 0, &window, &pace) == 0)
		charged += (uint32_t)window_used(&window, METER_RECIPIENTS);
	window_clear(&window);
}

static unsigned listed;

static void
on_message(void *arg, const struct store_message *message)
{
	memcpy(arg, &message->id, sizeof(message->id));
	listed++;
}

static void
on_directive(void *arg, const char *name, const uint8_t *value, size_t len)
{
	*(bool *)arg |= strcmp(name, "hold/x") == 0 && len == 3 && memcmp(value, "why", 3) == 0;
}

#define MANY 300
static struct queue_id ids[MANY];

static void
test_accept(void)
{
	static char body[QUEUE_INLINE_MAX];
	struct store_counts counts;
	struct store_key from = {0};
	struct queue_id after;
	bool more = true;
	enum queue_lane lane;

	ok(reopen(), "opens in an empty directory");
	memset(body, 'x', sizeof(body));
	for (unsigned i = 0; i < MANY; i++)
		enqueue(&ids[i], 2, body,
		        i == 0   ? 0
		        : i == 1 ? sizeof(body)
		                 : 100 + i,
		        NULL, 0, on_done, NULL);
	wait_all();
	ok(results[STORE_OK] == MANY, "every message is accepted");
	store_counts(store, &counts);
	ok(counts.commits < MANY && counts.messages[QUEUE_FRESH] == MANY &&
	       counts.recipients[QUEUE_FRESH] == 2 * MANY,
	   "in groups, and counted");
	ok(conserved(2 * MANY), "audit");
	ok(store_scan_due(store, QUEUE_FRESH, &from, 100, on_due, NULL) == 100 &&
	       store_scan_due(store, QUEUE_FRESH, &from, 1000, on_due, NULL) == MANY - 100 &&
	       due_seen == MANY,
	   "due scan goes on where it stopped");
	store_load_ledger_rows(store, "alice@example.net", on_row, NULL);
	ok(charged == 2 * MANY && store_ledger_time(store) > 0, "charged with the acceptance");
	store_list(store, "alice@example.net", NULL, 200, on_message, &after, &more);
	ok(listed == 200 && more, "first page of a listing");
	store_list(store, NULL, &after, 200, on_message, &after, &more);
	ok(listed == MANY && !more, "second page");
	ok(store_list(store, "ali", NULL, 10, on_message, &after, &more) == 0,
	   "another account has nothing");
	ok(store_find(store, &ids[7], &lane) && lane == QUEUE_FRESH, "found by id");
	waiting++;
	{
		struct envelope_recipient to = {.address = address("bob", "example.org")};
		struct store_message_new again = {.id = ids[7],
		                                  .account = "a",
		                                  .recipients = &to,
		                                  .recipient_count = 1,
		                                  .body = "y",
		                                  .body_len = 1};

		store_enqueue(store, &again, on_done, NULL);
	}
	wait_all();
	ok(last == STORE_EXISTS && conserved(2 * MANY), "the same id twice changes nothing");
}

static void
test_body(void)
{
	struct store_message *message = store_load_message(store, QUEUE_FRESH, &ids[1]);
	int fd = message ? store_open_body(store, &ids[1], &message->body) : -1;
	char data[8] = "";
	struct stat segment = {0};

	ok(message && message->recipient_count == 2 && message->prefix_len == 13 &&
	       message->body.size == QUEUE_INLINE_MAX &&
	       strcmp(message->recipients[1].address.local, "carol") == 0 &&
	       strcmp(message->ehlo, "pc") == 0,
	   "loads whole");
	ok(fd >= 0 && pread(fd, data, 4, (off_t)message->body.offset) == 4 &&
	       memcmp(data, "xxxx", 4) == 0,
	   "body reads back");
	ok(fd >= 0 && fstat(fd, &segment) == 0 && segment.st_size == STORE_SEGMENT_ROOM,
	   "its segment has room for more");
	if (fd >= 0)
		close(fd);
	store_message_free(message);
}

static void
test_fates(void)
{
	struct store_message *message;
	enum queue_lane lane;

	finish(QUEUE_FRESH, &ids[0], 1, 0, STORE_DELIVERED);
	finish(QUEUE_FRESH, &ids[0], 1, 1, STORE_QUEUED);
	wait_all();
	ok(conserved(2 * MANY - 1), "one of two delivered, one deferred");
	waiting += 2;
	store_reroute(store, QUEUE_FRESH, &ids[0], (const uint16_t[]){0, 1}, 2,
	              "relay.example.net:25", "why", on_done, NULL);
	store_move(store, &ids[0], QUEUE_FRESH, QUEUE_RETRY, clock_wall(), on_done, NULL);
	wait_all();
	message = store_load_message(store, QUEUE_RETRY, &ids[0]);
	ok(last == STORE_OK && message && message->generation == 3 &&
	       strcmp(message->recipients[0].next_hop, "relay.example.net:25") == 0 &&
	       message->recipient_count == 1 && message->unfinished == 1 &&
	       message->attempts == 1 && store_find(store, &ids[0], &lane) && lane == QUEUE_RETRY,
	   "the unfinished recipient moved, next hop and all");
	store_message_free(message);
	message = store_load_message(store, QUEUE_FRESH, &ids[0]);
	ok(message == NULL && conserved(2 * MANY - 1), "and left");
	message = store_load_detail(store, &ids[0]);
	ok(message && message->recipient_count == 2 &&
	       message->recipients[0].state == STORE_DELIVERED &&
	       message->recipients[1].state == STORE_QUEUED,
	   "detail knows both");
	store_message_free(message);
	finish(QUEUE_RETRY, &ids[0], 2, 1, STORE_BOUNCED);
	wait_all();
	ok(store_find(store, &ids[0], &lane) && lane == QUEUE_LANES,
	   "a finished message is still known");
	finish(QUEUE_RETRY, &ids[0], 2, 1, STORE_BOUNCED);
	wait_all();
	ok(last == STORE_MISSING && conserved(2 * MANY - 2), "a repeated outcome is harmless");
	ok(reopen() && conserved(2 * MANY - 2), "all is there after a restart");
	message = store_load_detail(store, &ids[0]);
	ok(message && message->finished && message->recipient_count == 2 &&
	       message->recipients[1].state == STORE_BOUNCED &&
	       strcmp(message->recipients[1].reply, "250 2.0.0 kept") == 0,
	   "and the finished one's detail");
	store_message_free(message);
	for (unsigned i = 1; i < 50; i++) {
		finish(QUEUE_FRESH, &ids[i], 1, 0, STORE_EXPIRED);
		finish(QUEUE_FRESH, &ids[i], 0, 1, STORE_REMOVED);
	}
	wait_all();
	ok(conserved(2 * MANY - 100), "expired and removed count too");
}

static void
test_large(void)
{
	struct queue_id id, other;
	struct store_large *large;
	struct store_message *message;
	enum store_result why;
	char block[4096], path[64], name[QUEUE_ID_TEXT_SIZE];
	int fd = -1;

	memset(block, 'L', sizeof(block));
	queue_id_make(&id, clock_wall());
	large = store_large_open(store, &id, &fd, &why);
	ok(large && store_large_open(store, &id, &fd, &why) == NULL && why == STORE_EXISTS,
	   "a large body has its file once");
	for (unsigned i = 0; i < 50; i++)
		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block))
			abort();
	close(fd);
	enqueue(&id, 1, NULL, 0, large, 50 * sizeof(block), on_done, NULL);
	wait_all();
	message = store_load_message(store, QUEUE_FRESH, &id);
	ok(last == STORE_OK && message && message->body.segment == 0 &&
	       message->body.size == 50 * sizeof(block),
	   "a large body is accepted");
	store_message_free(message);
	queue_id_make(&other, clock_wall());
	large = store_large_open(store, &other, &fd, &why);
	if (write(fd, block, 100) != 100)
		abort();
	close(fd);
	enqueue(&other, 1, NULL, 0, large, 101, on_done, NULL);
	wait_all();
	snprintf(path, sizeof(path), "large/%s", queue_id_format(&other, name));
	ok(last == STORE_IO && access(path, F_OK) < 0,
	   "one of the wrong size is refused and removed");
	for (unsigned kept = 0; kept < 2; kept++) {
		queue_id_make(&other, clock_wall());
		large = store_large_open(store, &other, &fd, &why);
		if (write(fd, block, 100) != 100)
			abort();
		if (!kept)
			close(fd);
		spoil = !kept;
		enqueue(&other, 1, NULL, 0, large, 100, on_done, NULL);
		wait_all();
		spoil = 0;
		if (kept)
			close(fd);
		snprintf(path, sizeof(path), "large/%s", queue_id_format(&other, name));
		ok(last == STORE_IO && access(path, F_OK) < 0,
		   kept ? "one that can still be written to is refused and removed"
		        : "one of another content is refused and removed");
	}
	queue_id_make(&other, clock_wall());
	large = store_large_open(store, &other, &fd, &why);
	close(fd);
	store_large_abort(store, large);
	snprintf(path, sizeof(path), "large/%s", queue_id_format(&other, name));
	ok(access(path, F_OK) < 0, "an aborted one is gone");
	ok(reopen() && conserved(2 * MANY - 100 + 1), "large bodies survive a restart");
	finish(QUEUE_FRESH, &id, 1, 0, STORE_DELIVERED);
	wait_all();
	snprintf(path, sizeof(path), "large/%s", queue_id_format(&id, name));
	ok(access(path, F_OK) < 0 && conserved(2 * MANY - 100), "and go with their message");
}

static void
touch(const char *path, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);

	for (; fd >= 0 && len > 0; len--)
		if (write(fd, "z", 1) != 1)
			break;
	if (fd >= 0)
		close(fd);
}

static void
test_recovery(void)
{
	struct store_message *message;
	struct lane_txn txn;
	struct queue_id id;
	char path[64], segment[64], name[32];
	struct stat before, after;
	enum queue_lane lane;

	message = store_load_message(store, QUEUE_FRESH, &ids[100]);
	snprintf(segment, sizeof(segment), "bodies/%s", segment_name(message->body.segment, name));
	/* A move that died between its two commits. */
	message->generation++;
	txn_write(&store->lanes[QUEUE_RETRY], &txn);
	txn_store(&txn, message);
	txn_count(&txn, COUNTER_MOVED_IN, message->unfinished);
	ok(txn_commit(&txn) == 0 && !conserved(2 * MANY - 100) && audit.conserved &&
	       audit.queued == 2 * MANY - 100 + audit.generated && fault_count == 1,
	   "an interrupted move counts once");
	store_message_free(message);
	store_close(store);
	store = NULL;
	queue_id_make(&id, clock_wall());
	snprintf(path, sizeof(path), "large/%s", queue_id_format(&id, name));
	touch(path, 10);
	touch("bodies/seg-0000000000000fff", 10);
	stat(segment, &before);
	touch(segment, 77);
	ok(reopen() && conserved(2 * MANY - 100), "recovers");
	stat(segment, &after);
	ok(access(path, F_OK) < 0 && access("bodies/seg-0000000000000fff", F_OK) < 0,
	   "orphan files are removed");
	ok(before.st_size < STORE_SEGMENT_ROOM, "room that was not needed is cut at the end");
	ok(before.st_size == after.st_size, "a tail without a record is cut");
	message = store_load_message(store, QUEUE_FRESH, &ids[100]);
	ok(message == NULL && store_find(store, &ids[100], &lane) && lane == QUEUE_RETRY,
	   "the higher generation won");
	store_message_free(message);
}

static void
test_settings(void)
{
	struct store_override override = {.limit = 7, .when = 5, .by = "noc", .reason = "plan"},
	                      out;
	bool found = false;

	waiting += 2;
	store_override_set(store, "alice@example.net", &override, on_done, NULL);
	store_directive_put(store, "hold/x", "why", 3, on_done, NULL);
	wait_all();
	ok(store_load_override(store, "alice@example.net", &out) && out.limit == 7 &&
	       strcmp(out.by, "noc") == 0,
	   "override kept");
	store_each_directive(store, on_directive, &found);
	ok(found, "directive kept");
	waiting++;
	store_override_set(store, "alice@example.net", NULL, on_done, NULL);
	wait_all();
	ok(!store_load_override(store, "alice@example.net", &out), "override cleared");
}

/* Setup: a large body whose file is a pipe that nobody writes to, so a check that reads it stands
 * still. Expectation: everything else goes on, and an audit waits for its turn and is of its own
 * time. */
static void
test_beside_check(void)
{
	char path[64], name[QUEUE_ID_TEXT_SIZE];
	struct store_outcome outcome = {.index = 0, .state = STORE_DELIVERED};
	struct store_large *large;
	struct queue_id id, other;
	enum store_result why;
	int fd, end;

	new_spool("beside");
	queue_id_make(&id, clock_wall());
	large = store_large_open(store, &id, &fd, &why);
	if (large == NULL || write(fd, "large", 5) != 5)
		abort();
	close(fd);
	enqueue(&id, 1, NULL, 0, large, 5, on_done, NULL);
	wait_all();
	snprintf(path, sizeof(path), "large/%s", queue_id_format(&id, name));
	if (unlink(path) < 0 || mkfifo(path, 0600) < 0)
		abort();
	alarm(30); /* a check on this thread would never return */
	fault_count = 0;
	check_over = false;
	ok(store_check(store, 0, on_check, NULL), "a check begins");
	store_audit(store, on_audit, NULL);
	enqueue(&other, 1, "x", 1, NULL, 0, on_done, NULL);
	wait_all();
	ok(last == STORE_OK && !check_over && !audited, "it does not hold up acceptance");
	waiting++;
	finish_one(&other, &outcome, on_done);
	wait_all();
	ok(last == STORE_OK && !check_over && !audited, "nor outcomes");
	while ((end = open(path, O_WRONLY | O_NONBLOCK)) < 0)
		sched_yield();
	close(end);
	wait_audit();
	ok(audit.messages == 1 && audit.accepted == 1 && audit.delivered == 0,
	   "an audit counts what was there when it was asked for");
	wait_check();
	ok(fault_count == 1 && found(name, ""), "a pipe is no body");
	alarm(0);
	end_spool();
}

/* --- what is on disk already --- */

static size_t
last_commit(void)
{
	MDB_envinfo info;

	if (mdb_env_info(store->lanes[QUEUE_FRESH].env, &info) != 0)
		abort();
	return info.me_last_txnid;
}

static void
put_raw(enum queue_lane lane, enum table table, const struct key *key, const void *data, size_t len)
{
	struct lane_txn txn;

	txn_write(&store->lanes[lane], &txn);
	txn_put(&txn, table, key, data, len);
	if (txn_commit(&txn) != 0)
		abort();
}

static void
seal(struct buf *record)
{
	wire_put_u64(record, XXH3_64bits(record->data, record->len));
}

/* As formats 1 to 5 were written. */
static void
put_old_record(uint8_t version, const struct store_message *message)
{
	struct buf record;
	struct key key;

	buf_init(&record);
	wire_put_u8(&record, version);
	wire_put_u8(&record, 2); /* 8-bit */
	wire_put_u64(&record, message->generation);
	wire_put_str(&record, message->account);
	wire_put_str(&record, message->from.local);
	wire_put_str(&record, message->from.domain);
	wire_put_u64(&record, (uint64_t)message->created);
	wire_put_u64(&record, (uint64_t)message->due);
	wire_put_str(&record, message->client_ip);
	wire_put_u16(&record, message->client_port);
	wire_put_str(&record, message->ehlo);
	wire_put_u32(&record, message->attempts);
	wire_put_u64(&record, message->body.segment);
	wire_put_u64(&record, message->body.offset);
	wire_put_u64(&record, message->body.size);
	wire_put_u64(&record, message->body.checksum);
	wire_put_u32(&record, message->total);
	wire_put_u32(&record, message->unfinished);
	wire_put_str(&record, "451 words");
	if (version >= 2)
		wire_put_u64(&record, 4711);
	if (version >= 3)
		proto_put_envelope(&record, &asked);
	if (version >= 4) {
		wire_put_str(&record, "4@pc.example.net");
		wire_put_str(&record, "ESMTPS");
		wire_put_u32(&record, 0);
	}
	if (version >= 6) {
		wire_put_str(&record, "");
		wire_put_str(&record, "");
	}
	if (version >= 5)
		seal(&record);
	key_id(&key, &message->id);
	put_raw(QUEUE_FRESH, TABLE_MESSAGE, &key, record.data, record.len);
	buf_consume(&record, record.len);
	wire_put_u8(&record, version);
	wire_put_u8(&record, STORE_QUEUED);
	wire_put_u32(&record, 3);
	wire_put_u64(&record, 99);
	wire_put_str(&record, "bob");
	wire_put_str(&record, "example.org");
	wire_put_str(&record, "451 words");
	if (version >= 3) {
		wire_put_u8(&record, NOTIFY_DELAY);
		wire_put_str(&record, "rfc822;b+2Bb@x");
	}
	if (version >= 4) {
		wire_put_u8(&record, QUEUE_FRESH);
		wire_put_str(&record, "mx.example.org");
		wire_put_str(&record, "192.0.2.25");
		wire_put_str(&record, "TLSv1.3");
	}
	if (version >= 5)
		seal(&record);
	key_recipient(&key, &message->id, 0);
	put_raw(QUEUE_FRESH, TABLE_RECIPIENT, &key, record.data, record.len);
	buf_clear(&record);
}

/* All fields at their largest. */
static void
test_record_size(void)
{
	static char account[256], ehlo[256], reply[STORE_REPLY_MAX + 1], ip[64],
	    orcpt[ENVELOPE_ORCPT_MAX + 1], name[256];
	struct store_message message = {.account = account,
	                                .class = "a-class-name-of-31-octets-aaaaa",
	                                .client_ip = ip,
	                                .ehlo = ehlo,
	                                .last_reply = reply,
	                                .message_id = name,
	                                .protocol = "UTF8SMTPSA-----",
	                                .envelope = asked};
	struct store_recipient recipient = {.reply = reply,
	                                    .orcpt = orcpt,
	                                    .host = name,
	                                    .tls = "TLSv1.3--------",
	                                    .next_hop = name};
	struct buf record;

	memset(account, 'a', sizeof(account) - 1);
	memset(ehlo, 'a', sizeof(ehlo) - 1);
	memset(reply, 'a', sizeof(reply) - 1);
	memset(ip, 'a', sizeof(ip) - 1);
	memset(orcpt, 'a', sizeof(orcpt) - 1);
	memset(name, 'a', sizeof(name) - 1);
	memset(recipient.peer, 'a', sizeof(recipient.peer) - 1);
	memset(message.envelope.envid, 'a', ENVELOPE_ENVID_MAX);
	memset(message.from.local, 'a', sizeof(message.from.local) - 1);
	memset(message.from.domain, 'a', sizeof(message.from.domain) - 1);
	recipient.address = message.from;
	buf_init(&record);
	record_encode(&message, &record);
	ok(record.len < 2000, "the largest record stays below 2000 octets");
	buf_consume(&record, record.len);
	recipient_encode(&recipient, &record);
	ok(record.len < 2000, "and so does the largest recipient's");
	buf_clear(&record);
}

static void
test_format(void)
{
	struct store_opts opts = {.map_size = 16u << 20, .history_keep = 86400000};
	uint8_t format[4];
	char error[256] = "";
	struct queue_id id;
	struct key key;
	size_t before;

	store_close(store);
	if (mkdir("format", 0700) < 0 || chdir("format") < 0)
		abort();
	store = store_open(loop, &opts, error, sizeof(error));
	before = last_commit();
	store_close(store);
	store = store_open(loop, &opts, error, sizeof(error));
	ok(last_commit() > before, "each start commits, so that what it found is durable");

	enqueue(&id, 1, "x", 1, NULL, 0, on_done, NULL);
	wait_all();
	key_id(&key, &id);
	struct store_message *message = store_load_message(store, QUEUE_FRESH, &id);
	ok(message && same_envelope(&message->envelope, &asked) &&
	       message->recipients[0].notify == NOTIFY_DELAY &&
	       strcmp(message->recipients[0].orcpt, "rfc822;b+2Bb@x") == 0 &&
	       strcmp(message->protocol, "ESMTPSA") == 0 &&
	       strcmp(message->message_id, "1@pc.example.net") == 0 &&
	       strcmp(message->owner, message->account) == 0 &&
	       strcmp(message->class, "business") == 0,
	   "a message keeps what was asked for");
	for (uint8_t version = 1; version < STORE_FORMAT; version++) {
		const struct envelope none = {.body = BODY_8BITMIME};
		const bool knows = version >= 3;

		put_old_record(version, message);
		store_message_free(message);
		store_close(store);
		store = store_open(loop, &opts, error, sizeof(error));
		message = store ? store_load_message(store, QUEUE_FRESH, &id) : NULL;
		ok(message && message->warned == (version == 1 ? 0 : 4711) &&
		       strcmp(message->account, "alice@example.net") == 0 &&
		       strcmp(message->owner, "alice@example.net") == 0 &&
		       message->class[0] == '\0' &&
		       same_envelope(&message->envelope, knows ? &asked : &none) &&
		       message->recipients[0].attempts == 3 &&
		       message->recipients[0].notify == (knows ? NOTIFY_DELAY : 0) &&
		       strcmp(message->recipients[0].orcpt, knows ? "rfc822;b+2Bb@x" : "") == 0 &&
		       strcmp(message->message_id, version >= 4 ? "4@pc.example.net" : "") == 0 &&
		       strcmp(message->recipients[0].host, version >= 4 ? "mx.example.org" : "") ==
		           0 &&
		       message->recipients[0].next_hop[0] == '\0',
		   "a record of an older version is read");
	}
	store_message_free(message);
	put_raw(QUEUE_FRESH, TABLE_MESSAGE, &key, "\010 a record of a newer version", 30);
	store_close(store);
	store = store_open(loop, &opts, error, sizeof(error));
	ok(store == NULL && strstr(error, "fresh") && strstr(error, "newer version"),
	   "a record of a newer version refuses to start");
	printf("# %s\n", error);
	if (system("rm -rf fresh") != 0)
		abort();
	for (unsigned i = 0; i < QUEUE_LANES + 1; i++) {
		const char *name =
		    i < QUEUE_LANES ? queue_lane_name((enum queue_lane)i) : "history";
		struct lane *lane;

		store = store_open(loop, &opts, error, sizeof(error));
		lane = i < QUEUE_LANES ? &store->lanes[i] : &store->history;
		struct lane_txn txn;
		txn_write(lane, &txn);
		key_text(&key, "format");
		be_put(format, sizeof(format), STORE_FORMAT + 1);
		txn_put(&txn, TABLE_META, &key, format, sizeof(format));
		if (txn_commit(&txn) != 0)
			abort();
		store_close(store);
		store = store_open(loop, &opts, error, sizeof(error));
		ok(store == NULL && strstr(error, name) && strstr(error, "newer version"),
		   "an environment of a newer version refuses to start");
		printf("# %s\n", error);
		char command[64];
		snprintf(command, sizeof(command), "rm -rf %s", name);
		if (system(command) != 0)
			abort();
	}
	if (chdir("..") < 0)
		abort();
}

static uint64_t
table_rows(enum table table)
{
	struct lane_txn txn;
	MDB_stat stat = {0};

	txn_read(&store->history, &txn);
	mdb_stat(txn.txn, store->history.dbi[table], &stat);
	txn_abort(&txn);
	return stat.ms_entries;
}

static uint64_t
history_rows(void)
{
	return table_rows(TABLE_SUMMARY) + table_rows(TABLE_OUTCOME);
}

static void
on_look(void *arg)
{
	if (history_rows() == *(uint64_t *)arg)
		loop_stop(loop);
	else
		loop_defer(loop, on_look, arg);
}

/* Runs until history has so many rows. */
static void
wait_rows(uint64_t rows)
{
	loop_defer(loop, on_look, &rows);
	loop_run(loop);
}

static void
test_prune(void)
{
	enum { OLD = 1000, YOUNG = 10 };
	struct store_opts opts = {.map_size = 64u << 20, .history_keep = 86400000};
	struct store_outcome outcome = {.index = 0, .state = STORE_DELIVERED};
	static struct queue_id id[OLD + YOUNG];
	struct store_message *message;
	char error[256] = "";
	enum queue_lane lane;

	if (mkdir("prune", 0700) < 0 || chdir("prune") < 0)
		abort();
	store = store_open(loop, &opts, error, sizeof(error));
	for (unsigned i = 0; i < OLD + YOUNG; i++)
		enqueue(&id[i], 1, "x", 1, NULL, 0, on_done, NULL);
	wait_all();
	for (unsigned i = 0; i < OLD; i++) {
		waiting++;
		finish_one(&id[i], &outcome, on_done);
	}
	wait_all();
	wait_rows(2 * OLD + YOUNG);
	const msec_t then = clock_wall();
	while (clock_wall() == then)
		;
	for (unsigned i = OLD; i < OLD + YOUNG; i++) {
		waiting++;
		finish_one(&id[i], &outcome, on_done);
	}
	wait_all();
	wait_rows(2 * (OLD + YOUNG));
	/* As if a day had passed since the end of the first. */
	history_prune(store, then + 1 + opts.history_keep);
	wait_rows(2 * YOUNG);
	ok(!store_find(store, &id[0], &lane), "history is pruned by age, all of it at once");
	ok(table_rows(TABLE_INDEX) == 4 * YOUNG && table_rows(TABLE_ENDED) == YOUNG,
	   "and out of its indexes");
	message = store_load_detail(store, &id[OLD]);
	ok(message && message->finished && message->recipient_count == 1,
	   "and what is younger stays whole");
	store_message_free(message);
	history_prune(store, 0);
	wait_rows(2 * YOUNG);
	ok(conserved(0), "conservation does not need history");
	store_close(store);
	store = NULL;
	if (chdir("..") < 0)
		abort();
}

/* --- kill -9 --- */

static int pipe_fd;

static void
on_child_done(void *arg, enum store_result result)
{
	struct queue_id *id = arg, moved = *id;
	static unsigned n;

	waiting--;
	if (result == STORE_OK && write(pipe_fd, id, sizeof(*id)) != (ssize_t)sizeof(*id))
		_exit(1);
	if (result == STORE_OK && ++n % 3 == 0)
		store_move(store, &moved, QUEUE_FRESH, QUEUE_RETRY, 1, NULL, NULL);
	else if (result == STORE_OK && n % 3 == 1) {
		struct store_outcome outcome = {.index = 0, .state = STORE_DELIVERED};

		finish_one(&moved, &outcome, NULL);
	}
	enqueue(id, 2, "hello", 5, NULL, 0, on_child_done, id);
}

static void
child(void)
{
	static struct queue_id slots[32];
	struct store_opts opts = {.map_size = 256u << 20, .history_keep = 86400000LL * 30};
	char error[256];

	loop = loop_new();
	store = store_open(loop, &opts, error, sizeof(error));
	if (store == NULL)
		_exit(1);
	for (unsigned i = 0; i < 32; i++)
		enqueue(&slots[i], 2, "hello", 5, NULL, 0, on_child_done, &slots[i]);
	loop_run(loop);
	_exit(0);
}

static void
test_kill(void)
{
	unsigned rounds = 8, said = 0, lost = 0;
	bool conserved_always = true;

	for (unsigned round = 0; round < rounds; round++) {
		struct queue_id id;
		enum queue_lane lane;
		unsigned here = 0;
		int fds[2];
		pid_t pid;

		/* The parent has no store and no loop open while it forks. */
		if (pipe(fds) < 0 || (pid = fork()) < 0)
			abort();
		if (pid == 0) {
			close(fds[0]);
			pipe_fd = fds[1];
			child();
		}
		close(fds[1]);
		static struct queue_id heard[100000];
		while (here < 100 + round * 37 &&
		       read(fds[0], &id, sizeof(id)) == (ssize_t)sizeof(id))
			heard[here++] = id;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while (here < 100000 && read(fds[0], &id, sizeof(id)) == (ssize_t)sizeof(id))
			heard[here++] = id;
		close(fds[0]);
		loop = loop_new();
		if (!reopen())
			abort();
		for (unsigned i = 0; i < here; i++)
			lost += !store_find(store, &heard[i], &lane);
		said += here;
		run_audit();
		conserved_always &= audit.conserved;
		if (!audit.conserved)
			printf("# round %u: accepted %llu queued %llu delivered %llu orphans "
			       "%llu\n",
			       round, (unsigned long long)audit.accepted,
			       (unsigned long long)audit.queued,
			       (unsigned long long)audit.delivered,
			       (unsigned long long)audit.orphans);
		store_close(store);
		store = NULL;
		loop_free(loop);
	}
	ok(said >= rounds * 100 && lost == 0, "no acknowledged message is lost by kill -9");
	ok(conserved_always, "and every audit is conserved");
	printf("# %u acknowledged in %u rounds\n", said, rounds);
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-store-XXXXXX", command[PATH_MAX];
	struct queue_id id, back;
	char text[QUEUE_ID_TEXT_SIZE], other[QUEUE_ID_TEXT_SIZE];

	setbuf(stdout, NULL);
	if (mkdtemp(dir) == NULL || chdir(dir) < 0 || mkdir("kill", 0700) < 0 ||
	    mkdir("plain", 0700) < 0)
		return 1;
	queue_id_make(&id, 1234567890123);
	ok(queue_id_parse(queue_id_format(&id, text), &back) && queue_id_equal(&id, &back) &&
	       strlen(text) == 26,
	   "id to text and back");
	memset(&id, 0xff, sizeof(id));
	ok(queue_id_parse(queue_id_format(&id, other), &back) && queue_id_equal(&id, &back) &&
	       strcmp(text, other) < 0 && !queue_id_parse("8zzzzzzzzzzzzzzzzzzzzzzzzz", &back) &&
	       !queue_id_parse("", &back),
	   "ids sort as text and are checked");
	if (chdir("kill") < 0)
		return 1;
	test_kill();
	if (chdir("../plain") < 0)
		return 1;
	loop = loop_new();
	test_accept();
	test_body();
	test_fates();
	test_large();
	test_recovery();
	test_settings();
	store_close(store);
	store = NULL;
	test_beside_check();
	test_format();
	test_record_size();
	test_prune();
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") < 0 || system(command) != 0)
		return 1;
	return tap_end();
}
