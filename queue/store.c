#include "queue/store_int.h"

/* clang-format off */
/* What a message can be found as after power loss, and what follows.
 *
 * Fresh, retry and fallback are LMDB environments with one writer each; bodies are files. Order of
 * an acceptance: (1) body appended to a segment, or streamed into large/ID; (2) body, and the
 * directory of a new file, synced; (3) one transaction in fresh: record, recipients, prefix,
 * indexes, the account's charge, counters; (4) its commit returns; (5) completion, and msa's 250.
 * **250 becomes true at (4)**, when LMDB's meta page is on stable storage; nobody hears of it
 * before (5).
 *
 *   found at start                  it died                         what is done
 *   ------------------------------  ------------------------------  ---------------------------------
 *   body octets, no record          before (4)                      nothing was promised: the
 *                                                                   segment's tail is cut, the file
 *                                                                   removed; so are zeros, which are
 *                                                                   room that was made for more
 *   record, body complete           after (4)                       promised: delivered, even if
 *                                                                   nobody heard the 250 (msa asks:
 *                                                                   store_find)
 *   record, body missing or wrong   never by loss of power          kept and reported by audit: a
 *                                                                   fault of the disk, not ours to
 *                                                                   drop
 *   record in source only           in a move, before the           the move did not happen
 *                                   target's commit
 *   record in both lanes, the       in a move, between its two      the higher generation wins, the
 *   target one generation up        commits                         source's record is deleted now
 *   record in target only           after the move                  nothing
 *   an outcome that only the        before the outcome's commit     delivered again: the one
 *   relay knows                                                     duplicate that SMTP permits
 *   a notification's body, no       before the commit that ends     cut like any other tail; the
 *   record of it                    the recipient                   recipient is attempted again
 *   a notification's record         after that commit               delivered like other mail
 *   outbox row there: a recipient   before history has a copy,      copied to history again by (id,
 *   ended or was deferred, a        or before its deletion          recipient, attempt): same row
 *   message came or moved
 *   no record, body still there     after a message's last          nothing alive names it: removed
 *                                   outcome
 *   a body that was copied, its     in a compaction, before the     the record names the old place;
 *   record names the old place      record's commit                 the copy is cut like any tail
 *   the record names the copy, the  after that commit               the old place is dead; its
 *   old body still there                                            segment goes when all of it is
 *   some of a removal's outcomes    in the middle of a removal      the rest is still queued; the
 *                                                                   operator begins again
 *   a hold's directive              after its commit                held again before anything is
 *                                                                   handed out
 *   a message in the order of       after (4), before the commit    its sender holds it: released
 *   what senders hold               that released it                when its time has come, which
 *                                                                   may be now
 *   a message in the order of due   after that commit               attempted like other mail
 *   times whose sender held it
 *
 * The index of domains (store_domain.c) changes with the record, in its transactions; an environment
 * that was made without one gets it when it is opened.
 *
 * A notification's body is appended inside the transaction that ends the recipient (notice.c), by
 * the same writer to its own segment, and synced before that transaction commits; so the order is
 * the same: body, then what names it.
 *
 * Invariants. The record is deleted by the transaction that ends its last recipient, never
 * otherwise. Conservation holds in each environment in every commit: accepted + generated + moved
 * in = delivered + bounced + expired + removed + moved out + unfinished. The target of a move does
 * nothing about a message until the source has forgotten it: the completion of a move comes after
 * both commits, and its second half is asked again until it succeeds.
 *
 * Threads. The loop's thread asks and reads; each lane's writer applies; a sync thread makes large
 * bodies durable, so that no commit waits for one; a reader's thread counts and verifies. An op
 * belongs to exactly one of them at a time. One more closes files that were removed (segment.c).
 */
/* clang-format on */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

