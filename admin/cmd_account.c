#include "admin/command.h"

/* account: sekisho-auth owns them. */

#include <string.h>

#include "auth/name.h"

static void
on_accounts(void *arg, enum auth_result result, const char *error, const struct auth_entry *list,
            size_t count, const char *next)
{
	struct request *request = arg;
	json_t *accounts;

	if (!request_auth_done(request, result, error))
		return;
	accounts = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(accounts, json_pack("{s:o,s:o,s:s,s:o,s:o,s:o}", "account",
		                                          json_text(list[i].account), "class",
		                                          json_text(list[i].class), "state",
		                                          name_of_state(list[i].suspended),
		                                          "reason", json_text(list[i].reason),
		                                          "created", json_time(list[i].created),
		                                          "changed", json_time(list[i].changed)));
	request_answer(request, json_pack("{s:o,s:o}", "accounts", accounts, "next",
	                                  next[0] != '\0' ? json_text(next) : json_null()));
}

void
cmd_account_add(struct request *request)
{
	const char *account = request_account(request),
	           *password = request_text(request, "password");

	auth_account_add(request_peers(request)->auth, account, password, strlen(password),
	                 on_accounts, request);
}

void
cmd_account_passwd(struct request *request)
{
	const char *account = request_account(request),
	           *password = request_text(request, "password");

	auth_account_passwd(request_peers(request)->auth, account, password, strlen(password),
	                    on_accounts, request);
}

void
cmd_account_suspend(struct request *request)
{
	const char *account = request_account(request);

	auth_account_suspend(request_peers(request)->auth, account, request_text(request, "reason"),
	                     on_accounts, request);
}

void
cmd_account_resume(struct request *request)
{
	const char *account = request_account(request);

	auth_account_resume(request_peers(request)->auth, account, on_accounts, request);
}

void
cmd_account_class(struct request *request)
{
	const char *account = request_account(request);

	auth_account_class(request_peers(request)->auth, account, request_text(request, "class"),
	                   on_accounts, request);
}

void
cmd_account_remove(struct request *request)
{
	const char *account = request_account(request);

	auth_account_remove(request_peers(request)->auth, account, on_accounts, request);
}

void
cmd_account_show(struct request *request)
{
	auth_account_show(request_peers(request)->auth, request_account(request), on_accounts,
	                  request);
}

void
cmd_account_list(struct request *request)
{
	auth_account_list(request_peers(request)->auth, request_account(request), on_accounts,
	                  request);
}
