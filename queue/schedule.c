#include "queue/schedule.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/random.h"
#include "queue/proto.h"

/* Dispatch.
 *
 * Problem: a million messages may wait, remote sites are slow or dead, relays and this process come
 * and go; still fresh mail must leave at once, nobody waits behind somebody else's dead site, and
 * nothing is attempted twice at a time. Idea: of each lane only a bounded window of due messages is
 * in memory. A message enters the window for one *round*: its unfinished recipients are cut into
 * jobs (one domain, at most PROTO_JOB_MAX recipients), jobs queue per domain, and domains with work
 * take turns for the relay's free places. When the last job of the round has its outcome in the
 * store, the message leaves the window: finished, due again in its lane, or moved to a slower one.
 *
 * Invariants:
 *   - An id is in the window at most once, over all lanes; a job belongs to one lane.
 *   - A lane hands out nothing before its relay has said HELLO, because only then is it known which
 * jobs an earlier incarnation of this process left past their final dot. Those are entered as jobs
 * in flight.
 *   - An outcome is acknowledged only when it is durable; outcomes of unknown jobs are applied by
 * (id, recipient index).
 *   - The finish of a round's last job carries the next due time, so a crash before the following
 * move costs nothing but the lane.
 *   - A domain may hold as much of the window as it leaves free: one takes half of it, two take a
 * third each, and whatever number of them stands still, there is room for one more. The same holds
 * for the relay's places. A refill skips the messages of a crowded domain (and comes back for them,
 * going on where it stopped so that a long run of them hides nobody), and fresh mail to a domain
 * without a backlog may use a reserve. So the backlogs of dead domains, whatever their length and
 * number, delay nobody else.
 *   - Due times are of the schedule's own clock, which follows the wall clock forward and never
 * back. What was due later than any step could make it was written under a clock that has since
 * been set back: it is due now.
 *   - A round interrupted by a crash is repeated for the recipients that have not ended; the due
 * time does not change within a round. */

#define WINDOW_MESSAGES   2000
#define WINDOW_RECIPIENTS 50000
#define WINDOW_RESERVE    2000 /* beside the window, for fresh mail to domains without a backlog */
#define DOMAIN_IDLE       50   /* pending jobs: below that a domain has no backlog */
#define SKIP_MAX          500  /* messages of crowded domains looked at in one refill */
#define REFILL_EVERY      50   /* msec between refills that skip */
#define BUCKETS           4096
#define SCAN_CHUNK        4000
#define NULL_SENDER_KEEP  (24 * 60 * 60 * 1000)

struct domain { /* one domain in one lane; exists while it has a job */
	LIST_ENTRY(domain) bucket;
	TAILQ_ENTRY(domain) turn; /* in lane->turns while is_ready */
	struct lane *lane;
	bool is_ready;
	unsigned in_flight;
	unsigned pending_count;
	size_t pending_recipients;
	TAILQ_HEAD(job_queue, job) pending;
	char name[ADDRESS_DOMAIN_MAX + 1];
};

enum job_state {
	JOB_PENDING,   /* in its domain's queue */
	JOB_IN_FLIGHT, /* at the relay */
	JOB_FINISHING, /* outcome with the store; its place at the relay is free again */
};

struct job {
	LIST_ENTRY(job) link;    /* in lane->jobs unless pending */
	LIST_ENTRY(job) sibling; /* in message->jobs */
	TAILQ_ENTRY(job) queue;  /* in domain->pending while pending */
	uint64_t number;
	enum job_state state;
	struct lane *lane;
	struct message
	    *message; /* NULL: carried over, and the message is not in this lane any more */
	struct domain *domain;
	struct queue_id id;
	uint16_t index[PROTO_JOB_MAX];
	unsigned count;
	unsigned ended;          /* recipients that the outcome under way ends */
	struct ipc_from waiting; /* whom to acknowledge; channel 0: nobody */
};

struct message { /* one round of one message */
	LIST_ENTRY(message) bucket;
	struct schedule *schedule;
	struct lane *lane;
	struct store_message *stored;
	LIST_HEAD(, job) jobs; /* not ended */
	unsigned open;         /* jobs without an outcome */
	unsigned finishing;    /* jobs whose outcome is on its way to the disk */
	unsigned unfinished;   /* recipients */
	unsigned attempt;
	bool deferred;          /* some outcome of the round left a recipient unfinished */
	msec_t next_due;        /* chosen with the last outcome, if any was */
	enum queue_lane target; /* where it goes then */
};

