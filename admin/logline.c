#include "admin/logline.h"

#include <string.h>

#include "core/text.h"

/* core/log writes printable text only, whatever it was given; a value in quotation marks is not
 * escaped, so it ends at the first mark that a space or the end of the line follows. */

static bool
take_word(struct logline_text *rest, struct logline_text *out)
{
	const char *space = memchr(rest->at, ' ', rest->len);

	out->at = rest->at;
	out->len = space != NULL ? (size_t)(space - rest->at) : rest->len;
	rest->at += out->len + (space != NULL);
	rest->len -= out->len + (space != NULL);
	return out->len > 0;
}

bool
logline_is(const struct logline_text *text, const char *what)
{
	return strlen(what) == text->len && memcmp(text->at, what, text->len) == 0;
}

/* "sekisho-msa[123]" */
static bool
split_pid(struct logline_text *program, unsigned *pid)
{
	const char *open = memchr(program->at, '[', program->len);
	const char *end = program->at + program->len - 1;

	if (open == NULL || open == program->at || *end != ']' || end - open < 2 || end - open > 10)
		return false;
	*pid = 0;
	for (const char *c = open + 1; c < end; c++) {
		if (*c < '0' || *c > '9')
			return false;
		*pid = *pid * 10 + (unsigned)(*c - '0');
	}
	program->len = (size_t)(open - program->at);
	return true;
}

static bool
find_level(const struct logline_text *text, enum log_level *level)
{
	for (int i = 0; i <= LOG_LEVEL_DEBUG; i++)
		if (logline_is(text, log_level_name((enum log_level)i))) {
			*level = (enum log_level)i;
			return true;
		}
	return false;
}

bool
logline_parse(const char *line, size_t len, struct logline *out)
{
	struct logline_text level;

	if (!text_is_printable(line, len))
		return false;
	out->rest = (struct logline_text){line, len};
	return take_word(&out->rest, &out->time) && take_word(&out->rest, &out->program) &&
	       split_pid(&out->program, &out->pid) && take_word(&out->rest, &level) &&
	       find_level(&level, &out->level) && take_word(&out->rest, &out->id) &&
	       take_word(&out->rest, &out->event);
}

static bool
is_key(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-' || c == '.';
}

/* rest begins behind the opening mark. */
static void
take_quoted(struct logline_text *rest, struct logline_text *value)
{
	size_t n = 0;

	while (n < rest->len &&
	       !(rest->at[n] == '"' && (n + 1 == rest->len || rest->at[n + 1] == ' ')))
		n++;
	value->at = rest->at;
	value->len = n;
	n += n < rest->len; /* the mark */
	n += n < rest->len; /* and the space */
	rest->at += n;
	rest->len -= n;
}

bool
logline_next(struct logline_text *rest, struct logline_text *key, struct logline_text *value)
{
	size_t n = 0;

	while (rest->len > 0 && rest->at[0] == ' ') {
		rest->at++;
		rest->len--;
	}
	if (rest->len == 0)
		return false;
	while (n < rest->len && is_key(rest->at[n]))
		n++;
	*key = (struct logline_text){rest->at, 0};
	if (n == 0 || n == rest->len || rest->at[n] != '=')
		return take_word(rest, value);
	key->len = n;
	rest->at += n + 1;
	rest->len -= n + 1;
	if (rest->len > 0 && rest->at[0] == '"') {
		rest->at++;
		rest->len--;
		take_quoted(rest, value);
	} else {
		take_word(rest, value);
	}
	return true;
}
