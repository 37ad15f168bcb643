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
 *   found at start                  it died                       what is done
 *   ------------------------------  ----------------------------
 * ------------------------------------ body octets, no record          before (4) nothing was
 * promised: the segment's tail is cut, the file removed record, body complete           after (4)
 * promised: delivered, even if nobody heard the 250 (msa asks: store_find) record, body missing or
 * wrong   never by loss of power        kept and reported by audit: a fault of the disk, not ours
 * to drop record in source only           in a move, before the         the move did not happen
 *                                   target's commit
 *   record in both lanes, the       in a move, between its two    the higher generation wins, the
 *   target one generation up        commits                       source's record is deleted now
 *   record in target only           after the move                nothing
 *   an outcome that only the        before the outcome's commit   delivered again: the one
 * duplicate relay knows                                                   that SMTP permits
 *   recipient ended, outbox row     before history has a copy,    copied to history again by (id,
 *   there                           or before its deletion        recipient, attempt): same row
 *   no record, body still there     after a message's last        nothing alive names it: removed
 *                                   outcome
 *
 * Invariants. The record is deleted by the transaction that ends its last recipient, never
 * otherwise. Conservation holds in each environment in every commit: accepted + generated + moved
 * in = delivered + bounced + expired + removed + moved out + unfinished. The target of a move does
 * nothing about a message until the source has forgotten it: the completion of a move comes after
 * both commits, and its second half is asked again until it succeeds.
 *
 * Threads. The loop's thread asks and reads; each lane's writer applies; a sync thread makes large
 * bodies durable, so that no commit waits for one; an audit thread counts and reads. An op belongs to exactly one of them at a time.
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

#define TICK        1000
#define TICKS_CHECK 10 /* mdb_reader_check: slots of readers that were killed keep pages alive */
#define TICKS_PRUNE 60
#define LANE_TABLES                                                                                \
	((1u << TABLE_META) | (1u << TABLE_COUNTER) | (1u << TABLE_MESSAGE) |                      \
	 (1u << TABLE_PREFIX) | (1u << TABLE_RECIPIENT) | (1u << TABLE_DUE) |                      \
	 (1u << TABLE_ACCOUNT) | (1u << TABLE_OUTBOX))
#define FRESH_TABLES                                                                               \
	(LANE_TABLES | (1u << TABLE_LEDGER) | (1u << TABLE_OVERRIDE) | (1u << TABLE_DIRECTIVE))
#define HISTORY_TABLES ((1u << TABLE_META) | (1u << TABLE_SUMMARY) | (1u << TABLE_OUTCOME))

struct store_large {
	struct queue_id id;
};

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
deliver(struct store *store)
{
	struct op *op, *next;

	pthread_mutex_lock(&store->lock);
	op = store->done;
	store->done = NULL;
	store->done_tail = &store->done;
	pthread_mutex_unlock(&store->lock);
	for (; op; op = next) {
		next = op->next;
		store->pending--;
		if (op->result == STORE_FULL || op->result == STORE_IO)
			note_failure(store, op);
		op->complete(op);
	}
}

static void
on_wake(void *arg)
{
	deliver(arg);
}

static void
tell(struct op *op)
{
	if (op->on_done)
		op->on_done(op->arg, op->result);
}

void
store_complete(struct op *op)
{
	tell(op);
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
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		if (store->dirty[i])
			history_sweep(store, (enum queue_lane)i);
	if (++store->ticks % TICKS_CHECK == 0) {
		int dead;

		for (unsigned i = 0; i < QUEUE_LANES; i++)
			(void)mdb_reader_check(store->lanes[i].env, &dead);
		(void)mdb_reader_check(store->history.env, &dead);
	}
	if (store->ticks % TICKS_PRUNE == 1)
		history_prune(store, clock_wall());
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
	segments_close(&store->segments);
	loop_timer_free(store->timer);
	if (store->wake)
		loop_wake_free(store->wake);
	pthread_mutex_destroy(&store->lock);
	pthread_cond_destroy(&store->done_wake);
	close(store->lock_fd);
	free(store);
}

