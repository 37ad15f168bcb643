#include "auth/prefix.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

void
prefix_of(const char *client, char out[PREFIX_SIZE])
{
	struct in6_addr address;

	if (inet_pton(AF_INET6, client, &address) == 1 && !IN6_IS_ADDR_V4MAPPED(&address)) {
		memset(address.s6_addr + 8, 0, 8);
		inet_ntop(AF_INET6, &address, out, PREFIX_SIZE);
	} else {
		snprintf(out, PREFIX_SIZE, "%s", client);
	}
}
