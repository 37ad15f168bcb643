#include "smtp/reply.h"

#include <string.h>

/* Problem: what a server says ends up in logs, in bounces and in decisions, and the server may be
 * anybody. Idea: find first, with hard bounds, whether a whole reply is there; only then read it,
 * keep a bounded and printable text, and never look further than its last line. Servers that end
 * lines with a bare LF are understood, as everywhere in the field; a reply whose lines disagree in
 * their code is none. */

static int
line_code(const uint8_t *line, size_t len)
{
	int code;

	if (len < 3 || line[0] < '2' || line[0] > '5' || line[1] < '0' || line[1] > '9' ||
	    line[2] < '0' || line[2] > '9')
		return -1;
	if (len > 3 && line[3] != ' ' && line[3] != '-')
		return -1;
	code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
	return code;
}

/* RFC 3463 "class.subject.detail " in front of the text, its class the reply's own. Returns its
 * length without the space, or 0. */
static size_t
enhanced_len(const uint8_t *text, size_t len, int code)
{
	size_t i = 2;

	if (len < 5 || text[0] - '0' != code / 100 || text[1] != '.')
		return 0;
	for (int part = 0; part < 2; part++) {
		size_t digits = 0;
		for (; i < len && text[i] >= '0' && text[i] <= '9'; i++)
			if (++digits > 3)
				return 0;
		if (!digits)
			return 0;
		if (!part && (i == len || text[i++] != '.'))
			return 0;
	}
	return i == len || text[i] == ' ' ? i : 0;
}

static void
add_text(struct reply *out, size_t *used, const uint8_t *text, size_t len)
{
	if (*used && len && *used < REPLY_TEXT_MAX - 1)
		out->text[(*used)++] = ' ';
	for (size_t i = 0; i < len && *used < REPLY_TEXT_MAX - 1; i++)
		out->text[(*used)++] = text[i] == '\t'                 ? ' '
		                       : text[i] < 32 || text[i] > 126 ? '?'
		                                                       : (char)text[i];
	out->text[*used] = 0;
}

/* The line at data: its length without line end in *line, the octets with it as the result, 0 when
 * it is not complete, -1 over the bound. */
static long
next_line(const uint8_t *data, size_t len, size_t *line)
{
	size_t look = len < REPLY_LINE_MAX ? len : REPLY_LINE_MAX;
	const uint8_t *lf = look ? memchr(data, '\n', look) : NULL;

	if (!lf)
		return len >= REPLY_LINE_MAX ? -1 : 0;
	*line = (size_t)(lf - data);
	if (*line && lf[-1] == '\r')
		--*line;
	return lf + 1 - data;
}

long
reply_parse(const uint8_t *data, size_t len, struct reply *out, reply_on_line *on_line, void *arg)
{
	size_t total = 0, line, text_used = 0;
	unsigned lines = 0;
	int code = 0;

	for (bool last = false; !last; lines++) {
		long n = next_line(data + total, len - total, &line);
		if (n <= 0)
			return n;
		int this = line_code(data + total, line);
		if (this < 0 || (code && this != code) || lines == REPLY_LINES_MAX)
			return -1;
		code = this;
		last = line == 3 || data[total + 3] == ' ';
		total += (size_t)n;
	}

	memset(out, 0, sizeof *out);
	out->code = code;
	for (size_t at = 0; at < total;) {
		long n = next_line(data + at, total - at, &line);
		const uint8_t *text = data + at + (line > 3 ? 4 : 3);
		size_t text_len = line > 3 ? line - 4 : 0;
		at += (size_t)n;
		if (on_line)
			on_line(arg, (const char *)text, text_len);
		size_t enhanced = enhanced_len(text, text_len, code);
		if (enhanced) {
			if (!out->enhanced[0])
				memcpy(out->enhanced, text, enhanced);
			text += enhanced;
			text_len -= enhanced;
			if (text_len) {
				text++;
				text_len--;
			}
		}
		add_text(out, &text_used, text, text_len);
	}
	return (long)total;
}
