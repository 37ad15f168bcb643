#include "msa/session.h"

#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/log.h"
#include "core/mem.h"
#include "msa/command.h"

/* Problem: a client sends many commands at once (PIPELINING) while answers come late, from other
 * processes; it may vanish, dawdle or lie at any moment, and replies must leave in the order of the
 * commands.
 *
 * Idea: one driver, run(), takes the next line only when the last one is answered. While `waiting`
 * is set, input stays in the connection's bounded buffer, which stops reading when full: order and
 * back-pressure are the same mechanism. A client that does not read its replies is not served
 * either: run() rests while CONN_OUTPUT_HIGH waits to be written, or short commands would turn into
 * any amount of memory. Handlers only say replies and return what they did.
 *
 * Invariants: at most one command is being worked on. A deadline of the client runs exactly while
 * we wait for the client, and starts at our last reply, not at its last octet, so a command dripped
 * octet by octet cannot hold a session. An object is freed when the outermost call of the driver
 * returns (depth), never under a caller's feet. Command lines are overwritten in place before they
 * are consumed, because any of them may hold a password. AUTH lines are never logged.
 *
 * The rate check counts from 354, without the time for which we ourselves paused the client. */

#define INPUT_MAX      (32u * 1024)
#define FINISH_TIMEOUT 5000
#define RATE_GRACE     30000
#define SOFT_DELAY     1000
#define OVERSIZE_READ  10   /* times limits.message_size */
#define HANDSHAKE_REST 2000 /* for a handshake whose session is to end; a client takes less */

static void run(struct session *session);

static void
enter(struct session *session)
{
	session->depth++;
}

static void
destroy(struct session *session)
{
	struct msa *msa = session->msa;

	log_info(session->id, "disconnect", "ip=%s errors=%u messages=%" PRIu64, session->ip,
	         session->errors, session->messages);
	auth_session_close(msa->auth, session->number);
	auth_login_cancel(session->login);
	session_reset(session);
	conn_free(session->conn);
	loop_timer_free(session->deadline);
	loop_timer_free(session->delay);
	buf_wipe(&session->out);
	free(session->account);
	free(session->identities);
	if (session->prev != NULL)
		session->prev->next = session->next;
	else
		msa->sessions = session->next;
	if (session->next != NULL)
		session->next->prev = session->prev;
	msa->session_count--;
	free(session);
	msa->on_session_gone(msa);
}

static void
leave(struct session *session)
{
	assert(session->depth > 0);
	if (--session->depth == 0 && session->ended)
		destroy(session);
}

bool
session_is_secure(const struct session *session)
{
	return conn_is_secure(session->conn);
}

bool
session_owns(const struct session *session, const struct address *address)
{
	for (size_t i = 0; i < session->identity_count; i++)
		if (address_equal(&session->identities[i], address))
			return true;
	return false;
}

void
session_say(struct session *session, enum reply_name name, ...)
{
	char line[COMMAND_AUTH_MAX + 64];
	va_list ap;

	va_start(ap, name);
	int n = vsnprintf(line, sizeof(line), reply_format(name), ap);
	va_end(ap);
	assert(n > 0 && (size_t)n < sizeof(line));
	for (int i = 0; i < n; i++)
		if (line[i] < ' ' || line[i] > '~')
			line[i] = '?';
	buf_add(&session->out, line, (size_t)n);
	buf_add(&session->out, "\r\n", 2);
	if (reply_is_client_error(name)) {
		session->errors++;
		log_info(session->id, "refused", "reply=\"%s\"",
		         log_text(line, line, sizeof(line)));
	}
}

