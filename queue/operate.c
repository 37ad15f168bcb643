#include "queue/operate.h"

/* Acts upon many messages are done a page at a time, and the asker comes again for the next:
 * nothing has to be remembered here, an act that was given up half way is simply begun again, and
 * between two pages everything else gets its turn. A page looks at a bounded number of messages in
 * order of id and answers when all its changes are durable, and not before so many changes may have
 * been made: a hundred thousand of them without a pause would stand in the way of fresh mail, whose
 * database and disk they share. What is already as it should be is not touched, so repeating is
 * harmless. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/log.h"
#include "core/mem.h"
#include "queue/age.h"
#include "queue/proto.h"

#define LOOK_MAX 1000 /* messages looked at for one page of a filtered list, or of a count */
/* Recipients of those among them that may be meant: each is loaded, while the loop waits. */
#define LOOK_RECIPIENTS 5000
#define LOOK_CHUNK      10 /* messages between two looks at that */
#define ACT_MAX         250 /* messages of one page that changes them: one group of a lane's writer */
#define ACT_RATE        1000 /* and of all pages of an act, in a second */

struct operate {
	struct loop *loop;
	LIST_HEAD(, act) resting; /* done, and not answered yet */
	struct ipc_hub *hub;
	struct store *store;
	struct schedule *schedule;
	struct holds *holds;
	size_t looked; /* recipients, for the page under way */
};

static void
answer(struct operate *operate, struct ipc_from to, enum queue_answer value)
{
	struct buf frame;

	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)value);
	ipc_hub_reply(operate->hub, to, &frame, -1);
	buf_clear(&frame);
}

/* --- looking --- */

/* Cut to what the reader's field holds. */
static void
put_cut(struct buf *frame, const char *s, size_t size)
{
	wire_put_bytes(frame, s ? s : "", s ? strnlen(s, size - 1) : 0);
}

void
operate_put_entry(struct operate *operate, struct buf *frame, const struct store_message *message)
{
	char from[ADDRESS_TEXT_SIZE], rule[QUEUE_RULE_SIZE] = "";
	struct queue_entry *fields = NULL; /* for the sizes only */
	enum queue_state state = QUEUE_STATE_QUEUED;

	if (!message->finished)
		state = schedule_state(operate->schedule, message, rule);
	address_format(&message->from, from, sizeof(from));
	proto_put_id(frame, &message->id);
	wire_put_u8(frame, message->finished ? 0 : (uint8_t)message->lane);
	wire_put_u8(frame, (uint8_t)state);
	wire_put_str(frame, rule);
	wire_put_u64(frame, (uint64_t)message->created);
	wire_put_u64(frame, schedule_is_active(operate->schedule, &message->id)
	                        ? 0
	                        : (uint64_t)message->due);
	wire_put_u64(frame, message->body.size);
	wire_put_u32(frame, message->attempts);
	wire_put_u32(frame, message->total);
	wire_put_u32(frame, message->unfinished);
	put_cut(frame, message->account, sizeof(fields->account));
	put_cut(frame, from, sizeof(fields->from));
	put_cut(frame, message->last_reply, sizeof(fields->last_reply));
}

/* Whether the message is what the selector means; *whole is then loaded, for the caller to free, if
 * it has conditions of recipients or wanted is true. */
static bool
is_selected(struct operate *operate, const struct queue_selector *selector,
            const struct store_message *message, bool wanted, struct store_message **whole)
{
	const bool recipients = queue_selector_has_recipient(selector);

	*whole = NULL;
	if (!match_message(selector, message, clock_wall()))
		return false;
	operate->looked += message->total;
	if (!recipients && !wanted)
		return true;
	*whole = store_load_message(operate->store, message->lane, &message->id);
	if (*whole &&
	    match_count(selector, *whole, clock_wall(), schedule_site, operate->schedule) > 0)
		return true;
	store_message_free(*whole);
	*whole = NULL;
	return false;
}

static size_t
least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Calls on_message for messages that may be selected, at most max, behind *after unless from_start.
 * By id and by account there are indexes; else all are looked at. Returns the number; *more says
 * whether others follow. */
static size_t
look(struct operate *operate, const struct queue_selector *selector, bool from_start,
     const struct queue_id *after, size_t max, store_on_message *on_message, void *arg, bool *more)
{
	enum queue_lane lane = QUEUE_LANES;
	struct store_message *message = NULL;

	if (!selector->has_message)
		return store_list(operate->store, selector->account[0] ? selector->account : NULL,
		                  from_start ? NULL : after, max, on_message, arg, more);
	*more = false;
	if (from_start && store_find(operate->store, &selector->message, &lane) &&
	    lane != QUEUE_LANES)
		message = store_load_message(operate->store, lane, &selector->message);
	if (message)
		on_message(arg, message);
	store_message_free(message);
	return message != NULL;
}

