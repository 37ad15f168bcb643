/* sekisho-auth: knows who you are. */
#include "core/service.h"

/* The loop's thread serves the channels and owns every exchange. A pool of threads runs the
 * exchanges' steps, because Cyrus SASL answers synchronously and a password check is milliseconds
 * of pure CPU, and the changes of accounts, which derive a key and wait for the disk.
 *
 * An exchange is in one of two hands: waiting for its client, or with the pool. While it is with
 * the pool the loop touches nothing but its gone flag; a client that cancels or dies meanwhile sets
 * that, and the exchange is freed when it comes back.
 *
 * Everything a stranger can multiply is bounded: steps that wait for a thread by the pool, in which
 * clients take turns; exchanges by EXCHANGES_MAX, beyond which the one whose client has been silent
 * longest makes room. */

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/cache.h"
#include "auth/client.h"
#include "auth/mech.h"
#include "auth/name.h"
#include "auth/pool.h"
#include "auth/proto.h"
#include "auth/accounts.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sandbox.h"

#define EXCHANGES_MAX 8192
#define DEFAULT_CLASS "standard"

struct exchange {
	struct pool_job job;          /* its step; first, so that one pointer names both */
	struct exchange *prev, *next; /* among all, the newest first */
	struct ipc_from from;         /* the request to answer */
	uint64_t number;
	uint64_t session;
	char ip[64];
	struct mech *mech;
	bool busy; /* with the pool */
	bool gone; /* nobody waits for it any more */
	bool has_message;
	uint8_t *message; /* owned; wiped after the step */
	size_t len;
	enum auth_outcome outcome;
	const uint8_t *challenge; /* mech's */
	size_t challenge_len;
};

static const struct conf *conf;
static struct ipc_hub *hub;
static struct accounts *store;
static struct cache *cache;
static struct exchange *exchanges;
static struct exchange *oldest;
static size_t exchange_count;

static void
drop_message(struct exchange *exchange)
{
	if (exchange->message != NULL)
		mem_wipe(exchange->message, exchange->len);
	free(exchange->message);
	exchange->message = NULL;
	exchange->len = 0;
}

static void
exchange_free(struct exchange *exchange)
{
	if (exchange->prev != NULL)
		exchange->prev->next = exchange->next;
	else
		exchanges = exchange->next;
	if (exchange->next != NULL)
		exchange->next->prev = exchange->prev;
	else
		oldest = exchange->prev;
	exchange_count--;
	drop_message(exchange);
	mech_free(exchange->mech);
	free(exchange);
}

static struct exchange *
exchange_find(uint32_t channel, uint64_t number)
{
	for (struct exchange *e = exchanges; e != NULL; e = e->next)
		if (e->from.channel == channel && e->number == number && !e->gone)
			return e;
	return NULL;
}

static void
answer_outcome(struct ipc_from to, enum auth_outcome outcome)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_u8(&payload, (uint8_t)outcome);
	ipc_hub_reply(hub, to, &payload, -1);
	buf_clear(&payload);
}

static void
exchange_answer(struct exchange *exchange)
{
	const struct auth_entry *who = mech_account(exchange->mech);
	const char *name = who->account[0] != '\0' ? who->account : "-";
	struct buf payload;

	buf_init(&payload);
	wire_put_u8(&payload, (uint8_t)exchange->outcome);
	switch (exchange->outcome) {
	case AUTH_CONTINUE:
		wire_put_bytes(&payload, exchange->challenge, exchange->challenge_len);
		break;
	case AUTH_OK:
		/* Until accounts can have more, the one address an account may send from is its
		 * own. */
		wire_put_str(&payload, who->account);
		wire_put_str(&payload, who->class);
		wire_put_u32(&payload, 1);
		wire_put_str(&payload, who->account);
		log_debug("-", "login", "account=%s ip=%s session=%" PRIu64, name, exchange->ip,
		          exchange->session);
		break;
	case AUTH_REFUSED:
		log_info("-", "login-refused", "account=%s ip=%s session=%" PRIu64, name,
		         exchange->ip, exchange->session);
		break;
	case AUTH_NO_MECHANISM:
	case AUTH_UNAVAILABLE:
		break;
	}
	ipc_hub_reply(hub, exchange->from, &payload, -1);
	buf_clear(&payload);
}

static void
exchange_work(struct pool_job *job)
{
	struct exchange *exchange = (struct exchange *)job;

	exchange->outcome =
	    mech_step(exchange->mech, exchange->has_message ? exchange->message : NULL,
	              exchange->len, &exchange->challenge, &exchange->challenge_len);
	drop_message(exchange);
}

/* An account can be removed between its check in a thread and this moment; whoever is answered
 * after the removal was announced must not be let in. */
