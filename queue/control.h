/* What the NOC may see and change in the queue: the client side for admin. Every answer comes
 * through a callback, once. */
#ifndef QUEUE_CONTROL_H
#define QUEUE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/conf.h"
#include "core/ipc.h"
#include "queue/client.h"
#include "queue/id.h"
#include "queue/selector.h"
#include "queue/worker.h"

#define QUEUE_CONTROL_TIMEOUT 30000 /* msec */

enum queue_answer {
	QUEUE_DONE,
	QUEUE_NOT_FOUND,
	QUEUE_INVALID,
	QUEUE_LIMIT, /* there are as many of them as there may be */
	QUEUE_DOWN,
};

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
	uint64_t disk_free, disk_reserve; /* octets; below the reserve mail is refused */
	uint64_t files_free;              /* UINT64_MAX where the filesystem does not count them */
	unsigned map_percent;             /* used, of queue.map_size, of the fullest database */
	msec_t ledger_time;               /* what the quota windows take for now */
	bool ledger_held; /* the clock jumped forward: nothing is freed until it has stayed or is
	                     confirmed */
};
typedef void queue_on_status(void *arg, enum queue_answer answer,
                             const struct queue_status *status);
void queue_ask_status(struct ipc_link *link, queue_on_status *on_status, void *arg);
/* The operator vouches for the wall clock: a ledger held after a jump follows it at once. Answers
 * with the status after that. */
void queue_confirm_clock(struct ipc_link *link, queue_on_status *on_status, void *arg);

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

/* What operators do to messages. */
enum queue_action {
	QUEUE_FLUSH,   /* what was deferred is due now, or at the order's pace, once; paced and held
	                * mail, by whomever, is left alone */
	QUEUE_REMOVE,  /* ends recipients as removed; those being attempted are left alone */
	QUEUE_BOUNCE,  /* ends them as bounced, and tells their sender the reason */
	QUEUE_REROUTE, /* moves messages to a lane, or sends recipients to another next hop; those
	                * being attempted are left alone */
	QUEUE_HOLD,    /* until it is released or expiry comes */
	QUEUE_RELEASE, /* ends what is in force for exactly that selector */
	QUEUE_ACTIONS
};
const char *queue_action_name(enum queue_action action); /* "flush" … */

/* Where recipients go again as the configuration says. */
#define QUEUE_NEXT_HOP_DEFAULT "default"

/* What is in force: held, nothing it selects is attempted, and what is under way when it begins
 * ends; otherwise the action befalls what is about to be attempted. */
struct queue_hold {
	enum queue_action action;           /* REMOVE, BOUNCE, REROUTE or HOLD */
	enum queue_lane lane;               /* QUEUE_REROUTE: to there, if next_hop is "" */
	char next_hop[CONF_HOST_TEXT_SIZE]; /* or to that host, see conf_host; or
	                                       QUEUE_NEXT_HOP_DEFAULT */
	struct queue_selector selector;     /* not all */
	msec_t since, until;                /* wall clock; until 0: until it is released */
	char by[64], reason[128];
};

enum queue_state {
	QUEUE_STATE_QUEUED,    /* due, and waiting for its turn */
	QUEUE_STATE_ACTIVE,    /* being attempted now */
	QUEUE_STATE_PACED,     /* accepted, and not due before its account's pace allows */
	QUEUE_STATE_DEFERRED,  /* attempted, and due again later */
	QUEUE_STATE_HELD,      /* an operator's hold stands before all of it */
	QUEUE_STATE_SENDER,    /* its sender wants it to leave later: due says when */
	QUEUE_STATE_SUSPENDED, /* an operator has suspended the sites of all of it */
	QUEUE_STATES
};
const char *queue_state_name(enum queue_state state); /* "queued" … */
#define QUEUE_RULE_SIZE (QUEUE_SELECTOR_TEXT_SIZE + 8)

struct queue_entry { /* envelope only, never content */
	struct queue_id id;
	enum queue_lane lane;
	enum queue_state state;     /* means nothing when finished */
	char rule[QUEUE_RULE_SIZE]; /* "hold account NAME", "site NAME until …: suspended by …"; of
	                             * one that is neither held nor suspended "" */
	msec_t accepted, due;       /* wall clock; due 0: being attempted now */
	uint64_t size;              /* of its content, without what we put before it */
	unsigned attempts;
	uint32_t recipients, unfinished;
	char account[256], from[320];
	char last_reply[256]; /* of the last attempt, "" before it */
};
/* Pages of at most 200 in order of id, which may be empty; after is NULL at first. next says behind
 * which id to go on asking; NULL: that was all. states is a bit set; 0: any. */
typedef void queue_on_list(void *arg, enum queue_answer answer, const struct queue_entry *list,
                           size_t count, const struct queue_id *next);
void queue_ask_list(struct ipc_link *link, const struct queue_selector *selector, unsigned states,
                    const struct queue_id *after, queue_on_list *on_list, void *arg);

