#include "auth/client.h"

/* One request frame per step, one answer per request.
 *
 * Promise to callers: an answer never comes from inside a call. When the link is down there is
 * nobody to answer, so the refusal is deferred to the end of the loop's turn. A deferral cannot be
 * taken back; a login cancelled meanwhile stays until its deferral has run, and is dead.
 *
 * An answer that does not decode is treated like no answer: the authenticator is unavailable. It is
 * never a yes. Secrets: the payload with the response is wiped once the link has taken it. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "auth/proto.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/random.h"
#include "core/service.h"

struct auth_client {
	struct ipc_link *link; /* borrowed */
	uint64_t next;         /* number of the next exchange */
	uint32_t asking;       /* the call that asks for mechanisms, or 0 */
	bool heard;            /* mechanisms holds their word */
	const struct auth_client_events *events;
	void *arg;
	char mechanisms[AUTH_MECHANISMS_MAX];
};

struct auth_login {
	struct auth_client *client;
	uint64_t exchange;
	uint32_t call; /* the request under way, or 0 */
	bool deferred; /* fail_later will run */
	bool dead;     /* cancelled while deferred */
	bool begun;    /* sekisho-auth knows the exchange */
	auth_on_step *on_step;
	void *arg;
};

struct request { /* one of admin's; has the callback that its answer is for */
	auth_on_result *on_result;
	auth_on_sessions *on_sessions;
	auth_on_killed *on_killed;
	void *arg;
};

struct auth_client *
auth_client_new(struct ipc_link *link)
{
	struct auth_client *client = xcalloc(1, sizeof(*client));

	client->link = link;
	/* A restarted msa gets a new channel, but a number that also differs costs nothing. */
	random_bytes(&client->next, sizeof(client->next));
	strcpy(client->mechanisms, "PLAIN");
	return client;
}

void
auth_client_free(struct auth_client *client)
{
	if (client == NULL)
		return;
	ipc_link_cancel(client->link, client->asking);
	free(client);
}

static void
take_mechanisms(struct auth_client *client, struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	char mechanisms[AUTH_MECHANISMS_MAX];

	wire_str(&wire, mechanisms, sizeof(mechanisms));
	if (!wire_done(&wire))
		return;
	strcpy(client->mechanisms, mechanisms);
	client->heard = true;
}

void
auth_client_set_events(struct auth_client *client, const struct auth_client_events *events,
                       void *arg)
{
	client->events = events;
	client->arg = arg;
}

static void
take_end(struct auth_client *client, struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	uint64_t number = wire_u64(&wire);
	unsigned why = wire_u8(&wire);

	if (wire_done(&wire) && why < AUTH_ENDS && client->events != NULL)
		client->events->on_end(client->arg, number, (enum auth_end)why);
}

static void
take_account(struct auth_client *client, struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	char account[AUTH_ACCOUNT_MAX + 1], class[sizeof(((struct auth_account *)0)->class)];

	wire_str(&wire, account, sizeof(account));
	wire_str(&wire, class, sizeof(class));
	if (wire_done(&wire) && client->events != NULL)
		client->events->on_account(client->arg, account, class);
}

void
auth_client_on_push(struct auth_client *client, struct ipc_frame *frame)
{
	switch (frame->type) {
	case AUTH_FRAME_MECHANISMS:
		take_mechanisms(client, frame);
		break;
	case AUTH_FRAME_END:
		take_end(client, frame);
		break;
	case AUTH_FRAME_ACCOUNT:
		take_account(client, frame);
		break;
	default:
		break;
	}
}

static void
on_mechanisms(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct auth_client *client = arg;

	client->asking = 0;
	if (status == IPC_OK)
		take_mechanisms(client, frame);
}

bool
auth_client_is_up(const struct auth_client *client)
{
	return ipc_link_is_up(client->link);
}

const char *
auth_client_mechanisms(const struct auth_client *client)
{
	if (!ipc_link_is_up(client->link))
		return "";
	if (!client->heard && client->asking == 0) {
		struct auth_client *mutable = (struct auth_client *)client;

		mutable->asking = ipc_link_call(client->link, AUTH_FRAME_MECHANISMS, NULL, -1,
		                                AUTH_TIMEOUT, on_mechanisms, mutable);
	}
	return client->mechanisms;
}

/* Logins */

static void
tell(struct auth_client *client, uint16_t type, struct buf *payload)
{
	ipc_link_tell(client->link, type, payload, -1);
	buf_clear(payload);
}

static void
tell_cancel(const struct auth_login *login)
{
	struct buf payload;

	if (!login->begun)
		return;
	buf_init(&payload);
	wire_put_u64(&payload, login->exchange);
	tell(login->client, AUTH_FRAME_CANCEL, &payload);
}

