#include "smtp/command.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/text.h"

/* Problem: a command line comes from anybody. Idea: lines end at CRLF alone, hold no control
 * octet, and are then taken apart by position, without copies. An 8-bit octet can be read:
 * SMTPUTF8 allows it in addresses, and without it an address has a reply of its own. There are two
 * leniences: a blank after "FROM:" and "TO:" and at the end of a line, which real programs send
 * and which cannot mean anything else (RFC 5321 section 4.1.1 asks to tolerate the latter); and the
 * name in EHLO, because many programs say there what people call their computer, in any script and
 * charset, and nobody has a use for it but in Received. Everything else that is not in the grammar
 * is refused, so that no two readers of the same command disagree. */

size_t
command_line(const uint8_t *data, size_t len, size_t *line)
{
	const uint8_t *p = data, *end = data + len, *lf;

	for (; p < end && (lf = memchr(p, '\n', (size_t)(end - p))); p = lf + 1) {
		if (lf > data && lf[-1] == '\r') {
			*line = (size_t)(lf - 1 - data);
			return *line + 2;
		}
	}
	return 0;
}

bool
command_split(const char *line, size_t len, size_t *verb_len, const char **args, size_t *args_len)
{
	const char *space;

	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < 32 || line[i] == 127)
			return false;
	while (len && line[len - 1] == ' ')
		len--;
	space = len ? memchr(line, ' ', len) : NULL;
	*verb_len = space ? (size_t)(space - line) : len;
	*args = space ? space + 1 : line + len;
	*args_len = len - (size_t)(*args - line);
	return true;
}

/* "FROM:" or "TO:", blanks, a path; leaves *args at what follows it. */
static enum command_error
parse_path(const char *keyword, bool null_ok, bool utf8, const char **args, size_t *len,
           struct address *out, enum address_error *why)
{
	size_t skip = strlen(keyword), used;

	*why = ADDRESS_OK;
	if (*len < skip || strncasecmp(*args, keyword, skip) != 0)
		return COMMAND_SYNTAX;
	while (skip < *len && (*args)[skip] == ' ')
		skip++;
	*args += skip;
	*len -= skip;
	if ((*why = address_parse_path(*args, *len, null_ok, utf8, out, &used)))
		return COMMAND_BAD_ADDRESS;
	*args += used;
	*len -= used;
	return !*len || **args == ' ' ? COMMAND_OK : COMMAND_SYNTAX;
}

/* Which parameters a command takes: RFC 5321 section 4.1.2 has the grammar of all, each extension
 * its own keyword and values. No two of a group may stand in one command. */
struct param {
	const char *keyword;
	unsigned extension; /* COMMAND_*; 0: always taken */
	unsigned group;     /* a bit */
	bool (*read)(const char *value, size_t len, const struct command_opts *opts, void *out);
};

static bool
is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* esmtp-param, all of text. *keyword_len is the length of its keyword; a value follows "=". */
static bool
is_param(const char *text, size_t len, size_t *keyword_len)
{
	size_t i = 0;

	while (i < len && (is_alnum(text[i]) || (text[i] == '-' && i)))
		i++;
	*keyword_len = i;
	if (!i || i == len)
		return i;
	if (text[i] != '=' || i + 1 == len)
		return false;
	for (i++; i < len;) {
		size_t n = text_char(text + i, len - i); /* RFC 6531 section 3.3 lets UTF-8 by */
		if (!n || text[i] == ' ' || text[i] == '=')
			return false;
		i += n;
	}
	return true;
}

static bool
is_word(const char *text, size_t len, const char *word)
{
	return len == strlen(word) && !strncasecmp(text, word, len);
}

