#include "msa/command.h"

/* RSET ends the transaction and releases its reservations; the login stays. */

enum handled
cmd_rset(struct session *session, const char *args, size_t len)
{
	(void)args;
	(void)len;
	session_reset(session);
	session_say(session, REPLY_OK);
	return HANDLED_REPLY;
}
