#include "queue/client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "queue/proto.h"

/* msa's half of the promise.
 *
 * Problem: "250" may be said only when the queue has said so, yet the queue may die between its
 * commit and its answer. Then neither yes nor no is known here. Idea: the message id, made here, is
 * the token of the commit. When the answer to a commit is lost, the commit waits for the next
 * incarnation of the queue and asks for that id; a queue that has opened its store knows. Only when
 * no queue can be asked within QUEUE_LOST_REPLY does the client hear 451, which may cost a
 * duplicate and never a message.
 *
 * Invariants:
 *   - Reservations and an unfinished body belong to the queue's view of (channel, token). They end
 * with PROTO_END, with PROTO_COMMIT or with the channel, so nothing here has to be undone after the
 * queue went down.
 *   - A commit is an object of its own, because it outlives its submission.
 *   - The checksum is computed over exactly the octets that are handed over, as they come.
 *   - A body that could not be stored makes the commit fail; input is still swallowed until then,
 * because SMTP has no reply earlier. */

struct reserve { /* one reservation, or look, under way */
	LIST_ENTRY(reserve) link;
	struct queue_submission *submission; /* NULL: nobody waits any more */
	uint32_t call;                       /* 0: the link was down, answered by a deferred call */
	queue_on_verdict *on_verdict;
	void *arg;
};

enum commit_state {
	COMMIT_CALLING, /* sent; the answer is awaited */
	COMMIT_LOST,    /* the answer is lost and no queue is there to ask */
	COMMIT_ASKING,  /* PROTO_LOOKUP sent, or about to be sent again */
	COMMIT_FAILED,  /* never sent; a deferred call says so */
};

struct commit {
	LIST_ENTRY(commit) link;
	struct queue_client *client; /* NULL: the client is gone and only a deferred call is left */
	struct queue_id id;
	enum commit_state state;
	enum queue_verdict verdict; /* of COMMIT_FAILED */
	uint32_t call;
	struct loop_timer *deadline;         /* of QUEUE_LOST_REPLY */
	struct loop_timer *again;            /* until the next PROTO_LOOKUP after PROTO_PENDING */
	struct queue_submission *submission; /* NULL once it was freed */
	queue_on_verdict *on_verdict;
	void *arg;
};

struct queue_client {
	struct loop *loop;
	struct ipc_link *link; /* borrowed */
	uint64_t next_token;
	LIST_HEAD(, queue_submission) submissions;
	LIST_HEAD(, commit) commits;
};

struct queue_submission {
	LIST_ENTRY(queue_submission) link;
	struct queue_client *client;
	char account[PROTO_ACCOUNT_MAX + 1], class[QUEUE_CLASS_MAX + 1];
	struct queue_id id;
	uint64_t token;
	uint64_t size; /* announced; 0: not */
	bool known;    /* the queue may hold something for the token */
	LIST_HEAD(, reserve) reserves;

	/* the body */
	struct buf body;    /* inline so far, or waiting for the descriptor */
	uint64_t body_size; /* octets seen */
	XXH3_state_t *hash;
	int fd;             /* -1, or where the body streams to */
	uint32_t open_call; /* PROTO_BODY_OPEN under way */
	bool in_file;       /* fd is or was there */
	bool paused;        /* on_ready is owed */
	bool failed;        /* the body cannot be stored */
	enum queue_verdict why;
	queue_on_ready *on_ready;
	void *ready_arg;

	/* the commit */
	struct proto_commit envelope; /* kept while the commit waits for the descriptor; recipients
	                                 and prefix are ours */
	bool waiting;                 /* it does */
	struct commit *commit;
};

struct queue_client *
queue_client_new(struct loop *loop, struct ipc_link *link)
{
	struct queue_client *client = xcalloc(1, sizeof(*client));
	client->loop = loop;
	client->link = link;
	client->next_token = 1;
	LIST_INIT(&client->submissions);
	LIST_INIT(&client->commits);
	return client;
}

static void
commit_free(struct commit *commit)
{
	if (commit->client) {
		ipc_link_cancel(commit->client->link, commit->call);
		LIST_REMOVE(commit, link);
	}
	loop_timer_free(commit->deadline);
	loop_timer_free(commit->again);
	if (commit->submission)
		commit->submission->commit = NULL;
	free(commit);
}

