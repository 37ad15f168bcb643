/* What the NOC may see and change in the queue: the client side for admin. Every answer comes
 * through a callback, once. */
#ifndef QUEUE_CONTROL_H
#define QUEUE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ipc.h"
#include "queue/client.h"
#include "queue/id.h"
#include "queue/worker.h"

#define QUEUE_CONTROL_TIMEOUT 30000 /* msec */

enum queue_answer { QUEUE_DONE, QUEUE_NOT_FOUND, QUEUE_INVALID, QUEUE_DOWN };

struct queue_status {
	uint64_t messages[QUEUE_LANES];   /* queued */
	uint64_t recipients[QUEUE_LANES]; /* unfinished */
	uint64_t in_flight;               /* jobs at relays */
	msec_t oldest; /* wall clock of the oldest queued message; 0 without one */
	uint64_t accepted, generated, delivered, bounced, expired,
	    removed;                 /* recipients since the spool was made */
	uint64_t accounts;           /* with charges in memory */
	uint64_t commits, committed; /* group commits since start, and messages in them */
	bool refusing;               /* disk or map watermark: 452 */
	char refusing_why[128];
	msec_t ledger_time; /* what the quota windows take for now */
	bool ledger_held;   /* the clock jumped forward: nothing is freed until it has stayed or is
	                       confirmed */
};
typedef void queue_on_status(void *arg, enum queue_answer answer,
                             const struct queue_status *status);
void queue_ask_status(struct ipc_link *link, queue_on_status *on_status, void *arg);

struct queue_burst {             /* the pace of one meter */
	uint32_t at_once, count; /* as configured; count 0: no limit */
	msec_t period;
	int64_t left; /* units that may go at once now; below 0: debt */
};
struct queue_quota_view {
	char account[256], class[QUEUE_CLASS_MAX + 1];
	bool calendar; /* the window is the local day; otherwise the last 24 hours */
	struct queue_quota meters[QUEUE_METERS]; /* start: of a message accepted now */
	struct queue_burst burst[QUEUE_METERS];
	bool overridden;      /* the limit of recipients comes from quota set, not from the class */
	uint32_t class_limit; /* what the class says */
	msec_t override_set;  /* wall clock */
	char override_by[64], override_reason[128];
	msec_t reset_when; /* wall clock of the last quota reset; 0: never */
	char reset_by[64], reset_reason[128];
};
typedef void queue_on_quota(void *arg, enum queue_answer answer,
                            const struct queue_quota_view *view);
/* class is the account's, which auth knows and the queue does not. */
void queue_ask_quota(struct ipc_link *link, const char *account, const char *class,
                     queue_on_quota *on_quota, void *arg);
/* Durable before it answers, and in force for the very next reservation. limit 0..4294967295; clear
 * true: back to the configuration's. */
void queue_set_quota(struct ipc_link *link, const char *account, const char *class, bool clear,
                     uint32_t limit, const char *by, const char *reason, queue_on_quota *on_quota,
                     void *arg);
/* What was charged before this moment does not count any more, and the pace starts afresh. Durable
 * before it answers. */
void queue_reset_quota(struct ipc_link *link, const char *account, const char *class,
                       const char *by, const char *reason, queue_on_quota *on_quota, void *arg);

struct queue_entry { /* envelope only, never content */
	struct queue_id id;
	enum queue_lane lane;
	msec_t accepted, due; /* wall clock; due 0: being attempted now */
	uint64_t size;        /* prefix and body */
	unsigned attempts;
	uint32_t recipients, unfinished;
	char account[256], from[320];
	char last_reply[256]; /* of the last attempt, "" before it */
};
/* Pages of at most 200 in order of id; after is NULL at first, and more says whether to ask again
 * after the last id. account NULL: all. */
typedef void queue_on_list(void *arg, enum queue_answer answer, const struct queue_entry *list,
                           size_t count, bool more);
void queue_ask_list(struct ipc_link *link, const char *account, const struct queue_id *after,
                    queue_on_list *on_list, void *arg);

struct queue_recipient_view {
	char address[320];
	char state[16]; /* "queued", "delivered", "bounced", "expired", "removed" */
	unsigned attempts;
	msec_t when; /* wall clock of the last attempt; 0 before it */
	char reply[256];
};
struct queue_detail {
	struct queue_entry entry;
	bool finished; /* known from history only; lane means nothing */
	char client_ip[64];
	uint16_t client_port;
	char ehlo[256];
	const struct queue_recipient_view *recipients;
	size_t recipient_count;
};
typedef void queue_on_detail(void *arg, enum queue_answer answer,
                             const struct queue_detail *detail);
void queue_ask_detail(struct ipc_link *link, const struct queue_id *id, queue_on_detail *on_detail,
                      void *arg);

struct queue_audit {
	uint64_t accepted, generated, delivered, bounced, expired,
	    removed;     /* recipients, from the counters */
	uint64_t queued; /* recipients, counted from the records just now */
	uint64_t messages;
	uint64_t bodies_checked, bodies_bad; /* length and checksum */
	uint64_t orphans; /* records without body, recipients without message, index rows without
	                     record */
	bool conserved;   /* both sides are equal and nothing is bad or orphaned */
};
typedef void queue_on_audit(void *arg, enum queue_answer answer, const struct queue_audit *audit);
void queue_ask_audit(struct ipc_link *link, queue_on_audit *on_audit, void *arg);

#endif
