#include "relay/dns_int.h"

#include <arpa/inet.h>
#include <assert.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <unbound-event.h>
#include <unbound.h>

#include "core/mem.h"
#include "core/random.h"

/* Problem: the world's name servers decide where mail goes, slowly, wrongly or not at all.
 *
 * Idea: libunbound asks, validates and caches inside our loop, without a thread. A lookup is one
 * walk: the MX question, then the addresses of the best hosts, both families of all of them at
 * once, under one deadline of our own (libunbound alone gives up after 17 s). What has answered by
 * then counts, and a slow name server of a less preferred host is waited for GRACE only, so that
 * it does not drag mail that could already leave.
 *
 * libunbound calls back from inside its own state machine, for cached names even before
 * ub_resolve_event has returned. So a callback only takes down what was answered and arms the
 * lookup's timer; everything else happens when that fires. Nothing is asked and nothing is freed
 * inside a callback of libunbound's.
 *
 * RFC 5321 section 5.1: the lowest preference first, at random among equals; without MX the domain
 * itself; when we are among the hosts, only those preferred to us. RFC 7505: a single "." takes no
 * mail. A host whose name is none or that has no address is passed over. A temporary failure of one
 * host counts only when no other is left: then the domain may well exist.
 *
 * A bogus answer still carries its data, therefore its security comes first. It is temporary, since
 * most of them are an expired signature.
 *
 * Everything an answer controls is bounded: HOSTS_MAX hosts, ADDRESSES_MAX addresses of each and
 * family. From larger sets the best hosts are kept, and the first addresses: libunbound rotates
 * them.
 *
 * /etc/hosts is for dns_find_host only; libunbound, if it were told of the names in it, would
 * answer that they have no MX. */

#define HOSTS_MAX     10
#define ADDRESSES_MAX DNS_TARGETS_MAX
#define GRACE         1000 /* ms */

struct query {
	struct dns_lookup *lookup;
	enum answer_type type;
	int id; /* libunbound's, while pending */
	bool pending;
	bool asked;
	enum answer_kind kind; /* when answered */
	bool secure;
	char trouble[128]; /* why it failed, in words */
};

struct host {
	char name[ANSWER_NAME_SIZE];
	unsigned preference;
	uint64_t order; /* among equals */
	struct query a, aaaa;
	struct in_addr v4[ADDRESSES_MAX];
	struct in6_addr v6[ADDRESSES_MAX];
	size_t v4_count, v6_count;
};

struct dns_lookup {
	struct dns *dns;
	LIST_ENTRY(dns_lookup) link; /* in dns->lookups */
	dns_on_done *on_done;
	void *arg;
	char name[ANSWER_NAME_SIZE]; /* what was asked for */
	uint16_t port;
	bool is_host;             /* dns_find_host */
	struct loop_timer *timer; /* progress at once, or the deadline */
	msec_t deadline;
	bool graced; /* the deadline has been shortened to GRACE */
	struct query mx;
	bool mx_done;                /* the hosts are known */
	size_t mx_records;           /* seen in the answer, "." included */
	bool null_mx;                /* one of them was "." */
	char best[ANSWER_NAME_SIZE]; /* of the records, by preference and name; "" before */
	unsigned best_preference;
	uint32_t digest;                  /* of all hosts' names, whatever their order */
	unsigned own_preference;          /* ours among the hosts; UINT_MAX: we are not */
	char canonical[ANSWER_NAME_SIZE]; /* where the CNAMEs of the domain lead */
	struct host *hosts;               /* the best first, once the MX answer is whole */
	size_t host_count;
	struct dns_result result;
};

struct dns {
	struct loop *loop;
	struct ub_ctx *ctx;
	const struct dns_files *files;
	msec_t timeout;
	char hostname[ANSWER_NAME_SIZE];
	LIST_HEAD(, dns_lookup) lookups;
};

/* ---- life */

/* Calls use for each string of a list. */
static int
for_each(struct ub_ctx *ctx, const struct buf *list, int (*use)(struct ub_ctx *, const char *))
{
	int failed = 0;

	for (size_t at = 0; at < list->len && !failed;
	     at += strlen((const char *)list->data + at) + 1)
		failed = use(ctx, (const char *)list->data + at);
	return failed;
}

