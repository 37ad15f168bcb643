#include "queue/schedule_int.h"

/* Dispatch.
 *
 * Problem: a million messages may wait, remote sites are slow or dead, relays and this process come
 * and go; still fresh mail must leave at once, nobody waits behind somebody else's dead site, and
 * nothing is attempted twice at a time. Idea: of each lane only a bounded window of due messages is
 * in memory. A message enters the window for one *round*: its unfinished recipients are cut into
 * jobs (one domain, at most PROTO_JOB_MAX recipients), jobs stand in a line per site, and the
 * relay's free places go to the lines in order of fairness to accounts (queue/fair.h). When the
 * last job of the round has its outcome in the store, the message leaves the window: finished, due
 * again in its lane, or moved to a slower one.
 *
 * Invariants:
 *   - An id is in the window at most once, over all lanes; a job belongs to one lane.
 *   - A lane hands out nothing before all its relays that are there have said HELLO, because only
 * then is it known which jobs an earlier incarnation of this process left past their final dot.
 * Those are entered as jobs in flight, and the rest of their messages is cut when all are heard. A
 * relay that comes later is a new process, which has none.
 *   - A job goes to the relay of its lane that has least to do. What it does at a time counts for
 * the lane's budget and for the sites, whichever relay does it.
 *   - An outcome is acknowledged only when it is durable; outcomes of unknown jobs are applied by
 * (id, recipient index).
 *   - The finish of a round's last job carries the next due time, so a crash before the following
 * move costs nothing but the lane.
 *   - A domain may hold as much of the window as it leaves free: one takes half of it, two take a
 * third each, and whatever number of them stands still, there is room for one more. The same holds
 * for the relay's places. A refill skips the messages of a crowded domain (and comes back for them,
 * going on where it stopped so that a long run of them hides nobody; when it finds the window full,
 * in turns with what it has left behind), and fresh mail to a domain
 * without a backlog may use a reserve. So the backlogs of dead domains, whatever their length and
 * number, delay nobody else.
 *   - What is for a site that waits is in no line: it is put off when it is cut, or when the pause
 * begins.
 *   - An account has its share in the same way: as much of the window and of the relay's places as
 * it leaves free, and beyond that one place for each domain where it has none, as long as an eighth
 * of all is free. The last place of a line is for another account than the one that has all others.
 * So who sends much delays nobody else, and his own dead domains leave his other mail a way.
 *   - What is held is not in the window: it stays where it is due, and each refill begins behind
 * the front, up to which everything is in the window or held. Whatever makes a message due before
 * the front, or ends a hold, resets it; so a backlog that is held costs one look, not one per
 * refill.
 *   - Due times are of the schedule's own clock, which follows the wall clock forward and never
 * back. What was due later than any step could make it was written under a clock that has since
 * been set back: it is due now.
 *   - What its sender holds (RFC 4865) is in an order of its own on disk and in no window. When its
 * time has come a change puts it among what is due; from then on it is like other mail.
 *   - Priority (RFC 6710) is a head start in that order, of HEAD_START for each step: what 20 mails
 * to one recipient cost. Virtual time goes on with whatever is served, so of each account fewer
 * than 20 (as often as it has weight) for each step come before what was there earlier, and nothing
 * starves.
 *   - A round interrupted by a crash is repeated for the recipients that have not ended; the due
 * time does not change within a round. */

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

#define SKIP_MAX 500  /* messages of crowded domains looked at in one refill */
#define HELD_MAX 2000 /* and of held ones */
#define LATE_COMMIT                                                                                \
	QUEUE_TIMEOUT   /* so much after its due time a new message may become visible             \
	                 */
#define REFILL_EVERY 50 /* msec between refills that skip */
/* Of a refill, which is a chore. */
#define STEP_LOADS     4
#define STEP_KEYS      500
#define DISPATCH_LOADS 128

/* Fallback's mail is old, and has waited longer than it takes to load it. */
const struct lane_window windows[QUEUE_LANES] = {
    [QUEUE_FRESH] = {2000, 50000}, [QUEUE_RETRY] = {2000, 50000}, [QUEUE_FALLBACK] = {500, 12500}};

unsigned
lane_capacity(const struct lane *lane)
{
	const struct conf *conf = lane->schedule->conf;
	const unsigned offered = lane_offered(lane);
	const uint64_t budget = lane->lane == QUEUE_FRESH   ? offered
	                        : lane->lane == QUEUE_RETRY ? conf->retry_connections
	                                                    : conf->fallback_connections;

	return offered < budget ? offered : (unsigned)budget;
}

