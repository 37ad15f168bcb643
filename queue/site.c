#include "queue/site.h"

/* Concurrency is additive increase, multiplicative decrease, as TCP has it: each answer adds one
 * per limit, so one in a round trip; a failure to connect, or silence, halves it, once for all that
 * was under way at that moment, because they have met the same thing. A site at one that fails
 * again is paused, 15·p² seconds for the p-th time in a row. Refusals in words are answers: they
 * say nothing against the number of connections (what they say is for the reply rules). A
 * connection that ends within a transaction is neither.
 *
 * Slow is judged by what is recent, the last replies and timeouts of ten minutes, with distance
 * between going in and coming out; the histograms, which remember days, are for people. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY         (24 * 60 * 60 * 1000)
#define FEW         8             /* replies: below that there is no percentile */
#define AWAY        SITE_BACK_OFF /* msec of failing after which its mail is worth waking */
#define SLOWER      2000 /* msec between two attempts, to begin with, where one at once is too fast */
#define SLOWEST     (5 * 60 * 1000)
#define PUT_OFF     100 /* msec between what comes again after a pause */
#define PUT_OFF_MAX (10 * 60 * 1000)

void
site_init(struct site *site, const char *name, msec_t now)
{
	memset(site, 0, sizeof(*site));
	snprintf(site->name, sizeof(site->name), "%s", name);
	site->seen = site->halved = now;
}

static double
limit_of(const struct site *site, const struct site_bounds *bounds)
{
	const double limit = site->limit > 0 ? site->limit : bounds->start;

	return limit < bounds->most ? limit : bounds->most;
}

static bool
is_capped(const struct site_cap *cap, msec_t now)
{
	return cap->until > now;
}

static double
capped(double limit, const struct site_cap *cap, msec_t now)
{
	return is_capped(cap, now) && cap->connections > 0 && cap->connections < limit
	           ? cap->connections
	           : limit;
}

/* As learned, as far as somebody's will allows. */
static double
limit_now(const struct site *site, const struct site_bounds *bounds, msec_t now)
{
	return capped(capped(limit_of(site, bounds), &site->by_rule, now), &site->by_operator, now);
}

bool
site_is_paused(const struct site *site, msec_t now)
{
	return site->paused != SITE_NOT_PAUSED && site->until > now;
}

bool
site_answers(const struct site *site)
{
	return site->limit > 0 && site->failing == 0;
}

unsigned
site_places(const struct site *site, const struct site_bounds *bounds, msec_t now)
{
	double limit = limit_now(site, bounds, now);

	if (site_is_paused(site, now))
		return 0;
	if (site->probing)
		limit = limit * bounds->probe / 100;
	return limit < 1 ? 1 : (unsigned)limit;
}

/* msec for each attempt, at least one; without a bound none. */
static msec_t
interval_of(const struct conf_burst *rate)
{
	msec_t interval;

	if (rate->count == 0)
		return 0;
	interval = rate->period / (msec_t)rate->count;
	return interval > 0 ? interval : 1;
}

const struct conf_burst *
site_rate(const struct site *site, const struct site_bounds *bounds, msec_t now)
{
	const struct site_cap *caps[] = {&site->by_rule, &site->by_operator};
	const struct conf_burst *rate = &bounds->rate;

	for (size_t i = 0; i < 2; i++)
		if (is_capped(caps[i], now) && interval_of(&caps[i]->rate) > interval_of(rate))
			rate = &caps[i]->rate;
	return rate;
}

static msec_t
allowance_of(const struct conf_burst *rate)
{
	return (msec_t)(rate->at_once > 0 ? rate->at_once : 1) * interval_of(rate);
}

/* What is later than this rate can make it was made by a slower one, which is over. */
static msec_t
next_of(const struct site *site, const struct conf_burst *rate, msec_t now)
{
	return site->next > now && site->next - now <= allowance_of(rate) ? site->next : now;
}

msec_t
site_conforms(const struct site *site, const struct site_bounds *bounds, msec_t now)
{
	const struct conf_burst *rate = site_rate(site, bounds, now);

	if (rate->count == 0)
		return now;
	return next_of(site, rate, now) - allowance_of(rate) + interval_of(rate);
}

bool
site_may_begin(const struct site *site, const struct site_bounds *bounds, msec_t now)
{
	return site->in_flight < site_places(site, bounds, now) &&
	       site_conforms(site, bounds, now) <= now;
}

