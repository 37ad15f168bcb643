#include "relay/client.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/conn.h"
#include "core/log.h"
#include "core/mem.h"
#include "relay/login.h"
#include "smtp/data.h"

/* Problem: say to the queue, for every recipient exactly once, what became of it, whatever the
 * other side does. Idea: outcomes start unsettled; each is settled once, by the reply that decides
 * it, and whatever ends the attempt settles the rest. A recipient is delivered by one event only: a
 * 2xx to the final dot after its own RCPT was taken.
 *
 * Two lives: the connection (greeting, EHLO, TLS; tries one address after the other) and, inside,
 * the transaction (envelope, data), which alone knows the job. on_done ends the second one; the
 * first waits for the next job, or says QUIT. Only a 2xx to the final dot keeps a connection: what
 * state a server is in after anything else is not worth finding out.
 *
 * A kept connection may have been closed meanwhile, or its server may have had enough of it. So
 * until MAIL is answered, a loss or a refusal on it is not about the job: the job begins again with
 * a connection of its own.
 *
 * A recipient whom one host refuses for now may be taken by the next host of the domain, in the
 * same attempt: each transaction carries those who are unsettled. That ends where it could deliver
 * twice: when a connection is lost after the final dot left.
 *
 * Choices. A 5xx to greeting, EHLO or HELO is about the host, not about the mail (RFC 5321
 * section 4.2.4.2): the next address, then deferred. 421 anywhere defers what is unsettled. TLS is
 * opportunistic (RFC 7435) unless the route wants more: when the handshake fails the same address
 * is tried once more in clear. Whatever is wrong with our login or with a TLS that must be is
 * between the operator and that host, and no mail's fault: deferred, also after a 5xx.
 * 8-bit content goes out as it is when the server does not offer 8BITMIME: bouncing or re-coding it
 * would hurt, and today's servers take it. DATA is not pipelined with RCPT: a 354 after refused
 * recipients would oblige us to an empty message. */

#define INPUT_MAX (64u * 1024)
#define BLOCK     (64u * 1024)
#define PIPELINE                                                                                   \
	50 /* commands unanswered at once, so that neither side can fill the other's window */
#define QUIT_WAIT    5000 /* ms for the farewell */
#define SESSIONS_MAX 2    /* hosts spoken to in one attempt */

enum state {
	CLIENT_CONNECTING, /* no connection yet */
	CLIENT_GREETING,   /* connected, nothing said */
	CLIENT_EHLO,       /* EHLO sent */
	CLIENT_HELO,       /* EHLO refused, HELO sent */
	CLIENT_STARTTLS,   /* STARTTLS sent */
	CLIENT_HANDSHAKE,
	CLIENT_LOGIN,    /* AUTH sent, or the answer to a challenge */
	CLIENT_ENVELOPE, /* MAIL and RCPTs being sent and answered */
	CLIENT_DATA,     /* DATA sent */
	CLIENT_BODY,     /* 354 seen, content being written; no final dot yet */
	CLIENT_FINAL,    /* the final dot may have left */
	CLIENT_KEPT,     /* the job is done, the next may come */
	CLIENT_QUIT,     /* the job is done, and so is the connection */
};
static const char *const state_words[] = {
    "connecting",    "waiting for the greeting",
    "EHLO",          "HELO",
    "STARTTLS",      "the TLS handshake",
    "AUTH",          "MAIL and RCPT",
    "DATA",          "the content",
    "the final dot", "waiting",
    "QUIT",
};

