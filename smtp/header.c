#include "smtp/header.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Problem: RFC 6409 section 8 lets a submission server add Date, Message-ID and Sender-side trace,
 * and nothing is safe to promise about a sender whose From we misread. Idea: one pass, octet by
 * octet, over the header section alone. Of all fields only the bodies of From and Sender are kept
 * (unfolded), of the others only that they were there.
 *
 * A line in the middle that is no field is passed over and the scan goes on to the empty line: a
 * reader who is as generous finds no From there that we did not see. Bounds: the section's size,
 * the number of Received fields, HEADER_AUTHORS_MAX mailboxes. The first error sticks. */

#define HEADER_AUTHORS_MAX 128
#define NAME_KEPT          16 /* longer than each name we know */

enum state {
	LINE,     /* at the start of a line */
	NAME,     /* in a field's name */
	NAME_GAP, /* white space between name and colon, obsolete but seen */
	BODY,     /* in a field's body, continuation lines included */
	JUNK,     /* in a line that is no field */
	DONE,
};

struct body { /* of From or Sender, unfolded */
	char *text;
	size_t len, size;
	bool seen;
};

struct header {
	struct arena *arena;
	enum state state;
	enum header_error error;
	size_t size, size_max;
	unsigned received, received_max;
	bool first;   /* still in the first line */
	bool missing; /* no section at all */
	bool date, message_id;
	char name[NAME_KEPT];
	size_t name_len;
	bool in_field;     /* the last line was part of a field */
	struct body *keep; /* where the field's body goes, or NULL */
	struct body from, sender;
	struct address *authors;
	size_t author_count;
};

struct header *
header_new(struct arena *arena, size_t size_max, unsigned received_max)
{
	struct header *header = arena_alloc(arena, sizeof *header);

	header->arena = arena;
	header->size_max = size_max;
	header->received_max = received_max;
	header->first = true;
	return header;
}

static void
fail(struct header *header, enum header_error error)
{
	if (!header->error)
		header->error = error;
	header->state = DONE;
}

static void
read_authors(struct header *header, const struct body *body)
{
	struct address address;
	size_t at = 0, before = header->author_count;
	int more;

	if (!body->seen)
		return;
	while ((more = address_list_next(body->text ? body->text : "", body->len, &at, &address)) ==
	       1) {
		if (header->author_count == HEADER_AUTHORS_MAX) {
			fail(header, HEADER_BAD_FROM);
			return;
		}
		if (header->author_count % 8 == 0) {
			struct address *grown =
			    arena_alloc(header->arena, (header->author_count + 8) * sizeof *grown);
			if (header->author_count)
				memcpy(grown, header->authors,
				       header->author_count * sizeof *grown);
			header->authors = grown;
		}
		header->authors[header->author_count++] = address;
	}
	if (more < 0 || header->author_count == before)
		fail(header, HEADER_BAD_FROM);
}

static void
finish(struct header *header)
{
	header->state = DONE;
	read_authors(header, &header->from);
	if (!header->error)
		read_authors(header, &header->sender);
}

static bool
name_is(const struct header *header, const char *name)
{
	return header->name_len == strlen(name) &&
	       !strncasecmp(header->name, name, header->name_len);
}

/* At the colon. */
static void
begin_body(struct header *header)
{
	header->state = BODY;
	header->first = false;
	header->in_field = true;
	header->keep = NULL;
	if (name_is(header, "From"))
		header->keep = &header->from;
	else if (name_is(header, "Sender"))
		header->keep = &header->sender;
	else if (name_is(header, "Date"))
		header->date = true;
	else if (name_is(header, "Message-ID"))
		header->message_id = true;
	else if (name_is(header, "Received") && ++header->received > header->received_max)
		fail(header, HEADER_LOOP);
	if (header->keep) {
		if (header->keep->seen)
			fail(header, HEADER_BAD_FROM);
		header->keep->seen = true;
	}
}

static void
keep_octet(struct header *header, char c)
{
	struct body *body = header->keep;

	if (body->len == body->size) {
		size_t size = body->size ? body->size * 2 : 256;
		char *grown = arena_alloc(header->arena, size);
		if (body->len)
			memcpy(grown, body->text, body->len);
		body->text = grown;
		body->size = size;
	}
	body->text[body->len++] = c;
}

