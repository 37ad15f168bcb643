/* Who comes next: start-time fair queueing over accounts. Pure; no clock, no memory of its own.
 *
 * Each lane has a virtual time, which the job that is served last sets. A job gets a tag when it
 * comes: the later of virtual time and its account's last tag, plus what it costs; jobs are served
 * in order of tag. So an account's jobs follow one another at a distance of their cost, whoever
 * else is there, and the first job of an account that had nothing waiting comes after at most one
 * job of each other account. That is deficit round robin without waiting for a round to end. */
#ifndef QUEUE_FAIR_H
#define QUEUE_FAIR_H

#include <stdint.h>

#define FAIR_RECIPIENT 64           /* what one recipient costs */
#define FAIR_OCTETS    (64u * 1024) /* octets of content that cost as much */

struct fair { /* a lane; all zero to begin with */
	int64_t now;
};
struct fair_account { /* in it; all zero to begin with, and again once nothing of it waits */
	int64_t last;
};

int64_t fair_cost(unsigned recipients, uint64_t octets);
/* The tag of a job that comes now. */
int64_t fair_enter(const struct fair *fair, struct fair_account *account, int64_t cost);
/* The job with that tag is served. */
void fair_serve(struct fair *fair, int64_t tag);

#endif
