#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sandbox.h"
#include "core/service.h"
#include "core/tls.h"
#include "queue/worker.h"
#include "relay/login.h"
#include "relay/pool.h"
#include "relay/route.h"

/* sekisho-relay: takes jobs of one lane from the queue, finds the next host, lets a client deliver,
 * says the outcomes back. It keeps nothing: killed at any moment it loses attempts and no mail. One
 * attempt per job. */

struct attempt { /* in the job's arena */
	struct relay *relay;
	struct attempt *next; /* in relay->attempts */
	struct queue_job *job;
	struct route_lookup *lookup; /* pending, or NULL */
	struct client *client;       /* under way, or NULL */
};

struct relay {
	const struct conf *conf;
	struct queue_worker *worker;
	struct dns_files *files;
	struct dns *dns;
	struct pool *pool;
	struct tls_client *tls_verifying; /* NULL: no route needs it */
	char **passwords;                 /* of each route that logs in */
	size_t password_next;             /* the route whose password comes next, or a later one */
	struct attempt *attempts;
};

static void
forget(struct attempt *attempt)
{
	struct attempt **at = &attempt->relay->attempts;

	while (*at != attempt)
		at = &(*at)->next;
	*at = attempt->next;
}

static void
on_done(void *arg, const struct queue_outcome *outcomes, size_t count)
{
	struct attempt *attempt = arg;

	attempt->client = NULL;
	forget(attempt);
	queue_job_done(attempt->job, outcomes, count);
}

static void
on_route(void *arg, const struct route_result *result)
{
	struct attempt *attempt = arg;
	struct relay *relay = attempt->relay;
	struct route_result route;

	attempt->lookup = NULL;
	if (!result->dns.count) {
		on_done(attempt, client_no_contact(attempt->job, &result->dns.why),
		        attempt->job->recipient_count);
		return;
	}
	route = *result;
	if (route.conf)
		route.password = relay->passwords[route.conf - relay->conf->routes.list];
	attempt->client = pool_begin(relay->pool, &route, attempt->job, on_done, attempt);
}

static void
on_job(void *arg, struct queue_job *job)
{
	struct relay *relay = arg;
	struct attempt *attempt = arena_alloc(job->arena, sizeof *attempt);

	attempt->relay = relay;
	attempt->job = job;
	attempt->next = relay->attempts;
	relay->attempts = attempt;
	attempt->lookup = route_find(relay->dns, relay->conf, job->domain, on_route, attempt);
}

static void
on_abandon(void *arg, struct queue_job *job)
{
	struct relay *relay = arg;
	struct attempt *attempt = relay->attempts;

	while (attempt && attempt->job != job)
		attempt = attempt->next;
	assert(attempt);
	route_cancel(attempt->lookup);
	if (attempt->client)
		client_free(attempt->client);
	forget(attempt);
}

static const struct queue_worker_events worker_events = {.on_job = on_job,
                                                         .on_abandon = on_abandon};

static void
on_config(void *arg, const struct conf *conf)
{
	struct relay *relay = arg;

	relay->conf = conf;
	if (relay->worker)
		return;
	relay->passwords = xcalloc(conf->routes.count + 1, sizeof *relay->passwords);
	relay->worker = queue_worker_new(service_loop(), (enum queue_lane)service_index(),
	                                 (unsigned)conf->relay_connections, &worker_events, relay);
}

static void
on_link(void *arg, enum service_role peer, unsigned index, int fd_take)
{
	struct relay *relay = arg;

	(void)index;
	assert(peer == SERVICE_QUEUE);
	queue_worker_attach(relay->worker, fd_take);
}

/* The first line of a password file: its octets up to a NUL or line end. */
static char *
read_password(int fd)
{
	char text[LOGIN_SECRET_MAX + 1];
	const ssize_t n = pread(fd, text, sizeof text - 1, 0);
	char *password;

	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	password = xstrdup(text);
	mem_wipe(text, sizeof text);
	return password;
}

static void
on_file(void *arg, enum service_file file, int fd_take)
{
	struct relay *relay = arg;
	const struct conf_routes *routes = &relay->conf->routes;
	char error[256];
	size_t i = relay->password_next;

	if (file == SERVICE_CA) {
		relay->tls_verifying = tls_client_new_verifying(fd_take, error, sizeof error);
		if (!relay->tls_verifying)
			log_error("-", "certificates", "error=\"%s\"", error);
		return;
	}
	assert(file == SERVICE_PASSWORD);
	while (i < routes->count && !routes->list[i].user[0])
		i++;
	assert(i < routes->count);
	relay->passwords[i] = read_password(fd_take);
	relay->password_next = i + 1;
	close(fd_take);
}

static int
on_start(void *arg)
{
	struct relay *relay = arg;
	char error[256];

	relay->files = dns_files_new(relay->conf->dns_trust_anchor, error, sizeof error);
	if (relay->files)
		relay->dns = dns_new(&(struct dns_opts){.loop = service_loop(),
		                                        .files = relay->files,
		                                        .servers = &relay->conf->dns_servers,
		                                        .hostname = relay->conf->hostname,
		                                        .timeout = relay->conf->dns_timeout},
		                     error, sizeof error);
	if (relay->dns) {
		relay->pool = pool_new(&(struct client_opts){.loop = service_loop(),
		                                             .conf = relay->conf,
		                                             .tls = tls_client_new(),
		                                             .tls_verifying = relay->tls_verifying},
		                       relay->conf->relay_connections);
		return 0;
	}
	log_error("-", "dns", "error=\"%s\"", error);
	return -1;
}

static void
on_idle(void *arg)
{
	(void)arg;
	service_stopped();
}

static void
on_stop(void *arg)
{
	struct relay *relay = arg;

	queue_worker_stop(relay->worker, on_idle);
}

int
main(int argc, char **argv)
{
	static struct relay relay;
	static const struct service_events events = {
	    .on_config = on_config,
	    .on_file = on_file,
	    .on_link = on_link,
	    .on_start = on_start,
	    .on_stop = on_stop,
	};
	return service_run(
	    &(struct service_opts){
	        .role = SERVICE_RELAY,
	        .program = "sekisho-relay",
	        .purpose = "delivers the mail that sekisho-queue hands it, one lane per process",
	        .sandbox = SANDBOX_CONNECT,
	        .events = &events,
	        .arg = &relay,
	    },
	    argc, argv);
}
