/* sekishoctl: what the NOC types. */
#include <jansson.h>

/* One connection, one or several requests (lists come in pages, and are printed as they come, so
 * that a queue of any size fits). A command is a row of the table: its words, what follows them,
 * the request they become, and what prints the result for people; --json prints it as one line.
 *
 * Exit status: 0 done, 1 refused or not found (and an audit that does not add up), 2 the service
 * cannot be reached, 64 wrong usage. */

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

#define PATIENCE       15 /* s; sekisho-admin answers earlier, so more means that it hangs */
#define PATIENCE_AUDIT 90
#define WORDS_MAX      8
#define PASSWORD_MAX   256 /* octets, as sekisho-auth takes them */
#define ARGUMENTS_MAX  2

struct command {
	const char *words, *synopsis, *help;
	const char *command;                  /* of the request */
	const char *arguments[ARGUMENTS_MAX]; /* its keys for the words that follow */
	const char *option;                   /* its key for "--key TEXT", or NULL */
	const char *pages;                    /* the array of a result that comes in pages */
	int patience;
	void (*prepare)(json_t *request); /* completes the request, or NULL */
	/* For people; for a list once per page. Returns the exit status, with --json too, where
	 * it must print nothing. */
	int (*print)(const json_t *request, const json_t *result);
	bool option_instead; /* of the words that follow */
};

static bool as_json;

/* Results for people */

static int
print_status(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {
	    {"role", "PROCESS", 0}, {"index", "NO", 0},          {"pid", "PID", 0},
	    {"since", "SINCE", 0},  {"restarts", "RESTARTS", 0}, {"layers", "LAYERS", 0},
	    {NULL, NULL, 0}};
	static const char *const counters[] = {"accepted", "generated", "delivered",
	                                       "bounced",  "expired",   "removed"};
	const json_t *queue = json_object_get(result, "queue"), *lane;
	const char *name;

	(void)request;
	if (as_json)
		return 0;
	ctl_table(columns, json_object_get(result, "processes"));
	putchar('\n');
	if (!json_is_object(queue)) {
		puts("the queue does not answer");
		return 0;
	}
	json_object_foreach(json_object_get(queue, "lanes"), name, lane)
	{
		printf("%-16s %s messages, %s recipients\n", name, ctl_show(lane, "messages"),
		       ctl_show(lane, "recipients"));
	}
	ctl_line("in flight", queue, "in_flight");
	ctl_line("oldest", queue, "oldest");
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		ctl_line(counters[i], queue, counters[i]);
	if (json_is_true(json_object_get(queue, "refusing")))
		ctl_line("REFUSING MAIL", queue, "refusing_why");
	if (json_is_true(json_object_get(queue, "ledger_held")))
		printf("%-16s the clock jumped forward; quotas free nothing until it has stayed "
		       "(ledger %s)\n",
		       "LEDGER HELD", ctl_show(queue, "ledger_time"));
	return 0;
}

static int
print_accounts(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {{"account", "ACCOUNT", 0},
	                                      {"class", "CLASS", 0},
	                                      {"state", "STATE", 0},
	                                      {"created", "CREATED", 0},
	                                      {"changed", "CHANGED", 0},
	                                      {"reason", "REASON", 0},
	                                      {NULL, NULL, 0}};

	(void)request;
	if (!as_json)
		ctl_table(columns, json_object_get(result, "accounts"));
	return 0;
}

static int
print_added(const json_t *request, const json_t *result)
{
	(void)request;
	if (!as_json)
		printf("added %s\n",
		       ctl_show(json_array_get(json_object_get(result, "accounts"), 0), "account"));
	return 0;
}

static int
print_sessions(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {
	    {"session", "SESSION", 0}, {"since", "SINCE", 0},         {"account", "ACCOUNT", 0},
	    {"ip", "IP", 0},           {"port", "PORT", 0},           {"listener", "LISTENER", 0},
	    {"tls", "TLS", 0},         {"mechanism", "MECHANISM", 0}, {NULL, NULL, 0}};

	(void)request;
	if (!as_json)
		ctl_table(columns, json_object_get(result, "sessions"));
	return 0;
}

