#include "admin/command.h"

/* The table of commands, and what is the same for all of them: reading a line, checking its
 * arguments, the one reply.
 *
 * A request lives until its owner's callback has come, even when nobody waits any more: the asker
 * left, or was told after the row's patience that nobody answered. Its reply is then dropped. A
 * command that answers from inside protocol_handle (a bad argument) must not leave its caller with
 * a dangling pointer, so the request is "starting" during the call and is freed at its end. */

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/name.h"
#include "core/mem.h"
#include "core/service.h"

#define PATIENCE       10000 /* msec */
#define PATIENCE_AUDIT 60000 /* reads every body; the queue's client gives up before */
#define PATIENCE_LOOK  5000  /* status tells also who does not answer */

#define ACCOUNT                                                                                    \
	{                                                                                          \
		"account", ARGUMENT_ACCOUNT, true                                                  \
	}
#define OF_ACCOUNT                                                                                 \
	{                                                                                          \
		"account", ARGUMENT_ACCOUNT, false                                                 \
	}

static const struct command commands[] = {
    {"status", PROTOCOL_LOOK, PATIENCE_LOOK, cmd_status, cmd_status_late, {{0}}},
    {"account.add",
     PROTOCOL_ADMIN,
     PATIENCE,
     cmd_account_add,
     NULL,
     {ACCOUNT, {"password", ARGUMENT_SECRET, true}}},
    {"account.passwd",
     PROTOCOL_ADMIN,
     PATIENCE,
     cmd_account_passwd,
     NULL,
     {ACCOUNT, {"password", ARGUMENT_SECRET, true}}},
    {"account.suspend",
     PROTOCOL_ADMIN,
     PATIENCE,
     cmd_account_suspend,
     NULL,
     {ACCOUNT, {"reason", ARGUMENT_TEXT, false}}},
    {"account.resume", PROTOCOL_ADMIN, PATIENCE, cmd_account_resume, NULL, {ACCOUNT}},
    {"account.class",
     PROTOCOL_ADMIN,
     PATIENCE,
     cmd_account_class,
     NULL,
     {ACCOUNT, {"class", ARGUMENT_TEXT, true}}},
    {"account.remove", PROTOCOL_ADMIN, PATIENCE, cmd_account_remove, NULL, {ACCOUNT}},
    {"account.show", PROTOCOL_LOOK, PATIENCE, cmd_account_show, NULL, {ACCOUNT}},
    {"account.list",
     PROTOCOL_LOOK,
     PATIENCE,
     cmd_account_list,
     NULL,
     {{"after", ARGUMENT_ACCOUNT, false}}},
    {"quota.show", PROTOCOL_LOOK, PATIENCE, cmd_quota_show, NULL, {ACCOUNT}},
    {"quota.set",
     PROTOCOL_OPERATE,
     PATIENCE,
     cmd_quota_set,
     NULL,
     {ACCOUNT, {"limit", ARGUMENT_COUNT, true}, {"reason", ARGUMENT_TEXT, false}}},
    {"quota.reset",
     PROTOCOL_OPERATE,
     PATIENCE,
     cmd_quota_reset,
     NULL,
     {ACCOUNT, {"reason", ARGUMENT_TEXT, false}}},
    {"quota.clear",
     PROTOCOL_OPERATE,
     PATIENCE,
     cmd_quota_clear,
     NULL,
     {ACCOUNT, {"reason", ARGUMENT_TEXT, false}}},
    {"queue.list",
     PROTOCOL_LOOK,
     PATIENCE,
     cmd_queue_list,
     NULL,
     {OF_ACCOUNT, {"after", ARGUMENT_MESSAGE, false}}},
    {"queue.show",
     PROTOCOL_LOOK,
     PATIENCE,
     cmd_queue_show,
     NULL,
     {{"message", ARGUMENT_MESSAGE, true}}},
    {"queue.audit", PROTOCOL_LOOK, PATIENCE_AUDIT, cmd_queue_audit, NULL, {{0}}},
    {"session.list",
     PROTOCOL_LOOK,
     PATIENCE,
     cmd_session_list,
     NULL,
     {OF_ACCOUNT, {"after", ARGUMENT_NUMBER, false}}},
    {"session.kill",
     PROTOCOL_OPERATE,
     PATIENCE,
     cmd_session_kill,
     NULL,
     {OF_ACCOUNT, {"session", ARGUMENT_NUMBER, false}}},
    {"stop", PROTOCOL_ADMIN, PATIENCE, cmd_stop, NULL, {{0}}},
};

