/* The content of a message: where it ends, what of it is kept, and how it is sent on.
 *
 * In: CRLF.CRLF alone ends data (RFC 5321 section 4.1.1.4); a line of one dot with a bare LF or CR
 * next to it is content. Leading dots are un-stuffed; in chunks (RFC 3030) a dot is a dot. Bare CR
 * and bare LF become CRLF (CRCRLF as well), so that the next server cannot see another end than we
 * did (SMTP smuggling), and lines of more than DATA_LINE_MAX octets are folded; whether such
 * content is refused instead the caller decides at the end, as with NUL. What is well-formed is
 * kept to the octet. Out: strict CRLF and dot-stuffing. Both are resumable at any octet. */
#ifndef SMTP_DATA_H
#define SMTP_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes decoded content; borrowed for the call. */
typedef void data_sink(void *arg, const uint8_t *data, size_t len);

#define DATA_LINE_MAX 998 /* octets of a line without its CRLF, RFC 5321 section 4.5.3.1.6 */

enum data_kind {
	DATA_DOTTED,  /* by DATA */
	DATA_CHUNKED, /* by BDAT: its end is known otherwise */
	DATA_BINARY,  /* BINARYMIME: as DATA_CHUNKED up to the first empty line, the header section;
	                 what follows may hold anything and is kept as it is */
};
struct data_in {
	uint64_t size;       /* octets handed on so far */
	bool has_nul;        /* refuse with 554 5.6.0 at the end */
	bool has_8bit;       /* an octet above 127 was seen */
	bool has_bare;       /* a CR or LF stood alone */
	bool has_long;       /* a line was folded */
	bool has_unfoldable; /* and that broke the header section: refuse */
	/* private */
	enum data_kind kind;
	unsigned state;
	bool in_header; /* no empty line yet */
	bool is_folded; /* the line under way is the rest of one */
	size_t line_len;
	uint8_t line[DATA_LINE_MAX]; /* the line under way */
};
void data_in_init(struct data_in *in, enum data_kind kind);
/* Feeds octets; *used tells how many belong to this data phase (the rest is the next command; of
 * chunks all belong). True when the end was reached. */
bool data_in_feed(struct data_in *in, const uint8_t *data, size_t len, size_t *used,
                  data_sink *sink, void *arg);
/* The last chunk has been fed: ends the last line. */
void data_in_end(struct data_in *in, data_sink *sink, void *arg);

struct data_out {
	unsigned state; /* private */
};
void data_out_init(struct data_out *out);
void data_out_feed(struct data_out *out, const uint8_t *data, size_t len, data_sink *sink,
                   void *arg);
/* Ends the message: a missing CRLF, then the final dot. */
void data_out_end(struct data_out *out, data_sink *sink, void *arg);

#endif
