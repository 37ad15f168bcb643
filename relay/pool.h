/* The connections of one relay process: which of them carries an attempt, and how many there are.
 */
#ifndef RELAY_POOL_H
#define RELAY_POOL_H

#include "relay/client.h"

struct pool;
/* max: connections at once, those that wait for work or say farewell included. Of opts, on_use and
 * its arg are the pool's. */
struct pool *pool_new(const struct client_opts *opts, size_t max);
/* Connections are not kept any more. on_empty is called whenever the last one has ended, and once
 * if there is none; attempts that are still looking up their hosts may begin on it afterwards. */
void pool_retire(struct pool *pool, loop_callback *on_empty, void *arg);
bool pool_is_empty(const struct pool *pool);
/* Only an empty one. */
void pool_free(struct pool *pool);
/* Starts an attempt (client_begin's contract) on a connection that waits for work to the route's
 * host, or on a new one. No more than max attempts at once. The client is the pool's; client_free
 * drops the attempt. */
struct client *pool_begin(struct pool *pool, const struct route_result *route,
                          struct queue_job *job, client_on_done *on_done, void *arg);

#endif
