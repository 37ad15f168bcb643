/* sekisho-auth: knows who you are. */
#include "core/service.h"

/* The loop's thread serves the channels, owns every exchange and is the only writer of the store. A
 * few threads run the exchanges' steps, because Cyrus SASL answers synchronously and a password
 * check is milliseconds of pure CPU.
 *
 * An exchange is in one of three hands: waiting for its client, in the queue or with a thread, or
 * done and on its way back. While it is not waiting the loop touches nothing but its gone flag; a
 * client that cancels or dies meanwhile sets that, and the exchange is freed when it comes back. So
 * threads and loop share only the two lists, under one lock.
 *
 * Threads start with the first login, not at start: a sandbox binds the thread that enters it and
 * what that thread starts later. Everything a stranger can multiply is bounded: queued steps by
 * QUEUE_MAX, exchanges by EXCHANGES_MAX. */

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/cache.h"
#include "auth/client.h"
#include "auth/mech.h"
#include "auth/name.h"
#include "auth/proto.h"
#include "auth/accounts.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sandbox.h"

#define THREADS       4
#define QUEUE_MAX     1024 /* steps waiting for a thread: about 2 s of work */
#define EXCHANGES_MAX 8192
#define DEFAULT_CLASS "standard"

struct exchange {
	struct exchange *prev, *next; /* among all; the loop's alone */
	struct exchange *queued;      /* next in the list it is in, under the lock */
	struct ipc_from from;         /* the request to answer */
	uint64_t number;
	uint64_t session;
	char ip[64];
	struct mech *mech;
	bool busy; /* with the threads */
	bool gone; /* nobody waits for it any more */
	bool has_message;
	uint8_t *message; /* owned; wiped after the step */
	size_t len;
	enum auth_outcome outcome;
	const uint8_t *challenge; /* mech's */
	size_t challenge_len;
};

struct list {
	struct exchange *head, **tail;
	size_t count;
};

static const struct conf *conf;
static struct ipc_hub *hub;
static struct accounts *store;
static struct cache *cache;
static struct loop_wake *wake;
static struct exchange *exchanges;
static size_t exchange_count;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_came = PTHREAD_COND_INITIALIZER;
static struct list todo = {NULL, &todo.head, 0}; /* under lock */
static struct list done = {NULL, &done.head, 0}; /* under lock */
static bool threads_started;

static void
list_push(struct list *list, struct exchange *exchange)
{
	exchange->queued = NULL;
	*list->tail = exchange;
	list->tail = &exchange->queued;
	list->count++;
}

static struct exchange *
list_pop(struct list *list)
{
	struct exchange *exchange = list->head;

	if (exchange == NULL)
		return NULL;
	list->head = exchange->queued;
	if (list->head == NULL)
		list->tail = &list->head;
	list->count--;
	return exchange;
}

static void
drop_message(struct exchange *exchange)
{
	if (exchange->message != NULL)
		mem_wipe(exchange->message, exchange->len);
	free(exchange->message);
	exchange->message = NULL;
	exchange->len = 0;
}

static void *
work(void *arg)
{
	struct exchange *exchange;

	(void)arg;
	for (;;) {
		pthread_mutex_lock(&lock);
		while ((exchange = list_pop(&todo)) == NULL)
			pthread_cond_wait(&work_came, &lock);
		pthread_mutex_unlock(&lock);

		exchange->outcome =
		    mech_step(exchange->mech, exchange->has_message ? exchange->message : NULL,
		              exchange->len, &exchange->challenge, &exchange->challenge_len);
		drop_message(exchange);

		pthread_mutex_lock(&lock);
		list_push(&done, exchange);
		pthread_mutex_unlock(&lock);
		loop_wake_ring(wake);
	}
	return NULL;
}

/* Threads take no signals: those are the loop's. */
static bool
start_threads(void)
{
	sigset_t all, old;
	unsigned started = 0;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&thread, NULL, work, NULL) == 0) {
			pthread_detach(thread);
			started++;
		}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (started == 0)
		log_error("-", "threads-failed", "wanted=%d", THREADS);
	return started > 0;
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
on_done(void *arg)
{
	struct exchange *exchange;

	(void)arg;
	for (;;) {
		pthread_mutex_lock(&lock);
		exchange = list_pop(&done);
		pthread_mutex_unlock(&lock);
		if (exchange == NULL)
			return;
		exchange->busy = false;
		if (!exchange->gone)
			exchange_answer(exchange);
		if (exchange->gone || exchange->outcome != AUTH_CONTINUE)
			exchange_free(exchange);
	}
}

/* Hands one step to the threads, or answers that there are too many. */
static void
exchange_run(struct exchange *exchange, const uint8_t *message, size_t len, bool has_message)
{
	bool full;

	if (!threads_started)
		threads_started = start_threads();
	pthread_mutex_lock(&lock);
	full = todo.count >= QUEUE_MAX || !threads_started;
	if (!full) {
		exchange->busy = true;
		exchange->has_message = has_message;
		exchange->message = xmalloc(len + 1);
		if (len > 0)
			memcpy(exchange->message, message, len);
		exchange->message[len] = '\0';
		exchange->len = len;
		list_push(&todo, exchange);
		pthread_cond_signal(&work_came);
	}
	pthread_mutex_unlock(&lock);
	if (full) {
		log_warn("-", "login-overload", "queued=%d ip=%s", QUEUE_MAX, exchange->ip);
		answer_outcome(exchange->from, AUTH_UNAVAILABLE);
		exchange_free(exchange);
	}
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
	if (len > AUTH_MESSAGE_MAX || exchange_count >= EXCHANGES_MAX ||
	    exchange_find(from.channel, number) != NULL) {
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
	case ACCOUNTS_FAILED:
		break;
	}
	answer_accounts(to, AUTH_FAILED, "the account store failed; the log says why", NULL, 0, "");
}

static void
account_add(struct ipc_from from, const char *name, const char *password, size_t len)
{
	struct accounts_record record;
	enum accounts_result result;
	const char *why = verify_policy(password, len);

	if (why != NULL) {
		answer_accounts(from, AUTH_INVALID, why, NULL, 0, "");
		return;
	}
	memset(&record, 0, sizeof(record));
	strcpy(record.entry.account, name);
	strcpy(record.entry.class, DEFAULT_CLASS);
	strcpy(record.entry.state, "active");
	record.entry.created = record.entry.changed = clock_wall();
	verify_make(&record.verifier, password, len, (uint32_t)conf->scram_iterations);
	result = accounts_add(store, &record);
	if (result == ACCOUNTS_OK)
		log_info("-", "account-added", "account=%s", name);
	answer_stored(from, result, &record.entry);
	mem_wipe(&record, sizeof(record));
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
		result = accounts_remove(store, name);
		if (result == ACCOUNTS_OK)
			log_info("-", "account-removed", "account=%s", name);
		answer_stored(from, result, NULL);
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
	wake = loop_wake_new(service_loop(), on_done, NULL);
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
