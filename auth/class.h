/* Asking sekisho-auth what an account's class is now; for the queue. */
#ifndef AUTH_CLASS_H
#define AUTH_CLASS_H

#include <stdbool.h>

#include "core/conf.h"
#include "core/ipc.h"

/* As ipc_link_call, whose answer auth_class_read understands. An account that was removed has the
 * class that it had then. No answer comes while the store cannot be read: ask again. */
uint32_t auth_class_ask(struct ipc_link *link, const char *account, ipc_on_reply *on_reply,
                        void *arg);
/* False when there never was such an account, or the answer is none. */
bool auth_class_read(const struct ipc_frame *frame, char class[CONF_CLASS_SIZE]);

#endif
