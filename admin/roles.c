#include "admin/roles.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"

#define GROUPS_MAX 65536 /* of Linux */

const char *
role_name(enum role role)
{
	static const char *const names[] = {"none", "look", "operate", "admin"};

	assert((size_t)role < sizeof(names) / sizeof(names[0]));
	return names[role];
}

int
roles_peer_init(struct roles_peer *peer, int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	*peer = (struct roles_peer){.uid = (uid_t)-1, .gid = (gid_t)-1};
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return -1;
	peer->uid = cred.uid;
	peer->gid = cred.gid;
	/* Too little room is answered with how much it takes. */
	len = 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE ||
	    len > GROUPS_MAX * sizeof(gid_t))
		return 0;
	peer->groups = xmalloc(len);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &len) == 0)
		peer->group_count = len / sizeof(gid_t);
	return 0;
}

void
roles_peer_clear(struct roles_peer *peer)
{
	free(peer->groups);
	*peer = (struct roles_peer){.uid = (uid_t)-1, .gid = (gid_t)-1};
}

static const struct conf_names *
names_of(enum role role, const struct conf *conf)
{
	switch (role) {
	case ROLE_LOOK:
		return &conf->admin_look;
	case ROLE_OPERATE:
		return &conf->admin_operate;
	case ROLE_ADMIN:
		return &conf->admin_admin;
	case ROLE_NONE:
		break;
	}
	abort();
}

static bool
is_member(const struct roles_peer *peer, gid_t gid)
{
	if (peer->gid == gid)
		return true;
	for (size_t i = 0; i < peer->group_count; i++)
		if (peer->groups[i] == gid)
			return true;
	return false;
}

void
roles_by(const struct roles_peer *peer, const struct conf *conf, char by[ROLES_BY_SIZE])
{
	const char *name = peer->uid == 0 ? "root" : NULL;

	for (enum role role = ROLE_ADMIN; role > ROLE_NONE && name == NULL; role--) {
		const struct conf_names *names = names_of(role, conf);

		for (size_t i = 0; i < names->count; i++)
			if (!names->list[i].group && names->list[i].id == peer->uid)
				name = names->list[i].name;
	}
	if (name != NULL)
		snprintf(by, ROLES_BY_SIZE, "%.40s (uid %u)", name, (unsigned)peer->uid);
	else
		snprintf(by, ROLES_BY_SIZE, "uid %u", (unsigned)peer->uid);
}

enum role
roles_of(const struct roles_peer *peer, const struct conf *conf)
{
	if (peer->uid == (uid_t)-1)
		return ROLE_NONE;
	if (peer->uid == 0 || peer->uid == geteuid())
		return ROLE_ADMIN;
	for (enum role role = ROLE_ADMIN; role > ROLE_NONE; role--) {
		const struct conf_names *names = names_of(role, conf);

		for (size_t i = 0; i < names->count; i++) {
			const struct conf_name *name = &names->list[i];

			if (name->id != CONF_NO_ID &&
			    (name->group ? is_member(peer, name->id) : name->id == peer->uid))
				return role;
		}
	}
	return ROLE_NONE;
}

void
roles_holders(enum role role, const struct conf *conf, char *out, size_t size)
{
	struct buf text;

	buf_init(&text);
	buf_add_str(&text, "root");
	for (; role <= ROLE_ADMIN; role++) {
		const struct conf_names *names = names_of(role, conf);

		buf_printf(&text, ", admin.%s (", role_name(role));
		for (size_t i = 0; i < names->count; i++)
			buf_printf(&text, "%s%s%s", i > 0 ? ", " : "",
			           names->list[i].group ? "@" : "", names->list[i].name);
		buf_add_str(&text, names->count > 0 ? ")" : "nobody)");
	}
	snprintf(out, size, "%s", buf_str(&text));
	buf_clear(&text);
}
