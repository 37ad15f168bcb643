#include <stdio.h>
#include <string.h>

#include "smtp/command.h"
#include "t/unit/tap.h"

static const struct {
	const char *args;
	enum command_error error;
	uint64_t size;
	bool body_8bit; /* or binary */
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
    {"FROM:<a@x.example>SIZE=1", COMMAND_SYNTAX, 0, false},
    {"TO:<a@x.example>", COMMAND_SYNTAX, 0, false},
    {"FROM <a@x.example>", COMMAND_SYNTAX, 0, false},
    {"FROM:a@x.example", COMMAND_BAD_ADDRESS, 0, false},
    {"FROM:", COMMAND_BAD_ADDRESS, 0, false},
    {"", COMMAND_SYNTAX, 0, false},
};

#define NOW  INT64_C(1764000000000) /* 2025-11-24T16:00:00Z */
#define X5   "xxxxx"
#define X50  X5 X5 X5 X5 X5 X5 X5 X5 X5 X5
#define X100 X50 X50
#define X400 X100 X100 X100 X100

static const struct command_opts everything = {COMMAND_ALL, false, NOW, "mail.example.test"};

/* One parameter behind MAIL FROM:<a@x.example>, with every extension offered: what becomes of it.
 */
static const struct {
	const char *text;
	struct envelope expect;
} params[] = {
    {"BODY=BINARYMIME", {.body = BODY_BINARYMIME}},
    {"body=binarymime", {.body = BODY_BINARYMIME}},
    {"BODY=8BITMIME", {.body = BODY_8BITMIME}},
    {"BODY=7BIT", {.body = BODY_7BIT}},
    {"SMTPUTF8", {.smtputf8 = true}},
    {"smtputf8", {.smtputf8 = true}},
    {"REQUIRETLS", {.requiretls = true}},
    {"RequireTLS", {.requiretls = true}},
    {"RET=FULL", {.ret = RET_FULL}},
    {"RET=HDRS", {.ret = RET_HDRS}},
    {"ret=full", {.ret = RET_FULL}},
    {"Ret=hdrs", {.ret = RET_HDRS}},
    {"ENVID=x", {.envid = "x"}},
    {"ENVID=QQ314159", {.envid = "QQ314159"}},
    {"envid=QQ+2B314159", {.envid = "QQ+2B314159"}},
    {"ENVID=+20", {.envid = "+20"}},
    {"ENVID=+7E", {.envid = "+7E"}},
    {"ENVID=+3D+2B", {.envid = "+3D+2B"}},
    {"ENVID=!~", {.envid = "!~"}},
    {"ENVID=;,<>@", {.envid = ";,<>@"}},
    {"ENVID=" X100, {.envid = X100}},
    {"ENVID=" X50 X5 X5 X5 X5 X5 X5 X5 X5 X5 "xx+2B",
     {.envid = X50 X5 X5 X5 X5 X5 X5 X5 X5 X5 "xx+2B"}},
    {"HOLDFOR=1", {.hold_until = NOW + 1000}},
    {"holdfor=60", {.hold_until = NOW + 60000}},
    {"HOLDFOR=000000001", {.hold_until = NOW + 1000}},
    {"HOLDFOR=999999999", {.hold_until = NOW + 999999999000}},
    {"HOLDUNTIL=2025-11-24T16:00:01Z", {.hold_until = NOW + 1000}},
    {"holduntil=2025-11-24t16:00:01z", {.hold_until = NOW + 1000}},
    {"HOLDUNTIL=2025-11-24T16:00:01+00:00", {.hold_until = NOW + 1000}},
    {"HOLDUNTIL=2025-11-24T16:00:01-00:00", {.hold_until = NOW + 1000}},
    {"HOLDUNTIL=2025-11-25T01:00:01+09:00", {.hold_until = NOW + 1000}},
    {"HOLDUNTIL=2025-11-24T12:30:01-03:30", {.hold_until = NOW + 1000}},
    {"HOLDUNTIL=2025-11-24T16:00:01.999Z", {.hold_until = NOW + 1000}},
    {"HOLDUNTIL=2025-11-24T16:00:01.0+00:00", {.hold_until = NOW + 1000}},
    {"HOLDUNTIL=2026-02-28T16:00:00Z", {.hold_until = NOW + INT64_C(96) * 86400000}},
    {"HOLDUNTIL=2026-03-01T16:00:00Z", {.hold_until = NOW + INT64_C(97) * 86400000}},
    {"HOLDUNTIL=2028-02-29T00:00:00Z", {.hold_until = INT64_C(1835395200000)}},
    {"HOLDUNTIL=2028-03-01T00:00:00Z", {.hold_until = INT64_C(1835481600000)}},
    {"HOLDUNTIL=2100-03-01T00:00:00Z", {.hold_until = INT64_C(4107542400000)}},
    {"HOLDUNTIL=2000-02-29T00:00:00Z", {.hold_until = 0}},
    {"HOLDUNTIL=2026-12-31T23:59:60Z", {.hold_until = INT64_C(1798761600000)}},
    {"HOLDUNTIL=9999-12-31T23:59:59Z", {.hold_until = INT64_C(253402300799000)}},
    {"HOLDUNTIL=2025-11-24T16:00:00Z", {.hold_until = 0}}, /* now: nothing to wait for */
    {"HOLDUNTIL=2024-01-01T00:00:00Z", {.hold_until = 0}},
    {"HOLDUNTIL=1969-12-31T23:59:59Z", {.hold_until = 0}},
    {"HOLDUNTIL=0000-01-01T00:00:00Z", {.hold_until = 0}},
    {"MT-PRIORITY=0", {.priority = 0}},
    {"MT-PRIORITY=1", {.priority = 1}},
    {"MT-PRIORITY=9", {.priority = 9}},
    {"MT-PRIORITY=-1", {.priority = -1}},
    {"MT-PRIORITY=-9", {.priority = -9}},
    {"mt-priority=4", {.priority = 4}},
    {"BY=120;R", {.by = BY_RETURN, .by_deadline = NOW + 120000}},
    {"by=120;r", {.by = BY_RETURN, .by_deadline = NOW + 120000}},
    {"BY=+120;RT", {.by = BY_RETURN, .by_trace = true, .by_deadline = NOW + 120000}},
    {"BY=120;rt", {.by = BY_RETURN, .by_trace = true, .by_deadline = NOW + 120000}},
    {"BY=120;N", {.by = BY_NOTIFY, .by_deadline = NOW + 120000}},
    {"BY=120;NT", {.by = BY_NOTIFY, .by_trace = true, .by_deadline = NOW + 120000}},
    {"BY=0;N", {.by = BY_NOTIFY, .by_deadline = NOW}},
    {"BY=-0;N", {.by = BY_NOTIFY, .by_deadline = NOW}},
    {"BY=-60;NT", {.by = BY_NOTIFY, .by_trace = true, .by_deadline = NOW - 60000}},
    {"BY=1;R", {.by = BY_RETURN, .by_deadline = NOW + 1000}},
    {"BY=000000001;R", {.by = BY_RETURN, .by_deadline = NOW + 1000}},
    {"BY=999999999;R", {.by = BY_RETURN, .by_deadline = NOW + 999999999000}},
    {"BY=-999999999;N", {.by = BY_NOTIFY, .by_deadline = NOW - 999999999000}},
    {"RET=HDRS ENVID=x SMTPUTF8 BODY=8BITMIME SIZE=9 MT-PRIORITY=2 REQUIRETLS HOLDFOR=1 BY=2;N "
     "AUTH=<>",
     {.ret = RET_HDRS,
      .envid = "x",
      .smtputf8 = true,
      .body = BODY_8BITMIME,
      .priority = 2,
      .requiretls = true,
      .hold_until = NOW + 1000,
      .by = BY_NOTIFY,
      .by_deadline = NOW + 2000}},
};