struct lane {
	struct schedule *schedule;
	enum queue_lane lane;
	bool ready; /* its relay has said HELLO */
	struct ipc_from relay;
	unsigned capacity, in_flight;
	LIST_HEAD(, job) jobs; /* in flight and finishing */
	LIST_HEAD(, domain) domains[BUCKETS];
	TAILQ_HEAD(, domain) turns; /* domains with pending jobs and a free place */
	unsigned messages;          /* in the window */
	size_t recipients;          /* in them */
	bool more;                  /* due messages may be left on disk */
	bool skipped;               /* the last refill left some of a crowded domain behind */
	struct store_key
	    sweep;       /* where a refill that skipped too many goes on; zero: at the front */
	msec_t refilled; /* monotonic */
	struct loop_timer *timer;
	msec_t wake; /* schedule's clock the timer is armed for; 0: none */
};

struct schedule {
	struct loop *loop;
	struct store *store;
	struct ipc_hub *hub;
	const struct conf *conf;
	bool stopped;
	msec_t now, mono; /* the schedule's clock, and clock_mono then */
	uint64_t next_number;
	LIST_HEAD(, message) ids[BUCKETS];
	struct lane lanes[QUEUE_LANES];
};

static void lane_refill(struct lane *lane);
static void lane_dispatch(struct lane *lane);

static unsigned
id_bucket(const struct queue_id *id)
{
	return (unsigned)(id->octets[14] << 8 | id->octets[15]) % BUCKETS;
}

static unsigned
name_bucket(const char *name)
{
	uint32_t h = 2166136261u;
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h % BUCKETS;
}

static struct message *
message_find(const struct schedule *schedule, const struct queue_id *id)
{
	struct message *message;
	LIST_FOREACH(message, &schedule->ids[id_bucket(id)], bucket)
	{
		if (queue_id_equal(&message->stored->id, id))
			return message;
	}
	return NULL;
}

static struct domain *
domain_get(struct lane *lane, const char *name)
{
	struct domain *domain;
	unsigned bucket = name_bucket(name);
	LIST_FOREACH(domain, &lane->domains[bucket], bucket)
	{
		if (strcmp(domain->name, name) == 0)
			return domain;
	}
	domain = xcalloc(1, sizeof(*domain));
	domain->lane = lane;
	snprintf(domain->name, sizeof(domain->name), "%s", name);
	TAILQ_INIT(&domain->pending);
	LIST_INSERT_HEAD(&lane->domains[bucket], domain, bucket);
	return domain;
}

/* Puts the domain where its state says: among the turns, out of them, or out of memory. Frees it in
 * the last case. */
static void
domain_settle(struct domain *domain)
{
	struct lane *lane = domain->lane;
	bool ready = !TAILQ_EMPTY(&domain->pending) &&
	             domain->in_flight < lane->schedule->conf->relay_site_connections;
	if (ready && !domain->is_ready)
		TAILQ_INSERT_TAIL(&lane->turns, domain, turn);
	else if (!ready && domain->is_ready)
		TAILQ_REMOVE(&lane->turns, domain, turn);
	domain->is_ready = ready;
	if (TAILQ_EMPTY(&domain->pending) && domain->in_flight == 0) {
		LIST_REMOVE(domain, bucket);
		free(domain);
	}
}

static void
job_to_pending(struct job *job, bool first)
{
	job->state = JOB_PENDING;
	job->domain->pending_count++;
	job->domain->pending_recipients += job->count;
	if (first)
		TAILQ_INSERT_HEAD(&job->domain->pending, job, queue);
	else
		TAILQ_INSERT_TAIL(&job->domain->pending, job, queue);
	domain_settle(job->domain);
}

/* Its state is the caller's to set, and so is settling the domain. */
static void
job_leave_pending(struct job *job)
{
	TAILQ_REMOVE(&job->domain->pending, job, queue);
	job->domain->pending_count--;
	job->domain->pending_recipients -= job->count;
}

static void
job_to_flight(struct job *job)
{
	job->state = JOB_IN_FLIGHT;
	job->lane->in_flight++;
	job->domain->in_flight++;
	LIST_INSERT_HEAD(&job->lane->jobs, job, link);
	domain_settle(job->domain);
}

/* The relay is through with it. */
static void
job_leave_flight(struct job *job)
{
	job->lane->in_flight--;
	job->domain->in_flight--;
}

static void
job_free(struct job *job)
{
	if (job->state == JOB_PENDING) {
		job_leave_pending(job);
		domain_settle(job->domain);
	} else {
		if (job->state == JOB_IN_FLIGHT) {
			job_leave_flight(job);
			domain_settle(job->domain);
		}
		LIST_REMOVE(job, link);
	}
	if (job->message)
		LIST_REMOVE(job, sibling);
	free(job);
}

