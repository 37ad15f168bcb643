/* The queue's promises on disk: messages, each recipient's fate, the quota ledger, overrides and
 * directives.
 *
 * Changes are asynchronous: the call copies its arguments, one writer thread per lane carries out
 * what queued while the previous commit ran as the next commit, and the completion arrives on the
 * loop's thread, exactly once, never from inside the call, and only when the change is durable.
 * Reads are synchronous, short, and see only what is committed. Everything is called on the loop's
 * thread. Operations of one lane happen in the order they were asked for; while a move of an id is
 * under way, ask nothing else about that id. */
#ifndef QUEUE_STORE_H
#define QUEUE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/loop.h"
#include "queue/client.h"
#include "queue/control.h"
#include "queue/id.h"
#include "queue/worker.h"
#include "ratelimit/ledger.h"
#include "smtp/address.h"
#include "smtp/envelope.h"

struct store;

struct store_opts {
	uint64_t map_size;   /* of each environment: what mail may fill */
	msec_t history_keep; /* finished messages are remembered that long */
	uint64_t
	    history_size; /* octets of that at most, the oldest go first; 0: as the map allows */
	const char *hostname; /* ours, in notifications; borrowed for the call */
	/* A notification was committed in lane, due at once. May be NULL. */
	void (*on_generated)(void *arg, enum queue_lane lane, const struct queue_id *id);
	void *arg;
	bool verify_bodies; /* read every body at open and not only on audit: slow, for tests */
};

/* Opens or makes the store in the current working directory: takes its lock, refuses a newer
 * format, repairs what a crash left (see store.c), reads the live counts of the segments and starts
 * the writers. NULL with the reason in error. */
struct store *store_open(struct loop *loop, const struct store_opts *opts, char *error,
                         size_t size);
/* Carries out everything that was asked for, delivers the completions, and closes. NULL is
 * harmless. */
void store_close(struct store *store);
/* history_keep and history_size of its options, from now on. */
void store_keep_history(struct store *store, msec_t keep, uint64_t size);

enum store_result {
	STORE_OK,
	STORE_EXISTS, /* enqueue: the id is there already (committed before): nothing was changed */
	STORE_MISSING, /* the id is not in that lane, or the recipient not in that message: nothing
	                  was changed */
	STORE_FULL,    /* no space, or map full: nothing was changed */
	STORE_IO,      /* anything else the disk did; nothing was changed */
};
const char *store_result_text(enum store_result result);
typedef void store_on_done(void *arg, enum store_result result);

/* Where a body is. Value type. */
struct store_body {
	uint64_t segment;  /* number of its segment; 0: a file of its own, large/ID */
	uint64_t offset;   /* in the segment; 0 in a large file */
	uint64_t size;     /* octets */
	uint64_t checksum; /* XXH3-64 */
};

/* --- accepting --- */

/* A large body being received: a file of its own, synced before its message is enqueued. */
struct store_large;
/* Makes large/ID. *fd_out is write-only; the caller passes it to msa and closes it. NULL when the
 * file cannot be made; *why is then STORE_FULL, STORE_EXISTS or STORE_IO. */
struct store_large *store_large_open(struct store *store, const struct queue_id *id, int *fd_out,
                                     enum store_result *why);
/* Gives up and unlinks. NULL is harmless. */
void store_large_abort(struct store *store, struct store_large *large);

