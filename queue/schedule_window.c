#include "queue/schedule_int.h"

/* What is in memory: messages in a round, their jobs, the domains that these are for. */

#include <assert.h>
#include <stdio.h>
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

struct domain *
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

static int
priority_of(const struct job *job)
{
	return job->message ? job->message->stored->envelope.priority : 0;
}

/* Whatever comes as the n-th enters as if it had come HEAD_START places earlier for each step of
 * its first job's priority: see schedule.c. */
static int64_t
rank_of(int64_t n, const struct job *job)
{
	return n - (int64_t)priority_of(job) * HEAD_START;
}

static void
take_turn(struct domain *domain, int64_t rank)
{
	struct turns *turns = &domain->lane->turns;
	struct domain *before = TAILQ_LAST(turns, turns);

	domain->rank = rank;
	while (before && before->rank > rank)
		before = TAILQ_PREV(before, turns, turn);
	if (before)
		TAILQ_INSERT_AFTER(turns, before, domain, turn);
	else
		TAILQ_INSERT_HEAD(turns, domain, turn);
}

/* Puts the domain where its state says: among the turns, out of them, or out of memory. Frees it in
 * the last case. */
void
domain_settle(struct domain *domain)
{
	struct lane *lane = domain->lane;
	const struct job *first = TAILQ_FIRST(&domain->pending);
	bool ready = first && domain->in_flight < lane->schedule->conf->relay_site_connections;
	if (ready && !domain->is_ready) {
		take_turn(domain, rank_of(lane->entered++, first));
	} else if (ready && rank_of(lane->entered, first) < domain->rank) {
		TAILQ_REMOVE(&lane->turns, domain, turn); /* what is first now may go earlier */
		take_turn(domain, rank_of(lane->entered, first));
	} else if (!ready && domain->is_ready) {
		TAILQ_REMOVE(&lane->turns, domain, turn);
	}
	domain->is_ready = ready;
	if (TAILQ_EMPTY(&domain->pending) && domain->in_flight == 0) {
		LIST_REMOVE(domain, bucket);
		free(domain);
	}
}

void
job_to_pending(struct job *job, bool first)
{
	struct domain *domain = job->domain;
	struct job *before = first ? NULL : TAILQ_LAST(&domain->pending, job_queue);

	job->state = JOB_PENDING;
	domain->pending_count++;
	domain->pending_recipients += job->count;
	if (!first)
		job->rank = rank_of(domain->entered++, job);
	while (before && before->rank > job->rank)
		before = TAILQ_PREV(before, job_queue, queue);
	if (before)
		TAILQ_INSERT_AFTER(&domain->pending, before, job, queue);
	else
		TAILQ_INSERT_HEAD(&domain->pending, job, queue);
	domain_settle(domain);
}

/* Its state is the caller's to set, and so is settling the domain. */
void
job_leave_pending(struct job *job)
{
	TAILQ_REMOVE(&job->domain->pending, job, queue);
	job->domain->pending_count--;
	job->domain->pending_recipients -= job->count;
}

void
job_to_flight(struct job *job)
{
	job->state = JOB_IN_FLIGHT;
	job->lane->in_flight++;
	job->domain->in_flight++;
	LIST_INSERT_HEAD(&job->lane->jobs, job, link);
	domain_settle(job->domain);
}

/* The relay is through with it. */
void
job_leave_flight(struct job *job)
{
	job->lane->in_flight--;
	job->domain->in_flight--;
}

void
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
	else
		job->lane->schedule->strays--;
	free(job);
}

struct job *
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
	} else {
		lane->schedule->strays++;
	}
	return job;
}

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
	free(message);
}

static int
compare_by_domain(const void *a, const void *b)
{
	const struct store_recipient *const *x = a, *const *y = b;
	int order = strcmp((*x)->address.domain, (*y)->address.domain);
	if (!order)
		order = address_is_utf8(&(*x)->address) - address_is_utf8(&(*y)->address);
	return order ? order : (*x)->index - (*y)->index;
}

/* Cuts what is neither in `taken` (by index, may be NULL) nor held into pending jobs. A recipient
 * that needs SMTPUTF8 shares none with others, unless the message needs it for all: what a host
 * cannot do for it is not their concern. */
void
message_cut(struct message *message, const bool *taken)
{
	struct store_message *stored = message->stored;
	const struct store_recipient **list = xcalloc(stored->recipient_count + 1, sizeof(*list));
	size_t count = 0;
	const bool is_held = holds_of_message(message->schedule->holds, stored) != NULL;

	message->held_as_of = holds_generation(message->schedule->holds);
	for (size_t i = 0; i < stored->recipient_count; i++) {
		const struct store_recipient *recipient = &stored->recipients[i];
		if (recipient->state != STORE_QUEUED || (taken && taken[recipient->index]))
			continue;
		if (is_held || hold_of_recipient(message->schedule, recipient))
			message->held_back = true;
		else
			list[count++] = recipient;
	}
	qsort(list, count, sizeof(*list), compare_by_domain);
	struct job *job = NULL;
	bool is_utf8 = false; /* what the job is for */
	for (size_t i = 0; i < count; i++) {
		const struct address *address = &list[i]->address;
		if (!job || job->count == PROTO_JOB_MAX ||
		    (!stored->envelope.smtputf8 && is_utf8 != address_is_utf8(address)) ||
		    strcmp(job->domain->name, address->domain) != 0) {
			if (job)
				job_to_pending(job, false);
			job = job_new(message->lane, message, &stored->id, address->domain);
			is_utf8 = address_is_utf8(address);
		}
		job->index[job->count++] = list[i]->index;
	}
	if (job)
		job_to_pending(job, false);
	free(list);
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
hold_of_recipient(const struct schedule *schedule, const struct store_recipient *recipient)
{
	return holds_of_domain(schedule->holds, recipient->address.domain);
}

const struct queue_hold *
hold_of_all(const struct schedule *schedule, const struct store_message *stored)
{
	const struct queue_hold *hold = holds_of_message(schedule->holds, stored);

	if (hold || !holds_have_domains(schedule->holds))
		return hold;
	for (size_t i = 0; i < stored->recipient_count; i++) {
		if (stored->recipients[i].state != STORE_QUEUED)
			continue;
		hold = hold_of_recipient(schedule, &stored->recipients[i]);
		if (hold == NULL)
			return NULL;
	}
	return hold;
}

bool
lane_has_room(const struct lane *lane)
{
	return lane->messages < WINDOW_MESSAGES && lane->recipients < WINDOW_RECIPIENTS;
}

/* Whether every domain it still has to go to holds as many pending jobs, or recipients in them, as
 * the window (with the reserve, if it may be used) has room for. The message itself does not count.
 */
bool
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
		if (recipient->state != STORE_QUEUED || (last && strcmp(last, name) == 0) ||
		    hold_of_recipient(lane->schedule, recipient))
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