#define TICK          1000
#define SERVING       1000000 /* usec */
#define OUTBOX_MAX    200000
#define OUTBOX_ROW    1024 /* octets, more than most take */
#define HISTORY_ASIDE "history.bad"
#define TICKS_CHECK   10 /* mdb_reader_check: slots of readers that were killed keep pages alive */
#define PRUNE         60000 /* msec */
#define LANE_TABLES                                                                                \
	((1u << TABLE_META) | (1u << TABLE_COUNTER) | (1u << TABLE_MESSAGE) |                      \
	 (1u << TABLE_PREFIX) | (1u << TABLE_RECIPIENT) | (1u << TABLE_DUE) |                      \
	 (1u << TABLE_ACCOUNT) | (1u << TABLE_OUTBOX))
#define FRESH_TABLES                                                                               \
	(LANE_TABLES | (1u << TABLE_HELD) | (1u << TABLE_LEDGER) | (1u << TABLE_OVERRIDE) |        \
	 (1u << TABLE_DIRECTIVE))
#define SLOW_TABLES (LANE_TABLES | (1u << TABLE_DOMAIN))
#define HISTORY_TABLES                                                                             \
	((1u << TABLE_META) | (1u << TABLE_SUMMARY) | (1u << TABLE_OUTCOME) |                      \
	 (1u << TABLE_INDEX) | (1u << TABLE_ENDED) | (1u << TABLE_ACT) | (1u << TABLE_SITE))

static const struct {
	unsigned idle, serving;
} shares[QUEUE_LANES] = {[QUEUE_RETRY] = {50, 10}, [QUEUE_FALLBACK] = {25, 5}};
#define SHARE_HISTORY 25 /* it has to keep up with what is served */

const char *
store_result_text(enum store_result result)
{
	static const char *const text[] = {"ok", "exists", "missing", "full", "io"};

	assert((size_t)result < sizeof(text) / sizeof(*text));
	return text[result];
}

const char *
store_state_name(enum store_state state)
{
	static const char *const text[] = {"queued", "delivered", "bounced", "expired", "removed"};

	assert((size_t)state < sizeof(text) / sizeof(*text));
	return text[state];
}

bool
store_is_serving(const struct store *store)
{
	const uint64_t served = atomic_load(&store->served);

	return served != 0 && clock_usec() - served < SERVING;
}

/* --- ops between the threads --- */

void
store_hand_back(struct store *store, struct op *first, struct op *last)
{
	struct loop_wake *wake = store->wake;

	pthread_mutex_lock(&store->lock);
	/* Once for all that wait to be taken, and under the lock: store_close frees the wake only
	 * after it has seen the last op. */
	if (wake && store->done == NULL)
		loop_wake_ring(wake);
	last->next = NULL;
	*store->done_tail = first;
	store->done_tail = &last->next;
	pthread_cond_signal(&store->done_wake);
	pthread_mutex_unlock(&store->lock);
}

void
store_post(struct store *store, struct lane *lane, struct op *op)
{
	op->store = store;
	store->pending++;
	lane_post(lane, op);
}

/* A full disk fails hundreds a second: one line a second says so. */
static void
note_failure(struct store *store, const struct op *op)
{
	if (store->failed == 0 || op->result == STORE_IO) {
		store->failed_lane = op->lane;
		store->failed_result = op->result;
		store->failed_rc = op->rc;
	}
	store->failed++;
}

static void
log_failures(struct store *store)
{
	if (store->failed == 0)
		return;
	log_event(store->failed_result == STORE_IO ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, "-",
	          "store-failed", "lane=%s result=%s count=%zu error=\"%s\"",
	          store->failed_lane->name, store_result_text(store->failed_result), store->failed,
	          mdb_strerror(store->failed_rc));
	store->failed = 0;
}

static void
deliver(struct store *store, struct op *op)
{
	store->pending--;
	if (op->result == STORE_FULL || op->result == STORE_IO)
		note_failure(store, op);
	op->complete(op);
}

/* What the slow lanes did comes in groups of thousands, and each op is followed by work of the
 * loop's: it is delivered as a chore. */
