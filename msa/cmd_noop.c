#include "msa/command.h"

/* NOOP does nothing; an argument is allowed and ignored (RFC 5321 section 4.1.1.9). */

enum handled
cmd_noop(struct session *session, const char *args, size_t len)
{
	(void)args;
	(void)len;
	session_say(session, REPLY_OK);
	return HANDLED_REPLY;
}
