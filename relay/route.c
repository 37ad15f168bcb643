#include "relay/route.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/mem.h"

struct route_lookup {
	const struct conf *all;
	char *domain;
	const struct conf_route *conf;
	struct dns_lookup *dns;
	route_on_done *on_done;
	void *arg;
};

static void
lookup_free(struct route_lookup *lookup)
{
	free(lookup->domain);
	free(lookup);
}

/* As the first entry of sites says that fits the site or the domain. What the queue knows of other
 * domains there does not matter: the first mail is held to it like all others. */
static enum conf_tls
tls_of(const struct route_lookup *lookup, const char *site)
{
	const struct conf_sites *sites = &lookup->all->sites;
	size_t i = sites->count;

	if (lookup->conf)
		return lookup->conf->tls;
	i = conf_site_match(lookup->all, site, i);
	i = conf_site_match(lookup->all, lookup->domain, i);
	return i < sites->count ? (enum conf_tls)sites->list[i].tls : CONF_TLS_MAY;
}

static void
on_hosts(void *arg, const struct dns_result *hosts)
{
	struct route_lookup *lookup = arg;
	const struct route_result result = {
	    .conf = lookup->conf, .dns = *hosts, .tls = tls_of(lookup, hosts->site)};

	lookup->on_done(lookup->arg, &result);
	lookup_free(lookup);
}

static bool
is_route_to(const struct conf_route *route, const struct conf_host *host)
{
	return !route->mx && route->port == host->port && strcasecmp(route->host, host->name) == 0;
}

/* How to speak with a host that an operator named: as some route does with the same one, whose
 * login it may want, or else as a route does that says no more than the host. */
static const struct conf_route *
route_to(const struct conf *conf, const struct conf_host *host)
{
	static char nothing[] = "";
	static const struct conf_route plain = {
	    .host = nothing, .user = nothing, .password_file = nothing, .tls = CONF_TLS_MAY};

	for (size_t i = 0; i < conf->routes.count; i++)
		if (is_route_to(&conf->routes.list[i], host))
			return &conf->routes.list[i];
	return is_route_to(&conf->fallback_host, host) ? &conf->fallback_host : &plain;
}

struct route_lookup *
route_find(struct dns *dns, const struct conf *conf, const char *domain, const char *next_hop,
           bool by_fallback_host, route_on_done *on_done, void *arg)
{
	struct conf_host host;
	struct route_lookup *lookup = xcalloc(1, sizeof *lookup);
	const struct conf_route *route = conf_route(conf, domain);

	lookup->all = conf;
	lookup->domain = xstrdup(domain);
	lookup->on_done = on_done;
	lookup->arg = arg;
	if (next_hop[0] && conf_host(next_hop, &host) == NULL) {
		lookup->conf = route_to(conf, &host);
		lookup->dns = dns_find_host(dns, host.name, host.port, on_hosts, lookup);
		return lookup;
	}
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
	lookup_free(lookup);
}