struct listing {
	struct operate *operate;
	struct queue_selector selector;
	unsigned states;
	struct buf entries;
	size_t count;
	struct queue_id last;
};

static bool
is_listed(struct listing *listing, const struct store_message *message)
{
	struct store_message *whole;
	char rule[QUEUE_RULE_SIZE];
	bool yes = is_selected(listing->operate, &listing->selector, message, false, &whole);

	if (yes && listing->states)
		yes = listing->states &
		      (1u << schedule_state(listing->operate->schedule, message, rule));
	store_message_free(whole);
	return yes;
}

static void
on_list_message(void *arg, const struct store_message *message)
{
	struct listing *listing = arg;

	listing->last = message->id;
	if (!is_listed(listing, message))
		return;
	operate_put_entry(listing->operate, &listing->entries, message);
	listing->count++;
}

static void
on_list(struct operate *operate, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct listing listing = {.operate = operate};
	struct queue_id after;
	struct buf reply;
	bool more = true;

	queue_selector_read(&wire, &listing.selector);
	listing.states = wire_u8(&wire);
	bool from_start = wire_u8(&wire) != 0;
	proto_id(&wire, &after);
	if (!wire_done(&wire)) {
		answer(operate, from, QUEUE_INVALID);
		return;
	}
	buf_init(&listing.entries);
	buf_init(&reply);
	/* A page is as many as fit, or what was found among so many. */
	operate->looked = 0;
	for (size_t looked = 0; more && looked < LOOK_MAX && listing.count < PROTO_LIST_PAGE &&
	                        operate->looked < LOOK_RECIPIENTS;) {
		size_t seen = look(operate, &listing.selector, from_start, &after,
		                   least(PROTO_LIST_PAGE - listing.count, LOOK_CHUNK),
		                   on_list_message, &listing, &more);

		looked += seen;
		if (seen)
			after = listing.last;
		from_start = from_start && seen == 0;
		if (seen == 0)
			break;
	}
	wire_put_u8(&reply, QUEUE_DONE);
	wire_put_u16(&reply, (uint16_t)listing.count);
	wire_put_raw(&reply, listing.entries.data, listing.entries.len);
	wire_put_u8(&reply, more);
	proto_put_id(&reply, &after);
	ipc_hub_reply(operate->hub, from, &reply, -1);
	buf_clear(&listing.entries);
	buf_clear(&reply);
}

/* The holds that stand before some of the message, each once. */
static size_t
holds_before(struct operate *operate, const struct store_message *message,
             const struct queue_hold *out[PROTO_DETAIL_HOLDS])
{
	const struct queue_hold *hold = holds_of_message(operate->holds, message);
	size_t count = 0;

	if (message->finished)
		return 0;
	if (hold)
		out[count++] = hold;
	for (size_t i = 0; i < message->recipient_count && holds_have_recipients(operate->holds);
	     i++) {
		bool is_new;

		if (message->recipients[i].state != STORE_QUEUED)
			continue;
		hold = holds_of_recipient(operate->holds, message, &message->recipients[i]);
		is_new = hold && count < PROTO_DETAIL_HOLDS;
		for (size_t k = 0; k < count && is_new; k++)
			is_new = out[k] != hold;
		if (is_new)
			out[count++] = hold;
	}
	return count;
}