/* Everything behind a path. An empty value is one that was not given: is_param refuses "SIZE=". */
static enum command_error
parse_params(const char *args, size_t len, const struct param *known, size_t count,
             const struct command_opts *opts, void *out)
{
	unsigned seen = 0;

	for (const char *end; len; len -= (size_t)(end - args), args = end) {
		size_t keyword_len, i = 0;
		if (*args == ' ') {
			end = args + 1;
			continue;
		}
		end = memchr(args, ' ', len);
		if (!end)
			end = args + len;
		if (!is_param(args, (size_t)(end - args), &keyword_len))
			return COMMAND_SYNTAX;
		while (i < count && !is_word(args, keyword_len, known[i].keyword))
			i++;
		if (i == count || known[i].extension & ~opts->extensions)
			return COMMAND_UNKNOWN_PARAM;
		const char *value = args + keyword_len + (args + keyword_len < end);
		if (seen & known[i].group ||
		    !known[i].read(value, (size_t)(end - value), opts, out))
			return COMMAND_SYNTAX;
		seen |= known[i].group;
	}
	return COMMAND_OK;
}

/* One to max digits, all of text; a number beyond 64 bits is UINT64_MAX. */
static bool
read_number(const char *text, size_t len, size_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!len || len > max)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)(unsigned char)text[i] - '0';
		if (digit > 9)
			return false;
		v = v > (UINT64_MAX - digit) / 10 ? UINT64_MAX : v * 10 + digit;
	}
	*out = v;
	return true;
}

/* RFC 1870 section 4. A number beyond 64 bits is well formed and too big for any limit. */
static bool
read_size(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	struct command_mail *mail = out;

	(void)opts;
	mail->has_size = true;
	return read_number(value, len, 20, &mail->size);
}

/* RFC 6152 section 2, RFC 3030 section 3. */
static bool
read_body(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	struct envelope *envelope = &((struct command_mail *)out)->envelope;

	if (is_word(value, len, "8BITMIME"))
		envelope->body = BODY_8BITMIME;
	else if (opts->extensions & COMMAND_BINARYMIME && is_word(value, len, "BINARYMIME"))
		envelope->body = BODY_BINARYMIME;
	else
		return is_word(value, len, "7BIT");
	return true;
}

/* RFC 4954 section 5: who submitted is what we authenticated, not what is claimed here, so it need
 * only be well formed. */
static bool
read_auth(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	(void)opts;
	(void)out;
	return envelope_is_xtext(value, len);
}

/* RFC 3461 section 4.3. */
static bool
read_ret(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	struct envelope *envelope = &((struct command_mail *)out)->envelope;

	(void)opts;
	envelope->ret = is_word(value, len, "FULL")   ? RET_FULL
	                : is_word(value, len, "HDRS") ? RET_HDRS
	                                              : RET_UNSET;
	return envelope->ret != RET_UNSET;
}

/* Section 4.4. */
static bool
read_envid(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	struct envelope *envelope = &((struct command_mail *)out)->envelope;

	(void)opts;
	if (!envelope_is_envid(value, len))
		return false;
	memcpy(envelope->envid, value, len);
	return true;
}

/* RFC 6531 section 3.4. */
static bool
read_smtputf8(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	(void)value;
	(void)opts;
	((struct command_mail *)out)->envelope.smtputf8 = true;
	return !len;
}

/* RFC 8689 section 3. */
static bool
read_requiretls(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	(void)value;
	(void)opts;
	((struct command_mail *)out)->envelope.requiretls = true;
	return !len;
}

/* RFC 4865 section 3. */
static bool
read_holdfor(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	uint64_t seconds;

	if (!read_number(value, len, 9, &seconds) || !seconds)
		return false;
	((struct command_mail *)out)->envelope.hold_until = opts->now + (msec_t)seconds * 1000;
	return true;
}

/* Takes `digits` digits and the octet that has to follow (0: none has to). */
static bool
take_number(const char **text, size_t *len, size_t digits, char behind, unsigned max, unsigned *out)
{
	const size_t used = digits + (behind != 0);
	uint64_t v;

	if (*len < used || !read_number(*text, digits, digits, &v) || v > max ||
	    (behind && ((*text)[digits] & (behind == 'T' ? 0xdf : 0xff)) != behind))
		return false;
	*out = (unsigned)v;
	*text += used;
	*len -= used;
	return true;
}

