#include "smtp/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/text.h"
#include "smtp/idna.h"

/* Problem: one mailbox has many spellings, and everything behind us (sender check, quota, route)
 * compares. Idea: parse once, keep the one canonical spelling: quotes only where the content needs
 * them, domain in lower case.
 *
 * The envelope (RFC 5321) is read strictly: no comments, no white space, a domain with a dot or an
 * address literal. Header fields (RFC 5322) are read generously, obsolete forms included, because
 * refusing real mail for a comment helps nobody; but each mailbox that another reader could see
 * there is reported, and what cannot be read is an error, never skipped.
 *
 * A local part in UTF-8 stays as it is, not even normalized: its meaning is its domain's alone (RFC
 * 5321 section 2.3.11). A domain has one spelling, its A-labels, which every server understands: a
 * mail that has U-labels in its domains and nothing else needs no SMTPUTF8 further on.
 *
 * Invariants: a local part is at most ADDRESS_LOCAL_MAX octets of printable text as it is written
 * canonically, which is how it leaves us; a domain is ASCII; no control and no angle bracket
 * outside quotes ever gets into a struct address. */

struct cursor {
	const char *p, *end;
};
struct content { /* a local part with its quotes taken off */
	char text[ADDRESS_LOCAL_MAX];
	size_t len;
	bool too_long;
};

