#include "msa/command.h"

#include <string.h>
#include <strings.h>

#include "smtp/command.h"

/* Problem: whether a command is allowed depends on TLS, login and the transaction, and such rules
 * scattered over handlers leave holes ("nobody unauthenticated sends anything").
 *
 * Idea: the rules are columns. A row's handler runs only when all columns hold, so handlers assert
 * instead of checking. Order of refusals: unknown verb, TLS, login, EHLO missing, sequence,
 * argument where none may be.
 *
 * A BDAT that is refused is followed by its chunk all the same, which must not be read as commands;
 * where that chunk's size is unknown the session ends.
 *
 * AUTH says "already authenticated" in a transaction too, because MAIL needs a login: so RFC 4954's
 * rule against AUTH in a transaction needs no check of its own.
 *
 * The rows of HTTP methods are there because browsers can be talked into sending forms to any port:
 * the session ends at the first such line, before a request body could be read as commands. */

#define OPEN (SESSION_READY | SESSION_MAIL | SESSION_RCPT | SESSION_CHUNKS)
#define ANY  (SESSION_GREETED | OPEN)

static const struct command commands[] = {
    /* verb, states, TLS, AUTH, no argument, handler */
    {"EHLO", ANY, false, false, false, cmd_ehlo},
    {"HELO", ANY, false, false, false, cmd_helo},
    {"STARTTLS", SESSION_GREETED | SESSION_READY, false, false, true, cmd_starttls},
    {"AUTH", OPEN, true, false, false, cmd_auth},
    {"MAIL", SESSION_READY, true, true, false, cmd_mail},
    {"RCPT", SESSION_MAIL | SESSION_RCPT, true, true, false, cmd_rcpt},
    {"DATA", SESSION_MAIL | SESSION_RCPT, true, true, true, cmd_data},
    {"BDAT", SESSION_MAIL | SESSION_RCPT | SESSION_CHUNKS, true, true, false, cmd_bdat},
    {"RSET", ANY, false, false, true, cmd_rset},
    {"NOOP", ANY, false, false, false, cmd_noop},
    {"QUIT", ANY, false, false, true, cmd_quit},
    {"VRFY", ANY, true, true, false, cmd_vrfy},
    {"EXPN", ANY, false, false, false, cmd_expn},
    {"HELP", ANY, false, false, false, cmd_help},
    {"GET", ANY, false, false, false, cmd_http},
    {"POST", ANY, false, false, false, cmd_http},
    {"HEAD", ANY, false, false, false, cmd_http},
    {"PUT", ANY, false, false, false, cmd_http},
    {"OPTIONS", ANY, false, false, false, cmd_http},
    {"CONNECT", ANY, false, false, false, cmd_http},
};

const struct command *
command_lookup(const char *verb, size_t len)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strlen(commands[i].verb) == len &&
		    strncasecmp(commands[i].verb, verb, len) == 0)
			return &commands[i];
	return NULL;
}

struct command_opts
command_opts(const struct session *session)
{
	return (struct command_opts){.extensions = session->extensions,
	                             .utf8 = session->transaction.mail.envelope.smtputf8,
	                             .now = clock_wall(),
	                             .hostname = session->msa->conf->hostname};
}

enum handled
command_run(struct session *session, const char *line, size_t len)
{
	size_t verb_len, args_len;
	const char *args;

	if (!command_split(line, len, &verb_len, &args, &args_len)) {
		session_say(session, REPLY_BAD_OCTETS);
		return command_is_bdat(line, len) ? HANDLED_HANG_UP : HANDLED_REPLY;
	}
	const struct command *command = command_lookup(line, verb_len);
	if (command == NULL) {
		session_say(session, REPLY_UNKNOWN_VERB);
		return HANDLED_REPLY;
	}
	if (command->needs_tls && !session_is_secure(session))
		session_say(session,
		            command->handler == cmd_auth ? REPLY_AUTH_NEEDS_TLS : REPLY_TLS_FIRST);
	else if (command->needs_auth && session->account == NULL)
		session_say(session, REPLY_AUTH_FIRST);
	else if (!(command->states & session->state))
		session_say(session, session->state == SESSION_GREETED ? REPLY_EHLO_FIRST
		                                                       : REPLY_BAD_SEQUENCE);
	else if (command->takes_nothing && args_len > 0)
		session_say(session, REPLY_BAD_ARGUMENTS);
	else
		return command->handler(session, args, args_len);
	return command->handler == cmd_bdat ? cmd_bdat_refused(session, args, args_len)
	                                    : HANDLED_REPLY;
}
