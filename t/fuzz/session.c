#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/conf_int.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/text.h"
#include "msa/session.h"

/* A whole session: commands, handlers and the driver of sekisho-msa with what lies below them (the
 * connection, timers, the two clients) played by this file, so that anything may happen at any
 * moment, and thousands of times a second.
 *
 * The input is what the client sends; octets from 0xee on are events, see enum event. Whatever
 * happens: replies are well-formed lines, output waiting for a client that does not read is bounded
 * and so is what is read of one message, some wait that has an end is always running, nothing is
 * committed without TLS, login, reservations and an own sender, no handle and no reference to the
 * configuration outlives the session, nothing forges a log line. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum event {
	EARLY = 0xed,     /* as the first octet: nothing waits for our greeting */
	SUSPENDED = 0xee, /* the login was right, but the account is suspended */
	END,              /* the authenticator has the session ended */
	TLS_DONE = 0xf0,  /* the handshake ends well */
	SLICE,            /* what the client sent so far arrives, more comes later */
	YES,              /* the oldest pending question is answered well */
	NO,               /* refused: a wrong password, or over the cap */
	MORE,             /* the login goes on with a challenge; for the queue: full */
	DOWN,             /* whoever was asked is down */
	DEADLINE,         /* the client's deadline passes, if it is armed */
	DELAY,            /* our own delay is over */
	UNREAD,           /* from now on the client reads nothing */
	READ,             /* it reads everything */
	FULL,             /* the queue takes no more body */
	READY,            /* it does again */
	SLOW,             /* half a minute passes */
	STOP,             /* the service stops */
	BROKEN,           /* the connection breaks */
	GONE,             /* the client closes */
};

#define REPLIES_MAX  (COMMAND_AUTH_MAX + 1024) /* of one command */
#define MESSAGE_SIZE 4096

struct conn {
	const struct conn_events *events;
	void *arg;
	uint8_t *in; /* exactly in_len octets, so that a look beyond them is seen */
	size_t in_len, in_max;
	struct buf out;
	bool handshake, secure, paused, finishing, ended, freed;
};
struct loop_timer {
	loop_callback *callback;
	void *arg;
	bool armed;
};
struct auth_login {
	auth_on_step *on_step;
	void *arg;
	bool asked;
};
struct queue_submission {
	struct queue_id id;
	unsigned reserved;
	bool asked;
	queue_on_verdict *on_verdict;
	queue_on_ready *on_ready;
	void *arg, *ready_arg;
	bool is_commit, is_look, is_full, after_cr;
	bool has_bare;      /* which only content has that is refused at its end */
	size_t wire_octets; /* of its content */
};

static struct {
	struct conn conn;
	struct loop_timer *deadline, *delay; /* in this order session.c makes them */
	struct auth_login *login;
	struct queue_submission *submission;
	bool unread, full, logged_in, opened, greeted;
	msec_t now;
} world;

/* The connection. */

struct conn *
conn_accept(struct loop *loop, int fd_take, size_t input_max, const struct conn_events *events,
            void *arg)
{
	(void)loop;
	(void)fd_take;
	world.conn = (struct conn){.events = events, .arg = arg, .in_max = input_max};
	return &world.conn;
}

void
conn_free(struct conn *conn)
{
	assert(!conn->freed);
	conn->freed = true;
	free(conn->in);
	conn->in = NULL;
	buf_clear(&conn->out);
}

void
conn_finish(struct conn *conn, msec_t timeout)
{
	assert(timeout > 0);
	conn->finishing = true;
}

const uint8_t *
conn_input(struct conn *conn, size_t *len)
{
	*len = conn->in_len;
	return conn->in;
}

static void
set_input(struct conn *conn, const uint8_t *data, size_t len)
{
	uint8_t *in = len > 0 ? xmalloc(len) : NULL;

	if (len > 0)
		memcpy(in, data, len);
	free(conn->in);
	conn->in = in;
	conn->in_len = len;
}

