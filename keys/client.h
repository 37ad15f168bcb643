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
/* A tls_signer; arg is the client. sekisho-keys signs nothing but TLS 1.3 server CertificateVerify
 * texts and TLS 1.2 server key exchanges. */
int keys_client_sign(void *arg, struct tls_sign *sign, const char *digest, const char *padding,
                     const uint8_t *tbs, size_t len);

#endif