struct store_message_new { /* all borrowed for the call */
	struct queue_id id;
	const char
	    *account;      /* who is charged and shown; "" for the null account (generated mail) */
	const char *class; /* the account's, when it was accepted; NULL: unknown */
	bool generated;    /* counted as generated, not accepted */
	struct address from;
	const struct envelope_recipient *recipients;
	size_t recipient_count; /* 1 to QUEUE_RECIPIENTS_MAX */
	struct envelope envelope;
	msec_t created, due; /* wall clock */
	bool held;           /* until due, for its sender: see store_scan_held */
	const char *client_ip;
	uint16_t client_port;
	const char *ehlo;
	const char *protocol, *message_id; /* NULL: unknown */
	const void *prefix;                /* at most QUEUE_PREFIX_MAX */
	size_t prefix_len;
	const void *body; /* at most QUEUE_INLINE_MAX octets; ignored with large */
	size_t body_len;
	struct store_large *large_take; /* or NULL; belongs to the store whatever the result is */
	uint64_t large_size,
	    large_checksum;                 /* what msa says it wrote (XXH3-64); a file of another
	                                     * content, or one still open for writing, is STORE_IO */
	const struct ledger_charge *charge; /* of account; NULL: none (generated mail) */
};
/* STORE_OK: body, envelope, charge and counters are durable in fresh. That instant is the one at
 * which 250 is true. */
void store_enqueue(struct store *store, const struct store_message_new *message,
                   store_on_done *on_done, void *arg);

/* --- delivering --- */

enum store_state { STORE_QUEUED, STORE_DELIVERED, STORE_BOUNCED, STORE_EXPIRED, STORE_REMOVED };
const char *store_state_name(
    enum store_state state); /* "queued", "delivered", "bounced", "expired", "removed" */

#define STORE_REPLY_MAX 255
#define STORE_PUT_OFF   "not attempted: " /* how the reply of who was put off begins */
struct store_outcome {
	uint16_t index;                  /* of the recipient in its message */
	enum store_state state;          /* STORE_QUEUED: deferred, stays in the lane */
	char reply[STORE_REPLY_MAX + 1]; /* "550 5.1.1 no such user"; cut by the caller */
	uint16_t last; /* where in reply the last answer begins, if our own words stand before it */
	bool unconfirmed; /* STORE_DELIVERED: the sender is told that it went on */
};
struct store_batch { /* all borrowed for the call */
	enum queue_lane lane;
	struct queue_id id;
	unsigned attempt; /* 0 leaves attempt counts alone (a removal) */
	const struct store_outcome *outcomes;
	size_t count;
	msec_t when, due;                    /* due 0: as it is */
	const struct queue_contact *contact; /* whom the attempt met; NULL: nobody */
	msec_t warned;      /* the age of which the sender is to be told; 0: none */
	msec_t retry_until; /* told then */
};
#define STORE_DEFERRALS_MAX 1000 /* of a message, that history gets to know one by one */
/* Records outcomes: ends recipients (state, outbox row and counter in one transaction), notes the
 * others' attempt, sets the message's attempts, last reply and due time. Recipients that had ended
 * already are left alone (a repeated outcome is harmless). The message leaves the lane with its
 * last unfinished recipient.
 *
 * The sender, if there is one, is notified by the same transaction: of those that it ends as
 * bounced or expired, of those delivered unconfirmed, and, once per age, that the others are still
 * being tried; each as far as NOTIFY of the recipient wants it. */
void store_finish(struct store *store, const struct store_batch *batch, store_on_done *on_done,
                  void *arg);
/* Changes when the message is due; if its sender held it, that ends with it. */
void store_set_due(struct store *store, enum queue_lane lane, const struct queue_id *id, msec_t due,
                   store_on_done *on_done, void *arg);
/* Moves the message's unfinished recipients: commits in `to` under the next generation, then
 * deletes in `from`. */
void store_move(struct store *store, const struct queue_id *id, enum queue_lane from,
                enum queue_lane to, msec_t due, store_on_done *on_done, void *arg);

/* Those of these recipients (by index, ascending) that have not ended go to next_hop from now on, a
 * host as conf_host_text writes it; "": where the configuration sends them. why is for history. */
void store_reroute(struct store *store, enum queue_lane lane, const struct queue_id *id,
                   const uint16_t *index, size_t count, const char *next_hop, const char *why,
                   store_on_done *on_done, void *arg);

struct store_key { /* a place in the order of due times; all zero is before the first */
	msec_t due;
	struct queue_id id;
};
/* Calls on_due for at most max entries of what is not held, behind *from in order of due time,
 * until one returns false; *from becomes the last one seen. Returns the number of entries seen:
 * fewer than max means the end (or that on_due stopped). */
