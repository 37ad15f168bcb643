/* A check of the store finds each thing that can be wrong with it, names it, and finds nothing in
 * one that is as it should be. */

#include <limits.h>
#include <sys/stat.h>

#include "t/unit/spool.h"
#include "t/unit/tap.h"

static struct queue_id ids[8];
static char name[QUEUE_ID_TEXT_SIZE];

/* A message in each lane, one that has ended, one with a large body. */
static void
fill(void)
{
	enum store_result why;
	struct store_large *large;
	int fd;

	new_spool("spool");
	for (unsigned i = 0; i < 7; i++)
		enqueue(&ids[i], 2, "body", 4, NULL, 0, on_done, NULL);
	queue_id_make(&ids[7], clock_wall());
	large = store_large_open(store, &ids[7], &fd, &why);
	if (large == NULL || write(fd, "large", 5) != 5)
		abort();
	close(fd);
	enqueue(&ids[7], 1, NULL, 0, large, 5, on_done, NULL);
	wait_all();
	for (unsigned i = 1; i < 3; i++) {
		waiting++;
		store_move(store, &ids[i], QUEUE_FRESH, i == 1 ? QUEUE_RETRY : QUEUE_FALLBACK, 1000,
		           on_done, NULL);
	}
	finish(QUEUE_FRESH, &ids[3], 1, 0, STORE_DELIVERED);
	finish(QUEUE_FRESH, &ids[3], 1, 1, STORE_DELIVERED);
	wait_all();
	ok(run_check() == 0 && checked.bodies == 7 && checked.records > 7,
	   "nothing is wrong with a good store");
}

static void
end(void)
{
	char command[] = "rm -rf spool";

	end_spool();
	if (system(command) != 0)
		abort();
}

static struct lane_txn txn;

static void
begin(enum queue_lane lane)
{
	txn_write(&store->lanes[lane], &txn);
}

static void
commit(void)
{
	if (txn_commit(&txn) != 0)
		abort();
}

/* Flips an octet of a row. */
static void
spoil_row(struct lane *lane, enum table table, const struct key *key, size_t at)
{
	uint8_t octets[4000];
	MDB_val v;

	txn_write(lane, &txn);
	if (!txn_get(&txn, table, key, &v) || v.mv_size > sizeof(octets))
		abort();
	memcpy(octets, v.mv_data, v.mv_size);
	octets[at < v.mv_size ? at : v.mv_size - 1] ^= 0x20;
	txn_put(&txn, table, key, octets, v.mv_size);
	commit();
}

static bool
finds(const char *where, const char *what)
{
	run_check();
	const bool good = found(where, what);

	for (size_t i = 0; !good && i < fault_count; i++)
		printf("# %s: %s\n", faults[i].where, faults[i].what);
	return good;
}

static const char *
at(const char *table, const struct queue_id *id)
{
	static char text[100];

	snprintf(text, sizeof(text), "%s%s", table, queue_id_format(id, name));
	return text;
}

static void
test_rows(void)
{
	struct store_message *message;
	struct key key, other;

	fill();
	key_id(&key, &ids[0]);
	spoil_row(&store->lanes[QUEUE_FRESH], TABLE_MESSAGE, &key, 20);
	ok(finds(at("fresh/message/", &ids[0]), "does not read"), "a record with a flipped bit");
	key_recipient(&key, &ids[1], 1);
	spoil_row(&store->lanes[QUEUE_RETRY], TABLE_RECIPIENT, &key, 20);
	ok(finds(at("retry/recipient/", &ids[1]), "does not read"), "a recipient with one");
	char which[100];
	snprintf(which, sizeof(which), "%s/1", at("retry/recipient/", &ids[1]));
	ok(found(which, "does not read"), "and which of them");

	message = store_load_message(store, QUEUE_FRESH, &ids[4]);
	begin(QUEUE_FRESH);
	key_due(&key, message->due, &ids[4]);
	txn_del(&txn, TABLE_DUE, &key);
	key_account(&key, message->account, &ids[5]);
	txn_del(&txn, TABLE_ACCOUNT, &key);
	key_recipient(&key, &ids[6], 1);
	txn_del(&txn, TABLE_RECIPIENT, &key);
	commit();
	ok(finds(at("fresh/message/", &ids[4]), "in no order of due times"), "no due time");
	ok(finds(at("fresh/message/", &ids[5]), "its account's list lacks it"),
	   "not with its account");
	ok(finds(at("fresh/message/", &ids[6]), "not as many recipients"), "a recipient is lost");

	begin(QUEUE_FALLBACK);
	key_due(&key, 999, &ids[2]);
	txn_put(&txn, TABLE_DUE, &key, "", 0);
	key_account(&other, "mallory@example.net", &ids[2]);
	txn_put(&txn, TABLE_ACCOUNT, &other, "", 0);
	key_id(&key, &ids[3]);
	txn_put(&txn, TABLE_PREFIX, &key, "x", 1);
	key_due(&key, 999, &ids[3]);
	txn_put(&txn, TABLE_DUE, &key, "", 0);
	commit();
	ok(finds(at("fallback/due/", &ids[2]), "not where its record says"), "a due time too many");
	ok(finds(at("fallback/account/", &ids[2]), "not where its record says"),
	   "another's account");
	ok(finds(at("fallback/prefix/", &ids[3]), "no message of that id"),
	   "a prefix without message");
	ok(finds(at("fallback/due/", &ids[3]), "no message of that id"),
	   "a due time without message");

	message->generation++;
	begin(QUEUE_RETRY);
	txn_store(&txn, message);
	txn_count(&txn, COUNTER_MOVED_IN, message->unfinished);
	commit();
	ok(finds(at("", &ids[4]), "more than one lane"), "one that is in two lanes");
	store_message_free(message);
	ok(!audit.conserved || found("books", ""), "the books are looked at");
	end();
}

