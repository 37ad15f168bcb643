/* What the resolver (relay/dns.c) finds in the files that relay/dns_files.c has read. */
#ifndef RELAY_DNS_INT_H
#define RELAY_DNS_INT_H

#include <netinet/in.h>

#include "core/buf.h"
#include "relay/answer.h"
#include "relay/dns.h"

struct known { /* a line of /etc/hosts */
	struct known *next;
	char name[ANSWER_NAME_SIZE];
	struct in6_addr v6; /* or */
	struct in_addr v4;
	bool is_v6;
};

struct dns_files {
	struct known *known;
	struct buf servers; /* addresses, each with its NUL */
	struct buf anchors; /* records, each with its NUL */
};

#endif
