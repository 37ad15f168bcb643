/* Internals that the files of the store share: encodings, tables, one lane's environment and
 * writer, bodies. */
#ifndef QUEUE_STORE_INT_H
#define QUEUE_STORE_INT_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/buf.h"
#include "core/conf.h"
#include "queue/history.h"
#include "queue/store.h"
#include "smtp/dsn.h"

/* Of environments and records; 1 knew no delay notices, 2 no envelope, 3 not how a message came and
 * whom its attempts met, 4 no checksum of records, 5 not whose class says from where it leaves, 6
 * no next hop. */
#define STORE_FORMAT       7u
#define STORE_SEGMENT_MAX  (65u << 20)
#define STORE_SEGMENT_ROOM (1u << 20) /* by which it grows */
#define STORE_ID_SIZE      16u

/* --- tables --- */

enum table {
	TABLE_META,      /* name -> value: "format" u32, "ledger" u64, "ends" nothing */
	TABLE_COUNTER,   /* u8 enum counter -> u64 */
	TABLE_MESSAGE,   /* id -> record */
	TABLE_PREFIX,    /* id -> octets */
	TABLE_RECIPIENT, /* id, u16 index -> recipient */
	TABLE_DUE,       /* u64 due, id -> nothing */
	TABLE_HELD,      /* fresh: the same of what its sender holds, instead */
	TABLE_ACCOUNT,   /* account, 0, id -> nothing */
	TABLE_DOMAIN,    /* retry, fallback: domain, 0, id -> nothing */
	TABLE_OUTBOX, /* id, u16 index, u32 attempt -> recipient; u16 OUTBOX_EVENT_INDEX, u32 number
	                 -> event; the last of an id -> its record, or nothing: history is to look
	                 it up; id of an act, u16 OUTBOX_ACT_INDEX, u32 0 -> act */
	TABLE_LEDGER, /* account, 0, u32 row -> row; the last of an account -> its reset */
	TABLE_OVERRIDE,  /* account -> override */
	TABLE_DIRECTIVE, /* name -> octets */
	TABLE_SUMMARY,   /* history: id -> record */
	TABLE_OUTCOME, /* history: id, u16 index, u32 attempt -> recipient; u16 OUTBOX_EVENT_INDEX,
	                  u32 number -> event */
	TABLE_INDEX,   /* history: u8 enum history_by, u64 hash, id -> nothing */
	TABLE_ENDED,   /* history: u64 when the end of a message became known, id -> nothing */
	TABLE_ACT,     /* history: id of its own -> act */
	TABLE_SITE,    /* history: name -> octets */
	TABLES
};

enum counter {
	COUNTER_ACCEPTED,
	COUNTER_GENERATED,
	COUNTER_DELIVERED,
	COUNTER_BOUNCED,
	COUNTER_EXPIRED,
	COUNTER_REMOVED,
	COUNTER_MOVED_IN,
	COUNTER_MOVED_OUT,
	COUNTERS
};

/* --- record.c: encodings and keys --- */

struct lane_txn;

#define OUTBOX_KEY_SIZE        22u
#define OUTBOX_SUMMARY_INDEX   0xffffu
#define OUTBOX_EVENT_INDEX     0xfffeu
#define OUTBOX_ACT_INDEX       0xfffdu
#define OUTBOX_SUMMARY_ATTEMPT 0xffffffffu

struct key { /* any of our keys; LMDB's limit is 511 */
	uint8_t data[480];
	size_t len;
};
void key_id(struct key *key, const struct queue_id *id);
void key_recipient(struct key *key, const struct queue_id *id, uint16_t index);
void key_due(struct key *key, msec_t due, const struct queue_id *id);
void key_account(struct key *key, const char *account, const struct queue_id *id);
void key_outbox(struct key *key, const struct queue_id *id, uint16_t index, uint32_t attempt);
void key_ledger(struct key *key, const char *account, uint32_t row);
void key_text(struct key *key, const char *text);
void key_index(struct key *key, enum history_by by, const char *text, const struct queue_id *id);
uint64_t be_get(const uint8_t *data, size_t len);
void be_put(uint8_t *data, size_t len, uint64_t v);

void record_encode(const struct store_message *message, struct buf *out);
/* NULL when malformed or of a newer version; an older one is upgraded. Without id, lane, prefix and
 * recipients. */
struct store_message *record_decode(const void *data, size_t len);
void recipient_encode(const struct store_recipient *recipient, struct buf *out);
/* False when malformed; out then owns nothing. */
bool recipient_decode(const void *data, size_t len, uint16_t index, struct store_recipient *out);
/* Frees what it owns. */
void recipient_clear(struct store_recipient *recipient);