static void
test_ledger(void)
{
	struct key key;

	fill();
	begin(QUEUE_FRESH);
	key_ledger(&key, "bob@example.net", 7);
	txn_put(&txn, TABLE_LEDGER, &key, "?", 1);
	key_text(&key, "carol@example.net");
	txn_put(&txn, TABLE_OVERRIDE, &key, "?", 1);
	commit();
	ok(finds("fresh/ledger/bob@example.net", "does not read"), "what was charged");
	ok(finds("fresh/override/carol@example.net", "does not read"), "a limit");
	begin(QUEUE_FRESH);
	(void)mdb_drop(txn.txn, store->lanes[QUEUE_FRESH].dbi[TABLE_LEDGER], 0);
	commit();
	ok(finds(at("retry/message/", &ids[1]), "never charged"), "a charge is lost");
	begin(QUEUE_RETRY);
	txn_count(&txn, COUNTER_DELIVERED, 1);
	commit();
	ok(finds("books", "not those that went out"), "a counter is wrong");
	end();
}

static void
spoil_file(const char *path, off_t offset)
{
	const int fd = open(path, O_RDWR);
	char octet;

	if (pread(fd, &octet, 1, offset) != 1 || (octet ^= 1, pwrite(fd, &octet, 1, offset)) != 1)
		abort();
	close(fd);
}

static void
test_files(void)
{
	struct store_message *message;
	struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
	char path[64], file[32];
	int fd;

	fill();
	message = store_load_message(store, QUEUE_FRESH, &ids[4]);
	snprintf(path, sizeof(path), "bodies/%s", segment_name(message->body.segment, file));
	spoil_file(path, (off_t)message->body.offset + 1);
	ok(finds(at("fresh/message/", &ids[4]), "not what was written") && fault_count == 1,
	   "a body with a flipped bit, and no other");
	spoil_file(path, (off_t)message->body.offset + 1);
	store_message_free(message);
	snprintf(path, sizeof(path), "large/%s", queue_id_format(&ids[7], name));
	spoil_file(path, 1);
	ok(finds(at("fresh/message/", &ids[7]), "not what was written"), "a large one");
	if (truncate(path, 3) != 0)
		abort();
	ok(finds(at("fresh/message/", &ids[7]), "not what was written"), "a shortened one");
	unlink(path);
	ok(finds(at("fresh/message/", &ids[7]), "not there"), "one that is gone");
	snprintf(path, sizeof(path), "large/%s", queue_id_format(&ids[0], name));
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	ok(run_check() == 1, "a large body that is perhaps being received is none");
	utimensat(AT_FDCWD, path, old, 0);
	ok(finds(path, "no record names it"), "one that nobody writes to is");
	fd = open("bodies/seg-00000000000000ff", O_CREAT | O_WRONLY, 0600);
	close(fd);
	ok(finds("bodies/seg-00000000000000ff", "no record names it"), "a file too many");
	end();
}

static void
on_swept(void *arg)
{
	struct lane_txn look;
	MDB_stat stat = {0};
	bool rest = true;

	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		txn_read(&store->lanes[i], &look);
		mdb_stat(look.txn, store->lanes[i].dbi[TABLE_OUTBOX], &stat);
		txn_abort(&look);
		rest = rest && stat.ms_entries == 0;
	}
	if (rest)
		loop_stop(loop);
	else
		loop_defer(loop, on_swept, arg);
}

