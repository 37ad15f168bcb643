/* What became of messages, for admin: the queue's side of queue/trace.h; private to sekisho-queue.
 */
#ifndef QUEUE_TRACER_H
#define QUEUE_TRACER_H

#include <stdbool.h>

#include "core/ipc.h"
#include "queue/operate.h"
#include "queue/store.h"

/* False when the frame is none of ours. What it asks for is answered later. */
struct tracer;
struct tracer *tracer_new(struct ipc_hub *hub, struct store *store, struct operate *operate);
/* After the store was closed. NULL is harmless. */
void tracer_free(struct tracer *tracer);
bool tracer_frame(struct tracer *tracer, struct ipc_from from, const struct ipc_frame *frame);

#endif
