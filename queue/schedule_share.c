#include "queue/schedule_int.h"

/* How much of a lane's window and places a site or an account may have, and who is next: see
 * schedule.c. */

#include <string.h>

#define SHARED_FROM 5 /* places of a line: from there on the last one is for another account */

/* --- places --- */

/* Whether one account has all places of the line but the last, and this is one more of it. */
static bool
is_last_place(const struct job *job)
{
	const struct line *line = job->line;
	const unsigned places = line_places(line);
	const struct job *other;

	if (places < SHARED_FROM || line->load.in_flight + 1 < places)
		return false;
	TAILQ_FOREACH(other, &line->flight, queue)
	{
		if (other->account != job->account)
			return false;
	}
	return true;
}

/* The places of a relay are shared like the window: see schedule.c. */
static bool
may_go(const struct job *job, unsigned free_places)
{
	const struct load *account = &job->account->load;

	if (is_last_place(job))
		return false;
	return account->in_flight < free_places ||
	       (job->line->load.in_flight == 0 && free_places > lane_capacity(job->lane) / 8);
}

struct job *
lane_next(const struct lane *lane)
{
	const unsigned places = lane_capacity(lane);
	const unsigned free_places = lane->in_flight < places ? places - lane->in_flight : 0;
	/* Slow sites share a quarter of what fresh mail has. */
	const bool slow = lane->lane != QUEUE_FRESH || lane->slow_in_flight * 4 < places;
	/* And silent ones half of what other mail has. */
	const bool silent = lane->lane == QUEUE_FRESH || lane->silent.in_flight * 2 < places;
	struct line *line;
	struct job *job;

	/* With a large backlog this is asked thousands of times a second, over as many lines. */
	if (free_places == 0)
		return NULL;
	TAILQ_FOREACH(line, &lane->turns, turn)
	{
		if (line->load.in_flight >= free_places || (line->site->slow && !slow) ||
		    (!line->answers && !silent))
			continue;
		TAILQ_FOREACH(job, &line->pending, queue)
		{
			if (may_go(job, free_places))
				return job;
		}
	}
	return NULL;
}

/* --- the window --- */

bool
lane_has_room(const struct lane *lane)
{
	const struct lane_window *window = &windows[lane->lane];

	return lane->messages < window->messages && lane->recipients < window->recipients;
}

/* Whether its account has its share of the window (with the reserve, if it may be used). */
static bool
is_account_crowded(const struct message *message, unsigned jobs_free, size_t recipients_free)
{
	const struct account *account = account_find(message->lane, message->stored->account);

	return account &&
	       (account->load.pending >= jobs_free || account->load.recipients > recipients_free);
}

/* Whether it is for a site that does not answer, of which there is enough in the window. What waits
 * for the end of a pause is no matter: it leaves at once. */
static bool
is_silent_crowd(const struct lane *lane, const char *domain, const char *next_hop)
{
	const struct lane_window *window = &windows[lane->lane];
	const struct site *site;

	if (lane->lane == QUEUE_FRESH || (lane->silent.pending * 2 < window->messages &&
	                                  lane->silent.recipients * 2 < window->recipients))
		return false;
	site = site_peek(lane, domain, next_hop);
	return !site ||
	       (!site_answers(site) && !site_is_paused(site, schedule_now(lane->schedule)));
}

/* Whether every domain it still has to go to, or its account, holds as many pending jobs, or
 * recipients in them, as the window (with the reserve, if it may be used) has room for. The message
 * itself does not count. An account beyond its share still gets in what is for a domain without a
 * backlog, as long as an eighth of the window is left for others. */
bool
is_crowded(const struct message *message, bool reserve)
{
	const struct lane *lane = message->lane;
	const struct lane_window *window = &windows[lane->lane];
	const unsigned jobs = (reserve ? 2 : 1) * window->messages - (lane->messages - 1);
	unsigned jobs_free = reserve && jobs > IDLE ? IDLE : jobs;
	const size_t most = (reserve ? 2 : 1) * window->recipients;
	const size_t recipients_free = lane->recipients < most ? most - lane->recipients : 0;
	const struct queue_hold *whole = holds_of_message(lane->schedule->holds, message->stored);
	const char *last = NULL, *last_hop = "";

	if (is_account_crowded(message, jobs_free, recipients_free)) {
		if (jobs < window->messages / 8 || recipients_free < window->recipients / 8)
			return true;
		if (jobs_free > IDLE)
			jobs_free = IDLE;
	}
	for (size_t i = 0; i < message->stored->recipient_count; i++) {
		const struct store_recipient *recipient = &message->stored->recipients[i];
		const char *name = recipient->address.domain, *next_hop;
		const struct line *line;
		const struct queue_hold *hold;
		if (recipient->state != STORE_QUEUED)
			continue;
		hold = hold_of_recipient(lane->schedule, message->stored, whole, recipient);
		next_hop = next_hop_wanted(hold, recipient);
		if (last && strcmp(last, name) == 0 && strcmp(last_hop, next_hop) == 0)
			continue;
		if (is_hold(hold) || is_end(hold))
			continue;
		last = name;
		last_hop = next_hop;
		if (is_silent_crowd(lane, name, next_hop))
			continue;
		line = line_for(lane, name, next_hop);
		if (!line ||
		    (line->load.pending < jobs_free && line->load.recipients <= recipients_free))
			return false;
	}
	return last != NULL;
}
