#include "ratelimit/ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ratelimit/ledger_clock.h"
#include "ratelimit/row.h"
#include "t/unit/tap.h"

/* The ledger against a naive reference: random sessions reserve, release, commit and vanish,
 * classes change between rolling and calendar, an operator resets, the wall clock is set both ways,
 * the process dies, while a pretended disk keeps real rows. Every answer and every view must be the
 * reference's. The reference keeps a list of charges, and for the pace a leaky account of credit
 * instead of arrival times. It all happens in Berlin, over both changes of its clocks.
 * SEKISHO_STEPS asks for more steps than the usual ones, SEKISHO_SEED for others. */

#define MINUTE   60000
#define HOUR     (60 * MINUTE)
#define ACCOUNTS 3
#define SESSIONS 6
#define PENDINGS 8
#define CHARGES  20000
#define ROWS     64
#define HORIZON  (20 * MINUTE)

static uint64_t seed = 7;

static uint64_t
next(uint64_t bound)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % bound;
}

/* --- the reference --- */

struct spent { /* of one meter of one account: credit units of usec as of a moment */
	int64_t credit, as_of;
};
struct meter_rate {
	uint32_t at_once, count;
	msec_t period;
	int64_t unit; /* usec of credit a unit costs */
};
static const struct meter_rate paces[ACCOUNTS][METERS] = {
    {{10, 7, HOUR, 514285715}, {6, 10, HOUR, 360000000}},
    {{1, 1, 10 * MINUTE, 600000000}, {0, 0, 0, 0}},
    {{0, 0, 0, 0}, {0, 0, 0, 0}},
};

struct reference {
	struct {
		msec_t at;
		uint32_t units[METERS];
	} charges[CHARGES];
	size_t charge_count;
	uint32_t held[SESSIONS]; /* sessions 0-2 on channel 1, 3-5 on channel 2 */
	struct spent pace[METERS];
	struct spent stored_pace[METERS];
	struct spent forgotten[METERS]; /* by the reset under way */
	bool resetting;
	msec_t reset_at; /* of the reset under way */
	msec_t pace_since;
	/* the disk */
	struct {
		bool used;
		uint32_t number;
		struct buf data;
	} rows[ROWS];
	msec_t marker;
};
static struct reference accounts[ACCOUNTS];
static struct pending {
	int account; /* -1: unused */
	struct ledger_charge charge;
	struct spent after[METERS];
} pending[PENDINGS];
static const char names[ACCOUNTS][2] = {"a", "b", "c"};
static unsigned loads;

static int64_t
cap(int a, int m)
{
	return paces[a][m].unit * (paces[a][m].at_once ? paces[a][m].at_once : 1);
}

static int64_t
credit(int a, int m, const struct spent *spent, int64_t usec)
{
	const int64_t grown = spent->credit + usec - spent->as_of;

	return grown < cap(a, m) ? grown : cap(a, m);
}

static struct spent
worse(struct spent x, struct spent y)
{
	return x.credit - x.as_of <= y.credit - y.as_of ? x : y;
}

static msec_t
reference_due(int a, const struct spent pace[METERS], msec_t now)
{
	msec_t due = now;

	for (int m = 0; m < METERS; m++) {
		if (!paces[a][m].count)
			continue;
		const int64_t missing = paces[a][m].unit - credit(a, m, &pace[m], due * 1000);
		if (missing > 0)
			due += (missing + 999) / 1000;
	}
	return due;
}

static void
reference_take(int a, struct spent pace[METERS], msec_t due, const uint32_t units[METERS])
{
	for (int m = 0; m < METERS; m++) {
		if (!paces[a][m].count)
			continue;
		pace[m].credit = credit(a, m, &pace[m], due * 1000) - paces[a][m].unit * units[m];
		pace[m].as_of = due * 1000;
	}
}

static void
pace_fresh(int a, struct spent pace[METERS])
{
	for (int m = 0; m < METERS; m++)
		pace[m] = (struct spent){cap(a, m), 0};
}

static uint64_t
charged(const struct reference *account, int m, const struct window_kind *kind, msec_t now)
{
	uint64_t used = 0;

	for (size_t i = 0; i < account->charge_count; i++) {
		const msec_t minute = account->charges[i].at / MINUTE;

		if (kind->calendar ? minute * MINUTE >= kind->day_start
		                   : (minute + 1441) * MINUTE > now)
			used += account->charges[i].units[m];
	}
	return used;
}