/* Each of them is a syntax error, whatever is offered beside it. */
static const char *const malformed[] = {
    "BODY=BINARY",
    "BODY=BINARYMIMES",
    "SMTPUTF8=",
    "SMTPUTF8=1",
    "SMTPUTF8 SMTPUTF8",
    "SMTPUTF8 smtputf8",
    "REQUIRETLS=",
    "REQUIRETLS=YES",
    "REQUIRETLS REQUIRETLS",
    "RET",
    "RET=",
    "RET=FULLY",
    "RET=FUL",
    "RET=NONE",
    "RET=FULL,HDRS",
    "RET=FULL RET=FULL",
    "RET=FULL RET=HDRS",
    "ENVID",
    "ENVID=",
    "ENVID=+",
    "ENVID=+4",
    "ENVID=+4g",
    "ENVID=+2b", /* RFC 3461 section 4: hexadecimal digits in upper case */
    "ENVID=a+2",
    "ENVID=a=b",
    "ENVID=+00", /* and printable */
    "ENVID=+0A",
    "ENVID=+0D",
    "ENVID=+09",
    "ENVID=+1F",
    "ENVID=+7F",
    "ENVID=+80",
    "ENVID=+FF",
    "ENVID=\xc3\xa4",
    "ENVID=" X100 "x",
    "ENVID=" X50 X5 X5 X5 X5 X5 X5 X5 X5 X5 "xxx+2B",
    "ENVID=x ENVID=x",
    "ENVID=x envid=y",
    "HOLDFOR",
    "HOLDFOR=",
    "HOLDFOR=0",
    "HOLDFOR=000000000",
    "HOLDFOR=-1",
    "HOLDFOR=+1",
    "HOLDFOR=1s",
    "HOLDFOR=1.5",
    "HOLDFOR=0x10",
    "HOLDFOR=1000000000",
    "HOLDFOR=0000000001",
    "HOLDFOR=1 HOLDFOR=1",
    "HOLDFOR=1 HOLDUNTIL=2026-01-01T00:00:00Z", /* RFC 4865: one of the two */
    "HOLDUNTIL=2026-01-01T00:00:00Z HOLDFOR=1",
    "HOLDUNTIL=2026-01-01T00:00:00Z HOLDUNTIL=2026-01-01T00:00:00Z",
    "HOLDUNTIL",
    "HOLDUNTIL=",
    "HOLDUNTIL=tomorrow",
    "HOLDUNTIL=1764000001",
    "HOLDUNTIL=2026-01-01",
    "HOLDUNTIL=2026-01-01T00:00Z",
    "HOLDUNTIL=2026-01-01T00:00:00",
    "HOLDUNTIL=2026-01-01T00:00:00X",
    "HOLDUNTIL=2026-01-01T00:00:00ZZ",
    "HOLDUNTIL=2026-01-01T00:00:00+9",
    "HOLDUNTIL=2026-01-01T00:00:00+09",
    "HOLDUNTIL=2026-01-01T00:00:00+0900",
    "HOLDUNTIL=2026-01-01T00:00:00+09:0",
    "HOLDUNTIL=2026-01-01T00:00:00+09:000",
    "HOLDUNTIL=2026-01-01T00:00:00+24:00",
    "HOLDUNTIL=2026-01-01T00:00:00+09:60",
    "HOLDUNTIL=2026-01-01T00:00:00.Z",
    "HOLDUNTIL=2026-01-01T00:00:00,5Z",
    "HOLDUNTIL=2026-01-01T00:00:61Z",
    "HOLDUNTIL=2026-01-01T00:60:00Z",
    "HOLDUNTIL=2026-01-01T24:00:00Z",
    "HOLDUNTIL=2026-01-01_00:00:00Z",
    "HOLDUNTIL=2026-01-00T00:00:00Z",
    "HOLDUNTIL=2026-01-32T00:00:00Z",
    "HOLDUNTIL=2026-00-01T00:00:00Z",
    "HOLDUNTIL=2026-13-01T00:00:00Z",
    "HOLDUNTIL=2026-02-29T00:00:00Z",
    "HOLDUNTIL=2100-02-29T00:00:00Z",
    "HOLDUNTIL=2026-04-31T00:00:00Z",
    "HOLDUNTIL=2026-06-31T00:00:00Z",
    "HOLDUNTIL=26-01-01T00:00:00Z",
    "HOLDUNTIL=12026-01-01T00:00:00Z",
    "HOLDUNTIL=2026-1-01T00:00:00Z",
    "HOLDUNTIL=2026-01-1T00:00:00Z",
    "HOLDUNTIL=2026/01/01T00:00:00Z",
    "HOLDUNTIL=20260101T000000Z",
    "HOLDUNTIL=-026-01-01T00:00:00Z",
    "HOLDUNTIL=2026-01-01T00:00:0aZ",
    "MT-PRIORITY",
    "MT-PRIORITY=",
    "MT-PRIORITY=10",
    "MT-PRIORITY=-10",
    "MT-PRIORITY=-0",
    "MT-PRIORITY=+1",
    "MT-PRIORITY=00",
    "MT-PRIORITY=01",
    "MT-PRIORITY=-",
    "MT-PRIORITY=--1",
    "MT-PRIORITY=1.0",
    "MT-PRIORITY=high",
    "MT-PRIORITY=1 MT-PRIORITY=1",
    "BY",
    "BY=",
    "BY=120",
    "BY=120;",
    "BY=;R",
    "BY=120;X",
    "BY=120;T",
    "BY=120;TR",
    "BY=120;RN",
    "BY=120;RTT",
    "BY=120;R;T",
    "BY=120,R",
    "BY=+;R",
    "BY=-;N",
    "BY=+-1;N",
    "BY=1234567890;R",
    "BY=+1234567890;R",
    "BY=1.5;R",
    "BY=0;R", /* RFC 2852 section 4: to return there must be some time */
    "BY=+0;R",
    "BY=-1;R",
    "BY=-120;RT",
    "BY=120;R BY=120;R",
    "BY=120;R by=120;N",
};