static bool
is_alnum(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool
is_atext(unsigned char c)
{
	return is_alnum(c) || (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

static bool
is_space(unsigned char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* In a label, A or U, hyphens aside. */
static bool
is_label(char c)
{
	return is_alnum((unsigned char)c) || (unsigned char)c > 127;
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool
at_char(const struct cursor *c, char want)
{
	return c->p < c->end && *c->p == want;
}

static void
content_add(struct content *content, char ch)
{
	if (content->len == sizeof content->text)
		content->too_long = true;
	else
		content->text[content->len++] = ch;
}

/* The character outside ASCII at the cursor, which moves behind it. */
static enum address_error
parse_utf8(struct cursor *c, bool utf8, struct content *content)
{
	size_t n = text_char(c->p, (size_t)(c->end - c->p));

	if (!utf8)
		return ADDRESS_NON_ASCII;
	if (!n)
		return ADDRESS_SYNTAX;
	while (n--)
		content_add(content, *c->p++);
	return ADDRESS_OK;
}

/* At the opening quote; leaves the cursor behind the closing one. With a phrase's quoted string
 * content is NULL and 8-bit is let by. */
static enum address_error
parse_quoted(struct cursor *c, bool utf8, struct content *content)
{
	for (c->p++; c->p < c->end;) {
		enum address_error error;
		unsigned char ch = (unsigned char)*c->p;
		if (ch == '"') {
			c->p++;
			return ADDRESS_OK;
		}
		if (ch == '\\') {
			if (++c->p == c->end)
				break;
			ch = (unsigned char)*c->p;
		}
		if (!content) {
			if (!ch)
				return ADDRESS_SYNTAX;
			c->p++;
			continue;
		}
		if (ch > 127) {
			if ((error = parse_utf8(c, utf8, content)))
				return error;
			continue;
		}
		if (ch < 32 || ch == 127)
			return ADDRESS_SYNTAX;
		content_add(content, (char)ch);
		c->p++;
	}
	return ADDRESS_SYNTAX;
}

static bool
is_dot_string(const struct content *content)
{
	bool dot = true;
	for (size_t i = 0; i < content->len; i++) {
		char ch = content->text[i];
		if (ch == '.' ? dot : !is_atext((unsigned char)ch) && (unsigned char)ch < 128)
			return false;
		dot = ch == '.';
	}
	return !dot;
}

static void
put_local(const struct content *content, struct address *out)
{
	char *p = out->local;
	bool bare = is_dot_string(content);
	if (!bare)
		*p++ = '"';
	for (size_t i = 0; i < content->len; i++) {
		if (content->text[i] == '"' || content->text[i] == '\\')
			*p++ = '\\';
		*p++ = content->text[i];
	}
	if (!bare)
		*p++ = '"';
	*p = 0;
	assert(p < out->local + sizeof out->local);
}

/* At the opening bracket of an address literal (RFC 5321 section 4.1.3). Of the tags only "IPv6" is
 * registered. A leading zero in an IPv4 address is refused, since to some readers it means octal;
 * IPv6 addresses have many spellings and get the usual one (RFC 5952). */
static enum address_error
parse_literal(struct cursor *c, char *domain)
{
	const char *close = memchr(c->p, ']', (size_t)(c->end - c->p));
	char text[64];
	size_t len;
	unsigned char binary[16];

	if (!close)
		return ADDRESS_SYNTAX;
	len = (size_t)(close - c->p) - 1;
	if (len >= sizeof text - 1)
		return ADDRESS_SYNTAX;
	memcpy(text, c->p + 1, len);
	text[len] = 0;
	if (strlen(text) != len)
		return ADDRESS_SYNTAX;
	for (size_t i = 0; i < len; i++)
		text[i] = lower(text[i]);
	if (!strncmp(text, "ipv6:", 5)) {
		char usual[INET6_ADDRSTRLEN];
		if (inet_pton(AF_INET6, text + 5, binary) != 1)
			return ADDRESS_SYNTAX;
		inet_ntop(AF_INET6, binary, usual, sizeof usual);
		snprintf(domain, ADDRESS_DOMAIN_MAX + 1, "[IPv6:%s]", usual);
	} else {
		if (inet_pton(AF_INET, text, binary) != 1)
			return ADDRESS_SYNTAX;
		snprintf(domain, ADDRESS_DOMAIN_MAX + 1, "[%s]", text);
	}
	c->p = close + 1;
	return ADDRESS_OK;
}

/* Labels of letters, digits and inner hyphens. The last one is no number (RFC 1123 section 2.1):
 * what looks like an IP address without brackets would be taken for one further on. domain may be
 * NULL. */
static enum address_error
parse_name(struct cursor *c, char *domain, bool *dotted)
{
	size_t len = 0, label = 0, digits = 0;

	*dotted = false;
	for (; c->p < c->end; c->p++) {
		unsigned char ch = (unsigned char)*c->p;
		if (ch > 127)
			return ADDRESS_NON_ASCII;
		if (ch == '.') {
			if (!label || c->p[-1] == '-')
				return ADDRESS_SYNTAX;
			*dotted = true;
			label = digits = 0;
		} else if (is_alnum(ch) || (ch == '-' && label)) {
			if (++label > 63)
				return ADDRESS_TOO_LONG;
			digits += ch >= '0' && ch <= '9';
		} else {
			break;
		}
		if (len == ADDRESS_DOMAIN_MAX)
			return ADDRESS_TOO_LONG;
		if (domain)
			domain[len] = lower((char)ch);
		len++;
	}
	if (!label || c->p[-1] == '-' || digits == label)
		return ADDRESS_SYNTAX;
	if (domain)
		domain[len] = 0;
	return ADDRESS_OK;
}

/* A name that has U-labels: becomes A-labels, which are then read as any name. */
static enum address_error
parse_u_labels(struct cursor *c, char *domain, bool *dotted)
{
	char ascii[IDNA_NAME_MAX + 1];
	const char *start = c->p;
	enum address_error error;

	while (c->p < c->end && (is_label(*c->p) || *c->p == '-' || *c->p == '.'))
		c->p++;
	if (!idna_to_ascii(start, (size_t)(c->p - start), ascii))
		return ADDRESS_SYNTAX;
	struct cursor name = {ascii, ascii + strlen(ascii)};
	error = parse_name(&name, domain, dotted);
	return error || name.p == name.end ? error : ADDRESS_SYNTAX;
}

/* A name or an address literal. domain must hold ADDRESS_DOMAIN_MAX + 1, or is NULL to skip over a
 * route, in which no literal may stand. */
static enum address_error
parse_domain(struct cursor *c, bool utf8, char *domain, bool *dotted)
{
	const struct cursor start = *c;
	enum address_error error;

	if (at_char(c, '[') && domain) {
		*dotted = true;
		return parse_literal(c, domain);
	}
	error = parse_name(c, domain, dotted);
	if (error != ADDRESS_NON_ASCII || !utf8)
		return error;
	*c = start;
	return parse_u_labels(c, domain, dotted);
}

static enum address_error
check_length(const struct content *content, const struct address *out)
{
	size_t local = strlen(out->local);

	if (content->too_long || local > ADDRESS_LOCAL_MAX ||
	    local + 1 + strlen(out->domain) > ADDRESS_MAX)
		return ADDRESS_TOO_LONG;
	return ADDRESS_OK;
}

/* RFC 5321 Mailbox. */
static enum address_error
parse_mailbox(struct cursor *c, bool utf8, struct address *out)
{
	struct content content = {.len = 0};
	enum address_error error;
	bool dotted;

	if (at_char(c, '"')) {
		if ((error = parse_quoted(c, utf8, &content)))
			return error;
	} else {
		for (; c->p < c->end;) {
			if ((unsigned char)*c->p > 127) {
				if ((error = parse_utf8(c, utf8, &content)))
					return error;
			} else if (is_atext((unsigned char)*c->p) || *c->p == '.') {
				content_add(&content, *c->p++);
			} else {
				break;
			}
		}
		if (!content.too_long && !is_dot_string(&content))
			return ADDRESS_SYNTAX;
	}
	if (c->p == c->end || *c->p == '>')
		return content.too_long ? ADDRESS_TOO_LONG : ADDRESS_UNQUALIFIED;
	if (*c->p++ != '@')
		return ADDRESS_SYNTAX;
	if ((error = parse_domain(c, utf8, out->domain, &dotted)))
		return error;
	put_local(&content, out);
	if ((error = check_length(&content, out)))
		return error;
	return dotted ? ADDRESS_OK : ADDRESS_UNQUALIFIED;
}

/* "@one,@two:" in front of a mailbox: obsolete since RFC 1123, to be ignored. */
static enum address_error
skip_route(struct cursor *c, bool utf8)
{
	enum address_error error;
	bool dotted;

	while (at_char(c, '@')) {
		c->p++;
		if ((error = parse_domain(c, utf8, NULL, &dotted)))
			return error;
		if (at_char(c, ':')) {
			c->p++;
			return ADDRESS_OK;
		}
		if (!at_char(c, ','))
			return ADDRESS_SYNTAX;
		c->p++;
		if (!at_char(c, '@'))
			return ADDRESS_SYNTAX;
	}
	return ADDRESS_OK;
}

enum address_error
address_parse_path(const char *text, size_t len, bool null_ok, bool utf8, struct address *out,
                   size_t *used)
{
	struct cursor c = {text, text + len};
	struct address address = {.local = ""};
	enum address_error error;

	*used = 0;
	*out = address;
	if (!at_char(&c, '<'))
		return ADDRESS_SYNTAX;
	c.p++;
	if (at_char(&c, '>')) {
		*used = 2;
		return null_ok ? ADDRESS_OK : ADDRESS_SYNTAX;
	}
	if ((error = skip_route(&c, utf8)))
		return error;
	error = parse_mailbox(&c, utf8, &address);
	if (error && error != ADDRESS_UNQUALIFIED)
		return error;
	if (!at_char(&c, '>'))
		return ADDRESS_SYNTAX;
	if (error)
		return error;
	*used = (size_t)(c.p + 1 - text);
	*out = address;
	return ADDRESS_OK;
}

enum address_error
address_parse(const char *text, size_t len, struct address *out)
{
	struct cursor c = {text, text + len};
	struct address address = {.local = ""};
	enum address_error error = parse_mailbox(&c, true, &address);

	memset(out, 0, sizeof *out);
	if (error && error != ADDRESS_UNQUALIFIED)
		return error;
	if (c.p != c.end)
		return ADDRESS_SYNTAX;
	if (!error)
		*out = address;
	return error;
}

bool
address_is_null(const struct address *address)
{
	return !address->local[0] && !address->domain[0];
}

bool
address_is_utf8(const struct address *address)
{
	return !text_is_ascii(address->local);
}

static bool
local_equal(const char *a, const char *b)
{
	char normal_a[4 * ADDRESS_LOCAL_MAX], normal_b[sizeof normal_a];

	if (text_is_ascii(a) && text_is_ascii(b))
		return !strcasecmp(a, b);
	return idna_normalize(a, normal_a, sizeof normal_a) &&
	       idna_normalize(b, normal_b, sizeof normal_b) && !strcasecmp(normal_a, normal_b);
}

bool
address_equal(const struct address *a, const struct address *b)
{
	return !strcasecmp(a->domain, b->domain) && local_equal(a->local, b->local);
}

char *
address_fold(const struct address *address, char out[ADDRESS_FOLD_SIZE])
{
	if (text_is_ascii(address->local) ||
	    !idna_normalize(address->local, out, 4 * ADDRESS_LOCAL_MAX))
		strcpy(out, address->local);
	if (!address_is_null(address))
		sprintf(out + strlen(out), "@%s", address->domain);
	for (char *p = out; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p += 'a' - 'A';
	return out;
}

char *
address_format(const struct address *address, char *out, size_t size)
{
	snprintf(out, size, "%s%s%s", address->local, address_is_null(address) ? "" : "@",
	         address->domain);
	return out;
}

/* White space and (nested) comments; false when a comment is not closed. */
static bool
skip_cfws(struct cursor *c)
{
	size_t depth = 0;
	for (; c->p < c->end; c->p++) {
		if (*c->p == '(')
			depth++;
		else if (depth && *c->p == ')')
			depth--;
		else if (depth && *c->p == '\\') {
			if (++c->p == c->end)
				return false;
		} else if (!depth && !is_space((unsigned char)*c->p))
			break;
	}
	return !depth;
}

/* What stands before "@", "<" or ":": words and dots. As a phrase anything of these is good; as a
 * local part words and dots must take turns. */
struct words {
	struct content content;
	bool local_ok; /* so far words and dots took turns, all of it printable */
	bool any;
	bool dot; /* the last one was a dot (or nothing yet) */
};

static bool
parse_words(struct cursor *c, struct words *w)
{
	*w = (struct words){.local_ok = true, .dot = true};
	for (;;) {
		if (!skip_cfws(c))
			return false;
		if (c->p == c->end)
			return true;
		unsigned char ch = (unsigned char)*c->p;
		if (ch == '.') {
			if (w->dot)
				w->local_ok = false;
			content_add(&w->content, '.');
			w->dot = w->any = true;
			c->p++;
			continue;
		}
		if (ch != '"' && !is_atext(ch) && ch < 128)
			return true;
		if (!w->dot)
			w->local_ok = false;
		w->dot = false;
		w->any = true;
		if (ch == '"') {
			struct cursor again = *c;
			if (parse_quoted(c, true, &w->content)) {
				*c = again; /* no local part, but perhaps a phrase */
				w->local_ok = false;
				if (parse_quoted(c, true, NULL))
					return false;
			}
			continue;
		}
		while (c->p < c->end &&
		       (is_atext((unsigned char)*c->p) || (unsigned char)*c->p > 127)) {
			if ((unsigned char)*c->p < 128) {
				content_add(&w->content, *c->p++);
			} else if (parse_utf8(c, true, &w->content)) {
				w->local_ok = false; /* in a phrase any octet goes */
				c->p++;
			}
		}
	}
}

/* At "@", after the words that are the local part. */
static bool
finish_addr_spec(struct cursor *c, const struct words *w, struct address *out, bool *utf8)
{
	char domain[IDNA_UNICODE_SIZE];
	size_t len = 0;
	bool dotted;

	if (!w->any || !w->local_ok || w->dot || w->content.too_long)
		return false;
	c->p++;
	if (!skip_cfws(c))
		return false;
	if (at_char(c, '[')) {
		if (parse_literal(c, out->domain))
			return false;
	} else {
		/* Obsolete syntax has white space around the dots: squeeze it out, then read the
		 * name as usual. */
		bool word = false; /* the last thing was a label's end */
		for (;;) {
			if (!skip_cfws(c))
				return false;
			if (c->p == c->end || (*c->p == '.' ? !word : word || !is_label(*c->p)))
				break;
			do {
				if (len == sizeof domain)
					return false;
				*utf8 |= (unsigned char)*c->p > 127;
				domain[len++] = *c->p++;
			} while (domain[len - 1] != '.' && c->p < c->end &&
			         (is_label(*c->p) || *c->p == '-'));
			word = domain[len - 1] != '.';
		}
		struct cursor name = {domain, domain + len};
		if (!len || parse_domain(&name, true, out->domain, &dotted) || name.p != name.end)
			return false;
	}
	put_local(&w->content, out);
	*utf8 |= address_is_utf8(out);
	return skip_cfws(c) && !check_length(&w->content, out);
}

/* At "<". */
static bool
finish_angle(struct cursor *c, struct address *out, bool *utf8)
{
	struct words w;

	c->p++;
	if (!skip_cfws(c))
		return false;
	if (at_char(c, '@') && (skip_route(c, true) || !skip_cfws(c)))
		return false;
	if (!parse_words(c, &w) || !at_char(c, '@') || !finish_addr_spec(c, &w, out, utf8) ||
	    !at_char(c, '>'))
		return false;
	c->p++;
	return skip_cfws(c);
}

int
address_list_next(const char *body, size_t len, size_t *at, struct address *out, bool *utf8)
{
	struct cursor c = {body + *at, body + len};
	struct words w;
	bool ok;

	memset(out, 0, sizeof *out);
	for (;;) {
		/* Empty elements and the end of a group separate as a comma does: whoever reads the
		 * field otherwise still finds no mailbox in it that we did not report. */
		do {
			if (!skip_cfws(&c))
				return -1;
		} while (c.p < c.end && (*c.p == ',' || *c.p == ';') && c.p++);
		if (c.p == c.end) {
			*at = len;
			return 0;
		}
		if (!parse_words(&c, &w) || c.p == c.end)
			return -1;
		if (*c.p != ':' || !w.any)
			break;
		c.p++; /* a group's name */
	}
	const char before = *c.p;
	if (before == '<')
		ok = finish_angle(&c, out, utf8);
	else if (before == '@')
		ok = finish_addr_spec(&c, &w, out, utf8);
	else
		return -1;
	/* "a@x.example <a@x.example>", a display name that should be quoted, is what scanners and
	 * scripts send: both are reported. */
	if (!ok || (c.p < c.end && *c.p != ',' && *c.p != ';' && !(before == '@' && *c.p == '<')))
		return -1;
	*at = (size_t)(c.p - body);
	return 1;
}