static void
open_units(int a, uint64_t reserved[METERS], uint64_t under_way[METERS])
{
	memset(reserved, 0, METERS * sizeof *reserved);
	memset(under_way, 0, METERS * sizeof *under_way);
	for (int s = 0; s < SESSIONS; s++) {
		reserved[METER_RECIPIENTS] += accounts[a].held[s];
		reserved[METER_MESSAGES] += accounts[a].held[s] > 0;
	}
	for (int p = 0; p < PENDINGS; p++)
		for (int m = 0; pending[p].account == a && m < METERS; m++)
			under_way[m] += pending[p].charge.units[m];
}

static bool
reference_fits(int a, int m, uint64_t n, const struct ledger_rule *rule, msec_t now)
{
	uint64_t reserved[METERS], under_way[METERS];

	open_units(a, reserved, under_way);
	return charged(&accounts[a], m, &rule->window, now) + reserved[m] + under_way[m] + n <=
	       rule->limit[m];
}

/* --- the pretended disk --- */

static void
disk_store(int a, const struct pending *what)
{
	struct reference *account = &accounts[a];
	const struct ledger_charge *charge = &what->charge;
	const uint32_t minute = window_minute_of(charge->at), oldest = row_oldest(charge->at);
	size_t free_row = ROWS, i;
	struct buf out;

	if (account->marker > charge->at)
		return;
	for (i = 0; i < ROWS; i++) {
		if (account->rows[i].used && account->rows[i].number == row_of(minute))
			break;
		if (!account->rows[i].used)
			free_row = i;
	}
	if (i == ROWS) {
		i = free_row;
		account->rows[i].used = true;
		account->rows[i].number = row_of(minute);
		buf_init(&account->rows[i].data);
	}
	buf_init(&out);
	if (row_add(account->rows[i].data.data, account->rows[i].data.len, minute, charge->units,
	            &charge->pace, &out) == -1)
		abort();
	buf_clear(&account->rows[i].data);
	account->rows[i].data = out;
	for (i = 0; i < ROWS; i++)
		if (account->rows[i].used && account->rows[i].number < oldest) {
			buf_clear(&account->rows[i].data);
			account->rows[i].used = false;
		}
	/* What the reference knows of it. */
	account->charges[account->charge_count].at = charge->at;
	memcpy(account->charges[account->charge_count++].units, charge->units,
	       sizeof charge->units);
	for (int m = 0; m < METERS; m++)
		account->stored_pace[m] = worse(account->stored_pace[m], what->after[m]);
	if (account->charge_count == CHARGES) {
		account->charge_count -= CHARGES / 2;
		memmove(account->charges, account->charges + CHARGES / 2,
		        account->charge_count * sizeof *account->charges);
	}
}

static void
disk_reset(int a, msec_t at)
{
	struct reference *account = &accounts[a];

	for (size_t i = 0; i < ROWS; i++)
		if (account->rows[i].used) {
			buf_clear(&account->rows[i].data);
			account->rows[i].used = false;
		}
	account->marker = at;
	account->charge_count = 0;
	pace_fresh(a, account->stored_pace);
}

static int
load(void *arg, const char *name, msec_t now, struct window *window, struct pace *pace)
{
	const struct reference *account;

	(void)arg;
	loads++;
	if (name[0] == 'z')
		return -1;
	if (name[0] > 'c')
		return 0;
	account = &accounts[name[0] - 'a'];
	for (size_t i = 0; i < ROWS; i++)
		if (account->rows[i].used &&
		    row_load(account->rows[i].data.data, account->rows[i].data.len,
		             account->rows[i].number, row_oldest(now), window, pace) == -1)
			return -1;
	return 0;
}

/* --- the test --- */

static struct window_kind
today(bool calendar, msec_t now)
{
	static msec_t start, end;

	if (now < start || now >= end)
		clock_day(now, &start, &end);
	return (struct window_kind){calendar, start, end};
}

static struct ledger_rule
rule_of(int a, uint32_t recipients, uint32_t messages, bool calendar, msec_t now)
{
	struct ledger_rule rule = {
	    .limit = {recipients, messages}, .window = today(calendar, now), .horizon = HORIZON};

	for (int m = 0; m < METERS; m++)
		rule.rates[m] =
		    pace_rate(paces[a][m].at_once, paces[a][m].count, paces[a][m].period);
	return rule;
}