void
queue_client_free(struct queue_client *client)
{
	if (!client)
		return;
	while (!LIST_EMPTY(&client->submissions))
		queue_submission_free(LIST_FIRST(&client->submissions));
	struct commit *commit, *next;
	for (commit = LIST_FIRST(&client->commits); commit; commit = next) {
		next = LIST_NEXT(commit, link);
		if (commit->state != COMMIT_FAILED) {
			commit_free(commit);
			continue;
		}
		LIST_REMOVE(commit, link); /* its deferred call still comes */
		commit->client = NULL;
		commit->on_verdict = NULL;
	}
	free(client);
}

struct queue_submission *
queue_submission_new(struct queue_client *client, const char *account, const char *class)
{
	struct queue_submission *submission = xcalloc(1, sizeof(*submission));
	assert(strlen(account) <= PROTO_ACCOUNT_MAX && strlen(class) <= QUEUE_CLASS_MAX);
	strcpy(submission->account, account);
	strcpy(submission->class, class);
	submission->client = client;
	submission->token = client->next_token++;
	submission->fd = -1;
	queue_id_make(&submission->id, clock_wall());
	buf_init(&submission->body);
	LIST_INIT(&submission->reserves);
	LIST_INSERT_HEAD(&client->submissions, submission, link);
	return submission;
}

static void
envelope_clear(struct queue_submission *submission)
{
	proto_commit_clear(&submission->envelope);
	free((void *)submission->envelope.prefix);
	submission->envelope.prefix = NULL;
}

void
queue_submission_free(struct queue_submission *submission)
{
	if (!submission)
		return;
	struct queue_client *client = submission->client;
	while (!LIST_EMPTY(&submission->reserves)) {
		struct reserve *reserve = LIST_FIRST(&submission->reserves);
		LIST_REMOVE(reserve, link);
		reserve->submission = NULL;
		if (reserve->call) {
			ipc_link_cancel(client->link, reserve->call);
			free(reserve);
		}
	}
	ipc_link_cancel(client->link, submission->open_call);
	if (submission->waiting) {
		commit_free(submission->commit); /* nothing was sent yet */
	} else if (submission->commit) {
		submission->commit->submission = NULL;
		submission->commit->on_verdict = NULL;
	}
	/* Before the queue removes the file: whoever closes it last frees what it held. */
	if (submission->fd != -1)
		close(submission->fd);
	if (submission->known) {
		struct buf frame;
		buf_init(&frame);
		wire_put_u64(&frame, submission->token);
		wire_put_str(&frame, submission->account);
		ipc_link_tell(client->link, PROTO_END, &frame, -1);
		buf_clear(&frame);
	}
	if (submission->hash)
		XXH3_freeState(submission->hash);
	envelope_clear(submission);
	buf_clear(&submission->body);
	LIST_REMOVE(submission, link);
	free(submission);
}

const struct queue_id *
queue_submission_id(const struct queue_submission *submission)
{
	return &submission->id;
}

/* Reads "u8 verdict, quota". */
static enum queue_verdict
read_verdict(const struct ipc_frame *frame, struct queue_quota *quota)
{
	struct wire wire = wire_from(frame->data, frame->len);
	unsigned verdict = wire_u8(&wire);
	proto_quota(&wire, quota);
	if (!wire_done(&wire) || verdict > QUEUE_UNAVAILABLE) {
		memset(quota, 0, sizeof(*quota));
		return QUEUE_UNAVAILABLE;
	}
	return (enum queue_verdict)verdict;
}

static void
reserve_answer(struct reserve *reserve, enum queue_verdict verdict, const struct queue_quota *quota)
{
	queue_on_verdict *on_verdict = reserve->on_verdict;
	void *arg = reserve->arg;
	LIST_REMOVE(reserve, link);
	free(reserve);
	on_verdict(arg, verdict, quota);
}

static void
on_reserved(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct queue_quota quota = {0};
	/* After a time-out the queue may hold one reservation too many; it goes with the commit or
	 * the end of the token. */
	enum queue_verdict verdict =
	    status == IPC_OK ? read_verdict(frame, &quota) : QUEUE_UNAVAILABLE;
	reserve_answer(arg, verdict, &quota);
}

static void
on_reserve_down(void *arg)
{
	struct reserve *reserve = arg;
	struct queue_quota quota = {0};
	if (reserve->submission)
		reserve_answer(reserve, QUEUE_UNAVAILABLE, &quota);
	else
		free(reserve);
}