struct store *
store_open(struct loop *loop, const struct store_opts *opts, char *error, size_t size)
{
	struct store *store;
	int fd = take_lock(error, size), cwd;

	if (fd < 0)
		return NULL;
	store = xcalloc(1, sizeof(*store));
	store->loop = loop;
	store->opts = *opts;
	store->lock_fd = fd;
	store->done_tail = &store->done;
	pthread_mutex_init(&store->lock, NULL);
	pthread_cond_init(&store->done_wake, NULL);
	store->timer = loop_timer_new(loop, on_tick, store);
	if (segments_open(&store->segments) < 0) {
		snprintf(error, size, "bodies or large: %s", strerror(errno));
		goto fail;
	}
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		if (lane_open(&store->lanes[i], store, queue_lane_name((enum queue_lane)i),
		              i == QUEUE_FRESH ? FRESH_TABLES : LANE_TABLES, opts->map_size, error,
		              size) < 0)
			goto fail;
	}
	store->lanes[QUEUE_FRESH].bodies = true;
	if (lane_open(&store->history, store, "history", HISTORY_TABLES, opts->map_size, error,
	              size) < 0 ||
	    lane_open(&store->sync, store, "sync", 0, 0, error, size) < 0 ||
	    lane_open(&store->audit, store, "audit", 0, 0, error, size) < 0)
		goto fail;
	cwd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cwd < 0 || fsync(cwd) < 0) {
		snprintf(error, size, "spool: %s", strerror(errno));
		if (cwd >= 0)
			close(cwd);
		goto fail;
	}
	close(cwd);
	if (store_recover(store, error, size) < 0)
		goto fail;
	store->wake = loop_wake_new(loop, on_wake, store);
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		store->dirty[i] = true;
		if (lane_start(&store->lanes[i]) < 0)
			goto fail_thread;
	}
	if (lane_start(&store->history) < 0 || lane_start(&store->sync) < 0 ||
	    lane_start(&store->audit) < 0)
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
		deliver(store);
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

/* --- accepting --- */

struct enqueue {
	struct op op;
	struct store_message *message;
	uint8_t *body;
	size_t body_len;
	bool placed; /* the body is on disk and counted */
	uint64_t large_size, large_checksum;
	bool charged;
	struct ledger_charge charge;
};

struct store_large *
store_large_open(struct store *store, const struct queue_id *id, int *fd_out,
                 enum store_result *why)
{
	char name[QUEUE_ID_TEXT_SIZE];
	struct store_large *large;
	int fd = openat(store->segments.large, large_name(id, name),
	                O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0) {
		*why = errno == EEXIST ? STORE_EXISTS : result_from(errno);
		return NULL;
	}
	*why = STORE_OK;
	*fd_out = fd;
	large = xcalloc(1, sizeof(*large));
	large->id = *id;
	return large;
}

void
store_large_abort(struct store *store, struct store_large *large)
{
	struct store_body body = {0};

	if (large == NULL)
		return;
	segments_release(&store->segments, &large->id, &body);
	free(large);
}

static int
enqueue_append(struct op *op)
{
	struct enqueue *enqueue = (struct enqueue *)op;
	int rc = segments_append(&op->store->segments, enqueue->body, enqueue->body_len,
	                         &enqueue->message->body);

	enqueue->placed = rc == 0;
	return rc;
}

static int
enqueue_sync_large(struct op *op)
{
	struct enqueue *enqueue = (struct enqueue *)op;
	int rc = large_sync(&op->store->segments, &enqueue->message->id, &enqueue->message->body);

	if (rc == 0 && (enqueue->message->body.size != enqueue->large_size ||
	                enqueue->message->body.checksum != enqueue->large_checksum))
		rc = EBADMSG;
	return rc;
}

static enum store_result
enqueue_apply(struct op *op, struct lane_txn *txn)
{
	struct enqueue *enqueue = (struct enqueue *)op;
	struct store_message *message = enqueue->message;
	struct key key;
	MDB_val v;

	key_id(&key, &message->id);
	if (txn_get(txn, TABLE_MESSAGE, &key, &v))
		return STORE_EXISTS;
	txn_store(txn, message);
	txn_count(txn, message->generated ? COUNTER_GENERATED : COUNTER_ACCEPTED, message->total);
	if (enqueue->charged)
		txn_charge(txn, message->account, &enqueue->charge);
	return STORE_OK;
}

