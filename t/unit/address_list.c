#include <stdio.h>
#include <string.h>

#include "smtp/address.h"
#include "t/unit/tap.h"

/* Bodies of From and Sender fields. */

#define L60 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwx"
#define L61 L60 "y"
#define L62 L61 "z"
#define L63 L62 "a"
#define L64 L63 "b"

static const struct {
	const char *body;
	const char *out; /* mailboxes joined by a blank, NULL: error */
} lists[] = {
    /* RFC 5322 section 3.4.1: addr-spec */
    {"a@x.example", "a@x.example"},
    {"a.b@x.example", "a.b@x.example"},
    {"a+b@x.example", "a+b@x.example"},
    {"a@[192.0.2.1]", "a@[192.0.2.1]"},
    {"a@[IPv6:::1]", "a@[IPv6:::1]"},
    {"o'brien@x.example", "o'brien@x.example"},
    {"a@localhost", "a@localhost"},
    {"a@xn--bcher-kva.example", "a@xn--bcher-kva.example"},
    {"=?a?=@x.example", "=?a?=@x.example"},
    {"A@X.Example", "A@x.example"},
    {" a@x.example ", "a@x.example"},
    {"\ta@x.example\t", "a@x.example"},
    {"\"a\"@x.example", "a@x.example"},
    {"\"a b\"@x.example", "\"a b\"@x.example"},
    {"\"a\\\"b\"@x.example", "\"a\\\"b\"@x.example"},
    {"\"a,b\"@x.example", "\"a,b\"@x.example"},
    {"\"\"@x.example", "\"\"@x.example"},
    {"\"a@b\"@x.example", "\"a@b\"@x.example"},
    {"alice", NULL},
    {"alice@", NULL},
    {"@x.example", NULL},
    {"a@@x.example", NULL},
    {"a@x@y.example", NULL},
    {".a@x.example", NULL},
    {"a.@x.example", NULL},
    {"a..b@x.example", NULL},
    {"a@.x.example", NULL},
    {"a@x..example", NULL},
    {"a@x.example.", NULL},
    {"a@-x.example", NULL},
    {"a@x-.example", NULL},
    {"a@x_y.example", NULL},
    {"a b@x.example", NULL},
    {"a@x example", NULL},
    {"a@x.example b", NULL},
    {"a@[192.0.2.256]", NULL},
    {"a@[", NULL},
    {"a@[]", NULL},
    {"a@[1.2.3.4", NULL},
    {"a@[x.example]", NULL},
    {"a@192.0.2.1", NULL},
    {"a\x01@x.example", NULL},
    {"a@x.example\x01", NULL},
    {"\x01", NULL},
    {"a@\xc3\xa4.example", "a@xn--4ca.example"}, /* RFC 6532 */
    {"\xc3\xa4@x.example", "\xc3\xa4@x.example"},
    {"\"\xc3\xa4\"@x.example", "\xc3\xa4@x.example"},
    {"j\xc3\xb6@x.example", "j\xc3\xb6@x.example"},
    {"J\xc3\xb6 <j\xc3\xb6@b\xc3\xbc.example>, a@x.example",
     "j\xc3\xb6@xn--b-eha.example a@x.example"},
    {"\"j \xc3\xb6\"@x.example", "\"j \xc3\xb6\"@x.example"},
    {"j\xc3\xb6 . k (\xc3\xb6) @ b\xc3\xbc . example", "j\xc3\xb6.k@xn--b-eha.example"},
    {"a@B\xc3\x9c.example", "a@xn--b-eha.example"},
    {"G\xc3\xb6: \xc3\xb6@x.example;", "\xc3\xb6@x.example"},
    {"<@b\xc3\xbc.example:a@x.example>", "a@x.example"},
    {"\xc3@x.example", NULL},
    {"\xff <\xff@x.example>", NULL},
    {"a@\xff.example", NULL},
    {"a@\xe2\x98\x95.example", NULL}, /* DISALLOWED in IDNA2008 */
    {"a\xe2\x80\xae@x.example", NULL},
    {"\xc2\x85@x.example", NULL},
    {"\"\xff\"@x.example", NULL},
    {"\xed\xa0\x80@x.example", NULL},
    {"\xc0\xae@x.example", NULL},
    {"\"a\x01"
     "b\"@x.example",
     NULL},
    {"a\\b@x.example", NULL},
    {"[a]@x.example", NULL},
    {"a]@x.example", NULL},
    {")a@x.example", NULL},
    {"a@x.example)", NULL},
    {"\\", NULL},
    /* name-addr */
    {"Alice <a@x.example>", "a@x.example"},
    {"Alice<a@x.example>", "a@x.example"},
    {"Alice Smith <a@x.example>", "a@x.example"},
    {"  Alice  <  a@x.example  >  ", "a@x.example"},
    {"\"Alice\" <a@x.example>", "a@x.example"},
    {"\"Smith, Alice\" <a@x.example>", "a@x.example"},
    {"\"Alice <m@y.example>\" <a@x.example>", "a@x.example"},
    {"\"Alice \\\"Al\\\" Smith\" <a@x.example>", "a@x.example"},
    {"\"m@y.example\" <a@x.example>", "a@x.example"},
    {"\"a\\\\\" <a@x.example>", "a@x.example"},
    {"\"\" <a@x.example>", "a@x.example"},
    {"<a@x.example>", "a@x.example"},
    {" <a@x.example>", "a@x.example"},
    {"J. R. Smith <a@x.example>", "a@x.example"},
    {"J.R.Smith <a@x.example>", "a@x.example"},
    {"Dr. \"Al\" Smith <a@x.example>", "a@x.example"},
    {"... <a@x.example>", "a@x.example"},
    {"O'Brien <a@x.example>", "a@x.example"},
    {"!#$%&*+-/=?^_`{|}~ <a@x.example>", "a@x.example"},
    {"Alice_1 <a@x.example>", "a@x.example"},
    {"\"Alice\tSmith\" <a@x.example>", "a@x.example"},
    {"\"<>\" <a@x.example>", "a@x.example"},
    {"\":;,()\" <a@x.example>", "a@x.example"},
    {"\"=?utf-8?q?x?=\" <a@x.example>", "a@x.example"},
    {"Alice <>", NULL},
    {"<>", NULL},
    {"<", NULL},
    {">", NULL},
    {"Alice <a@x.example", NULL},
    {"Alice a@x.example>", NULL},
    {"Alice <alice>", NULL},
    {"Alice <@x.example>", NULL},
    {"Alice <a@x.example> <b@x.example>", NULL},
    {"Alice <a@x.example> Smith", NULL},
    {"Alice <<a@x.example>>", NULL},
    {"Alice <a@x.example>>", NULL},
    {"Alice <a@x.example, b@x.example>", NULL},
    {"Alice <a b@x.example>", NULL},
    {"Smith, Alice <a@x.example>", NULL},
    {"Alice: <a@x.example> x", NULL},
    {"Alice [x] <a@x.example>", NULL},
    {"Alice \\ <a@x.example>", NULL},
    {"\"Alice <a@x.example>", NULL},
    {"Alice\" <a@x.example>", NULL},
    {"Alice (c <a@x.example>", NULL},
    {"Alice) <a@x.example>", NULL},
    {"\"Alice\\\" <a@x.example>", NULL},
    {"Alice\x01 <a@x.example>", NULL},
    {"mailto:a@x.example b", NULL},
    {"Alice <mailto:a@x.example>", NULL},
    {"Alice <a@x.example;>", NULL},
    /* a display name that should be quoted: nobody may hide behind it */
    {"a@x.example <a@x.example>", "a@x.example a@x.example"},
    {"a@x.example <m@y.example>", "a@x.example m@y.example"},
    {"Alice @ Home <a@x.example>", "Alice@home a@x.example"},
    {"m@y.example<a@x.example>", "m@y.example a@x.example"},
    {"a@x.example (c) <m@y.example>, b@x.example", "a@x.example m@y.example b@x.example"},
    {"a@x.example b <a@x.example>", NULL},
    {"a@x.example b@x.example", NULL},
    {"a@x.example <a@x.example> <b@x.example>", NULL},
    {"a@x.example \"b\" <a@x.example>", NULL},
    {"a@x.example <>", NULL},
    {"b a@x.example <a@x.example>", NULL},
    /* encoded words (RFC 2047) and 8-bit names are words like others */
    {"=?UTF-8?Q?J=C3=B6rg?= <a@x.example>", "a@x.example"},
    {"=?utf-8?B?SsO2cmc=?= <a@x.example>", "a@x.example"},
    {"=?iso-2022-jp?B?GyRCNFg9ahsoQg==?= <a@x.example>", "a@x.example"},
    {"=?utf-8?q?a?= =?utf-8?q?b?= <a@x.example>", "a@x.example"},
    {"=?utf-8?q?m=40y=2Eexample?= <a@x.example>", "a@x.example"},
    {"=?utf-8?q?=3Cm=40y=2Eexample=3E?= <a@x.example>", "a@x.example"},
    {"J\xc3\xb6rg <a@x.example>", "a@x.example"},
    {"\"J\xc3\xb6rg\" <a@x.example>", "a@x.example"},
    {"\xe9\x96\xa2\xe6\x89\x80 <a@x.example>", "a@x.example"},
    {"\xff\xfe <a@x.example>", "a@x.example"},
    {"a@x.example (J\xc3\xb6rg)", "a@x.example"},
    {"=?utf-8?q?m@y.example?= <a@x.example>", NULL}, /* no word: RFC 2047 section 5 (3) */
    {"=?utf-8?q?Smith,_A?= <a@x.example>", NULL},
    {"=?utf-8?q?a<m@y.example>?= <a@x.example>", NULL},
    /* comments (section 3.2.2) */
    {"(c)a@x.example", "a@x.example"},
    {"a@x.example(c)", "a@x.example"},
    {"a@x.example (Alice)", "a@x.example"},
    {"a@x.example (c, with (nested) comma)", "a@x.example"},
    {"(c) a (c) @ (c) x . example (c)", "a@x.example"},
    {"((((a))))a@x.example", "a@x.example"},
    {"(\\()a@x.example", "a@x.example"},
    {"(\\)) a@x.example", "a@x.example"},
    {"(\")a@x.example", "a@x.example"},
    {"(m@y.example) a@x.example", "a@x.example"},
    {"(<m@y.example>,) a@x.example", "a@x.example"},
    {"Alice (m@y.example) <a@x.example>", "a@x.example"},
    {"Alice <(c)a@x.example(c)>", "a@x.example"},
    {"()a@x.example", "a@x.example"},
    {"( a@x.example", NULL},
    {"Alice (\") <a@x.example> (\")", "a@x.example"},
    {"(a\\\\)a@x.example", "a@x.example"},
    {"(", NULL},
    {"((c)a@x.example", NULL},
    {"a@x.example (open", NULL},
    {"a@x.example (c\\)", NULL},
    {"a@x.example (\\", NULL},
    {"(c)", ""},
    {"a(c)b@x.example", NULL},
    {"a@x(c)y.example", NULL},
    /* lists and groups (RFC 5322 section 3.4, RFC 6854) */
    {"a@x.example, b@x.example", "a@x.example b@x.example"},
    {"a@x.example,b@x.example,c@x.example", "a@x.example b@x.example c@x.example"},
    {"A <a@x.example>, \"B, C\" <b@x.example>", "a@x.example b@x.example"},
    {"Group: a@x.example, B <b@x.example>;", "a@x.example b@x.example"},
    {"Group:a@x.example;", "a@x.example"},
    {"\"G:H\": a@x.example;", "a@x.example"},
    {"undisclosed:;", ""},
    {"undisclosed-recipients: ;", ""},
    {"G (c) : (c) ; (c)", ""},
    {"G: a@x.example; , b@y.example", "a@x.example b@y.example"},
    {"G: a@x.example;, H: b@y.example;", "a@x.example b@y.example"},
    {"c@z.example, G: a@x.example;", "c@z.example a@x.example"},
    {"G: a@x.example", "a@x.example"},
    {"G: H: a@x.example;;", "a@x.example"},
    {"G: a@x.example; b@y.example", "a@x.example b@y.example"},
    {"mailto:a@x.example", "a@x.example"},
    {",, a@x.example,", "a@x.example"},
    {",", ""},
    {";", ""},
    {" , , ", ""},
    {"", ""},
    {"   ", ""},
    {"a@x.example;", "a@x.example"},
    {"a@x.example; b@x.example", "a@x.example b@x.example"},
    {"a@x.example, (c) , b@x.example", "a@x.example b@x.example"},
    {":", NULL},
    {":a@x.example", NULL},
    {"G", NULL},
    {"G:a", NULL},
    {"G: a@x.example, b", NULL},
    {"a@x.example:", NULL},
    {"a@x.example: b@x.example;", NULL},
    {"<a@x.example>: b@x.example", NULL},
    {"G; a@x.example", NULL},
    {"a@x.example, b", NULL},
    {"a@x.example, <>", NULL},
    {"a@x.example, \"b", NULL},
    {"(c):a@x.example", NULL},
    {"a@x.example,:", NULL},
    /* obsolete forms (section 4.4) */
    {"<@r.example:a@x.example>", "a@x.example"},
    {"Alice <@r.example,@s.example:a@x.example>", "a@x.example"},
    {"J. R. Doe <a . b @ x.example>", "a.b@x.example"},
    {"a . b @ x . example", "a.b@x.example"},
    {"\"a\" . b@x.example", "a.b@x.example"},
    {"a.\"b c\"@x.example", "\"a.b c\"@x.example"},
    {"\"a\".\"b\"@x.example", "a.b@x.example"},
    {"a @ [192.0.2.1]", "a@[192.0.2.1]"},
    {"a . . b@x.example", NULL},
    {"\"a\" \"b\"@x.example", NULL},
    {"\"a\"b@x.example", NULL},
    {"a@x . . example", NULL},
    {"a@ . x.example", NULL},
    {"a@x.example . ", NULL},
    {"<@r.example a@x.example>", NULL},
    {"<@r.example,:a@x.example>", NULL},
    {"<@r.example:>", NULL},
    {"@r.example:a@x.example", NULL},
    {"a@[ 192.0.2.1 ]", NULL},
    /* length limits, as in the envelope */
    {L64 "@x.example", L64 "@x.example"},
    {L64 "a@x.example", NULL},
    {"\"" L61 " \"@x.example", "\"" L61 " \"@x.example"},
    {"\"" L61 "  \"@x.example", NULL},
    {L64 L64 L64 " <a@x.example>", "a@x.example"},
    {"\"" L64 L64 "\" <a@x.example>", "a@x.example"},
    {"a@" L63 ".example", "a@" L63 ".example"},
    {"a@" L64 ".example", NULL},
    {"a@" L63 "." L63 "." L63 "." L60, "a@" L63 "." L63 "." L63 "." L60},
    {"a@" L63 "." L63 "." L63 "." L61, NULL},
    {"a@" L63 "." L63 "." L63 "." L63 "." L63, NULL},
};

