#include "queue/site.h"

#include <stdlib.h>
#include <string.h>

#include "queue/sites.h"
#include "t/unit/tap.h"

/* What a site allows after what was met there: concurrency, back-off, rate, slowness, at their
 * boundaries; and the bounded memory of all sites. */

#define START INT64_C(1700000000000)
#define EVEN  1000 /* no chance: neither longer nor shorter */

static const struct site_bounds bounds = {.start = 5, .most = 20, .probe = 20};
static struct site site;
static msec_t now;

static unsigned
meet(enum queue_contact_end end, msec_t began, int32_t reply)
{
	const struct queue_contact contact = {
	    .end = end, .connect = 3, .greeting = 5, .reply = reply};
	const struct site_attempt attempt = {.contact = &contact, .began = began, .reply = ""};

	return site_learn(&site, &bounds, &attempt, EVEN, now);
}

static void
begin(void)
{
	now = START;
	site_init(&site, "mx.example", now);
}

static void
test_concurrency(void)
{
	unsigned events = 0;

	begin();
	ok(site_places(&site, &bounds, now) == 5, "five at once to begin with");
	ok(!site_answers(&site), "nobody has met it");
	for (int i = 0; i < 5; i++)
		meet(QUEUE_CONTACT_OK, now, 10);
	ok(site_places(&site, &bounds, now) == 5, "four answers and a bit are not yet one more");
	meet(QUEUE_CONTACT_OK, now, 10);
	ok(site_places(&site, &bounds, now) == 6, "the sixth is");
	ok(site_answers(&site), "it answers");
	for (int i = 0; i < 1000; i++)
		meet(QUEUE_CONTACT_OK, now, 10);
	ok(site_places(&site, &bounds, now) == 20, "never more than the most");
	meet(QUEUE_CONTACT_LOST, now, 10);
	ok(site_places(&site, &bounds, now) == 20, "a connection that ends later changes nothing");
	now += 1000;
	meet(QUEUE_CONTACT_FAILED, now - 500, -1);
	ok(site_places(&site, &bounds, now) == 10, "a failure to connect halves it");
	ok(!site_answers(&site), "and it does not answer");
	for (int i = 0; i < 19; i++)
		meet(QUEUE_CONTACT_FAILED, now - 500, -1);
	ok(site_places(&site, &bounds, now) == 10, "once for all that was under way then");
	for (int i = 0; i < 3; i++) {
		now += 1000;
		events = meet(QUEUE_CONTACT_TIMEOUT, now - 1, -1);
	}
	ok(site_places(&site, &bounds, now) == 1 && !(events & SITE_PAUSED),
	   "down to one: 5, 2, 1");
}

static void
test_back_off(void)
{
	ok(site_back_off(1, EVEN) == 15000 && site_back_off(2, EVEN) == 60000 &&
	       site_back_off(15, EVEN) == 3375000 && site_back_off(16, EVEN) == 3600000 &&
	       site_back_off(4000000000u, EVEN) == 3600000,
	   "15 p² seconds, an hour at most");
	ok(site_back_off(1, 0) == 13500 && site_back_off(1, 2000) == 16500, "10 % either way");

	begin();
	for (int i = 0; i < 3; i++) {
		now += 10;
		meet(QUEUE_CONTACT_FAILED, now, -1);
	}
	ok(site_is_paused(&site, now) && site.failures == 1, "5, 2, 1, and the next one pauses");
	ok(site_places(&site, &bounds, now) == 0 && !site_may_begin(&site, &bounds, now),
	   "in a pause nothing begins");
	ok(site_put_off(&site) == site.until && site_put_off(&site) == site.until + 100,
	   "what meets the pause does not come back all at once");
	now += 14999;
	ok(site_is_paused(&site, now), "15 seconds are not over a millisecond before");
	now += 1;
	ok(!site_is_paused(&site, now) && site_places(&site, &bounds, now) == 1,
	   "then one may try");
	ok(meet(QUEUE_CONTACT_FAILED, site.lowered, -1) == 0,
	   "what had begun by the pause is the same failure");
	now += 1;
	ok(meet(QUEUE_CONTACT_FAILED, now, -1) == SITE_PAUSED && site.until == now + 60000,
	   "the second pause is a minute");
	now += 60000;
	ok(meet(QUEUE_CONTACT_OK, now, 10) == SITE_RESUMED && site.failures == 0 && site.limit == 2,
	   "an answer ends it");
	ok(meet(QUEUE_CONTACT_OK, now, 10) == 0, "once");
	now += 1;
	meet(QUEUE_CONTACT_FAILED, now, -1);
	now += 14999;
	ok(meet(QUEUE_CONTACT_OK, now, 10) == 0, "failing for less than 15 seconds wakes nobody");
	now += 1;
	meet(QUEUE_CONTACT_FAILED, now, -1);
	now += 15000;
	ok(meet(QUEUE_CONTACT_OK, now, 10) == SITE_RESUMED, "15 seconds do");
}

