#include "msa/command.h"

#include <string.h>
#include <time.h>

/* EHLO and HELO (RFC 5321 section 4.1.1.1). Either ends an open transaction. AUTH is offered only
 * over TLS and STARTTLS only in clear text, so that a client never sees an offer that it would be
 * refused. While the authenticator is down PLAIN is still offered: a login then ends in 454, which
 * clients repeat, whereas a missing offer makes them ask their user. */

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

enum handled
cmd_ehlo(struct session *session, const char *args, size_t len)
{
	const struct conf *conf = session->msa->conf;

	if (!greet(session, args, len))
		return HANDLED_REPLY;
	session_say(session, REPLY_EHLO_FIRST_LINE, conf->hostname);
	session_say(session, REPLY_EHLO_LINE, "PIPELINING");
	session_say(session, REPLY_EHLO_SIZE, (unsigned long long)conf->message_size);
	session_say(session, REPLY_EHLO_LINE, "8BITMIME");
	offer(session, "DSN", COMMAND_DSN);
	offer(session, "SMTPUTF8", COMMAND_SMTPUTF8);
	if (!session_is_secure(session))
		session_say(session, REPLY_EHLO_LINE, "STARTTLS");
	else {
		const char *mechanisms = auth_client_mechanisms(session->msa->auth);
		if (conf->future_release)
			offer_future_release(session);
		session_say(session, REPLY_EHLO_AUTH, mechanisms[0] != '\0' ? mechanisms : "PLAIN");
		offer(session, "REQUIRETLS", COMMAND_REQUIRETLS);
	}
	session_say(session, REPLY_EHLO_LAST);
	return HANDLED_REPLY;
}

enum handled
cmd_helo(struct session *session, const char *args, size_t len)
{
	if (greet(session, args, len))
		session_say(session, REPLY_HELO, session->msa->conf->hostname);
	return HANDLED_REPLY;
}
