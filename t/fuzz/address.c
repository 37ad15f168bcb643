#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "smtp/address.h"

/* Whatever parses, parses again from its own text to the same. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct address address, again;
	char out[ADDRESS_TEXT_SIZE];
	size_t used, at = 0;

	if (address_parse(text, size, &address) == ADDRESS_OK) {
		address_format(&address, out, sizeof out);
		assert(strlen(out) <= ADDRESS_MAX);
		assert(address_parse(out, strlen(out), &again) == ADDRESS_OK &&
		       !strcmp(address.local, again.local) &&
		       !strcmp(address.domain, again.domain));
	}
	if (address_parse_path(text, size, true, &address, &used) == ADDRESS_OK)
		assert(used >= 2 && used <= size && text[used - 1] == '>');
	for (size_t before = 0; address_list_next(text, size, &at, &address) == 1; before = at) {
		assert(at > before && at <= size && address.local[0] && address.domain[0]);
		for (const char *p = address_format(&address, out, sizeof out); *p; p++)
			assert(*p >= 32 && *p < 127);
	}
	return 0;
}
