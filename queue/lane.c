#include "queue/store_int.h"

/* One LMDB environment and the one thread that writes to it.
 *
 * A commit costs two flushes however much is in it, so whatever queued while one ran becomes the
 * next (bounded by weight and octets, to keep transactions in memory and latency short); there are
 * no timers. Order within a group: bodies appended, one sync, then records, then the commit. What a
 * change has to say only once it sees the records (a notification) is appended inside the
 * transaction and synced before the commit. After
 * a failed put LMDB refuses the whole transaction, so it is aborted and each change gets one of its
 * own: one that does not fit fails alone. When the write of the meta page fails, nobody knows
 * whether the commit is on the disk, and LMDB refuses the environment from then on: the process
 * ends without a word, sekishod starts it anew, and msa asks the new one for the id.
 *
 * The map is larger than what may be filled: ending a message, too, takes pages before it gives any
 * back, so new mail is refused where map_size is reached, a move into the lane half way through the
 * rest, and what ends messages has all of it.
 *
 * No MDB_WRITEMAP (SIGBUS on a full disk), no MDB_NOSYNC or MDB_NOMETASYNC (acknowledged mail must
 * survive), no duplicate keys. MDB_NOTLS, because the loop's thread nests read transactions. An
 * environment is opened once per process and never before a fork. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

#define GROUP_WEIGHT 4096
#define GROUP_SLOW   256 /* weight, where nobody waits for it */
#define GROUP_OCTETS (4u << 20)
#define RESERVE_MIN  (32u << 20) /* of the map: more than the pages that some groups touch */
#define REST_MAX     200000      /* usec */

static const char *const table_names[TABLES] = {
    [TABLE_META] = "meta",
    [TABLE_COUNTER] = "counter",
    [TABLE_MESSAGE] = "message",
    [TABLE_PREFIX] = "prefix",
    [TABLE_RECIPIENT] = "recipient",
    [TABLE_DUE] = "due",
    [TABLE_ACCOUNT] = "account",
    [TABLE_OUTBOX] = "outbox",
    [TABLE_LEDGER] = "ledger",
    [TABLE_OVERRIDE] = "override",
    [TABLE_DIRECTIVE] = "directive",
    [TABLE_SUMMARY] = "summary",
    [TABLE_OUTCOME] = "outcome",
    [TABLE_HELD] = "held",
    [TABLE_INDEX] = "index",
    [TABLE_ENDED] = "ended",
    [TABLE_ACT] = "act",
    [TABLE_DOMAIN] = "domain",
    [TABLE_SITE] = "site",
};

const char *
table_name(enum table table)
{
	return table_names[table];
}

enum store_result
result_from(int rc)
{
	switch (rc) {
	case 0:
		return STORE_OK;
	case MDB_MAP_FULL:
	case ENOSPC:
	case EDQUOT:
		return STORE_FULL;
	default:
		return STORE_IO;
	}
}

/* --- transactions --- */

void
txn_read(struct lane *lane, struct lane_txn *txn)
{
	*txn = (struct lane_txn){.lane = lane};
	txn->rc = mdb_txn_begin(lane->env, NULL, MDB_RDONLY, &txn->txn);
}

void
txn_write(struct lane *lane, struct lane_txn *txn)
{
	*txn = (struct lane_txn){.lane = lane};
	txn->rc = mdb_txn_begin(lane->env, NULL, 0, &txn->txn);
}

int
txn_commit(struct lane_txn *txn)
{
	if (txn->rc) {
		txn_abort(txn);
		return txn->rc;
	}
	txn->rc = mdb_txn_commit(txn->txn);
	txn->txn = NULL;
	return txn->rc;
}

void
txn_abort(struct lane_txn *txn)
{
	if (txn->txn)
		mdb_txn_abort(txn->txn);
	txn->txn = NULL;
}

static MDB_dbi
table_of(struct lane_txn *txn, enum table table)
{
	assert(txn->lane->tables & (1u << table));
	return txn->lane->dbi[table];
}

void
txn_put(struct lane_txn *txn, enum table table, const struct key *key, const void *data, size_t len)
{
	MDB_val k = {key->len, (void *)key->data}, v = {len, (void *)data};

	if (txn->rc == 0)
		txn->rc = mdb_put(txn->txn, table_of(txn, table), &k, &v, 0);
}