struct queue_recipient_view {
	char address[320];
	char state[16]; /* "queued", "delivered", "bounced", "expired", "removed" */
	unsigned attempts;
	msec_t when; /* wall clock of the last attempt; 0 before it */
	char reply[256];
	char next_hop[CONF_HOST_TEXT_SIZE]; /* where an operator sends it; "": nobody does */
};
struct queue_detail {
	struct queue_entry entry;
	bool finished; /* known from history only; lane means nothing */
	char client_ip[64];
	uint16_t client_port;
	char ehlo[256];
	const struct queue_recipient_view *recipients;
	size_t recipient_count;
	const struct queue_hold *holds; /* that stand before any of it */
	size_t hold_count;
};
typedef void queue_on_detail(void *arg, enum queue_answer answer,
                             const struct queue_detail *detail);
void queue_ask_detail(struct ipc_link *link, const struct queue_id *id, queue_on_detail *on_detail,
                      void *arg);

/* Acts upon the queue, each in the name of somebody and for a reason. */
struct queue_order { /* all borrowed for the call */
	enum queue_action action;
	struct queue_selector selector; /* all: only to flush, or with dry_run */
	const char *by, *reason;
	msec_t expiry; /* wall clock; 0: QUEUE_HOLD is in force without end, others now only */
	enum queue_lane lane;         /* QUEUE_REROUTE */
	const char *next_hop;         /* as in struct queue_hold. A reroute to a host with expiry
	                               * changes no message: it holds for as long as it is in force */
	bool dry_run;                 /* count only */
	uint32_t rate;                /* QUEUE_FLUSH: messages a second; 0: all at once */
	const struct queue_id *after; /* go on behind it; NULL at first */
	msec_t from;                  /* QUEUE_FLUSH: and not before; 0 at first */
};
struct queue_count {
	uint32_t messages, recipients; /* that this call concerned */
	uint32_t busy;                 /* recipients left alone because they are being attempted */
	bool more;                     /* ask again after next */
	struct queue_id next;
	msec_t from; /* the same */
};
/* Durable before it answers. What is done to messages is done, and counted, in bounded shares, so a
 * long act is a series of calls; it may be given up and begun again at any point. */
typedef void queue_on_count(void *arg, enum queue_answer answer, const struct queue_count *count);
void queue_act(struct ipc_link *link, const struct queue_order *order, queue_on_count *on_count,
               void *arg);

/* Pages of at most 100 in order of making, without the first ones; more says whether there are
 * others. */
typedef void queue_on_holds(void *arg, enum queue_answer answer, const struct queue_hold *list,
                            size_t count, bool more);
void queue_ask_holds(struct ipc_link *link, uint32_t first, queue_on_holds *on_holds, void *arg);

#define QUEUE_AGES 7
/* "5min" …: up to which age they are; of the last, "older". */
const char *queue_age_name(unsigned age);
struct queue_age_row {
	enum queue_lane lane;
	char site[QUEUE_SITE_SIZE]; /* or a domain whose site is not known */
	uint32_t messages[QUEUE_AGES];
};
/* A share of what waits, by lane, site and age, to be added to those before it; a message is
 * counted at each of its sites, at most 20. after is NULL at first. next as in a list. */
typedef void queue_on_ages(void *arg, enum queue_answer answer, const struct queue_age_row *rows,
                           size_t count, const struct queue_id *next);
void queue_ask_ages(struct ipc_link *link, const struct queue_id *after, queue_on_ages *on_ages,
                    void *arg);

struct queue_audit {
	uint64_t accepted, generated, delivered, bounced, expired,
	    removed;     /* recipients, from the counters */
	uint64_t queued; /* recipients, counted from the records just now */
	uint64_t messages;
	uint64_t orphans; /* records that do not read, or are not once in each index */
	bool conserved;   /* both sides are equal and there are no orphans */
};
typedef void queue_on_audit(void *arg, enum queue_answer answer, const struct queue_audit *audit);
void queue_ask_audit(struct ipc_link *link, queue_on_audit *on_audit, void *arg);

#define QUEUE_FAULTS_MAX 50 /* in one share */
struct queue_fault {
	char where[200], what[100], todo[120];
};
struct queue_check {                      /* a share of it */
	uint64_t number;                  /* to ask for the next share with; 0: that was the last */
	uint64_t records, bodies, octets; /* looked at in all shares so far; octets of bodies */
	char doing[32];                   /* where the next share goes on */
	const struct queue_fault *faults; /* found in this share */
	size_t count;
};
/* Reads and verifies everything in the spool, and changes nothing: a share each call, in well below
 * a second. number: 0 begins. QUEUE_NOT_FOUND: that check is forgotten (after a minute, or a
 * restart); QUEUE_LIMIT: too many at once. */
typedef void queue_on_check(void *arg, enum queue_answer answer, const struct queue_check *share);
void queue_ask_check(struct ipc_link *link, uint64_t number, queue_on_check *on_check, void *arg);

#endif
