#include "msa/command.h"

/* QUIT says good-bye; an open transaction is dropped. */

enum handled
cmd_quit(struct session *session, const char *args, size_t len)
{
	(void)args;
	(void)len;
	session_say(session, REPLY_BYE);
	return HANDLED_HANG_UP;
}
