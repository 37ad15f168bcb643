#include "admin/ctl.h"

/* account: results for people, and passwords, which never stand on a command line. */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

#define PASSWORD_MAX 256 /* octets, as sekisho-auth takes them */

void
ctl_accounts_print(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {
	    {.key = "account", .head = "ACCOUNT"},
	    {.key = "class", .head = "CLASS"},
	    {.key = "state", .head = "STATE"},
	    {.key = "created", .head = "CREATED"},
	    {.key = "changed", .head = "CHANGED"},
	    {.key = "reason", .head = "REASON"},
	    {.key = NULL},
	};

	(void)request;
	ctl_table(columns, json_object_get(result, "accounts"));
}

void
ctl_account_print_added(const json_t *request, const json_t *result)
{
	(void)request;
	printf("added %s\n",
	       ctl_show(json_array_get(json_object_get(result, "accounts"), 0), "account"));
}

void
ctl_account_print_removed(const json_t *request, const json_t *result)
{
	(void)result;
	printf("removed %s\n", ctl_show(request, "account"));
}

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

void
ctl_password_prepare(json_t *request)
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
