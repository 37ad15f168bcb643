/* The commands of a submission session: one table row per verb, one handler (one file) per row. */
#ifndef MSA_COMMAND_H
#define MSA_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "msa/session.h"

/* What a handler did. It never touches the socket: replies go through session_say. */
enum handled {
	HANDLED_REPLY,   /* said its reply */
	HANDLED_LATER,   /* the reply follows: session_say, then session_done from a callback */
	HANDLED_HANG_UP, /* said its reply; the session ends with it */
};
/* args are borrowed for the call and not NUL-terminated. */
typedef enum handled command_handler(struct session *session, const char *args, size_t len);

struct command {
	const char *verb;   /* upper case */
	unsigned states;    /* SESSION_* in which it is legal */
	bool needs_tls;     /* refused in clear text before anything else is looked at */
	bool needs_auth;    /* refused before a login */
	bool takes_nothing; /* an argument is an error */
	command_handler *handler;
};

/* Case-insensitive; NULL when there is no such verb. */
const struct command *command_lookup(const char *verb, size_t len);
/* Checks a whole line against the table and runs its handler. */
enum handled command_run(struct session *session, const char *line, size_t len);

#define CMD_MAIL_BY_MIN 60 /* seconds a message that is to be returned is given at least */
/* What MAIL and RCPT are read with. */
struct command_opts command_opts(const struct session *session);

command_handler cmd_ehlo, cmd_helo, cmd_starttls, cmd_auth, cmd_mail, cmd_rcpt, cmd_data, cmd_bdat,
    cmd_rset, cmd_noop, cmd_quit, cmd_vrfy, cmd_expn, cmd_help, cmd_http;

/* The client's answer to a challenge, in state SESSION_SASL. */
command_handler cmd_auth_response;
/* Content begins to come. */
void cmd_data_begin(struct session *session, enum data_kind kind);
/* Content: octets of input, of which *used were taken. True once the end of it, or of the chunk,
 * was reached. */
bool cmd_data_feed(struct session *session, const unsigned char *data, size_t len, size_t *used);
/* The end was reached: refuse, or hand over to the queue. */
enum handled cmd_data_end(struct session *session);
/* The end of a chunk was reached. */
enum handled cmd_bdat_end(struct session *session);
/* A BDAT was refused: its chunk comes all the same. */
enum handled cmd_bdat_refused(struct session *session, const char *args, size_t len);

#endif
