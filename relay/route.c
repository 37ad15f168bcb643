#include "relay/route.h"

#include <stdlib.h>

#include "core/mem.h"

struct route_lookup {
	const struct conf_route *conf;
	struct dns_lookup *dns;
	route_on_done *on_done;
	void *arg;
};

static void
on_hosts(void *arg, const struct dns_result *hosts)
{
	struct route_lookup *lookup = arg;
	const struct route_result result = {.conf = lookup->conf, .dns = *hosts};

	lookup->on_done(lookup->arg, &result);
	free(lookup);
}

struct route_lookup *
route_find(struct dns *dns, const struct conf *conf, const char *domain, bool by_fallback_host,
           route_on_done *on_done, void *arg)
{
	struct route_lookup *lookup = xcalloc(1, sizeof *lookup);
	const struct conf_route *route = conf_route(conf, domain);

	lookup->on_done = on_done;
	lookup->arg = arg;
	if ((!route || route->mx) && by_fallback_host && conf->fallback_host.host[0])
		route = &conf->fallback_host;
	if (route && !route->mx) {
		lookup->conf = route;
		lookup->dns = dns_find_host(dns, route->host, route->port, on_hosts, lookup);
	} else {
		lookup->dns =
		    dns_find_mx(dns, domain, (uint16_t)conf->relay_port, on_hosts, lookup);
	}
	return lookup;
}

void
route_cancel(struct route_lookup *lookup)
{
	if (!lookup)
		return;
	dns_cancel(lookup->dns);
	free(lookup);
}
