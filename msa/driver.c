#include "msa/session_int.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "core/log.h"
#include "core/mem.h"
#include "msa/command.h"
#include "msa/load.h"

/* Problem: a client sends many commands at once (PIPELINING) while answers come late, from other
 * processes; it may vanish, dawdle or lie at any moment, and replies must leave in the order of the
 * commands.
 *
 * Idea: one driver, driver_run, takes the next line only when the last one is answered. While
 * `waiting` is set, input stays in the connection's bounded buffer, which stops reading when full:
 * order and back-pressure are the same mechanism. A client that does not read its replies is not
 * served either: driver_run rests while CONN_OUTPUT_HIGH waits to be written, or short commands
 * would turn into any amount of memory. Handlers only say replies and return what they did.
 *
 * Invariants: at most one command is being worked on. A deadline of the client runs exactly while
 * we wait for the client, and starts at our last reply, not at its last octet, so a command dripped
 * octet by octet cannot hold a session. Command lines are overwritten in place before they are
 * consumed, because any of them may hold a password. AUTH lines are never logged.
 *
 * Who speaks before our greeting is no mail program that waits for answers, and what it sends was
 * written without knowing whom it speaks with; also the TLS handshake of a client that is set up
 * for the other port. What has arrived when we are about to greet is looked at, and never waited
 * for unless listen.greeting_delay says so: honest clients would wait with it.
 *
 * Content has one deadline, for all of a message (BDAT chunks and the waits between them, too): the
 * client may take timeouts.data, octets give back what they are worth at limits.data_rate, and
 * never more than timeouts.data is left. So neither one octet now and then nor a fast beginning
 * buys more time than that. Time for which we ourselves paused the client is not counted. */

#define SOFT_DELAY 1000
#define BULK       (64 * 1024) /* octets of content from which on more of it may wait for others */
#define LOGIN_TIME 300000  /* msec in which a client has to log in, whatever it says meanwhile */
#define NSEC       1000000 /* in a msec */

/* How long the client may take for what it has to do now. */
static msec_t
patience(const struct session *session)
{
	const struct msa *msa = session->msa;
	const struct transaction *transaction = &session->transaction;
	const msec_t login_left = session->came + LOGIN_TIME - session->awaited;
	const msec_t most =
	    load_timeout(msa, session->state == SESSION_HANDSHAKE ? msa->conf->handshake_timeout
	                                                          : msa->conf->command_timeout);

	msec_t left = session->account == NULL && most > login_left ? login_left : most;

	if (transaction->begun)
		left = load_timeout(msa, (msec_t)(transaction->allowance / NSEC));
	return left > 0 ? left : 0; /* our own answer may have come late */
}

static void
arm(struct session *session)
{
	const msec_t left = session->awaited + patience(session) - clock_mono();

	loop_timer_arm(session->deadline, left > 0 ? left : 0);
}

void
driver_await_client(struct session *session)
{
	session->awaited = clock_mono();
	arm(session);
}

void
driver_await_client_again(struct session *session)
{
	if (loop_timer_is_armed(session->deadline) && !session->ending)
		arm(session);
}

static void
greet(struct session *session)
{
	session->state = SESSION_GREETED;
	session_say(session, REPLY_GREETING, session->msa->conf->hostname,
	            session->msa->conf->banner);
	session_flush(session);
	driver_await_client(session);
}

/* Also without a delay it takes a turn of the loop, in which descriptors are looked at. */
void
driver_greet(struct session *session)
{
	session->state = SESSION_CONNECTED;
	session_delay(session, session->msa->conf->greeting_delay, greet);
}

static void
refuse_early(struct session *session, const uint8_t *data, size_t len)
{
	const bool is_tls = data[0] == 0x16;
	const bool is_proxied = len > 5 && memcmp(data, "PROXY", 5) == 0;

	log_info(session->id, "refused", "rule=early-talker ip=%s sent=%s", session->ip,
	         is_tls       ? "tls-handshake"
	         : is_proxied ? "proxy-header"
	                      : "text");
	session_say(session, REPLY_EARLY);
	session_hang_up(session);
}

