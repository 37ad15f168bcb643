/* Everything sekishod takes from the system before it starts anybody: ports, the admin socket,
 * directories, users. */
#ifndef SEKISHOD_CLAIM_H
#define SEKISHOD_CLAIM_H

#include <stdint.h>

#include "core/conf.h"
#include "core/service.h"

struct claim_listener {
	enum service_listener kind;
	int fd;
};

struct claim {
	struct claim_listener *listeners;
	size_t listener_count;
	int spool; /* O_DIRECTORY */
	int accounts;
	int certificate; /* read-only; each child gets a description of its own */
	int key;
	int ca;         /* relay.ca_file, -1 when no route needs it */
	int *passwords; /* of each route with a user, in their order */
	size_t password_count;
	uint32_t uid, gid; /* of privilege.user; SERVICE_KEEP_USER unless we are root */
	uint32_t network_uid, network_gid; /* of privilege.network_user */
	unsigned waited;                   /* ms, for what a dying service still holds */
	const char *admin_socket; /* to unlink at the end; borrowed from the configuration */
};

/* Users only, for -t as well. 0, or -1 after printing why with the place in the file. */
int claim_users(struct claim *claim, const char *file, const struct conf *conf);
/* The rest. 0, or -1 after printing why; what was claimed until then goes with the process. */
int claim_take(struct claim *claim, const char *file, const struct conf *conf);
/* Unlinks the admin socket, if it was bound. */
void claim_release(struct claim *claim);

#endif