void
conn_consume(struct conn *conn, size_t len)
{
	assert(len <= conn->in_len);
	const struct session *session = conn->arg;
	if (world.submission != NULL && world.submission->on_ready != NULL &&
	    (session->state == SESSION_DATA || session->discard > 0))
		world.submission->wire_octets += len;
	assert(world.submission == NULL ||
	       world.submission->wire_octets <= 10 * MESSAGE_SIZE + conn->in_max);
	if (len > 0)
		set_input(conn, conn->in + len, conn->in_len - len);
}

void
conn_set_bulk(struct conn *conn, bool bulk)
{
	(void)conn;
	(void)bulk;
}

void
conn_pause_input(struct conn *conn, bool paused)
{
	conn->paused = paused;
}

void
conn_write(struct conn *conn, const void *data, size_t len)
{
	const char *text = data;

	assert(!conn->freed);
	if (conn->ended || conn->finishing)
		return;
	for (const char *line = text, *end; line < text + len; line = end + 2) {
		end = memmem(line, (size_t)(text + len - line), "\r\n", 2);
		assert(end != NULL && end - line >= 4 && end - line < REPLIES_MAX);
		assert(line[0] >= '2' && line[0] <= '5' && (line[3] == ' ' || line[3] == '-'));
		assert(text_is_printable(line, (size_t)(end - line)));
	}
	if (world.unread)
		buf_add(&conn->out, data, len);
	assert(conn->out.len <= CONN_OUTPUT_HIGH + REPLIES_MAX);
}

size_t
conn_pending(const struct conn *conn)
{
	return conn->out.len;
}

int
conn_start_tls_server(struct conn *conn, struct tls_server *server)
{
	(void)server;
	if (conn->in_len > 0 || conn->ended)
		return -1;
	conn->handshake = true;
	return 0;
}

bool
conn_is_secure(const struct conn *conn)
{
	return conn->secure;
}

const char *
conn_tls_version(const struct conn *conn)
{
	return conn->secure ? "TLSv1.3" : "";
}

const char *
conn_tls_cipher(const struct conn *conn)
{
	return conn->secure ? "TLS_AES_256_GCM_SHA384" : "";
}

const char *
conn_error(const struct conn *conn)
{
	(void)conn;
	return "broken";
}

/* Timers, clock, log. */

struct loop_timer *
loop_timer_new(struct loop *loop, loop_callback *on_timeout, void *arg)
{
	struct loop_timer *timer = xcalloc(1, sizeof(*timer));

	(void)loop;
	*timer = (struct loop_timer){.callback = on_timeout, .arg = arg};
	*(world.deadline == NULL ? &world.deadline : &world.delay) = timer;
	return timer;
}

void
loop_timer_free(struct loop_timer *timer)
{
	*(world.deadline == timer ? &world.deadline : &world.delay) = NULL;
	free(timer);
}

void
loop_timer_arm(struct loop_timer *timer, msec_t delay)
{
	(void)delay; /* below 0 is 0: what is late has a deadline that has passed */
	timer->armed = true;
}

void
loop_timer_cancel(struct loop_timer *timer)
{
	timer->armed = false;
}

bool
loop_timer_is_armed(const struct loop_timer *timer)
{
	return timer->armed;
}

static void
fire(struct loop_timer *timer)
{
	if (timer == NULL || !timer->armed)
		return;
	timer->armed = false;
	timer->callback(timer->arg);
}

msec_t
clock_mono(void)
{
	return world.now;
}

msec_t
clock_wall(void)
{
	return world.now;
}

char *
clock_rfc3339(msec_t wall, char out[CLOCK_RFC3339_SIZE])
{
	(void)wall;
	return strcpy(out, "2026-11-23T09:14:00+09:00");
}

char *
clock_rfc5322(msec_t wall, char out[CLOCK_RFC5322_SIZE])
{
	(void)wall;
	return strcpy(out, "Mon, 23 Nov 2026 09:14:00 +0900");
}

void
log_event(enum log_level level, const char *id, const char *event, const char *format, ...)
{
	char line[2 * COMMAND_AUTH_MAX];
	va_list ap;
	unsigned quotes = 0;

	(void)level;
	assert(id[0] != '\0' && event[0] != '\0');
	va_start(ap, format);
	int n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	assert(n >= 0 && (size_t)n < sizeof(line));
	assert(text_is_printable(line, (size_t)n));
	for (const char *p = line; *p != '\0'; p++)
		quotes += *p == '"';
	assert(quotes % 2 == 0);
}

