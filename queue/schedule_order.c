#include "queue/schedule_int.h"

/* What operators want of sites: one directive for each, so it outlives a restart and comes before
 * anything is attempted. As with holds, memory follows the disk. A domain of which the site is not
 * known yet is ordered about as a site of its own, and takes the order along when it is. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

#define FORMAT 1
#define LOOK   60000 /* msec: the wall clock may be set before an order ends */
#define AGAIN  5000  /* after a failed write */

enum order_kind { ORDER_SUSPEND, ORDER_LIMIT };
static const char *const kind_names[] = {"suspend", "limit"};

struct will { /* what is written of an order */
	enum order_kind kind;
	char site[QUEUE_SITE_SIZE];
	msec_t until; /* wall clock */
	uint32_t connections;
	struct conf_burst rate;
	char by[64], reason[128];
};

struct order {
	TAILQ_ENTRY(order) link;
	struct will will;
	struct site *site; /* held */
};

struct orders {
	struct schedule *schedule;
	struct loop_timer *timer;
	TAILQ_HEAD(, order) all;
	unsigned count, changing; /* in force; writes under way */
};

static struct order *
find(const struct orders *orders, enum order_kind kind, const char *site)
{
	struct order *order;

	TAILQ_FOREACH(order, &orders->all, link)
	{
		if (order->will.kind == kind && strcmp(order->will.site, site) == 0)
			break;
	}
	return order;
}

/* What the site remembers of it. */
static void
bind_order(const struct order *order)
{
	const struct will *will = &order->will;
	struct site *site = order->site;
	char why[SITE_WHY_SIZE];

	snprintf(why, sizeof(why), "%s by %s%s%s",
	         will->kind == ORDER_SUSPEND ? "suspended" : "limited", will->by,
	         will->reason[0] ? ": " : "", will->reason);
	if (will->kind == ORDER_SUSPEND) {
		site_pause(site, SITE_BY_OPERATOR, why, will->until);
		return;
	}
	site->by_operator = (struct site_cap){
	    .until = will->until, .connections = will->connections, .rate = will->rate};
	memcpy(site->by_operator.why, why, sizeof(why));
}

static void
enter(struct orders *orders, const struct will *will)
{
	struct schedule *schedule = orders->schedule;
	struct order *order = find(orders, will->kind, will->site);

	if (order == NULL) {
		order = xcalloc(1, sizeof(*order));
		order->site = sites_get(schedule->sites, will->site, schedule_now(schedule));
		sites_hold(schedule->sites, order->site);
		TAILQ_INSERT_TAIL(&orders->all, order, link);
		orders->count++;
	}
	order->will = *will;
	bind_order(order);
}

static void
drop(struct orders *orders, struct order *order)
{
	TAILQ_REMOVE(&orders->all, order, link);
	orders->count--;
	sites_release(orders->schedule->sites, order->site);
	free(order);
}

/* The site is free again. */
static void
let_go(struct schedule *schedule, struct site *site)
{
	site_resume(site, schedule_now(schedule));
	sites_changed(schedule->sites, site);
	wakes_begin(schedule->wakes, site);
	site_settle(schedule, site);
	lanes_dispatch(schedule);
}

static void
end(struct orders *orders, struct order *order)
{
	struct schedule *schedule = orders->schedule;
	struct site *site = order->site;

	sites_hold(schedule->sites, site);
	if (order->will.kind == ORDER_LIMIT)
		memset(&site->by_operator, 0, sizeof(site->by_operator));
	else if (site->paused == SITE_BY_OPERATOR)
		let_go(schedule, site);
	drop(orders, order);
	site_settle(schedule, site);
	sites_release(schedule->sites, site);
	lanes_dispatch(schedule);
}

/* --- the directives --- */

#define NAME_SIZE (QUEUE_SITE_SIZE + 16)

static void
directive_name(const struct will *will, char out[NAME_SIZE])
{
	snprintf(out, NAME_SIZE, "site-%s %s", kind_names[will->kind], will->site);
}

static void
put_will(struct buf *buf, const struct will *will)
{
	wire_put_u8(buf, FORMAT);
	wire_put_u8(buf, (uint8_t)will->kind);
	wire_put_str(buf, will->site);
	wire_put_u64(buf, (uint64_t)will->until);
	wire_put_u32(buf, will->connections);
	proto_put_rate(buf, &will->rate);
	wire_put_str(buf, will->by);
	wire_put_str(buf, will->reason);
}

