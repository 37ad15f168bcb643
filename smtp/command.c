#include "smtp/command.h"

#include <string.h>
#include <strings.h>

/* Problem: a command line comes from anybody. Idea: lines end at CRLF alone, hold no control
 * octet, and are then taken apart by position, without copies. An 8-bit octet can be read, for the
 * sake of an address that has a reply of its own; no grammar here accepts one. The one lenience is
 * a blank after "FROM:" and "TO:" and at the end of a line, which real programs send and which
 * cannot mean anything else (RFC 5321 section 4.1.1 asks to tolerate the latter). Everything else
 * that is not in the grammar is refused, so that no two readers of the same command disagree. */

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
parse_path(const char *keyword, bool null_ok, const char **args, size_t *len, struct address *out,
           enum address_error *why)
{
	size_t skip = strlen(keyword), used;

	*why = ADDRESS_OK;
	if (*len < skip || strncasecmp(*args, keyword, skip) != 0)
		return COMMAND_SYNTAX;
	while (skip < *len && (*args)[skip] == ' ')
		skip++;
	*args += skip;
	*len -= skip;
	if ((*why = address_parse_path(*args, *len, null_ok, out, &used)))
		return COMMAND_BAD_ADDRESS;
	*args += used;
	*len -= used;
	return !*len || **args == ' ' ? COMMAND_OK : COMMAND_SYNTAX;
}

/* Which parameters a command takes: RFC 5321 section 4.1.2 has the grammar of all, each extension
 * its own keyword and values. The row's number is its bit among those already seen. */
struct param {
	const char *keyword;
	bool (*read)(const char *value, size_t len, void *out);
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
	while (++i < len)
		if (text[i] < 33 || text[i] > 126 || text[i] == '=')
			return false;
	return true;
}

static bool
is_word(const char *text, size_t len, const char *word)
{
	return len == strlen(word) && !strncasecmp(text, word, len);
}

/* Everything behind a path. An empty value is one that was not given: is_param refuses "SIZE=". */
static enum command_error
parse_params(const char *args, size_t len, const struct param *known, size_t count, void *out)
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
		if (i == count)
			return COMMAND_UNKNOWN_PARAM;
		const char *value = args + keyword_len + (args + keyword_len < end);
		if (seen & 1u << i || !known[i].read(value, (size_t)(end - value), out))
			return COMMAND_SYNTAX;
		seen |= 1u << i;
	}
	return COMMAND_OK;
}

/* RFC 1870 section 4. */
static bool
read_size(const char *value, size_t len, void *out)
{
	struct command_mail *mail = out;
	uint64_t v = 0;

	if (!len || len > 20)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)(unsigned char)value[i] - '0';
		if (digit > 9)
			return false;
		/* A number beyond 64 bits is well formed and too big for any limit. */
		v = v > (UINT64_MAX - digit) / 10 ? UINT64_MAX : v * 10 + digit;
	}
	mail->has_size = true;
	mail->size = v;
	return true;
}

/* RFC 6152 section 2. */
static bool
read_body(const char *value, size_t len, void *out)
{
	struct command_mail *mail = out;

	mail->body_8bit = is_word(value, len, "8BITMIME");
	return mail->body_8bit || is_word(value, len, "7BIT");
}

/* RFC 4954 section 5: who submitted is what we authenticated, not what is claimed here, so it need
 * only be xtext (RFC 3461 section 4). */
static bool
read_auth(const char *value, size_t len, void *out)
{
	(void)out;
	for (size_t i = 0; i < len; i++) {
		if (value[i] < 33 || value[i] > 126)
			return false;
		if (value[i] != '+')
			continue;
		for (size_t end = i + 2; i < end; i++)
			if (i + 1 == len || !value[i + 1] ||
			    !strchr("0123456789ABCDEF", value[i + 1]))
				return false;
	}
	return len;
}

static const struct param mail_params[] = {
    {"SIZE", read_size},
    {"BODY", read_body},
    {"AUTH", read_auth},
};

enum command_error
command_parse_mail(const char *args, size_t len, struct command_mail *out, enum address_error *why)
{
	enum command_error error;

	memset(out, 0, sizeof *out);
	if ((error = parse_path("FROM:", true, &args, &len, &out->from, why)))
		return error;
	return parse_params(args, len, mail_params, sizeof mail_params / sizeof *mail_params, out);
}

enum command_error
command_parse_rcpt(const char *args, size_t len, struct address *out, enum address_error *why)
{
	enum command_error error;

	memset(out, 0, sizeof *out);
	if ((error = parse_path("TO:", false, &args, &len, out, why)))
		return error;
	return parse_params(args, len, NULL, 0, out);
}

bool
command_parse_ehlo(const char *args, size_t len, char out[ADDRESS_DOMAIN_MAX + 1])
{
	if (!len || len > ADDRESS_DOMAIN_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (args[i] <= 32 || args[i] > 126)
			return false;
	memcpy(out, args, len);
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
