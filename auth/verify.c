#include "auth/verify.h"

/* SaltedPassword = Hi(password, salt, i); StoredKey = H(HMAC(SaltedPassword, "Client Key"));
 * ServerKey = HMAC(SaltedPassword, "Server Key") (RFC 5802 section 3, with SHA-256). One verifier
 * serves PLAIN, where we derive StoredKey from the password we were told, and SCRAM, where the
 * client proves it.
 *
 * SASLprep's table of characters is that of Unicode 3.2. RFC 4013 forbids later ones where a string
 * is stored; we let them through, as SCRAM clients do, because people use them. */

#include <string.h>
#include <stringprep.h>

#include "auth/proto.h"
#include "core/mem.h"
#include "core/random.h"

int
verify_prepare(const char *password, size_t len, char out[VERIFY_PREPARED_SIZE])
{
	out[0] = '\0';
	if (len > AUTH_PASSWORD_MAX || memchr(password, '\0', len) != NULL)
		return -1;
	memcpy(out, password, len);
	out[len] = '\0';
	if (stringprep(out, VERIFY_PREPARED_SIZE, 0, stringprep_saslprep) != STRINGPREP_OK) {
		mem_wipe(out, VERIFY_PREPARED_SIZE);
		return -1;
	}
	return (int)strlen(out);
}

void
verify_derive(struct verifier *verifier, const char *password, size_t len)
{
	uint8_t salted[CRYPT_SHA256_SIZE], client_key[CRYPT_SHA256_SIZE];

	crypt_pbkdf2_sha256(password, len, verifier->salt, sizeof(verifier->salt),
	                    verifier->iterations, salted);
	crypt_hmac_sha256(salted, sizeof(salted), "Client Key", 10, client_key);
	crypt_sha256(client_key, sizeof(client_key), verifier->stored_key);
	crypt_hmac_sha256(salted, sizeof(salted), "Server Key", 10, verifier->server_key);
	mem_wipe(salted, sizeof(salted));
	mem_wipe(client_key, sizeof(client_key));
}

void
verify_make(struct verifier *verifier, const char *password, size_t len, uint32_t iterations)
{
	verifier->iterations = iterations;
	random_bytes(verifier->salt, sizeof(verifier->salt));
	verify_derive(verifier, password, len);
}

bool
verify_check(const struct verifier *verifier, const char *password, size_t len)
{
	struct verifier told = *verifier;
	bool same;

	verify_derive(&told, password, len);
	same = mem_equal(told.stored_key, verifier->stored_key, sizeof(told.stored_key));
	mem_wipe(&told, sizeof(told));
	return same;
}

void
verify_burn(const char *password, size_t len, uint32_t iterations)
{
	struct verifier nobody = {.iterations = iterations};

	(void)verify_check(&nobody, password, len);
}

const char *
verify_policy(const char *password, size_t len)
{
	char prepared[VERIFY_PREPARED_SIZE];
	int prepared_len;

	if (len > AUTH_PASSWORD_MAX)
		return "the password is too long; give at most 256 octets";
	if (memchr(password, '\0', len) != NULL)
		return "the password holds a NUL octet, which PLAIN cannot carry";
	prepared_len = verify_prepare(password, len, prepared);
	mem_wipe(prepared, sizeof(prepared));
	if (prepared_len < 0)
		return "the password holds control characters or others that SASLprep (RFC 4013) "
		       "forbids, or is no UTF-8 text";
	if (prepared_len < AUTH_PASSWORD_MIN)
		return "the password is too short; give at least 8 octets";
	return NULL;
}
