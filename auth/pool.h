/* A few threads for what would hold up the loop: password checks, which are milliseconds of pure
 * CPU, and writing to the store. The loop hands in a job and gets it back; while the pool has it
 * the loop must not touch it. Clients take turns (auth/turns.h). */
#ifndef AUTH_POOL_H
#define AUTH_POOL_H

#include <stdbool.h>

#include "auth/turns.h"
#include "core/loop.h"

struct pool_job { /* embedded in what is to be done */
	struct turns_job waiting;
	struct pool_job *next;
	void (*work)(struct pool_job *job); /* in a thread */
	/* In the loop, when worked is true; or at once and inside pool_run, when there was no room
	 * for this job or for an older one. */
	void (*done)(struct pool_job *job, bool worked);
};

/* Threads start with the first job, not now: a sandbox binds the thread that enters it and what
 * that thread starts later. One pool in a process, for its life. */
void pool_init(struct loop *loop);
void pool_run(const char *client, struct pool_job *job);

#endif
