#include "smtp/header.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/text.h"

/* Problem: RFC 6409 section 8 lets a submission server add Date, Message-ID and Sender-side trace,
 * and nothing is safe to promise about a sender whose From we misread. Stored content is never
 * rewritten, so a field that must not leave has to go while it streams in. Idea: one pass, octet by
 * octet, over the header section alone. Of all fields only the bodies of From, Sender and
 * TLS-Required are kept (unfolded), of the others only that they were there.
 *
 * What does not leave, and why:
 *   - Bcc, Resent-Bcc: whom a mail went to in secret is in the envelope; a program that leaves the
 *     field in would tell every recipient (RFC 5322 section 3.6.3 has three ways of using Bcc, and
 *     the one in which only the blind see it takes a transaction of its own, in which they know).
 *     Never part of a signature by intent (RFC 4871 section 5.5). An operator may keep it.
 *   - Return-Path: the last server's to write; originators must not (RFC 5321 section 4.4).
 *   - Date and Message-ID without a value: we add one that has, and the field may stand once.
 *   - "From alice Wed Nov 25 10:00:00 2026" as the first line, where a field follows: a file of
 *     mails or of patches was sent as it is. Where none follows it is the beginning of a text.
 * Everything else leaves as it came.
 *
 * An octet's fate is known or OPEN: the name of a field until its colon, and the white space
 * behind "Date:" until something else follows or does not. What is open is held back, and either
 * goes on or goes away as a whole, so any slicing of the input gives the same output.
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
	MBOX,     /* in a first line "From something" */
	BODY,     /* in a field's body, continuation lines included */
	JUNK,     /* in a line that is no field */
	DONE,
};

enum fate { KEEP, DROP, OPEN };

enum field {
	FIELD_OTHER,
	FIELD_FROM,
	FIELD_SENDER,
	FIELD_DATE,
	FIELD_MESSAGE_ID,
	FIELD_RECEIVED,
	FIELD_RETURN_PATH,
	FIELD_BCC,
	FIELD_RESENT_BCC,
	FIELD_TLS_REQUIRED,
	FIELDS
};
static const char *const field_names[FIELDS] = {
    [FIELD_FROM] = "From",
    [FIELD_SENDER] = "Sender",
    [FIELD_DATE] = "Date",
    [FIELD_MESSAGE_ID] = "Message-ID",
    [FIELD_RECEIVED] = "Received",
    [FIELD_RETURN_PATH] = "Return-Path",
    [FIELD_BCC] = "Bcc",
    [FIELD_RESENT_BCC] = "Resent-Bcc",
    [FIELD_TLS_REQUIRED] = "TLS-Required",
};

struct text { /* in the arena */
	char *octets;
	size_t len, size;
};

struct header {
	struct arena *arena;
	struct header_opts opts;
	enum state state;
	enum header_error error;
	size_t size;
	unsigned received;
	bool first;   /* no field yet, and no line but one of an mbox */
	size_t mbox;  /* octets of that line, at the beginning of what is held; 0 */
	bool missing; /* no section at all */
	bool seen[FIELDS];
	bool is_8bit;     /* an octet over 127 anywhere in what leaves of the section */
	bool utf8_author; /* in a mailbox of From or Sender */
	char name[NAME_KEPT];
	size_t name_len;
	enum field field;  /* from the end of its name */
	bool in_field;     /* the last line was part of a field */
	enum fate fate;    /* of the octet that was just looked at */
	struct text held;  /* what is OPEN */
	struct text *keep; /* where the field's body goes as well, or NULL */
	struct text from, sender, tls_required, message_id;
	struct address *authors;
	size_t author_count, from_count;
};

