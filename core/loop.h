/* The event loop: timers, descriptors, signals, wake-ups from threads. libevent's only home besides
 * core/conn.
 *
 * One loop per process, on its main thread. Callbacks run to completion; an object may be freed
 * from inside its own callback. */
#ifndef CORE_LOOP_H
#define CORE_LOOP_H

#include <stdbool.h>

#include "core/clock.h"

struct loop;
struct loop_timer;
struct loop_watch;
struct loop_wake;

struct loop *loop_new(void);
void loop_free(struct loop *loop);
/* Runs until loop_stop. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

typedef void loop_callback(void *arg);

/* A one-shot timer on clock_mono; armed again at will. */
struct loop_timer *loop_timer_new(struct loop *loop, loop_callback *on_timeout, void *arg);
void loop_timer_free(struct loop_timer *timer);
/* Fires once, delay milliseconds from now; replaces an earlier arming. delay < 0 counts as 0. */
void loop_timer_arm(struct loop_timer *timer, msec_t delay);
void loop_timer_cancel(struct loop_timer *timer);
bool loop_timer_is_armed(const struct loop_timer *timer);

#define LOOP_READ  1u
#define LOOP_WRITE 2u
typedef void loop_ready(void *arg, unsigned ready);
/* Level-triggered readiness of a descriptor, which stays the caller's; interest starts empty. */
struct loop_watch *loop_watch_new(struct loop *loop, int fd, loop_ready *on_ready, void *arg);
void loop_watch_free(struct loop_watch *watch);
void loop_watch_set(struct loop_watch *watch, unsigned interest);

/* Calls back on the loop for each delivery of signo, until the loop is freed. */
void loop_on_signal(struct loop *loop, int signo, loop_callback *on_signal, void *arg);

/* Rung from any thread; runs on the loop's thread, several rings possibly as one. */
struct loop_wake *loop_wake_new(struct loop *loop, loop_callback *on_wake, void *arg);
void loop_wake_free(struct loop_wake *wake);
void loop_wake_ring(struct loop_wake *wake);

/* Runs callback once, at the end of this turn of the loop, after all callbacks that are ready now.
 */
void loop_defer(struct loop *loop, loop_callback *callback, void *arg);

struct loop_chore;
/* Work that may wait, so that what somebody waits for need not: while begun, step is called until
 * it returns false. All chores of a loop share a quarter of its time, in slices of half a
 * millisecond between which everything that is ready has its turn; a step is to take less. */
struct loop_chore *loop_chore_new(struct loop *loop, bool (*step)(void *arg), void *arg);
void loop_chore_free(struct loop_chore *chore);
/* No step is made inside the call. What has begun goes on; from inside a step: one more follows. */
void loop_chore_begin(struct loop_chore *chore);
void loop_chore_cancel(struct loop_chore *chore);
/* Somebody is being served: for a second all of them together take a twentieth of the time. */
void loop_chores_yield(struct loop *loop);

struct event_base;
/* For core/conn and libraries that bring their own libevent glue (libunbound, evhttp). */
struct event_base *loop_base(struct loop *loop);

#endif
