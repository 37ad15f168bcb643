#include "auth/mech.h"

/* Cyrus SASL speaks the mechanisms; everything it wants to know, it asks us.
 *
 * No files: options come from a callback, the configuration path is a directory that does not
 * exist, and so is the plug-in path. By itself the library would load every plug-in of the system
 * (databases, directories, Kerberos) into this process; so we open the ones we want, libplain and
 * libscram, and register their entry points beside our own LOGIN. libscram brings hashes that we
 * keep no verifiers for: only the mechanisms of our own table are ever started.
 *
 * A new sasl_conn_t serves each attempt. Accounts are canonical before they are compared: lower
 * case, no realm added. An authorization identity must be empty or the same account. Passwords go
 * to check_password, which compares with the verifier; for an unknown account it derives one
 * anyway, and where an account's has fewer iterations than another's the rest of them, so that time
 * does not tell who exists. When it says no the library would go on to ask the password checkers of
 * its own; the one named in our options does not exist.
 *
 * SCRAM asks for the verifier itself, as the property "*authPassword" (RFC 5803). A name nobody has
 * gets one that is made up from the name and the store's secret: the same salt each time, as many
 * iterations as most accounts have, and keys that no password gives; so it fails at the client's
 * proof, as a wrong password does. (Where auth.scram_iterations was changed, accounts that still
 * have the rarer count are known by it.)
 *
 * Every failure is one outcome, AUTH_REFUSED, except a store that cannot be read, which is
 * AUTH_UNAVAILABLE. Whether the account may log in at all, the caller decides. */

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <sasl/sasl.h>
#include <sasl/saslplug.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/mech_login.h"
#include "auth/name.h"
#include "auth/proto.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtp/command.h"

#define NOWHERE "/nonexistent"

/* In the order in which they are offered: the one that shows nobody a password first. */
#define MECHANISMS "SCRAM-SHA-256 PLAIN LOGIN"
#define VERIFIER   "*authPassword"

static struct mech_opts options;
static char *hostname; /* read in the pool's threads, and no snapshot of a configuration lasts */
static uint32_t usual_iterations;

struct mech {
	sasl_conn_t *conn;
	char mechanism[AUTH_MECHANISM_MAX + 1];
	bool started;
	bool store_failed;             /* the no was not about the password */
	struct accounts_record record; /* see mech_record */
	sasl_callback_t callbacks[4];  /* must outlive conn */
};

typedef void any_function(void);
#define CALLBACK(function) ((sasl_callback_ft)(any_function *)(function))

static void *
lock_new(void)
{
	pthread_mutex_t *lock = xmalloc(sizeof(*lock));

	pthread_mutex_init(lock, NULL);
	return lock;
}

static int
lock_take(void *lock)
{
	return pthread_mutex_lock(lock) == 0 ? SASL_OK : SASL_FAIL;
}

static int
lock_give(void *lock)
{
	return pthread_mutex_unlock(lock) == 0 ? SASL_OK : SASL_FAIL;
}

static void
lock_free(void *lock)
{
	pthread_mutex_destroy(lock);
	free(lock);
}

static int
get_option(void *context, const char *plugin, const char *option, const char **result,
           unsigned *len)
{
	static const char *const table[][2] = {{"mech_list", MECHANISMS},
	                                       {"pwcheck_method", "none"},
	                                       {"auxprop_plugin", "sekisho"},
	                                       {"log_level", "0"}};

	(void)context;
	(void)plugin;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(option, table[i][0]) == 0) {
			*result = table[i][1];
			if (len != NULL)
				*len = (unsigned)strlen(*result);
			return SASL_OK;
		}
	return SASL_FAIL;
}

static int
get_path(void *context, const char **path)
{
	(void)context;
	*path = NOWHERE;
	return SASL_OK;
}

