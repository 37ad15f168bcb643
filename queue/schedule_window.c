#include "queue/schedule_int.h"

/* What is in memory: messages in a round, their jobs, the domains that these are for. How much of
 * it may be whose is schedule_share.c's to say. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

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

struct message *
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

/* --- lines, accounts, jobs --- */

struct line *
line_find(const struct lane *lane, const char *site)
{
	struct line *line;
	LIST_FOREACH(line, &lane->lines[name_bucket(site)], bucket)
	{
		if (strcmp(line->site->name, site) == 0)
			return line;
	}
	return NULL;
}

static struct line *
line_get(struct lane *lane, const char *domain, const char *next_hop)
{
	struct schedule *schedule = lane->schedule;
	struct site *site = site_for(lane, domain, next_hop);
	struct line *line = line_find(lane, site->name);
	if (line)
		return line;
	line = xcalloc(1, sizeof(*line));
	line->lane = lane;
	line->site = site;
	line->answers = site_answers(site);
	sites_hold(schedule->sites, site);
	TAILQ_INIT(&line->pending);
	TAILQ_INIT(&line->flight);
	LIST_INSERT_HEAD(&lane->lines[name_bucket(site->name)], line, bucket);
	return line;
}

struct account *
account_find(const struct lane *lane, const char *name)
{
	struct account *account;
	LIST_FOREACH(account, &lane->accounts[name_bucket(name)], bucket)
	{
		if (strcmp(account->name, name) == 0)
			return account;
	}
	return NULL;
}

static struct account *
account_get(struct lane *lane, const struct store_message *stored)
{
	const char *name = stored->account;
	struct account *account = account_find(lane, name);
	const size_t size = strlen(name) + 1;
	if (account)
		return account;
	account = xcalloc(1, sizeof(*account) + size);
	memcpy(account->name, name, size);
	account->lane = lane;
	account_begin(account, stored->class);
	LIST_INSERT_HEAD(&lane->accounts[name_bucket(name)], account, bucket);
	return account;
}

static bool
is_idle(const struct load *load)
{
	return load->pending == 0 && load->in_flight == 0;
}

static void
account_settle(struct account *account)
{
	if (account == NULL || !is_idle(&account->load))
		return;
	account_stop_asking(account);
	LIST_REMOVE(account, bucket);
	free(account);
}

static void
take_turn(struct line *line)
{
	struct turns *turns = &line->lane->turns;
	struct line *before = TAILQ_LAST(turns, turns);

	line->rank = TAILQ_FIRST(&line->pending)->rank;
	while (before && before->rank > line->rank)
		before = TAILQ_PREV(before, turns, turn);
	if (before)
		TAILQ_INSERT_AFTER(turns, before, line, turn);
	else
		TAILQ_INSERT_HEAD(turns, line, turn);
}

/* Its load counts where its site has come to belong. */
static void
judge(struct line *line)
{
	struct load *silent = &line->lane->silent;
	const struct load *load = &line->load;
	const bool answers = site_answers(line->site);

	if (answers == line->answers)
		return;
	line->answers = answers;
	silent->in_flight += answers ? -load->in_flight : load->in_flight;
	silent->pending += answers ? -load->pending : load->pending;
	silent->recipients += answers ? -load->recipients : load->recipients;
}

void
line_settle(struct line *line)
{
	const struct job *first = TAILQ_FIRST(&line->pending);
	const bool ready = first && line_may_begin(line);

	judge(line);
	if (line->is_ready && (!ready || first->rank != line->rank)) {
		TAILQ_REMOVE(&line->lane->turns, line, turn);
		line->is_ready = false;
	}
	if (ready && !line->is_ready) {
		take_turn(line);
		line->is_ready = true;
	}
	if (is_idle(&line->load)) {
		LIST_REMOVE(line, bucket);
		sites_release(line->lane->schedule->sites, line->site);
		free(line);
	}
}

static void
count(struct load *load, const struct job *job, bool in)
{
	const unsigned one = in ? 1u : -1u;

	if (job->state == JOB_IN_FLIGHT) {
		load->in_flight += one;
	} else {
		load->pending += one;
		load->recipients += in ? job->count : -(size_t)job->count;
	}
}

