/* Internals that the files of the schedule share: the window and what is in it. schedule.c tells
 * the story. */
#ifndef QUEUE_SCHEDULE_INT_H
#define QUEUE_SCHEDULE_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "queue/egress.h"
#include "queue/fair.h"
#include "queue/hold.h"
#include "queue/proto.h"
#include "queue/reply_rules.h"
#include "queue/schedule.h"
#include "queue/sites.h"

#define IDLE       50 /* pending jobs: below that a domain or account has no backlog */
#define BUCKETS    4096
#define HEAD_START (20 * FAIR_RECIPIENT) /* that one step of priority is worth */

TAILQ_HEAD(job_queue, job);

/* What is in memory of a lane: so many messages, recipients in them; and for fresh mail to sites
 * without a backlog as much again. */
struct lane_window {
	unsigned messages;
	size_t recipients;
};
extern const struct lane_window windows[QUEUE_LANES];

struct load { /* that something has in its lane */
	unsigned in_flight;
	unsigned pending;
	size_t recipients; /* in what is pending */
};

struct account { /* one account in one lane; exists while it has a job */
	LIST_ENTRY(account) bucket;
	struct lane *lane;
	struct fair_account fair;
	unsigned weight;
	char class[CONF_CLASS_SIZE]; /* which it follows from; see schedule_weight.c */
	uint32_t asked;              /* the question to auth about that; 0: none */
	msec_t told;                 /* when it was last answered, monotonic; 0: never */
	struct load load;
	char name[];
};

struct line { /* of jobs for one site in one lane; exists while it has one */
	LIST_ENTRY(line) bucket;
	TAILQ_ENTRY(line) turn; /* in lane->turns while is_ready */
	struct lane *lane;
	struct site *site;
	bool is_ready;
	bool answers; /* its site does; when it was settled last */
	int64_t rank; /* among the turns: its first job's */
	struct load load;
	struct job_queue pending; /* in order of rank */
	struct job_queue flight;
};

enum job_state {
	JOB_NEW,       /* in none of the lane's lists */
	JOB_PENDING,   /* in its line */
	JOB_IN_FLIGHT, /* at the relay */
	JOB_FINISHING, /* outcome with the store; its place at the relay is free again */
};

struct job {
	LIST_ENTRY(job) link;    /* in lane->jobs while in flight or finishing */
	LIST_ENTRY(job) sibling; /* in message->jobs */
	TAILQ_ENTRY(job) queue;  /* in line->pending or line->flight */
	int64_t tag;             /* see queue/fair.h; 0 before it was pending */
	int64_t rank;            /* in line->pending: the tag less the head start */
	uint64_t number;
	enum job_state state;
	struct lane *lane;
	struct message
	    *message;      /* NULL: carried over, and the message is not in this lane any more */
	struct line *line; /* NULL while new or finishing */
	struct account *account; /* the same; and of a job without a message */
	char *domain;
	char *next_hop;      /* where an operator sends it; "": where the configuration does */
	msec_t began;        /* in flight; schedule's clock */
	struct relay *relay; /* that has it, or had it last; NULL: none */
	bool slow;           /* it has one of the places for slow sites */
	struct queue_id id;
	uint16_t index[PROTO_JOB_MAX];
	unsigned count;
	unsigned ended;          /* recipients that the outcome under way ends */
	uint32_t asked;          /* the question to auth about its account's class; 0: none */
	bool asking;             /* in flight, but not sent: the class is not known yet */
	struct ipc_from waiting; /* whom to acknowledge; channel 0: nobody */
};

struct message { /* one round of one message */
	LIST_ENTRY(message) bucket;
	struct schedule *schedule;
	struct lane *lane;
	struct store_message *stored;
	LIST_HEAD(, job) jobs; /* not ended */
	unsigned open;         /* jobs without an outcome */
	unsigned finishing;    /* jobs whose outcome is on its way to the disk */
	unsigned unfinished;   /* recipients */
	unsigned attempt;
	bool deferred;     /* some outcome of the round left a recipient unfinished */
	bool slow;         /* at a slow site */
	unsigned reply;    /* enum reply_class of the last of them that was attempted */
	msec_t not_before; /* and none of these was an attempt: what the first site waits for */
	bool chosen;       /* and next_due says when it is due again */
	bool *carried;  /* which recipients relays had already, by index, while some of these have
	                   not been heard; then it is cut. NULL: it is, or will be at once */
	bool held_back; /* some of it was not cut because of a hold, or taken back */
	unsigned held_as_of; /* generation of the holds then */
	msec_t next_due;
	enum queue_lane target;  /* where it goes then */
	store_on_done *on_moved; /* an operator waits for it; or NULL */
	void *moved_arg;
};

