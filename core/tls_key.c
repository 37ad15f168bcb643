#include "core/tls_int.h"

/* The private key that is not here.
 *
 * The process that talks to strangers holds no private key, yet OpenSSL wants one to sign with. So
 * a provider built into this program offers key managers and signature methods for EC and RSA whose
 * keys are a public key plus somebody to ask. OpenSSL calls the one-shot DIGEST_SIGN from inside an
 * asynchronous job (the connection's handshake); the job asks, pauses, and is resumed when the
 * handshake is driven again after tls_sign_done.
 *
 * - The whole to-be-signed text travels, never a digest: the signer can see what it signs.
 * - There is no export function: OpenSSL would otherwise move the public half into its default
 * provider and try to sign there. Importing exists because a certificate's public key is imported
 * here to be compared with ours.
 * - struct tls_sign has two holders, the paused job and the asked signer. Whichever lets go last
 * frees it: a job that was abandoned leaves it to tls_sign_done.
 * - A paused job is resumed by any SSL call on its connection; hence the loop around
 * ASYNC_pause_job. Its stack is small (32 KiB, no guard page): no large arrays in this file.
 * - The connection being driven is known from a static (one loop, one thread; every job pauses and
 * resumes on it). */

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/async.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>

#include "core/mem.h"

#define PROVIDER   "sekisho"
#define PARAM_SEED "sekisho-key" /* an octet string: the address of a struct seed */

/* How tls_key_new's arguments pass through EVP_PKEY_fromdata. */
struct seed {
	EVP_PKEY *public;
	tls_signer *signer;
	void *arg;
};

struct key {
	const char *type;   /* "EC" or "RSA" */
	EVP_PKEY *public;   /* owned; NULL before import */
	tls_signer *signer; /* NULL: only a public key, imported for comparison */
	void *arg;
};

/* One signature operation as OpenSSL sees it. */
struct method {
	const struct key *key; /* borrowed */
	char digest[32];
	bool is_pss;
};

struct tls_sign {
	struct tls_wait *wait; /* NULL once abandoned, or while the signer is still being asked */
	uint8_t *signature;    /* owned; NULL: failed */
	size_t len;
	bool is_done;      /* tls_sign_done was called */
	bool is_abandoned; /* the handshake does not want it any more */
	bool is_orphan;    /* the job has let go: tls_sign_done frees */
};

static struct tls_wait *driven; /* whose handshake runs right now */

int
tls_handshake(SSL *ssl, struct tls_wait *wait)
{
	struct tls_wait *outer = driven;
	int done;

	driven = wait;
	ERR_clear_error();
	done = SSL_do_handshake(ssl);
	driven = outer;
	return done;
}

void
tls_abandon(SSL *ssl, struct tls_wait *wait)
{
	if (!wait->sign)
		return;
	wait->sign->is_abandoned = true;
	(void)tls_handshake(ssl, wait);
	assert(!wait->sign);
	ERR_clear_error();
}

static void
sign_free(struct tls_sign *sign)
{
	free(sign->signature);
	free(sign);
}

void
tls_sign_done(struct tls_sign *sign, const uint8_t *signature, size_t len)
{
	assert(!sign->is_done);
	sign->is_done = true;
	if (sign->is_orphan) {
		sign_free(sign);
		return;
	}
	if (signature && len > 0) {
		sign->signature = xmalloc(len);
		memcpy(sign->signature, signature, len);
		sign->len = len;
	}
	if (sign->wait)
		sign->wait->on_signed(sign->wait->arg);
}

bool
tls_sign_is_done(const struct tls_sign *sign)
{
	return sign->is_done;
}

/* Runs inside the job. Returns the finished operation, or NULL after failing or being abandoned. */
static struct tls_sign *
sign_ask(const struct method *method, const uint8_t *tbs, size_t len)
{
	struct tls_wait *wait = driven;
	struct tls_sign *sign;
	const char *padding = "";

	if (!wait || !ASYNC_get_current_job())
		return NULL;
	assert(!wait->sign);
	if (strcmp(method->key->type, "RSA") == 0)
		padding = method->is_pss ? "pss" : "pkcs1";

	sign = xcalloc(1, sizeof(*sign));
	if (method->key->signer(method->key->arg, sign, method->digest, padding, tbs, len) != 0) {
		sign_free(sign);
		return NULL;
	}
	sign->wait = wait;
	wait->sign = sign;
	while (!sign->is_done && !sign->is_abandoned)
		if (!ASYNC_pause_job())
			break;
	wait->sign = NULL;
	sign->wait = NULL;
	if (sign->is_done)
		return sign;
	sign->is_orphan = true;
	return NULL;
}

/* Signature methods. */

static void *
method_new(void *provider, const char *properties)
{
	(void)provider;
	(void)properties;
	return xcalloc(1, sizeof(struct method));
}

static void
method_free(void *arg)
{
	free(arg);
}

