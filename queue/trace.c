#include "queue/trace.h"

#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "queue/proto.h"

/* One call each, as in control.c: when the link is down at the moment of asking, the callback comes
 * before the function returns. */

struct trace_ask {
	queue_on_life *on_life; /* or */
	queue_on_trace *on_trace;
	void *arg;
};

static void
answer_without(struct trace_ask *ask, enum queue_answer answer)
{
	if (ask->on_life)
		ask->on_life(ask->arg, answer, NULL);
	else
		ask->on_trace(ask->arg, answer, NULL, 0, NULL);
}

static bool
answer_life(struct trace_ask *ask, struct wire *wire)
{
	struct queue_life *life = xcalloc(1, sizeof(*life));
	struct queue_event *events;
	bool good;

	proto_entry(wire, &life->entry);
	life->finished = wire_u8(wire) != 0;
	life->is_incomplete = wire_u8(wire) != 0;
	life->generated = wire_u8(wire) != 0;
	wire_str(wire, life->client_ip, sizeof(life->client_ip));
	life->client_port = wire_u16(wire);
	wire_str(wire, life->ehlo, sizeof(life->ehlo));
	wire_str(wire, life->protocol, sizeof(life->protocol));
	wire_str(wire, life->message_id, sizeof(life->message_id));
	life->count = wire_u16(wire);
	if (life->count > PROTO_EVENTS_PAGE)
		life->count = 0;
	events = xcalloc(life->count + 1, sizeof(*events));
	for (size_t i = 0; i < life->count; i++)
		proto_event(wire, &events[i]);
	life->events = events;
	life->more = wire_u8(wire) != 0;
	good = wire_done(wire);
	if (good)
		ask->on_life(ask->arg, QUEUE_DONE, life);
	free(events);
	free(life);
	return good;
}

static bool
answer_list(struct trace_ask *ask, struct wire *wire)
{
	struct queue_trace_place next;
	struct queue_trace_row *rows;
	size_t count = wire_u16(wire);
	bool good;

	if (count > PROTO_TRACE_PAGE)
		return false;
	rows = xcalloc(count + 1, sizeof(*rows));
	for (size_t i = 0; i < count; i++) {
		struct queue_trace_row *row = &rows[i];

		proto_entry(wire, &row->entry);
		row->finished = wire_u8(wire) != 0;
		wire_str(wire, row->address, sizeof(row->address));
		wire_str(wire, row->state, sizeof(row->state));
		row->attempts = wire_u32(wire);
		row->when = (msec_t)wire_u64(wire);
		wire_str(wire, row->reply, sizeof(row->reply));
		wire_str(wire, row->host, sizeof(row->host));
	}
	proto_place(wire, &next);
	good = wire_done(wire);
	if (good)
		ask->on_trace(ask->arg, QUEUE_DONE, rows, count, next.is_set ? &next : NULL);
	free(rows);
	return good;
}

static void
on_reply(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct trace_ask *ask = arg;
	unsigned answer = QUEUE_DOWN;

	if (status == IPC_OK) {
		struct wire wire = wire_from(frame->data, frame->len);

		answer = wire_u8(&wire);
		if (!wire_ok(&wire) || answer > QUEUE_DOWN ||
		    (answer == QUEUE_DONE &&
		     !(ask->on_life ? answer_life(ask, &wire) : answer_list(ask, &wire))))
			answer = QUEUE_DOWN;
	}
	if (answer != QUEUE_DONE)
		answer_without(ask, (enum queue_answer)answer);
	free(ask);
}

static void
send_ask(struct ipc_link *link, enum proto_type type, struct buf *frame, struct trace_ask *ask)
{
	if (!ipc_link_call(link, (uint16_t)type, frame, -1, QUEUE_CONTROL_TIMEOUT, on_reply, ask)) {
		answer_without(ask, QUEUE_DOWN);
		free(ask);
	}
	buf_clear(frame);
}

void
queue_ask_life(struct ipc_link *link, const struct queue_id *id, uint32_t first,
               queue_on_life *on_life, void *arg)
{
	struct trace_ask *ask = xcalloc(1, sizeof(*ask));
	struct buf frame;

	ask->on_life = on_life;
	ask->arg = arg;
	buf_init(&frame);
	proto_put_id(&frame, id);
	wire_put_u32(&frame, first);
	send_ask(link, PROTO_LIFE, &frame, ask);
}

void
queue_ask_trace(struct ipc_link *link, enum history_by by, const char *text, msec_t since,
                uint32_t max, const struct queue_trace_place *from, queue_on_trace *on_trace,
                void *arg)
{
	struct trace_ask *ask = xcalloc(1, sizeof(*ask));
	struct buf frame;

	ask->on_trace = on_trace;
	ask->arg = arg;
	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)by);
	wire_put_str(&frame, text);
	wire_put_u64(&frame, (uint64_t)since);
	wire_put_u32(&frame, max);
	proto_put_place(&frame, from);
	send_ask(link, PROTO_TRACE, &frame, ask);
}
