#include "queue/schedule_int.h"

/* What became of a job, and what follows for its message: ended, due again, moved. */

#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/random.h"

#define NULL_SENDER_KEEP (24 * 60 * 60 * 1000)
#define AGAIN            5000 /* msec after a failed write */

/* How long it is tried. */
static msec_t
keep_of(const struct message *message)
{
	const msec_t keep = message->schedule->conf->retry_expire;

	return address_is_null(&message->stored->from) && keep > NULL_SENDER_KEEP ? NULL_SENDER_KEEP
	                                                                          : keep;
}

static bool
fits(const struct conf_lane_rule *rule, const struct message *message, msec_t now)
{
	return message->attempt >= rule->attempts && now - begun(message->stored) >= rule->age &&
	       (rule->reply == 0 || rule->reply == message->reply + 1) &&
	       (!rule->slow || message->slow);
}

/* Where it waits from now on: always asked anew, so what was moved for a slow site comes back. */
static enum queue_lane
choose_lane(const struct message *message, msec_t now)
{
	static const enum queue_lane lanes[] = {
	    [CONF_LANE_RETRY] = QUEUE_RETRY, [CONF_LANE_FALLBACK] = QUEUE_FALLBACK};
	const struct conf *conf = message->schedule->conf;

	for (size_t i = 0; i < conf->lane_rules.count; i++)
		if (fits(&conf->lane_rules.list[i], message, now))
			return lanes[conf->lane_rules.list[i].to];
	return message->slow || now - begun(message->stored) > conf->retry_fallback ? QUEUE_FALLBACK
	                                                                            : QUEUE_RETRY;
}

/* The schedule's answer to attempt n of a message that could not be finished. */
static void
choose_next(struct message *message, msec_t now)
{
	const struct conf *conf = message->schedule->conf;
	const struct conf_durations *schedule = &conf->retry_schedule;
	size_t step = message->attempt - 1;
	msec_t wait = 5 * 60 * 1000;
	if (schedule->count > 0)
		wait = schedule->list[step < schedule->count ? step : schedule->count - 1];
	wait += (msec_t)random_below((uint64_t)(wait / 5) + 1) - wait / 10;
	const msec_t rest = message->not_before - schedule_now(message->schedule);
	if (message->not_before && rest > wait)
		wait = rest < message->schedule->longest ? rest : message->schedule->longest;
	const msec_t last = begun(message->stored) + keep_of(message) + 1;
	if (wait > last - now) /* one attempt at the very end */
		wait = last > now ? last - now : 0;
	const struct envelope *envelope = &message->stored->envelope;
	const msec_t left = envelope->by_deadline - now;
	if (envelope->by != BY_NONE && left > 0 && wait > left)
		wait = left;
	if (is_overdue(message))
		wait = 0; /* its time ended within the round */
	message->chosen = true;
	message->next_due = schedule_now(message->schedule) + wait;
	message->target =
	    lane_wanted(message->schedule, message->stored, choose_lane(message, now));
}

/* The age that its sender is to be told of, if that has not happened yet; 0: none. */
static msec_t
delay_to_tell(const struct message *message, msec_t now)
{
	const struct conf_durations *ages = &message->schedule->conf->delay_notice;
	msec_t reached = 0;

	for (size_t i = 0; i < ages->count; i++)
		if (ages->list[i] <= now - begun(message->stored) && ages->list[i] > reached)
			reached = ages->list[i];
	const struct envelope *envelope = &message->stored->envelope;
	const msec_t by = envelope->by_deadline - begun(message->stored);
	if (envelope->by == BY_NOTIFY && by <= now - begun(message->stored) && by > reached)
		reached = by;
	return reached > message->stored->warned ? reached : 0;
}

bool
round_is_over(const struct message *message)
{
	return message->open == 0 && message->finishing == 0 && !message->carried;
}