static void
login_end(struct auth_login *login, enum auth_outcome outcome, const struct auth_account *account)
{
	auth_on_step *on_step = login->on_step;
	void *arg = login->arg;

	free(login);
	on_step(arg, outcome, NULL, 0, account);
}

static void
fail_later(void *arg)
{
	struct auth_login *login = arg;

	login->deferred = false;
	if (login->dead)
		free(login);
	else
		login_end(login, AUTH_UNAVAILABLE, NULL);
}

static bool
read_account(struct wire *wire, struct auth_account *account)
{
	wire_str(wire, account->account, sizeof(account->account));
	wire_str(wire, account->class, sizeof(account->class));
	account->identity_count = wire_u32(wire);
	if (account->identity_count > AUTH_IDENTITIES_MAX)
		return false;
	for (unsigned i = 0; i < account->identity_count; i++)
		wire_str(wire, account->identities[i], sizeof(account->identities[i]));
	return wire_done(wire) && account->account[0] != '\0';
}

static void
on_answer(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct auth_login *login = arg;
	struct auth_account account;
	struct wire wire;
	const uint8_t *challenge;
	size_t len;

	login->call = 0;
	if (status != IPC_OK) {
	abandon:
		tell_cancel(login);
		login_end(login, AUTH_UNAVAILABLE, NULL);
		return;
	}
	wire = wire_from(frame->data, frame->len);
	switch (wire_u8(&wire)) {
	case AUTH_CONTINUE:
		challenge = wire_bytes(&wire, &len);
		if (!wire_done(&wire))
			goto abandon;
		login->on_step(login->arg, AUTH_CONTINUE, challenge, len, NULL);
		return;
	case AUTH_OK:
		memset(&account, 0, sizeof(account));
		if (!read_account(&wire, &account))
			break;
		login_end(login, AUTH_OK, &account);
		return;
	case AUTH_REFUSED:
		login_end(login, AUTH_REFUSED, NULL);
		return;
	case AUTH_SUSPENDED:
		login_end(login, AUTH_SUSPENDED, NULL);
		return;
	case AUTH_NO_MECHANISM:
		login_end(login, AUTH_NO_MECHANISM, NULL);
		return;
	default:
		break;
	}
	login_end(login, AUTH_UNAVAILABLE, NULL);
}

static void
login_send(struct auth_login *login, uint16_t type, struct buf *payload)
{
	assert(login->call == 0 && !login->deferred);
	login->call =
	    ipc_link_call(login->client->link, type, payload, -1, AUTH_TIMEOUT, on_answer, login);
	buf_wipe(payload);
	if (login->call != 0) {
		login->begun = true;
		return;
	}
	login->deferred = true;
	loop_defer(service_loop(), fail_later, login);
}

struct auth_login *
auth_login_start(struct auth_client *client, const struct auth_peer *peer, const uint8_t *initial,
                 size_t len, auth_on_step *on_step, void *arg)
{
	struct auth_login *login = xcalloc(1, sizeof(*login));
	struct buf payload;

	assert(len <= AUTH_MESSAGE_MAX);
	login->client = client;
	login->exchange = client->next++;
	login->on_step = on_step;
	login->arg = arg;
	buf_init(&payload);
	/* Room at once: a buffer that grew would leave copies of the secret behind. */
	buf_reserve(&payload, len + 1024);
	wire_put_u64(&payload, login->exchange);
	wire_put_u64(&payload, peer->session);
	wire_put_str(&payload, peer->mechanism);
	wire_put_str(&payload, peer->client_ip);
	wire_put_str(&payload, peer->tls_version);
	wire_put_u8(&payload, initial != NULL);
	wire_put_bytes(&payload, initial, initial != NULL ? len : 0);
	login_send(login, AUTH_FRAME_START, &payload);
	return login;
}

void
auth_login_step(struct auth_login *login, const uint8_t *response, size_t len)
{
	struct buf payload;

	assert(len <= AUTH_MESSAGE_MAX);
	buf_init(&payload);
	buf_reserve(&payload, len + 64);
	wire_put_u64(&payload, login->exchange);
	wire_put_bytes(&payload, response, len);
	login_send(login, AUTH_FRAME_STEP, &payload);
}

void
auth_login_cancel(struct auth_login *login)
{
	if (login == NULL)
		return;
	ipc_link_cancel(login->client->link, login->call);
	tell_cancel(login);
	if (login->deferred)
		login->dead = true;
	else
		free(login);
}

/* Sessions */

void
auth_session_put(struct buf *out, const struct auth_session *session)
{
	wire_put_u64(out, session->number);
	wire_put_str(out, session->ip);
	wire_put_u16(out, session->port);
	wire_put_u8(out, session->implicit_tls);
	wire_put_u64(out, (uint64_t)session->since);
	wire_put_str(out, session->account);
	wire_put_str(out, session->mechanism);
	wire_put_str(out, session->tls);
}

