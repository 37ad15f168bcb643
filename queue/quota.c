#include "queue/quota.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "ratelimit/ledger.h"
#include "ratelimit/ledger_clock.h"

/* Where the pure ledger meets clock, configuration and disk.
 *
 * The ledger decides from memory; this module tells it the time, loads an account's rows when it is
 * first seen, and says what the store has to write with a message. Invariants: every charge is
 * written in the transaction that stores its message, so a crash leaves both or neither; the limit
 * is looked up afresh for each decision, so an override that is durable is in force for the next
 * one; ledger time is persisted with each charge and once a minute, so a restart cannot turn it
 * back. */

struct quota {
	struct store *store;
	const struct conf *conf;
	struct ledger *ledger;
	struct ledger_clock clock;
	struct loop_timer *tick;
	msec_t persisted; /* the last high-water mark asked for */
	bool was_held;
};

#define TICK 60000 /* msec */
#define DAY  (24 * 60 * 60 * 1000)

struct loading {
	struct window *window;
	uint32_t oldest;
	bool failed;
};

static void
on_row(void *arg, const char *account, uint32_t row, const uint8_t *data, size_t len)
{
	struct loading *loading = arg;
	if (row < loading->oldest)
		return;
	if (window_load_row(loading->window, row, data, len) == -1) {
		log_error("-", "ledger-row-malformed", "account=%s row=%u", account, row);
		loading->failed = true;
	}
}

static int
load_account(void *arg, const char *account, msec_t now, struct window *window)
{
	struct quota *quota = arg;
	struct loading loading = {.window = window, .oldest = window_row_oldest(now)};
	store_load_ledger_rows(quota->store, account, on_row, &loading);
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
class_limit(const struct quota *quota)
{
	return quota->conf->standard.recipients > UINT32_MAX
	           ? UINT32_MAX
	           : (uint32_t)quota->conf->standard.recipients;
}

static uint32_t
limit_of(struct quota *quota, const char *account)
{
	struct store_override override;
	return store_load_override(quota->store, account, &override) ? override.limit
	                                                             : class_limit(quota);
}

static uint32_t
clamp(uint64_t n)
{
	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static bool
fill(struct quota *quota, const char *account, uint32_t limit, struct queue_quota *out)
{
	struct ledger_view view;
	msec_t now = quota_time(quota);
	memset(out, 0, sizeof(*out));
	out->limit = limit;
	if (ledger_look(quota->ledger, account, limit, now, &view) == -1)
		return false;
	out->used = clamp(view.used);
	out->reserved = clamp(view.reserved);
	if (view.used + view.reserved < limit)
		out->reset = 0;
	else /* with a limit of 0 there is no such moment; a day is when asking again makes sense */
		out->reset = view.reset ? view.reset : now + DAY;
	return true;
}

static enum queue_verdict
verdict_of(struct quota *quota, enum ledger_answer answer, const char *account, uint32_t limit,
           struct queue_quota *view)
{
	if (!fill(quota, account, limit, view))
		return QUEUE_UNAVAILABLE;
	return answer == LEDGER_OK     ? QUEUE_OK
	       : answer == LEDGER_OVER ? QUEUE_OVER
	                               : QUEUE_UNAVAILABLE;
}

enum queue_verdict
quota_reserve(struct quota *quota, const char *account, uint32_t channel, uint64_t token,
              struct queue_quota *view)
{
	uint32_t limit = limit_of(quota, account);
	enum ledger_answer answer =
	    ledger_reserve(quota->ledger, account, channel, token, 1, limit, quota_time(quota));
	enum queue_verdict verdict = verdict_of(quota, answer, account, limit, view);
	if (answer == LEDGER_OK && verdict != QUEUE_OK)
		ledger_release(quota->ledger, account, channel, token, 1);
	return verdict;
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
quota_commit_begin(struct quota *quota, const char *account, uint32_t channel, uint64_t token,
                   uint32_t count, struct store_charge *charge, struct queue_quota *view)
{
	uint32_t limit = limit_of(quota, account);
	msec_t now = quota_time(quota);
	enum ledger_answer answer =
	    ledger_commit_begin(quota->ledger, account, channel, token, count, limit, now);
	ledger_release(quota->ledger, account, channel, token, LEDGER_ALL);
	fill(quota, account, limit, view);
	*charge = (struct store_charge){
	    .account = account,
	    .minute = (uint32_t)window_minute_of(now),
	    .count = count,
	    .ledger_time = now,
	};
	return answer == LEDGER_OK     ? QUEUE_OK
	       : answer == LEDGER_OVER ? QUEUE_OVER
	                               : QUEUE_UNAVAILABLE;
}

void
quota_commit_end(struct quota *quota, const char *account, const struct store_charge *charge,
                 bool stored)
{
	ledger_commit_end(quota->ledger, account, charge->count, stored, charge->ledger_time);
}

bool
quota_look(struct quota *quota, const char *account, struct queue_quota_view *view)
{
	struct store_override override;
	memset(view, 0, sizeof(*view));
	snprintf(view->account, sizeof(view->account), "%s", account);
	view->class_limit = class_limit(quota);
	view->overridden = store_load_override(quota->store, account, &override);
	if (view->overridden) {
		view->override_set = override.when;
		snprintf(view->override_by, sizeof(view->override_by), "%s", override.by);
		snprintf(view->override_reason, sizeof(view->override_reason), "%s",
		         override.reason);
	}
	return fill(quota, account, view->overridden ? override.limit : view->class_limit,
	            &view->quota);
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
