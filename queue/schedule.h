/* Which message goes to which relay, and when again: lanes, due times, jobs under way; private to
 * sekisho-queue. */
#ifndef QUEUE_SCHEDULE_H
#define QUEUE_SCHEDULE_H

#include <stdint.h>

#include "core/conf.h"
#include "core/ipc.h"
#include "core/loop.h"
#include "queue/hold.h"
#include "queue/quota.h"
#include "queue/store.h"

struct schedule;

/* All borrowed, the configuration until the next one. */
struct schedule *schedule_new(struct loop *loop, struct store *store, struct ipc_hub *hub,
                              struct holds *holds, struct quota *quota, const struct conf *conf);
/* Its schedule holds for every attempt that ends from now on; due times that are set stay. */
void schedule_reload(struct schedule *schedule, const struct conf *conf);
/* Hands nothing out any more; what the store still completes is taken in. */
void schedule_stop(struct schedule *schedule);
/* After the store was closed. */
void schedule_free(struct schedule *schedule);

/* Now, for due times: the wall clock, as long as that was never set back under this process. */
msec_t schedule_now(struct schedule *schedule);
/* A message was committed in its first lane: hand it out at due (as schedule_now has it; 0: at
 * once). */
void schedule_new_message(struct schedule *schedule, enum queue_lane lane,
                          const struct queue_id *id, msec_t due);
/* A message was committed that its sender holds until then (wall clock). */
void schedule_held_message(struct schedule *schedule, msec_t until);
/* Takes a channel to (a new incarnation of) sekisho-auth, which knows the classes of accounts. */
void schedule_attach_auth(struct schedule *schedule, int fd_take);
/* Begin, frames and end of a relay's channel. */
void schedule_attached(struct schedule *schedule, struct ipc_from peer);
void schedule_frame(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame);
void schedule_gone(struct schedule *schedule, struct ipc_from peer);
/* The NOC's questions and orders about sites and reply rules; false: it is something else. */
bool schedule_site_frame(struct schedule *schedule, struct ipc_from from,
                         const struct ipc_frame *frame);
/* Jobs at relays. */
uint64_t schedule_in_flight(const struct schedule *schedule);
/* Whether the message is in the window: being attempted, or about to be. */
bool schedule_is_active(const struct schedule *schedule, const struct queue_id *id);
/* What a queued message waits for; rule as struct queue_entry has it. Loads recipients where it
 * must. */
enum queue_state schedule_state(struct schedule *schedule, const struct store_message *message,
                                char rule[QUEUE_RULE_SIZE]);

/* The holds have changed; ended: something is not held any more. */
void schedule_holds_changed(struct schedule *schedule, bool ended);
struct schedule_share {       /* of one message, in recipients */
	uint32_t taken, busy; /* concerned; left alone because they are being attempted */
};
/* Ends as removed or bounced what of the message the selector's conditions of recipients select.
 * The message is as store_load_message gave it just now. on_done comes only if something was taken;
 * dry_run takes nothing and only counts. */
struct schedule_share schedule_end(struct schedule *schedule, const struct store_message *stored,
                                   const struct queue_selector *selector, enum store_state state,
                                   const char *why, bool dry_run, store_on_done *on_done,
                                   void *arg);
/* Makes it due then (as schedule_now has it), if it was deferred until later: else false, and
 * on_done does not come. */
bool schedule_flush(struct schedule *schedule, const struct store_message *stored, msec_t due,
                    bool dry_run, store_on_done *on_done, void *arg);
/* Moves it to another lane; false, and on_done does not come, when it is there, is being attempted
 * or about to be, its sender holds it, or nothing of it is left. */
bool schedule_move(struct schedule *schedule, const struct store_message *stored,
                   enum queue_lane to, bool dry_run, store_on_done *on_done, void *arg);
/* Sends what the selector's conditions of recipients select to another next hop, from the next
 * attempt on; as schedule_end. next_hop and why as store_reroute has them. */
struct schedule_share schedule_reroute(struct schedule *schedule,
                                       const struct store_message *stored,
                                       const struct queue_selector *selector, const char *next_hop,
                                       const char *why, bool dry_run, store_on_done *on_done,
                                       void *arg);
/* A match_site; arg is the schedule. */
const char *schedule_site(void *arg, const char *name);

#endif