/* This line is no field. If it is the first, there is no section. */
static void
not_a_field(struct header *header, char c)
{
	header->in_field = false;
	header->keep = NULL;
	if (header->first) {
		header->missing = true;
		header->state = DONE;
	} else {
		header->state = c == '\n' ? LINE : JUNK;
	}
}

static void
octet(struct header *header, char c)
{
	bool blank = c == ' ' || c == '\t';

	if (c == '\r') /* content has CRLF only, so the LF tells it all */
		return;
	switch (header->state) {
	case LINE:
		if (c == '\n') {
			finish(header);
			break;
		}
		if (blank && header->in_field) {
			header->state = BODY;
			if (header->keep)
				keep_octet(header, c);
			break;
		}
		header->name_len = 0;
		header->state = NAME;
		/* fall through */
	case NAME:
		if (c == ':' && header->name_len)
			begin_body(header);
		else if (blank && header->name_len)
			header->state = NAME_GAP;
		else if (c <= 32 || c > 126 || c == ':')
			not_a_field(header, c);
		else if (header->name_len++ < NAME_KEPT)
			header->name[header->name_len - 1] = c;
		break;
	case NAME_GAP:
		if (c == ':')
			begin_body(header);
		else if (!blank)
			not_a_field(header, c);
		break;
	case BODY:
		if (c == '\n')
			header->state = LINE;
		else if (header->keep)
			keep_octet(header, c);
		break;
	case JUNK:
		if (c == '\n')
			header->state = LINE;
		break;
	case DONE:
		break;
	}
}

bool
header_feed(struct header *header, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len && header->state != DONE; i++) {
		if (header->size++ == header->size_max) {
			fail(header, HEADER_TOO_BIG);
			break;
		}
		octet(header, (char)data[i]);
	}
	return header->state != DONE;
}

void
header_end(struct header *header)
{
	if (header->state == DONE)
		return;
	/* Still in the first line without a colon, or nothing came at all. */
	if (header->first) {
		header->missing = true;
		header->state = DONE;
		return;
	}
	finish(header);
}

enum header_error
header_error(const struct header *header)
{
	return header->error;
}

bool
header_has_date(const struct header *header)
{
	return header->date;
}

bool
header_has_message_id(const struct header *header)
{
	return header->message_id;
}

bool
header_has_from(const struct header *header)
{
	return header->from.seen;
}

bool
header_is_missing(const struct header *header)
{
	return header->missing;
}

const struct address *
header_authors(const struct header *header, size_t *count)
{
	*count = header->author_count;
	return header->authors;
}

/* What the client called itself may hold anything printable; parentheses or a semicolon would
 * change what the field means. */
static void
add_ehlo(struct buf *out, const char *ehlo)
{
	for (; *ehlo; ehlo++) {
		bool plain = (*ehlo >= 'a' && *ehlo <= 'z') || (*ehlo >= 'A' && *ehlo <= 'Z') ||
		             (*ehlo >= '0' && *ehlo <= '9') || strchr(".-_:[]", *ehlo);
		buf_add_char(out, plain ? *ehlo : '?');
	}
}

void
header_compose_prefix(const struct header_prefix *prefix, struct buf *out)
{
	buf_add_str(out, "Received: from ");
	add_ehlo(out, prefix->ehlo);
	buf_printf(out, "\r\n\t([%s%s])\r\n\tby %s with %s",
	           strchr(prefix->client_ip, ':') ? "IPv6:" : "", prefix->client_ip,
	           prefix->hostname, prefix->protocol);
	if (prefix->tls_version && prefix->tls_version[0])
		buf_printf(out, "\r\n\t(%s %s)", prefix->tls_version,
		           prefix->tls_cipher ? prefix->tls_cipher : "");
	buf_printf(out, "\r\n\tid %s;\r\n\t%s\r\n", prefix->id, prefix->date);
	if (prefix->add_date)
		buf_printf(out, "Date: %s\r\n", prefix->date);
	if (prefix->add_message_id)
		buf_printf(out, "Message-ID: <%s@%s>\r\n", prefix->id, prefix->hostname);
	if (prefix->from)
		buf_printf(out, "From: %s\r\n", prefix->from);
	if (prefix->end_section)
		buf_add_str(out, "\r\n");
}
