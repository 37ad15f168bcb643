#include "queue/egress.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "t/unit/tap.h"

/* Setup: a pool of four IPv4 and two IPv6 addresses, one of a single address, and 1,000 messages.
 * Expectation: a message always leaves from the same address; messages spread over all; a block at
 * a site moves the mail of that address at that site and nobody else's, until it is over. */

#define MESSAGES 1000

static struct queue_id ids[MESSAGES];

static struct conf_pool
pool_of(const char *const *sources)
{
	struct conf_pool pool = {.name = (char *)"clean"};

	for (; *sources; sources++) {
		struct conf_address *slot;

		pool.sources.list = xreallocarray(pool.sources.list, pool.sources.count + 1,
		                                  sizeof *pool.sources.list);
		slot = &pool.sources.list[pool.sources.count++];
		memset(slot, 0, sizeof *slot);
		if (strchr(*sources, ':')) {
			slot->addr.ss_family = AF_INET6;
			inet_pton(AF_INET6, *sources,
			          &((struct sockaddr_in6 *)&slot->addr)->sin6_addr);
			slot->len = sizeof(struct sockaddr_in6);
		} else {
			slot->addr.ss_family = AF_INET;
			inet_pton(AF_INET, *sources,
			          &((struct sockaddr_in *)&slot->addr)->sin_addr);
			slot->len = sizeof(struct sockaddr_in);
		}
	}
	return pool;
}

static void
test_spread(const struct conf_pool *pool)
{
	struct egress *egress = egress_new();
	unsigned n[5] = {0}, stable = 0, both = 0, moved = 0, others = 0, back = 0;
	struct queue_egress was[MESSAGES];

	for (size_t i = 0; i < MESSAGES; i++) {
		struct queue_egress again;

		both += egress_choose(egress, pool, &ids[i], "a.example", 1000, &was[i]) &&
		        was[i].has_v4 && was[i].has_v6 && !strcmp(was[i].pool, "clean");
		egress_choose(egress, pool, &ids[i], "b.example", 5000, &again);
		stable += !memcmp(&again, &was[i], sizeof again);
		n[ntohl(was[i].v4.s_addr) & 7]++;
	}
	ok(both == MESSAGES, "an address of each family");
	ok(stable == MESSAGES, "the same each time, at any site");
	ok(n[1] > 150 && n[2] > 150 && n[3] > 150 && n[4] > 150, "all addresses have their share");
	egress_block(egress, "192.0.2.2", "a.example", 2000);
	for (size_t i = 0; i < MESSAGES; i++) {
		const bool own = (ntohl(was[i].v4.s_addr) & 7) == 2;
		struct queue_egress now;

		egress_choose(egress, pool, &ids[i], "a.example", 1999, &now);
		moved += own && (ntohl(now.v4.s_addr) & 7) != 2 &&
		         !memcmp(&now.v6, &was[i].v6, sizeof now.v6);
		others += !own && !memcmp(&now, &was[i], sizeof now);
		egress_choose(egress, pool, &ids[i], "a.example", 2000, &now);
		back += !memcmp(&now, &was[i], sizeof now);
		egress_choose(egress, pool, &ids[i], "b.example", 1999, &now);
		back += !memcmp(&now, &was[i], sizeof now);
	}
	ok(moved == n[2], "who would leave from a blocked address leaves from another");
	ok(others == MESSAGES - n[2], "nobody else moves");
	ok(back == 2 * MESSAGES, "nor at another site, nor when the block is over");
	egress_free(egress);
}

static struct egress *copy; /* made of what was told */
static unsigned begun, dropped;

static void
on_block(void *arg, const char *source, const char *site, msec_t until)
{
	(void)arg;
	begun += until > 0;
	dropped += until == 0;
	if (until > 0)
		egress_block(copy, source, site, until);
}

static void
test_none_left(const struct conf_pool *pool)
{
	struct egress *egress = egress_new();
	struct queue_egress out;

	copy = egress_new();
	egress_tell(egress, on_block, NULL);
	ok(egress_choose(egress, NULL, &ids[0], "a.example", 0, &out) && !out.pool[0],
	   "without a pool any address will do");
	egress_block(egress, "2001:db8::1", "a.example", 2000);
	ok(egress_choose(egress, pool, &ids[0], "a.example", 1000, &out) && out.has_v4 &&
	       !out.has_v6,
	   "a block of one family leaves the other");
	egress_block(egress, "192.0.2.9", "a.example", 3000);
	ok(!egress_choose(egress, pool, &ids[0], "a.example", 1000, &out) && out.pool[0],
	   "with all blocked there is none");
	ok(!egress_choose(copy, pool, &ids[0], "a.example", 1000, &out),
	   "nor for who was told of them, in either family");
	egress_block(egress, "192.0.2.9", "a.example", 500);
	ok(egress_choose(egress, pool, &ids[0], "a.example", 1000, &out),
	   "a later word about the same counts");
	egress_block(egress, "no address", "a.example", 3000);
	for (unsigned i = 0; i < 50000; i++) {
		char site[32];

		snprintf(site, sizeof site, "s%u.example", i);
		egress_block(egress, "192.0.2.9", site, 9000);
	}
	egress_choose(egress, pool, &ids[0], "s49999.example", 1000, &out);
	ok(!out.has_v4, "of too many blocks the last ones are kept");
	egress_choose(egress, pool, &ids[0], "s0.example", 1000, &out);
	ok(out.has_v4, "and the first ones go");
	egress_choose(copy, pool, &ids[0], "s49999.example", 1000, &out);
	ok(!out.has_v4, "each is told");
	ok(begun == 50003 && dropped == 30002, "and what gives way");
	egress_free(copy);
	egress_free(egress);
	egress_free(NULL);
}

int
main(void)
{
	struct conf_pool clean =
	    pool_of((const char *const[]){"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4",
	                                  "2001:db8::1", "2001:db8::2", NULL});
	struct conf_pool small = pool_of((const char *const[]){"192.0.2.9", "2001:db8::1", NULL});

	for (size_t i = 0; i < MESSAGES; i++)
		for (size_t j = 0; j < sizeof ids[i].octets; j++)
			ids[i].octets[j] = (uint8_t)(i * 31 + j * 7 + (i >> 8));
	test_spread(&clean);
	test_none_left(&small);
	free(clean.sources.list);
	free(small.sources.list);
	return tap_end();
}
