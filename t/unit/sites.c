/* What is known of sites, with a store: what a restart remembers, and what is forgotten. */

#include "queue/sites.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/loop.h"
#include "t/unit/tap.h"

static struct loop *loop;
static struct store *store;
static struct sites *sites;
static const struct conf conf = {.relay_site_connections = 20};
static struct clock_test_offsets *offsets; /* the shared test clock */
static void
down(void)
{
	if (sites)
		sites_stop(sites);
	store_close(store);
	sites_free(sites);
	store = NULL;
	sites = NULL;
}

static bool
up(void)
{
	const struct store_opts opts = {.map_size = 64u << 20, .history_keep = 86400000};
	char error[256] = "";

	down();
	store = store_open(loop, &opts, error, sizeof(error));
	if (store == NULL) {
		printf("# %s\n", error);
		return false;
	}
	sites = sites_new(&conf);
	sites_keep(sites, loop, store, clock_wall());
	return true;
}

static void
pass(msec_t msec)
{
	offsets->wall += msec;
	offsets->mono += msec;
	offsets->changes++;
}

static void
on_domain(void *arg, const char *domain)
{
	(void)domain;
	++*(unsigned *)arg;
}

static unsigned
domains_of(const char *name)
{
	const struct site *site = sites_find(sites, name);
	unsigned count = 0;

	if (site)
		sites_each_domain(site, on_domain, &count);
	return count;
}

static void
test_memory(void)
{
	struct site *site = sites_learn(sites, "a.example", "mx.example+1", clock_wall());
	struct queue_contact contact = {
	    .end = QUEUE_CONTACT_FAILED, .connect = 12, .greeting = -1, .reply = -1};
	struct site_attempt attempt = {
	    .contact = &contact, .reply = "4.4.1 refused", .deferred = 2};

	for (int i = 0; i < 3; i++) {
		attempt.began = site->lowered + 1;
		site_learn(site, sites_bounds(site), &attempt, 1000, clock_wall() + i);
	}
	sites_changed(sites, site);
	const msec_t until = site->until;
	sites_learn(sites, "b.example", "mx.example+1", clock_wall());
	up();
	site = sites_peek(sites, "b.example");
	ok(site && strcmp(site->name, "mx.example+1") == 0 &&
	       sites_peek(sites, "a.example") == site,
	   "a restart knows which site serves a domain");
	ok(site && site->failures == 1 && site->until == until &&
	       site_is_paused(site, clock_wall()),
	   "and that it is paused, and until when");
	ok(site && site->deferred == 6 && site->connect.buckets[4] == 3 &&
	       strcmp(site->last_reply, "4.4.1 refused") == 0,
	   "and what was met there");
	for (unsigned i = 0; i < 1200; i++) { /* more than a batch */
		char name[32];

		snprintf(name, sizeof(name), "d%04u.example", i);
		sites_learn(sites, name, i % 2 ? "one.example" : "two.example", clock_wall());
	}
	sites_changed(sites, sites_find(sites, "one.example"));
	sites_changed(sites, sites_find(sites, "two.example"));
	up();
	ok(domains_of("one.example") == 600 && domains_of("two.example") == 600,
	   "all that has changed is written at the end");
	pass(INT64_C(31) * 24 * 60 * 60 * 1000);
	up();
	ok(sites_find(sites, "one.example") == NULL && sites_peek(sites, "a.example") == NULL,
	   "what was not met for a month is forgotten");

	/* All of that under a clock which was a year ahead. */
	pass(INT64_C(365) * 24 * 60 * 60 * 1000);
	site = sites_learn(sites, "c.example", "mx.example+2", clock_wall());
	for (int i = 0; i < 3; i++) {
		attempt.began = site->lowered + 1;
		site_learn(site, sites_bounds(site), &attempt, 1000, clock_wall() + i);
	}
	sites_changed(sites, site);
	offsets->wall -= INT64_C(365) * 24 * 60 * 60 * 1000;
	up();
	site = sites_peek(sites, "c.example");
	ok(site && site_is_paused(site, clock_wall()) &&
	       !site_is_paused(site, clock_wall() + SITE_BACK_OFF),
	   "a pause does not last until the time comes again that was set back");
	ok(site && site->failing <= clock_wall() && site->seen <= clock_wall(),
	   "and nothing was met that is yet to come");
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-sites-XXXXXX", clock[64], command[64];
	int fd;

	if (mkdtemp(dir) == NULL || chdir(dir) != 0)
		return 1;
	snprintf(clock, sizeof(clock), "%s/clock", dir);
	fd = open(clock, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*offsets)) != 0)
		return 1;
	offsets = mmap(NULL, sizeof(*offsets), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	setenv("SEKISHO_TEST_CLOCK", clock, 1);
	log_open("sites-test");
	loop = loop_new();
	if (offsets == MAP_FAILED || !up())
		return 1;
	test_memory();
	down();
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") != 0 || system(command) != 0)
		return 1;
	return tap_end();
}