static void
enqueue_settled(struct op *op)
{
	struct enqueue *enqueue = (struct enqueue *)op;

	if (op->result != STORE_OK && enqueue->placed)
		segments_release(&op->store->segments, &enqueue->message->id,
		                 &enqueue->message->body);
}

static void
enqueue_complete(struct op *op)
{
	struct enqueue *enqueue = (struct enqueue *)op;

	tell(op);
	store_message_free(enqueue->message);
	free(enqueue->body);
	free(enqueue);
}

static void
enqueue_large_synced(struct op *op)
{
	if (op->result != STORE_OK) {
		enqueue_complete(op);
		return;
	}
	op->prepare = NULL;
	op->apply = enqueue_apply;
	op->complete = enqueue_complete;
	store_post(op->store, &op->store->lanes[QUEUE_FRESH], op);
}

void
store_enqueue(struct store *store, const struct store_message_new *in, store_on_done *on_done,
              void *arg)
{
	struct enqueue *enqueue = xcalloc(1, sizeof(*enqueue));
	struct store_message *message = xcalloc(1, sizeof(*message));
	struct op *op = &enqueue->op;
	enum queue_lane lane;

	assert(in->recipient_count >= 1 && in->recipient_count <= QUEUE_RECIPIENTS_MAX);
	assert(in->prefix_len <= QUEUE_PREFIX_MAX);
	assert(in->large_take || in->body_len <= QUEUE_INLINE_MAX);
	enqueue->message = message;
	message->id = in->id;
	message->lane = QUEUE_FRESH;
	message->generated = in->generated;
	message->body_8bit = in->body_8bit;
	message->generation = 1;
	message->account = xstrdup(in->account ? in->account : "");
	message->from = in->from;
	message->created = in->created;
	message->due = in->due;
	message->client_ip = xstrdup(in->client_ip ? in->client_ip : "");
	message->client_port = in->client_port;
	message->ehlo = xstrdup(in->ehlo ? in->ehlo : "");
	message->last_reply = xstrdup("");
	if (in->prefix_len)
		message->prefix = (uint8_t *)xmemdup0(in->prefix, in->prefix_len);
	message->prefix_len = in->prefix_len;
	message->total = message->unfinished = (uint32_t)in->recipient_count;
	message->recipients = xcalloc(in->recipient_count, sizeof(*message->recipients));
	message->recipient_count = in->recipient_count;
	for (size_t i = 0; i < in->recipient_count; i++) {
		message->recipients[i].index = (uint16_t)i;
		message->recipients[i].address = in->recipients[i];
		message->recipients[i].reply = xstrdup("");
	}
	if (in->charge) {
		enqueue->charged = true;
		enqueue->charge = *in->charge;
	}
	op->store = store;
	op->lane = &store->lanes[QUEUE_FRESH];
	op->weight = 4 + in->recipient_count;
	op->settled = enqueue_settled;
	op->on_done = on_done;
	op->arg = arg;
	if (in->large_take) {
		assert(queue_id_equal(&in->large_take->id, &in->id));
		free(in->large_take);
		enqueue->placed = true;
		enqueue->large_size = in->large_size;
		enqueue->large_checksum = in->large_checksum;
		op->prepare = enqueue_sync_large;
		op->complete = enqueue_large_synced;
	} else {
		enqueue->body = (uint8_t *)xmemdup0(in->body_len ? in->body : "", in->body_len);
		enqueue->body_len = op->octets = in->body_len;
		op->prepare = enqueue_append;
		op->apply = enqueue_apply;
		op->complete = enqueue_complete;
	}
	if (store_find(store, &in->id, &lane)) {
		op->result = STORE_EXISTS;
		op->complete = enqueue_complete;
		op->settled(op);
		store->pending++;
		store_hand_back(store, op, op);
		return;
	}
	store_post(store, in->large_take ? &store->sync : op->lane, op);
}

/* --- delivering --- */

