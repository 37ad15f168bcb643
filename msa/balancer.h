/* Connections from load balancers (listen.balancers), until their PROXY header has said who the
 * client is. */
#ifndef MSA_BALANCER_H
#define MSA_BALANCER_H

#include <stdbool.h>
#include <sys/socket.h>

#include "msa/session.h"

/* Takes an accepted, non-blocking socket. Becomes a session of the client the header tells of, or
 * is closed: when there is none, when it is malformed, or after 5 s. */
void balancer_take(struct msa *msa, int fd_take, const struct sockaddr *peer, bool implicit_tls);
/* Closes those that wait. */
void balancer_stop(struct msa *msa);

#endif
