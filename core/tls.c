#include "core/tls.h"

/* TLS policy in one place: what we accept, what we offer, and how PEM becomes either.
 *
 * Server: TLS 1.2 and 1.3, forward secrecy and AEAD only (so a signature is all that is ever asked
 * of the private key, which is elsewhere: core/tls_key.c), no renegotiation, no compression, no
 * early data, no resumption: a ticket costs a third of what it would save, half of them would meet
 * a process with another key, and most mail programs come back too late or not at all. Client:
 * opportunistic, so nothing is verified and older certificates are good enough; an attacker who
 * could exploit that could as well strip STARTTLS. Where the operator wants a host verified, chain
 * and name are.
 *
 * A missing close_notify is no error: SMTP has its own end marks. OpenSSL's configuration file is
 * never read, so policy is here alone and nothing is opened behind a sandbox's back. */

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "core/mem.h"
#include "core/tls_int.h"

#define PEM_MAX (1024 * 1024)

struct tls_server {
	SSL_CTX *ctx;
};

struct tls_client {
	SSL_CTX *ctx;
	bool verifies;
};

struct tls_private {
	EVP_PKEY_CTX *signing; /* ready to sign; holds the key */
	bool is_rsa;
};

static void
library_init(void)
{
	OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
}

void
tls_error_text(char *out, size_t size)
{
	unsigned long code = ERR_get_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	snprintf(out, size, "%s", reason ? reason : "unknown TLS error");
	ERR_clear_error();
}

static void
error_openssl(char *error, size_t size, const char *what)
{
	char text[160];

	tls_error_text(text, sizeof(text));
	snprintf(error, size, "%s: %s", what, text);
}

/* The whole file from its beginning, wherever its shared offset stands. NULL with the reason. */
static uint8_t *
pem_read(int fd, size_t *len, char *error, size_t size)
{
	uint8_t *data = xmalloc(PEM_MAX);
	size_t have = 0;
	ssize_t got;

	for (;;) {
		got = pread(fd, data + have, PEM_MAX - have, (off_t)have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		have += (size_t)got;
		if (have == PEM_MAX)
			break;
	}
	if (got < 0 || have == 0 || have == PEM_MAX) {
		snprintf(error, size, "%s",
		         got < 0 ? strerror(errno)
		         : have  ? "file too large"
		                 : "file is empty");
		mem_wipe(data, have);
		free(data);
		return NULL;
	}
	*len = have;
	return data;
}

static int
no_passphrase(char *out, int size, int writing, void *arg)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

/* The chain, leaf first, at least one certificate. NULL with the reason. */
static STACK_OF(X509) * chain_read(int fd, char *error, size_t size)
{
	STACK_OF(X509) *chain = NULL;
	X509 *cert;
	uint8_t *data;
	BIO *bio;
	size_t len;

	data = pem_read(fd, &len, error, size);
	if (!data)
		return NULL;
	ERR_clear_error();
	bio = BIO_new_mem_buf(data, (int)len);
	chain = sk_X509_new_null();
	while (bio && chain && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL)
		if (!sk_X509_push(chain, cert))
			abort();
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE ||
	    sk_X509_num(chain) < 1) {
		error_openssl(error, size, "no usable certificate");
		sk_X509_pop_free(chain, X509_free);
		chain = NULL;
	}
	ERR_clear_error();
	BIO_free(bio);
	free(data);
	return chain;
}

static bool
key_is_fit(EVP_PKEY *key, char *error, size_t size)
{
	static const char *const curves[] = {"prime256v1", "secp384r1", "secp521r1"};
	char curve[32] = "";

	/* Clients agree to no other curve, as RFC 8446 names no other. */
	if (key && EVP_PKEY_is_a(key, "EC") &&
	    EVP_PKEY_get_group_name(key, curve, sizeof(curve), NULL) == 1)
		for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
			if (strcmp(curve, curves[i]) == 0)
				return true;
	if (key && EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) >= 2048 &&
	    EVP_PKEY_get_bits(key) <= 8 * TLS_SIGNATURE_MAX)
		return true;
	snprintf(error, size, "the key must be EC (P-256, P-384 or P-521) or RSA (2048 to %d bits)",
	         8 * TLS_SIGNATURE_MAX);
	return false;
}

static EVP_PKEY *
key_read(int fd, char *error, size_t size)
{
	EVP_PKEY *key = NULL;
	uint8_t *data;
	BIO *bio;
	size_t len;

	data = pem_read(fd, &len, error, size);
	if (!data)
		return NULL;
	ERR_clear_error();
	bio = BIO_new_mem_buf(data, (int)len);
	if (bio)
		key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	if (!key)
		error_openssl(error, size, "no usable private key (encrypted ones are not)");
	BIO_free(bio);
	mem_wipe(data, len);
	free(data);
	if (key && !key_is_fit(key, error, size)) {
		EVP_PKEY_free(key);
		key = NULL;
	}
	return key;
}

static SSL_CTX *
context_new(const SSL_METHOD *method)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (!ctx)
		return NULL;
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
	                             SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
	                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* A record's header and body in one system call. */
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	return ctx;
}