struct finish {
	struct op op;
	struct queue_id id;
	unsigned attempt;
	struct store_outcome *outcomes;
	size_t count;
	msec_t when, due;
	bool ended, last; /* some recipient ended; the message left the lane */
	struct store_body body;
};

static const enum counter counter_of[] = {
    [STORE_DELIVERED] = COUNTER_DELIVERED,
    [STORE_BOUNCED] = COUNTER_BOUNCED,
    [STORE_EXPIRED] = COUNTER_EXPIRED,
    [STORE_REMOVED] = COUNTER_REMOVED,
};

static struct store_recipient *
recipient_of(struct store_message *message, uint16_t index)
{
	size_t low = 0, high = message->recipient_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (message->recipients[middle].index < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low < message->recipient_count && message->recipients[low].index == index
	           ? &message->recipients[low]
	           : NULL;
}

static void
apply_outcome(struct finish *finish, struct lane_txn *txn, struct store_message *message,
              const struct store_outcome *outcome)
{
	struct store_recipient *recipient = recipient_of(message, outcome->index);
	struct key key;
	struct buf buf;

	if (recipient->state != STORE_QUEUED)
		return;
	recipient->state = outcome->state;
	if (finish->attempt)
		recipient->attempts = finish->attempt;
	recipient->when = finish->when;
	free(recipient->reply);
	recipient->reply = xstrdup(outcome->reply);
	free(message->last_reply);
	message->last_reply = xstrdup(outcome->reply);
	buf_init(&buf);
	recipient_encode(recipient, &buf);
	key_recipient(&key, &message->id, outcome->index);
	txn_put(txn, TABLE_RECIPIENT, &key, buf.data, buf.len);
	if (outcome->state != STORE_QUEUED) {
		message->unfinished--;
		finish->ended = true;
		txn_count(txn, counter_of[outcome->state], 1);
		key_outbox(&key, &message->id, outcome->index, finish->attempt);
		txn_put(txn, TABLE_OUTBOX, &key, buf.data, buf.len);
	}
	buf_clear(&buf);
}

static enum store_result
finish_apply(struct op *op, struct lane_txn *txn)
{
	struct finish *finish = (struct finish *)op;
	struct store_message *message = txn_load(txn, &finish->id, true);
	enum store_result result = STORE_OK;
	struct key key;
	struct buf buf;

	finish->ended = finish->last = false;
	if (message == NULL)
		return STORE_MISSING;
	for (size_t i = 0; i < finish->count; i++) {
		if (recipient_of(message, finish->outcomes[i].index) == NULL) {
			result = STORE_MISSING;
			goto out;
		}
	}
	for (size_t i = 0; i < finish->count; i++)
		apply_outcome(finish, txn, message, &finish->outcomes[i]);
	if (finish->attempt > message->attempts)
		message->attempts = finish->attempt;
	if (message->unfinished == 0) {
		txn_drop(txn, message);
		finish->last = true;
		finish->body = message->body;
	} else if (message->due != finish->due) {
		key_due(&key, message->due, &message->id);
		txn_del(txn, TABLE_DUE, &key);
		message->due = finish->due;
		key_due(&key, message->due, &message->id);
		txn_put(txn, TABLE_DUE, &key, "", 0);
	}
	buf_init(&buf);
	record_encode(message, &buf);
	if (message->unfinished) {
		key_id(&key, &message->id);
		txn_put(txn, TABLE_MESSAGE, &key, buf.data, buf.len);
	}
	if (finish->ended) {
		key_outbox(&key, &message->id, OUTBOX_SUMMARY_INDEX, OUTBOX_SUMMARY_ATTEMPT);
		txn_put(txn, TABLE_OUTBOX, &key, buf.data, buf.len);
	}
	buf_clear(&buf);
out:
	store_message_free(message);
	return result;
}

static void
finish_settled(struct op *op)
{
	struct finish *finish = (struct finish *)op;

	if (op->result == STORE_OK && finish->last)
		segments_release(&op->store->segments, &finish->id, &finish->body);
}

static void
finish_complete(struct op *op)
{
	struct finish *finish = (struct finish *)op;

	/* The next tick copies them: history is in no hurry, and each sweep is two commits. */
	if (op->result == STORE_OK && finish->ended)
		op->store->dirty[op->lane - op->store->lanes] = true;
	tell(op);
	free(finish->outcomes);
	free(finish);
}

void
store_finish(struct store *store, enum queue_lane lane, const struct queue_id *id, unsigned attempt,
             const struct store_outcome *outcomes, size_t count, msec_t when, msec_t due,
             store_on_done *on_done, void *arg)
{
	struct finish *finish = xcalloc(1, sizeof(*finish));

	finish->id = *id;
	finish->attempt = attempt;
	finish->count = count;
	finish->outcomes = xcalloc(count ? count : 1, sizeof(*outcomes));
	if (count)
		memcpy(finish->outcomes, outcomes, count * sizeof(*outcomes));
	finish->when = when;
	finish->due = due;
	finish->op.weight = 4 + 3 * count;
	finish->op.apply = finish_apply;
	finish->op.settled = finish_settled;
	finish->op.complete = finish_complete;
	finish->op.on_done = on_done;
	finish->op.arg = arg;
	store_post(store, &store->lanes[lane], &finish->op);
}

void
store_set_due(struct store *store, enum queue_lane lane, const struct queue_id *id, msec_t due,
              store_on_done *on_done, void *arg)
{
	store_finish(store, lane, id, 0, NULL, 0, 0, due, on_done, arg);
}

struct move {
	struct op op;
	struct queue_id id;
	enum queue_lane from, to;
	msec_t due;
	struct store_message *message; /* as it was in the source */
};

static enum store_result
move_read(struct op *op, struct lane_txn *txn)
{
	struct move *move = (struct move *)op;

	store_message_free(move->message);
	move->message = txn_load(txn, &move->id, true);
	return move->message ? STORE_OK : STORE_MISSING;
}

static enum store_result
move_put(struct op *op, struct lane_txn *txn)
{
	struct move *move = (struct move *)op;
	struct store_message next = *move->message;
	struct key key;
	MDB_val v;

	key_id(&key, &move->id);
	if (txn_get(txn, TABLE_MESSAGE, &key, &v))
		return STORE_EXISTS;
	next.generation++;
	next.due = move->due;
	txn_store(txn, &next);
	txn_count(txn, COUNTER_MOVED_IN, next.unfinished);
	return STORE_OK;
}

static enum store_result
move_drop(struct op *op, struct lane_txn *txn)
{
	struct move *move = (struct move *)op;

	txn_drop(txn, move->message);
	txn_count(txn, COUNTER_MOVED_OUT, move->message->unfinished);
	return STORE_OK;
}

static void
move_complete(struct op *op)
{
	struct move *move = (struct move *)op;
	struct store *store = op->store;

	if (op->apply == move_read && op->result == STORE_OK) {
		op->apply = move_put;
		op->weight = 4 + move->message->recipient_count;
		store_post(store, &store->lanes[move->to], op);
		return;
	}
	if (op->apply == move_put && op->result == STORE_OK) {
		op->apply = move_drop;
		store_post(store, &store->lanes[move->from], op);
		return;
	}
	if (op->apply == move_drop && op->result != STORE_OK) {
		if (!store->closing) {
			op->next = store->again;
			store->again = op;
			return;
		}
		/* The target has it; recovery will delete what is left in the source. */
		op->result = STORE_OK;
	}
	tell(op);
	store_message_free(move->message);
	free(move);
}

void
store_move(struct store *store, const struct queue_id *id, enum queue_lane from, enum queue_lane to,
           msec_t due, store_on_done *on_done, void *arg)
{
	struct move *move = xcalloc(1, sizeof(*move));

	assert(from != to && from < QUEUE_LANES && to < QUEUE_LANES);
	move->id = *id;
	move->from = from;
	move->to = to;
	move->due = due;
	move->op.weight = 1;
	move->op.apply = move_read;
	move->op.complete = move_complete;
	move->op.on_done = on_done;
	move->op.arg = arg;
	store_post(store, &store->lanes[from], &move->op);
}

/* --- reading --- */

size_t
store_scan_due(struct store *store, enum queue_lane lane, struct store_key *from, size_t max,
               store_on_due *on_due, void *arg)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;
	size_t count = 0;
	int rc;

	txn_read(&store->lanes[lane], &txn);
	cursor = txn_cursor(&txn, TABLE_DUE);
	if (cursor) {
		key_due(&key, from->due, &from->id);
		k = (MDB_val){key.len, key.data};
		for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0 && count < max;
		     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
			if (k.mv_size != key.len || memcmp(k.mv_data, key.data, key.len) == 0)
				continue;
			from->due = (msec_t)be_get(k.mv_data, 8);
			memcpy(from->id.octets, (const uint8_t *)k.mv_data + 8, STORE_ID_SIZE);
			count++;
			if (!on_due(arg, from))
				break;
		}
		mdb_cursor_close(cursor);
	}
	txn_abort(&txn);
	return count;
}

