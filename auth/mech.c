#include "auth/mech.h"

/* Cyrus SASL speaks the mechanisms; everything it wants to know, it asks us.
 *
 * No files: options come from a callback, the configuration path is a directory that does not
 * exist, and so is the plug-in path. By itself the library would load every plug-in of the system
 * (databases, directories, Kerberos) into this process; so we open the one we want, libplain, and
 * register its entry point.
 *
 * A new sasl_conn_t serves each attempt. Accounts are canonical before they are compared: lower
 * case, no realm added. PLAIN's authorization identity must be empty or the same account. Passwords
 * go to check_password, which compares with the verifier; for an unknown account it derives one
 * anyway, and where an account's has fewer iterations than another's the rest of them, so that time
 * does not tell who exists. When it says no the library would go on to ask the
 * password checkers of its own; the one named in our options does not exist.
 *
 * Every failure is one outcome, AUTH_REFUSED, except a store that cannot be read, which is
 * AUTH_UNAVAILABLE. */

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <sasl/sasl.h>
#include <sasl/saslplug.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/name.h"
#include "auth/proto.h"
#include "core/log.h"
#include "core/mem.h"

#define NOWHERE "/nonexistent"

static struct mech_opts options;

struct mech {
	sasl_conn_t *conn;
	char mechanism[AUTH_MECHANISM_MAX + 1];
	bool started;
	bool store_failed;            /* the no was not about the password */
	struct auth_entry account;    /* see mech_account */
	sasl_callback_t callbacks[4]; /* must outlive conn */
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
	static const char *const table[][2] = {{"mech_list", "PLAIN"},
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
		strcpy(mech->account.account, name);
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
	if (right && strcmp(record.entry.state, "active") != 0)
		right = false;
	if (right)
		mech->account = record.entry;
	mem_wipe(&record, sizeof(record));
	return right ? SASL_OK : SASL_BADAUTH;
}

/* The library looks properties up for an authorization identity that is not written as the
 * authentication identity is, before it asks may_act_as, and gives up where nobody can be asked.
 * There are none to tell. */
static int
look_up(void *context, sasl_server_params_t *params, unsigned flags, const char *user, unsigned len)
{
	(void)context;
	(void)params;
	(void)flags;
	(void)user;
	(void)len;
	return SASL_OK;
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

static int
load_plain(char *error, size_t size)
{
	sasl_server_plug_init_t *plug_init = NULL;
	glob_t found;
	size_t i;

	if (glob("/usr/lib/*/sasl2/libplain.so*", 0, NULL, &found) != 0 &&
	    glob("/usr/lib/sasl2/libplain.so*", 0, NULL, &found) != 0 &&
	    glob("/usr/lib64/sasl2/libplain.so*", 0, NULL, &found) != 0) {
		snprintf(
		    error, size,
		    "Cyrus SASL's plug-in libplain.so is not installed; install libsasl2-modules");
		return -1;
	}
	/* Several architectures may be installed side by side: the first that loads is ours. */
	for (i = 0; i < found.gl_pathc && plug_init == NULL; i++) {
		void *library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);

		if (library != NULL)
			*(void **)&plug_init = dlsym(library, "sasl_server_plug_init");
	}
	globfree(&found);
	if (plug_init == NULL) {
		snprintf(error, size, "Cyrus SASL's plug-in libplain.so does not load");
		return -1;
	}
	if (sasl_server_add_plugin("PLAIN", plug_init) != SASL_OK) {
		snprintf(error, size, "Cyrus SASL refuses its plug-in libplain.so");
		return -1;
	}
	return 0;
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
	int rc;

	options = *opts;
	if (accounts_iterations(options.store) > options.iterations)
		options.iterations = accounts_iterations(options.store);
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
	return load_plain(error, size);
}

void
mech_done(void)
{
	sasl_server_done();
}

const char *
mech_list(void)
{
	return "PLAIN";
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
		if (strcmp(mech->mechanism, mech_list()) != 0)
			return AUTH_NO_MECHANISM;
		rc = sasl_server_new("smtp", options.hostname, NULL, NULL, NULL, mech->callbacks, 0,
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
	    name != NULL && mech->account.class[0] != '\0' &&
	    strcmp(name, mech->account.account) == 0)
		return AUTH_OK;
	return AUTH_REFUSED;
}

const struct auth_entry *
mech_account(const struct mech *mech)
{
	return &mech->account;
}
