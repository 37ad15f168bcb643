#include <assert.h>
#include <stdint.h>

#include "smtp/header.h"

/* The verdict may not depend on how the content was sliced. The first octet says where to cut. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	size_t cut = data[0] % size, n, m;
	struct arena *arena = arena_new();
	struct header *whole = header_new(arena, 4096, 5), *cuts = header_new(arena, 4096, 5);

	header_feed(whole, data + 1, size - 1);
	header_end(whole);
	if (header_feed(cuts, data + 1, cut) && cut < size - 1)
		header_feed(cuts, data + 1 + cut, size - 1 - cut);
	header_end(cuts);
	assert(header_error(whole) == header_error(cuts) &&
	       header_is_missing(whole) == header_is_missing(cuts));
	assert(header_has_date(whole) == header_has_date(cuts) &&
	       header_has_from(whole) == header_has_from(cuts));
	const struct address *a = header_authors(whole, &n), *b = header_authors(cuts, &m);
	assert(n == m);
	for (size_t i = 0; i < n; i++)
		assert(address_equal(&a[i], &b[i]));
	arena_free(arena);
	return 0;
}