static int
print_killed(const json_t *request, const json_t *result)
{
	(void)request;
	if (!as_json)
		printf("sessions ended: %s\n", ctl_show(result, "ended"));
	return 0;
}

static int
print_removed(const json_t *request, const json_t *result)
{
	(void)result;
	if (!as_json)
		printf("removed %s\n", ctl_show(request, "account"));
	return 0;
}

/* "100 at once, then 50 in 300 s; now 87" */
static void
print_burst(const char *title, const json_t *result, const char *meter)
{
	const json_t *burst = json_object_get(json_object_get(result, "burst"), meter);

	if (!json_is_object(burst)) {
		printf("%-16s not limited\n", title);
		return;
	}
	printf("%-16s %lld at once, then %lld in %lld s; now %lld\n", title,
	       (long long)json_integer_value(json_object_get(burst, "at_once")),
	       (long long)json_integer_value(json_object_get(burst, "count")),
	       (long long)json_integer_value(json_object_get(burst, "period_ms")) / 1000,
	       (long long)json_integer_value(json_object_get(burst, "left")));
}

/* A limit lowered below what was used leaves nothing, not less. */
static void
print_remaining(const json_t *meter)
{
	const json_int_t left = json_integer_value(json_object_get(meter, "limit")) -
	                        json_integer_value(json_object_get(meter, "used")) -
	                        json_integer_value(json_object_get(meter, "reserved"));
	printf("%-16s %lld\n", "remaining", left > 0 ? (long long)left : 0);
}

static int
print_quota(const json_t *request, const json_t *result)
{
	(void)request;
	if (as_json)
		return 0;
	const json_t *messages = json_object_get(result, "messages");
	ctl_line("account", result, "account");
	ctl_line("class", result, "class");
	ctl_line("window", result, "window");
	printf("recipients\n");
	ctl_line("limit", result, "limit");
	ctl_line("used", result, "used");
	ctl_line("reserved", result, "reserved");
	print_remaining(result);
	ctl_line("next free", result, "reset");
	print_burst("burst", result, "recipients");
	if (json_is_true(json_object_get(result, "overridden"))) {
		ctl_line("configured", result, "class_limit");
		ctl_line("set", result, "override_set");
		ctl_line("by", result, "override_by");
		ctl_line("reason", result, "override_reason");
	}
	printf("messages\n");
	ctl_line("limit", messages, "limit");
	ctl_line("used", messages, "used");
	ctl_line("reserved", messages, "reserved");
	print_remaining(messages);
	ctl_line("next free", messages, "reset");
	print_burst("burst", result, "messages");
	ctl_line("paced until", result, "start");
	if (json_object_get(result, "reset_when")) {
		ctl_line("reset", result, "reset_when");
		ctl_line("by", result, "reset_by");
		ctl_line("reason", result, "reset_reason");
	}
	return 0;
}

static int
print_messages(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {{"id", "ID", 0},
	                                      {"lane", "LANE", 0},
	                                      {"accepted", "ACCEPTED", 0},
	                                      {"due", "DUE", 0},
	                                      {"attempts", "TRIES", 0},
	                                      {"unfinished", "LEFT", 0},
	                                      {"recipients", "OF", 0},
	                                      {"size", "SIZE", 0},
	                                      {"account", "ACCOUNT", 0},
	                                      {"last_reply", "LAST REPLY", 0},
	                                      {NULL, NULL, 0}};

	(void)request;
	if (!as_json)
		ctl_table(columns, json_object_get(result, "messages"));
	return 0;
}