struct relay {                   /* a process that drains a lane, and its places */
	struct ipc_from channel; /* channel 0: it is not there */
	bool ready;              /* it has said HELLO */
	unsigned offered, in_flight;
};

struct refill {             /* one walk through what is due, in steps */
	msec_t now, latest; /* due behind the latest was written before the clock was set back */
	msec_t next;        /* due time of the first that is not due yet; 0: none seen */
	struct store_key from, beyond; /* seen up to here; behind the latest */
	struct store_key passed;       /* the last one for which there was room */
	bool swept;                    /* it began where the last one stopped */
	bool full;
	bool from_front; /* nothing was left behind yet */
	bool again;      /* another one is to follow */
	unsigned skipped, held;
	unsigned loaded, left; /* left: that this step may load */
};

struct lane {
	struct schedule *schedule;
	enum queue_lane lane;
	bool ready; /* some relay is, and all that were there have been heard: see schedule.c */
	struct relay *relays;
	size_t relay_count;
	unsigned in_flight; /* at all relays */
	unsigned slow_in_flight;
	struct load silent;    /* of all lines whose sites do not answer, or nobody has met */
	LIST_HEAD(, job) jobs; /* in flight and finishing */
	LIST_HEAD(, line) lines[BUCKETS];
	LIST_HEAD(, account) accounts[BUCKETS];
	TAILQ_HEAD(turns, line) turns; /* with pending jobs and a free place, by rank */
	struct fair fair;
	unsigned messages; /* in the window */
	size_t recipients; /* in them */
	bool more;         /* due messages may be left on disk */
	bool skipped;      /* the last refill left some of a crowded domain behind */
	struct store_key
	    sweep;          /* where a refill that left some behind goes on; zero: at the front */
	msec_t swept_until; /* as far as that goes, so that it ends */
	bool front_turn;    /* the next refill begins at the front all the same */
	struct store_key front; /* what is due up to here is in the window or held */
	msec_t refilled;        /* monotonic */
	struct refill refill;
	bool refilling;          /* it goes on */
	struct loop_timer *step; /* of fresh, instead of filling */
	struct loop_chore *filling, *dispatching;
	struct loop_timer *timer;
	msec_t wake; /* schedule's clock the timer is armed for; 0: none */
};

struct schedule {
	struct loop *loop;
	struct store *store;
	struct ipc_hub *hub;
	const struct conf *conf;
	struct holds *holds;
	struct reply_rules *replies;
	struct sites *sites;
	struct loop_timer *site_timer; /* the next line whose site lets one begin later */
	msec_t site_wake;              /* what it is armed for; 0: nothing */
	struct wakes *wakes;
	struct orders *orders;
	bool stopped;
	msec_t now, mono; /* the schedule's clock, and clock_mono then */
	msec_t longest;   /* that anything waits, by any configuration since the start */
	uint64_t next_number;
	unsigned strays; /* jobs of no round */
	LIST_HEAD(, message) ids[BUCKETS];
	struct lane lanes[QUEUE_LANES];
	struct relay *relays; /* of all lanes, by their index */
	struct egress *egress;
	struct ipc_link *auth;
	bool is_weighted;              /* not all classes weigh the same */
	struct quota *quota;           /* whose clock is believed */
	struct loop_timer *held_timer; /* the next look at what senders hold */
	msec_t held_wake;              /* what it is armed for; 0: nothing */
	unsigned releasing;            /* changes under way */
};

/* --- schedule.c --- */

/* Places that the relays offer, as far as the lane's budget goes. */
unsigned lane_capacity(const struct lane *lane);
void lane_wake_at(struct lane *lane, msec_t when);
/* Much may be due that was not, or was held: begins anew. */
void lane_look_again(struct lane *lane);
/* What is due before the front may be neither in the window nor held. */
void lane_front_reset(struct lane *lane);
/* A message that is not in the window is due then. */
void lane_due_at(struct lane *lane, msec_t due);
/* Begins to load due messages into the window as far as there is room, from the front, or where the
 * last one stopped. */
void lane_refill(struct lane *lane);
/* Hands pending jobs to the relays as far as they have places; in the slow lanes as a chore. */
void lane_dispatch(struct lane *lane);
/* The same for all: a place at a site is a place for any lane. */
void lanes_dispatch(struct schedule *schedule);
/* A message has left the window: both of the above, as far as needed. */
void lane_poke(struct lane *lane);