static int
set_servers(struct dns *dns, const struct conf_addresses *servers)
{
	int failed = 0;

	/* As resolv.conf(5) has it: without any, the one on this machine. */
	if (!servers->count && !dns->files->servers.len)
		return ub_ctx_set_fwd(dns->ctx, "127.0.0.1");
	if (!servers->count)
		return for_each(dns->ctx, &dns->files->servers, ub_ctx_set_fwd);
	for (size_t i = 0; i < servers->count && !failed; i++) {
		const struct sockaddr *addr = (const struct sockaddr *)&servers->list[i].addr;
		char ip[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 8];
		const bool v6 = addr->sa_family == AF_INET6;
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)addr;
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)addr;

		inet_ntop(addr->sa_family,
		          v6 ? (const void *)&in6->sin6_addr : (const void *)&in->sin_addr, ip,
		          sizeof ip);
		snprintf(text, sizeof text, "%s@%u", ip,
		         (unsigned)ntohs(v6 ? in6->sin6_port : in->sin_port));
		failed = ub_ctx_set_fwd(dns->ctx, text);
	}
	return failed;
}

static int
set_options(struct dns *dns)
{
	static const char *const options[][2] = {
	    {"do-not-query-localhost:", "no"},
	    {"rrset-roundrobin:", "yes"},
	    /* Its defaults are for one program's few questions. */
	    {"outgoing-range:", "128"},
	    {"outgoing-num-tcp:", "16"},
	    /* Servers that were all down are asked again as soon as somebody wants to know. */
	    {"infra-keep-probing:", "yes"},
	    {"infra-host-ttl:", "60"},
	};
	int failed = 0;

	for (size_t i = 0; i < sizeof options / sizeof *options && !failed; i++)
		failed = ub_ctx_set_option(dns->ctx, options[i][0], options[i][1]);
	return failed;
}

static void
on_nothing(void *arg, int code, void *message, int len, int security, char *why, int limited)
{
	(void)arg;
	(void)code;
	(void)message;
	(void)len;
	(void)security;
	(void)why;
	(void)limited;
}

struct dns *
dns_new(const struct dns_opts *opts, char *error, size_t size)
{
	struct dns *dns = xcalloc(1, sizeof *dns);
	int failed = UB_NOMEM;

	dns->loop = opts->loop;
	dns->files = opts->files;
	dns->timeout = opts->timeout;
	answer_host_name(opts->hostname, dns->hostname);
	LIST_INIT(&dns->lookups);
	dns->ctx = ub_ctx_create_event(loop_base(opts->loop));
	if (dns->ctx) {
		ub_ctx_debugout(dns->ctx, NULL); /* stderr is for whole lines of ours */
		failed = set_options(dns);
	}
	if (!failed)
		failed = set_servers(dns, opts->servers);
	if (!failed)
		failed = for_each(dns->ctx, &opts->files->anchors, ub_ctx_add_ta);
	/* The first question, here one that it answers by itself, makes it set up everything. */
	if (!failed)
		failed =
		    ub_resolve_event(dns->ctx, "localhost", ANSWER_A, 1, NULL, on_nothing, NULL);
	if (failed) {
		snprintf(error, size, "%s", ub_strerror(failed));
		dns_free(dns);
		return NULL;
	}
	return dns;
}

void
dns_free(struct dns *dns)
{
	if (!dns)
		return;
	while (!LIST_EMPTY(&dns->lookups))
		dns_cancel(LIST_FIRST(&dns->lookups));
	if (dns->ctx)
		ub_ctx_delete(dns->ctx);
	free(dns);
}

/* ---- questions */

static void
drop_query(struct query *query)
{
	if (query->pending)
		ub_cancel(query->lookup->dns->ctx, query->id);
	query->pending = false;
}

static void
drop_queries(struct dns_lookup *lookup)
{
	drop_query(&lookup->mx);
	for (size_t i = 0; i < lookup->host_count; i++) {
		drop_query(&lookup->hosts[i].a);
		drop_query(&lookup->hosts[i].aaaa);
	}
}

static bool
is_before(const struct host *a, const struct host *b)
{
	return a->preference != b->preference ? a->preference < b->preference : a->order < b->order;
}

static void
insert_host(struct dns_lookup *lookup, const struct host *host)
{
	size_t at = lookup->host_count;

	while (at && is_before(host, &lookup->hosts[at - 1]))
		at--;
	if (at == HOSTS_MAX)
		return;
	if (lookup->host_count < HOSTS_MAX)
		lookup->host_count++;
	memmove(&lookup->hosts[at + 1], &lookup->hosts[at],
	        (lookup->host_count - 1 - at) * sizeof *host);
	lookup->hosts[at] = *host;
}

