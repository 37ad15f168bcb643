#include "msa/command.h"

/* STARTTLS (RFC 3207). The handler only says yes; the driver starts TLS behind the reply, refuses
 * clear text that came in the same breath, and forgets the EHLO. */

enum handled
cmd_starttls(struct session *session, const char *args, size_t len)
{
	(void)args;
	(void)len;
	if (session_is_secure(session)) {
		session_say(session, REPLY_TLS_ACTIVE);
		return HANDLED_REPLY;
	}
	session_say(session, REPLY_TLS_READY);
	session->start_tls = true;
	return HANDLED_REPLY;
}