static int
get_conf_path(void *context, char **path)
{
	/* Whose the string is then, the interface leaves open; this library never frees it. */
	static char *volatile kept;

	(void)context;
	kept = xstrdup(NOWHERE);
	*path = kept;
	return SASL_OK;
}

static int
hear_log(void *context, int level, const char *message)
{
	/* Its words may quote what the client sent; ours say all that an operator needs. */
	(void)context;
	(void)level;
	(void)message;
	return SASL_OK;
}

static int
canon_user(sasl_conn_t *conn, void *context, const char *in, unsigned len, unsigned flags,
           const char *realm, char *out, unsigned out_max, unsigned *out_len)
{
	char name[AUTH_ACCOUNT_MAX + 1];

	(void)conn;
	(void)context;
	(void)flags;
	(void)realm;
	/* What is no address still goes on to the password check and fails there, at the usual
	 * cost. */
	if (!name_canonical(in, len, name))
		strcpy(name, "-");
	*out_len = (unsigned)strlen(name);
	if (*out_len >= out_max)
		return SASL_BUFOVER;
	strcpy(out, name);
	return SASL_OK;
}

static int
may_act_as(sasl_conn_t *conn, void *context, const char *wanted, unsigned wanted_len,
           const char *who, unsigned who_len, const char *realm, unsigned realm_len,
           struct propctx *props)
{
	(void)conn;
	(void)context;
	(void)realm;
	(void)realm_len;
	(void)props;
	return wanted_len == who_len && memcmp(wanted, who, who_len) == 0 ? SASL_OK : SASL_BADAUTH;
}

static int
check_password(sasl_conn_t *conn, void *context, const char *user, const char *password,
               unsigned len, struct propctx *props)
{
	struct mech *mech = context;
	struct accounts_record record;
	enum accounts_result result = ACCOUNTS_UNKNOWN;
	msec_t now = clock_mono();
	char name[AUTH_ACCOUNT_MAX + 1], prepared[VERIFY_PREPARED_SIZE];
	int prepared_len;
	bool right = false;

	(void)conn;
	(void)props;
	memset(&record, 0, sizeof(record));
	if (name_canonical(user, strlen(user), name)) {
		strcpy(mech->record.entry.account, name);
		result = accounts_get(options.store, name, &record);
	}
	if (result == ACCOUNTS_FAILED) {
		mech->store_failed = true;
		return SASL_FAIL;
	}
	prepared_len = verify_prepare(password, len, prepared);
	if (prepared_len < 0 || result == ACCOUNTS_UNKNOWN) {
		/* Nobody's password, or nobody. How long it takes depends on neither. */
		len = len < AUTH_PASSWORD_MAX ? len : AUTH_PASSWORD_MAX;
		verify_burn(password, len, options.iterations);
	} else if (cache_has(options.cache, name, &record.verifier, prepared, (size_t)prepared_len,
	                     now)) {
		right = true;
	} else {
		right = verify_check(&record.verifier, prepared, (size_t)prepared_len);
		if (right)
			cache_add(options.cache, name, &record.verifier, prepared,
			          (size_t)prepared_len, now);
		else if (record.verifier.iterations < options.iterations)
			verify_burn(prepared, (size_t)prepared_len,
			            options.iterations - record.verifier.iterations);
	}
	mem_wipe(prepared, sizeof(prepared));
	if (right)
		mech->record = record;
	mem_wipe(&record, sizeof(record));
	return right ? SASL_OK : SASL_BADAUTH;
}

static void
make_up_part(const char *part, const char *name, uint8_t out[CRYPT_SHA256_SIZE])
{
	char text[AUTH_ACCOUNT_MAX + 16];
	int len = snprintf(text, sizeof(text), "%s %s", part, name);

	crypt_hmac_sha256(accounts_secret(options.store), ACCOUNTS_SECRET_SIZE, text, (size_t)len,
	                  out);
}