/* No host has more than one MX record that counts: the better one. */
static bool
has_better(struct dns_lookup *lookup, const struct host *host)
{
	for (size_t i = 0; i < lookup->host_count; i++) {
		struct host *other = &lookup->hosts[i];

		if (strcmp(other->name, host->name) != 0)
			continue;
		if (!is_before(host, other))
			return true;
		lookup->host_count--;
		memmove(other, other + 1, (lookup->host_count - i) * sizeof *other);
		return false;
	}
	return false;
}

static uint32_t
name_digest(const char *name)
{
	uint32_t digest = 2166136261u; /* FNV-1a */

	for (; *name; name++)
		digest = (digest ^ (unsigned char)*name) * 16777619u;
	return digest;
}

/* One more record for the name of the set. */
static void
add_to_site(struct dns_lookup *lookup, const struct answer_record *record)
{
	lookup->digest += name_digest(record->host);
	if (lookup->best[0] && (record->preference > lookup->best_preference ||
	                        (record->preference == lookup->best_preference &&
	                         strcmp(record->host, lookup->best) > 0)))
		return;
	lookup->best_preference = record->preference;
	memcpy(lookup->best, record->host, sizeof lookup->best);
}

static void
name_site(struct dns_lookup *lookup)
{
	const char *best = lookup->best[0] ? lookup->best : lookup->name;
	const uint32_t others = lookup->best[0] ? lookup->digest - name_digest(best) : 0;
	char digest[8] = "";

	if (others)
		snprintf(digest, sizeof digest, "+%04x", (others ^ others >> 16) & 0xffff);
	snprintf(lookup->result.site, sizeof lookup->result.site, "%s%s", best, digest);
}

static void
on_mx(void *arg, const struct answer_record *record)
{
	struct dns_lookup *lookup = arg;
	struct host host = {.preference = record->preference};
	struct in_addr literal;

	lookup->mx_records++;
	if (record->host[0] && strcmp(record->host, ".") != 0)
		add_to_site(lookup, record);
	if (!strcmp(record->host, ".")) {
		lookup->null_mx = true;
	} else if (record->host[0] && !strcmp(record->host, lookup->dns->hostname)) {
		if (record->preference < lookup->own_preference)
			lookup->own_preference = record->preference;
	} else if (record->host[0] && inet_pton(AF_INET, record->host, &literal) != 1) {
		memcpy(host.name, record->host, sizeof host.name);
		host.order = random_below(UINT64_MAX);
		if (!has_better(lookup, &host))
			insert_host(lookup, &host);
	}
}

static struct host *
host_of(struct query *query)
{
	struct host *host = query->lookup->hosts;

	while (&host->a != query && &host->aaaa != query)
		host++;
	return host;
}

static void
add_v4(struct host *host, struct in_addr v4)
{
	const uint32_t ip = ntohl(v4.s_addr);

	/* Nothing that is no single host's: "this network", multicast and beyond. */
	if (ip >> 24 != 0 && ip >> 28 < 14 && host->v4_count < ADDRESSES_MAX)
		host->v4[host->v4_count++] = v4;
}

static void
add_v6(struct host *host, const struct in6_addr *v6)
{
	if (!IN6_IS_ADDR_UNSPECIFIED(v6) && !IN6_IS_ADDR_MULTICAST(v6) &&
	    !IN6_IS_ADDR_V4MAPPED(v6) && host->v6_count < ADDRESSES_MAX)
		host->v6[host->v6_count++] = *v6;
}

static void
on_address(void *arg, const struct answer_record *record)
{
	struct query *query = arg;
	struct in_addr v4;
	struct in6_addr v6;

	if (query->type == ANSWER_A) {
		memcpy(&v4, record->address, sizeof v4);
		add_v4(host_of(query), v4);
	} else {
		memcpy(&v6, record->address, sizeof v6);
		add_v6(host_of(query), &v6);
	}
}

static void
fail_query(struct query *query, const char *words, const char *more)
{
	query->kind = ANSWER_FAILED;
	snprintf(query->trouble, sizeof query->trouble, "%s%s", words, more);
}

