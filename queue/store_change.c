#include "queue/store_int.h"

/* What happens to messages: accepted, attempted, ended. store.c says in which order and why.
 * An operation is an op that a lane's writer applies; its prepare, apply and settled run on the
 * writer's thread, its complete on the loop's. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

struct store_large {
	struct store *store;
	struct queue_id id;
	struct loop_timer *again;    /* until the next writeback */
	msec_t wait;                 /* for it */
	uint64_t size;               /* of the file at the last one */
	struct writeback *writeback; /* under way, or NULL */
};

/* --- large bodies on their way in ---
 *
 * What msa has streamed so far is given to the disk as it comes. If all of it were still to be
 * written when the message is complete, its sync would fill the disk's queue for hundreds of
 * milliseconds, and the small syncs that others' 250 wait for stand behind it. Little and often is
 * best for them; a body that comes slowly is looked at less often. */

#define WRITEBACK_WAIT  50   /* msec */
#define WRITEBACK_REST  1000 /* at most */
#define WRITEBACK_LEAST (64u * 1024)

struct writeback {
	struct op op;
	struct queue_id id;
	struct store_large *large; /* NULL: it has ended meanwhile */
	uint64_t size;             /* of the file, before and then after */
};

/* A body of which a part could not be written is taken away at once, so that its sync does not find
 * it: it would not be told. */
static int
writeback_start(struct op *op)
{
	struct writeback *writeback = (struct writeback *)op;
	char name[QUEUE_ID_TEXT_SIZE];
	struct stat st;
	int fd = openat(op->store->segments.large, large_name(&writeback->id, name),
	                O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) == 0 && (uint64_t)st.st_size >= writeback->size + WRITEBACK_LEAST) {
		if (large_write(op->store, fd, writeback->size & ~(uint64_t)4095,
		                (uint64_t)st.st_size) != 0)
			(void)unlinkat(op->store->segments.large, name, 0);
		writeback->size = (uint64_t)st.st_size;
	}
	close(fd);
	return 0;
}

static void
writeback_complete(struct op *op)
{
	struct writeback *writeback = (struct writeback *)op;

	struct store_large *large = writeback->large;

	if (large != NULL) {
		large->wait = writeback->size > large->size ? WRITEBACK_WAIT : large->wait * 2;
		if (large->wait > WRITEBACK_REST)
			large->wait = WRITEBACK_REST;
		large->size = writeback->size;
		large->writeback = NULL;
		loop_timer_arm(large->again, large->wait);
	}
	free(writeback);
}

static void
on_writeback(void *arg)
{
	struct store_large *large = arg;
	struct writeback *writeback = xcalloc(1, sizeof(*writeback));

	writeback->op.prepare = writeback_start;
	writeback->op.complete = writeback_complete;
	writeback->id = large->id;
	writeback->large = large;
	writeback->size = large->size;
	large->writeback = writeback;
	store_post(large->store, &large->store->sync, &writeback->op);
}

static void
large_free(struct store_large *large)
{
	if (large->writeback != NULL)
		large->writeback->large = NULL;
	loop_timer_free(large->again);
	free(large);
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
	large->store = store;
	large->id = *id;
	large->again = loop_timer_new(store->loop, on_writeback, large);
	large->wait = WRITEBACK_WAIT;
	loop_timer_arm(large->again, large->wait);
	return large;
}

void
store_large_abort(struct store *store, struct store_large *large)
{
	struct store_body body = {0};

	if (large == NULL)
		return;
	segments_release(&store->segments, &large->id, &body);
	large_free(large);
}

static int
enqueue_append(struct op *op)
{
	struct enqueue *enqueue = (struct enqueue *)op;
	int rc = appender_append(&op->lane->appender, enqueue->body, enqueue->body_len,
	                         &enqueue->message->body);

	enqueue->placed = rc == 0;
	return rc;
}