typedef bool store_on_due(void *arg, const struct store_key *key);
size_t store_scan_due(struct store *store, enum queue_lane lane, struct store_key *from, size_t max,
                      store_on_due *on_due, void *arg);

/* The same of what senders hold (RFC 4865): it is due in no lane before store_set_due says so. */
size_t store_scan_held(struct store *store, struct store_key *from, size_t max,
                       store_on_due *on_due, void *arg);

/* The messages in retry or fallback with recipients in that domain, also such that have ended: at
 * most max with an id behind *after (all zero: from the first), in order of id; *after becomes the
 * last one. Returns the number: fewer than max means the end. In fresh there is no such order. */
typedef void store_on_id(void *arg, const struct queue_id *id);
size_t store_scan_domain(struct store *store, enum queue_lane lane, const char *domain,
                         struct queue_id *after, size_t max, store_on_id *on_id, void *arg);

struct store_recipient {
	uint16_t index;
	struct address address;
	unsigned notify; /* NOTIFY_* bits, as in struct envelope_recipient */
	char *orcpt;     /* "" when not given */
	enum store_state state;
	unsigned attempts;
	msec_t when; /* of the last attempt; 0 before it */
	char *reply; /* "" before the first attempt */
	/* Of the last attempt: in which lane, and with whom; "" with nobody. */
	enum queue_lane lane;
	char *host;
	char peer[64], tls[16]; /* its address; "TLSv1.3", "" in clear */
	char *next_hop;         /* where an operator sends it, see store_reroute */
};
struct store_message { /* owns everything in it; free with store_message_free */
	struct queue_id id;
	enum queue_lane lane; /* means nothing when finished */
	bool finished;        /* found in history only */
	bool generated;
	bool held; /* by its sender; due says until when */
	uint64_t generation;
	char *account;
	/* Whose standing says from where it leaves: the account, or of generated mail the one whose
	 * mail it is about; and its class then. "" when unknown. */
	char *owner, *class;
	struct address from;
	struct envelope envelope;
	msec_t created, due;
	msec_t warned; /* the highest age of which the sender was told; 0 before */
	char *client_ip;
	uint16_t client_port;
	char *ehlo;
	char *message_id;                      /* without angle brackets; "" when unknown */
	char protocol[QUEUE_PROTOCOL_MAX + 1]; /* it came by; "" when unknown */
	uint32_t deferrals; /* of its recipients that were noted one by one, see store_finish */
	unsigned attempts;  /* of the message: the highest of its recipients */
	char *last_reply;
	struct store_body body;
	uint8_t *prefix;
	size_t prefix_len;
	uint32_t total, unfinished; /* recipients in the envelope, and not ended yet */
	struct store_recipient
	    *recipients; /* in order of index; of store_load_message those in the lane's record
	                  * (unfinished ones among them), of store_load_detail all */
	size_t recipient_count;
};
/* What is in the lane under id; NULL when there is nothing. */
struct store_message *store_load_message(struct store *store, enum queue_lane lane,
                                         const struct queue_id *id);
/* What is known about id anywhere: lanes, outbox and history. */
struct store_message *store_load_detail(struct store *store, const struct queue_id *id);
void store_message_free(struct store_message *message);
/* Whether some of it that is unfinished goes there. */
bool store_is_for(const struct store_message *message, const char *domain);

/* A read-only descriptor for the body, for the caller to close; -1 on failure. Read at
 * body->offset, body->size octets: *body is corrected if it is elsewhere by now. */
int store_open_body(struct store *store, const struct queue_id *id, struct store_body *body);

/* True when id was ever committed and is still known (lane, outbox or history); *lane says where
 * when it is queued (else QUEUE_LANES). The word on a lost reply. Call it only once no enqueue of
 * that id is under way. */
bool store_find(struct store *store, const struct queue_id *id, enum queue_lane *lane);

/* --- listing and counting --- */