static void
on_directive(void *arg, const char *name, const uint8_t *value, size_t len)
{
	struct orders *orders = arg;
	struct wire wire = wire_from(value, len);
	struct will will;

	if (strncmp(name, "site-", 5) != 0)
		return;
	memset(&will, 0, sizeof(will));
	const unsigned format = wire_u8(&wire), kind = wire_u8(&wire);
	will.kind = (enum order_kind)kind;
	proto_word(&wire, will.site, sizeof(will.site));
	will.until = (msec_t)wire_u64(&wire);
	will.connections = wire_u32(&wire);
	proto_rate(&wire, &will.rate);
	wire_str(&wire, will.by, sizeof(will.by));
	wire_str(&wire, will.reason, sizeof(will.reason));
	if (wire_done(&wire) && format == FORMAT && kind <= ORDER_LIMIT)
		enter(orders, &will);
	else
		log_error("-", "site-order-unreadable", "name=\"%.64s\"", name);
}

struct change {
	struct orders *orders;
	struct will will;
	bool ends;
	orders_on_done *on_done;
	void *arg;
};

static void look_at_clock(struct orders *orders);

static void
log_change(const struct change *change)
{
	const struct will *will = &change->will;
	char until[CLOCK_RFC3339_SIZE];

	clock_rfc3339(will->until, until);
	if (change->ends)
		log_info("-", will->kind == ORDER_SUSPEND ? "site-resume" : "site-unlimit",
		         "site=%s by=\"%s\"", will->site, will->by);
	else if (will->kind == ORDER_SUSPEND)
		log_info("-", "site-suspend", "site=%s until=%s by=\"%s\" reason=\"%s\"",
		         will->site, until, will->by, will->reason);
	else
		log_info("-", "site-limit",
		         "site=%s until=%s connections=%u rate=%u period=%lld by=\"%s\" "
		         "reason=\"%s\"",
		         will->site, until, will->connections, will->rate.count,
		         (long long)will->rate.period, will->by, will->reason);
}

static void
on_stored(void *arg, enum store_result result)
{
	struct change *change = arg;
	struct orders *orders = change->orders;
	struct schedule *schedule = orders->schedule;
	struct order *order;
	const bool good = result == STORE_OK;

	orders->changing--;
	if (!good) {
		log_error("-", "site-order-failed", "site=%s by=\"%s\" error=%s", change->will.site,
		          change->will.by, store_result_text(result));
	} else if (schedule->stopped) {
		log_change(change); /* the next start takes it up */
	} else if (change->ends) {
		log_change(change);
		if ((order = find(orders, change->will.kind, change->will.site)) != NULL)
			end(orders, order);
	} else {
		log_change(change);
		enter(orders, &change->will);
		order = find(orders, change->will.kind, change->will.site);
		sites_hold(schedule->sites, order->site);
		site_told(schedule, order->site,
		          change->will.kind == ORDER_SUSPEND ? SITE_PAUSED : 0);
		lanes_dispatch(schedule);
	}
	if (!schedule->stopped && good)
		look_at_clock(orders);
	else if (!schedule->stopped)
		loop_timer_arm(orders->timer, AGAIN);
	if (change->on_done)
		change->on_done(change->arg, good ? QUEUE_DONE : QUEUE_DOWN);
	free(change);
}

static void
write_change(struct orders *orders, const struct will *will, bool ends, orders_on_done *on_done,
             void *arg)
{
	struct change *change = xcalloc(1, sizeof(*change));
	char name[NAME_SIZE];
	struct buf value;

	*change = (struct change){
	    .orders = orders, .will = *will, .ends = ends, .on_done = on_done, .arg = arg};
	directive_name(will, name);
	buf_init(&value);
	put_will(&value, will);
	orders->changing++;
	store_directive_put(orders->schedule->store, name, ends ? NULL : value.data,
	                    ends ? 0 : value.len, on_stored, change);
	buf_clear(&value);
}

static void
end_by(struct orders *orders, const struct order *order, const char *by, orders_on_done *on_done,
       void *arg)
{
	struct will will = order->will;

	snprintf(will.by, sizeof(will.by), "%s", by);
	write_change(orders, &will, true, on_done, arg);
}

