#include "admin/command.h"

/* What is the same for all commands: reading a line, checking its arguments and the asker's role,
 * the record of what was changed by whom, the one reply.
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
#include "core/log.h"
#include "core/mem.h"
#include "core/near.h"
#include "core/service.h"
#include "smtp/address.h"

#define DURATION_MAX (36500 * INT64_C(86400000)) /* msec: what the clock can add, and write */

struct request {
	const struct protocol_peers *peers;
	const struct command *command;
	protocol_on_reply *on_reply; /* NULL once forgotten */
	void *arg;
	bool (*on_watch)(void *arg, const struct watch_filter *filter);
	struct loop_timer *patience;
	json_t *id;
	json_t *body; /* the whole request */
	json_t *notes;
	char account[AUTH_ACCOUNT_MAX + 1];
	struct identity identity;
	struct queue_id message;
	bool has_message;
	bool starting, answered;
	enum role role;
	char by[ROLES_BY_SIZE];
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

/* What a value may look like in the record: quotation marks would forge the next one. */
static void
add_value(struct buf *out, const char *key, const char *value)
{
	buf_printf(out, " %s=\"", key);
	for (; *value != '\0'; value++)
		buf_add_char(out, *value == '"' ? '\'' : *value);
	buf_add_char(out, '"');
}

/* Who changed what, and with which result: one line each, also for what was refused. */
static void
record(const struct request *request, const json_t *reply)
{
	const struct command *command = request->command;
	const char *code =
	    json_string_value(json_object_get(json_object_get(reply, "error"), "code"));
	struct buf line;

	if (command == NULL || command->role < ROLE_OPERATE)
		return;
	buf_init(&line);
	for (const struct argument *a = command->arguments; a->name != NULL; a++) {
		const json_t *value = json_object_get(request->body, a->name);
		char number[32];

		if (a->type == ARGUMENT_SECRET)
			continue;
		if (json_is_string(value)) {
			add_value(&line, a->name, json_string_value(value));
		} else if (json_is_integer(value)) {
			snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT,
			         json_integer_value(value));
			add_value(&line, a->name, number);
		} else if (json_is_true(value)) {
			add_value(&line, a->name, "yes");
		}
	}
	log_info("-", "admin", "command=%s by=\"%s\" result=%s%.1200s", command->name, request->by,
	         code != NULL ? code : "done", buf_str(&line));
	buf_clear(&line);
}

