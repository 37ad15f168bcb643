#include "queue/quota.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "ratelimit/ledger.h"
#include "ratelimit/ledger_clock.h"
#include "ratelimit/row.h"

/* Where the pure ledger meets clock, configuration and disk.
 *
 * The ledger decides from memory; this module tells it the time, loads an account's rows when it is
 * first seen, and says what the store has to write with a message. Invariants: every charge is
 * written in the transaction that stores its message, so a crash leaves both or neither; class and
 * override are looked up afresh for each decision, so what a reload or an operator changed is in
 * force for the next one; ledger time is persisted with each charge and once a minute, so a restart
 * cannot turn it back. */

struct quota {
	struct store *store;
	const struct conf *conf;
	struct ledger *ledger;
	struct ledger_clock clock;
	struct loop_timer *tick;
	msec_t persisted;          /* the last high-water mark asked for */
	msec_t day_start, day_end; /* the local day of the last decision */
	bool was_held;
};

#define TICK 60000 /* msec */
#define DAY  (24 * 60 * 60 * 1000)

struct loading {
	struct window *window;
	struct pace *pace;
	uint32_t oldest;
	bool failed;
};

static void
on_row(void *arg, const char *account, uint32_t row, const uint8_t *data, size_t len)
{
	struct loading *loading = arg;
	if (row_load(data, len, row, loading->oldest, loading->window, loading->pace) == -1) {
		log_error("-", "ledger-row-malformed", "account=%s row=%u", account, row);
		loading->failed = true;
	}
}

static int
load_account(void *arg, const char *account, msec_t now, struct window *window, struct pace *pace)
{
	struct quota *quota = arg;
	struct loading loading = {.window = window, .pace = pace, .oldest = row_oldest(now)};
	if (!store_load_ledger_rows(quota->store, account, on_row, &loading)) {
		log_error("-", "ledger-unreadable", "account=%s", account);
		return -1;
	}
	return loading.failed ? -1 : 0;
}

static void
on_time_stored(void *arg, enum store_result result)
{
	(void)arg;
	if (result != STORE_OK)
		log_warn("-", "ledger-time", "error=%s", store_result_text(result));
}

msec_t
quota_time(struct quota *quota)
{
	return ledger_clock_now(&quota->clock, clock_wall(), clock_mono());
}

static void
on_tick(void *arg)
{
	struct quota *quota = arg;
	msec_t now = quota_time(quota);
	bool held = ledger_clock_is_held(&quota->clock);
	if (held != quota->was_held) {
		quota->was_held = held;
		log_warn("-", held ? "ledger-clock-held" : "ledger-clock-free",
		         "ledger=%lld wall=%lld", (long long)now, (long long)clock_wall());
	}
	if (now > quota->persisted) {
		quota->persisted = now;
		store_ledger_time_set(quota->store, now, on_time_stored, quota);
	}
	loop_timer_arm(quota->tick, TICK);
}

struct quota *
quota_new(struct loop *loop, struct store *store, const struct conf *conf)
{
	struct quota *quota = xcalloc(1, sizeof(*quota));
	quota->store = store;
	quota->conf = conf;
	quota->ledger = ledger_new(load_account, quota);
	ledger_clock_init(&quota->clock, clock_wall(), clock_mono(), store_ledger_time(store));
	quota->tick = loop_timer_new(loop, on_tick, quota);
	on_tick(quota);
	return quota;
}

void
quota_reload(struct quota *quota, const struct conf *conf)
{
	quota->conf = conf;
}

void
quota_stop(struct quota *quota)
{
	loop_timer_cancel(quota->tick);
}

void
quota_free(struct quota *quota)
{
	if (!quota)
		return;
	loop_timer_free(quota->tick);
	ledger_free(quota->ledger);
	free(quota);
}