const char *
service_load_name(enum service_load load)
{
	(void)load;
	return "busy";
}

void
service_report_load(enum service_load load)
{
	assert(load < SERVICE_LOADS);
}

/* The authenticator. */

struct auth_login *
auth_login_start(struct auth_client *client, const struct auth_peer *peer, const uint8_t *initial,
                 size_t len, auth_on_step *on_step, void *arg)
{
	(void)client;
	assert(world.conn.secure && world.login == NULL && !world.logged_in);
	assert(len <= AUTH_MESSAGE_MAX && (initial != NULL || len == 0) && peer->mechanism[0]);
	world.login = xcalloc(1, sizeof(*world.login));
	*world.login = (struct auth_login){.on_step = on_step, .arg = arg, .asked = true};
	return world.login;
}

void
auth_login_step(struct auth_login *login, const uint8_t *response, size_t len)
{
	assert(login == world.login && !login->asked && response && len <= AUTH_MESSAGE_MAX);
	login->asked = true;
}

void
auth_login_cancel(struct auth_login *login)
{
	if (login == NULL)
		return;
	assert(login == world.login);
	world.login = NULL;
	free(login);
}

bool
auth_client_is_up(const struct auth_client *client)
{
	(void)client;
	return false;
}

void
auth_session_open(struct auth_client *client, const struct auth_session *session)
{
	(void)client;
	assert(!world.opened && session->number > 0 && session->ip[0] != '\0');
	world.opened = true;
}

void
auth_session_close(struct auth_client *client, uint64_t number)
{
	(void)client;
	assert(world.opened && number > 0);
	world.opened = false;
}

void
prefix_of(const char *client, char out[PREFIX_SIZE])
{
	snprintf(out, PREFIX_SIZE, "%s", client);
}

const char *
auth_client_mechanisms(const struct auth_client *client)
{
	(void)client;
	return "PLAIN";
}

static void
answer_login(enum event event)
{
	struct auth_login login = *world.login;
	static uint8_t challenge[AUTH_MESSAGE_MAX];
	struct auth_account account = {.account = "alice@example.test", .class = "standard"};
	struct identities *identities;

	if (event == MORE) {
		world.login->asked = false;
		login.on_step(login.arg, AUTH_CONTINUE, challenge, sizeof(challenge), NULL);
		return;
	}
	free(world.login);
	world.login = NULL;
	world.logged_in = event == YES;
	identities = identities_new(account.account);
	identities_add(identities, IDENTITY_ADDRESS, "alias@example.test");
	account.identities = identities;
	login.on_step(login.arg,
	              event == YES         ? AUTH_OK
	              : event == NO        ? AUTH_REFUSED
	              : event == SUSPENDED ? AUTH_SUSPENDED
	                                   : AUTH_UNAVAILABLE,
	              NULL, 0, event == YES ? &account : NULL);
	identities_free(identities);
}

/* The queue. */

struct queue_submission *
queue_submission_new(struct queue_client *client, const char *account, const char *class)
{
	(void)client;
	assert(world.submission == NULL && world.logged_in);
	assert(!strcmp(account, "alice@example.test") && class[0] != '\0');
	world.submission = xcalloc(1, sizeof(*world.submission));
	return world.submission;
}

void
queue_submission_announce(struct queue_submission *submission, uint64_t size)
{
	assert(submission == world.submission);
	(void)size;
}

void
queue_submission_free(struct queue_submission *submission)
{
	assert(submission == world.submission);
	world.submission = NULL;
	free(submission);
}

const struct queue_id *
queue_submission_id(const struct queue_submission *submission)
{
	return &submission->id;
}

char *
queue_id_format(const struct queue_id *id, char out[QUEUE_ID_TEXT_SIZE])
{
	(void)id;
	return strcpy(out, "0123456789abcdefghjkmnpqrs");
}

void
queue_submission_reserve(struct queue_submission *submission, queue_on_verdict *on_verdict,
                         void *arg)
{
	assert(!submission->asked);
	submission->asked = true;
	submission->on_verdict = on_verdict;
	submission->arg = arg;
}

