/* The few primitives of cryptography that others than TLS need. OpenSSL stays behind this page. */
#ifndef CORE_CRYPT_H
#define CORE_CRYPT_H

#include <stddef.h>
#include <stdint.h>

#define CRYPT_SHA256_SIZE 32

void crypt_sha256(const void *data, size_t len, uint8_t out[CRYPT_SHA256_SIZE]);
void crypt_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                       uint8_t out[CRYPT_SHA256_SIZE]);
/* PBKDF2 with HMAC-SHA-256, one block: what SCRAM calls Hi(). Costs about 0.5 ms per 1,000
 * iterations. */
void crypt_pbkdf2_sha256(const void *password, size_t password_len, const uint8_t *salt,
                         size_t salt_len, unsigned iterations, uint8_t out[CRYPT_SHA256_SIZE]);

#endif
