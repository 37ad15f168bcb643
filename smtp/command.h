/* SMTP commands and their parameters as a server reads them (RFC 5321 section 4.1). Pure: text in,
 * struct out. */
#ifndef SMTP_COMMAND_H
#define SMTP_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "smtp/address.h"
#include "smtp/envelope.h"

/* With its CRLF. RFC 5321 section 4.5.3.1.4 asks for 512, and for what extensions add to it: to
 * MAIL SIZE 26, BODY 17, AUTH= 500, RET and ENVID 113, SMTPUTF8 10, HOLDUNTIL 37, MT-PRIORITY 15,
 * BY 17 and REQUIRETLS 11, to RCPT NOTIFY and ORCPT 529. */
#define COMMAND_LINE_MAX 2048
#define COMMAND_AUTH_MAX 12290 /* with its CRLF; RFC 4954 section 4 */

/* Finds the end of the first line: its length without CRLF in *line, and the octets to consume as
 * the return value; 0 when no whole line is there. A bare LF or CR does not end a line (it is
 * content, and command parsing refuses it). */
size_t command_line(const uint8_t *data, size_t len, size_t *line);

/* Splits "VERB arguments": the verb's length, and where its arguments start (one space skipped).
 * False when the line holds octets that no command may hold (controls). */
bool command_split(const char *line, size_t len, size_t *verb_len, const char **args,
                   size_t *args_len);

/* Extensions whose parameters a command may have; those of SIZE, 8BITMIME and AUTH it always may.
 */
enum {
	COMMAND_DSN = 1,           /* RFC 3461: RET, ENVID; NOTIFY, ORCPT */
	COMMAND_SMTPUTF8 = 2,      /* RFC 6531 */
	COMMAND_BINARYMIME = 4,    /* RFC 3030: BODY=BINARYMIME */
	COMMAND_FUTURERELEASE = 8, /* RFC 4865: HOLDFOR, HOLDUNTIL */
	COMMAND_MT_PRIORITY = 16,  /* RFC 6710 */
	COMMAND_DELIVERBY = 32,    /* RFC 2852: BY */
	COMMAND_REQUIRETLS = 64,   /* RFC 8689 */
	COMMAND_ALL = 127,
};
struct command_opts {         /* all borrowed for the call */
	unsigned extensions;  /* COMMAND_* that were offered; what belongs to others is unknown */
	bool utf8;            /* of RCPT: MAIL said SMTPUTF8 */
	msec_t now;           /* wall clock that HOLDFOR and BY are counted from */
	const char *hostname; /* ours: whose postmaster "RCPT TO:<postmaster>" is */
};

struct command_mail {
	struct address from;
	bool has_size, has_priority;
	uint64_t size;
	struct envelope envelope; /* as asked for: what it is bound to is the caller's */
};
enum command_error {
	COMMAND_OK,
	COMMAND_SYNTAX,        /* 501 5.5.4: malformed or repeated parameter, or not FROM:/TO: */
	COMMAND_BAD_ADDRESS,   /* see .address_error */
	COMMAND_UNKNOWN_PARAM, /* 555 5.5.4 */
};
enum command_error command_parse_mail(const char *args, size_t len, const struct command_opts *opts,
                                      struct command_mail *out, enum address_error *why);
/* out->orcpt is then the text in orcpt; what came in UTF-8 (RFC 6533) is there in its ASCII form.
 */
enum command_error command_parse_rcpt(const char *args, size_t len, const struct command_opts *opts,
                                      struct envelope_recipient *out,
                                      char orcpt[ENVELOPE_ORCPT_MAX + 1], enum address_error *why);
struct command_bdat {  /* BDAT size [LAST], RFC 3030 section 2 */
	uint64_t size; /* beyond 64 bits: UINT64_MAX */
	bool last;
};
/* False when the size cannot be read: nobody knows what follows the line. After COMMAND_SYNTAX in
 * *error it is content all the same. */
bool command_parse_bdat(const char *args, size_t len, struct command_bdat *out,
                        enum command_error *error);
/* Whether what follows this line, which could not be read as a command, may be a chunk. */
bool command_is_bdat(const char *line, size_t len);
/* EHLO/HELO argument. It should be a domain or an address literal, and is what people have called
 * their computer: whatever is not printable ASCII, blanks included, becomes "?". False without one,
 * or above ADDRESS_DOMAIN_MAX octets. */
bool command_parse_ehlo(const char *args, size_t len, char out[ADDRESS_DOMAIN_MAX + 1]);

/* Strict base64 (RFC 4648, padding required, no white space). Returns the decoded length or -1. out
 * has room for len. */
int command_base64_decode(const char *text, size_t len, uint8_t *out);
/* NUL-terminated; out has room for base64_size(len). */
#define COMMAND_BASE64_SIZE(len) (((len) + 2) / 3 * 4 + 1)
void command_base64_encode(const uint8_t *data, size_t len, char *out);

#endif
