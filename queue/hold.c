#include "queue/hold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/log.h"
#include "core/mem.h"
#include "queue/history.h"
#include "queue/proto.h"

/* Memory follows the disk: an entry comes and goes with the completion of its directive's write, so
 * nothing is held or let go that a restart would see differently. A lookup costs nothing while no
 * hold of that kind exists, which is nearly always. The usual ones, of a message, an account or a
 * recipient's domain and nothing else, are found by their name, however many there are; each
 * message is compared with all others, so these are few. */

#define FORMAT        4
#define FORMAT_LANES  3 /* reroutes went to lanes only */
#define FORMAT_PLAIN  2 /* there were holds only */
#define FORMAT_SINGLE 1 /* of one of three conditions */
#define BUCKETS       1024
#define LOOK          60000 /* msec: the wall clock may be set before a hold ends */
#define AGAIN         5000  /* after a failed write */

enum kind { BY_MESSAGE, BY_ACCOUNT, BY_DOMAIN, BY_LOOK, BY_LOOK_AT_RECIPIENTS, KINDS };

struct entry {
	LIST_ENTRY(entry) bucket;
	TAILQ_ENTRY(entry) link;
	LIST_ENTRY(entry) look; /* in looks, of these kinds */
	enum kind kind;
	struct queue_hold hold;
	char name[QUEUE_SELECTOR_TEXT_SIZE];
};

struct holds {
	struct store *store;
	struct loop_timer *timer;
	LIST_HEAD(, entry) buckets[BUCKETS];
	TAILQ_HEAD(, entry) all;
	LIST_HEAD(, entry) looks;
	unsigned count, changing; /* in force; writes under way */
	unsigned of[KINDS];
	match_site *site;
	void *site_arg;
	unsigned generation;
	holds_on_change *on_change;
	void *arg;
};

static unsigned
bucket_of(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h % BUCKETS;
}

static enum kind
kind_of(const struct queue_selector *selector)
{
	char name[QUEUE_SELECTOR_TEXT_SIZE], other[QUEUE_SELECTOR_TEXT_SIZE];
	struct queue_selector alone = {0};
	enum kind kind = queue_selector_has_recipient(selector) ? BY_LOOK_AT_RECIPIENTS : BY_LOOK;

	if (selector->has_message) {
		kind = BY_MESSAGE;
		alone.has_message = true;
		alone.message = selector->message;
	} else if (selector->account[0]) {
		kind = BY_ACCOUNT;
		memcpy(alone.account, selector->account, sizeof(alone.account));
	} else if (selector->recipient[0] && strchr(selector->recipient, '@') == NULL) {
		kind = BY_DOMAIN;
		memcpy(alone.recipient, selector->recipient, sizeof(alone.recipient));
	}
	if (strcmp(queue_selector_text(selector, name), queue_selector_text(&alone, other)) != 0)
		kind = queue_selector_has_recipient(selector) ? BY_LOOK_AT_RECIPIENTS : BY_LOOK;
	return kind;
}

static struct entry *
find(const struct holds *holds, const struct queue_selector *selector)
{
	char name[QUEUE_SELECTOR_TEXT_SIZE];
	struct entry *entry;

	queue_selector_text(selector, name);
	LIST_FOREACH(entry, &holds->buckets[bucket_of(name)], bucket)
	{
		if (strcmp(entry->name, name) == 0)
			return entry;
	}
	return NULL;
}

static void
drop(struct holds *holds, struct entry *entry)
{
	LIST_REMOVE(entry, bucket);
	TAILQ_REMOVE(&holds->all, entry, link);
	if (entry->kind >= BY_LOOK)
		LIST_REMOVE(entry, look);
	holds->count--;
	holds->of[entry->kind]--;
	holds->generation++;
	free(entry);
}