struct store_message *
store_load_message(struct store *store, enum queue_lane lane, const struct queue_id *id)
{
	struct lane_txn txn;
	struct store_message *message;

	txn_read(&store->lanes[lane], &txn);
	message = txn_load(&txn, id, true);
	txn_abort(&txn);
	return message;
}

struct store_message *
store_load_detail(struct store *store, const struct queue_id *id)
{
	struct store_message *message = NULL;

	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct store_message *found = store_load_message(store, (enum queue_lane)i, id);

		if (found && message && found->generation < message->generation) {
			store_message_free(found);
		} else if (found) {
			store_message_free(message);
			message = found;
		}
	}
	history_merge(store, id, &message);
	return message;
}

bool
store_find(struct store *store, const struct queue_id *id, enum queue_lane *lane)
{
	struct lane_txn txn;
	struct key key;
	MDB_val v;

	/* Backwards, so that a message in the middle of a move is found where it is going. */
	key_id(&key, id);
	for (unsigned i = QUEUE_LANES; i-- > 0;) {
		bool found;

		txn_read(&store->lanes[i], &txn);
		found = txn_get(&txn, TABLE_MESSAGE, &key, &v);
		txn_abort(&txn);
		if (found) {
			*lane = (enum queue_lane)i;
			return true;
		}
	}
	*lane = QUEUE_LANES;
	return history_knows(store, id);
}

