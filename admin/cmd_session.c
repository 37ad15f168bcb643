#include "admin/command.h"

/* session: sekisho-auth knows them all, and the sekisho-msa that has one ends it. */

static json_t *
session_json(const struct auth_session *session)
{
	json_t *one = json_object();

	json_object_set_new(one, "session", json_number(session->number));
	json_object_set_new(one, "account", json_text(session->account));
	json_object_set_new(one, "ip", json_text(session->ip));
	json_object_set_new(one, "port", json_number(session->port));
	json_object_set_new(one, "listener",
	                    json_text(session->implicit_tls ? "submissions" : "submission"));
	json_object_set_new(one, "tls", json_text(session->tls));
	json_object_set_new(one, "mechanism", json_text(session->mechanism));
	json_object_set_new(one, "since", json_time(session->since));
	return one;
}

static void
on_sessions(void *arg, enum auth_result result, const char *error, const struct auth_session *list,
            size_t count, uint64_t next)
{
	struct request *request = arg;
	json_t *sessions;

	if (!request_auth_done(request, result, error))
		return;
	sessions = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(sessions, session_json(&list[i]));
	request_answer(request, json_pack("{s:o,s:o}", "sessions", sessions, "next",
	                                  next != 0 ? json_number(next) : json_null()));
}

void
cmd_session_list(struct request *request)
{
	auth_sessions_list(request_peers(request)->auth, request_account(request),
	                   request_number(request, "after"), on_sessions, request);
}

static void
on_killed(void *arg, enum auth_result result, const char *error, unsigned ended)
{
	struct request *request = arg;

	if (!request_auth_done(request, result, error))
		return;
	if (ended == 0)
		request_refuse(request, "not-found",
		               "there is no such session; sekishoctl session list shows them");
	else
		request_answer(request, json_pack("{s:o}", "ended", json_number(ended)));
}

void
cmd_session_kill(struct request *request)
{
	const char *account = request_account(request);
	const uint64_t number = request_number(request, "session");

	if ((number != 0) == (account[0] != '\0')) {
		request_refuse(request, "usage", "name either a session or an account");
		return;
	}
	auth_session_kill(request_peers(request)->auth, number, account, on_killed, request);
}