#define RESERVE_TIMEOUT 10000
#define LOOK_TIMEOUT    1000

static void
ask(struct queue_submission *submission, enum proto_type type, msec_t timeout,
    queue_on_verdict *on_verdict, void *arg)
{
	struct queue_client *client = submission->client;
	struct reserve *reserve = xcalloc(1, sizeof(*reserve));
	reserve->submission = submission;
	reserve->on_verdict = on_verdict;
	reserve->arg = arg;
	LIST_INSERT_HEAD(&submission->reserves, reserve, link);
	struct buf frame;
	buf_init(&frame);
	wire_put_u64(&frame, submission->token);
	wire_put_str(&frame, submission->account);
	wire_put_str(&frame, submission->class);
	wire_put_u64(&frame, submission->size);
	reserve->call =
	    ipc_link_call(client->link, (uint16_t)type, &frame, -1, timeout, on_reserved, reserve);
	buf_clear(&frame);
	if (!reserve->call)
		loop_defer(client->loop, on_reserve_down, reserve);
	else if (type == PROTO_RESERVE)
		submission->known = true;
}

void
queue_submission_announce(struct queue_submission *submission, uint64_t size)
{
	submission->size = size;
}

void
queue_submission_reserve(struct queue_submission *submission, queue_on_verdict *on_verdict,
                         void *arg)
{
	ask(submission, PROTO_RESERVE, RESERVE_TIMEOUT, on_verdict, arg);
}

void
queue_submission_look(struct queue_submission *submission, queue_on_verdict *on_verdict, void *arg)
{
	ask(submission, PROTO_LOOK, LOOK_TIMEOUT, on_verdict, arg);
}

void
queue_submission_release(struct queue_submission *submission)
{
	struct buf frame;
	buf_init(&frame);
	wire_put_u64(&frame, submission->token);
	wire_put_str(&frame, submission->account);
	wire_put_u32(&frame, 1);
	ipc_link_tell(submission->client->link, PROTO_RELEASE, &frame, -1);
	buf_clear(&frame);
}

void
queue_submission_body_start(struct queue_submission *submission, queue_on_ready *on_ready,
                            void *arg)
{
	assert(!submission->hash);
	submission->on_ready = on_ready;
	submission->ready_arg = arg;
	submission->hash = XXH3_createState();
	assert(submission->hash);
	XXH3_64bits_reset(submission->hash);
}

static void
body_fail(struct queue_submission *submission, enum queue_verdict why)
{
	submission->failed = true;
	submission->why = why;
	buf_clear(&submission->body);
	if (submission->fd != -1)
		close(submission->fd);
	submission->fd = -1;
}

/* A regular file takes what it is given or fails. */
static void
body_write(struct queue_submission *submission, const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(submission->fd, data, len);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			char text[QUEUE_ID_TEXT_SIZE];
			log_error(queue_id_format(&submission->id, text), "body-write", "error=%s",
			          strerror(errno));
			body_fail(submission, errno == ENOSPC || errno == EDQUOT
			                          ? QUEUE_FULL
			                          : QUEUE_UNAVAILABLE);
			return;
		}
		data += n;
		len -= (size_t)n;
	}
}

static void commit_send(struct queue_submission *submission);

static void
on_body_open(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct queue_submission *submission = arg;
	submission->open_call = 0;
	enum queue_verdict verdict = QUEUE_UNAVAILABLE;
	if (status == IPC_OK && frame->len == 1 && frame->data[0] <= QUEUE_UNAVAILABLE)
		verdict = (enum queue_verdict)frame->data[0];
	if (verdict == QUEUE_OK && frame->fd == -1)
		verdict = QUEUE_UNAVAILABLE;
	if (verdict == QUEUE_OK && !submission->failed) {
		submission->fd = frame->fd;
		frame->fd = -1;
		submission->in_file = true;
		body_write(submission, submission->body.data, submission->body.len);
		buf_clear(&submission->body);
	} else if (!submission->failed) {
		body_fail(submission, verdict == QUEUE_OK ? QUEUE_UNAVAILABLE : verdict);
	}
	if (submission->waiting)
		commit_send(submission);
	else if (submission->paused) {
		submission->paused = false;
		submission->on_ready(submission->ready_arg); /* may free the submission */
	}
}

