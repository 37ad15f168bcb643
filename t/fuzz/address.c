#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "core/text.h"
#include "smtp/address.h"

/* Whatever parses, parses again from its own text to the same. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct address address, again;
	bool utf8 = false;
	char out[ADDRESS_TEXT_SIZE];
	size_t used, at = 0;

	if (address_parse(text, size, &address) == ADDRESS_OK) {
		address_format(&address, out, sizeof out);
		assert(strlen(out) <= ADDRESS_MAX);
		assert(address_parse(out, strlen(out), &again) == ADDRESS_OK &&
		       !strcmp(address.local, again.local) &&
		       !strcmp(address.domain, again.domain));
	}
	if (address_parse_path(text, size, true, true, &address, &used) == ADDRESS_OK) {
		bool ascii = true;
		assert(used >= 2 && used <= size && text[used - 1] == '>');
		for (size_t i = 0; i < used; i++)
			ascii = ascii && data[i] < 128;
		assert(!ascii || !address_is_utf8(&address));
		assert(address_parse_path(text, size, true, false, &again, &used) ==
		       (ascii ? ADDRESS_OK : ADDRESS_NON_ASCII));
		assert(!ascii || !memcmp(&address, &again, sizeof address));
	}
	for (size_t before = 0; address_list_next(text, size, &at, &address, &utf8) == 1;
	     before = at) {
		assert(at > before && at <= size && address.local[0] && address.domain[0]);
		address_format(&address, out, sizeof out);
		assert(text_is_printable(out, strlen(out)) && text_is_ascii(address.domain));
		assert(utf8 || text_is_ascii(out));
	}
	return 0;
}
