#include "auth/control.h"

/* One request frame, one answer. Promise to callers, as in auth/client.c: an answer never comes
 * from inside a call, and when the link is down the refusal is deferred to the end of the loop's
 * turn. What does not decode is AUTH_FAILED. */

#include <stdlib.h>
#include <string.h>

#include "auth/proto.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/service.h"

struct request { /* has the callback that its answer is for */
	auth_on_result *on_result;
	auth_on_sessions *on_sessions;
	auth_on_killed *on_killed;
	void *arg;
};

static void
request_end(struct request *request, enum auth_result result, const char *error,
            const struct auth_entry *list, size_t count, const char *next)
{
	struct request ended = *request;

	free(request);
	if (ended.on_result != NULL)
		ended.on_result(ended.arg, result, error, list, count, next);
	else if (ended.on_sessions != NULL)
		ended.on_sessions(ended.arg, result, error, NULL, 0, 0);
	else
		ended.on_killed(ended.arg, result, error, 0);
}

static void
request_fail(void *arg)
{
	request_end(arg, AUTH_FAILED, "the authenticator is down", NULL, 0, "");
}

static void
request_senseless(struct request *request)
{
	request_end(request, AUTH_FAILED, "the authenticator's answer made no sense", NULL, 0, "");
}

static void
take_entries(struct request *request, struct wire *wire)
{
	struct auth_entry *list;
	char error[256], next[AUTH_ACCOUNT_MAX + 1];
	unsigned result = wire_u8(wire);
	uint32_t count;

	wire_str(wire, error, sizeof(error));
	count = wire_u32(wire);
	if (!wire_ok(wire) || count > AUTH_LIST_MAX || result > AUTH_FAILED) {
		request_senseless(request);
		return;
	}
	list = xcalloc(count + 1, sizeof(*list));
	for (uint32_t i = 0; i < count; i++) {
		wire_str(wire, list[i].account, sizeof(list[i].account));
		wire_str(wire, list[i].class, sizeof(list[i].class));
		list[i].suspended = wire_u8(wire) != 0;
		wire_str(wire, list[i].reason, sizeof(list[i].reason));
		list[i].created = (msec_t)wire_u64(wire);
		list[i].changed = (msec_t)wire_u64(wire);
	}
	wire_str(wire, next, sizeof(next));
	if (wire_done(wire))
		request_end(request, (enum auth_result)result, error, list, count, next);
	else
		request_senseless(request);
	free(list);
}

static void
take_sessions(struct request *request, struct wire *wire)
{
	struct auth_session *list;
	uint32_t count = wire_u32(wire);
	uint64_t next;

	if (!wire_ok(wire) || count > AUTH_SESSIONS_MAX) {
		request_senseless(request);
		return;
	}
	list = xcalloc(count + 1, sizeof(*list));
	for (uint32_t i = 0; i < count; i++)
		auth_session_get(wire, &list[i]);
	next = wire_u64(wire);
	if (wire_done(wire)) {
		request->on_sessions(request->arg, AUTH_DONE, "", list, count, next);
		free(request);
	} else {
		request_senseless(request);
	}
	free(list);
}

static void
take_killed(struct request *request, struct wire *wire)
{
	uint32_t ended = wire_u32(wire);

	if (!wire_done(wire)) {
		request_senseless(request);
		return;
	}
	request->on_killed(request->arg, AUTH_DONE, "", ended);
	free(request);
}

static void
on_asked(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct request *request = arg;
	struct wire wire;

	if (status != IPC_OK) {
		request_end(request, AUTH_FAILED,
		            status == IPC_TIMEOUT
		                ? "the authenticator did not answer in time"
		                : "the authenticator went down; whether it acted is unknown",
		            NULL, 0, "");
		return;
	}
	wire = wire_from(frame->data, frame->len);
	if (request->on_result != NULL)
		take_entries(request, &wire);
	else if (request->on_sessions != NULL)
		take_sessions(request, &wire);
	else
		take_killed(request, &wire);
}

static void
ask(struct ipc_link *link, uint16_t type, struct buf *payload, struct request asked)
{
	struct request *request = xcalloc(1, sizeof(*request));

	*request = asked;
	if (ipc_link_call(link, type, payload, -1, AUTH_TIMEOUT, on_asked, request) == 0)
		loop_defer(service_loop(), request_fail, request);
	buf_wipe(payload);
}

void
auth_account_ask(struct ipc_link *link, enum auth_verb verb, const char *account, const char *text,
                 auth_on_result *on_result, void *arg)
{
	static const uint16_t types[] = {
	    [AUTH_ADD] = AUTH_FRAME_ADD,         [AUTH_PASSWD] = AUTH_FRAME_PASSWD,
	    [AUTH_SUSPEND] = AUTH_FRAME_SUSPEND, [AUTH_RESUME] = AUTH_FRAME_RESUME,
	    [AUTH_CLASS] = AUTH_FRAME_CLASS,     [AUTH_REMOVE] = AUTH_FRAME_REMOVE,
	    [AUTH_SHOW] = AUTH_FRAME_SHOW,       [AUTH_LIST] = AUTH_FRAME_LIST,
	};
	const size_t len = text != NULL ? strlen(text) : 0;
	struct buf payload;

	buf_init(&payload);
	/* Room at once: a buffer that grew would leave copies of the secret behind. */
	buf_reserve(&payload, strlen(account) + len + 64);
	wire_put_str(&payload, account);
	if (verb == AUTH_ADD || verb == AUTH_PASSWD)
		wire_put_bytes(&payload, text, len);
	else if (text != NULL)
		wire_put_str(&payload, text);
	ask(link, types[verb], &payload, (struct request){.on_result = on_result, .arg = arg});
}

void
auth_sessions_list(struct ipc_link *link, const char *account, uint64_t after,
                   auth_on_sessions *on_sessions, void *arg)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_str(&payload, account);
	wire_put_u64(&payload, after);
	ask(link, AUTH_FRAME_SESSIONS, &payload,
	    (struct request){.on_sessions = on_sessions, .arg = arg});
}

void
auth_session_kill(struct ipc_link *link, uint64_t number, const char *account,
                  auth_on_killed *on_killed, void *arg)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_u64(&payload, number);
	wire_put_str(&payload, account);
	ask(link, AUTH_FRAME_KILL, &payload, (struct request){.on_killed = on_killed, .arg = arg});
}