/* Days from 1970-01-01 to that day of the Gregorian calendar: years are counted from March, so that
 * the leap day is the last of one. */
static int64_t
days_of(unsigned year, unsigned month, unsigned day)
{
	const int64_t y = (int64_t)year - (month <= 2);
	const int64_t of_year = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day;

	return y * 365 + y / 4 - y / 100 + y / 400 + of_year - 719469;
}

/* date-time of RFC 3339 section 5.6, to which erratum 2040 of RFC 4865 refers. */
static bool
read_date_time(const char *text, size_t len, msec_t *out)
{
	static const uint8_t days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	unsigned year, month, day, hour, minute, second, hours = 0, minutes = 0;
	bool leap, east;

	if (!take_number(&text, &len, 4, '-', 9999, &year) ||
	    !take_number(&text, &len, 2, '-', 12, &month) ||
	    !take_number(&text, &len, 2, 'T', 31, &day) ||
	    !take_number(&text, &len, 2, ':', 23, &hour) ||
	    !take_number(&text, &len, 2, ':', 59, &minute) ||
	    !take_number(&text, &len, 2, 0, 60, &second))
		return false;
	leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	if (!month || !day || day > days[month - 1] || (month == 2 && day == 29 && !leap))
		return false;
	if (len && *text == '.') { /* a fraction, of which we take none */
		size_t digits = 1;
		while (digits < len && text[digits] >= '0' && text[digits] <= '9')
			digits++;
		if (digits == 1)
			return false;
		text += digits;
		len -= digits;
	}
	east = len && *text == '+';
	if (!is_word(text, len, "Z")) {
		if (!len || (*text != '+' && *text != '-'))
			return false;
		text++;
		len--;
		if (!take_number(&text, &len, 2, ':', 23, &hours) ||
		    !take_number(&text, &len, 2, 0, 59, &minutes) || len)
			return false;
	}
	*out = (days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second) * 1000;
	*out += (msec_t)(hours * 3600 + minutes * 60) * (east ? -1000 : 1000);
	return true;
}

/* A time that has passed holds nothing: the client's clock may be a little behind. */
static bool
read_holduntil(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	msec_t until;

	if (!read_date_time(value, len, &until))
		return false;
	((struct command_mail *)out)->envelope.hold_until = until > opts->now ? until : 0;
	return true;
}

/* RFC 6710 section 4.1. */
static bool
read_priority(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	struct command_mail *mail = out;
	const bool negative = len == 2 && *value == '-' && value[1] != '0';
	uint64_t priority;

	(void)opts;
	if (!read_number(value + negative, len - negative, 1, &priority))
		return false;
	mail->envelope.priority = negative ? -(int)priority : (int)priority;
	mail->has_priority = true;
	return true;
}

/* RFC 2852 section 4: by-time ";" by-mode [by-trace]. */
static bool
read_by(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	struct envelope *envelope = &((struct command_mail *)out)->envelope;
	const char *mode = memchr(value, ';', len);
	const bool has_sign = len && (*value == '-' || *value == '+');
	uint64_t seconds;
	size_t mode_len;

	if (!mode || !read_number(value + has_sign, (size_t)(mode - value) - has_sign, 9, &seconds))
		return false;
	mode_len = len - (size_t)(++mode - value);
	if (mode_len < 1 || mode_len > 2 || (mode_len == 2 && (mode[1] & 0xdf) != 'T'))
		return false;
	envelope->by = is_word(mode, 1, "R")   ? BY_RETURN
	               : is_word(mode, 1, "N") ? BY_NOTIFY
	                                       : BY_NONE;
	envelope->by_trace = mode_len == 2;
	envelope->by_deadline = opts->now + (msec_t)seconds * (*value == '-' ? -1000 : 1000);
	return envelope->by == BY_NOTIFY ||
	       (envelope->by == BY_RETURN && *value != '-' && seconds > 0);
}