static int
method_set_params(void *arg, const OSSL_PARAM params[])
{
	struct method *method = arg;
	const OSSL_PARAM *p;
	int mode = 0;

	/* The salt's length needs no look: TLS allows only that of the digest. */
	p = params ? OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE) : NULL;
	if (!p)
		return 1;
	if (p->data_type == OSSL_PARAM_UTF8_STRING && p->data) {
		method->is_pss = strcmp(p->data, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0;
		return 1;
	}
	if (!OSSL_PARAM_get_int(p, &mode))
		return 0;
	method->is_pss = mode == RSA_PKCS1_PSS_PADDING;
	return 1;
}

static const OSSL_PARAM *
method_settable(void *arg, void *provider)
{
	static const OSSL_PARAM settable[] = {
	    OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
	    OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
	    OSSL_PARAM_END,
	};

	(void)arg;
	(void)provider;
	return settable;
}

static int
method_sign_init(void *arg, const char *digest, void *provider_key, const OSSL_PARAM params[])
{
	struct method *method = arg;
	const struct key *key = provider_key;

	if (!digest || strlen(digest) >= sizeof(method->digest) || !key || !key->signer)
		return 0;
	memset(method->digest, 0, sizeof(method->digest));
	memcpy(method->digest, digest, strlen(digest));
	method->key = key;
	method->is_pss = false;
	return method_set_params(method, params);
}

static int
method_sign(void *arg, unsigned char *out, size_t *out_len, size_t out_size,
            const unsigned char *tbs, size_t len)
{
	struct method *method = arg;
	struct tls_sign *sign;
	int max = EVP_PKEY_get_size(method->key->public);
	int good;

	if (max <= 0)
		return 0;
	if (!out) {
		*out_len = (size_t)max;
		return 1;
	}
	sign = sign_ask(method, tbs, len);
	if (!sign)
		return 0;
	good = sign->signature && sign->len <= out_size && sign->len <= (size_t)max;
	if (good) {
		memcpy(out, sign->signature, sign->len);
		*out_len = sign->len;
	}
	sign_free(sign);
	return good;
}

#define F(id, function)                                                                            \
	{                                                                                          \
		(id), (void (*)(void))(function)                                                   \
	}

static const OSSL_DISPATCH method_table[] = {
    F(OSSL_FUNC_SIGNATURE_NEWCTX, method_new),
    F(OSSL_FUNC_SIGNATURE_FREECTX, method_free),
    F(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, method_sign_init),
    F(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, method_sign),
    F(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, method_set_params),
    F(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, method_settable),
    {0, NULL},
};

/* Key managers. */

static void *
key_new(const char *type)
{
	struct key *key = xcalloc(1, sizeof(*key));

	key->type = type;
	return key;
}

static void *
key_new_ec(void *provider)
{
	(void)provider;
	return key_new("EC");
}

static void *
key_new_rsa(void *provider)
{
	(void)provider;
	return key_new("RSA");
}

static void
key_free(void *arg)
{
	struct key *key = arg;

	if (!key)
		return;
	EVP_PKEY_free(key->public);
	free(key);
}

static int
key_has(const void *arg, int selection)
{
	const struct key *key = arg;

	if (!key || !key->public)
		return 0;
	return !(selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) || key->signer != NULL;
}

static int
key_match(const void *arg_a, const void *arg_b, int selection)
{
	const struct key *a = arg_a;
	const struct key *b = arg_b;

	(void)selection;
	return a && b && a->public && b->public && EVP_PKEY_eq(a->public, b->public) == 1;
}

static int
key_import(void *arg, int selection, const OSSL_PARAM params[])
{
	struct key *key = arg;
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, PARAM_SEED);
	EVP_PKEY_CTX *ctx;
	OSSL_PARAM *copy;
	int good;

	if (!key || key->public)
		return 0;
	if (p) {
		const struct seed *seed;

		if (p->data_type != OSSL_PARAM_OCTET_STRING || p->data_size != sizeof(seed))
			return 0;
		memcpy(&seed, p->data, sizeof(seed));
		if (!EVP_PKEY_up_ref(seed->public))
			return 0;
		key->public = seed->public;
		key->signer = seed->signer;
		key->arg = seed->arg;
		return 1;
	}
	if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY)
		return 0;
	ctx = EVP_PKEY_CTX_new_from_name(NULL, key->type, "provider=default");
	copy = OSSL_PARAM_dup(params);
	good = ctx && copy && EVP_PKEY_fromdata_init(ctx) == 1 &&
	       EVP_PKEY_fromdata(ctx, &key->public, EVP_PKEY_PUBLIC_KEY, copy) == 1;
	OSSL_PARAM_free(copy);
	EVP_PKEY_CTX_free(ctx);
	return good;
}

