/* The service's events as they happen, for any number of watchers.
 *
 * sekisho-admin taps the log of every process while anybody watches, takes each line apart once,
 * and hands it to the watchers whose filter it passes. A watcher that does not read loses lines
 * beyond WATCH_PENDING_MAX octets and is told how many; the others, and the processes, do not
 * notice. */
#ifndef ADMIN_WATCH_H
#define ADMIN_WATCH_H

#include "admin/process.h"
#include "auth/control.h"
#include "core/conn.h"

#define WATCH_PENDING_MAX (256u * 1024)
#define WATCH_MAX         16 /* watchers at once */
#define WATCH_EVENT_MAX   127

struct watch_filter {
	struct process process;
	char event[WATCH_EVENT_MAX + 1];    /* names with commas between them; "": all */
	char account[AUTH_ACCOUNT_MAX + 1]; /* "": all. Otherwise what names it, and what has the id
	                                       of a session or message that did */
};

struct watch;
/* NULL when there are WATCH_MAX. conn is borrowed until watch_free. */
struct watch *watch_new(const struct watch_filter *filter, struct conn *conn);
/* NULL is harmless. */
void watch_free(struct watch *watch);
/* The connection has taken everything. */
void watch_drained(struct watch *watch);

#endif
