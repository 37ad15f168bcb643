#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "smtp/data.h"

/* Slicing changes nothing; what came in has strict CRLF only and no long line; what goes out ends
 * where we say and nowhere before, and reads back as the same content. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
sink(void *arg, const uint8_t *data, size_t len)
{
	buf_add(arg, data, len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	enum data_kind kind = data[0] & 1 ? DATA_CHUNKED : DATA_DOTTED;
	size_t cut = data[0] / 2 % size, used = 0, used_cut = 0, more = 0, back_used;
	struct data_in whole, cuts, back;
	struct data_out out;
	struct buf a, b, wire, c;
	bool end, end_cut;

	buf_init(&a), buf_init(&b), buf_init(&wire), buf_init(&c);
	data++, size--;
	data_in_init(&whole, kind);
	data_in_init(&cuts, kind);
	end = data_in_feed(&whole, data, size, &used, sink, &a);
	end_cut = data_in_feed(&cuts, data, cut, &used_cut, sink, &b);
	if (!end_cut) {
		end_cut = data_in_feed(&cuts, data + cut, size - cut, &more, sink, &b);
		used_cut += more;
	}
	if (kind == DATA_CHUNKED) {
		assert(!end && !end_cut && used == size);
		data_in_end(&whole, sink, &a);
		data_in_end(&cuts, sink, &b);
	}
	assert(end == end_cut && used == used_cut && a.len == b.len &&
	       (!a.len || !memcmp(a.data, b.data, a.len)));
	assert(whole.size == a.len && whole.has_nul == cuts.has_nul &&
	       whole.has_8bit == cuts.has_8bit && whole.has_bare == cuts.has_bare &&
	       whole.has_long == cuts.has_long && whole.has_unfoldable == cuts.has_unfoldable);
	assert(!end || (used >= 3 && !memcmp(data + used - 3, ".\r\n", 3)));
	size_t line = 0;
	for (size_t i = 0; i < a.len; i++) {
		line = a.data[i] == '\n' ? 0 : line + 1;
		assert(line <= DATA_LINE_MAX + 1);
		assert(a.data[i] != '\n' || (i && a.data[i - 1] == '\r'));
		assert(a.data[i] != '\r' || (i + 1 < a.len && a.data[i + 1] == '\n'));
	}
	data_out_init(&out);
	if (a.len)
		data_out_feed(&out, a.data, a.len, sink, &wire);
	data_out_end(&out, sink, &wire);
	data_in_init(&back, DATA_DOTTED);
	assert(data_in_feed(&back, wire.data, wire.len, &back_used, sink, &c) &&
	       back_used == wire.len);
	assert(c.len == a.len && !back.has_bare && !back.has_long &&
	       (!a.len || !memcmp(c.data, a.data, a.len)));
	buf_clear(&a), buf_clear(&b), buf_clear(&wire), buf_clear(&c);
	return 0;
}