static void
make_up(const char *name, struct verifier *out)
{
	uint8_t salt[CRYPT_SHA256_SIZE];

	make_up_part("salt", name, salt);
	make_up_part("StoredKey", name, out->stored_key);
	make_up_part("ServerKey", name, out->server_key);
	memcpy(out->salt, salt, sizeof(out->salt));
	out->iterations = usual_iterations;
}

static int
set_verifier(sasl_server_params_t *params, const struct verifier *verifier)
{
	char salt[COMMAND_BASE64_SIZE(VERIFY_SALT_SIZE)],
	    stored_key[COMMAND_BASE64_SIZE(CRYPT_SHA256_SIZE)],
	    server_key[COMMAND_BASE64_SIZE(CRYPT_SHA256_SIZE)],
	    text[sizeof(salt) + sizeof(stored_key) + sizeof(server_key) + 32];
	int rc;

	command_base64_encode(verifier->salt, sizeof(verifier->salt), salt);
	command_base64_encode(verifier->stored_key, sizeof(verifier->stored_key), stored_key);
	command_base64_encode(verifier->server_key, sizeof(verifier->server_key), server_key);
	snprintf(text, sizeof(text), "SCRAM-SHA-256$%u:%s$%s:%s", verifier->iterations, salt,
	         stored_key, server_key);
	rc = params->utils->prop_set(params->propctx, VERIFIER, text, -1);
	mem_wipe(text, sizeof(text));
	mem_wipe(stored_key, sizeof(stored_key));
	mem_wipe(server_key, sizeof(server_key));
	return rc;
}

/* The library asks for every identity it canonicalizes, and gives up where nobody answers; only
 * SCRAM wants to know something, and of the one who logs in. */
static int
look_up(void *context, sasl_server_params_t *params, unsigned flags, const char *user, unsigned len)
{
	struct propval wanted[1] = {{0}};
	const char *names[] = {VERIFIER, NULL};
	struct verifier none;
	enum accounts_result result = ACCOUNTS_UNKNOWN;
	sasl_callback_ft any;
	void *arg = NULL;
	struct mech *mech;
	char name[AUTH_ACCOUNT_MAX + 1];

	(void)context;
	if ((flags & SASL_AUXPROP_AUTHZID) ||
	    params->utils->prop_getnames(params->propctx, names, wanted) != 1)
		return SASL_OK;
	/* Our own pointer travels with our own callback. */
	if (params->utils->getcallback(params->utils->conn, SASL_CB_PROXY_POLICY, &any, &arg) !=
	    SASL_OK)
		return SASL_FAIL;
	mech = arg;
	memset(&mech->record, 0, sizeof(mech->record));
	if (name_canonical(user, len, name)) {
		strcpy(mech->record.entry.account, name);
		result = accounts_get(options.store, name, &mech->record);
	}
	if (result == ACCOUNTS_FAILED) {
		mech->store_failed = true;
		return SASL_UNAVAIL;
	}
	make_up(name, &none);
	if (result == ACCOUNTS_OK)
		return set_verifier(params, &mech->record.verifier);
	memset(&mech->record, 0, sizeof(mech->record));
	strcpy(mech->record.entry.account, name);
	return set_verifier(params, &none);
}

static int
init_properties(const sasl_utils_t *utils, int max_version, int *version,
                sasl_auxprop_plug_t **plugin, const char *name)
{
	static char own_name[] = "sekisho";
	static sasl_auxprop_plug_t properties = {.name = own_name, .auxprop_lookup = look_up};

	(void)utils;
	(void)name;
	if (max_version < SASL_AUXPROP_PLUG_VERSION)
		return SASL_BADVERS;
	*version = SASL_AUXPROP_PLUG_VERSION;
	*plugin = &properties;
	return SASL_OK;
}

