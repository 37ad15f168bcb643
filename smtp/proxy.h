/* The header of the PROXY protocol, versions 1 and 2: what a load balancer says in front of a
 * client's octets, about who the client is. */
#ifndef SMTP_PROXY_H
#define SMTP_PROXY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* The longest header there may be. Version 1 has at most 107 octets; of version 2 this leaves 4080
 * for addresses and TLVs, of which the longest are certificates. */
#define PROXY_MAX 4096

enum proxy_result {
	PROXY_MORE,   /* a header so far */
	PROXY_CLIENT, /* a header; client is filled in */
	PROXY_SELF, /* a header: the balancer speaks for itself (a health check), or cannot say for
	               whom. The connection's own address counts */
	PROXY_BAD,  /* no header; why says what is wrong, in words for an operator */
};

/* Looks at the first octets of a connection. After PROXY_CLIENT and PROXY_SELF *used of them are
 * the header and what follows is the client's; PROXY_MORE never comes for PROXY_MAX octets.
 * client becomes a sockaddr_in or sockaddr_in6. */
enum proxy_result proxy_parse(const uint8_t *data, size_t len, size_t *used,
                              struct sockaddr_storage *client, const char **why);

#endif
