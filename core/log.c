#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/text.h"

/* A log reader that stalls must not stall mail. O_NONBLOCK belongs to the open file, which we share
 * with whoever started us, so setting it on descriptor 2 would change the shell's terminal or a
 * neighbour's pipe. Three ways out, in order: a socket (journald) takes MSG_DONTWAIT per call; a
 * pipe, terminal or file can be opened once more through /proc, which makes an open file of our
 * own; where that is refused, we ask poll(2) first and write only then.
 *
 * One line is one write of at most LOG_LINE_MAX octets, below PIPE_BUF, so lines of several threads
 * and processes never mix, and a pipe takes all of a line or nothing. What was dropped is counted;
 * the next line that fits is preceded by the count.
 *
 * A tap is a second reader, of whom the same holds. Its lock is held for one send that does not
 * wait. */

enum how { HOW_POLL, HOW_OWN, HOW_SEND };

static const char level_names[][6] = {"error", "warn", "info", "debug"};
static char program_name[32] = "sekisho";
static enum how how = HOW_POLL;
static int log_fd = 2;
static atomic_int threshold = LOG_LEVEL_INFO;
static atomic_uint_fast64_t dropped;
static atomic_uint_fast64_t dropped_told; /* of these, already mentioned in the log */
static pthread_mutex_t tap_lock = PTHREAD_MUTEX_INITIALIZER; /* of the next two */
static int tap_fd = -1;
static uint64_t tap_lost; /* packets since the last one that fit */

void
log_open(const char *program)
{
	struct stat st;
	int fd;

	snprintf(program_name, sizeof program_name, "%s", program);
	tzset(); /* reads the zone while files can still be opened */
	if (log_fd != 2)
		return; /* opened before: only the name is new */
	if (fstat(2, &st))
		return;
	if (S_ISSOCK(st.st_mode)) {
		fd = fcntl(2, F_DUPFD_CLOEXEC, 10);
		if (fd >= 0)
			log_fd = fd;
		how = HOW_SEND;
		return;
	}
	fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_APPEND | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return;
	log_fd =
	    fcntl(fd, F_DUPFD_CLOEXEC, 10); /* out of the way of descriptors with a fixed meaning */
	if (log_fd >= 0) {
		close(fd);
		how = HOW_OWN;
	} else {
		log_fd = 2;
		close(fd);
	}
}

void
log_set_level(enum log_level level)
{
	threshold = (int)level;
}

enum log_level
log_level_named(const char *name)
{
	for (int i = 0; i <= LOG_LEVEL_DEBUG; i++)
		if (strcmp(name, level_names[i]) == 0)
			return (enum log_level)i;
	return LOG_LEVEL_INFO;
}

const char *
log_level_name(enum log_level level)
{
	return level_names[level];
}

enum log_level
log_level(void)
{
	return (enum log_level)threshold;
}

/* 0 when stderr took the whole line. */
static int
write_line(const char *line, size_t len)
{
	const int saved = errno;
	ssize_t n;

	do {
		struct pollfd ready = {.fd = log_fd, .events = POLLOUT};

		if (how == HOW_SEND)
			n = send(log_fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		else if (how == HOW_OWN || (poll(&ready, 1, 0) == 1 && ready.revents & POLLOUT))
			n = write(log_fd, line, len);
		else
			break;
		if (n >= 0 || errno != EINTR) {
			errno = saved;
			return n == (ssize_t)len ? 0 : -1;
		}
	} while (1);
	errno = saved;
	return -1;
}

/* Copies text with everything that could forge or break a line escaped; returns the new length. */
static size_t
add_escaped(char *line, size_t len, size_t size, const char *text)
{
	while (*text) {
		const size_t n =
		    *text >= ' ' && *text <= '~' ? 1 : text_char(text, strnlen(text, 4));

		if (size - len < 5)
			break;
		if (n) {
			memcpy(line + len, text, n);
			len += n;
			text += n;
		} else {
			len += (size_t)snprintf(line + len, size - len, "\\x%02X",
			                        (unsigned char)*text++);
		}
	}
	return len;
}

static size_t
add_head(char *line, size_t size, enum log_level level)
{
	char stamp[CLOCK_RFC3339_SIZE];

	return (size_t)snprintf(line, size, "%s %s[%d] %s ", clock_rfc3339(clock_wall(), stamp),
	                        program_name, (int)getpid(), level_names[level]);
}

/* Says how many lines are missing, once per gap. */
static int
tell_dropped(void)
{
	uint_fast64_t told = dropped_told;
	const uint_fast64_t all = dropped;
	char line[256];
	size_t len;

	if (told >= all || !atomic_compare_exchange_strong(&dropped_told, &told, all))
		return 0;
	len = add_head(line, sizeof line, LOG_LEVEL_WARN);
	len += (size_t)snprintf(line + len, sizeof line - len, "- log_dropped lines=%llu\n",
	                        (unsigned long long)(all - told));
	if (write_line(line, len) == 0)
		return 0;
	atomic_fetch_sub(&dropped_told, all - told);
	return -1;
}

static void
tap_end(void)
{
	close(tap_fd);
	tap_fd = -1;
}

/* 0 when it took the packet, or is gone. */
static int
tap_send(const char *line, size_t len)
{
	if (send(tap_fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 0;
	if (errno == EAGAIN || errno == ENOBUFS)
		return -1;
	tap_end();
	return 0;
}

static void
tap_line(const char *line, size_t len)
{
	char told[256];

	pthread_mutex_lock(&tap_lock);
	if (tap_fd >= 0 && tap_lost > 0) {
		size_t head = add_head(told, sizeof told, LOG_LEVEL_WARN);

		head += (size_t)snprintf(told + head, sizeof told - head,
		                         "- log_dropped lines=%llu", (unsigned long long)tap_lost);
		if (tap_send(told, head) == 0)
			tap_lost = 0;
	}
	if (tap_fd >= 0 && (tap_lost > 0 || tap_send(line, len) != 0))
		tap_lost++;
	pthread_mutex_unlock(&tap_lock);
}

void
log_tap(int fd_take)
{
	pthread_mutex_lock(&tap_lock);
	if (tap_fd >= 0)
		tap_end();
	tap_fd = fd_take;
	tap_lost = 0;
	pthread_mutex_unlock(&tap_lock);
}

void
log_event(enum log_level level, const char *id, const char *event, const char *format, ...)
{
	const int saved = errno;
	char text[LOG_LINE_MAX], line[LOG_LINE_MAX];
	va_list args;
	size_t len;

	if ((int)level > threshold)
		return;
	va_start(args, format);
	if (vsnprintf(text, sizeof text, format, args) < 0)
		text[0] = '\0';
	va_end(args);

	len = add_head(line, sizeof line, level);
	len = add_escaped(line, len, sizeof line - 1, id && *id ? id : "-");
	len = add_escaped(line, len, sizeof line - 1, " ");
	len = add_escaped(line, len, sizeof line - 1, event);
	if (text[0]) {
		len = add_escaped(line, len, sizeof line - 1, " ");
		len = add_escaped(line, len, sizeof line - 1, text);
	}
	tap_line(line, len);
	line[len++] = '\n';
	if (tell_dropped() || write_line(line, len))
		atomic_fetch_add(&dropped, 1);
	errno = saved;
}

uint64_t
log_dropped(void)
{
	return dropped;
}
