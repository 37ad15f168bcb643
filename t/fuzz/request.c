#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "admin/command.h"
#include "core/loop.h"
#include "core/service.h"

/* A request of the admin protocol, against a table with every type of argument. Whatever the line
 * is: exactly one answer of one line, JSON, with the request's id; and a command runs only with its
 * role and with arguments that are what they are called. The first octet chooses the role. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned answers, runs;
static enum role role;

static void
run_all(struct request *request)
{
	struct process process;

	runs++;
	assert(role >= ROLE_OPERATE && request_role(request) == role);
	assert(strchr(request_account(request), '@') != NULL);
	assert(strlen(request_text(request, "text")) <= ARGUMENT_TEXT_MAX);
	if (request_text(request, "process")[0] != '\0')
		assert(process_parse(request_text(request, "process"), &process));
	assert(request_duration(request, "duration") >= 0);
	request_answer(request, json_object());
}

static void
run_none(struct request *request)
{
	const struct identity *identity = request_identity(request);
	struct identity again;

	runs++;
	assert(role >= ROLE_LOOK);
	/* What was understood is canonical. */
	assert(identity->text[0] == '\0' ||
	       (identity_parse(identity->text, strlen(identity->text), &again) &&
	        again.kind == identity->kind && strcmp(again.text, identity->text) == 0));
	request_refuse(request, "busy", "always");
}

const struct command commands[] = {
    {"all",
     ROLE_OPERATE,
     1000,
     run_all,
     NULL,
     {{"account", ARGUMENT_ACCOUNT, true},
      {"message", ARGUMENT_MESSAGE, false},
      {"text", ARGUMENT_TEXT, false},
      {"count", ARGUMENT_COUNT, false},
      {"number", ARGUMENT_NUMBER, false},
      {"process", ARGUMENT_PROCESS, false},
      {"duration", ARGUMENT_DURATION, false}}},
    {"rest",
     ROLE_LOOK,
     1000,
     run_none,
     NULL,
     {{"secret", ARGUMENT_SECRET, false},
      {"identity", ARGUMENT_IDENTITY, false},
      {"level", ARGUMENT_LEVEL, false},
      {"mailbox", ARGUMENT_MAILBOX, false},
      {"site", ARGUMENT_SITE, false},
      {"size", ARGUMENT_SIZE, false},
      {"flag", ARGUMENT_FLAG, false}}},
    {"help", ROLE_LOOK, 1000, cmd_help, NULL, {{0}}},
    {NULL, ROLE_NONE, 0, NULL, NULL, {{0}}},
};

static void
on_reply(void *arg, const char *line, size_t len)
{
	json_t *reply;

	(void)arg;
	answers++;
	assert(len > 0 && line[len - 1] == '\n' && memchr(line, '\n', len) == line + len - 1);
	reply = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	assert(json_is_object(reply) && json_object_get(reply, "id") != NULL);
	assert(json_is_true(json_object_get(reply, "ok")) ||
	       json_is_string(json_object_get(json_object_get(reply, "error"), "text")));
	json_decref(reply);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf conf;
	const struct protocol_peers peers = {.conf = &conf};
	struct protocol_asker asker = {.by = "uid 1"};
	struct request *request;
	char *line;

	if (size == 0)
		return 0;
	log_set_level(LOG_LEVEL_ERROR);
	role = asker.role = (enum role)(data[0] % 4);
	line = malloc(size);
	assert(line != NULL);
	memcpy(line, data + 1, size - 1);
	line[size - 1] = '\n';
	answers = runs = 0;
	request = protocol_handle(&peers, &asker, line, size, on_reply, NULL);
	assert(request == NULL && answers == 1 && runs <= 1);
	free(line);
	return 0;
}