static bool
server_policy(SSL_CTX *ctx)
{
	static const unsigned char session_context[] = "sekisho";

	SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(ctx, SSL_MODE_ASYNC);
	SSL_CTX_set_max_early_data(ctx, 0);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(ctx, 0);
	return SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
	       SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
	                                     "TLS_CHACHA20_POLY1305_SHA256") == 1 &&
	       SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") == 1 &&
	       SSL_CTX_set1_sigalgs_list(
	           ctx, "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:rsa_pss_rsae_sha256:"
	                "rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:RSA+SHA256:RSA+SHA384:"
	                "RSA+SHA512") == 1 &&
	       SSL_CTX_set_session_id_context(ctx, session_context, sizeof(session_context) - 1) ==
	           1;
}

/* What clients will be shown. NULL with the reason, which may be a policy of the library's: a
 * digest or a curve that is too weak for it. */
static SSL_CTX *
server_context(STACK_OF(X509) * chain, EVP_PKEY *key, char *error, size_t size)
{
	SSL_CTX *ctx;
	bool good;

	ERR_clear_error();
	ctx = context_new(TLS_server_method());
	good = key && ctx && server_policy(ctx) &&
	       SSL_CTX_use_certificate(ctx, sk_X509_value(chain, 0)) == 1 &&
	       SSL_CTX_use_PrivateKey(ctx, key) == 1;
	for (int i = 1; good && i < sk_X509_num(chain); i++)
		good = SSL_CTX_add1_chain_cert(ctx, sk_X509_value(chain, i)) == 1;
	if (good)
		return ctx;
	error_openssl(error, size, "the certificate cannot be used");
	SSL_CTX_free(ctx);
	return NULL;
}

struct tls_server *
tls_server_new(int chain_fd_take, tls_signer *signer, void *arg, char *error, size_t size)
{
	struct tls_server *server = NULL;
	STACK_OF(X509) *chain = NULL;
	EVP_PKEY *key = NULL;
	SSL_CTX *ctx;
	X509 *leaf;

	library_init();
	chain = chain_read(chain_fd_take, error, size);
	close(chain_fd_take);
	if (!chain)
		return NULL;
	leaf = sk_X509_value(chain, 0);
	if (!key_is_fit(X509_get0_pubkey(leaf), error, size))
		goto done;
	key = tls_key_new(X509_get0_pubkey(leaf), signer, arg);
	ctx = server_context(chain, key, error, size);
	if (!ctx)
		goto done;
	server = xcalloc(1, sizeof(*server));
	server->ctx = ctx;
done:
	EVP_PKEY_free(key);
	sk_X509_pop_free(chain, X509_free);
	return server;
}

void
tls_server_free(struct tls_server *server)
{
	if (!server)
		return;
	SSL_CTX_free(server->ctx);
	free(server);
}

SSL *
tls_server_ssl(struct tls_server *server)
{
	SSL *ssl = SSL_new(server->ctx);

	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
}

struct tls_client *
tls_client_new(void)
{
	struct tls_client *client;
	SSL_CTX *ctx;

	library_init();
	ctx = context_new(TLS_client_method());
	if (!ctx)
		return NULL;
	SSL_CTX_set_security_level(ctx, 1);
	client = xcalloc(1, sizeof(*client));
	client->ctx = ctx;
	return client;
}

struct tls_client *
tls_client_new_verifying(int ca_fd_take, char *error, size_t size)
{
	STACK_OF(X509) *list = chain_read(ca_fd_take, error, size);
	struct tls_client *client = NULL;
	bool good = true;

	close(ca_fd_take);
	if (!list)
		return NULL;
	client = tls_client_new();
	for (int i = 0; client && good && i < sk_X509_num(list); i++)
		good = X509_STORE_add_cert(SSL_CTX_get_cert_store(client->ctx),
		                           sk_X509_value(list, i)) == 1;
	sk_X509_pop_free(list, X509_free);
	if (!client || !good) {
		error_openssl(error, size, "the certificates cannot be used");
		tls_client_free(client);
		return NULL;
	}
	SSL_CTX_set_verify(client->ctx, SSL_VERIFY_PEER, NULL);
	client->verifies = true;
	return client;
}

void
tls_client_free(struct tls_client *client)
{
	if (!client)
		return;
	SSL_CTX_free(client->ctx);
	free(client);
}

SSL *
tls_client_ssl(struct tls_client *client, const char *server_name)
{
	struct in6_addr address;
	SSL *ssl = SSL_new(client->ctx);
	bool is_name;

	if (!ssl)
		return NULL;
	SSL_set_connect_state(ssl);
	is_name = inet_pton(AF_INET, server_name, &address) != 1 &&
	          inet_pton(AF_INET6, server_name, &address) != 1;
	if (client->verifies) {
		SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
		if ((is_name
		         ? SSL_set1_host(ssl, server_name)
		         : X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_name)) != 1) {
			SSL_free(ssl);
			return NULL;
		}
	}
	/* SNI carries host names only (RFC 6066 section 3); an odd one is left out rather than
	 * failed on. */
	if (is_name && *server_name)
		(void)SSL_set_tlsext_host_name(ssl, server_name);
	return ssl;
}