void
driver_start_tls(struct session *session)
{
	session->start_tls = false;
	session->state = SESSION_HANDSHAKE;
	session->waiting = true;
	session->ehlo[0] = '\0';
	if (conn_start_tls_server(session->conn, session->msa->tls) == -1) {
		log_warn(session->id, "refused", "rule=starttls-injection ip=%s", session->ip);
		session_hang_up(session);
		return;
	}
	driver_await_client(session);
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
		session_hang_up(session);
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
	if (session->ending && !session_is_in_content(session)) {
		session_say_last_word(session);
		return;
	}
	session_flush(session);
	if (session->start_tls)
		driver_start_tls(session);
	else if (!session->transaction.paused)
		driver_await_client(session);
}

void
session_done(struct session *session, enum handled handled)
{
	session_enter(session);
	assert(session->waiting || session->closing);
	session->waiting = false;
	if (session->closing) /* the client is gone, see on_end */
		session->ended = true;
	settle(session, handled, session->errors);
	driver_run(session);
	session_leave(session);
}

static void
consume_line(struct session *session, const uint8_t *data, size_t len)
{
	mem_wipe((void *)(uintptr_t)data, len);
	conn_consume(session->conn, len);
}

static bool
is_auth(const uint8_t *data, size_t len)
{
	return len >= 5 && strncasecmp((const char *)data, "AUTH ", 5) == 0;
}

static size_t
line_limit(const struct session *session, const uint8_t *data, size_t len)
{
	return session->state == SESSION_SASL || is_auth(data, len) ? COMMAND_AUTH_MAX
	                                                            : COMMAND_LINE_MAX;
}

static enum handled
line_too_long(struct session *session, const uint8_t *data, size_t len)
{
	if (session->state == SESSION_SASL) {
		auth_login_cancel(session->login);
		session->login = NULL;
		session->state = SESSION_READY;
	} else if (!is_auth(data, len)) {
		session_say(session, REPLY_LINE_TOO_LONG);
		return command_is_bdat((const char *)data, len) ? HANDLED_HANG_UP : HANDLED_REPLY;
	}
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

/* Since it was the client's turn, time has passed and octets have come. */
static void
count_time(struct session *session, size_t octets)
{
	struct transaction *transaction = &session->transaction;
	const struct conf *conf = session->msa->conf;
	const int64_t most = (int64_t)load_timeout(session->msa, conf->data_timeout) * NSEC;
	int64_t *allowance = &transaction->allowance;
	const msec_t now = clock_mono();

	*allowance -= (now - session->awaited) * NSEC;
	*allowance +=
	    conf->data_rate > 0 ? (int64_t)(octets * (uint64_t)1000000000 / conf->data_rate) : most;
	if (*allowance > most)
		*allowance = most;
	session->awaited = now;
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
		session_hang_up(session);
		return true;
	}
	if (whole == 0 && len < limit)
		return false;
	if (session->transaction.begun) /* between chunks */
		count_time(session, 0);
	if (session->errors >= session->msa->conf->errors_hard) {
		log_info(session->id, "refused", "rule=errors_hard ip=%s errors=%u", session->ip,
		         session->errors);
		session_say(session, REPLY_TOO_MANY_ERRORS);
		handled = HANDLED_HANG_UP;
	} else if (whole == 0 || whole > limit)
		handled = line_too_long(session, data, len);
	else if (session->state == SESSION_SASL)
		handled = cmd_auth_response(session, (const char *)data, line);
	else
		handled = command_run(session, (const char *)data, line);
	session->skipping = whole == 0;
	consume_line(session, data, taken);
	settle(session, handled, errors);
	return true;
}

void
session_begin_data(struct session *session)
{
	struct transaction *transaction = &session->transaction;

	if (transaction->begun)
		return;
	transaction->begun = true;
	transaction->allowance = (int64_t)session->msa->conf->data_timeout * NSEC;
}

/* A message over the limit is read to its end so that its sender hears why; but not for ever. */
static bool
is_endless(const struct session *session)
{
	return session->transaction.received / SESSION_OVERSIZE_READ >
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
	count_time(session, used);
	conn_set_bulk(session->conn, !at_end && session->transaction.received > BULK);
	if (at_end)
		settle(session, cmd_data_end(session), errors);
	else if (is_endless(session)) {
		session_say(session, REPLY_TOO_BIG,
		            (unsigned long long)session->transaction.conf->message_size);
		session_hang_up(session);
	} else if (!session->transaction.paused)
		driver_await_client(session);
}

