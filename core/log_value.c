#include <stdio.h>
#include <string.h>

#include "core/log.h"

/* Apart from core/log.c, so that a test which listens to log_event by itself has these. */

const char *
log_word(const char *text, char *out, size_t size)
{
	size_t len = 0;

	for (; *text && size - len > 4; text++)
		if (*text == ' ' || *text == '"')
			len += (size_t)snprintf(out + len, size - len, "\\x%02X", (unsigned)*text);
		else
			out[len++] = *text;
	out[len] = '\0';
	return out;
}

const char *
log_text(const char *text, char *out, size_t size)
{
	size_t len = 0;

	for (; *text && len < size - 1; text++)
		out[len++] = *text == '"' ? '\'' : *text;
	out[len] = '\0';
	return out;
}