/* Clients refuse these, but only the clock's owner knows whether certificate or clock is wrong. */
static void
remark_validity(STACK_OF(X509) * chain, char *error, size_t size)
{
	for (int i = 0; i < sk_X509_num(chain); i++) {
		const X509 *cert = sk_X509_value(chain, i);

		if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0)
			snprintf(error, size, "expired; renew it");
		else if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0)
			snprintf(error, size, "not valid yet; check it and this machine's clock");
	}
}

int
tls_check_pair(int chain_fd, int key_fd, char *error, size_t size)
{
	STACK_OF(X509) * chain;
	EVP_PKEY *key = NULL;
	SSL_CTX *ctx = NULL;
	int status = -1;

	library_init();
	error[0] = '\0';
	chain = chain_read(chain_fd, error, size);
	if (!chain)
		return -1;
	key = key_read(key_fd, error, size);
	if (key && X509_check_private_key(sk_X509_value(chain, 0), key) != 1)
		snprintf(error, size, "the private key does not belong to the certificate");
	else if (key && (ctx = server_context(chain, key, error, size)) != NULL) {
		remark_validity(chain, error, size);
		status = 0;
	}
	ERR_clear_error();
	EVP_PKEY_free(key);
	sk_X509_pop_free(chain, X509_free);
	SSL_CTX_free(ctx);
	return status;
}

msec_t
tls_chain_expires(int chain_fd)
{
	char error[256];
	STACK_OF(X509) *chain = chain_read(chain_fd, error, sizeof(error));
	msec_t first = 0;

	for (int i = 0; chain && i < sk_X509_num(chain); i++) {
		struct tm tm = {0};
		msec_t end;

		if (ASN1_TIME_to_tm(X509_get0_notAfter(sk_X509_value(chain, i)), &tm) != 1)
			continue;
		end = (msec_t)timegm(&tm) * 1000;
		if (first == 0 || end < first)
			first = end;
	}
	sk_X509_pop_free(chain, X509_free);
	return first;
}

struct tls_private *
tls_private_new(int key_fd_take, char *error, size_t size)
{
	struct tls_private *private;
	EVP_PKEY *key;

	library_init();
	key = key_read(key_fd_take, error, size);
	close(key_fd_take);
	if (!key)
		return NULL;
	private = xcalloc(1, sizeof(*private));
	private->is_rsa = EVP_PKEY_is_a(key, "RSA");
	private->signing = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	EVP_PKEY_free(key);
	if (private->signing && EVP_PKEY_sign_init(private->signing) == 1)
		return private;
	error_openssl(error, size, "the private key does not sign");
	tls_private_free(private);
	return NULL;
}

void
tls_private_free(struct tls_private *key)
{
	if (!key)
		return;
	EVP_PKEY_CTX_free(key->signing);
	free(key);
}

/* TLS names digests as providers do, OpenSSL's table as it always did. Fetched once, as a look for
 * each signature would cost half of it. */
static const EVP_MD *
digest_named(const char *name)
{
	static struct {
		const char *names[2];
		EVP_MD *md;
	} known[] = {{{"SHA2-256", "SHA256"}, NULL},
	             {{"SHA2-384", "SHA384"}, NULL},
	             {{"SHA2-512", "SHA512"}, NULL}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(name, known[i].names[0]) != 0 && strcmp(name, known[i].names[1]) != 0)
			continue;
		if (!known[i].md)
			known[i].md = EVP_MD_fetch(NULL, known[i].names[0], NULL);
		return known[i].md;
	}
	return NULL;
}

size_t
tls_private_sign(const struct tls_private *key, const char *digest, const char *padding,
                 const uint8_t *tbs, size_t len, uint8_t out[TLS_SIGNATURE_MAX])
{
	const EVP_MD *md = digest_named(digest);
	bool is_pss = strcmp(padding, "pss") == 0;
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned hash_len = 0;
	size_t out_len = TLS_SIGNATURE_MAX;
	bool good;

	if (!md)
		return 0;
	if (key->is_rsa ? !is_pss && strcmp(padding, "pkcs1") != 0 : *padding != '\0')
		return 0;

	ERR_clear_error();
	good = EVP_Digest(tbs, len, hash, &hash_len, md, NULL) == 1;
	if (key->is_rsa) /* which padding and digest it was last time, nobody knows */
		good =
		    good && EVP_PKEY_sign_init(key->signing) == 1 &&
		    EVP_PKEY_CTX_set_rsa_padding(key->signing, is_pss ? RSA_PKCS1_PSS_PADDING
		                                                      : RSA_PKCS1_PADDING) == 1 &&
		    (!is_pss ||
		     EVP_PKEY_CTX_set_rsa_pss_saltlen(key->signing, RSA_PSS_SALTLEN_DIGEST) == 1) &&
		    EVP_PKEY_CTX_set_signature_md(key->signing, md) == 1;
	good = good && EVP_PKEY_sign(key->signing, out, &out_len, hash, hash_len) == 1;
	ERR_clear_error();
	return good ? out_len : 0;
}
