/* The data phase: where it ends, what it holds, and how it is sent on.
 *
 * In: CRLF.CRLF alone ends data (RFC 5321 section 4.1.1.4); a line of one dot with a bare LF or CR
 * next to it is content. Leading dots are un-stuffed. Bare CR and bare LF become CRLF, so that the
 * next server cannot see another end than we did (SMTP smuggling); NUL is refused. Out: strict CRLF
 * and dot-stuffing. Both are resumable at any octet. */
#ifndef SMTP_DATA_H
#define SMTP_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes decoded content; borrowed for the call. */
typedef void data_sink(void *arg, const uint8_t *data, size_t len);

struct data_in {
	unsigned state; /* private */
	uint64_t size;  /* decoded octets so far */
	bool has_nul;   /* a NUL was seen: refuse with 554 5.6.0 at the end */
	bool has_8bit;  /* an octet above 127 was seen */
};
void data_in_init(struct data_in *in);
/* Feeds octets; *used tells how many belong to this data phase (the rest is the next command). True
 * when the end was reached. */
bool data_in_feed(struct data_in *in, const uint8_t *data, size_t len, size_t *used,
                  data_sink *sink, void *arg);

struct data_out {
	unsigned state; /* private */
};
void data_out_init(struct data_out *out);
void data_out_feed(struct data_out *out, const uint8_t *data, size_t len, data_sink *sink,
                   void *arg);
/* Ends the message: a missing CRLF, then the final dot. */
void data_out_end(struct data_out *out, data_sink *sink, void *arg);

#endif