struct client {
	struct client_opts opts;
	struct route_result route; /* of the present or last job */
	bool dead; /* freed at the end of this turn of the loop, so callbacks on the stack may look
	            */
	enum state state;
	/* connection */
	struct conn *conn;
	struct loop_timer *kick;     /* connection work that must not run inside a callback of the
	                                connection it replaces; the end of waiting */
	size_t next;                 /* the target to try next */
	unsigned sessions;           /* connections that came about for this job */
	struct dns_target target;    /* the present one */
	char peer[INET6_ADDRSTRLEN]; /* its address */
	bool no_tls;                 /* the handshake failed with this address */
	bool has_8bitmime, has_size, has_pipelining, has_starttls;
	enum login_mechanism login; /* the best that is offered */
	unsigned login_step;
	unsigned deliveries; /* on this connection */
	/* transaction */
	struct queue_job *job; /* NULL between two */
	client_on_done *on_done;
	void *arg;
	bool is_unproven;               /* on a kept connection, and MAIL is not answered */
	struct queue_outcome *outcomes; /* in the job's arena */
	bool *settled;
	bool *accepted;
	size_t *todo; /* the recipients of this transaction */
	size_t todo_count, accepted_count;
	bool mail_sent, mail_answered;
	size_t rcpt_sent, rcpt_answered;
	struct data_out out;
	uint64_t sent;     /* octets of the body file read so far */
	struct reply last; /* why the last address did not do; code 0 with words without a reply */
};

static void on_open(void *arg);
static void on_secure(void *arg);
static void on_input(void *arg);
static void on_drained(void *arg);
static void on_end(void *arg, enum conn_end why);
static void on_kick(void *arg);
static void begin_transaction(struct client *client);

static const struct conn_events events = {
    .on_open = on_open,
    .on_secure = on_secure,
    .on_input = on_input,
    .on_drained = on_drained,
    .on_end = on_end,
};

/* ---- outcomes */

static void
log_outcome(const struct queue_job *job, size_t i, const struct queue_outcome *outcome,
            const char *host, const char *peer)
{
	static const char *const fates[] = {"delivered", "deferred", "failed"};
	char id[QUEUE_ID_TEXT_SIZE], to[ADDRESS_TEXT_SIZE];

	log_info(queue_id_format(&job->id, id), "attempt",
	         "to=<%s> host=%s ip=%s code=%d enhanced=%s fate=%s n=%u text=\"%s\"",
	         address_format(&job->recipients[i].address, to, sizeof to), host[0] ? host : "-",
	         peer[0] ? peer : "-", outcome->reply.code,
	         outcome->reply.enhanced[0] ? outcome->reply.enhanced : "-", fates[outcome->fate],
	         job->attempt, outcome->reply.text);
}

static void
settle(struct client *client, size_t i, enum queue_fate fate, const struct reply *reply)
{
	assert(!client->settled[i]);
	client->settled[i] = true;
	client->outcomes[i].fate = fate;
	client->outcomes[i].reply = *reply;
	log_outcome(client->job, i, &client->outcomes[i], client->target.host, client->peer);
}

static void
settle_rest(struct client *client, enum queue_fate fate, const struct reply *reply)
{
	for (size_t i = 0; i < client->job->recipient_count; i++)
		if (!client->settled[i])
			settle(client, i, fate, reply);
}

static enum queue_fate
fate_of(const struct reply *reply)
{
	switch (reply->code / 100) {
	case 5:
		return QUEUE_FAILED;
	default: /* 4xx, and what makes no sense here */
		return QUEUE_DEFERRED;
	}
}

static void __attribute__((format(printf, 3, 4)))
put_words(struct reply *reply, const char *status, const char *format, ...)
{
	va_list args;

	memset(reply, 0, sizeof *reply);
	snprintf(reply->enhanced, sizeof reply->enhanced, "%s", status);
	va_start(args, format);
	vsnprintf(reply->text, sizeof reply->text, format, args);
	va_end(args);
}

const struct queue_outcome *
client_no_contact(struct queue_job *job, const struct reply *why)
{
	struct queue_outcome *outcomes =
	    arena_alloc(job->arena, job->recipient_count * sizeof *outcomes);

	for (size_t i = 0; i < job->recipient_count; i++) {
		outcomes[i].index = job->recipients[i].index;
		outcomes[i].fate = why->enhanced[0] == '5' ? QUEUE_FAILED : QUEUE_DEFERRED;
		outcomes[i].reply = *why;
		log_outcome(job, i, &outcomes[i], "", "");
	}
	return outcomes;
}

/* ---- life */

