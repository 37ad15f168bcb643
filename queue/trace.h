/* Asking the queue what became of messages: the client side for admin. Envelope only, never
 * content. Every answer comes through a callback, once. */
#ifndef QUEUE_TRACE_H
#define QUEUE_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ipc.h"
#include "queue/control.h"
#include "queue/id.h"

#define QUEUE_TRACE_MAX 511 /* octets of what is looked for */

struct queue_event {   /* in the life of a message; texts are "" where they mean nothing */
	char what[16]; /* accepted, generated; deferred, delivered, bounced, expired, removed;
	                  moved, rerouted; notified; held, released; ended */
	msec_t when;
	char address[320];                 /* of the recipient that it is about */
	unsigned attempt;                  /* 0: of none */
	char lane[12];                     /* where; of moved: to */
	char from[12];                     /* of moved */
	char host[256], peer[64], tls[16]; /* whom the attempt met; of rerouted:
	                                      host is the next hop, or the lane */
	char text[384];                    /* a reply; by whom, and why */
	bool has_other;
	struct queue_id other; /* notified: the notification; generated: what it is about */
};
struct queue_life {
	struct queue_entry entry;
	bool finished;      /* lane and state mean nothing */
	bool is_incomplete; /* so many deferrals that not all were noted */
	bool generated;
	char client_ip[64];
	uint16_t client_port;
	char ehlo[256], protocol[QUEUE_PROTOCOL_MAX + 1], message_id[QUEUE_MESSAGE_ID_MAX + 1];
	const struct queue_event *events;
	size_t count;
	bool more; /* events behind these */
};
/* At most 200 events from the first-th on, in order of time. */
typedef void queue_on_life(void *arg, enum queue_answer answer, const struct queue_life *life);
void queue_ask_life(struct ipc_link *link, const struct queue_id *id, uint32_t first,
                    queue_on_life *on_life, void *arg);

enum history_by { HISTORY_BY_ADDRESS, HISTORY_BY_MESSAGE_ID, HISTORY_BY_ACCOUNT, HISTORY_BYS };
struct queue_trace_place { /* in a list; all zero: its beginning */
	bool is_set;
	struct queue_id id;
	uint16_t index;
};
struct queue_trace_row {          /* one recipient of one message */
	struct queue_entry entry; /* of the message */
	bool finished;            /* all of it */
	char address[320];
	char state[16]; /* "queued", "delivered", "bounced", "expired", "removed" */
	unsigned attempts;
	msec_t when;     /* wall clock of the last attempt; 0 before it */
	char reply[256]; /* to it */
	char host[256];
};
/* Newest message first, at most max (1 to 100) rows, which may be none; next is where to go on,
 * NULL at the end. text: an address as address_fold makes it, a Message-ID without angle brackets,
 * an account; accepted at or after since. */
typedef void queue_on_trace(void *arg, enum queue_answer answer, const struct queue_trace_row *rows,
                            size_t count, const struct queue_trace_place *next);
void queue_ask_trace(struct ipc_link *link, enum history_by by, const char *text, msec_t since,
                     uint32_t max, const struct queue_trace_place *from, queue_on_trace *on_trace,
                     void *arg);

#endif
