#include "ratelimit/window.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ratelimit/ledger_clock.h"

/* The rolling window against a naive reference that remembers every charge, and the ledger's clock
 * against jumps. */

static int count, failures;

static void
ok(bool good, const char *what)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++count, what);
	failures += !good;
}

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
	uint32_t n;
};
static struct charge charges[20000];
static size_t charge_count;

static uint64_t
reference_used(msec_t now)
{
	uint64_t used = 0;

	for (size_t i = 0; i < charge_count; i++) {
		const msec_t boundary = (charges[i].at / MINUTE + 1) * MINUTE + DAY;
		if (boundary > now)
			used += charges[i].n;
	}
	return used;
}

static void
property(void)
{
	static struct buf rows[ROWS];
	const uint32_t base = window_row_of(window_minute_of(1795000000000));
	bool used_good = true, exact = true, reset_good = true, next_good = true, load_good = true;
	msec_t now = 1795000000000;
	struct window window;

	window_init(&window);
	for (int step = 0; step < 15000; step++) {
		now += (msec_t)next(next(20) ? 3 * MINUTE : 8 * 60 * MINUTE);
		window_expire(&window, now);
		if (next(3)) {
			const uint32_t n = 1 + (uint32_t)next(50);
			const msec_t at = now - (msec_t)next(2 * MINUTE);
			const uint64_t minute = window_minute_of(at);
			struct buf *row = &rows[window_row_of(minute) - base];
			struct buf fresh;

			buf_init(&fresh);
			load_good &= window_row_add(row->data, row->len, minute, n, &fresh) == 0;
			load_good &= fresh.len < 2048;
			buf_clear(row);
			*row = fresh;
			window_charge(&window, at, n);
			charges[charge_count++] = (struct charge){at, n};
		}
		if (charge_count > 3000) { /* the old ones are long free */
			memmove(charges, charges + 500, (charge_count - 500) * sizeof *charges);
			charge_count -= 500;
		}
		const uint64_t used = reference_used(now);
		used_good &= window_used(&window) == used;
		if (step % 50 == 0) {
			struct window loaded;
			const uint64_t limit = next(3000), need = 1 + next(20);
			const msec_t at = window_reset(&window, now, limit, need);

			if (need > limit)
				reset_good &= at == 0;
			else
				reset_good &= at >= now && reference_used(at) + need <= limit &&
				              (at == now || reference_used(at - 1) + need > limit);
			const msec_t expiry = window_next(&window);
			next_good &= used == 0 ? expiry == 0
			                       : reference_used(expiry - 1) == used &&
			                             reference_used(expiry) < used;

			window_init(&loaded);
			for (uint32_t r = window_row_oldest(now);
			     r <= window_row_of(window_minute_of(now)); r++) {
				if (r >= base && rows[r - base].len)
					load_good &=
					    window_load_row(&loaded, r, rows[r - base].data,
					                    rows[r - base].len) == 0;
			}
			window_expire(&loaded, now);
			exact &= window_used(&loaded) == used;
			window_clear(&loaded);
		}
	}
	ok(used_good, "used equals the reference after every step");
	ok(reset_good, "reset is the first moment at which it fits");
	ok(next_good, "next is the first moment at which something comes back");
	ok(load_good && exact, "stored rows, read-modify-written, load to the same sum");
	window_clear(&window);
	for (size_t i = 0; i < ROWS; i++)
		buf_clear(&rows[i]);
}

static void
rows(void)
{
	struct buf out, more;
	struct window window;

	buf_init(&out);
	buf_init(&more);
	window_init(&window);
	ok(window_row_add("\x07", 1, 0, 1, &out) == -1 &&
	       window_row_add("\1\0\0\0", 4, 0, 1, &out) == -1 &&
	       window_row_add("\1\x01\x68\0\0\1", 6, 0, 1, &out) == -1 && out.len == 0,
	   "rows of a foreign version, cut off or out of range are refused");
	ok(window_load_row(&window, 0, "", 0) == -1 && window_used(&window) == 0,
	   "so is an empty one");
	window_row_add(NULL, 0, 359, UINT32_MAX, &out);
	window_row_add(out.data, out.len, 359, 5, &more);
	ok(window_load_row(&window, 0, more.data, more.len) == 0 &&
	       window_used(&window) == (uint64_t)UINT32_MAX + 5,
	   "a count larger than an entry is split and adds up");
	window_expire(&window, (359 + 1440 + 1) * (msec_t)MINUTE - 1);
	const bool still = window_used(&window) > 0;
	window_expire(&window, (359 + 1440 + 1) * (msec_t)MINUTE);
	ok(still && window_used(&window) == 0,
	   "a minute is free again at its boundary, not a millisecond before");
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
	printf("1..%d\n", count);
	return failures != 0;
}
