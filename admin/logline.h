/* A line of the log (core/log.h), taken apart: "TIME PROGRAM[PID] LEVEL ID EVENT words key=value
 * key="value" …". The one place that knows how. */
#ifndef ADMIN_LOGLINE_H
#define ADMIN_LOGLINE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/log.h"

struct logline_text { /* a part of the line, not ended by a NUL */
	const char *at;
	size_t len;
};
struct logline {
	struct logline_text time, program, id, event;
	unsigned pid;
	enum log_level level;
	struct logline_text rest; /* for logline_next */
};

/* All of it borrows line, which has no end of line. False for what is no line of the log. */
bool logline_parse(const char *line, size_t len, struct logline *out);
/* Takes the next field from the front of rest: key and value, or a word alone (key is empty). False
 * at the end. */
bool logline_next(struct logline_text *rest, struct logline_text *key, struct logline_text *value);
bool logline_is(const struct logline_text *text, const char *what);

#endif
