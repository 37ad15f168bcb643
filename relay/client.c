#include "relay/client_int.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/log.h"
#include "core/mem.h"

/* Two lives: the connection (greeting, EHLO, what relay/secure.c wants; one host after the other)
 * and, inside, the transaction (relay/transaction.c), which alone knows the job. on_done ends the
 * second one; the first waits for the next job, or says QUIT. Only a 2xx to the final dot keeps a
 * connection: what state a server is in after anything else is not worth finding out.
 *
 * A kept connection may have been closed meanwhile, or its server may have had enough of it. So
 * until MAIL is answered, a loss or a refusal on it is not about the job: the job begins again with
 * a connection of its own.
 *
 * A 5xx to greeting, EHLO or HELO is about the host, not about the mail (RFC 5321 section 4.2.4.2):
 * the next address, then deferred. */

#define INPUT_MAX    (64u * 1024)
#define QUIT_WAIT    5000 /* ms for the farewell */
#define SESSIONS_MAX 2    /* hosts spoken to in one attempt */

static const char *const state_words[] = {
    "connecting",    "waiting for the greeting",
    "EHLO",          "HELO",
    "STARTTLS",      "the TLS handshake",
    "AUTH",          "MAIL and RCPT",
    "DATA",          "the content",
    "the final dot", "QUIT",
    "waiting",       "QUIT",
};

static void on_secure(void *arg);
static void on_input(void *arg);
static void on_drained(void *arg);
static void on_end(void *arg, enum conn_end why);
static void on_kick(void *arg);
static void on_called(void *arg, size_t target, struct conn *conn_take, msec_t took);
static void on_not_reached(void *arg, size_t target, const char *why, enum conn_end end, bool more);

static const struct dial_events dial_events = {.on_open = on_called, .on_failed = on_not_reached};
static const struct conn_events events = {
    .on_secure = on_secure,
    .on_input = on_input,
    .on_drained = on_drained,
    .on_end = on_end,
};

const struct queue_outcome *
client_no_contact(struct queue_job *job, const struct reply *why)
{
	struct queue_outcome *outcomes =
	    arena_alloc(job->arena, job->recipient_count * sizeof *outcomes);

	for (size_t i = 0; i < job->recipient_count; i++) {
		outcomes[i].index = job->recipients[i].index;
		outcomes[i].fate = why->enhanced[0] == '5' ? QUEUE_FAILED : QUEUE_DEFERRED;
		outcomes[i].reply = *why;
		transaction_log(job, i, &outcomes[i], "", "", "");
	}
	return outcomes;
}

void
client_words(struct reply *reply, const char *status, const char *format, ...)
{
	va_list args;

	memset(reply, 0, sizeof *reply);
	snprintf(reply->enhanced, sizeof reply->enhanced, "%s", status);
	va_start(args, format);
	vsnprintf(reply->text, sizeof reply->text, format, args);
	va_end(args);
}

/* ---- life */

struct client *
client_new(const struct client_opts *opts)
{
	struct client *client = xcalloc(1, sizeof *client);

	client->opts = *opts;
	client->kick = loop_timer_new(opts->loop, on_kick, client);
	client->hash = XXH3_createState();
	if (client->hash == NULL)
		abort();
	return client;
}

static uint16_t
port_of(const struct dns_target *target)
{
	return target->addr.ss_family == AF_INET6
	           ? ((const struct sockaddr_in6 *)&target->addr)->sin6_port
	           : ((const struct sockaddr_in *)&target->addr)->sin_port;
}

static bool
is_same_address(const struct dns_target *a, const struct dns_target *b)
{
	return a->len == b->len && !memcmp(&a->addr, &b->addr, a->len);
}

static const void *
address_of(const struct dns_target *target)
{
	return target->addr.ss_family == AF_INET6
	           ? (const void *)&((const struct sockaddr_in6 *)&target->addr)->sin6_addr
	           : &((const struct sockaddr_in *)&target->addr)->sin_addr;
}

static bool
has_source(const struct queue_egress *egress, const struct dns_target *target)
{
	return !egress->pool[0] ||
	       (target->addr.ss_family == AF_INET6 ? egress->has_v6 : egress->has_v4);
}

