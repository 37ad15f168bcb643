/* What travels between sekisho-queue and its three kinds of peers; private to queue/.
 *
 * Each frame type names its direction and payload in the encoding of core/buf.h. "call" is
 * answered, "tell" and "push" are not. The queue trusts no payload: every decoder checks bounds and
 * characters, because msa and relay face the network. */
#ifndef QUEUE_PROTO_H
#define QUEUE_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/conf.h"
#include "queue/client.h"
#include "queue/control.h"
#include "queue/control_site.h"
#include "queue/id.h"
#include "queue/trace.h"
#include "queue/worker.h"
#include "smtp/address.h"
#include "smtp/envelope.h"

enum proto_type {
	/* msa. A token numbers a submission within its channel. */
	PROTO_RESERVE = 1, /* call: u64 token, str account, str class, u64 announced size -> u8
	                      verdict, quota */
	PROTO_LOOK,        /* call: as PROTO_RESERVE */
	PROTO_RELEASE,     /* tell: u64 token, str account, u32 count */
	PROTO_END,         /* tell: u64 token, str account: everything it holds is released */
	PROTO_BODY_OPEN,   /* call: u64 token, id -> u8 verdict, and a write-only descriptor */
	PROTO_COMMIT,      /* call: see proto_put_commit -> u8 verdict, quota */
	PROTO_LOOKUP,      /* call: id -> u8 enum proto_lookup */
	/* relay */
	PROTO_HELLO = 32, /* tell: u8 lane, u32 capacity, u32 n, as many as it has told of before */
	PROTO_JOB,        /* push: see proto_put_job, with a read-only descriptor */
	PROTO_DONE,    /* call: u64 number, id, contact, outcomes -> u8 1, once they are durable */
	PROTO_ENOUGH,  /* tell: nothing: no further jobs */
	PROTO_UNTAKEN, /* tell: u64 number, id: a job that came without its descriptor or cannot be
	                  read */
	PROTO_CARRIED, /* tell: u64 number, id, str domain, u16 n, n x u16 index: a job past its
	                  dot, or of which the outcome was not heard; before HELLO */
	/* admin */
	PROTO_STATUS = 64, /* call: nothing -> u8 answer, status */
	/* The three of them answer u8 answer, view. */
	PROTO_QUOTA_SHOW, /* call: str account, str class */
	PROTO_QUOTA_SET, /* call: str account, str class, u8 clear, u32 limit, str by, str reason */
	PROTO_CLOCK_CONFIRM, /* call: nothing -> u8 answer, status */
	PROTO_QUOTA_RESET,   /* call: str account, str class, str by, str reason */
	PROTO_LIST,   /* call: selector, u8 states, u8 from start, id after -> u8 answer, u16 n,
	                 entries, u8 more, id next */
	PROTO_DETAIL, /* call: id, u16 first recipient wanted -> u8 answer, detail with at most
	                 PROTO_DETAIL_PAGE recipients */
	PROTO_AUDIT,  /* call: nothing -> u8 answer, audit */
	PROTO_ACT,    /* call: u8 action, selector, str by, str reason, u64 expiry, u8 dry run, u8
	                 lane, str next hop, u32 rate, u64 from, u8 from start, id after -> u8 answer,
	                 u32 messages,    u32    recipients, u32 busy, u8 more, id next, u64 from */
	PROTO_LIFE,   /* call: id, u32 first event wanted -> u8 answer, life with at most
	                 PROTO_EVENTS_PAGE events */
	PROTO_TRACE,  /* call: u8 enum history_by, str what, u64 since, u32 max, place -> u8 answer,
	                 u16 n, rows, place */
	PROTO_HOLDS,  /* call: u32 first -> u8 answer, u16 n, holds, u8 more */
	PROTO_AGES,   /* call: u8 from start, id after -> u8 answer, u16 n, n x (u8 lane, str site,
	                 QUEUE_AGES x u32 messages), u8 more, id next */
	PROTO_CHECK,  /* call: u64 number -> u8 answer, u64 number, u64 records, u64 bodies, u64
	                 octets, str doing, u16 n, n x (str where, str what, str todo) */
	PROTO_SITES,  /* call: u8 slow, u32 first -> u8 answer, u16 n, sites, u8 more */
	PROTO_SITE,   /* call: str name -> u8 answer, site, u32 domains, u16 n, n x str domain */
	PROTO_SITE_ORDER,  /* call: u8 action, str site, u64 until, u32 connections, rate, str by,
	                      str reason -> as PROTO_SITE */
	PROTO_REPLY_RULES, /* call: u32 first -> u8 answer, u16 n, rules, u8 more */
};

enum proto_lookup { PROTO_NOT_COMMITTED, PROTO_COMMITTED, PROTO_PENDING /* ask again */ };

