/* A connection to one of several addresses: who answers first, with a head start for those that
 * come first (RFC 8305 section 5). */
#ifndef RELAY_DIAL_H
#define RELAY_DIAL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/conn.h"
#include "relay/dns.h"

#define DIAL_DELAY       250  /* ms until the next address is called beside the one before */
#define DIAL_LATER_DELAY 2000 /* the same for the first address of a less preferred host */

struct dial;

struct dial_events {
	/* Somebody answered; the others were hung up on. The connection is the owner's, who gives
	 * it events of its own (conn_hand_over) before this returns; took: ms since that address
	 * was called. The dial is over. */
	void (*on_open)(void *arg, size_t target, struct conn *conn_take, msec_t took);
	/* One address did not do, because of that; more: others may yet. The dial is over when
	 * there are none. While it is not it must not be freed in here. */
	void (*on_failed)(void *arg, size_t target, const char *why, enum conn_end end, bool more);
};
struct dial_opts {
	struct loop *loop;
	const struct dns_target *targets; /* borrowed, in the order to try */
	size_t count;                     /* at most DNS_TARGETS_MAX */
	unsigned which;                   /* bits: those of them to be called; not 0 */
	const struct queue_egress
	    *egress;      /* borrowed; has an address for each of them, or for all */
	size_t input_max; /* of the connection */
	msec_t timeout;   /* of each address */
};
/* Never calls back before it has returned. */
struct dial *dial_new(const struct dial_opts *opts, const struct dial_events *events, void *arg);
/* Hangs up; no callback follows. NULL is harmless. */
void dial_free(struct dial *dial);

#endif