/* Where among the best hosts of the route the client's connection leads; their count: nowhere. */
static size_t
find_target(const struct client *client, const struct route_result *route)
{
	size_t i = 0;

	while (i < route->dns.count) {
		const struct dns_target *target = &route->dns.list[i];

		if (target->preference == route->dns.list[0].preference &&
		    port_of(target) == port_of(&client->target) &&
		    !strcmp(target->host, client->target.host))
			break;
		i++;
	}
	return i;
}

static unsigned
all_of(const struct route_result *route)
{
	return (1u << route->dns.count) - 1;
}

/* Whether the connection comes from where the job must. */
static bool
is_from(const struct client *client, const struct queue_egress *egress)
{
	const struct queue_egress *own = &client->egress;

	if (!egress->pool[0] || !own->pool[0])
		return egress->pool[0] == own->pool[0];
	if (client->target.addr.ss_family == AF_INET6)
		return egress->has_v6 && !memcmp(&egress->v6, &own->v6, sizeof own->v6);
	return egress->has_v4 && !memcmp(&egress->v4, &own->v4, sizeof own->v4);
}

bool
client_suits(const struct client *client, const struct route_result *route,
             const struct queue_job *job)
{
	const size_t i = find_target(client, route);

	return client->route.conf == route->conf && i < route->dns.count &&
	       !secure_is_doubtful(&job->envelope, route, &route->dns.list[i]) &&
	       client->tls >= secure_wanted(route, &job->envelope) &&
	       is_from(client, &job->egress) && transaction_room(client, job) > 0 &&
	       !transaction_lacks(client, job, NULL);
}

/* ---- what the attempt met */

/* It speaks to the present target from now on. */
static void
note_host(struct client *client)
{
	struct queue_contact *contact = &client->contact;

	memcpy(contact->host, client->target.host, sizeof contact->host);
	snprintf(contact->address, sizeof contact->address, "%s", client->peer);
	snprintf(contact->tls, sizeof contact->tls, "%s",
	         client->conn ? conn_tls_version(client->conn) : "");
	contact->connect = contact->greeting = contact->reply = -1;
	contact->end = QUEUE_CONTACT_FAILED;
	contact->source[0] = '\0';
	if (client->egress.pool[0])
		inet_ntop(client->target.addr.ss_family,
		          client->target.addr.ss_family == AF_INET6
		              ? (const void *)&client->egress.v6
		              : &client->egress.v4,
		          contact->source, sizeof contact->source);
	client->asked = clock_mono();
}

/* What was awaited has come. */
static int32_t
waited(struct client *client)
{
	const msec_t now = clock_mono(), wait = now - client->asked;

	client->asked = now;
	return wait > INT32_MAX ? INT32_MAX : (int32_t)wait;
}

static void
note_reply(struct client *client)
{
	const int32_t wait = waited(client);

	client->contact.end = QUEUE_CONTACT_OK;
	if (wait > client->contact.reply)
		client->contact.reply = wait;
}

void
client_begin(struct client *client, const struct route_result *route, struct queue_job *job,
             client_on_done *on_done, void *arg)
{
	assert(!client->job && route->dns.count);
	client->route = *route;
	client->job = job;
	client->on_done = on_done;
	client->arg = arg;
	transaction_new(client);
	client->contact = (struct queue_contact){.connect = -1, .greeting = -1, .reply = -1};
	memcpy(client->contact.site, route->dns.site, sizeof client->contact.site);
	client->may_change = false;
	client->is_unproven = client->state == CLIENT_KEPT;
	client->left = all_of(route);
	client->at = 0;
	while (client->is_unproven && client->at < route->dns.count &&
	       !is_same_address(&route->dns.list[client->at], &client->target))
		client->at++;
	if (client->is_unproven)
		client->left &= ~(1u << client->at);
	client->again = 0;
	client->sessions = client->is_unproven;
	loop_timer_cancel(client->kick);
	if (client->is_unproven) {
		note_host(client);
		transaction_begin(client);
	} else {
		loop_timer_arm(client->kick, 0);
	}
}

void
client_free(struct client *client)
{
	client->opts.on_use(client->opts.arg, CLIENT_GONE);
	dial_free(client->dial);
	client->dial = NULL;
	conn_free(client->conn);
	client->conn = NULL;
	loop_timer_free(client->kick);
	client->kick = NULL;
	XXH3_freeState(client->hash);
	client->hash = NULL;
	client->dead = true;
	loop_defer(client->opts.loop, free, client);
}