static const struct param mail_params[] = {
    {"SIZE", 0, 1, read_size},
    {"BODY", 0, 2, read_body},
    {"AUTH", 0, 4, read_auth},
    {"RET", COMMAND_DSN, 8, read_ret},
    {"ENVID", COMMAND_DSN, 16, read_envid},
    {"SMTPUTF8", COMMAND_SMTPUTF8, 32, read_smtputf8},
    {"REQUIRETLS", COMMAND_REQUIRETLS, 64, read_requiretls},
    {"HOLDFOR", COMMAND_FUTURERELEASE, 128, read_holdfor},
    {"HOLDUNTIL", COMMAND_FUTURERELEASE, 128, read_holduntil},
    {"MT-PRIORITY", COMMAND_MT_PRIORITY, 256, read_priority},
    {"BY", COMMAND_DELIVERBY, 512, read_by},
};

enum command_error
command_parse_mail(const char *args, size_t len, const struct command_opts *opts,
                   struct command_mail *out, enum address_error *why)
{
	const bool utf8 = opts->extensions & COMMAND_SMTPUTF8;
	enum command_error error;
	const char *path = args;

	memset(out, 0, sizeof *out);
	if ((error = parse_path("FROM:", true, utf8, &args, &len, &out->from, why)))
		return error;
	const char *end = args;
	if ((error = parse_params(args, len, mail_params, sizeof mail_params / sizeof *mail_params,
	                          opts, out)))
		return error;
	if (out->envelope.smtputf8 || text_is_7bit(path, (size_t)(end - path)))
		return COMMAND_OK;
	*why = ADDRESS_NON_ASCII;
	return COMMAND_BAD_ADDRESS;
}

struct rcpt { /* what its parameters are read into */
	struct envelope_recipient *recipient;
	char *orcpt;
};

/* RFC 3461 section 4.1. */
static bool
read_notify(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	struct envelope_recipient *recipient = ((struct rcpt *)out)->recipient;

	(void)opts;
	for (const char *end, *stop = value + len;; value = end + 1) {
		end = memchr(value, ',', (size_t)(stop - value));
		if (!end)
			end = stop;
		const size_t n = (size_t)(end - value);
		const unsigned bit = is_word(value, n, "NEVER")     ? NOTIFY_NEVER
		                     : is_word(value, n, "SUCCESS") ? NOTIFY_SUCCESS
		                     : is_word(value, n, "FAILURE") ? NOTIFY_FAILURE
		                     : is_word(value, n, "DELAY")   ? NOTIFY_DELAY
		                                                    : 0;
		if (!bit || (bit == NOTIFY_NEVER && n < len))
			return false;
		recipient->notify |= bit;
		if (end == stop)
			return true;
	}
}

/* Section 4.2; RFC 6533 section 3 has the type "utf-8", whose ASCII form every server understands.
 */
static bool
read_orcpt(const char *value, size_t len, const struct command_opts *opts, void *out)
{
	char *orcpt = ((struct rcpt *)out)->orcpt;
	const bool utf8 = opts->utf8 && len > 6 && !strncasecmp(value, "utf-8;", 6);

	if (!envelope_utf8_xtext(value, len, "", orcpt, ENVELOPE_ORCPT_MAX + 1) ||
	    (!utf8 && strlen(orcpt) != len))
		return false;
	return envelope_is_orcpt(orcpt, strlen(orcpt));
}

static const struct param rcpt_params[] = {
    {"NOTIFY", COMMAND_DSN, 1, read_notify},
    {"ORCPT", COMMAND_DSN, 2, read_orcpt},
};