void
txn_del(struct lane_txn *txn, enum table table, const struct key *key)
{
	MDB_val k = {key->len, (void *)key->data};

	if (txn->rc == 0)
		txn->rc = mdb_del(txn->txn, table_of(txn, table), &k, NULL);
	if (txn->rc == MDB_NOTFOUND)
		txn->rc = 0;
}

bool
txn_get(struct lane_txn *txn, enum table table, const struct key *key, MDB_val *out)
{
	MDB_val k = {key->len, (void *)key->data};
	int rc;

	if (txn->rc)
		return false;
	rc = mdb_get(txn->txn, table_of(txn, table), &k, out);
	if (rc && rc != MDB_NOTFOUND)
		txn->rc = rc;
	return rc == 0;
}

uint64_t
txn_used(struct lane_txn *txn)
{
	uint64_t pages = 0, psize = 0;
	MDB_stat stat;

	for (unsigned i = 0; i < TABLES; i++) {
		if ((txn->lane->tables & (1u << i)) &&
		    mdb_stat(txn->txn, txn->lane->dbi[i], &stat) == 0) {
			pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
			psize = stat.ms_psize;
		}
	}
	return pages * psize;
}

bool
txn_has_room(struct lane_txn *txn, bool into_reserve)
{
	const struct lane *lane = txn->lane;
	const uint64_t limit = lane->map_size + (into_reserve ? lane->reserve / 2 : 0);
	MDB_envinfo info;
	MDB_stat stat;

	/* What was never touched is not used. */
	if (mdb_env_info(lane->env, &info) == 0 && mdb_env_stat(lane->env, &stat) == 0 &&
	    (info.me_last_pgno + 1) * (uint64_t)stat.ms_psize < limit)
		return true;
	return txn_used(txn) < limit;
}

MDB_cursor *
txn_cursor(struct lane_txn *txn, enum table table)
{
	MDB_cursor *cursor = NULL;

	if (txn->rc == 0)
		txn->rc = mdb_cursor_open(txn->txn, table_of(txn, table), &cursor);
	return cursor;
}

uint64_t
txn_counter(struct lane_txn *txn, enum counter counter)
{
	struct key key = {.data = {(uint8_t)counter}, .len = 1};
	MDB_val v;

	return txn_get(txn, TABLE_COUNTER, &key, &v) ? be_get(v.mv_data, v.mv_size) : 0;
}

void
txn_count(struct lane_txn *txn, enum counter counter, uint64_t n)
{
	struct key key = {.data = {(uint8_t)counter}, .len = 1};
	uint8_t octets[8];

	if (n == 0)
		return;
	be_put(octets, sizeof(octets), txn_counter(txn, counter) + n);
	txn_put(txn, TABLE_COUNTER, &key, octets, sizeof(octets));
}

static void
load_recipients(struct lane_txn *txn, struct store_message *message)
{
	MDB_cursor *cursor = txn_cursor(txn, TABLE_RECIPIENT);
	size_t size = message->total <= 65536 ? message->total : 0;
	struct key key;
	MDB_val k, v;
	int rc;

	if (cursor == NULL)
		return;
	message->recipients = xcalloc(size ? size : 1, sizeof(*message->recipients));
	key_id(&key, &message->id);
	k = (MDB_val){key.len, key.data};
	for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0;
	     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
		if (k.mv_size != STORE_ID_SIZE + 2 ||
		    memcmp(k.mv_data, message->id.octets, STORE_ID_SIZE) != 0)
			break;
		if (message->recipient_count == size ||
		    !recipient_decode(v.mv_data, v.mv_size,
		                      (uint16_t)be_get((const uint8_t *)k.mv_data + STORE_ID_SIZE,
		                                       2),
		                      &message->recipients[message->recipient_count])) {
			txn->rc = MDB_CORRUPTED;
			break;
		}
		message->recipient_count++;
	}
	if (rc && rc != MDB_NOTFOUND && txn->rc == 0)
		txn->rc = rc;
	mdb_cursor_close(cursor);
}