/* --- schedule_window.c --- */

struct message *message_find(const struct schedule *schedule, const struct queue_id *id);
/* Brings a message into the window without cutting it; NULL when it is not in that lane. */
struct message *message_load(struct lane *lane, const struct queue_id *id);
/* Cuts what is neither in `taken` (by index, may be NULL) nor held into pending jobs. */
void message_cut(struct message *message, const bool *taken);
/* The same for a round that begins: it may go to another lane instead. May free it. */
void message_begin(struct message *message);
void message_free(struct message *message);
/* What is in force for the recipient, whole being what is for the whole message; NULL: nothing. */
const struct queue_hold *hold_of_recipient(const struct schedule *schedule,
                                           const struct store_message *stored,
                                           const struct queue_hold *whole,
                                           const struct store_recipient *recipient);
bool is_hold(const struct queue_hold *hold);
/* It ends what it is in force for. */
bool is_end(const struct queue_hold *hold);
/* The host that the recipient goes to as an operator wants, hold being in force for it or NULL; "":
 * none does. Borrowed. */
const char *next_hop_wanted(const struct queue_hold *hold, const struct store_recipient *recipient);
/* Where the message is to wait, as an operator wants; otherwise: none does. */
enum queue_lane lane_wanted(const struct schedule *schedule, const struct store_message *stored,
                            enum queue_lane otherwise);
/* The hold that stands before all that is unfinished, or one of several; NULL: none does. Takes a
 * message with its recipients. */
const struct queue_hold *hold_of_all(const struct schedule *schedule,
                                     const struct store_message *stored);
struct line *line_find(const struct lane *lane, const char *site);
struct account *account_find(const struct lane *lane, const char *name);
/* Puts the line where its state says: among the turns, out of them, or out of memory. */
void line_settle(struct line *line);
/* It has another weight: what of it is pending comes to another place. */
void account_weigh(struct account *account, unsigned weight);
struct job *job_new(struct lane *lane, struct message *message, const struct queue_id *id,
                    const char *domain, const char *next_hop);
void job_free(struct job *job);
/* Takes it out of where it is and puts it where the state says. One that has been pending before
 * comes to its old place. */
void job_to(struct job *job, enum job_state state);

/* --- schedule_share.c --- */

bool lane_has_room(const struct lane *lane);
/* Whether what is for its sites, or of its account, has its share of the window, or of window and
 * reserve. */
bool is_crowded(const struct message *message, bool reserve);
/* What goes to the relay next; NULL: nothing may, or there is no place. */
struct job *lane_next(const struct lane *lane);

/* --- schedule_outcome.c --- */

const struct store_recipient *recipient_of(const struct store_message *stored, uint16_t index);
/* Takes the outcomes of a job in flight (or one that could not even start) to the store. rules: as
 * reply_judge gave them; NULL: nobody was asked. */
void job_finish(struct job *job, const struct queue_contact *contact,
                const struct queue_outcome *outcomes, const struct conf_reply_rule *const *rules,
                size_t count, struct ipc_from waiting);
/* Its site waits: it is deferred without an attempt. */
void job_put_off(struct job *job);
/* All outcomes of the round are durable. */
void round_end(struct message *message);
/* Nothing of the round is at a relay or on its way to the disk, nor waits for either. */
bool round_is_over(const struct message *message);
/* Whether its sender wants it back rather than delivered now (RFC 2852). */
bool is_overdue(const struct message *message);
struct ending { /* of what is deferred when its time is over */
	enum store_state state;
	char words[80]; /* in front of the last answer */
};
/* rule NULL: none fits; ending NULL: it is not over. */
void to_stored(const struct queue_outcome *in, const struct conf_reply_rule *rule,
               const struct ending *ending, struct store_outcome *out);
/* Appends what an outcome remembers of a reply: one line, cut where the store's record ends. */
void reply_add(char out[STORE_REPLY_MAX + 1], const struct reply *reply);
void log_outcome(const struct queue_id *id, const struct store_message *stored,
                 const struct store_outcome *outcome, unsigned attempt);

/* --- schedule_reply.c --- */

/* Asks the reply rules: the fate is then what they say. The rule is borrowed until the next reload;
 * NULL: none fits. */
const struct conf_reply_rule *reply_judge(struct schedule *schedule, const struct queue_id *id,
                                          const char *domain, const struct queue_contact *contact,
                                          struct queue_outcome *outcome);