void
session_say_verdict(struct session *session, enum queue_verdict verdict,
                    const struct queue_quota *quota)
{
	char when[CLOCK_RFC3339_SIZE];

	assert(verdict != QUEUE_OK);
	session->over_limit += verdict == QUEUE_OVER || verdict == QUEUE_TOO_FAST;
	switch (verdict) {
	case QUEUE_OVER:
		assert(quota != NULL);
		clock_rfc3339(quota->reset, when);
		log_info(session->id, "refused",
		         "rule=%s account=%s limit=%u used=%u reserved=%u resets=%s",
		         quota->meter == QUEUE_MESSAGES ? "Q2" : "Q1", session->account,
		         quota->limit, quota->used, quota->reserved, when);
		session_say(session,
		            quota->meter == QUEUE_MESSAGES ? REPLY_QUOTA_MESSAGES : REPLY_QUOTA,
		            quota->limit, when);
		break;
	case QUEUE_TOO_FAST: {
		assert(quota != NULL);
		const msec_t wait = quota->reset - clock_wall();
		const unsigned long long seconds =
		    wait > 0 ? (unsigned long long)(wait + 999) / 1000 : 1;
		log_info(session->id, "refused", "rule=B1 account=%s retry_s=%llu",
		         session->account, seconds);
		session_say(session, REPLY_TOO_FAST, seconds);
		break;
	}
	case QUEUE_FULL:
		log_warn(session->id, "refused", "rule=queue-full account=%s", session->account);
		session_say(session, REPLY_QUEUE_FULL);
		break;
	default:
		log_warn(session->id, "refused", "rule=queue-unavailable account=%s",
		         session->account);
		session_say(session, REPLY_QUEUE_UNAVAILABLE);
		break;
	}
}

static void
flush(struct session *session)
{
	if (session->out.len > 0 && !session->ended)
		conn_write(session->conn, session->out.data, session->out.len);
	buf_clear(&session->out);
}

static void
hang_up(struct session *session)
{
	if (session->closing)
		return;
	session->closing = true;
	session->waiting = false;
	loop_timer_cancel(session->deadline);
	loop_timer_cancel(session->delay);
	auth_login_cancel(session->login);
	session->login = NULL;
	flush(session);
	session_reset(session);
	if (!session->ended)
		conn_finish(session->conn, FINISH_TIMEOUT);
}

static void
say_last_word(struct session *session)
{
	const struct conf *conf = session->msa->conf;

	switch (session->last_word) {
	case REPLY_STOPPING:
		session_say(session, REPLY_STOPPING, conf->hostname);
		break;
	case REPLY_TOO_MANY_OF_ACCOUNT:
		session_say(session, REPLY_TOO_MANY_OF_ACCOUNT,
		            (unsigned long long)conf->account_sessions);
		break;
	case REPLY_TOO_MANY_OF_CLIENT:
		session_say(session, REPLY_TOO_MANY_OF_CLIENT,
		            (unsigned long long)conf->prefix_sessions);
		break;
	case REPLY_SUSPENDED:
		session_say(session, REPLY_SUSPENDED, conf->contact);
		break;
	default:
		session_say(session, session->last_word);
		break;
	}
	hang_up(session);
}

void
session_end(struct session *session, enum reply_name last_word, const char *rule)
{
	enter(session);
	if (!session->closing && !session->ending) {
		if (rule != NULL)
			log_info(session->id, "refused", "rule=%s ip=%s account=%s", rule,
			         session->ip, session->account != NULL ? session->account : "-");
		session->ending = true;
		session->last_word = last_word;
		/* Whoever never shakes hands must not stay all the same, or a limit would be none.
		 */
		if (session->state == SESSION_HANDSHAKE)
			loop_timer_arm(session->deadline, HANDSHAKE_REST);
		else if (session->state != SESSION_DATA)
			say_last_word(session);
	}
	leave(session);
}

void
session_reset(struct session *session)
{
	struct transaction *transaction = &session->transaction;

	queue_submission_free(transaction->submission);
	arena_free(transaction->arena);
	free(transaction->recipients);
	conf_free(transaction->conf);
	memset(transaction, 0, sizeof(*transaction));
	if (session->state & (SESSION_MAIL | SESSION_RCPT | SESSION_DATA))
		session->state = SESSION_READY;
}

/* The client's turn: from now on its deadline runs. */
static void
await_client(struct session *session)
{
	const struct conf *conf = session->msa->conf;

	loop_timer_arm(session->deadline,
	               session->state == SESSION_DATA ? conf->data_timeout : conf->command_timeout);
}

static void
start_tls(struct session *session)
{
	session->start_tls = false;
	session->state = SESSION_HANDSHAKE;
	session->waiting = true;
	session->ehlo[0] = '\0';
	if (conn_start_tls_server(session->conn, session->msa->tls) == -1) {
		log_warn(session->id, "refused", "rule=starttls-injection ip=%s", session->ip);
		hang_up(session);
		return;
	}
	loop_timer_arm(session->deadline, session->msa->conf->handshake_timeout);
}

static void
on_soft_delay(struct session *session)
{
	session_done(session, HANDLED_REPLY);
}