static struct job *
job_new(struct lane *lane, struct message *message, const struct queue_id *id, const char *domain)
{
	struct job *job = xcalloc(1, sizeof(*job));
	job->number = lane->schedule->next_number++;
	job->lane = lane;
	job->message = message;
	job->id = *id;
	job->domain = domain_get(lane, domain);
	if (message) {
		LIST_INSERT_HEAD(&message->jobs, job, sibling);
		message->open++;
	}
	return job;
}

static void
message_free(struct message *message)
{
	struct lane *lane = message->lane;
	while (!LIST_EMPTY(&message->jobs))
		job_free(LIST_FIRST(&message->jobs));
	lane->messages--;
	lane->recipients -= message->stored->recipient_count;
	LIST_REMOVE(message, bucket);
	store_message_free(message->stored);
	free(message);
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
	return longest + longest / 10 + 60 * 1000;
}

static void
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

static int
compare_by_domain(const void *a, const void *b)
{
	const struct store_recipient *const *x = a, *const *y = b;
	int order = strcmp((*x)->address.domain, (*y)->address.domain);
	return order ? order : (*x)->index - (*y)->index;
}

/* Cuts what is not in `taken` (by index, may be NULL) into pending jobs. */
static void
message_cut(struct message *message, const bool *taken)
{
	struct store_message *stored = message->stored;
	const struct store_recipient **list = xcalloc(stored->recipient_count + 1, sizeof(*list));
	size_t count = 0;
	for (size_t i = 0; i < stored->recipient_count; i++) {
		const struct store_recipient *recipient = &stored->recipients[i];
		if (recipient->state == STORE_QUEUED && !(taken && taken[recipient->index]))
			list[count++] = recipient;
	}
	qsort(list, count, sizeof(*list), compare_by_domain);
	struct job *job = NULL;
	for (size_t i = 0; i < count; i++) {
		const char *name = list[i]->address.domain;
		if (!job || job->count == PROTO_JOB_MAX || strcmp(job->domain->name, name) != 0) {
			if (job)
				job_to_pending(job, false);
			job = job_new(message->lane, message, &stored->id, name);
		}
		job->index[job->count++] = list[i]->index;
	}
	if (job)
		job_to_pending(job, false);
	free(list);
}

/* Brings a message into the window without cutting it; NULL when it is not in that lane. */
static struct message *
message_load(struct lane *lane, const struct queue_id *id)
{
	struct schedule *schedule = lane->schedule;
	assert(!message_find(schedule, id));
	struct store_message *stored = store_load_message(schedule->store, lane->lane, id);
	if (!stored)
		return NULL;
	struct message *message = xcalloc(1, sizeof(*message));
	message->schedule = schedule;
	message->lane = lane;
	message->stored = stored;
	message->attempt = stored->attempts + 1;
	message->target = lane->lane;
	message->next_due = stored->due;
	LIST_INIT(&message->jobs);
	for (size_t i = 0; i < stored->recipient_count; i++)
		message->unfinished += stored->recipients[i].state == STORE_QUEUED;
	lane->messages++;
	lane->recipients += stored->recipient_count;
	LIST_INSERT_HEAD(&schedule->ids[id_bucket(id)], message, bucket);
	return message;
}

static bool
lane_has_room(const struct lane *lane)
{
	return lane->messages < WINDOW_MESSAGES && lane->recipients < WINDOW_RECIPIENTS;
}

/* Whether every domain it still has to go to holds as many pending jobs, or recipients in them, as
 * the window (with the reserve, if it may be used) has room for. The message itself does not count.
 */
static bool
is_crowded(const struct message *message, bool reserve)
{
	const struct lane *lane = message->lane;
	const unsigned jobs =
	    WINDOW_MESSAGES + (reserve ? WINDOW_RESERVE : 0u) - (lane->messages - 1);
	const unsigned jobs_free = reserve && jobs > DOMAIN_IDLE ? DOMAIN_IDLE : jobs;
	const size_t most = reserve ? 2 * WINDOW_RECIPIENTS : WINDOW_RECIPIENTS;
	const size_t recipients_free = lane->recipients < most ? most - lane->recipients : 0;
	const char *last = NULL;
	for (size_t i = 0; i < message->stored->recipient_count; i++) {
		const struct store_recipient *recipient = &message->stored->recipients[i];
		const char *name = recipient->address.domain;
		const struct domain *domain;
		if (recipient->state != STORE_QUEUED || (last && strcmp(last, name) == 0))
			continue;
		last = name;
		LIST_FOREACH(domain, &lane->domains[name_bucket(name)], bucket)
		{
			if (strcmp(domain->name, name) == 0)
				break;
		}
		if (!domain || (domain->pending_count < jobs_free &&
		                domain->pending_recipients <= recipients_free))
			return false;
	}
	return last != NULL;
}

