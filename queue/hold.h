/* What operators want of all that a selector selects, and want of what comes later, too: that it is
 * not attempted for now, ends, or goes to another lane; private to sekisho-queue.
 *
 * Each is one durable directive, whatever the number of messages, and is asked at dispatch, so it
 * also concerns what arrives later. It ends when it is released, or by itself at its time. */
#ifndef QUEUE_HOLD_H
#define QUEUE_HOLD_H

#include <stdbool.h>
#include <stddef.h>

#include "core/loop.h"
#include "queue/control.h"
#include "queue/match.h"
#include "queue/store.h"

#define HOLDS_MAX      10000
#define HOLDS_LOOK_MAX 100 /* of those that each message is compared with, see hold.c */

struct holds;
/* Reads the store's. on_change: what is held has changed; ended: something is not held any more. */
typedef void holds_on_change(void *arg, bool ended);
struct holds *holds_new(struct loop *loop, struct store *store, holds_on_change *on_change,
                        void *arg);
/* After the store was closed. NULL is harmless. */
void holds_free(struct holds *holds);

/* Until then nothing is known of sites. */
void holds_know_sites(struct holds *holds, match_site *site, void *arg);

/* What is in force for the whole message, or for one recipient of it; a hold before others. NULL:
 * nothing. */
const struct queue_hold *holds_of_message(const struct holds *holds,
                                          const struct store_message *message);
const struct queue_hold *holds_of_recipient(const struct holds *holds,
                                            const struct store_message *message,
                                            const struct store_recipient *recipient);
/* Of two that may be NULL, the one that is obeyed. */
const struct queue_hold *holds_first(const struct queue_hold *one, const struct queue_hold *other);
/* What a recipient that it ends is said to have got, or who reroutes it and why. Returns out. */
char *holds_words(const struct queue_hold *hold, char out[STORE_REPLY_MAX + 1]);
/* Where a reroute goes: the lane's name, or its next hop; of other actions "". */
const char *holds_goal(const struct queue_hold *hold);
/* Its name in the log: "hold account NAME", "reroute site NAME to fallback". Returns out. */
#define HOLDS_NAME_SIZE (QUEUE_SELECTOR_TEXT_SIZE + CONF_HOST_TEXT_SIZE + 16)
char *holds_name(const struct queue_hold *hold, char out[HOLDS_NAME_SIZE]);
/* Whether any is of recipients: else they need no look. */
bool holds_have_recipients(const struct holds *holds);
/* Another number after each change. */
unsigned holds_generation(const struct holds *holds);

/* Durable and in force when on_done comes with QUEUE_DONE; a refusal comes from inside the call. A
 * hold replaces one of the same selector. QUEUE_LIMIT: there are HOLDS_MAX, or HOLDS_LOOK_MAX.
 * QUEUE_NOT_FOUND: nothing to release. */
typedef void holds_on_done(void *arg, enum queue_answer answer);
void holds_put(struct holds *holds, const struct queue_hold *hold, holds_on_done *on_done,
               void *arg);
void holds_release(struct holds *holds, const struct queue_selector *selector, const char *by,
                   holds_on_done *on_done, void *arg);

/* At most max in order of making, without the first ones. */
typedef void holds_on_hold(void *arg, const struct queue_hold *hold);
size_t holds_page(const struct holds *holds, size_t first, size_t max, holds_on_hold *on_hold,
                  void *arg);

#endif