/* Both kinds at once: OpenSSL only wants to know what may come. */
static const OSSL_PARAM *
key_import_types(int selection)
{
	static const OSSL_PARAM types[] = {
	    OSSL_PARAM_octet_string(PARAM_SEED, NULL, 0),
	    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
	    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
	    OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
	    OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
	    OSSL_PARAM_END,
	};

	(void)selection;
	return types;
}

static int
key_get_params(void *arg, OSSL_PARAM params[])
{
	struct key *key = arg;

	return key && key->public && EVP_PKEY_get_params(key->public, params);
}

static const OSSL_PARAM *
key_gettable(void *provider)
{
	static const OSSL_PARAM gettable[] = {
	    OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
	    OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
	    OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
	    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
	    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, NULL, 0),
	    OSSL_PARAM_END,
	};

	(void)provider;
	return gettable;
}

static const char *
key_method_ec(int operation)
{
	return operation == OSSL_OP_SIGNATURE ? "ECDSA" : NULL;
}

static const char *
key_method_rsa(int operation)
{
	return operation == OSSL_OP_SIGNATURE ? "RSA" : NULL;
}

#define KEY_TABLE(new, method)                                                                     \
	{                                                                                          \
		F(OSSL_FUNC_KEYMGMT_NEW, new), F(OSSL_FUNC_KEYMGMT_FREE, key_free),                \
		    F(OSSL_FUNC_KEYMGMT_HAS, key_has), F(OSSL_FUNC_KEYMGMT_MATCH, key_match),      \
		    F(OSSL_FUNC_KEYMGMT_IMPORT, key_import),                                       \
		    F(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, key_import_types),                           \
		    F(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_params),                               \
		    F(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_gettable),                            \
		    F(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, method), {0, NULL},                  \
	}
static const OSSL_DISPATCH key_table_ec[] = KEY_TABLE(key_new_ec, key_method_ec);
static const OSSL_DISPATCH key_table_rsa[] = KEY_TABLE(key_new_rsa, key_method_rsa);

/* The provider itself. */

static const OSSL_ALGORITHM *
provider_query(void *provider, int operation, int *no_cache)
{
	static const OSSL_ALGORITHM keys[] = {
	    {"EC:id-ecPublicKey", "provider=" PROVIDER, key_table_ec, "remote EC key"},
	    {"RSA:rsaEncryption", "provider=" PROVIDER, key_table_rsa, "remote RSA key"},
	    {NULL, NULL, NULL, NULL},
	};
	static const OSSL_ALGORITHM methods[] = {
	    {"ECDSA", "provider=" PROVIDER, method_table, "remote ECDSA"},
	    {"RSA:rsaEncryption", "provider=" PROVIDER, method_table, "remote RSA"},
	    {NULL, NULL, NULL, NULL},
	};

	(void)provider;
	*no_cache = 0;
	if (operation == OSSL_OP_KEYMGMT)
		return keys;
	if (operation == OSSL_OP_SIGNATURE)
		return methods;
	return NULL;
}

static int
provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
              void **context)
{
	static const OSSL_DISPATCH table[] = {
	    F(OSSL_FUNC_PROVIDER_QUERY_OPERATION, provider_query),
	    {0, NULL},
	};

	(void)in;
	*out = table;
	*context = (void *)(uintptr_t)core;
	return 1;
}

/* Once per process, and for its life. The preference keeps everyone else's fetches with the default
 * provider. */
static bool
provider_load(void)
{
	static OSSL_PROVIDER *common, *ours; /* never unloaded: keys may outlive every context */

	if (ours)
		return true;
	if (!common)
		common = OSSL_PROVIDER_load(NULL, "default");
	if (common && OSSL_PROVIDER_add_builtin(NULL, PROVIDER, provider_init) == 1 &&
	    EVP_set_default_properties(NULL, "?provider=default") == 1)
		ours = OSSL_PROVIDER_load(NULL, PROVIDER);
	return ours != NULL;
}

EVP_PKEY *
tls_key_new(EVP_PKEY *public, tls_signer *signer, void *arg)
{
	struct seed seed = {public, signer, arg};
	const struct seed *address = &seed;
	OSSL_PARAM params[2];
	EVP_PKEY_CTX *ctx;
	EVP_PKEY *key = NULL;
	const char *type;

	if (EVP_PKEY_is_a(public, "EC"))
		type = "EC";
	else if (EVP_PKEY_is_a(public, "RSA"))
		type = "RSA";
	else
		return NULL;
	if (!provider_load())
		return NULL;
	params[0] = OSSL_PARAM_construct_octet_string(PARAM_SEED, &address, sizeof(address));
	params[1] = OSSL_PARAM_construct_end();
	ctx = EVP_PKEY_CTX_new_from_name(NULL, type, "provider=" PROVIDER);
	if (ctx && EVP_PKEY_fromdata_init(ctx) == 1 &&
	    EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params) != 1)
		key = NULL;
	EVP_PKEY_CTX_free(ctx);
	return key;
}
