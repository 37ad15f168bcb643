#include "admin/command.h"

/* account.identity and sender: sekisho-auth knows who may send as whom, and explains it with the
 * function that a session asks. */

#include <stdio.h>
#include <string.h>

#include "auth/name.h"

static json_t *
identity_json(const struct identity *identity, const char *by, msec_t since)
{
	return json_pack("{s:o,s:s,s:o,s:o}", "identity", json_text(identity->text), "kind",
	                 identity_kind_name(identity->kind), "by",
	                 by[0] != '\0' ? json_text(by) : json_null(), "since", json_time(since));
}

static void
answer_grants(struct request *request, json_t *identities, const struct auth_grant *list,
              size_t count)
{
	for (size_t i = 0; i < count; i++)
		json_array_append_new(identities,
		                      identity_json(&list[i].identity, list[i].by, list[i].since));
	request_answer(request,
	               json_pack("{s:o,s:o}", "account", json_text(request_account(request)),
	                         "identities", identities));
}

static void
on_grants(void *arg, enum auth_result result, const char *error, const struct auth_grant *list,
          size_t count)
{
	if (request_auth_done(arg, result, error))
		answer_grants(arg, json_array(), list, count);
}

/* The account's own name, which nobody granted, comes first. */
static void
on_all(void *arg, enum auth_result result, const char *error, const struct auth_grant *list,
       size_t count)
{
	struct identity own = {.kind = IDENTITY_OWN};

	if (!request_auth_done(arg, result, error))
		return;
	strcpy(own.text, request_account(arg));
	answer_grants(arg, json_pack("[o]", identity_json(&own, "", 0)), list, count);
}

void
cmd_account_identity_list(struct request *request)
{
	auth_grants_list(request_peers(request)->auth, request_account(request), on_all, request);
}

void
cmd_account_identity_add(struct request *request)
{
	const bool details = request_flag(request, "details"),
	           delegate = request_flag(request, "delegate");
	struct auth_grant grant = {.identity = *request_identity(request)};

	if (details && delegate) {
		request_refuse(request, "usage",
		               "a delegation has the details of the account; leave details out");
		return;
	}
	if ((details || delegate) && grant.identity.kind != IDENTITY_ADDRESS) {
		request_refuse(request, "usage",
		               "a domain is neither delegated nor has it details; name an address");
		return;
	}
	if (details)
		grant.identity.kind = IDENTITY_DETAILS;
	if (delegate)
		grant.identity.kind = IDENTITY_DELEGATION;
	snprintf(grant.by, sizeof(grant.by), "%s", request_by(request));
	auth_grant_add(request_peers(request)->auth, request_account(request), &grant, on_grants,
	               request);
}

void
cmd_account_identity_remove(struct request *request)
{
	auth_grant_remove(request_peers(request)->auth, request_account(request),
	                  request_identity(request)->text, on_grants, request);
}

/* As a shell must be given it. */
static void
add_word(struct buf *out, const char *text)
{
	if (text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789@.+-_=/")] == '\0') {
		buf_add_str(out, text);
		return;
	}
	buf_add_char(out, '\'');
	for (; *text != '\0'; text++) {
		if (*text == '\'')
			buf_add_str(out, "'\\'");
		buf_add_char(out, *text);
	}
	buf_add_char(out, '\'');
}

/* What would make a no a yes. */
static json_t *
remedy(const struct request *request, const struct auth_explanation *explanation)
{
	struct buf command;
	json_t *text;

	if (explanation->allowed)
		return json_null();
	buf_init(&command);
	buf_add_str(&command, "sekishoctl account identity add ");
	add_word(&command, request_account(request));
	buf_add_char(&command, ' ');
	add_word(&command, request_identity(request)->text);
	if (explanation->is_account)
		buf_add_str(&command, " --delegate");
	text = json_text(buf_str(&command));
	buf_clear(&command);
	return text;
}

static json_t *
reason(const struct auth_explanation *explanation)
{
	static const char *const words[] = {
	    [IDENTITY_OWN] = "it is the account's name",
	    [IDENTITY_ADDRESS] = "the address was granted",
	    [IDENTITY_DETAILS] = "the address was granted with any detail",
	    [IDENTITY_DOMAIN] = "every address of the domain was granted",
	    [IDENTITY_SUBDOMAINS] = "every address below the domain was granted",
	    [IDENTITY_DELEGATION] = "the account may send as that other account",
	    [IDENTITY_ANY] = "the account's class may send as anybody",
	};

	if (!explanation->allowed)
		return json_string(explanation->is_account
		                       ? "it is another account's name, and was not delegated"
		                       : "nothing that the account was granted allows it");
	return json_sprintf("%s%s", words[explanation->grant.identity.kind],
	                    explanation->detail ? ", and this has a detail" : "");
}

static void
on_explained(void *arg, enum auth_result result, const char *error,
             const struct auth_explanation *explanation)
{
	struct request *request = arg;
	const struct auth_grant *grant;
	json_t *answer;

	if (!request_auth_done(request, result, error))
		return;
	grant = &explanation->grant;
	answer = json_pack(
	    "{s:o,s:o,s:b,s:s,s:o,s:o,s:s,s:s}", "account", json_text(request_account(request)),
	    "sender", json_text(request_identity(request)->text), "allowed", explanation->allowed,
	    "rule", explanation->allowed ? identity_kind_name(grant->identity.kind) : "none", "why",
	    reason(explanation), "remedy", remedy(request, explanation), "class",
	    explanation->class, "state", name_of_state(explanation->suspended));
	json_object_set_new(answer, "identity",
	                    grant->identity.text[0] != '\0'
	                        ? identity_json(&grant->identity, grant->by, grant->since)
	                        : json_null());
	request_answer(request, answer);
}

void
cmd_sender_explain(struct request *request)
{
	auth_sender_explain(request_peers(request)->auth, request_account(request),
	                    request_identity(request)->text, on_explained, request);
}
