#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "smtp/proxy.h"

/* Whatever comes: a verdict does not change with what follows, nothing is asked for without end,
 * and what was enough is the least that is. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sockaddr_storage client;
	const char *why = NULL;
	size_t used = 0, first = 0;
	enum proxy_result last = PROXY_MORE;

	if (size > PROXY_MAX + 64)
		size = PROXY_MAX + 64;
	for (size_t len = 0; len <= size; len++) {
		memset(&client, 0xff, sizeof(client));
		enum proxy_result result = proxy_parse(data, len, &used, &client, &why);
		assert(last == PROXY_MORE || result == last);
		assert((result == PROXY_BAD) == (why[0] != '\0'));
		assert(result != PROXY_MORE || len < PROXY_MAX);
		if (result == PROXY_CLIENT)
			assert(client.ss_family == AF_INET || client.ss_family == AF_INET6);
		if (result == PROXY_CLIENT || result == PROXY_SELF) {
			assert(used <= len && (first == 0 || used == first));
			assert(first != 0 || used == len);
			first = used;
		}
		last = result;
	}
	return 0;
}