/* One lane's place in a listing. */
struct lister {
	struct lane_txn txn;
	MDB_cursor *cursor;
	bool here;
	struct queue_id id;
};

static void
lister_take(struct lister *lister, const char *account, const MDB_val *k, int rc)
{
	size_t front = account ? strlen(account) + 1 : 0;

	lister->here = rc == 0 && k->mv_size == front + STORE_ID_SIZE &&
	               (account == NULL || memcmp(k->mv_data, account, front) == 0);
	if (lister->here)
		memcpy(lister->id.octets, (const uint8_t *)k->mv_data + front, STORE_ID_SIZE);
}

size_t
store_list(struct store *store, const char *account, const struct queue_id *after, size_t max,
           store_on_message *on_message, void *arg, bool *more)
{
	struct queue_id first = {{0}};
	struct lister listers[QUEUE_LANES];
	struct key key;
	MDB_val k, v;
	size_t count = 0;

	if (account)
		key_account(&key, account, after ? after : &first);
	else
		key_id(&key, after ? after : &first);
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct lister *lister = &listers[i];

		lister->here = false;
		txn_read(&store->lanes[i], &lister->txn);
		lister->cursor = txn_cursor(&lister->txn, account ? TABLE_ACCOUNT : TABLE_MESSAGE);
		if (lister->cursor == NULL)
			continue;
		k = (MDB_val){key.len, key.data};
		lister_take(lister, account, &k,
		            mdb_cursor_get(lister->cursor, &k, &v, MDB_SET_RANGE));
		if (lister->here && after && queue_id_equal(&lister->id, after))
			lister_take(lister, account, &k,
			            mdb_cursor_get(lister->cursor, &k, &v, MDB_NEXT));
	}
	*more = false;
	for (;;) {
		struct store_message *best = NULL;
		const struct queue_id *least = NULL;
		struct queue_id id;

		for (unsigned i = 0; i < QUEUE_LANES; i++)
			if (listers[i].here &&
			    (least == NULL || memcmp(&listers[i].id, least, STORE_ID_SIZE) < 0))
				least = &listers[i].id;
		if (least == NULL)
			break;
		if (count == max) {
			*more = true;
			break;
		}
		id = *least;
		for (unsigned i = 0; i < QUEUE_LANES; i++) {
			struct lister *lister = &listers[i];
			struct store_message *message;

			if (!lister->here || !queue_id_equal(&lister->id, &id))
				continue;
			message = txn_load(&lister->txn, &id, false);
			if (message && (best == NULL || message->generation > best->generation)) {
				store_message_free(best);
				best = message;
			} else {
				store_message_free(message);
			}
			lister_take(lister, account, &k,
			            mdb_cursor_get(lister->cursor, &k, &v, MDB_NEXT));
		}
		if (best) {
			on_message(arg, best);
			count++;
		}
		store_message_free(best);
	}
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		if (listers[i].cursor)
			mdb_cursor_close(listers[i].cursor);
		txn_abort(&listers[i].txn);
	}
	return count;
}

