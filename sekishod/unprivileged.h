/* Work that sekishod may not do itself because it may be root: it is done in a child that may do
 * next to nothing. */
#ifndef SEKISHOD_UNPRIVILEGED_H
#define SEKISHOD_UNPRIVILEGED_H

#include <stdbool.h>

#include "core/buf.h"

/* Runs in the child; true with its result in out, false with a text for the operator. */
typedef bool unprivileged_work(void *arg, struct buf *out);

enum unprivileged_reach {
	UNPRIVILEGED_COMPUTES, /* in the sandbox of a process that opens nothing */
	UNPRIVILEGED_LOOKS, /* as nobody, but with the files and sockets that finding users takes */
};

/* Runs work and hands on what it returned. Waits for it, within bounds. */
bool unprivileged_run(unprivileged_work *work, void *arg, enum unprivileged_reach reach,
                      struct buf *out);
/* All of fd from where it stands, at most max octets. False with errno. */
bool unprivileged_read(int fd, struct buf *out, size_t max);

#endif
