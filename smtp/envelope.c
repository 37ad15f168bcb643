#include "smtp/envelope.h"

#include <stdio.h>
#include <string.h>

#include "core/text.h"

/* The texts of a message's envelope, for the parser that reads them from a client and for the queue
 * that trusts no parser. */

static int
hex_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool
is_xtext(const char *text, size_t len, bool printable)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] < 33 || text[i] > 126 || text[i] == '=')
			return false;
		if (text[i] != '+')
			continue;
		if (len - i < 3)
			return false;
		int high = hex_value(text[i + 1]), low = hex_value(text[i + 2]);
		if (high < 0 || low < 0)
			return false;
		if (printable && (high < 2 || high > 7 || (high == 7 && low == 15)))
			return false;
		i += 2;
	}
	return len;
}

bool
envelope_is_xtext(const char *text, size_t len)
{
	return is_xtext(text, len, false);
}

bool
envelope_is_envid(const char *text, size_t len)
{
	return len <= ENVELOPE_ENVID_MAX && is_xtext(text, len, true);
}

/* addr-type is an atom (RFC 3461 section 4.2, RFC 5322 section 3.2.3). */
static bool
is_atext(char c)
{
	static const char specials[] = "!#$%&'*+-/=?^_`{|}~";

	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
		return true;
	for (const char *p = specials; *p; p++)
		if (c == *p)
			return true;
	return false;
}

bool
envelope_is_orcpt(const char *text, size_t len)
{
	size_t type = 0;

	while (type < len && is_atext(text[type]))
		type++;
	return len <= ENVELOPE_ORCPT_MAX && type && type < len && text[type] == ';' &&
	       is_xtext(text + type + 1, len - type - 1, true);
}

bool
envelope_utf8_xtext(const char *text, size_t len, const char *also, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t n; len; text += n, len -= n) {
		char hex[16];
		size_t hex_len = 1;

		n = text_char(text, len);
		if (!n)
			return false;
		if (n == 1 && !strchr(also, *text))
			hex[0] = *text;
		else
			hex_len = (size_t)snprintf(hex, sizeof hex, "\\x{%X}",
			                           (unsigned)text_code(text, n));
		if (used + hex_len >= size)
			return false;
		memcpy(out + used, hex, hex_len);
		used += hex_len;
		out[used] = '\0';
	}
	return true;
}

bool
envelope_is_notify(unsigned notify)
{
	return notify <= (NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY | NOTIFY_NEVER) &&
	       (!(notify & NOTIFY_NEVER) || notify == NOTIFY_NEVER);
}