/* The same behind RCPT TO:<b@x.example>. */
static const struct {
	const char *text;
	unsigned notify;
	const char *orcpt;
} rcpts[] = {
    {"", 0, ""},
    {"NOTIFY=NEVER", NOTIFY_NEVER, ""},
    {"notify=never", NOTIFY_NEVER, ""},
    {"NOTIFY=SUCCESS", NOTIFY_SUCCESS, ""},
    {"NOTIFY=FAILURE", NOTIFY_FAILURE, ""},
    {"NOTIFY=DELAY", NOTIFY_DELAY, ""},
    {"NOTIFY=SUCCESS,FAILURE", NOTIFY_SUCCESS | NOTIFY_FAILURE, ""},
    {"NOTIFY=Delay,success,FAILURE", NOTIFY_DELAY | NOTIFY_SUCCESS | NOTIFY_FAILURE, ""},
    {"NOTIFY=FAILURE,FAILURE", NOTIFY_FAILURE, ""},
    {"ORCPT=rfc822;b@x.example", 0, "rfc822;b@x.example"},
    {"orcpt=RFC822;b@x.example", 0, "RFC822;b@x.example"},
    {"ORCPT=rfc822;Bob+20Smith+2Bx@x.example", 0, "rfc822;Bob+20Smith+2Bx@x.example"},
    {"ORCPT=x400;/c+3Dus/", 0, "x400;/c+3Dus/"},
    {"ORCPT=utf-8;\\x{1F600}@x.example", 0, "utf-8;\\x{1F600}@x.example"}, /* RFC 6533 section 3 */
    {"ORCPT=a;b;c", 0, "a;b;c"},
    {"ORCPT=rfc822;" X400 X50 X5 X5 X5 X5 X5 X5 X5 X5 "xxx", 0,
     "rfc822;" X400 X50 X5 X5 X5 X5 X5 X5 X5 X5 "xxx"},
    {"NOTIFY=DELAY ORCPT=rfc822;b@x.example", NOTIFY_DELAY, "rfc822;b@x.example"},
    {"ORCPT=rfc822;b@x.example  NOTIFY=DELAY ", NOTIFY_DELAY, "rfc822;b@x.example"},
};
static const char *const rcpts_malformed[] = {
    "NOTIFY",
    "NOTIFY=",
    "NOTIFY=NEVER,DELAY",
    "NOTIFY=DELAY,NEVER",
    "NOTIFY=NEVER,NEVER",
    "NOTIFY=NEVER,",
    "NOTIFY=,DELAY",
    "NOTIFY=DELAY,",
    "NOTIFY=DELAY,,FAILURE",
    "NOTIFY=DELAY;FAILURE",
    "NOTIFY=DELAYED",
    "NOTIFY=SUCCES",
    "NOTIFY=ALWAYS",
    "NOTIFY=DELAY NOTIFY=FAILURE",
    "NOTIFY=NEVER notify=NEVER",
    "ORCPT",
    "ORCPT=",
    "ORCPT=b@x.example",
    "ORCPT=rfc822",
    "ORCPT=rfc822;",
    "ORCPT=;b@x.example",
    "ORCPT=rfc(822);b@x.example",
    "ORCPT=rf.c822;b@x.example",
    "ORCPT=rfc822;b=c@x.example",
    "ORCPT=rfc822;b+2",
    "ORCPT=rfc822;b+2b",
    "ORCPT=rfc822;b+",
    "ORCPT=rfc822;b+0Dc",
    "ORCPT=rfc822;b+0Ac",
    "ORCPT=rfc822;b+7F",
    "ORCPT=rfc822;b+E4",
    "ORCPT=rfc822;b\xc3\xa4@x.example",
    "ORCPT=rfc822;" X400 X50 X5 X5 X5 X5 X5 X5 X5 X5 "xxxx",
    "ORCPT=rfc822;b ORCPT=rfc822;b",
    "=x",
    "X=",
    "X==1",
};
static const char *const rcpts_unknown[] = {
    "X=1",     "X",        "SIZE=1",     "BODY=7BIT", "RET=FULL",
    "ENVID=x", "SMTPUTF8", "REQUIRETLS", "NOTIFYX=1", "RRVS=2026-01-01T00:00:00Z",
};