static int
enqueue_sync_large(struct op *op)
{
	struct enqueue *enqueue = (struct enqueue *)op;
	int rc = large_sync(op->store, &enqueue->message->id, &enqueue->message->body);

	atomic_fetch_sub(&op->store->large_waiting, 1);

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
	if (!txn_has_room(txn, false))
		return op_fail(op, MDB_MAP_FULL);
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

	if (op->result == STORE_OK)
		op->store->dirty[QUEUE_FRESH] = true;
	store_tell(op);
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
	message->envelope = in->envelope;
	message->generation = 1;
	message->account = xstrdup(in->account ? in->account : "");
	message->owner = xstrdup(message->account);
	message->class = xstrdup(in->class ? in->class : "");
	message->from = in->from;
	message->created = in->created;
	message->due = in->due;
	message->held = in->held;
	message->client_ip = xstrdup(in->client_ip ? in->client_ip : "");
	message->client_port = in->client_port;
	message->ehlo = xstrdup(in->ehlo ? in->ehlo : "");
	message->message_id = xstrdup(in->message_id ? in->message_id : "");
	snprintf(message->protocol, sizeof(message->protocol), "%s",
	         in->protocol ? in->protocol : "");
	message->last_reply = xstrdup("");
	if (in->prefix_len)
		message->prefix = (uint8_t *)xmemdup0(in->prefix, in->prefix_len);
	message->prefix_len = in->prefix_len;
	message->total = message->unfinished = (uint32_t)in->recipient_count;
	message->recipients = xcalloc(in->recipient_count, sizeof(*message->recipients));
	message->recipient_count = in->recipient_count;
	for (size_t i = 0; i < in->recipient_count; i++) {
		message->recipients[i] = (struct store_recipient){
		    .index = (uint16_t)i,
		    .address = in->recipients[i].address,
		    .notify = in->recipients[i].notify,
		    .orcpt = xstrdup(in->recipients[i].orcpt ? in->recipients[i].orcpt : ""),
		    .reply = xstrdup(""),
		    .host = xstrdup(""),
		    .next_hop = xstrdup(""),
		};
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
		large_free(in->large_take);
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
	atomic_store(&store->served, clock_usec());
	loop_chores_yield(store->loop);
	if (in->large_take)
		atomic_fetch_add(&store->large_waiting, 1);
	store_post(store, in->large_take ? &store->sync : op->lane, op);
}

/* --- delivering --- */

struct finish {
	struct op op;
	struct store_batch batch; /* outcomes and contact: owned */
	bool ended, last;         /* some recipient ended; the message left the lane */
	struct store_body body;
	struct notice notices[DSN_ACTIONS];
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

/* Whom its last attempt met. */
static void
note_contact(const struct finish *finish, struct store_recipient *recipient)
{
	static const struct queue_contact nobody;
	const struct queue_contact *contact =
	    finish->batch.contact ? finish->batch.contact : &nobody;

	recipient->lane = finish->batch.lane;
	free(recipient->host);
	recipient->host = xstrdup(contact->host);
	memcpy(recipient->peer, contact->address, sizeof(recipient->peer));
	memcpy(recipient->tls, contact->tls, sizeof(recipient->tls));
}

/* True when it changed the recipient. */
static bool
apply_outcome(struct finish *finish, struct lane_txn *txn, struct store_message *message,
              const struct store_outcome *outcome)
{
	struct store_recipient *recipient = recipient_of(message, outcome->index);
	const bool is_put_off = outcome->state == STORE_QUEUED && !finish->batch.contact;
	struct key key;
	struct buf buf;

	if (recipient->state != STORE_QUEUED)
		return false;
	recipient->state = outcome->state;
	if (finish->batch.attempt)
		recipient->attempts = finish->batch.attempt;
	recipient->when = finish->batch.when;
	if (!is_put_off)
		note_contact(finish, recipient);
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
	}
	/* History is of attempts: what a backlog for a site that waits costs is no part of it. */
	if (!is_put_off &&
	    (outcome->state != STORE_QUEUED || message->deferrals < STORE_DEFERRALS_MAX)) {
		message->deferrals += outcome->state == STORE_QUEUED;
		key_outbox(&key, &message->id, outcome->index, finish->batch.attempt);
		txn_put(txn, TABLE_OUTBOX, &key, buf.data, buf.len);
	}
	buf_clear(&buf);
	return true;
}

static bool
is_failure(enum store_state state)
{
	return state == STORE_BOUNCED || state == STORE_EXPIRED;
}

static bool
is_unconfirmed(const struct store_outcome *outcome)
{
	return outcome->state == STORE_DELIVERED && outcome->unconfirmed;
}

/* RFC 3461 section 4.1; who asked for nothing is told of failures and delays. */
static bool
wants(const struct store_recipient *recipient, unsigned notify)
{
	return recipient->notify ? recipient->notify & notify : notify != NOTIFY_SUCCESS;
}

static struct dsn_recipient
told(const struct store_recipient *recipient, const char *reply, bool expired)
{
	return (struct dsn_recipient){.address = recipient->address,
	                              .orcpt = recipient->orcpt,
	                              .reply = reply,
	                              .expired = expired};
}

static void
tell(struct finish *finish, struct lane_txn *txn, enum dsn_action action,
     const struct store_message *message, const struct dsn_recipient *recipients, size_t count)
{
	if (count)
		notice_put(txn, &finish->notices[action], message, recipients, count);
}

/* Once all outcomes are applied. */
static void
tell_delay(struct finish *finish, struct lane_txn *txn, struct store_message *message)
{
	struct dsn_recipient *late = xcalloc(message->recipient_count, sizeof(*late));
	size_t count = 0;

	message->warned = finish->batch.warned;
	for (size_t i = 0; i < message->recipient_count; i++) {
		const struct store_recipient *recipient = &message->recipients[i];

		/* What was not attempted is held. */
		if (recipient->state == STORE_QUEUED && wants(recipient, NOTIFY_DELAY) &&
		    recipient->attempts == finish->batch.attempt)
			late[count++] = told(recipient, recipient->reply, false);
	}
	tell(finish, txn, DSN_DELAYED, message, late, count);
	free(late);
}

static void
apply_outcomes(struct finish *finish, struct lane_txn *txn, struct store_message *message)
{
	const struct store_batch *batch = &finish->batch;
	const bool may_tell = !address_is_null(&message->from);
	struct dsn_recipient *failed = xcalloc(batch->count + 1, sizeof(*failed));
	struct dsn_recipient *relayed = xcalloc(batch->count + 1, sizeof(*relayed));
	size_t failed_count = 0, relayed_count = 0;

	for (size_t i = 0; i < batch->count; i++) {
		const struct store_outcome *outcome = &batch->outcomes[i];

		const struct store_recipient *recipient = recipient_of(message, outcome->index);

		if (!apply_outcome(finish, txn, message, outcome))
			continue;
		if (is_failure(outcome->state) && wants(recipient, NOTIFY_FAILURE))
			failed[failed_count++] = told(recipient, outcome->reply + outcome->last,
			                              outcome->state == STORE_EXPIRED);
		if (is_unconfirmed(outcome))
			relayed[relayed_count++] = told(recipient, outcome->reply, false);
	}
	if (batch->attempt > message->attempts)
		message->attempts = batch->attempt;
	if (may_tell) {
		tell(finish, txn, DSN_FAILED, message, failed, failed_count);
		tell(finish, txn, DSN_RELAYED, message, relayed, relayed_count);
	}
	if (may_tell && message->unfinished && batch->warned > message->warned)
		tell_delay(finish, txn, message);
	free(failed);
	free(relayed);
}

static void
withdraw(struct finish *finish)
{
	for (size_t i = 0; i < DSN_ACTIONS; i++)
		notice_withdraw(finish->op.store, &finish->notices[i]);
}

static enum store_result
finish_apply(struct op *op, struct lane_txn *txn)
{
	struct finish *finish = (struct finish *)op;
	const struct store_batch *batch = &finish->batch;
	struct store_message *message = txn_load(txn, &batch->id, true);
	enum store_result result = STORE_OK;
	struct key key;
	struct buf buf;

	finish->ended = finish->last = false;
	withdraw(finish);
	if (message == NULL)
		return STORE_MISSING;
	for (size_t i = 0; i < batch->count; i++) {
		if (recipient_of(message, batch->outcomes[i].index) == NULL) {
			result = STORE_MISSING;
			goto out;
		}
	}
	apply_outcomes(finish, txn, message);
	if (message->unfinished == 0) {
		txn_drop(txn, message);
		finish->last = true;
		finish->body = message->body;
	} else if (batch->due && (message->held || message->due != batch->due)) {
		key_due(&key, message->due, &message->id);
		txn_del(txn, table_due(message), &key);
		message->due = batch->due;
		message->held = false;
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
		segments_release(&op->store->segments, &finish->batch.id, &finish->body);
	if (op->result != STORE_OK)
		withdraw(finish);
}

static void
tell_generated(const struct finish *finish, const struct notice *notice)
{
	static const char *const kinds[] = {"failed", "delayed", "relayed"};
	const struct store *store = finish->op.store;
	char about[QUEUE_ID_TEXT_SIZE], text[QUEUE_ID_TEXT_SIZE];

	if (!notice->placed)
		return;
	log_info(queue_id_format(&notice->id, text), "generated", "about=%s kind=%s lane=%s",
	         queue_id_format(&finish->batch.id, about), kinds[notice->action],
	         queue_lane_name(finish->batch.lane));
	if (store->opts.on_generated)
		store->opts.on_generated(store->opts.arg, finish->batch.lane, &notice->id);
}

static void
finish_complete(struct op *op)
{
	struct finish *finish = (struct finish *)op;

	/* The next tick copies them: history is in no hurry, and each sweep is two commits. */
	if (op->result == STORE_OK && finish->batch.count)
		op->store->dirty[finish->batch.lane] = true;
	store_tell(op);
	for (size_t i = 0; i < DSN_ACTIONS; i++)
		tell_generated(finish, &finish->notices[i]);
	free((void *)finish->batch.outcomes);
	free((void *)finish->batch.contact);
	free(finish);
}

static void
prepare(struct finish *finish, enum dsn_action action)
{
	struct notice *notice = &finish->notices[action];
	const msec_t now = clock_wall();

	queue_id_make(&notice->id, now);
	notice->when = now;
	notice->action = action;
	notice->retry_until = finish->batch.retry_until;
}

void
store_finish(struct store *store, const struct store_batch *batch, store_on_done *on_done,
             void *arg)
{
	struct finish *finish = xcalloc(1, sizeof(*finish));
	struct store_outcome *outcomes =
	    xcalloc(batch->count ? batch->count : 1, sizeof(*outcomes));
	bool fails = false, relays = false;

	finish->batch = *batch;
	finish->batch.outcomes = outcomes;
	if (batch->contact) {
		struct queue_contact *contact = xmalloc(sizeof(*contact));

		*contact = *batch->contact;
		finish->batch.contact = contact;
	}
	for (size_t i = 0; i < batch->count; i++) {
		outcomes[i] = batch->outcomes[i];
		fails |= is_failure(outcomes[i].state);
		relays |= is_unconfirmed(&outcomes[i]);
	}
	if (fails)
		prepare(finish, DSN_FAILED);
	if (relays)
		prepare(finish, DSN_RELAYED);
	if (batch->warned)
		prepare(finish, DSN_DELAYED);
	finish->op.weight = 4 + 3 * batch->count;
	finish->op.apply = finish_apply;
	finish->op.settled = finish_settled;
	finish->op.complete = finish_complete;
	finish->op.on_done = on_done;
	finish->op.arg = arg;
	store_post(store, &store->lanes[batch->lane], &finish->op);
}

void
store_set_due(struct store *store, enum queue_lane lane, const struct queue_id *id, msec_t due,
              store_on_done *on_done, void *arg)
{
	const struct store_batch batch = {.lane = lane, .id = *id, .due = due};

	store_finish(store, &batch, on_done, arg);
}
