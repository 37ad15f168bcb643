/* Listening sockets that systemd has opened for us: sd_listen_fds(3). */
#ifndef SEKISHOD_ACTIVATION_H
#define SEKISHOD_ACTIVATION_H

#include "core/conf.h"
#include "core/service.h"
#include "sekishod/check.h"

struct activation;

/* Takes the sockets out of the way of descriptors with a fixed meaning. First thing in main, before
 * any other descriptor is opened and before the environment is cleaned. NULL: there are none. */
struct activation *activation_take(void);
/* The socket for a listener, which the caller closes: one whose name says its kind and that is
 * bound to this address. -1 when there is none. NULL is harmless, here and below. */
int activation_listener(struct activation *activation, enum service_listener kind,
                        const struct conf_address *address);
int activation_admin(struct activation *activation, const char *path);
/* What nobody asked for is a mistake: mail programs would wait there for ever. 0, or -1 after
 * saying which. Frees. */
int activation_end(struct activation *activation, const struct check *check);

#endif
