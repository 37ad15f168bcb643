/* The stored form of an account's minutes and pace: rows of six hours each. */
#ifndef RATELIMIT_ROW_H
#define RATELIMIT_ROW_H

#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "ratelimit/pace.h"
#include "ratelimit/window.h"

#define ROW_MINUTES 360

/* The row that a minute belongs to. */
uint32_t row_of(uint32_t minute);
/* Older rows hold nothing that could count at now, and may be deleted once a younger one is stored,
 * which then knows the pace. */
uint32_t row_oldest(msec_t now);

/* Read-modify-write of one row by whoever stores it; thread-safe. old is the row as stored, NULL
 * and 0 if there is none; out gets the new row, in today's format whatever old's is. -1 if old is
 * malformed: out is untouched. */
int row_add(const void *old, size_t len, uint32_t minute, const uint32_t units[METERS],
            const struct pace *pace, struct buf *out);
/* Adds a stored row's charges to the window, unless row is older than oldest, and merges its pace.
 * -1 if malformed: nothing is added. */
int row_load(const void *data, size_t len, uint32_t row, uint32_t oldest, struct window *window,
             struct pace *pace);

#endif