static void
on_moved(void *arg, enum store_result result)
{
	struct message *message = arg;
	struct schedule *schedule = message->schedule;
	struct lane *from = message->lane;
	char text[QUEUE_ID_TEXT_SIZE];

	queue_id_format(&message->stored->id, text);
	if (result == STORE_OK)
		log_info(text, "moved", "from=%s to=%s", queue_lane_name(from->lane),
		         queue_lane_name(message->target));
	else
		log_error(text, "move-failed", "to=%s error=%s", queue_lane_name(message->target),
		          store_result_text(result));
	/* After a failure it is due again where it is, at the time that its last outcome set. */
	struct lane *to = result == STORE_OK ? &schedule->lanes[message->target] : from;
	msec_t due = message->next_due;
	if (message->on_moved)
		message->on_moved(message->moved_arg, result);
	message_free(message);
	if (schedule->stopped)
		return;
	lane_due_at(to, due);
	lane_poke(from);
}

static void
on_due_set(void *arg, enum store_result result)
{
	(void)result; /* after a failure it is due as before */
	round_end(arg);
}

/* All outcomes of the round are durable. */
void
round_end(struct message *message)
{
	struct lane *lane = message->lane;
	if (message->unfinished > 0 && message->deferred && !message->chosen) {
		/* What would have been the last outcome was taken out of the round. */
		choose_next(message, clock_wall());
		store_set_due(message->schedule->store, lane->lane, &message->stored->id,
		              message->next_due, on_due_set, message);
		return;
	}
	if (message->unfinished > 0 && message->target != lane->lane) {
		store_move(message->schedule->store, &message->stored->id, lane->lane,
		           message->target, message->next_due, on_moved, message);
		return;
	}
	/* What was not cut is still held, unless the holds have changed since. */
	const bool is_held = message->held_back && !message->chosen &&
	                     message->held_as_of == holds_generation(message->schedule->holds);
	const msec_t due = message->unfinished > 0 && !is_held ? message->next_due : 0;
	message_free(message);
	if (lane->schedule->stopped)
		return;
	if (due)
		lane_due_at(lane, due);
	lane_poke(lane);
}

const struct store_recipient *
recipient_of(const struct store_message *stored, uint16_t index)
{
	for (size_t i = 0; i < stored->recipient_count; i++) {
		if (stored->recipients[i].index == index)
			return &stored->recipients[i];
	}
	return NULL;
}

static void
on_finished(void *arg, enum store_result result)
{
	struct job *job = arg;
	struct message *message = job->message;
	struct lane *lane = job->lane;
	bool durable = result == STORE_OK || result == STORE_MISSING;

	message->finishing--;
	acknowledge(lane->schedule, job->waiting, durable);
	if (!durable) {
		/* The relay says it again; until then the job counts as in flight, so nobody else
		 * gets it. */
		char text[QUEUE_ID_TEXT_SIZE];
		log_error(queue_id_format(&job->id, text), "outcome-not-stored", "error=%s",
		          store_result_text(result));
		message->open++;
		const bool is_said_again = job->waiting.channel != 0 && job->relay->ready &&
		                           job->relay->channel.channel == job->waiting.channel;
		job_to(job, is_said_again ? JOB_IN_FLIGHT : JOB_PENDING);
		if (!is_said_again && !lane->schedule->stopped)
			lane_wake_at(lane, schedule_now(lane->schedule) + AGAIN);
		return;
	}
	message->unfinished -= job->ended;
	if (result == STORE_MISSING)
		message->unfinished = 0;
	job_free(job);
	if (round_is_over(message))
		round_end(message);
}

/* Appends as much of text as fits. */
static void
add_cut(char out[STORE_REPLY_MAX + 1], const char *text)
{
	const size_t at = strlen(out), len = strnlen(text, STORE_REPLY_MAX - at);

	memcpy(out + at, text, len);
	out[at + len] = '\0';
}

void
reply_add(char out[STORE_REPLY_MAX + 1], const struct reply *reply)
{
	char code[16] = ""; /* our own words have none */

	if (reply->code)
		snprintf(code, sizeof(code), "%d ", reply->code);
	add_cut(out, code);
	add_cut(out, reply->enhanced);
	add_cut(out, reply->enhanced[0] ? " " : "");
	add_cut(out, reply->text);
}