static void
on_detail(struct operate *operate, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct queue_id id;
	struct queue_detail *fields = NULL; /* for the sizes only */
	struct queue_recipient_view *view = NULL;
	const struct queue_hold *holds[PROTO_DETAIL_HOLDS];
	struct buf reply;

	proto_id(&wire, &id);
	size_t first = wire_u16(&wire);
	if (!wire_done(&wire)) {
		answer(operate, from, QUEUE_INVALID);
		return;
	}
	struct store_message *message = store_load_detail(operate->store, &id);
	if (!message) {
		answer(operate, from, QUEUE_NOT_FOUND);
		return;
	}
	size_t total = message->recipient_count;
	size_t count = first < total ? total - first : 0;
	if (count > PROTO_DETAIL_PAGE)
		count = PROTO_DETAIL_PAGE;
	buf_init(&reply);
	wire_put_u8(&reply, QUEUE_DONE);
	operate_put_entry(operate, &reply, message);
	wire_put_u8(&reply, message->finished);
	put_cut(&reply, message->client_ip, sizeof(fields->client_ip));
	wire_put_u16(&reply, message->client_port);
	put_cut(&reply, message->ehlo, sizeof(fields->ehlo));
	size_t held = holds_before(operate, message, holds);
	wire_put_u16(&reply, (uint16_t)held);
	for (size_t i = 0; i < held; i++)
		proto_put_hold(&reply, holds[i]);
	wire_put_u16(&reply, (uint16_t)total);
	wire_put_u16(&reply, (uint16_t)count);
	for (size_t i = first; i < first + count; i++) {
		const struct store_recipient *recipient = &message->recipients[i];
		char address[ADDRESS_TEXT_SIZE];
		address_format(&recipient->address, address, sizeof(address));
		put_cut(&reply, address, sizeof(view->address));
		put_cut(&reply, store_state_name(recipient->state), sizeof(view->state));
		wire_put_u32(&reply, recipient->attempts);
		wire_put_u64(&reply, (uint64_t)recipient->when);
		put_cut(&reply, recipient->reply, sizeof(view->reply));
		wire_put_str(&reply, recipient->next_hop);
	}
	ipc_hub_reply(operate->hub, from, &reply, -1);
	buf_clear(&reply);
	store_message_free(message);
}

static void
on_hold(void *arg, const struct queue_hold *hold)
{
	proto_put_hold(arg, hold);
}

static void
on_holds(struct operate *operate, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	uint32_t first = wire_u32(&wire);
	struct buf list, reply;
	size_t count;

	if (!wire_done(&wire)) {
		answer(operate, from, QUEUE_INVALID);
		return;
	}
	buf_init(&list);
	buf_init(&reply);
	count = holds_page(operate->holds, first, PROTO_HOLDS_PAGE, on_hold, &list);
	wire_put_u8(&reply, QUEUE_DONE);
	wire_put_u16(&reply, (uint16_t)count);
	wire_put_raw(&reply, list.data, list.len);
	wire_put_u8(&reply, count == PROTO_HOLDS_PAGE);
	ipc_hub_reply(operate->hub, from, &reply, -1);
	buf_clear(&list);
	buf_clear(&reply);
}

static void
on_ages(struct operate *operate, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	const bool from_start = wire_u8(&wire) != 0;
	struct queue_id after;
	struct buf reply;

	proto_id(&wire, &after);
	if (!wire_done(&wire)) {
		answer(operate, from, QUEUE_INVALID);
		return;
	}
	buf_init(&reply);
	age_share(operate->store, from_start ? NULL : &after, schedule_site, operate->schedule,
	          &reply);
	ipc_hub_reply(operate->hub, from, &reply, -1);
	buf_clear(&reply);
}

/* --- acting --- */

struct act { /* one page of one act */
	struct operate *operate;
	struct ipc_from from;
	struct queue_hold rule;        /* what it does, and until when it does so */
	char why[STORE_REPLY_MAX + 1]; /* the reply of what it ends */
	bool dry_run;
	bool from_start;
	struct queue_id first; /* else: behind that */
	uint32_t rate;
	struct queue_count count;
	size_t open; /* changes under way, and one while more may be begun */
	bool failed;
	size_t changes; /* begun */
	msec_t began;   /* monotonic */
	LIST_ENTRY(act) link;
	struct loop_timer *rest; /* until it is answered; NULL before */
};

static void
act_free(struct act *act)
{
	if (act->rest) {
		LIST_REMOVE(act, link);
		loop_timer_free(act->rest);
	}
	free(act);
}

static void
act_answer(void *arg)
{
	struct act *act = arg;
	const struct queue_count *count = &act->count;
	struct buf reply;

	buf_init(&reply);
	wire_put_u8(&reply, act->failed ? QUEUE_DOWN : QUEUE_DONE);
	if (!act->failed) {
		wire_put_u32(&reply, count->messages);
		wire_put_u32(&reply, count->recipients);
		wire_put_u32(&reply, count->busy);
		wire_put_u8(&reply, count->more);
		proto_put_id(&reply, &count->next);
		wire_put_u64(&reply, (uint64_t)count->from);
	}
	ipc_hub_reply(act->operate->hub, act->from, &reply, -1);
	buf_clear(&reply);
	act_free(act);
}

