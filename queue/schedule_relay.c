#include "queue/schedule_int.h"

/* The relays' channels: jobs out, outcomes in, and what a relay still had when either side came
 * anew. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

void
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

void
job_give_up(struct job *job, const char *text)
{
	static const struct ipc_from nobody;
	struct queue_outcome outcomes[PROTO_JOB_MAX];

	memset(outcomes, 0, sizeof(outcomes));
	for (size_t i = 0; i < job->count; i++) {
		const struct store_recipient *recipient =
		    recipient_of(job->message->stored, job->index[i]);
		const char *last =
		    recipient && recipient->reply[0] ? recipient->reply : "no attempt was made";

		outcomes[i].index = job->index[i];
		outcomes[i].fate = QUEUE_DEFERRED;
		snprintf(outcomes[i].reply.text, sizeof(outcomes[i].reply.text), "%s",
		         text ? text : last);
	}
	job_finish(job, NULL, outcomes, NULL, job->count, nobody);
}

void
relays_open(struct schedule *schedule)
{
	struct relay *first;

	schedule->relays = xcalloc(conf_relay_count(schedule->conf), sizeof(*schedule->relays));
	first = schedule->relays;
	for (size_t i = 0; i < QUEUE_LANES; i++) {
		struct lane *lane = &schedule->lanes[i];

		lane->relays = first;
		lane->relay_count = (size_t)schedule->conf->lane_relays[i];
		first += lane->relay_count;
	}
}

void
relays_close(struct schedule *schedule)
{
	free(schedule->relays);
}

unsigned
lane_offered(const struct lane *lane)
{
	unsigned sum = 0;

	for (size_t i = 0; i < lane->relay_count; i++)
		sum += lane->relays[i].offered;
	return sum;
}

/* Who has least to do; the first of several, so that with little to do connections are used again.
 * There is one, because the lane has a free place. */
static struct relay *
choose_relay(const struct lane *lane)
{
	struct relay *best = NULL;

	for (size_t i = 0; i < lane->relay_count; i++) {
		struct relay *relay = &lane->relays[i];

		if (relay->in_flight < relay->offered &&
		    (!best || relay->in_flight < best->in_flight))
			best = relay;
	}
	assert(best);
	return best;
}

/* Its lane; NULL: it is none of ours. */
static struct lane *
lane_of(struct schedule *schedule, struct ipc_from from)
{
	const unsigned lane = conf_relay_lane(schedule->conf, from.index);

	return lane < QUEUE_LANES ? &schedule->lanes[lane] : NULL;
}

void
job_send(struct job *job)
{
	job->relay = choose_relay(job->lane);
	job_to(job, JOB_IN_FLIGHT);
	if (is_overdue(job->message))
		job_give_up(job, NULL);
	else
		job_route_out(job);
}

