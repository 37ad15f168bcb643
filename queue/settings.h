/* What the NOC sees of quotas and does to them: one account's use and limits, overrides, resets;
 * private to sekisho-queue. */
#ifndef QUEUE_SETTINGS_H
#define QUEUE_SETTINGS_H

#include <stdbool.h>

#include "core/ipc.h"
#include "queue/quota.h"
#include "queue/store.h"

struct settings;
/* All borrowed. */
struct settings *settings_new(struct ipc_hub *hub, struct store *store, struct quota *quota);
/* After the store was closed. NULL is harmless. */
void settings_free(struct settings *settings);
/* True when the frame was one of its questions; it is then answered, once. */
bool settings_frame(struct settings *settings, struct ipc_from from, const struct ipc_frame *frame);

#endif
