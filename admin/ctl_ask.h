/* sekishoctl's conversation with sekisho-admin: requests out, results in. Whatever goes wrong ends
 * the program with a sentence and its exit status; --json has a refusal on standard output, too. */
#ifndef ADMIN_CTL_ASK_H
#define ADMIN_CTL_ASK_H

#include <jansson.h>
#include <stdbool.h>

/* Exit statuses besides 0; those of sysexits(3) where it has one. */
#define CTL_REFUSED     1  /* refused, not found, or an audit or check that finds a fault */
#define CTL_USAGE       64 /* the command line is wrong; nothing was asked */
#define CTL_UNAVAILABLE 69 /* no service, or no answer in time: whether it was done is unknown */
#define CTL_DENIED      77 /* who asks has not the role for it */

/* socket_path NULL: the usual places. */
void ctl_ask_init(const char *socket_path);
/* Sends a request (taken) and returns its result (the caller's); does not return on a refusal.
 * patience in seconds. */
json_t *ctl_ask(json_t *request, int patience);
/* The same, but NULL when what it is about is not found. */
json_t *ctl_ask_known(json_t *request, int patience);
/* The next line of an answer that goes on; NULL at its end. Waits for as long as it takes. */
json_t *ctl_ask_next(void);
/* After a stop was asked for: returns when the whole service is gone. */
void ctl_ask_await_end(int patience);

void ctl_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
void ctl_usage(const char *why) __attribute__((noreturn));

#endif
