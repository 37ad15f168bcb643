/* How old what waits is, by lane and site; private to sekisho-queue. */
#ifndef QUEUE_AGE_H
#define QUEUE_AGE_H

#include "core/buf.h"
#include "queue/match.h"
#include "queue/store.h"

/* A share: what the next messages behind *after (NULL: the first) come to, appended as the answer
 * to PROTO_AGES. site: what serves a domain; a domain of no known site stands for itself. */
void age_share(struct store *store, const struct queue_id *after, match_site *site, void *arg,
               struct buf *out);

#endif
