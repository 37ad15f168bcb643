#include "core/crypt.h"

/* Thin covers over OpenSSL's EVP layer. These functions fail only when the library itself is broken
 * or was misused, so a failure is our bug and ends the process instead of becoming a branch in
 * every caller. Safe from any thread. Wiping and comparing secrets live in core/mem. */

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

static void
must(int ok)
{
	if (!ok)
		abort();
}

void
crypt_sha256(const void *data, size_t len, uint8_t out[CRYPT_SHA256_SIZE])
{
	must(EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) == 1);
}

void
crypt_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                  uint8_t out[CRYPT_SHA256_SIZE])
{
	must(HMAC(EVP_sha256(), key, (int)key_len, data, len, out, NULL) != NULL);
}

void
crypt_pbkdf2_sha256(const void *password, size_t password_len, const uint8_t *salt, size_t salt_len,
                    unsigned iterations, uint8_t out[CRYPT_SHA256_SIZE])
{
	must(PKCS5_PBKDF2_HMAC(password, (int)password_len, salt, (int)salt_len, (int)iterations,
	                       EVP_sha256(), CRYPT_SHA256_SIZE, out) == 1);
}
