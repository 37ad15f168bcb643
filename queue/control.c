#include "queue/control.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "queue/proto.h"

/* Questions of the NOC to the queue, one call each.
 *
 * Every answer starts with enum queue_answer; what follows is there only with QUEUE_DONE. A detail
 * may have more recipients than one frame holds, so it is fetched in pages and handed over whole.
 * One exception to "never from inside the call": when the link is down at the moment of asking, the
 * callback comes before the function returns. */

enum ask_kind {
	ASK_STATUS,
	ASK_QUOTA,
	ASK_LIST,
	ASK_DETAIL,
	ASK_AUDIT,
	ASK_CHECK,
	ASK_ACT,
	ASK_HOLDS,
	ASK_AGES,
};

struct ask {
	enum ask_kind kind;
	struct ipc_link *link;
	union {
		queue_on_status *status;
		queue_on_quota *quota;
		queue_on_list *list;
		queue_on_detail *detail;
		queue_on_audit *audit;
		queue_on_check *check;
		queue_on_count *count;
		queue_on_holds *holds;
		queue_on_ages *ages;
	} on;
	void *arg;
	/* ASK_DETAIL: the pages so far */
	struct queue_id id;
	struct queue_recipient_view *recipients;
	size_t recipient_count;
};

static void
answer_without(struct ask *ask, enum queue_answer answer)
{
	switch (ask->kind) {
	case ASK_STATUS:
		ask->on.status(ask->arg, answer, NULL);
		break;
	case ASK_QUOTA:
		ask->on.quota(ask->arg, answer, NULL);
		break;
	case ASK_LIST:
		ask->on.list(ask->arg, answer, NULL, 0, NULL);
		break;
	case ASK_DETAIL:
		ask->on.detail(ask->arg, answer, NULL);
		break;
	case ASK_AUDIT:
		ask->on.audit(ask->arg, answer, NULL);
		break;
	case ASK_CHECK:
		ask->on.check(ask->arg, answer, NULL);
		break;
	case ASK_ACT:
		ask->on.count(ask->arg, answer, NULL);
		break;
	case ASK_HOLDS:
		ask->on.holds(ask->arg, answer, NULL, 0, false);
		break;
	case ASK_AGES:
		ask->on.ages(ask->arg, answer, NULL, 0, NULL);
		break;
	}
	free(ask->recipients);
	free(ask);
}

static void
read_status(struct wire *wire, struct queue_status *status)
{
	for (size_t i = 0; i < QUEUE_LANES; i++) {
		status->messages[i] = wire_u64(wire);
		status->recipients[i] = wire_u64(wire);
	}
	status->in_flight = wire_u64(wire);
	status->oldest = (msec_t)wire_u64(wire);
	status->accepted = wire_u64(wire);
	status->generated = wire_u64(wire);
	status->delivered = wire_u64(wire);
	status->bounced = wire_u64(wire);
	status->expired = wire_u64(wire);
	status->removed = wire_u64(wire);
	status->accounts = wire_u64(wire);
	status->commits = wire_u64(wire);
	status->committed = wire_u64(wire);
	status->refusing = wire_u8(wire) != 0;
	wire_str(wire, status->refusing_why, sizeof(status->refusing_why));
	status->disk_free = wire_u64(wire);
	status->disk_reserve = wire_u64(wire);
	status->files_free = wire_u64(wire);
	status->map_percent = wire_u8(wire);
	status->ledger_time = (msec_t)wire_u64(wire);
	status->ledger_held = wire_u8(wire) != 0;
}

void
proto_entry(struct wire *wire, struct queue_entry *entry)
{
	proto_id(wire, &entry->id);
	unsigned lane = wire_u8(wire);
	if (lane >= QUEUE_LANES) {
		wire->failed = true;
		lane = 0;
	}
	entry->lane = (enum queue_lane)lane;
	unsigned state = wire_u8(wire);
	if (state >= QUEUE_STATES) {
		wire->failed = true;
		state = 0;
	}
	entry->state = (enum queue_state)state;
	wire_str(wire, entry->rule, sizeof(entry->rule));
	entry->accepted = (msec_t)wire_u64(wire);
	entry->due = (msec_t)wire_u64(wire);
	entry->size = wire_u64(wire);
	entry->attempts = wire_u32(wire);
	entry->recipients = wire_u32(wire);
	entry->unfinished = wire_u32(wire);
	wire_str(wire, entry->account, sizeof(entry->account));
	wire_str(wire, entry->from, sizeof(entry->from));
	wire_str(wire, entry->last_reply, sizeof(entry->last_reply));
}

