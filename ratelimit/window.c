#include "ratelimit/window.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* An ascending list of minutes, at most 1681 long, and the sum of its younger part. Charging
 * appends, or adds to the last element; looking moves the border between what counts and what does
 * not, forward as time passes, and back only when the account changes from one window to the other.
 * So most operations touch one element, and an account that sends twice a day takes two of them.
 *
 * Never over: minute m holds charges made up to (m + 1) * 60000 - 1, and all come back only when
 * the youngest possible one is 24 hours old. Never under for long: the oldest possible one comes
 * back at most 60 s late. A local day begins at a minute boundary in every zone in use, so the
 * calendar window is exact. */

#define MINUTE_MS 60000

void
window_init(struct window *window)
{
	*window = (struct window){0};
}

void
window_clear(struct window *window)
{
	free(window->list);
	window_init(window);
}

uint32_t
window_minute_of(msec_t at)
{
	return at <= 0 ? 0 : at / MINUTE_MS > UINT32_MAX ? UINT32_MAX : (uint32_t)(at / MINUTE_MS);
}

static uint32_t
minutes_before(msec_t now, uint32_t minutes)
{
	const uint32_t minute = window_minute_of(now);

	return minute > minutes ? minute - minutes : 0;
}

uint32_t
window_oldest(msec_t now)
{
	return minutes_before(now, WINDOW_KEEP);
}

msec_t
window_free_at(uint32_t minute)
{
	return ((msec_t)minute + 1 + WINDOW_MINUTES) * MINUTE_MS;
}

static void
count(struct window *window, const struct window_minute *minute, bool more)
{
	for (int m = 0; m < METERS; m++) {
		if (more)
			window->used[m] += minute->units[m];
		else
			window->used[m] -= minute->units[m];
	}
}

/* Room for one more element at the end. */
static void
make_room(struct window *window)
{
	if (window->end < window->size)
		return;
	if (window->first > window->size / 2) {
		memmove(window->list, window->list + window->first,
		        (window->end - window->first) * sizeof *window->list);
		window->end -= window->first;
		window->counted -= window->first;
		window->first = 0;
		return;
	}
	window->size = window->size ? window->size * 2 : 4;
	window->list = xreallocarray(window->list, window->size, sizeof *window->list);
}

void
window_charge(struct window *window, msec_t at, const uint32_t units[METERS])
{
	const uint32_t minute = window_minute_of(at);
	struct window_minute *entry;
	size_t i;

	for (i = window->end; i > window->first && window->list[i - 1].minute > minute; i--)
		;
	if (i > window->first && window->list[i - 1].minute == minute) {
		entry = &window->list[i - 1];
	} else {
		const size_t behind = window->end - i;

		make_room(window);
		i = window->end - behind;
		entry = &window->list[i];
		memmove(entry + 1, entry, behind * sizeof *entry);
		*entry = (struct window_minute){.minute = minute};
		window->end++;
		if (minute < window->from)
			window->counted++;
	}
	if (minute >= window->from)
		count(window, entry, false);
	for (int m = 0; m < METERS; m++)
		entry->units[m] = units[m] > UINT32_MAX - entry->units[m]
		                      ? UINT32_MAX
		                      : entry->units[m] + units[m];
	if (minute >= window->from)
		count(window, entry, true);
}

void
window_look(struct window *window, const struct window_kind *kind, msec_t now)
{
	const uint32_t oldest = window_oldest(now);

	window->from = kind->calendar ? window_minute_of(kind->day_start)
	                              : minutes_before(now, WINDOW_MINUTES);
	while (window->counted < window->end && window->list[window->counted].minute < window->from)
		count(window, &window->list[window->counted++], false);
	while (window->counted > window->first &&
	       window->list[window->counted - 1].minute >= window->from)
		count(window, &window->list[--window->counted], true);
	while (window->first < window->counted && window->list[window->first].minute < oldest)
		window->first++;
	if (window->first == window->end && window->list)
		window_clear(window);
}

uint64_t
window_used(const struct window *window, enum meter meter)
{
	return window->used[meter];
}

msec_t
window_reset(const struct window *window, const struct window_kind *kind, msec_t now,
             enum meter meter, uint64_t limit, uint64_t need)
{
	uint64_t used = window->used[meter];
	msec_t at = now;

	if (need > limit)
		return 0;
	if (kind->calendar)
		return used > limit - need ? kind->day_end : now;
	for (size_t i = window->counted; i < window->end && used > limit - need; i++) {
		const msec_t free_at = window_free_at(window->list[i].minute);

		used -= window->list[i].units[meter];
		if (free_at > at)
			at = free_at;
	}
	return at;
}