/* What follows a handler. errors: the count before it ran. */
static void
settle(struct session *session, enum handled handled, unsigned errors)
{
	if (session->closing || session->ended)
		return;
	if (handled == HANDLED_LATER) {
		session->waiting = true;
		loop_timer_cancel(session->deadline);
		return;
	}
	if (handled == HANDLED_HANG_UP) {
		hang_up(session);
		return;
	}
	if (session->errors > errors && session->errors > session->msa->conf->errors_soft) {
		log_info(session->id, "delayed", "rule=errors_soft errors=%u delay_ms=%d",
		         session->errors, SOFT_DELAY);
		session_delay(session, SOFT_DELAY, on_soft_delay);
		session->waiting = true;
		loop_timer_cancel(session->deadline);
		return;
	}
	if (session->ending && session->state != SESSION_DATA) {
		say_last_word(session);
		return;
	}
	flush(session);
	if (session->start_tls)
		start_tls(session);
	else
		await_client(session);
}

void
session_done(struct session *session, enum handled handled)
{
	enter(session);
	assert(session->waiting || session->closing);
	session->waiting = false;
	settle(session, handled, session->errors);
	run(session);
	leave(session);
}

static void
consume_line(struct session *session, const uint8_t *data, size_t len)
{
	mem_wipe((void *)(uintptr_t)data, len);
	conn_consume(session->conn, len);
}

static size_t
line_limit(const struct session *session, const uint8_t *data, size_t len)
{
	if (session->state == SESSION_SASL ||
	    (len >= 5 && strncasecmp((const char *)data, "AUTH ", 5) == 0))
		return COMMAND_AUTH_MAX;
	return COMMAND_LINE_MAX;
}

static enum handled
line_too_long(struct session *session)
{
	if (session->state != SESSION_SASL) {
		session_say(session, REPLY_LINE_TOO_LONG);
		return HANDLED_REPLY;
	}
	auth_login_cancel(session->login);
	session->login = NULL;
	session->state = SESSION_READY;
	session_say(session, REPLY_AUTH_TOO_LONG);
	return HANDLED_REPLY;
}

/* A client that ends lines with LF alone would wait for ever, and could not send mail anyway: only
 * CRLF.CRLF ends data. It is told so and let go. To take LF as the end of a command, as other
 * servers do, would make two commands of what the sender of the line may have meant as one: whoever
 * gets an LF into somebody's RCPT would have a command of his own behind it. So nothing after the
 * LF is looked at. */
static bool
has_bare_lf(const uint8_t *data, size_t len)
{
	const uint8_t *lf = memchr(data, '\n', len);

	return lf != NULL && (lf == data || lf[-1] != '\r');
}

/* Takes one line. One that is too long is refused at once, since its end may never come, and the
 * rest of it is dropped. False: more input is needed. */
static bool
take_line(struct session *session, const uint8_t *data, size_t len)
{
	size_t line;
	size_t whole = command_line(data, len, &line);
	/* Without an end, the last octet may be the CR of a CRLF still to come. */
	size_t taken = whole != 0 ? whole : data[len - 1] == '\r' ? len - 1 : len;
	size_t limit = line_limit(session, data, len);
	unsigned errors = session->errors;
	enum handled handled;

	if (session->skipping) {
		session->skipping = whole == 0;
		consume_line(session, data, taken);
		return whole != 0;
	}
	if (has_bare_lf(data, whole != 0 ? whole : len)) {
		log_info(session->id, "refused", "rule=bare-lf ip=%s", session->ip);
		session_say(session, REPLY_BARE_LF);
		consume_line(session, data, len);
		hang_up(session);
		return true;
	}
	if (whole == 0 && len < limit)
		return false;
	if (session->errors >= session->msa->conf->errors_hard) {
		log_info(session->id, "refused", "rule=errors_hard ip=%s errors=%u", session->ip,
		         session->errors);
		session_say(session, REPLY_TOO_MANY_ERRORS);
		handled = HANDLED_HANG_UP;
	} else if (whole == 0 || whole > limit)
		handled = line_too_long(session);
	else if (session->state == SESSION_SASL)
		handled = cmd_auth_response(session, (const char *)data, line);
	else
		handled = command_run(session, (const char *)data, line);
	session->skipping = whole == 0;
	consume_line(session, data, taken);
	settle(session, handled, errors);
	return true;
}

