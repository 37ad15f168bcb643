/* What the files of the client share: relay/client.c, the connection, relay/secure.c, what must be
 * true of it, relay/offers.c, what its server offers, and relay/transaction.c, what it carries. */
#ifndef RELAY_CLIENT_INT_H
#define RELAY_CLIENT_INT_H

#include <netinet/in.h>
#include <xxhash.h>

#include "core/conn.h"
#include "relay/client.h"
#include "relay/dial.h"
#include "relay/login.h"
#include "smtp/data.h"

enum client_offer { /* what a server's reply to EHLO offers, a set of bits */
	            OFFER_SIZE = 1 << 0,
	            OFFER_8BITMIME = 1 << 1,
	            OFFER_PIPELINING = 1 << 2,
	            OFFER_STARTTLS = 1 << 3,
	            OFFER_DSN = 1 << 4,
	            OFFER_CHUNKING = 1 << 5,
	            OFFER_BINARYMIME = 1 << 6,
	            OFFER_SMTPUTF8 = 1 << 7,
	            OFFER_REQUIRETLS = 1 << 8,
	            OFFER_MT_PRIORITY = 1 << 9,
	            OFFER_DELIVERBY = 1 << 10,
	            OFFER_LIMITS = 1 << 11,
};
enum client_state {
	CLIENT_CONNECTING, /* no connection yet */
	CLIENT_GREETING,   /* connected, nothing said */
	CLIENT_EHLO,       /* EHLO sent */
	CLIENT_HELO,       /* EHLO refused, HELO sent */
	CLIENT_STARTTLS,   /* STARTTLS sent */
	CLIENT_HANDSHAKE,
	CLIENT_LOGIN,    /* AUTH sent, or the answer to a challenge */
	CLIENT_ENVELOPE, /* MAIL and RCPTs being sent and answered */
	CLIENT_DATA,     /* DATA sent */
	CLIENT_BODY,     /* content being written, after a 354 or in a chunk; not its end yet */
	CLIENT_FINAL,    /* the end of the content may have left */
	CLIENT_RENEW,    /* QUIT sent; the job goes on with a new connection to the same address */
	CLIENT_KEPT,     /* the job is done, the next may come */
	CLIENT_QUIT,     /* the job is done, and so is the connection */
};
struct client_limits {    /* the server's, RFC 9422; 0: it names none */
	unsigned mails;   /* in a session */
	unsigned rcpts;   /* in a transaction */
	unsigned domains; /* in a session */
};
struct client {
	struct client_opts opts;
	struct route_result route; /* of the present or last job */
	bool dead; /* freed at the end of this turn of the loop, so callbacks on the stack may look
	            */
	enum client_state state;
	/* connection */
	struct dial *dial; /* in CLIENT_CONNECTING, under way, or NULL */
	struct conn *conn;
	struct loop_timer *kick;     /* connection work that must not run inside a callback of the
	                                connection it replaces; the end of waiting */
	unsigned left;               /* bits: the route's targets that were not tried yet */
	unsigned again;              /* the only one to try next, as a bit; 0: as left says */
	unsigned sessions;           /* connections that came about for this job */
	struct dns_target target;    /* the present one */
	size_t at;                   /* its place in the route, of a connection made for this job */
	char peer[INET6_ADDRSTRLEN]; /* its address */
	enum conf_tls tls;           /* what its connection is held to */
	bool no_tls;                 /* the handshake failed with this address */
	unsigned offers;             /* enum client_offer */
	msec_t by_least;             /* DELIVERBY: the shortest time it takes; 0: any */
	enum login_mechanism login;  /* the best that is offered */
	unsigned login_step;
	struct client_limits limits;
	struct queue_egress egress;          /* where the connection comes from */
	unsigned mails, rcpts;               /* on this connection */
	unsigned domains;                    /* the same: how often the domain was another one */
	char domain[ADDRESS_DOMAIN_MAX + 1]; /* the last of them */
	struct queue_contact contact;        /* of the present job */
	msec_t asked;                        /* monotonic: since when something is awaited */
	/* transaction */
	struct queue_job *job; /* NULL between two */
	client_on_done *on_done;
	void *arg;
	bool is_unproven;               /* on a kept connection, and MAIL is not answered */
	struct queue_outcome *outcomes; /* in the job's arena */
	bool *settled;
	bool *tried;    /* by this host */
	bool *accepted; /* in this transaction */
	size_t *todo;   /* the recipients of this transaction */
	size_t todo_count, accepted_count;
	bool mail_sent, mail_answered;
	size_t rcpt_sent, rcpt_answered;
	bool chunk;          /* the content goes as one (BDAT), not by DATA */
	struct data_out out; /* means nothing in a chunk */
	uint64_t sent;       /* octets of the body file read so far */
	XXH3_state_t *hash;  /* of them */
	struct reply last; /* why the last address did not do; code 0 with words without a reply */
	bool may_change;   /* some host was not reached, or refused for now: what the others lack is
	                      not the last word */
};