/* Whether reset is the first moment at which one more fits. */
static bool
is_reset(int a, int m, const struct ledger_rule *rule, msec_t now, msec_t reset)
{
	uint64_t reserved[METERS], under_way[METERS];
	struct ledger_rule then = *rule, before = *rule;

	if (reference_fits(a, m, 1, rule, now))
		return reset == now;
	if (rule->limit[m] == 0)
		return reset == 0;
	open_units(a, reserved, under_way);
	if (reserved[m] + under_way[m] >= rule->limit[m]) /* as if all were charged now */
		return reset == (rule->window.calendar ? rule->window.day_end
		                                       : (now / MINUTE + 1441) * MINUTE);
	if (rule->window.calendar)
		return reset == rule->window.day_end;
	then.window = today(false, now);
	return reset > now && reference_fits(a, m, 1, &then, reset) &&
	       !reference_fits(a, m, 1, &before, reset - 1);
}

static void
property(void)
{
	const char *wanted = getenv("SEKISHO_STEPS"), *chosen = getenv("SEKISHO_SEED");
	const long steps = wanted ? atol(wanted) : 300000;
	struct ledger *ledger = ledger_new(load, NULL);
	struct ledger_clock clock;
	msec_t wall, mono = 1000, now = 0, last = 0, lengths[3] = {0};
	bool answers = true, views = true, resets = true, forward = true, paced_ok = true;
	uint64_t over[METERS] = {0}, granted = 0, paced = 0, too_fast = 0, crashes = 0, cleared = 0;
	uint32_t limit[ACCOUNTS][METERS] = {{150, 45}, {60, 60}, {60, 9}};
	bool calendar[ACCOUNTS] = {false, true, false};
	struct tm march = {.tm_year = 126, .tm_mon = 2, .tm_mday = 20};

	if (chosen)
		seed = (uint64_t)atoll(chosen);
	setenv("TZ", "Europe/Berlin", 1);
	tzset();
	wall = (msec_t)timegm(&march) * 1000;
	ledger_clock_init(&clock, wall, mono, 0);
	for (int a = 0; a < ACCOUNTS; a++) {
		pace_fresh(a, accounts[a].pace);
		pace_fresh(a, accounts[a].stored_pace);
	}
	for (int p = 0; p < PENDINGS; p++)
		pending[p].account = -1;
	for (long step = 0; step < steps; step++) {
		const int a = (int)next(ACCOUNTS), s = (int)next(SESSIONS), p = (int)next(PENDINGS);
		const uint32_t channel = s < 3 ? 1 : 2, n = 1 + (uint32_t)next(6);
		struct reference *account = &accounts[a];
		const msec_t passed = (msec_t)next(2 * MINUTE + MINUTE / 2);
		struct ledger_view view;
		uint64_t reserved[METERS], under_way[METERS];

		mono += passed;
		wall += passed;
		if (next(5000) == 0)
			wall += (msec_t)next(60 * HOUR) - 30 * HOUR;
		if (next(50000) == 0)
			wall = ledger_clock_now(&clock, wall, mono); /* somebody sets it right */
		now = ledger_clock_now(&clock, wall, mono);
		forward &= now >= last;
		last = now;
		if (next(2000) == 0)
			calendar[a] = !calendar[a];
		const struct ledger_rule rule =
		    rule_of(a, limit[a][0], limit[a][1], calendar[a], now);
		lengths[(rule.window.day_end - rule.window.day_start) / HOUR - 23]++;

		switch (next(9)) {
		case 0:
		case 1:
		case 2: {
			const bool fits_r = reference_fits(a, METER_RECIPIENTS, 1, &rule, now),
			           fits_m = account->held[s] ||
			                    reference_fits(a, METER_MESSAGES, 1, &rule, now),
			           slow = !account->held[s] &&
			                  reference_due(a, account->pace, now) > now + HORIZON;
			const enum ledger_answer answer = ledger_reserve(
			    ledger, names[a], channel, (uint64_t)s, &rule, now, &view);
			answers &= answer == (!fits_r || !fits_m ? LEDGER_OVER
			                      : slow             ? LEDGER_TOO_FAST
			                                         : LEDGER_OK);
			if (answer == LEDGER_OVER) {
				answers &= view.meter == METER_RECIPIENTS ? !fits_r : !fits_m;
				if (!fits_r && !fits_m)
					answers &= view.meters[view.meter].reset >=
					           view.meters[1 - view.meter].reset;
				over[view.meter]++;
			}
			too_fast += answer == LEDGER_TOO_FAST;
			account->held[s] += answer == LEDGER_OK;
			break;
		}
		case 3: {
			const uint32_t back = next(2) ? n : LEDGER_ALL;
			ledger_release(ledger, names[a], channel, (uint64_t)s, back);
			account->held[s] -= back < account->held[s] ? back : account->held[s];
			break;
		}
		case 4:
		case 5: {
			struct pending *what = &pending[p];
			const uint32_t units[METERS] = {
			    account->held[s] && next(4) ? account->held[s] : n, 1};
			const bool held = account->held[s] >= units[0];
			if (what->account >= 0)
				break;
			account->held[s] = 0;
			const bool fits = held || (reference_fits(a, 0, units[0], &rule, now) &&
			                           reference_fits(a, 1, 1, &rule, now));
			const msec_t due = reference_due(a, account->pace, now);
			const enum ledger_answer answer =
			    ledger_commit_begin(ledger, names[a], channel, (uint64_t)s, units[0],
			                        &rule, now, &what->charge, &view);
			answers &= answer == (!fits                 ? LEDGER_OVER
			                      : due > now + HORIZON ? LEDGER_TOO_FAST
			                                            : LEDGER_OK);
			if (answer == LEDGER_OK) {
				paced_ok &= view.due == due;
				paced += due > now;
				reference_take(a, account->pace, due, units);
				what->account = a;
				memcpy(what->after, account->pace, sizeof what->after);
			}
			granted += answer == LEDGER_OK;
			if (answer == LEDGER_OVER)
				over[view.meter]++;
			too_fast += answer == LEDGER_TOO_FAST;
			break;
		}
		case 6:
		case 7: {
			struct pending *what = &pending[p];
			const bool stored = next(6) != 0;
			if (what->account < 0)
				break;
			account = &accounts[what->account];
			if (stored)
				disk_store(what->account, what);
			else if (what->charge.at >= account->pace_since)
				for (int m = 0; m < METERS; m++)
					account->pace[m].credit +=
					    paces[what->account][m].unit * what->charge.units[m];
			ledger_commit_end(ledger, names[what->account], &what->charge, stored);
			what->account = -1;
			break;
		}
		case 8:
			if (account->resetting) {
				const bool stored = next(8) != 0;
				if (stored) {
					disk_reset(a, account->reset_at);
					cleared++;
				}
				for (int m = 0; m < METERS && !stored; m++)
					account->pace[m] =
					    worse(account->pace[m], account->forgotten[m]);
				ledger_reset_end(ledger, names[a], account->reset_at, stored);
				account->resetting = false;
			} else if (next(60) == 0) {
				ledger_reset_begin(ledger, names[a], now);
				account->resetting = true;
				account->reset_at = account->pace_since = now;
				memcpy(account->forgotten, account->pace,
				       sizeof account->forgotten);
				pace_fresh(a, account->pace);
			} else if (next(20) == 0) {
				ledger_drop_channel(ledger, channel);
				for (int o = 0; o < SESSIONS; o++)
					for (int b = 0; b < ACCOUNTS; b++)
						if ((o < 3) == (channel == 1))
							accounts[b].held[o] = 0;
				if (next(4))
					break;
				/* A crash: nothing but the disk survives, and what was on its
				 * way reached it or not. */
				ledger_free(ledger);
				ledger = ledger_new(load, NULL);
				for (int q = 0; q < PENDINGS; q++) {
					if (pending[q].account >= 0 && next(2))
						disk_store(pending[q].account, &pending[q]);
					pending[q].account = -1;
				}
				for (int b = 0; b < ACCOUNTS; b++) {
					struct reference *each = &accounts[b];
					if (each->resetting && next(2))
						disk_reset(b, each->reset_at);
					each->resetting = false;
					each->pace_since = 0;
					memset(each->held, 0, sizeof each->held);
					memcpy(each->pace, each->stored_pace, sizeof each->pace);
				}
				mono = 1000 + (msec_t)next(1000);
				ledger_clock_init(&clock, wall, mono, now);
				crashes++;
			}
			break;
		}
		if (ledger_look(ledger, names[a], &rule, now, &view) == -1) {
			views = false;
			continue;
		}
		open_units(a, reserved, under_way);
		for (int m = 0; m < METERS; m++) {
			const struct ledger_use *use = &view.meters[m];
			views &=
			    use->reserved == reserved[m] &&
			    use->used == charged(&accounts[a], m, &rule.window, now) + under_way[m];
			resets &= is_reset(a, m, &rule, now, use->reset);
		}
		const msec_t due = reference_due(a, accounts[a].pace, now);
		paced_ok &= view.due == due;
		paced_ok &= view.open == (due - HORIZON > now ? due - HORIZON : now);
	}
	ok(answers, "every answer is the reference's");
	ok(views, "every view is the reference's");
	ok(resets, "a reset time is the first moment at which one more fits");
	ok(paced_ok, "a message is due when the credit suffices, whatever happened before");
	ok(forward, "ledger time never ran backwards");
	ok(granted > 1000 && over[0] > 1000 && over[1] > 1000 && paced > 1000 && too_fast > 100 &&
	       crashes > 10 && cleared > 10,
	   "all answers occurred often");
	ok(lengths[0] > 0 && lengths[1] > 0 && lengths[2] > 0, "days had 23, 24 and 25 hours");
	printf("# %" PRIu64 " granted, %" PRIu64 " of them paced, %" PRIu64 " and %" PRIu64
	       " over, %" PRIu64 " too fast, %" PRIu64 " crashes, %" PRIu64 " resets, %u loads\n",
	       granted, paced, over[0], over[1], too_fast, crashes, cleared, loads);
	ledger_free(ledger);
	for (int a = 0; a < ACCOUNTS; a++)
		disk_reset(a, 0);
}

