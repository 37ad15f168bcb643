/* One line per event, on stderr, never blocking: "TIME PROGRAM[PID] LEVEL ID EVENT key=value …".
 *
 * A line that stderr does not take at once is dropped and counted; the next line that fits says how
 * many are missing. Secrets never reach a formatter. Octets that are no printable character
 * (core/text.h) are written as \xHH, so no peer can forge a line or reach a terminal. */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include <stddef.h>
#include <stdint.h>

#define LOG_LINE_MAX 2048 /* octets of a line, with its end */

enum log_level {
	LOG_LEVEL_ERROR, /* an operator must act */
	LOG_LEVEL_WARN,  /* an operator should look */
	LOG_LEVEL_INFO,  /* the life of sessions and messages */
	LOG_LEVEL_DEBUG, /* for developers; off by default */
};

/* Names the program and makes its stderr non-blocking without touching other users of the same
 * descriptor. Call before privileges drop and before any sandbox. */
void log_open(const char *program);
void log_set_level(enum log_level level);
/* "error", "warn", "info" or "debug"; anything else is LOG_LEVEL_INFO. */
enum log_level log_level_named(const char *name);
const char *log_level_name(enum log_level level);
/* As last set. */
enum log_level log_level(void);

/* id is a session or message id, or "-". event is one word; the format holds key=value pairs. */
void log_event(enum log_level level, const char *id, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define log_error(id, event, ...) log_event(LOG_LEVEL_ERROR, id, event, __VA_ARGS__)
#define log_warn(id, event, ...)  log_event(LOG_LEVEL_WARN, id, event, __VA_ARGS__)
#define log_info(id, event, ...)  log_event(LOG_LEVEL_INFO, id, event, __VA_ARGS__)
#define log_debug(id, event, ...) log_event(LOG_LEVEL_DEBUG, id, event, __VA_ARGS__)

/* What a stranger has chosen, as a value whose end he does not choose: nothing in it can pass for
 * the next field. As one word, spaces and quotation marks written as \xHH; or for between quotation
 * marks, each of its own turned into an apostrophe. Cut where out is full; returns out, which may
 * be log_text's text itself. */
const char *log_word(const char *text, char *out, size_t size);
const char *log_text(const char *text, char *out, size_t size);

/* From now on each line also goes, without its line end, as one packet to this socket
 * (SOCK_SEQPACKET; the descriptor is taken), until its other end closes. It never blocks: packets
 * that do not fit are counted, and the next one that does is preceded by a log_dropped line. -1 for
 * none. */
void log_tap(int fd_take);

/* Lines dropped since start, for status. */
uint64_t log_dropped(void);

#endif
