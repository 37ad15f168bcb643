#include "queue/fair.h"

/* Self-clocked: virtual time is the tag of what is served, so nothing has to be simulated. It never
 * runs backwards, though a job that could not go in its turn is served with a tag of long ago. What
 * an account is remembered for is its last tag only, and that only while it is ahead of virtual
 * time: once all its jobs are served it is not. */

int64_t
fair_cost(unsigned recipients, uint64_t octets)
{
	return (int64_t)recipients * FAIR_RECIPIENT +
	       (int64_t)(octets * FAIR_RECIPIENT / FAIR_OCTETS);
}

int64_t
fair_enter(const struct fair *fair, struct fair_account *account, int64_t cost, unsigned weight)
{
	if (account->last < fair->now)
		account->last = fair->now;
	account->last += cost / weight;
	return account->last;
}

int64_t
fair_reweigh(const struct fair *fair, int64_t tag, unsigned was, unsigned is)
{
	return tag > fair->now ? fair->now + (tag - fair->now) * was / is : tag;
}

void
fair_serve(struct fair *fair, int64_t tag)
{
	if (tag > fair->now)
		fair->now = tag;
}
