#include "queue/schedule_int.h"

/* What operators do to the schedule: holds, removals, bounces, flushes, other lanes and next hops.
 *
 * A job that is at a relay, or whose outcome is on its way to the disk, is never taken back: the
 * remote may already have accepted. What is only pending leaves its round; when nothing else of the
 * round is left, the round ends as if its last outcome had come. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

/* Takes those recipients (by index) out of the pending jobs of the round: whether there were any.
 */
static bool
withdraw(struct message *message, const bool *gone)
{
	struct job *job, *next;
	bool some = false;

	for (job = LIST_FIRST(&message->jobs); job; job = next) {
		unsigned kept = 0;

		next = LIST_NEXT(job, sibling);
		if (job->state != JOB_PENDING)
			continue;
		for (unsigned i = 0; i < job->count; i++)
			kept += !gone[job->index[i]];
		if (kept == job->count)
			continue;
		some = true;
		if (kept == 0) {
			message->open--;
			job_free(job);
			continue;
		}
		job_to(job, JOB_NEW);
		kept = 0;
		for (unsigned i = 0; i < job->count; i++)
			if (!gone[job->index[i]])
				job->index[kept++] = job->index[i];
		job->count = kept;
		job_to(job, JOB_PENDING);
	}
	return some;
}

/* Takes out of the window what is held now. May free the message. */
static void
hold_pending(struct message *message)
{
	const struct schedule *schedule = message->schedule;
	const struct store_message *stored = message->stored;
	const struct queue_hold *whole = holds_of_message(schedule->holds, stored);
	bool held[QUEUE_RECIPIENTS_MAX] = {false};

	if (!whole && !holds_have_recipients(schedule->holds))
		return;
	for (size_t i = 0; i < stored->recipient_count; i++)
		held[stored->recipients[i].index] =
		    is_hold(hold_of_recipient(schedule, stored, whole, &stored->recipients[i]));
	if (!withdraw(message, held))
		return;
	message->held_back = true;
	message->held_as_of = holds_generation(schedule->holds);
	if (round_is_over(message))
		round_end(message);
}

void
schedule_holds_changed(struct schedule *schedule, bool ended)
{
	struct message *message, *next;

	if (schedule->stopped)
		return;
	for (size_t i = 0; i < BUCKETS && !ended; i++) {
		for (message = LIST_FIRST(&schedule->ids[i]); message; message = next) {
			next = LIST_NEXT(message, bucket);
			hold_pending(message);
		}
	}
	for (size_t i = 0; i < QUEUE_LANES && ended; i++) {
		lane_look_again(&schedule->lanes[i]);
	}
}

/* Of the sites of all that is left the one whose pause ends first, if all are paused; NULL:
 * something may go. Takes a message with its recipients. */
static const struct site *
paused_of_all(const struct schedule *schedule, const struct store_message *stored, msec_t now,
              bool by_operator)
{
	const struct queue_hold *whole = holds_of_message(schedule->holds, stored);
	const struct lane *lane = &schedule->lanes[stored->lane];
	const struct site *first = NULL;

	for (size_t i = 0; i < stored->recipient_count; i++) {
		const struct store_recipient *recipient = &stored->recipients[i];
		const struct site *site;

		if (recipient->state != STORE_QUEUED)
			continue;
		site =
		    site_peek(lane, recipient->address.domain,
		              next_hop_wanted(hold_of_recipient(schedule, stored, whole, recipient),
		                              recipient));
		if (site == NULL || !site_is_paused(site, now) ||
		    (by_operator && site->paused != SITE_BY_OPERATOR))
			return NULL;
		if (first == NULL || site->until < first->until)
			first = site;
	}
	return first;
}