/* Content of a chunk that was refused when it was announced. */
static void
discard(struct session *session, size_t len)
{
	if (len > session->discard)
		len = (size_t)session->discard;
	conn_consume(session->conn, len);
	session->discard -= len;
	if (session->transaction.begun) {
		count_time(session, len);
		driver_await_client(session);
	}
}

void
driver_run(struct session *session)
{
	session_enter(session);
	while (!session->waiting && !session->closing && !session->ended &&
	       !session->transaction.paused && conn_pending(session->conn) <= CONN_OUTPUT_HIGH) {
		size_t len = 0;
		const uint8_t *data = conn_input(session->conn, &len);
		if (data == NULL || len == 0)
			break;
		if (session->state == SESSION_CONNECTED)
			refuse_early(session, data, len);
		else if (session->discard > 0)
			discard(session, len);
		else if (session->state == SESSION_DATA)
			take_data(session, data, len);
		else if (!take_line(session, data, len))
			break;
	}
	session_leave(session);
}

void
session_pause(struct session *session)
{
	if (session->transaction.paused)
		return;
	session->transaction.paused = true;
	conn_pause_input(session->conn, true);
	loop_timer_cancel(session->deadline);
}

void
session_unpause(struct session *session)
{
	if (!session->transaction.paused || session->closing || session->ended)
		return;
	session->transaction.paused = false;
	conn_pause_input(session->conn, false);
	if (session->depth > 0)
		return; /* driver_run is on the stack and goes on by itself */
	driver_await_client(session);
	driver_run(session);
}

void
driver_on_deadline(void *arg)
{
	struct session *session = arg;
	const struct msa *msa = session->msa;
	const struct conf *conf = msa->conf;
	const bool is_data = session->transaction.begun;
	const msec_t idle = clock_mono() - session->awaited;

	session_enter(session);
	if (is_data && conf->data_rate > 0 && idle < load_timeout(msa, conf->data_timeout) / 2) {
		log_info(session->id, "refused", "rule=data_rate account=%s received=%" PRIu64,
		         session->account, session->transaction.received);
		session_say(session, REPLY_SLOW, conf->hostname,
		            (unsigned long long)conf->data_rate);
		session_hang_up(session);
		session_leave(session);
		return;
	}
	log_info(session->id, "timeout", "ip=%s state=%s", session->ip,
	         session->state == SESSION_HANDSHAKE ? "handshake"
	         : is_data                           ? "data"
	                                             : "command");
	if (session->state == SESSION_HANDSHAKE)
		session->ended = true;
	else {
		session_say(session, REPLY_TIMEOUT, conf->hostname);
		session_hang_up(session);
	}
	session_leave(session);
}

static void
on_secure(void *arg)
{
	struct session *session = arg;

	if (session->closing || session->ended)
		return;
	session_enter(session);
	session->state = SESSION_GREETED;
	session->waiting = false;
	if (session->ending) {
		session_say_last_word(session);
		session_leave(session);
		return;
	}
	log_debug(session->id, "secure", "tls=%s cipher=%s", conn_tls_version(session->conn),
	          conn_tls_cipher(session->conn));
	if (session->implicit_tls) {
		loop_timer_cancel(session->deadline);
		driver_greet(session);
	} else
		driver_await_client(session);
	driver_run(session);
	session_leave(session);
}

static void
on_input(void *arg)
{
	driver_run(arg);
}

static void
on_end(void *arg, enum conn_end why)
{
	struct session *session = arg;

	session_enter(session);
	if (why == CONN_ERROR)
		log_info(session->id, "broken", "ip=%s reason=\"%s\"", session->ip,
		         conn_error(session->conn));
	/* A commit that is under way goes on without the client. Its verdict is waited for, or
	 * whoever leaves at once would send without a trace in the log. */
	if (session->waiting && session->state == SESSION_DATA)
		session->closing = true;
	else
		session->ended = true;
	session_leave(session);
}

const struct conn_events driver_events = {
    .on_secure = on_secure,
    .on_input = on_input,
    .on_drained = on_input,
    .on_end = on_end,
};