msec_t
schedule_now(struct schedule *schedule)
{
	const msec_t mono = clock_mono(), wall = clock_wall();

	schedule->now += mono - schedule->mono;
	schedule->mono = mono;
	if (wall > schedule->now)
		schedule->now = wall;
	return schedule->now;
}

/* The longest that anything waits for its next attempt. */
static msec_t
longest_wait(const struct conf *conf)
{
	msec_t longest = conf->pace_horizon;

	for (size_t i = 0; i < conf->retry_schedule.count; i++)
		if (conf->retry_schedule.list[i] > longest)
			longest = conf->retry_schedule.list[i];
	if (longest < 2 * SITE_BACK_OFF_MAX)
		longest = 2 * SITE_BACK_OFF_MAX;
	return longest + longest / 10 + 60 * 1000;
}

void
lane_wake_at(struct lane *lane, msec_t when)
{
	msec_t now = schedule_now(lane->schedule);
	if (lane->wake != 0 && lane->wake <= when && loop_timer_is_armed(lane->timer))
		return;
	lane->wake = when;
	msec_t delay = when - now;
	/* Not longer than a minute at a time: the wall clock may be set meanwhile. */
	loop_timer_arm(lane->timer, delay < 0 ? 0 : delay < 60000 ? delay : 60000);
}

void
lane_front_reset(struct lane *lane)
{
	memset(&lane->front, 0, sizeof(lane->front));
	lane->refill.from_front = false; /* it is behind that */
}

void
lane_due_at(struct lane *lane, msec_t due)
{
	if (due <= lane->front.due)
		lane_front_reset(lane);
	lane_wake_at(lane, due);
}

/* Whether the refill goes on behind a message that was left behind for now (or, if not left, is in
 * the window or held). */
static bool
pass(struct lane *lane, const struct store_key *key, bool left)
{
	struct refill *refill = &lane->refill;

	refill->passed = *key;
	if (left)
		refill->from_front = false;
	else if (refill->from_front && key->due <= refill->now)
		lane->front = *key;
	return refill->skipped < SKIP_MAX && refill->held < HELD_MAX && refill->left > 0;
}

static bool
on_due(void *arg, const struct store_key *key)
{
	struct lane *lane = arg;
	struct refill *refill = &lane->refill;
	if (key->due > refill->now && key->due <= refill->latest) {
		refill->next = key->due;
		return false;
	}
	if (message_find(lane->schedule, &key->id))
		return pass(lane, key, false);
	if (!lane_has_room(lane)) {
		refill->full = true;
		return false;
	}
	struct message *message = message_load(lane, &key->id);
	refill->loaded++;
	refill->left--;
	if (message && hold_of_all(message->schedule, message->stored)) {
		message_free(message);
		refill->held++;
		return pass(lane, key, false);
	}
	if (message && is_crowded(message, false)) {
		message_free(message);
		refill->skipped++;
		return pass(lane, key, true);
	}
	if (message && message->unfinished > 0)
		message_begin(message);
	else if (message)
		message_free(
		    message); /* nothing left to do: the store drops it with its own repair */
	return pass(lane, key, false);
}

static void
refill_end(struct lane *lane)
{
	const struct refill *refill = &lane->refill;
	const bool left = refill->skipped > 0 || refill->swept;
	const bool unfinished =
	    refill->skipped >= SKIP_MAX || refill->held >= HELD_MAX || (refill->full && left);
	/* The room that comes free is shared by the sweep and what it has left behind. */
	const bool kept = !refill->swept && lane->sweep.due != 0;
	msec_t rest = 20;

	if (!kept)
		memset(&lane->sweep, 0, sizeof(lane->sweep));
	if (unfinished && !kept) {
		lane->sweep = refill->passed;
		lane->swept_until = refill->now;
	}
	lane->front_turn = refill->swept && refill->full;
	lane->skipped = left || unfinished || kept;
	lane->more = refill->full || lane->skipped;
	lane->refilled = clock_mono();
	lane->refilling = false;
	if (refill->next && !unfinished && !kept)
		lane_wake_at(lane, refill->next);
	if (refill->held >= HELD_MAX)
		rest = 1;
	else if (unfinished || kept)
		rest = 4;
	if (lane->skipped)
		lane_wake_at(lane, schedule_now(lane->schedule) + rest * REFILL_EVERY);
}