/* What stands before a message that is not in the window, whole where that matters. */
static enum queue_state
waits_for(struct schedule *schedule, const struct store_message *stored, char rule[QUEUE_RULE_SIZE])
{
	const struct queue_hold *hold = hold_of_all(schedule, stored);
	const msec_t now = schedule_now(schedule);
	char name[HOLDS_NAME_SIZE], until[CLOCK_RFC3339_SIZE];
	const struct site *site;

	if (hold) {
		snprintf(rule, QUEUE_RULE_SIZE, "%s", holds_name(hold, name));
		return QUEUE_STATE_HELD;
	}
	if (stored->held)
		return QUEUE_STATE_SENDER;
	if (stored->due > now && stored->lane == QUEUE_FRESH && stored->attempts == 0)
		return QUEUE_STATE_PACED;
	site = stored->recipients != NULL && orders_suspend(schedule->orders)
	           ? paused_of_all(schedule, stored, now, true)
	           : NULL;
	if (site) {
		clock_rfc3339(site->until, until);
		snprintf(rule, QUEUE_RULE_SIZE, "site %.100s until %s: %s", site->name, until,
		         site->why);
		return QUEUE_STATE_SUSPENDED;
	}
	return stored->due > now ? QUEUE_STATE_DEFERRED : QUEUE_STATE_QUEUED;
}

enum queue_state
schedule_state(struct schedule *schedule, const struct store_message *stored,
               char rule[QUEUE_RULE_SIZE])
{
	const struct message *message = message_find(schedule, &stored->id);
	struct store_message *whole = NULL;
	enum queue_state state;
	const struct job *job;

	rule[0] = '\0';
	if (message) {
		LIST_FOREACH(job, &message->jobs, sibling)
		{
			if (job->state != JOB_PENDING)
				return QUEUE_STATE_ACTIVE;
		}
		return QUEUE_STATE_QUEUED;
	}
	if (stored->recipients == NULL &&
	    (holds_have_recipients(schedule->holds) || orders_suspend(schedule->orders)))
		whole = store_load_message(schedule->store, stored->lane, &stored->id);
	state = waits_for(schedule, whole ? whole : stored, rule);
	store_message_free(whole);
	return state;
}

const char *
schedule_site(void *arg, const char *name)
{
	const struct schedule *schedule = arg;
	const struct site *site = sites_find(schedule->sites, name);

	return site ? site->name : NULL;
}

/* --- removals and bounces --- */

#define AGAIN 5000 /* msec */

struct removal {
	struct message *message;        /* in the window, so that nobody begins a round meanwhile */
	struct store_outcome *outcomes; /* owned */
	uint32_t count;
	store_on_done *on_done; /* NULL: nobody waits, a directive ended it */
	void *arg;
};

/* What the window believes, ahead of the disk: nobody else may take these. */
static void
set_states(struct message *message, const struct store_outcome *outcomes, size_t count, bool ended)
{
	struct store_message *stored = message->stored;

	for (size_t i = 0, at = 0; i < stored->recipient_count && at < count; i++)
		if (stored->recipients[i].index == outcomes[at].index) {
			stored->recipients[i].state = ended ? outcomes[at].state : STORE_QUEUED;
			at++;
		}
}

static void
on_removed(void *arg, enum store_result result)
{
	struct removal *removal = arg;
	struct message *message = removal->message;
	struct lane *lane = message->lane;

	if (removal->on_done)
		removal->on_done(removal->arg, result);
	message->finishing--;
	if (result == STORE_OK)
		message->unfinished -= removal->count;
	else if (result == STORE_MISSING)
		message->unfinished = 0;
	else
		message->held_back = false; /* what was taken out of the round is due */
	if (result != STORE_OK)
		set_states(message, removal->outcomes, removal->count, false);
	if (result != STORE_OK && result != STORE_MISSING && !removal->on_done) {
		/* As long as nothing can be written, not again at once. */
		message->held_back = true;
		message->held_as_of = holds_generation(message->schedule->holds);
		lane_front_reset(lane);
		if (!message->schedule->stopped)
			lane_wake_at(lane, schedule_now(message->schedule) + AGAIN);
	}
	if (round_is_over(message))
		round_end(message);
	free(removal->outcomes);
	free(removal);
}

static void
mark(const struct job *job, bool busy[QUEUE_RECIPIENTS_MAX])
{
	for (unsigned i = 0; i < job->count; i++)
		if (job->index[i] < QUEUE_RECIPIENTS_MAX)
			busy[job->index[i]] = true;
}

/* Which recipients a relay, the disk or another removal has; all of them while the message moves.
 * Carried jobs of an earlier incarnation may belong to no round. */
