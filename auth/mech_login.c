#include "auth/mech_login.h"

/* LOGIN was never standardized (draft-murchison-sasl-login-00): two prompts, name and password as
 * plain octets. Clients take the prompts' words for a part of the protocol, so they stay what
 * everybody sends. A name as initial response saves the first prompt, as some clients do.
 *
 * The password goes the same way as PLAIN's: to the library's checkpass, hence to check_password in
 * mech.c. It is copied nowhere here; the caller wipes the message it came in. A name too long to be
 * one goes on as an empty one, so that it fails where a wrong password does. */

#include <stdlib.h>
#include <string.h>

#include "auth/client.h"
#include "core/mem.h"

struct login {
	enum { LOGIN_BEGIN, LOGIN_NAME, LOGIN_PASSWORD } expects;
	char name[AUTH_ACCOUNT_MAX + 1];
};

static int
login_new(void *global, sasl_server_params_t *params, const char *challenge, unsigned len,
          void **context)
{
	(void)global;
	(void)params;
	(void)challenge;
	(void)len;
	*context = xcalloc(1, sizeof(struct login));
	return SASL_OK;
}

static int
prompt(const char *words, const char **out, unsigned *out_len)
{
	*out = words;
	*out_len = (unsigned)strlen(words);
	return SASL_CONTINUE;
}

static int
take_password(const struct login *login, sasl_server_params_t *params, const char *password,
              unsigned len, sasl_out_params_t *result)
{
	int rc = params->canon_user(params->utils->conn, login->name, 0,
	                            SASL_CU_AUTHID | SASL_CU_AUTHZID, result);

	if (rc == SASL_OK)
		rc = params->utils->checkpass(params->utils->conn, result->authid, result->alen,
		                              password, len);
	if (rc == SASL_OK)
		result->doneflag = 1;
	return rc;
}

static int
login_step(void *context, sasl_server_params_t *params, const char *in, unsigned in_len,
           const char **out, unsigned *out_len, sasl_out_params_t *result)
{
	struct login *login = context;

	*out = NULL;
	*out_len = 0;
	if (login->expects == LOGIN_BEGIN && in == NULL) {
		login->expects = LOGIN_NAME;
		return prompt("Username:", out, out_len);
	}
	if (login->expects != LOGIN_PASSWORD) {
		login->expects = LOGIN_PASSWORD;
		if (in_len < sizeof(login->name) && memchr(in, '\0', in_len) == NULL)
			memcpy(login->name, in, in_len);
		return prompt("Password:", out, out_len);
	}
	return take_password(login, params, in, in_len, result);
}

static void
login_dispose(void *context, const sasl_utils_t *utils)
{
	(void)utils;
	free(context);
}

int
mech_login_init(const sasl_utils_t *utils, int max_version, int *version,
                sasl_server_plug_t **plugins, int *count)
{
	static sasl_server_plug_t plugin = {
	    .mech_name = "LOGIN",
	    .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_PASS_CREDENTIALS,
	    .mech_new = login_new,
	    .mech_step = login_step,
	    .mech_dispose = login_dispose,
	};

	(void)utils;
	if (max_version < SASL_SERVER_PLUG_VERSION)
		return SASL_BADVERS;
	*version = SASL_SERVER_PLUG_VERSION;
	*plugins = &plugin;
	*count = 1;
	return SASL_OK;
}
