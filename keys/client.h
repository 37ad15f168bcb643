/* Asking sekisho-keys for signatures: introduces core/tls's signer to the process that holds the
 * private key. */
#ifndef KEYS_CLIENT_H
#define KEYS_CLIENT_H

#include "core/ipc.h"
#include "core/tls.h"

#define KEYS_TIMEOUT 5000 /* msec; then the handshake fails */

struct keys_client;
/* The link to sekisho-keys is borrowed. */
struct keys_client *keys_client_new(struct ipc_link *link);
void keys_client_free(struct keys_client *client);
/* What a tls_signer does, with the key of a generation of the configuration (service_generation()).
 * sekisho-keys signs nothing but TLS 1.3 server CertificateVerify texts and TLS 1.2 server key
 * exchanges. */
int keys_client_sign(struct keys_client *client, uint64_t generation, struct tls_sign *sign,
                     const char *digest, const char *padding, const uint8_t *tbs, size_t len);

#endif