/* The same things go wrong in each environment. */
static void
test_everywhere(void)
{
	enum { RECORD, RECIPIENT, BODY, LARGE, KINDS };
	struct queue_id all[QUEUE_LANES][KINDS], done, none;
	char where[120], path[64], file[32];
	struct store_message *message;
	struct key key;
	unsigned good = 0;

	new_spool("spool");
	for (unsigned lane = 0; lane < QUEUE_LANES; lane++) {
		struct queue_id *of = all[lane];
		enum store_result why;
		struct store_large *large;
		int fd;

		for (unsigned i = RECORD; i < LARGE; i++)
			enqueue(&of[i], 2, "body", 4, NULL, 0, on_done, NULL);
		queue_id_make(&of[LARGE], clock_wall());
		large = store_large_open(store, &of[LARGE], &fd, &why);
		if (large == NULL || write(fd, "large", 5) != 5)
			abort();
		close(fd);
		enqueue(&of[LARGE], 1, NULL, 0, large, 5, on_done, NULL);
		wait_all();
		for (unsigned i = 0; i < KINDS && lane != QUEUE_FRESH; i++) {
			waiting++;
			store_move(store, &of[i], QUEUE_FRESH, (enum queue_lane)lane, 1000, on_done,
			           NULL);
		}
		wait_all();
	}
	enqueue(&done, 1, "body", 4, NULL, 0, on_done, NULL);
	wait_all();
	finish(QUEUE_FRESH, &done, 1, 0, STORE_DELIVERED);
	wait_all();
	on_swept(NULL);
	loop_run(loop);
	ok(run_check() == 0, "nothing is wrong anywhere");

	queue_id_make(&none, clock_wall());
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct lane *lane = &store->lanes[i];

		message = store_load_message(store, (enum queue_lane)i, &all[i][BODY]);
		snprintf(path, sizeof(path), "bodies/%s",
		         segment_name(message->body.segment, file));
		spoil_file(path, (off_t)message->body.offset + 1);
		store_message_free(message);
		snprintf(path, sizeof(path), "large/%s", queue_id_format(&all[i][LARGE], name));
		unlink(path);
		key_id(&key, &all[i][RECORD]);
		spoil_row(lane, TABLE_MESSAGE, &key, 20);
		key_recipient(&key, &all[i][RECIPIENT], 1);
		spoil_row(lane, TABLE_RECIPIENT, &key, 20);
		begin((enum queue_lane)i);
		key_due(&key, 999, &none);
		txn_put(&txn, TABLE_DUE, &key, "", 0);
		commit();
	}
	key_id(&key, &done);
	spoil_row(&store->history, TABLE_SUMMARY, &key, 20);
	key_outbox(&key, &done, 0, 1);
	spoil_row(&store->history, TABLE_OUTCOME, &key, 20);
	txn_write(&store->history, &txn);
	key_index(&key, HISTORY_BY_ADDRESS, "nobody@example.org", &none);
	txn_put(&txn, TABLE_INDEX, &key, "", 0);
	key_due(&key, 999, &none);
	txn_put(&txn, TABLE_ENDED, &key, "", 0);
	key_id(&key, &none);
	txn_put(&txn, TABLE_ACT, &key, "?", 1);
	commit();
	run_check();
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		static const struct {
			const char *table, *what;
		} all_kinds[KINDS] = {[RECORD] = {"message", "does not read"},
		                      [RECIPIENT] = {"recipient", "does not read"},
		                      [BODY] = {"message", "not what was written"},
		                      [LARGE] = {"message", "not there"}};

		for (unsigned kind = 0; kind < KINDS; kind++) {
			snprintf(where, sizeof(where), "%s/%s/%s",
			         queue_lane_name((enum queue_lane)i), all_kinds[kind].table,
			         queue_id_format(&all[i][kind], name));
			good += found(where, all_kinds[kind].what);
		}
		snprintf(where, sizeof(where), "%s/due/%s", queue_lane_name((enum queue_lane)i),
		         queue_id_format(&none, name));
		good += found(where, "no message of that id");
	}
	ok(good == 15,
	   "in each lane a record, a recipient, a body, a large one that is gone, a row of nobody");
	ok(found(at("history/summary/", &done), "does not read") &&
	       found(at("history/outcome/", &done), "does not read"),
	   "in history a message and an outcome");
	ok(found(at("history/index/", &none), "nothing is known") &&
	       found(at("history/ended/", &none), "nothing is known"),
	   "rows of nobody");
	ok(found(at("history/act/", &none), "does not read"), "and what an operator did");
	ok(fault_count == 15 + 5 + 1 && found("books", ""), "and nothing else but the books");
	for (size_t i = 0; i < fault_count && fault_count != 21; i++)
		printf("# %s: %s\n", faults[i].where, faults[i].what);
	end();
}

