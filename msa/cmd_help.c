#include "msa/command.h"

#include "core/log.h"

/* HELP lists the verbs. The HTTP methods stand here too: what they get is a way out. */

enum handled
cmd_help(struct session *session, const char *args, size_t len)
{
	(void)args;
	(void)len;
	session_say(session, REPLY_HELP_FIRST_LINE);
	session_say(session, REPLY_HELP_LAST);
	return HANDLED_REPLY;
}

enum handled
cmd_http(struct session *session, const char *args, size_t len)
{
	(void)args;
	(void)len;
	log_info(session->id, "refused", "rule=http ip=%s", session->ip);
	session_say(session, REPLY_HTTP);
	return HANDLED_HANG_UP;
}