static void
enter(struct holds *holds, const struct queue_hold *hold)
{
	struct entry *entry = find(holds, &hold->selector);

	if (entry)
		drop(holds, entry);
	entry = xcalloc(1, sizeof(*entry));
	entry->hold = *hold;
	entry->kind = kind_of(&hold->selector);
	queue_selector_text(&hold->selector, entry->name);
	if (entry->kind >= BY_LOOK)
		LIST_INSERT_HEAD(&holds->looks, entry, look);
	LIST_INSERT_HEAD(&holds->buckets[bucket_of(entry->name)], entry, bucket);
	TAILQ_INSERT_TAIL(&holds->all, entry, link);
	holds->count++;
	holds->of[entry->kind]++;
	holds->generation++;
}

/* --- the directives --- */

static void
directive_name(const struct queue_selector *selector, char out[QUEUE_SELECTOR_TEXT_SIZE + 8])
{
	char name[QUEUE_SELECTOR_TEXT_SIZE];

	snprintf(out, QUEUE_SELECTOR_TEXT_SIZE + 8, "hold %s", queue_selector_text(selector, name));
}

/* Holds from when a selector was one of three conditions. */
static bool
read_single(struct wire *wire, struct queue_hold *hold)
{
	enum { MESSAGE = 1, ACCOUNT, DOMAIN };
	struct queue_selector *selector = &hold->selector;
	const unsigned kind = wire_u8(wire);
	struct queue_id id;
	char name[sizeof(selector->account)];

	memset(hold, 0, sizeof(*hold));
	hold->action = QUEUE_HOLD;
	proto_id(wire, &id);
	wire_str(wire, name, sizeof(name));
	if (kind == MESSAGE) {
		selector->has_message = true;
		selector->message = id;
	} else if (kind == ACCOUNT || kind == DOMAIN) {
		snprintf(kind == ACCOUNT ? selector->account : selector->recipient, sizeof(name),
		         "%s", name);
	}
	hold->since = (msec_t)wire_u64(wire);
	hold->until = (msec_t)wire_u64(wire);
	wire_str(wire, hold->by, sizeof(hold->by));
	wire_str(wire, hold->reason, sizeof(hold->reason));
	return wire_done(wire) && !queue_selector_is_all(selector) &&
	       queue_selector_is_good(selector);
}

static bool
read_plain(struct wire *wire, struct queue_hold *hold)
{
	memset(hold, 0, sizeof(*hold));
	hold->action = QUEUE_HOLD;
	queue_selector_read(wire, &hold->selector);
	hold->since = (msec_t)wire_u64(wire);
	hold->until = (msec_t)wire_u64(wire);
	wire_str(wire, hold->by, sizeof(hold->by));
	wire_str(wire, hold->reason, sizeof(hold->reason));
	return wire_done(wire) && !queue_selector_is_all(&hold->selector);
}

static void
put(struct holds *holds, const struct queue_hold *hold, store_on_done *on_done, void *arg)
{
	char name[QUEUE_SELECTOR_TEXT_SIZE + 8];
	struct buf value;

	directive_name(&hold->selector, name);
	buf_init(&value);
	wire_put_u8(&value, FORMAT);
	proto_put_hold(&value, hold);
	store_directive_put(holds->store, name, value.data, value.len, on_done, arg);
	buf_clear(&value);
}

static void
on_renamed(void *arg, enum store_result result)
{
	(void)arg;
	if (result != STORE_OK) /* it is in force, and the next start tries again */
		log_error("-", "hold-change-failed",
		          "what=\"a hold of an older version\" by=\"start\" error=%s",
		          store_result_text(result));
}

static void
on_directive(void *arg, const char *name, const uint8_t *value, size_t len)
{
	struct holds *holds = arg;
	struct wire wire = wire_from(value, len);
	struct queue_hold hold;
	unsigned format;

	if (strncmp(name, "hold ", 5) != 0)
		return;
	format = wire_u8(&wire);
	if (format == FORMAT || format == FORMAT_LANES) {
		if (format == FORMAT)
			proto_hold(&wire, &hold);
		else
			proto_hold_of_lane(&wire, &hold);
		if (wire_done(&wire)) {
			enter(holds, &hold);
			return;
		}
	} else if (format == FORMAT_PLAIN && read_plain(&wire, &hold)) {
		enter(holds, &hold);
		return;
	} else if (format == FORMAT_SINGLE && read_single(&wire, &hold)) {
		char now[QUEUE_SELECTOR_TEXT_SIZE + 8];

		enter(holds, &hold);
		put(holds, &hold, on_renamed, NULL);
		directive_name(&hold.selector, now);
		if (strcmp(now, name) != 0) /* a release must find it */
			store_directive_put(holds->store, name, NULL, 0, on_renamed, NULL);
		return;
	}
	log_error("-", "hold-unreadable", "name=\"%.64s\"", name);
}