static void
act_end(struct act *act)
{
	const struct queue_count *count = &act->count;
	const char *goal = holds_goal(&act->rule);
	char what[QUEUE_SELECTOR_TEXT_SIZE];
	msec_t rest;

	if (--act->open > 0)
		return;
	if (act->rule.action < QUEUE_HOLD && !act->dry_run && (count->messages || act->failed))
		log_info("-", queue_action_name(act->rule.action),
		         "what=\"%s\"%s%s messages=%u recipients=%u busy=%u failed=%d by=\"%s\" "
		         "reason=\"%s\"",
		         queue_selector_text(&act->rule.selector, what), goal[0] ? " to=" : "",
		         goal, count->messages, count->recipients, count->busy, act->failed,
		         act->rule.by, act->rule.reason);
	rest = (msec_t)(act->changes * 1000 / ACT_RATE) - (clock_mono() - act->began);
	if (rest <= 0) {
		act_answer(act);
		return;
	}
	LIST_INSERT_HEAD(&act->operate->resting, act, link);
	act->rest = loop_timer_new(act->operate->loop, act_answer, act);
	loop_timer_arm(act->rest, rest);
}

static void
on_changed(void *arg, enum store_result result)
{
	struct act *act = arg;

	/* Missing: it has ended meanwhile by itself. */
	act->failed |= result != STORE_OK && result != STORE_MISSING;
	act_end(act);
}

/* When the next message of a flush is due, in turns of a second's share. */
static msec_t
flush_due(const struct act *act)
{
	const msec_t now = schedule_now(act->operate->schedule);

	return act->count.from > now ? act->count.from : now;
}

static bool
flush_one(struct act *act, const struct store_message *message)
{
	const msec_t due = flush_due(act);

	if (!schedule_flush(act->operate->schedule, message, due, act->dry_run, on_changed, act))
		return false;
	/* Above 1000 a second several share a millisecond. */
	if (act->rate && (act->rate <= 1000 || act->count.messages % (act->rate / 1000) == 0))
		act->count.from = due + (act->rate < 1000 ? 1000 / act->rate : 1);
	return true;
}

/* Whether the rule sends recipients somewhere, and does not move messages. */
static bool
is_to_host(const struct queue_hold *rule)
{
	return rule->action == QUEUE_REROUTE && rule->next_hop[0];
}

/* What a directive sends elsewhere is sent there as long as it is in force, and not changed. */
static struct schedule_share
send_one(struct act *act, const struct store_message *whole)
{
	const char *next_hop = act->rule.next_hop;

	if (strcmp(next_hop, QUEUE_NEXT_HOP_DEFAULT) == 0)
		next_hop = "";
	return schedule_reroute(act->operate->schedule, whole, &act->rule.selector, next_hop,
	                        act->why, act->dry_run || act->rule.until, on_changed, act);
}

static struct schedule_share
reroute_one(struct act *act, const struct store_message *message)
{
	struct schedule *schedule = act->operate->schedule;
	const bool moved =
	    schedule_move(schedule, message, act->rule.lane, act->dry_run, on_changed, act);
	const bool busy =
	    !moved && message->lane != act->rule.lane && schedule_is_active(schedule, &message->id);

	return (struct schedule_share){.taken = moved ? message->unfinished : 0,
	                               .busy = busy ? message->unfinished : 0};
}

static void
act_upon(struct act *act, const struct store_message *message)
{
	static const enum store_state states[] = {
	    [QUEUE_REMOVE] = STORE_REMOVED, [QUEUE_BOUNCE] = STORE_BOUNCED};
	struct operate *operate = act->operate;
	const bool ends = act->rule.action == QUEUE_REMOVE || act->rule.action == QUEUE_BOUNCE;
	const bool sends = is_to_host(&act->rule);
	struct store_message *whole;
	struct schedule_share share = {0, 0};

	if (!is_selected(operate, &act->rule.selector, message, ends || sends, &whole))
		return;
	act->open++;
	if (ends)
		share =
		    schedule_end(operate->schedule, whole, &act->rule.selector,
		                 states[act->rule.action], act->why, act->dry_run, on_changed, act);
	else if (act->rule.action == QUEUE_FLUSH)
		share.taken = flush_one(act, message) ? message->unfinished : 0;
	else if (sends)
		share = send_one(act, whole);
	else if (act->rule.action == QUEUE_REROUTE)
		share = reroute_one(act, message);
	else
		share.taken = whole
		                  ? (uint32_t)match_count(&act->rule.selector, whole, clock_wall(),
		                                          schedule_site, operate->schedule)
		                  : message->unfinished;
	if (share.taken == 0 || act->dry_run || (sends && act->rule.until))
		act->open--;
	else
		act->changes++;
	act->count.messages += share.taken > 0;
	act->count.recipients += share.taken;
	act->count.busy += share.busy;
	store_message_free(whole);
}

