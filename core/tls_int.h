/* What core/conn and the two halves of core/tls share: OpenSSL objects, and the wait for a remote
 * signature. */
#ifndef CORE_TLS_INT_H
#define CORE_TLS_INT_H

#include <stdbool.h>

#include <openssl/ssl.h>

#include "core/tls.h"

/* One connection's wait; embedded in the connection. While sign is set its handshake is suspended
 * and must not be driven, only be resumed after on_signed, or be abandoned. */
struct tls_wait {
	struct tls_sign *sign;        /* the signature under way, or NULL */
	void (*on_signed)(void *arg); /* it has arrived or failed: drive the handshake again */
	void *arg;
};

/* New SSL objects, not yet on a descriptor. NULL when OpenSSL refuses. */
SSL *tls_server_ssl(struct tls_server *server);
SSL *tls_client_ssl(struct tls_client *client, const char *server_name);

/* SSL_do_handshake on behalf of wait. */
int tls_handshake(SSL *ssl, struct tls_wait *wait);
/* Ends a handshake for good: a suspended job is run to its (failing) end, so that SSL_free leaks
 * nothing. */
void tls_abandon(SSL *ssl, struct tls_wait *wait);

/* The answer is there, good or bad: tls_handshake would get on. */
bool tls_sign_is_done(const struct tls_sign *sign);

/* A private key that is only a name: public is borrowed, signer is asked for every signature. NULL
 * when OpenSSL refuses. */
EVP_PKEY *tls_key_new(EVP_PKEY *public, tls_signer *signer, void *arg);

/* The oldest entry of OpenSSL's error queue in words; empties the queue. */
void tls_error_text(char *out, size_t size);

#endif