static void
say(struct request *request, json_t *reply)
{
	size_t len = 0;
	char *text;

	record(request, reply);
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

void
request_refuse_with(struct request *request, const char *code, const char *text, const char *name,
                    json_t *details)
{
	json_t *reply = complaint(code, text);

	json_object_set_new(json_object_get(reply, "error"), name, details);
	finish(request, reply);
}

bool
request_watch(struct request *request, const struct watch_filter *filter)
{
	return request->on_reply == NULL || request->on_watch(request->arg, filter);
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
	static const char *const codes[] = {"",        "exists",  "not-found",
	                                    "invalid", "refused", "unavailable"};

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
	case QUEUE_LIMIT:
		request_refuse(
		    request, "refused",
		    "as many holds and directives as there may be are in force; sekishoctl queue "
		    "holds shows them, queue release ends one");
		break;
	case QUEUE_DOWN:
		request_refuse(request, "unavailable",
		               "the queue is down, did not answer or could not write; sekishoctl "
		               "status shows whether it runs and has room, the log says why not");
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

const struct identity *
request_identity(const struct request *request)
{
	return &request->identity;
}

bool
request_flag(const struct request *request, const char *name)
{
	return json_is_true(json_object_get(request->body, name));
}

uint64_t
request_number(const struct request *request, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(request->body, name));
}

msec_t
request_duration(const struct request *request, const char *name)
{
	msec_t value = 0;

	return conf_duration(request_text(request, name), &value) ? value : 0;
}

uint64_t
request_size(const struct request *request, const char *name)
{
	uint64_t value = 0;

	return conf_size(request_text(request, name), &value) ? value : 0;
}

enum role
request_role(const struct request *request)
{
	return request->role;
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

static bool
domain_canonical(const char *text, char out[ADDRESS_DOMAIN_MAX + 1])
{
	char mailbox[ADDRESS_MAX + 1];
	struct address address;
	int len = snprintf(mailbox, sizeof(mailbox), "x@%s", text);

	if (len >= (int)sizeof(mailbox) ||
	    address_parse(mailbox, (size_t)len, &address) != ADDRESS_OK)
		return false;
	memcpy(out, address.domain, sizeof(address.domain));
	return true;
}

static bool
mailbox_canonical(const char *text, char out[ADDRESS_TEXT_SIZE])
{
	char domain[ADDRESS_DOMAIN_MAX + 1];
	struct address address;

	if (strcmp(text, "<>") == 0) {
		snprintf(out, ADDRESS_TEXT_SIZE, "%s", text);
		return true;
	}
	if (strchr(text, '@') == NULL) {
		if (!domain_canonical(text, domain))
			return false;
		snprintf(out, ADDRESS_TEXT_SIZE, "%s", domain);
		return true;
	}
	if (address_parse(text, strlen(text), &address) != ADDRESS_OK)
		return false;
	address_format(&address, out, ADDRESS_TEXT_SIZE);
	return true;
}

void
request_mailbox(const struct request *request, const char *name, char out[ADDRESS_TEXT_SIZE])
{
	if (!mailbox_canonical(request_text(request, name), out))
		out[0] = '\0'; /* it was not given */
}

static bool
is_site(const char *text)
{
	const size_t len = strlen(text);

	return len > 0 && len < QUEUE_SITE_SIZE && strcspn(text, " \"") == len && is_one_line(text);
}

void
request_site(const struct request *request, char out[QUEUE_SITE_SIZE])
{
	const char *text = request_text(request, "site");
	char domain[ADDRESS_DOMAIN_MAX + 1];

	snprintf(out, QUEUE_SITE_SIZE, "%s", domain_canonical(text, domain) ? domain : text);
}

/* NULL when value is what the argument wants, else what is wrong with it, to follow its name. The
 * code goes to *code. */
static const char *
check(struct request *request, const struct argument *argument, const json_t *value,
      const char **code)
{
	const char *text = json_string_value(value);
	struct process process;
	msec_t duration;
	uint64_t size;
	char mailbox[ADDRESS_TEXT_SIZE];

	*code = "usage";
	if (argument->type == ARGUMENT_COUNT)
		return json_is_integer(value) && json_integer_value(value) >= 0 &&
		               json_integer_value(value) <= (json_int_t)UINT32_MAX
		           ? NULL
		           : "must be a number from 0 to 4294967295";
	if (argument->type == ARGUMENT_NUMBER)
		return json_integer_value(value) > 0 ? NULL : "must be a number above 0";
	if (argument->type == ARGUMENT_FLAG)
		return json_is_boolean(value) ? NULL : "must be true or false";
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
	case ARGUMENT_LINE:
		if (strlen(text) > ARGUMENT_LINE_MAX)
			return "is longer than 998 octets";
		return is_one_line(text) ? NULL : "holds control characters; give one line of text";
	case ARGUMENT_PROCESS:
		return process_parse(text, &process)
		           ? NULL
		           : "is no process; it is all, a name such as msa, or one such as msa.0, "
		             "which sekishoctl status shows";
	case ARGUMENT_LEVEL:
		return strcmp(log_level_name(log_level_named(text)), text) == 0
		           ? NULL
		           : "is no level; they are error, warn, info and debug";
	case ARGUMENT_DURATION:
		if (!conf_duration(text, &duration))
			return "is no time; write it like 30s, 10min, 4h or 2d";
		return duration <= DURATION_MAX ? NULL : "is longer than 36500d";
	case ARGUMENT_SIZE:
		return conf_size(text, &size) && size > 0
		           ? NULL
		           : "is no size; write it like 100KiB or 5MiB, or in octets";
	case ARGUMENT_MAILBOX:
		return mailbox_canonical(text, mailbox)
		           ? NULL
		           : "is no mail address like user@example.net, nor a domain like "
		             "example.net";
	case ARGUMENT_SITE:
		return is_site(text) ? NULL : "is no site, nor a domain like example.net";
	case ARGUMENT_ADDRESS:
		return identity_parse(text, strlen(text), &request->identity) &&
		               request->identity.kind == IDENTITY_ADDRESS
		           ? NULL
		           : "is no mail address like user@example.net";
	case ARGUMENT_IDENTITY:
		return identity_parse(text, strlen(text), &request->identity)
		           ? NULL
		           : "is none; write user@example.net, @example.net for every address "
		             "there, or @.example.net for those in all domains below it";
	case ARGUMENT_SECRET:
	case ARGUMENT_FLAG:
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
		    strcmp(key, "version") != 0 && strcmp(key, "command") != 0)
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

/* NULL, after naming the nearest one, when there is no such command. */
static const struct command *
find_command(struct request *request, const char *name)
{
	const struct command *near = commands;
	char words[192];

	for (const struct command *c = commands; c->name != NULL; c++) {
		if (strcmp(c->name, name) == 0)
			return c;
		if (near_distance(name, c->name) < near_distance(name, near->name))
			near = c;
	}
	snprintf(words, sizeof(words),
	         "there is no such command; did you mean %s? The command help lists them all",
	         near->name);
	request_refuse(request, "unknown-command", words);
	return NULL;
}

/* False, after saying which role it takes and who has it, for who may not. */
static bool
check_role(struct request *request, const struct conf *conf)
{
	const enum role needed = request->command->role;
	char words[512], holders[320];
	json_t *value;

	if (request->role >= needed)
		return true;
	roles_holders(needed, conf, holders, sizeof(holders));
	snprintf(words, sizeof(words), "%s takes the role %s, and you have %s; who has it: %s",
	         request->command->name, role_name(needed), role_name(request->role), holders);
	value = json_text(words);
	request_refuse(request, "denied", json_string_value(value));
	json_decref(value);
	return false;
}

static bool
check_version(struct request *request)
{
	const json_t *version = json_object_get(request->body, "version");

	if (version == NULL ||
	    (json_is_integer(version) && json_integer_value(version) == PROTOCOL_VERSION))
		return true;
	request_refuse(
	    request, "version",
	    "this service speaks version 1 of the admin protocol; use the sekishoctl that "
	    "came with it");
	return false;
}

static void
run(struct request *request, const struct conf *conf, json_error_t *error)
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
	} else if (check_version(request) &&
	           (request->command = find_command(request, name)) != NULL &&
	           check_role(request, conf) && check_arguments(request)) {
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
	request->role = asker->role;
	request->on_watch = asker->on_watch;
	snprintf(request->by, sizeof(request->by), "%s", asker->by);
	request->body = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	request->id = json_incref(json_object_get(request->body, "id"));
	if (request->id == NULL)
		request->id = json_null();
	run(request, peers->conf, &error);
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
cmd_help(struct request *request)
{
	static const char *const types[] = {
	    [ARGUMENT_ACCOUNT] = "account",   [ARGUMENT_MESSAGE] = "message",
	    [ARGUMENT_TEXT] = "text",         [ARGUMENT_LINE] = "line",
	    [ARGUMENT_SECRET] = "secret",     [ARGUMENT_COUNT] = "count",
	    [ARGUMENT_DURATION] = "duration", [ARGUMENT_NUMBER] = "number",
	    [ARGUMENT_PROCESS] = "process",   [ARGUMENT_LEVEL] = "level",
	    [ARGUMENT_SIZE] = "size",         [ARGUMENT_FLAG] = "flag",
	    [ARGUMENT_ADDRESS] = "address",   [ARGUMENT_IDENTITY] = "identity",
	    [ARGUMENT_MAILBOX] = "mailbox",   [ARGUMENT_SITE] = "site",
	};
	json_t *list = json_array();

	for (const struct command *c = commands; c->name != NULL; c++) {
		json_t *arguments = json_array();

		for (const struct argument *a = c->arguments; a->name != NULL; a++)
			json_array_append_new(arguments,
			                      json_pack("{s:s,s:s,s:b}", "name", a->name, "type",
			                                types[a->type], "needed", a->needed));
		json_array_append_new(list, json_pack("{s:s,s:s,s:o}", "command", c->name, "role",
		                                      role_name(c->role), "arguments", arguments));
	}
	request_answer(request,
	               json_pack("{s:i,s:s,s:s,s:o}", "version", PROTOCOL_VERSION, "you",
	                         request->by, "role", role_name(request->role), "commands", list));
}

void
protocol_forget(struct request *request)
{
	if (request != NULL)
		request->on_reply = NULL;
}