static int
print_message(const json_t *request, const json_t *result)
{
	static const char *const fields[][2] = {{"id", "id"},
	                                        {"lane", "lane"},
	                                        {"account", "account"},
	                                        {"from", "from"},
	                                        {"accepted", "accepted"},
	                                        {"due", "due"},
	                                        {"size", "size"},
	                                        {"attempts", "attempts"},
	                                        {"client", "client_ip"},
	                                        {"client port", "client_port"},
	                                        {"ehlo", "ehlo"}};
	static struct ctl_column columns[] = {{"address", "RECIPIENT", 0}, {"state", "STATE", 0},
	                                      {"attempts", "TRIES", 0},    {"when", "LAST TRY", 0},
	                                      {"reply", "REPLY", 0},       {NULL, NULL, 0}};

	(void)request;
	if (as_json)
		return 0;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		ctl_line(fields[i][0], result, fields[i][1]);
	putchar('\n');
	ctl_table(columns, json_object_get(result, "rcpt"));
	return 0;
}

static int
print_audit(const json_t *request, const json_t *result)
{
	static const char *const fields[][2] = {{"accepted", "accepted"},
	                                        {"generated", "generated"},
	                                        {"delivered", "delivered"},
	                                        {"bounced", "bounced"},
	                                        {"expired", "expired"},
	                                        {"removed", "removed"},
	                                        {"queued", "queued"},
	                                        {"messages", "messages"},
	                                        {"bodies checked", "bodies_checked"},
	                                        {"bodies bad", "bodies_bad"},
	                                        {"orphans", "orphans"}};
	bool conserved = json_is_true(json_object_get(result, "conserved"));

	(void)request;
	for (size_t i = 0; !as_json && i < sizeof(fields) / sizeof(fields[0]); i++)
		ctl_line(fields[i][0], result, fields[i][1]);
	if (!as_json)
		puts(conserved ? "conserved: every accepted recipient is accounted for"
		               : "NOT CONSERVED");
	return conserved ? 0 : CTL_REFUSED;
}

static int
print_stopped(const json_t *request, const json_t *result)
{
	(void)request;
	(void)result;
	ctl_ask_await_end(PATIENCE_AUDIT);
	if (!as_json)
		puts("stopped");
	return 0;
}

/* Requests that take more than words */

static volatile sig_atomic_t interrupted;

static void
on_signal(int number)
{
	interrupted = number;
}

/* Reads up to the end of the line, octet by octet, so that no copy stays in a buffer of stdio. */
static size_t
read_line(char out[PASSWORD_MAX + 2])
{
	size_t len = 0;
	ssize_t n;
	char c;

	while ((n = read(STDIN_FILENO, &c, 1)) == 1 && c != '\n')
		if (len < PASSWORD_MAX + 1)
			out[len++] = c;
	if (n < 0 && interrupted == 0)
		ctl_die(CTL_USAGE, "cannot read the password: %s", strerror(errno));
	if (n == 0 && len == 0)
		ctl_die(CTL_USAGE, "no password on standard input");
	if (len > 0 && out[len - 1] == '\r')
		len--;
	out[len] = '\0';
	return len;
}

/* On a terminal asks, without echo, which comes back whatever ends the program. */
static size_t
read_password(char out[PASSWORD_MAX + 2], const char *prompt)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGTSTP};
	struct sigaction action = {.sa_handler = on_signal}, old_actions[5];
	struct termios old, quiet;
	size_t len;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &old) != 0)
		return read_line(out);
	for (size_t i = 0; i < 5; i++)
		sigaction(numbers[i], &action, &old_actions[i]);
	quiet = old;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	fputs(prompt, stderr);
	len = read_line(out);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
	fputc('\n', stderr);
	for (size_t i = 0; i < 5; i++)
		sigaction(numbers[i], &old_actions[i], NULL);
	if (interrupted != 0) {
		raise(interrupted);
		exit(CTL_USAGE);
	}
	return len;
}

