/* What sekishoctl prints. What the service says may quote strangers, so characters that control a
 * terminal, or turn a line's direction, are never printed raw. */
#ifndef ADMIN_CTL_PRINT_H
#define ADMIN_CTL_PRINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define CTL_COLUMNS_MAX 16
#define CTL_TITLE       16 /* columns of a line's title */

/* The value as text, "-" for nothing; in one of a few static buffers. */
const char *ctl_show(const json_t *object, const char *key);
/* The same for what was typed. */
const char *ctl_harmless(const char *text);
/* The same for a whole line, at most 4 KiB of it. */
const char *ctl_harmless_line(const char *line);
/* "title            value" */
void ctl_line(const char *title, const json_t *object, const char *key);

#define CTL_SPAN_SIZE 48
/* "45 s", "5 min", "4 h 12 min", "3 d 4 h". Returns out. */
char *ctl_span(long long seconds, char out[CTL_SPAN_SIZE]);

struct ctl_column {
	const char *key, *head; /* NULL ends the list */
	bool right;             /* a number */
	size_t width;           /* 0 at first */
};
/* Prints rows, which may come in several parts: a column is as wide as what it has had to hold so
 * far, the heads come with the first part. */
void ctl_table(struct ctl_column *columns, const json_t *rows);

/* A compact document; the caller ends the line. */
void ctl_json(const json_t *value);
/* At the end: fails where what was printed did not get where it should. */
void ctl_print_done(void);

#endif