/* At most max queued messages of account (NULL: all) with an id behind *after (NULL: from the
 * first), in order of id, over all lanes. Recipients and prefix are not loaded. on_message borrows.
 * Returns the number; *more says whether others follow. */
typedef void store_on_message(void *arg, const struct store_message *message);
size_t store_list(struct store *store, const char *account, const struct queue_id *after,
                  size_t max, store_on_message *on_message, void *arg, bool *more);

struct store_counts {
	uint64_t messages[QUEUE_LANES], recipients[QUEUE_LANES]; /* queued; unfinished */
	msec_t oldest;                                           /* created; 0 without one */
	uint64_t accepted, generated, delivered, bounced, expired,
	    removed; /* recipients since the store was made */
	uint64_t commits,
	    committed;        /* group commits of fresh since open, and messages accepted in them */
	unsigned map_percent; /* used pages of the fullest environment */
};
void store_counts(struct store *store, struct store_counts *out);
/* Both sides of the books as of now, beside all other work: takes as long as reading all records.
 * One at a time, in order. */
typedef void store_on_audit(void *arg, const struct queue_audit *audit);
void store_audit(struct store *store, store_on_audit *on_audit, void *arg);

/* The next share of a check of everything, bodies too; number 0 begins one, and goes on with the
 * number of its answer, which is 0 when it is over. False when there is none of that number (it is
 * forgotten after a minute) or there are too many. on_check borrows. */
typedef void store_on_check(void *arg, const struct queue_check *share);
bool store_check(struct store *store, uint64_t number, store_on_check *on_check, void *arg);

/* --- ledger, overrides, directives: all in fresh --- */

/* Each stored row of the account: encoded as ratelimit/row.h does. */
typedef void store_on_row(void *arg, const char *account, uint32_t row, const uint8_t *data,
                          size_t len);
/* False when they cannot be read: what was seen is then not all. */
bool store_load_ledger_rows(struct store *store, const char *account, store_on_row *on_row,
                            void *arg);
/* The highest ledger time ever stored; 0 in a new store. */
msec_t store_ledger_time(struct store *store);
void store_ledger_time_set(struct store *store, msec_t ledger_time, store_on_done *on_done,
                           void *arg);

struct store_reset { /* somebody decided that what was charged before at does not count */
	msec_t at;   /* ledger time */
	msec_t when; /* wall clock */
	char by[64], reason[128];
};
/* Deletes the account's rows and keeps the reset as a marker, so that a charge made before it and
 * stored after it does not count either. */
void store_ledger_reset(struct store *store, const char *account, const struct store_reset *reset,
                        store_on_done *on_done, void *arg);
/* The last one; false when there was none. */
bool store_load_reset(struct store *store, const char *account, struct store_reset *out);

struct store_override {
	uint32_t limit;
	msec_t when;
	char by[64], reason[128];
};
/* override NULL deletes. */
void store_override_set(struct store *store, const char *account,
                        const struct store_override *override, store_on_done *on_done, void *arg);
/* False when there is none. */
bool store_load_override(struct store *store, const char *account, struct store_override *out);

/* --- sites: in history --- */

struct store_site_row {
	const char *name;  /* at most 400 */
	const void *value; /* NULL deletes */
	size_t len;        /* at most 1500 */
};
/* All in one change; nobody has to wait for it. on_done may be NULL. */
void store_sites_put(struct store *store, const struct store_site_row *rows, size_t count,
                     store_on_done *on_done, void *arg);
typedef void store_on_site(void *arg, const char *name, const uint8_t *value, size_t len);
void store_each_site(struct store *store, store_on_site *on_site, void *arg);

/* Directives are named octets: name at most 400, value at most 2000. value NULL deletes. */
void store_directive_put(struct store *store, const char *name, const void *value, size_t len,
                         store_on_done *on_done, void *arg);
typedef void store_on_directive(void *arg, const char *name, const uint8_t *value, size_t len);
void store_each_directive(struct store *store, store_on_directive *on_directive, void *arg);

#endif
