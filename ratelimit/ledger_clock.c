#include "ratelimit/ledger_clock.h"

#include <assert.h>

/* Ledger time moves by the larger of two steps: what the monotonic clock says has passed, and
 * whatever brings it up to the wall clock; the second only while the wall clock is believed. So it
 * never stands still, never runs backwards, and is never behind a wall clock that is believed.
 *
 * A jump ahead starts a hold. The hold remembers by how much the wall clock is ahead of the
 * monotonic one; while that stays the same (within JITTER), ten minutes are enough to believe it.
 * Another jump starts the ten minutes anew, and one back to where ledger time is ends the hold. */

#define JITTER (60 * 1000) /* ms */

static void
hold(struct ledger_clock *clock, msec_t wall, msec_t mono)
{
	clock->held = true;
	clock->held_since = mono;
	clock->held_ahead = wall - mono;
}

void
ledger_clock_init(struct ledger_clock *clock, msec_t wall, msec_t mono, msec_t high_water)
{
	*clock = (struct ledger_clock){.now = high_water, .mono = mono};
	if (high_water == 0)
		clock->now = wall;
	else if (wall - high_water > LEDGER_CLOCK_JUMP)
		hold(clock, wall, mono);
	else if (wall > high_water)
		clock->now = wall;
}

msec_t
ledger_clock_now(struct ledger_clock *clock, msec_t wall, msec_t mono)
{
	if (mono > clock->mono) {
		clock->now += mono - clock->mono;
		clock->mono = mono;
	}
	if (wall - clock->now <= LEDGER_CLOCK_JUMP) {
		clock->held = false;
	} else if (clock->confirmed) {
		clock->held = false;
	} else if (!clock->held) {
		hold(clock, wall, clock->mono);
	} else {
		const msec_t moved = wall - clock->mono - clock->held_ahead;

		if (moved > JITTER || moved < -JITTER)
			hold(clock, wall, clock->mono);
		else if (clock->mono - clock->held_since >= LEDGER_CLOCK_STAY)
			clock->held = false;
	}
	clock->confirmed = false;
	if (!clock->held && wall > clock->now)
		clock->now = wall;
	return clock->now;
}

bool
ledger_clock_is_held(const struct ledger_clock *clock)
{
	return clock->held;
}

void
ledger_clock_confirm(struct ledger_clock *clock)
{
	if (clock->held)
		clock->confirmed = true;
}
