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
	auth_on_grants *on_grants;
	auth_on_explained *on_explained;
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
	else if (ended.on_killed != NULL)
		ended.on_killed(ended.arg, result, error, 0);
	else if (ended.on_grants != NULL)
		ended.on_grants(ended.arg, result, error, NULL, 0);
	else
		ended.on_explained(ended.arg, result, error, NULL);
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
	char error[AUTH_ERROR_SIZE], next[AUTH_ACCOUNT_MAX + 1];
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

void
auth_grant_put(struct buf *out, const struct auth_grant *grant)
{
	wire_put_u8(out, (uint8_t)grant->identity.kind);
	wire_put_str(out, grant->identity.text);
	wire_put_str(out, grant->by);
	wire_put_u64(out, (uint64_t)grant->since);
}

void
auth_grant_get(struct wire *wire, struct auth_grant *out)
{
	const unsigned kind = wire_u8(wire);

	out->identity.kind = kind <= IDENTITY_ANY ? (enum identity_kind)kind : IDENTITY_ANY;
	wire_str(wire, out->identity.text, sizeof(out->identity.text));
	wire_str(wire, out->by, sizeof(out->by));
	out->since = (msec_t)wire_u64(wire);
}

static void
take_grants(struct request *request, struct wire *wire)
{
	struct auth_grant *list;
	char error[AUTH_ERROR_SIZE];
	unsigned result = wire_u8(wire);
	uint32_t count;

	wire_str(wire, error, sizeof(error));
	count = wire_u32(wire);
	if (!wire_ok(wire) || count > IDENTITIES_MAX || result > AUTH_FAILED) {
		request_senseless(request);
		return;
	}
	list = xcalloc(count + 1, sizeof(*list));
	for (uint32_t i = 0; i < count; i++)
		auth_grant_get(wire, &list[i]);
	if (wire_done(wire)) {
		request->on_grants(request->arg, (enum auth_result)result, error, list, count);
		free(request);
	} else {
		request_senseless(request);
	}
	free(list);
}

static void
take_explanation(struct request *request, struct wire *wire)
{
	struct auth_explanation got = {0};
	char error[AUTH_ERROR_SIZE];
	unsigned result = wire_u8(wire);

	wire_str(wire, error, sizeof(error));
	if (result == AUTH_DONE) {
		got.allowed = wire_u8(wire) != 0;
		got.detail = wire_u8(wire) != 0;
		auth_grant_get(wire, &got.grant);
		wire_str(wire, got.class, sizeof(got.class));
		got.any = wire_u8(wire) != 0;
		got.suspended = wire_u8(wire) != 0;
		got.is_account = wire_u8(wire) != 0;
	} else {
		(void)wire_u32(wire); /* no grants */
	}
	if (!wire_done(wire) || result > AUTH_FAILED) {
		request_senseless(request);
		return;
	}
	request->on_explained(request->arg, (enum auth_result)result, error,
	                      result == AUTH_DONE ? &got : NULL);
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
	else if (request->on_killed != NULL)
		take_killed(request, &wire);
	else if (request->on_grants != NULL)
		take_grants(request, &wire);
	else
		take_explanation(request, &wire);
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

/* About one account and one address or identity. */
static void
ask_sender(struct ipc_link *link, uint16_t type, const char *account, const char *text,
           struct request asked)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_str(&payload, account);
	if (text != NULL)
		wire_put_str(&payload, text);
	ask(link, type, &payload, asked);
}

void
auth_grant_add(struct ipc_link *link, const char *account, const struct auth_grant *grant,
               auth_on_grants *on_grants, void *arg)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_str(&payload, account);
	auth_grant_put(&payload, grant);
	ask(link, AUTH_FRAME_GRANT, &payload, (struct request){.on_grants = on_grants, .arg = arg});
}

void
auth_grant_remove(struct ipc_link *link, const char *account, const char *text,
                  auth_on_grants *on_grants, void *arg)
{
	ask_sender(link, AUTH_FRAME_REVOKE, account, text,
	           (struct request){.on_grants = on_grants, .arg = arg});
}

void
auth_grants_list(struct ipc_link *link, const char *account, auth_on_grants *on_grants, void *arg)
{
	ask_sender(link, AUTH_FRAME_GRANTS, account, NULL,
	           (struct request){.on_grants = on_grants, .arg = arg});
}

void
auth_sender_explain(struct ipc_link *link, const char *account, const char *address,
                    auth_on_explained *on_explained, void *arg)
{
	ask_sender(link, AUTH_FRAME_EXPLAIN, account, address,
	           (struct request){.on_explained = on_explained, .arg = arg});
}