struct refill {
	struct lane *lane;
	msec_t now, latest; /* due behind the latest was written before the clock was set back */
	msec_t next;        /* due time of the first that is not due yet; 0: none seen */
	bool full;
	unsigned skipped;
};

static bool
on_due(void *arg, const struct store_key *key)
{
	struct refill *refill = arg;
	if (key->due > refill->now && key->due <= refill->latest) {
		refill->next = key->due;
		return false;
	}
	if (message_find(refill->lane->schedule, &key->id))
		return true;
	if (!lane_has_room(refill->lane)) {
		refill->full = true;
		return false;
	}
	struct message *message = message_load(refill->lane, &key->id);
	if (message && is_crowded(message, false)) {
		message_free(message);
		return ++refill->skipped < SKIP_MAX;
	}
	if (message && message->unfinished > 0)
		message_cut(message, NULL);
	else if (message)
		message_free(
		    message); /* nothing left to do: the store drops it with its own repair */
	return true;
}

static void
refill_scan(struct refill *refill, struct store_key *from)
{
	struct lane *lane = refill->lane;
	const msec_t next = refill->next;
	while (store_scan_due(lane->schedule->store, lane->lane, from, SCAN_CHUNK, on_due,
	                      refill) == SCAN_CHUNK &&
	       refill->next == next && !refill->full && refill->skipped < SKIP_MAX)
		;
}

static void
lane_refill(struct lane *lane)
{
	struct store_key from = lane->sweep;
	struct refill refill = {.lane = lane, .now = schedule_now(lane->schedule)};
	if (!lane->ready || lane->schedule->stopped)
		return;
	loop_timer_cancel(lane->timer);
	lane->wake = 0;
	refill.latest = refill.now + longest_wait(lane->schedule->conf);
	refill_scan(&refill, &from);
	if (refill.next) {
		struct store_key beyond = {.due = refill.latest + 1};
		refill_scan(&refill, &beyond);
	}
	bool swept = lane->sweep.due != 0; /* the front was not looked at */
	memset(&lane->sweep, 0, sizeof(lane->sweep));
	if (refill.skipped == SKIP_MAX)
		lane->sweep = from;
	lane->skipped = refill.skipped > 0 || swept;
	lane->more = refill.full || lane->skipped;
	lane->refilled = clock_mono();
	if (refill.next)
		lane_wake_at(lane, refill.next);
	if (lane->skipped)
		lane_wake_at(lane,
		             refill.now + (refill.skipped == SKIP_MAX ? 4 : 20) * REFILL_EVERY);
}

static void
on_lane_timer(void *arg)
{
	struct lane *lane = arg;
	lane->wake = 0;
	lane_refill(lane);
	lane_dispatch(lane);
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
	msec_t keep =
	    address_is_null(&message->stored->from) && conf->retry_expire > NULL_SENDER_KEEP
	        ? NULL_SENDER_KEEP
	        : conf->retry_expire;
	msec_t last = message->stored->created + keep + 1;
	if (wait > last - now && last > now)
		wait = last - now; /* one attempt at the very end */
	message->next_due = schedule_now(message->schedule) + wait;
	message->target = now - message->stored->created > conf->retry_fallback ||
	                          message->lane->lane == QUEUE_FALLBACK
	                      ? QUEUE_FALLBACK
	                      : QUEUE_RETRY;
}

static bool
is_expired(const struct message *message, msec_t now)
{
	msec_t keep = message->schedule->conf->retry_expire;
	if (address_is_null(&message->stored->from) && keep > NULL_SENDER_KEEP)
		keep = NULL_SENDER_KEEP;
	return now - message->stored->created > keep;
}

static void
lane_poke(struct lane *lane)
{
	if (lane->more && lane->messages < WINDOW_MESSAGES / 2 &&
	    lane->recipients < WINDOW_RECIPIENTS / 2 &&
	    (!lane->skipped || clock_mono() - lane->refilled >= REFILL_EVERY))
		lane_refill(lane);
	lane_dispatch(lane);
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
	message_free(message);
	if (schedule->stopped)
		return;
	lane_wake_at(to, due);
	lane_poke(from);
}

