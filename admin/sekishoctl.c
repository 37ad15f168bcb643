/* sekishoctl: what the NOC types. */
#include <jansson.h>

/* One connection, one or several requests (lists come in pages, and are printed as they come, so
 * that a queue of any size fits). A command is a row of the table in ctl_commands.c: its words,
 * what follows them, the request they become, and what prints the result for people; --json prints
 * it as one line. Exit statuses are in ctl_ask.h. */

#include <assert.h>
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/ctl.h"
#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"
#include "core/near.h"

#define PATIENCE  15 /* s; sekisho-admin answers earlier, so more means that it hangs */
#define IDS_MAX   500
#define WORDS_MAX (4 + IDS_MAX)

static bool as_json;

bool
ctl_wants_json(void)
{
	return as_json;
}

/* The command line */

struct words {
	const char *word[WORDS_MAX];
	size_t count;
	struct {
		const char *name; /* as typed, without the dashes; its length is below */
		size_t len;
		const char *value; /* NULL: none yet */
	} option[CTL_OPTIONS_MAX];
	size_t options;
};

static void
join(const struct words *words, size_t count, char *out, size_t size)
{
	size_t len = 0;

	out[0] = '\0';
	for (size_t i = 0; i < count && i < words->count && len < size; i++)
		len += (size_t)snprintf(out + len, size - len, "%s%.30s", i > 0 ? " " : "",
		                        words->word[i]);
}

/* How many words a command is called by. */
static size_t
word_count(const char *text)
{
	size_t n = 1;

	for (; *text != '\0'; text++)
		n += *text == ' ';
	return n;
}

/* The number of the command's own words when they stand first, else 0. */
static size_t
matches(const struct ctl_command *command, const struct words *words)
{
	const size_t n = word_count(command->words);
	char name[64];

	join(words, n, name, sizeof(name));
	return words->count >= n && strcmp(name, command->words) == 0 ? n : 0;
}

static void
print_row(const struct ctl_command *command)
{
	int len = printf("  %s%s%s", command->words, *command->synopsis != '\0' ? " " : "",
	                 command->synopsis);

	printf("%*s%s\n", len < 48 ? 48 - len : 2, "", command->help);
}

static bool
is_in_group(const struct ctl_command *command, const char *group)
{
	const size_t len = strlen(group);

	return strncmp(command->words, group, len) == 0 &&
	       (command->words[len] == ' ' || command->words[len] == '\0');
}

/* All commands, or those that begin with the words given. */
static void
print_help(const struct words *words)
{
	char group[64];
	bool some = false;

	join(words, words->count, group, sizeof(group));
	fputs("usage: sekishoctl [-s SOCKET | --socket SOCKET] [--json] COMMAND\n\n", stdout);
	for (int all = 0; all < 2 && !some; all++)
		for (const struct ctl_command *c = ctl_commands; c->words != NULL; c++)
			if (all || (words->count > 0 && is_in_group(c, group)) ||
			    matches(c, words) > 0) {
				print_row(c);
				some = true;
			}
	printf(
	    "\n"
	    "  --json prints the result as one line of JSON. The socket is SOCKET, else\n"
	    "  $SEKISHO_SOCKET, else /run/sekisho/admin.sock, else ./run/admin.sock.\n"
	    "  WHICH messages, all that is given: --account A, --sender S, --recipient R (an "
	    "address or\n"
	    "  a domain), --site X, --lane L, --older TIME, --younger TIME, --larger SIZE,\n"
	    "  --smaller SIZE, --reply TEXT.\n"
	    "  Exit status: 0 done, %d refused or not found, %d wrong usage, %d no service or no\n"
	    "  answer in time, %d not your role.\n",
	    CTL_REFUSED, CTL_USAGE, CTL_UNAVAILABLE, CTL_DENIED);
}

/* The command that the words are; the end of the program, naming the nearest, when there is none.
 */
