/* Which message goes to which relay, and when again: lanes, due times, jobs under way; private to
 * sekisho-queue. */
#ifndef QUEUE_SCHEDULE_H
#define QUEUE_SCHEDULE_H

#include <stdint.h>

#include "core/conf.h"
#include "core/ipc.h"
#include "core/loop.h"
#include "queue/store.h"

struct schedule;

/* All borrowed, the configuration until the next one. */
struct schedule *schedule_new(struct loop *loop, struct store *store, struct ipc_hub *hub,
                              const struct conf *conf);
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
/* Frames and end of a relay's channel. */
void schedule_frame(struct schedule *schedule, struct ipc_from from, const struct ipc_frame *frame);
void schedule_gone(struct schedule *schedule, struct ipc_from peer);
/* Jobs at relays. */
uint64_t schedule_in_flight(const struct schedule *schedule);
/* Whether the message is being attempted now. */
bool schedule_is_active(const struct schedule *schedule, const struct queue_id *id);

#endif
