#include "queue/sites_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

#define START 5   /* attempts at once to a site that nobody has met, */
#define PROBE 20  /* and percent after a pause, where no override says otherwise */
#define LOOK  100 /* sites looked at for one that can be forgotten */

static unsigned
bucket_of(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h % SITES_BUCKETS;
}

struct entry *
entry_find(const struct sites *sites, const char *name)
{
	struct entry *entry;

	LIST_FOREACH(entry, &sites->entries[bucket_of(name)], bucket)
	{
		if (strcmp(entry->site.name, name) == 0)
			return entry;
	}
	return NULL;
}

struct known *
known_find(const struct sites *sites, const char *domain)
{
	struct known *known;

	LIST_FOREACH(known, &sites->domains[bucket_of(domain)], bucket)
	{
		if (strcmp(known->name, domain) == 0)
			return known;
	}
	return NULL;
}

static unsigned
at_most(uint64_t value, uint64_t most)
{
	return (unsigned)(value < most ? value : most);
}

static void
set_bounds(const struct sites *sites, struct entry *entry)
{
	const uint64_t most = sites->conf->relay_site_connections;
	struct conf_site override = {.start = START, .probe = PROBE};
	const char *pool = NULL;

	if (entry->override < sites->conf->sites.count) {
		override = sites->conf->sites.list[entry->override];
		pool = sites->conf->sites.list[entry->override].pool;
	}
	if (override.connections == 0)
		override.connections = most;
	entry->bounds = (struct site_bounds){
	    .start = at_most(override.start, override.connections),
	    .most = (unsigned) override.connections,
	    .probe = (unsigned) override.probe,
	    .rate = override.rate,
	    .session_recipients = (unsigned) override.session_recipients,
	    .session_messages = (unsigned) override.session_messages,
	    .pool = pool && strcmp(pool, "default") != 0 ? pool : NULL,
	};
}

static void
bind_bounds(const struct sites *sites, struct entry *entry)
{
	const struct conf *conf = sites->conf;
	const struct known *known;

	entry->override = conf_site_match(conf, entry->site.name, conf->sites.count);
	LIST_FOREACH(known, &entry->domains, sibling)
	{
		entry->override = conf_site_match(conf, known->name, entry->override);
	}
	set_bounds(sites, entry);
}

void
entry_is_changed(struct sites *sites, struct entry *entry, bool changed)
{
	if (changed && !entry->changed)
		TAILQ_INSERT_TAIL(&sites->changed, entry, change);
	else if (!changed && entry->changed)
		TAILQ_REMOVE(&sites->changed, entry, change);
	entry->changed = changed;
}

void
known_is_changed(struct sites *sites, struct known *known, bool changed)
{
	if (changed && !known->changed)
		TAILQ_INSERT_TAIL(&sites->changed_domains, known, change);
	else if (!changed && known->changed)
		TAILQ_REMOVE(&sites->changed_domains, known, change);
	known->changed = changed;
}

void
sites_forget(struct sites *sites, const char *kind, const char *name)
{
	const size_t size = strlen(name) + 1;
	struct forgotten *forgotten = xcalloc(1, sizeof(*forgotten) + size);

	forgotten->kind = kind;
	memcpy(forgotten->name, name, size);
	STAILQ_INSERT_TAIL(&sites->forgotten, forgotten, link);
}

static void
known_drop(struct sites *sites, struct known *known)
{
	known_is_changed(sites, known, false);
	if (known->stored)
		sites_forget(sites, "domain", known->name);
	LIST_REMOVE(known, bucket);
	LIST_REMOVE(known, sibling);
	TAILQ_REMOVE(&sites->domain_ages, known, age);
	sites->domain_count--;
	free(known);
}

static void
entry_drop(struct sites *sites, struct entry *entry)
{
	while (!LIST_EMPTY(&entry->domains))
		known_drop(sites, LIST_FIRST(&entry->domains));
	entry_is_changed(sites, entry, false);
	if (entry->stored)
		sites_forget(sites, "site", entry->site.name);
	LIST_REMOVE(entry, bucket);
	TAILQ_REMOVE(&sites->ages, entry, age);
	sites->count--;
	free(entry);
}

/* One that has something to remember goes only if the oldest all have. */
static void
make_room(struct sites *sites, msec_t now)
{
	struct entry *entry, *oldest = NULL;
	unsigned looked = 0;

	if (sites->count < SITES_MAX)
		return;
	TAILQ_FOREACH(entry, &sites->ages, age)
	{
		if (looked++ == LOOK)
			break;
		if (entry->holders > 0)
			continue;
		if (oldest == NULL)
			oldest = entry;
		if (!site_has_state(&entry->site, &entry->bounds, now)) {
			oldest = entry;
			break;
		}
	}
	if (oldest)
		entry_drop(sites, oldest);
}

struct entry *
entry_get(struct sites *sites, const char *name, msec_t now)
{
	struct entry *entry = entry_find(sites, name);

	if (entry) {
		TAILQ_REMOVE(&sites->ages, entry, age);
		TAILQ_INSERT_TAIL(&sites->ages, entry, age);
		return entry;
	}
	make_room(sites, now);
	entry = xcalloc(1, sizeof(*entry));
	site_init(&entry->site, name, now);
	LIST_INIT(&entry->domains);
	bind_bounds(sites, entry);
	LIST_INSERT_HEAD(&sites->entries[bucket_of(name)], entry, bucket);
	TAILQ_INSERT_TAIL(&sites->ages, entry, age);
	sites->count++;
	return entry;
}