struct client *
client_new(const struct client_opts *opts)
{
	struct client *client = xcalloc(1, sizeof *client);

	client->opts = *opts;
	client->kick = loop_timer_new(opts->loop, on_kick, client);
	return client;
}

static uint16_t
port_of(const struct dns_target *target)
{
	return target->addr.ss_family == AF_INET6
	           ? ((const struct sockaddr_in6 *)&target->addr)->sin6_port
	           : ((const struct sockaddr_in *)&target->addr)->sin_port;
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

bool
client_suits(const struct client *client, const struct route_result *route)
{
	return client->route.conf == route->conf && find_target(client, route) < route->dns.count;
}

void
client_begin(struct client *client, const struct route_result *route, struct queue_job *job,
             client_on_done *on_done, void *arg)
{
	size_t count = job->recipient_count;

	assert(!client->job && route->dns.count);
	client->route = *route;
	client->job = job;
	client->on_done = on_done;
	client->arg = arg;
	client->outcomes = arena_alloc(job->arena, count * sizeof *client->outcomes);
	client->settled = arena_alloc(job->arena, count * sizeof *client->settled);
	client->accepted = arena_alloc(job->arena, count * sizeof *client->accepted);
	client->todo = arena_alloc(job->arena, count * sizeof *client->todo);
	for (size_t i = 0; i < count; i++)
		client->outcomes[i].index = job->recipients[i].index;
	client->is_unproven = client->state == CLIENT_KEPT;
	client->next = client->is_unproven ? find_target(client, route) + 1 : 0;
	client->sessions = client->is_unproven;
	loop_timer_cancel(client->kick);
	if (client->is_unproven)
		begin_transaction(client);
	else
		loop_timer_arm(client->kick, 0);
}

void
client_free(struct client *client)
{
	client->opts.on_use(client->opts.arg, CLIENT_GONE);
	conn_free(client->conn);
	client->conn = NULL;
	loop_timer_free(client->kick);
	client->kick = NULL;
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

enum farewell { DROP, QUIT, STAY };

/* Everything is settled: ends the attempt, and says what becomes of the connection. The client may
 * be gone afterwards. */
static void
finish(struct client *client, enum farewell farewell)
{
	client_on_done *on_done = client->on_done;
	void *arg = client->arg;
	const struct queue_outcome *outcomes = client->outcomes;
	size_t count = client->job->recipient_count;

	for (size_t i = 0; i < count; i++)
		assert(client->settled[i]);
	client->job = NULL;
	if (farewell == STAY && ++client->deliveries < client->opts.conf->relay_deliveries)
		keep(client);
	else if (farewell != DROP && client->conn)
		quit(client);
	else
		client_free(client);
	on_done(arg, outcomes, count);
}

/* This address (or this connection) is of no use, for the reason in client->last. */
static void
give_up_address(struct client *client)
{
	conn_free(client->conn);
	client->conn = NULL;
	client->state = CLIENT_CONNECTING;
	client->no_tls = false;
	loop_timer_arm(client->kick, 0);
}

/* The kept connection is of no use any more: the job gets one of its own. */
static void
begin_again(struct client *client)
{
	client->next = 0;
	client->sessions = 0;
	client->is_unproven = false;
	give_up_address(client);
}

static bool
has_next(const struct client *client)
{
	return client->next < client->route.dns.count && client->sessions < SESSIONS_MAX;
}

/* Whoever is unsettled goes to the next host. Without one they are deferred, each for what it was
 * told, else for this reason. The client may be gone afterwards. */
static void
defer_rest(struct client *client, const struct reply *why, enum farewell farewell)
{
	bool rest = false;

	for (size_t i = 0; i < client->job->recipient_count; i++)
		rest |= !client->settled[i];
	if (rest && has_next(client)) {
		client->last = *why;
		give_up_address(client);
		return;
	}
	for (size_t i = 0; i < client->job->recipient_count; i++)
		if (!client->settled[i])
			settle(client, i, QUEUE_DEFERRED,
			       client->outcomes[i].reply.code ? &client->outcomes[i].reply : why);
	finish(client, farewell);
}

static void
next_address(struct client *client)
{
	const struct dns_target *target = &client->target;

	if (!has_next(client)) {
		defer_rest(client, &client->last, DROP);
		return;
	}
	client->target = client->route.dns.list[client->next++];
	if (target->addr.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)&target->addr)->sin6_addr,
		          client->peer, sizeof client->peer);
	else
		inet_ntop(AF_INET, &((const struct sockaddr_in *)&target->addr)->sin_addr,
		          client->peer, sizeof client->peer);
	client->state = CLIENT_CONNECTING;
	client->deliveries = 0;
	client->conn = conn_connect(client->opts.loop, (const struct sockaddr *)&target->addr,
	                            target->len, INPUT_MAX, &events, client);
	if (!client->conn) {
		put_words(&client->last, "4.4.1", "%s [%s]: cannot connect", target->host,
		          client->peer);
		give_up_address(client);
		return;
	}
	conn_set_timeout(client->conn, client->opts.conf->connect_timeout);
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

static void
try_in_clear(struct client *client)
{
	client->next--;
	client->sessions--;
	give_up_address(client);
	client->no_tls = true;
}

/* ---- commands */

static void
set_state(struct client *client, enum state state)
{
	const struct conf *conf = client->opts.conf;
	msec_t timeout = conf->reply_timeout;

	client->state = state;
	if (state == CLIENT_DATA || state == CLIENT_BODY)
		timeout = conf->relay_data_timeout;
	else if (state == CLIENT_FINAL)
		timeout = conf->final_timeout;
	conn_set_timeout(client->conn, timeout);
}

static void __attribute__((format(printf, 2, 3)))
say(struct client *client, const char *format, ...)
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
say_hello(struct client *client, enum state state)
{
	client->has_8bitmime = client->has_size = client->has_pipelining = client->has_starttls =
	    false;
	client->login = LOGIN_NONE;
	set_state(client, state);
	say(client, "%s %.255s\r\n", state == CLIENT_EHLO ? "EHLO" : "HELO",
	    client->opts.conf->hostname);
}

static void
say_envelope(struct client *client)
{
	const struct queue_job *job = client->job;
	size_t window = client->has_pipelining ? PIPELINE : 1;
	char text[ADDRESS_TEXT_SIZE];

	if (!client->mail_sent) {
		char size[40] = "";
		if (client->has_size)
			snprintf(size, sizeof size, " SIZE=%llu",
			         (unsigned long long)job->prefix_len + job->body_size);
		say(client, "MAIL FROM:<%s>%s%s\r\n", address_format(&job->from, text, sizeof text),
		    size, client->has_8bitmime && job->body_8bit ? " BODY=8BITMIME" : "");
		client->mail_sent = true;
	}
	while (client->rcpt_sent < client->todo_count &&
	       client->rcpt_sent - client->rcpt_answered + (client->mail_answered ? 0 : 1) <
	           window) {
		say(client, "RCPT TO:<%s>\r\n",
		    address_format(&job->recipients[client->todo[client->rcpt_sent]].address, text,
		                   sizeof text));
		client->rcpt_sent++;
	}
}

static void
begin_transaction(struct client *client)
{
	client->todo_count = client->accepted_count = 0;
	client->mail_sent = client->mail_answered = false;
	client->rcpt_sent = client->rcpt_answered = 0;
	client->sent = 0;
	for (size_t i = 0; i < client->job->recipient_count; i++) {
		client->accepted[i] = false;
		if (!client->settled[i])
			client->todo[client->todo_count++] = i;
	}
	set_state(client, CLIENT_ENVELOPE);
	say_envelope(client);
}

static void
sink(void *arg, const uint8_t *data, size_t len)
{
	struct client *client = arg;
	conn_write(client->conn, data, len);
}

/* Writes content while the connection takes it; the final dot when all is out. */
static void
pump(struct client *client)
{
	struct queue_job *job = client->job;
	static uint8_t block[BLOCK]; /* one loop, one thread */

	set_state(client, CLIENT_BODY);
	while (client->sent < job->body_size && conn_pending(client->conn) < CONN_OUTPUT_HIGH) {
		uint64_t left = job->body_size - client->sent;
		ssize_t n = pread(job->body_fd, block, left < BLOCK ? (size_t)left : BLOCK,
		                  (off_t)(job->body_offset + client->sent));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			char id[QUEUE_ID_TEXT_SIZE];
			struct reply words;
			log_error(queue_id_format(&job->id, id), "body-unreadable",
			          "offset=%llu error=\"%s\"",
			          (unsigned long long)(job->body_offset + client->sent),
			          n ? strerror(errno) : "file too short");
			put_words(&words, "4.3.0", "our copy of the message could not be read");
			settle_rest(client, QUEUE_DEFERRED, &words);
			finish(client, DROP); /* no dot: the server must not take half a message */
			return;
		}
		data_out_feed(&client->out, block, (size_t)n, sink, client);
		client->sent += (uint64_t)n;
	}
	if (client->sent == job->body_size) {
		queue_job_final(job);
		data_out_end(&client->out, sink, client);
		set_state(client, CLIENT_FINAL);
	}
}

