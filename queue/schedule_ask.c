#include "queue/schedule_int.h"

/* The NOC's questions and orders about sites and reply rules. A list is made anew for each of its
 * pages: what is known of sites is in memory, and bounded. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

static void
answer(struct schedule *schedule, struct ipc_from to, enum queue_answer value)
{
	struct buf frame;

	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)value);
	ipc_hub_reply(schedule->hub, to, &frame, -1);
	buf_clear(&frame);
}

static unsigned
in_line(const struct schedule *schedule, const struct site *site)
{
	unsigned sum = 0;

	for (size_t i = 0; i < QUEUE_LANES; i++) {
		const struct line *line = line_find(&schedule->lanes[i], site->name);

		sum += line ? line->load.pending : 0;
	}
	return sum;
}

static struct queue_site_times
times_of(const struct site_histogram *histogram)
{
	return (struct queue_site_times){
	    .p50 = site_histogram_percentile(histogram, 50),
	    .p90 = site_histogram_percentile(histogram, 90),
	    .p99 = site_histogram_percentile(histogram, 99),
	};
}

static void
view_cap(const struct site_cap *cap, msec_t now, struct queue_site_cap *out)
{
	if (cap->until <= now)
		return;
	out->until = cap->until;
	out->connections = cap->connections;
	out->rate = cap->rate;
	snprintf(out->why, sizeof(out->why), "%s", cap->why);
}

static void
put_site(struct schedule *schedule, struct buf *frame, const struct site *site)
{
	static const char *const pauses[] = {"", "back-off", "reply-rule", "operator"};
	const msec_t now = schedule_now(schedule);
	const struct site_bounds *bounds = sites_bounds(site);
	struct queue_site_view view;

	memset(&view, 0, sizeof(view));
	snprintf(view.name, sizeof(view.name), "%s", site->name);
	if (site_is_paused(site, now)) {
		snprintf(view.paused, sizeof(view.paused), "%s", pauses[site->paused]);
		snprintf(view.why, sizeof(view.why), "%s", site->why);
		view.until = site->until;
	}
	view.slow = site->slow;
	view.probing = site->probing;
	view.failures = site->failures;
	view.failing = site->failing;
	view.limit = site_places(site, bounds, now);
	view.in_flight = site->in_flight;
	view.waiting = in_line(schedule, site);
	view.rate = *site_rate(site, bounds, now);
	view_cap(&site->by_rule, now, &view.by_rule);
	view_cap(&site->by_operator, now, &view.by_operator);
	snprintf(view.override, sizeof(view.override), "%s", sites_override(schedule->sites, site));
	view.connect = times_of(&site->connect);
	view.greeting = times_of(&site->greeting);
	view.reply = times_of(&site->reply);
	view.recent = site_reply_p90(site);
	view.delivered = site->delivered;
	view.deferred = site->deferred;
	view.failed = site->failed;
	view.timed_out = site->timed_out;
	view.seen = site->seen;
	snprintf(view.last_reply, sizeof(view.last_reply), "%s", site->last_reply);
	proto_put_site(frame, &view);
}

/* --- lists --- */

struct ranked {
	const struct site *site;
	uint64_t rank; /* the highest first */
};
struct ranking {
	const struct schedule *schedule;
	bool slow;
	struct ranked *list;
	size_t count, room;
};

static void
on_site(void *arg, struct site *site)
{
	struct ranking *ranking = arg;
	const int32_t p90 = site_reply_p90(site);

	if (ranking->slow && !site->slow)
		return;
	if (ranking->count == ranking->room) {
		ranking->room = ranking->room ? 2 * ranking->room : 256;
		ranking->list = xreallocarray(ranking->list, ranking->room, sizeof(*ranking->list));
	}
	ranking->list[ranking->count++] = (struct ranked){
	    site, ranking->slow ? (uint64_t)(p90 > 0 ? p90 : 0)
	                        : (uint64_t)in_line(ranking->schedule, site) + site->in_flight};
}

static int
by_rank(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? 1 : -1;
	return strcmp(x->site->name, y->site->name);
}

static void
on_sites(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct ranking ranking = {.schedule = schedule, .slow = wire_u8(&wire) != 0};
	const size_t first = wire_u32(&wire);
	size_t count = 0;
	struct buf reply;

	if (!wire_done(&wire)) {
		answer(schedule, from, QUEUE_INVALID);
		return;
	}
	sites_each(schedule->sites, on_site, &ranking);
	if (ranking.count > 0)
		qsort(ranking.list, ranking.count, sizeof(*ranking.list), by_rank);
	if (first < ranking.count)
		count = ranking.count - first;
	if (count > PROTO_SITES_PAGE)
		count = PROTO_SITES_PAGE;
	buf_init(&reply);
	wire_put_u8(&reply, QUEUE_DONE);
	wire_put_u16(&reply, (uint16_t)count);
	for (size_t i = first; i < first + count; i++)
		put_site(schedule, &reply, ranking.list[i].site);
	wire_put_u8(&reply, first + count < ranking.count);
	ipc_hub_reply(schedule->hub, from, &reply, -1);
	buf_clear(&reply);
	free(ranking.list);
}