/* Of which extension each is: not offered, it is unknown. */
static const struct {
	const char *text;
	unsigned extension;
} extensions[] = {
    {"RET=FULL", COMMAND_DSN},
    {"ENVID=x", COMMAND_DSN},
    {"SMTPUTF8", COMMAND_SMTPUTF8},
    {"HOLDFOR=60", COMMAND_FUTURERELEASE},
    {"HOLDUNTIL=2026-01-01T00:00:00Z", COMMAND_FUTURERELEASE},
    {"MT-PRIORITY=3", COMMAND_MT_PRIORITY},
    {"BY=120;R", COMMAND_DELIVERBY},
    {"REQUIRETLS", COMMAND_REQUIRETLS},
};

static const struct {
	const char *text;
	enum command_error error;
	const char *local;
} postmasters[] = {
    {"TO:<postmaster>", COMMAND_OK, "postmaster"},
    {"TO:<Postmaster>", COMMAND_OK, "Postmaster"},
    {"to:<POSTMASTER>", COMMAND_OK, "POSTMASTER"},
    {"TO: <postmaster>", COMMAND_OK, "postmaster"},
    {"TO:<postmaster> ", COMMAND_OK, "postmaster"},
    {"TO:<postmaster> NOTIFY=NEVER", COMMAND_OK, "postmaster"},
    {"TO:<postmaster> X=1", COMMAND_UNKNOWN_PARAM, ""},
    {"TO:<postmaster>x", COMMAND_BAD_ADDRESS, ""},
    {"TO:<postmaster", COMMAND_BAD_ADDRESS, ""},
    {"TO:<postmasters>", COMMAND_BAD_ADDRESS, ""},
    {"TO:<\"postmaster\">", COMMAND_BAD_ADDRESS, ""},
    {"TO:postmaster", COMMAND_BAD_ADDRESS, ""},
    {"TO <postmaster>", COMMAND_SYNTAX, ""},
    {"TO:<abuse>", COMMAND_BAD_ADDRESS, ""},
};

