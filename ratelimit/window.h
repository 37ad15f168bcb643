/* What one account has sent during the last 24 hours, and when it may send again. Pure: now is an
 * argument.
 *
 * Time is cut into whole minutes since 1970. Charges of one minute merge and come back together, at
 * the first minute boundary at which all of them are 24 hours old: minute m is free again at (m + 1
 * + 1440) * 60000 ms. */
#ifndef RATELIMIT_WINDOW_H
#define RATELIMIT_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/clock.h"

#define WINDOW_MINUTES     1440
#define WINDOW_ROW_MINUTES 360

struct window_minute {
	uint64_t minute; /* since 1970 */
	uint32_t count;  /* > 0 */
};
struct window {
	struct window_minute *list; /* ascending by minute; owned, NULL while nothing was charged */
	size_t first;               /* those before are expired */
	size_t end;
	size_t size;
	uint64_t used; /* sum over [first, end) */
};

void window_init(struct window *window);
void window_clear(struct window *window);
/* Counts n recipients at time at; at may be a little older than the latest charge. */
void window_charge(struct window *window, msec_t at, uint32_t n);
/* Forgets what is free again at now. */
void window_expire(struct window *window, msec_t now);
/* As of the last window_expire. */
uint64_t window_used(const struct window *window);
/* The next moment at which something comes back; 0 when nothing is charged. */
msec_t window_next(const struct window *window);
/* The first moment >= now at which need more recipients fit below limit if nothing else is charged;
 * 0 when need alone is above limit: never. */
msec_t window_reset(const struct window *window, msec_t now, uint64_t limit, uint64_t need);

/* The minute that a moment belongs to, and the stored row that a minute belongs to (six hours
 * each). */
uint64_t window_minute_of(msec_t at);
uint32_t window_row_of(uint64_t minute);
/* The rows that can still hold something charged at now: from the result to
 * window_row_of(window_minute_of(now)). Older rows may be deleted. */
uint32_t window_row_oldest(msec_t now);

/* Read-modify-write of one stored row by whoever stores it; thread-safe. old is the row as stored,
 * NULL and 0 if there is none; out gets the new row. -1 if old is malformed: out is untouched. */
int window_row_add(const void *old, size_t len, uint64_t minute, uint32_t n, struct buf *out);
/* Adds a stored row's charges; rows are loaded in ascending order, before any charge. -1 if
 * malformed: nothing is added. */
int window_load_row(struct window *window, uint32_t row, const void *data, size_t len);

#endif
