/* What the NOC sees of messages and does to them: lists, details, holds, flushes, removals; private
 * to sekisho-queue. */
#ifndef QUEUE_OPERATE_H
#define QUEUE_OPERATE_H

#include <stdbool.h>

#include "core/buf.h"
#include "core/ipc.h"
#include "core/loop.h"
#include "queue/hold.h"
#include "queue/schedule.h"
#include "queue/store.h"

struct operate;
/* All borrowed. */
struct operate *operate_new(struct loop *loop, struct ipc_hub *hub, struct store *store,
                            struct schedule *schedule, struct holds *holds);
/* After the store was closed. NULL is harmless. */
void operate_free(struct operate *operate);
/* True when the frame was one of its questions; it is then answered, once. */
bool operate_frame(struct operate *operate, struct ipc_from from, const struct ipc_frame *frame);

/* As proto_entry reads it. */
void operate_put_entry(struct operate *operate, struct buf *frame,
                       const struct store_message *message);

#endif