static bool
same(const struct envelope *a, const struct envelope *b)
{
	return a->body == b->body && a->smtputf8 == b->smtputf8 && a->requiretls == b->requiretls &&
	       a->tls_optional == b->tls_optional && a->ret == b->ret &&
	       !strcmp(a->envid, b->envid) && a->priority == b->priority &&
	       a->hold_until == b->hold_until && a->by == b->by && a->by_trace == b->by_trace &&
	       a->by_deadline == b->by_deadline;
}

static const char *
line(const char *front, const char *param)
{
	static char text[COMMAND_LINE_MAX];

	snprintf(text, sizeof text, "%s %s", front, param);
	return text;
}

static enum command_error
mail_with(const char *param, const struct command_opts *opts, struct command_mail *mail)
{
	const char *args = line("FROM:<a@x.example>", param);
	enum address_error why;

	return command_parse_mail(args, strlen(args), opts, mail, &why);
}

static enum command_error
rcpt(const char *args, const struct command_opts *opts, struct envelope_recipient *out,
     enum address_error *why)
{
	static char orcpt[ENVELOPE_ORCPT_MAX + 1];

	return command_parse_rcpt(args, strlen(args), opts, out, orcpt, why);
}

#define OE "\xc3\xb6"
static const struct { /* RFC 6531 and RFC 6533; MAIL's with all extensions */
	const char *args;
	bool utf8; /* of RCPT: MAIL said so */
	enum command_error error;
	enum address_error why;
	const char *orcpt;
} international[] = {
    {"FROM:<" OE "@x.example> SMTPUTF8", false, COMMAND_OK, ADDRESS_OK, NULL},
    {"FROM:<" OE "@x.example> SIZE=1 smtputf8 BODY=8BITMIME", false, COMMAND_OK, ADDRESS_OK, NULL},
    {"FROM:<a@" OE ".example> SMTPUTF8", false, COMMAND_OK, ADDRESS_OK, NULL},
    {"FROM:<" OE "@x.example>", false, COMMAND_BAD_ADDRESS, ADDRESS_NON_ASCII, NULL},
    {"FROM:<" OE "@x.example> BODY=8BITMIME", false, COMMAND_BAD_ADDRESS, ADDRESS_NON_ASCII, NULL},
    {"FROM:<a@" OE ".example>", false, COMMAND_BAD_ADDRESS, ADDRESS_NON_ASCII, NULL},
    {"FROM:<@" OE ".example:a@x.example>", false, COMMAND_BAD_ADDRESS, ADDRESS_NON_ASCII, NULL},
    {"FROM:<\xe9@x.example> SMTPUTF8", false, COMMAND_BAD_ADDRESS, ADDRESS_SYNTAX, NULL},
    {"FROM:<" OE "@x.example> FOO", false, COMMAND_UNKNOWN_PARAM, ADDRESS_OK, NULL},
    {"FROM:<a@x.example> SMTPUTF8=1", false, COMMAND_SYNTAX, ADDRESS_OK, NULL},
    {"FROM:<a@x.example> SMTPUTF8 SMTPUTF8", false, COMMAND_SYNTAX, ADDRESS_OK, NULL},
    {"FROM:<a@x.example> SMTPUTF8 ENVID=" OE, false, COMMAND_SYNTAX, ADDRESS_OK, NULL},
    {"FROM:<a@x.example> SMTPUTF8 AUTH=" OE, false, COMMAND_SYNTAX, ADDRESS_OK, NULL},
    {"FROM:<a@x.example> SMTPUTF8 SIZE=\xc2\xb2", false, COMMAND_SYNTAX, ADDRESS_OK, NULL},
    {"TO:<" OE "@x.example>", true, COMMAND_OK, ADDRESS_OK, ""},
    {"TO:<" OE "@x.example>", false, COMMAND_BAD_ADDRESS, ADDRESS_NON_ASCII, NULL},
    {"TO:<a@" OE ".example>", true, COMMAND_OK, ADDRESS_OK, ""},
    {"TO:<a@" OE ".example>", false, COMMAND_BAD_ADDRESS, ADDRESS_NON_ASCII, NULL},
    {"TO:<\xff@x.example>", true, COMMAND_BAD_ADDRESS, ADDRESS_SYNTAX, NULL},
    {"TO:<a@x.example> SMTPUTF8", true, COMMAND_UNKNOWN_PARAM, ADDRESS_OK, NULL},
    {"TO:<a@x.example> ORCPT=utf-8;" OE "@x.example", true, COMMAND_OK, ADDRESS_OK,
     "utf-8;\\x{F6}@x.example"},
    {"TO:<a@x.example> ORCPT=UTF-8;\xf0\x9f\x92\xa9@x.example", true, COMMAND_OK, ADDRESS_OK,
     "UTF-8;\\x{1F4A9}@x.example"},
    {"TO:<a@x.example> ORCPT=utf-8;\\x{F6}@x.example", false, COMMAND_OK, ADDRESS_OK,
     "utf-8;\\x{F6}@x.example"},
    {"TO:<a@x.example> ORCPT=utf-8;" OE "@x.example", false, COMMAND_SYNTAX, ADDRESS_OK, NULL},
    {"TO:<a@x.example> ORCPT=rfc822;" OE "@x.example", true, COMMAND_SYNTAX, ADDRESS_OK, NULL},
    {"TO:<a@x.example> ORCPT=utf-8;\xff@x.example", true, COMMAND_SYNTAX, ADDRESS_OK, NULL},
    {"TO:<a@x.example> ORCPT=" OE ";a@x.example", true, COMMAND_SYNTAX, ADDRESS_OK, NULL},
};

