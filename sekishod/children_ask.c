#include "sekishod/children_int.h"

#include <string.h>
#include <unistd.h>

#include "core/log.h"

/* What processes say to sekishod. A child is no authority: it may say how it is, and only
 * sekisho-admin may ask for anything. */

static void
answer_processes(struct child *child, uint32_t ask)
{
	const struct children *all = child->all;
	struct buf fields;
	buf_init(&fields);
	wire_put_u32(&fields, ask);
	wire_put_u64(&fields, all->running->number);
	wire_put_u64(&fields, (uint64_t)all->running->loaded);
	wire_put_str(&fields, all->running->file);
	wire_put_u64(&fields, (uint64_t)all->running->expires);
	wire_put_u8(&fields, (uint8_t)log_level());
	wire_put_u32(&fields, (uint32_t)all->count);
	for (size_t i = 0; i < all->count; i++) {
		const struct child *each = &all->list[i];
		wire_put_u8(&fields, (uint8_t)each->program->role);
		wire_put_u32(&fields, each->index);
		wire_put_u32(&fields, (uint32_t)each->pid);
		wire_put_u64(&fields, (uint64_t)each->since);
		wire_put_u32(&fields, each->restarts);
		wire_put_u8(&fields, (uint8_t)each->level);
		wire_put_u8(&fields, (uint8_t)each->load);
		wire_put_str(&fields, each->layers);
	}
	child_send(child, SERVICE_FRAME_PROCESSES, &fields, -1);
	buf_clear(&fields);
}

static void
announce(struct children *all)
{
	for (size_t i = 0; i < all->count; i++)
		if (!all->list[i].ready)
			return;
	if (!all->announced)
		log_info("-", "service", "ready processes=%zu", all->count);
	if (!all->announced)
		all->events->on_ready(all->arg);
	all->announced = true;
}

static void
answer_level(struct child *child, uint32_t ask, unsigned count)
{
	struct buf fields;
	buf_init(&fields);
	wire_put_u32(&fields, ask);
	wire_put_u32(&fields, count);
	child_send(child, SERVICE_FRAME_LEVEL_SET, &fields, -1);
	buf_clear(&fields);
}

static bool
take_log_level(struct child *child, struct wire *wire)
{
	struct children *all = child->all;
	uint32_t ask = wire_u32(wire);
	unsigned role = wire_u8(wire), index = wire_u32(wire), level = wire_u8(wire), count = 0;
	struct buf fields;
	if (!wire_done(wire) || role > SERVICE_ROLES || level > LOG_LEVEL_DEBUG)
		return false;
	if (role == SERVICE_SEKISHOD || role == SERVICE_ROLES) {
		log_set_level((enum log_level)level);
		count++;
	}
	buf_init(&fields);
	wire_put_u8(&fields, (uint8_t)level);
	for (size_t i = 0; i < all->count; i++) {
		struct child *each = &all->list[i];
		if (each->fd < 0 || (role != SERVICE_ROLES && role != each->program->role) ||
		    (index != UINT32_MAX && index != each->index))
			continue;
		each->level = (enum log_level)level;
		child_send(each, SERVICE_FRAME_LOG_LEVEL, &fields, -1);
		count++;
	}
	buf_clear(&fields);
	answer_level(child, ask, count);
	return true;
}

static struct child *
find_admin(struct children *all)
{
	for (size_t i = 0; i < all->count; i++)
		if (all->list[i].program->role == SERVICE_ADMIN)
			return &all->list[i];
	return NULL;
}

/* The writing end, whose other end sekisho-admin has got; -1 when it did not work out. */
static int
open_tap(struct children *all, enum service_role role, unsigned index)
{
	struct child *admin = find_admin(all);
	struct buf fields;
	int ends[2];
	if (!all->tapped || admin->fd < 0 || child_make_pair(ends) < 0)
		return -1;
	buf_init(&fields);
	wire_put_u8(&fields, (uint8_t)role);
	wire_put_u32(&fields, index);
	child_send(admin, SERVICE_FRAME_TAPPED, &fields, ends[1]);
	buf_clear(&fields);
	close(ends[1]);
	return ends[0];
}

void
child_tap(struct child *child)
{
	int fd = child->fd >= 0 ? open_tap(child->all, child->program->role, child->index) : -1;
	if (fd < 0)
		return;
	child_send(child, SERVICE_FRAME_TAP, NULL, fd);
	close(fd);
}

void
children_untap(struct children *all)
{
	all->tapped = false;
	log_tap(-1);
}

static void
take_tap(struct children *all, bool wanted)
{
	children_untap(all);
	all->tapped = wanted;
	if (!wanted)
		return;
	log_tap(open_tap(all, SERVICE_SEKISHOD, 0));
	for (size_t i = 0; i < all->count; i++)
		child_tap(&all->list[i]);
}

/* Only of sekisho-admin. */
static bool
admin_frame(struct child *child, enum service_frame type, struct wire *wire)
{
	struct children *all = child->all;
	uint32_t ask;
	bool wanted;
	switch (type) {
	case SERVICE_FRAME_ASK_PROCESSES:
		ask = wire_u32(wire);
		if (wire_done(wire))
			answer_processes(child, ask);
		break;
	case SERVICE_FRAME_ASK_STOP:
		if (wire_done(wire))
			children_stop(all);
		break;
	case SERVICE_FRAME_ASK_RELOAD:
		ask = wire_u32(wire);
		if (wire_done(wire))
			all->events->on_ask_reload(all->arg,
			                           (struct children_asker){child->pid, ask});
		break;
	case SERVICE_FRAME_ASK_LOG_LEVEL:
		return take_log_level(child, wire);
	case SERVICE_FRAME_ASK_TAP:
		wanted = wire_u8(wire) != 0;
		if (wire_done(wire))
			take_tap(all, wanted);
		break;
	default:
		return false;
	}
	return wire_done(wire);
}

bool
child_frame(struct child *child, enum service_frame type, struct wire *wire)
{
	char refusal[512];
	uint32_t offer;
	unsigned load;
	switch (type) {
	case SERVICE_FRAME_LOAD:
		load = wire_u8(wire);
		if (!wire_done(wire) || load >= SERVICE_LOADS)
			return false;
		child->load = (enum service_load)load;
		return true;
	case SERVICE_FRAME_READY:
		wire_str(wire, child->layers, sizeof(child->layers));
		if (!wire_done(wire) || child->ready)
			return false;
		child->ready = true;
		log_info("-", "process", "up name=%s index=%u pid=%d layers=%s", child_name(child),
		         child->index, (int)child->pid, child->layers);
		announce(child->all);
		children_reload_ready(child);
		return true;
	case SERVICE_FRAME_PREPARED:
		offer = wire_u32(wire);
		wire_str(wire, refusal, sizeof(refusal));
		if (!wire_done(wire))
			return false;
		child_prepared(child, offer, refusal);
		return true;
	default:
		return child->program->role == SERVICE_ADMIN && admin_frame(child, type, wire);
	}
}

void
children_answer_reload(struct children *all, struct children_asker asker, const char *mistakes)
{
	struct child *admin = find_admin(all);
	struct buf fields;
	size_t len = strlen(mistakes);
	if (admin->pid != asker.pid || admin->fd < 0)
		return;
	buf_init(&fields);
	wire_put_u32(&fields, asker.ask);
	wire_put_u64(&fields, all->running->number);
	wire_put_bytes(&fields, mistakes, len < SERVICE_TEXT_MAX ? len : SERVICE_TEXT_MAX);
	child_send(admin, SERVICE_FRAME_RELOADED, &fields, -1);
	buf_clear(&fields);
}