void
site_begin(struct site *site, const struct site_bounds *bounds, msec_t now)
{
	const struct conf_burst *rate = site_rate(site, bounds, now);

	site->in_flight++;
	if (rate->count > 0)
		site->next = next_of(site, rate, now) + interval_of(rate);
}

void
site_end(struct site *site)
{
	site->in_flight--;
}

msec_t
site_back_off(unsigned failures, unsigned chance)
{
	const msec_t p = failures < 100 ? failures : 100;
	msec_t wait = SITE_BACK_OFF * p * p;

	if (wait > SITE_BACK_OFF_MAX)
		wait = SITE_BACK_OFF_MAX;
	return wait * (9000 + (msec_t)chance) / 10000;
}

/* --- speed --- */

void
site_histogram_add(struct site_histogram *histogram, int32_t msec)
{
	unsigned bucket = 0;

	if (msec < 0)
		return;
	for (uint32_t rest = (uint32_t)msec; rest > 0 && bucket < SITE_BUCKETS - 1; rest >>= 1)
		bucket++;
	if (histogram->buckets[bucket] < UINT32_MAX)
		histogram->buckets[bucket]++;
}

uint32_t
site_histogram_percentile(const struct site_histogram *histogram, unsigned percent)
{
	uint64_t all = 0, seen = 0;
	unsigned bucket = 0;

	for (unsigned i = 0; i < SITE_BUCKETS; i++)
		all += histogram->buckets[i];
	if (all == 0)
		return 0;
	while ((seen += histogram->buckets[bucket]) * 100 < all * percent)
		bucket++;
	return (1u << bucket) - 1;
}

static void
halve(struct site_histogram *histogram, msec_t times)
{
	for (unsigned i = 0; i < SITE_BUCKETS; i++)
		histogram->buckets[i] = times < 32 ? histogram->buckets[i] >> times : 0;
}