struct change {
	struct holds *holds;
	struct queue_hold hold; /* of a release only its selector */
	char by[64];
	bool ends, by_itself;
	holds_on_done *on_done;
	void *arg;
};

static void look_at_clock(struct holds *holds);

/* For who asks later what became of a message. */
static void
note(const struct change *change, const char *what, msec_t until)
{
	struct history_act act = {
	    .when = clock_wall(), .until = until, .selector = change->hold.selector};

	snprintf(act.what, sizeof(act.what), "%s", what);
	memcpy(act.by, change->by, sizeof(act.by));
	memcpy(act.reason, change->hold.reason, sizeof(act.reason));
	snprintf(act.goal, sizeof(act.goal), "%s", holds_goal(&change->hold));
	history_note(change->holds->store, &act);
}

static void
on_stored(void *arg, enum store_result result)
{
	struct change *change = arg;
	struct holds *holds = change->holds;
	struct entry *entry;
	char name[QUEUE_SELECTOR_TEXT_SIZE], until[CLOCK_RFC3339_SIZE] = "released";
	char rule[HOLDS_NAME_SIZE];
	bool good = result == STORE_OK;

	holds->changing--;
	queue_selector_text(&change->hold.selector, name);
	if (!good) {
		log_error("-", "hold-change-failed", "what=\"%s\" by=\"%s\" error=%s", name,
		          change->by, store_result_text(result));
	} else if (change->ends) {
		if ((entry = find(holds, &change->hold.selector)) != NULL)
			drop(holds, entry);
		note(change, "released", 0);
		log_info("-", change->by_itself ? "hold-over" : "released", "what=\"%s\" by=\"%s\"",
		         name, change->by);
	} else {
		static const char *const notes[] = {[QUEUE_HOLD] = "held",
		                                    [QUEUE_REMOVE] = "to be removed",
		                                    [QUEUE_BOUNCE] = "to be bounced",
		                                    [QUEUE_REROUTE] = "rerouted"};

		enter(holds, &change->hold);
		note(change, notes[change->hold.action], change->hold.until);
		if (change->hold.until)
			clock_rfc3339(change->hold.until, until);
		if (change->hold.action == QUEUE_HOLD)
			log_info("-", "hold", "what=\"%s\" until=%s by=\"%s\" reason=\"%s\"", name,
			         until, change->by, change->hold.reason);
		else
			log_info("-", "directive", "rule=\"%s\" until=%s by=\"%s\" reason=\"%s\"",
			         holds_name(&change->hold, rule), until, change->by,
			         change->hold.reason);
	}
	/* What is not a hold may have taken the place of one. */
	if (good)
		holds->on_change(holds->arg, change->ends || change->hold.action != QUEUE_HOLD);
	if (good)
		look_at_clock(holds);
	else
		loop_timer_arm(holds->timer, AGAIN);
	if (change->on_done)
		change->on_done(change->arg, good ? QUEUE_DONE : QUEUE_DOWN);
	free(change);
}

static struct change *
change_new(struct holds *holds, const char *by, holds_on_done *on_done, void *arg)
{
	struct change *change = xcalloc(1, sizeof(*change));

	change->holds = holds;
	snprintf(change->by, sizeof(change->by), "%s", by);
	change->on_done = on_done;
	change->arg = arg;
	holds->changing++;
	return change;
}