static msec_t
oldest_in(struct lane_txn *txn)
{
	MDB_cursor *cursor = txn_cursor(txn, TABLE_MESSAGE);
	struct store_message *message = NULL;
	msec_t created = 0;
	MDB_val k, v;

	if (cursor == NULL)
		return 0;
	if (mdb_cursor_get(cursor, &k, &v, MDB_FIRST) == 0 &&
	    (message = record_decode(v.mv_data, v.mv_size)) != NULL)
		created = message->created;
	store_message_free(message);
	mdb_cursor_close(cursor);
	return created;
}

static unsigned
used_percent(struct lane_txn *txn)
{
	MDB_envinfo info;
	MDB_stat stat;
	uint64_t pages = 0, psize = 4096;

	for (unsigned i = 0; i < TABLES; i++) {
		if ((txn->lane->tables & (1u << i)) &&
		    mdb_stat(txn->txn, txn->lane->dbi[i], &stat) == 0) {
			pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
			psize = stat.ms_psize;
		}
	}
	if (mdb_env_info(txn->lane->env, &info) != 0 || info.me_mapsize == 0)
		return 0;
	return (unsigned)(pages * psize * 100 / info.me_mapsize);
}

void
store_counts(struct store *store, struct store_counts *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct lane *lane = &store->lanes[i];
		struct lane_txn txn;
		uint64_t n[COUNTERS];
		unsigned percent;
		msec_t oldest;
		MDB_stat stat;

		txn_read(lane, &txn);
		if (txn.rc) {
			txn_abort(&txn);
			continue;
		}
		for (unsigned c = 0; c < COUNTERS; c++)
			n[c] = txn_counter(&txn, (enum counter)c);
		if (mdb_stat(txn.txn, lane->dbi[TABLE_MESSAGE], &stat) == 0)
			out->messages[i] = stat.ms_entries;
		oldest = oldest_in(&txn);
		percent = used_percent(&txn);
		txn_abort(&txn);
		out->recipients[i] = n[COUNTER_ACCEPTED] + n[COUNTER_GENERATED] +
		                     n[COUNTER_MOVED_IN] - n[COUNTER_MOVED_OUT] -
		                     n[COUNTER_DELIVERED] - n[COUNTER_BOUNCED] -
		                     n[COUNTER_EXPIRED] - n[COUNTER_REMOVED];
		out->accepted += n[COUNTER_ACCEPTED];
		out->generated += n[COUNTER_GENERATED];
		out->delivered += n[COUNTER_DELIVERED];
		out->bounced += n[COUNTER_BOUNCED];
		out->expired += n[COUNTER_EXPIRED];
		out->removed += n[COUNTER_REMOVED];
		if (oldest && (out->oldest == 0 || oldest < out->oldest))
			out->oldest = oldest;
		if (percent > out->map_percent)
			out->map_percent = percent;
	}
	pthread_mutex_lock(&store->lanes[QUEUE_FRESH].lock);
	out->commits = store->lanes[QUEUE_FRESH].commits;
	out->committed = store->lanes[QUEUE_FRESH].committed;
	pthread_mutex_unlock(&store->lanes[QUEUE_FRESH].lock);
}
