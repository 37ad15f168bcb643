#include "admin/ctl_print.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "admin/ctl_ask.h"

#define SHOW_MAX 512

/* Of characters, whatever locale we run in: the service speaks UTF-8. */
static locale_t utf8;

static void
use_utf8(void)
{
	if (utf8 == (locale_t)0)
		utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	if (utf8 != (locale_t)0)
		uselocale(utf8);
}

/* What rearranges the characters around it shows other text than there is. */
static bool
is_direction(wchar_t c)
{
	return c == 0x61c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) ||
	       (c >= 0x2066 && c <= 0x2069);
}

/* Replaces what is no printable character by '?', octet by octet, and returns how many columns the
 * text takes on a terminal. */
static size_t
make_harmless(char *text)
{
	size_t columns = 0;

	use_utf8();
	while (*text != '\0') {
		mbstate_t state = {0};
		wchar_t c;
		size_t n = mbrtowc(&c, text, strlen(text), &state);
		int width = n > 4 || is_direction(c) ? -1 : wcwidth(c);

		if (width < 0) {
			n = n > 4 ? 1 : n;
			memset(text, '?', n);
			width = (int)n;
		}
		columns += (size_t)width;
		text += n;
	}
	return columns;
}

static char *
next_buffer(void)
{
	static char buffers[CTL_COLUMNS_MAX][SHOW_MAX];
	static unsigned turn;

	return buffers[turn++ % CTL_COLUMNS_MAX];
}

const char *
ctl_harmless(const char *text)
{
	char *out = next_buffer();

	snprintf(out, SHOW_MAX, "%s", text);
	make_harmless(out);
	return out;
}

const char *
ctl_harmless_line(const char *line)
{
	static char out[4096];

	snprintf(out, sizeof(out), "%s", line != NULL ? line : "");
	make_harmless(out);
	return out;
}

const char *
ctl_show(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	char *out = next_buffer();

	if (json_is_integer(value))
		snprintf(out, SHOW_MAX, "%lld", (long long)json_integer_value(value));
	else if (json_is_boolean(value))
		strcpy(out, json_is_true(value) ? "yes" : "no");
	else if (json_is_string(value) && json_string_length(value) > 0)
		snprintf(out, SHOW_MAX, "%s", json_string_value(value));
	else
		strcpy(out, "-");
	make_harmless(out);
	return out;
}

void
ctl_line(const char *title, const json_t *object, const char *key)
{
	printf("%-*s %s\n", CTL_TITLE, title, ctl_show(object, key));
}

char *
ctl_span(long long seconds, char out[CTL_SPAN_SIZE])
{
	static const struct {
		const char *name;
		long long seconds;
	} units[] = {{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}};
	size_t i = 0;
	int len;

	if (seconds < 0)
		seconds = 0;
	while (i < 3 && seconds < units[i].seconds)
		i++;
	len = snprintf(out, CTL_SPAN_SIZE, "%lld %s", seconds / units[i].seconds, units[i].name);
	seconds %= units[i].seconds;
	if (i < 3 && seconds / units[i + 1].seconds > 0)
		snprintf(out + len, CTL_SPAN_SIZE - (size_t)len, " %lld %s",
		         seconds / units[i + 1].seconds, units[i + 1].name);
	return out;
}

static size_t
columns_of(const char *text)
{
	char copy[SHOW_MAX];

	snprintf(copy, sizeof(copy), "%s", text);
	return make_harmless(copy);
}

/* The last column is not padded. */
static void
put_cell(const struct ctl_column *column, const char *text)
{
	const bool last = column[1].key == NULL;
	const size_t len = columns_of(text);
	const int gap = len < column->width ? (int)(column->width - len) : 0;

	printf("%*s%s%*s", column->right ? gap : 0, "", text, column->right || last ? 0 : gap, "");
	fputs(last ? "\n" : "  ", stdout);
}

void
ctl_table(struct ctl_column *columns, const json_t *rows)
{
	bool first = columns[0].width == 0;
	const json_t *row;
	size_t index;

	for (struct ctl_column *c = columns; c->key != NULL; c++) {
		if (first)
			c->width = strlen(c->head);
		json_array_foreach(rows, index, row)
		{
			size_t len = columns_of(ctl_show(row, c->key));

			if (len > c->width)
				c->width = len;
		}
	}
	for (struct ctl_column *c = columns; first && c->key != NULL; c++)
		put_cell(c, c->head);
	json_array_foreach(rows, index, row)
	{
		for (struct ctl_column *c = columns; c->key != NULL; c++)
			put_cell(c, ctl_show(row, c->key));
	}
}

void
ctl_json(const json_t *value)
{
	json_dumpf(value, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
}

void
ctl_print_done(void)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		ctl_die(CTL_REFUSED, "cannot write the output: %s", strerror(errno));
}
