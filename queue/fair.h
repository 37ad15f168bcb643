/* Who comes next: start-time fair queueing over accounts. Pure; no clock, no memory of its own.
 *
 * Each lane has a virtual time, which the job that is served last sets. A job gets a tag when it
 * comes: the later of virtual time and its account's last tag, plus what it costs; jobs are served
 * in order of tag. So an account's jobs follow one another at a distance of their cost, whoever
 * else is there, and the first job of an account that had nothing waiting comes after at most one
 * job of each other account. That is deficit round robin without waiting for a round to end. An
 * account of weight n counts as n of weight 1: its jobs follow one another n times as close. */
#ifndef QUEUE_FAIR_H
#define QUEUE_FAIR_H

#include <stdint.h>

#define FAIR_RECIPIENT 6400         /* what one recipient costs: much for any weight, up to 100 */
#define FAIR_OCTETS    (64u * 1024) /* octets of content that cost as much */

struct fair { /* a lane; all zero to begin with */
	int64_t now;
};
struct fair_account { /* in it; all zero to begin with, and again once nothing of it waits */
	int64_t last;
};

int64_t fair_cost(unsigned recipients, uint64_t octets);
/* The tag of a job that comes now. */
int64_t fair_enter(const struct fair *fair, struct fair_account *account, int64_t cost,
                   unsigned weight);
/* What a tag that the account has would be if it had had another weight since it came. */
int64_t fair_reweigh(const struct fair *fair, int64_t tag, unsigned was, unsigned is);
/* The job with that tag is served. */
void fair_serve(struct fair *fair, int64_t tag);

#endif
