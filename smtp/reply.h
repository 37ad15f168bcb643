/* SMTP replies as a client reads them (RFC 5321 section 4.2), enhanced status codes (RFC 3463)
 * included. Pure. */
#ifndef SMTP_REPLY_H
#define SMTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPLY_TEXT_MAX  512 /* what is kept of the text, all lines joined by a space */
#define REPLY_LINE_MAX  2048
#define REPLY_LINES_MAX 128

struct reply {
	int code;                  /* 200 to 599 */
	char enhanced[12];         /* "5.1.1" as sent, or "" */
	char text[REPLY_TEXT_MAX]; /* printable, enhanced code removed */
};

/* Parses the first whole reply in data. Returns the octets it took, 0 when it is not complete yet,
 * -1 when this is no SMTP reply or it is over a bound. on_line (may be NULL) sees the text of each
 * line, for EHLO keywords. */
typedef void reply_on_line(void *arg, const char *text, size_t len);
long reply_parse(const uint8_t *data, size_t len, struct reply *out, reply_on_line *on_line,
                 void *arg);

#endif
