#include "msa/command.h"

#include <string.h>
#include <time.h>

/* EHLO and HELO (RFC 5321 section 4.1.1.1). Either ends an open transaction. AUTH is offered only
 * over TLS and STARTTLS only in clear text, so that a client never sees an offer that it would be
 * refused. While the authenticator is down PLAIN is still offered: a login then ends in 454, which
 * clients repeat, whereas a missing offer makes them ask their user.
 *
 * LIMITS (RFC 9422) tells what is left: recipients of a message, or of the account's day when it is
 * less, and messages of the session. Once a client has logged in that takes a question to the
 * queue, for which EHLO waits a second at most; unanswered, the message's limit is told. The
 * grammar has no 0: what is used up is told as 1, and refused with its reason when it is tried. */

#define LIMIT_MAX 999999 /* six digits */

static bool
greet(struct session *session, const char *args, size_t len)
{
	char name[ADDRESS_DOMAIN_MAX + 1];

	if (!command_parse_ehlo(args, len, name)) {
		session_say(session, REPLY_BAD_ARGUMENTS);
		return false;
	}
	session_reset(session);
	memcpy(session->ehlo, name, sizeof(name));
	session->state = SESSION_READY;
	session->extensions = 0;
	return true;
}

/* RFC 4865 section 3: for how long, and until when. */
static void
offer_future_release(struct session *session)
{
	const msec_t longest = session->msa->conf->future_release;
	const time_t last = (time_t)((clock_wall() + longest) / 1000);
	char date[sizeof("9999-12-31T23:59:59Z")];
	struct tm utc;

	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&last, &utc));
	session->extensions |= COMMAND_FUTURERELEASE;
	session_say(session, REPLY_EHLO_FUTURERELEASE, (unsigned long long)longest / 1000, date);
}

/* From here on MAIL and RCPT take its parameters. */
static void
offer(struct session *session, const char *keyword, unsigned extension)
{
	session_say(session, REPLY_EHLO_LINE, keyword);
	session->extensions |= extension;
}

static unsigned long long
limit(uint64_t left)
{
	return left < 1 ? 1 : left > LIMIT_MAX ? LIMIT_MAX : left;
}

/* recipients: what the account has left of its day. */
static void
answer(struct session *session, uint64_t recipients)
{
	const struct conf *conf = session->msa->conf;
	const uint64_t messages =
	    conf->messages > session->messages ? conf->messages - session->messages : 0;

	if (recipients > conf->recipients)
		recipients = conf->recipients;
	if (recipients > QUEUE_RECIPIENTS_MAX)
		recipients = QUEUE_RECIPIENTS_MAX;
	session_say(session, REPLY_EHLO_FIRST_LINE, conf->hostname);
	session_say(session, REPLY_EHLO_LINE, "PIPELINING");
	session_say(session, REPLY_EHLO_SIZE, (unsigned long long)conf->message_size);
	session_say(session, REPLY_EHLO_LINE, "8BITMIME");
	session_say(session, REPLY_EHLO_LINE, "CHUNKING");
	offer(session, "BINARYMIME", COMMAND_BINARYMIME);
	offer(session, "DSN", COMMAND_DSN);
	offer(session, "SMTPUTF8", COMMAND_SMTPUTF8);
	if (!session_is_secure(session))
		session_say(session, REPLY_EHLO_LINE, "STARTTLS");
	else {
		const char *mechanisms = auth_client_mechanisms(session->msa->auth);
		if (conf->future_release)
			offer_future_release(session);
		session->extensions |= COMMAND_MT_PRIORITY | COMMAND_DELIVERBY;
		session_say(session, REPLY_EHLO_LINE, "MT-PRIORITY");
		session_say(session, REPLY_EHLO_DELIVERBY, (unsigned long long)CMD_MAIL_BY_MIN);
		session_say(session, REPLY_EHLO_AUTH, mechanisms[0] != '\0' ? mechanisms : "PLAIN");
		offer(session, "REQUIRETLS", COMMAND_REQUIRETLS);
	}
	session_say(session, REPLY_EHLO_LIMITS, limit(recipients), limit(messages));
	session_say(session, REPLY_EHLO_LAST);
}

static void
on_look(void *arg, enum queue_verdict verdict, const struct queue_quota *quota)
{
	struct session *session = arg;
	const uint64_t taken = (uint64_t)quota->used + quota->reserved;

	session_reset(session);
	if (verdict != QUEUE_OK)
		answer(session, UINT64_MAX);
	else
		answer(session, quota->limit > taken ? quota->limit - taken : 0);
	session_done(session, HANDLED_REPLY);
}

enum handled
cmd_ehlo(struct session *session, const char *args, size_t len)
{
	struct transaction *transaction = &session->transaction;

	if (!greet(session, args, len))
		return HANDLED_REPLY;
	if (session->account == NULL) {
		answer(session, UINT64_MAX);
		return HANDLED_REPLY;
	}
	/* It is no transaction: what is open ends with the answer. */
	transaction->submission =
	    queue_submission_new(session->msa->queue, session->account, session->class);
	queue_submission_look(transaction->submission, on_look, session);
	return HANDLED_LATER;
}

enum handled
cmd_helo(struct session *session, const char *args, size_t len)
{
	if (greet(session, args, len))
		session_say(session, REPLY_HELO, session->msa->conf->hostname);
	return HANDLED_REPLY;
}
