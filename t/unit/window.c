#include "ratelimit/window.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ratelimit/ledger_clock.h"
#include "ratelimit/row.h"
#include "t/unit/tap.h"

/* Both windows against a naive reference that remembers every charge, their stored form, and the
 * ledger's clock against jumps. */

#define MINUTE 60000
#define DAY    (24 * 60 * MINUTE)
#define ROWS   4096

static uint64_t seed = 20261122;

static uint64_t
next(uint64_t bound)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % bound;
}

struct charge {
	msec_t at;
	uint32_t units[METERS];
};
static struct charge charges[20000];
static size_t charge_count;

static uint64_t
reference_used(const struct window_kind *kind, enum meter meter, msec_t now)
{
	uint64_t used = 0;

	for (size_t i = 0; i < charge_count; i++) {
		const msec_t minute = charges[i].at / MINUTE;
		if (kind->calendar ? minute * MINUTE >= kind->day_start
		                   : (minute + 1) * MINUTE + DAY > now)
			used += charges[i].units[meter];
	}
	return used;
}

/* Days of 23, 24 and 25 hours in turn, three of them 72 hours. */
static struct window_kind
kind_at(bool calendar, msec_t now)
{
	const msec_t hour = 60 * MINUTE, lengths[3] = {23 * hour, 25 * hour, 24 * hour};
	struct window_kind kind = {.calendar = calendar, .day_start = now / (3 * DAY) * (3 * DAY)};
	int i = 0;

	while (kind.day_start + lengths[i] <= now)
		kind.day_start += lengths[i++];
	kind.day_end = kind.day_start + lengths[i];
	return kind;
}

static void
property(void)
{
	static struct buf rows[ROWS];
	static const struct pace none;
	const uint32_t base = row_of(window_minute_of(1795000000000));
	bool used_good = true, exact = true, reset_good = true, load_good = true, small = true;
	bool calendar = false;
	msec_t now = 1795000000000;
	struct window window;

	window_init(&window);
	for (int step = 0; step < 15000; step++) {
		now += (msec_t)next(next(20) ? 3 * MINUTE : 8 * 60 * MINUTE);
		if (next(30) == 0)
			calendar = !calendar; /* the account's class changed */
		const struct window_kind kind = kind_at(calendar, now);
		window_look(&window, &kind, now);
		if (next(3)) {
			const uint32_t units[METERS] = {1 + (uint32_t)next(50),
			                                1 + (uint32_t)next(2)};
			const msec_t at = now - (msec_t)next(2 * MINUTE);
			const uint32_t minute = window_minute_of(at);
			struct buf *row = &rows[row_of(minute) - base];
			struct buf fresh;

			buf_init(&fresh);
			load_good &=
			    row_add(row->data, row->len, minute, units, &none, &fresh) == 0;
			small &= fresh.len < 2048;
			buf_clear(row);
			*row = fresh;
			window_charge(&window, at, units);
			charges[charge_count] = (struct charge){.at = at};
			memcpy(charges[charge_count++].units, units, sizeof units);
		}
		if (charge_count > 3000) { /* the old ones are long free */
			memmove(charges, charges + 500, (charge_count - 500) * sizeof *charges);
			charge_count -= 500;
		}
		for (int i = 0; i < METERS; i++) {
			const enum meter meter = (enum meter)i;
			const uint64_t used = reference_used(&kind, meter, now);

			used_good &= window_used(&window, meter) == used;
			if (step % 50)
				continue;
			const uint64_t limit = next(3000), need = 1 + next(20);
			const msec_t at = window_reset(&window, &kind, now, meter, limit, need);
			struct window_kind then = kind_at(calendar, at),
			                   before = kind_at(calendar, at - 1);

			if (need > limit)
				reset_good &= at == 0;
			else
				reset_good &=
				    at >= now && reference_used(&then, meter, at) + need <= limit &&
				    (at == now ||
				     reference_used(&before, meter, at - 1) + need > limit);
		}
		if (step % 50 == 0) {
			struct window loaded;
			struct pace pace = {0};

			window_init(&loaded);
			for (uint32_t r = row_oldest(now); r <= row_of(window_minute_of(now));
			     r++) {
				if (r >= base && rows[r - base].len)
					load_good &=
					    row_load(rows[r - base].data, rows[r - base].len, r,
					             row_oldest(now), &loaded, &pace) == 0;
			}
			for (int other = 0; other < 2; other++) {
				const struct window_kind ask = kind_at(other != 0, now);
				window_look(&loaded, &ask, now);
				for (int m = 0; m < METERS; m++)
					exact &= window_used(&loaded, (enum meter)m) ==
					         reference_used(&ask, (enum meter)m, now);
			}
			window_clear(&loaded);
		}
	}
	ok(used_good,
	   "used equals the reference after every step, in both windows and on both meters");
	ok(reset_good, "reset is the first moment at which it fits");
	ok(load_good && exact, "stored rows, read-modify-written, load to the same sums");
	ok(small, "and stay below 2 KB");
	window_clear(&window);
	for (size_t i = 0; i < ROWS; i++)
		buf_clear(&rows[i]);
}

static bool
adds(const char *old, size_t len, struct buf *out)
{
	static const uint32_t units[METERS] = {1, 1};
	static const struct pace none;

	return row_add(old, len, 7, units, &none, out) == 0;
}

