#include "sekishod/children_int.h"

#include <stdio.h>
#include <string.h>

#include "core/log.h"

/* Two phases: everybody is offered the next generation whole, and only when all have said that they
 * could work with it is anybody told to. Between the two nothing is in force but the old one, so a
 * refusal, a death or a silence needs no undoing, only forgetting.
 *
 * A process that is just being started gets the offer when it is ready. One that dies meanwhile
 * ends the offer: perhaps it was the offer that killed it. One that dies after the commit starts
 * with the new generation. */

#define RELOAD_LIMIT 10000 /* ms */

static void
finish(struct children *all, const char *refusal)
{
	children_on_reload *on_reload = all->on_reload;
	loop_timer_cancel(all->reload_limit);
	all->on_reload = NULL;
	on_reload(all->reload_arg, refusal);
}

static void
tell_all(struct children *all, enum service_frame type)
{
	for (size_t i = 0; i < all->count; i++) {
		struct child *child = &all->list[i];
		/* One that was started since has heard of no offer. */
		if (child->fd >= 0 && child->offered == all->offer)
			child_send(child, type, NULL, -1);
	}
}

void
children_refuse(struct children *all, const char *why)
{
	if (all->next == NULL)
		return;
	tell_all(all, SERVICE_FRAME_DROP);
	generation_free(all->next);
	all->next = NULL;
	finish(all, why);
}

static void
commit(struct children *all)
{
	struct generation *old = all->running;
	all->running = all->next;
	all->next = NULL;
	all->running->number = old->number + 1;
	all->running->loaded = clock_wall();
	log_set_level(log_level_named(all->running->conf->log_level));
	for (size_t i = 0; i < all->count; i++)
		all->list[i].level = log_level();
	tell_all(all, SERVICE_FRAME_COMMIT);
	generation_free(old);
	finish(all, NULL);
}

void
child_prepared(struct child *child, uint32_t offer, const char *refusal)
{
	struct children *all = child->all;
	if (all->next == NULL || offer != all->offer)
		return;
	if (refusal[0] != '\0') {
		char why[1024];
		snprintf(why, sizeof(why), "sekisho-%s refuses: %s\n", child_name(child), refusal);
		children_refuse(all, why);
		return;
	}
	child->agreed = true;
	for (size_t i = 0; i < all->count; i++)
		if (!all->list[i].agreed)
			return;
	commit(all);
}

void
children_reload_lost(struct children *all, const struct child *child)
{
	char why[256];
	snprintf(why, sizeof(why), "sekisho-%s ended meanwhile; see the log and try again\n",
	         child_name(child));
	children_refuse(all, why);
}

void
children_reload_late(void *arg)
{
	struct children *all = arg;
	char why[256];
	for (size_t i = 0; i < all->count; i++)
		if (!all->list[i].agreed) {
			snprintf(why, sizeof(why),
			         "sekisho-%s did not answer within %d s; try again\n",
			         child_name(&all->list[i]), RELOAD_LIMIT / 1000);
			children_refuse(all, why);
			return;
		}
}

static void
offer(struct child *child)
{
	struct children *all = child->all;
	struct buf fields;
	buf_init(&fields);
	wire_put_u64(&fields, all->running->number + 1);
	wire_put_u32(&fields, all->offer);
	child->offered = all->offer;
	child_send(child, SERVICE_FRAME_NEXT, &fields, all->next->snapshot);
	buf_clear(&fields);
	child_send_generation(child, all->next);
	child_send(child, SERVICE_FRAME_PREPARE, NULL, -1);
}

void
children_reload_ready(struct child *child)
{
	const struct children *all = child->all;
	if (all->next != NULL && child->ready && child->offered != all->offer)
		offer(child);
}

void
children_reload(struct children *all, struct generation *next_take, children_on_reload *on_reload,
                void *arg)
{
	all->next = next_take;
	all->offer++;
	all->on_reload = on_reload;
	all->reload_arg = arg;
	for (size_t i = 0; i < all->count; i++)
		all->list[i].agreed = false;
	for (size_t i = 0; i < all->count; i++)
		children_reload_ready(&all->list[i]);
	loop_timer_arm(all->reload_limit, RELOAD_LIMIT);
}
