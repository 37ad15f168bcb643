/* The admin protocol: one JSON object per line in, one per line out.
 *
 * Request {"id": any, "command": "quota.show", arguments…}; reply {"id": same, "ok": true,
 * "result": {…}} or {"id": same, "ok": false, "error": {"code": "not-found", "text": "…"}}. Times
 * are RFC 3339 with zone, or null. */
#ifndef ADMIN_PROTOCOL_H
#define ADMIN_PROTOCOL_H

#include <stddef.h>

#include "auth/client.h"
#include "core/ipc.h"

#define PROTOCOL_LINE_MAX (64u * 1024)

struct protocol_peers { /* borrowed for the process's life */
	struct auth_client *auth;
	struct ipc_link *queue;
};

/* One request under way. */
struct protocol_request;
/* line ends with '\n' and is borrowed for the call, as reply is for the callback. */
typedef void protocol_on_reply(void *arg, const char *line, size_t len);

/* by names who asks, for the record. Calls back once, possibly from inside this call; then the
 * request is gone. The result is NULL when the answer was given already. */
struct protocol_request *protocol_handle(const struct protocol_peers *peers, const char *by,
                                         const char *line, size_t len, protocol_on_reply *on_reply,
                                         void *arg);
/* Nobody wants the answer any more: no callback follows. NULL is harmless. */
void protocol_forget(struct protocol_request *request);

#endif
