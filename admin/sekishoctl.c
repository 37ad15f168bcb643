/* sekishoctl: what the NOC types. */
#include <jansson.h>

/* One connection, one or several requests (lists come in pages), one table. Words on the command
 * line become a request; a printer for each command turns the result into text for people, or
 * --json prints the result as it is.
 *
 * Exit status: 0 done, 1 refused or not found (and an audit that does not add up), 2 the service
 * cannot be reached, 64 wrong usage. What the service says may quote strangers, so control
 * characters are never printed raw. */

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#define EXIT_REFUSED     1
#define EXIT_UNREACHABLE 2
#define EXIT_USAGE       64
#define REPLY_TIMEOUT    90 /* s */
#define REPLY_MAX        (16u * 1024 * 1024)
#define WORDS_MAX        8
#define PASSWORD_SIZE    260

static const char help[] =
    "usage: sekishoctl [-s SOCKET | --socket SOCKET] [--json] COMMAND\n"
    "\n"
    "  status                                  processes, their sandbox layers, the queue\n"
    "  account add NAME                        password from standard input, asked for on a "
    "terminal\n"
    "  account remove NAME                     its logins fail at once; accepted mail is still "
    "delivered\n"
    "  account show NAME\n"
    "  account list\n"
    "  quota show ACCOUNT                      recipients in the last 24 hours\n"
    "  quota set ACCOUNT N [--reason TEXT]     a limit of its own, in force at once\n"
    "  quota set ACCOUNT default               back to the configuration's limit\n"
    "  queue list [--account ACCOUNT]          messages that wait or are being sent\n"
    "  queue show ID                           one message: envelope and each recipient's fate\n"
    "  queue audit                             counts both sides of the books; exit 1 if they "
    "differ\n"
    "  stop                                    stops the whole service gracefully\n"
    "\n"
    "  --json prints the result as JSON. The socket is SOCKET, else $SEKISHO_SOCKET, else\n"
    "  /run/sekisho/admin.sock, else ./run/admin.sock.\n"
    "  Exit status: 0 done, 1 refused or not found, 2 service not reached, 64 wrong usage.\n";

static bool as_json;
static const char *socket_path;
static int fd = -1;
static json_t *results; /* every result asked for; they live until the program ends */

static void __attribute__((format(printf, 2, 3), noreturn)) die(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("sekishoctl: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(status);
}

static void __attribute__((noreturn)) usage(const char *why)
{
	die(EXIT_USAGE, "%s; sekishoctl --help lists the commands", why);
}

/* Talking */

static int
try_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = REPLY_TIMEOUT};
	int made;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (made >= 0 && connect(made, (struct sockaddr *)&address, sizeof(address)) != 0) {
		int saved = errno;

		close(made);
		errno = saved;
		return -1;
	}
	if (made >= 0) {
		setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
		setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	}
	return made;
}

static void
reach(void)
{
	static const char *const places[] = {"/run/sekisho/admin.sock", "./run/admin.sock"};
	const char *path = socket_path != NULL ? socket_path : getenv("SEKISHO_SOCKET");

	if (path != NULL && *path != '\0') {
		fd = try_connect(path);
	} else {
		for (size_t i = 0; fd < 0 && i < 2; i++) {
			path = places[i];
			fd = try_connect(path);
			if (fd < 0 && errno != ENOENT && errno != ECONNREFUSED)
				break;
		}
	}
	if (fd < 0)
		die(EXIT_UNREACHABLE, "cannot reach the service at %s: %s; %s", path,
		    strerror(errno),
		    errno == EACCES || errno == EPERM
		        ? "become root or a member of the socket's group"
		        : "is sekishod running, and is this the admin.socket of its configuration? "
		          "-s SOCKET names another");
}

static json_t *
keep(json_t *result)
{
	if (results == NULL)
		results = json_array();
	json_array_append_new(results, result);
	return result;
}

/* Sends a request (taken) and returns its result, which lives until the program ends; does not
 * return on a refusal. */