#define PROTO_LIST_PAGE        200
#define PROTO_DETAIL_PAGE      300
#define PROTO_HOLDS_PAGE       100
#define PROTO_EVENTS_PAGE      200
#define PROTO_TRACE_PAGE       100
#define PROTO_AGES_PAGE        900
#define PROTO_DETAIL_HOLDS     20 /* shown with a message */
#define PROTO_JOB_MAX          50 /* recipients in one job */
#define PROTO_ACCOUNT_MAX      255
#define PROTO_EHLO_MAX         255
#define PROTO_IP_MAX           63
#define PROTO_ADDRESS_TEXT_MAX 319
#define PROTO_SITES_PAGE       100
#define PROTO_RULES_PAGE       50

void proto_put_id(struct buf *buf, const struct queue_id *id);
void proto_id(struct wire *wire, struct queue_id *out);
/* At most 2 + 130 + 255 octets. A reader fails the wire on anything but printable text, and a
 * domain on anything but ASCII. */
void proto_put_address(struct buf *buf, const struct address *address);
void proto_address(struct wire *wire, struct address *out);
/* A reader fails the wire on what no parser lets through. */
void proto_put_envelope(struct buf *buf, const struct envelope *envelope);
void proto_envelope(struct wire *wire, struct envelope *out);
void proto_put_quota(struct buf *buf, const struct queue_quota *quota);
void proto_quota(struct wire *wire, struct queue_quota *out);
void proto_put_view(struct buf *buf, const struct queue_quota_view *view);
void proto_view(struct wire *wire, struct queue_quota_view *out);
void proto_put_hold(struct buf *buf, const struct queue_hold *hold);
void proto_hold(struct wire *wire, struct queue_hold *out);
/* As it was before holds had a next hop: all of it but that. */
void proto_hold_of_lane(struct wire *wire, struct queue_hold *out);
/* A host as conf_host_text writes it, QUEUE_NEXT_HOP_DEFAULT or "". */
void proto_next_hop(struct wire *wire, char out[CONF_HOST_TEXT_SIZE]);
/* The reader's half of what operate_put_entry writes; in control.c. */
void proto_entry(struct wire *wire, struct queue_entry *out);
void proto_put_event(struct buf *buf, const struct queue_event *event);
void proto_event(struct wire *wire, struct queue_event *out);
void proto_put_place(struct buf *buf, const struct queue_trace_place *place);
void proto_place(struct wire *wire, struct queue_trace_place *out);
void proto_put_rate(struct buf *buf, const struct conf_burst *rate);
void proto_rate(struct wire *wire, struct conf_burst *out);
void proto_put_site(struct buf *buf, const struct queue_site_view *view);
void proto_site(struct wire *wire, struct queue_site_view *out);
void proto_put_reply_rule(struct buf *buf, const struct queue_reply_rule *rule);
void proto_reply_rule(struct wire *wire, struct queue_reply_rule *out);
/* A printable string of 1 to max octets; anything else fails the wire. */
void proto_word(struct wire *wire, char *out, size_t size);

/* COMMIT, decoded. Strings and octets are borrowed from the frame or owned by the struct as noted.
 */
struct proto_commit {
	uint64_t token;
	struct queue_id id;
	char account[PROTO_ACCOUNT_MAX + 1], class[QUEUE_CLASS_MAX + 1];
	char client_ip[PROTO_IP_MAX + 1], ehlo[PROTO_EHLO_MAX + 1];
	char protocol[QUEUE_PROTOCOL_MAX + 1], message_id[QUEUE_MESSAGE_ID_MAX + 1];
	uint16_t client_port;
	struct address from;
	struct envelope envelope;
	struct arena *arena; /* owned, see proto_commit_clear: recipients and their texts */
	struct envelope_recipient *recipients;
	uint16_t recipient_count;
	const uint8_t *prefix; /* borrowed */
	size_t prefix_len;
	bool in_file;                 /* the body is in the file that BODY_OPEN gave */
	const uint8_t *body;          /* borrowed; NULL when in_file */
	uint64_t body_size, checksum; /* XXH3-64 of the body */
};
void proto_put_commit(struct buf *buf, const struct proto_commit *commit);
bool proto_commit(const void *data, size_t len, struct proto_commit *out);
void proto_commit_clear(struct proto_commit *commit);

/* JOB: everything in struct queue_job but arena and body_fd. The reader allocates from arena. */
void proto_put_job(struct buf *buf, const struct queue_job *job);
bool proto_job(const void *data, size_t len, struct arena *arena, struct queue_job *out);

void proto_put_contact(struct buf *buf, const struct queue_contact *contact);
void proto_contact(struct wire *wire, struct queue_contact *out);
void proto_put_outcome(struct buf *buf, const struct queue_outcome *outcome);
void proto_outcome(struct wire *wire, struct queue_outcome *out);

#endif