void
queue_submission_look(struct queue_submission *submission, queue_on_verdict *on_verdict, void *arg)
{
	queue_submission_reserve(submission, on_verdict, arg);
	submission->is_look = true;
}

void
queue_submission_body_start(struct queue_submission *submission, queue_on_ready *on_ready,
                            void *arg)
{
	assert(submission->reserved > 0 && submission->on_ready == NULL);
	submission->on_ready = on_ready;
	submission->ready_arg = arg;
}

bool
queue_submission_body(struct queue_submission *submission, const void *data, size_t len)
{
	const uint8_t *octets = data;

	assert(submission->on_ready != NULL && !submission->is_commit && len > 0);
	const struct session *session = world.conn.arg;
	for (size_t i = 0; session->transaction.in.kind != DATA_BINARY && i < len; i++) {
		submission->has_bare |= submission->after_cr != (octets[i] == '\n');
		submission->after_cr = octets[i] == '\r';
	}
	submission->is_full = world.full;
	return !world.full;
}

void
queue_submission_commit(struct queue_submission *submission, const struct queue_envelope *envelope,
                        queue_on_verdict *on_verdict, void *arg)
{
	const struct address *from = &envelope->from;

	assert(world.conn.secure && world.logged_in && !submission->asked && !submission->after_cr);
	assert(!submission->has_bare);
	assert(envelope->recipient_count == submission->reserved && submission->reserved > 0);
	assert(address_is_null(from) ||
	       (!strcasecmp(from->domain, "example.test") &&
	        (!strcasecmp(from->local, "alice") || !strcasecmp(from->local, "alias"))));
	assert(envelope->prefix_len <= QUEUE_PREFIX_MAX &&
	       !memcmp(envelope->prefix, "Received: ", 10));
	submission->asked = submission->is_commit = true;
	submission->on_verdict = on_verdict;
	submission->arg = arg;
}

static void
answer_queue(enum event event)
{
	struct queue_submission *submission = world.submission;
	struct queue_quota quota = {.limit = 500};

	if (event == SUSPENDED)
		return;

	submission->asked = false;
	if (event == YES && !submission->is_commit && !submission->is_look)
		submission->reserved++;
	submission->on_verdict(submission->arg,
	                       event == YES    ? QUEUE_OK
	                       : event == NO   ? QUEUE_OVER
	                       : event == MORE ? QUEUE_FULL
	                                       : QUEUE_UNAVAILABLE,
	                       &quota);
}

/* The play. */

static bool
is_over(void)
{
	return world.conn.freed || world.conn.ended;
}

static bool
has_question(void)
{
	return (world.login != NULL && world.login->asked) ||
	       (world.submission != NULL && (world.submission->asked || world.submission->is_full));
}

/* What arrived is read as far as the session wants it; the rest of it is dropped with the buffers
 * of a connection that ended. */
static void
arrive(struct buf *wire)
{
	struct conn *conn = &world.conn;

	while (wire->len > 0 && !is_over()) {
		if (conn->finishing) {
			buf_clear(wire);
			return;
		}
		if (conn->handshake) {
			conn->ended = true;
			conn->events->on_end(conn->arg, CONN_ERROR);
			return;
		}
		size_t room = conn->in_max - conn->in_len;
		if (room == 0 || conn->paused || conn->out.len > CONN_OUTPUT_HIGH)
			return;
		size_t len = wire->len < room ? wire->len : room;
		struct buf all;
		buf_init(&all);
		buf_add(&all, conn->in, conn->in_len);
		buf_add(&all, wire->data, len);
		set_input(conn, all.data, all.len);
		buf_clear(&all);
		buf_consume(wire, len);
		conn->events->on_input(conn->arg);
	}
}

static void
drain(void)
{
	struct conn *conn = &world.conn;

	world.unread = false;
	while (conn->out.len > 0 && !is_over() && !conn->finishing) {
		buf_clear(&conn->out);
		if (conn->events->on_drained != NULL)
			conn->events->on_drained(conn->arg);
	}
}

