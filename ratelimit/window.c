#include "ratelimit/window.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* The window is an ascending list of (minute, count), at most 1441 long, and its sum. Charging
 * appends, or adds to the last element; expiring moves the front. So the sum, the next expiry and
 * most charges cost nothing, and an account that sends twice a day takes two elements.
 *
 * Never over: minute m holds charges made up to (m + 1) * 60000 - 1, and all come back only when
 * the youngest possible one is 24 hours old. Never under for long: the oldest possible one comes
 * back at most 60 s late.
 *
 * A stored row covers six hours: u8 format version, then per entry u16 minute within the row and
 * u24 count, in order of first use. At most 1801 octets. A count that would overflow continues in a
 * further entry of the same minute. */

#define MINUTE_MS    60000
#define ROW_VERSION  1u
#define ENTRY_SIZE   5u
#define ENTRY_MAX    0xffffffu
#define ROW_SIZE_MAX (1u + 4u * WINDOW_ROW_MINUTES * ENTRY_SIZE) /* some may be split */

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

uint64_t
window_minute_of(msec_t at)
{
	return at > 0 ? (uint64_t)(at / MINUTE_MS) : 0;
}

uint32_t
window_row_of(uint64_t minute)
{
	return (uint32_t)(minute / WINDOW_ROW_MINUTES);
}

/* The oldest minute that still counts at now: m with (m + 1 + 1440) * 60000 > now. */
static uint64_t
oldest_minute(msec_t now)
{
	const uint64_t minute = window_minute_of(now);

	return minute > WINDOW_MINUTES ? minute - WINDOW_MINUTES : 0;
}

uint32_t
window_row_oldest(msec_t now)
{
	return window_row_of(oldest_minute(now));
}

static msec_t
free_at(uint64_t minute)
{
	return (msec_t)(minute + 1 + WINDOW_MINUTES) * MINUTE_MS;
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
		window->first = 0;
		return;
	}
	window->size = window->size ? window->size * 2 : 4;
	window->list = xreallocarray(window->list, window->size, sizeof *window->list);
}

static void
add_minute(struct window *window, uint64_t minute, uint32_t n)
{
	size_t i;

	if (n == 0)
		return;
	for (i = window->end; i > window->first && window->list[i - 1].minute > minute; i--)
		;
	if (i > window->first && window->list[i - 1].minute == minute &&
	    window->list[i - 1].count <= UINT32_MAX - n) {
		window->list[i - 1].count += n;
	} else {
		const size_t behind = window->end - i;

		make_room(window);
		i = window->end - behind;
		memmove(window->list + i + 1, window->list + i, behind * sizeof *window->list);
		window->list[i] = (struct window_minute){.minute = minute, .count = n};
		window->end++;
	}
	window->used += n;
}

void
window_charge(struct window *window, msec_t at, uint32_t n)
{
	add_minute(window, window_minute_of(at), n);
}

void
window_expire(struct window *window, msec_t now)
{
	while (window->first < window->end && free_at(window->list[window->first].minute) <= now) {
		window->used -= window->list[window->first].count;
		window->first++;
	}
	if (window->first == window->end && window->list)
		window_clear(window);
}

uint64_t
window_used(const struct window *window)
{
	return window->used;
}

msec_t
window_next(const struct window *window)
{
	return window->first < window->end ? free_at(window->list[window->first].minute) : 0;
}

msec_t
window_reset(const struct window *window, msec_t now, uint64_t limit, uint64_t need)
{
	uint64_t used = window->used;
	msec_t at = now;

	if (need > limit)
		return 0;
	for (size_t i = window->first; i < window->end && used > limit - need; i++) {
		used -= window->list[i].count;
		if (free_at(window->list[i].minute) > at)
			at = free_at(window->list[i].minute);
	}
	return at;
}

/* Whether a stored row is one of ours. */
static bool
row_is_valid(const uint8_t *row, size_t len)
{
	if (len < 1 || len > ROW_SIZE_MAX || row[0] != ROW_VERSION || (len - 1) % ENTRY_SIZE)
		return false;
	for (size_t i = 1; i < len; i += ENTRY_SIZE) {
		if ((row[i] << 8 | row[i + 1]) >= WINDOW_ROW_MINUTES)
			return false;
	}
	return true;
}

static uint32_t
entry_count(const uint8_t *entry)
{
	return (uint32_t)entry[2] << 16 | (uint32_t)entry[3] << 8 | entry[4];
}

static void
entry_set(uint8_t *entry, uint32_t count)
{
	entry[2] = (uint8_t)(count >> 16);
	entry[3] = (uint8_t)(count >> 8);
	entry[4] = (uint8_t)count;
}

int
window_row_add(const void *old, size_t len, uint64_t minute, uint32_t n, struct buf *out)
{
	const uint16_t offset = (uint16_t)(minute % WINDOW_ROW_MINUTES);
	const size_t start = out->len;

	if (old && len && !row_is_valid(old, len))
		return -1;
	if (old && len)
		buf_add(out, old, len);
	else
		wire_put_u8(out, ROW_VERSION);

	/* Fill up the entries of this minute, then append what is left. */
	for (size_t i = start + 1; n && i < out->len; i += ENTRY_SIZE) {
		uint8_t *entry = out->data + i;
		uint32_t room, part;

		if ((entry[0] << 8 | entry[1]) != offset)
			continue;
		room = ENTRY_MAX - entry_count(entry);
		part = n < room ? n : room;
		entry_set(entry, entry_count(entry) + part);
		n -= part;
	}
	while (n) {
		const uint32_t part = n < ENTRY_MAX ? n : ENTRY_MAX;
		uint8_t count[3] = {(uint8_t)(part >> 16), (uint8_t)(part >> 8), (uint8_t)part};

		wire_put_u16(out, offset);
		wire_put_raw(out, count, sizeof count);
		n -= part;
	}
	return 0;
}

int
window_load_row(struct window *window, uint32_t row, const void *data, size_t len)
{
	const uint8_t *octets = data;

	if (!data || !row_is_valid(data, len))
		return -1;
	for (size_t i = 1; i < len; i += ENTRY_SIZE)
		add_minute(window,
		           (uint64_t)row * WINDOW_ROW_MINUTES +
		               (uint64_t)(octets[i] << 8 | octets[i + 1]),
		           entry_count(octets + i));
	return 0;
}