/* Several architectures may be installed side by side: the first that loads is ours. */
static sasl_server_plug_init_t *
find_library(const char *file)
{
	static const char *const folders[] = {"/usr/lib/*/sasl2", "/usr/lib/sasl2",
	                                      "/usr/lib64/sasl2"};
	sasl_server_plug_init_t *init = NULL;

	for (size_t f = 0; f < sizeof(folders) / sizeof(folders[0]); f++) {
		char pattern[128];
		glob_t found;

		snprintf(pattern, sizeof(pattern), "%s/%s.so*", folders[f], file);
		if (glob(pattern, 0, NULL, &found) != 0)
			continue;
		for (size_t i = 0; i < found.gl_pathc && init == NULL; i++) {
			void *library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);

			if (library != NULL)
				*(void **)&init = dlsym(library, "sasl_server_plug_init");
		}
		globfree(&found);
	}
	return init;
}

static int
add_mechanism(const char *name, sasl_server_plug_init_t *init, char *error, size_t size)
{
	if (sasl_server_add_plugin(name, init) != SASL_OK) {
		snprintf(error, size, "Cyrus SASL refuses the plug-in for %s", name);
		return -1;
	}
	return 0;
}

static int
add_library(const char *name, const char *file, char *error, size_t size)
{
	sasl_server_plug_init_t *init = find_library(file);

	if (init == NULL) {
		snprintf(error, size,
		         "Cyrus SASL's plug-in %s.so is not installed or does not load; install "
		         "libsasl2-modules",
		         file);
		return -1;
	}
	return add_mechanism(name, init, error, size);
}

void
mech_set_iterations(uint32_t iterations)
{
	if (iterations > options.iterations)
		options.iterations = iterations;
}

int
mech_init(const struct mech_opts *opts, char *error, size_t size)
{
	static const sasl_callback_t callbacks[] = {{SASL_CB_GETOPT, CALLBACK(get_option), NULL},
	                                            {SASL_CB_GETPATH, CALLBACK(get_path), NULL},
	                                            {SASL_CB_GETCONFPATH, CALLBACK(get_conf_path),
	                                             NULL},
	                                            {SASL_CB_LOG, CALLBACK(hear_log), NULL},
	                                            {SASL_CB_LIST_END, NULL, NULL}};
	uint32_t most;
	int rc;

	options = *opts;
	hostname = xstrdup(opts->hostname);
	most = accounts_iterations(options.store, &usual_iterations);
	if (usual_iterations == 0)
		usual_iterations = options.iterations;
	if (most > options.iterations)
		options.iterations = most;
	sasl_set_mutex(lock_new, lock_take, lock_give, lock_free);
	if ((rc = sasl_server_init(callbacks, "sekisho")) != SASL_OK) {
		snprintf(error, size, "Cyrus SASL does not start: %s",
		         sasl_errstring(rc, NULL, NULL));
		return -1;
	}
	if (sasl_auxprop_add_plugin("sekisho", init_properties) != SASL_OK) {
		snprintf(error, size, "Cyrus SASL refuses our source of properties");
		return -1;
	}
	if (add_library("SCRAM", "libscram", error, size) != 0 ||
	    add_library("PLAIN", "libplain", error, size) != 0 ||
	    add_mechanism("LOGIN", mech_login_init, error, size) != 0)
		return -1;
	return 0;
}

void
mech_done(void)
{
	sasl_server_done();
	free(hostname);
	hostname = NULL;
}

const char *
mech_list(void)
{
	return MECHANISMS;
}

/* Whether it stands in the list. */
static bool
is_ours(const char *mechanism)
{
	size_t len = strlen(mechanism);

	for (const char *name = MECHANISMS, *end; *name != '\0'; name = end + (*end == ' ')) {
		end = name + strcspn(name, " ");
		if ((size_t)(end - name) == len && memcmp(name, mechanism, len) == 0)
			return true;
	}
	return false;
}