static bool
answer_check(struct ask *ask, struct wire *wire)
{
	struct queue_fault faults[QUEUE_FAULTS_MAX];
	struct queue_check share = {.faults = faults};

	share.number = wire_u64(wire);
	share.records = wire_u64(wire);
	share.bodies = wire_u64(wire);
	share.octets = wire_u64(wire);
	wire_str(wire, share.doing, sizeof(share.doing));
	share.count = wire_u16(wire);
	if (share.count > QUEUE_FAULTS_MAX)
		return false;
	for (size_t i = 0; i < share.count; i++) {
		wire_str(wire, faults[i].where, sizeof(faults[i].where));
		wire_str(wire, faults[i].what, sizeof(faults[i].what));
		wire_str(wire, faults[i].todo, sizeof(faults[i].todo));
	}
	if (!wire_done(wire))
		return false;
	ask->on.check(ask->arg, QUEUE_DONE, &share);
	return true;
}

static bool
answer_list(struct ask *ask, struct wire *wire)
{
	size_t count = wire_u16(wire);
	if (count > PROTO_LIST_PAGE)
		return false;
	struct queue_entry *list = xcalloc(count + 1, sizeof(*list));
	for (size_t i = 0; i < count; i++)
		proto_entry(wire, &list[i]);
	bool more = wire_u8(wire) != 0;
	struct queue_id next;
	proto_id(wire, &next);
	bool good = wire_done(wire);
	if (good)
		ask->on.list(ask->arg, QUEUE_DONE, list, count, more ? &next : NULL);
	free(list);
	return good;
}

static bool
answer_holds(struct ask *ask, struct wire *wire)
{
	size_t count = wire_u16(wire);
	if (count > PROTO_HOLDS_PAGE)
		return false;
	struct queue_hold *list = xcalloc(count + 1, sizeof(*list));
	for (size_t i = 0; i < count; i++)
		proto_hold(wire, &list[i]);
	bool more = wire_u8(wire) != 0;
	bool good = wire_done(wire);
	if (good)
		ask->on.holds(ask->arg, QUEUE_DONE, list, count, more);
	free(list);
	return good;
}

static bool
answer_ages(struct ask *ask, struct wire *wire)
{
	const size_t count = wire_u16(wire);
	struct queue_age_row *rows;
	struct queue_id next;
	bool more, good;

	if (count > PROTO_AGES_PAGE)
		return false;
	rows = xcalloc(count + 1, sizeof(*rows));
	for (size_t i = 0; i < count; i++) {
		const unsigned lane = wire_u8(wire);

		rows[i].lane = lane < QUEUE_LANES ? (enum queue_lane)lane : QUEUE_FRESH;
		wire->failed |= lane >= QUEUE_LANES;
		wire_str(wire, rows[i].site, sizeof(rows[i].site));
		for (size_t k = 0; k < QUEUE_AGES; k++)
			rows[i].messages[k] = wire_u32(wire);
	}
	more = wire_u8(wire) != 0;
	proto_id(wire, &next);
	good = wire_done(wire);
	if (good)
		ask->on.ages(ask->arg, QUEUE_DONE, rows, count, more ? &next : NULL);
	free(rows);
	return good;
}

static void on_reply(void *arg, enum ipc_status status, struct ipc_frame *frame);

static bool
ask_detail_page(struct ask *ask)
{
	struct buf frame;
	buf_init(&frame);
	proto_put_id(&frame, &ask->id);
	wire_put_u16(&frame, (uint16_t)ask->recipient_count);
	bool sent = ipc_link_call(ask->link, PROTO_DETAIL, &frame, -1, QUEUE_CONTROL_TIMEOUT,
	                          on_reply, ask) != 0;
	buf_clear(&frame);
	return sent;
}

