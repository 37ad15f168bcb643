#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/mech.h"

/* Whole SASL exchanges, Cyrus SASL and its plug-ins included, against a real store with one
 * account.
 *
 * The input: an octet that chooses the mechanism, then the client's messages, each behind an octet
 * with its length; NONE as the first length is no initial response, LONG a message of 3000 octets.
 * Whatever they hold: an exchange ends after few steps, what we send fits a reply, and nobody logs
 * in who does not say the password. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PASSWORD  "correct horse"
#define NONE      0xff
#define LONG      0xfe
#define LONG_SIZE 3000
#define STEPS_MAX 4

static void
prepare(void)
{
	char dir[] = "/tmp/sekisho-fuzz-XXXXXX", here[4096], error[256];
	static struct mech_opts opts = {.iterations = 1, .hostname = "mail.example.test"};
	struct accounts_record record = {0};

	assert(getcwd(here, sizeof(here)) != NULL && mkdtemp(dir) != NULL && chdir(dir) == 0);
	opts.store = accounts_open(1u << 24, error, sizeof(error));
	assert(opts.store != NULL);
	unlink("accounts.lmdb");
	unlink("accounts.lmdb-lock");
	assert(chdir(here) == 0 && rmdir(dir) == 0);
	opts.cache = cache_new(0);
	strcpy(record.entry.account, "alice@example.test");
	strcpy(record.entry.class, "standard");
	verify_make(&record.verifier, PASSWORD, strlen(PASSWORD), 1);
	assert(accounts_add(opts.store, &record) == ACCOUNTS_OK);
	assert(mech_init(&opts, error, sizeof(error)) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"PLAIN", "LOGIN", "SCRAM-SHA-256", "DIGEST-MD5"};
	static bool prepared;
	enum auth_outcome outcome = AUTH_CONTINUE;
	bool said_password = memmem(data, size, PASSWORD, strlen(PASSWORD)) != NULL;
	unsigned steps = 0;

	if (!prepared)
		prepare();
	prepared = true;
	if (size == 0)
		return 0;
	const char *name = names[data[0] % 4];
	struct mech *mech = mech_new(name);
	for (size_t at = 1; outcome == AUTH_CONTINUE && at < size; steps++) {
		const uint8_t *challenge;
		size_t len = data[at++], challenge_len;
		uint8_t *message = NULL;

		/* A copy of just that length, and the NUL behind it that the exchange has. */
		if (len != NONE || steps > 0) {
			if (len == LONG)
				len = LONG_SIZE;
			message = calloc(1, len + 1);
			assert(message != NULL);
			const size_t left = size - at, take = len < left ? len : left;
			memcpy(message, data + at, take);
			at += take;
		} else {
			len = 0;
		}
		outcome = mech_step(mech, message, len, &challenge, &challenge_len);
		assert(challenge_len <= AUTH_MESSAGE_MAX);
		assert(outcome == AUTH_CONTINUE || challenge_len == 0);
		free(message);
	}
	assert(steps <= STEPS_MAX && outcome != AUTH_UNAVAILABLE && outcome != AUTH_SUSPENDED);
	assert((outcome == AUTH_NO_MECHANISM) == (steps > 0 && strcmp(name, names[3]) == 0));
	if (outcome == AUTH_OK) {
		assert(said_password);
		assert(!strcmp(mech_record(mech)->entry.account, "alice@example.test"));
	}
	mech_free(mech);
	return 0;
}