static bool
is_revoked(const struct auth_entry *who)
{
	struct accounts_record record;
	bool revoked = accounts_get(store, who->account, &record) != ACCOUNTS_OK ||
	               record.entry.created != who->created;

	mem_wipe(&record, sizeof(record));
	return revoked;
}

static void
exchange_done(struct pool_job *job, bool worked)
{
	struct exchange *exchange = (struct exchange *)job;

	exchange->busy = false;
	if (!worked)
		exchange->outcome = AUTH_UNAVAILABLE;
	else if (exchange->outcome == AUTH_OK && is_revoked(mech_account(exchange->mech)))
		exchange->outcome = AUTH_REFUSED;
	if (!exchange->gone)
		exchange_answer(exchange);
	if (exchange->gone || exchange->outcome != AUTH_CONTINUE)
		exchange_free(exchange);
}

/* Hands one step to the pool. */
static void
exchange_run(struct exchange *exchange, const uint8_t *message, size_t len, bool has_message)
{
	exchange->busy = true;
	exchange->has_message = has_message;
	exchange->message = xmalloc(len + 1);
	if (len > 0)
		memcpy(exchange->message, message, len);
	exchange->message[len] = '\0';
	exchange->len = len;
	exchange->job.work = exchange_work;
	exchange->job.done = exchange_done;
	pool_run(exchange->ip, &exchange->job);
}

/* False when all exchanges are with the pool. The step that an exchange which made room still gets
 * finds nothing, and is a temporary failure. */
static bool
make_room(void)
{
	struct exchange *silent = oldest;

	if (exchange_count < EXCHANGES_MAX)
		return true;
	while (silent != NULL && silent->busy)
		silent = silent->prev;
	if (silent == NULL)
		return false;
	exchange_free(silent);
	return true;
}

static void
on_start_frame(struct ipc_from from, struct wire *wire)
{
	struct exchange *exchange;
	char mechanism[AUTH_MECHANISM_MAX + 1], tls[32];
	const uint8_t *message;
	size_t len;
	bool has_message;
	uint64_t number = wire_u64(wire), session = wire_u64(wire);
	char ip[sizeof(exchange->ip)];

	wire_str(wire, mechanism, sizeof(mechanism));
	wire_str(wire, ip, sizeof(ip));
	wire_str(wire, tls, sizeof(tls));
	has_message = wire_u8(wire) != 0;
	message = wire_bytes(wire, &len);
	if (!wire_done(wire)) {
		answer_outcome(from, AUTH_NO_MECHANISM);
		return;
	}
	if (len > AUTH_MESSAGE_MAX || exchange_find(from.channel, number) != NULL || !make_room()) {
		answer_outcome(from, AUTH_UNAVAILABLE);
		return;
	}
	exchange = xcalloc(1, sizeof(*exchange));
	exchange->from = from;
	exchange->number = number;
	exchange->session = session;
	memcpy(exchange->ip, ip, sizeof(ip));
	exchange->mech = mech_new(mechanism);
	exchange->next = exchanges;
	if (exchanges != NULL)
		exchanges->prev = exchange;
	else
		oldest = exchange;
	exchanges = exchange;
	exchange_count++;
	exchange_run(exchange, message, len, has_message);
}

static void
on_step_frame(struct ipc_from from, struct wire *wire)
{
	struct exchange *exchange = exchange_find(from.channel, wire_u64(wire));
	const uint8_t *message;
	size_t len;

	message = wire_bytes(wire, &len);
	if (!wire_done(wire) || len > AUTH_MESSAGE_MAX || exchange == NULL || exchange->busy) {
		answer_outcome(from, AUTH_UNAVAILABLE);
		return;
	}
	exchange->from = from;
	exchange_run(exchange, message, len, true);
}

static void
exchange_cancel(struct exchange *exchange)
{
	if (exchange->busy)
		exchange->gone = true;
	else
		exchange_free(exchange);
}

/* Accounts */

static void
answer_accounts(struct ipc_from to, enum auth_result result, const char *error,
                const struct auth_entry *list, size_t count, const char *next)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_u8(&payload, (uint8_t)result);
	wire_put_str(&payload, error);
	wire_put_u32(&payload, (uint32_t)count);
	for (size_t i = 0; i < count; i++) {
		wire_put_str(&payload, list[i].account);
		wire_put_str(&payload, list[i].class);
		wire_put_str(&payload, list[i].state);
		wire_put_u64(&payload, (uint64_t)list[i].created);
		wire_put_u64(&payload, (uint64_t)list[i].changed);
	}
	wire_put_str(&payload, next);
	ipc_hub_reply(hub, to, &payload, -1);
	buf_clear(&payload);
}

