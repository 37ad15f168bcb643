/* sekisho-auth: knows who you are. */
#include "core/service.h"

/* The loop's thread serves the channels and owns every exchange. A pool of threads runs the
 * exchanges' steps, because Cyrus SASL answers synchronously and a password check is milliseconds
 * of pure CPU; a login that the cache knows is neither, and is not worth two changes of threads.
 * What admin asks about accounts is in manage.c, about who sends as whom in senders.c, who is
 * connected in roster.c.
 *
 * An exchange is in one of two hands: waiting for its client, or with the pool. While it is with
 * the pool the loop touches nothing but its gone flag; a client that cancels or dies meanwhile sets
 * that, and the exchange is freed when it comes back.
 *
 * Everything a stranger can multiply is bounded: steps that wait for a thread by the pool, in which
 * clients take turns; exchanges by EXCHANGES_MAX, beyond which the one whose client has been silent
 * longest makes room. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/accounts.h"
#include "auth/cache.h"
#include "auth/client.h"
#include "auth/grants.h"
#include "auth/manage.h"
#include "auth/mech.h"
#include "auth/pool.h"
#include "auth/proto.h"
#include "auth/roster.h"
#include "auth/senders.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sandbox.h"

#define EXCHANGES_MAX 8192

struct exchange {
	struct pool_job job;          /* its step; first, so that one pointer names both */
	struct exchange *prev, *next; /* among all, the newest first */
	struct ipc_from from;         /* the request to answer */
	uint64_t number;
	uint64_t session;
	char ip[64], tls[16];
	struct mech *mech;
	bool busy; /* with the pool */
	bool gone; /* nobody waits for it any more */
	bool has_message;
	uint8_t *message; /* owned; wiped after the step */
	size_t len;
	enum auth_outcome outcome;
	char class[CONF_CLASS_SIZE];   /* with AUTH_OK */
	struct identities *identities; /* owned; with AUTH_OK */
	const uint8_t *challenge;      /* mech's */
	size_t challenge_len;
};