static void
cases(void)
{
	struct ledger *ledger = ledger_new(load, NULL);
	const msec_t now = 1995000000000;
	const struct ledger_rule ten = {.limit = {10, 10}}, none = {.limit = {0, 10}},
	                         quiet = {.limit = {10, 0}};
	struct ledger_charge charge;
	struct ledger_view view;
	char name[32];

	ok(ledger_reserve(ledger, "z", 1, 1, &ten, now, &view) == LEDGER_ERROR &&
	       ledger_look(ledger, "z", &ten, now, &view) == -1 && ledger_accounts(ledger) == 0,
	   "an account that cannot be loaded grants nothing");
	ledger_reset_begin(ledger, "z", now);
	ledger_reset_end(ledger, "z", now, true);
	ok(ledger_accounts(ledger) == 0, "and may be reset");
	ok(ledger_reserve(ledger, "a", 1, 1, &none, now, &view) == LEDGER_OVER &&
	       view.meter == METER_RECIPIENTS && view.meters[view.meter].reset == 0,
	   "no recipients, never");
	ok(ledger_reserve(ledger, "a", 1, 1, &quiet, now, &view) == LEDGER_OVER &&
	       view.meter == METER_MESSAGES && view.meters[view.meter].reset == 0,
	   "no messages, never");
	bool good = true;
	for (int i = 0; i < 10; i++)
		good &= ledger_reserve(ledger, "a", 1, 1, &ten, now, &view) == LEDGER_OK;
	ok(good && view.meters[METER_MESSAGES].reserved == 1 &&
	       view.meters[METER_RECIPIENTS].reserved == 10,
	   "ten recipients are one message");
	ok(ledger_commit_begin(ledger, "a", 1, 1, 10, &none, now, &charge, &view) == LEDGER_OK,
	   "a live reservation is honoured after the limit was lowered");
	struct ledger_charge other;
	ok(ledger_commit_begin(ledger, "a", 1, 1, 1, &none, now, &other, &view) == LEDGER_OVER,
	   "and nothing new is granted");
	ledger_commit_end(ledger, "a", &charge, true);
	ledger_look(ledger, "a", &ten, now, &view);
	ok(view.meters[0].used == 10 && view.meters[0].reset == (now / 60000 + 1441) * 60000 &&
	       view.meters[1].used == 1 && view.meters[1].reset == now,
	   "reset is when the minute comes back, on the meter that is full");
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof name, "d%d", i);
		ledger_look(ledger, name, &ten, now, &view);
	}
	ok(ledger_accounts(ledger) <= 4100, "idle accounts leave memory");
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof name, "d%d", i);
		ledger_reserve(ledger, name, 1, (uint64_t)i, &ten, now + 3 * 86400000LL, &view);
	}
	ok(ledger_accounts(ledger) >= 20000, "those with reservations stay");
	ledger_drop_channel(ledger, 1);
	ledger_look(ledger, "b", &ten, now, &view);
	ok(ledger_accounts(ledger) <= 4100, "until their channel is gone");
	ledger_free(ledger);
}