/* Ends what is over, and comes again when the next one will be. */
static void
look_at_clock(struct orders *orders)
{
	const msec_t now = clock_wall();
	const struct order *order;
	msec_t wait = LOOK;

	if (orders->changing)
		return; /* each change looks when it is done */
	TAILQ_FOREACH(order, &orders->all, link)
	{
		if (order->will.until <= now) {
			end_by(orders, order, "its time", NULL, NULL);
			return;
		}
		if (order->will.until - now < wait)
			wait = order->will.until - now;
	}
	if (orders->count > 0)
		loop_timer_arm(orders->timer, wait);
	else
		loop_timer_cancel(orders->timer);
}

static void
on_timer(void *arg)
{
	look_at_clock(arg);
}

struct orders *
orders_new(struct schedule *schedule)
{
	struct orders *orders = xcalloc(1, sizeof(*orders));

	orders->schedule = schedule;
	TAILQ_INIT(&orders->all);
	orders->timer = loop_timer_new(schedule->loop, on_timer, orders);
	store_each_directive(schedule->store, on_directive, orders);
	loop_timer_arm(orders->timer, 0);
	return orders;
}

void
orders_stop(struct orders *orders)
{
	loop_timer_cancel(orders->timer);
}

void
orders_free(struct orders *orders)
{
	while (!TAILQ_EMPTY(&orders->all))
		drop(orders, TAILQ_FIRST(&orders->all));
	loop_timer_free(orders->timer);
	free(orders);
}

void
orders_move(struct orders *orders, const struct site *from, const struct site *to)
{
	for (int kind = ORDER_SUSPEND; kind <= ORDER_LIMIT; kind++) {
		const struct order *order = find(orders, (enum order_kind)kind, from->name);

		if (order == NULL)
			continue;
		if (find(orders, order->will.kind, to->name) == NULL) {
			struct will will = order->will;

			memcpy(will.site, to->name, sizeof(will.site));
			write_change(orders, &will, false, NULL, NULL);
		}
		end_by(orders, order, "the site's name is known", NULL, NULL);
	}
}

bool
orders_suspend(const struct orders *orders)
{
	const struct order *order;

	TAILQ_FOREACH(order, &orders->all, link)
	{
		if (order->will.kind == ORDER_SUSPEND)
			return true;
	}
	return false;
}

/* An order that is not one: there is only something to end. */
static void
end_order(struct orders *orders, const struct queue_site_order *from, enum order_kind kind,
          struct site *site, orders_on_done *on_done, void *arg)
{
	struct schedule *schedule = orders->schedule;
	const struct order *order = site ? find(orders, kind, site->name) : NULL;

	if (order) {
		end_by(orders, order, from->by, on_done, arg);
		return;
	}
	if (site == NULL || kind == ORDER_LIMIT || !site_is_paused(site, schedule_now(schedule))) {
		on_done(arg, QUEUE_NOT_FOUND);
		return;
	}
	log_info("-", "site-resume", "site=%s by=\"%s\"", site->name, from->by);
	sites_hold(schedule->sites, site);
	let_go(schedule, site);
	on_done(arg, QUEUE_DONE);
	sites_release(schedule->sites, site);
}

void
orders_change(struct orders *orders, const struct queue_site_order *order, orders_on_done *on_done,
              void *arg)
{
	struct schedule *schedule = orders->schedule;
	struct will will = {
	    .until = order->until, .connections = order->connections, .rate = order->rate};
	struct site *site = sites_find(schedule->sites, order->site);

	will.kind = order->action == QUEUE_SITE_SUSPEND || order->action == QUEUE_SITE_RESUME
	                ? ORDER_SUSPEND
	                : ORDER_LIMIT;
	if (order->action == QUEUE_SITE_RESUME || order->action == QUEUE_SITE_UNLIMIT) {
		end_order(orders, order, will.kind, site, on_done, arg);
		return;
	}
	snprintf(will.site, sizeof(will.site), "%s", site ? site->name : order->site);
	snprintf(will.by, sizeof(will.by), "%s", order->by);
	snprintf(will.reason, sizeof(will.reason), "%s", order->reason);
	if (orders->count + orders->changing >= ORDERS_MAX &&
	    find(orders, will.kind, will.site) == NULL)
		on_done(arg, QUEUE_LIMIT);
	else
		write_change(orders, &will, false, on_done, arg);
}