static void
quit(struct client *client)
{
	client->state = CLIENT_QUIT;
	client->opts.on_use(client->opts.arg, CLIENT_LEAVING);
	conn_write(client->conn, "QUIT\r\n", 6);
	conn_set_timeout(client->conn, QUIT_WAIT);
}

static void
keep(struct client *client)
{
	client->state = CLIENT_KEPT;
	conn_set_timeout(client->conn, 0);
	loop_timer_arm(client->kick, client->opts.conf->relay_idle);
	client->opts.on_use(client->opts.arg, CLIENT_IDLE);
}

void
client_leave(struct client *client)
{
	loop_timer_arm(client->kick, 0);
}

void
client_finish(struct client *client, enum client_farewell farewell)
{
	client_on_done *on_done = client->on_done;
	void *arg = client->arg;
	const struct queue_outcome *outcomes = client->outcomes;
	const struct queue_contact contact = client->contact;
	size_t count = client->job->recipient_count;
	const bool is_room = transaction_room(client, client->job) > 0;

	for (size_t i = 0; i < count; i++)
		assert(client->settled[i]);
	client->job = NULL;
	if (farewell == STAY && is_room)
		keep(client);
	else if (farewell != DROP && client->conn)
		quit(client);
	else
		client_free(client);
	on_done(arg, &contact, outcomes, count);
}

static void
reconnect(struct client *client)
{
	conn_free(client->conn);
	client->conn = NULL;
	client->state = CLIENT_CONNECTING;
	client->no_tls = false;
	loop_timer_arm(client->kick, 0);
}

bool
client_is_lack(const struct reply *why)
{
	return !why->code && why->enhanced[0] == '5';
}

void
client_next_host(struct client *client)
{
	client->may_change |= !client_is_lack(&client->last);
	transaction_forget_host(client);
	reconnect(client);
}

void
client_begin_again(struct client *client)
{
	client->left = all_of(&client->route);
	client->sessions = 0;
	client->is_unproven = false;
	transaction_forget_host(client);
	reconnect(client);
}

void
client_renew(struct client *client)
{
	client->state = CLIENT_RENEW;
	conn_write(client->conn, "QUIT\r\n", 6);
	conn_set_timeout(client->conn, QUIT_WAIT);
}

/* Whatever became of the farewell. */
static void
call_again(struct client *client)
{
	client->again = client->at < client->route.dns.count ? 1u << client->at : 0;
	client->sessions--;
	reconnect(client);
}

bool
client_has_next(const struct client *client)
{
	return (client->left | client->again) && client->sessions < SESSIONS_MAX;
}

/* It speaks, or tried to speak, to one of the route's targets. */
static void
set_target(struct client *client, size_t i)
{
	const struct dns_target *target = &client->route.dns.list[i];

	client->target = *target;
	client->at = i;
	client->left &= ~(1u << i);
	inet_ntop(target->addr.ss_family, address_of(target), client->peer, sizeof client->peer);
}

/* Passes over the addresses that this message must not go to; leaves which may be called. */
static unsigned
choose_targets(struct client *client)
{
	unsigned which = 0;
	bool doubtful;

	for (size_t i = 0; i < client->route.dns.count; i++) {
		const struct dns_target *target = &client->route.dns.list[i];

		if (!((client->again ? client->again : client->left) & 1u << i))
			continue;
		doubtful = secure_is_doubtful(&client->job->envelope, &client->route, target);
		if (!doubtful && has_source(&client->job->egress, target)) {
			which |= 1u << i;
			continue;
		}
		set_target(client, i);
		if (doubtful)
			client_words(&client->last, "5.7.30",
			             "%s [%s]: the sender requires TLS, and DNSSEC does not vouch "
			             "for this host",
			             target->host, client->peer);
		else
			client_words(
			    &client->last, "4.4.1",
			    "%s [%s]: the egress pool %s has no address of this kind for it",
			    target->host, client->peer, client->job->egress.pool);
		client->may_change |= !doubtful;
	}
	client->again = 0;
	return which;
}