/* libunbound's. Anything may be missing; see the top for what must not happen in here. */
static void
on_answer(void *arg, int code, void *message, int len, int security, char *why, int limited)
{
	struct query *query = arg;
	struct dns_lookup *lookup = query->lookup;
	const bool is_mx = query == &lookup->mx;
	const char *name = is_mx ? lookup->name : host_of(query)->name;
	char canonical[ANSWER_NAME_SIZE];

	(void)limited;
	query->pending = false;
	query->secure = security == 2;
	loop_timer_arm(lookup->timer, 0);
	if (security == 1) {
		fail_query(query, "the answer is not authentic: ", why ? why : "DNSSEC says bogus");
		return;
	}
	if (code || !message || len <= 0) {
		fail_query(query, "the name servers failed", "");
		return;
	}
	query->kind =
	    answer_parse(message, (size_t)len, name, query->type, is_mx ? on_mx : on_address,
	                 is_mx ? (void *)lookup : (void *)query, canonical);
	if (is_mx)
		memcpy(lookup->canonical, canonical, sizeof canonical);
	if (query->kind == ANSWER_FAILED)
		fail_query(query, "the name servers failed", "");
	else if (query->kind == ANSWER_MALFORMED)
		fail_query(query, "the answer is malformed", "");
}

static void
ask(struct dns_lookup *lookup, struct query *query, enum answer_type type, const char *name)
{
	int failed, id;

	query->lookup = lookup;
	query->type = type;
	query->asked = query->pending = true;
	failed = ub_resolve_event(lookup->dns->ctx, name, (int)type, 1, query, on_answer, &id);
	query->id = id;
	if (failed) {
		query->pending = false;
		if (failed == UB_SYNTAX)
			query->kind = ANSWER_NO_NAME;
		else
			fail_query(query, "the question could not be asked: ", ub_strerror(failed));
		loop_timer_arm(lookup->timer, 0);
	}
}

static void
ask_addresses(struct dns_lookup *lookup)
{
	for (size_t i = 0; i < lookup->host_count; i++) {
		struct host *host = &lookup->hosts[i];
		ask(lookup, &host->aaaa, ANSWER_AAAA, host->name);
		ask(lookup, &host->a, ANSWER_A, host->name);
	}
}

/* ---- the walk */

static void __attribute__((format(printf, 3, 4)))
say_why(struct dns_lookup *lookup, const char *status, const char *format, ...)
{
	struct reply *why = &lookup->result.why;
	va_list args;

	snprintf(why->enhanced, sizeof why->enhanced, "%s", status);
	va_start(args, format);
	vsnprintf(why->text, sizeof why->text, format, args);
	va_end(args);
}

/* Out of the resolver's reach; only memory is left of it. */
static void
detach(struct dns_lookup *lookup)
{
	drop_queries(lookup);
	loop_timer_free(lookup->timer);
	LIST_REMOVE(lookup, link);
}

static void
free_lookup(struct dns_lookup *lookup)
{
	free(lookup->hosts);
	free(lookup);
}

static void
finish(struct dns_lookup *lookup)
{
	detach(lookup);
	lookup->on_done(lookup->arg, &lookup->result);
	free_lookup(lookup);
}

static void
add_target(struct dns_lookup *lookup, const struct host *host, bool v6, size_t i)
{
	struct dns_target *target = &lookup->result.list[lookup->result.count++];

	memcpy(target->host, host->name, sizeof target->host);
	target->preference = host->preference;
	target->mx_secure = lookup->is_host || lookup->mx.secure;
	target->secure = target->mx_secure && (v6 ? host->aaaa.secure : host->a.secure);
	if (v6) {
		const struct sockaddr_in6 addr = {.sin6_family = AF_INET6,
		                                  .sin6_port = htons(lookup->port),
		                                  .sin6_addr = host->v6[i]};
		memcpy(&target->addr, &addr, target->len = sizeof addr);
	} else {
		const struct sockaddr_in addr = {.sin_family = AF_INET,
		                                 .sin_port = htons(lookup->port),
		                                 .sin_addr = host->v4[i]};
		memcpy(&target->addr, &addr, target->len = sizeof addr);
	}
}

/* Both families take turns, so that a broken one costs half of the attempts at most. */
static void
add_targets(struct dns_lookup *lookup, const struct host *host, size_t max)
{
	size_t v4 = 0, v6 = 0;

	while (max-- && lookup->result.count < DNS_TARGETS_MAX &&
	       v4 + v6 < host->v4_count + host->v6_count) {
		if (v6 < host->v6_count && (v6 <= v4 || v4 == host->v4_count))
			add_target(lookup, host, true, v6++);
		else
			add_target(lookup, host, false, v4++);
	}
}