static bool
is_too_slow(const struct session *session)
{
	const struct transaction *transaction = &session->transaction;
	msec_t elapsed = clock_mono() - transaction->started - transaction->paused;

	return elapsed > RATE_GRACE &&
	       transaction->received * 1000 < session->msa->conf->data_rate * (uint64_t)elapsed;
}

/* A message over the limit is read to its end so that its sender hears why; but not for ever. */
static bool
is_endless(const struct session *session)
{
	return session->transaction.received / OVERSIZE_READ >
	       session->transaction.conf->message_size;
}

static void
take_data(struct session *session, const uint8_t *data, size_t len)
{
	size_t used = 0;
	unsigned errors = session->errors;
	bool at_end = cmd_data_feed(session, data, len, &used);

	session->transaction.received += used;
	conn_consume(session->conn, used);
	if (at_end) {
		session_unpause(session);
		settle(session, cmd_data_end(session), errors);
	} else if (is_endless(session)) {
		session_say(session, REPLY_TOO_BIG,
		            (unsigned long long)session->transaction.conf->message_size);
		hang_up(session);
	} else if (is_too_slow(session)) {
		log_info(session->id, "refused", "rule=data_rate account=%s received=%" PRIu64,
		         session->account, session->transaction.received);
		session_say(session, REPLY_SLOW, session->msa->conf->hostname,
		            (unsigned long long)session->msa->conf->data_rate);
		hang_up(session);
	} else if (session->transaction.paused_at == 0)
		await_client(session);
}

static void
run(struct session *session)
{
	enter(session);
	while (!session->waiting && !session->closing && !session->ended &&
	       session->transaction.paused_at == 0 &&
	       conn_pending(session->conn) <= CONN_OUTPUT_HIGH) {
		size_t len = 0;
		const uint8_t *data = conn_input(session->conn, &len);
		if (data == NULL || len == 0)
			break;
		if (session->state == SESSION_DATA)
			take_data(session, data, len);
		else if (!take_line(session, data, len))
			break;
	}
	leave(session);
}

void
session_pause(struct session *session)
{
	struct transaction *transaction = &session->transaction;

	if (transaction->paused_at != 0)
		return;
	transaction->paused_at = clock_mono();
	conn_pause_input(session->conn, true);
	loop_timer_cancel(session->deadline);
}

void
session_unpause(struct session *session)
{
	struct transaction *transaction = &session->transaction;

	if (transaction->paused_at == 0 || session->closing || session->ended)
		return;
	transaction->paused += clock_mono() - transaction->paused_at;
	transaction->paused_at = 0;
	conn_pause_input(session->conn, false);
	if (session->depth > 0)
		return; /* run is on the stack and goes on by itself */
	await_client(session);
	run(session);
}

void
session_delay(struct session *session, msec_t delay, void (*on_delay)(struct session *session))
{
	session->on_delay = on_delay;
	loop_timer_arm(session->delay, delay);
}

static void
on_delay(void *arg)
{
	struct session *session = arg;

	enter(session);
	session->on_delay(session);
	leave(session);
}

static void
on_deadline(void *arg)
{
	struct session *session = arg;

	enter(session);
	log_info(session->id, "timeout", "ip=%s state=%s", session->ip,
	         session->state == SESSION_HANDSHAKE ? "handshake"
	         : session->state == SESSION_DATA    ? "data"
	                                             : "command");
	if (session->state == SESSION_HANDSHAKE)
		session->ended = true;
	else {
		session_say(session, REPLY_TIMEOUT, session->msa->conf->hostname);
		hang_up(session);
	}
	leave(session);
}

static void
on_secure(void *arg)
{
	struct session *session = arg;

	if (session->closing || session->ended)
		return;
	enter(session);
	session->state = SESSION_GREETED;
	session->waiting = false;
	if (session->ending) {
		say_last_word(session);
		leave(session);
		return;
	}
	log_debug(session->id, "secure", "tls=%s cipher=%s", conn_tls_version(session->conn),
	          conn_tls_cipher(session->conn));
	if (session->implicit_tls) {
		session_say(session, REPLY_GREETING, session->msa->conf->hostname);
		flush(session);
	}
	await_client(session);
	run(session);
	leave(session);
}

static void
on_input(void *arg)
{
	run(arg);
}

