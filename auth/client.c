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

#include "auth/identity.h"
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

void
auth_account_put(struct buf *out, const char *account, const char *class,
                 const struct identities *identities)
{
	wire_put_str(out, account);
	wire_put_str(out, class);
	identities_put(out, identities);
}

/* The identities are the caller's, even with false. */
static bool
read_account(struct wire *wire, struct auth_account *account, struct identities **identities)
{
	memset(account, 0, sizeof(*account));
	wire_str(wire, account->account, sizeof(account->account));
	wire_str(wire, account->class, sizeof(account->class));
	account->identities = *identities = identities_get(wire);
	return wire_done(wire) && account->account[0] != '\0' && *identities != NULL;
}

static void
take_account(struct auth_client *client, struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct identities *identities;
	struct auth_account account;

	if (read_account(&wire, &account, &identities) && client->events != NULL)
		client->events->on_account(client->arg, &account);
	identities_free(identities);
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

static void
on_answer(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct auth_login *login = arg;
	struct auth_account account;
	struct identities *identities;
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
		if (!wire_done(&wire) || len > AUTH_MESSAGE_MAX)
			goto abandon;
		login->on_step(login->arg, AUTH_CONTINUE, challenge, len, NULL);
		return;
	case AUTH_OK:
		if (read_account(&wire, &account, &identities))
			login_end(login, AUTH_OK, &account);
		else
			login_end(login, AUTH_UNAVAILABLE, NULL);
		identities_free(identities);
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
