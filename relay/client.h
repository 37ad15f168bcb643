/* One delivery attempt: the SMTP client's side of RFC 5321 for one job, with opportunistic TLS. */
#ifndef RELAY_CLIENT_H
#define RELAY_CLIENT_H

#include <stddef.h>

#include "core/conf.h"
#include "core/loop.h"
#include "core/tls.h"
#include "queue/worker.h"
#include "relay/route.h"

struct client;

/* The outcomes (one for each recipient, in their order) live in the job's arena. The client does
 * not touch the job any more; it says its farewell to the server and frees itself. */
typedef void client_on_done(void *arg, const struct queue_outcome *outcomes, size_t count);

struct client_opts { /* copied; what it points to is borrowed until the attempt is done, conf and
	                tls for the process's life */
	struct loop *loop;
	const struct conf *conf;
	struct tls_client *tls;
	const struct route_result *route; /* copied; with at least one address */
	struct queue_job *job;
	client_on_done *on_done;
	void *arg;
};

/* Starts the attempt; on_done is never called before this has returned. */
struct client *client_new(const struct client_opts *opts);
/* Drops the attempt at once; on_done is not called. Not after on_done. */
void client_free(struct client *client);

/* The outcomes of an attempt that could not even begin, logged as one: all deferred, with these
 * words. */
const struct queue_outcome *client_no_contact(struct queue_job *job, const char *host,
                                              const char *words);

#endif