static uint32_t
clamp(uint64_t n)
{
	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static struct pace_rate
rate_of(const struct conf_burst *burst)
{
	return pace_rate(burst->at_once, burst->count, burst->period);
}

/* What the account may do at now. */
static struct ledger_rule
rule_of(struct quota *quota, const char *account, const struct conf_class *class, msec_t now)
{
	struct store_override override;
	const bool overridden = store_load_override(quota->store, account, &override);
	if (class->calendar && (now < quota->day_start || now >= quota->day_end))
		clock_day(now, &quota->day_start, &quota->day_end);
	return (struct ledger_rule){
	    .limit = {[METER_RECIPIENTS] = overridden ? override.limit : clamp(class->recipients),
	              [METER_MESSAGES] = clamp(class->messages)},
	    .window = {class->calendar, quota->day_start, quota->day_end},
	    .rates = {[METER_RECIPIENTS] = rate_of(&class->burst_recipients),
	              [METER_MESSAGES] = rate_of(&class->burst_messages)},
	    .horizon = quota->conf->pace_horizon,
	};
}

_Static_assert((int)QUEUE_RECIPIENTS == METER_RECIPIENTS && (int)QUEUE_MESSAGES == METER_MESSAGES &&
                   (int)QUEUE_METERS == METERS,
               "the ledger's meters are the client's");

/* A moment of ledger time as people will see it on their clocks. */
static msec_t
wall_of(msec_t at, msec_t now)
{
	return clock_wall() + at - now;
}

static void
show(const struct ledger_rule *rule, const struct ledger_view *view, enum meter meter, msec_t now,
     struct queue_quota *out)
{
	const struct ledger_use *use = &view->meters[meter];
	*out = (struct queue_quota){
	    .meter = (enum queue_meter)meter,
	    .limit = rule->limit[meter],
	    .used = clamp(use->used),
	    .reserved = clamp(use->reserved),
	    .start = view->due > now ? wall_of(view->due, now) : 0,
	};
	if (use->used + use->reserved >= rule->limit[meter])
		/* With a limit of 0 there is no such moment; a day is when asking again makes
		 * sense. */
		out->reset = use->reset ? use->reset : now + DAY;
}

static enum queue_verdict
verdict_of(const struct ledger_rule *rule, enum ledger_answer answer,
           const struct ledger_view *view, msec_t now, struct queue_quota *out)
{
	*out = (struct queue_quota){0};
	if (answer == LEDGER_ERROR)
		return QUEUE_UNAVAILABLE;
	show(rule, view, view->meter, now, out);
	if (answer == LEDGER_OVER)
		return QUEUE_OVER;
	if (answer == LEDGER_OK)
		return QUEUE_OK;
	out->reset = wall_of(view->open, now);
	return QUEUE_TOO_FAST;
}

enum queue_verdict
quota_reserve(struct quota *quota, const char *account, const char *class, uint32_t channel,
              uint64_t token, struct queue_quota *out)
{
	const msec_t now = quota_time(quota);
	const struct ledger_rule rule =
	    rule_of(quota, account, conf_class(quota->conf, class), now);
	struct ledger_view view;
	const enum ledger_answer answer =
	    ledger_reserve(quota->ledger, account, channel, token, &rule, now, &view);
	return verdict_of(&rule, answer, &view, now, out);
}

void
quota_release(struct quota *quota, const char *account, uint32_t channel, uint64_t token,
              uint32_t count)
{
	ledger_release(quota->ledger, account, channel, token, count);
}

void
quota_drop_channel(struct quota *quota, uint32_t channel)
{
	ledger_drop_channel(quota->ledger, channel);
}

enum queue_verdict
quota_commit_begin(struct quota *quota, const char *account, const char *class, uint32_t channel,
                   uint64_t token, uint32_t count, struct ledger_charge *charge,
                   struct queue_quota *out)
{
	const msec_t now = quota_time(quota);
	const struct ledger_rule rule =
	    rule_of(quota, account, conf_class(quota->conf, class), now);
	struct ledger_view view;
	const enum ledger_answer answer = ledger_commit_begin(
	    quota->ledger, account, channel, token, count, &rule, now, charge, &view);
	return verdict_of(&rule, answer, &view, now, out);
}

void
quota_commit_end(struct quota *quota, const char *account, const struct ledger_charge *charge,
                 bool stored)
{
	ledger_commit_end(quota->ledger, account, charge, stored);
}

msec_t
quota_reset_begin(struct quota *quota, const char *account)
{
	const msec_t now = quota_time(quota);
	ledger_reset_begin(quota->ledger, account, now);
	return now;
}

void
quota_reset_end(struct quota *quota, const char *account, msec_t at, bool stored)
{
	ledger_reset_end(quota->ledger, account, at, stored);
}

bool
quota_look(struct quota *quota, const char *account, const char *class,
           struct queue_quota_view *out)
{
	const msec_t now = quota_time(quota);
	const struct conf_class *plan = conf_class(quota->conf, class);
	const struct ledger_rule rule = rule_of(quota, account, plan, now);
	const struct conf_burst *const bursts[METERS] = {&plan->burst_recipients,
	                                                 &plan->burst_messages};
	struct ledger_view view;
	struct store_override override;
	struct store_reset reset;
	memset(out, 0, sizeof(*out));
	snprintf(out->account, sizeof(out->account), "%s", account);
	snprintf(out->class, sizeof(out->class), "%s", class);
	out->calendar = plan->calendar;
	out->class_limit = clamp(plan->recipients);
	out->overridden = store_load_override(quota->store, account, &override);
	if (out->overridden) {
		out->override_set = override.when;
		snprintf(out->override_by, sizeof(out->override_by), "%s", override.by);
		snprintf(out->override_reason, sizeof(out->override_reason), "%s", override.reason);
	}
	if (store_load_reset(quota->store, account, &reset)) {
		out->reset_when = reset.when;
		snprintf(out->reset_by, sizeof(out->reset_by), "%s", reset.by);
		snprintf(out->reset_reason, sizeof(out->reset_reason), "%s", reset.reason);
	}
	if (ledger_look(quota->ledger, account, &rule, now, &view) == -1)
		return false;
	for (int m = 0; m < METERS; m++) {
		show(&rule, &view, (enum meter)m, now, &out->meters[m]);
		out->burst[m] = (struct queue_burst){
		    .at_once = bursts[m]->at_once,
		    .count = bursts[m]->count,
		    .period = bursts[m]->period,
		    .left = view.meters[m].left,
		};
	}
	return true;
}

uint64_t
quota_accounts(const struct quota *quota)
{
	return ledger_accounts(quota->ledger);
}

bool
quota_is_held(const struct quota *quota)
{
	return ledger_clock_is_held(&quota->clock);
}

void
quota_confirm_clock(struct quota *quota)
{
	if (!ledger_clock_is_held(&quota->clock))
		return;
	ledger_clock_confirm(&quota->clock);
	on_tick(quota);
}
