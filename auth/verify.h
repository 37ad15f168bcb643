/* Passwords, kept only as SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677): enough to check a password,
 * not to log in with. */
#ifndef AUTH_VERIFY_H
#define AUTH_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/crypt.h"

#define VERIFY_SALT_SIZE 16

struct verifier {
	uint32_t iterations;
	uint8_t salt[VERIFY_SALT_SIZE];
	uint8_t stored_key[CRYPT_SHA256_SIZE];
	uint8_t server_key[CRYPT_SHA256_SIZE];
};

/* The octets that are derived from and compared: the password prepared with SASLprep (RFC 4013), so
 * that it is right however a keyboard composes its characters, in PLAIN as in SCRAM, whose clients
 * prepare theirs. Returns the length in out, which the caller wipes, or -1 when it holds what
 * SASLprep forbids, is no UTF-8 or too long. */
#define VERIFY_PREPARED_SIZE 1024
int verify_prepare(const char *password, size_t len, char out[VERIFY_PREPARED_SIZE]);

/* All of these take prepared passwords. Fills the keys from password, iterations and salt. */
void verify_derive(struct verifier *verifier, const char *password, size_t len);
/* A verifier with a fresh random salt. */
void verify_make(struct verifier *verifier, const char *password, size_t len, uint32_t iterations);
/* Constant time in everything but iterations and len. */
bool verify_check(const struct verifier *verifier, const char *password, size_t len);
/* Takes as long as a check with so many iterations. */
void verify_burn(const char *password, size_t len, uint32_t iterations);

/* NULL when the password, not yet prepared, may be used for a new account, else a sentence that
 * says why not. */
const char *verify_policy(const char *password, size_t len);

#endif
