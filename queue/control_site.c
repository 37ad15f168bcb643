#include "queue/control_site.h"

/* As queue/control.c: one call each; what follows the answer is there only with QUEUE_DONE. */

#include <stdlib.h>

#include "core/mem.h"
#include "queue/proto.h"

enum ask_kind { ASK_SITES, ASK_SITE, ASK_RULES };

struct ask {
	enum ask_kind kind;
	union {
		queue_on_sites *sites;
		queue_on_site *site;
		queue_on_reply_rules *rules;
	} on;
	void *arg;
};

static void
answer_without(const struct ask *ask, enum queue_answer answer)
{
	if (ask->kind == ASK_SITES)
		ask->on.sites(ask->arg, answer, NULL, 0, false);
	else if (ask->kind == ASK_SITE)
		ask->on.site(ask->arg, answer, NULL, NULL, 0, 0);
	else
		ask->on.rules(ask->arg, answer, NULL, 0, false);
}

static bool
answer_sites(const struct ask *ask, struct wire *wire)
{
	const size_t count = wire_u16(wire);
	struct queue_site_view *list;

	if (count > PROTO_SITES_PAGE)
		return false;
	list = xcalloc(count + 1, sizeof(*list));
	for (size_t i = 0; i < count; i++)
		proto_site(wire, &list[i]);
	const bool more = wire_u8(wire) != 0, good = wire_done(wire);
	if (good)
		ask->on.sites(ask->arg, QUEUE_DONE, list, count, more);
	free(list);
	return good;
}

static bool
answer_site(const struct ask *ask, struct wire *wire)
{
	char names[QUEUE_SITE_DOMAINS][ADDRESS_DOMAIN_MAX + 1];
	const char *domains[QUEUE_SITE_DOMAINS];
	struct queue_site_view view;

	proto_site(wire, &view);
	const uint32_t domain_count = wire_u32(wire);
	const size_t count = wire_u16(wire);
	if (count > QUEUE_SITE_DOMAINS)
		return false;
	for (size_t i = 0; i < count; i++) {
		wire_str(wire, names[i], sizeof(names[i]));
		domains[i] = names[i];
	}
	if (!wire_done(wire))
		return false;
	ask->on.site(ask->arg, QUEUE_DONE, &view, domains, count, domain_count);
	return true;
}

static bool
answer_rules(const struct ask *ask, struct wire *wire)
{
	const size_t count = wire_u16(wire);
	struct queue_reply_rule *list;

	if (count > PROTO_RULES_PAGE)
		return false;
	list = xcalloc(count + 1, sizeof(*list));
	for (size_t i = 0; i < count; i++)
		proto_reply_rule(wire, &list[i]);
	const bool more = wire_u8(wire) != 0, good = wire_done(wire);
	if (good)
		ask->on.rules(ask->arg, QUEUE_DONE, list, count, more);
	free(list);
	return good;
}

static void
on_reply(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct ask *ask = arg;
	unsigned answer = QUEUE_DOWN;

	if (status == IPC_OK) {
		struct wire wire = wire_from(frame->data, frame->len);

		answer = wire_u8(&wire);
		if (!wire_ok(&wire) || answer > QUEUE_DOWN)
			answer = QUEUE_DOWN;
		if (answer == QUEUE_DONE && !(ask->kind == ASK_SITES  ? answer_sites(ask, &wire)
		                              : ask->kind == ASK_SITE ? answer_site(ask, &wire)
		                                                      : answer_rules(ask, &wire)))
			answer = QUEUE_DOWN;
	}
	if (answer != QUEUE_DONE)
		answer_without(ask, (enum queue_answer)answer);
	free(ask);
}

static struct ask *
ask_new(enum ask_kind kind, void *arg, struct buf *frame)
{
	struct ask *ask = xcalloc(1, sizeof(*ask));

	ask->kind = kind;
	ask->arg = arg;
	buf_init(frame);
	return ask;
}

static void
ask_send(struct ask *ask, struct ipc_link *link, enum proto_type type, struct buf *frame)
{
	if (!ipc_link_call(link, (uint16_t)type, frame, -1, QUEUE_CONTROL_TIMEOUT, on_reply, ask)) {
		answer_without(ask, QUEUE_DOWN);
		free(ask);
	}
	buf_clear(frame);
}

void
queue_ask_sites(struct ipc_link *link, bool slow, uint32_t first, queue_on_sites *on_sites,
                void *arg)
{
	struct buf frame;
	struct ask *ask = ask_new(ASK_SITES, arg, &frame);

	ask->on.sites = on_sites;
	wire_put_u8(&frame, slow);
	wire_put_u32(&frame, first);
	ask_send(ask, link, PROTO_SITES, &frame);
}

void
queue_ask_site(struct ipc_link *link, const char *name, queue_on_site *on_site, void *arg)
{
	struct buf frame;
	struct ask *ask = ask_new(ASK_SITE, arg, &frame);

	ask->on.site = on_site;
	wire_put_str(&frame, name);
	ask_send(ask, link, PROTO_SITE, &frame);
}

void
queue_order_site(struct ipc_link *link, const struct queue_site_order *order,
                 queue_on_site *on_site, void *arg)
{
	struct buf frame;
	struct ask *ask = ask_new(ASK_SITE, arg, &frame);

	ask->on.site = on_site;
	wire_put_u8(&frame, (uint8_t)order->action);
	wire_put_str(&frame, order->site);
	wire_put_u64(&frame, (uint64_t)order->until);
	wire_put_u32(&frame, order->connections);
	proto_put_rate(&frame, &order->rate);
	wire_put_str(&frame, order->by);
	wire_put_str(&frame, order->reason);
	ask_send(ask, link, PROTO_SITE_ORDER, &frame);
}

void
queue_ask_reply_rules(struct ipc_link *link, uint32_t first, queue_on_reply_rules *on_rules,
                      void *arg)
{
	struct buf frame;
	struct ask *ask = ask_new(ASK_RULES, arg, &frame);

	ask->on.rules = on_rules;
	wire_put_u32(&frame, first);
	ask_send(ask, link, PROTO_REPLY_RULES, &frame);
}