static bool
has_address(const struct host *host)
{
	return host->v4_count + host->v6_count > 0;
}

static bool
is_pending(const struct host *host)
{
	return host->a.pending || host->aaaa.pending;
}

static const struct query *
failed_query(const struct host *host)
{
	return host->a.asked && host->a.kind == ANSWER_FAILED         ? &host->a
	       : host->aaaa.asked && host->aaaa.kind == ANSWER_FAILED ? &host->aaaa
	                                                              : NULL;
}

/* Every host without an address: for this time, or for good? */
static void
say_no_address(struct dns_lookup *lookup)
{
	for (size_t i = 0; i < lookup->host_count; i++) {
		const struct host *host = &lookup->hosts[i];
		const struct query *failed = failed_query(host);

		if (is_pending(host)) {
			say_why(lookup, "4.4.3", "the address of %s cannot be resolved: %s",
			        host->name, "the name servers do not answer");
			return;
		}
		if (failed) {
			say_why(lookup, "4.4.3", "the address of %s cannot be resolved: %s",
			        host->name, failed->trouble);
			return;
		}
	}
	if (lookup->is_host)
		say_why(lookup, "4.4.4",
		        "the name of the next host cannot be resolved: %s has no address",
		        lookup->name);
	else if (!lookup->mx_records)
		say_why(lookup, "5.4.4", "%s has neither MX nor address", lookup->name);
	else
		say_why(lookup, "5.4.4", "no MX host of %s has an address", lookup->name);
}

static void
finish_addresses(struct dns_lookup *lookup)
{
	size_t with = 0;

	for (size_t i = 0; i < lookup->host_count; i++)
		with += has_address(&lookup->hosts[i]);
	for (size_t i = 0; i < lookup->host_count; i++)
		add_targets(lookup, &lookup->hosts[i], with > 1 ? 2 : DNS_TARGETS_MAX);
	if (!lookup->result.count)
		say_no_address(lookup);
	finish(lookup);
}

static bool
is_us(const struct dns_lookup *lookup, const char *name)
{
	return name[0] && !strcmp(name, lookup->dns->hostname);
}

/* The MX answer is whole: leaves the hosts to be asked for, or says why there are none. */
static void
settle_hosts(struct dns_lookup *lookup)
{
	lookup->mx_done = true;
	switch (lookup->mx.kind) {
	case ANSWER_NO_NAME:
		say_why(lookup, "5.1.2", "the domain %s does not exist", lookup->name);
		return;
	case ANSWER_FAILED:
	case ANSWER_MALFORMED:
		say_why(lookup, "4.4.3", "the MX of %s cannot be resolved: %s", lookup->name,
		        lookup->mx.trouble);
		return;
	case ANSWER_NO_DATA:
		if (is_us(lookup, lookup->name) || is_us(lookup, lookup->canonical)) {
			lookup->own_preference = 0;
		} else {
			struct host *host = &lookup->hosts[lookup->host_count++];
			memcpy(host->name, lookup->name, sizeof host->name);
		}
		break;
	case ANSWER_DATA:
		break;
	}
	name_site(lookup);
	if (lookup->null_mx && lookup->mx_records == 1) {
		lookup->result.why.code = 556;
		say_why(lookup, "5.1.10", "the domain %s takes no mail (null MX)", lookup->name);
		return;
	}
	while (lookup->host_count &&
	       lookup->hosts[lookup->host_count - 1].preference >= lookup->own_preference)
		lookup->host_count--;
	if (!lookup->host_count && lookup->own_preference != UINT_MAX)
		say_why(lookup, "5.4.6", "mail for %s loops back to %s", lookup->name,
		        lookup->dns->hostname);
	else if (!lookup->host_count)
		say_no_address(lookup);
}

/* Whether all that is worth waiting for is there. */
static bool
is_enough(struct dns_lookup *lookup)
{
	bool best = false, waiting = false;

	for (size_t i = 0; i < lookup->host_count; i++) {
		const struct host *host = &lookup->hosts[i];

		waiting |= is_pending(host);
		best |= !waiting && has_address(host);
	}
	if (best && waiting && !lookup->graced) {
		const msec_t soon = clock_mono() + GRACE;

		lookup->graced = true;
		if (soon < lookup->deadline)
			lookup->deadline = soon;
	}
	return !waiting;
}

