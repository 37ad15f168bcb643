/* What admin may ask about accounts: the frames ADD to LIST of auth/proto.h. */
#ifndef AUTH_MANAGE_H
#define AUTH_MANAGE_H

#include "auth/accounts.h"
#include "core/conf.h"

/* Both are borrowed for the process's life; roster_init and pool_init come first. */
void manage_init(struct ipc_hub *hub, struct accounts *store);
/* Answers the frame, now or when the change is durable. */
void manage_on_frame(const struct conf *conf, struct ipc_from from, uint16_t type,
                     struct wire *wire);

#endif