void
job_hand_out(struct job *job, const struct queue_egress *egress)
{
	struct lane *lane = job->lane;
	struct store_message *stored = job->message->stored;
	int fd = store_open_body(lane->schedule->store, &job->id, &stored->body);
	if (fd == -1) {
		char text[QUEUE_ID_TEXT_SIZE];
		log_error(queue_id_format(&job->id, text), "body-unreadable", "segment=%llu",
		          (unsigned long long)stored->body.segment);
		job_give_up(job, "the body could not be read");
		return;
	}
	struct queue_recipient recipients[PROTO_JOB_MAX];
	size_t at = 0;
	for (size_t i = 0; i < job->count; i++) {
		while (stored->recipients[at].index != job->index[i])
			at = (at + 1) % stored->recipient_count;
		recipients[i] = (struct queue_recipient){
		    .index = job->index[i],
		    .address = stored->recipients[at].address,
		    .notify = stored->recipients[at].notify,
		    .orcpt = stored->recipients[at].orcpt,
		};
	}
	const struct site_bounds *bounds = sites_bounds(job->line->site);
	struct queue_job out = {
	    .number = job->number,
	    .id = job->id,
	    .attempt = job->message->attempt,
	    .from = stored->from,
	    .domain = job->domain,
	    .envelope = stored->envelope,
	    .prefix = stored->prefix,
	    .prefix_len = stored->prefix_len,
	    .body_offset = stored->body.offset,
	    .body_size = stored->body.size,
	    .body_checksum = stored->body.checksum,
	    .recipients = recipients,
	    .recipient_count = job->count,
	    .egress = *egress,
	    .session_recipients = bounds->session_recipients,
	    .session_messages = bounds->session_messages,
	    .by_fallback_host = lane->lane == QUEUE_FALLBACK,
	    .next_hop = job->next_hop,
	};
	struct buf frame;
	buf_init(&frame);
	proto_put_job(&frame, &out);
	/* False means that schedule_gone comes next and takes it back. */
	ipc_hub_push(lane->schedule->hub, job->relay->channel, PROTO_JOB, &frame, fd);
	buf_clear(&frame);
	close(fd);
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

/* Where the job went, if nobody has rerouted it since. */
static const char *
next_hop_of(const struct message *message, uint16_t index)
{
	const struct schedule *schedule = message->schedule;
	const struct store_message *stored = message->stored;
	const struct store_recipient *recipient = recipient_of(stored, index);

	return recipient
	           ? next_hop_wanted(hold_of_recipient(schedule, stored,
	                                               holds_of_message(schedule->holds, stored),
	                                               recipient),
	                             recipient)
	           : "";
}

/* A job past its final dot under an earlier channel. */
static void
carry(struct lane *lane, struct relay *relay, uint64_t number, const struct queue_id *id,
      const char *domain, const uint16_t *index, unsigned count)
{
	struct schedule *schedule = lane->schedule;
	struct job *job = job_find(lane, number, id);
	if (job) {
		if (job->state == JOB_PENDING) {
			job->relay = relay;
			job_to(job, JOB_IN_FLIGHT);
		}
		return;
	}
	struct message *message = message_find(schedule, id);
	if (!message) {
		message = message_load(lane, id);
		if (message)
			message->carried = xcalloc(QUEUE_RECIPIENTS_MAX, sizeof(bool));
	} else if (!message->carried || message->lane != lane) {
		message = NULL; /* its round is already cut; the outcome is applied by index */
	}
	if (message && !is_open(message, index, count))
		message = NULL;
	for (unsigned i = 0; i < count && message; i++)
		message->carried[index[i]] = true;
	job = job_new(lane, message, id, domain, message ? next_hop_of(message, index[0]) : "");
	job->relay = relay;
	job->number = number;
	memcpy(job->index, index, count * sizeof(*index));
	job->count = count;
	job_to(job, JOB_IN_FLIGHT);
}

/* What relays have of those messages is known: the rest of them is attempted like any other. */
static void
cut_carried(struct lane *lane)
{
	for (size_t i = 0; i < BUCKETS; i++) {
		struct message *message, *next;

		for (message = LIST_FIRST(&lane->schedule->ids[i]); message; message = next) {
			bool *taken = message->carried;

			next = LIST_NEXT(message, bucket);
			if (!taken || message->lane != lane)
				continue;
			message->carried = NULL;
			message_cut(message, taken);
			free(taken);
			if (round_is_over(message))
				round_end(message);
		}
	}
}

/* Some relay has been heard, or is gone: if it was the last that was waited for, the lane begins.
 */
static void
lane_look(struct lane *lane)
{
	bool some = false;

	if (lane->schedule->stopped)
		return;
	for (size_t i = 0; i < lane->relay_count; i++) {
		if (lane->relays[i].channel.channel && !lane->relays[i].ready && !lane->ready)
			return;
		some |= lane->relays[i].ready;
	}
	const bool begins = some && !lane->ready;
	lane->ready = some;
	if (!some)
		return;
	cut_carried(lane);
	if (begins)
		lane_look_again(lane); /* much may have become due before the front */
	lane_dispatch(lane);
}

void
schedule_attached(struct schedule *schedule, struct ipc_from peer)
{
	if (lane_of(schedule, peer))
		schedule->relays[peer.index].channel = peer; /* what was there is gone */
}

static void
on_carried(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	const uint64_t number = wire_u64(&wire);
	struct lane *lane = lane_of(schedule, from);
	char domain[ADDRESS_DOMAIN_MAX + 1];
	uint16_t index[PROTO_JOB_MAX] = {0};
	struct queue_id id;

	proto_id(&wire, &id);
	proto_word(&wire, domain, sizeof(domain));
	const unsigned count = wire_u16(&wire);
	if (count == 0 || count > PROTO_JOB_MAX)
		wire.failed = true;
	for (unsigned i = 0; i < count && wire_ok(&wire); i++)
		index[i] = wire_u16(&wire);
	if (wire_done(&wire) && lane)
		carry(lane, &schedule->relays[from.index], number, &id, domain, index, count);
	else
		log_error("-", "hello-malformed", "relay=%u", from.index);
}

static void
on_hello(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	unsigned which = wire_u8(&wire);
	uint32_t capacity = wire_u32(&wire), count = wire_u32(&wire);
	struct lane *lane = lane_of(schedule, from);
	if (!wire_done(&wire) || !lane || which != (unsigned)lane->lane) {
		log_error("-", "hello-malformed", "relay=%u", from.index);
		return;
	}
	struct relay *relay = &schedule->relays[from.index];
	relay->offered = capacity;
	relay->ready = true;
	log_info("-", "relay-up", "lane=%s relay=%u capacity=%u carried=%u",
	         queue_lane_name(lane->lane), from.index, capacity, count);
	lane_look(lane);
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
             const struct queue_contact *contact, struct queue_outcome *outcomes, size_t count)
{
	enum queue_lane where = QUEUE_LANES;
	struct store_outcome stored[PROTO_JOB_MAX];
	size_t ended = 0;
	const struct message *message_here = message_find(schedule, id);
	if (message_here && round_is_over(message_here)) {
		acknowledge(schedule, from, false); /* it is being moved: said again in a second */
		return;
	}
	if (!store_find(schedule->store, id, &where) || where == QUEUE_LANES) {
		acknowledge(schedule, from, true); /* finished long ago */
		return;
	}
	struct store_message *message = store_load_message(schedule->store, where, id);
	for (size_t i = 0; i < count && message; i++) {
		const struct store_recipient *recipient = recipient_of(message, outcomes[i].index);
		const struct conf_reply_rule *rule =
		    recipient ? reply_judge(schedule, id, recipient->address.domain, contact,
		                            &outcomes[i])
		              : NULL;
		if (outcomes[i].fate != QUEUE_DEFERRED)
			to_stored(&outcomes[i], rule, NULL, &stored[ended++]);
	}
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
	const struct store_batch batch = {.lane = where,
	                                  .id = *id,
	                                  .outcomes = stored,
	                                  .count = ended,
	                                  .when = clock_wall(),
	                                  .contact = contact,
	                                  .due = message->due};
	store_finish(schedule->store, &batch, on_stray_finished, stray);
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
	struct queue_contact contact;
	proto_contact(&wire, &contact);
	size_t count = wire_u16(&wire);
	if (count == 0 || count > PROTO_JOB_MAX)
		wire.failed = true;
	for (size_t i = 0; i < count && wire_ok(&wire); i++)
		proto_outcome(&wire, &outcomes[i]);
	struct lane *lane = lane_of(schedule, from);
	if (!wire_done(&wire) || !lane) {
		log_error("-", "done-malformed", "relay=%u", from.index);
		free(outcomes);
		return;
	}
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
		const struct conf_reply_rule *rules[PROTO_JOB_MAX];
		unsigned events;
		for (size_t i = 0; i < count; i++)
			rules[i] =
			    reply_judge(schedule, &job->id, job->domain, &contact, &outcomes[i]);
		struct site *site = site_hear(job, &contact, outcomes, count, &events);
		events |= replies_told(job, site, &contact, rules, outcomes, count);
		job_finish(job, &contact, outcomes, rules, count, from);
		site_told(schedule, site, events);
	} else if (job && job->state == JOB_IN_FLIGHT && job->message) {
		char text[QUEUE_ID_TEXT_SIZE];
		log_error(queue_id_format(&id, text), "done-mismatch", "relay=%u", from.index);
		acknowledge(schedule, from, true);
		job->tag = 0; /* behind all others, as if it were new */
		job_to(job, JOB_PENDING);
	} else {
		if (job && job->state == JOB_IN_FLIGHT)
			job_free(job);
		finish_stray(schedule, from, &id, &contact, outcomes, count);
	}
	free(outcomes);
	lanes_dispatch(schedule);
}