static int
by_size(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int32_t
site_reply_p90(const struct site *site)
{
	const unsigned count = site->reply_count < SITE_REPLIES ? site->reply_count : SITE_REPLIES;
	uint32_t sorted[SITE_REPLIES];

	if (count < FEW)
		return -1;
	memcpy(sorted, site->replies, sizeof(sorted));
	qsort(sorted, count, sizeof(sorted[0]), by_size);
	return (int32_t)sorted[(count * 9 + 9) / 10 - 1];
}

static bool
is_recent(msec_t when, msec_t now)
{
	return when > 0 && now - when < SITE_SLOW_WINDOW;
}

unsigned
site_look(struct site *site, msec_t now)
{
	const int32_t p90 = site_reply_p90(site);
	const bool was = site->slow;

	if (p90 > SITE_SLOW_REPLY || is_recent(site->timeouts[2], now))
		site->slow = true;
	else if (p90 < SITE_WELL_REPLY && !is_recent(site->timeouts[0], now))
		site->slow = false;
	return site->slow == was ? 0 : site->slow ? SITE_SLOW : SITE_RECOVERED;
}

static unsigned
learn_speed(struct site *site, const struct queue_contact *contact, msec_t now)
{
	const msec_t days = (now - site->halved) / DAY;

	if (days > 0) {
		halve(&site->connect, days);
		halve(&site->greeting, days);
		halve(&site->reply, days);
		site->halved += days * DAY;
	}
	site_histogram_add(&site->connect, contact->connect);
	site_histogram_add(&site->greeting, contact->greeting);
	site_histogram_add(&site->reply, contact->reply);
	if (contact->reply >= 0)
		site->replies[site->reply_count++ % SITE_REPLIES] = (uint32_t)contact->reply;
	if (contact->end == QUEUE_CONTACT_TIMEOUT) {
		site->timed_out++;
		site->timeouts[2] = site->timeouts[1];
		site->timeouts[1] = site->timeouts[0];
		site->timeouts[0] = now;
	}
	return site_look(site, now);
}

/* --- concurrency and back-off --- */

void
site_pause(struct site *site, enum site_pause kind, const char *why, msec_t until)
{
	site->paused = kind;
	site->until = until;
	snprintf(site->why, sizeof(site->why), "%s", why);
	site->probing = true;
	site->put_off = 0;
}

bool
site_suspend(struct site *site, const char *rule, msec_t until, msec_t now)
{
	if (site_is_paused(site, now) && (site->paused == SITE_BY_OPERATOR || site->until >= until))
		return false;
	site_pause(site, SITE_BY_RULE, rule, until);
	return true;
}

bool
site_slow_down(struct site *site, const struct site_bounds *bounds, const char *rule, msec_t began,
               msec_t until, msec_t now)
{
	const double limit = limit_now(site, bounds, now);
	const struct conf_burst rate = *site_rate(site, bounds, now);
	struct site_cap *cap = &site->by_rule;

	if (began <= site->lowered)
		return false;
	site->lowered = now;
	site->limit = limit >= 2 ? limit / 2 : 1;
	if (!is_capped(cap, now))
		memset(cap, 0, sizeof(*cap));
	cap->connections = (unsigned)site->limit;
	if (limit < 2 && interval_of(&rate) < SLOWEST / 2)
		cap->rate = rate.count > 0
		                ? (struct conf_burst){.at_once = rate.at_once,
		                                      .count = rate.count,
		                                      .period = 2 * rate.period}
		                : (struct conf_burst){.at_once = 1, .count = 1, .period = SLOWER};
	if (until > cap->until)
		cap->until = until;
	snprintf(cap->why, sizeof(cap->why), "%s", rule);
	return true;
}

void
site_resume(struct site *site, msec_t now)
{
	site->paused = SITE_NOT_PAUSED;
	site->until = now;
	site->failures = 0;
	site->failing = 0;
}

msec_t
site_put_off(struct site *site)
{
	const msec_t offset = (msec_t)site->put_off * PUT_OFF;

	if (site->put_off < PUT_OFF_MAX / PUT_OFF)
		site->put_off++;
	return site->until + offset;
}

static unsigned
learn_failure(struct site *site, const struct site_bounds *bounds, msec_t began, unsigned chance,
              msec_t now)
{
	const double limit = limit_of(site, bounds);

	if (site->failing == 0)
		site->failing = now;
	if (began <= site->lowered)
		return 0;
	site->lowered = now;
	if (limit >= 2) {
		site->limit = limit / 2;
		return 0;
	}
	site->limit = 1;
	site->failures++;
	if (site->paused >= SITE_BY_RULE && site_is_paused(site, now))
		return 0; /* longer is somebody's will */
	site_pause(site, SITE_BACKING_OFF, "back-off", now + site_back_off(site->failures, chance));
	return SITE_PAUSED;
}

static unsigned
learn_answer(struct site *site, const struct site_bounds *bounds, msec_t now)
{
	const double limit = limit_of(site, bounds);
	const bool away = site->failing > 0 && now - site->failing >= AWAY;
	const bool back_off = site->paused == SITE_BACKING_OFF;

	site->failing = 0;
	site->failures = 0;
	site->probing = false;
	if (back_off) /* one that was under way has an answer */
		site->paused = SITE_NOT_PAUSED;
	/* What goes well below a cap says nothing of what would go above it. */
	site->limit = limit_now(site, bounds, now) < limit ? limit : limit + 1 / limit;
	if (site->limit > bounds->most)
		site->limit = bounds->most;
	return away || back_off ? SITE_RESUMED : 0;
}

unsigned
site_learn(struct site *site, const struct site_bounds *bounds, const struct site_attempt *attempt,
           unsigned chance, msec_t now)
{
	unsigned events = learn_speed(site, attempt->contact, now);

	site->seen = now;
	site->delivered += attempt->delivered;
	site->deferred += attempt->deferred;
	site->failed += attempt->failed;
	if (attempt->reply[0])
		snprintf(site->last_reply, sizeof(site->last_reply), "%s", attempt->reply);
	switch (attempt->contact->end) {
	case QUEUE_CONTACT_FAILED:
	case QUEUE_CONTACT_TIMEOUT:
		return events | learn_failure(site, bounds, attempt->began, chance, now);
	case QUEUE_CONTACT_OK:
		return events | learn_answer(site, bounds, now);
	case QUEUE_CONTACT_NONE:
	case QUEUE_CONTACT_LOST:
		break;
	}
	return events;
}

bool
site_has_state(const struct site *site, const struct site_bounds *bounds, msec_t now)
{
	return site->in_flight > 0 || site->slow || site->failing > 0 || site->failures > 0 ||
	       site_is_paused(site, now) || is_capped(&site->by_rule, now) ||
	       is_capped(&site->by_operator, now) || limit_of(site, bounds) > bounds->start;
}