/* ---- TLS and login */

static enum conf_tls
tls_of(const struct client *client)
{
	return client->route.conf ? client->route.conf->tls : CONF_TLS_MAY;
}

/* This host is no good as it is, for a reason the operator should hear. */
static void __attribute__((format(printf, 3, 4)))
refuse_host(struct client *client, const char *status, const char *format, ...)
{
	char why[REPLY_TEXT_MAX], id[QUEUE_ID_TEXT_SIZE];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	put_words(&client->last, status, "%s [%s]: %s", client->target.host, client->peer, why);
	log_warn(queue_id_format(&client->job->id, id), "host-refused",
	         "host=%s ip=%s error=\"%s\"", client->target.host, client->peer, why);
	give_up_address(client);
}

/* A handshake was not or cannot be done. */
static void
tls_failed(struct client *client, const char *why)
{
	char id[QUEUE_ID_TEXT_SIZE];

	if (tls_of(client) != CONF_TLS_MAY) {
		refuse_host(client, "4.7.5", "%s", why);
		return;
	}
	log_info(queue_id_format(&client->job->id, id), "tls-failed", "host=%s ip=%s error=\"%s\"",
	         client->target.host, client->peer, why);
	try_in_clear(client);
}

static void
start_tls(struct client *client)
{
	const bool verify = tls_of(client) >= CONF_TLS_VERIFY;
	struct tls_client *tls = verify ? client->opts.tls_verifying : client->opts.tls;

	if (!tls) {
		refuse_host(client, "4.7.5", "relay.ca_file has no certificates to verify it with");
	} else if (conn_start_tls_client(client->conn, tls, client->target.host)) {
		tls_failed(client, "TLS cannot start here");
	} else {
		client->state = CLIENT_HANDSHAKE;
		conn_set_timeout(client->conn, client->opts.conf->handshake_timeout);
	}
}

