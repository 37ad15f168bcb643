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
	struct envelope_recipient recipient;
	char orcpt[ENVELOPE_ORCPT_MAX + 1];
	enum address_error why;
	char ehlo[ADDRESS_DOMAIN_MAX + 1];
	const struct command_opts opts = {
	    .extensions = COMMAND_ALL,
	    .utf8 = true,
	    .now = 1000000000000,
	    .hostname = "mail.example.test",
	};
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
	if (!command_parse_mail(args, args_len, &opts, &mail, &why)) {
		const struct envelope *envelope = &mail.envelope;
		assert(!*envelope->envid ||
		       envelope_is_envid(envelope->envid, strlen(envelope->envid)));
		assert(abs(envelope->priority) <= ENVELOPE_PRIORITY);
		assert(!envelope->hold_until || envelope->hold_until > opts.now);
		assert(envelope->by != BY_RETURN || envelope->by_deadline > opts.now);
	}
	if (!command_parse_rcpt(args, args_len, &opts, &recipient, orcpt, &why)) {
		assert(!address_is_null(&recipient.address) &&
		       envelope_is_notify(recipient.notify) && recipient.orcpt == orcpt);
		assert(!*orcpt || envelope_is_orcpt(orcpt, strlen(orcpt)));
	}
	command_parse_ehlo(args, args_len, ehlo);
	struct command_bdat bdat;
	enum command_error error;
	if (command_parse_bdat(args, args_len, &bdat, &error))
		assert(!bdat.last || error == COMMAND_OK);
	return 0;
}