void
auth_session_get(struct wire *wire, struct auth_session *out)
{
	out->number = wire_u64(wire);
	wire_str(wire, out->ip, sizeof(out->ip));
	out->port = wire_u16(wire);
	out->implicit_tls = wire_u8(wire) != 0;
	out->since = (msec_t)wire_u64(wire);
	wire_str(wire, out->account, sizeof(out->account));
	wire_str(wire, out->mechanism, sizeof(out->mechanism));
	wire_str(wire, out->tls, sizeof(out->tls));
}

void
auth_session_open(struct auth_client *client, const struct auth_session *session)
{
	struct buf payload;

	buf_init(&payload);
	auth_session_put(&payload, session);
	tell(client, AUTH_FRAME_OPEN, &payload);
}

void
auth_session_close(struct auth_client *client, uint64_t number)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_u64(&payload, number);
	tell(client, AUTH_FRAME_CLOSE, &payload);
}

/* What admin asks */

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
ask(struct auth_client *client, uint16_t type, struct buf *payload, struct request asked)
{
	struct request *request = xcalloc(1, sizeof(*request));

	*request = asked;
	if (ipc_link_call(client->link, type, payload, -1, AUTH_TIMEOUT, on_asked, request) == 0)
		loop_defer(service_loop(), request_fail, request);
	buf_wipe(payload);
}

/* About one account; text and password are what else the frame holds, or NULL. */
static void
ask_account(struct auth_client *client, uint16_t type, const char *name, const char *text,
            const char *password, size_t password_len, auth_on_result *on_result, void *arg)
{
	struct buf payload;

	buf_init(&payload);
	/* Room at once: a buffer that grew would leave copies of the secret behind. */
	buf_reserve(&payload, strlen(name) + password_len + 64);
	wire_put_str(&payload, name);
	if (text != NULL)
		wire_put_str(&payload, text);
	if (password != NULL)
		wire_put_bytes(&payload, password, password_len);
	ask(client, type, &payload, (struct request){.on_result = on_result, .arg = arg});
}

void
auth_account_add(struct auth_client *client, const char *account, const char *password,
                 size_t password_len, auth_on_result *on_result, void *arg)
{
	ask_account(client, AUTH_FRAME_ADD, account, NULL, password, password_len, on_result, arg);
}

void
auth_account_passwd(struct auth_client *client, const char *account, const char *password,
                    size_t password_len, auth_on_result *on_result, void *arg)
{
	ask_account(client, AUTH_FRAME_PASSWD, account, NULL, password, password_len, on_result,
	            arg);
}

void
auth_account_suspend(struct auth_client *client, const char *account, const char *reason,
                     auth_on_result *on_result, void *arg)
{
	ask_account(client, AUTH_FRAME_SUSPEND, account, reason, NULL, 0, on_result, arg);
}

void
auth_account_resume(struct auth_client *client, const char *account, auth_on_result *on_result,
                    void *arg)
{
	ask_account(client, AUTH_FRAME_RESUME, account, NULL, NULL, 0, on_result, arg);
}

void
auth_account_class(struct auth_client *client, const char *account, const char *class,
                   auth_on_result *on_result, void *arg)
{
	ask_account(client, AUTH_FRAME_CLASS, account, class, NULL, 0, on_result, arg);
}

void
auth_account_remove(struct auth_client *client, const char *account, auth_on_result *on_result,
                    void *arg)
{
	ask_account(client, AUTH_FRAME_REMOVE, account, NULL, NULL, 0, on_result, arg);
}

void
auth_account_show(struct auth_client *client, const char *account, auth_on_result *on_result,
                  void *arg)
{
	ask_account(client, AUTH_FRAME_SHOW, account, NULL, NULL, 0, on_result, arg);
}

void
auth_account_list(struct auth_client *client, const char *after, auth_on_result *on_result,
                  void *arg)
{
	ask_account(client, AUTH_FRAME_LIST, after, NULL, NULL, 0, on_result, arg);
}

void
auth_sessions_list(struct auth_client *client, const char *account, uint64_t after,
                   auth_on_sessions *on_sessions, void *arg)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_str(&payload, account);
	wire_put_u64(&payload, after);
	ask(client, AUTH_FRAME_SESSIONS, &payload,
	    (struct request){.on_sessions = on_sessions, .arg = arg});
}

void
auth_session_kill(struct auth_client *client, uint64_t number, const char *account,
                  auth_on_killed *on_killed, void *arg)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_u64(&payload, number);
	wire_put_str(&payload, account);
	ask(client, AUTH_FRAME_KILL, &payload,
	    (struct request){.on_killed = on_killed, .arg = arg});
}
