#include "relay/route.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/mem.h"

/* Problem: getaddrinfo blocks, for many seconds if it likes, and the loop must not. Idea: address
 * literals and "localhost" are answered here; any other name goes to a detached helper thread,
 * which touches its own question only and hands it back over a list under a lock, ringing the loop.
 * At most HELPERS_MAX threads live at once; further questions wait in a list of their own.
 *
 * Invariants: a lookup is freed on the loop's thread only, and only when no thread has it.
 * Cancelling clears its callback and leaves it to come home. All fields but .result (and .next
 * while it is under the lock) belong to the loop's thread. */

#define HELPERS_MAX 16

struct route_lookup {
	struct route_lookup *next; /* in .ready, .waiting or .finished */
	struct route *route;
	route_on_done *on_done; /* NULL: cancelled */
	void *arg;
	char host[256];
	struct route_result result;
};

struct route {
	struct loop *loop;
	struct loop_wake *wake;
	struct route_lookup *ready; /* answered without a thread, told when the loop comes round */
	struct route_lookup *waiting;  /* for a free helper */
	unsigned helpers;              /* threads that have a lookup */
	bool closing;                  /* freed as soon as the helpers are home */
	pthread_mutex_t lock;          /* guards finished */
	struct route_lookup *finished; /* handed back by helpers */
};

static void start_helpers(struct route *route);

static void
append(struct route_lookup **list, struct route_lookup *lookup)
{
	while (*list)
		list = &(*list)->next;
	lookup->next = NULL;
	*list = lookup;
}

static void
free_list(struct route_lookup *list)
{
	while (list) {
		struct route_lookup *next = list->next;
		free(list);
		list = next;
	}
}

static void
tell(struct route_lookup *list)
{
	while (list) {
		struct route_lookup *next = list->next;
		if (list->on_done)
			list->on_done(list->arg, &list->result);
		free(list);
		list = next;
	}
}

static void
route_destroy(struct route *route)
{
	loop_wake_free(route->wake);
	pthread_mutex_destroy(&route->lock);
	free(route);
}

static void
on_wake(void *arg)
{
	struct route *route = arg;
	struct route_lookup *ready = route->ready, *finished;

	route->ready = NULL;
	pthread_mutex_lock(&route->lock);
	finished = route->finished;
	route->finished = NULL;
	pthread_mutex_unlock(&route->lock);
	for (struct route_lookup *l = finished; l; l = l->next)
		route->helpers--;
	if (route->closing) {
		free_list(finished);
		if (!route->helpers)
			route_destroy(route);
		return;
	}
	start_helpers(route);
	tell(ready);
	tell(finished);
}

struct route *
route_new(struct loop *loop)
{
	struct route *route = xcalloc(1, sizeof *route);

	route->loop = loop;
	pthread_mutex_init(&route->lock, NULL);
	route->wake = loop_wake_new(loop, on_wake, route);
	return route;
}

void
route_free(struct route *route)
{
	if (!route)
		return;
	route->closing = true;
	free_list(route->ready);
	free_list(route->waiting);
	route->ready = route->waiting = NULL;
	if (!route->helpers)
		route_destroy(route);
}

static void
add_address(struct route_result *result, const void *addr, size_t len)
{
	if (result->count < ROUTE_ADDRESSES_MAX) {
		memcpy(&result->list[result->count].addr, addr, len);
		result->list[result->count++].len = (socklen_t)len;
	}
}

static bool
try_literal(struct route_lookup *lookup, const char *text)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(lookup->result.port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(lookup->result.port)};

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		add_address(&lookup->result, &v4, sizeof v4);
	else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1)
		add_address(&lookup->result, &v6, sizeof v6);
	else
		return false;
	return true;
}

/* On a helper thread. */
static void *
resolve(void *arg)
{
	struct route_lookup *lookup = arg;
	struct route *route = lookup->route;
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
	                         .ai_socktype = SOCK_STREAM,
	                         .ai_flags = AI_NUMERICSERV},
	                *list = NULL;
	char service[8];

	snprintf(service, sizeof service, "%u", (unsigned)lookup->result.port);
	if (getaddrinfo(lookup->host, service, &hints, &list) == 0) {
		for (struct addrinfo *a = list; a; a = a->ai_next)
			if (a->ai_addrlen <= sizeof(struct sockaddr_storage))
				add_address(&lookup->result, a->ai_addr, a->ai_addrlen);
		freeaddrinfo(list);
	}
	if (!lookup->result.count)
		lookup->result.error = "the name of the next host cannot be resolved";
	/* Rung under the lock: once the loop has taken the last lookup it may free the route. */
	pthread_mutex_lock(&route->lock);
	append(&route->finished, lookup);
	loop_wake_ring(route->wake);
	pthread_mutex_unlock(&route->lock);
	return NULL;
}

static void
start_helpers(struct route *route)
{
	pthread_attr_t attr;
	sigset_t all, old;

	if (!route->waiting || route->helpers >= HELPERS_MAX)
		return;
	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	while (route->waiting && route->helpers < HELPERS_MAX) {
		struct route_lookup *lookup = route->waiting;
		pthread_t thread;
		route->waiting = lookup->next;
		route->helpers++;
		if (pthread_create(&thread, &attr, resolve, lookup) != 0) {
			route->helpers--;
			lookup->result.error = "no resources to resolve the name of the next host";
			append(&route->ready, lookup);
			loop_wake_ring(route->wake);
		}
	}
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static const struct conf_route *
find(const struct conf *conf, const char *domain)
{
	const struct conf_route *any = NULL;

	for (size_t i = 0; i < conf->routes.count; i++) {
		const struct conf_route *route = &conf->routes.list[i];
		if (!strcasecmp(route->domain, domain))
			return route;
		if (!strcmp(route->domain, "*"))
			any = route;
	}
	return any;
}

struct route_lookup *
route_find(struct route *route, const struct conf *conf, const char *domain, route_on_done *on_done,
           void *arg)
{
	struct route_lookup *lookup = xcalloc(1, sizeof *lookup);
	const struct conf_route *found = find(conf, domain);
	bool answered = true;

	lookup->route = route;
	lookup->on_done = on_done;
	lookup->arg = arg;
	lookup->result.host = lookup->host;
	if (!found) {
		lookup->result.error = "no route to this domain is configured";
	} else if (snprintf(lookup->host, sizeof lookup->host, "%s", found->host) >=
	           (int)sizeof lookup->host) {
		lookup->result.error = "the name of the next host is too long";
	} else {
		lookup->result.port = found->port;
		if (!strcasecmp(lookup->host, "localhost")) {
			try_literal(lookup, "127.0.0.1");
			try_literal(lookup, "::1");
		} else {
			answered = try_literal(lookup, lookup->host);
		}
	}
	if (answered) {
		append(&route->ready, lookup);
		loop_wake_ring(route->wake);
	} else {
		append(&route->waiting, lookup);
		start_helpers(route);
	}
	return lookup;
}

void
route_cancel(struct route_lookup *lookup)
{
	if (lookup)
		lookup->on_done = NULL;
}
