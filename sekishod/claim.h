/* What sekishod takes from the system for its whole life: users, directories, the admin socket. */
#ifndef SEKISHOD_CLAIM_H
#define SEKISHOD_CLAIM_H

#include <stdint.h>

#include "sekishod/activation.h"
#include "sekishod/check.h"

struct claim {
	int admin; /* the listening socket */
	int spool; /* O_DIRECTORY */
	int accounts;
	uint32_t uid, gid; /* of privilege.user; SERVICE_KEEP_USER unless we are root */
	uint32_t network_uid, network_gid; /* of privilege.network_user */
	char *admin_socket;                /* to unlink at the end; NULL: nothing */
};

/* Users only, for -t as well. 0, or -1 after saying why with the place in the file. */
int claim_users(struct claim *claim, const struct check *check);
/* The rest. 0, or -1 after saying why; what was claimed until then goes with the process. */
int claim_take(struct claim *claim, const struct check *check, struct activation *activation);
/* Unlinks the admin socket, if it was bound. */
void claim_release(struct claim *claim);

/* True a moment later, false once this process has waited for 2 s over all: for what a dying
 * service still holds. */
bool claim_wait(void);

#endif
