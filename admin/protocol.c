#include "admin/protocol.h"

/* A table of commands; each asks its owner and turns the owner's struct into JSON. The owner's
 * answer may come after the asker has left: the request then stays until it does and says nothing.
 *
 * A command that answers from inside protocol_handle (a bad argument) must not leave its caller
 * with a dangling pointer, so the request stays "starting" during the call and is freed at its end.
 */

#include <jansson.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/service.h"
#include "queue/control.h"

#define STOP_DELAY 100 /* msec */

struct protocol_request {
	const struct protocol_peers *peers;
	protocol_on_reply *on_reply; /* NULL once forgotten */
	void *arg;
	json_t *id;
	json_t *body;   /* the whole request */
	json_t *result; /* gathered by commands that ask twice */
	bool starting, answered;
	char by[64];
};

/* A request may hold a password, in the parser's buffers too: what jansson frees is wiped. */
static void
wipe_free(void *memory)
{
	if (memory != NULL)
		mem_wipe(memory, malloc_usable_size(memory));
	free(memory);
}

static void
request_free(struct protocol_request *request)
{
	json_decref(request->id);
	json_decref(request->body);
	json_decref(request->result);
	free(request);
}

static void
finish(struct protocol_request *request, json_t *reply)
{
	char *text;

	json_object_set(reply, "id", request->id);
	text = json_dumps(reply, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(reply);
	if (text != NULL && request->on_reply != NULL) {
		size_t len = strlen(text);

		text[len] = '\n';
		request->on_reply(request->arg, text, len + 1);
	}
	wipe_free(text);
	request->answered = true;
	if (!request->starting)
		request_free(request);
}

/* result is taken. */
static void
answer(struct protocol_request *request, json_t *result)
{
	finish(request, json_pack("{s:b,s:o}", "ok", 1, "result", result));
}

static void
refuse(struct protocol_request *request, const char *code, const char *text)
{
	finish(request,
	       json_pack("{s:b,s:{s:s,s:s}}", "ok", 0, "error", "code", code, "text", text));
}

static json_t *
number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *
when(msec_t wall)
{
	char text[CLOCK_RFC3339_SIZE];

	return wall == 0 ? json_null() : json_string(clock_rfc3339(wall, text));
}

/* Text that came from strangers may be no UTF-8. */
static json_t *
text(const char *s)
{
	json_t *string = json_string(s);
	char *plain;

	if (string != NULL)
		return string;
	plain = xstrdup(s);
	for (char *c = plain; *c != '\0'; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	string = json_string(plain);
	free(plain);
	return string;
}

/* A string argument, or NULL. */
static const char *
argument(const struct protocol_request *request, const char *name)
{
	return json_string_value(json_object_get(request->body, name));
}

static const char *
need(struct protocol_request *request, const char *name)
{
	const char *value = argument(request, name);
	char words[128];

	if (value == NULL || *value == '\0') {
		snprintf(words, sizeof(words), "the argument \"%s\" is missing", name);
		refuse(request, "usage", words);
		return NULL;
	}
	return value;
}

static bool
queue_done(struct protocol_request *request, enum queue_answer got)
{
	switch (got) {
	case QUEUE_DONE:
		return true;
	case QUEUE_NOT_FOUND:
		refuse(request, "not-found", "the queue does not know it");
		break;
	case QUEUE_INVALID:
		refuse(request, "invalid", "the queue refuses the argument");
		break;
	case QUEUE_DOWN:
		refuse(request, "unavailable", "the queue is down or did not answer");
		break;
	}
	return false;
}

/* status */

static void
on_status(void *arg, enum queue_answer got, const struct queue_status *status)
{
	struct protocol_request *request = arg;
	json_t *queue = json_null(), *lanes;

	if (got == QUEUE_DONE) {
		lanes = json_object();
		for (int i = 0; i < QUEUE_LANES; i++)
			json_object_set_new(lanes, queue_lane_name((enum queue_lane)i),
			                    json_pack("{s:o,s:o}", "messages",
			                              number(status->messages[i]), "recipients",
			                              number(status->recipients[i])));
		queue = json_object();
		json_object_set_new(queue, "lanes", lanes);
		json_object_set_new(queue, "in_flight", number(status->in_flight));
		json_object_set_new(queue, "oldest", when(status->oldest));
		json_object_set_new(queue, "accepted", number(status->accepted));
		json_object_set_new(queue, "generated", number(status->generated));
		json_object_set_new(queue, "delivered", number(status->delivered));
		json_object_set_new(queue, "bounced", number(status->bounced));
		json_object_set_new(queue, "expired", number(status->expired));
		json_object_set_new(queue, "removed", number(status->removed));
		json_object_set_new(queue, "accounts", number(status->accounts));
		json_object_set_new(queue, "commits", number(status->commits));
		json_object_set_new(queue, "committed", number(status->committed));
		json_object_set_new(queue, "refusing", json_boolean(status->refusing));
		json_object_set_new(queue, "refusing_why", text(status->refusing_why));
		json_object_set_new(queue, "ledger_time", when(status->ledger_time));
		json_object_set_new(queue, "ledger_held", json_boolean(status->ledger_held));
	}
	json_object_set_new(request->result, "queue", queue);
	answer(request, json_incref(request->result));
}

static void
on_processes(void *arg, const struct service_process *list, size_t count)
{
	struct protocol_request *request = arg;
	json_t *processes = json_array();

	for (size_t i = 0; i < count; i++) {
		json_t *one = json_object();

		json_object_set_new(one, "role", json_string(service_role_name(list[i].role)));
		json_object_set_new(one, "index", number(list[i].index));
		json_object_set_new(one, "pid", json_integer(list[i].pid));
		json_object_set_new(one, "since", when(list[i].since));
		json_object_set_new(one, "restarts", number(list[i].restarts));
		json_object_set_new(one, "layers", text(list[i].layers));
		json_array_append_new(processes, one);
	}
	request->result = json_pack("{s:o}", "processes", processes);
	queue_ask_status(request->peers->queue, on_status, request);
}

static void
do_status(struct protocol_request *request)
{
	service_ask_processes(on_processes, request);
}

/* account.* */

static void
on_accounts(void *arg, enum auth_result result, const char *error, const struct auth_entry *list,
            size_t count, const char *next)
{
	static const char *const codes[] = {"", "exists", "not-found", "invalid", "unavailable"};
	struct protocol_request *request = arg;
	json_t *accounts;

	if (result != AUTH_DONE) {
		refuse(request, codes[result], error);
		return;
	}
	accounts = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(
		    accounts,
		    json_pack("{s:o,s:o,s:o,s:o,s:o}", "account", text(list[i].account), "class",
		              text(list[i].class), "state", text(list[i].state), "created",
		              when(list[i].created), "changed", when(list[i].changed)));
	answer(request, json_pack("{s:o,s:o}", "accounts", accounts, "next",
	                          next[0] != '\0' ? text(next) : json_null()));
}

static void
do_account_add(struct protocol_request *request)
{
	const char *account = need(request, "account"), *password;

	if (account == NULL || (password = need(request, "password")) == NULL)
		return;
	log_info("-", "account-add", "account=%s by=\"%s\"", account, request->by);
	auth_account_add(request->peers->auth, account, password, strlen(password), on_accounts,
	                 request);
}

static void
do_account_remove(struct protocol_request *request)
{
	const char *account = need(request, "account");

	if (account == NULL)
		return;
	log_info("-", "account-remove", "account=%s by=\"%s\"", account, request->by);
	auth_account_remove(request->peers->auth, account, on_accounts, request);
}

static void
do_account_show(struct protocol_request *request)
{
	const char *account = need(request, "account");

	if (account != NULL)
		auth_account_show(request->peers->auth, account, on_accounts, request);
}

static void
do_account_list(struct protocol_request *request)
{
	const char *after = argument(request, "after");

	auth_account_list(request->peers->auth, after != NULL ? after : "", on_accounts, request);
}

/* quota.* */

static void
on_quota(void *arg, enum queue_answer got, const struct queue_quota_view *view)
{
	struct protocol_request *request = arg;
	json_t *result;

	if (!queue_done(request, got))
		return;
	const struct queue_quota *quota = &view->meters[QUEUE_RECIPIENTS];
	result = json_pack("{s:o,s:o,s:o,s:o,s:o,s:b,s:o}", "account", text(view->account), "limit",
	                   number(quota->limit), "used", number(quota->used), "reserved",
	                   number(quota->reserved), "reset", when(quota->reset), "overridden",
	                   view->overridden, "class_limit", number(view->class_limit));
	if (view->overridden) {
		json_object_set_new(result, "override_set", when(view->override_set));
		json_object_set_new(result, "override_by", text(view->override_by));
		json_object_set_new(result, "override_reason", text(view->override_reason));
	}
	answer(request, result);
}

/* Lower-cased as auth keeps it, so that the ledger is asked about the same account. */
static bool
need_account(struct protocol_request *request, char out[AUTH_ACCOUNT_MAX + 1])
{
	const char *account = need(request, "account");
	size_t len;

	if (account == NULL)
		return false;
	len = strlen(account);
	if (len > AUTH_ACCOUNT_MAX || strchr(account, '@') == NULL) {
		refuse(request, "invalid",
		       "the account name is no mail address like user@example.net");
		return false;
	}
	for (size_t i = 0; i <= len; i++)
		out[i] =
		    (char)(account[i] >= 'A' && account[i] <= 'Z' ? account[i] + 32 : account[i]);
	return true;
}

/* Asks the ledger. A name nobody has is told before that; when auth does not answer, the ledger
 * still does. */
static void
on_known(void *arg, enum auth_result result, const char *error, const struct auth_entry *list,
         size_t count, const char *next)
{
	struct protocol_request *request = arg;
	const char *reason = argument(request, "reason"), *command = argument(request, "command");
	json_t *limit = json_object_get(request->body, "limit");
	char account[AUTH_ACCOUNT_MAX + 1];

	const char *class = count > 0 ? list[0].class : "standard";

	(void)next;
	if (result == AUTH_UNKNOWN) {
		refuse(request, "not-found", error);
		return;
	}
	if (!need_account(request, account))
		return;
	if (strcmp(command, "quota.show") == 0) {
		queue_ask_quota(request->peers->queue, account, class, on_quota, request);
		return;
	}
	log_info("-", "quota-set", "account=%s limit=%lld by=\"%s\"", account,
	         (long long)json_integer_value(limit), request->by);
	queue_set_quota(request->peers->queue, account, class, false,
	                (uint32_t)json_integer_value(limit), request->by,
	                reason != NULL ? reason : "", on_quota, request);
}

static void
do_quota_show(struct protocol_request *request)
{
	char account[AUTH_ACCOUNT_MAX + 1];

	if (need_account(request, account))
		auth_account_show(request->peers->auth, account, on_known, request);
}

static void
set_quota(struct protocol_request *request, bool clear)
{
	json_t *limit = json_object_get(request->body, "limit");
	const char *reason = argument(request, "reason");
	char account[AUTH_ACCOUNT_MAX + 1];

	if (!need_account(request, account))
		return;
	if (!clear && (!json_is_integer(limit) || json_integer_value(limit) < 0 ||
	               json_integer_value(limit) > (json_int_t)UINT32_MAX)) {
		refuse(request, "usage", "\"limit\" must be a number from 0 to 4294967295");
		return;
	}
	if (reason != NULL && strlen(reason) > 127) {
		refuse(request, "invalid", "the reason is longer than 127 octets");
		return;
	}
	if (!clear) {
		auth_account_show(request->peers->auth, account, on_known, request);
		return;
	}
	log_info("-", "quota-clear", "account=%s by=\"%s\"", account, request->by);
	queue_set_quota(request->peers->queue, account, "standard", true, 0, request->by,
	                reason != NULL ? reason : "", on_quota, request);
}

static void
do_quota_set(struct protocol_request *request)
{
	set_quota(request, false);
}

static void
do_quota_clear(struct protocol_request *request)
{
	set_quota(request, true);
}

/* queue.* */

static json_t *
entry_json(const struct queue_entry *entry)
{
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *one = json_object();

	json_object_set_new(one, "id", json_string(queue_id_format(&entry->id, id)));
	json_object_set_new(one, "lane", json_string(queue_lane_name(entry->lane)));
	json_object_set_new(one, "account", text(entry->account));
	json_object_set_new(one, "from", text(entry->from));
	json_object_set_new(one, "accepted", when(entry->accepted));
	json_object_set_new(one, "due", when(entry->due));
	json_object_set_new(one, "size", number(entry->size));
	json_object_set_new(one, "attempts", number(entry->attempts));
	json_object_set_new(one, "recipients", number(entry->recipients));
	json_object_set_new(one, "unfinished", number(entry->unfinished));
	json_object_set_new(one, "last_reply", text(entry->last_reply));
	return one;
}

static void
on_list(void *arg, enum queue_answer got, const struct queue_entry *list, size_t count, bool more)
{
	struct protocol_request *request = arg;
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *messages;

	if (!queue_done(request, got))
		return;
	messages = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(messages, entry_json(&list[i]));
	answer(request,
	       json_pack("{s:o,s:o}", "messages", messages, "next",
	                 more && count > 0 ? json_string(queue_id_format(&list[count - 1].id, id))
	                                   : json_null()));
}

static void
do_queue_list(struct protocol_request *request)
{
	const char *after = argument(request, "after");
	char account[AUTH_ACCOUNT_MAX + 1];
	bool one = argument(request, "account") != NULL;
	struct queue_id id;

	if (one && !need_account(request, account))
		return;
	if (after != NULL && !queue_id_parse(after, &id)) {
		refuse(request, "invalid", "\"after\" is no message id");
		return;
	}
	queue_ask_list(request->peers->queue, one ? account : NULL, after != NULL ? &id : NULL,
	               on_list, request);
}

static void
on_detail(void *arg, enum queue_answer got, const struct queue_detail *detail)
{
	struct protocol_request *request = arg;
	json_t *result, *recipients;

	if (!queue_done(request, got))
		return;
	result = entry_json(&detail->entry);
	if (detail->finished)
		json_object_set_new(result, "lane", json_string("finished"));
	json_object_set_new(result, "finished", json_boolean(detail->finished));
	json_object_set_new(result, "client_ip", text(detail->client_ip));
	json_object_set_new(result, "client_port", number(detail->client_port));
	json_object_set_new(result, "ehlo", text(detail->ehlo));
	recipients = json_array();
	for (size_t i = 0; i < detail->recipient_count; i++) {
		const struct queue_recipient_view *view = &detail->recipients[i];

		json_array_append_new(recipients,
		                      json_pack("{s:o,s:o,s:o,s:o,s:o}", "address",
		                                text(view->address), "state", text(view->state),
		                                "attempts", number(view->attempts), "when",
		                                when(view->when), "reply", text(view->reply)));
	}
	json_object_set_new(result, "rcpt", recipients);
	answer(request, result);
}

static void
do_queue_show(struct protocol_request *request)
{
	const char *told = need(request, "message");
	struct queue_id id;

	if (told == NULL)
		return;
	if (!queue_id_parse(told, &id)) {
		refuse(request, "invalid",
		       "that is no message id; sekishoctl queue list shows them");
		return;
	}
	queue_ask_detail(request->peers->queue, &id, on_detail, request);
}

static void
on_audit(void *arg, enum queue_answer got, const struct queue_audit *audit)
{
	struct protocol_request *request = arg;
	json_t *result;

	if (!queue_done(request, got))
		return;
	result = json_object();
	json_object_set_new(result, "conserved", json_boolean(audit->conserved));
	json_object_set_new(result, "accepted", number(audit->accepted));
	json_object_set_new(result, "generated", number(audit->generated));
	json_object_set_new(result, "delivered", number(audit->delivered));
	json_object_set_new(result, "bounced", number(audit->bounced));
	json_object_set_new(result, "expired", number(audit->expired));
	json_object_set_new(result, "removed", number(audit->removed));
	json_object_set_new(result, "queued", number(audit->queued));
	json_object_set_new(result, "messages", number(audit->messages));
	json_object_set_new(result, "bodies_checked", number(audit->bodies_checked));
	json_object_set_new(result, "bodies_bad", number(audit->bodies_bad));
	json_object_set_new(result, "orphans", number(audit->orphans));
	answer(request, result);
}

static void
do_queue_audit(struct protocol_request *request)
{
	queue_ask_audit(request->peers->queue, on_audit, request);
}

static void
ask_stop(void *arg)
{
	(void)arg;
	service_ask_stop();
}

/* The answer goes first: sekishod ends this process, too, as soon as it is asked. */
static void
do_stop(struct protocol_request *request)
{
	log_info("-", "stop", "by=\"%s\"", request->by);
	answer(request, json_object());
	loop_timer_arm(loop_timer_new(service_loop(), ask_stop, NULL), STOP_DELAY);
}

static const struct {
	const char *name;
	void (*run)(struct protocol_request *request);
} commands[] = {
    {"status", do_status},
    {"account.add", do_account_add},
    {"account.remove", do_account_remove},
    {"account.show", do_account_show},
    {"account.list", do_account_list},
    {"quota.show", do_quota_show},
    {"quota.set", do_quota_set},
    {"quota.clear", do_quota_clear},
    {"queue.list", do_queue_list},
    {"queue.show", do_queue_show},
    {"queue.audit", do_queue_audit},
    {"stop", do_stop},
};

struct protocol_request *
protocol_handle(const struct protocol_peers *peers, const char *by, const char *line, size_t len,
                protocol_on_reply *on_reply, void *arg)
{
	struct protocol_request *request = xcalloc(1, sizeof(*request));
	const char *command;
	json_error_t error;
	size_t i;

	json_set_alloc_funcs(malloc, wipe_free);
	request->peers = peers;
	request->on_reply = on_reply;
	request->arg = arg;
	request->starting = true;
	snprintf(request->by, sizeof(request->by), "%s", by);
	request->body = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	request->id = json_incref(json_object_get(request->body, "id"));
	if (request->id == NULL)
		request->id = json_null();
	command = argument(request, "command");
	if (!json_is_object(request->body)) {
		refuse(request, "syntax", "the line is no JSON object");
	} else if (command == NULL) {
		refuse(request, "syntax", "\"command\" is missing");
	} else {
		for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
			if (strcmp(commands[i].name, command) == 0)
				break;
		if (i < sizeof(commands) / sizeof(commands[0]))
			commands[i].run(request);
		else
			refuse(request, "unknown-command", "there is no such command");
	}
	request->starting = false;
	if (request->answered) {
		request_free(request);
		return NULL;
	}
	return request;
}

void
protocol_forget(struct protocol_request *request)
{
	if (request != NULL)
		request->on_reply = NULL;
}
