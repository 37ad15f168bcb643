#include "queue/store_int.h"

/* What happens to messages between attempts: they go to another lane, or to another next hop. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

struct move {
	struct op op;
	LIST_ENTRY(move) link;
	struct queue_id id;
	enum queue_lane from, to;
	msec_t when, due;
	struct store_message *message; /* as it was in the source */
};

static enum store_result
move_read(struct op *op, struct lane_txn *txn)
{
	struct move *move = (struct move *)op;

	store_message_free(move->message);
	move->message = txn_load(txn, &move->id, true);
	return move->message ? STORE_OK : STORE_MISSING;
}

static enum store_result
move_put(struct op *op, struct lane_txn *txn)
{
	struct move *move = (struct move *)op;
	struct store_message next = *move->message;
	struct key key;
	MDB_val v;

	key_id(&key, &move->id);
	if (txn_get(txn, TABLE_MESSAGE, &key, &v))
		return STORE_EXISTS;
	if (!txn_has_room(txn, true))
		return op_fail(op, MDB_MAP_FULL);
	next.generation++;
	next.due = move->due;
	next.held = false;
	txn_store(txn, &next);
	txn_event(
	    txn, &move->id, (uint32_t)next.generation,
	    &(struct event){
	        .kind = EVENT_MOVED, .when = move->when, .lane = move->to, .from = move->from});
	txn_count(txn, COUNTER_MOVED_IN, next.unfinished);
	return STORE_OK;
}

static enum store_result
move_drop(struct op *op, struct lane_txn *txn)
{
	struct move *move = (struct move *)op;

	txn_drop(txn, move->message);
	txn_count(txn, COUNTER_MOVED_OUT, move->message->unfinished);
	return STORE_OK;
}

static void
move_complete(struct op *op)
{
	struct move *move = (struct move *)op;
	struct store *store = op->store;

	if (op->apply == move_read && op->result == STORE_OK) {
		op->apply = move_put;
		op->weight = 4 + move->message->recipient_count;
		store_post(store, &store->lanes[move->to], op);
		return;
	}
	if (op->apply == move_put && op->result == STORE_OK) {
		store->dirty[move->to] = true;
		op->apply = move_drop;
		store_post(store, &store->lanes[move->from], op);
		return;
	}
	if (op->apply == move_drop && op->result != STORE_OK) {
		if (!store->closing) {
			op->next = store->again;
			store->again = op;
			return;
		}
		/* The target has it; recovery will delete what is left in the source. */
		op->result = STORE_OK;
	}
	LIST_REMOVE(move, link);
	store_tell(op);
	store_message_free(move->message);
	free(move);
}

bool
store_is_moving(const struct store *store, const struct queue_id *id)
{
	const struct move *move;

	LIST_FOREACH(move, &store->moves, link)
	{
		if (queue_id_equal(&move->id, id))
			return true;
	}
	return false;
}

void
store_move(struct store *store, const struct queue_id *id, enum queue_lane from, enum queue_lane to,
           msec_t due, store_on_done *on_done, void *arg)
{
	struct move *move = xcalloc(1, sizeof(*move));

	assert(from != to && from < QUEUE_LANES && to < QUEUE_LANES);
	move->id = *id;
	move->from = from;
	move->to = to;
	move->when = clock_wall();
	move->due = due;
	move->op.weight = 1;
	move->op.apply = move_read;
	move->op.complete = move_complete;
	move->op.on_done = on_done;
	move->op.arg = arg;
	LIST_INSERT_HEAD(&store->moves, move, link);
	store_post(store, &store->lanes[from], &move->op);
}

struct reroute {
	struct op op;
	struct queue_id id;
	uint16_t *index;
	size_t count;
	char next_hop[CONF_HOST_TEXT_SIZE];
	struct event event;
};

static enum store_result
reroute_apply(struct op *op, struct lane_txn *txn)
{
	struct reroute *reroute = (struct reroute *)op;
	struct store_message *message = txn_load(txn, &reroute->id, true);
	struct key key;
	struct buf buf;

	if (message == NULL)
		return STORE_MISSING;
	buf_init(&buf);
	for (size_t i = 0, at = 0; i < message->recipient_count && at < reroute->count; i++) {
		struct store_recipient *recipient = &message->recipients[i];

		if (recipient->index != reroute->index[at])
			continue;
		at++;
		if (recipient->state != STORE_QUEUED)
			continue;
		free(recipient->next_hop);
		recipient->next_hop = xstrdup(reroute->next_hop);
		recipient_encode(recipient, &buf);
		key_recipient(&key, &message->id, recipient->index);
		txn_put(txn, TABLE_RECIPIENT, &key, buf.data, buf.len);
		buf_consume(&buf, buf.len);
	}
	/* It tells the changes of a message apart, like moves. */
	message->generation++;
	record_encode(message, &buf);
	key_id(&key, &message->id);
	txn_put(txn, TABLE_MESSAGE, &key, buf.data, buf.len);
	txn_event(txn, &reroute->id, (uint32_t)message->generation, &reroute->event);
	buf_clear(&buf);
	store_message_free(message);
	return STORE_OK;
}

static void
reroute_complete(struct op *op)
{
	struct reroute *reroute = (struct reroute *)op;

	if (op->result == STORE_OK)
		op->store->dirty[reroute->event.lane] = true;
	store_tell(op);
	free(reroute->index);
	free(reroute);
}

void
store_reroute(struct store *store, enum queue_lane lane, const struct queue_id *id,
              const uint16_t *index, size_t count, const char *next_hop, const char *why,
              store_on_done *on_done, void *arg)
{
	struct reroute *reroute = xcalloc(1, sizeof(*reroute));
	struct event *event = &reroute->event;

	reroute->id = *id;
	reroute->index = (uint16_t *)xmemdup0(index, count * sizeof(*index));
	reroute->count = count;
	snprintf(reroute->next_hop, sizeof(reroute->next_hop), "%s", next_hop);
	event->kind = EVENT_REROUTED;
	event->when = clock_wall();
	event->lane = event->from = lane;
	snprintf(event->next_hop, sizeof(event->next_hop), "%s", next_hop);
	snprintf(event->why, sizeof(event->why), "%s", why);
	reroute->op.weight = 4 + count;
	reroute->op.apply = reroute_apply;
	reroute->op.complete = reroute_complete;
	reroute->op.on_done = on_done;
	reroute->op.arg = arg;
	store_post(store, &store->lanes[lane], &reroute->op);
}