/* 1: answered; 0: another page was asked for; -1: malformed. */
static int
answer_detail(struct ask *ask, struct wire *wire)
{
	struct queue_detail detail = {0};
	proto_entry(wire, &detail.entry);
	detail.finished = wire_u8(wire) != 0;
	wire_str(wire, detail.client_ip, sizeof(detail.client_ip));
	detail.client_port = wire_u16(wire);
	wire_str(wire, detail.ehlo, sizeof(detail.ehlo));
	struct queue_hold holds[PROTO_DETAIL_HOLDS];
	detail.hold_count = wire_u16(wire);
	if (detail.hold_count > PROTO_DETAIL_HOLDS)
		return -1;
	for (size_t i = 0; i < detail.hold_count; i++)
		proto_hold(wire, &holds[i]);
	detail.holds = holds;
	size_t total = wire_u16(wire), count = wire_u16(wire);
	if (!wire_ok(wire) || count > PROTO_DETAIL_PAGE ||
	    ask->recipient_count + count > QUEUE_RECIPIENTS_MAX)
		return -1;
	ask->recipients = xreallocarray(ask->recipients, ask->recipient_count + count + 1,
	                                sizeof(*ask->recipients));
	for (size_t i = 0; i < count; i++) {
		struct queue_recipient_view *view = &ask->recipients[ask->recipient_count++];
		wire_str(wire, view->address, sizeof(view->address));
		wire_str(wire, view->state, sizeof(view->state));
		view->attempts = wire_u32(wire);
		view->when = (msec_t)wire_u64(wire);
		wire_str(wire, view->reply, sizeof(view->reply));
		wire_str(wire, view->next_hop, sizeof(view->next_hop));
	}
	if (!wire_done(wire))
		return -1;
	if (count > 0 && ask->recipient_count < total)
		return ask_detail_page(ask) ? 0 : -1;
	detail.recipients = ask->recipients;
	detail.recipient_count = ask->recipient_count;
	ask->on.detail(ask->arg, QUEUE_DONE, &detail);
	return 1;
}

static void
on_reply(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct ask *ask = arg;
	if (status != IPC_OK) {
		answer_without(ask, QUEUE_DOWN);
		return;
	}
	struct wire wire = wire_from(frame->data, frame->len);
	unsigned answer = wire_u8(&wire);
	if (!wire_ok(&wire) || answer > QUEUE_DOWN)
		answer = QUEUE_DOWN;
	if (answer != QUEUE_DONE) {
		answer_without(ask, (enum queue_answer)answer);
		return;
	}
	bool good = false;
	switch (ask->kind) {
	case ASK_STATUS: {
		struct queue_status value = {0};
		read_status(&wire, &value);
		good = wire_done(&wire);
		if (good)
			ask->on.status(ask->arg, QUEUE_DONE, &value);
		break;
	}
	case ASK_QUOTA: {
		struct queue_quota_view value = {0};
		proto_view(&wire, &value);
		good = wire_done(&wire);
		if (good)
			ask->on.quota(ask->arg, QUEUE_DONE, &value);
		break;
	}
	case ASK_LIST:
		good = answer_list(ask, &wire);
		break;
	case ASK_DETAIL: {
		int done = answer_detail(ask, &wire);
		if (done == 0)
			return;
		good = done == 1;
		break;
	}
	case ASK_AUDIT: {
		struct queue_audit value = {0};
		uint64_t *const fields[] = {&value.accepted, &value.generated, &value.delivered,
		                            &value.bounced,  &value.expired,   &value.removed,
		                            &value.queued,   &value.messages,  &value.orphans};
		for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
			*fields[i] = wire_u64(&wire);
		value.conserved = wire_u8(&wire) != 0;
		good = wire_done(&wire);
		if (good)
			ask->on.audit(ask->arg, QUEUE_DONE, &value);
		break;
	}
	case ASK_CHECK:
		good = answer_check(ask, &wire);
		break;
	case ASK_ACT: {
		struct queue_count value = {0};
		value.messages = wire_u32(&wire);
		value.recipients = wire_u32(&wire);
		value.busy = wire_u32(&wire);
		value.more = wire_u8(&wire) != 0;
		proto_id(&wire, &value.next);
		value.from = (msec_t)wire_u64(&wire);
		good = wire_done(&wire);
		if (good)
			ask->on.count(ask->arg, QUEUE_DONE, &value);
		break;
	}
	case ASK_HOLDS:
		good = answer_holds(ask, &wire);
		break;
	case ASK_AGES:
		good = answer_ages(ask, &wire);
		break;
	}
	if (!good) {
		answer_without(ask, QUEUE_DOWN);
		return;
	}
	free(ask->recipients);
	free(ask);
}