static void
test_params(void)
{
	struct command_mail mail;
	struct envelope_recipient to;
	enum address_error why;

	for (size_t i = 0; i < sizeof params / sizeof *params; i++)
		ok(!mail_with(params[i].text, &everything, &mail) &&
		       same(&mail.envelope, &params[i].expect),
		   params[i].text);
	for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
		ok(mail_with(malformed[i], &everything, &mail) == COMMAND_SYNTAX, malformed[i]);
	for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
		struct command_opts opts = everything;
		char name[80];

		opts.extensions &= ~extensions[i].extension;
		snprintf(name, sizeof name, "%s, which is not offered", extensions[i].text);
		ok(mail_with(extensions[i].text, &opts, &mail) == COMMAND_UNKNOWN_PARAM, name);
		opts.extensions = extensions[i].extension;
		ok(!mail_with(extensions[i].text, &opts, &mail), "and alone it is");
	}
	struct command_opts plain = {0, false, NOW, "mail.example.test"};
	ok(mail_with("BODY=BINARYMIME", &plain, &mail) == COMMAND_SYNTAX,
	   "BINARYMIME, which is not offered, is no value of BODY");
	ok(!mail_with("MT-PRIORITY=0", &everything, &mail) && mail.has_priority &&
	       !mail_with("", &everything, &mail) && !mail.has_priority,
	   "whether a priority was given is known");

	for (size_t i = 0; i < sizeof rcpts / sizeof *rcpts; i++)
		ok(!rcpt(line("TO:<b@x.example>", rcpts[i].text), &everything, &to, &why) &&
		       to.notify == rcpts[i].notify && !strcmp(to.orcpt, rcpts[i].orcpt) &&
		       !strcmp(to.address.local, "b"),
		   rcpts[i].text);
	for (size_t i = 0; i < sizeof rcpts_malformed / sizeof *rcpts_malformed; i++)
		ok(rcpt(line("TO:<b@x.example>", rcpts_malformed[i]), &everything, &to, &why) ==
		       COMMAND_SYNTAX,
		   rcpts_malformed[i]);
	for (size_t i = 0; i < sizeof rcpts_unknown / sizeof *rcpts_unknown; i++)
		ok(rcpt(line("TO:<b@x.example>", rcpts_unknown[i]), &everything, &to, &why) ==
		       COMMAND_UNKNOWN_PARAM,
		   rcpts_unknown[i]);
	ok(rcpt("TO:<b@x.example> NOTIFY=NEVER", &plain, &to, &why) == COMMAND_UNKNOWN_PARAM &&
	       rcpt("TO:<b@x.example> ORCPT=a;b", &plain, &to, &why) == COMMAND_UNKNOWN_PARAM,
	   "NOTIFY and ORCPT, which are not offered");
	struct command_opts utf8 = everything;
	utf8.utf8 = true;
	for (size_t i = 0; i < sizeof international / sizeof *international; i++) {
		const bool is_mail = !strncmp(international[i].args, "FROM", 4);
		enum command_error error =
		    is_mail
		        ? command_parse_mail(international[i].args, strlen(international[i].args),
		                             &everything, &mail, &why)
		        : rcpt(international[i].args, international[i].utf8 ? &utf8 : &everything,
		               &to, &why);
		ok(error == international[i].error && why == international[i].why &&
		       (!international[i].orcpt || !strcmp(to.orcpt, international[i].orcpt)),
		   international[i].args);
	}
	ok(mail_with("SMTPUTF8", &everything, &mail) == COMMAND_OK && mail.envelope.smtputf8,
	   "an ASCII address with SMTPUTF8");
	for (size_t i = 0; i < sizeof postmasters / sizeof *postmasters; i++)
		ok(rcpt(postmasters[i].text, &everything, &to, &why) == postmasters[i].error &&
		       (postmasters[i].error || (!strcmp(to.address.local, postmasters[i].local) &&
		                                 !strcmp(to.address.domain, "mail.example.test"))),
		   postmasters[i].text);
}