void
log_outcome(const struct queue_id *id, const struct store_message *stored,
            const struct store_outcome *outcome, unsigned attempt)
{
	static const char *const events[] = {"deferred", "delivered", "bounced", "expired",
	                                     "removed"};
	char text[QUEUE_ID_TEXT_SIZE], to[ADDRESS_TEXT_SIZE] = "", word[4 * sizeof(to)];
	char said[sizeof(outcome->reply)];
	const struct store_recipient *recipient =
	    stored ? recipient_of(stored, outcome->index) : NULL;
	if (recipient)
		address_format(&recipient->address, to, sizeof(to));
	log_info(queue_id_format(id, text), events[outcome->state],
	         "to=%s index=%u attempt=%u delay=%lld reply=\"%s\"",
	         log_word(to, word, sizeof(word)), outcome->index, attempt,
	         stored ? (long long)(clock_wall() - begun(stored)) : 0LL,
	         log_text(outcome->reply, said, sizeof(said)));
}

/* "4 days"; what is no whole number of a unit is told in the next smaller one. */
static void
duration_text(msec_t duration, char out[32])
{
	static const struct {
		msec_t unit;
		const char *name;
	} units[] = {{24 * 60 * 60 * 1000, "day"}, {60 * 60 * 1000, "hour"}, {60 * 1000, "minute"}};
	size_t i = 0;

	while (i < 2 && duration % units[i].unit)
		i++;
	snprintf(out, 32, "%lld %s%s", (long long)(duration / units[i].unit), units[i].name,
	         duration / units[i].unit == 1 ? "" : "s");
}

bool
is_overdue(const struct message *message)
{
	const struct envelope *envelope = &message->stored->envelope;

	return envelope->by == BY_RETURN && envelope->by_deadline <= clock_wall();
}

/* NULL when it may be tried on. */
static const struct ending *
ending_of(const struct message *message, msec_t now, struct ending *ending)
{
	const msec_t keep = keep_of(message);
	char duration[32];

	if (is_overdue(message)) {
		ending->state = STORE_BOUNCED;
		snprintf(ending->words, sizeof(ending->words),
		         "5.4.7 not delivered by the time its sender gave; last: ");
		return ending;
	}
	if (now - begun(message->stored) <= keep)
		return NULL;
	ending->state = STORE_EXPIRED;
	duration_text(keep, duration);
	snprintf(ending->words, sizeof(ending->words),
	         "message expired after %s; last: ", duration);
	return ending;
}

void
to_stored(const struct queue_outcome *in, const struct conf_reply_rule *rule,
          const struct ending *ending, struct store_outcome *out)
{
	static const enum store_state states[] = {STORE_DELIVERED, STORE_QUEUED, STORE_BOUNCED};

	memset(out, 0, sizeof(*out));
	out->index = in->index;
	out->state = states[in->fate];
	out->unconfirmed = in->unconfirmed;
	if (out->state == STORE_QUEUED && ending) {
		out->state = ending->state;
		add_cut(out->reply, ending->words);
		/* A bounce of ours has our code, not that of the last answer. */
		out->last = ending->state == STORE_BOUNCED ? 0 : (uint16_t)strlen(out->reply);
	} else if (rule && (in->fate == QUEUE_FAILED) != (in->reply.code >= 500)) {
		char words[112];

		snprintf(words, sizeof(words), "%s by rule %.60s; last: ",
		         in->fate == QUEUE_FAILED ? "5.0.0 not tried again" : "tried again",
		         rule->name);
		add_cut(out->reply, words);
	}
	reply_add(out->reply, &in->reply);
}

/* What is deferred without an attempt waits for its site; what was attempted, by the schedule. */
static void
note_deferral(struct message *message, msec_t not_before)
{
	if (!message->deferred || not_before < message->not_before)
		message->not_before = not_before;
	message->deferred = true;
}

