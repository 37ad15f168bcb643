/* Starts, wires, restarts and stops the processes of the service. */
#ifndef SEKISHOD_CHILDREN_H
#define SEKISHOD_CHILDREN_H

#include "core/conf.h"
#include "core/loop.h"
#include "sekishod/claim.h"

struct children;

/* Both are borrowed for the object's life. NULL after logging why: programs that cannot be found,
 * no memfd. */
struct children *children_new(struct loop *loop, const struct conf *conf,
                              const struct claim *claim);
void children_free(struct children *children);
/* Starts everybody; logs "service ready" once all are. */
void children_start(struct children *children);
/* Stops everybody in order, at most 10 s; then the loop stops. May be called repeatedly. */
void children_stop(struct children *children);

#endif