enum client_farewell { DROP, QUIT, STAY };

/* ---- relay/client.c; the client may be gone after those that say so */

/* Sets the timeout of the state too. */
void client_set_state(struct client *client, enum client_state state);
void client_say(struct client *client, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Our own words about a contact that failed, as a reply. */
void client_words(struct reply *reply, const char *status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* This host cannot do what the message needs (5.x.x) or is no use now (4.x.x): the next one, or the
 * end of the attempt. */
void client_cannot(struct client *client, const char *status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Everything is settled: ends the attempt, and says what becomes of the connection. The client may
 * be gone. */
void client_finish(struct client *client, enum client_farewell farewell);
bool client_has_next(const struct client *client);
/* Whether a reason is about what a host is, and not how it is just now. */
bool client_is_lack(const struct reply *why);
/* This host (or this connection) is of no use, for the reason in client->last: the next one, or the
 * end of the attempt. */
void client_next_host(struct client *client);
/* The connection has carried what it may: the job goes on with a new one to the same address. */
void client_renew(struct client *client);
/* The kept connection is of no use any more: the job gets one of its own. */
void client_begin_again(struct client *client);
/* The same address once more, without TLS. */
void client_try_in_clear(struct client *client);

/* ---- relay/secure.c; the client may be gone after all but the first two */

/* What TLS a connection is held to: what the operator says, unless the sender wants more
 * (REQUIRETLS, RFC 8689) or less of it (TLS-Required: No, if not both); a password is never said in
 * clear. */
enum conf_tls secure_wanted(const struct route_result *route, const struct envelope *envelope);
/* RFC 8689 wants to be sure that the host is the domain's: DNSSEC says so, or the operator. */
bool secure_is_doubtful(const struct envelope *envelope, const struct route_result *route,
                        const struct dns_target *target);
void secure_start_tls(struct client *client);
/* A handshake was not or cannot be done; broken: for a reason that is in TLS or the certificate. */
void secure_failed(struct client *client, const char *why, bool broken);
/* After the reply to EHLO or HELO: whatever must come before mail. */
void secure_prepare(struct client *client);
void secure_on_starttls_reply(struct client *client, const struct reply *reply);
void secure_on_login_reply(struct client *client, const struct reply *reply);

/* ---- relay/offers.c */

/* A line of the reply to EHLO, for reply_parse: adds to the client's offers. */
void offers_on_line(void *client, const char *text, size_t len);

/* ---- relay/transaction.c; the client may be gone after all but the first four */

/* Whether the server lacks what this message needs; why, if it is not NULL, says what. */
bool transaction_lacks(const struct client *client, const struct queue_job *job, struct reply *why);
/* How many recipients of the job the next transaction on this connection may have; 0: it has
 * carried what it may. */
size_t transaction_room(const struct client *client, const struct queue_job *job);
/* Nobody is settled yet. */
void transaction_new(struct client *client);
/* Nobody was offered to the host that comes next. */
void transaction_forget_host(struct client *client);
/* Sends MAIL and RCPT for those who are not settled, as many as there is room for. */
void transaction_begin(struct client *client);
/* In CLIENT_ENVELOPE to CLIENT_FINAL. */
void transaction_on_reply(struct client *client, const struct reply *reply);
void transaction_on_drained(struct client *client);
/* Whoever is unsettled goes to the next host. Without one they are deferred, each for what it was
 * told, else for this reason. */
void transaction_defer_rest(struct client *client, const struct reply *why,
                            enum client_farewell farewell);
void transaction_log(const struct queue_job *job, size_t i, const struct queue_outcome *outcome,
                     const char *host, const char *peer, const char *source);

#endif