static void
on_rules(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	const size_t first = wire_u32(&wire);
	struct reply_rule_view view;
	struct buf list, reply;
	size_t count = 0;

	if (!wire_done(&wire)) {
		answer(schedule, from, QUEUE_INVALID);
		return;
	}
	buf_init(&list);
	buf_init(&reply);
	for (;
	     count < PROTO_RULES_PAGE && reply_rules_view(schedule->replies, first + count, &view);
	     count++) {
		struct queue_reply_rule rule;

		memset(&rule, 0, sizeof(rule));
		snprintf(rule.name, sizeof(rule.name), "%s", view.rule->name);
		snprintf(rule.action, sizeof(rule.action), "%s",
		         reply_action_name(view.rule->action));
		snprintf(rule.code, sizeof(rule.code), "%s", view.rule->code);
		snprintf(rule.enhanced, sizeof(rule.enhanced), "%s", view.rule->enhanced);
		snprintf(rule.text, sizeof(rule.text), "%s", view.rule->text);
		snprintf(rule.site, sizeof(rule.site), "%s", view.rule->site);
		rule.period = view.rule->period;
		rule.shipped = view.is_shipped;
		rule.count = view.count;
		rule.last = view.last;
		proto_put_reply_rule(&list, &rule);
	}
	wire_put_u8(&reply, QUEUE_DONE);
	wire_put_u16(&reply, (uint16_t)count);
	wire_put_raw(&reply, list.data, list.len);
	wire_put_u8(&reply, reply_rules_view(schedule->replies, first + count, &view));
	ipc_hub_reply(schedule->hub, from, &reply, -1);
	buf_clear(&list);
	buf_clear(&reply);
}

/* --- one site --- */

struct domains {
	struct buf names;
	size_t shown;
	uint32_t count;
};

static void
on_domain(void *arg, const char *domain)
{
	struct domains *domains = arg;

	if (domains->count++ >= QUEUE_SITE_DOMAINS)
		return;
	wire_put_str(&domains->names, domain);
	domains->shown++;
}

static void
answer_site(struct schedule *schedule, struct ipc_from to, const char *name)
{
	const struct site *site = sites_find(schedule->sites, name);
	struct domains domains = {.shown = 0};
	struct buf reply;

	if (site == NULL) {
		answer(schedule, to, QUEUE_NOT_FOUND);
		return;
	}
	buf_init(&domains.names);
	buf_init(&reply);
	sites_each_domain(site, on_domain, &domains);
	wire_put_u8(&reply, QUEUE_DONE);
	put_site(schedule, &reply, site);
	wire_put_u32(&reply, domains.count);
	wire_put_u16(&reply, (uint16_t)domains.shown);
	wire_put_raw(&reply, domains.names.data, domains.names.len);
	ipc_hub_reply(schedule->hub, to, &reply, -1);
	buf_clear(&domains.names);
	buf_clear(&reply);
}

static void
on_show(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	char name[QUEUE_SITE_SIZE];

	proto_word(&wire, name, sizeof(name));
	if (wire_done(&wire))
		answer_site(schedule, from, name);
	else
		answer(schedule, from, QUEUE_INVALID);
}

struct asked { /* an order on its way to the disk */
	struct schedule *schedule;
	struct ipc_from from;
	char site[QUEUE_SITE_SIZE];
};

static void
on_ordered(void *arg, enum queue_answer got)
{
	struct asked *asked = arg;
	struct schedule *schedule = asked->schedule;

	/* What was only known for the order's sake is forgotten with it. */
	if (got == QUEUE_DONE && sites_find(schedule->sites, asked->site) == NULL)
		sites_get(schedule->sites, asked->site, schedule_now(schedule));
	if (got == QUEUE_DONE)
		answer_site(asked->schedule, asked->from, asked->site);
	else
		answer(asked->schedule, asked->from, got);
	free(asked);
}

static void
on_order(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct asked *asked = xcalloc(1, sizeof(*asked));
	struct queue_site_order order = {.site = asked->site};
	char by[64], reason[128];
	const unsigned action = wire_u8(&wire);

	asked->schedule = schedule;
	asked->from = from;
	proto_word(&wire, asked->site, sizeof(asked->site));
	order.action = (enum queue_site_action)action;
	order.until = (msec_t)wire_u64(&wire);
	order.connections = wire_u32(&wire);
	proto_rate(&wire, &order.rate);
	wire_str(&wire, by, sizeof(by));
	wire_str(&wire, reason, sizeof(reason));
	order.by = by;
	order.reason = reason;
	const bool begins = action == QUEUE_SITE_SUSPEND || action == QUEUE_SITE_LIMIT;
	if (!wire_done(&wire) || action > QUEUE_SITE_UNLIMIT ||
	    (begins && order.until <= clock_wall()) ||
	    (action == QUEUE_SITE_LIMIT && order.connections == 0 && order.rate.count == 0)) {
		answer(schedule, from, QUEUE_INVALID);
		free(asked);
		return;
	}
	orders_change(schedule->orders, &order, on_ordered, asked);
}

bool
schedule_site_frame(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	if (frame->type == PROTO_SITES)
		on_sites(schedule, from, frame);
	else if (frame->type == PROTO_SITE)
		on_show(schedule, from, frame);
	else if (frame->type == PROTO_SITE_ORDER)
		on_order(schedule, from, frame);
	else if (frame->type == PROTO_REPLY_RULES)
		on_rules(schedule, from, frame);
	else
		return false;
	return true;
}