struct request {
	const struct protocol_peers *peers;
	const struct command *command;
	protocol_on_reply *on_reply; /* NULL once forgotten */
	void *arg;
	struct loop_timer *patience;
	json_t *id;
	json_t *body; /* the whole request */
	json_t *notes;
	char account[AUTH_ACCOUNT_MAX + 1];
	struct queue_id message;
	bool has_message;
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
request_free(struct request *request)
{
	loop_timer_free(request->patience);
	json_decref(request->id);
	json_decref(request->body);
	json_decref(request->notes);
	free(request);
}

/* The line for a reply, which is taken. */
static char *
dump(json_t *reply, size_t *len)
{
	char *text = json_dumps(reply, JSON_COMPACT | JSON_ENSURE_ASCII);

	json_decref(reply);
	if (text == NULL)
		return NULL;
	*len = strlen(text);
	text[(*len)++] = '\n';
	return text;
}

static json_t *
complaint(const char *code, const char *text)
{
	return json_pack("{s:b,s:{s:s,s:s}}", "ok", 0, "error", "code", code, "text", text);
}

char *
protocol_complaint(const char *code, const char *text, size_t *len)
{
	json_t *reply = complaint(code, text);

	json_object_set_new(reply, "id", json_null());
	return dump(reply, len);
}

static void
say(struct request *request, json_t *reply)
{
	size_t len = 0;
	char *text;

	json_object_set(reply, "id", request->id);
	text = dump(reply, &len);
	if (text != NULL && request->on_reply != NULL)
		request->on_reply(request->arg, text, len);
	wipe_free(text);
	request->answered = true;
}

static void
finish(struct request *request, json_t *reply)
{
	if (request_is_over(request)) {
		json_decref(reply);
		return;
	}
	say(request, reply);
	if (!request->starting)
		request_free(request);
}

bool
request_is_over(struct request *request)
{
	if (!request->answered)
		return false;
	request_free(request);
	return true;
}

void
request_answer(struct request *request, json_t *result)
{
	finish(request, json_pack("{s:b,s:o}", "ok", 1, "result", result));
}

void
request_refuse(struct request *request, const char *code, const char *text)
{
	finish(request, complaint(code, text));
}

/* The owner's callback is still to come, and finds the request answered. */
static void
on_late(void *arg)
{
	struct request *request = arg;
	char words[160];

	request->starting = true;
	if (request->command->late != NULL) {
		request->command->late(request);
	} else {
		snprintf(words, sizeof(words),
		         "no answer within %" PRId64
		         " s, and whether it was done is unknown; sekishoctl status shows which "
		         "process is down or hung",
		         request->command->patience / 1000);
		request_refuse(request, "unavailable", words);
	}
	request->starting = false;
}

bool
request_auth_done(struct request *request, enum auth_result result, const char *error)
{
	static const char *const codes[] = {"", "exists", "not-found", "invalid", "unavailable"};

	if (result != AUTH_DONE)
		request_refuse(request, codes[result], error);
	return result == AUTH_DONE;
}

bool
request_queue_done(struct request *request, enum queue_answer got)
{
	switch (got) {
	case QUEUE_DONE:
		return true;
	case QUEUE_NOT_FOUND:
		request_refuse(request, "not-found", "the queue does not know it");
		break;
	case QUEUE_INVALID:
		request_refuse(request, "invalid", "the queue refuses the argument");
		break;
	case QUEUE_DOWN:
		request_refuse(request, "unavailable",
		               "the queue is down or did not answer; sekishoctl status shows "
		               "whether it runs, the log says why not");
		break;
	}
	return false;
}

json_t *
json_number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

json_t *
json_time(msec_t wall)
{
	char text[CLOCK_RFC3339_SIZE];

	return wall == 0 ? json_null() : json_string(clock_rfc3339(wall, text));
}

json_t *
json_text(const char *text)
{
	json_t *string = json_string(text);
	char *plain;

	if (string != NULL)
		return string;
	plain = xstrdup(text);
	for (char *c = plain; *c != '\0'; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	string = json_string(plain);
	free(plain);
	return string;
}

/* Arguments */

const char *
request_account(const struct request *request)
{
	return request->account;
}

const struct queue_id *
request_message(const struct request *request)
{
	return request->has_message ? &request->message : NULL;
}

const char *
request_text(const struct request *request, const char *name)
{
	const char *value = json_string_value(json_object_get(request->body, name));

	return value != NULL ? value : "";
}

uint32_t
request_count(const struct request *request, const char *name)
{
	return (uint32_t)json_integer_value(json_object_get(request->body, name));
}

uint64_t
request_number(const struct request *request, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(request->body, name));
}

const struct protocol_peers *
request_peers(const struct request *request)
{
	return request->peers;
}

const char *
request_by(const struct request *request)
{
	return request->by;
}

json_t *
request_notes(struct request *request)
{
	if (request->notes == NULL)
		request->notes = json_object();
	return request->notes;
}

static bool
is_one_line(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

/* NULL when value is what the argument wants, else what is wrong with it, to follow its name. The
 * code goes to *code. */
static const char *
check(struct request *request, const struct argument *argument, const json_t *value,
      const char **code)
{
	const char *text = json_string_value(value);

	*code = "usage";
	if (argument->type == ARGUMENT_COUNT)
		return json_is_integer(value) && json_integer_value(value) >= 0 &&
		               json_integer_value(value) <= (json_int_t)UINT32_MAX
		           ? NULL
		           : "must be a number from 0 to 4294967295";
	if (argument->type == ARGUMENT_NUMBER)
		return json_integer_value(value) > 0 ? NULL : "must be a number above 0";
	if (text == NULL)
		return "must be text";
	*code = "invalid";
	switch (argument->type) {
	case ARGUMENT_ACCOUNT:
		return name_canonical(text, strlen(text), request->account)
		           ? NULL
		           : "is no mail address like user@example.net";
	case ARGUMENT_MESSAGE:
		request->has_message = queue_id_parse(text, &request->message);
		return request->has_message ? NULL
		                            : "is no message id; sekishoctl queue list shows them";
	case ARGUMENT_TEXT:
		if (strlen(text) > ARGUMENT_TEXT_MAX)
			return "is longer than 127 octets";
		return is_one_line(text) ? NULL : "holds control characters; give one line of text";
	case ARGUMENT_SECRET:
	case ARGUMENT_COUNT:
	case ARGUMENT_NUMBER:
		break;
	}
	return NULL;
}

/* False, after saying why, when the arguments are not what the row wants. */
static bool
check_arguments(struct request *request)
{
	const struct argument *known = request->command->arguments;
	const char *key, *code = "usage";
	char words[256];
	json_t *value;

	words[0] = '\0';
	for (const struct argument *a = known; a->name != NULL && words[0] == '\0'; a++) {
		const char *wrong = NULL;

		value = json_object_get(request->body, a->name);
		if (value != NULL && !json_is_null(value))
			wrong = check(request, a, value, &code);
		else if (a->needed)
			wrong = "is missing";
		if (wrong != NULL)
			snprintf(words, sizeof(words), "the argument \"%s\" %s", a->name, wrong);
	}
	json_object_foreach(request->body, key, value)
	{
		const struct argument *a = known;

		while (a->name != NULL && strcmp(a->name, key) != 0)
			a++;
		if (words[0] == '\0' && a->name == NULL && strcmp(key, "id") != 0 &&
		    strcmp(key, "command") != 0)
			snprintf(words, sizeof(words), "%s takes no argument \"%.64s\"",
			         request->command->name, key);
	}
	if (words[0] == '\0')
		return true;
	value = json_text(words); /* the key may be cut inside a character */
	request_refuse(request, code, json_string_value(value));
	json_decref(value);
	return false;
}

static const struct command *
find_command(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static void
run(struct request *request, const struct protocol_asker *asker, json_error_t *error)
{
	const char *name = json_string_value(json_object_get(request->body, "command"));
	char words[128], *near;

	if (request->body == NULL) {
		/* The parser's words go on to quote the line; what it holds is nobody's news. */
		if ((near = strstr(error->text, " near ")) != NULL)
			*near = '\0';
		snprintf(words, sizeof(words), "the line is no JSON: %.64s, at octet %d",
		         error->text, error->position);
		request_refuse(request, "syntax", words);
	} else if (!json_is_object(request->body)) {
		request_refuse(request, "syntax", "the line is no JSON object");
	} else if (name == NULL) {
		request_refuse(request, "syntax", "\"command\" is missing or no text");
	} else if ((request->command = find_command(name)) == NULL) {
		request_refuse(request, "unknown-command",
		               "there is no such command; sekishoctl --help lists them");
	} else if (asker->role < request->command->role) {
		request_refuse(request, "denied", "you may not do this; ask an administrator");
	} else if (check_arguments(request)) {
		request->command->run(request);
	}
}

struct request *
protocol_handle(const struct protocol_peers *peers, const struct protocol_asker *asker,
                const char *line, size_t len, protocol_on_reply *on_reply, void *arg)
{
	struct request *request = xcalloc(1, sizeof(*request));
	json_error_t error;

	json_set_alloc_funcs(malloc, wipe_free);
	request->peers = peers;
	request->on_reply = on_reply;
	request->arg = arg;
	request->starting = true;
	snprintf(request->by, sizeof(request->by), "%s", asker->by);
	request->body = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	request->id = json_incref(json_object_get(request->body, "id"));
	if (request->id == NULL)
		request->id = json_null();
	run(request, asker, &error);
	request->starting = false;
	if (request->answered) {
		request_free(request);
		return NULL;
	}
	request->patience = loop_timer_new(service_loop(), on_late, request);
	loop_timer_arm(request->patience, request->command->patience);
	return request;
}

void
protocol_forget(struct request *request)
{
	if (request != NULL)
		request->on_reply = NULL;
}