/* The next line of the login. The client may have given up this host afterwards. */
static void
say_login(struct client *client)
{
	char line[LOGIN_LINE_SIZE];
	size_t len = login_line(client->login, client->login_step++, client->route.conf->user,
	                        client->route.password, line);

	if (!len) {
		refuse_host(client, "4.7.8", "it asks for more than user and password");
		return;
	}
	assert(conn_is_secure(client->conn));
	set_state(client, CLIENT_LOGIN);
	conn_write(client->conn, line, len);
	conn_write(client->conn, "\r\n", 2);
	mem_wipe(line, sizeof line);
}

/* After the reply to EHLO or HELO: whatever must come before mail. */
static void
prepare_session(struct client *client)
{
	const struct conf_route *conf = client->route.conf;
	const enum conf_tls tls = tls_of(client);
	const bool secure = conn_is_secure(client->conn);

	if (!secure && client->has_starttls && tls != CONF_TLS_NONE && !client->no_tls) {
		set_state(client, CLIENT_STARTTLS);
		say(client, "STARTTLS\r\n");
	} else if (!secure && tls >= CONF_TLS_REQUIRE) {
		refuse_host(client, "4.7.4", "TLS is required, and not offered");
	} else if (!conf || !conf->user[0]) {
		begin_transaction(client);
	} else if (!client->route.password) {
		refuse_host(client, "4.7.8", "there is no password to log in with");
	} else if (client->login == LOGIN_NONE) {
		refuse_host(client, "4.7.8", "it offers neither AUTH PLAIN nor LOGIN");
	} else {
		client->login_step = 0;
		say_login(client);
	}
}

