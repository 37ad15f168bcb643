#include "queue/schedule_int.h"

/* Sites and the schedule: what an attempt met changes when and how many others are made, in all
 * lanes at once.
 *
 * Fresh mail is not dragged: of a site's places at least half are fresh mail's alone, however much
 * is tried again there. What is due for a site that waits does not stand in line: it is put off as
 * if its attempt had failed, so a dead site's backlog takes no room in the window.
 *
 * A site that is silent costs a place for as long as a timeout, and until it has failed a few times
 * nobody knows it from one that answers: after a start without memory, that may be thousands. So in
 * retry and fallback one that has not answered yet, or did not the last time, has one place, and
 * all of them together half of the places and of the window. The other half is for who answers. In
 * fresh they start like any other: most of what nobody has met there is well. */

#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/random.h"

static void
on_site_timer(void *arg)
{
	struct schedule *schedule = arg;

	schedule->site_wake = 0;
	lines_settle(schedule);
	lanes_dispatch(schedule);
}

void
sites_open(struct schedule *schedule)
{
	schedule->sites = sites_new(schedule->conf);
	sites_keep(schedule->sites, schedule->loop, schedule->store, schedule_now(schedule));
	schedule->replies = reply_rules_new(schedule->conf);
	schedule->wakes = wakes_new(schedule);
	schedule->orders = orders_new(schedule);
	schedule->site_timer = loop_timer_new(schedule->loop, on_site_timer, schedule);
}

void
sites_close(struct schedule *schedule)
{
	loop_timer_free(schedule->site_timer);
	orders_free(schedule->orders);
	wakes_free(schedule->wakes);
	reply_rules_free(schedule->replies);
	sites_free(schedule->sites);
}

/* As the relay names a host that is not looked for. */
static void
name_host(const char *host, uint16_t port, char site[QUEUE_SITE_SIZE])
{
	snprintf(site, QUEUE_SITE_SIZE, "%.255s:%u", host, port);
}

/* The host that takes what is for the domain instead of the site that serves it: the one that an
 * operator named, or what waits in fallback, fallback.host. */
static bool
goes_elsewhere(const struct lane *lane, const char *domain, const char *next_hop,
               char site[QUEUE_SITE_SIZE])
{
	const struct conf_route *host = &lane->schedule->conf->fallback_host, *route;
	struct conf_host named;

	if (next_hop[0] && conf_host(next_hop, &named) == NULL) {
		name_host(named.name, named.port, site);
		return true;
	}
	if (lane->lane != QUEUE_FALLBACK || !host->host || !host->host[0])
		return false;
	route = conf_route(lane->schedule->conf, domain);
	if (route && !route->mx)
		return false;
	name_host(host->host, host->port, site);
	return true;
}

struct site *
site_for(struct lane *lane, const char *domain, const char *next_hop)
{
	struct sites *sites = lane->schedule->sites;
	const msec_t now = schedule_now(lane->schedule);
	char site[QUEUE_SITE_SIZE];

	return goes_elsewhere(lane, domain, next_hop, site) ? sites_named(sites, site, now)
	                                                    : sites_of(sites, domain, now);
}

struct site *
site_peek(const struct lane *lane, const char *domain, const char *next_hop)
{
	const struct sites *sites = lane->schedule->sites;
	char site[QUEUE_SITE_SIZE];

	return goes_elsewhere(lane, domain, next_hop, site) ? sites_find(sites, site)
	                                                    : sites_peek(sites, domain);
}

struct line *
line_for(const struct lane *lane, const char *domain, const char *next_hop)
{
	const struct site *site = site_peek(lane, domain, next_hop);

	return site ? line_find(lane, site->name) : NULL;
}

static unsigned
flying(const struct schedule *schedule, enum queue_lane lane, const struct site *site)
{
	const struct line *line = line_find(&schedule->lanes[lane], site->name);

	return line ? line->load.in_flight : 0;
}

unsigned
line_places(const struct line *line)
{
	struct schedule *schedule = line->lane->schedule;
	const unsigned places =
	    site_places(line->site, sites_bounds(line->site), schedule_now(schedule));

	if (line->lane->lane == QUEUE_FRESH || places < 2)
		return places;
	return site_answers(line->site) ? places / 2 : 1;
}

bool
line_may_begin(struct line *line)
{
	struct schedule *schedule = line->lane->schedule;
	const struct site_bounds *bounds = sites_bounds(line->site);
	const msec_t now = schedule_now(schedule);
	msec_t when;

	if (site_may_begin(line->site, bounds, now))
		return line->lane->lane == QUEUE_FRESH ||
		       flying(schedule, QUEUE_RETRY, line->site) +
		               flying(schedule, QUEUE_FALLBACK, line->site) <
		           line_places(line);
	/* If only time is missing, somebody has to look again then. */
	when = site_is_paused(line->site, now) ? line->site->until
	                                       : site_conforms(line->site, bounds, now);
	if (when > now && !schedule->stopped &&
	    (!schedule->site_wake || when < schedule->site_wake)) {
		schedule->site_wake = when;
		loop_timer_arm(schedule->site_timer, when - now);
	}
	return false;
}

