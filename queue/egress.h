/* Which of this machine's addresses a message leaves from; which of them are no use at which site.
 * Pure: no I/O, and now is an argument. */
#ifndef QUEUE_EGRESS_H
#define QUEUE_EGRESS_H

#include "core/conf.h"
#include "queue/id.h"
#include "queue/worker.h"

#define EGRESS_BLOCK_TIME (6 * 60 * 60 * 1000) /* msec: how long a block lasts, unless told */

struct egress;

struct egress *egress_new(void);
/* NULL is harmless. */
void egress_free(struct egress *egress);

/* Of each block that begins, and with until 0 of one that gave way: source in a spelling that
 * egress_block takes. */
typedef void egress_on_block(void *arg, const char *source, const char *site, msec_t until);
void egress_tell(struct egress *egress, egress_on_block *on_block, void *arg);

/* Until then nothing leaves for that site from that address, as queue_contact names both. What is
 * no address is ignored. */
void egress_block(struct egress *egress, const char *source, const char *site, msec_t until);
/* The pool that the address is in; NULL: none. */
const struct conf_pool *egress_pool_of(const struct conf_pools *pools, const char *source);
/* The message's own addresses of the pool, one of each family that the pool has: always the same,
 * but for those that are blocked at the site. pool NULL: any address will do. False when none is
 * left: it must wait. */
bool egress_choose(const struct egress *egress, const struct conf_pool *pool,
                   const struct queue_id *id, const char *site, msec_t now,
                   struct queue_egress *out);

#endif
