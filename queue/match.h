/* Whether a message, or a recipient of it, is what an operator selects; private to sekisho-queue.
 */
#ifndef QUEUE_MATCH_H
#define QUEUE_MATCH_H

#include "queue/selector.h"
#include "queue/store.h"

/* The name of the site that serves a domain, or of the site of that name; NULL: it is not known. */
typedef const char *match_site(void *arg, const char *name);

/* All conditions but those of recipients. now: wall clock. */
bool match_message(const struct queue_selector *selector, const struct store_message *message,
                   msec_t now);
/* Those of recipients: true without any. Only of one that has not ended. */
bool match_recipient(const struct queue_selector *selector, const struct store_recipient *recipient,
                     match_site *site, void *arg);
/* Both: how many recipients of the message, loaded with them, are selected. */
size_t match_count(const struct queue_selector *selector, const struct store_message *message,
                   msec_t now, match_site *site, void *arg);

/* What is left to be known when all is over: whether no condition can have changed in the life of
 * the message (site, lane, age and last reply can), and it, or a recipient of it, is selected. */
bool match_lasting(const struct queue_selector *selector, const struct store_message *message);

#endif