/* All outcomes of the round are durable. */
static void
round_end(struct message *message)
{
	struct lane *lane = message->lane;
	if (message->unfinished > 0 && message->target != lane->lane) {
		store_move(message->schedule->store, &message->stored->id, lane->lane,
		           message->target, message->next_due, on_moved, message);
		return;
	}
	msec_t due = message->unfinished > 0 ? message->next_due : 0;
	message_free(message);
	if (lane->schedule->stopped)
		return;
	if (due)
		lane_wake_at(lane, due);
	lane_poke(lane);
}

static void
acknowledge(struct schedule *schedule, struct ipc_from to, bool durable)
{
	struct buf frame;
	if (to.channel == 0)
		return;
	buf_init(&frame);
	wire_put_u8(&frame, durable);
	ipc_hub_reply(schedule->hub, to, &frame, -1);
	buf_clear(&frame);
}

static const struct store_recipient *
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
		LIST_REMOVE(job, link);
		job->domain =
		    domain_get(lane, recipient_of(message->stored, job->index[0])->address.domain);
		if (job->waiting.channel != 0 && lane->ready &&
		    lane->relay.channel == job->waiting.channel)
			job_to_flight(job);
		else
			job_to_pending(job, true);
		return;
	}
	message->unfinished -= job->ended;
	if (result == STORE_MISSING)
		message->unfinished = 0;
	job_free(job);
	if (message->open == 0 && message->finishing == 0)
		round_end(message);
}

/* One line, cut to size. */
/* What an outcome remembers of a reply: cut where the store's record ends. */
static void
reply_text(const struct reply *reply, char out[STORE_REPLY_MAX + 1])
{
	const int room = STORE_REPLY_MAX - 24; /* beside code, enhanced code and spaces */
	char code[16] = ""; /* our own words have none */

	if (reply->code)
		snprintf(code, sizeof(code), "%d ", reply->code);
	snprintf(out, STORE_REPLY_MAX + 1, "%s%s%s%.*s", code, reply->enhanced,
	         reply->enhanced[0] ? " " : "", room, reply->text);
}

static void
log_outcome(const struct queue_id *id, const struct store_message *stored,
            const struct store_outcome *outcome, unsigned attempt)
{
	static const char *const events[] = {"deferred", "delivered", "bounced", "expired",
	                                     "removed"};
	char text[QUEUE_ID_TEXT_SIZE], to[ADDRESS_TEXT_SIZE] = "";
	const struct store_recipient *recipient =
	    stored ? recipient_of(stored, outcome->index) : NULL;
	if (recipient)
		address_format(&recipient->address, to, sizeof(to));
	log_info(queue_id_format(id, text), events[outcome->state],
	         "to=%s index=%u attempt=%u delay=%lld reply=\"%s\"", to, outcome->index, attempt,
	         stored ? (long long)(clock_wall() - stored->created) : 0LL, outcome->reply);
}

static void
to_stored(const struct queue_outcome *in, bool expired, struct store_outcome *out)
{
	static const enum store_state states[] = {STORE_DELIVERED, STORE_QUEUED, STORE_BOUNCED};
	out->index = in->index;
	out->state = states[in->fate];
	if (out->state == STORE_QUEUED && expired)
		out->state = STORE_EXPIRED;
	reply_text(&in->reply, out->reply);
}

/* Takes the outcomes of a job in flight (or one that could not even start) to the store. */
static void
job_finish(struct job *job, const struct queue_outcome *outcomes, size_t count,
           struct ipc_from waiting)
{
	struct message *message = job->message;
	struct lane *lane = job->lane;
	struct store_outcome stored[PROTO_JOB_MAX];
	msec_t now = clock_wall();
	bool expired = is_expired(message, now);

	job_leave_flight(job);
	domain_settle(job->domain);
	job->domain = NULL;
	job->state = JOB_FINISHING;
	job->waiting = waiting;
	job->ended = 0;
	for (size_t i = 0; i < count; i++) {
		to_stored(&outcomes[i], expired, &stored[i]);
		job->ended += stored[i].state != STORE_QUEUED;
		message->deferred |= stored[i].state == STORE_QUEUED;
		log_outcome(&job->id, message->stored, &stored[i], message->attempt);
	}
	message->open--;
	message->finishing++;
	msec_t due = message->stored->due;
	if (message->open == 0 && message->deferred) {
		choose_next(message, now);
		due = message->next_due;
	}
	store_finish(lane->schedule->store, lane->lane, &job->id, message->attempt, stored, count,
	             now, due, on_finished, job);
}

