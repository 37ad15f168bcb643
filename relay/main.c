#include <assert.h>
#include <stdio.h>
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

struct relay;

struct means { /* what attempts work with: all of it of one generation of the configuration */
	struct relay *relay;
	const struct conf *conf; /* a reference */
	struct dns *dns;
	struct tls_client *tls, *tls_verifying; /* the latter NULL: there is no relay.ca_file */
	char **passwords; /* of each route that logs in, fallback.host behind them */
	size_t password_count;
	struct pool *pool;
	unsigned attempts; /* that began with it and have not ended */
	bool retired;      /* another one came into force */
	bool ending;       /* nobody works with it any more: it is freed in this turn of the loop */
};

struct attempt { /* in the job's arena */
	struct means *means;
	struct attempt *next; /* in relay->attempts */
	struct queue_job *job;
	struct route_lookup *lookup; /* pending, or NULL */
	struct client *client;       /* under way, or NULL */
};

struct relay {
	struct means *means;     /* in force; NULL before the start */
	struct means *next;      /* files of the generation to come have arrived for it, or NULL */
	const struct conf *conf; /* to start with */
	struct queue_worker *worker;
	struct dns_files *files;
	char certificates_error[256]; /* why those that came are no use */
	struct attempt *attempts;
};

static void
means_free(struct means *means)
{
	if (!means)
		return;
	dns_free(means->dns);
	if (means->pool)
		pool_free(means->pool);
	tls_client_free(means->tls);
	tls_client_free(means->tls_verifying);
	for (size_t i = 0; i < means->password_count; i++)
		if (means->passwords[i]) {
			mem_wipe(means->passwords[i], strlen(means->passwords[i]));
			free(means->passwords[i]);
		}
	free(means->passwords);
	conf_free(means->conf);
	free(means);
}

static void
free_later(void *arg)
{
	means_free(arg);
}

/* Deferred, because a lookup that has just ended is still on the stack. An attempt that was only
 * looking up may yet make a connection, so the pool can have been empty before. */
static void
means_check(struct means *means)
{
	if (!means->retired || means->ending || means->attempts || !pool_is_empty(means->pool))
		return;
	means->ending = true;
	loop_defer(service_loop(), free_later, means);
}

static void
on_empty(void *arg)
{
	means_check(arg);
}

static void
forget(struct attempt *attempt)
{
	struct attempt **at = &attempt->means->relay->attempts;

	while (*at != attempt)
		at = &(*at)->next;
	*at = attempt->next;
	attempt->means->attempts--;
	means_check(attempt->means);
}

static void
on_done(void *arg, const struct queue_contact *contact, const struct queue_outcome *outcomes,
        size_t count)
{
	struct attempt *attempt = arg;

	attempt->client = NULL;
	forget(attempt);
	queue_job_done(attempt->job, contact, outcomes, count);
}

static void
on_route(void *arg, const struct route_result *result)
{
	struct attempt *attempt = arg;
	struct means *means = attempt->means;
	struct route_result route;

	attempt->lookup = NULL;
	if (!result->dns.count) {
		struct queue_contact nobody = {.connect = -1, .greeting = -1, .reply = -1};

		memcpy(nobody.site, result->dns.site, sizeof nobody.site);
		on_done(attempt, &nobody, client_no_contact(attempt->job, &result->dns.why),
		        attempt->job->recipient_count);
		return;
	}
	route = *result;
	if (route.conf && route.conf->user[0]) {
		const struct conf_routes *routes = &means->conf->routes;
		const size_t i = route.conf == &means->conf->fallback_host
		                     ? routes->count
		                     : (size_t)(route.conf - routes->list);

		route.password = i < means->password_count ? means->passwords[i] : NULL;
	}
	attempt->client = pool_begin(means->pool, &route, attempt->job, on_done, attempt);
}

static void
on_job(void *arg, struct queue_job *job)
{
	struct relay *relay = arg;
	struct means *means = relay->means;
	struct attempt *attempt = arena_alloc(job->arena, sizeof *attempt);

	attempt->means = means;
	attempt->job = job;
	attempt->next = relay->attempts;
	relay->attempts = attempt;
	means->attempts++;
	attempt->lookup = route_find(means->dns, means->conf, job->domain, job->next_hop,
	                             job->by_fallback_host, on_route, attempt);
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

	const unsigned lane = conf_relay_lane(conf, service_index());

	assert(lane < QUEUE_LANES);
	relay->conf = conf;
	relay->worker = queue_worker_new(service_loop(), (enum queue_lane)lane,
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

static struct means *
next(struct relay *relay)
{
	if (!relay->next) {
		relay->next = xcalloc(1, sizeof *relay->next);
		relay->next->relay = relay;
		relay->certificates_error[0] = '\0';
	}
	return relay->next;
}

static void
on_file(void *arg, enum service_file file, unsigned index, int fd_take)
{
	struct relay *relay = arg;
	struct means *means = next(relay);

	if (file == SERVICE_CA) {
		means->tls_verifying = tls_client_new_verifying(fd_take, relay->certificates_error,
		                                                sizeof relay->certificates_error);
		return;
	}
	assert(file == SERVICE_PASSWORD);
	if (index >= means->password_count) {
		means->passwords =
		    xreallocarray(means->passwords, index + 1, sizeof *means->passwords);
		while (means->password_count <= index)
			means->passwords[means->password_count++] = NULL;
	}
	means->passwords[index] = read_password(fd_take);
	close(fd_take);
}

static int
on_prepare(void *arg, const struct conf *conf, char *error, size_t size)
{
	struct relay *relay = arg;
	struct means *means = next(relay);
	const struct dns_opts dns_opts = {.loop = service_loop(),
	                                  .files = relay->files,
	                                  .servers = &conf->dns_servers,
	                                  .hostname = conf->hostname,
	                                  .timeout = conf->dns_timeout};
	char why[200] = "";

	if (relay->certificates_error[0]) {
		snprintf(error, size, "relay.ca_file: %s: %s", conf->relay_ca_file,
		         relay->certificates_error);
		return -1;
	}
	means->conf = conf_ref(conf);
	means->dns = dns_new(&dns_opts, why, sizeof why);
	if (!means->dns) {
		snprintf(error, size, "dns.servers: %s", why);
		return -1;
	}
	means->tls = tls_client_new();
	means->pool = pool_new(&(struct client_opts){.loop = service_loop(),
	                                             .conf = conf,
	                                             .tls = means->tls,
	                                             .tls_verifying = means->tls_verifying},
	                       conf->relay_connections);
	return 0;
}

static void
on_commit(void *arg, const struct conf *conf)
{
	struct relay *relay = arg;
	struct means *old = relay->means;

	(void)conf;
	relay->means = relay->next;
	relay->next = NULL;
	if (!old)
		return;
	old->retired = true;
	pool_retire(old->pool, on_empty, old);
}

static void
on_drop(void *arg)
{
	struct relay *relay = arg;

	means_free(relay->next);
	relay->next = NULL;
}

static int
on_start(void *arg)
{
	struct relay *relay = arg;
	char error[512] = "";

	relay->files = dns_files_new(relay->conf->dns_trust_anchor, error, sizeof error);
	if (relay->files && !on_prepare(relay, relay->conf, error, sizeof error)) {
		on_commit(relay, relay->conf);
		return 0;
	}
	log_error("-", "start", "error=\"%s\"", error);
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
	    .on_prepare = on_prepare,
	    .on_commit = on_commit,
	    .on_drop = on_drop,
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
