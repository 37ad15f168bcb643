#include "sekishod/children_int.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"

/* Who talks to whom: the calling side first. */
static const struct {
	enum service_role caller, server;
} pairs[] = {
    {SERVICE_MSA, SERVICE_AUTH},    {SERVICE_MSA, SERVICE_QUEUE},  {SERVICE_MSA, SERVICE_KEYS},
    {SERVICE_RELAY, SERVICE_QUEUE}, {SERVICE_ADMIN, SERVICE_AUTH}, {SERVICE_ADMIN, SERVICE_QUEUE},
    {SERVICE_QUEUE, SERVICE_AUTH},
};
#define PAIRS (sizeof(pairs) / sizeof(pairs[0]))

static void
send_listener(struct child *child, enum service_listener kind, int fd)
{
	struct buf fields;
	buf_init(&fields);
	wire_put_u8(&fields, (uint8_t)kind);
	child_send(child, SERVICE_FRAME_LISTENER, &fields, fd);
	buf_clear(&fields);
}

static void
pass_file(struct child *child, enum service_file file, unsigned index, int fd)
{
	struct buf fields;
	buf_init(&fields);
	wire_put_u8(&fields, (uint8_t)file);
	wire_put_u32(&fields, index);
	child_send(child, SERVICE_FRAME_FILE, &fields, fd);
	buf_clear(&fields);
}

static void
send_file(struct child *child, enum service_file file, unsigned index, int fd)
{
	int own = check_reopen(fd);
	if (own < 0) {
		log_error("-", "process", "file name=%s error=\"%s\"", child_name(child),
		          strerror(errno));
		child_give_up(child);
		return;
	}
	pass_file(child, file, index, own);
	close(own);
}

static void
send_link(struct child *child, const struct child *peer, int fd)
{
	struct buf fields;
	buf_init(&fields);
	wire_put_u8(&fields, (uint8_t)peer->program->role);
	wire_put_u32(&fields, peer->index);
	child_send(child, SERVICE_FRAME_LINK, &fields, fd);
	buf_clear(&fields);
}

/* A direction matters to readers of pairs[] only; the socket pair is symmetric. */
static bool
are_paired(const struct child *a, const struct child *b)
{
	enum service_role x = a->program->role, y = b->program->role;
	for (size_t i = 0; i < PAIRS; i++)
		if ((pairs[i].caller == x && pairs[i].server == y) ||
		    (pairs[i].caller == y && pairs[i].server == x))
			return true;
	return false;
}

static void
link_child(struct child *child)
{
	struct children *all = child->all;
	for (size_t i = 0; i < all->count; i++) {
		struct child *peer = &all->list[i];
		int ends[2];
		if (peer == child || peer->fd < 0 || !are_paired(child, peer))
			continue;
		/* Without one of its peers it would seem to run and refuse everything. */
		if (child->fd >= 0 && child_make_pair(ends) < 0)
			child_give_up(child);
		if (child->fd < 0)
			return;
		send_link(child, peer, ends[0]);
		send_link(peer, child, ends[1]);
		close(ends[0]);
		close(ends[1]);
	}
}

void
child_send_generation(struct child *child, const struct generation *generation)
{
	const struct program *program = child->program;
	size_t password = 0;
	if (program->certificate)
		send_file(child, SERVICE_CERTIFICATE, 0, generation->certificate);
	if (program->key)
		send_file(child, SERVICE_KEY, 0, generation->key);
	if (program->routes && generation->ca >= 0)
		send_file(child, SERVICE_CA, 0, generation->ca);
	for (size_t i = 0; program->routes && i < generation->conf->routes.count; i++)
		if (generation->conf->routes.list[i].user[0] != '\0')
			send_file(child, SERVICE_PASSWORD, (unsigned)i,
			          generation->passwords[password++]);
	if (program->routes && generation->conf->fallback_host.user[0] != '\0')
		send_file(child, SERVICE_PASSWORD, (unsigned)generation->conf->routes.count,
		          generation->passwords[password]);
	for (size_t i = 0; program->listeners && i < generation->listener_count; i++)
		send_listener(child, generation->listeners[i].kind, generation->listeners[i].fd);
}

void
child_equip(struct child *child)
{
	const struct children *all = child->all;
	const struct claim *claim = all->claim;
	const struct program *program = child->program;
	struct buf fields;
	buf_init(&fields);
	wire_put_u64(&fields, all->running->number);
	wire_put_u32(&fields, child->index);
	wire_put_u32(&fields, program->network ? claim->network_uid : claim->uid);
	wire_put_u32(&fields, program->network ? claim->network_gid : claim->gid);
	child_send(child, SERVICE_FRAME_CONFIG, &fields, all->running->snapshot);
	buf_clear(&fields);
	child_send_generation(child, all->running);
	if (program->directory != 0)
		pass_file(child, SERVICE_DIRECTORY, 0,
		          *(const int *)((const char *)claim + program->directory));
	if (program->admin)
		send_listener(child, SERVICE_ADMIN_SOCKET, claim->admin);
	link_child(child);
	child_tap(child);
	child_send(child, SERVICE_FRAME_START, NULL, -1);
}
