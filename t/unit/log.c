/* The tap: a second reader of the log's lines, who may be slow, or gone. */
#include "core/log.h"
#include "t/unit/tap.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char line[LOG_LINE_MAX + 1];

/* The next packet in line; false when there is none. */
static int
next(int fd)
{
	const ssize_t n = recv(fd, line, sizeof(line) - 1, MSG_DONTWAIT);

	line[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static void
tap(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		abort();
	log_tap(ends[1]);
}

int
main(void)
{
	char word[64];
	unsigned lost = 0, came = 0, sum = 0;
	int ends[2], again[2], null = open("/dev/null", O_WRONLY);

	dup2(null, 2);
	log_open("log-test");
	tap(ends);
	log_info("id", "event", "key=%s", "value\nwith a break");
	ok(next(ends[0]) && strstr(line, "] info id event key=value\\x0Awith a break") != NULL,
	   "a line arrives as on standard error");
	ok(line[0] != '\0' && line[strlen(line) - 1] != '\n', "without its end");
	ok(!strcmp(log_word("\"x ip=1\"@d", word, sizeof(word)), "\\x22x\\x20ip=1\\x22@d"),
	   "what a stranger chose is one word");
	ok(!strcmp(log_word("abc def", word, 7), "abc"), "cut in front of what does not fit");
	ok(!strcmp(log_text("no\" fate=x", word, sizeof(word)), "no' fate=x"),
	   "or has no end between its marks");
	log_info("id", "event", "to=<%s> text=\"%s\"", "j\xc3\xb6rg@x.example",
	         "\x1b[2J \xc2\x9b"
	         "2J \xe2\x80\xae \xff \xe9\x96");
	ok(next(ends[0]) && strstr(line, "to=<j\xc3\xb6rg@x.example> text=\"\\x1B[2J \\xC2\\x9B2J "
	                                 "\\xE2\\x80\\xAE \\xFF \\xE9\\x96\"") != NULL,
	   "UTF-8 can be read, and nothing else reaches a terminal");
	log_debug("-", "unseen", "%s", "");
	ok(!next(ends[0]), "below the level there is none");
	log_set_level(log_level_named("debug"));
	log_debug("-", "seen", "%s", "");
	ok(next(ends[0]), "until the level changes");

	/* The reader stalls: 20000 lines are more than any socket holds. */
	for (unsigned i = 0; i < 20000; i++)
		log_info("-", "many", "i=%u", i);
	while (next(ends[0]))
		came++;
	log_info("-", "after", "%s", "");
	ok(next(ends[0]) && sscanf(strstr(line, "lines="), "lines=%u", &lost) == 1,
	   "what a slow reader has lost is told");
	sum = came + lost;
	ok(sum == 20000, "with the right number");
	ok(next(ends[0]) && strstr(line, " after") != NULL, "before the next line");

	tap(again);
	ok(recv(ends[0], line, sizeof(line), 0) == 0, "another tap ends the one before");
	close(again[0]);
	log_info("-", "gone", "%s", "");
	ok(fcntl(again[1], F_GETFD) == -1, "a reader that is gone costs no descriptor");
	log_info("-", "alone", "%s", "");
	log_tap(-1);
	return tap_end();
}
