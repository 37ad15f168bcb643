/* The admin protocol: one JSON object per line in, one per line out.
 *
 * Request {"id": any, "version": 1, "command": "quota.show", arguments…}; reply {"id": same, "ok":
 * true, "result": {…}} or {"id": same, "ok": false, "error": {"code": "not-found", "text": "…"}}.
 * Times are RFC 3339 with zone, or null. An argument that the command does not know is an error: a
 * typing error must not change what is done. sekisho-admin(8) is the whole contract. */
#ifndef ADMIN_PROTOCOL_H
#define ADMIN_PROTOCOL_H

#include <stddef.h>

#include "admin/roles.h"
#include "admin/watch.h"
#include "auth/control.h"
#include "core/ipc.h"

#define PROTOCOL_VERSION  1
#define PROTOCOL_LINE_MAX (64u * 1024)

struct protocol_peers { /* borrowed for the process's life */
	struct ipc_link *auth, *queue;
	const struct conf *conf; /* in force */
};

struct protocol_asker { /* borrowed for the call */
	enum role role;
	const char *by; /* for the record */
	/* Makes a watcher of the connection, whose arg is that of on_reply; false when there are
	 * too many. */
	bool (*on_watch)(void *arg, const struct watch_filter *filter);
};

/* One request under way. */
struct request;
/* line ends with '\n' and is borrowed for the call, as reply is for the callback. */
typedef void protocol_on_reply(void *arg, const char *line, size_t len);

/* Calls back once, possibly from inside this call, and within a bounded time whatever the owners
 * do; then the request is gone. The result is NULL when the answer was given already. */
struct request *protocol_handle(const struct protocol_peers *peers,
                                const struct protocol_asker *asker, const char *line, size_t len,
                                protocol_on_reply *on_reply, void *arg);
/* Nobody wants the answer any more: no callback follows. NULL is harmless. */
void protocol_forget(struct request *request);
/* The reply line for a connection on which nothing was asked yet; the caller frees it. */
char *protocol_complaint(const char *code, const char *text, size_t *len);

#endif