static struct ask *
ask_new(enum ask_kind kind, struct ipc_link *link, void *arg)
{
	struct ask *ask = xcalloc(1, sizeof(*ask));
	ask->kind = kind;
	ask->link = link;
	ask->arg = arg;
	return ask;
}

static void
ask_send(struct ask *ask, enum proto_type type, struct buf *frame, msec_t timeout)
{
	if (!ipc_link_call(ask->link, (uint16_t)type, frame, -1, timeout, on_reply, ask))
		answer_without(ask, QUEUE_DOWN);
	buf_clear(frame);
}

static void
ask_for_status(struct ipc_link *link, enum proto_type type, queue_on_status *on_status, void *arg)
{
	struct ask *ask = ask_new(ASK_STATUS, link, arg);
	struct buf frame;
	ask->on.status = on_status;
	buf_init(&frame);
	ask_send(ask, type, &frame, QUEUE_CONTROL_TIMEOUT);
}

void
queue_ask_status(struct ipc_link *link, queue_on_status *on_status, void *arg)
{
	ask_for_status(link, PROTO_STATUS, on_status, arg);
}

void
queue_confirm_clock(struct ipc_link *link, queue_on_status *on_status, void *arg)
{
	ask_for_status(link, PROTO_CLOCK_CONFIRM, on_status, arg);
}

static struct ask *
ask_quota(struct ipc_link *link, const char *account, const char *class, struct buf *frame,
          queue_on_quota *on_quota, void *arg)
{
	struct ask *ask = ask_new(ASK_QUOTA, link, arg);
	ask->on.quota = on_quota;
	buf_init(frame);
	wire_put_str(frame, account);
	wire_put_str(frame, class);
	return ask;
}

void
queue_ask_quota(struct ipc_link *link, const char *account, const char *class,
                queue_on_quota *on_quota, void *arg)
{
	struct buf frame;
	struct ask *ask = ask_quota(link, account, class, &frame, on_quota, arg);
	ask_send(ask, PROTO_QUOTA_SHOW, &frame, QUEUE_CONTROL_TIMEOUT);
}

void
queue_set_quota(struct ipc_link *link, const char *account, const char *class, bool clear,
                uint32_t limit, const char *by, const char *reason, queue_on_quota *on_quota,
                void *arg)
{
	struct buf frame;
	struct ask *ask = ask_quota(link, account, class, &frame, on_quota, arg);
	wire_put_u8(&frame, clear);
	wire_put_u32(&frame, limit);
	wire_put_str(&frame, by);
	wire_put_str(&frame, reason);
	ask_send(ask, PROTO_QUOTA_SET, &frame, QUEUE_CONTROL_TIMEOUT);
}

void
queue_reset_quota(struct ipc_link *link, const char *account, const char *class, const char *by,
                  const char *reason, queue_on_quota *on_quota, void *arg)
{
	struct buf frame;
	struct ask *ask = ask_quota(link, account, class, &frame, on_quota, arg);
	wire_put_str(&frame, by);
	wire_put_str(&frame, reason);
	ask_send(ask, PROTO_QUOTA_RESET, &frame, QUEUE_CONTROL_TIMEOUT);
}

