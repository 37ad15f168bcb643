#include "queue/worker.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "queue/proto.h"

/* The relay's half of a delivery.
 *
 * Problem: relay and queue may each be restarted at any moment, and a message must neither be lost
 * nor sent twice without need. Idea: what has not reached its final dot is cheap: drop it, the
 * queue hands it out again. What is past its final dot, and every outcome that the queue has not
 * acknowledged as durable, is told to the next incarnation of the queue in the very first frames,
 * one each and then HELLO, before it may dispatch anything to this lane; the outcomes follow in the
 * same channel.
 *
 * Invariants: a job is in `jobs` from on_job to queue_job_done or on_abandon; its outcome is in
 * `unheard` from queue_job_done to the queue's acknowledgement. Outcomes are keyed by (id,
 * recipient index), so saying one twice is harmless. */

struct job {
	struct queue_job pub; /* first: a queue_job is its job */
	LIST_ENTRY(job) link;
	struct queue_worker *worker;
	bool final;
};

struct unheard {
	TAILQ_ENTRY(unheard) link;
	struct queue_worker *worker;
	uint64_t number;
	struct queue_id id;
	char domain[ADDRESS_DOMAIN_MAX + 1];
	uint16_t *indexes;
	size_t count;
	struct buf frame; /* PROTO_DONE */
	uint32_t call;    /* under way; 0: to be sent (again) */
};

struct queue_worker {
	struct loop *loop;
	struct ipc_link *link;
	enum queue_lane lane;
	unsigned capacity;
	const struct queue_worker_events *events; /* borrowed */
	void *arg;
	LIST_HEAD(, job) jobs;
	TAILQ_HEAD(unheard_list, unheard) unheard;
	struct loop_timer *again; /* until refused outcomes are said again */
	bool stopping;
	void (*on_idle)(void *arg);
};

#define DONE_TIMEOUT 120000
#define DONE_AGAIN   1000

const char *
queue_lane_name(enum queue_lane lane)
{
	static const char *const names[QUEUE_LANES] = {"fresh", "retry", "fallback"};
	assert(lane < QUEUE_LANES);
	return names[lane];
}

static void
job_free(struct job *job)
{
	LIST_REMOVE(job, link);
	if (job->pub.body_fd != -1)
		close(job->pub.body_fd);
	arena_free(job->pub.arena);
	free(job);
}

static void
unheard_free(struct unheard *unheard)
{
	TAILQ_REMOVE(&unheard->worker->unheard, unheard, link);
	ipc_link_cancel(unheard->worker->link, unheard->call);
	buf_clear(&unheard->frame);
	free(unheard->indexes);
	free(unheard);
}

static void
idle_check(struct queue_worker *worker)
{
	if (!worker->stopping || !worker->on_idle || !LIST_EMPTY(&worker->jobs))
		return;
	if (!TAILQ_EMPTY(&worker->unheard) && ipc_link_is_up(worker->link))
		return;
	void (*on_idle)(void *arg) = worker->on_idle;
	worker->on_idle = NULL;
	on_idle(worker->arg);
}

static void
on_heard(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct unheard *unheard = arg;
	struct queue_worker *worker = unheard->worker;
	unheard->call = 0;
	if (status == IPC_OK && frame->len == 1 && frame->data[0] == 1) {
		unheard_free(unheard);
		idle_check(worker);
	} else if (status != IPC_DOWN) {
		loop_timer_arm(worker->again,
		               DONE_AGAIN); /* its disk is in trouble; it will have to hear it */
	}
}

static void
say_outcomes(void *arg)
{
	struct queue_worker *worker = arg;
	struct unheard *unheard;
	TAILQ_FOREACH(unheard, &worker->unheard, link)
	{
		if (!unheard->call)
			unheard->call = ipc_link_call(worker->link, PROTO_DONE, &unheard->frame, -1,
			                              DONE_TIMEOUT, on_heard, unheard);
	}
}

static void
tell_carried(struct queue_worker *worker, uint64_t number, const struct queue_id *id,
             const char *domain, const uint16_t *indexes, size_t count)
{
	struct buf frame;

	buf_init(&frame);
	wire_put_u64(&frame, number);
	proto_put_id(&frame, id);
	wire_put_str(&frame, domain);
	wire_put_u16(&frame, (uint16_t)count);
	for (size_t i = 0; i < count; i++)
		wire_put_u16(&frame, indexes[i]);
	ipc_link_tell(worker->link, PROTO_CARRIED, &frame, -1);
	buf_clear(&frame);
}

static void
on_up(void *arg)
{
	struct queue_worker *worker = arg;
	struct buf frame;
	struct job *job;
	struct unheard *unheard;
	uint32_t count = 0;

	LIST_FOREACH(job, &worker->jobs, link)
	{
		uint16_t indexes[PROTO_JOB_MAX];

		assert(job->final); /* on_down abandoned the others */
		for (size_t i = 0; i < job->pub.recipient_count; i++)
			indexes[i] = job->pub.recipients[i].index;
		tell_carried(worker, job->pub.number, &job->pub.id, job->pub.domain, indexes,
		             job->pub.recipient_count);
		count++;
	}
	TAILQ_FOREACH(unheard, &worker->unheard, link)
	{
		tell_carried(worker, unheard->number, &unheard->id, unheard->domain,
		             unheard->indexes, unheard->count);
		count++;
	}
	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)worker->lane);
	wire_put_u32(&frame, worker->stopping ? 0 : worker->capacity);
	wire_put_u32(&frame, count);
	ipc_link_tell(worker->link, PROTO_HELLO, &frame, -1);
	buf_clear(&frame);
	say_outcomes(worker);
}