static void
count_flight(struct job *job, bool in)
{
	struct lane *lane = job->lane;
	struct site *site = job->line->site;
	const unsigned one = in ? 1u : -1u;

	lane->in_flight += one;
	job->relay->in_flight += one;
	if (in) {
		job->began = schedule_now(lane->schedule);
		job->slow = site->slow;
		site_begin(site, sites_bounds(site), job->began);
	} else {
		site_end(site);
	}
	if (job->slow)
		lane->slow_in_flight += one;
}

/* Enters or leaves what its state says. */
static void
count_job(struct job *job, bool in)
{
	if (job->state != JOB_PENDING && job->state != JOB_IN_FLIGHT)
		return;
	count(&job->line->load, job, in);
	if (!job->line->answers)
		count(&job->lane->silent, job, in);
	if (job->account)
		count(&job->account->load, job, in);
	if (job->state == JOB_IN_FLIGHT)
		count_flight(job, in);
}

static void
job_take_out(struct job *job)
{
	count_job(job, false);
	if (job->state == JOB_PENDING)
		TAILQ_REMOVE(&job->line->pending, job, queue);
	if (job->state == JOB_IN_FLIGHT) {
		TAILQ_REMOVE(&job->line->flight, job, queue);
		job_stop_asking(job);
	}
	if (job->state == JOB_IN_FLIGHT || job->state == JOB_FINISHING)
		LIST_REMOVE(job, link);
	job->state = JOB_NEW;
}

/* By its tag. */
static void
take_place(struct job *job)
{
	struct job_queue *pending = &job->line->pending;
	struct job *before = TAILQ_LAST(pending, job_queue);

	job->rank = job->tag - (int64_t)job->message->stored->envelope.priority * HEAD_START;
	while (before && before->rank > job->rank)
		before = TAILQ_PREV(before, job_queue, queue);
	if (before)
		TAILQ_INSERT_AFTER(pending, before, job, queue);
	else
		TAILQ_INSERT_HEAD(pending, job, queue);
}

static void
join_line(struct job *job)
{
	assert(job->message); /* what has none is at a relay */
	if (job->tag == 0) {
		account_ask(job->account);
		job->tag = fair_enter(&job->lane->fair, &job->account->fair,
		                      fair_cost(job->count, job->message->stored->body.size),
		                      job->account->weight);
	}
	take_place(job);
}

static void
line_weigh(struct line *line, const struct account *account, unsigned weight)
{
	struct job_queue moved = TAILQ_HEAD_INITIALIZER(moved);
	struct job *job, *next;

	for (job = TAILQ_FIRST(&line->pending); job; job = next) {
		next = TAILQ_NEXT(job, queue);
		if (job->account != account)
			continue;
		job->tag = fair_reweigh(&line->lane->fair, job->tag, account->weight, weight);
		TAILQ_REMOVE(&line->pending, job, queue);
		TAILQ_INSERT_TAIL(&moved, job, queue);
	}
	if (TAILQ_EMPTY(&moved))
		return;
	while ((job = TAILQ_FIRST(&moved)) != NULL) {
		TAILQ_REMOVE(&moved, job, queue);
		take_place(job);
	}
	line_settle(line);
}

void
account_weigh(struct account *account, unsigned weight)
{
	struct lane *lane = account->lane;
	struct line *line, *next;

	if (weight == account->weight)
		return;
	for (size_t i = 0; i < BUCKETS; i++) {
		for (line = LIST_FIRST(&lane->lines[i]); line; line = next) {
			next = LIST_NEXT(line, bucket);
			line_weigh(line, account, weight);
		}
	}
	account->fair.last = fair_reweigh(&lane->fair, account->fair.last, account->weight, weight);
	account->weight = weight;
}

