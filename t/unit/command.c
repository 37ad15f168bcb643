#include <stdio.h>
#include <string.h>

#include "smtp/command.h"

static int count, failures;

static void
ok(bool good, const char *name)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++count, name);
	failures += !good;
}

static const struct {
	const char *args;
	enum command_error error;
	uint64_t size;
	bool body_8bit;
} mails[] = {
    {"FROM:<a@x.example>", COMMAND_OK, 0, false},
    {"from: <a@x.example>", COMMAND_OK, 0, false},
    {"FROM:<>", COMMAND_OK, 0, false},
    {"FROM:<a@x.example> SIZE=1000 BODY=8bitmime AUTH=<>", COMMAND_OK, 1000, true},
    {"FROM:<a@x.example>  body=7BIT", COMMAND_OK, 0, false},
    {"FROM:<a@x.example> SIZE=18446744073709551615", COMMAND_OK, UINT64_MAX, false},
    {"FROM:<a@x.example> SIZE=99999999999999999999", COMMAND_OK, UINT64_MAX, false},
    {"FROM:<a@x.example> SIZE=", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> SIZE=-1", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> SIZE=1 SIZE=2", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> BODY=7BIT BODY=7BIT", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> BODY=BINARYMIME", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> BODY", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> BODY=", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> BODY=8BITMIME=", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> BODY=8BITMIMEX", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> SIZE", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> SIZE=0", COMMAND_OK, 0, false},
    {"FROM:<a@x.example> SIZE=00000000000000000001", COMMAND_OK, 1, false},
    {"FROM:<a@x.example> SIZE=000000000000000000001", COMMAND_SYNTAX, 0, false}, /* 20 digits */
    {"FROM:<a@x.example> SIZE=18446744073709551616", COMMAND_OK, UINT64_MAX, false},
    {"FROM:<a@x.example> SIZE=1K", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> SIZE=+1", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> size=1 Size=2", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> SIZE=0 SIZE=0", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> SIZES=1", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> SIZ=1", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> AUTH=<>", COMMAND_OK, 0, false},
    {"FROM:<a@x.example> AUTH=e+3Dmc2@example.com", COMMAND_OK, 0, false}, /* RFC 4954 section 5 */
    {"FROM:<a@x.example> AUTH=a+2Bb@example.com SIZE=7", COMMAND_OK, 7, false},
    {"FROM:<a@x.example> AUTH", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> AUTH=", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> AUTH=a+", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> AUTH=a+2", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> AUTH=a+2b", COMMAND_SYNTAX, 0, false}, /* xtext has upper-case digits */
    {"FROM:<a@x.example> AUTH=a+GG", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> AUTH=a++41", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> AUTH=a=b", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> AUTH=\xc3\xa4", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> AUTH=<> AUTH=<>", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> =x", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> =", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> -X=1", COMMAND_SYNTAX, 0, false}, /* RFC 5321 esmtp-keyword */
    {"FROM:<a@x.example> X_Y=1", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> X-Y=1", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> 8-=1", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> X=", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> X==1", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> X=1 SIZE=x", COMMAND_UNKNOWN_PARAM, 0, false}, /* the first one decides */
    {"FROM:<a@x.example> SIZE=x X=1", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> \xc3\xa4=1", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> SIZE = 1", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example> <b@x.example>", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example>,<b@x.example>", COMMAND_SYNTAX, 0, false},
    {"FROM:<a@x.example>>", COMMAND_SYNTAX, 0, false},
    {"FROM:<<a@x.example>>", COMMAND_BAD_ADDRESS, 0, false},
    {"FROM :<a@x.example>", COMMAND_SYNTAX, 0, false},
    {"FROM:  <a@x.example>    SIZE=3   ", COMMAND_OK, 3, false},
    {"FROM:<a@x.example> SMTPUTF8", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> BODY=8BITMIME SMTPUTF8", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> RET=FULL", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> ENVID=x", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> HOLDFOR=60", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> MT-PRIORITY=3", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> BY=120;R", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example> REQUIRETLS", COMMAND_UNKNOWN_PARAM, 0, false},
    {"FROM:<a@x.example>SIZE=1", COMMAND_SYNTAX, 0, false},
    {"TO:<a@x.example>", COMMAND_SYNTAX, 0, false},
    {"FROM <a@x.example>", COMMAND_SYNTAX, 0, false},
    {"FROM:a@x.example", COMMAND_BAD_ADDRESS, 0, false},
    {"FROM:", COMMAND_BAD_ADDRESS, 0, false},
    {"", COMMAND_SYNTAX, 0, false},
};

static const struct {
	const char *text;
	int len; /* -1: refused */
} base64s[] = {
    {"", 0},          {"Zg==", 1},  {"Zm8=", 2},  {"Zm9v", 3},        {"Zm9vYg==", 4},
    {"Zg=", -1},      {"Zg", -1},   {"Zh==", -1}, {"Zm9=", -1},       {"Z===", -1},
    {"Zg==Zg==", -1}, {"Zm 9", -1}, {"====", -1}, {"Zm9v\r\n==", -1},
};

int
main(void)
{
	struct command_mail mail;
	struct address address;
	enum address_error why;
	size_t line, verb, len;
	const char *args;
	char ehlo[ADDRESS_DOMAIN_MAX + 1], text[64];
	uint8_t raw[64];

	for (size_t i = 0; i < sizeof mails / sizeof *mails; i++) {
		enum command_error error =
		    command_parse_mail(mails[i].args, strlen(mails[i].args), &mail, &why);
		ok(error == mails[i].error && (error || (mail.size == mails[i].size &&
		                                         mail.body_8bit == mails[i].body_8bit)),
		   mails[i].args);
	}
	ok(!command_parse_rcpt("TO:<a@x.example>", 16, &address, &why) &&
	       !strcmp(address.local, "a"),
	   "RCPT");
	ok(command_parse_rcpt("TO:<>", 5, &address, &why) == COMMAND_BAD_ADDRESS, "RCPT to nobody");
	ok(command_parse_rcpt("TO:<a@x.example> NOTIFY=NEVER", 29, &address, &why) ==
	       COMMAND_UNKNOWN_PARAM,
	   "RCPT with a parameter");
	ok(command_parse_rcpt("TO:<a@x.example> NOTIFY=", 24, &address, &why) == COMMAND_SYNTAX &&
	       command_parse_rcpt("TO:<a@x.example> =", 18, &address, &why) == COMMAND_SYNTAX &&
	       command_parse_rcpt("TO:<a@x.example> SIZE=1", 23, &address, &why) ==
	           COMMAND_UNKNOWN_PARAM &&
	       !command_parse_rcpt("TO:<a@x.example>  ", 18, &address, &why),
	   "RCPT with a malformed parameter, one of MAIL, blanks");
	ok(command_parse_rcpt("TO:<a@x>", 8, &address, &why) == COMMAND_BAD_ADDRESS &&
	       why == ADDRESS_UNQUALIFIED,
	   "RCPT unqualified");

	ok(command_line((const uint8_t *)"NOOP\r\nX", 7, &line) == 6 && line == 4, "a line");
	ok(command_line((const uint8_t *)"NO\nOP\r\n", 7, &line) == 7 && line == 5,
	   "a bare LF ends no line");
	ok(command_line((const uint8_t *)"NO\rOP\r\n", 7, &line) == 7 && line == 5,
	   "a bare CR ends no line");
	ok(!command_line((const uint8_t *)"NOOP\r", 5, &line) &&
	       !command_line((const uint8_t *)"\n", 1, &line),
	   "no line yet");
	ok(command_split("MAIL FROM:<>  ", 14, &verb, &args, &len) && verb == 4 && len == 7 &&
	       !memcmp(args, "FROM:<>", 7),
	   "split");
	ok(command_split("QUIT", 4, &verb, &args, &len) && verb == 4 && len == 0,
	   "split without arguments");
	ok(command_split("", 0, &verb, &args, &len) && verb == 0, "split of nothing");
	ok(!command_split("NO\nOP", 5, &verb, &args, &len) &&
	       !command_split("A\tB", 3, &verb, &args, &len) &&
	       !command_split("A\0B", 3, &verb, &args, &len) &&
	       !command_split("A\x7f", 2, &verb, &args, &len),
	   "controls are refused");
	ok(command_parse_rcpt("TO:<\xc3\xa4@x.example>", 17, &address, &why) ==
	           COMMAND_BAD_ADDRESS &&
	       why == ADDRESS_NON_ASCII && !command_parse_ehlo("\xc3\xa4", 2, ehlo),
	   "8-bit is a kind of its own in an address, and none in a name");
	ok(command_parse_ehlo("[192.0.2.1]", 11, ehlo) && !strcmp(ehlo, "[192.0.2.1]"), "EHLO");
	ok(!command_parse_ehlo("", 0, ehlo) && !command_parse_ehlo("a b", 3, ehlo), "bad EHLO");

	for (size_t i = 0; i < sizeof base64s / sizeof *base64s; i++) {
		int n = command_base64_decode(base64s[i].text, strlen(base64s[i].text), raw);
		bool good = n == base64s[i].len;
		if (good && n >= 0) {
			command_base64_encode(raw, (size_t)n, text);
			good = !strcmp(text, base64s[i].text);
		}
		snprintf(text, sizeof text, "base64 %zu", i);
		ok(good, text);
	}
	printf("1..%d\n", count);
	return failures != 0;
}
