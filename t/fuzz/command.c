#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t line, verb_len, args_len, taken;
	const char *args;
	struct command_mail mail;
	struct address address;
	enum address_error why;
	char ehlo[ADDRESS_DOMAIN_MAX + 1];
	uint8_t *raw = malloc(size + 1);
	int n = command_base64_decode((const char *)data, size, raw);

	assert(raw);
	if (n >= 0) { /* strict: one text for each content */
		char *text = malloc(COMMAND_BASE64_SIZE((size_t)n));
		assert(text);
		command_base64_encode(raw, (size_t)n, text);
		assert(strlen(text) == size && !memcmp(text, data, size));
		free(text);
	}
	free(raw);
	taken = command_line(data, size, &line);
	if (taken) {
		assert(taken == line + 2 && taken <= size);
		size = line;
	}
	if (!command_split((const char *)data, size, &verb_len, &args, &args_len))
		return 0;
	assert(args + args_len <= (const char *)data + size && verb_len <= size);
	command_parse_mail(args, args_len, &mail, &why);
	command_parse_rcpt(args, args_len, &address, &why);
	command_parse_ehlo(args, args_len, ehlo);
	return 0;
}
