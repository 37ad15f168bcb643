#include "queue/egress.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <xxhash.h>

#include "core/mem.h"

/* Problem: receivers judge addresses. A message that comes from another one each time looks like
 * many senders (greylisting begins anew with each); an address that a site has blocked should not
 * be tried there again for a while, without all other mail changing its address, too.
 *
 * Idea: rendezvous hashing. Each address gets a score for the message, and the highest wins. When
 * it is blocked the next highest does, and only mail that would have left from it moves; when it is
 * back, that mail returns.
 *
 * The number of blocks is bounded, the oldest goes first. */

#define BLOCKS_MAX 20000
#define BUCKETS    1024

struct block {
	LIST_ENTRY(block) bucket;
	TAILQ_ENTRY(block) age;
	struct in6_addr source; /* an IPv4 one in IPv6 clothes */
	msec_t until;
	char site[QUEUE_SITE_SIZE];
};

struct egress {
	LIST_HEAD(, block) buckets[BUCKETS];
	TAILQ_HEAD(, block) ages; /* the oldest first */
	size_t count;
	egress_on_block *on_block; /* or NULL */
	void *arg;
};

struct egress *
egress_new(void)
{
	struct egress *egress = xcalloc(1, sizeof(*egress));

	TAILQ_INIT(&egress->ages);
	return egress;
}

void
egress_tell(struct egress *egress, egress_on_block *on_block, void *arg)
{
	egress->on_block = on_block;
	egress->arg = arg;
}

static void
tell(const struct egress *egress, const struct block *block, msec_t until)
{
	char source[INET6_ADDRSTRLEN];

	inet_ntop(AF_INET6, &block->source, source, sizeof(source));
	if (egress->on_block)
		egress->on_block(egress->arg, source, block->site, until);
}

static void
drop(struct egress *egress, struct block *block)
{
	LIST_REMOVE(block, bucket);
	TAILQ_REMOVE(&egress->ages, block, age);
	egress->count--;
	free(block);
}

void
egress_free(struct egress *egress)
{
	while (egress && !TAILQ_EMPTY(&egress->ages))
		drop(egress, TAILQ_FIRST(&egress->ages));
	free(egress);
}

static struct in6_addr
mapped(const struct sockaddr_storage *addr)
{
	struct in6_addr out = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

	if (addr->ss_family == AF_INET6)
		return ((const struct sockaddr_in6 *)addr)->sin6_addr;
	memcpy(out.s6_addr + 12, &((const struct sockaddr_in *)addr)->sin_addr, 4);
	return out;
}

static size_t
bucket_of(const struct in6_addr *source, const char *site)
{
	return XXH3_64bits_withSeed(site, strlen(site), XXH3_64bits(source, sizeof(*source))) %
	       BUCKETS;
}

static struct block *
find(const struct egress *egress, const struct in6_addr *source, const char *site)
{
	struct block *block;

	LIST_FOREACH(block, &egress->buckets[bucket_of(source, site)], bucket)
	{
		if (memcmp(&block->source, source, sizeof(*source)) == 0 &&
		    strcmp(block->site, site) == 0)
			return block;
	}
	return NULL;
}

static bool
parse(const char *source, struct in6_addr *out)
{
	struct sockaddr_storage addr = {.ss_family = AF_INET};

	if (inet_pton(AF_INET, source, &((struct sockaddr_in *)&addr)->sin_addr) != 1) {
		addr.ss_family = AF_INET6;
		if (inet_pton(AF_INET6, source, &((struct sockaddr_in6 *)&addr)->sin6_addr) != 1)
			return false;
	}
	*out = mapped(&addr);
	return true;
}

const struct conf_pool *
egress_pool_of(const struct conf_pools *pools, const char *source)
{
	struct in6_addr key, other;

	if (!parse(source, &key))
		return NULL;
	for (size_t i = 0; i < pools->count; i++) {
		const struct conf_pool *pool = &pools->list[i];

		for (size_t k = 0; k < pool->sources.count; k++) {
			other = mapped(&pool->sources.list[k].addr);
			if (memcmp(&key, &other, sizeof(key)) == 0)
				return pool;
		}
	}
	return NULL;
}

void
egress_block(struct egress *egress, const char *source, const char *site, msec_t until)
{
	struct block *block;
	struct in6_addr key;

	if (!parse(source, &key))
		return;
	block = find(egress, &key, site);
	if (block)
		drop(egress, block);
	if (egress->count == BLOCKS_MAX) {
		tell(egress, TAILQ_FIRST(&egress->ages), 0);
		drop(egress, TAILQ_FIRST(&egress->ages));
	}
	block = xcalloc(1, sizeof(*block));
	block->source = key;
	block->until = until;
	snprintf(block->site, sizeof(block->site), "%s", site);
	LIST_INSERT_HEAD(&egress->buckets[bucket_of(&key, block->site)], block, bucket);
	TAILQ_INSERT_TAIL(&egress->ages, block, age);
	egress->count++;
	tell(egress, block, until);
}

bool
egress_choose(const struct egress *egress, const struct conf_pool *pool, const struct queue_id *id,
              const char *site, msec_t now, struct queue_egress *out)
{
	uint64_t best_v4 = 0, best_v6 = 0;

	memset(out, 0, sizeof(*out));
	if (!pool)
		return true;
	snprintf(out->pool, sizeof(out->pool), "%s", pool->name);
	for (size_t i = 0; i < pool->sources.count; i++) {
		const struct sockaddr_storage *addr = &pool->sources.list[i].addr;
		const struct in6_addr key = mapped(addr);
		const uint64_t score =
		    XXH3_64bits_withSeed(&key, sizeof(key), XXH3_64bits(id, sizeof(*id)));
		const struct block *block = find(egress, &key, site);

		if (block && block->until > now)
			continue;
		if (addr->ss_family == AF_INET6 && (!out->has_v6 || score > best_v6)) {
			out->v6 = ((const struct sockaddr_in6 *)addr)->sin6_addr;
			out->has_v6 = true;
			best_v6 = score;
		} else if (addr->ss_family == AF_INET && (!out->has_v4 || score > best_v4)) {
			out->v4 = ((const struct sockaddr_in *)addr)->sin_addr;
			out->has_v4 = true;
			best_v4 = score;
		}
	}
	return out->has_v4 || out->has_v6;
}