static void
answer_stored(struct ipc_from to, enum accounts_result result, const struct auth_entry *entry)
{
	switch (result) {
	case ACCOUNTS_OK:
		answer_accounts(to, AUTH_DONE, "", entry, entry != NULL, "");
		return;
	case ACCOUNTS_UNKNOWN:
		answer_accounts(to, AUTH_UNKNOWN, "there is no such account", NULL, 0, "");
		return;
	case ACCOUNTS_EXISTS:
		answer_accounts(to, AUTH_EXISTS, "the account exists already", NULL, 0, "");
		return;
	case ACCOUNTS_FULL:
		answer_accounts(to, AUTH_FAILED,
		                "the account store is full; raise queue.map_size and restart the "
		                "service",
		                NULL, 0, "");
		return;
	case ACCOUNTS_FAILED:
		break;
	}
	answer_accounts(to, AUTH_FAILED, "the account store failed; the log says why", NULL, 0, "");
}

/* A change of an account on its way through the pool. */
struct change {
	struct pool_job job; /* first, so that one pointer names both */
	struct ipc_from from;
	enum accounts_result result;
	bool remove;
	struct accounts_record record;
	int password_len;
	char password[VERIFY_PREPARED_SIZE];
};

static void
change_work(struct pool_job *job)
{
	struct change *change = (struct change *)job;

	if (change->remove) {
		change->result = accounts_remove(store, change->record.entry.account);
		return;
	}
	verify_make(&change->record.verifier, change->password, (size_t)change->password_len,
	            (uint32_t)conf->scram_iterations);
	change->result = accounts_add(store, &change->record);
}

static void
tell_revoked(const char *account)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_str(&payload, account);
	ipc_hub_push_all(hub, SERVICE_MSA, AUTH_FRAME_REVOKED, &payload);
	buf_clear(&payload);
}

static void
change_done(struct pool_job *job, bool worked)
{
	struct change *change = (struct change *)job;
	const struct auth_entry *entry = &change->record.entry;

	if (worked && change->remove && change->result == ACCOUNTS_OK)
		tell_revoked(entry->account); /* before the answer: what it says is true then */
	if (!worked)
		answer_accounts(change->from, AUTH_FAILED,
		                "the authenticator is overloaded; try again", NULL, 0, "");
	else
		answer_stored(change->from, change->result, change->remove ? NULL : entry);
	if (worked && change->result == ACCOUNTS_OK)
		log_info("-", change->remove ? "account-removed" : "account-added", "account=%s",
		         entry->account);
	mem_wipe(change, sizeof(*change));
	free(change);
}

static struct change *
change_new(struct ipc_from from, const char *name)
{
	struct change *change = xcalloc(1, sizeof(*change));

	change->job.work = change_work;
	change->job.done = change_done;
	change->from = from;
	strcpy(change->record.entry.account, name);
	return change;
}

static void
account_add(struct ipc_from from, const char *name, const char *password, size_t len)
{
	const char *why = verify_policy(password, len);
	struct change *change;

	if (why != NULL) {
		answer_accounts(from, AUTH_INVALID, why, NULL, 0, "");
		return;
	}
	change = change_new(from, name);
	strcpy(change->record.entry.class, DEFAULT_CLASS);
	strcpy(change->record.entry.state, "active");
	change->record.entry.created = change->record.entry.changed = clock_wall();
	change->password_len = verify_prepare(password, len, change->password);
	assert(change->password_len >= 0); /* or verify_policy had refused it */
	pool_run("admin", &change->job);
}

static void
account_remove(struct ipc_from from, const char *name)
{
	struct change *change = change_new(from, name);

	change->remove = true;
	pool_run("admin", &change->job);
}

static void
account_list(struct ipc_from from, const char *after)
{
	struct auth_entry *list = xcalloc(AUTH_LIST_MAX, sizeof(*list));
	size_t count;
	bool more;

	if (accounts_list(store, after, list, AUTH_LIST_MAX, &count, &more) == ACCOUNTS_OK)
		answer_accounts(from, AUTH_DONE, "", list, count,
		                more ? list[count - 1].account : "");
	else
		answer_stored(from, ACCOUNTS_FAILED, NULL);
	free(list);
}