static const struct {
	const char *text;
	int len; /* -1: refused */
} base64s[] = {
    {"", 0},          {"Zg==", 1},  {"Zm8=", 2},  {"Zm9v", 3},        {"Zm9vYg==", 4},
    {"Zg=", -1},      {"Zg", -1},   {"Zh==", -1}, {"Zm9=", -1},       {"Z===", -1},
    {"Zg==Zg==", -1}, {"Zm 9", -1}, {"====", -1}, {"Zm9v\r\n==", -1},
};

static void
test_bdat(void)
{
	static const struct {
		const char *args;
		bool has_size, last;
		enum command_error error;
		uint64_t size;
	} row[] = {
	    {"5", true, false, COMMAND_OK, 5},
	    {"0 LAST", true, true, COMMAND_OK, 0},
	    {" 007  last", true, true, COMMAND_OK, 7},
	    {"18446744073709551616 LAST", true, true, COMMAND_OK, UINT64_MAX},
	    {"5 FIRST", true, false, COMMAND_SYNTAX, 5},
	    {"5 LAST LAST", true, false, COMMAND_SYNTAX, 5},
	    {"5 6", true, false, COMMAND_SYNTAX, 5},
	    {"", false, false, COMMAND_OK, 0},
	    {"LAST", false, false, COMMAND_OK, 0},
	    {"-1", false, false, COMMAND_OK, 0},
	    {"5LAST", false, false, COMMAND_OK, 0},
	    {"0x5 LAST", false, false, COMMAND_OK, 0},
	    {"5,000", false, false, COMMAND_OK, 0},
	};

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct command_bdat bdat;
		enum command_error error = COMMAND_OK;
		char name[64];
		bool has_size = command_parse_bdat(row[i].args, strlen(row[i].args), &bdat, &error);
		snprintf(name, sizeof name, "BDAT %s", row[i].args);
		ok(has_size == row[i].has_size &&
		       (!has_size || (bdat.size == row[i].size && bdat.last == row[i].last &&
		                      error == row[i].error)),
		   name);
	}
	ok(command_is_bdat("bdat\t5", 6) && command_is_bdat("BDAT", 4) &&
	       !command_is_bdat("BDA", 3),
	   "BDAT that is no command");
}

