/* What admin may ask about who sends as whom: the frames GRANT to EXPLAIN of auth/proto.h. */
#ifndef AUTH_SENDERS_H
#define AUTH_SENDERS_H

#include "auth/accounts.h"
#include "core/conf.h"

/* Both are borrowed for the process's life; roster_init and pool_init come first. */
void senders_init(struct ipc_hub *hub, struct accounts *store);
/* Answers the frame, now or when the change is durable and open sessions were told. */
void senders_on_frame(const struct conf *conf, struct ipc_from from, uint16_t type,
                      struct wire *wire);

#endif