static void
happen(struct msa *msa, enum event event)
{
	struct conn *conn = &world.conn;

	switch (event) {
	case TLS_DONE:
		if (!conn->handshake || conn->finishing)
			break;
		conn->handshake = false;
		conn->secure = true;
		conn->events->on_secure(conn->arg);
		if (world.greeted)
			fire(world.delay);
		break;
	case YES:
	case NO:
	case MORE:
	case DOWN:
	case SUSPENDED:
		if (world.login != NULL && world.login->asked)
			answer_login(event);
		else if (world.submission != NULL && world.submission->asked)
			answer_queue(event);
		break;
	case DEADLINE:
		fire(world.deadline);
		break;
	case DELAY:
		fire(world.delay);
		break;
	case UNREAD:
		world.unread = true;
		break;
	case READ:
		drain();
		break;
	case FULL:
		world.full = true;
		break;
	case READY:
		world.full = false;
		if (world.submission != NULL && world.submission->is_full) {
			world.submission->is_full = false;
			world.submission->on_ready(world.submission->ready_arg);
		}
		break;
	case SLOW:
		world.now += 31000;
		break;
	case END:
		session_end(msa->sessions,
		            conn->secure ? REPLY_SUSPENDED : REPLY_TOO_MANY_OF_CLIENT, "killed");
		break;
	case STOP:
		msa->stopping = true;
		session_stop(msa->sessions);
		break;
	case BROKEN:
	case GONE:
		conn->ended = true;
		conn->events->on_end(conn->arg, event == GONE ? CONN_EOF : CONN_ERROR);
		break;
	case SLICE:
	case EARLY:
		break;
	}
	assert(is_over() || conn->finishing || has_question() || world.deadline->armed ||
	       world.delay->armed);
}

static void
on_session_gone(struct msa *msa)
{
	assert(msa->session_count == 0 && msa->sessions == NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snapshot snapshot = {
	    .conf =
	        {
	            .hostname = (char[]){"mail.example.test"},
	            .banner = (char[]){"Sekisho"},
	            .contact = (char[]){"the help desk"},
	            .prefix_sessions = 1,
	            .message_size = MESSAGE_SIZE,
	            .recipients = 3,
	            .messages = 4,
	            .header_size = 1024,
	            .received_hops = 3,
	            .auth_failures = 3,
	            .future_release = 86400000,
	            .errors_soft = 10,
	            .errors_hard = 20,
	            .command_timeout = 300000,
	            .data_timeout = 180000,
	            .handshake_timeout = 60000,
	            .data_rate = 500,
	            .auth_failure_delay = 2000,
	            .detail_separator = (char[]){"+"},
	        },
	    .references = 1,
	};
	struct msa msa = {.conf = &snapshot.conf,
	                  .processes = 1,
	                  .session_limit = size % 3 + 1,
	                  .on_session_gone = on_session_gone};
	const struct sockaddr_in peer = {.sin_family = AF_INET};
	struct buf wire;

	memset(&world, 0, sizeof(world));
	buf_init(&wire);
	const bool early = size > 0 && data[0] == EARLY;
	const size_t begin = early ? 1 : 0;
	world.greeted = !early;
	session_new(&msa, -1, (const struct sockaddr *)&peer, NULL,
	            size > begin && data[begin] == TLS_DONE);
	if (world.greeted)
		fire(world.delay);
	for (size_t i = begin; i < size && !is_over(); i++) {
		if (data[i] < EARLY) {
			buf_add_char(&wire, (char)data[i]);
			continue;
		}
		arrive(&wire);
		if (!is_over())
			happen(&msa, (enum event)data[i]);
		if (!is_over())
			arrive(&wire);
	}
	arrive(&wire);
	if (!is_over())
		happen(&msa, SLICE);
	if (world.conn.ended && !world.conn.freed) { /* only a commit outlives its client */
		assert(world.submission->is_commit && world.submission->asked);
		answer_queue(size % 2 ? YES : DOWN);
		assert(world.conn.freed);
	}
	if (msa.sessions != NULL)
		session_abort(msa.sessions);
	assert(world.conn.freed && !world.opened && world.login == NULL &&
	       world.submission == NULL);
	assert(world.deadline == NULL && world.delay == NULL && msa.session_count == 0);
	assert(snapshot.references == 1);
	buf_clear(&wire);
	return 0;
}