static json_t *
ask(json_t *request)
{
	static char *line; /* static: die() leaves it behind */
	char *reply = NULL;
	size_t len, at = 0, size = 0;
	json_t *answer, *result, *error;

	line = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (line == NULL)
		usage("the arguments are no UTF-8 text");
	if (fd < 0)
		reach();
	len = strlen(line);
	line[len++] = '\n';
	while (at < len) {
		ssize_t n = send(fd, line + at, len - at, MSG_NOSIGNAL);

		if (n <= 0)
			die(EXIT_UNREACHABLE, "the service hung up: %s", strerror(errno));
		at += (size_t)n;
	}
	explicit_bzero(line, len);
	free(line);
	for (at = 0; at == 0 || reply[at - 1] != '\n';) {
		ssize_t n;

		if (at == size) {
			size = size == 0 ? 65536 : size * 2;
			if (size > REPLY_MAX || (reply = realloc(reply, size)) == NULL)
				die(EXIT_UNREACHABLE, "the answer is too long");
		}
		n = recv(fd, reply + at, size - at, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die(EXIT_UNREACHABLE, "no answer from the service: %s",
			    n == 0 ? "it hung up; its log says why" : strerror(errno));
		at += (size_t)n;
	}
	answer = json_loadb(reply, at, 0, NULL);
	free(reply);
	if (!json_is_object(answer))
		die(EXIT_UNREACHABLE, "the service's answer is no JSON");
	if (!json_is_true(json_object_get(answer, "ok"))) {
		const char *code, *words;

		error = json_object_get(answer, "error");
		code = json_string_value(json_object_get(error, "code"));
		words = json_string_value(json_object_get(error, "text"));
		if (as_json) {
			json_dumpf(error, stdout, JSON_INDENT(2));
			putchar('\n');
		}
		die(code != NULL && strcmp(code, "unavailable") == 0 ? EXIT_UNREACHABLE
		                                                     : EXIT_REFUSED,
		    "%s", words != NULL ? words : "refused");
	}
	result = keep(json_incref(json_object_get(answer, "result")));
	json_decref(answer);
	return result;
}

/* Printing */

/* The value as text, "-" for nothing; in one of a few static buffers. */
static const char *
show(const json_t *object, const char *key)
{
	static char buffers[16][512];
	static unsigned turn;
	const json_t *value = json_object_get(object, key);
	char *out = buffers[turn++ % 16];

	if (json_is_integer(value))
		snprintf(out, 512, "%lld", (long long)json_integer_value(value));
	else if (json_is_boolean(value))
		strcpy(out, json_is_true(value) ? "yes" : "no");
	else if (json_is_string(value) && json_string_length(value) > 0)
		snprintf(out, 512, "%s", json_string_value(value));
	else
		strcpy(out, "-");
	for (char *c = out; *c != '\0'; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	return out;
}

/* A table of the objects in rows; keys are the fields, heads their titles, both ended by NULL. */
static void
table(const json_t *rows, const char *const *keys, const char *const *heads)
{
	size_t width[16], index, n = 0;
	const json_t *row;

	for (; keys[n] != NULL; n++) {
		width[n] = strlen(heads[n]);
		json_array_foreach(rows, index, row)
		{
			size_t len = strlen(show(row, keys[n]));

			if (len > width[n])
				width[n] = len;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (i + 1 < n)
			printf("%-*s  ", (int)width[i], heads[i]);
		else
			printf("%s\n", heads[i]);
	}
	json_array_foreach(rows, index, row)
	{
		for (size_t i = 0; i < n; i++) {
			if (i + 1 < n)
				printf("%-*s  ", (int)width[i], show(row, keys[i]));
			else
				printf("%s\n", show(row, keys[i]));
		}
	}
}

static void
line(const char *title, const json_t *object, const char *key)
{
	printf("%-16s %s\n", title, show(object, key));
}

/* Prints as JSON when that was asked for. */
static bool
print_json(const json_t *result)
{
	if (!as_json)
		return false;
	json_dumpf(result, stdout, JSON_INDENT(2));
	putchar('\n');
	return true;
}

/* Asks page by page and joins the arrays called name. */
static json_t *
ask_all(json_t *request, const char *name)
{
	json_t *all = json_array();
	const json_t *next = NULL;

	do {
		json_t *page;

		if (next != NULL)
			json_object_set_new(request, "after", json_string(json_string_value(next)));
		page = ask(json_deep_copy(request));
		json_array_extend(all, json_object_get(page, name));
		next = json_object_get(page, "next");
	} while (json_is_string(next));
	json_decref(request);
	return keep(json_pack("{s:o}", name, all));
}

/* Commands */

static int
do_status(void)
{
	static const char *const keys[] = {"role",     "index",  "pid", "since",
	                                   "restarts", "layers", NULL};
	static const char *const heads[] = {"PROCESS",  "NO",     "PID", "SINCE",
	                                    "RESTARTS", "LAYERS", NULL};
	json_t *result = ask(json_pack("{s:s}", "command", "status"));
	const json_t *queue = json_object_get(result, "queue"), *lane;
	const char *name;

	if (print_json(result))
		return 0;
	table(json_object_get(result, "processes"), keys, heads);
	putchar('\n');
	if (!json_is_object(queue)) {
		puts("the queue does not answer");
		return 0;
	}
	json_object_foreach(json_object_get(queue, "lanes"), name, lane)
	{
		printf("%-16s %s messages, %s recipients\n", name, show(lane, "messages"),
		       show(lane, "recipients"));
	}
	line("in flight", queue, "in_flight");
	line("oldest", queue, "oldest");
	line("accepted", queue, "accepted");
	line("generated", queue, "generated");
	line("delivered", queue, "delivered");
	line("bounced", queue, "bounced");
	line("expired", queue, "expired");
	line("removed", queue, "removed");
	if (json_is_true(json_object_get(queue, "refusing")))
		printf("%-16s %s\n", "REFUSING MAIL", show(queue, "refusing_why"));
	if (json_is_true(json_object_get(queue, "ledger_held")))
		printf("%-16s the clock jumped forward; quotas free nothing until it has stayed "
		       "(ledger %s)\n",
		       "LEDGER HELD", show(queue, "ledger_time"));
	return 0;
}

static void
read_line(char *out, const char *prompt)
{
	struct termios old, quiet;
	bool tty = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &old) == 0;
	size_t len = 0;
	ssize_t n;
	char c;

	if (tty) {
		quiet = old;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
		fputs(prompt, stderr);
	}
	/* Octet by octet, so that no copy stays in a buffer of stdio. */
	while ((n = read(STDIN_FILENO, &c, 1)) == 1 && c != '\n')
		if (len < PASSWORD_SIZE - 1)
			out[len++] = c;
	out[len] = '\0';
	if (tty) {
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
		fputc('\n', stderr);
	}
	if (len > 0 && out[len - 1] == '\r')
		out[--len] = '\0';
	if (n <= 0 && len == 0)
		die(EXIT_USAGE, "no password on standard input");
	if (strlen(out) != len)
		die(EXIT_USAGE, "the password holds a NUL octet");
}

static int
account_add(const char *name)
{
	char password[PASSWORD_SIZE], again[PASSWORD_SIZE];
	json_t *request, *result;

	read_line(password, "Password: ");
	if (isatty(STDIN_FILENO)) {
		read_line(again, "Again: ");
		if (strcmp(password, again) != 0)
			die(EXIT_USAGE, "the two passwords differ");
		explicit_bzero(again, sizeof(again));
	}
	request = json_pack("{s:s,s:s,s:s}", "command", "account.add", "account", name, "password",
	                    password);
	explicit_bzero(password, sizeof(password));
	if (request == NULL)
		usage("name and password must be UTF-8 text");
	result = ask(request);
	if (!print_json(result))
		printf("added %s\n",
		       show(json_array_get(json_object_get(result, "accounts"), 0), "account"));
	return 0;
}

static int
do_account(int argc, char **argv)
{
	static const char *const keys[] = {"account", "class", "state", "created", "changed", NULL};
	static const char *const heads[] = {"ACCOUNT", "CLASS",   "STATE",
	                                    "CREATED", "CHANGED", NULL};
	json_t *result;

	if (argc == 1 && strcmp(argv[0], "list") == 0) {
		result = ask_all(json_pack("{s:s}", "command", "account.list"), "accounts");
		if (!print_json(result))
			table(json_object_get(result, "accounts"), keys, heads);
		return 0;
	}
	if (argc != 2)
		usage("account add|remove|show NAME, or account list");
	if (strcmp(argv[0], "add") == 0)
		return account_add(argv[1]);
	if (strcmp(argv[0], "remove") == 0) {
		result =
		    ask(json_pack("{s:s,s:s}", "command", "account.remove", "account", argv[1]));
		if (!print_json(result))
			printf("removed %s\n", argv[1]);
		return 0;
	}
	if (strcmp(argv[0], "show") == 0) {
		result = ask(json_pack("{s:s,s:s}", "command", "account.show", "account", argv[1]));
		if (!print_json(result))
			table(json_object_get(result, "accounts"), keys, heads);
		return 0;
	}
	usage("account add|remove|show NAME, or account list");
}

static int
do_quota(int argc, char **argv)
{
	json_t *request, *result;
	char *end;

	if (argc == 2 && strcmp(argv[0], "show") == 0) {
		request = json_pack("{s:s,s:s}", "command", "quota.show", "account", argv[1]);
	} else if (argc == 3 && strcmp(argv[0], "set") == 0 && strcmp(argv[2], "default") == 0) {
		request = json_pack("{s:s,s:s}", "command", "quota.clear", "account", argv[1]);
	} else if ((argc == 3 || (argc == 5 && strcmp(argv[3], "--reason") == 0)) &&
	           strcmp(argv[0], "set") == 0) {
		unsigned long long n = strtoull(argv[2], &end, 10);

		if (strcmp(end, "/day") == 0)
			end += 4;
		if (argv[2][0] < '0' || argv[2][0] > '9' || *end != '\0' || n > UINT32_MAX)
			usage("the limit must be a number from 0 to 4294967295 such as 1000 or "
			      "1000/day, or "
			      "default");
		request = json_pack("{s:s,s:s,s:I}", "command", "quota.set", "account", argv[1],
		                    "limit", (json_int_t)n);
		if (argc == 5)
			json_object_set_new(request, "reason", json_string(argv[4]));
	} else {
		usage("quota show ACCOUNT, quota set ACCOUNT N [--reason TEXT], or quota set "
		      "ACCOUNT default");
	}
	result = ask(request);
	if (print_json(result))
		return 0;
	line("account", result, "account");
	line("limit", result, "limit");
	line("used", result, "used");
	line("reserved", result, "reserved");
	line("next free", result, "reset");
	if (json_is_true(json_object_get(result, "overridden"))) {
		line("configured", result, "class_limit");
		line("set", result, "override_set");
		line("by", result, "override_by");
		line("reason", result, "override_reason");
	}
	return 0;
}

static int
queue_list(const char *account)
{
	static const char *const keys[] = {"id",       "lane",       "accepted",   "due",
	                                   "attempts", "unfinished", "recipients", "size",
	                                   "account",  "last_reply", NULL};
	static const char *const heads[] = {"ID", "LANE", "ACCEPTED", "DUE",        "TRIES", "LEFT",
	                                    "OF", "SIZE", "ACCOUNT",  "LAST REPLY", NULL};
	json_t *request = json_pack("{s:s}", "command", "queue.list"), *result;

	if (account != NULL)
		json_object_set_new(request, "account", json_string(account));
	result = ask_all(request, "messages");
	if (!print_json(result))
		table(json_object_get(result, "messages"), keys, heads);
	return 0;
}

static int
queue_show(const char *id)
{
	static const char *const keys[] = {"address", "state", "attempts", "when", "reply", NULL};
	static const char *const heads[] = {"RECIPIENT", "STATE", "TRIES",
	                                    "LAST TRY",  "REPLY", NULL};
	json_t *result = ask(json_pack("{s:s,s:s}", "command", "queue.show", "message", id));

	if (print_json(result))
		return 0;
	line("id", result, "id");
	line("lane", result, "lane");
	line("account", result, "account");
	line("from", result, "from");
	line("accepted", result, "accepted");
	line("due", result, "due");
	line("size", result, "size");
	line("attempts", result, "attempts");
	line("client", result, "client_ip");
	line("client port", result, "client_port");
	line("ehlo", result, "ehlo");
	putchar('\n');
	table(json_object_get(result, "rcpt"), keys, heads);
	return 0;
}

static int
queue_audit(void)
{
	json_t *result = ask(json_pack("{s:s}", "command", "queue.audit"));
	bool conserved = json_is_true(json_object_get(result, "conserved"));

	if (!print_json(result)) {
		line("accepted", result, "accepted");
		line("generated", result, "generated");
		line("delivered", result, "delivered");
		line("bounced", result, "bounced");
		line("expired", result, "expired");
		line("removed", result, "removed");
		line("queued", result, "queued");
		line("messages", result, "messages");
		line("bodies checked", result, "bodies_checked");
		line("bodies bad", result, "bodies_bad");
		line("orphans", result, "orphans");
		puts(conserved ? "conserved: every accepted recipient is accounted for"
		               : "NOT CONSERVED");
	}
	return conserved ? 0 : EXIT_REFUSED;
}

static int
do_queue(int argc, char **argv)
{
	if (argc == 1 && strcmp(argv[0], "list") == 0)
		return queue_list(NULL);
	if (argc == 3 && strcmp(argv[0], "list") == 0 && strcmp(argv[1], "--account") == 0)
		return queue_list(argv[2]);
	if (argc == 2 && strcmp(argv[0], "show") == 0)
		return queue_show(argv[1]);
	if (argc == 1 && strcmp(argv[0], "audit") == 0)
		return queue_audit();
	usage("queue list [--account ACCOUNT], queue show ID, or queue audit");
}

static int
do_stop(void)
{
	json_t *result = ask(json_pack("{s:s}", "command", "stop"));

	if (!print_json(result))
		puts("stopping");
	return 0;
}

int
main(int argc, char **argv)
{
	char *words[WORDS_MAX + 2];
	int count = 0;

	for (int i = 1; i < argc; i++) {
		if (count >= WORDS_MAX)
			usage("too many words");
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(help, stdout);
			return 0;
		}
		if (strcmp(argv[i], "--json") == 0)
			as_json = true;
		else if (strcmp(argv[i], "-s") == 0 || strcmp(argv[i], "--socket") == 0) {
			if (++i == argc)
				usage("--socket needs a path");
			socket_path = argv[i];
		} else if (strncmp(argv[i], "--socket=", 9) == 0)
			socket_path = argv[i] + 9;
		else if (strcmp(argv[i], "--reason") == 0 && i + 1 < argc) {
			/* Its text may look like an option. */
			words[count++] = argv[i++];
			words[count++] = argv[i];
		} else
			words[count++] = argv[i];
	}
	if (count == 0) {
		fputs(help, stderr);
		return EXIT_USAGE;
	}
	if (strcmp(words[0], "status") == 0 && count == 1)
		return do_status();
	if (strcmp(words[0], "account") == 0 && count > 1)
		return do_account(count - 1, words + 1);
	if (strcmp(words[0], "quota") == 0 && count > 1)
		return do_quota(count - 1, words + 1);
	if (strcmp(words[0], "queue") == 0 && count > 1)
		return do_queue(count - 1, words + 1);
	if (strcmp(words[0], "stop") == 0 && count == 1)
		return do_stop();
	usage("unknown command");
}