static void
on_end(void *arg, enum conn_end why)
{
	struct session *session = arg;

	enter(session);
	if (why == CONN_ERROR)
		log_info(session->id, "broken", "ip=%s reason=\"%s\"", session->ip,
		         conn_error(session->conn));
	session->ended = true;
	leave(session);
}

static const struct conn_events events = {
    .on_secure = on_secure,
    .on_input = on_input,
    .on_drained = on_input,
    .on_end = on_end,
};

static void
note_peer(struct session *session, const struct sockaddr *peer)
{
	if (peer->sa_family == AF_INET) {
		const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)peer;
		inet_ntop(AF_INET, &in4->sin_addr, session->ip, sizeof(session->ip));
		session->port = ntohs(in4->sin_port);
	} else if (peer->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)peer;
		session->port = ntohs(in6->sin6_port);
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
			inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], session->ip,
			          sizeof(session->ip));
		else
			inet_ntop(AF_INET6, &in6->sin6_addr, session->ip, sizeof(session->ip));
	}
}

/* sekisho-auth counts the sessions of a client over all processes. While it is down each process
 * allows its share of them. */
static bool
is_over_share(const struct session *session)
{
	const struct msa *msa = session->msa;
	const uint64_t share = (msa->conf->prefix_sessions + msa->processes - 1) / msa->processes;
	uint64_t count = 0;

	if (auth_client_is_up(msa->auth))
		return false;
	for (const struct session *s = msa->sessions; s != NULL; s = s->next)
		count += strcmp(s->prefix, session->prefix) == 0;
	if (count > share)
		log_info(session->id, "refused",
		         "rule=prefix_sessions ip=%s limit=%" PRIu64 " processes=%u", session->ip,
		         share, msa->processes);
	return count > share;
}

void
session_new(struct msa *msa, int fd_take, const struct sockaddr *peer, bool implicit_tls)
{
	struct session *session = xcalloc(1, sizeof(*session));
	struct auth_session description;

	session->msa = msa;
	session->number = ++msa->next_number * 1000 + msa->index;
	snprintf(session->id, sizeof(session->id), "%" PRIu64, session->number);
	session->implicit_tls = implicit_tls;
	note_peer(session, peer);
	prefix_of(session->ip, session->prefix);
	session->since = clock_wall();
	buf_init(&session->out);
	session->deadline = loop_timer_new(msa->loop, on_deadline, session);
	session->delay = loop_timer_new(msa->loop, on_delay, session);
	session->next = msa->sessions;
	if (session->next != NULL)
		session->next->prev = session;
	msa->sessions = session;
	msa->session_count++;
	log_info(session->id, "connect", "ip=%s port=%u listener=%s", session->ip, session->port,
	         implicit_tls ? "submissions" : "submission");

	enter(session);
	session->state = SESSION_GREETED;
	session->conn = conn_accept(msa->loop, fd_take, INPUT_MAX, &events, session);
	if (implicit_tls)
		start_tls(session);
	else {
		session_say(session, REPLY_GREETING, msa->conf->hostname);
		flush(session);
		await_client(session);
	}
	session_describe(session, &description);
	auth_session_open(msa->auth, &description);
	if (is_over_share(session))
		session_end(session, REPLY_TOO_MANY_OF_CLIENT, NULL);
	leave(session);
}

void
session_describe(const struct session *session, struct auth_session *out)
{
	*out = (struct auth_session){.number = session->number,
	                             .port = session->port,
	                             .implicit_tls = session->implicit_tls,
	                             .since = session->since};
	_Static_assert(sizeof(out->ip) == sizeof(session->ip) &&
	                   sizeof(out->mechanism) == sizeof(session->mechanism),
	               "they fit");
	memcpy(out->ip, session->ip, sizeof(out->ip));
	if (session->account == NULL)
		return;
	snprintf(out->account, sizeof(out->account), "%s", session->account);
	memcpy(out->mechanism, session->mechanism, sizeof(out->mechanism));
	snprintf(out->tls, sizeof(out->tls), "%s", conn_tls_version(session->conn));
}

void
session_stop(struct session *session)
{
	enter(session);
	if (session->state == SESSION_HANDSHAKE)
		session->ended = true;
	else
		session_end(session, REPLY_STOPPING, NULL);
	leave(session);
}

void
session_abort(struct session *session)
{
	enter(session);
	session->ended = true;
	leave(session);
}
