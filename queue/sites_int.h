/* Internals that the files of the sites share: the memory (sites.c) and what of it is kept on disk
 * (sites_keep.c). */
#ifndef QUEUE_SITES_INT_H
#define QUEUE_SITES_INT_H

#include <sys/queue.h>

#include "core/loop.h"
#include "queue/sites.h"

#define SITES_BUCKETS 16384

struct entry {
	struct site site; /* first: what callers hold */
	LIST_ENTRY(entry) bucket;
	TAILQ_ENTRY(entry) age;    /* the least recently used first */
	TAILQ_ENTRY(entry) change; /* in sites->changed while changed */
	bool changed, stored;      /* since it was written; on disk */
	LIST_HEAD(, known) domains;
	struct site_bounds bounds;
	size_t override; /* the first of the configuration's that matches; their count: none */
	unsigned holders;
};

struct known { /* a domain of which the site is known */
	LIST_ENTRY(known) bucket;
	LIST_ENTRY(known) sibling;
	TAILQ_ENTRY(known) age;
	TAILQ_ENTRY(known) change;
	bool changed, stored;
	struct entry *entry;
	char name[];
};

struct forgotten { /* a row to be deleted */
	STAILQ_ENTRY(forgotten) link;
	const char *kind; /* "site", "domain" */
	char name[];
};

struct sites {
	const struct conf *conf;
	struct store *store; /* NULL: nothing is kept */
	struct loop_timer *timer;
	LIST_HEAD(, entry) entries[SITES_BUCKETS];
	TAILQ_HEAD(, entry) ages, changed;
	size_t count;
	LIST_HEAD(, known) domains[SITES_BUCKETS];
	TAILQ_HEAD(known_ages, known) domain_ages, changed_domains;
	size_t domain_count;
	STAILQ_HEAD(, forgotten) forgotten;
};

struct entry *entry_find(const struct sites *sites, const char *name);
struct known *known_find(const struct sites *sites, const char *domain);
/* Makes it if it is not there. */
struct entry *entry_get(struct sites *sites, const char *name, msec_t now);
void entry_is_changed(struct sites *sites, struct entry *entry, bool changed);
void known_is_changed(struct sites *sites, struct known *known, bool changed);
void sites_forget(struct sites *sites, const char *kind, const char *name);

#endif
