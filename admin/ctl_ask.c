#include "admin/ctl_ask.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/ctl.h"
#include "admin/ctl_print.h"
#include "admin/protocol.h"
#include "core/buf.h"
#include "core/clock.h"

#define REPLY_MAX      (16u * 1024 * 1024)
#define READ_SIZE      65536
#define PROGRESS_AFTER 2000 /* msec */
#define PROGRESS_EVERY 500  /* msec */

static const char *place; /* where the service is, or should be */
static int fd = -1;

void
ctl_die(int status, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	va_start(args, format);
	fputs("sekishoctl: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	/* Whatever callers still hold ends with us; a checker of leaks need not look. */
	_exit(status);
}

void
ctl_usage(const char *why)
{
	ctl_die(CTL_USAGE, "%s; sekishoctl --help lists the commands", why);
}

void
ctl_ask_init(const char *socket_path)
{
	place = socket_path != NULL ? socket_path : getenv("SEKISHO_SOCKET");
	if (place != NULL && *place == '\0')
		place = NULL;
}

static void
set_patience(int socket_fd, int patience)
{
	struct timeval timeout = {.tv_sec = patience};

	setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(socket_fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
}

static int
try_connect(const char *path, int patience)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int made;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (made < 0)
		return -1;
	/* Before connect: with the backlog full it waits for somebody to accept. */
	set_patience(made, patience);
	if (connect(made, (struct sockaddr *)&address, sizeof(address)) != 0) {
		int saved = errno;

		close(made);
		errno = saved;
		return -1;
	}
	return made;
}

static const char *
advice(int error)
{
	if (error == EACCES || error == EPERM)
		return "its mode keeps you out; become root, or loosen admin.mode";
	if (error == EAGAIN)
		return "it does not accept connections; is sekisho-admin stopped or hung?";
	return "is sekishod running, and is this the admin.socket of its configuration? -s SOCKET "
	       "names another";
}

static void
reach(int patience)
{
	static const char *const places[] = {"/run/sekisho/admin.sock", "./run/admin.sock"};

	if (place != NULL) {
		fd = try_connect(place, patience);
	} else {
		for (size_t i = 0; fd < 0 && i < 2; i++) {
			place = places[i];
			fd = try_connect(place, patience);
			if (fd < 0 && errno != ENOENT && errno != ECONNREFUSED)
				break;
		}
	}
	if (fd < 0)
		ctl_die(errno == EACCES ? CTL_DENIED : CTL_UNAVAILABLE,
		        "cannot reach the service at %s: %s; %s", place, strerror(errno),
		        advice(errno));
}

static void __attribute__((noreturn)) no_answer(int patience)
{
	if (errno == EAGAIN)
		ctl_die(CTL_UNAVAILABLE,
		        "no answer from %s within %d s; is sekisho-admin stopped or hung? The log "
		        "and ps tell",
		        place, patience);
	ctl_die(CTL_UNAVAILABLE, "the connection to %s broke: %s; the log says why", place,
	        strerror(errno));
}

static void
send_line(const char *line, size_t len, int patience)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = send(fd, line + at, len - at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		/* Who was turned away finds the reason waiting. */
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return;
		if (n < 0)
			no_answer(patience);
		at += (size_t)n;
	}
}

/* Waits until there is something to read, and says so on a terminal when it takes long. Patience
 * over: -1, and errno is EAGAIN. */
static int
await(int patience)
{
	const msec_t start = clock_mono();
	const bool tell = isatty(STDERR_FILENO);
	bool told = false;
	int ready;

	do {
		struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
		const msec_t waited = clock_mono() - start;

		if (tell && waited >= PROGRESS_AFTER) {
			fprintf(stderr, "\rwaiting for an answer, %lld s of at most %d s ",
			        (long long)waited / 1000, patience);
			told = true;
		}
		if (waited >= patience * 1000) {
			ready = -1;
			errno = EAGAIN;
			break;
		}
		ready = poll(&poll_fd, 1, PROGRESS_EVERY);
	} while (ready == 0 || (ready < 0 && errno == EINTR));
	if (told)
		fputs("\r\033[K", stderr);
	return ready;
}

/* For as long as it takes; the end when nobody reads our output any more ("| head"). */
static void
await_more(void)
{
	struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDOUT_FILENO}};

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	if ((fds[1].revents & (POLLERR | POLLHUP)) != 0)
		_exit(0);
}

/* What has come beyond the line that was asked for. */
static struct buf input;

