#include "admin/command.h"

/* site: what the queue knows of those it sends to, and what operators want of them. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/control_site.h"

/* "10/1min"; null: no bound. */
static json_t *
rate_json(const struct conf_burst *rate)
{
	if (rate->count == 0)
		return json_null();
	return json_pack("{s:o,s:o}", "count", json_number(rate->count), "seconds",
	                 json_number((uint64_t)rate->period / 1000));
}

static json_t *
times_json(const struct queue_site_times *times)
{
	return json_pack("{s:o,s:o,s:o}", "p50", json_number(times->p50), "p90",
	                 json_number(times->p90), "p99", json_number(times->p99));
}

static json_t *
cap_json(const struct queue_site_cap *cap)
{
	if (cap->until == 0)
		return json_null();
	return json_pack("{s:o,s:o,s:o,s:o}", "until", json_time(cap->until), "connections",
	                 cap->connections ? json_number(cap->connections) : json_null(), "rate",
	                 rate_json(&cap->rate), "why", json_text(cap->why));
}

static json_t *
site_json(const struct queue_site_view *site)
{
	json_t *one = json_object();

	json_object_set_new(one, "site", json_text(site->name));
	json_object_set_new(one, "paused", site->paused[0] ? json_text(site->paused) : json_null());
	json_object_set_new(one, "until", json_time(site->until));
	json_object_set_new(one, "why", site->why[0] ? json_text(site->why) : json_null());
	json_object_set_new(one, "slow", json_boolean(site->slow));
	json_object_set_new(one, "probing", json_boolean(site->probing));
	json_object_set_new(one, "failures", json_number(site->failures));
	json_object_set_new(one, "failing", json_time(site->failing));
	json_object_set_new(one, "limit", json_number(site->limit));
	json_object_set_new(one, "in_flight", json_number(site->in_flight));
	json_object_set_new(one, "waiting", json_number(site->waiting));
	json_object_set_new(one, "rate", rate_json(&site->rate));
	json_object_set_new(one, "by_rule", cap_json(&site->by_rule));
	json_object_set_new(one, "by_operator", cap_json(&site->by_operator));
	json_object_set_new(one, "override",
	                    site->override[0] ? json_text(site->override) : json_null());
	json_object_set_new(one, "connect", times_json(&site->connect));
	json_object_set_new(one, "greeting", times_json(&site->greeting));
	json_object_set_new(one, "reply", times_json(&site->reply));
	json_object_set_new(one, "recent",
	                    site->recent < 0 ? json_null() : json_number((uint64_t)site->recent));
	json_object_set_new(one, "delivered", json_number(site->delivered));
	json_object_set_new(one, "deferred", json_number(site->deferred));
	json_object_set_new(one, "failed", json_number(site->failed));
	json_object_set_new(one, "timeouts", json_number(site->timed_out));
	json_object_set_new(one, "seen", json_time(site->seen));
	json_object_set_new(one, "last_reply", json_text(site->last_reply));
	return one;
}

static json_t *
next_page(const struct request *request, size_t count, bool more)
{
	return more ? json_number(request_count(request, "after") + count) : json_null();
}

static void
on_sites(void *arg, enum queue_answer got, const struct queue_site_view *list, size_t count,
         bool more)
{
	struct request *request = arg;
	json_t *sites;

	if (!request_queue_done(request, got))
		return;
	sites = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(sites, site_json(&list[i]));
	request_answer(request, json_pack("{s:o,s:o}", "sites", sites, "next",
	                                  next_page(request, count, more)));
}

void
cmd_site_list(struct request *request)
{
	queue_ask_sites(request_peers(request)->queue, false, request_count(request, "after"),
	                on_sites, request);
}

void
cmd_site_slow(struct request *request)
{
	queue_ask_sites(request_peers(request)->queue, true, request_count(request, "after"),
	                on_sites, request);
}

static void
on_rules(void *arg, enum queue_answer got, const struct queue_reply_rule *list, size_t count,
         bool more)
{
	struct request *request = arg;
	json_t *rules;

	if (!request_queue_done(request, got))
		return;
	rules = json_array();
	for (size_t i = 0; i < count; i++) {
		const struct queue_reply_rule *rule = &list[i];

		json_array_append_new(
		    rules,
		    json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:b,s:o,s:o}", "name",
		              json_text(rule->name), "action", json_text(rule->action), "code",
		              json_text(rule->code), "enhanced", json_text(rule->enhanced), "text",
		              json_text(rule->text), "site", json_text(rule->site), "for",
		              json_number((uint64_t)rule->period / 1000), "shipped", rule->shipped,
		              "count", json_number(rule->count), "last", json_time(rule->last)));
	}
	request_answer(request, json_pack("{s:o,s:o}", "rules", rules, "next",
	                                  next_page(request, count, more)));
}