/* ---- replies */

static void
on_ehlo_line(void *arg, const char *text, size_t len)
{
	struct client *client = arg;
	size_t word = 0;

	while (word < len && text[word] != ' ')
		word++;
#define IS(keyword) (word == sizeof(keyword) - 1 && !strncasecmp(text, (keyword), word))
	if (IS("8BITMIME"))
		client->has_8bitmime = true;
	else if (IS("SIZE"))
		client->has_size = true;
	else if (IS("PIPELINING"))
		client->has_pipelining = true;
	else if (IS("STARTTLS"))
		client->has_starttls = true;
	else if (login_offered(text, len) > client->login)
		client->login = login_offered(text, len);
#undef IS
}

static void
on_rcpt_reply(struct client *client, const struct reply *reply)
{
	size_t i = client->todo[client->rcpt_answered++];

	if (reply->code / 100 == 2) {
		client->accepted[i] = true;
		client->accepted_count++;
		memset(&client->outcomes[i].reply, 0, sizeof client->outcomes[i].reply);
		return;
	}
	/* RFC 5321 section 4.5.3.1.10: 552 from old servers means "too many recipients", to be
	 * tried again. */
	if (fate_of(reply) == QUEUE_FAILED &&
	    !(reply->code == 552 && (!reply->enhanced[0] || !strcmp(reply->enhanced, "5.5.3"))))
		settle(client, i, QUEUE_FAILED, reply);
	else
		client->outcomes[i].reply = *reply;
}

/* A reply that decides about everybody in the transaction. The client may be gone afterwards. */
static void
end_transaction(struct client *client, const struct reply *reply, enum farewell farewell)
{
	if (fate_of(reply) == QUEUE_FAILED)
		settle_rest(client, QUEUE_FAILED, reply);
	defer_rest(client, reply, farewell);
}

static void
on_envelope_reply(struct client *client, const struct reply *reply)
{
	assert(client->job);
	if (!client->mail_answered) {
		if (client->is_unproven && reply->code / 100 != 2) {
			begin_again(client);
			return;
		}
		client->is_unproven = false;
		client->mail_answered = true;
		if (reply->code == 530) { /* it wants TLS or a login (RFC 3207, RFC 4954) */
			defer_rest(client, reply, QUIT);
			return;
		}
		if (reply->code / 100 != 2) {
			end_transaction(client, reply, QUIT);
			return;
		}
	} else if (client->rcpt_answered < client->rcpt_sent) {
		on_rcpt_reply(client, reply);
	}
	if (client->rcpt_answered < client->todo_count) {
		set_state(client, CLIENT_ENVELOPE);
		say_envelope(client);
	} else if (client->accepted_count) {
		set_state(client, CLIENT_DATA);
		say(client, "DATA\r\n");
	} else {
		defer_rest(client, reply, QUIT);
	}
}

/* The answer to DATA or to the whole message, for those whom the server took. The client may be
 * gone afterwards. */
static void
on_data_reply(struct client *client, enum queue_fate fate, const struct reply *reply,
              enum farewell farewell)
{
	for (size_t i = 0; i < client->job->recipient_count; i++) {
		if (!client->accepted[i])
			continue;
		if (fate != QUEUE_DEFERRED)
			settle(client, i, fate, reply);
		else
			client->outcomes[i].reply = *reply;
	}
	defer_rest(client, reply, farewell);
}