static void
on_down(void *arg)
{
	struct queue_worker *worker = arg;
	struct job *job, *next;
	for (job = LIST_FIRST(&worker->jobs); job; job = next) {
		next = LIST_NEXT(job, link);
		if (job->final)
			continue;
		worker->events->on_abandon(worker->arg, &job->pub);
		job_free(job);
	}
	idle_check(worker);
}

/* A process that has no descriptor left gets none with the frame. The queue must hear of it: for
 * it the job is under way. */
static void
hand_back(struct queue_worker *worker, const struct ipc_frame *job)
{
	struct wire wire = wire_from(job->data, job->len);
	const uint64_t number = wire_u64(&wire);
	char text[QUEUE_ID_TEXT_SIZE];
	struct queue_id id;
	struct buf frame;

	proto_id(&wire, &id);
	log_error(queue_id_format(&id, text), "job-untaken", "octets=%zu descriptor=%s", job->len,
	          job->fd == -1 ? "no" : "yes");
	buf_init(&frame);
	wire_put_u64(&frame, number);
	proto_put_id(&frame, &id);
	ipc_link_tell(worker->link, PROTO_UNTAKEN, &frame, -1);
	buf_clear(&frame);
}

static void
on_push(void *arg, struct ipc_frame *frame)
{
	struct queue_worker *worker = arg;
	if (frame->type != PROTO_JOB || worker->stopping)
		return;
	struct job *job = xcalloc(1, sizeof(*job));
	struct arena *arena = arena_new();
	if (!proto_job(frame->data, frame->len, arena, &job->pub) || frame->fd == -1) {
		hand_back(worker, frame);
		arena_free(arena);
		free(job);
		return;
	}
	job->pub.body_fd = frame->fd;
	frame->fd = -1;
	job->worker = worker;
	LIST_INSERT_HEAD(&worker->jobs, job, link);
	worker->events->on_job(worker->arg, &job->pub);
}

static const struct ipc_link_events link_events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_push = on_push,
};

struct queue_worker *
queue_worker_new(struct loop *loop, enum queue_lane lane, unsigned capacity,
                 const struct queue_worker_events *events, void *arg)
{
	struct queue_worker *worker = xcalloc(1, sizeof(*worker));
	assert(lane < QUEUE_LANES && capacity > 0);
	worker->loop = loop;
	worker->lane = lane;
	worker->capacity = capacity;
	worker->events = events;
	worker->arg = arg;
	LIST_INIT(&worker->jobs);
	TAILQ_INIT(&worker->unheard);
	worker->again = loop_timer_new(loop, say_outcomes, worker);
	worker->link = ipc_link_new(loop, "queue", &link_events, worker);
	return worker;
}

void
queue_worker_free(struct queue_worker *worker)
{
	if (!worker)
		return;
	while (!LIST_EMPTY(&worker->jobs))
		job_free(LIST_FIRST(&worker->jobs));
	while (!TAILQ_EMPTY(&worker->unheard))
		unheard_free(TAILQ_FIRST(&worker->unheard));
	loop_timer_free(worker->again);
	ipc_link_free(worker->link);
	free(worker);
}

void
queue_worker_attach(struct queue_worker *worker, int fd_take)
{
	ipc_link_attach(worker->link, fd_take);
}

static void
on_stop_turn(void *arg)
{
	idle_check(arg);
}

void
queue_worker_stop(struct queue_worker *worker, void (*on_idle)(void *arg))
{
	worker->stopping = true;
	worker->on_idle = on_idle;
	ipc_link_tell(worker->link, PROTO_ENOUGH, NULL, -1);
	loop_defer(worker->loop, on_stop_turn, worker);
}

void
queue_job_final(struct queue_job *job)
{
	((struct job *)job)->final = true;
}

void
queue_job_done(struct queue_job *pub, const struct queue_contact *contact,
               const struct queue_outcome *outcomes, size_t count)
{
	struct job *job = (struct job *)pub;
	struct queue_worker *worker = job->worker;
	struct unheard *unheard = xcalloc(1, sizeof(*unheard));

	assert(count == pub->recipient_count);
	unheard->worker = worker;
	unheard->number = pub->number;
	unheard->id = pub->id;
	strncpy(unheard->domain, pub->domain, sizeof(unheard->domain) - 1);
	unheard->indexes = xcalloc(count, sizeof(*unheard->indexes));
	unheard->count = count;
	buf_init(&unheard->frame);
	wire_put_u64(&unheard->frame, pub->number);
	proto_put_id(&unheard->frame, &pub->id);
	proto_put_contact(&unheard->frame, contact);
	wire_put_u16(&unheard->frame, (uint16_t)count);
	for (size_t i = 0; i < count; i++) {
		unheard->indexes[i] = outcomes[i].index;
		proto_put_outcome(&unheard->frame, &outcomes[i]);
	}
	TAILQ_INSERT_TAIL(&worker->unheard, unheard, link);
	job_free(job);
	say_outcomes(worker);
	idle_check(worker);
}