static void
mark_busy(struct schedule *schedule, const struct message *message, const struct queue_id *id,
          bool busy[QUEUE_RECIPIENTS_MAX])
{
	const struct job *job;

	if (message && round_is_over(message)) {
		memset(busy, true, QUEUE_RECIPIENTS_MAX);
		return;
	}
	if (message) {
		LIST_FOREACH(job, &message->jobs, sibling)
		{
			if (job->state != JOB_PENDING)
				mark(job, busy);
		}
		for (size_t i = 0; i < message->stored->recipient_count; i++)
			if (message->stored->recipients[i].state != STORE_QUEUED)
				busy[message->stored->recipients[i].index] = true;
	}
	for (size_t i = 0; i < QUEUE_LANES && schedule->strays > 0; i++) {
		LIST_FOREACH(job, &schedule->lanes[i].jobs, link)
		{
			if (job->message == NULL && queue_id_equal(&job->id, id))
				mark(job, busy);
		}
	}
}

static void
end(struct message *message, struct store_outcome *outcomes, size_t count, store_on_done *on_done,
    void *arg)
{
	const struct store_message *stored = message->stored;
	struct removal *removal = xcalloc(1, sizeof(*removal));
	struct store_batch batch = {.lane = stored->lane,
	                            .id = stored->id,
	                            .outcomes = outcomes,
	                            .count = count,
	                            .when = clock_wall()};

	removal->outcomes = outcomes;
	removal->count = (uint32_t)count;
	removal->on_done = on_done;
	removal->arg = arg;
	removal->message = message;
	set_states(message, outcomes, count, true);
	message->finishing++;
	for (size_t i = 0; i < count; i++)
		log_outcome(&stored->id, stored, &outcomes[i], stored->attempts);
	store_finish(message->schedule->store, &batch, on_removed, removal);
}

struct schedule_share
schedule_end(struct schedule *schedule, const struct store_message *stored,
             const struct queue_selector *selector, enum store_state state, const char *why,
             bool dry_run, store_on_done *on_done, void *arg)
{
	struct message *message = message_find(schedule, &stored->id);
	struct store_outcome *outcomes = xcalloc(stored->recipient_count + 1, sizeof(*outcomes));
	bool busy[QUEUE_RECIPIENTS_MAX] = {false}, gone[QUEUE_RECIPIENTS_MAX] = {false};
	struct schedule_share share = {0, 0};

	mark_busy(schedule, message, &stored->id, busy);
	for (size_t i = 0; i < stored->recipient_count; i++) {
		const struct store_recipient *recipient = &stored->recipients[i];
		struct store_outcome *outcome = &outcomes[share.taken];

		if (!match_recipient(selector, recipient, schedule_site, schedule))
			continue;
		if (busy[recipient->index]) {
			share.busy++;
			continue;
		}
		outcome->index = recipient->index;
		outcome->state = state;
		snprintf(outcome->reply, sizeof(outcome->reply), "%s", why);
		gone[recipient->index] = true;
		share.taken++;
	}
	if (message == NULL && share.taken > 0 && !dry_run) {
		message = message_load(&schedule->lanes[stored->lane], &stored->id);
		if (message == NULL) /* a late outcome has just ended it */
			share.taken = 0;
	}
	if (share.taken == 0 || dry_run) {
		free(outcomes);
		return share;
	}
	end(message, outcomes, share.taken, on_done, arg);
	withdraw(message, gone);
	return share;
}

void
message_end(struct message *message, struct store_outcome *outcomes, size_t count)
{
	end(message, outcomes, count, NULL, NULL);
}

/* --- moves --- */

bool
schedule_move(struct schedule *schedule, const struct store_message *stored, enum queue_lane to,
              bool dry_run, store_on_done *on_done, void *arg)
{
	struct message *message;

	if (stored->lane == to || stored->held || message_find(schedule, &stored->id))
		return false;
	if (dry_run)
		return true;
	message = message_load(&schedule->lanes[stored->lane], &stored->id);
	if (message && message->unfinished == 0) {
		message_free(message);
		message = NULL;
	}
	if (message == NULL)
		return false;
	message->target = to;
	message->on_moved = on_done;
	message->moved_arg = arg;
	round_end(message);
	return true;
}

/* --- next hops --- */

struct rerouting {
	struct message *message; /* in the window, so that nobody begins a round meanwhile */
	store_on_done *on_done;
	void *arg;
};

