/* All sites that are known, and which domain is served by which: a bounded memory, learned from
 * what attempts met; private to sekisho-queue. A domain nobody has asked DNS about yet is, for the
 * time being, a site of its own name. */
#ifndef QUEUE_SITES_H
#define QUEUE_SITES_H

#include <stdbool.h>
#include <stddef.h>

#include "core/conf.h"
#include "core/loop.h"
#include "queue/site.h"
#include "queue/store.h"

#define SITES_MAX   20000 /* beside those in use */
#define DOMAINS_MAX 100000

struct sites;
/* The configuration is borrowed until the next one. */
struct sites *sites_new(const struct conf *conf);
void sites_reload(struct sites *sites, const struct conf *conf);
void sites_free(struct sites *sites);
/* Takes up what the store remembers, and from now on has it remember what changes. Both borrowed.
 */
void sites_keep(struct sites *sites, struct loop *loop, struct store *store, msec_t now);
/* Writes what has changed; then nothing more. Before the store is closed. */
void sites_stop(struct sites *sites);

/* What serves the domain. It stays where it is as long as it is held; of others the least recently
 * used goes when there are too many. */
struct site *sites_of(struct sites *sites, const char *domain, msec_t now);
/* The site of that name, whatever it serves. */
struct site *sites_named(struct sites *sites, const char *name, msec_t now);
/* What serves the domain; NULL: nothing is known of the domain. */
struct site *sites_peek(const struct sites *sites, const char *domain);
/* The site of that name, or of that domain; NULL: it is not known. */
struct site *sites_find(const struct sites *sites, const char *name);
/* The site of that name, which is made if it is not known. */
struct site *sites_get(struct sites *sites, const char *name, msec_t now);
/* The domain is served by the site of that name. */
struct site *sites_learn(struct sites *sites, const char *domain, const char *name, msec_t now);
/* What is known of it is not what was written any more. */
void sites_changed(struct sites *sites, struct site *site);
void sites_hold(struct sites *sites, struct site *site);
void sites_release(struct sites *sites, struct site *site);
const struct site_bounds *sites_bounds(const struct site *site);

/* The entry of the configuration that holds for it; "": none. */
const char *sites_override(const struct sites *sites, const struct site *site);
/* All that are known. */
typedef void sites_on_site(void *arg, struct site *site);
void sites_each(const struct sites *sites, sites_on_site *on_site, void *arg);
/* The domains that it is known to serve. */
typedef void sites_on_domain(void *arg, const char *domain);
void sites_each_domain(const struct site *site, sites_on_domain *on_domain, void *arg);

#endif