enum event_kind {
	EVENT_MOVED,    /* to lane, from from */
	EVENT_NOTICE,   /* other was generated about this message: action */
	EVENT_ABOUT,    /* this message was generated about other */
	EVENT_REROUTED, /* in lane: to next_hop, as why says */
	EVENTS
};
struct event { /* of a message as a whole */
	enum event_kind kind;
	msec_t when;
	enum queue_lane lane, from;
	enum dsn_action action;
	struct queue_id other;
	char next_hop[CONF_HOST_TEXT_SIZE], why[STORE_REPLY_MAX + 1];
};
void event_encode(const struct event *event, struct buf *out);
/* False when malformed. */
bool event_decode(const void *data, size_t len, struct event *out);
/* To the outbox of the transaction's lane; number tells it from others of its kind. */
void txn_event(struct lane_txn *txn, const struct queue_id *id, uint32_t number,
               const struct event *event);
void act_encode(const struct history_act *act, struct buf *out);
bool act_decode(const void *data, size_t len, struct history_act *out);

void override_encode(const struct store_override *override, struct buf *out);
bool override_decode(const void *data, size_t len, struct store_override *out);
void reset_encode(const struct store_reset *reset, struct buf *out);
bool reset_decode(const void *data, size_t len, struct store_reset *out);

/* --- segment.c: bodies --- */

struct segment { /* one file bodies/seg-NUMBER */
	uint64_t number;
	uint64_t live; /* bodies in it that a record names or a group is about to name, and one for
	                  the writer that appends to it */
	uint64_t octets; /* of those bodies */
	uint64_t end;    /* octets in it */
	msec_t left;     /* wall clock since which nobody appends to it; 0: somebody does */
	bool spoilt;     /* a body in it does not read back: it stays where it is */
};
#define SEGMENTS_CLOSING 64
struct segments {
	pthread_mutex_t lock;
	int bodies; /* directory descriptors */
	int large;
	struct segment *list; /* ascending by number */
	size_t count, size;
	uint64_t next; /* number of the next new segment; at least 1 */
	/* The segment read last, open: one message after the other is in the same. */
	uint64_t read_number; /* 0: none */
	int read_fd;
	/* Removed files, to be closed by a thread that nobody waits for. */
	int closing[SEGMENTS_CLOSING];
	size_t closing_count;
	pthread_t closer;
	pthread_cond_t wake;
	bool running, stop;
};
struct appender { /* a writer's own segment; its thread only */
	struct segments *segments;
	atomic_uint_least64_t active; /* number being appended to; 0: none. Others may look */
	int fd;                       /* of the active one */
	uint64_t end;                 /* octets in it */
	uint64_t room;                /* size of the file: from end on there are zeros */
	bool dirty;                   /* appended and not yet synced */
	bool made;                    /* its directory entry is not yet synced */
	int broken; /* errno of a failed sync: nothing is appended until it is abandoned */
};
int segments_open(struct segments *segments);
void segments_close(struct segments *segments);
char *segment_name(uint64_t number, char out[32]);
char *large_name(const struct queue_id *id, char out[QUEUE_ID_TEXT_SIZE]);
/* Counts one body (at open; append does it itself). */
void segments_retain(struct segments *segments, const struct store_body *body);
/* What the file of a segment says (at open). */
void segments_measure(struct segments *segments, uint64_t number, uint64_t end, msec_t left);
/* Whether something lives in it. */
bool segments_know(struct segments *segments, uint64_t number);
/* One of its bodies does not read back. */
void segments_spoil(struct segments *segments, uint64_t number);
/* Reads a body in a segment, of which data holds body->size octets: 0 or an errno (EBADMSG: wrong
 * content). */
int segments_read(struct segments *segments, const struct store_body *body, void *data);
/* One body is no longer named; unlinks the segment, or the large file, when nothing else lives in
 * it. What it held is freed later. */
void segments_release(struct segments *segments, const struct queue_id *id,
                      const struct store_body *body);
/* 0 or an errno. Fills out; durable after appender_sync. */
int appender_append(struct appender *appender, const void *data, size_t len,
                    struct store_body *out);
/* 0 or an errno; costs nothing when nothing was appended. */
int appender_sync(struct appender *appender);
/* The next body goes to a segment of its own: 0 or an errno. */
int appender_leave(struct appender *appender);
/* After a failure: what the page cache holds is not to be trusted, so nothing is appended there any
 * more. And at the end. */
void appender_abandon(struct appender *appender);
/* Gives a part of a large file to the disk, a little at a time and with rests, so that the small
 * syncs that others' 250 wait for never stand behind much: a tenth of the time while there are
 * such, more the more large bodies wait for it. 0 or an errno, which the system tells only once:
 * the sync of the file would not fail any more. */