/* What is due, and then what is due so late that the clock must have been set back. */
static bool
refill_step(void *arg)
{
	struct lane *lane = arg;
	struct refill *refill = &lane->refill;
	const msec_t next = refill->next;
	struct store_key *from = next ? &refill->beyond : &refill->from;
	size_t seen;
	bool more;

	if (!lane->ready || lane->schedule->stopped) {
		lane->refilling = false;
		return false;
	}
	refill->left = STEP_LOADS;
	seen = store_scan_due(lane->schedule->store, lane->lane, from, STEP_KEYS, on_due, lane);
	more = seen == STEP_KEYS || refill->left == 0 || refill->next != next;
	if (refill->full || refill->skipped >= SKIP_MAX || refill->held >= HELD_MAX)
		more = false;
	if (!more)
		refill_end(lane);
	/* Not each one by itself: the order is that of priority, too. */
	if (!more || refill->loaded % DISPATCH_LOADS == 0)
		lane_dispatch(lane);
	if (!more && refill->again)
		lane_refill(lane);
	return more;
}

/* Fresh mail's is no chore: a step each turn of the loop. */
static void
on_step(void *arg)
{
	struct lane *lane = arg;

	if (refill_step(lane))
		loop_timer_arm(lane->step, 0);
}

void
lane_refill(struct lane *lane)
{
	const msec_t now = schedule_now(lane->schedule);
	struct refill *refill = &lane->refill;

	if (!lane->ready || lane->schedule->stopped)
		return;
	loop_timer_cancel(lane->timer);
	lane->wake = 0;
	if (lane->refilling) {
		refill->again = true; /* it may be behind what is meant */
		return;
	}
	*refill = (struct refill){.now = now, .latest = now + lane->schedule->longest};
	refill->swept = lane->sweep.due != 0 && !lane->front_turn;
	if (refill->swept)
		refill->now = lane->swept_until;
	refill->from = refill->passed = refill->swept ? lane->sweep : lane->front;
	refill->from_front = !refill->swept;
	refill->beyond.due = refill->latest + 1;
	lane->refilling = true;
	if (lane->lane == QUEUE_FRESH)
		loop_timer_arm(lane->step, 0);
	else
		loop_chore_begin(lane->filling);
}

static void
on_lane_timer(void *arg)
{
	struct lane *lane = arg;
	lane->wake = 0;
	lane_refill(lane);
}

void
lane_look_again(struct lane *lane)
{
	lane_front_reset(lane);
	memset(&lane->sweep, 0, sizeof(lane->sweep));
	lane->refilling = false;
	lane_refill(lane);
}

void
lane_poke(struct lane *lane)
{
	if (lane->more && !lane->refilling && lane->messages < windows[lane->lane].messages / 2 &&
	    lane->recipients < windows[lane->lane].recipients / 2 &&
	    (!lane->skipped || clock_mono() - lane->refilled >= REFILL_EVERY))
		lane_refill(lane);
	lane_dispatch(lane);
}

/* False when there is nothing more to hand out. */
static bool
dispatch_one(void *arg)
{
	struct lane *lane = arg;
	struct job *job = lane->ready && !lane->schedule->stopped ? lane_next(lane) : NULL;

	if (!job)
		return false;
	fair_serve(&lane->fair, job->tag);
	job_send(job);
	return true;
}

void
lane_dispatch(struct lane *lane)
{
	if (lane->lane != QUEUE_FRESH)
		loop_chore_begin(lane->dispatching);
	else
		while (dispatch_one(lane))
			;
}

void
lanes_dispatch(struct schedule *schedule)
{
	for (size_t i = 0; i < QUEUE_LANES && !schedule->stopped; i++)
		lane_dispatch(&schedule->lanes[i]);
}

