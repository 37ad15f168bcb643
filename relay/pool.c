#include "relay/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "core/mem.h"

/* A connection that waits for work, or for a server's answer to its QUIT, costs a descriptor which
 * an attempt may need: such a one goes at once, the oldest first, when a new connection would be
 * one too many. Of those that wait, the one used last is used again, so that the others grow old.
 */

TAILQ_HEAD(members, member);

struct member {
	TAILQ_ENTRY(member) link;
	struct members *in; /* one of the pool's lists */
	struct pool *pool;
	struct client *client;
};

struct pool {
	struct client_opts client; /* what all clients have in common */
	size_t max, count;
	struct members busy;
	struct members idle, leaving; /* in the order they came here */
	loop_callback *on_empty;      /* NULL: not retired */
	void *arg;
};

struct pool *
pool_new(const struct client_opts *opts, size_t max)
{
	struct pool *pool = xcalloc(1, sizeof *pool);

	pool->client = *opts;
	pool->max = max;
	TAILQ_INIT(&pool->busy);
	TAILQ_INIT(&pool->idle);
	TAILQ_INIT(&pool->leaving);
	return pool;
}

static void
move(struct member *member, struct members *to)
{
	if (member->in)
		TAILQ_REMOVE(member->in, member, link);
	member->in = to;
	TAILQ_INSERT_TAIL(to, member, link);
}

static void
tell_empty(struct pool *pool)
{
	if (pool->on_empty && !pool->count)
		loop_defer(pool->client.loop, pool->on_empty, pool->arg);
}

static void
on_use(void *arg, enum client_use use)
{
	struct member *member = arg;
	struct pool *pool = member->pool;

	switch (use) {
	case CLIENT_IDLE:
		move(member, &pool->idle);
		if (pool->on_empty)
			client_leave(member->client);
		return;
	case CLIENT_LEAVING:
		move(member, &pool->leaving);
		return;
	case CLIENT_GONE:
		TAILQ_REMOVE(member->in, member, link);
		pool->count--;
		free(member);
		tell_empty(pool);
		return;
	}
}

void
pool_retire(struct pool *pool, loop_callback *on_empty, void *arg)
{
	struct member *member;

	pool->on_empty = on_empty;
	pool->arg = arg;
	TAILQ_FOREACH(member, &pool->idle, link)
	client_leave(member->client);
	tell_empty(pool);
}

bool
pool_is_empty(const struct pool *pool)
{
	return !pool->count;
}

void
pool_free(struct pool *pool)
{
	assert(!pool->count);
	free(pool);
}

static struct member *
member_new(struct pool *pool)
{
	struct member *member = xcalloc(1, sizeof *member);
	struct client_opts opts = pool->client;

	if (pool->count == pool->max) {
		struct member *oldest = TAILQ_FIRST(&pool->leaving);
		if (!oldest)
			oldest = TAILQ_FIRST(&pool->idle);
		assert(oldest);
		client_free(oldest->client);
	}
	pool->count++;
	member->pool = pool;
	opts.on_use = on_use;
	opts.arg = member;
	member->client = client_new(&opts);
	return member;
}

struct client *
pool_begin(struct pool *pool, const struct route_result *route, struct queue_job *job,
           client_on_done *on_done, void *arg)
{
	struct member *member;

	TAILQ_FOREACH_REVERSE(member, &pool->idle, members, link)
	{
		if (client_suits(member->client, route, job))
			break;
	}
	if (!member)
		member = member_new(pool);
	move(member, &pool->busy);
	client_begin(member->client, route, job, on_done, arg);
	return member->client;
}