void
job_to(struct job *job, enum job_state state)
{
	struct line *line;
	struct account *account;

	job_take_out(job);
	if (!job->line && (state == JOB_PENDING || state == JOB_IN_FLIGHT)) {
		job->line = line_get(job->lane, job->domain, job->next_hop);
		if (job->message)
			job->account = account_get(job->lane, job->message->stored);
	}
	job->state = state;
	line = job->line;
	account = job->account;
	if (state == JOB_PENDING)
		join_line(job);
	if (state == JOB_IN_FLIGHT)
		TAILQ_INSERT_TAIL(&line->flight, job, queue);
	if (state == JOB_IN_FLIGHT || state == JOB_FINISHING)
		LIST_INSERT_HEAD(&job->lane->jobs, job, link);
	if (state == JOB_NEW || state == JOB_FINISHING) {
		job->line = NULL;
		job->account = NULL;
	}
	count_job(job, true);
	if (line)
		site_settle(job->lane->schedule, line->site);
	account_settle(account);
}

void
job_free(struct job *job)
{
	job_to(job, JOB_NEW);
	if (job->message)
		LIST_REMOVE(job, sibling);
	else
		job->lane->schedule->strays--;
	free(job->domain);
	free(job->next_hop);
	free(job);
}

struct job *
job_new(struct lane *lane, struct message *message, const struct queue_id *id, const char *domain,
        const char *next_hop)
{
	struct job *job = xcalloc(1, sizeof(*job));
	job->number = lane->schedule->next_number++;
	job->lane = lane;
	job->message = message;
	job->id = *id;
	job->domain = xstrdup(domain);
	job->next_hop = xstrdup(next_hop);
	if (message) {
		LIST_INSERT_HEAD(&message->jobs, job, sibling);
		message->open++;
	} else {
		lane->schedule->strays++;
	}
	return job;
}

/* --- messages --- */

void
message_free(struct message *message)
{
	struct lane *lane = message->lane;
	while (!LIST_EMPTY(&message->jobs))
		job_free(LIST_FIRST(&message->jobs));
	lane->messages--;
	lane->recipients -= message->stored->recipient_count;
	LIST_REMOVE(message, bucket);
	store_message_free(message->stored);
	free(message->carried);
	free(message);
}

struct piece { /* a recipient that is to be cut */
	const struct store_recipient *recipient;
	const char *next_hop;
};

static int
compare_by_domain(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;
	const struct address *to = &x->recipient->address, *other = &y->recipient->address;
	int order = strcmp(to->domain, other->domain);
	if (!order)
		order = strcmp(x->next_hop, y->next_hop);
	if (!order)
		order = address_is_utf8(to) - address_is_utf8(other);
	return order ? order : x->recipient->index - y->recipient->index;
}

/* What is cut for a site that waits is put off at once. */
static void
put_off_paused(struct message *message)
{
	const msec_t now = schedule_now(message->schedule);
	struct job *job, *next;

	for (job = LIST_FIRST(&message->jobs); job; job = next) {
		next = LIST_NEXT(job, sibling);
		if (job->state == JOB_PENDING && site_is_paused(job->line->site, now))
			job_put_off(job);
	}
}

/* Cuts what is neither in `taken` (by index, may be NULL) nor held into pending jobs. A recipient
 * that needs SMTPUTF8 shares none with others, unless the message needs it for all: what a host
 * cannot do for it is not their concern. */