void
schedule_new_message(struct schedule *schedule, enum queue_lane which, const struct queue_id *id,
                     msec_t due)
{
	struct lane *lane = &schedule->lanes[which];
	if (schedule->stopped || !lane->ready)
		return; /* HELLO scans the lane */
	if (message_find(schedule, id))
		return;
	if (due > schedule_now(schedule)) {
		lane_wake_at(lane, due);
		return;
	}
	bool behind = lane->more || lane->refilling || !lane_has_room(lane);
	if (lane->messages >= 2 * windows[which].messages ||
	    lane->recipients >= 2 * windows[which].recipients) {
		lane->more = true;
		lane_due_at(lane, due ? due : schedule_now(schedule) - LATE_COMMIT);
		return;
	}
	struct message *message = message_load(lane, id);
	if (!message)
		return;
	const struct queue_hold *hold = hold_of_all(schedule, message->stored);
	if (hold) {
		char text[QUEUE_ID_TEXT_SIZE], rule[QUEUE_SELECTOR_TEXT_SIZE];
		log_info(queue_id_format(id, text), "held", "rule=\"hold %s\"",
		         queue_selector_text(&hold->selector, rule));
		message_free(message);
		return;
	}
	if (is_crowded(message, behind)) {
		const msec_t was_due = message->stored->due;
		message_free(message);
		/* Older ones first. The timer sees to it even if no round of this lane ends for
		 * long. */
		lane->more = true;
		if (was_due <= lane->front.due)
			lane_front_reset(lane);
		lane_wake_at(lane, schedule_now(schedule) + 20 * REFILL_EVERY);
		return;
	}
	message_begin(message);
	lane_dispatch(lane);
}

uint64_t
schedule_in_flight(const struct schedule *schedule)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < QUEUE_LANES; i++)
		sum += schedule->lanes[i].in_flight;
	return sum;
}

bool
schedule_is_active(const struct schedule *schedule, const struct queue_id *id)
{
	return message_find(schedule, id) != NULL;
}

struct schedule *
schedule_new(struct loop *loop, struct store *store, struct ipc_hub *hub, struct holds *holds,
             struct quota *quota, const struct conf *conf)
{
	struct schedule *schedule = xcalloc(1, sizeof(*schedule));
	schedule->loop = loop;
	schedule->store = store;
	schedule->hub = hub;
	schedule->holds = holds;
	schedule->quota = quota;
	schedule->conf = conf;
	schedule->longest = longest_wait(conf);
	schedule->now = clock_wall();
	schedule->mono = clock_mono();
	schedule->next_number = (uint64_t)clock_wall()
	                        << 20; /* no number of an earlier incarnation comes again */
	for (size_t i = 0; i < QUEUE_LANES; i++) {
		struct lane *lane = &schedule->lanes[i];
		lane->schedule = schedule;
		lane->lane = (enum queue_lane)i;
		TAILQ_INIT(&lane->turns);
		lane->timer = loop_timer_new(loop, on_lane_timer, lane);
		lane->step = loop_timer_new(loop, on_step, lane);
		lane->filling = loop_chore_new(loop, refill_step, lane);
		lane->dispatching = loop_chore_new(loop, dispatch_one, lane);
	}
	relays_open(schedule);
	weights_reload(schedule);
	held_open(schedule);
	holds_know_sites(holds, schedule_site, schedule);
	sites_open(schedule);
	egress_open(schedule);
	return schedule;
}

void
schedule_reload(struct schedule *schedule, const struct conf *conf)
{
	schedule->conf = conf;
	if (longest_wait(conf) > schedule->longest)
		schedule->longest = longest_wait(conf);
	sites_reload(schedule->sites, conf);
	reply_rules_reload(schedule->replies, conf);
	weights_reload(schedule);
	lines_settle(schedule); /* they may have more places now */
	for (size_t i = 0; i < QUEUE_LANES; i++)
		lane_poke(&schedule->lanes[i]);
}

void
schedule_stop(struct schedule *schedule)
{
	schedule->stopped = true;
	for (size_t i = 0; i < QUEUE_LANES; i++)
		loop_timer_cancel(schedule->lanes[i].timer);
	loop_timer_cancel(schedule->held_timer);
	loop_timer_cancel(schedule->site_timer);
	wakes_stop(schedule->wakes);
	orders_stop(schedule->orders);
	sites_stop(schedule->sites);
}

void
schedule_free(struct schedule *schedule)
{
	if (!schedule)
		return;
	for (size_t i = 0; i < BUCKETS; i++) {
		while (!LIST_EMPTY(&schedule->ids[i]))
			message_free(LIST_FIRST(&schedule->ids[i]));
	}
	for (size_t i = 0; i < QUEUE_LANES; i++) {
		struct lane *lane = &schedule->lanes[i];
		while (!LIST_EMPTY(&lane->jobs))
			job_free(LIST_FIRST(&lane->jobs));
		loop_timer_free(lane->timer);
		loop_timer_free(lane->step);
		loop_chore_free(lane->filling);
		loop_chore_free(lane->dispatching);
	}
	held_close(schedule);
	sites_close(schedule);
	egress_close(schedule);
	relays_close(schedule);
	free(schedule);
}
