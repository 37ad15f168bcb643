/* Whether there is room for new mail; private to sekisho-queue, which has one spool, in its working
 * directory.
 *
 * Mail is refused early, so that what is queued can still be attempted, moved and ended: each of
 * these writes, too. */
#ifndef QUEUE_SPACE_H
#define QUEUE_SPACE_H

#include "core/conf.h"
#include "core/loop.h"
#include "queue/store.h"

struct space;
struct space *space_new(struct loop *loop, struct store *store, const struct conf *conf);
void space_free(struct space *space);
void space_reload(struct space *space, const struct conf *conf);

/* Whether a message of that many octets, 0 if that is not known, is taken now. */
bool space_has_room(const struct space *space, uint64_t size);

struct space_view {
	uint64_t disk_free, disk_reserve; /* octets; below the reserve mail is refused */
	uint64_t files_free;              /* UINT64_MAX where the filesystem does not count them */
	unsigned map_percent;             /* of queue.map_size, of the fullest database */
	const char *refusing;             /* why new mail is refused; "": it is not */
};
void space_look(const struct space *space, struct space_view *out);

#endif