void
queue_ask_list(struct ipc_link *link, const struct queue_selector *selector, unsigned states,
               const struct queue_id *after, queue_on_list *on_list, void *arg)
{
	static const struct queue_id none;
	struct ask *ask = ask_new(ASK_LIST, link, arg);
	struct buf frame;
	ask->on.list = on_list;
	buf_init(&frame);
	queue_selector_put(&frame, selector);
	wire_put_u8(&frame, (uint8_t)states);
	wire_put_u8(&frame, after == NULL);
	proto_put_id(&frame, after ? after : &none);
	ask_send(ask, PROTO_LIST, &frame, QUEUE_CONTROL_TIMEOUT);
}

void
queue_ask_detail(struct ipc_link *link, const struct queue_id *id, queue_on_detail *on_detail,
                 void *arg)
{
	struct ask *ask = ask_new(ASK_DETAIL, link, arg);
	ask->on.detail = on_detail;
	ask->id = *id;
	if (!ask_detail_page(ask))
		answer_without(ask, QUEUE_DOWN);
}

#define AUDIT_TIMEOUT 600000 /* msec: it reads every record */

void
queue_ask_audit(struct ipc_link *link, queue_on_audit *on_audit, void *arg)
{
	struct ask *ask = ask_new(ASK_AUDIT, link, arg);
	struct buf frame;
	ask->on.audit = on_audit;
	buf_init(&frame);
	ask_send(ask, PROTO_AUDIT, &frame, AUDIT_TIMEOUT);
}

void
queue_ask_check(struct ipc_link *link, uint64_t number, queue_on_check *on_check, void *arg)
{
	struct ask *ask = ask_new(ASK_CHECK, link, arg);
	struct buf frame;
	ask->on.check = on_check;
	buf_init(&frame);
	wire_put_u64(&frame, number);
	ask_send(ask, PROTO_CHECK, &frame, AUDIT_TIMEOUT);
}

const char *
queue_state_name(enum queue_state state)
{
	static const char *const names[] = {"queued", "active",         "paced",    "deferred",
	                                    "held",   "held-by-sender", "suspended"};

	assert(state < QUEUE_STATES);
	return names[state];
}

void
queue_act(struct ipc_link *link, const struct queue_order *order, queue_on_count *on_count,
          void *arg)
{
	static const struct queue_id none;
	struct ask *ask = ask_new(ASK_ACT, link, arg);
	struct buf frame;

	ask->on.count = on_count;
	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)order->action);
	queue_selector_put(&frame, &order->selector);
	wire_put_str(&frame, order->by);
	wire_put_str(&frame, order->reason);
	wire_put_u64(&frame, (uint64_t)order->expiry);
	wire_put_u8(&frame, order->dry_run);
	wire_put_u8(&frame, (uint8_t)order->lane);
	wire_put_str(&frame, order->next_hop ? order->next_hop : "");
	wire_put_u32(&frame, order->rate);
	wire_put_u64(&frame, (uint64_t)order->from);
	wire_put_u8(&frame, order->after == NULL);
	proto_put_id(&frame, order->after ? order->after : &none);
	ask_send(ask, PROTO_ACT, &frame, QUEUE_CONTROL_TIMEOUT);
}

void
queue_ask_holds(struct ipc_link *link, uint32_t first, queue_on_holds *on_holds, void *arg)
{
	struct ask *ask = ask_new(ASK_HOLDS, link, arg);
	struct buf frame;

	ask->on.holds = on_holds;
	buf_init(&frame);
	wire_put_u32(&frame, first);
	ask_send(ask, PROTO_HOLDS, &frame, QUEUE_CONTROL_TIMEOUT);
}

const char *
queue_age_name(unsigned age)
{
	static const char *const names[] = {"5min", "1h", "4h", "12h", "1d", "2d", "older"};

	assert(age < QUEUE_AGES);
	return names[age];
}

void
queue_ask_ages(struct ipc_link *link, const struct queue_id *after, queue_on_ages *on_ages,
               void *arg)
{
	static const struct queue_id none;
	struct ask *ask = ask_new(ASK_AGES, link, arg);
	struct buf frame;

	ask->on.ages = on_ages;
	buf_init(&frame);
	wire_put_u8(&frame, after == NULL);
	proto_put_id(&frame, after ? after : &none);
	ask_send(ask, PROTO_AGES, &frame, QUEUE_CONTROL_TIMEOUT);
}
