/* Who is at the other end of the admin socket, and what that one may do.
 *
 * The kernel says who: user, group and supplementary groups at the moment of connect. The
 * configuration says what: admin.look, admin.operate and admin.admin name users and groups. Root
 * and the service's own user may do everything, whatever it says. Evaluated anew for each request,
 * so a reload is in force at once, on open connections, too. */
#ifndef ADMIN_ROLES_H
#define ADMIN_ROLES_H

#include <stddef.h>
#include <sys/types.h>

#include "core/conf.h"

/* What a peer may do; each includes what stands before it. */
enum role {
	ROLE_NONE,
	ROLE_LOOK,    /* see */
	ROLE_OPERATE, /* change what mail does: quotas, the queue, sessions */
	ROLE_ADMIN,   /* accounts, and the service itself */
};
/* "none", "look", "operate", "admin" */
const char *role_name(enum role role);

struct roles_peer {
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* owned */
	size_t group_count;
};
/* -1 when the kernel does not say. */
int roles_peer_init(struct roles_peer *peer, int fd);
void roles_peer_clear(struct roles_peer *peer);

#define ROLES_BY_SIZE 64
/* For the record: "alice (uid 1000)" where the configuration names the user, else "uid 1000". */
void roles_by(const struct roles_peer *peer, const struct conf *conf, char by[ROLES_BY_SIZE]);
enum role roles_of(const struct roles_peer *peer, const struct conf *conf);
/* "root and admin.operate (alice, @noc)", for who may not; names that do not fit are left out. */
void roles_holders(enum role role, const struct conf *conf, char *out, size_t size);

#endif
