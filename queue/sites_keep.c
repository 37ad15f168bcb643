#include "queue/sites_int.h"

/* What is known of sites outlives a restart: a site that is dead is not asked by everybody again,
 * and the next start knows which domain is served by which. What has changed is written a batch at
 * a time now and then, and all of it at the end; nothing waits for that. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"

#define FORMAT 2
#define EVERY  (30 * 1000)
#define BATCH  500
#define OLD    (INT64_C(30) * 24 * 60 * 60 * 1000) /* not met for so long: forgotten */

static void
put_histogram(struct buf *out, const struct site_histogram *histogram)
{
	for (size_t i = 0; i < SITE_BUCKETS; i++)
		wire_put_u32(out, histogram->buckets[i]);
}

static void
histogram(struct wire *wire, struct site_histogram *out)
{
	for (size_t i = 0; i < SITE_BUCKETS; i++)
		out->buckets[i] = wire_u32(wire);
}

static void
encode(const struct site *site, struct buf *out)
{
	wire_put_u8(out, FORMAT);
	wire_put_u32(out, (uint32_t)(site->limit * 1000));
	wire_put_u8(out, site->probing);
	wire_put_u8(out, site->slow);
	/* An operator's will is a directive. */
	wire_put_u8(out,
	            site->paused == SITE_BY_OPERATOR ? SITE_NOT_PAUSED : (uint8_t)site->paused);
	wire_put_str(out, site->why);
	wire_put_u64(out, (uint64_t)site->by_rule.until);
	wire_put_u32(out, site->by_rule.connections);
	wire_put_u32(out, site->by_rule.rate.at_once);
	wire_put_u32(out, site->by_rule.rate.count);
	wire_put_u64(out, (uint64_t)site->by_rule.rate.period);
	wire_put_str(out, site->by_rule.why);
	wire_put_u32(out, site->failures);
	wire_put_u64(out, (uint64_t)site->failing);
	wire_put_u64(out, (uint64_t)site->until);
	wire_put_u64(out, (uint64_t)site->seen);
	wire_put_u64(out, (uint64_t)site->halved);
	wire_put_u64(out, site->delivered);
	wire_put_u64(out, site->deferred);
	wire_put_u64(out, site->failed);
	wire_put_u64(out, site->timed_out);
	for (size_t i = 0; i < 3; i++)
		wire_put_u64(out, (uint64_t)site->timeouts[i]);
	wire_put_u32(out, site->reply_count);
	for (size_t i = 0; i < SITE_REPLIES; i++)
		wire_put_u32(out, site->replies[i]);
	put_histogram(out, &site->connect);
	put_histogram(out, &site->greeting);
	put_histogram(out, &site->reply);
	wire_put_str(out, site->last_reply);
}

static bool
decode(const void *data, size_t len, struct site *out)
{
	struct wire wire = wire_from(data, len);

	if (wire_u8(&wire) != FORMAT)
		return false;
	out->limit = wire_u32(&wire) / 1000.0;
	out->probing = wire_u8(&wire) != 0;
	out->slow = wire_u8(&wire) != 0;
	const unsigned paused = wire_u8(&wire);
	out->paused = paused < SITE_BY_OPERATOR ? (enum site_pause)paused : SITE_NOT_PAUSED;
	wire_str(&wire, out->why, sizeof(out->why));
	out->by_rule.until = (msec_t)wire_u64(&wire);
	out->by_rule.connections = wire_u32(&wire);
	out->by_rule.rate.at_once = wire_u32(&wire);
	out->by_rule.rate.count = wire_u32(&wire);
	out->by_rule.rate.period = (msec_t)wire_u64(&wire);
	wire_str(&wire, out->by_rule.why, sizeof(out->by_rule.why));
	out->failures = wire_u32(&wire);
	out->failing = (msec_t)wire_u64(&wire);
	out->until = (msec_t)wire_u64(&wire);
	out->seen = (msec_t)wire_u64(&wire);
	out->halved = (msec_t)wire_u64(&wire);
	out->delivered = wire_u64(&wire);
	out->deferred = wire_u64(&wire);
	out->failed = wire_u64(&wire);
	out->timed_out = wire_u64(&wire);
	for (size_t i = 0; i < 3; i++)
		out->timeouts[i] = (msec_t)wire_u64(&wire);
	out->reply_count = wire_u32(&wire);
	for (size_t i = 0; i < SITE_REPLIES; i++)
		out->replies[i] = wire_u32(&wire);
	histogram(&wire, &out->connect);
	histogram(&wire, &out->greeting);
	histogram(&wire, &out->reply);
	wire_str(&wire, out->last_reply, sizeof(out->last_reply));
	return wire_done(&wire);
}

/* What was met later than now was met under a clock that has been set back since: a pause must not
 * last until that time comes again. */
