/* What history tells of messages, finished or still queued: envelope only, never content.
 *
 * History is an environment of its own, fed behind everybody's back from the outboxes of the lanes
 * (history.c), about a second late. What is asked here is read on a thread of its own (see
 * history_read.c), so that nobody waits for a page that has to come from the disk. */
#ifndef QUEUE_HISTORY_H
#define QUEUE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "queue/control.h"
#include "queue/id.h"
#include "queue/trace.h"

struct store;
struct store_message;

/* What an operator did that concerns whatever a selector takes, now and later; it is told with each
 * message that it took within the message's life, as far as that can be known (match_lasting). */
struct history_act {
	msec_t when, until; /* wall clock; until 0: no end was said */
	char what[16];      /* "held", "released" */
	struct queue_selector selector;
	char by[64], reason[128];
	char goal[CONF_HOST_TEXT_SIZE]; /* of "rerouted": the lane or the host */
};
/* Kept on its way like an outcome: durable with one of the next commits of fresh. */
void history_note(struct store *store, const struct history_act *act);

/* One message's life. message: as store_load_detail, NULL when nothing is known. events are in
 * order of time. Both are the callback's to free; message with store_message_free. */
typedef void history_on_life(void *arg, struct store_message *message, struct queue_event *events,
                             size_t count);
void history_life(struct store *store, const struct queue_id *id, history_on_life *on_life,
                  void *arg);

struct history_query {
	enum history_by by;
	char text[QUEUE_TRACE_MAX + 1]; /* folded address, Message-ID, account */
	msec_t since;                   /* accepted then or later */
	struct queue_trace_place from;  /* where to go on */
};
/* Whether what the query is for is about that recipient of the message, and not only about
 * others. */
bool history_concerns(const struct history_query *query, const struct store_message *message,
                      size_t recipient);
/* Messages, newest first, that together have at least max recipients that the query is for, where
 * there are so many; all recipients of each, in order of index. more: others follow behind the last
 * one; or behind *last, when what was looked at was enough for now. The messages are the callback's
 * to free, the list is not. */
typedef void history_on_page(void *arg, struct store_message **messages, size_t count, bool more,
                             const struct queue_id *last);
void history_find(struct store *store, const struct history_query *query, size_t max,
                  history_on_page *on_page, void *arg);

#endif