int
main(void)
{
	struct address address;
	char text[ADDRESS_TEXT_SIZE];

	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		char all[1024] = "";
		size_t at = 0;
		bool utf8 = false;
		int n;
		while ((n = address_list_next(lists[i].body, strlen(lists[i].body), &at, &address,
		                              &utf8)) == 1) {
			if (all[0])
				strcat(all, " ");
			strcat(all, address_format(&address, text, sizeof text));
		}
		ok_of(n < 0 ? !lists[i].out : lists[i].out && !strcmp(all, lists[i].out), "list",
		      lists[i].body);
	}
	static const struct {
		const char *body;
		bool utf8;
	} written[] = {
	    {"J\xc3\xb6rg <a@x.example>", false},
	    {"a@x.example (\xc3\xb6)", false},
	    {"a@b\xc3\xbc.example", true},
	    {"<a@b\xc3\xbc.example>, a@x.example", true},
	    {"a@x.example, \xc3\xb6@x.example", true},
	    {"a@xn--b-eha.example", false},
	};
	for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
		bool utf8 = false;
		size_t at = 0;
		while (address_list_next(written[i].body, strlen(written[i].body), &at, &address,
		                         &utf8) == 1) {
		}
		ok_of(utf8 == written[i].utf8, "written in UTF-8 or not", written[i].body);
	}
	return tap_end();
}