static void
job_send(struct job *job)
{
	struct lane *lane = job->lane;
	struct store_message *stored = job->message->stored;
	static const struct ipc_from nobody;

	job_to_flight(job);
	int fd = store_open_body(lane->schedule->store, &job->id, &stored->body);
	if (fd == -1) {
		struct queue_outcome outcomes[PROTO_JOB_MAX];
		char text[QUEUE_ID_TEXT_SIZE];
		log_error(queue_id_format(&job->id, text), "body-unreadable", "segment=%llu",
		          (unsigned long long)stored->body.segment);
		memset(outcomes, 0, sizeof(outcomes));
		for (size_t i = 0; i < job->count; i++) {
			outcomes[i].index = job->index[i];
			outcomes[i].fate = QUEUE_DEFERRED;
			snprintf(outcomes[i].reply.text, sizeof(outcomes[i].reply.text),
			         "the body could not be read");
		}
		job_finish(job, outcomes, job->count, nobody);
		return;
	}
	struct queue_recipient recipients[PROTO_JOB_MAX];
	size_t at = 0;
	for (size_t i = 0; i < job->count; i++) {
		while (stored->recipients[at].index != job->index[i])
			at = (at + 1) % stored->recipient_count;
		recipients[i].index = job->index[i];
		recipients[i].address = stored->recipients[at].address;
	}
	struct queue_job out = {
	    .number = job->number,
	    .id = job->id,
	    .attempt = job->message->attempt,
	    .from = stored->from,
	    .domain = job->domain->name,
	    .body_8bit = stored->body_8bit,
	    .prefix = stored->prefix,
	    .prefix_len = stored->prefix_len,
	    .body_offset = stored->body.offset,
	    .body_size = stored->body.size,
	    .recipients = recipients,
	    .recipient_count = job->count,
	};
	struct buf frame;
	buf_init(&frame);
	proto_put_job(&frame, &out);
	/* False means that schedule_gone comes next and takes it back. */
	ipc_hub_push(lane->schedule->hub, lane->relay, PROTO_JOB, &frame, fd);
	buf_clear(&frame);
	close(fd);
}

static void
lane_dispatch(struct lane *lane)
{
	if (lane->schedule->stopped)
		return;
	while (lane->ready && lane->in_flight < lane->capacity) {
		const unsigned free_places = lane->capacity - lane->in_flight;
		struct domain *domain;
		struct job *job;

		TAILQ_FOREACH(domain, &lane->turns, turn)
		{
			if (domain->in_flight < free_places)
				break;
		}
		if (!domain)
			break;
		job = TAILQ_FIRST(&domain->pending);
		/* Out and in again: the domain's next turn comes after everybody else's. */
		TAILQ_REMOVE(&lane->turns, domain, turn);
		domain->is_ready = false;
		job_leave_pending(job);
		job_send(job);
	}
}

void
schedule_fresh(struct schedule *schedule, const struct queue_id *id, msec_t due)
{
	struct lane *lane = &schedule->lanes[QUEUE_FRESH];
	if (schedule->stopped || !lane->ready)
		return; /* HELLO scans the lane */
	if (message_find(schedule, id))
		return;
	if (due > schedule_now(schedule)) {
		lane_wake_at(lane, due);
		return;
	}
	bool behind = lane->more || !lane_has_room(lane);
	if (lane->messages >= WINDOW_MESSAGES + WINDOW_RESERVE ||
	    lane->recipients >= 2 * WINDOW_RECIPIENTS) {
		lane->more = true;
		return;
	}
	struct message *message = message_load(lane, id);
	if (!message)
		return;
	if (is_crowded(message, behind)) {
		message_free(message);
		/* Older ones first. The timer sees to it even if no round of this lane ends for
		 * long. */
		lane->more = true;
		lane_wake_at(lane, schedule_now(schedule) + 20 * REFILL_EVERY);
		return;
	}
	message_cut(message, NULL);
	lane_dispatch(lane);
}

static struct job *
job_find(struct lane *lane, uint64_t number, const struct queue_id *id)
{
	struct job *job;
	struct message *message = message_find(lane->schedule, id);
	if (message) {
		LIST_FOREACH(job, &message->jobs, sibling)
		{
			if (job->number == number && job->lane == lane)
				return job;
		}
	}
	LIST_FOREACH(job, &lane->jobs, link)
	{
		if (job->number == number && queue_id_equal(&job->id, id))
			return job;
	}
	return NULL;
}

/* Whether all of these recipients are unfinished and in no other job. Otherwise (the outcome is
 * durable and only its acknowledgement was lost, or a relay talks nonsense) they must not count as
 * the round's. */