static void
burst(void)
{
	const struct pace_rate rates[METERS] = {pace_rate(100, 50, 5 * MINUTE),
	                                        pace_rate(30, 30, MINUTE)};
	const uint32_t one[METERS] = {1, 1}, ten[METERS] = {10, 1}, all[METERS] = {500, 1};
	struct pace pace = {0}, debt;
	const msec_t now = 1795000000000;
	bool good = true;

	for (int i = 0; i < 10; i++) {
		good &= pace_due(&pace, rates, now) == now;
		pace_take(&pace, rates, now, ten, &debt);
	}
	ok(good, "100 recipients go at once");
	good = true;
	for (int i = 0; i < 20; i++) {
		const msec_t due = pace_due(&pace, rates, now);
		good &= due == now + 6000 * (i + 1);
		pace_take(&pace, rates, due, one, &debt);
	}
	ok(good, "then one every six seconds");
	/* What waits for the recipients' rate has not used up the messages'. */
	ok(pace_left(&pace, rates, METER_RECIPIENTS, now) == -20 &&
	       pace_left(&pace, rates, METER_MESSAGES, now) == 30,
	   "each meter tells its own debt");
	pace = (struct pace){0};
	good = true;
	for (int i = 0; i < 30; i++) {
		good &= pace_due(&pace, rates, now) == now;
		pace_take(&pace, rates, now, one, &debt);
	}
	ok(good && pace_due(&pace, rates, now) == now + 2000,
	   "30 messages at once, then one every two seconds");
	pace = (struct pace){0};
	pace_take(&pace, rates, now, all, &debt);
	ok(pace_due(&pace, rates, now) == now + 401 * 6000,
	   "a message goes whole; the rest of it is debt");
	const struct pace_rate odd = pace_rate(1, 7, MINUTE);
	ok(odd.interval * 7 >= 60000000 && odd.interval * 7 < 60000007 && odd.slack == 0,
	   "what does not divide is rounded up");
	const struct pace_rate vast[METERS] = {pace_rate(UINT32_MAX, 1, INT64_MAX),
	                                       pace_rate(UINT32_MAX, UINT32_MAX, 1)};
	pace = (struct pace){0};
	for (int i = 0; i < 1000; i++) {
		const uint32_t most[METERS] = {UINT32_MAX, UINT32_MAX};
		pace_take(&pace, vast, now, most, &debt);
		pace_take(&pace, vast, pace_due(&pace, vast, now), most, &debt);
	}
	ok(pace_due(&pace, vast, now) >= now, "no configuration overflows");
}