struct store_message *
txn_load(struct lane_txn *txn, const struct queue_id *id, bool whole)
{
	struct store_message *message;
	struct key key;
	MDB_val v;

	key_id(&key, id);
	if (!txn_get(txn, TABLE_MESSAGE, &key, &v))
		return NULL;
	message = record_decode(v.mv_data, v.mv_size);
	if (message == NULL) {
		txn->rc = MDB_CORRUPTED;
		return NULL;
	}
	message->id = *id;
	message->lane = (enum queue_lane)(txn->lane - txn->lane->store->lanes);
	if (!whole)
		return message;
	if (txn_get(txn, TABLE_PREFIX, &key, &v)) {
		message->prefix = (uint8_t *)xmemdup0(v.mv_data, v.mv_size);
		message->prefix_len = v.mv_size;
	}
	load_recipients(txn, message);
	if (txn->rc) {
		store_message_free(message);
		return NULL;
	}
	return message;
}

enum table
table_due(const struct store_message *message)
{
	return message->held ? TABLE_HELD : TABLE_DUE;
}

void
txn_store(struct lane_txn *txn, const struct store_message *message)
{
	struct key key;
	struct buf buf;

	buf_init(&buf);
	record_encode(message, &buf);
	key_id(&key, &message->id);
	txn_put(txn, TABLE_MESSAGE, &key, buf.data, buf.len);
	if (message->prefix_len)
		txn_put(txn, TABLE_PREFIX, &key, message->prefix, message->prefix_len);
	for (size_t i = 0; i < message->recipient_count && txn->rc == 0; i++) {
		if (message->recipients[i].state != STORE_QUEUED)
			continue;
		buf_consume(&buf, buf.len);
		recipient_encode(&message->recipients[i], &buf);
		key_recipient(&key, &message->id, message->recipients[i].index);
		txn_put(txn, TABLE_RECIPIENT, &key, buf.data, buf.len);
	}
	key_due(&key, message->due, &message->id);
	txn_put(txn, table_due(message), &key, "", 0);
	key_account(&key, message->account, &message->id);
	txn_put(txn, TABLE_ACCOUNT, &key, "", 0);
	txn_domains(txn, message, false);
	key_outbox(&key, &message->id, OUTBOX_SUMMARY_INDEX, OUTBOX_SUMMARY_ATTEMPT);
	txn_put(txn, TABLE_OUTBOX, &key, "", 0);
	buf_clear(&buf);
}

void
txn_drop(struct lane_txn *txn, const struct store_message *message)
{
	struct key key;

	key_id(&key, &message->id);
	txn_del(txn, TABLE_MESSAGE, &key);
	txn_del(txn, TABLE_PREFIX, &key);
	for (size_t i = 0; i < message->recipient_count; i++) {
		key_recipient(&key, &message->id, message->recipients[i].index);
		txn_del(txn, TABLE_RECIPIENT, &key);
	}
	key_due(&key, message->due, &message->id);
	txn_del(txn, table_due(message), &key);
	key_account(&key, message->account, &message->id);
	txn_del(txn, TABLE_ACCOUNT, &key);
	txn_domains(txn, message, true);
}

void
txn_event(struct lane_txn *txn, const struct queue_id *id, uint32_t number,
          const struct event *event)
{
	struct key key;
	struct buf buf;

	buf_init(&buf);
	event_encode(event, &buf);
	key_outbox(&key, id, OUTBOX_EVENT_INDEX, (uint32_t)event->kind << 24 | (number & 0xffffff));
	txn_put(txn, TABLE_OUTBOX, &key, buf.data, buf.len);
	buf_clear(&buf);
}

/* --- opening --- */

static int
open_tables(struct lane *lane, char *error, size_t size)
{
	struct lane_txn txn;
	struct key key;
	MDB_val v;
	uint8_t octets[4];

	txn_write(lane, &txn);
	for (unsigned i = 0; i < TABLES && txn.rc == 0; i++) {
		if (lane->tables & (1u << i))
			txn.rc = mdb_dbi_open(txn.txn, table_names[i], MDB_CREATE, &lane->dbi[i]);
	}
	key_text(&key, "format");
	if (txn_get(&txn, TABLE_META, &key, &v)) {
		uint64_t format = be_get(v.mv_data, v.mv_size);

		if (format > STORE_FORMAT) {
			snprintf(
			    error, size,
			    "%s: written by a newer version (format %llu, this program knows %u)",
			    lane->name, (unsigned long long)format, STORE_FORMAT);
			txn_abort(&txn);
			return -1;
		}
	}
	txn_domains_make(&txn);
	/* Written anew each time: a commit of our own. A process killed inside its last meta write
	 * left a state that we see and the disk may not have; what is built on from here on is
	 * durable. */
	be_put(octets, sizeof(octets), STORE_FORMAT);
	key_text(&key, "format");
	txn_put(&txn, TABLE_META, &key, octets, sizeof(octets));
	if (txn_commit(&txn)) {
		lane->unreadable = txn.rc < 0;
		snprintf(error, size, "%s: %s", lane->name, mdb_strerror(txn.rc));
		return -1;
	}
	return 0;
}