static void
next_address(struct client *client)
{
	const unsigned which = client_has_next(client) ? choose_targets(client) : 0;

	if (!which) {
		transaction_defer_rest(client, &client->last, DROP);
		return;
	}
	client->tls = secure_wanted(&client->route, &client->job->envelope);
	client->egress = client->job->egress;
	client->dial = dial_new(&(struct dial_opts){.loop = client->opts.loop,
	                                            .targets = client->route.dns.list,
	                                            .count = client->route.dns.count,
	                                            .which = which,
	                                            .egress = &client->egress,
	                                            .input_max = INPUT_MAX,
	                                            .timeout = client->opts.conf->connect_timeout},
	                        &dial_events, client);
}

static void
on_kick(void *arg)
{
	struct client *client = arg;

	if (client->state == CLIENT_KEPT)
		quit(client);
	else
		next_address(client);
}

void
client_try_in_clear(struct client *client)
{
	call_again(client);
	client->no_tls = true;
}

/* ---- commands */

void
client_set_state(struct client *client, enum client_state state)
{
	const struct conf *conf = client->opts.conf;
	msec_t timeout = conf->reply_timeout;

	client->state = state;
	client->asked = clock_mono();
	if (state == CLIENT_DATA || state == CLIENT_BODY)
		timeout = conf->relay_data_timeout;
	else if (state == CLIENT_FINAL)
		timeout = conf->final_timeout;
	conn_set_timeout(client->conn, timeout);
}

void
client_say(struct client *client, const char *format, ...)
{
	char line[1024]; /* the longest is RCPT with one address */
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	assert(len > 0 && len < (int)sizeof line);
	conn_write(client->conn, line, (size_t)len);
}

static void
say_hello(struct client *client, enum client_state state)
{
	client->offers = 0;
	memset(&client->limits, 0, sizeof client->limits);
	client->login = LOGIN_NONE;
	client_set_state(client, state);
	client_say(client, "%s %.255s\r\n", state == CLIENT_EHLO ? "EHLO" : "HELO",
	           client->opts.conf->hostname);
}