static void
end_hold(struct holds *holds, const struct queue_selector *selector, const char *by, bool by_itself,
         holds_on_done *on_done, void *arg)
{
	struct change *change = change_new(holds, by, on_done, arg);
	char name[QUEUE_SELECTOR_TEXT_SIZE + 8];

	change->hold.selector = *selector;
	change->ends = true;
	change->by_itself = by_itself;
	directive_name(selector, name);
	store_directive_put(holds->store, name, NULL, 0, on_stored, change);
}

/* Ends what is over, and comes again when the next one will be. */
static void
look_at_clock(struct holds *holds)
{
	const msec_t now = clock_wall();
	struct entry *entry;
	msec_t wait = LOOK;
	bool any = false;

	if (holds->changing)
		return; /* each change looks when it is done */
	TAILQ_FOREACH(entry, &holds->all, link)
	{
		any |= entry->hold.until || entry->hold.selector.younger;
		if (entry->hold.until == 0)
			continue;
		if (entry->hold.until <= now) {
			end_hold(holds, &entry->hold.selector, "its time", true, NULL, NULL);
			return;
		}
		if (entry->hold.until - now < wait)
			wait = entry->hold.until - now;
	}
	if (any)
		loop_timer_arm(holds->timer, wait);
	else
		loop_timer_cancel(holds->timer);
}

/* What a hold of young mail selects becomes too old for it. */
static bool
any_of_the_young(const struct holds *holds)
{
	const struct entry *entry;

	LIST_FOREACH(entry, &holds->looks, look)
	{
		if (entry->hold.selector.younger)
			return true;
	}
	return false;
}

static void
on_timer(void *arg)
{
	struct holds *holds = arg;

	if (any_of_the_young(holds)) {
		holds->generation++;
		holds->on_change(holds->arg, true);
	}
	look_at_clock(holds);
}

static const char *
no_site(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return NULL;
}

struct holds *
holds_new(struct loop *loop, struct store *store, holds_on_change *on_change, void *arg)
{
	struct holds *holds = xcalloc(1, sizeof(*holds));

	holds->store = store;
	holds->on_change = on_change;
	holds->arg = arg;
	holds->site = no_site;
	TAILQ_INIT(&holds->all);
	holds->timer = loop_timer_new(loop, on_timer, holds);
	store_each_directive(store, on_directive, holds);
	loop_timer_arm(holds->timer, 0);
	return holds;
}

void
holds_free(struct holds *holds)
{
	struct entry *entry;

	if (holds == NULL)
		return;
	while ((entry = TAILQ_FIRST(&holds->all)) != NULL)
		drop(holds, entry);
	loop_timer_free(holds->timer);
	free(holds);
}

void
holds_know_sites(struct holds *holds, match_site *site, void *arg)
{
	holds->site = site;
	holds->site_arg = arg;
}

const struct queue_hold *
holds_first(const struct queue_hold *one, const struct queue_hold *other)
{
	if (one == NULL || (other && other->action == QUEUE_HOLD && one->action != QUEUE_HOLD))
		return other;
	return one;
}

char *
holds_words(const struct queue_hold *hold, char out[STORE_REPLY_MAX + 1])
{
	if (hold->action == QUEUE_BOUNCE) /* the sender reads it: who did it is in the log */
		snprintf(out, STORE_REPLY_MAX + 1,
		         "5.7.0 delivery was ended by the operator of this service%s%s",
		         hold->reason[0] ? ": " : "", hold->reason);
	else
		snprintf(out, STORE_REPLY_MAX + 1, "%s by %s%s%s",
		         hold->action == QUEUE_REROUTE ? "rerouted" : "removed", hold->by,
		         hold->reason[0] ? ": " : "", hold->reason);
	return out;
}

const char *
holds_goal(const struct queue_hold *hold)
{
	if (hold->action != QUEUE_REROUTE)
		return "";
	return hold->next_hop[0] ? hold->next_hop : queue_lane_name(hold->lane);
}