static void
test_pause(void)
{
	begin();
	for (int i = 0; i < 1000; i++)
		meet(QUEUE_CONTACT_OK, now, 10);
	site_pause(&site, SITE_BY_OPERATOR, "alice", now + 5000);
	ok(site_places(&site, &bounds, now) == 0, "an operator's pause");
	meet(QUEUE_CONTACT_OK, now, 10);
	ok(site_is_paused(&site, now), "is not ended by an answer");
	now += 5000;
	site_pause(&site, SITE_BY_OPERATOR, "alice", now);
	ok(site_places(&site, &bounds, now) == 4, "afterwards a fifth of the last limit");
	meet(QUEUE_CONTACT_OK, now, 10);
	ok(site_places(&site, &bounds, now) == 20, "and after an answer all of it");
}

/* Reply rules: below an operator's will; one at a time, and once for all that was under way. */
static void
test_rules(void)
{
	begin();
	ok(site_suspend(&site, "rest", now + 5000, now) && site_is_paused(&site, now) &&
	       strcmp(site.why, "rest") == 0,
	   "a rule suspends");
	ok(!site_suspend(&site, "short", now + 4000, now) && site.until == now + 5000,
	   "not for less than it is already");
	ok(site_suspend(&site, "long", now + 6000, now) && site.until == now + 6000, "for more");
	site_pause(&site, SITE_BY_OPERATOR, "alice", now + 1000);
	ok(!site_suspend(&site, "long", now + 6000, now) && site.until == now + 1000,
	   "and not against an operator");
	begin();
	for (int i = 0; i < 1000; i++)
		meet(QUEUE_CONTACT_OK, now, 10);
	ok(site_slow_down(&site, &bounds, "fast", now, now + 60000, now) &&
	       site_places(&site, &bounds, now) == 10,
	   "slower halves");
	ok(!site_slow_down(&site, &bounds, "fast", now, now + 60000, now) &&
	       site_places(&site, &bounds, now) == 10,
	   "once for all that was under way");
	meet(QUEUE_CONTACT_OK, now, 10);
	ok(site_places(&site, &bounds, now) == 10, "an answer adds nothing meanwhile");
	for (int i = 0; i < 3; i++) {
		now++;
		site_slow_down(&site, &bounds, "fast", now, now + 60000, now);
	}
	ok(site_places(&site, &bounds, now) == 1 && site_may_begin(&site, &bounds, now),
	   "down to one");
	now++;
	site_slow_down(&site, &bounds, "fast", now, now + 60000, now);
	site_begin(&site, &bounds, now);
	site_end(&site);
	ok(site_conforms(&site, &bounds, now) == now + 2000, "and then one in two seconds");
	now++;
	site_slow_down(&site, &bounds, "fast", now, now + 60000, now);
	site_begin(&site, &bounds, now + 2000);
	site_end(&site);
	ok(site_conforms(&site, &bounds, now + 2000) == now + 6000, "in four");
	for (int i = 0; i < 30; i++) {
		now++;
		site_slow_down(&site, &bounds, "fast", now, now + 60000, now);
	}
	ok(site.by_rule.rate.period < 5 * 60 * 1000, "but some go in any hour");
	ok(site_has_state(&site, &bounds, now), "which is remembered");
	now += 60000 + 6000;
	ok(site_places(&site, &bounds, now) == 1, "afterwards it begins from there,");
	for (int i = 0; i < 1000; i++)
		meet(QUEUE_CONTACT_OK, now, 10);
	ok(site_places(&site, &bounds, now) == 20 && site_conforms(&site, &bounds, now) <= now,
	   "and grows again");
}

/* The strictest of configuration, rule and operator, while it lasts. */
static void
test_caps(void)
{
	const struct site_bounds some = {.start = 5,
	                                 .most = 20,
	                                 .probe = 20,
	                                 .rate = {.at_once = 1, .count = 60, .period = 60000}};

	begin();
	site.by_operator = (struct site_cap){.until = now + 10000,
	                                     .connections = 2,
	                                     .rate = {.at_once = 1, .count = 10, .period = 60000}};
	ok(site_places(&site, &some, now) == 2, "an operator's limit");
	ok(site_rate(&site, &some, now)->count == 10, "and rate");
	site.by_operator.connections = 100;
	site.by_operator.rate.count = 100;
	ok(site_places(&site, &some, now) == 5 && site_rate(&site, &some, now)->count == 60,
	   "never more than the configuration's");
	site.by_operator.connections = 2;
	site.by_operator.rate.count = 10;
	now += 10000;
	ok(site_places(&site, &some, now) == 5 && site_rate(&site, &some, now)->count == 60,
	   "which holds again when its time is over");
}