/* The next line, without its end, in *line until the next call; false at the connection's end. A
 * patience of 0 waits for as long as it takes. */
static bool
receive_line(const char **line, size_t *len, int patience)
{
	static size_t used;
	const uint8_t *end = NULL;

	buf_consume(&input, used);
	used = 0;
	while (input.len == 0 || (end = memchr(input.data, '\n', input.len)) == NULL) {
		ssize_t n;

		if (input.len > REPLY_MAX)
			ctl_die(CTL_UNAVAILABLE, "the answer is too long");
		if (patience == 0)
			await_more();
		else if (await(patience) < 0)
			no_answer(patience);
		n = recv(fd, buf_reserve(&input, READ_SIZE), READ_SIZE, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			return false;
		if (n < 0)
			no_answer(patience);
		buf_commit(&input, (size_t)n);
	}
	*line = (const char *)input.data;
	*len = (size_t)(end - input.data);
	used = *len + 1;
	return true;
}

static void __attribute__((noreturn)) refused(const json_t *answer)
{
	const json_t *error = json_object_get(answer, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *words = json_string_value(json_object_get(error, "text"));
	int status = CTL_REFUSED;
	const json_t *mistake;
	size_t index;

	if (code == NULL)
		code = "";
	if (ctl_wants_json() && error != NULL) {
		json_dumpf(error, stdout, JSON_COMPACT);
		putchar('\n');
	}
	json_array_foreach(json_object_get(error, "mistakes"), index, mistake)
	{
		fprintf(stderr, "%s\n", ctl_harmless_line(json_string_value(mistake)));
	}
	if (strcmp(code, "denied") == 0)
		status = CTL_DENIED;
	else if (strcmp(code, "unavailable") == 0 || strcmp(code, "busy") == 0)
		status = CTL_UNAVAILABLE;
	else if (strcmp(code, "usage") == 0 || strcmp(code, "version") == 0)
		status = CTL_USAGE;
	ctl_die(status, "%s", words != NULL ? words : "refused");
}

static bool
is_missing(const json_t *answer)
{
	const char *code =
	    json_string_value(json_object_get(json_object_get(answer, "error"), "code"));

	return code != NULL && strcmp(code, "not-found") == 0;
}

static json_t *
ask(json_t *request, int patience, bool may_miss)
{
	char *line;
	const char *reply;
	json_t *answer, *result;
	size_t len;

	if (fd < 0)
		reach(patience);
	json_object_set_new(request, "version", json_integer(PROTOCOL_VERSION));
	line = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (line == NULL)
		ctl_usage("the arguments are no UTF-8 text");
	set_patience(fd, patience);
	len = strlen(line);
	line[len++] = '\n';
	send_line(line, len, patience);
	explicit_bzero(line, len); /* it may hold a password */
	free(line);
	if (!receive_line(&reply, &len, patience))
		ctl_die(CTL_UNAVAILABLE,
		        "no answer from the service: it hung up; its log says why");
	answer = json_loadb(reply, len, 0, NULL);
	if (!json_is_object(answer))
		ctl_die(CTL_UNAVAILABLE, "the service's answer is no JSON");
	if (may_miss && is_missing(answer)) {
		json_decref(answer);
		return NULL;
	}
	if (!json_is_true(json_object_get(answer, "ok")))
		refused(answer);
	result = json_incref(json_object_get(answer, "result"));
	json_decref(answer);
	return result;
}

json_t *
ctl_ask(json_t *request, int patience)
{
	return ask(request, patience, false);
}

json_t *
ctl_ask_known(json_t *request, int patience)
{
	return ask(request, patience, true);
}

json_t *
ctl_ask_next(void)
{
	const char *line;
	json_t *next;
	size_t len;

	set_patience(fd, 0);
	if (!receive_line(&line, &len, 0))
		return NULL;
	next = json_loadb(line, len, 0, NULL);
	if (next == NULL)
		ctl_die(CTL_UNAVAILABLE, "the service's answer is no JSON");
	return next;
}

/* sekishod holds the listening socket until the last of its processes is gone. A connection it
 * never accepts ends with it; so every attempt either waits for that, or finds nobody. */
void
ctl_ask_await_end(int patience)
{
	char octet;
	ssize_t n;

	do {
		n = recv(fd, &octet, 1, 0);
		if (n < 0 && errno == EAGAIN)
			ctl_die(CTL_UNAVAILABLE,
			        "the service was asked to stop and still runs after %d s; the log "
			        "says who is late",
			        patience);
		close(fd);
	} while ((fd = try_connect(place, patience)) >= 0);
}