/* Nobody comes to it any more, and there is nothing to remember of a name that was only meant. */
static void
entry_settle(struct sites *sites, struct entry *entry, msec_t now)
{
	if (entry->holders == 0 && LIST_EMPTY(&entry->domains) &&
	    !site_has_state(&entry->site, &entry->bounds, now))
		entry_drop(sites, entry);
}

static void
bind_domain(const struct sites *sites, struct known *known, struct entry *entry)
{
	const size_t override = conf_site_match(sites->conf, known->name, entry->override);

	known->entry = entry;
	LIST_INSERT_HEAD(&entry->domains, known, sibling);
	if (override < entry->override) {
		entry->override = override;
		set_bounds(sites, entry);
	}
}

struct site *
sites_of(struct sites *sites, const char *domain, msec_t now)
{
	struct known *known = known_find(sites, domain);
	const size_t size = strlen(domain) + 1;
	struct entry *entry;

	if (known) {
		TAILQ_REMOVE(&sites->domain_ages, known, age);
		TAILQ_INSERT_TAIL(&sites->domain_ages, known, age);
		return &entry_get(sites, known->entry->site.name, now)->site;
	}
	entry = entry_get(sites, domain, now);
	if (sites->domain_count >= DOMAINS_MAX)
		known_drop(sites, TAILQ_FIRST(&sites->domain_ages));
	known = xcalloc(1, sizeof(*known) + size);
	memcpy(known->name, domain, size);
	LIST_INSERT_HEAD(&sites->domains[bucket_of(domain)], known, bucket);
	TAILQ_INSERT_TAIL(&sites->domain_ages, known, age);
	sites->domain_count++;
	bind_domain(sites, known, entry);
	return &entry->site;
}

struct site *
sites_named(struct sites *sites, const char *name, msec_t now)
{
	return &entry_get(sites, name, now)->site;
}

struct site *
sites_peek(const struct sites *sites, const char *domain)
{
	const struct known *known = known_find(sites, domain);

	return known ? &known->entry->site : NULL;
}

struct site *
sites_find(const struct sites *sites, const char *name)
{
	struct entry *entry = entry_find(sites, name);

	return entry ? &entry->site : sites_peek(sites, name);
}

struct site *
sites_get(struct sites *sites, const char *name, msec_t now)
{
	return &entry_get(sites, name, now)->site;
}

struct site *
sites_learn(struct sites *sites, const char *domain, const char *name, msec_t now)
{
	struct entry *before = (struct entry *)sites_of(sites, domain, now), *entry;
	struct known *known;

	if (strcmp(before->site.name, name) == 0)
		return &before->site;
	before->holders++;
	entry = entry_get(sites, name, now);
	before->holders--;
	known = known_find(sites, domain);
	LIST_REMOVE(known, sibling);
	bind_domain(sites, known, entry);
	known_is_changed(sites, known, true);
	entry_settle(sites, before, now);
	return &entry->site;
}

void
sites_changed(struct sites *sites, struct site *site)
{
	entry_is_changed(sites, (struct entry *)site, true);
}

void
sites_hold(struct sites *sites, struct site *site)
{
	(void)sites;
	((struct entry *)site)->holders++;
}

void
sites_release(struct sites *sites, struct site *site)
{
	struct entry *entry = (struct entry *)site;

	entry->holders--;
	entry_settle(sites, entry, clock_wall());
}

const struct site_bounds *
sites_bounds(const struct site *site)
{
	return &((const struct entry *)site)->bounds;
}

const char *
sites_override(const struct sites *sites, const struct site *site)
{
	const size_t at = ((const struct entry *)site)->override;

	return at < sites->conf->sites.count ? sites->conf->sites.list[at].match : "";
}

void
sites_each(const struct sites *sites, sites_on_site *on_site, void *arg)
{
	struct entry *entry;

	TAILQ_FOREACH(entry, &sites->ages, age)
	{
		on_site(arg, &entry->site);
	}
}

void
sites_each_domain(const struct site *site, sites_on_domain *on_domain, void *arg)
{
	const struct known *known;

	LIST_FOREACH(known, &((const struct entry *)site)->domains, sibling)
	{
		on_domain(arg, known->name);
	}
}

struct sites *
sites_new(const struct conf *conf)
{
	struct sites *sites = xcalloc(1, sizeof(*sites));

	sites->conf = conf;
	TAILQ_INIT(&sites->ages);
	TAILQ_INIT(&sites->domain_ages);
	TAILQ_INIT(&sites->changed);
	TAILQ_INIT(&sites->changed_domains);
	STAILQ_INIT(&sites->forgotten);
	return sites;
}

void
sites_reload(struct sites *sites, const struct conf *conf)
{
	struct entry *entry;

	sites->conf = conf;
	TAILQ_FOREACH(entry, &sites->ages, age)
	{
		bind_bounds(sites, entry);
	}
}

void
sites_free(struct sites *sites)
{
	struct forgotten *forgotten;

	if (sites == NULL)
		return;
	while (!TAILQ_EMPTY(&sites->ages))
		entry_drop(sites, TAILQ_FIRST(&sites->ages));
	while ((forgotten = STAILQ_FIRST(&sites->forgotten)) != NULL) {
		STAILQ_REMOVE_HEAD(&sites->forgotten, link);
		free(forgotten);
	}
	loop_timer_free(sites->timer);
	free(sites);
}