void
message_cut(struct message *message, const bool *taken)
{
	struct store_message *stored = message->stored;
	struct piece *list = xcalloc(stored->recipient_count + 1, sizeof(*list));
	size_t count = 0;
	const struct queue_hold *whole = holds_of_message(message->schedule->holds, stored);
	struct store_outcome *ends = NULL;
	size_t end_count = 0;

	message->held_as_of = holds_generation(message->schedule->holds);
	for (size_t i = 0; i < stored->recipient_count; i++) {
		const struct store_recipient *recipient = &stored->recipients[i];
		if (recipient->state != STORE_QUEUED || (taken && taken[recipient->index]))
			continue;
		const struct queue_hold *hold =
		    hold_of_recipient(message->schedule, stored, whole, recipient);
		if (is_hold(hold)) {
			message->held_back = true;
		} else if (is_end(hold)) {
			if (!ends)
				ends = xcalloc(stored->recipient_count, sizeof(*ends));
			ends[end_count].index = recipient->index;
			ends[end_count].state =
			    hold->action == QUEUE_BOUNCE ? STORE_BOUNCED : STORE_REMOVED;
			holds_words(hold, ends[end_count++].reply);
		} else {
			list[count++] = (struct piece){recipient, next_hop_wanted(hold, recipient)};
		}
	}
	qsort(list, count, sizeof(*list), compare_by_domain);
	struct job *job = NULL;
	bool is_utf8 = false; /* what the job is for */
	for (size_t i = 0; i < count; i++) {
		const struct address *address = &list[i].recipient->address;
		if (!job || job->count == PROTO_JOB_MAX ||
		    (!stored->envelope.smtputf8 && is_utf8 != address_is_utf8(address)) ||
		    strcmp(job->domain, address->domain) != 0 ||
		    strcmp(job->next_hop, list[i].next_hop) != 0) {
			if (job)
				job_to(job, JOB_PENDING);
			job = job_new(message->lane, message, &stored->id, address->domain,
			              list[i].next_hop);
			is_utf8 = address_is_utf8(address);
		}
		job->index[job->count++] = list[i].recipient->index;
	}
	if (job)
		job_to(job, JOB_PENDING);
	free(list);
	put_off_paused(message);
	if (ends)
		message_end(message, ends, end_count);
}

void
message_begin(struct message *message)
{
	struct store_message *stored = message->stored;
	const enum queue_lane wanted = lane_wanted(message->schedule, stored, stored->lane);

	if (wanted == stored->lane || message->unfinished == 0) {
		message_cut(message, NULL);
		return;
	}
	message->target = wanted;
	round_end(message);
}

/* Brings a message into the window without cutting it; NULL when it is not in that lane. */
struct message *
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

const struct queue_hold *
hold_of_recipient(const struct schedule *schedule, const struct store_message *stored,
                  const struct queue_hold *whole, const struct store_recipient *recipient)
{
	return holds_have_recipients(schedule->holds)
	           ? holds_first(whole, holds_of_recipient(schedule->holds, stored, recipient))
	           : whole;
}

bool
is_hold(const struct queue_hold *hold)
{
	return hold && hold->action == QUEUE_HOLD;
}

bool
is_end(const struct queue_hold *hold)
{
	return hold && (hold->action == QUEUE_REMOVE || hold->action == QUEUE_BOUNCE);
}

const char *
next_hop_wanted(const struct queue_hold *hold, const struct store_recipient *recipient)
{
	if (hold == NULL || hold->action != QUEUE_REROUTE || !hold->next_hop[0])
		return recipient->next_hop;
	return strcmp(hold->next_hop, QUEUE_NEXT_HOP_DEFAULT) == 0 ? "" : hold->next_hop;
}

static bool
is_to_lane(const struct queue_hold *hold)
{
	return hold && hold->action == QUEUE_REROUTE && !hold->next_hop[0];
}

enum queue_lane
lane_wanted(const struct schedule *schedule, const struct store_message *stored,
            enum queue_lane otherwise)
{
	const struct queue_hold *hold = holds_of_message(schedule->holds, stored);

	if (is_to_lane(hold))
		return hold->lane;
	for (size_t i = 0; i < stored->recipient_count; i++) {
		if (stored->recipients[i].state != STORE_QUEUED)
			continue;
		hold = hold_of_recipient(schedule, stored, NULL, &stored->recipients[i]);
		if (is_to_lane(hold))
			return hold->lane;
	}
	return otherwise;
}

const struct queue_hold *
hold_of_all(const struct schedule *schedule, const struct store_message *stored)
{
	const struct queue_hold *whole = holds_of_message(schedule->holds, stored), *hold = NULL;

	if (is_hold(whole))
		return whole;
	for (size_t i = 0; i < stored->recipient_count && holds_have_recipients(schedule->holds);
	     i++) {
		if (stored->recipients[i].state != STORE_QUEUED)
			continue;
		hold = hold_of_recipient(schedule, stored, whole, &stored->recipients[i]);
		if (!is_hold(hold))
			return NULL;
	}
	return hold;
}
