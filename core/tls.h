/* OpenSSL contexts for both ends, with the server's private key in another process.
 *
 * The server context uses a built-in provider whose private keys are names: a signature suspends
 * the handshake (OpenSSL's asynchronous jobs) and asks the signer registered here; TLS 1.2 and up.
 */
#ifndef CORE_TLS_H
#define CORE_TLS_H

#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"

struct tls_server; /* certificate chain and policy for accepting */
struct tls_client; /* policy for connecting */
struct tls_sign;   /* one signature under way */

/* Asks for the signature of tbs (the whole to-be-signed text; borrowed) with the named digest
 * ("SHA2-256"; for RSA the padding "pss" or "pkcs1", else ""). The callee answers later, exactly
 * once, with tls_sign_done; -1 when it cannot ask at all. */
typedef int tls_signer(void *arg, struct tls_sign *sign, const char *digest, const char *padding,
                       const uint8_t *tbs, size_t len);
/* signature NULL: it failed, and so does the handshake. */
void tls_sign_done(struct tls_sign *sign, const uint8_t *signature, size_t len);

/* Reads the PEM chain from fd (taken). NULL with the reason in error. */
struct tls_server *tls_server_new(int chain_fd_take, tls_signer *signer, void *arg, char *error,
                                  size_t size);
void tls_server_free(struct tls_server *server);
/* Unverified opportunistic TLS for the relay (RFC 7435). */
struct tls_client *tls_client_new(void);
/* TLS with a host whose certificate these PEM certificates (the descriptor is taken) vouch for, and
 * which has the name or address that is asked for. NULL with the reason in error. */
struct tls_client *tls_client_new_verifying(int ca_fd_take, char *error, size_t size);
void tls_client_free(struct tls_client *client);

/* Checks a PEM chain and a PEM private key against each other (both borrowed), and that a server
 * can use them: 0, with a warning about the dates or "" in error, or -1 with the reason in error.
 * For sekishod's unprivileged checker. */
int tls_check_pair(int chain_fd, int key_fd, char *error, size_t size);
/* When the first certificate of a good PEM chain (borrowed) expires, wall clock; 0 when it cannot
 * be read. For the same. */
msec_t tls_chain_expires(int chain_fd);

/* A private key in this process's memory: for sekisho-keys alone. Reads the PEM key from fd
 * (taken). NULL with the reason in error. */
struct tls_private;
struct tls_private *tls_private_new(int key_fd_take, char *error, size_t size);
void tls_private_free(struct tls_private *key);
#define TLS_SIGNATURE_MAX 1024
/* The length of the signature written to out, or 0 when this key does not sign so. Names as for
 * tls_signer. */
size_t tls_private_sign(const struct tls_private *key, const char *digest, const char *padding,
                        const uint8_t *tbs, size_t len, uint8_t out[TLS_SIGNATURE_MAX]);

#endif
