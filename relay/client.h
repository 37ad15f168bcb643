/* The SMTP client of RFC 5321, with TLS and login as the route wants them: one connection to a
 * host, and one delivery attempt after the other on it. */
#ifndef RELAY_CLIENT_H
#define RELAY_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/conf.h"
#include "core/loop.h"
#include "core/tls.h"
#include "queue/worker.h"
#include "relay/route.h"

struct client;

/* The outcomes (one for each recipient, in their order) live in the job's arena, the contact for
 * the call. The client does not touch the job any more. */
typedef void client_on_done(void *arg, const struct queue_contact *contact,
                            const struct queue_outcome *outcomes, size_t count);

enum client_use {
	CLIENT_IDLE, /* the connection did its work well and waits a while for the next attempt */
	CLIENT_LEAVING, /* it is saying farewell */
	CLIENT_GONE,    /* the client frees itself in this turn of the loop */
};
/* What becomes of a client that has no attempt; CLIENT_GONE comes always, and last. */
typedef void client_on_use(void *arg, enum client_use use);

struct client_opts { /* copied; conf and both tls are borrowed until CLIENT_GONE */
	struct loop *loop;
	const struct conf *conf;
	struct tls_client *tls;           /* unverified */
	struct tls_client *tls_verifying; /* NULL: no certificates to trust; such routes wait */
	client_on_use *on_use;
	void *arg;
};
struct client *client_new(const struct client_opts *opts);
/* Whether an idle client's connection leads to one of the best hosts of the route, and is what the
 * route and the job want. */
bool client_suits(const struct client *client, const struct route_result *route,
                  const struct queue_job *job);
/* Starts an attempt on a client that is new, or idle and suits. The route is copied, with at least
 * one host, and its configuration and password are borrowed for the client's life; the job is
 * borrowed until the attempt is done; on_done is never called before this has returned. */
void client_begin(struct client *client, const struct route_result *route, struct queue_job *job,
                  client_on_done *on_done, void *arg);
/* An idle client says farewell instead of waiting for work. */
void client_leave(struct client *client);
/* Drops attempt and connection at once; on_done is not called, CLIENT_GONE is told. */
void client_free(struct client *client);

/* The outcomes of an attempt that could not even begin, logged as one: failed for a status 5.x.x,
 * else deferred. */
const struct queue_outcome *client_no_contact(struct queue_job *job, const struct reply *why);

#endif
