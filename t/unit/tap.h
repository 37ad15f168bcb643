/* How every unit test speaks: the Test Anything Protocol, a line for each test and the plan at the
 * end. */
#ifndef UNIT_TAP_H
#define UNIT_TAP_H

#include <stdbool.h>
#include <stdio.h>

static unsigned tap_tests, tap_failures;

/* Returns good. */
static inline bool
ok(bool good, const char *name)
{
	printf("%sok %u - %s\n", good ? "" : "not ", ++tap_tests, name);
	fflush(stdout);
	tap_failures += !good;
	return good;
}

/* About one case of many, which may hold any octets: they stay in the line. */
static inline bool
ok_of(bool good, const char *name, const char *about)
{
	printf("%sok %u - %s: ", good ? "" : "not ", ++tap_tests, name);
	for (; *about; about++)
		printf(*about >= ' ' && *about <= '~' && *about != '#' ? "%c" : "\\x%02x",
		       (unsigned char)*about);
	putchar('\n');
	tap_failures += !good;
	return good;
}

/* What main returns. */
static inline int
tap_end(void)
{
	printf("1..%u\n", tap_tests);
	return tap_failures != 0;
}

#endif