static void
on_rerouted(void *arg, enum store_result result)
{
	struct rerouting *rerouting = arg;
	struct message *message = rerouting->message;

	rerouting->on_done(rerouting->arg, result);
	message->finishing--;
	if (result == STORE_MISSING)
		message->unfinished = 0;
	message->held_back = false; /* what was taken out of the round is due */
	if (round_is_over(message))
		round_end(message);
	free(rerouting);
}

static void
reroute(struct message *message, const uint16_t *index, size_t count, const char *next_hop,
        const char *why, store_on_done *on_done, void *arg)
{
	struct rerouting *rerouting = xcalloc(1, sizeof(*rerouting));
	const struct store_message *stored = message->stored;
	char id[QUEUE_ID_TEXT_SIZE];

	rerouting->message = message;
	rerouting->on_done = on_done;
	rerouting->arg = arg;
	message->finishing++;
	log_info(queue_id_format(&stored->id, id), "rerouted", "next_hop=%s recipients=%zu",
	         next_hop[0] ? next_hop : QUEUE_NEXT_HOP_DEFAULT, count);
	store_reroute(message->schedule->store, stored->lane, &stored->id, index, count, next_hop,
	              why, on_rerouted, rerouting);
}

struct schedule_share
schedule_reroute(struct schedule *schedule, const struct store_message *stored,
                 const struct queue_selector *selector, const char *next_hop, const char *why,
                 bool dry_run, store_on_done *on_done, void *arg)
{
	struct message *message = message_find(schedule, &stored->id);
	bool busy[QUEUE_RECIPIENTS_MAX] = {false}, gone[QUEUE_RECIPIENTS_MAX] = {false};
	uint16_t index[QUEUE_RECIPIENTS_MAX];
	struct schedule_share share = {0, 0};

	mark_busy(schedule, message, &stored->id, busy);
	for (size_t i = 0; i < stored->recipient_count; i++) {
		const struct store_recipient *recipient = &stored->recipients[i];

		if (!match_recipient(selector, recipient, schedule_site, schedule) ||
		    strcmp(recipient->next_hop, next_hop) == 0)
			continue;
		if (busy[recipient->index]) {
			share.busy++;
			continue;
		}
		gone[recipient->index] = true;
		index[share.taken++] = recipient->index;
	}
	if (message == NULL && share.taken > 0 && !dry_run) {
		message = message_load(&schedule->lanes[stored->lane], &stored->id);
		if (message == NULL) /* a late outcome has just ended it */
			share.taken = 0;
	}
	if (share.taken == 0 || dry_run)
		return share;
	reroute(message, index, share.taken, next_hop, why, on_done, arg);
	withdraw(message, gone);
	return share;
}

/* --- flush --- */

struct flush {
	struct lane *lane;
	msec_t due;
	store_on_done *on_done;
	void *arg;
};

static void
on_flushed(void *arg, enum store_result result)
{
	struct flush *flush = arg;

	flush->on_done(flush->arg, result);
	if (!flush->lane->schedule->stopped)
		lane_due_at(flush->lane, flush->due);
	free(flush);
}

/* How long nothing of it would be attempted: made due within that time it would be put off by a
 * step of the schedule, and so come later than without a flush. */
static msec_t
pause_left(struct schedule *schedule, const struct store_message *stored)
{
	const msec_t now = schedule_now(schedule);
	struct store_message *whole = NULL;
	const struct site *site;

	if (stored->recipients == NULL)
		whole = store_load_message(schedule->store, stored->lane, &stored->id);
	site = whole || stored->recipients
	           ? paused_of_all(schedule, whole ? whole : stored, now, false)
	           : NULL;
	store_message_free(whole);
	return site ? site->until - now : 0;
}

bool
schedule_flush(struct schedule *schedule, const struct store_message *stored, msec_t due,
               bool dry_run, store_on_done *on_done, void *arg)
{
	char rule[QUEUE_RULE_SIZE];
	struct flush *flush;

	if (schedule_state(schedule, stored, rule) != QUEUE_STATE_DEFERRED)
		return false;
	due += pause_left(schedule, stored);
	if (stored->due <= due)
		return false;
	if (dry_run)
		return true;
	flush = xcalloc(1, sizeof(*flush));
	flush->lane = &schedule->lanes[stored->lane];
	flush->due = due;
	flush->on_done = on_done;
	flush->arg = arg;
	store_set_due(schedule->store, stored->lane, &stored->id, due, on_flushed, flush);
	return true;
}
