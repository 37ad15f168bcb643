/* What is known about one site (the MX hosts that serve a domain), and what follows for the next
 * attempt: how many at once, how fast, not before when. Pure: now is an argument, and so is chance.
 *
 * All lanes and messages share one struct site, so that what one attempt met is known to all. */
#ifndef QUEUE_SITE_H
#define QUEUE_SITE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/conf.h"
#include "queue/worker.h"

#define SITE_BACK_OFF     (15 * 1000)      /* msec: the first pause, and the square's unit */
#define SITE_BACK_OFF_MAX (60 * 60 * 1000) /* before chance */
#define SITE_SLOW_WINDOW  (10 * 60 * 1000) /* msec in which timeouts count */
#define SITE_SLOW_REPLY   (20 * 1000)      /* msec: p90 above it is slow */
#define SITE_WELL_REPLY   (10 * 1000)      /* below it is not any more */
#define SITE_REPLIES      32               /* the last ones, which the p90 is of */
#define SITE_BUCKETS      22 /* 0, 1, 2–3, 4–7 … msec; the last: 2^20 and more */

struct site_bounds {                 /* what the configuration says of it */
	unsigned start, most;        /* attempts at once: to begin with, and at most */
	unsigned probe;              /* percent of its last limit that are tried after a pause */
	struct conf_burst rate;      /* attempts; count 0: no bound */
	unsigned session_recipients; /* on one connection; 0: no bound */
	unsigned session_messages;   /* the same; 0: relay.deliveries */
	const char *pool;            /* of the configuration; NULL: what the account's class says */
};

struct site_histogram { /* halved each day */
	uint32_t buckets[SITE_BUCKETS];
};

enum site_pause { SITE_NOT_PAUSED, SITE_BACKING_OFF, SITE_BY_RULE, SITE_BY_OPERATOR };
#define SITE_WHY_SIZE 224

/* Less than the configuration allows, for a while. */
struct site_cap {
	msec_t until;           /* means nothing once it has passed */
	unsigned connections;   /* at once, at most; 0: no bound */
	struct conf_burst rate; /* attempts; count 0: no bound */
	char why[SITE_WHY_SIZE];
};

struct site {
	char name[QUEUE_SITE_SIZE];
	/* concurrency */
	double limit;       /* attempts at once; 0: none yet, as the bounds say */
	unsigned in_flight; /* over all lanes */
	msec_t lowered;     /* when it was last; what began before does not lower it again */
	bool probing;       /* a pause is over, and nobody has answered since */
	/* back-off */
	unsigned failures;      /* pauses in a row, without an answer between */
	msec_t failing;         /* since when nobody answers; 0: the last one did */
	enum site_pause paused; /* why: means nothing once until has passed */
	msec_t until;
	char why[SITE_WHY_SIZE]; /* "back-off", the rule's name, the operator's words */
	unsigned put_off;        /* what met this pause so far */
	struct site_cap by_rule, by_operator;
	/* rate: when the next attempt would conform if all allowance had been used */
	msec_t next;
	/* speed */
	bool slow;
	uint32_t replies[SITE_REPLIES]; /* msec, a ring */
	unsigned reply_count;           /* ever */
	msec_t timeouts[3];             /* the last ones, newest first */
	struct site_histogram connect, greeting, reply;
	msec_t halved; /* the histograms, last */
	/* recipients and attempts since it is known */
	uint64_t delivered, deferred, failed, timed_out;
	msec_t seen; /* last contact */
	char last_reply[256];
};

void site_init(struct site *site, const char *name, msec_t now);

/* Whether one more attempt may begin. */
bool site_may_begin(const struct site *site, const struct site_bounds *bounds, msec_t now);
/* How many may be under way now, in a pause none. */
unsigned site_places(const struct site *site, const struct site_bounds *bounds, msec_t now);
/* The strictest rate that is in force. */
const struct conf_burst *site_rate(const struct site *site, const struct site_bounds *bounds,
                                   msec_t now);
/* When the rate lets the next one begin; now or earlier: it does. */
msec_t site_conforms(const struct site *site, const struct site_bounds *bounds, msec_t now);
bool site_is_paused(const struct site *site, msec_t now);
/* Somebody has met it, and the last who tried had an answer. */
bool site_answers(const struct site *site);
/* Each begin has one end. */
void site_begin(struct site *site, const struct site_bounds *bounds, msec_t now);
void site_end(struct site *site);

enum site_event { /* bits: what an attempt has changed */
	          SITE_PAUSED = 1,
	          SITE_RESUMED = 2, /* it answers again after having failed for long: its mail is
	                               worth trying */
	          SITE_SLOW = 4,
	          SITE_RECOVERED = 8, /* not slow any more */
};
struct site_attempt {
	const struct queue_contact *contact;
	msec_t began;
	unsigned delivered, deferred, failed; /* recipients */
	const char *reply;                    /* the last one; "" none */
};
/* chance: 0 to 2000, evenly: the pause is 10 % longer or shorter. */
unsigned site_learn(struct site *site, const struct site_bounds *bounds,
                    const struct site_attempt *attempt, unsigned chance, msec_t now);
/* Nothing happens for so long that it may not be slow any more: as site_learn says. */
unsigned site_look(struct site *site, msec_t now);
void site_pause(struct site *site, enum site_pause kind, const char *why, msec_t until);
/* A reply rule's: unless somebody's will has paused it for longer already. False: so it is. */
bool site_suspend(struct site *site, const char *rule, msec_t until, msec_t now);
/* A reply rule's: half of what it gets, connections first, then their rate. What began before it
 * was lowered last changes nothing: false. */
bool site_slow_down(struct site *site, const struct site_bounds *bounds, const char *rule,
                    msec_t began, msec_t until, msec_t now);
/* Ends a pause, whatever it is for. */
void site_resume(struct site *site, msec_t now);
/* When what met the pause shall come again: not all at once. */
msec_t site_put_off(struct site *site);
/* It has something to remember that is more than statistics. */
bool site_has_state(const struct site *site, const struct site_bounds *bounds, msec_t now);

msec_t site_back_off(unsigned failures, unsigned chance);
/* Of the last replies; -1 with too few of them. */
int32_t site_reply_p90(const struct site *site);
void site_histogram_add(struct site_histogram *histogram, int32_t msec);
/* The bucket's upper end that so many percent are not above; 0 when it is empty. */
uint32_t site_histogram_percentile(const struct site_histogram *histogram, unsigned percent);

#endif
