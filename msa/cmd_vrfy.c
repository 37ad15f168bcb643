#include "msa/command.h"

/* VRFY and EXPN (RFC 5321 sections 3.5 and 7.3): recipients are other people's, so there is nothing
 * we could confirm, and nothing we would tell. */

enum handled
cmd_vrfy(struct session *session, const char *args, size_t len)
{
	(void)args;
	session_say(session, len > 0 ? REPLY_VRFY : REPLY_BAD_ARGUMENTS);
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