void
lines_settle(struct schedule *schedule)
{
	for (size_t i = 0; i < QUEUE_LANES * BUCKETS; i++) {
		struct line *line, *next;

		for (line = LIST_FIRST(&schedule->lanes[i / BUCKETS].lines[i % BUCKETS]); line;
		     line = next) {
			next = LIST_NEXT(line, bucket);
			line_settle(line);
		}
	}
}

void
site_settle(struct schedule *schedule, struct site *site)
{
	sites_hold(schedule->sites, site);
	for (size_t i = 0; i < QUEUE_LANES; i++) {
		struct line *line = line_find(&schedule->lanes[i], site->name);

		if (line)
			line_settle(line);
	}
	sites_release(schedule->sites, site);
}

/* The domain has turned out to be served by another site than was thought: its jobs change lines.
 */
static void
change_lines(struct schedule *schedule, const char *domain, const char *from)
{
	for (size_t i = 0; i < QUEUE_LANES; i++) {
		struct line *line = line_find(&schedule->lanes[i], from);
		struct job *job = line ? TAILQ_FIRST(&line->pending) : NULL, *next;

		for (; job; job = next) {
			next = TAILQ_NEXT(job, queue);
			if (strcmp(job->domain, domain) != 0)
				continue;
			job_to(job, JOB_NEW);
			job_to(job, JOB_PENDING);
		}
	}
}

struct site *
site_hear(struct job *job, const struct queue_contact *contact,
          const struct queue_outcome *outcomes, size_t count, unsigned *events)
{
	struct schedule *schedule = job->lane->schedule;
	const msec_t now = schedule_now(schedule);
	struct site *site = job->line->site;
	struct site_attempt attempt = {.contact = contact, .began = job->began};
	char reply[STORE_REPLY_MAX + 1] = "", instead[QUEUE_SITE_SIZE];

	for (size_t i = 0; i < count; i++) {
		attempt.delivered += outcomes[i].fate == QUEUE_DELIVERED;
		attempt.deferred += outcomes[i].fate == QUEUE_DEFERRED;
		attempt.failed += outcomes[i].fate == QUEUE_FAILED;
	}
	if (count > 0)
		reply_add(reply, &outcomes[count - 1].reply);
	attempt.reply = reply;
	sites_hold(schedule->sites, site);
	if (contact->site[0] && strcmp(contact->site, site->name) != 0 &&
	    !goes_elsewhere(job->lane, job->domain, job->next_hop, instead)) {
		struct site *before = site;

		site = sites_learn(schedule->sites, job->domain, contact->site, now);
		sites_hold(schedule->sites, site);
		log_debug("-", "site-learned", "domain=%s site=%s", job->domain, site->name);
		change_lines(schedule, job->domain, before->name);
		if (strcmp(before->name, job->domain) == 0)
			orders_move(schedule->orders, before, site);
		sites_release(schedule->sites, before);
	}
	*events = site_learn(site, sites_bounds(site), &attempt, (unsigned)random_below(2001), now);
	sites_changed(schedule->sites, site);
	return site; /* held until site_told */
}

/* What was pending when the pause began. */
static void
put_off_all(struct schedule *schedule, const struct site *site)
{
	for (size_t i = 0; i < QUEUE_LANES; i++) {
		const struct line *line;
		struct job *job;

		while ((line = line_find(&schedule->lanes[i], site->name)) != NULL &&
		       (job = TAILQ_FIRST(&line->pending)) != NULL)
			job_put_off(job);
	}
}

void
site_told(struct schedule *schedule, struct site *site, unsigned events)
{
	char until[CLOCK_RFC3339_SIZE], said[sizeof(site->last_reply)];
	char why[4 * sizeof(site->why)];

	if (events & SITE_PAUSED)
		events &= ~(
		    unsigned)SITE_RESUMED; /* a rule's will: it answers, but is to be left alone */
	if (events & SITE_PAUSED) {
		clock_rfc3339(site->until, until);
		log_info("-", "site-paused", "site=%s until=%s rule=%s failures=%u last=\"%s\"",
		         site->name, until, log_word(site->why, why, sizeof(why)), site->failures,
		         log_text(site->last_reply, said, sizeof(said)));
		put_off_all(schedule, site);
	}
	if (events & SITE_RESUMED) {
		log_info("-", "site-resumed", "site=%s", site->name);
		wakes_begin(schedule->wakes, site);
	}
	if (events & SITE_SLOW)
		log_info("-", "site-slow", "site=%s p90=%d timeouts=%llu", site->name,
		         site_reply_p90(site), (unsigned long long)site->timed_out);
	if (events & SITE_RECOVERED)
		log_info("-", "site-recovered", "site=%s p90=%d", site->name, site_reply_p90(site));
	site_settle(schedule, site);
	sites_release(schedule->sites, site);
}