static bool
is_open(const struct message *message, const uint16_t *index, unsigned count)
{
	const struct job *job;
	for (unsigned i = 0; i < count; i++) {
		const struct store_recipient *recipient = recipient_of(message->stored, index[i]);
		if (!recipient || recipient->state != STORE_QUEUED)
			return false;
		for (unsigned k = 0; k < i; k++) {
			if (index[k] == index[i])
				return false;
		}
		LIST_FOREACH(job, &message->jobs, sibling)
		{
			for (unsigned k = 0; k < job->count; k++) {
				if (job->index[k] == index[i])
					return false;
			}
		}
	}
	return true;
}

/* A job past its final dot under an earlier channel. */
static void
carry(struct lane *lane, struct message **touched, uint64_t number, const struct queue_id *id,
      const char *domain, const uint16_t *index, unsigned count)
{
	struct schedule *schedule = lane->schedule;
	struct job *job = job_find(lane, number, id);
	if (job) {
		if (job->state == JOB_PENDING) {
			job_leave_pending(job);
			job_to_flight(job);
		}
		return;
	}
	struct message *message = message_find(schedule, id);
	if (message && message != *touched)
		message = NULL; /* its round is already cut; the outcome is applied by index */
	if (!message && !message_find(schedule, id)) {
		message = message_load(lane, id);
		*touched = message;
	}
	if (message && !is_open(message, index, count))
		message = NULL;
	job = job_new(lane, message, id, domain);
	job->number = number;
	memcpy(job->index, index, count * sizeof(*index));
	job->count = count;
	job_to_flight(job);
}

static void
on_hello(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	unsigned which = wire_u8(&wire);
	uint32_t capacity = wire_u32(&wire), count = wire_u32(&wire);
	if (!wire_ok(&wire) || which >= QUEUE_LANES || from.index != which) {
		log_error("-", "hello-malformed", "relay=%u", from.index);
		return;
	}
	struct lane *lane = &schedule->lanes[which];
	struct message **fresh = xcalloc(count < 10000 ? count + 1 : 1, sizeof(struct message *));
	size_t loaded = 0;
	lane->relay = from;
	lane->relay.call = 0;
	for (uint32_t n = 0; n < count && count < 10000; n++) {
		struct queue_id id;
		char domain[ADDRESS_DOMAIN_MAX + 1];
		uint16_t index[PROTO_JOB_MAX] = {0};
		uint64_t number = wire_u64(&wire);
		proto_id(&wire, &id);
		proto_word(&wire, domain, sizeof(domain));
		unsigned indexes = wire_u16(&wire);
		if (indexes == 0 || indexes > PROTO_JOB_MAX)
			wire.failed = true;
		for (unsigned i = 0; i < indexes && wire_ok(&wire); i++)
			index[i] = wire_u16(&wire);
		if (!wire_ok(&wire))
			break;
		struct message *touched = NULL;
		for (size_t i = 0; i < loaded; i++) {
			if (queue_id_equal(&fresh[i]->stored->id, &id))
				touched = fresh[i];
		}
		struct message *before = touched;
		carry(lane, &touched, number, &id, domain, index, indexes);
		if (touched && touched != before)
			fresh[loaded++] = touched;
	}
	/* What of those messages is not carried is attempted like any other. */
	for (size_t i = 0; i < loaded; i++) {
		bool taken[QUEUE_RECIPIENTS_MAX] = {false};
		struct job *job;
		LIST_FOREACH(job, &fresh[i]->jobs, sibling)
		{
			for (unsigned k = 0; k < job->count; k++) {
				if (job->index[k] < QUEUE_RECIPIENTS_MAX)
					taken[job->index[k]] = true;
			}
		}
		message_cut(fresh[i], taken);
	}
	free(fresh);
	lane->capacity = capacity;
	lane->ready = true;
	log_info("-", "relay-up", "lane=%s capacity=%u carried=%u", queue_lane_name(lane->lane),
	         capacity, count);
	lane_refill(lane);
	lane_dispatch(lane);
}

struct stray { /* outcomes of a job that is not known any more */
	struct schedule *schedule;
	struct ipc_from waiting;
};

static void
on_stray_finished(void *arg, enum store_result result)
{
	struct stray *stray = arg;
	acknowledge(stray->schedule, stray->waiting, result == STORE_OK || result == STORE_MISSING);
	free(stray);
}