/* One reply. The client may be gone afterwards. */
static void
on_reply(struct client *client, const struct reply *reply)
{
	bool good = reply->code / 100 == 2;

	if (reply->code == 421 && client->job && client->state >= CLIENT_ENVELOPE &&
	    !client->is_unproven) {
		defer_rest(client, reply, DROP);
		return;
	}
	switch (client->state) {
	case CLIENT_GREETING:
		if (reply->code != 220) {
			client->last = *reply;
			give_up_address(client);
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
			give_up_address(client);
		} else {
			prepare_session(client);
		}
		return;
	case CLIENT_STARTTLS:
		if (good) {
			start_tls(client);
		} else if (reply->code == 421 || tls_of(client) != CONF_TLS_MAY) {
			client->last = *reply;
			give_up_address(client);
		} else {
			begin_transaction(client);
		}
		return;
	case CLIENT_LOGIN:
		if (reply->code == 235)
			begin_transaction(client);
		else if (reply->code == 334)
			say_login(client);
		else
			refuse_host(client, "4.7.8", "our login was refused: %d %s%s%s",
			            reply->code, reply->enhanced, reply->enhanced[0] ? " " : "",
			            reply->text);
		return;
	case CLIENT_ENVELOPE:
		on_envelope_reply(client, reply);
		return;
	case CLIENT_DATA:
		if (reply->code == 354) {
			const struct queue_job *job = client->job;
			data_out_init(&client->out);
			data_out_feed(&client->out, job->prefix, job->prefix_len, sink, client);
			pump(client);
			return;
		}
		on_data_reply(client, fate_of(reply), reply, QUIT);
		return;
	case CLIENT_FINAL:
		if (conn_pending(client->conn) == 0) {
			on_data_reply(client, good ? QUEUE_DELIVERED : fate_of(reply), reply,
			              good ? STAY : QUIT);
			return;
		}
		/* The final dot is still here. */
		/* fall through */
	case CLIENT_BODY: /* an answer to a message that is not complete: refused early, or nonsense
	                   */
		on_data_reply(client, fate_of(reply), reply, DROP);
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
on_open(void *arg)
{
	struct client *client = arg;

	client->sessions++;
	if (tls_of(client) == CONF_TLS_IMPLICIT)
		start_tls(client);
	else
		set_state(client, CLIENT_GREETING);
}

static void
on_secure(void *arg)
{
	struct client *client = arg;

	if (tls_of(client) == CONF_TLS_IMPLICIT)
		set_state(client, CLIENT_GREETING);
	else
		say_hello(client, CLIENT_EHLO);
}

/* How the connection ended, for whatever it was doing. The client may be gone afterwards. */
static void
lost(struct client *client, const char *why)
{
	if (!client->job) {
		client_free(client);
		return;
	}
	if (client->is_unproven) {
		begin_again(client);
		return;
	}
	put_words(&client->last, client->state < CLIENT_EHLO ? "4.4.1" : "4.4.2",
	          "%s [%s]: %s (%s)", client->target.host, client->peer, why,
	          state_words[client->state]);
	if (client->state == CLIENT_HANDSHAKE) {
		tls_failed(client, why);
	} else if (client->state < CLIENT_ENVELOPE) {
		give_up_address(client);
	} else {
		if (client->state == CLIENT_FINAL) /* it may have the message */
			client->next = client->route.dns.count;
		defer_rest(client, &client->last, DROP);
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
		                client->state == CLIENT_EHLO ? on_ehlo_line : NULL, client);
		if (n == 0 && len < INPUT_MAX)
			break;
		if (n <= 0) {
			lost(client, "the server's answer is no SMTP reply");
			break;
		}
		conn_consume(client->conn, (size_t)n);
		on_reply(client, &reply);
	}
}

static void
on_drained(void *arg)
{
	struct client *client = arg;

	if (client->state == CLIENT_BODY)
		pump(client);
}

static void
on_end(void *arg, enum conn_end why)
{
	struct client *client = arg;

	lost(client, why == CONN_EOF       ? "the server closed the connection"
	             : why == CONN_TIMEOUT ? "timed out"
	                                   : conn_error(client->conn));
}