static void
prepare_password(json_t *request)
{
	char password[PASSWORD_MAX + 2], again[PASSWORD_MAX + 2];
	size_t len = read_password(password, "Password: ");
	json_t *value;

	if (isatty(STDIN_FILENO)) {
		size_t again_len = read_password(again, "Again: ");
		bool same = len == again_len && memcmp(password, again, len) == 0;

		explicit_bzero(again, sizeof(again));
		if (!same)
			ctl_die(CTL_USAGE, "the two passwords differ");
	}
	if (len == 0)
		ctl_die(CTL_USAGE, "the password is empty");
	if (len > PASSWORD_MAX)
		ctl_die(CTL_USAGE, "the password is longer than %d octets", PASSWORD_MAX);
	if (memchr(password, '\0', len) != NULL)
		ctl_die(CTL_USAGE, "the password holds a NUL octet");
	value = json_stringn(password, len);
	explicit_bzero(password, sizeof(password));
	if (value == NULL)
		ctl_die(CTL_USAGE, "the password is no UTF-8 text");
	json_object_set_new(request, "password", value);
}

static void
prepare_kill(json_t *request)
{
	const char *text = json_string_value(json_object_get(request, "session"));
	long long n;
	char *end;

	if (text == NULL)
		return;
	errno = 0;
	n = strtoll(text, &end, 10);
	if (*end != '\0' || errno != 0 || n <= 0)
		ctl_usage("a session is a number; sekishoctl session list shows them");
	json_object_set_new(request, "session", json_integer((json_int_t)n));
}

/* "1000", "1000/day", or "default", which is a command of its own. */
static void
prepare_quota(json_t *request)
{
	const char *text = json_string_value(json_object_get(request, "limit"));
	unsigned long long n;
	char *end;

	if (strcmp(text, "default") == 0) {
		json_object_del(request, "limit");
		json_object_set_new(request, "command", json_string("quota.clear"));
		return;
	}
	errno = 0;
	n = strtoull(text, &end, 10);
	if (strcmp(end, "/day") == 0)
		end += 4;
	if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || n > UINT32_MAX)
		ctl_usage("the limit must be a number from 0 to 4294967295 such as 1000 or "
		          "1000/day, or default");
	json_object_set_new(request, "limit", json_integer((json_int_t)n));
}