int
main(void)
{
	struct command_mail mail;
	struct envelope_recipient to;
	enum address_error why;
	size_t end, verb, len;
	const char *args;
	char ehlo[ADDRESS_DOMAIN_MAX + 1], longest[ADDRESS_DOMAIN_MAX + 1], text[64];
	uint8_t raw[64];

	for (size_t i = 0; i < sizeof mails / sizeof *mails; i++) {
		enum command_error error = command_parse_mail(mails[i].args, strlen(mails[i].args),
		                                              &everything, &mail, &why);
		ok(error == mails[i].error &&
		       (error || (mail.size == mails[i].size &&
		                  (mail.envelope.body != BODY_7BIT) == mails[i].body_8bit)),
		   mails[i].args);
	}
	test_params();
	ok(!rcpt("TO:<a@x.example>", &everything, &to, &why) && !strcmp(to.address.local, "a"),
	   "RCPT");
	ok(rcpt("TO:<>", &everything, &to, &why) == COMMAND_BAD_ADDRESS, "RCPT to nobody");
	ok(rcpt("TO:<a@x>", &everything, &to, &why) == COMMAND_BAD_ADDRESS &&
	       why == ADDRESS_UNQUALIFIED,
	   "RCPT unqualified");

	ok(command_line((const uint8_t *)"NOOP\r\nX", 7, &end) == 6 && end == 4, "a line");
	ok(command_line((const uint8_t *)"NO\nOP\r\n", 7, &end) == 7 && end == 5,
	   "a bare LF ends no line");
	ok(command_line((const uint8_t *)"NO\rOP\r\n", 7, &end) == 7 && end == 5,
	   "a bare CR ends no line");
	ok(!command_line((const uint8_t *)"NOOP\r", 5, &end) &&
	       !command_line((const uint8_t *)"\n", 1, &end),
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
	ok(rcpt("TO:<\xc3\xa4@x.example>", &everything, &to, &why) == COMMAND_BAD_ADDRESS &&
	       why == ADDRESS_NON_ASCII,
	   "8-bit is a kind of its own in an address");
	test_bdat();
	ok(command_parse_ehlo("[192.0.2.1]", 11, ehlo) && !strcmp(ehlo, "[192.0.2.1]"), "EHLO");
	ok(command_parse_ehlo(" \xc3\xa4 b-c", 7, ehlo) && !strcmp(ehlo, "???b-c"),
	   "what no name has is marked in EHLO");
	memset(longest, 'x', sizeof longest);
	ok(command_parse_ehlo(longest, 255, ehlo) && strlen(ehlo) == 255, "the longest EHLO");
	ok(!command_parse_ehlo("", 0, ehlo) && !command_parse_ehlo(" ", 1, ehlo) &&
	       !command_parse_ehlo(longest, 256, ehlo),
	   "bad EHLO");

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
	return tap_end();
}