static void
on_wake(void *arg)
{
	struct store *store = arg;
	struct op *op, *next;

	pthread_mutex_lock(&store->lock);
	op = store->done;
	store->done = NULL;
	store->done_tail = &store->done;
	pthread_mutex_unlock(&store->lock);
	for (; op; op = next) {
		next = op->next;
		if (op->lane->share == 0) {
			deliver(store, op);
			continue;
		}
		op->next = NULL;
		*store->later_tail = op;
		store->later_tail = &op->next;
		loop_chore_begin(store->chore);
	}
}

static bool
deliver_later(void *arg)
{
	struct store *store = arg;
	struct op *op = store->later;

	if (op == NULL)
		return false;
	store->later = op->next;
	if (store->later == NULL)
		store->later_tail = &store->later;
	deliver(store, op);
	return store->later != NULL;
}

void
store_tell(struct op *op)
{
	if (op->on_done)
		op->on_done(op->arg, op->result);
}

void
store_complete(struct op *op)
{
	store_tell(op);
	free(op);
}

static void
on_tick(void *arg)
{
	struct store *store = arg;
	struct op *op = store->again, *next;

	loop_timer_arm(store->timer, TICK);
	log_failures(store);
	store->again = NULL;
	for (; op; op = next) {
		next = op->next;
		store_post(store, op->lane, op);
	}
	if (store->sweep_rest)
		store->sweep_rest--;
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		if (store->dirty[i] && !store->sweep_rest)
			history_sweep(store, (enum queue_lane)i);
	if (++store->ticks % TICKS_CHECK == 0) {
		int dead;

		for (unsigned i = 0; i < QUEUE_LANES; i++)
			(void)mdb_reader_check(store->lanes[i].env, &dead);
		(void)mdb_reader_check(store->history.env, &dead);
	}
	compact_tick(store->compact);
	if (clock_mono() - store->pruned >= PRUNE) {
		store->pruned = clock_mono();
		history_prune(store, clock_wall());
	}
}

/* --- open and close --- */

static int
take_lock(char *error, size_t size)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0) {
		snprintf(error, size, "lock: %s", strerror(errno));
		return -1;
	}
	if (fcntl(fd, F_SETLK, &lock) < 0) {
		snprintf(error, size,
		         errno == EACCES || errno == EAGAIN ? "another queue has this spool open"
		                                            : "lock: cannot lock");
		close(fd);
		return -1;
	}
	return fd;
}

static void
release(struct store *store)
{
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		lane_stop(&store->lanes[i]);
		lane_close(&store->lanes[i]);
	}
	lane_stop(&store->history);
	lane_close(&store->history);
	lane_stop(&store->sync);
	lane_close(&store->sync);
	lane_stop(&store->audit);
	lane_close(&store->audit);
	compact_free(store->compact);
	checks_free(store);
	lane_stop(&store->reader);
	lane_close(&store->reader);
	segments_close(&store->segments);
	loop_timer_free(store->timer);
	loop_chore_free(store->chore);
	if (store->wake)
		loop_wake_free(store->wake);
	pthread_mutex_destroy(&store->lock);
	pthread_cond_destroy(&store->done_wake);
	close(store->lock_fd);
	free(store->hostname);
	free(store);
}

/* A history that does not read is put aside, the last such one is kept: mail goes on, with an empty
 * one. Not so what a newer version wrote, nor one that a full disk, or one that cannot be written,
 * keeps from being opened: there no mail goes on either. */
static int
open_history(struct store *store, char *error, size_t size)
{
	static const char *const files[] = {HISTORY_ASIDE "/data.mdb", HISTORY_ASIDE "/lock.mdb"};
	const uint64_t map_size = store->opts.map_size;

	if (lane_open(&store->history, store, "history", HISTORY_TABLES, map_size, error, size) ==
	    0)
		return 0;
	if (!store->history.unreadable)
		return -1;
	log_error("-", "history-aside", "error=\"%s\" kept=" HISTORY_ASIDE, error);
	lane_close(&store->history);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		(void)unlink(files[i]);
	(void)rmdir(HISTORY_ASIDE);
	if (rename("history", HISTORY_ASIDE) < 0) {
		snprintf(error, size, "history: cannot be put aside: %s", strerror(errno));
		return -1;
	}
	return lane_open(&store->history, store, "history", HISTORY_TABLES, map_size, error, size);
}

