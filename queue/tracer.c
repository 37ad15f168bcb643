#include "queue/tracer.h"

/* The store's reader finds messages and events (history.h); here they become frames, and what is
 * still queued gets its state: what it waits for, and until when. */

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "queue/history.h"
#include "queue/proto.h"

struct tracer {
	struct ipc_hub *hub;
	struct store *store;
	struct operate *operate;
};

struct question { /* under way */
	struct tracer *tracer;
	struct ipc_from from;
	struct history_query query;
	uint32_t first, max;
};

static void
refuse(struct tracer *tracer, struct ipc_from to, enum queue_answer value)
{
	struct buf frame;

	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)value);
	ipc_hub_reply(tracer->hub, to, &frame, -1);
	buf_clear(&frame);
}

static struct question *
question_new(struct tracer *tracer, struct ipc_from from)
{
	struct question *question = xcalloc(1, sizeof(*question));

	question->tracer = tracer;
	question->from = from;
	return question;
}

/* --- one message --- */

static void
put_life(struct question *question, struct buf *reply, const struct store_message *message,
         const struct queue_event *events, size_t count)
{
	const size_t first = question->first < count ? question->first : count;
	const size_t shown = count - first < PROTO_EVENTS_PAGE ? count - first : PROTO_EVENTS_PAGE;

	wire_put_u8(reply, QUEUE_DONE);
	operate_put_entry(question->tracer->operate, reply, message);
	wire_put_u8(reply, message->finished);
	wire_put_u8(reply, message->deferrals >= STORE_DEFERRALS_MAX);
	wire_put_u8(reply, message->generated);
	wire_put_str(reply, message->client_ip);
	wire_put_u16(reply, message->client_port);
	wire_put_str(reply, message->ehlo);
	wire_put_str(reply, message->protocol);
	wire_put_str(reply, message->message_id);
	wire_put_u16(reply, (uint16_t)shown);
	for (size_t i = first; i < first + shown; i++)
		proto_put_event(reply, &events[i]);
	wire_put_u8(reply, first + shown < count);
}

static void
on_life(void *arg, struct store_message *message, struct queue_event *events, size_t count)
{
	struct question *question = arg;
	struct buf reply;

	if (message) {
		buf_init(&reply);
		put_life(question, &reply, message, events, count);
		ipc_hub_reply(question->tracer->hub, question->from, &reply, -1);
		buf_clear(&reply);
	} else {
		refuse(question->tracer, question->from, QUEUE_NOT_FOUND);
	}
	store_message_free(message);
	free(events);
	free(question);
}

static void
ask_life(struct tracer *tracer, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct question *question = question_new(tracer, from);
	struct queue_id id;

	proto_id(&wire, &id);
	question->first = wire_u32(&wire);
	if (wire_done(&wire)) {
		history_life(tracer->store, &id, on_life, question);
		return;
	}
	refuse(tracer, from, QUEUE_INVALID);
	free(question);
}

/* --- a list --- */

static void
put_row(struct tracer *tracer, struct buf *rows, const struct store_message *message,
        const struct store_recipient *recipient)
{
	char address[ADDRESS_TEXT_SIZE];

	operate_put_entry(tracer->operate, rows, message);
	wire_put_u8(rows, message->finished);
	address_format(&recipient->address, address, sizeof(address));
	wire_put_bytes(rows, address, strnlen(address, PROTO_ADDRESS_TEXT_MAX));
	wire_put_str(rows, store_state_name(recipient->state));
	wire_put_u32(rows, recipient->attempts);
	wire_put_u64(rows, (uint64_t)recipient->when);
	wire_put_str(rows, recipient->reply);
	wire_put_str(rows, recipient->host);
}

struct listing {
	struct question *question;
	struct buf rows;
	uint32_t count;
	struct queue_trace_place next; /* if it is set */
};

/* False when the page is full. */
static bool
list_message(struct listing *listing, const struct store_message *message)
{
	const struct question *question = listing->question;
	const struct queue_trace_place *from = &question->query.from;
	const bool is_first = from->is_set && queue_id_equal(&from->id, &message->id);

	for (size_t i = 0; i < message->recipient_count; i++) {
		const struct store_recipient *recipient = &message->recipients[i];

		if ((is_first && recipient->index < from->index) ||
		    !history_concerns(&question->query, message, i))
			continue;
		if (listing->count == question->max) {
			listing->next =
			    (struct queue_trace_place){true, message->id, recipient->index};
			return false;
		}
		put_row(question->tracer, &listing->rows, message, recipient);
		listing->count++;
	}
	return true;
}

static void
on_page(void *arg, struct store_message **messages, size_t count, bool more,
        const struct queue_id *last)
{
	struct question *question = arg;
	struct listing listing = {.question = question};
	struct buf reply;
	size_t i = 0;

	buf_init(&listing.rows);
	buf_init(&reply);
	while (i < count && list_message(&listing, messages[i]))
		i++;
	if (i == count && more)
		listing.next = (struct queue_trace_place){true, *last, UINT16_MAX};
	wire_put_u8(&reply, QUEUE_DONE);
	wire_put_u16(&reply, (uint16_t)listing.count);
	wire_put_raw(&reply, listing.rows.data, listing.rows.len);
	proto_put_place(&reply, &listing.next);
	ipc_hub_reply(question->tracer->hub, question->from, &reply, -1);
	buf_clear(&listing.rows);
	buf_clear(&reply);
	for (i = 0; i < count; i++)
		store_message_free(messages[i]);
	free(question);
}

static void
ask_list(struct tracer *tracer, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct question *question = question_new(tracer, from);
	const unsigned by = wire_u8(&wire);

	proto_word(&wire, question->query.text, sizeof(question->query.text));
	question->query.since = (msec_t)wire_u64(&wire);
	question->max = wire_u32(&wire);
	proto_place(&wire, &question->query.from);
	if (wire_done(&wire) && by < HISTORY_BYS && question->max > 0 &&
	    question->max <= PROTO_TRACE_PAGE) {
		question->query.by = (enum history_by)by;
		history_find(tracer->store, &question->query, question->max, on_page, question);
		return;
	}
	refuse(tracer, from, QUEUE_INVALID);
	free(question);
}

bool
tracer_frame(struct tracer *tracer, struct ipc_from from, const struct ipc_frame *frame)
{
	if (frame->type == PROTO_LIFE)
		ask_life(tracer, from, frame);
	else if (frame->type == PROTO_TRACE)
		ask_list(tracer, from, frame);
	else
		return false;
	return true;
}

struct tracer *
tracer_new(struct ipc_hub *hub, struct store *store, struct operate *operate)
{
	struct tracer *tracer = xcalloc(1, sizeof(*tracer));

	tracer->hub = hub;
	tracer->store = store;
	tracer->operate = operate;
	return tracer;
}

void
tracer_free(struct tracer *tracer)
{
	free(tracer);
}
