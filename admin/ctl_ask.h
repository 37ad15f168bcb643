/* sekishoctl's conversation with sekisho-admin: requests out, results in. Whatever goes wrong ends
 * the program with a sentence and its exit status. */
#ifndef ADMIN_CTL_ASK_H
#define ADMIN_CTL_ASK_H

#include <jansson.h>
#include <stdbool.h>

#define CTL_REFUSED     1
#define CTL_UNREACHABLE 2
#define CTL_USAGE       64

/* socket_path NULL: the usual places. as_json: a refusal goes to standard output, too. */
void ctl_ask_init(const char *socket_path, bool as_json);
/* Sends a request (taken) and returns its result (the caller's); does not return on a refusal.
 * patience in seconds. */
json_t *ctl_ask(json_t *request, int patience);
/* After a stop was asked for: returns when the whole service is gone. */
void ctl_ask_await_end(int patience);

void ctl_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
void ctl_usage(const char *why) __attribute__((noreturn));

#endif