struct store *
store_open(struct loop *loop, const struct store_opts *opts, char *error, size_t size)
{
	struct store *store;
	int fd = take_lock(error, size), cwd, rc;

	if (fd < 0)
		return NULL;
	store = xcalloc(1, sizeof(*store));
	store->loop = loop;
	store->opts = *opts;
	store->hostname = xstrdup(opts->hostname ? opts->hostname : "localhost");
	store->lock_fd = fd;
	store->done_tail = &store->done;
	store->later_tail = &store->later;
	store->chore = loop_chore_new(loop, deliver_later, store);
	LIST_INIT(&store->moves);
	LIST_INIT(&store->checks);
	store->compact = compact_new(store);
	store->outbox_max = OUTBOX_MAX;
	/* Or a history that fails would fill a small map, and nothing could end. */
	if (opts->map_size / OUTBOX_ROW < OUTBOX_MAX)
		store->outbox_max = opts->map_size / OUTBOX_ROW;
	store->pruned = clock_mono() - PRUNE;
	store->trimmed = INT64_MIN / 2;
	pthread_mutex_init(&store->lock, NULL);
	pthread_cond_init(&store->done_wake, NULL);
	store->timer = loop_timer_new(loop, on_tick, store);
	if (segments_open(&store->segments) < 0) {
		snprintf(error, size, "bodies or large: %s", strerror(errno));
		goto fail;
	}
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		if (lane_open(&store->lanes[i], store, queue_lane_name((enum queue_lane)i),
		              i == QUEUE_FRESH ? FRESH_TABLES : SLOW_TABLES, opts->map_size, error,
		              size) < 0)
			goto fail;
		store->lanes[i].appender.segments = &store->segments;
		store->lanes[i].share = shares[i].idle;
		store->lanes[i].serving_share = shares[i].serving;
	}
	if (open_history(store, error, size) < 0 ||
	    lane_open(&store->sync, store, "sync", 0, 0, error, size) < 0 ||
	    lane_open(&store->audit, store, "audit", 0, 0, error, size) < 0 ||
	    lane_open(&store->reader, store, "reader", 0, 0, error, size) < 0)
		goto fail;
	store->history.share = store->history.serving_share = SHARE_HISTORY;
	cwd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cwd < 0 || fsync(cwd) < 0) {
		snprintf(error, size, "spool: %s", strerror(errno));
		if (cwd >= 0)
			close(cwd);
		goto fail;
	}
	close(cwd);
	if ((rc = history_upgrade(store)) != 0) {
		snprintf(error, size, "history: %s", mdb_strerror(rc));
		goto fail;
	}
	if (store_recover(store, error, size) < 0)
		goto fail;
	store->wake = loop_wake_new(loop, on_wake, store);
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		store->dirty[i] = true;
		if (lane_start(&store->lanes[i]) < 0)
			goto fail_thread;
	}
	if (lane_start(&store->history) < 0 || lane_start(&store->sync) < 0 ||
	    lane_start(&store->audit) < 0 || lane_start(&store->reader) < 0)
		goto fail_thread;
	loop_timer_arm(store->timer, 0);
	return store;
fail_thread:
	snprintf(error, size, "cannot start a thread");
fail:
	release(store);
	return NULL;
}

void
store_close(struct store *store)
{
	struct op *op, *next;

	if (store == NULL)
		return;
	store->closing = true;
	for (;;) {
		on_wake(store);
		while (deliver_later(store))
			;
		if (store->pending == 0)
			break;
		pthread_mutex_lock(&store->lock);
		while (store->done == NULL)
			pthread_cond_wait(&store->done_wake, &store->lock);
		pthread_mutex_unlock(&store->lock);
	}
	log_failures(store);
	for (op = store->again; op; op = next) {
		next = op->next;
		op->complete(op);
	}
	release(store);
}