static void
finish_stray(struct schedule *schedule, struct ipc_from from, const struct queue_id *id,
             const struct queue_outcome *outcomes, size_t count)
{
	enum queue_lane where = QUEUE_LANES;
	struct store_outcome stored[PROTO_JOB_MAX];
	size_t ended = 0;
	const struct message *message_here = message_find(schedule, id);
	if (message_here && message_here->open == 0 && message_here->finishing == 0) {
		acknowledge(schedule, from, false); /* it is being moved: said again in a second */
		return;
	}
	if (!store_find(schedule->store, id, &where) || where == QUEUE_LANES) {
		acknowledge(schedule, from, true); /* finished long ago */
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (outcomes[i].fate != QUEUE_DEFERRED)
			to_stored(&outcomes[i], false, &stored[ended++]);
	}
	struct store_message *message = store_load_message(schedule->store, where, id);
	if (!message || ended == 0) {
		acknowledge(schedule, from, ended == 0);
		store_message_free(message);
		return;
	}
	for (size_t i = 0; i < ended; i++)
		log_outcome(id, message, &stored[i], message->attempts);
	struct stray *stray = xcalloc(1, sizeof(*stray));
	stray->schedule = schedule;
	stray->waiting = from;
	store_finish(schedule->store, where, id, 0, stored, ended, clock_wall(), message->due,
	             on_stray_finished, stray);
	store_message_free(message);
}

static void
on_done(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct queue_outcome *outcomes = xcalloc(PROTO_JOB_MAX, sizeof(*outcomes));
	struct queue_id id;
	uint64_t number = wire_u64(&wire);
	proto_id(&wire, &id);
	size_t count = wire_u16(&wire);
	if (count == 0 || count > PROTO_JOB_MAX)
		wire.failed = true;
	for (size_t i = 0; i < count && wire_ok(&wire); i++)
		proto_outcome(&wire, &outcomes[i]);
	if (!wire_done(&wire) || from.index >= QUEUE_LANES) {
		log_error("-", "done-malformed", "relay=%u", from.index);
		free(outcomes);
		return;
	}
	struct lane *lane = &schedule->lanes[from.index];
	struct job *job = job_find(lane, number, &id);
	bool same = job && job->count == count;
	for (size_t i = 0; same && i < count; i++) {
		bool found = false;
		for (size_t k = 0; k < job->count; k++)
			found = found || job->index[k] == outcomes[i].index;
		same = found;
	}
	if (job && job->state == JOB_FINISHING) {
		job->waiting = from; /* said again while the disk is busy with it */
	} else if (job && job->state == JOB_IN_FLIGHT && job->message && same) {
		job_finish(job, outcomes, count, from);
	} else if (job && job->state == JOB_IN_FLIGHT && job->message) {
		char text[QUEUE_ID_TEXT_SIZE];
		log_error(queue_id_format(&id, text), "done-mismatch", "relay=%u", from.index);
		acknowledge(schedule, from, true);
		job_leave_flight(job);
		LIST_REMOVE(job, link);
		job_to_pending(job, false);
	} else {
		if (job && job->state == JOB_IN_FLIGHT)
			job_free(job);
		finish_stray(schedule, from, &id, outcomes, count);
	}
	free(outcomes);
	lane_dispatch(lane);
}

void
schedule_frame(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	if (schedule->stopped)
		return;
	if (frame->type == PROTO_HELLO)
		on_hello(schedule, from, frame);
	else if (frame->type == PROTO_DONE)
		on_done(schedule, from, frame);
	else if (frame->type == PROTO_ENOUGH && from.index < QUEUE_LANES)
		schedule->lanes[from.index].capacity = 0;
}

void
schedule_gone(struct schedule *schedule, struct ipc_from peer)
{
	if (peer.index >= QUEUE_LANES)
		return;
	struct lane *lane = &schedule->lanes[peer.index];
	if (lane->relay.channel != peer.channel)
		return;
	lane->ready = false;
	lane->capacity = 0;
	memset(&lane->relay, 0, sizeof(lane->relay));
	log_info("-", "relay-gone", "lane=%s in_flight=%u", queue_lane_name(lane->lane),
	         lane->in_flight);
	struct job *job, *next;
	for (job = LIST_FIRST(&lane->jobs); job; job = next) {
		next = LIST_NEXT(job, link);
		if (job->state != JOB_IN_FLIGHT)
			continue;
		if (!job->message) {
			job_free(job);
			continue;
		}
		job_leave_flight(job);
		LIST_REMOVE(job, link);
		job_to_pending(job, true);
	}
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
schedule_new(struct loop *loop, struct store *store, struct ipc_hub *hub, const struct conf *conf)
{
	struct schedule *schedule = xcalloc(1, sizeof(*schedule));
	schedule->loop = loop;
	schedule->store = store;
	schedule->hub = hub;
	schedule->conf = conf;
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
	}
	return schedule;
}

void
schedule_stop(struct schedule *schedule)
{
	schedule->stopped = true;
	for (size_t i = 0; i < QUEUE_LANES; i++)
		loop_timer_cancel(schedule->lanes[i].timer);
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
	}
	free(schedule);
}