bool
mech_is_quick(const char *mechanism, const uint8_t *message, size_t len)
{
	char name[AUTH_ACCOUNT_MAX + 1], prepared[VERIFY_PREPARED_SIZE];
	struct accounts_record record;
	const uint8_t *user, *password, *end;
	int prepared_len;
	bool is_known = false;

	if (strcmp(mechanism, "PLAIN") != 0 || message == NULL)
		return false;
	end = message + len;
	user = memchr(message, 0, len); /* RFC 4616 section 2 */
	password = user != NULL ? memchr(user + 1, 0, (size_t)(end - user - 1)) : NULL;
	if (password == NULL)
		return false;
	user++;
	if (!name_canonical((const char *)user, (size_t)(password - user), name))
		return false;
	password++;
	if (accounts_get(options.store, name, &record) == ACCOUNTS_OK) {
		prepared_len =
		    verify_prepare((const char *)password, (size_t)(end - password), prepared);
		is_known =
		    prepared_len >= 0 && cache_has(options.cache, name, &record.verifier, prepared,
		                                   (size_t)prepared_len, clock_mono());
		mem_wipe(prepared, sizeof(prepared));
	}
	mem_wipe(&record, sizeof(record));
	return is_known;
}

struct mech *
mech_new(const char *mechanism)
{
	struct mech *mech = xcalloc(1, sizeof(*mech));

	snprintf(mech->mechanism, sizeof(mech->mechanism), "%s", mechanism);
	mech->callbacks[0] =
	    (sasl_callback_t){SASL_CB_SERVER_USERDB_CHECKPASS, CALLBACK(check_password), mech};
	mech->callbacks[1] = (sasl_callback_t){SASL_CB_CANON_USER, CALLBACK(canon_user), mech};
	mech->callbacks[2] = (sasl_callback_t){SASL_CB_PROXY_POLICY, CALLBACK(may_act_as), mech};
	mech->callbacks[3] = (sasl_callback_t){SASL_CB_LIST_END, NULL, NULL};
	return mech;
}

void
mech_free(struct mech *mech)
{
	if (mech == NULL)
		return;
	if (mech->conn != NULL)
		sasl_dispose(&mech->conn);
	mem_wipe(mech, sizeof(*mech));
	free(mech);
}

enum auth_outcome
mech_step(struct mech *mech, const uint8_t *message, size_t len, const uint8_t **challenge,
          size_t *challenge_len)
{
	const char *out = NULL;
	unsigned out_len = 0;
	const void *name = NULL;
	int rc;

	*challenge = NULL;
	*challenge_len = 0;
	if (!mech->started) {
		mech->started = true;
		if (!is_ours(mech->mechanism))
			return AUTH_NO_MECHANISM;
		rc = sasl_server_new("smtp", hostname, NULL, NULL, NULL, mech->callbacks, 0,
		                     &mech->conn);
		if (rc != SASL_OK) {
			log_error("-", "sasl-failed", "error=\"%s\"",
			          sasl_errstring(rc, NULL, NULL));
			return AUTH_UNAVAILABLE;
		}
		rc = sasl_server_start(mech->conn, mech->mechanism, (const char *)message,
		                       (unsigned)len, &out, &out_len);
	} else {
		rc = sasl_server_step(mech->conn, (const char *)message, (unsigned)len, &out,
		                      &out_len);
	}
	if (rc == SASL_CONTINUE) {
		*challenge = (const uint8_t *)out;
		*challenge_len = out != NULL ? out_len : 0;
		return AUTH_CONTINUE;
	}
	if (mech->store_failed)
		return AUTH_UNAVAILABLE;
	/* The library's word and ours must agree on who it is. */
	if (rc == SASL_OK && sasl_getprop(mech->conn, SASL_USERNAME, &name) == SASL_OK &&
	    name != NULL && mech->record.entry.class[0] != '\0' &&
	    strcmp(name, mech->record.entry.account) == 0)
		return AUTH_OK;
	return AUTH_REFUSED;
}

const char *
mech_name(const struct mech *mech)
{
	return mech->mechanism;
}

const struct accounts_record *
mech_record(const struct mech *mech)
{
	return &mech->record;
}
