#include "admin/command.h"

/* account: sekisho-auth owns them. */

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

static void
ask(struct request *request, enum auth_verb verb, const char *text)
{
	auth_account_ask(request_peers(request)->auth, verb, request_account(request), text,
	                 on_accounts, request);
}

void
cmd_account_add(struct request *request)
{
	ask(request, AUTH_ADD, request_text(request, "password"));
}

void
cmd_account_passwd(struct request *request)
{
	ask(request, AUTH_PASSWD, request_text(request, "password"));
}

void
cmd_account_suspend(struct request *request)
{
	ask(request, AUTH_SUSPEND, request_text(request, "reason"));
}

void
cmd_account_resume(struct request *request)
{
	ask(request, AUTH_RESUME, NULL);
}

void
cmd_account_class(struct request *request)
{
	ask(request, AUTH_CLASS, request_text(request, "class"));
}

void
cmd_account_remove(struct request *request)
{
	ask(request, AUTH_REMOVE, NULL);
}

void
cmd_account_show(struct request *request)
{
	ask(request, AUTH_SHOW, NULL);
}

void
cmd_account_list(struct request *request)
{
	ask(request, AUTH_LIST, NULL);
}
