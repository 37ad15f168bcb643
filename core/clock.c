#include "core/clock.h"

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Two clocks. The wall clock says when something happened, the monotonic one how long something
 * takes; the latter is CLOCK_BOOTTIME, because a deadline that slept with the machine has passed
 * all the same.
 *
 * Dates are formatted from English tables, not by strftime: mail knows no locale. */

static msec_t
clock_read(clockid_t which)
{
	struct timespec ts;
	const int failed = clock_gettime(which, &ts);

	assert(!failed);
	return (msec_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

#ifdef SEKISHO_TEST
/* The shared file, mapped at the first look at a clock (before any sandbox); NULL without one. */
static const struct clock_test_offsets *test_offsets;
static pthread_once_t test_once = PTHREAD_ONCE_INIT;

static void
clock_test_map(void)
{
	const char *path = getenv("SEKISHO_TEST_CLOCK");
	void *map;
	int fd;

	if (!path || !*path)
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* A file too short to be mapped whole would kill us at the first look. */
	if (lseek(fd, 0, SEEK_END) >= (off_t)sizeof *test_offsets) {
		map = mmap(NULL, sizeof *test_offsets, PROT_READ, MAP_SHARED, fd, 0);
		if (map != MAP_FAILED)
			test_offsets = map;
	}
	close(fd);
}

static const struct clock_test_offsets *
clock_test_offsets(void)
{
	pthread_once(&test_once, clock_test_map);
	return test_offsets;
}

uint64_t
clock_test_changes(void)
{
	const struct clock_test_offsets *offsets = clock_test_offsets();

	return offsets ? offsets->changes : 0;
}

msec_t
clock_wall(void)
{
	const struct clock_test_offsets *offsets = clock_test_offsets();

	return clock_read(CLOCK_REALTIME) + (offsets ? offsets->wall : 0);
}

msec_t
clock_mono(void)
{
	const struct clock_test_offsets *offsets = clock_test_offsets();

	return clock_read(CLOCK_BOOTTIME) + (offsets ? offsets->mono : 0);
}
#else
msec_t
clock_wall(void)
{
	return clock_read(CLOCK_REALTIME);
}

msec_t
clock_mono(void)
{
	return clock_read(CLOCK_BOOTTIME);
}
#endif

uint64_t
clock_usec(void)
{
	struct timespec ts;
	const int failed = clock_gettime(CLOCK_MONOTONIC, &ts);

	assert(!failed);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void
clock_set_zone(const char *zone)
{
	if (*zone)
		setenv("TZ", zone, 1);
	tzset();
}

/* Splits into local calendar fields; returns the zone's offset in minutes. */
static int
local_fields(msec_t wall, struct tm *tm)
{
	const time_t seconds = (time_t)(wall >= 0 ? wall / 1000 : (wall - 999) / 1000);

	memset(tm, 0, sizeof *tm);
	if (!localtime_r(&seconds, tm)) {
		const time_t epoch = 0;
		gmtime_r(&epoch, tm);
	}
	return (int)(tm->tm_gmtoff / 60);
}

char *
clock_rfc3339(msec_t wall, char out[CLOCK_RFC3339_SIZE])
{
	struct tm tm;
	const int zone = local_fields(wall, &tm);
	const unsigned away = (unsigned)abs(zone);
	char text[128]; /* more than any int can need */

	snprintf(text, sizeof text, "%04ld-%02d-%02dT%02d:%02d:%02d%c%02u:%02u", tm.tm_year + 1900L,
	         tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, zone < 0 ? '-' : '+',
	         away / 60 % 100, away % 60);
	snprintf(out, CLOCK_RFC3339_SIZE, "%.*s", CLOCK_RFC3339_SIZE - 1, text);
	return out;
}

char *
clock_rfc5322(msec_t wall, char out[CLOCK_RFC5322_SIZE])
{
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
	                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	struct tm tm;
	const int zone = local_fields(wall, &tm);
	const unsigned away = (unsigned)abs(zone);
	char text[128]; /* more than any int can need */

	snprintf(text, sizeof text, "%s, %d %s %04ld %02d:%02d:%02d %c%02u%02u",
	         days[tm.tm_wday % 7], tm.tm_mday, months[tm.tm_mon % 12], tm.tm_year + 1900L,
	         tm.tm_hour, tm.tm_min, tm.tm_sec, zone < 0 ? '-' : '+', away / 60 % 100,
	         away % 60);
	snprintf(out, CLOCK_RFC5322_SIZE, "%.*s", CLOCK_RFC5322_SIZE - 1, text);
	return out;
}

#define MINUTE 60000
#define DAY    (24 * 60 * MINUTE)

/* The local date as a number of days. */
static int64_t
local_date(msec_t wall)
{
	struct tm tm;

	local_fields(wall, &tm);
	tm.tm_sec = tm.tm_min = tm.tm_hour = 0;
	return (int64_t)timegm(&tm) / (24 * 60 * 60);
}

/* The first moment at which the local date is at least date; near is less than two days away. Zones
 * change their clocks at midnight, too: there may be no 00:00 on that date, or two of them, or the
 * day before may come back for an hour. mktime answers none of these cases reliably, so the minutes
 * around the midnight that the present offset suggests are looked at one by one. */
static msec_t
date_start(int64_t date, msec_t near)
{
	struct tm tm;
	const int zone = local_fields(near, &tm);
	msec_t at = date * DAY - (msec_t)zone * MINUTE - 4 * 60 * MINUTE;

	while (local_date(at) < date)
		at += MINUTE;
	return at;
}

void
clock_day(msec_t wall, msec_t *start, msec_t *end)
{
	int64_t date = local_date(wall);

	*end = date_start(date + 1, wall);
	while (*end <= wall) /* this date has come back */
		*end = date_start(++date + 1, wall);
	*start = date_start(date, wall);
}
