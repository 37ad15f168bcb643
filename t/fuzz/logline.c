#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "admin/logline.h"

/* A line of the log in parts: whatever it is, no part lies outside the line, and the fields end. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
inside(const struct logline_text *part, const char *line, size_t size)
{
	assert(part->at >= line && part->at + part->len <= line + size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Exactly as long as it is, so that a look beyond is seen. */
	char *line = malloc(size + (size == 0));
	struct logline parsed;
	struct logline_text key, value;
	size_t fields = 0;

	assert(line != NULL);
	memcpy(line, data, size);
	if (logline_parse(line, size, &parsed)) {
		inside(&parsed.time, line, size);
		inside(&parsed.program, line, size);
		inside(&parsed.id, line, size);
		inside(&parsed.event, line, size);
		assert(parsed.time.len > 0 && parsed.program.len > 0 && parsed.event.len > 0);
		while (logline_next(&parsed.rest, &key, &value)) {
			inside(&key, line, size);
			inside(&value, line, size);
			assert(++fields <= size);
		}
		assert(parsed.rest.len == 0);
	}
	free(line);
	return 0;
}