/* Something was answered, or the time is over. */
static void
on_timer(void *arg)
{
	struct dns_lookup *lookup = arg;
	const msec_t now = clock_mono();

	if (!lookup->mx_done && !lookup->mx.pending) {
		settle_hosts(lookup);
		if (!lookup->result.why.text[0])
			ask_addresses(lookup);
	} else if (!lookup->mx_done && now >= lookup->deadline) {
		say_why(lookup, "4.4.3", "the MX of %s cannot be resolved: %s", lookup->name,
		        "the name servers do not answer");
	}
	if (lookup->result.why.text[0])
		finish(lookup);
	else if (lookup->mx_done && (is_enough(lookup) || now >= lookup->deadline))
		finish_addresses(lookup);
	else
		loop_timer_arm(lookup->timer, lookup->deadline - now);
}

static struct dns_lookup *
lookup_new(struct dns *dns, const char *name, uint16_t port, dns_on_done *on_done, void *arg)
{
	struct dns_lookup *lookup = xcalloc(1, sizeof *lookup);

	lookup->dns = dns;
	lookup->on_done = on_done;
	lookup->arg = arg;
	lookup->port = port;
	lookup->own_preference = UINT_MAX;
	/* One more than is kept, so that an insertion may push the last one out. */
	lookup->hosts = xcalloc(HOSTS_MAX + 1, sizeof *lookup->hosts);
	if (!answer_host_name(name, lookup->name))
		snprintf(lookup->name, sizeof lookup->name, "%s", name);
	lookup->timer = loop_timer_new(dns->loop, on_timer, lookup);
	lookup->deadline = clock_mono() + dns->timeout;
	loop_timer_arm(lookup->timer, dns->timeout);
	LIST_INSERT_HEAD(&dns->lookups, lookup, link);
	return lookup;
}

/* Takes an address literal as the only host. */
static bool
take_literal(struct dns_lookup *lookup, const char *text)
{
	struct host *host = &lookup->hosts[0];
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, text, &v4) == 1)
		add_v4(host, v4);
	else if (inet_pton(AF_INET6, text, &v6) == 1)
		add_v6(host, &v6);
	else
		return false;
	snprintf(host->name, sizeof host->name, "%s", text);
	lookup->host_count = 1;
	return true;
}

static bool
take_known(struct dns_lookup *lookup)
{
	struct host *host = &lookup->hosts[0];

	for (const struct known *known = lookup->dns->files->known; known; known = known->next) {
		if (strcmp(known->name, lookup->name) != 0)
			continue;
		if (known->is_v6)
			add_v6(host, &known->v6);
		else
			add_v4(host, known->v4);
	}
	memcpy(host->name, lookup->name, sizeof host->name);
	lookup->host_count = 1;
	return has_address(host);
}

struct dns_lookup *
dns_find_host(struct dns *dns, const char *name, uint16_t port, dns_on_done *on_done, void *arg)
{
	struct dns_lookup *lookup = lookup_new(dns, name, port, on_done, arg);

	lookup->is_host = lookup->mx_done = true;
	snprintf(lookup->result.site, sizeof lookup->result.site, "%.255s:%u", lookup->name, port);
	if (take_literal(lookup, name) || take_known(lookup))
		loop_timer_arm(lookup->timer, 0);
	else
		ask_addresses(lookup);
	return lookup;
}

struct dns_lookup *
dns_find_mx(struct dns *dns, const char *domain, uint16_t port, dns_on_done *on_done, void *arg)
{
	struct dns_lookup *lookup = lookup_new(dns, domain, port, on_done, arg);

	if (domain[0] == '[') {
		/* RFC 5321 section 4.1.3: "[192.0.2.1]", "[IPv6:2001:db8::1]". */
		const bool v6 = !strncasecmp(domain, "[IPv6:", 6);
		char *text = xmemdup0(domain + (v6 ? 6 : 1), strcspn(domain + (v6 ? 6 : 1), "]"));

		lookup->mx_done = true;
		if (take_literal(lookup, text))
			name_site(lookup);
		else
			say_why(lookup, "5.1.2", "%s is no address this host can reach", domain);
		free(text);
		loop_timer_arm(lookup->timer, 0);
	} else {
		ask(lookup, &lookup->mx, ANSWER_MX, lookup->name);
	}
	return lookup;
}

void
dns_cancel(struct dns_lookup *lookup)
{
	if (!lookup)
		return;
	detach(lookup);
	free_lookup(lookup);
}