static const struct command commands[] = {
    {"status",
     "",
     "processes, their sandbox layers, the queue",
     "status",
     {NULL},
     NULL,
     NULL,
     PATIENCE,
     NULL,
     print_status},
    {"account add",
     "NAME",
     "password from standard input, asked for on a terminal",
     "account.add",
     {"account"},
     NULL,
     NULL,
     PATIENCE,
     prepare_password,
     print_added},
    {"account passwd",
     "NAME",
     "another password, needed at once; open sessions go on",
     "account.passwd",
     {"account"},
     NULL,
     NULL,
     PATIENCE,
     prepare_password,
     print_accounts},
    {"account suspend",
     "NAME [--reason TEXT]",
     "no logins, and its sessions end; accepted mail is still delivered",
     "account.suspend",
     {"account"},
     "reason",
     NULL,
     PATIENCE,
     NULL,
     print_accounts},
    {"account resume",
     "NAME",
     "ends a suspension",
     "account.resume",
     {"account"},
     NULL,
     NULL,
     PATIENCE,
     NULL,
     print_accounts},
    {"account class",
     "NAME CLASS",
     "what it may send, as the configuration's classes say; in force at once",
     "account.class",
     {"account", "class"},
     NULL,
     NULL,
     PATIENCE,
     NULL,
     print_accounts},
    {"account remove",
     "NAME",
     "its logins fail at once; accepted mail is still delivered",
     "account.remove",
     {"account"},
     NULL,
     NULL,
     PATIENCE,
     NULL,
     print_removed},
    {"account show",
     "NAME",
     "class, state and times",
     "account.show",
     {"account"},
     NULL,
     NULL,
     PATIENCE,
     NULL,
     print_accounts},
    {"account list",
     "",
     "all accounts in order of name",
     "account.list",
     {NULL},
     NULL,
     "accounts",
     PATIENCE,
     NULL,
     print_accounts},
    {"quota show",
     "ACCOUNT",
     "recipients and messages of the day, and how fast",
     "quota.show",
     {"account"},
     NULL,
     NULL,
     PATIENCE,
     NULL,
     print_quota},
    {"quota set",
     "ACCOUNT N|default [--reason TEXT]",
     "a limit of its own, in force at once, or the configured one",
     "quota.set",
     {"account", "limit"},
     "reason",
     NULL,
     PATIENCE,
     prepare_quota,
     print_quota},
    {"quota reset",
     "ACCOUNT [--reason TEXT]",
     "what was sent so far does not count, on both meters and for the burst",
     "quota.reset",
     {"account"},
     "reason",
     NULL,
     PATIENCE,
     NULL,
     print_quota},
    {"queue list",
     "[--account ACCOUNT]",
     "messages that wait or are being sent",
     "queue.list",
     {NULL},
     "account",
     "messages",
     PATIENCE,
     NULL,
     print_messages},
    {"queue show",
     "ID",
     "one message: envelope and each recipient's fate",
     "queue.show",
     {"message"},
     NULL,
     NULL,
     PATIENCE,
     NULL,
     print_message},
    {"queue audit",
     "",
     "counts both sides of the books; exit 1 if they differ",
     "queue.audit",
     {NULL},
     NULL,
     NULL,
     PATIENCE_AUDIT,
     NULL,
     print_audit},
    {"session list",
     "[--account ACCOUNT]",
     "clients that are connected, the oldest first",
     "session.list",
     {NULL},
     "account",
     "sessions",
     PATIENCE,
     NULL,
     print_sessions},
    {"session kill",
     "NUMBER | --account ACCOUNT",
     "ends one session, or all of an account, with a reply that says so",
     "session.kill",
     {"session"},
     "account",
     NULL,
     PATIENCE,
     prepare_kill,
     print_killed,
     true},
    {"stop",
     "",
     "stops the whole service, and returns when all of it is down",
     "stop",
     {NULL},
     NULL,
     NULL,
     PATIENCE,
     NULL,
     print_stopped},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* The command line */

struct words {
	const char *word[WORDS_MAX];
	size_t count;
	const char *option, *value; /* "--option value", at most once */
};

/* The number of the command's own words when they stand first, else 0. */
static size_t
matches(const struct command *command, const struct words *words)
{
	char name[64];
	size_t n = 0, all = 1;

	for (const char *c = command->words; *c != '\0'; c++)
		all += *c == ' ';
	name[0] = '\0';
	for (; n < all && n < words->count; n++)
		snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s%.20s",
		         n > 0 ? " " : "", words->word[n]);
	return n == all && strcmp(name, command->words) == 0 ? n : 0;
}

static void
print_row(const struct command *command)
{
	int len = printf("  %s%s%s", command->words, *command->synopsis != '\0' ? " " : "",
	                 command->synopsis);

	printf("%*s%s\n", len < 48 ? 48 - len : 2, "", command->help);
}

/* All commands, or those that begin with the words given. */
static void
print_help(const struct words *words)
{
	bool some = false;

	fputs("usage: sekishoctl [-s SOCKET | --socket SOCKET] [--json] COMMAND\n\n", stdout);
	for (int all = 0; all < 2 && !some; all++)
		for (size_t i = 0; i < COMMANDS; i++) {
			const char *first = words->count > 0 ? words->word[0] : "";
			size_t len = strlen(first);
			bool group =
			    strncmp(commands[i].words, first, len) == 0 &&
			    (commands[i].words[len] == ' ' || commands[i].words[len] == '\0');

			if (all || (words->count == 1 && group) ||
			    matches(&commands[i], words) > 0) {
				print_row(&commands[i]);
				some = true;
			}
		}
	fputs("\n"
	      "  --json prints the result as one line of JSON. The socket is SOCKET, else\n"
	      "  $SEKISHO_SOCKET, else /run/sekisho/admin.sock, else ./run/admin.sock.\n"
	      "  Exit status: 0 done, 1 refused or not found, 2 service not reached, 64 wrong "
	      "usage.\n",
	      stdout);
}