int large_write(const struct store *store, int fd, uint64_t from, uint64_t to);
/* Reads size and checksum of a whole large file and makes it durable: 0 or an errno. */
int large_sync(struct store *store, const struct queue_id *id, struct store_body *out);
/* 0: body is there with the right checksum; else an errno (EBADMSG: wrong content). */
int body_verify(struct segments *segments, const struct queue_id *id,
                const struct store_body *body);

/* --- lane.c: one environment, one writer --- */

struct lane_txn { /* the first error sticks and commit reports it */
	struct lane *lane;
	MDB_txn *txn;
	int rc;
};

struct op { /* one change; embedded first in its kind */
	struct op *next;
	struct store *store;
	struct lane *lane;
	size_t weight; /* puts, roughly */
	size_t octets; /* of body */
	/* Writer's thread, before the transaction; 0 or an errno. May be NULL. */
	int (*prepare)(struct op *op);
	/* Inside it, and again when the batch is replayed. What it refuses (STORE_MISSING,
	 * STORE_EXISTS, op_fail) only while nothing was put. */
	enum store_result (*apply)(struct op *op, struct lane_txn *txn);
	/* Writer's thread, once result is final. May be NULL. */
	void (*settled)(struct op *op);
	/* Loop's thread; frees or reuses the op. */
	void (*complete)(struct op *op);
	enum store_result result;
	int rc; /* errno or LMDB's, for the log */
	store_on_done *on_done;
	void *arg;
};

struct lane {
	struct store *store;
	const char *name;
	MDB_env
	    *env; /* NULL: a thread that only runs prepare (sync, audit), one op after the other */
	bool unreadable; /* it could not be opened for what is in it */
	MDB_dbi dbi[TABLES];
	uint32_t tables;          /* bit set of those it has */
	uint64_t map_size;        /* octets that mail may fill */
	uint64_t reserve;         /* of the map behind that */
	unsigned share;           /* percent of the time in which it may write; 0: always, and
	                             somebody waits for what it did */
	unsigned serving_share;   /* the same while clients are served */
	struct appender appender; /* of the three lanes */
	pthread_t thread;
	bool running;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct op *head, **tail;
	bool stop;
	uint64_t commits, committed; /* groups, and ops in them */
};
/* Writer's thread: for an error that is the op's alone. Returns its result. */
enum store_result op_fail(struct op *op, int rc);
/* 0, or -1 with the reason in error. */
int lane_open(struct lane *lane, struct store *store, const char *name, uint32_t tables,
              uint64_t map_size, char *error, size_t size);
int lane_start(struct lane *lane);
/* A thread that no signal reaches: 0 or -1. */
int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);
/* Stops after all that was queued. */
void lane_stop(struct lane *lane);
void lane_close(struct lane *lane);
void lane_post(struct lane *lane, struct op *op);

const char *table_name(enum table table);
/* A read transaction; rc tells whether it began. */
void txn_read(struct lane *lane, struct lane_txn *txn);
void txn_write(struct lane *lane, struct lane_txn *txn);
int txn_commit(struct lane_txn *txn);
void txn_abort(struct lane_txn *txn);
void txn_put(struct lane_txn *txn, enum table table, const struct key *key, const void *data,
             size_t len);
void txn_del(struct lane_txn *txn, enum table table, const struct key *key);
bool txn_get(struct lane_txn *txn, enum table table, const struct key *key, MDB_val *out);
uint64_t txn_counter(struct lane_txn *txn, enum counter counter);
void txn_count(struct lane_txn *txn, enum counter counter, uint64_t n);
/* Octets of its tables. */
uint64_t txn_used(struct lane_txn *txn);
/* Whether the environment may take more messages; into_reserve: those that we keep already. */
bool txn_has_room(struct lane_txn *txn, bool into_reserve);
MDB_cursor *txn_cursor(struct lane_txn *txn, enum table table);
/* A message with prefix and recipients as asked; NULL when it is not there (or rc is set). */
struct store_message *txn_load(struct lane_txn *txn, const struct queue_id *id, bool whole);
/* In which order of due times it stands. */
enum table table_due(const struct store_message *message);
/* Record, prefix, unfinished recipients and indexes; history will look. */
void txn_store(struct lane_txn *txn, const struct store_message *message);
/* All that txn_store wrote, and finished recipients. */
void txn_drop(struct lane_txn *txn, const struct store_message *message);
enum store_result result_from(int rc);

/* --- store.c --- */

