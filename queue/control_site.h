/* What the NOC may see and change of sites and of reply rules: the client side for admin. Every
 * answer comes through a callback, once, as in queue/control.h. */
#ifndef QUEUE_CONTROL_SITE_H
#define QUEUE_CONTROL_SITE_H

#include "core/conf.h"
#include "queue/control.h"

#define QUEUE_SITE_WHY_SIZE 224
#define QUEUE_SITE_DOMAINS  100 /* shown of those that a site serves */

struct queue_site_cap {         /* less than the configuration allows, for a while */
	msec_t until;           /* wall clock; 0: there is none */
	uint32_t connections;   /* at once; 0: no bound */
	struct conf_burst rate; /* attempts; count 0: no bound */
	char why[QUEUE_SITE_WHY_SIZE];
};
struct queue_site_times { /* msec, as far as known; 0: not at all */
	uint32_t p50, p90, p99;
};
struct queue_site_view {
	char name[QUEUE_SITE_SIZE];
	char paused[16]; /* "back-off", "reply-rule", "operator"; "": it is not */
	msec_t until;    /* of the pause: wall clock */
	char why[QUEUE_SITE_WHY_SIZE];
	bool slow, probing;
	uint32_t failures;                  /* pauses in a row */
	msec_t failing;                     /* since when nobody answers; 0: the last one did */
	uint32_t limit, in_flight, waiting; /* attempts: at once now, under way, in line */
	struct conf_burst rate;             /* of all that holds, the strictest */
	struct queue_site_cap by_rule, by_operator;
	char override[256]; /* which entry of the configuration's sites holds; "": none */
	struct queue_site_times connect, greeting, reply;
	int32_t recent; /* p90 of the last replies; -1: too few */
	uint64_t delivered, deferred, failed, timed_out;
	msec_t seen; /* wall clock */
	char last_reply[256];
};
/* Pages of at most 100, without the first ones, those with most under way and in line first; slow:
 * only the slow ones, the slowest first. More says whether there are others. */
typedef void queue_on_sites(void *arg, enum queue_answer answer, const struct queue_site_view *list,
                            size_t count, bool more);
void queue_ask_sites(struct ipc_link *link, bool slow, uint32_t first, queue_on_sites *on_sites,
                     void *arg);

/* A site by its name or by a domain that it serves. domains: the first QUEUE_SITE_DOMAINS; of those
 * there are domain_count. */
typedef void queue_on_site(void *arg, enum queue_answer answer, const struct queue_site_view *site,
                           const char *const *domains, size_t count, uint32_t domain_count);
void queue_ask_site(struct ipc_link *link, const char *name, queue_on_site *on_site, void *arg);

enum queue_site_action {
	QUEUE_SITE_SUSPEND, /* nothing is attempted there */
	QUEUE_SITE_RESUME,  /* ends any pause; what waits comes as fast as it is taken */
	QUEUE_SITE_LIMIT,   /* less than the configuration allows */
	QUEUE_SITE_UNLIMIT,
};
struct queue_site_order { /* all borrowed for the call */
	enum queue_site_action action;
	const char *site; /* or a domain */
	msec_t until;     /* wall clock; of the first and third */
	uint32_t connections;
	struct conf_burst rate;
	const char *by, *reason;
};
/* Durable before it answers, with the site as it is then. QUEUE_NOT_FOUND: there is nothing to end.
 */
void queue_order_site(struct ipc_link *link, const struct queue_site_order *order,
                      queue_on_site *on_site, void *arg);

struct queue_reply_rule {
	char name[256], action[16], code[8], enhanced[16], text[256], site[256];
	msec_t period;
	bool shipped;
	uint64_t count;
	msec_t last; /* wall clock; 0: never */
};
/* Pages of at most 50 in the order in which they are asked, without the first ones. */
typedef void queue_on_reply_rules(void *arg, enum queue_answer answer,
                                  const struct queue_reply_rule *list, size_t count, bool more);
void queue_ask_reply_rules(struct ipc_link *link, uint32_t first, queue_on_reply_rules *on_rules,
                           void *arg);

#endif
