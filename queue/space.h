/* Whether there is room for new mail; private to sekisho-queue, which has one spool, in its working
 * directory. */
#ifndef QUEUE_SPACE_H
#define QUEUE_SPACE_H

#include "core/conf.h"
#include "queue/store.h"

/* Why new mail is refused, while what is queued goes on: disk or map run low. "" when it is not. */
const char *space_shortage(struct store *store, const struct conf *conf);

#endif