static const struct ctl_command *
find_command(const struct words *words)
{
	const struct ctl_command *near = NULL;
	size_t best = SIZE_MAX;
	char typed[128];

	if (words->count == 0)
		ctl_usage("usage: sekishoctl COMMAND");
	for (const struct ctl_command *c = ctl_commands; c->words != NULL; c++) {
		size_t far;

		if (matches(c, words) > 0)
			return c;
		join(words, word_count(c->words), typed, sizeof(typed));
		far = near_distance(typed, c->words);
		if (far < best) {
			best = far;
			near = c;
		}
		join(words, words->count, typed, sizeof(typed));
		if (words->count < word_count(c->words) && is_in_group(c, typed))
			ctl_die(CTL_USAGE, "%s what? sekishoctl %s --help lists the commands",
			        typed, typed);
	}
	assert(near != NULL);
	join(words, word_count(near->words), typed, sizeof(typed));
	if (best <= 1 + strlen(near->words) / 3)
		ctl_die(CTL_USAGE,
		        "unknown command %s; did you mean %s? sekishoctl --help lists them all",
		        ctl_harmless(typed), near->words);
	ctl_die(CTL_USAGE, "unknown command %s; sekishoctl --help lists them all",
	        ctl_harmless(typed));
}

static bool
is_option(const char *option, const char *typed, size_t len)
{
	const size_t own = strcspn(option, "!");

	return own == len && strncmp(option, typed, len) == 0;
}

static const char *
find_option(const struct ctl_command *command, const char *typed, size_t len)
{
	const char *near = NULL;
	char word[64];

	snprintf(word, sizeof(word), "%.*s", len < sizeof(word) ? (int)len : 0, typed);
	for (const char *const *o = command->options; *o != NULL; o++) {
		if (is_option(*o, typed, len))
			return *o;
		if (near == NULL || near_distance(word, *o) < near_distance(word, near))
			near = *o;
	}
	if (near != NULL)
		ctl_die(CTL_USAGE,
		        "unknown option --%s; did you mean --%.*s? usage: sekishoctl %s %s",
		        ctl_harmless(word), (int)strcspn(near, "!"), near, command->words,
		        command->synopsis);
	ctl_die(CTL_USAGE, "unknown option --%s; usage: sekishoctl %s%s%s", ctl_harmless(word),
	        command->words, *command->synopsis != '\0' ? " " : "", command->synopsis);
}

static json_t *
text_of(const char *typed)
{
	json_t *value = json_string(typed);

	if (value == NULL)
		ctl_usage("the arguments are no UTF-8 text");
	return value;
}

/* The ids from the at-th word on, if there are several; 0 or how many words there are. */
static size_t
take_ids(const struct words *words, size_t at, json_t *request)
{
	json_t *ids = json_array();

	for (; at < words->count; at++)
		json_array_append_new(ids, text_of(words->word[at]));
	if (json_array_size(ids) > 1)
		json_object_set(request, "messages", ids);
	if (json_array_size(ids) > IDS_MAX)
		ctl_usage("too many ids; at most 500 at a time");
	json_decref(ids);
	return at;
}

/* "dry-run!" is the key "dry_run" */
static const char *
key_of(const char *option)
{
	static char key[64];

	snprintf(key, sizeof(key), "%.*s", (int)strcspn(option, "!"), option);
	for (char *c = key; *c != '\0'; c++)
		if (*c == '-')
			*c = '_';
	return key;
}

/* The request that the words are, or the end of the program. */
static json_t *
make_request(const struct ctl_command *command, const struct words *words)
{
	json_t *request = json_pack("{s:s}", "command", command->command);
	size_t at = matches(command, words);
	bool good = true;

	for (const char *const *a = command->arguments; *a != NULL; a++) {
		if (at < words->count)
			json_object_set_new(request, *a, text_of(words->word[at++]));
		else
			good = good && command->optional;
	}
	if (command->many && at > matches(command, words))
		at = take_ids(words, at - 1, request);
	for (size_t i = 0; i < words->options; i++) {
		const char *option =
		    find_option(command, words->option[i].name, words->option[i].len);

		if (strchr(option, '!') != NULL && words->option[i].value != NULL)
			ctl_die(CTL_USAGE, "--%.*s takes no text", (int)strcspn(option, "!"),
			        option);
		if (json_object_get(request, key_of(option)) != NULL)
			ctl_die(CTL_USAGE, "--%s is given twice", option);
		json_object_set_new(request, key_of(option),
		                    words->option[i].value != NULL ? text_of(words->option[i].value)
		                                                   : json_true());
	}
	if (!good || at != words->count)
		ctl_die(CTL_USAGE, "usage: sekishoctl %s%s%s", command->words,
		        *command->synopsis != '\0' ? " " : "", command->synopsis);
	if (command->prepare != NULL)
		command->prepare(request);
	return request;
}