static void
body_open(struct queue_submission *submission)
{
	struct buf frame;
	buf_init(&frame);
	wire_put_u64(&frame, submission->token);
	proto_put_id(&frame, &submission->id);
	submission->open_call = ipc_link_call(submission->client->link, PROTO_BODY_OPEN, &frame, -1,
	                                      RESERVE_TIMEOUT, on_body_open, submission);
	buf_clear(&frame);
	if (submission->open_call)
		submission->known = true;
	else
		body_fail(submission, QUEUE_UNAVAILABLE);
}

bool
queue_submission_body(struct queue_submission *submission, const void *data, size_t len)
{
	assert(submission->hash && !submission->commit);
	submission->body_size += len;
	if (submission->failed)
		return true;
	XXH3_64bits_update(submission->hash, data, len);
	if (submission->fd != -1) {
		body_write(submission, data, len);
		return true;
	}
	buf_add(&submission->body, data, len);
	if (submission->body.len <= QUEUE_INLINE_MAX)
		return true;
	if (!submission->open_call)
		body_open(submission);
	submission->paused = submission->open_call != 0;
	return !submission->paused;
}

/* Takes the answer to its caller and ends the commit. */
static void
commit_answer(struct commit *commit, enum queue_verdict verdict, const struct queue_quota *quota)
{
	queue_on_verdict *on_verdict = commit->on_verdict;
	void *arg = commit->arg;
	commit->call = 0;
	commit_free(commit);
	if (on_verdict)
		on_verdict(arg, verdict, quota);
}

static void
on_commit_failed(void *arg)
{
	struct queue_quota quota = {0};
	struct commit *commit = arg;
	commit_answer(commit, commit->verdict, &quota);
}

static void
on_lost_deadline(void *arg)
{
	struct commit *commit = arg;
	struct queue_quota quota = {0};
	char text[QUEUE_ID_TEXT_SIZE];
	log_warn(queue_id_format(&commit->id, text), "commit-unknown", "answer=451");
	ipc_link_cancel(commit->client->link, commit->call);
	commit_answer(commit, QUEUE_UNAVAILABLE, &quota);
}

static void on_lookup(void *arg, enum ipc_status status, struct ipc_frame *frame);

static void
commit_ask(void *arg)
{
	struct commit *commit = arg;
	struct buf frame;
	buf_init(&frame);
	proto_put_id(&frame, &commit->id);
	commit->call = ipc_link_call(commit->client->link, PROTO_LOOKUP, &frame, -1,
	                             QUEUE_LOST_REPLY, on_lookup, commit);
	commit->state = commit->call ? COMMIT_ASKING : COMMIT_LOST;
	buf_clear(&frame);
}

#define LOOKUP_AGAIN 200 /* msec between two questions about a commit that is still under way */

static void
on_lookup(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct commit *commit = arg;
	struct queue_quota quota = {0};
	commit->call = 0;
	if (status == IPC_DOWN) {
		commit->state = COMMIT_LOST;
		if (ipc_link_is_up(commit->client->link))
			commit_ask(commit);
		return;
	}
	unsigned answer = status == IPC_OK && frame->len == 1 ? frame->data[0] : PROTO_PENDING;
	if (answer == PROTO_COMMITTED) {
		commit_answer(commit, QUEUE_OK, &quota);
	} else if (answer == PROTO_NOT_COMMITTED) {
		commit_answer(commit, QUEUE_UNAVAILABLE, &quota);
	} else {
		if (!commit->again)
			commit->again = loop_timer_new(commit->client->loop, commit_ask, commit);
		loop_timer_arm(commit->again, LOOKUP_AGAIN);
	}
}

static void
on_committed(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct commit *commit = arg;
	struct queue_quota quota = {0};
	commit->call = 0;
	if (status == IPC_OK) {
		enum queue_verdict verdict = read_verdict(frame, &quota);
		commit_answer(commit, verdict, &quota);
		return;
	}
	commit->deadline = loop_timer_new(commit->client->loop, on_lost_deadline, commit);
	loop_timer_arm(commit->deadline, QUEUE_LOST_REPLY);
	commit->state = COMMIT_LOST;
	if (ipc_link_is_up(commit->client->link))
		commit_ask(commit);
}

