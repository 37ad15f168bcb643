/* The header section of a submitted message: the fields that RFC 6409 section 8 makes ours, and
 * nothing else.
 *
 * The scanner is fed decoded content as it comes and hands it on octet for octet, but for the
 * fields that must not leave: Bcc and Resent-Bcc, Return-Path, and a Date or Message-ID without a
 * value. A message whose first line is no header field has an empty header section (RFC 5322 lets
 * us say so; we add the fields it lacks and an empty line). */
#ifndef SMTP_HEADER_H
#define SMTP_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "smtp/address.h"
#include "smtp/data.h"

enum header_error {
	HEADER_OK,
	HEADER_TOO_BIG,  /* over the section's limit: 552 5.3.4 */
	HEADER_LOOP,     /* too many Received fields: 554 5.4.6 */
	HEADER_BAD_FROM, /* From or Sender is no mailbox list, or stands twice: 554 5.6.0 */
};

struct header;
struct header_opts {
	size_t size_max;       /* octets of the section */
	unsigned received_max; /* Received fields */
	bool remove_bcc;       /* Bcc and Resent-Bcc do not leave */
};
/* Allocates from the arena of the transaction. */
struct header *header_new(struct arena *arena, const struct header_opts *opts);
/* Feeds content, body included; sink gets what is kept of it. What is not decided yet is held back,
 * never more than the section may have. */
void header_feed(struct header *header, const uint8_t *data, size_t len, data_sink *sink,
                 void *arg);
/* The message ended: closes an unfinished section. */
void header_end(struct header *header, data_sink *sink, void *arg);

/* After the end. */
enum header_error header_error(const struct header *header);
bool header_has_date(const struct header *header);
bool header_has_message_id(const struct header *header);
/* The first Message-ID, without its angle brackets, cut to the room in out; "" when there is none
 * or it is not printable. Returns out. */
char *header_message_id(const struct header *header, char *out, size_t size);
bool header_has_from(const struct header *header);
/* From has several mailboxes and there is no Sender: RFC 5322 section 3.6.2 demands one. */
bool header_needs_sender(const struct header *header);
/* "TLS-Required: No", RFC 8689 section 5. */
bool header_is_tls_optional(const struct header *header);
/* True when the message had no header section at all: the prefix must then end with an empty line.
 */
bool header_is_missing(const struct header *header);
/* An octet over 127 stands in what leaves of the section; and: in one of the mailboxes that
 * header_authors has, as it is written there. */
bool header_is_8bit(const struct header *header);
bool header_has_utf8_author(const struct header *header);
/* Every mailbox of From, then of Sender; count in *count. Borrowed from the arena. */
const struct address *header_authors(const struct header *header, size_t *count);

struct header_prefix { /* what goes before the message; all text is UTF-8 or ASCII already checked
	                */
	const char *ehlo;      /* what the client said */
	const char *client_ip; /* "192.0.2.1" or "2001:db8::1"; NULL: Received tells neither it nor
	                          ehlo, which often is an address, too */
	const char *hostname;  /* ours */
	const char *protocol;  /* "ESMTPSA" */
	const char *tls_version; /* "TLSv1.3" */
	const char *tls_cipher;
	const char *id;     /* queue id, also the left side of an added Message-ID */
	const char *date;   /* RFC 5322 date, for Received and an added Date */
	const char *from;   /* when From is to be added, else NULL */
	const char *sender; /* likewise Sender */
	bool add_date, add_message_id, end_section;
};
/* Appends Received and the missing fields, folded below 78 columns where it can be, CRLF lines. */
void header_compose_prefix(const struct header_prefix *prefix, struct buf *out);

#endif
