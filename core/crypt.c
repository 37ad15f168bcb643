#include "core/crypt.h"

/* Thin covers over OpenSSL's EVP layer. These functions fail only when the library itself is broken
 * or was misused, so a failure is our bug and ends the process instead of becoming a branch in
 * every caller. Safe from any thread. Wiping and comparing secrets live in core/mem. */

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
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

/* Made once: to look up the parts again costs more than a short text does. */
static EVP_MAC_CTX *hmac_sha256;

static void
make_hmac_sha256(void)
{
	char digest[] = "SHA2-256";
	const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest,
	                                                              0),
	                             OSSL_PARAM_construct_end()};
	EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);

	hmac_sha256 = EVP_MAC_CTX_new(hmac);
	must(hmac_sha256 && EVP_MAC_CTX_set_params(hmac_sha256, params) == 1);
	EVP_MAC_free(hmac);
}

void
crypt_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                  uint8_t out[CRYPT_SHA256_SIZE])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	EVP_MAC_CTX *ctx;

	pthread_once(&once, make_hmac_sha256);
	ctx = EVP_MAC_CTX_dup(hmac_sha256);
	must(ctx && EVP_MAC_init(ctx, key, key_len, NULL) == 1 &&
	     EVP_MAC_update(ctx, data, len) == 1 &&
	     EVP_MAC_final(ctx, out, &(size_t){0}, CRYPT_SHA256_SIZE) == 1);
	EVP_MAC_CTX_free(ctx);
}

void
crypt_pbkdf2_sha256(const void *password, size_t password_len, const uint8_t *salt, size_t salt_len,
                    unsigned iterations, uint8_t out[CRYPT_SHA256_SIZE])
{
	must(PKCS5_PBKDF2_HMAC(password, (int)password_len, salt, (int)salt_len, (int)iterations,
	                       EVP_sha256(), CRYPT_SHA256_SIZE, out) == 1);
}
