#include "admin/ctl_print.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/ctl_ask.h"

#define SHOW_MAX 512

/* Control characters of ASCII, and those of ISO 6429 that hide behind UTF-8's octet C2. */
static void
make_harmless(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++)
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f)
			c[0] = c[1] = '?';
}

const char *
ctl_show(const json_t *object, const char *key)
{
	static char buffers[CTL_COLUMNS_MAX][SHOW_MAX];
	static unsigned turn;
	const json_t *value = json_object_get(object, key);
	char *out = buffers[turn++ % CTL_COLUMNS_MAX];

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
	printf("%-16s %s\n", title, ctl_show(object, key));
}

/* The last column is not padded. */
static void
put_cell(const struct ctl_column *column, const char *text)
{
	if (column[1].key != NULL)
		printf("%-*s  ", (int)column->width, text);
	else
		printf("%s\n", text);
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
			size_t len = strlen(ctl_show(row, c->key));

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