static void
set_back(struct site *site, msec_t now)
{
	msec_t *const times[] = {&site->failing,     &site->until,       &site->by_rule.until,
	                         &site->timeouts[0], &site->timeouts[1], &site->timeouts[2],
	                         &site->halved,      &site->seen};
	const msec_t ahead = site->seen - now;

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (*times[i] > ahead)
			*times[i] -= ahead;
}

/* --- writing --- */

/* Names of rows: "site NAME", "domain NAME". */
struct batch {
	struct store_site_row rows[BATCH];
	char *names[BATCH];
	struct buf values[BATCH];
	size_t count;
};

static void
batch_add(struct batch *batch, const char *kind, const char *name)
{
	const size_t size = strlen(kind) + strlen(name) + 2;

	batch->names[batch->count] = xmalloc(size);
	snprintf(batch->names[batch->count], size, "%s %s", kind, name);
	buf_init(&batch->values[batch->count]);
	batch->count++;
}

/* True when something is left. */
static bool
write_batch(struct sites *sites)
{
	struct batch *batch = xcalloc(1, sizeof(*batch));
	struct entry *entry;
	struct known *known;
	struct forgotten *forgotten;

	while (batch->count < BATCH && (forgotten = STAILQ_FIRST(&sites->forgotten)) != NULL) {
		STAILQ_REMOVE_HEAD(&sites->forgotten, link);
		batch_add(batch, forgotten->kind, forgotten->name);
		free(forgotten);
	}
	while (batch->count < BATCH && (entry = TAILQ_FIRST(&sites->changed)) != NULL) {
		entry_is_changed(sites, entry, false);
		batch_add(batch, "site", entry->site.name);
		encode(&entry->site, &batch->values[batch->count - 1]);
		entry->stored = true;
	}
	while (batch->count < BATCH && (known = TAILQ_FIRST(&sites->changed_domains)) != NULL) {
		known_is_changed(sites, known, false);
		batch_add(batch, "domain", known->name);
		wire_put_str(&batch->values[batch->count - 1], known->entry->site.name);
		known->stored = true;
	}
	for (size_t i = 0; i < batch->count; i++)
		batch->rows[i] = (struct store_site_row){
		    batch->names[i],
		    batch->values[i].len > 0 ? batch->values[i].data : NULL,
		    batch->values[i].len,
		};
	const bool full = batch->count == BATCH;
	if (batch->count > 0)
		store_sites_put(sites->store, batch->rows, batch->count, NULL, NULL);
	for (size_t i = 0; i < batch->count; i++) {
		free(batch->names[i]);
		buf_clear(&batch->values[i]);
	}
	free(batch);
	return full;
}

static void
on_timer(void *arg)
{
	struct sites *sites = arg;

	loop_timer_arm(sites->timer, write_batch(sites) ? EVERY / 30 : EVERY);
}

/* --- reading --- */

struct reading {
	struct sites *sites;
	msec_t now;
};

static void
on_row(void *arg, const char *name, const uint8_t *value, size_t len)
{
	struct reading *reading = arg;
	struct sites *sites = reading->sites;

	if (strncmp(name, "site ", 5) == 0 && strlen(name + 5) < QUEUE_SITE_SIZE) {
		struct site site;

		site_init(&site, name + 5, reading->now);
		if (!decode(value, len, &site) || reading->now - site.seen > OLD ||
		    sites->count >= SITES_MAX) {
			sites_forget(sites, "site", name + 5);
			return;
		}
		if (site.seen > reading->now)
			set_back(&site, reading->now);
		struct entry *entry = entry_get(sites, name + 5, reading->now);
		entry->site = site;
		entry->stored = true;
	}
}

/* After the sites. */
static void
on_domain_row(void *arg, const char *name, const uint8_t *value, size_t len)
{
	struct reading *reading = arg;
	struct sites *sites = reading->sites;
	struct wire wire = wire_from(value, len);
	char site[QUEUE_SITE_SIZE];
	struct known *known;

	if (strncmp(name, "domain ", 7) != 0)
		return;
	wire_str(&wire, site, sizeof(site));
	if (!wire_done(&wire) || sites->domain_count >= DOMAINS_MAX || !entry_find(sites, site)) {
		sites_forget(sites, "domain", name + 7);
		return;
	}
	sites_learn(sites, name + 7, site, reading->now);
	known = known_find(sites, name + 7);
	known_is_changed(sites, known, false);
	known->stored = true;
}

void
sites_keep(struct sites *sites, struct loop *loop, struct store *store, msec_t now)
{
	struct reading reading = {sites, now};

	sites->store = store;
	store_each_site(store, on_row, &reading);
	store_each_site(store, on_domain_row, &reading);
	sites->timer = loop_timer_new(loop, on_timer, sites);
	loop_timer_arm(sites->timer, EVERY);
}

void
sites_stop(struct sites *sites)
{
	loop_timer_cancel(sites->timer);
	while (write_batch(sites))
		;
}