char *
holds_name(const struct queue_hold *hold, char out[HOLDS_NAME_SIZE])
{
	const char *goal = holds_goal(hold);
	char what[QUEUE_SELECTOR_TEXT_SIZE];

	snprintf(out, HOLDS_NAME_SIZE, "%s %s%s%s", queue_action_name(hold->action),
	         queue_selector_text(&hold->selector, what), goal[0] ? " to " : "", goal);
	return out;
}

static const struct queue_hold *
named(const struct holds *holds, const struct queue_selector *selector)
{
	const struct entry *entry = find(holds, selector);

	return entry ? &entry->hold : NULL;
}

const struct queue_hold *
holds_of_message(const struct holds *holds, const struct store_message *message)
{
	struct queue_selector selector = {.has_message = true, .message = message->id};
	const struct queue_hold *first = holds->of[BY_MESSAGE] ? named(holds, &selector) : NULL;
	const struct entry *entry;

	if (holds->of[BY_ACCOUNT]) {
		selector.has_message = false;
		snprintf(selector.account, sizeof(selector.account), "%s", message->account);
		first = holds_first(first, named(holds, &selector));
	}
	if (holds->of[BY_LOOK]) {
		const msec_t now = clock_wall();

		LIST_FOREACH(entry, &holds->looks, look)
		{
			if (entry->kind == BY_LOOK &&
			    match_message(&entry->hold.selector, message, now))
				first = holds_first(first, &entry->hold);
		}
	}
	return first;
}

const struct queue_hold *
holds_of_recipient(const struct holds *holds, const struct store_message *message,
                   const struct store_recipient *recipient)
{
	const struct queue_hold *first = NULL;
	const struct entry *entry;

	if (holds->of[BY_DOMAIN]) {
		struct queue_selector selector = {0};

		snprintf(selector.recipient, sizeof(selector.recipient), "%s",
		         recipient->address.domain);
		first = named(holds, &selector);
	}
	if (holds->of[BY_LOOK_AT_RECIPIENTS]) {
		const msec_t now = clock_wall();

		LIST_FOREACH(entry, &holds->looks, look)
		{
			const struct queue_selector *selector = &entry->hold.selector;

			if (entry->kind == BY_LOOK_AT_RECIPIENTS &&
			    match_message(selector, message, now) &&
			    match_recipient(selector, recipient, holds->site, holds->site_arg))
				first = holds_first(first, &entry->hold);
		}
	}
	return first;
}

bool
holds_have_recipients(const struct holds *holds)
{
	return holds->of[BY_DOMAIN] > 0 || holds->of[BY_LOOK_AT_RECIPIENTS] > 0;
}

unsigned
holds_generation(const struct holds *holds)
{
	return holds->generation;
}

void
holds_put(struct holds *holds, const struct queue_hold *hold, holds_on_done *on_done, void *arg)
{
	struct change *change;

	const bool looks = kind_of(&hold->selector) >= BY_LOOK;
	const unsigned in_looks = holds->of[BY_LOOK] + holds->of[BY_LOOK_AT_RECIPIENTS];

	if ((holds->count + holds->changing >= HOLDS_MAX ||
	     (looks && in_looks + holds->changing >= HOLDS_LOOK_MAX)) &&
	    find(holds, &hold->selector) == NULL) {
		on_done(arg, QUEUE_LIMIT);
		return;
	}
	change = change_new(holds, hold->by, on_done, arg);
	change->hold = *hold;
	put(holds, hold, on_stored, change);
}

void
holds_release(struct holds *holds, const struct queue_selector *selector, const char *by,
              holds_on_done *on_done, void *arg)
{
	if (find(holds, selector) == NULL)
		on_done(arg, QUEUE_NOT_FOUND);
	else
		end_hold(holds, selector, by, false, on_done, arg);
}

size_t
holds_page(const struct holds *holds, size_t first, size_t max, holds_on_hold *on_hold, void *arg)
{
	const struct entry *entry;
	size_t at = 0, count = 0;

	TAILQ_FOREACH(entry, &holds->all, link)
	{
		if (at++ < first)
			continue;
		if (count == max)
			break;
		on_hold(arg, &entry->hold);
		count++;
	}
	return count;
}
