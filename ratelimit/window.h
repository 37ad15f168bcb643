/* What one account has sent, by the minute, and how much of it counts. Pure: now is an argument.
 *
 * Time is cut into whole minutes since 1970, and charges of one minute merge. Two windows are read
 * from the same minutes, so an account may change from one to the other at any moment. In the
 * rolling one the charges of a minute come back together, at the first minute boundary at which all
 * of them are 24 hours old: minute m is free again at (m + 1 + 1440) * 60000 ms. In the calendar
 * one everything comes back when the local day ends. */
#ifndef RATELIMIT_WINDOW_H
#define RATELIMIT_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "ratelimit/meter.h"

#define WINDOW_MINUTES 1440 /* of the rolling window */
#define WINDOW_KEEP    1680 /* minutes that may still count: no day was ever longer than 28 h */

struct window_minute {
	uint32_t minute; /* since 1970 */
	uint32_t units[METERS];
};
struct window {
	struct window_minute *list; /* ascending by minute; owned, NULL while nothing was charged */
	size_t first;               /* those before are forgotten */
	size_t counted;             /* those before are kept and do not count */
	size_t end;
	size_t size;
	uint32_t from;         /* the first minute that counts */
	uint64_t used[METERS]; /* sum over [counted, end) */
};
struct window_kind {
	bool calendar;
	msec_t day_start, day_end; /* calendar: the local day of now (clock_day) */
};

void window_init(struct window *window);
void window_clear(struct window *window);
/* Counts units at time at; at may be a little older than the latest charge. */
void window_charge(struct window *window, msec_t at, const uint32_t units[METERS]);
/* Decides what counts at now, and forgets what cannot count any more in either window. */
void window_look(struct window *window, const struct window_kind *kind, msec_t now);
/* As of the last window_look. */
uint64_t window_used(const struct window *window, enum meter meter);
/* The first moment >= now at which need more units fit below limit if nothing else is charged; 0
 * when need alone is above limit: never. Follows a window_look for the same kind and now. */
msec_t window_reset(const struct window *window, const struct window_kind *kind, msec_t now,
                    enum meter meter, uint64_t limit, uint64_t need);

/* The minute that a moment belongs to. */
uint32_t window_minute_of(msec_t at);
/* The oldest minute that may count at now, in whichever window. */
uint32_t window_oldest(msec_t now);
/* When what is charged in a minute leaves the rolling window. */
msec_t window_free_at(uint32_t minute);

#endif