/* In user time, so that another process does not count. */
static void
speed(void)
{
	struct ledger *ledger = ledger_new(load, NULL);
	const struct ledger_rule rule = {.limit = {UINT32_MAX, UINT32_MAX},
	                                 .rates = {pace_rate(100, 50, MINUTE),
	                                           pace_rate(30, 30, MINUTE)},
	                                 .horizon = INT64_MAX / 2};
	struct ledger_charge charge;
	struct ledger_view view;
	const int rounds = 200000;
	const clock_t start = clock();
	char name[32];

	for (int i = 0; i < rounds; i++) {
		const msec_t now = 1795000000000 + i * (msec_t)500;
		snprintf(name, sizeof name, "e%d@example.test", i % 3000);
		ledger_reserve(ledger, name, 1, (uint64_t)i, &rule, now, &view);
		ledger_commit_begin(ledger, name, 1, (uint64_t)i, 1, &rule, now, &charge, &view);
		ledger_commit_end(ledger, name, &charge, true);
	}
	printf("# %.0f ns for a reservation and a charge\n",
	       (double)(clock() - start) * 1e9 / CLOCKS_PER_SEC / rounds);
	ledger_free(ledger);
}

int
main(void)
{
	property();
	cases();
	burst();
	speed();
	return tap_end();
}
