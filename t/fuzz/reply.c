#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "smtp/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reply reply;
	long n = reply_parse(data, size, &reply, NULL, NULL);

	if (n <= 0)
		return 0;
	assert((size_t)n <= size && data[n - 1] == '\n');
	assert(reply.code >= 200 && reply.code < 600);
	assert(strlen(reply.text) < REPLY_TEXT_MAX &&
	       strlen(reply.enhanced) < sizeof reply.enhanced);
	for (const char *p = reply.text; *p; p++)
		assert(*p >= 32 && *p < 127);
	return 0;
}
