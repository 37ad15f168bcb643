/* The time that quotas live by: never backwards, not even over a restart, and not fooled by a clock
 * that jumps ahead.
 *
 * Pure: both clocks and the persisted high-water mark are arguments. A wall clock that jumps ahead
 * by more than an hour against the monotonic one (or stands more than an hour after the high-water
 * mark at start) frees nothing: ledger time runs on with the monotonic clock until the wall clock
 * stayed there for ten minutes or an operator confirms it. A wall clock that jumps back is likewise
 * outrun by the monotonic clock. */
#ifndef RATELIMIT_LEDGER_CLOCK_H
#define RATELIMIT_LEDGER_CLOCK_H

#include <stdbool.h>

#include "core/clock.h"

#define LEDGER_CLOCK_JUMP (60 * 60 * 1000) /* ms */
#define LEDGER_CLOCK_STAY (10 * 60 * 1000) /* ms */

struct ledger_clock {
	msec_t now;        /* ledger time at the last look: the high-water mark to persist */
	msec_t mono;       /* monotonic clock at the last look */
	bool held;         /* the wall clock is ahead and not believed yet */
	bool confirmed;    /* an operator said so: believe at the next look */
	msec_t held_since; /* monotonic */
	msec_t held_ahead; /* wall - mono when the hold began */
};

/* high_water is the persisted ledger time, 0 when there is none. */
void ledger_clock_init(struct ledger_clock *clock, msec_t wall, msec_t mono, msec_t high_water);
/* Ledger time now; also what to persist (every minute or with each charge). */
msec_t ledger_clock_now(struct ledger_clock *clock, msec_t wall, msec_t mono);
/* Whether a jump is being waited out, for log and status. */
bool ledger_clock_is_held(const struct ledger_clock *clock);
/* The operator vouches for the wall clock. */
void ledger_clock_confirm(struct ledger_clock *clock);

#endif