static void
rows(void)
{
	static const struct window_kind rolling = {.calendar = false};
	const uint32_t many[METERS] = {UINT32_MAX, 3}, few[METERS] = {5, 1};
	const struct pace early = {{5, 900}}, late = {{7, 800}};
	struct pace pace = {0};
	struct buf out, more;
	struct window window;

	buf_init(&out);
	buf_init(&more);
	window_init(&window);
	ok(!adds("\x07", 1, &out) && !adds("\1\0\0\0", 4, &out) &&
	       !adds("\1\x01\x68\0\0\1", 6, &out) &&
	       !adds("\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, &out) &&
	       !adds("\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x68\1\1", 21, &out) &&
	       !adds("\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x80", 20, &out) &&
	       !adds("\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\1\1\0\1\1\1", 25, &out) &&
	       !adds("\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\xff\xff\xff\xff\x7f\1", 25, &out) &&
	       out.len == 0,
	   "rows of a foreign version, cut off, out of range or out of order are refused");
	ok(row_load("", 0, 0, 0, &window, &pace) == -1 &&
	       window_used(&window, METER_RECIPIENTS) == 0,
	   "so is an empty one");
	row_add(NULL, 0, 359, many, &early, &out);
	row_add(out.data, out.len, 359, few, &late, &more);
	ok(row_load(more.data, more.len, 0, 0, &window, &pace) == 0 &&
	       window_used(&window, METER_RECIPIENTS) == UINT32_MAX &&
	       window_used(&window, METER_MESSAGES) == 4,
	   "counts add up and do not overflow");
	ok(pace.full[METER_RECIPIENTS] == 7 && pace.full[METER_MESSAGES] == 900,
	   "of the pace the later moments stay, meter by meter");
	window_look(&window, &rolling, (359 + 1440 + 1) * (msec_t)MINUTE - 1);
	const bool still = window_used(&window, METER_RECIPIENTS) > 0;
	window_look(&window, &rolling, (359 + 1440 + 1) * (msec_t)MINUTE);
	ok(still && window_used(&window, METER_RECIPIENTS) == 0,
	   "a minute is free again at its boundary, not a millisecond before");
	window_clear(&window);
	pace = (struct pace){0};
	ok(row_load(more.data, more.len, 0, 1, &window, &pace) == 0 &&
	       window_used(&window, METER_MESSAGES) == 0 && pace.full[METER_MESSAGES] == 900,
	   "of an old row only the pace is left");

	/* Version 1: recipients only, minutes in order of first use, one of them twice. */
	static const char v1[] = "\1\0\x09\0\0\x02\0\x07\0\1\0\0\x09\0\0\x05";
	buf_clear(&out);
	ok(row_load(v1, sizeof v1 - 1, 0, 0, &window, &pace) == 0 &&
	       window_used(&window, METER_RECIPIENTS) == 263 &&
	       window_used(&window, METER_MESSAGES) == 0,
	   "a row of version 1 loads");
	window_clear(&window);
	ok(adds(v1, sizeof v1 - 1, &out) && out.data[0] == 2 &&
	       row_load(out.data, out.len, 0, 0, &window, &pace) == 0 &&
	       window_used(&window, METER_RECIPIENTS) == 264 &&
	       window_used(&window, METER_MESSAGES) == 1,
	   "and becomes version 2 with the next charge");
	window_clear(&window);
	buf_clear(&out);
	buf_clear(&more);
}

static void
clocks(void)
{
	const msec_t hour = 3600000, t = 1795000000000;
	struct ledger_clock c;

	ledger_clock_init(&c, t, 1000, 0);
	ok(ledger_clock_now(&c, t + 5, 1005) == t + 5, "runs with the wall clock");
	ok(ledger_clock_now(&c, t - hour, 2005) == t + 1005,
	   "a wall clock that jumps back is outrun");
	ok(ledger_clock_now(&c, t + 2005, 3005) == t + 2005, "and believed again when it returns");
	ok(ledger_clock_now(&c, t + 2005 + hour, 3005) == t + 2005 + hour,
	   "an hour ahead is believed at once");
	ledger_clock_init(&c, t, 0, 0);
	ok(ledger_clock_now(&c, t + 2 * hour, 1000) == t + 1000 && ledger_clock_is_held(&c),
	   "two hours are not");
	ok(ledger_clock_now(&c, t + 2 * hour + 300000, 301000) == t + 301000,
	   "nor after five minutes");
	ok(ledger_clock_now(&c, t + 9 * hour, 302000) == t + 302000, "a second jump");
	ok(ledger_clock_now(&c, t + 9 * hour + 599000, 901000) == t + 901000,
	   "starts the ten minutes anew");
	ok(ledger_clock_now(&c, t + 9 * hour + 600000, 902000) == t + 9 * hour + 600000 &&
	       !ledger_clock_is_held(&c),
	   "after which it is believed");
	ledger_clock_init(&c, t, 0, 0);
	ledger_clock_now(&c, t + 5 * hour, 10);
	ok(ledger_clock_now(&c, t + 20, 20) == t + 20 && !ledger_clock_is_held(&c),
	   "a jump that is undone never was");
	ledger_clock_now(&c, t + 5 * hour, 30);
	ledger_clock_confirm(&c);
	ok(ledger_clock_now(&c, t + 5 * hour + 10, 40) == t + 5 * hour + 10,
	   "an operator's word ends the wait");
	ledger_clock_init(&c, t + 5 * hour, 0, t);
	ok(ledger_clock_is_held(&c) && ledger_clock_now(&c, t + 5 * hour + 10, 10) == t + 10,
	   "at start too");
	ledger_clock_init(&c, t - hour, 0, t);
	ok(ledger_clock_now(&c, t - hour + 10, 10) == t + 10, "never before the high-water mark");
}

int
main(void)
{
	property();
	rows();
	clocks();
	return tap_end();
}