static void
on_untaken(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	const uint64_t number = wire_u64(&wire);
	struct queue_id id;

	proto_id(&wire, &id);
	struct lane *lane = lane_of(schedule, from);
	if (!wire_done(&wire) || !lane)
		return;
	struct job *job = job_find(lane, number, &id);
	if (!job || job->state != JOB_IN_FLIGHT || !job->message)
		return;
	job_give_up(job, "no relay could take it");
	lanes_dispatch(schedule);
}

void
schedule_frame(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame)
{
	if (schedule->stopped)
		return;
	if (frame->type == PROTO_HELLO)
		on_hello(schedule, from, frame);
	else if (frame->type == PROTO_CARRIED)
		on_carried(schedule, from, frame);
	else if (frame->type == PROTO_DONE)
		on_done(schedule, from, frame);
	else if (frame->type == PROTO_UNTAKEN)
		on_untaken(schedule, from, frame);
	else if (frame->type == PROTO_ENOUGH && lane_of(schedule, from))
		schedule->relays[from.index].offered = 0;
}

void
schedule_gone(struct schedule *schedule, struct ipc_from peer)
{
	struct lane *lane = lane_of(schedule, peer);
	if (!lane || schedule->relays[peer.index].channel.channel != peer.channel)
		return;
	struct relay *relay = &schedule->relays[peer.index];
	relay->ready = false;
	relay->offered = 0;
	relay->channel.channel = 0;
	log_info("-", "relay-gone", "lane=%s relay=%u in_flight=%u", queue_lane_name(lane->lane),
	         peer.index, relay->in_flight);
	struct job *job, *next;
	for (job = LIST_FIRST(&lane->jobs); job; job = next) {
		next = LIST_NEXT(job, link);
		if (job->state != JOB_IN_FLIGHT || job->relay != relay)
			continue;
		if (!job->message) {
			job_free(job);
			continue;
		}
		job_to(job, JOB_PENDING);
	}
	lane_look(lane);
	lanes_dispatch(schedule);
}
