#include "relay/dial.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* Problem: an address that does not answer at all (a family without a way, a host that is off)
 * would hold an attempt for the whole connect timeout, although the next one would take the mail at
 * once.
 *
 * Idea: RFC 8305 section 5. The next address is called when the one before has failed, or has not
 * answered within DIAL_DELAY; whoever answers first is taken. Its order is the resolver's, in which
 * the families take turns. A less preferred host is not an equal (RFC 5321 section 5.1: in order of
 * preference; many a second MX only queues, or is a trap for those who prefer it), and a far host
 * may need 250 ms for its answer: it is called when the better ones have had the time to lose a SYN
 * and repeat it, or have failed.
 *
 * No more calls at once than addresses, DNS_TARGETS_MAX. */

struct call {
	struct dial *dial;
	struct conn *conn; /* NULL: not called, or failed */
	msec_t since;
};

struct dial {
	struct dial_opts opts;
	const struct dial_events *events;
	void *arg;
	struct loop_timer *timer; /* until the next is called */
	unsigned left;            /* bits: not called yet */
	struct call calls[DNS_TARGETS_MAX];
};

static void
on_nothing(void *arg)
{
	(void)arg; /* what a server says is for its new owner */
}

static void on_open(void *arg);
static void on_end(void *arg, enum conn_end why);

static const struct conn_events call_events = {
    .on_open = on_open, .on_input = on_nothing, .on_end = on_end};

/* opts.count: none. */
static size_t
next_of(const struct dial *dial)
{
	size_t i = 0;

	while (i < dial->opts.count && !(dial->left & 1u << i))
		i++;
	return i;
}

/* Whether somebody is being called who is preferred to a target, or is its equal. */
static bool
is_calling(const struct dial *dial, unsigned preference, bool equal)
{
	for (size_t i = 0; i < dial->opts.count; i++)
		if (dial->calls[i].conn && (equal ? dial->opts.targets[i].preference == preference
		                                  : dial->opts.targets[i].preference < preference))
			return true;
	return false;
}

/* When the next address has its turn. */
static void
plan(struct dial *dial)
{
	const size_t next = next_of(dial);
	unsigned preference;

	if (next == dial->opts.count) {
		loop_timer_cancel(dial->timer);
		return;
	}
	preference = dial->opts.targets[next].preference;
	loop_timer_arm(dial->timer, is_calling(dial, preference, true)    ? DIAL_DELAY
	                            : is_calling(dial, preference, false) ? DIAL_LATER_DELAY
	                                                                  : 0);
}

/* Where a call to that family comes from; NULL: anywhere. */
static const struct sockaddr *
source_of(const struct queue_egress *egress, int family, struct sockaddr_storage *out)
{
	const struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = egress->v6};
	const struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = egress->v4};

	if (!egress->pool[0])
		return NULL;
	assert(family == AF_INET6 ? egress->has_v6 : egress->has_v4);
	if (family == AF_INET6)
		memcpy(out, &v6, sizeof v6);
	else
		memcpy(out, &v4, sizeof v4);
	return (const struct sockaddr *)out;
}

static void
on_timer(void *arg)
{
	struct dial *dial = arg;
	const size_t i = next_of(dial);
	const struct dns_target *target = &dial->opts.targets[i];
	struct call *call = &dial->calls[i];
	struct sockaddr_storage source;

	assert(i < dial->opts.count);
	dial->left &= ~(1u << i);
	call->dial = dial;
	call->since = clock_mono();
	call->conn =
	    conn_connect(dial->opts.loop, (const struct sockaddr *)&target->addr, target->len,
	                 source_of(dial->opts.egress, target->addr.ss_family, &source),
	                 dial->opts.input_max, &call_events, call);
	conn_set_timeout(call->conn, dial->opts.timeout);
	plan(dial);
}

struct dial *
dial_new(const struct dial_opts *opts, const struct dial_events *events, void *arg)
{
	struct dial *dial = xcalloc(1, sizeof *dial);

	assert(opts->count <= DNS_TARGETS_MAX && opts->which && !(opts->which >> opts->count));
	dial->opts = *opts;
	dial->events = events;
	dial->arg = arg;
	dial->left = opts->which;
	dial->timer = loop_timer_new(opts->loop, on_timer, dial);
	loop_timer_arm(dial->timer, 0);
	return dial;
}

void
dial_free(struct dial *dial)
{
	if (!dial)
		return;
	for (size_t i = 0; i < dial->opts.count; i++)
		conn_free(dial->calls[i].conn);
	loop_timer_free(dial->timer);
	free(dial);
}

static void
on_open(void *arg)
{
	struct call *call = arg;
	struct dial *dial = call->dial;
	struct conn *conn = call->conn;
	const struct dial_events *events = dial->events;
	void *owner = dial->arg;
	const size_t target = (size_t)(call - dial->calls);
	const msec_t took = clock_mono() - call->since;

	call->conn = NULL;
	dial_free(dial);
	events->on_open(owner, target, conn, took);
}

static void
on_end(void *arg, enum conn_end why)
{
	struct call *call = arg;
	struct dial *dial = call->dial;
	struct conn *conn = call->conn;
	const struct dial_events *events = dial->events;
	void *owner = dial->arg;
	const size_t target = (size_t)(call - dial->calls);
	const unsigned preference = dial->opts.targets[target].preference;
	bool more = dial->left;

	call->conn = NULL;
	for (size_t i = 0; i < dial->opts.count; i++)
		more |= dial->calls[i].conn != NULL;
	if (!more) {
		dial_free(dial);
	} else if (dial->left) {
		/* The one that was to wait for it has its turn, but not before its betters. */
		const unsigned next = dial->opts.targets[next_of(dial)].preference;

		if (next == preference || !is_calling(dial, next, false))
			loop_timer_arm(dial->timer, 0);
	}
	events->on_failed(owner, target, why == CONN_TIMEOUT ? "timed out" : conn_error(conn), why,
	                  more);
	conn_free(conn);
}