static void
on_act_message(void *arg, const struct store_message *message)
{
	struct act *act = arg;

	act->count.next = message->id;
	act_upon(act, message);
}

/* A page: as much as is to be changed at once, or what is found among so many. */
static void
act_page(struct act *act)
{
	struct queue_id after = act->first;
	bool from_start = act->from_start;

	act->count.more = true;
	act->operate->looked = 0;
	for (size_t looked = 0; act->count.more && looked < LOOK_MAX &&
	                        (act->dry_run || act->count.messages < ACT_MAX) &&
	                        act->operate->looked < LOOK_RECIPIENTS;) {
		const size_t left = act->dry_run ? LOOK_MAX : ACT_MAX - act->count.messages;
		const size_t seen =
		    look(act->operate, &act->rule.selector, from_start, &after,
		         least(left, LOOK_CHUNK), on_act_message, act, &act->count.more);

		looked += seen;
		if (seen == 0)
			break;
		after = act->count.next;
		from_start = false;
	}
}

static void
on_hold_changed(void *arg, enum queue_answer value)
{
	struct act *act = arg;

	if (value != QUEUE_DONE) {
		answer(act->operate, act->from, value);
		free(act);
		return;
	}
	/* What is there already need not wait until it is due. */
	if (act->rule.action < QUEUE_HOLD)
		act_page(act);
	act_end(act);
}

static void
on_act(struct operate *operate, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct act *act = xcalloc(1, sizeof(*act));
	const unsigned action = wire_u8(&wire);
	unsigned lane;

	act->operate = operate;
	act->from = from;
	act->began = clock_mono();
	act->rule.action = (enum queue_action)action;
	act->rule.since = clock_wall();
	queue_selector_read(&wire, &act->rule.selector);
	wire_str(&wire, act->rule.by, sizeof(act->rule.by));
	wire_str(&wire, act->rule.reason, sizeof(act->rule.reason));
	act->rule.until = (msec_t)wire_u64(&wire);
	act->dry_run = wire_u8(&wire) != 0;
	lane = wire_u8(&wire);
	act->rule.lane = (enum queue_lane)lane;
	proto_next_hop(&wire, act->rule.next_hop);
	act->rate = wire_u32(&wire);
	act->count.from = (msec_t)wire_u64(&wire);
	act->from_start = wire_u8(&wire) != 0;
	proto_id(&wire, &act->first);
	if (!wire_done(&wire) || action >= QUEUE_ACTIONS || lane >= QUEUE_LANES ||
	    (action != QUEUE_FLUSH && !act->dry_run &&
	     queue_selector_is_all(&act->rule.selector))) {
		answer(operate, from, QUEUE_INVALID);
		free(act);
		return;
	}
	act->open = 1;
	holds_words(&act->rule, act->why);
	if (act->dry_run || action == QUEUE_FLUSH) {
		act_page(act);
		act_end(act);
	} else if (action == QUEUE_RELEASE) {
		holds_release(operate->holds, &act->rule.selector, act->rule.by, on_hold_changed,
		              act);
	} else if (action == QUEUE_HOLD || (act->rule.until && act->from_start)) {
		holds_put(operate->holds, &act->rule, on_hold_changed, act);
	} else {
		act_page(act);
		act_end(act);
	}
}

bool
operate_frame(struct operate *operate, struct ipc_from from, const struct ipc_frame *frame)
{
	if (frame->type == PROTO_LIST)
		on_list(operate, from, frame);
	else if (frame->type == PROTO_DETAIL)
		on_detail(operate, from, frame);
	else if (frame->type == PROTO_HOLDS)
		on_holds(operate, from, frame);
	else if (frame->type == PROTO_AGES)
		on_ages(operate, from, frame);
	else if (frame->type == PROTO_ACT)
		on_act(operate, from, frame);
	else
		return false;
	return true;
}

struct operate *
operate_new(struct loop *loop, struct ipc_hub *hub, struct store *store, struct schedule *schedule,
            struct holds *holds)
{
	struct operate *operate = xcalloc(1, sizeof(*operate));

	operate->loop = loop;
	LIST_INIT(&operate->resting);
	operate->hub = hub;
	operate->store = store;
	operate->schedule = schedule;
	operate->holds = holds;
	return operate;
}

void
operate_free(struct operate *operate)
{
	while (operate != NULL && !LIST_EMPTY(&operate->resting))
		act_free(LIST_FIRST(&operate->resting));
	free(operate);
}
