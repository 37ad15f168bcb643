/* How fast an account may send: the generic cell rate algorithm (ITU-T I.371 annex A) over both
 * meters. Mail beyond the rate is not refused here, it is due later. Pure: now is ledger time and
 * an argument.
 *
 * "100 then 50/5min" is a bucket that lets 100 units go at once and fills up by 50 in five minutes.
 * A message goes whole when its first unit conforms on both meters; the rest of it is debt for the
 * next. */
#ifndef RATELIMIT_PACE_H
#define RATELIMIT_PACE_H

#include <stdint.h>

#include "core/clock.h"
#include "ratelimit/meter.h"

struct pace_rate {        /* of one meter; all zero: no limit */
	int64_t interval; /* usec that one unit costs; 0: no limit */
	int64_t slack;    /* usec that a full bucket is ahead: all units at once but the last */
};
/* count 0: no limit. */
struct pace_rate pace_rate(uint32_t at_once, uint32_t count, msec_t period);

/* What an account has used up: for each meter the usec since 1970 at which its bucket is full
 * again. All zero: both are. */
struct pace {
	int64_t full[METERS];
};

/* The first moment >= now at which a message may go, whatever its size. */
msec_t pace_due(const struct pace *pace, const struct pace_rate rates[METERS], msec_t now);
/* Units that may go at once, as far as this meter is concerned; below 0: debt. 0 without a limit.
 */
int64_t pace_left(const struct pace *pace, const struct pace_rate rates[METERS], enum meter meter,
                  msec_t now);
/* A message of these units goes at due. debt is what it added, for pace_give_back. */
void pace_take(struct pace *pace, const struct pace_rate rates[METERS], msec_t due,
               const uint32_t units[METERS], struct pace *debt);
/* The message was not stored after all. */
void pace_give_back(struct pace *pace, const struct pace *debt);
/* Meter by meter the later of the two. States of one account merge in any order. */
void pace_merge(struct pace *pace, const struct pace *other);

#endif
