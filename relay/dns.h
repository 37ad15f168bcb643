/* Who takes the mail of a domain, and the addresses of a host: asynchronous, cached, validating
 * where it has a trust anchor. libunbound's only home. */
#ifndef RELAY_DNS_H
#define RELAY_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/conf.h"
#include "core/loop.h"
#include "queue/worker.h"
#include "smtp/reply.h"

#define DNS_TARGETS_MAX 5

struct dns_files;
struct dns;        /* a resolver with its cache */
struct dns_lookup; /* one question */

struct dns_target {
	char host[256];      /* lower-case name, or the literal as it was asked for */
	unsigned preference; /* of its MX; 0 without one */
	bool secure;         /* DNSSEC proved the host and its address */
	bool mx_secure;      /* it proved the host to be the domain's, which its name in a
	                        certificate then stands for */
	struct sockaddr_storage addr;
	socklen_t len;
};
struct dns_result {
	/* Names the set of hosts, the same for every domain that they serve: the best one, the
	 * first by name among equals; behind it, if there are others, '+' and a digest of all. Of
	 * one host that was asked for: host:port. "": not known. */
	char site[QUEUE_SITE_SIZE];
	/* In the order to try. Of several hosts each has at most two, so that a later one is
	 * reached. 0: why says it. */
	size_t count;
	struct dns_target list[DNS_TARGETS_MAX];
	/* A status 5.x.x is about the domain and for good, one of 4.x.x about this time. */
	struct reply why;
};

/* What is read once, before the sandbox: /etc/hosts, the name servers in /etc/resolv.conf, and the
 * trust anchor (a file with DS or DNSKEY records, one a line; "": validate nothing). NULL with the
 * reason in error. */
struct dns_files *dns_files_new(const char *trust_anchor, char *error, size_t size);
void dns_files_free(struct dns_files *files);

struct dns_opts { /* borrowed for the call */
	struct loop *loop;
	const struct dns_files *files;        /* borrowed as long as the resolver lives */
	const struct conf_addresses *servers; /* they are asked; none: those of /etc/resolv.conf */
	const char *hostname;                 /* ours: mail to this MX host would be a loop */
	msec_t timeout;                       /* of a lookup */
};
/* Opens no file, starts no thread and listens nowhere. NULL with the reason in error. */
struct dns *dns_new(const struct dns_opts *opts, char *error, size_t size);
/* Lookups still under way are forgotten. NULL is harmless. */
void dns_free(struct dns *dns);
typedef void dns_on_done(void *arg, const struct dns_result *result);
/* The hosts that take the mail of a domain (RFC 5321 section 5.1, RFC 7505), or of an address
 * literal in its brackets. Calls back once, never before it has returned; the result is borrowed
 * for the call, and the lookup is over when it is called. */
struct dns_lookup *dns_find_mx(struct dns *dns, const char *domain, uint16_t port,
                               dns_on_done *on_done, void *arg);
/* The addresses of one host: a literal without brackets, a name in /etc/hosts or in DNS. All that
 * can go wrong is for this time only: the name is the operator's. */
struct dns_lookup *dns_find_host(struct dns *dns, const char *host, uint16_t port,
                                 dns_on_done *on_done, void *arg);
/* No callback follows. NULL is harmless. */
void dns_cancel(struct dns_lookup *lookup);

#endif
