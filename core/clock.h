/* The only reader of clocks. Everybody else gets the time from here or as an argument.
 *
 * Test builds (build/test/) add offsets read from a small mapped file that all processes share
 * (named by SEKISHO_TEST_CLOCK), so days pass in milliseconds across the whole system; installed
 * programs do not contain that code (checked by symbol: clock_test_*). */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdint.h>

typedef int64_t msec_t; /* milliseconds */

/* Since 1970-01-01 UTC; may jump. */
msec_t clock_wall(void);
/* Since boot, suspended time included; never runs backwards. Timers and deadlines use it. */
msec_t clock_mono(void);

/* CLOCK_MONOTONIC in microseconds, of no test clock: for systemd, which compares it with its own,
 * and for how long our own work takes. */
uint64_t clock_usec(void);

/* The zone of all local times from now on; "" keeps the system's. Its file is read now: before any
 * sandbox, and before any thread. */
void clock_set_zone(const char *zone);

#define CLOCK_RFC3339_SIZE 40
#define CLOCK_RFC5322_SIZE 40
/* "2026-11-23T09:14:00+09:00" in the local zone. Returns out. */
char *clock_rfc3339(msec_t wall, char out[CLOCK_RFC3339_SIZE]);
/* "Mon, 23 Nov 2026 09:14:00 +0900" in the local zone, for Date and Received. Returns out. */
char *clock_rfc5322(msec_t wall, char out[CLOCK_RFC5322_SIZE]);

/* The local day that a moment belongs to: [start, end), 23 to 25 hours in the zones in use. Days
 * follow each other without gap or overlap, whatever the zone does to its clocks. */
void clock_day(msec_t wall, msec_t *start, msec_t *end);

#ifdef SEKISHO_TEST
/* What the shared file holds: two signed millisecond offsets and a change counter, native-endian. A
 * test that moves time forward as it passes adds the same to both; a test of a clock that jumps
 * adds to wall only. */
struct clock_test_offsets {
	volatile int64_t wall;
	volatile int64_t mono;
	volatile uint64_t changes;
};
/* Changes whenever an offset did; the loop polls it to re-arm its timers. 0 without a shared file.
 */
uint64_t clock_test_changes(void);
#endif

#endif