void
cmd_site_rules(struct request *request)
{
	queue_ask_reply_rules(request_peers(request)->queue, request_count(request, "after"),
	                      on_rules, request);
}

static void
answer_site(struct request *request, const struct queue_site_view *site, const char *const *domains,
            size_t count, uint32_t domain_count)
{
	json_t *result = site_json(site), *names = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(names, json_text(domains[i]));
	json_object_set_new(result, "domains", names);
	json_object_set_new(result, "domain_count", json_number(domain_count));
	request_answer(request, result);
}

static void
on_site(void *arg, enum queue_answer got, const struct queue_site_view *site,
        const char *const *domains, size_t count, uint32_t domain_count)
{
	if (got == QUEUE_NOT_FOUND)
		request_refuse(arg, "not-found",
		               "no such site is known, nor which serves such a domain; sekishoctl "
		               "site list shows them");
	else if (request_queue_done(arg, got))
		answer_site(arg, site, domains, count, domain_count);
}

void
cmd_site_show(struct request *request)
{
	char site[QUEUE_SITE_SIZE];

	request_site(request, site);
	queue_ask_site(request_peers(request)->queue, site, on_site, request);
}

static void
on_ordered(void *arg, enum queue_answer got, const struct queue_site_view *site,
           const char *const *domains, size_t count, uint32_t domain_count)
{
	if (got == QUEUE_NOT_FOUND)
		request_refuse(arg, "not-found",
		               "there is nothing to end; sekishoctl site show tells what holds");
	else if (got == QUEUE_LIMIT)
		request_refuse(arg, "refused",
		               "as many suspensions and limits of sites as there may be are in "
		               "force; end one");
	else if (request_queue_done(arg, got))
		answer_site(arg, site, domains, count, domain_count);
}

static void
order(struct request *request, enum queue_site_action action, uint32_t connections,
      const struct conf_burst *rate)
{
	char site[QUEUE_SITE_SIZE];
	const msec_t time = request_duration(request, "for");
	const struct queue_site_order order = {
	    .action = action,
	    .site = site,
	    .until = time ? clock_wall() + time : 0,
	    .connections = connections,
	    .rate = *rate,
	    .by = request_by(request),
	    .reason = request_text(request, "reason"),
	};

	request_site(request, site);
	queue_order_site(request_peers(request)->queue, &order, on_ordered, request);
}

static const struct conf_burst no_rate;

void
cmd_site_suspend(struct request *request)
{
	order(request, QUEUE_SITE_SUSPEND, 0, &no_rate);
}

void
cmd_site_resume(struct request *request)
{
	order(request, QUEUE_SITE_RESUME, 0, &no_rate);
}

void
cmd_site_unlimit(struct request *request)
{
	order(request, QUEUE_SITE_UNLIMIT, 0, &no_rate);
}

/* "10/min", "100/5min" */
static bool
rate_parse(const char *text, struct conf_burst *out)
{
	char period[32], *end;
	const unsigned long count = strtoul(text, &end, 10);

	if (!isdigit((unsigned char)text[0]) || *end != '/' || count == 0 || count > 1000000)
		return false;
	end++;
	snprintf(period, sizeof(period), "%s%s", isdigit((unsigned char)*end) ? "" : "1", end);
	out->at_once = 1;
	out->count = (uint32_t)count;
	return strlen(end) < sizeof(period) - 1 && conf_duration(period, &out->period) &&
	       out->period > 0 && out->period <= INT64_C(24) * 60 * 60 * 1000;
}

void
cmd_site_limit(struct request *request)
{
	const uint32_t connections = request_count(request, "connections");
	const char *text = request_text(request, "rate");
	struct conf_burst rate = no_rate;

	if (*text != '\0' && !rate_parse(text, &rate))
		request_refuse(request, "invalid",
		               "the argument \"rate\" is none; write it like 10/min or 100/5min, a "
		               "day at most");
	else if (connections == 0 && rate.count == 0)
		request_refuse(request, "usage",
		               "say what it may get at most: \"connections\" at once, \"rate\", or "
		               "both; to leave it alone, suspend it");
	else
		order(request, QUEUE_SITE_LIMIT, connections, &rate);
}
