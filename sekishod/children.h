/* Starts, wires, restarts, reloads and stops the processes of the service. */
#ifndef SEKISHOD_CHILDREN_H
#define SEKISHOD_CHILDREN_H

#include <sys/types.h>

#include "core/loop.h"
#include "sekishod/claim.h"
#include "sekishod/generation.h"

struct children;

struct children_asker { /* sekisho-admin, as long as it is the same process */
	pid_t pid;
	uint32_t ask;
};

struct children_events {
	void (*on_ready)(void *arg); /* everybody runs, for the first time */
	void (*on_ask_reload)(void *arg, struct children_asker asker);
	void (*on_stopping)(void *arg);
};

/* Takes the generation to begin with; claim, events and arg are borrowed. NULL after logging why
 * (programs that cannot be found); the generation is freed. */
struct children *children_new(struct loop *loop, struct generation *first_take,
                              const struct claim *claim, const struct children_events *events,
                              void *arg);
void children_free(struct children *children);
const struct generation *children_running(const struct children *children);
/* Starts everybody; logs "service ready" once all are. */
void children_start(struct children *children);
bool children_are_stopping(const struct children *children);

/* Offers the generation, which is taken, to everybody. Calls back once, now or within 10 s: with
 * NULL once it is in force, otherwise with why it is not, a line. One at a time. */
typedef void children_on_reload(void *arg, const char *refusal);
void children_reload(struct children *children, struct generation *next_take,
                     children_on_reload *on_reload, void *arg);
/* "": the generation that runs is what was asked for. */
void children_answer_reload(struct children *children, struct children_asker asker,
                            const char *mistakes);

/* Stops everybody in order, in bounded time; then the loop stops. The second time: at once. */
void children_stop(struct children *children);

#endif