/* In the middle of a move, and the source does not read. */
static void
test_half_a_move(void)
{
	struct store_message *message;
	struct key key;
	enum queue_lane lane;

	fill();
	message = store_load_message(store, QUEUE_FRESH, &ids[4]);
	message->generation++;
	begin(QUEUE_RETRY);
	txn_store(&txn, message);
	txn_count(&txn, COUNTER_MOVED_IN, message->unfinished);
	commit();
	store_message_free(message);
	key_recipient(&key, &ids[4], 1);
	spoil_row(&store->lanes[QUEUE_FRESH], TABLE_RECIPIENT, &key, 20);
	ok(reopen(), "a start with half a move, the source of which does not read");
	ok(finds(at("fresh/recipient/", &ids[4]), "does not read") &&
	       found(at("", &ids[4]), "more than one lane"),
	   "which is told");
	ok(store_find(store, &ids[4], &lane) && lane == QUEUE_RETRY, "the target counts");
	for (uint16_t r = 0; r < 2; r++)
		finish(QUEUE_RETRY, &ids[4], 1, r, STORE_DELIVERED);
	wait_all();
	ok(last == STORE_OK, "and ends");
	end();
}

static void
count_message(void *arg, const struct store_message *message)
{
	(void)message;
	++*(unsigned *)arg;
}

/* A spool whose record was damaged while it was stopped. */
static void
test_start(void)
{
	struct key key;
	struct queue_id id;
	bool more;
	unsigned listed = 0;
	struct stat st;

	fill();
	key_id(&key, &ids[0]);
	spoil_row(&store->lanes[QUEUE_FRESH], TABLE_MESSAGE, &key, 20);
	ok(reopen(), "it starts");
	ok(finds(at("fresh/message/", &ids[0]), "does not read") && fault_count == 2 &&
	       found("books", ""),
	   "and is told what is wrong");
	for (unsigned i = 4; i < 7; i++)
		for (uint16_t r = 0; r < 2; r++)
			finish(QUEUE_FRESH, &ids[i], 1, r, STORE_DELIVERED);
	wait_all();
	ok(results[STORE_IO] == 0 && stat("bodies/seg-0000000000000001", &st) == 0,
	   "the others go on, and no file goes");
	(void)store_list(store, NULL, NULL, 100, count_message, &listed, &more);
	ok(listed == 3, "and are listed");
	enqueue(&id, 1, "new", 3, NULL, 0, on_done, NULL);
	wait_all();
	ok(last == STORE_OK, "new mail is taken");
	end();
}

static bool one_share; /* is waited for */

static void
on_share(void *arg, const struct queue_check *share)
{
	(void)arg;
	checked = *share;
	for (size_t i = 0; i < share->count && fault_count < 200; i++)
		faults[fault_count++] = share->faults[i];
	one_share = false;
	loop_stop(loop);
}

/* Many messages: several shares, while others come and go. */
static void
test_shares(void)
{
	enum { MANY = 3000 };
	static struct queue_id many[MANY];
	unsigned shares = 0;
	uint64_t number = 0;

	new_spool("spool");
	for (unsigned i = 0; i < MANY; i++)
		enqueue(&many[i], 4, "body", 4, NULL, 0, on_done, NULL);
	wait_all();
	ok(!store_check(store, 4711, on_check, NULL), "there is no check of another number");
	fault_count = 0;
	for (unsigned i = 0; i < MANY; i++)
		finish(QUEUE_FRESH, &many[i], 1, 0, i % 3 ? STORE_DELIVERED : STORE_BOUNCED);
	do {
		one_share = true;
		if (!store_check(store, number, on_share, NULL))
			abort();
		while (one_share)
			loop_run(loop);
		number = checked.number;
		for (unsigned i = shares * 20; i < (shares + 1) * 20 && i < MANY; i++) {
			waiting++;
			store_move(store, &many[i], QUEUE_FRESH, QUEUE_RETRY, 1, on_done, NULL);
		}
		shares++;
	} while (number);
	wait_all();
	for (size_t i = 0; i < fault_count; i++)
		printf("# %s: %s\n", faults[i].where, faults[i].what);
	ok(shares >= 3 && fault_count == 0, "what changes meanwhile is no fault");
	printf("# %u shares\n", shares);
	end();
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-check-XXXXXX", command[PATH_MAX];

	if (mkdtemp(dir) == NULL || chdir(dir) < 0)
		return 1;
	alarm(120);
	loop = loop_new();
	test_rows();
	test_ledger();
	test_files();
	test_everywhere();
	test_half_a_move();
	test_start();
	test_shares();
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") < 0 || system(command) != 0)
		return 1;
	return tap_end();
}