static void
on_account_frame(struct ipc_from from, uint16_t type, struct wire *wire)
{
	struct accounts_record record;
	enum accounts_result result;
	char told[AUTH_ACCOUNT_MAX + 1], name[AUTH_ACCOUNT_MAX + 1];
	const uint8_t *password = NULL;
	size_t len = 0;

	wire_str(wire, told, sizeof(told));
	if (type == AUTH_FRAME_ADD)
		password = wire_bytes(wire, &len);
	if (!wire_done(wire)) {
		answer_accounts(from, AUTH_INVALID, "the account name is too long or no text", NULL,
		                0, "");
		return;
	}
	if (type == AUTH_FRAME_LIST) {
		account_list(from, told);
		return;
	}
	if (!name_canonical(told, strlen(told), name)) {
		answer_accounts(from, AUTH_INVALID,
		                "the account name is no mail address like user@example.net", NULL,
		                0, "");
		return;
	}
	switch (type) {
	case AUTH_FRAME_ADD:
		account_add(from, name, (const char *)password, len);
		break;
	case AUTH_FRAME_REMOVE:
		account_remove(from, name);
		break;
	default:
		result = accounts_get(store, name, &record);
		answer_stored(from, result, result == ACCOUNTS_OK ? &record.entry : NULL);
		mem_wipe(&record, sizeof(record));
		break;
	}
}

/* The hub */

static void
put_mechanisms(struct buf *payload)
{
	buf_init(payload);
	wire_put_str(payload, mech_list());
}

static void
on_attach(void *arg, struct ipc_from peer)
{
	struct buf payload;

	(void)arg;
	if (peer.role != SERVICE_MSA)
		return;
	put_mechanisms(&payload);
	ipc_hub_push(hub, peer, AUTH_FRAME_MECHANISMS, &payload, -1);
	buf_clear(&payload);
}

static void
on_gone(void *arg, struct ipc_from peer)
{
	struct exchange *next;

	(void)arg;
	for (struct exchange *e = exchanges; e != NULL; e = next) {
		next = e->next;
		if (e->from.channel == peer.channel)
			exchange_cancel(e);
	}
}

static void
on_frame(void *arg, struct ipc_from from, struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct exchange *exchange;
	struct buf payload;

	(void)arg;
	switch (frame->type) {
	case AUTH_FRAME_START:
		on_start_frame(from, &wire);
		return;
	case AUTH_FRAME_STEP:
		on_step_frame(from, &wire);
		return;
	case AUTH_FRAME_CANCEL:
		exchange = exchange_find(from.channel, wire_u64(&wire));
		if (wire_done(&wire) && exchange != NULL)
			exchange_cancel(exchange);
		return;
	case AUTH_FRAME_MECHANISMS:
		put_mechanisms(&payload);
		ipc_hub_reply(hub, from, &payload, -1);
		buf_clear(&payload);
		return;
	case AUTH_FRAME_ADD:
	case AUTH_FRAME_REMOVE:
	case AUTH_FRAME_SHOW:
	case AUTH_FRAME_LIST:
		/* msa speaks with strangers; it has no say about accounts. */
		if (from.role == SERVICE_ADMIN) {
			on_account_frame(from, frame->type, &wire);
			return;
		}
		break;
	default:
		break;
	}
	log_warn("-", "auth-frame-refused", "type=%u role=%s", frame->type,
	         service_role_name((enum service_role)from.role));
}

/* The service */

static const struct ipc_hub_events hub_events = {
    .on_frame = on_frame, .on_attach = on_attach, .on_gone = on_gone};

static void
on_config(void *arg, const struct conf *snapshot)
{
	(void)arg;
	conf = snapshot;
	hub = ipc_hub_new(service_loop(), &hub_events, NULL);
}

static void
on_link(void *arg, enum service_role peer, unsigned index, int fd_take)
{
	(void)arg;
	ipc_hub_attach(hub, peer, index, fd_take);
}

static int
on_start(void *arg)
{
	struct mech_opts opts;
	char error[256];

	(void)arg;
	store = accounts_open(conf->map_size, error, sizeof(error));
	if (store == NULL) {
		log_error("-", "accounts-unusable", "error=\"%s\"", error);
		return -1;
	}
	cache = cache_new(conf->auth_cache);
	pool_init(service_loop());
	opts = (struct mech_opts){.store = store,
	                          .cache = cache,
	                          .iterations = (uint32_t)conf->scram_iterations,
	                          .hostname = conf->hostname};
	if (mech_init(&opts, error, sizeof(error)) != 0) {
		log_error("-", "sasl-unusable", "error=\"%s\"", error);
		return -1;
	}
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct service_events events = {
	    .on_config = on_config, .on_link = on_link, .on_start = on_start};
	static const struct service_opts opts = {.role = SERVICE_AUTH,
	                                         .program = "sekisho-auth",
	                                         .purpose =
	                                             "knows the accounts and checks who logs in",
	                                         .sandbox = SANDBOX_OWN_DIR | SANDBOX_THREADS,
	                                         .events = &events};

	return service_run(&opts, argc, argv);
}