static const struct conf *conf;
static const struct conf *first; /* a reference: the mechanisms keep its hostname */
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
	identities_free(exchange->identities);
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
	const struct auth_entry *who = &mech_record(exchange->mech)->entry;
	char name[4 * sizeof(who->account)];
	struct buf payload;

	log_word(who->account[0] != '\0' ? who->account : "-", name, sizeof(name));
	buf_init(&payload);
	wire_put_u8(&payload, (uint8_t)exchange->outcome);
	switch (exchange->outcome) {
	case AUTH_CONTINUE:
		wire_put_bytes(&payload, exchange->challenge, exchange->challenge_len);
		break;
	case AUTH_OK:
		auth_account_put(&payload, who->account, exchange->class, exchange->identities);
		log_debug("-", "login", "account=%s ip=%s session=%" PRIu64, name, exchange->ip,
		          exchange->session);
		break;
	case AUTH_REFUSED:
	case AUTH_SUSPENDED:
		log_info("-", "login-refused", "account=%s ip=%s session=%" PRIu64 "%s", name,
		         exchange->ip, exchange->session,
		         exchange->outcome == AUTH_SUSPENDED ? " rule=K7" : "");
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

/* The proof was about the account as it was when its check began, in a thread or, with SCRAM, a
 * message earlier. Meanwhile it may have been removed, suspended, or given another password, and
 * whoever asked for that was told that it is done. */
static enum auth_outcome
admit(struct exchange *exchange)
{
	const struct accounts_record *proved = mech_record(exchange->mech);
	struct accounts_record now;
	enum auth_outcome outcome = AUTH_OK;

	switch (accounts_get(store, proved->entry.account, &now)) {
	case ACCOUNTS_OK:
		if (!mem_equal(now.verifier.stored_key, proved->verifier.stored_key,
		               sizeof(now.verifier.stored_key)))
			outcome = AUTH_REFUSED;
		else if (now.entry.suspended)
			outcome = AUTH_SUSPENDED;
		else if ((exchange->identities = grants_load(store, now.entry.account)) == NULL)
			outcome = AUTH_UNAVAILABLE;
		else if (!roster_login(conf, exchange->from, exchange->session, now.entry.account,
		                       mech_name(exchange->mech), exchange->tls))
			outcome = AUTH_UNAVAILABLE;
		_Static_assert(sizeof(exchange->class) == sizeof(now.entry.class), "it fits");
		memcpy(exchange->class, now.entry.class, sizeof(exchange->class));
		break;
	case ACCOUNTS_UNKNOWN:
		outcome = AUTH_REFUSED;
		break;
	default:
		outcome = AUTH_UNAVAILABLE;
		break;
	}
	mem_wipe(&now, sizeof(now));
	return outcome;
}

static void
exchange_done(struct pool_job *job, bool worked)
{
	struct exchange *exchange = (struct exchange *)job;

	exchange->busy = false;
	if (!worked)
		exchange->outcome = AUTH_UNAVAILABLE;
	else if (exchange->outcome == AUTH_OK && !exchange->gone)
		exchange->outcome = admit(exchange);
	if (!exchange->gone)
		exchange_answer(exchange);
	if (exchange->gone || exchange->outcome != AUTH_CONTINUE)
		exchange_free(exchange);
}

/* Does one step, or hands it to the pool. */
static void
exchange_run(struct exchange *exchange, const uint8_t *message, size_t len, bool has_message)
{
	const bool is_first = exchange->job.work == NULL;

	exchange->busy = true;
	exchange->has_message = has_message;
	exchange->message = xmalloc(len + 1);
	if (len > 0)
		memcpy(exchange->message, message, len);
	exchange->message[len] = '\0';
	exchange->len = len;
	exchange->job.work = exchange_work;
	exchange->job.done = exchange_done;
	if (is_first && mech_is_quick(mech_name(exchange->mech), exchange->message, len)) {
		exchange_work(&exchange->job);
		exchange_done(&exchange->job, true);
	} else {
		pool_run(exchange->ip, &exchange->job);
	}
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
	char mechanism[AUTH_MECHANISM_MAX + 1];
	const uint8_t *message;
	size_t len;
	bool has_message;
	uint64_t number = wire_u64(wire), session = wire_u64(wire);
	char ip[sizeof(exchange->ip)], tls[sizeof(exchange->tls)];

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
	memcpy(exchange->tls, tls, sizeof(tls));
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

/* What the queue goes by when mail leaves. Nothing is said when it cannot be read: the queue asks
 * again, which is better than a wrong word. */
static void
on_class_of(struct ipc_from from, struct wire *wire)
{
	char account[AUTH_ACCOUNT_MAX + 1], class[CONF_CLASS_SIZE] = "";
	enum accounts_result result;
	struct buf payload;

	wire_str(wire, account, sizeof(account));
	if (!wire_done(wire) || account[0] == '\0')
		return;
	result = accounts_class(store, account, class);
	if (result != ACCOUNTS_OK && result != ACCOUNTS_UNKNOWN)
		return;
	buf_init(&payload);
	wire_put_u8(&payload, result == ACCOUNTS_OK);
	wire_put_str(&payload, class);
	ipc_hub_reply(hub, from, &payload, -1);
	buf_clear(&payload);
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
	roster_on_gone(peer);
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
	case AUTH_FRAME_OPEN:
	case AUTH_FRAME_CLOSE:
		roster_on_frame(conf, from, frame->type, &wire);
		return;
	case AUTH_FRAME_SESSIONS:
	case AUTH_FRAME_KILL:
		if (from.role == SERVICE_ADMIN) {
			roster_on_frame(conf, from, frame->type, &wire);
			return;
		}
		break;
	case AUTH_FRAME_ADD:
	case AUTH_FRAME_PASSWD:
	case AUTH_FRAME_SUSPEND:
	case AUTH_FRAME_RESUME:
	case AUTH_FRAME_CLASS:
	case AUTH_FRAME_REMOVE:
	case AUTH_FRAME_SHOW:
	case AUTH_FRAME_LIST:
	case AUTH_FRAME_GRANT:
	case AUTH_FRAME_REVOKE:
	case AUTH_FRAME_GRANTS:
	case AUTH_FRAME_EXPLAIN:
		/* msa speaks with strangers; it has no say about accounts. */
		if (from.role == SERVICE_ADMIN) {
			if (frame->type < AUTH_FRAME_GRANT)
				manage_on_frame(conf, from, frame->type, &wire);
			else
				senders_on_frame(conf, from, frame->type, &wire);
			return;
		}
		break;
	case AUTH_FRAME_CLASS_OF:
		if (from.role == SERVICE_QUEUE) {
			on_class_of(from, &wire);
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
	first = conf_ref(snapshot);
	hub = ipc_hub_new(service_loop(), &hub_events, NULL);
}

static void
on_commit(void *arg, const struct conf *next)
{
	(void)arg;
	conf = next;
	cache_hold(cache, conf->auth_cache);
	mech_set_iterations((uint32_t)conf->scram_iterations);
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
	roster_init(hub, store);
	manage_init(hub, store);
	senders_init(hub, store);
	opts = (struct mech_opts){.store = store,
	                          .cache = cache,
	                          .iterations = (uint32_t)conf->scram_iterations,
	                          .hostname = first->hostname};
	if (mech_init(&opts, error, sizeof(error)) != 0) {
		log_error("-", "sasl-unusable", "error=\"%s\"", error);
		return -1;
	}
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct service_events events = {.on_config = on_config,
	                                             .on_link = on_link,
	                                             .on_start = on_start,
	                                             .on_commit = on_commit};
	static const struct service_opts opts = {.role = SERVICE_AUTH,
	                                         .program = "sekisho-auth",
	                                         .purpose =
	                                             "knows the accounts and checks who logs in",
	                                         .sandbox = SANDBOX_OWN_DIR | SANDBOX_THREADS,
	                                         .events = &events};

	return service_run(&opts, argc, argv);
}
