#include "ratelimit/pace.h"

/* The state is the theoretical arrival time: the moment at which everything taken is paid for. A
 * unit conforms when that moment is at most slack ahead. Microseconds, so that 7/1min needs no
 * fractions; what does not divide is rounded up: never faster than configured.
 *
 * Sums are bounded far below overflow, whatever a configuration says: a rate that would take longer
 * than PACE_MAX for one step is as good as forever. */

#define PACE_MAX ((int64_t)1 << 56) /* usec; 2,283 years */

static int64_t
product(uint64_t a, uint64_t b)
{
	uint64_t result;

	return __builtin_mul_overflow(a, b, &result) || result > PACE_MAX ? PACE_MAX
	                                                                  : (int64_t)result;
}

struct pace_rate
pace_rate(uint32_t at_once, uint32_t count, msec_t period)
{
	struct pace_rate rate = {0};

	if (count == 0 || period <= 0)
		return rate;
	rate.interval = (product((uint64_t)period, 1000) + count - 1) / count;
	if (at_once > 1)
		rate.slack = product((uint64_t)rate.interval, at_once - 1);
	return rate;
}

/* When this meter alone would let a message go. */
static msec_t
due_of(const struct pace *pace, const struct pace_rate *rate, enum meter meter, msec_t now)
{
	const int64_t ahead = pace->full[meter] - rate->slack;

	return rate->interval && ahead > now * 1000 ? (ahead + 999) / 1000 : now;
}

msec_t
pace_due(const struct pace *pace, const struct pace_rate rates[METERS], msec_t now)
{
	msec_t due = now;

	for (int m = 0; m < METERS; m++)
		due = due_of(pace, &rates[m], (enum meter)m, due);
	return due;
}

int64_t
pace_left(const struct pace *pace, const struct pace_rate rates[METERS], enum meter meter,
          msec_t now)
{
	const struct pace_rate *rate = &rates[meter];
	/* What another meter delays fills this bucket when it goes, not now. */
	const msec_t due = pace_due(pace, rates, now);
	const int64_t from = (due_of(pace, rate, meter, now) < due ? due : now) * 1000;
	const int64_t used = pace->full[meter] > from ? pace->full[meter] - from : 0;

	if (rate->interval == 0)
		return 0;
	/* Rounded down: a unit that is not there yet does not count, one begun to be owed does. */
	return (rate->slack + rate->interval) / rate->interval -
	       (used + rate->interval - 1) / rate->interval;
}

void
pace_take(struct pace *pace, const struct pace_rate rates[METERS], msec_t due,
          const uint32_t units[METERS], struct pace *debt)
{
	for (int m = 0; m < METERS; m++) {
		debt->full[m] = product((uint64_t)rates[m].interval, units[m]);
		if (debt->full[m] == 0)
			continue;
		if (pace->full[m] < due * 1000)
			pace->full[m] = due * 1000;
		pace->full[m] += debt->full[m];
		if (pace->full[m] > PACE_MAX)
			pace->full[m] = PACE_MAX;
	}
}

void
pace_give_back(struct pace *pace, const struct pace *debt)
{
	for (int m = 0; m < METERS; m++)
		pace->full[m] = pace->full[m] > debt->full[m] ? pace->full[m] - debt->full[m] : 0;
}

void
pace_merge(struct pace *pace, const struct pace *other)
{
	for (int m = 0; m < METERS; m++)
		if (pace->full[m] < other->full[m])
			pace->full[m] = other->full[m];
}