/* Somebody wants one a day of it for a minute. */
static void
test_rate_over(void)
{
	const struct site_bounds slow = {.start = 5,
	                                 .most = 20,
	                                 .probe = 20,
	                                 .rate = {.at_once = 3, .count = 10, .period = 60000}};
	unsigned begun = 0;

	begin();
	site.by_operator = (struct site_cap){
	    .until = now + 60000, .rate = {.at_once = 1, .count = 1, .period = 86400000}};
	site_begin(&site, &slow, now);
	site_end(&site);
	ok(!site_may_begin(&site, &slow, now + 59000), "one a day, for a while");
	now += 61000;
	for (; site_may_begin(&site, &slow, now) && begun < 10; begun++) {
		site_begin(&site, &slow, now);
		site_end(&site);
	}
	ok(begun == 3 && site_conforms(&site, &slow, now) == now + 6000,
	   "after that it does not wait for the rest of the day, and has its own rate again");
}

static void
test_rate(void)
{
	const struct site_bounds slow = {.start = 5,
	                                 .most = 20,
	                                 .probe = 20,
	                                 .rate = {.at_once = 3, .count = 10, .period = 60000}};
	unsigned begun = 0;

	begin();
	while (site_may_begin(&site, &slow, now) && begun < 10) {
		site_begin(&site, &slow, now);
		site_end(&site);
		begun++;
	}
	ok(begun == 3, "three at once");
	ok(site_conforms(&site, &slow, now) == now + 6000, "and then one in six seconds");
	ok(!site_may_begin(&site, &slow, now + 5999) && site_may_begin(&site, &slow, now + 6000),
	   "not a millisecond earlier");
	now += 3600000;
	for (begun = 0; site_may_begin(&site, &slow, now) && begun < 10; begun++) {
		site_begin(&site, &slow, now);
		site_end(&site);
	}
	ok(begun == 3, "what was not used in an hour is not saved");
	for (begun = 0; site_may_begin(&site, &bounds, now) && begun < 10; begun++)
		site_begin(&site, &bounds, now);
	ok(begun == 5, "without a rate only the places count");
}

static void
test_slow(void)
{
	unsigned events = 0;

	begin();
	for (int i = 0; i < 7; i++)
		events |= meet(QUEUE_CONTACT_OK, now, 30000);
	ok(events == 0 && site_reply_p90(&site) == -1, "seven replies say nothing");
	ok(meet(QUEUE_CONTACT_OK, now, 30000) == SITE_SLOW, "eight of 30 s are slow");
	for (int i = 0; i < 28; i++)
		events |= meet(QUEUE_CONTACT_OK, now, 100);
	ok(events == 0 && site.slow, "28 quick ones in 32 are not a p90");
	ok(meet(QUEUE_CONTACT_OK, now, 100) == SITE_RECOVERED, "29 are: not slow any more");
	for (int i = 0; i < 32; i++)
		events |= meet(QUEUE_CONTACT_OK, now, 20000);
	ok(events == 0, "20 s are not yet slow");
	meet(QUEUE_CONTACT_OK, now, 20001);
	for (int i = 0; i < 3; i++)
		events |= meet(QUEUE_CONTACT_OK, now, 20001);
	ok(events == SITE_SLOW, "more than 20 s are");
	events = 0;
	for (int i = 0; i < 32; i++)
		events |= meet(QUEUE_CONTACT_OK, now, 10000);
	ok(events == 0 && site.slow, "10 s are not yet well");

	begin();
	for (int i = 0; i < 2; i++)
		events |= meet(QUEUE_CONTACT_TIMEOUT, now += 100000, -1);
	ok(!(events & SITE_SLOW), "two timeouts are not slow");
	ok(meet(QUEUE_CONTACT_TIMEOUT, now += 100000, -1) & SITE_SLOW, "three in ten minutes are");
	now += SITE_SLOW_WINDOW - 1;
	ok(site_look(&site, now) == 0, "until ten minutes are over");
	ok(site_look(&site, now + 1) == SITE_RECOVERED, "without another one");
}

