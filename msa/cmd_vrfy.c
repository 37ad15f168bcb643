#include "msa/command.h"

#include <strings.h>

#include "core/text.h"

/* VRFY and EXPN (RFC 5321 sections 3.5 and 7.3): recipients are other people's, so there is nothing
 * we could confirm, and nothing we would tell. */

/* The parameter of RFC 6531 section 3.7.4.2, at the end. */
static bool
says_smtputf8(const struct session *session, const char *args, size_t len)
{
	static const char parameter[] = " SMTPUTF8";
	const size_t own = sizeof(parameter) - 1;

	return session->extensions & COMMAND_SMTPUTF8 && len > own &&
	       strncasecmp(args + len - own, parameter, own) == 0;
}

enum handled
cmd_vrfy(struct session *session, const char *args, size_t len)
{
	if (len == 0 || !text_is_printable(args, len))
		session_say(session, REPLY_BAD_ARGUMENTS);
	else if (!text_is_7bit(args, len) && !says_smtputf8(session, args, len))
		session_say(session, REPLY_ADDRESS_NON_ASCII);
	else
		session_say(session, REPLY_VRFY);
	return HANDLED_REPLY;
}

enum handled
cmd_expn(struct session *session, const char *args, size_t len)
{
	(void)args;
	(void)len;
	session_say(session, REPLY_EXPN);
	return HANDLED_REPLY;
}
