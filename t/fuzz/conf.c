#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "core/conf.h"

/* What parses is dumped as text that parses to the same, and travels as a snapshot that decodes to
 * the same. What does not parse is told with at least one whole line, of which a terminal has
 * nothing to fear. A snapshot from a hostile checker is refused or harmless. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
expect_same(const struct conf *conf, const struct buf *dump)
{
	struct buf again;
	assert(conf != NULL);
	buf_init(&again);
	conf_dump(conf, &again);
	assert(again.len == dump->len && memcmp(again.data, dump->data, dump->len) == 0);
	buf_clear(&again);
}

static void
round_trip(const struct conf *conf)
{
	struct buf dump, wire, errors;
	struct conf *other;
	buf_init(&dump);
	buf_init(&wire);
	buf_init(&errors);
	conf_dump(conf, &dump);
	other = conf_parse("dump", (const char *)dump.data, dump.len, &errors);
	expect_same(other, &dump);
	conf_free(other);
	conf_encode(conf, &wire);
	other = conf_decode(wire.data, wire.len);
	expect_same(other, &dump);
	conf_free(other);
	buf_clear(&dump);
	buf_clear(&wire);
	buf_clear(&errors);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf errors;
	struct conf *conf;
	buf_init(&errors);
	conf = conf_parse("f", (const char *)data, size, &errors);
	if (conf != NULL) {
		assert(errors.len == 0);
		round_trip(conf);
	} else {
		assert(errors.len > 0 && errors.data[errors.len - 1] == '\n');
		for (size_t i = 0; i < errors.len; i++)
			assert(errors.data[i] == '\n' ||
			       (errors.data[i] >= ' ' && errors.data[i] < 0x7f));
	}
	conf_free(conf);
	/* The second half of the harness: the same octets as a snapshot, and as damage to a good
	 * one. */
	conf = conf_decode(data, size);
	if (conf != NULL)
		round_trip(conf);
	conf_free(conf);
	buf_clear(&errors);
	conf = conf_parse("f", "routes: {\"*\": \"127.0.0.1:25\"}\n", 30, &errors);
	assert(conf != NULL);
	struct buf wire;
	buf_init(&wire);
	conf_encode(conf, &wire);
	conf_free(conf);
	for (size_t i = 0; i + 3 <= size; i += 3)
		wire.data[(size_t)(data[i] << 8 | data[i + 1]) % wire.len] = data[i + 2];
	conf = conf_decode(wire.data, wire.len);
	if (conf != NULL) {
		struct buf dump;
		buf_init(&dump);
		conf_dump(conf, &dump);
		buf_clear(&dump);
	}
	conf_free(conf);
	buf_clear(&wire);
	return 0;
}