/* "<postmaster>", the one recipient that needs no domain (RFC 5321 section 4.5.1). */
static bool
take_postmaster(const char **args, size_t *len, const char *hostname, struct address *out)
{
	static const char keyword[] = "TO:", path[] = "<postmaster>";
	size_t at = sizeof keyword - 1, end;

	if (*len < at || strncasecmp(*args, keyword, at) != 0)
		return false;
	while (at < *len && (*args)[at] == ' ')
		at++;
	end = at + sizeof path - 1;
	if (*len < end || strncasecmp(*args + at, path, sizeof path - 1) != 0 ||
	    (end < *len && (*args)[end] != ' '))
		return false;
	memcpy(out->local, *args + at + 1, sizeof path - 3);
	snprintf(out->domain, sizeof out->domain, "%s", hostname);
	*args += end;
	*len -= end;
	return true;
}

enum command_error
command_parse_rcpt(const char *args, size_t len, const struct command_opts *opts,
                   struct envelope_recipient *out, char orcpt[ENVELOPE_ORCPT_MAX + 1],
                   enum address_error *why)
{
	struct rcpt rcpt = {out, orcpt};
	enum command_error error;

	memset(out, 0, sizeof *out);
	*why = ADDRESS_OK;
	*orcpt = 0;
	out->orcpt = orcpt;
	if (!take_postmaster(&args, &len, opts->hostname, &out->address) &&
	    (error = parse_path("TO:", false, opts->utf8, &args, &len, &out->address, why)))
		return error;
	return parse_params(args, len, rcpt_params, sizeof rcpt_params / sizeof *rcpt_params, opts,
	                    &rcpt);
}

bool
command_parse_bdat(const char *args, size_t len, struct command_bdat *out,
                   enum command_error *error)
{
	size_t digits = 0;

	memset(out, 0, sizeof *out);
	for (; len && *args == ' '; len--)
		args++;
	while (digits < len && args[digits] != ' ')
		digits++;
	if (!read_number(args, digits, len, &out->size))
		return false;
	while (digits < len && args[digits] == ' ')
		digits++;
	out->last = is_word(args + digits, len - digits, "LAST");
	*error = out->last || digits == len ? COMMAND_OK : COMMAND_SYNTAX;
	return true;
}

bool
command_is_bdat(const char *line, size_t len)
{
	return len >= 4 && !strncasecmp(line, "BDAT", 4);
}

bool
command_parse_ehlo(const char *args, size_t len, char out[ADDRESS_DOMAIN_MAX + 1])
{
	for (; len && *args == ' '; len--)
		args++;
	if (!len || len > ADDRESS_DOMAIN_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		out[i] = (char)(args[i] <= 32 || args[i] > 126 ? '?' : args[i]);
	out[len] = 0;
	return true;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int
base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int
command_base64_decode(const char *text, size_t len, uint8_t *out)
{
	int n = 0;

	if (len % 4 || len > INT32_MAX)
		return -1;
	for (size_t i = 0; i < len; i += 4) {
		unsigned pad = i + 4 < len          ? 0
		               : text[i + 3] != '=' ? 0
		               : text[i + 2] != '=' ? 1
		                                    : 2;
		uint32_t v = 0;
		for (unsigned k = 0; k < 4; k++) {
			int digit = k >= 4 - pad ? 0 : base64_value(text[i + k]);
			if (digit < 0)
				return -1;
			v = v << 6 | (uint32_t)digit;
		}
		/* Bits that fall off must be zero, or two texts would decode alike. */
		if ((pad == 1 && v & 0xff) || (pad == 2 && v & 0xffff))
			return -1;
		for (unsigned k = 0; k < 3 - pad; k++)
			out[n++] = (uint8_t)(v >> (16 - 8 * k));
	}
	return n;
}

void
command_base64_encode(const uint8_t *data, size_t len, char *out)
{
	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)data[i] << 16;
		if (i + 1 < len)
			v |= (uint32_t)data[i + 1] << 8;
		if (i + 2 < len)
			v |= data[i + 2];
		*out++ = base64_digits[v >> 18];
		*out++ = base64_digits[v >> 12 & 63];
		*out++ = i + 1 < len ? base64_digits[v >> 6 & 63] : '=';
		*out++ = i + 2 < len ? base64_digits[v & 63] : '=';
	}
	*out = 0;
}
