#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "relay/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
on_record(void *arg, const struct answer_record *record)
{
	++*(unsigned *)arg;
	assert(strlen(record->host) < sizeof record->host);
	for (const char *p = record->host; *p; p++)
		assert(*p > ' ' && *p < 127);
}

/* A name server's answer to a question about "a.example". */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum answer_type types[] = {ANSWER_A, ANSWER_MX, ANSWER_AAAA};
	char canonical[ANSWER_NAME_SIZE];

	for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
		unsigned records = 0;
		enum answer_kind kind =
		    answer_parse(data, size, "a.example", types[i], on_record, &records, canonical);

		assert(kind != ANSWER_DATA || records);
		assert((kind != ANSWER_NO_DATA && kind != ANSWER_NO_NAME) || !records);
		assert(strlen(canonical) < sizeof canonical);
	}
	return 0;
}
