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
 * hold of that kind exists, which is nearly always. */

#define FORMAT  1
#define BUCKETS 1024
#define LOOK    60000 /* msec: the wall clock may be set before a hold ends */
#define AGAIN   5000  /* after a failed write */

struct entry {
	LIST_ENTRY(entry) bucket;
	TAILQ_ENTRY(entry) link;
	struct queue_hold hold;
	char name[QUEUE_SELECTOR_TEXT_SIZE];
};

struct holds {
	struct store *store;
	struct loop_timer *timer;
	LIST_HEAD(, entry) buckets[BUCKETS];
	TAILQ_HEAD(, entry) all;
	unsigned count, changing; /* in force; writes under way */
	unsigned of[QUEUE_SELECTORS];
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

static struct entry *
find(const struct holds *holds, const struct queue_selector *selector)
{
	char name[QUEUE_SELECTOR_TEXT_SIZE];
	struct entry *entry;

	if (holds->of[selector->kind] == 0)
		return NULL;
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
	holds->count--;
	holds->of[entry->hold.selector.kind]--;
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
	queue_selector_text(&hold->selector, entry->name);
	LIST_INSERT_HEAD(&holds->buckets[bucket_of(entry->name)], entry, bucket);
	TAILQ_INSERT_TAIL(&holds->all, entry, link);
	holds->count++;
	holds->of[hold->selector.kind]++;
	holds->generation++;
}

/* --- the directives --- */

static void
directive_name(const struct queue_selector *selector, char out[QUEUE_SELECTOR_TEXT_SIZE + 8])
{
	char name[QUEUE_SELECTOR_TEXT_SIZE];

	snprintf(out, QUEUE_SELECTOR_TEXT_SIZE + 8, "hold %s", queue_selector_text(selector, name));
}

static void
on_directive(void *arg, const char *name, const uint8_t *value, size_t len)
{
	struct holds *holds = arg;
	struct wire wire = wire_from(value, len);
	struct queue_hold hold;

	if (strncmp(name, "hold ", 5) != 0)
		return;
	if (wire_u8(&wire) == FORMAT) {
		proto_hold(&wire, &hold);
		if (wire_done(&wire)) {
			enter(holds, &hold);
			return;
		}
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
	history_note(change->holds->store, &act);
}

static void
on_stored(void *arg, enum store_result result)
{
	struct change *change = arg;
	struct holds *holds = change->holds;
	struct entry *entry;
	char name[QUEUE_SELECTOR_TEXT_SIZE], until[CLOCK_RFC3339_SIZE] = "released";
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
		enter(holds, &change->hold);
		note(change, "held", change->hold.until);
		if (change->hold.until)
			clock_rfc3339(change->hold.until, until);
		log_info("-", "hold", "what=\"%s\" until=%s by=\"%s\" reason=\"%s\"", name, until,
		         change->by, change->hold.reason);
	}
	if (good)
		holds->on_change(holds->arg, change->ends);
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
		if (entry->hold.until == 0)
			continue;
		any = true;
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

static void
on_timer(void *arg)
{
	look_at_clock(arg);
}

struct holds *
holds_new(struct loop *loop, struct store *store, holds_on_change *on_change, void *arg)
{
	struct holds *holds = xcalloc(1, sizeof(*holds));

	holds->store = store;
	holds->on_change = on_change;
	holds->arg = arg;
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

const struct queue_hold *
holds_of_message(const struct holds *holds, const struct store_message *message)
{
	struct queue_selector selector = {.kind = QUEUE_BY_MESSAGE, .id = message->id};
	const struct entry *entry = find(holds, &selector);

	if (entry == NULL && holds->of[QUEUE_BY_ACCOUNT]) {
		selector.kind = QUEUE_BY_ACCOUNT;
		snprintf(selector.name, sizeof(selector.name), "%s", message->account);
		entry = find(holds, &selector);
	}
	return entry ? &entry->hold : NULL;
}

const struct queue_hold *
holds_of_domain(const struct holds *holds, const char *domain)
{
	struct queue_selector selector = {.kind = QUEUE_BY_DOMAIN};
	const struct entry *entry;

	if (holds->of[QUEUE_BY_DOMAIN] == 0)
		return NULL;
	snprintf(selector.name, sizeof(selector.name), "%s", domain);
	entry = find(holds, &selector);
	return entry ? &entry->hold : NULL;
}

bool
holds_have_domains(const struct holds *holds)
{
	return holds->of[QUEUE_BY_DOMAIN] > 0;
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
	char name[QUEUE_SELECTOR_TEXT_SIZE + 8];
	struct buf value;

	if (holds->count + holds->changing >= HOLDS_MAX && find(holds, &hold->selector) == NULL) {
		on_done(arg, QUEUE_LIMIT);
		return;
	}
	change = change_new(holds, hold->by, on_done, arg);
	change->hold = *hold;
	directive_name(&hold->selector, name);
	buf_init(&value);
	wire_put_u8(&value, FORMAT);
	proto_put_hold(&value, hold);
	store_directive_put(holds->store, name, value.data, value.len, on_stored, change);
	buf_clear(&value);
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
