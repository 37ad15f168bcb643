#include "core/text.h"

#include <string.h>

/* Problem: text of strangers reaches terminals, log lines and other servers' commands. Idea: one
 * decoder that knows nothing but well-formed UTF-8, and one short list of what is well formed and
 * still must not pass. Characters that Unicode has not assigned yet pass: the list does not grow
 * old. So do the two joiners (U+200C, U+200D), which some scripts cannot do without. */

static const struct {
	uint32_t first, last;
} refused[] = {
    {0x7f, 0xa0},       /* controls and a space */
    {0xad, 0xad},       /* soft hyphen */
    {0x61c, 0x61c},     /* marks of direction, here and below */
    {0x1680, 0x1680},   /* a space */
    {0x180e, 0x180e},   /* a separator without width */
    {0x2000, 0x200b},   /* spaces */
    {0x200e, 0x200f},   /* direction */
    {0x2028, 0x202f},   /* line and paragraph separators, direction, a space */
    {0x205f, 0x206f},   /* a space, operators without width, direction */
    {0x3000, 0x3000},   /* a space */
    {0xd800, 0xdfff},   /* surrogates */
    {0xfdd0, 0xfdef},   /* no characters */
    {0xfeff, 0xfeff},   /* byte order mark */
    {0xfff0, 0xfffb},   /* specials */
    {0x1d173, 0x1d17a}, /* musical format controls */
    {0xe0000, 0xe00ff}, /* tags */
};

uint32_t
text_code(const char *text, size_t n)
{
	uint32_t c = (unsigned char)text[0] & (n == 1 ? 0x7fu : 0x7fu >> n);

	for (size_t i = 1; i < n; i++)
		c = c << 6 | ((unsigned char)text[i] & 0x3fu);
	return c;
}

size_t
text_char(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t more;
	uint32_t c;

	if (!len || p[0] < 0x20)
		return 0;
	if (p[0] < 0x7f)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	more = p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
	if (len <= more)
		return 0;
	for (size_t i = 1; i <= more; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	c = text_code(text, more + 1);
	if (c < (more == 1   ? 0x80u
	         : more == 2 ? 0x800u
	                     : 0x10000u) ||
	    c > 0x10ffff || (c & 0xfffe) == 0xfffe)
		return 0;
	for (size_t i = 0; i < sizeof refused / sizeof *refused && refused[i].first <= c; i++)
		if (c <= refused[i].last)
			return 0;
	return more + 1;
}

bool
text_is_printable(const char *text, size_t len)
{
	for (size_t n; len; text += n, len -= n)
		if (!(n = text_char(text, len)))
			return false;
	return true;
}

bool
text_is_7bit(const void *octets, size_t len)
{
	const unsigned char *p = octets;
	uint64_t eight;

	for (; len >= sizeof eight; p += sizeof eight, len -= sizeof eight) {
		memcpy(&eight, p, sizeof eight);
		if (eight & 0x8080808080808080)
			return false;
	}
	for (; len; p++, len--)
		if (*p > 127)
			return false;
	return true;
}

bool
text_is_ascii(const char *text)
{
	return text_is_7bit(text, strlen(text));
}
