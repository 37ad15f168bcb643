/* Where the mail for a domain goes: the hosts to try, and how to speak with them. */
#ifndef RELAY_ROUTE_H
#define RELAY_ROUTE_H

#include "core/conf.h"
#include "relay/dns.h"

struct route_result {
	const struct conf_route *conf; /* of a configured host; NULL: MX hosts */
	const char *password;          /* of conf->user; NULL: there is none to log in */
	enum conf_tls tls;             /* what the operator wants of a connection */
	struct dns_result dns;         /* the hosts, or why there is none */
};

struct route_lookup; /* one question */

typedef void route_on_done(void *arg, const struct route_result *result);
/* The host next_hop, with what the configuration says of that host, if anything; where it is "" the
 * host that the configuration names for a domain, or else the domain's MX hosts; instead of those
 * the fallback host, when that is wanted and there is one. Calls back
 * once, never before it has returned; the result is borrowed for the call, and the lookup is over
 * when it is called. conf is borrowed until then. */
struct route_lookup *route_find(struct dns *dns, const struct conf *conf, const char *domain,
                                const char *next_hop, bool by_fallback_host, route_on_done *on_done,
                                void *arg);
/* No callback follows. NULL is harmless. */
void route_cancel(struct route_lookup *lookup);

#endif