/* not_before 0: it was attempted. */
static void
finish(struct job *job, const struct queue_contact *contact, const struct queue_outcome *outcomes,
       const struct conf_reply_rule *const *rules, size_t count, struct ipc_from waiting,
       msec_t not_before)
{
	struct message *message = job->message;
	struct lane *lane = job->lane;
	struct store_outcome stored[PROTO_JOB_MAX];
	msec_t now = clock_wall();
	const msec_t keep = keep_of(message);
	const bool slow = job->line->site->slow;
	struct ending space;
	const struct ending *ending = ending_of(message, now, &space);
	struct store_batch batch = {.lane = lane->lane,
	                            .id = job->id,
	                            .attempt = message->attempt,
	                            .outcomes = stored,
	                            .count = count,
	                            .when = now,
	                            .contact = contact,
	                            .due = message->stored->due,
	                            .retry_until = begun(message->stored) + keep};
	if (message->stored->envelope.by == BY_RETURN &&
	    message->stored->envelope.by_deadline < batch.retry_until)
		batch.retry_until = message->stored->envelope.by_deadline;

	job_to(job, JOB_FINISHING);
	job->waiting = waiting;
	job->ended = 0;
	for (size_t i = 0; i < count; i++) {
		const struct conf_reply_rule *rule = rules ? rules[i] : NULL;

		to_stored(&outcomes[i], rule, ending, &stored[i]);
		job->ended += stored[i].state != STORE_QUEUED;
		log_outcome(&job->id, message->stored, &stored[i], message->attempt);
		if (stored[i].state != STORE_QUEUED)
			continue;
		note_deferral(message, not_before);
		message->slow |= slow;
		if (contact)
			message->reply = reply_classify(&outcomes[i].reply, contact->end, rule);
	}
	message->open--;
	message->finishing++;
	if (message->open == 0 && message->deferred) {
		choose_next(message, now);
		batch.due = message->next_due;
		batch.warned = delay_to_tell(message, now);
	}
	store_finish(lane->schedule->store, &batch, on_finished, job);
}

void
job_finish(struct job *job, const struct queue_contact *contact,
           const struct queue_outcome *outcomes, const struct conf_reply_rule *const *rules,
           size_t count, struct ipc_from waiting)
{
	finish(job, contact, outcomes, rules, count, waiting, 0);
}

/* Where the last answer begins in what is kept of a recipient that was put off, maybe again. */
static const char *
last_answer(const char *reply)
{
	static const char between[] = "; last: ";
	const char *at;

	if (strncmp(reply, STORE_PUT_OFF, sizeof(STORE_PUT_OFF) - 1) != 0)
		return reply;
	at = strstr(reply, between);
	return at ? at + sizeof(between) - 1 : "";
}

/* Senders read it, in notifications and in their account's history: by which operator and for what
 * reason is not theirs. */
static const char *
pause_words(const struct site *site)
{
	return site->paused == SITE_BY_OPERATOR ? "suspended by the operator of this service"
	                                        : site->why;
}

void
job_put_off(struct job *job)
{
	static const struct ipc_from nobody;
	struct message *message = job->message;
	struct site *site = job->line->site;
	struct queue_outcome outcomes[PROTO_JOB_MAX];
	char until[CLOCK_RFC3339_SIZE];
	struct ending space;
	const bool ends = ending_of(message, clock_wall(), &space) != NULL;

	clock_rfc3339(site->until, until);
	memset(outcomes, 0, sizeof(outcomes));
	for (size_t i = 0; i < job->count; i++) {
		const struct store_recipient *recipient =
		    recipient_of(message->stored, job->index[i]);
		const char *last = recipient ? last_answer(recipient->reply) : "";
		char *text = outcomes[i].reply.text;

		outcomes[i].index = job->index[i];
		outcomes[i].fate = QUEUE_DEFERRED;
		if (ends && last[0])
			snprintf(text, sizeof(outcomes[i].reply.text), "%s", last);
		else
			snprintf(text, sizeof(outcomes[i].reply.text),
			         STORE_PUT_OFF "site %.80s waits until %s (%s%s)%s%s", site->name,
			         until, site->paused == SITE_BY_RULE ? "reply rule " : "",
			         pause_words(site), last[0] ? "; last: " : "", last);
	}
	finish(job, NULL, outcomes, NULL, job->count, nobody, site_put_off(site));
}