/* And what they say of the site. Gives site events. */
unsigned replies_told(const struct job *job, struct site *site, const struct queue_contact *contact,
                      const struct conf_reply_rule *const *rules,
                      const struct queue_outcome *outcomes, size_t count);

/* --- schedule_held.c --- */

void held_open(struct schedule *schedule);
void held_close(struct schedule *schedule);
/* Since when it is on its way: its acceptance, or the end of its sender's hold. */
msec_t begun(const struct store_message *stored);

/* --- schedule_act.c --- */

/* Ends recipients of a message in the window by what is in force for them; outcomes is taken. */
void message_end(struct message *message, struct store_outcome *outcomes, size_t count);

/* --- schedule_site.c --- */

void sites_open(struct schedule *schedule);
void sites_close(struct schedule *schedule);
/* Where the lane's mail for the domain goes; next_hop as a job has it. */
struct site *site_for(struct lane *lane, const char *domain, const char *next_hop);
/* The same, as far as it is known; NULL: it is not. */
struct site *site_peek(const struct lane *lane, const char *domain, const char *next_hop);
/* Its line; NULL: there is none. */
struct line *line_for(const struct lane *lane, const char *domain, const char *next_hop);
/* Whether the line's site lets one more job of this lane begin. */
bool line_may_begin(struct line *line);
/* How many of the site's places are this lane's. */
unsigned line_places(const struct line *line);
/* Looks again at all lines. */
void lines_settle(struct schedule *schedule);
/* Looks again at the site's lines in all lanes. */
void site_settle(struct schedule *schedule, struct site *site);
/* What the attempt met. Call before the job is finished; *events are for site_told, after. */
struct site *site_hear(struct job *job, const struct queue_contact *contact,
                       const struct queue_outcome *outcomes, size_t count, unsigned *events);
void site_told(struct schedule *schedule, struct site *site, unsigned events);

/* --- schedule_wake.c --- */

struct wakes *wakes_new(struct schedule *schedule);
void wakes_stop(struct wakes *wakes);
/* After the store was closed. */
void wakes_free(struct wakes *wakes);
/* The site answers again: what waits for it in retry and fallback becomes due, a page at a time, as
 * long as it answers. */
void wakes_begin(struct wakes *wakes, const struct site *site);

/* --- schedule_egress.c --- */

/* A job in flight: hands it out with the addresses it may leave from, now or when they are known;
 * or gives it up. */
void job_route_out(struct job *job);
/* It leaves flight. */
void job_stop_asking(struct job *job);
void egress_open(struct schedule *schedule);
/* After the last job is gone. */
void egress_close(struct schedule *schedule);

/* --- schedule_weight.c --- */

/* It is new; class as its message was accepted with. */
void account_begin(struct account *account, const char *class);
/* A job of it comes: asks what class it has, if that is not known of late. */
void account_ask(struct account *account);
void account_stop_asking(struct account *account);
/* The configuration is another. */
void weights_reload(struct schedule *schedule);

/* --- schedule_order.c --- */

#define ORDERS_MAX 1000

/* What operators want of sites. Reads the store's. */
struct orders *orders_new(struct schedule *schedule);
void orders_stop(struct orders *orders);
/* After the store was closed. */
void orders_free(struct orders *orders);
/* Whether any is suspended. */
bool orders_suspend(const struct orders *orders);
/* A domain that was thought to be a site of its own turns out to be served by another: what was
 * ordered goes with it. */
void orders_move(struct orders *orders, const struct site *from, const struct site *to);
/* In force when on_done comes with QUEUE_DONE; a refusal, or what needs no disk, comes from inside
 * the call. */
typedef void orders_on_done(void *arg, enum queue_answer answer);
void orders_change(struct orders *orders, const struct queue_site_order *order,
                   orders_on_done *on_done, void *arg);

/* --- schedule_relay.c --- */

void relays_open(struct schedule *schedule);
/* After the last job is gone. */
void relays_close(struct schedule *schedule);
/* Places that they offer. */
unsigned lane_offered(const struct lane *lane);
/* To the relay, at last. */
void job_hand_out(struct job *job, const struct queue_egress *egress);
/* Ends a job in flight that goes to no relay. text NULL: the last answers stand. */
void job_give_up(struct job *job, const char *text);
void job_send(struct job *job);
void acknowledge(struct schedule *schedule, struct ipc_from to, bool durable);

#endif
