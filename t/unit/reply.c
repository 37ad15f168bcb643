#include <stdio.h>
#include <string.h>

#include "smtp/reply.h"
#include "t/unit/tap.h"

static const struct {
	const char *name, *data;
	long taken;
	int code;
	const char *enhanced, *text;
} replies[] = {
    {"plain", "250 ok\r\n", 8, 250, "", "ok"},
    {"enhanced", "550 5.1.1 no such user\r\n", 24, 550, "5.1.1", "no such user"},
    {"multi-line", "250-a\r\n250 b\r\nrest", 14, 250, "", "a b"},
    {"multi-line enhanced", "550-5.7.1 a\r\n550 5.7.1 b\r\n", 26, 550, "5.7.1", "a b"},
    {"code alone", "354\r\n", 5, 354, "", ""},
    {"bare LF", "220 hi\n", 7, 220, "", "hi"},
    {"class differs from the code", "550 4.1.1 x\r\n", 13, 550, "", "4.1.1 x"},
    {"not quite enhanced", "250 2.0 x\r\n", 11, 250, "", "2.0 x"},
    {"8-bit and controls", "250 a\x01\xff\r\n", 9, 250, "", "a??"},
    {"partial", "250 ok", 0, 0, "", ""},
    {"partial multi-line", "250-ok\r\n25", 0, 0, "", ""},
    {"nothing", "", 0, 0, "", ""},
    {"codes differ", "250-a\r\n251 b\r\n", -1, 0, "", ""},
    {"no code", "hello\r\n", -1, 0, "", ""},
    {"code too low", "150 x\r\n", -1, 0, "", ""},
    {"code too high", "600 x\r\n", -1, 0, "", ""},
    {"no separator", "250x\r\n", -1, 0, "", ""},
    {"empty line", "\r\n", -1, 0, "", ""},
};

static void
on_line(void *arg, const char *text, size_t len)
{
	strncat(arg, text, len);
	strcat(arg, "|");
}

int
main(void)
{
	struct reply reply;
	char lines[100] = "";
	static uint8_t big[REPLY_LINE_MAX * 2 + 128 * 16];
	size_t len = 0;

	for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
		const char *data = replies[i].data;
		long n = reply_parse((const uint8_t *)data, strlen(data), &reply, NULL, NULL);
		ok(n == replies[i].taken &&
		       (n <= 0 || (reply.code == replies[i].code &&
		                   !strcmp(reply.enhanced, replies[i].enhanced) &&
		                   !strcmp(reply.text, replies[i].text))),
		   replies[i].name);
		bool good = true;
		for (long k = 0; k < n; k++)
			good &=
			    reply_parse((const uint8_t *)data, (size_t)k, &reply, NULL, NULL) == 0;
		ok(good, "every beginning of it is incomplete");
	}
	reply_parse((const uint8_t *)"250-x.example\r\n250-SIZE 5\r\n250 HELP\r\n", 37, &reply,
	            on_line, lines);
	ok(!strcmp(lines, "x.example|SIZE 5|HELP|"), "each line is shown");
	memset(big, 'a', sizeof big);
	memcpy(big, "250 ", 4);
	ok(reply_parse(big, REPLY_LINE_MAX - 1, &reply, NULL, NULL) == 0 &&
	       reply_parse(big, sizeof big, &reply, NULL, NULL) == -1,
	   "a line is bounded");
	memcpy(big + 1500, "\r\n", 2);
	ok(reply_parse(big, 1502, &reply, NULL, NULL) == 1502 &&
	       strlen(reply.text) == REPLY_TEXT_MAX - 1,
	   "text is cut");
	for (int i = 0; i <= REPLY_LINES_MAX; i++, len += 7)
		memcpy(big + len, "250-x\r\n", 7);
	ok(reply_parse(big, len, &reply, NULL, NULL) == -1, "lines are bounded");
	return tap_end();
}
