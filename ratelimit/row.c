#include "ratelimit/row.h"

#include <stdbool.h>
#include <string.h>

/* A row is: u8 format version 2, for each meter u64 of the pace, then per minute with charges u16
 * minute within the row and one number per meter, in order of minute. A number takes 7 bits an
 * octet, the lowest first, the top bit says that another one follows: what people send fits one or
 * two octets, and a row stays below 2 KB.
 *
 * Each row holds the pace as of its last charge. The latest moment over all rows is the account's,
 * in whatever order charges reached the disk, and no second row has to be written.
 *
 * Version 1 had no pace and per entry u16 minute and u24 recipients, in order of first use, a
 * minute perhaps twice. It is read, and becomes version 2 when something is added. */

#define VERSION      2u
#define HEADER_SIZE  (1u + 8u * METERS)
#define V1_ENTRY     5u
#define V1_SIZE_MAX  (1u + 4u * ROW_MINUTES * V1_ENTRY)
#define PRODUCES_MAX (HEADER_SIZE + ROW_MINUTES * (2u + 5u * METERS))

struct row {
	struct pace pace;
	uint32_t units[ROW_MINUTES][METERS]; /* all zero: nothing was charged in that minute */
};

uint32_t
row_of(uint32_t minute)
{
	return minute / ROW_MINUTES;
}

uint32_t
row_oldest(msec_t now)
{
	return row_of(window_oldest(now));
}

static void
add(struct row *row, uint32_t minute, enum meter meter, uint64_t n)
{
	uint32_t *units = &row->units[minute][meter];

	*units = n > UINT32_MAX - *units ? UINT32_MAX : *units + (uint32_t)n;
}

static bool
read_v1(const uint8_t *data, size_t len, struct row *row)
{
	if (len > V1_SIZE_MAX || (len - 1) % V1_ENTRY)
		return false;
	for (const uint8_t *at = data + 1; at < data + len; at += V1_ENTRY) {
		const uint32_t minute = (uint32_t)(at[0] << 8 | at[1]);

		if (minute >= ROW_MINUTES)
			return false;
		add(row, minute, METER_RECIPIENTS,
		    (uint32_t)at[2] << 16 | (uint32_t)at[3] << 8 | at[4]);
	}
	return true;
}

static uint32_t
read_number(struct wire *wire)
{
	uint64_t n = 0;

	for (unsigned shift = 0; shift < 35; shift += 7) {
		const unsigned octet = wire_u8(wire);

		n |= (uint64_t)(octet & 0x7f) << shift;
		if (!(octet & 0x80))
			break;
	}
	if (n > UINT32_MAX)
		wire->failed = true;
	return (uint32_t)n;
}

static bool
read_row(const void *data, size_t len, struct row *row)
{
	struct wire wire = wire_from(data, len);
	int64_t last = -1;

	memset(row, 0, sizeof *row);
	if (len > PRODUCES_MAX && len > V1_SIZE_MAX)
		return false;
	switch (wire_u8(&wire)) {
	case 1:
		return read_v1(data, len, row);
	case VERSION:
		break;
	default:
		return false;
	}
	for (int m = 0; m < METERS; m++) {
		const uint64_t full = wire_u64(&wire);

		if (full > INT64_MAX)
			return false;
		row->pace.full[m] = (int64_t)full;
	}
	while (wire_ok(&wire) && wire.left) {
		const uint16_t minute = wire_u16(&wire);

		if (minute >= ROW_MINUTES || minute <= last)
			return false;
		last = minute;
		for (int m = 0; m < METERS; m++)
			row->units[minute][m] = read_number(&wire);
	}
	return wire_done(&wire);
}

static void
put_number(struct buf *out, uint32_t n)
{
	for (; n > 0x7f; n >>= 7)
		wire_put_u8(out, (uint8_t)(n | 0x80));
	wire_put_u8(out, (uint8_t)n);
}

static bool
is_charged(const struct row *row, uint32_t minute)
{
	for (int m = 0; m < METERS; m++)
		if (row->units[minute][m])
			return true;
	return false;
}

int
row_add(const void *old, size_t len, uint32_t minute, const uint32_t units[METERS],
        const struct pace *pace, struct buf *out)
{
	struct row row = {0};

	if (old && len && !read_row(old, len, &row))
		return -1;
	for (int m = 0; m < METERS; m++)
		add(&row, minute % ROW_MINUTES, (enum meter)m, units[m]);
	pace_merge(&row.pace, pace);

	wire_put_u8(out, VERSION);
	for (int m = 0; m < METERS; m++)
		wire_put_u64(out, (uint64_t)row.pace.full[m]);
	for (uint32_t i = 0; i < ROW_MINUTES; i++) {
		if (!is_charged(&row, i))
			continue;
		wire_put_u16(out, (uint16_t)i);
		for (int m = 0; m < METERS; m++)
			put_number(out, row.units[i][m]);
	}
	return 0;
}

int
row_load(const void *data, size_t len, uint32_t number, uint32_t oldest, struct window *window,
         struct pace *pace)
{
	struct row row;

	if (!data || !len || !read_row(data, len, &row))
		return -1;
	pace_merge(pace, &row.pace);
	for (uint32_t i = 0; number >= oldest && i < ROW_MINUTES; i++) {
		if (is_charged(&row, i))
			window_charge(window, (msec_t)((uint64_t)number * ROW_MINUTES + i) * 60000,
			              row.units[i]);
	}
	return 0;
}
