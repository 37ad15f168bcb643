/* Where the mail for a domain goes: static routes, and the addresses of their hosts. */
#ifndef RELAY_ROUTE_H
#define RELAY_ROUTE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/conf.h"
#include "core/loop.h"

#define ROUTE_ADDRESSES_MAX 8

struct route_address {
	struct sockaddr_storage addr;
	socklen_t len;
};
struct route_result {
	const char *host; /* as configured, for log and SNI; "" when there is no route */
	uint16_t port;
	const char *error; /* NULL, or why there is no address, in words for the sender */
	size_t count;
	struct route_address list[ROUTE_ADDRESSES_MAX];
};

struct route;        /* the resolver of one process */
struct route_lookup; /* one question */

struct route *route_new(struct loop *loop);
/* Lookups still under way are forgotten. */
void route_free(struct route *route);

typedef void route_on_done(void *arg, const struct route_result *result);
/* Calls back once, never before it has returned; the result is borrowed for the call, and the
 * lookup is over when it is called. */
struct route_lookup *route_find(struct route *route, const struct conf *conf, const char *domain,
                                route_on_done *on_done, void *arg);
/* No callback follows. NULL is harmless. */
void route_cancel(struct route_lookup *lookup);

#endif