int
lane_open(struct lane *lane, struct store *store, const char *name, uint32_t tables,
          uint64_t map_size, char *error, size_t size)
{
	int dead, rc, fd;

	memset(lane, 0, sizeof(*lane));
	lane->store = store;
	lane->name = name;
	lane->tables = tables;
	lane->map_size = map_size;
	lane->reserve = map_size / 8 > RESERVE_MIN ? map_size / 8 : RESERVE_MIN;
	lane->tail = &lane->head;
	pthread_mutex_init(&lane->lock, NULL);
	pthread_cond_init(&lane->wake, NULL);
	if (tables == 0)
		return 0;
	if (mkdir(name, 0700) < 0 && errno != EEXIST) {
		snprintf(error, size, "%s: %s", name, strerror(errno));
		return -1;
	}
	if ((rc = mdb_env_create(&lane->env)) == 0) {
		mdb_env_set_maxdbs(lane->env, TABLES);
		mdb_env_set_mapsize(lane->env, map_size + lane->reserve);
		if ((rc = mdb_env_open(lane->env, name, MDB_NOTLS, 0600)) == 0)
			rc = mdb_reader_check(lane->env, &dead);
	}
	if (rc) {
		lane->unreadable = result_from(rc) == STORE_IO;
		snprintf(error, size, "%s: %s", name, mdb_strerror(rc));
		return -1;
	}
	if (open_tables(lane, error, size) < 0)
		return -1;
	/* The data file may be new: its directory entry is part of every promise. */
	fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0) {
		snprintf(error, size, "%s: %s", name, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	close(fd);
	return 0;
}

void
lane_close(struct lane *lane)
{
	if (lane->store == NULL)
		return;
	appender_abandon(&lane->appender);
	if (lane->env)
		mdb_env_close(lane->env);
	lane->env = NULL;
	pthread_mutex_destroy(&lane->lock);
	pthread_cond_destroy(&lane->wake);
	lane->store = NULL;
}

/* --- the writer --- */

/* A short write shows up as EIO from LMDB's commit even when the disk is only full: nobody needs an
 * operator for that. */
static int
commit_error(int rc, struct segments *segments)
{
	int fd;

	if (rc != EIO)
		return rc;
	/* One page more, in a file that has no name, tells which of the two it was. */
	fd = openat(segments->bodies, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (fd >= 0) {
		char page[4096] = {0};

		if (write(fd, page, sizeof(page)) < 0 && errno == ENOSPC)
			rc = ENOSPC;
		close(fd);
	} else if (errno == ENOSPC) {
		rc = ENOSPC;
	}
	return rc;
}

static int
run_txn(struct lane *lane, struct op *first, const struct op *end)
{
	struct lane_txn txn;

	txn_write(lane, &txn);
	for (struct op *op = first; op != end && txn.rc == 0; op = op->next) {
		if (op->rc == 0)
			op->result = op->apply(op, &txn);
	}
	/* What was appended inside it is durable before it becomes true. */
	if (txn.rc == 0)
		txn.rc = appender_sync(&lane->appender);
	return commit_error(txn_commit(&txn), &lane->store->segments);
}

enum store_result
op_fail(struct op *op, int rc)
{
	op->rc = rc;
	return op->result = result_from(rc);
}

/* Whether a failed write of the meta page has made LMDB refuse the environment until it is opened
 * anew. */
static bool
is_lost(struct lane *lane)
{
	struct lane_txn txn;

	txn_write(lane, &txn);
	txn_abort(&txn);
	return txn.rc == MDB_PANIC;
}

static void
run_group(struct lane *lane, struct op *group)
{
	int rc = 0;
	size_t count = 0;
	struct op *last = group;

	for (struct op *op = group; op; op = op->next, count++) {
		op->result = STORE_OK;
		op->rc = 0;
		if (op->prepare && (rc = op->prepare(op)) != 0)
			op_fail(op, rc);
	}
	if ((rc = appender_sync(&lane->appender)) != 0) {
		for (struct op *op = group; op; op = op->next)
			if (op->prepare && op->rc == 0)
				op_fail(op, rc);
		appender_abandon(&lane->appender);
	}
	if (lane->env && run_txn(lane, group, NULL) != 0) {
		for (struct op *op = group; op && !is_lost(lane); op = op->next)
			if (op->rc == 0 && (rc = run_txn(lane, op, op->next)) != 0)
				op_fail(op, rc);
		if (is_lost(lane)) {
			log_error("-", "store-lost",
			          "lane=%s error=\"the write that ends a commit failed\"",
			          lane->name);
			_exit(EXIT_FAILURE);
		}
	}
	if (lane->appender.broken)
		appender_abandon(&lane->appender);
	pthread_mutex_lock(&lane->lock);
	lane->commits++;
	lane->committed += count;
	pthread_mutex_unlock(&lane->lock);
	for (struct op *op = group; op; op = op->next) {
		if (op->settled)
			op->settled(op);
		last = op;
	}
	store_hand_back(lane->store, group, last);
}

/* What is tried again must not fill the disk's queue, in which the commits stand that clients wait
 * for: groups are small, because all their pages come to the disk at once, and after a commit its
 * writer rests in proportion to the time that it took, so that it gives way the more the busier the
 * disk is. What comes meanwhile makes the next group larger. */
static void
rest(const struct lane *lane, uint64_t spent)
{
	const unsigned share = store_is_serving(lane->store) ? lane->serving_share : lane->share;
	uint64_t wait = share ? spent * (100 - share) / share : 0;

	if (wait > REST_MAX)
		wait = REST_MAX;
	if (wait > 0 && !lane->store->closing)
		nanosleep(&(struct timespec){.tv_nsec = (long)wait * 1000}, NULL);
}

static void *
writer(void *arg)
{
	struct lane *lane = arg;
	struct op *group, **tail;

	pthread_mutex_lock(&lane->lock);
	for (;;) {
		const size_t most = lane->share ? GROUP_SLOW : GROUP_WEIGHT;
		size_t weight = 0, octets = 0;

		while (lane->head == NULL && !lane->stop)
			pthread_cond_wait(&lane->wake, &lane->lock);
		if (lane->head == NULL)
			break;
		group = lane->head;
		tail = &lane->head;
		do {
			weight += (*tail)->weight;
			octets += (*tail)->octets;
			tail = &(*tail)->next;
		} while (lane->env && *tail && weight + (*tail)->weight <= most &&
		         octets + (*tail)->octets <= GROUP_OCTETS);
		lane->head = *tail;
		*tail = NULL;
		if (lane->head == NULL)
			lane->tail = &lane->head;
		pthread_mutex_unlock(&lane->lock);
		const uint64_t begun = clock_usec();
		run_group(lane, group);
		rest(lane, clock_usec() - begun);
		pthread_mutex_lock(&lane->lock);
	}
	pthread_mutex_unlock(&lane->lock);
	return NULL;
}

int
thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	sigset_t all, old;
	int rc;

	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc == 0 ? 0 : -1;
}

int
lane_start(struct lane *lane)
{
	lane->running = thread_start(&lane->thread, writer, lane) == 0;
	return lane->running ? 0 : -1;
}

void
lane_stop(struct lane *lane)
{
	if (!lane->running)
		return;
	pthread_mutex_lock(&lane->lock);
	lane->stop = true;
	pthread_cond_signal(&lane->wake);
	pthread_mutex_unlock(&lane->lock);
	pthread_join(lane->thread, NULL);
	lane->running = false;
}

void
lane_post(struct lane *lane, struct op *op)
{
	op->lane = lane;
	op->next = NULL;
	pthread_mutex_lock(&lane->lock);
	*lane->tail = op;
	lane->tail = &op->next;
	pthread_cond_signal(&lane->wake);
	pthread_mutex_unlock(&lane->lock);
}