struct header *
header_new(struct arena *arena, const struct header_opts *opts)
{
	struct header *header = arena_alloc(arena, sizeof *header);

	header->arena = arena;
	header->opts = *opts;
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
read_authors(struct header *header, enum field field, const struct text *body)
{
	struct address address;
	size_t at = 0, before = header->author_count;
	int more;

	if (!header->seen[field])
		return;
	while ((more = address_list_next(body->octets ? body->octets : "", body->len, &at, &address,
	                                 &header->utf8_author)) == 1) {
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
	read_authors(header, FIELD_FROM, &header->from);
	header->from_count = header->author_count;
	if (!header->error)
		read_authors(header, FIELD_SENDER, &header->sender);
}

static void
add_octet(struct header *header, struct text *text, char c)
{
	if (text->len == text->size) {
		size_t size = text->size ? text->size * 2 : 256;
		char *grown = arena_alloc(header->arena, size);
		if (text->len)
			memcpy(grown, text->octets, text->len);
		text->octets = grown;
		text->size = size;
	}
	text->octets[text->len++] = c;
}

static enum field
field_of(const struct header *header)
{
	for (enum field field = FIELD_OTHER + 1; field < FIELDS; field++)
		if (header->name_len == strlen(field_names[field]) &&
		    !strncasecmp(header->name, field_names[field], header->name_len))
			return field;
	return FIELD_OTHER;
}

static enum fate
fate_of(const struct header *header, enum field field)
{
	switch (field) {
	case FIELD_BCC:
	case FIELD_RESENT_BCC:
		return header->opts.remove_bcc ? DROP : KEEP;
	case FIELD_RETURN_PATH:
		return DROP;
	case FIELD_DATE:
	case FIELD_MESSAGE_ID:
		return OPEN; /* until it has a value */
	default:
		return KEEP;
	}
}

/* Behind the last character of a name. Nobody holds back white space that will leave anyway. */
static void
end_name(struct header *header)
{
	header->field = field_of(header);
	if (fate_of(header, header->field) == KEEP && !header->first)
		header->fate = KEEP;
}

/* At the colon. */
static void
begin_body(struct header *header)
{
	enum field field = header->field;

	if (header->mbox > 0) {
		header->held.len -= header->mbox;
		memmove(header->held.octets, header->held.octets + header->mbox, header->held.len);
		header->mbox = 0;
	}
	header->state = BODY;
	header->first = false;
	header->in_field = true;
	header->fate = fate_of(header, field);
	if (field == FIELD_FROM)
		header->keep = &header->from;
	else if (field == FIELD_SENDER)
		header->keep = &header->sender;
	else if (field == FIELD_TLS_REQUIRED)
		header->keep = &header->tls_required; /* said twice it is said badly: "No No" */
	else if (field == FIELD_MESSAGE_ID && !header->seen[field])
		header->keep = &header->message_id;
	else if (field == FIELD_RECEIVED && ++header->received > header->opts.received_max)
		fail(header, HEADER_LOOP);
	if ((field == FIELD_FROM || field == FIELD_SENDER) && header->seen[field])
		fail(header, HEADER_BAD_FROM);
	if (header->fate == KEEP)
		header->seen[field] = true;
}

/* "From alice Wed Nov 25 10:00:00 2026": what is held, but for its line end. */
static bool
is_mbox_line(const struct text *held)
{
	const char *end = held->octets + held->len;

	while (end > held->octets && end[-1] == '\r')
		end--;
	if (end - held->octets < 5 || end[-5] != ' ' ||
	    !memchr(held->octets, ':', (size_t)(end - held->octets)))
		return false;
	for (int i = 1; i <= 4; i++)
		if (end[-i] < '0' || end[-i] > '9')
			return false;
	return true;
}

/* This line is no field. If it is the first, there is no section. */
static void
not_a_field(struct header *header, char c)
{
	if (header->first && header->mbox == 0 && header->state == NAME_GAP &&
	    header->field == FIELD_FROM && c != '\n') {
		header->state = MBOX;
		return;
	}
	header->in_field = false;
	header->fate = KEEP;
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

	switch (header->state) {
	case LINE:
		if (blank && header->in_field) {
			header->state = BODY;
			if (header->keep)
				add_octet(header, header->keep, c);
			break;
		}
		if (header->mbox == 0)
			header->held.len = 0; /* a field that ended without a value */
		header->keep = NULL;
		header->name_len = 0;
		header->state = NAME;
		header->fate = OPEN;
		/* fall through */
	case NAME:
		if (c == '\r') /* content has CRLF only, so the LF tells it all */
			break;
		if (c == '\n' && header->name_len == 0) {
			header->fate = KEEP;
			header->missing = header->mbox > 0;
			finish(header);
		} else if (c <= 32 || c > 126 || c == ':') {
			end_name(header);
			if (c == ':' && header->name_len)
				begin_body(header);
			else if (blank && header->name_len)
				header->state = NAME_GAP;
			else
				not_a_field(header, c);
		} else if (header->name_len++ < NAME_KEPT) {
			header->name[header->name_len - 1] = c;
		} else if (!header->first) {
			header->fate = KEEP;
		}
		break;
	case NAME_GAP:
		if (c == ':')
			begin_body(header);
		else if (!blank && c != '\r')
			not_a_field(header, c);
		break;
	case BODY:
		if (c == '\n') {
			header->state = LINE;
			break;
		}
		if (c == '\r')
			break;
		if (header->fate == OPEN && !blank) {
			header->fate = KEEP;
			header->seen[header->field] = true;
		}
		if (header->keep)
			add_octet(header, header->keep, c);
		break;
	case MBOX:
		if (c != '\n')
			break;
		header->mbox = header->held.len + 1;
		if (is_mbox_line(&header->held))
			header->state = LINE;
		else
			not_a_field(header, c);
		break;
	case JUNK:
		if (c == '\n')
			header->state = LINE;
		break;
	case DONE:
		break;
	}
}

static void
hand_on(const void *octets, size_t len, data_sink *sink, void *arg)
{
	if (len > 0)
		sink(arg, octets, len);
}

/* How many of the next octets, all in one line, change nothing but the size. */
static size_t
count_plain(const struct header *header, const uint8_t *data, size_t len)
{
	const uint8_t *lf;

	if (header->keep || header->fate == OPEN ||
	    (header->state != BODY && header->state != JUNK))
		return 0;
	lf = memchr(data, '\n', len);
	return lf ? (size_t)(lf - data) : len;
}

void
header_feed(struct header *header, const uint8_t *data, size_t len, data_sink *sink, void *arg)
{
	const uint8_t *p = data, *end = data + len, *run = data; /* to be handed on as it is */
	size_t n;

	for (; p < end && header->state != DONE; p += n) {
		const size_t plain = count_plain(header, p, (size_t)(end - p));
		n = plain ? plain : 1;
		header->size += n;
		if (header->size > header->opts.size_max) {
			fail(header, HEADER_TOO_BIG);
			break;
		}
		if (!plain)
			octet(header, (char)*p);
		if (header->fate == KEEP) {
			header->is_8bit = header->is_8bit || !text_is_7bit(p, n);
			if (header->held.len > 0) {
				header->is_8bit =
				    header->is_8bit ||
				    !text_is_7bit(header->held.octets, header->held.len);
				hand_on(header->held.octets, header->held.len, sink, arg);
				header->held.len = 0;
			}
			continue;
		}
		hand_on(run, (size_t)(p - run), sink, arg);
		run = p + n;
		if (header->fate == OPEN)
			add_octet(header, &header->held, (char)*p);
		else
			header->held.len = 0;
	}
	hand_on(run, (size_t)(end - run), sink, arg);
}

void
header_end(struct header *header, data_sink *sink, void *arg)
{
	if (header->state == DONE)
		return;
	if (header->first || header->state == NAME || header->state == NAME_GAP)
		hand_on(header->held.octets, header->held.len, sink, arg);
	/* Nothing came, or nothing that a field could be told from. */
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
	return header->seen[FIELD_DATE];
}

bool
header_has_message_id(const struct header *header)
{
	return header->seen[FIELD_MESSAGE_ID];
}

char *
header_message_id(const struct header *header, char *out, size_t size)
{
	const char *p = header->message_id.octets, *end, *open;

	out[0] = '\0';
	if (!p)
		return out;
	end = p + header->message_id.len;
	if ((open = memchr(p, '<', (size_t)(end - p))) != NULL) {
		const char *close = memchr(open, '>', (size_t)(end - open));

		p = open + 1;
		end = close ? close : end;
	}
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (text_is_printable(p, (size_t)(end - p)))
		snprintf(out, size, "%.*s", (int)(end - p), p);
	if (!text_is_printable(out, strlen(out)))
		out[0] = '\0'; /* cut within a character */
	return out;
}

bool
header_has_from(const struct header *header)
{
	return header->seen[FIELD_FROM];
}

bool
header_needs_sender(const struct header *header)
{
	return header->from_count > 1 && !header->seen[FIELD_SENDER];
}

bool
header_is_tls_optional(const struct header *header)
{
	const char *p = header->tls_required.octets, *end;

	if (!p)
		return false;
	end = p + header->tls_required.len;
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	return end - p == 2 && !strncasecmp(p, "No", 2);
}

bool
header_is_missing(const struct header *header)
{
	return header->missing;
}

bool
header_is_8bit(const struct header *header)
{
	return header->is_8bit && !header->missing;
}

bool
header_has_utf8_author(const struct header *header)
{
	return header->utf8_author;
}

const struct address *
header_authors(const struct header *header, size_t *count)
{
	*count = header->author_count;
	return header->authors;
}

/* What the client called itself may hold anything printable. Only what cannot be a part of a domain
 * or of one whole address literal would change what the field means, so that goes. */
static void
add_ehlo(struct buf *out, const char *ehlo)
{
	size_t len = strlen(ehlo);
	bool literal = len > 2 && ehlo[0] == '[' && strcspn(ehlo, "]") == len - 1;

	for (size_t i = 0; i < len; i++) {
		char c = ehlo[i];
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		             (c >= '0' && c <= '9') || strchr(".-_", c) ||
		             (literal && (c == ':' || i == 0 || i == len - 1));
		buf_add_char(out, plain ? c : '?');
	}
}

void
header_compose_prefix(const struct header_prefix *prefix, struct buf *out)
{
	buf_add_str(out, "Received: from ");
	if (prefix->client_ip) {
		add_ehlo(out, prefix->ehlo);
		buf_printf(out, "\r\n\t([%s%s])", strchr(prefix->client_ip, ':') ? "IPv6:" : "",
		           prefix->client_ip);
	} else { /* a name that nobody has (RFC 6761 section 6.4) */
		buf_add_str(out, "client.invalid\r\n\t(address withheld)");
	}
	buf_printf(out, "\r\n\tby %s with %s", prefix->hostname, prefix->protocol);
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
	if (prefix->sender)
		buf_printf(out, "Sender: %s\r\n", prefix->sender);
	if (prefix->end_section)
		buf_add_str(out, "\r\n");
}