/* The body is complete, inline or in its file, or has failed. */
static void
commit_send(struct queue_submission *submission)
{
	struct queue_client *client = submission->client;
	struct commit *commit = submission->commit;
	struct proto_commit *envelope = &submission->envelope;
	struct buf frame;

	submission->waiting = false;
	buf_init(&frame);
	if (!submission->failed) {
		envelope->in_file = submission->in_file;
		envelope->body = submission->body.data;
		envelope->body_size = submission->body_size;
		proto_put_commit(&frame, envelope);
		if (frame.len > IPC_FRAME_MAX && !submission->in_file) {
			/* An envelope so large that even a small body must go by file. */
			body_open(submission);
			if (submission->open_call) {
				submission->waiting = true;
				buf_clear(&frame);
				return;
			}
		} else if (frame.len > IPC_FRAME_MAX) {
			body_fail(submission, QUEUE_UNAVAILABLE);
		}
	}
	if (submission->fd != -1)
		close(submission->fd); /* before the queue may sync it */
	submission->fd = -1;
	commit->verdict = submission->failed ? submission->why : QUEUE_UNAVAILABLE;
	if (!submission->failed)
		commit->call = ipc_link_call(client->link, PROTO_COMMIT, &frame, -1, QUEUE_TIMEOUT,
		                             on_committed, commit);
	buf_clear(&frame);
	envelope_clear(submission);
	if (commit->call) {
		commit->state = COMMIT_CALLING;
		submission->known = false; /* the commit took everything over */
	} else {
		commit->state = COMMIT_FAILED;
		loop_defer(client->loop, on_commit_failed, commit);
	}
}

void
queue_submission_commit(struct queue_submission *submission, const struct queue_envelope *envelope,
                        queue_on_verdict *on_verdict, void *arg)
{
	struct queue_client *client = submission->client;
	struct proto_commit *out = &submission->envelope;

	assert(!submission->commit && submission->hash);
	assert(envelope->recipient_count > 0 && envelope->recipient_count <= QUEUE_RECIPIENTS_MAX);
	assert(envelope->prefix_len <= QUEUE_PREFIX_MAX);
	struct commit *commit = xcalloc(1, sizeof(*commit));
	commit->client = client;
	commit->id = submission->id;
	commit->submission = submission;
	commit->on_verdict = on_verdict;
	commit->arg = arg;
	commit->state = COMMIT_FAILED;
	LIST_INSERT_HEAD(&client->commits, commit, link);
	submission->commit = commit;

	out->token = submission->token;
	out->id = submission->id;
	strcpy(out->account, submission->account);
	strcpy(out->class, submission->class);
	snprintf(out->client_ip, sizeof(out->client_ip), "%s", envelope->client_ip);
	snprintf(out->ehlo, sizeof(out->ehlo), "%s", envelope->ehlo);
	snprintf(out->protocol, sizeof(out->protocol), "%s", envelope->protocol);
	snprintf(out->message_id, sizeof(out->message_id), "%s", envelope->message_id);
	out->client_port = envelope->client_port;
	out->envelope = envelope->envelope;
	out->from = envelope->from;
	out->arena = arena_new();
	out->recipient_count = (uint16_t)envelope->recipient_count;
	out->recipients =
	    arena_alloc(out->arena, envelope->recipient_count * sizeof(*out->recipients));
	for (size_t i = 0; i < envelope->recipient_count; i++) {
		out->recipients[i] = envelope->recipients[i];
		out->recipients[i].orcpt = arena_strdup(out->arena, envelope->recipients[i].orcpt);
	}
	out->prefix =
	    (uint8_t *)xmemdup0(envelope->prefix_len ? envelope->prefix : "", envelope->prefix_len);
	out->prefix_len = envelope->prefix_len;
	out->checksum = XXH3_64bits_digest(submission->hash);
	submission->paused = false;
	if (submission->open_call)
		submission->waiting = true;
	else
		commit_send(submission);
}

void
queue_client_on_up(struct queue_client *client)
{
	struct commit *commit, *next;
	for (commit = LIST_FIRST(&client->commits); commit; commit = next) {
		next = LIST_NEXT(commit, link);
		if (commit->state == COMMIT_LOST)
			commit_ask(commit);
	}
}

void
queue_client_on_down(struct queue_client *client)
{
	struct queue_submission *submission;
	/* The queue that held the file and the reservations is gone; a new one sweeps the file
	 * away. Calls under way are answered by the link. */
	LIST_FOREACH(submission, &client->submissions, link)
	{
		submission->known = false;
		if (submission->in_file && !submission->commit)
			body_fail(submission, QUEUE_UNAVAILABLE);
	}
}