static int
patience_of(const struct ctl_command *command)
{
	return command->patience != 0 ? command->patience : PATIENCE;
}

/* Page by page; JSON comes as one document all the same. */
static int
run_pages(const struct ctl_command *command, json_t *request)
{
	bool more = true, first = true;

	while (more && !ferror(stdout)) {
		json_t *page = ctl_ask(json_deep_copy(request), patience_of(command));
		const json_t *rows = json_object_get(page, command->pages), *row;
		json_t *next = json_object_get(page, "next");
		size_t index;

		if (as_json && json_object_get(request, "after") == NULL)
			printf("{\"%s\":[", command->pages);
		if (as_json)
			json_array_foreach(rows, index, row)
			{
				if (!first)
					putchar(',');
				first = false;
				ctl_json(row);
			}
		else
			command->print(request, page);
		more = next != NULL && !json_is_null(next);
		if (more)
			json_object_set(request, "after", next);
		json_decref(page);
	}
	if (as_json)
		puts("]}");
	return 0;
}

static int
run_command(const struct ctl_command *command, json_t *request)
{
	json_t *result;
	int status = 0;

	if (command->run != NULL)
		return command->run(request);
	if (command->pages != NULL)
		return run_pages(command, request);
	result = ctl_ask(json_copy(request), patience_of(command));
	json_object_del(request, "password");
	if (command->finish != NULL)
		status = command->finish(result);
	if (as_json) {
		ctl_json(result);
		putchar('\n');
	} else {
		command->print(request, result);
	}
	json_decref(result);
	return status;
}

static const char *
take_value(int argc, char **argv, int *i, const char *complaint)
{
	if (++*i == argc)
		ctl_usage(complaint);
	return argv[*i];
}

/* Whether any command has an option of that name that is followed by a text. */
static bool
takes_text(const char *name, size_t len)
{
	for (const struct ctl_command *c = ctl_commands; c->words != NULL; c++)
		for (const char *const *o = c->options; *o != NULL; o++)
			if (is_option(*o, name, len) && strchr(*o, '!') == NULL)
				return true;
	return false;
}

/* An option of a command: "--reason TEXT", "--reason=TEXT" or "--dry-run". Which command it is, is
 * not known yet. */
static void
take_option(struct words *words, int argc, char **argv, int *i)
{
	static char complaint[80];
	const char *name = argv[*i] + 2, *value = NULL;
	const size_t len = strcspn(name, "=");
	const bool text = takes_text(name, len);

	if (words->options == CTL_OPTIONS_MAX)
		ctl_usage("too many options");
	snprintf(complaint, sizeof(complaint), "--%.*s %s", len < 32 ? (int)len : 32, name,
	         text ? "needs a text" : "takes no text");
	if (name[len] == '=')
		value = name + len + 1;
	else if (text)
		value = take_value(argc, argv, i, complaint);
	words->option[words->options].name = name;
	words->option[words->options].len = len;
	words->option[words->options++].value = value;
}

int
main(int argc, char **argv)
{
	struct words words = {.count = 0};
	const char *socket_path = NULL;
	const struct ctl_command *command;
	bool help = false, plain = false;
	json_t *request;
	int status;

	for (int i = 1; i < argc; i++) {
		if (plain || argv[i][0] != '-' || isdigit((unsigned char)argv[i][1])) {
			if (words.count == WORDS_MAX)
				ctl_usage("too many words; at most 500 ids at a time");
			words.word[words.count++] = argv[i];
		} else if (strcmp(argv[i], "--") == 0)
			plain = true;
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			help = true;
		else if (strcmp(argv[i], "--json") == 0)
			as_json = true;
		else if (strcmp(argv[i], "-s") == 0 || strcmp(argv[i], "--socket") == 0)
			socket_path = take_value(argc, argv, &i, "--socket needs a path");
		else if (strncmp(argv[i], "--socket=", 9) == 0)
			socket_path = argv[i] + 9;
		else if (strncmp(argv[i], "--", 2) == 0)
			take_option(&words, argc, argv, &i);
		else
			ctl_usage("unknown option");
	}
	if (help) {
		print_help(&words);
		ctl_print_done();
		return 0;
	}
	command = find_command(&words);
	request = make_request(command, &words);
	ctl_ask_init(socket_path);
	status = run_command(command, request);
	json_decref(request);
	ctl_print_done();
	return status;
}
