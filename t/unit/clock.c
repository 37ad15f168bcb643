#include "core/clock.h"
#include "t/unit/tap.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Local days in zones that do all kinds of things to their clocks. */

#define HOUR 3600000

static void
use(const char *zone)
{
	setenv("TZ", zone, 1);
	tzset();
}

static msec_t
utc(int year, int month, int day, int hour, int minute)
{
	struct tm tm = {.tm_year = year - 1900,
	                .tm_mon = month - 1,
	                .tm_mday = day,
	                .tm_hour = hour,
	                .tm_min = minute};
	return (msec_t)timegm(&tm) * 1000;
}

static bool
is_day(msec_t wall, msec_t start, msec_t end)
{
	msec_t got_start, got_end;

	clock_day(wall, &got_start, &got_end);
	return got_start == start && got_end == end;
}

/* The day that begins at start is the same one for every moment in it. */
static void
day(const char *zone, msec_t start, msec_t length, const char *what)
{
	bool good = true;
	char text[160];

	use(zone);
	for (msec_t at = start; at < start + length; at += HOUR / 4)
		good &= is_day(at, start, start + length);
	good &= is_day(start + length - 1, start, start + length);
	snprintf(text, sizeof text, "%s: %s", zone, what);
	ok(good, text);
}

static void
walk(const char *zone, int year, int years)
{
	const msec_t last = utc(year + years, 1, 1, 0, 0);
	msec_t start, end, next_start, next_end;
	bool joined = true, dated = true, sized = true;
	char text[160];

	use(zone);
	clock_day(utc(year, 1, 1, 0, 0), &start, &end);
	for (; start < last; start = next_start, end = next_end) {
		const time_t first = (time_t)(start / 1000), before = first - 1;
		struct tm a, b;

		clock_day(end, &next_start, &next_end);
		joined &= next_start == end && next_end > end;
		joined &= is_day(end - 1, start, end);
		localtime_r(&first, &a);
		localtime_r(&before, &b);
		dated &= a.tm_yday > b.tm_yday || a.tm_year > b.tm_year;
		dated &= start % 60000 == 0;
		sized &= end - start >= 22 * HOUR && end - start <= 26 * HOUR;
	}
	snprintf(text, sizeof text,
	         "%s: %d years of days join, begin with their date, have a day's length", zone,
	         years);
	ok(joined && dated && sized, text);
}

int
main(void)
{
	day("UTC", utc(2026, 11, 25, 0, 0), 24 * HOUR, "24 h");
	day("Asia/Tokyo", utc(2026, 11, 24, 15, 0), 24 * HOUR, "24 h");
	day("Europe/Berlin", utc(2026, 3, 28, 23, 0), 23 * HOUR, "23 h in March");
	day("Europe/Berlin", utc(2026, 10, 24, 22, 0), 25 * HOUR, "25 h in October");
	day("America/Sao_Paulo", utc(2018, 11, 4, 3, 0), 23 * HOUR, "a day without midnight");
	day("America/Sao_Paulo", utc(2018, 2, 17, 2, 0), 25 * HOUR,
	    "a day whose last hour comes twice");
	day("Asia/Beirut", utc(2026, 3, 28, 22, 0), 23 * HOUR, "a day without midnight");
	day("America/Havana", utc(2026, 11, 1, 4, 0), 25 * HOUR, "a day with two midnights");
	day("America/St_Johns", utc(2010, 11, 7, 2, 30), 25 * HOUR,
	    "a day interrupted by the one before");
	day("Pacific/Apia", utc(2011, 12, 29, 10, 0), 24 * HOUR,
	    "the day before one that never was");
	day("Pacific/Apia", utc(2011, 12, 30, 10, 0), 24 * HOUR, "the day after it");
	day("Australia/Lord_Howe", utc(2026, 10, 3, 13, 30), 23 * HOUR + HOUR / 2,
	    "half an hour less");
	day("Asia/Kathmandu", utc(2026, 1, 1, 18, 15), 24 * HOUR, "an offset of quarters");
	walk("Europe/Berlin", 2025, 2);
	walk("America/Sao_Paulo", 2017, 2);
	walk("Asia/Beirut", 2026, 1);
	walk("America/Havana", 2026, 1);
	walk("America/St_Johns", 2009, 3);
	walk("Pacific/Apia", 2011, 2);
	walk("Africa/Cairo", 2023, 2);
	walk("Antarctica/Troll", 2026, 1);
	return tap_end();
}