struct store {
	struct loop *loop;
	struct store_opts opts;
	char *hostname;
	int lock_fd;
	struct lane lanes[QUEUE_LANES];
	struct lane history;
	struct lane sync;
	struct lane audit;
	struct lane reader;      /* of history */
	struct auditor *auditor; /* the one at work; others wait behind it */
	struct segments segments;
	struct loop_wake *wake;
	struct loop_timer *timer;
	unsigned ticks;
	pthread_mutex_t lock; /* guards done */
	pthread_cond_t done_wake;
	struct op *done, **done_tail;
	atomic_uint_least64_t served;   /* clock_usec when a client last handed in a message */
	atomic_uint large_waiting;      /* large bodies that are complete and not yet synced */
	struct op *later, **later_tail; /* done, and may wait: loop's thread only */
	struct loop_chore *chore;       /* which delivers them */
	size_t pending;                 /* ops posted and not completed; loop's thread only */
	atomic_bool closing;
	bool sweeping[QUEUE_LANES], dirty[QUEUE_LANES]; /* outbox to history */
	bool pruning;
	msec_t pruned;       /* monotonic: when that began last */
	msec_t trimmed;      /* and when it last gave up what it could, in vain */
	size_t outbox_max;   /* rows of one lane that wait for a history that fails */
	unsigned sweep_rest; /* ticks until the next sweep, after a failure */
	size_t failed; /* ops that failed since the last line about it, and the worst of them */
	struct lane *failed_lane;
	enum store_result failed_result;
	int failed_rc;
	LIST_HEAD(, move) moves; /* under way; loop's thread only */
	struct compact *compact;
	LIST_HEAD(, check) checks; /* begun and not over; loop's thread only */
	uint64_t check_number;     /* of the last one */
	struct op *again; /* what is asked again at the next tick: last halves of moves that failed,
	                   * and forgetting that is not through */
};
/* Whether a client has handed in a message within the last second. Any thread. */
bool store_is_serving(const struct store *store);
/* Writers hand their ops back through this, a chain at a time. */
void store_hand_back(struct store *store, struct op *first, struct op *last);
void store_post(struct store *store, struct lane *lane, struct op *op);
void store_tell(struct op *op);
/* Whether a move of that id is under way. Loop's thread. */
bool store_is_moving(const struct store *store, const struct queue_id *id);
/* Of an op that is nothing but itself: tells its asker and frees it. */
void store_complete(struct op *op);

/* --- store_domain.c --- */

bool has_domains(const struct lane *lane);
/* The message's entries in the index of domains, where the lane has one: put, or dropped. */
void txn_domains(struct lane_txn *txn, const struct store_message *message, bool drop);
bool txn_has_domain(struct lane_txn *txn, const char *domain, const struct queue_id *id);
/* All of them, in an environment that was made before there was an index. */
void txn_domains_make(struct lane_txn *txn);

/* --- notice.c --- */

struct notice { /* one notification to the sender of a message, from transaction to completion */
	struct queue_id id;
	enum dsn_action action;
	msec_t when;        /* composed */
	msec_t retry_until; /* DSN_DELAYED only */
	bool placed;        /* appended and counted: body says where */
	struct store_body body;
};
/* Composes and appends it and enqueues it in the transaction's own lane; count is at least 1, and
 * about has a sender. A failure sticks to the transaction. */
void notice_put(struct lane_txn *txn, struct notice *notice, const struct store_message *about,
                const struct dsn_recipient *recipients, size_t count);
/* What was put is not going to be true. */
void notice_withdraw(struct store *store, struct notice *notice);

/* --- compact.c --- */

struct compact *compact_new(struct store *store);
/* Once all its ops are done. */
void compact_free(struct compact *compact);
/* Once a second: the next share. */
void compact_tick(struct compact *compact);

/* --- store_ledger.c --- */

/* Adds a message's charge to the account's row of that minute. */
void txn_charge(struct lane_txn *txn, const char *account, const struct ledger_charge *charge);

/* Whether it is a row that can be read. */
bool ledger_row_reads(const MDB_val *key, const MDB_val *value);

/* --- check.c --- */

void checks_free(struct store *store);

/* --- recover.c --- */

/* After all environments are open and before any writer runs: 0, or -1 with the reason in error. */
int store_recover(struct store *store, char *error, size_t size);

/* --- history.c --- */

/* Copies the lane's outbox to history, a bounded batch at a time, until it is empty. */
void history_sweep(struct store *store, enum queue_lane lane);
/* Forgets what ended too long ago, and the oldest of what is too much. */
void history_prune(struct store *store, msec_t now);
/* Before any writer runs: what formats that knew no order of ends kept gets its place, once, as of
 * its acceptance; it is found by its id only. 0 or LMDB's error. */
int history_upgrade(struct store *store);
/* Adds what outbox and history know: recipients that are in no lane any more. *message may be NULL,
 * and stays so when nothing is known. */
void history_merge(struct store *store, const struct queue_id *id, struct store_message **message);
bool history_knows(struct store *store, const struct queue_id *id);

#endif