static void
test_histogram(void)
{
	struct site_histogram histogram = {{0}};

	ok(site_histogram_percentile(&histogram, 90) == 0, "nothing has no percentile");
	for (int i = 0; i < 90; i++)
		site_histogram_add(&histogram, 0);
	for (int i = 0; i < 10; i++)
		site_histogram_add(&histogram, 1000);
	site_histogram_add(&histogram, -1);
	ok(site_histogram_percentile(&histogram, 90) == 0, "90 of 100 at 0");
	ok(site_histogram_percentile(&histogram, 91) == 1023, "the 91st below 1024");
	site_histogram_add(&histogram, INT32_MAX);
	ok(histogram.buckets[SITE_BUCKETS - 1] == 1, "the last bucket has no end");
	begin();
	for (int i = 0; i < 8; i++)
		meet(QUEUE_CONTACT_OK, now, 100);
	now += 24 * 60 * 60 * 1000;
	meet(QUEUE_CONTACT_OK, now, 100);
	ok(site.reply.buckets[7] == 5, "halved each day");
	now += INT64_C(400) * 24 * 60 * 60 * 1000;
	meet(QUEUE_CONTACT_OK, now, 100);
	ok(site.reply.buckets[7] == 1, "after a year nothing is left");
}

static void
on_domain(void *arg, const char *domain)
{
	(void)domain;
	++*(unsigned *)arg;
}

static void
test_sites(void)
{
	const struct conf conf = {.relay_site_connections = 20};
	struct sites *sites = sites_new(&conf);
	struct site *first = sites_of(sites, "a.example", START), *kept, *real;
	char name[32];
	unsigned count = 0;

	ok(strcmp(first->name, "a.example") == 0 && sites_bounds(first)->start == 5 &&
	       sites_bounds(first)->most == 20,
	   "a domain nobody asked about is a site of its own name");
	real = sites_learn(sites, "a.example", "mx.example", START);
	ok(strcmp(real->name, "mx.example") == 0 && sites_of(sites, "a.example", START) == real &&
	       sites_learn(sites, "b.example", "mx.example", START) == real,
	   "what serves it is learned, and may serve others");
	ok(sites_find(sites, "mx.example") == real && sites_find(sites, "b.example") == real &&
	       sites_peek(sites, "c.example") == NULL,
	   "it is found by both names");
	sites_each_domain(real, on_domain, &count);
	ok(count == 2, "and knows its domains");
	kept = sites_of(sites, "kept.example", START);
	sites_hold(sites, kept);
	sites_of(sites, "failing.example", START)->failures = 1;
	for (unsigned i = 0; i < DOMAINS_MAX + 1000; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		sites_of(sites, name, START);
	}
	ok(sites_find(sites, "kept.example") == kept, "one in use stays, whatever comes");
	ok(sites_find(sites, "failing.example") != NULL,
	   "one with something to remember stays longer");
	ok(sites_find(sites, "mx.example") == NULL && sites_find(sites, "d0.example") == NULL,
	   "others are forgotten");
	sites_release(sites, kept);
	sites_free(sites);
}

static void
test_overrides(void)
{
	struct conf_site list[] = {
	    {.match = "mx.example",
	     .connections = 3,
	     .start = 9,
	     .probe = 50,
	     .session_recipients = 100,
	     .session_messages = 9,
	     .pool = "own"},
	    {.match = "*.carrier.example",
	     .connections = 0,
	     .start = 1,
	     .probe = 20,
	     .rate = {100, 10, 1000}},
	    {.match = "*", .connections = 7, .start = 2, .probe = 20, .pool = "default"},
	};
	struct conf conf = {.relay_site_connections = 20, .sites = {list, 3}};
	struct sites *sites = sites_new(&conf);
	const struct site_bounds *got = sites_bounds(sites_of(sites, "other.example", START));

	ok(got->start == 2 && got->most == 7 && got->rate.count == 0 && got->pool == NULL,
	   "what fits all");
	got = sites_bounds(sites_learn(sites, "a.example", "mx.example+3f2a", START));
	ok(got->most == 3 && got->start == 3 && got->probe == 50 &&
	       got->session_recipients == 100 && got->session_messages == 9 &&
	       strcmp(got->pool, "own") == 0,
	   "by the site's name, the start at most the most");
	got = sites_bounds(sites_learn(sites, "b.example", "mail.example:2525", START));
	ok(got->most == 7, "a host with its port");
	sites_learn(sites, "ezweb.carrier.example", "mail.example:2525", START);
	ok(got->most == 20 && got->start == 1 && got->rate.count == 10,
	   "by a domain that it serves, as soon as that is known, if it stands earlier");
	sites_learn(sites, "c.example", "mail.example:2525", START);
	ok(got->start == 1, "one that stands later changes nothing");
	conf.sites.count = 1;
	sites_reload(sites, &conf);
	ok(got->most == 20 && got->start == 5 && got->rate.count == 0,
	   "a reload changes it at once");
	sites_free(sites);
}

int
main(void)
{
	test_concurrency();
	test_back_off();
	test_pause();
	test_rules();
	test_caps();
	test_rate();
	test_rate_over();
	test_slow();
	test_histogram();
	test_sites();
	test_overrides();
	return tap_end();
}