/* The request that the words are, or the end of the program. */
static json_t *
make_request(const struct command *command, const struct words *words)
{
	json_t *request = json_pack("{s:s}", "command", command->command);
	size_t at = matches(command, words), n = 0;
	bool good = true;

	const bool instead = command->option_instead && words->option != NULL;

	for (; !instead && n < ARGUMENTS_MAX && command->arguments[n] != NULL; n++, at++) {
		json_t *value = at < words->count ? json_string(words->word[at]) : NULL;

		if (at < words->count && value == NULL)
			ctl_usage("the arguments are no UTF-8 text");
		if (value == NULL)
			good = false;
		json_object_set_new(request, command->arguments[n], value);
	}
	if (words->option != NULL) {
		json_t *value = json_string(words->value);

		if (command->option == NULL || strcmp(command->option, words->option) != 0)
			good = false;
		else if (value == NULL)
			ctl_usage("the arguments are no UTF-8 text");
		json_object_set_new(request, words->option, value);
	}
	if (!good || at != words->count)
		ctl_die(CTL_USAGE, "usage: sekishoctl %s%s%s", command->words,
		        *command->synopsis != '\0' ? " " : "", command->synopsis);
	if (command->prepare != NULL)
		command->prepare(request);
	return request;
}

/* Page by page; JSON comes as one document all the same. */
static int
run_pages(const struct command *command, json_t *request)
{
	bool more = true, first = true;

	while (more && !ferror(stdout)) {
		json_t *page = ctl_ask(json_deep_copy(request), command->patience);
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
		more = json_is_string(next) || json_is_integer(next);
		if (more)
			json_object_set(request, "after", next);
		json_decref(page);
	}
	if (as_json)
		puts("]}");
	return 0;
}

static int
run_command(const struct command *command, json_t *request)
{
	json_t *result;
	int status;

	if (command->pages != NULL)
		return run_pages(command, request);
	result = ctl_ask(json_copy(request), command->patience);
	json_object_del(request, "password");
	status = command->print(request, result);
	if (as_json) {
		ctl_json(result);
		putchar('\n');
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

/* An option of a command: "--reason TEXT" or "--reason=TEXT". */
static void
take_option(struct words *words, int argc, char **argv, int *i)
{
	static char complaint[80];
	const char *name = argv[*i] + 2;
	size_t len = strcspn(name, "=");

	snprintf(complaint, sizeof(complaint), "unknown option --%.*s", len < 32 ? (int)len : 32,
	         name);
	if (words->option != NULL)
		ctl_usage("too many options");
	for (size_t c = 0; c < COMMANDS; c++) {
		const char *option = commands[c].option;

		if (option != NULL && strlen(option) == len && strncmp(option, name, len) == 0)
			words->option = option;
	}
	if (words->option == NULL)
		ctl_usage(complaint);
	snprintf(complaint, sizeof(complaint), "--%s needs a text", words->option);
	words->value = name[len] == '=' ? name + len + 1 : take_value(argc, argv, i, complaint);
}

int
main(int argc, char **argv)
{
	struct words words = {.count = 0};
	const char *socket_path = NULL;
	const struct command *command = NULL;
	bool help = false, plain = false;
	json_t *request;
	int status;

	for (int i = 1; i < argc; i++) {
		if (plain || argv[i][0] != '-' || isdigit((unsigned char)argv[i][1])) {
			if (words.count == WORDS_MAX)
				ctl_usage("too many words");
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
	for (size_t i = 0; i < COMMANDS; i++)
		if (matches(&commands[i], &words) > 0)
			command = &commands[i];
	if (command == NULL)
		ctl_usage(words.count == 0 ? "usage: sekishoctl COMMAND" : "unknown command");
	request = make_request(command, &words);
	ctl_ask_init(socket_path, as_json);
	status = run_command(command, request);
	json_decref(request);
	ctl_print_done();
	return status;
}