void
client_cannot(struct client *client, const char *status, const char *format, ...)
{
	char why[REPLY_TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	client_words(&client->last, status, "%s [%s]: %s", client->target.host, client->peer, why);
	client_next_host(client);
}

/* ---- replies */

/* One reply. The client may be gone afterwards. */
static void
on_reply(struct client *client, const struct reply *reply)
{
	bool good = reply->code / 100 == 2;

	switch (client->state) {
	case CLIENT_GREETING:
		client->contact.greeting = waited(client);
		if (reply->code != 220) {
			client->last = *reply;
			client_next_host(client);
			return;
		}
		say_hello(client, CLIENT_EHLO);
		return;
	case CLIENT_EHLO:
		if (reply->code / 100 == 5) {
			say_hello(client, CLIENT_HELO);
			return;
		}
		/* fall through */
	case CLIENT_HELO:
		if (!good) {
			client->last = *reply;
			client_next_host(client);
		} else {
			client->contact.end = QUEUE_CONTACT_OK;
			secure_prepare(client);
		}
		return;
	case CLIENT_STARTTLS:
		secure_on_starttls_reply(client, reply);
		return;
	case CLIENT_LOGIN:
		secure_on_login_reply(client, reply);
		return;
	case CLIENT_ENVELOPE:
	case CLIENT_DATA:
	case CLIENT_BODY:
	case CLIENT_FINAL:
		note_reply(client);
		transaction_on_reply(client, reply);
		return;
	case CLIENT_RENEW:
		call_again(client);
		return;
	case CLIENT_KEPT: /* nothing was asked: most likely a 421 */
	case CLIENT_QUIT:
		client_free(client);
		return;
	case CLIENT_CONNECTING:
	case CLIENT_HANDSHAKE:
		assert(0 && "a reply before a connection");
	}
}

/* ---- connection events */

static void
on_called(void *arg, size_t target, struct conn *conn_take, msec_t took)
{
	struct client *client = arg;

	client->dial = NULL;
	client->conn = conn_take;
	conn_hand_over(conn_take, &events, client);
	set_target(client, target);
	note_host(client);
	client->contact.connect = took > INT32_MAX ? INT32_MAX : (int32_t)took;
	client->sessions++;
	client->mails = client->rcpts = client->domains = 0;
	client->domain[0] = '\0';
	if (client->tls == CONF_TLS_IMPLICIT)
		secure_start_tls(client);
	else
		client_set_state(client, CLIENT_GREETING);
}

static void
on_not_reached(void *arg, size_t target, const char *why, enum conn_end end, bool more)
{
	struct client *client = arg;
	const enum queue_contact_end before = client->contact.end;
	char id[QUEUE_ID_TEXT_SIZE];

	set_target(client, target);
	note_host(client);
	client->contact.end = end == CONN_LOCAL     ? before
	                      : end == CONN_TIMEOUT ? QUEUE_CONTACT_TIMEOUT
	                                            : QUEUE_CONTACT_FAILED;
	client_words(&client->last, "4.4.1", "%s [%s]: %s (connecting)", client->target.host,
	             client->peer, why);
	client->may_change = true;
	if (more) { /* otherwise nobody hears of it: the attempt tells of one address */
		log_info(queue_id_format(&client->job->id, id), "connect-failed",
		         "host=%s ip=%s error=\"%s\"", client->target.host, client->peer, why);
		return;
	}
	client->dial = NULL;
	client_next_host(client);
}

static void
on_secure(void *arg)
{
	struct client *client = arg;

	snprintf(client->contact.tls, sizeof client->contact.tls, "%s",
	         conn_tls_version(client->conn));
	if (client->tls == CONF_TLS_IMPLICIT)
		client_set_state(client, CLIENT_GREETING);
	else
		say_hello(client, CLIENT_EHLO);
}

/* How the connection ended, for whatever it was doing. The client may be gone afterwards. */
static void
lost(struct client *client, const char *why, bool broken)
{
	if (!client->job) {
		client_free(client);
		return;
	}
	if (client->state == CLIENT_RENEW) {
		call_again(client);
		return;
	}
	if (client->is_unproven) {
		client_begin_again(client);
		return;
	}
	client_words(&client->last, client->state < CLIENT_EHLO ? "4.4.1" : "4.4.2",
	             "%s [%s]: %s (%s)", client->target.host, client->peer, why,
	             state_words[client->state]);
	if (client->state == CLIENT_HANDSHAKE) {
		secure_failed(client, why, broken);
	} else if (client->state < CLIENT_ENVELOPE) {
		client_next_host(client);
	} else {
		if (client->state == CLIENT_FINAL) /* it may have the message */
			client->left = 0;
		transaction_defer_rest(client, &client->last, DROP);
	}
}

static void
on_input(void *arg)
{
	struct client *client = arg;

	/* Everything that is there is read now, since the connection tells of more input only. A
	 * reply may end the client or its connection, so both are looked at anew each time. */
	while (!client->dead && client->conn && client->state != CLIENT_HANDSHAKE &&
	       client->state != CLIENT_CONNECTING) {
		struct reply reply;
		size_t len;
		const uint8_t *data = conn_input(client->conn, &len);
		long n;

		if (!data || !len)
			break;
		/* Only the reply to EHLO tells capabilities. */
		n = reply_parse(data, len, &reply,
		                client->state == CLIENT_EHLO ? offers_on_line : NULL, client);
		if (n == 0 && len < INPUT_MAX)
			break;
		if (n <= 0) {
			lost(client, "the server's answer is no SMTP reply", false);
			break;
		}
		conn_consume(client->conn, (size_t)n);
		on_reply(client, &reply);
	}
}

static void
on_drained(void *arg)
{
	transaction_on_drained(arg);
}

static void
on_end(void *arg, enum conn_end why)
{
	struct client *client = arg;

	if (client->state != CLIENT_RENEW)
		client->contact.end = why == CONN_TIMEOUT               ? QUEUE_CONTACT_TIMEOUT
		                      : client->state < CLIENT_ENVELOPE ? QUEUE_CONTACT_FAILED
		                                                        : QUEUE_CONTACT_LOST;
	lost(client,
	     why == CONN_EOF       ? "the server closed the connection"
	     : why == CONN_TIMEOUT ? "timed out"
	                           : conn_error(client->conn),
	     why == CONN_ERROR);
}
