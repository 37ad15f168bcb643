#include <stdio.h>
#include <string.h>

#include "smtp/address.h"
#include "smtp/idna.h"
#include "t/unit/tap.h"

/* Addresses of RFC 6531, and names as IDNA2008 has them. */

#define L60 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwx"
#define L61 L60 "y"
#define L62 L61 "z"
#define L63 L62 "a"
#define U   "\xc3\xbc"
#define U8  U U U U U U U U
#define U32 U8 U8 U8 U8

static const struct {
	const char *text;
	enum address_error error;
	const char *out; /* canonical */
} paths[] = {
    /* local parts, kept as they are */
    {"<\xc3\xbc@x.example>", ADDRESS_OK, "\xc3\xbc@x.example"},
    {"<j\xc3\xb6rg@x.example>", ADDRESS_OK, "j\xc3\xb6rg@x.example"},
    {"<J\xc3\x96RG@X.example>", ADDRESS_OK, "J\xc3\x96RG@x.example"},
    {"<\xe9\x96\xa2\xe6\x89\x80@x.example>", ADDRESS_OK, "\xe9\x96\xa2\xe6\x89\x80@x.example"},
    {"<\xf0\x9f\x92\xa9@x.example>", ADDRESS_OK, "\xf0\x9f\x92\xa9@x.example"},
    {"<a.\xc3\xb6.b@x.example>", ADDRESS_OK, "a.\xc3\xb6.b@x.example"},
    {"<jo\xcc\x88rg@x.example>", ADDRESS_OK, "jo\xcc\x88rg@x.example"}, /* not normalized */
    {"<\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d\xe0\xa4\xb7@x.example>", ADDRESS_OK,
     "\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d\xe0\xa4\xb7@x.example"},
    {"<\"\xc3\xb6\"@x.example>", ADDRESS_OK, "\xc3\xb6@x.example"},
    {"<\"a.\xc3\xb6\"@x.example>", ADDRESS_OK, "a.\xc3\xb6@x.example"},
    {"<\"\xc3\xb6 b\"@x.example>", ADDRESS_OK, "\"\xc3\xb6 b\"@x.example"},
    {"<\"\xc3\xb6\\\"b\"@x.example>", ADDRESS_OK, "\"\xc3\xb6\\\"b\"@x.example"},
    {"<\"\\\xc3\xb6\"@x.example>", ADDRESS_OK, "\xc3\xb6@x.example"},
    {"<\"\xc3\xb6.\"@x.example>", ADDRESS_OK, "\"\xc3\xb6.\"@x.example"},
    {"<\xc3\xb6+tag@x.example>", ADDRESS_OK, "\xc3\xb6+tag@x.example"},
    {"<@\xc3\xa4.example:c@d.example>", ADDRESS_OK, "c@d.example"},
    {"<@\xc3\xa4.example,@b.example:\xc3\xb6@d.example>", ADDRESS_OK, "\xc3\xb6@d.example"},
    {"<j\xc3\xb6rg>", ADDRESS_UNQUALIFIED, ""},
    {"<j\xc3\xb6rg@b\xc3\xbcro>", ADDRESS_UNQUALIFIED, ""},
    {"<.\xc3\xb6@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6.@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6..\xc3\xb6@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6 b@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6>b@x.example>", ADDRESS_UNQUALIFIED, ""},
    {"<\"\xc3\xb6@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6\"b\"@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6(c)@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6@x.example", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6@>", ADDRESS_SYNTAX, ""},
    {"<\xc3\xb6@@x.example>", ADDRESS_SYNTAX, ""},
    /* no UTF-8, or nothing to be shown */
    {"<\xff@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xe9@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc3", ADDRESS_SYNTAX, ""},
    {"<\"\xc3\"@x.example>", ADDRESS_SYNTAX, ""},
    {"<\"\xe9\"@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xb6@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc0\x80@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xc0\xbc@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xe0\x80\xbe@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xed\xa0\x80@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xf4\x90\x80\x80@x.example>", ADDRESS_SYNTAX, ""},
    {"<a\xc2\x85@x.example>", ADDRESS_SYNTAX, ""},
    {"<a\xc2\x9b@x.example>", ADDRESS_SYNTAX, ""},
    {"<a\xc2\xa0@x.example>", ADDRESS_SYNTAX, ""},
    {"<\"a\xc2\x85\"@x.example>", ADDRESS_SYNTAX, ""},
    {"<a\xe2\x80\xa8@x.example>", ADDRESS_SYNTAX, ""},
    {"<a\xe2\x80\xaegro@x.example>", ADDRESS_SYNTAX, ""},
    {"<\xef\xbb\xbf@x.example>", ADDRESS_SYNTAX, ""},
    {"<a\xef\xbf\xbe@x.example>", ADDRESS_SYNTAX, ""},
    /* length in octets */
    {"<" U32 "@x.example>", ADDRESS_OK, U32 "@x.example"},
    {"<" U32 "a@x.example>", ADDRESS_TOO_LONG, ""},
    {"<a" U32 "@x.example>", ADDRESS_TOO_LONG, ""},
    {"<\"" U8 U8 U8 " " U8 "\"@x.example>", ADDRESS_TOO_LONG, ""},
    {"<" U "@" L63 "." L63 "." L63 "." L60 ">", ADDRESS_TOO_LONG, ""},
    {"<a" U "@" L63 "." L63 "." L61 "." L60 ">", ADDRESS_OK, "a" U "@" L63 "." L63 "." L61 "." L60},
    /* domains: one spelling of all */
    {"<a@b\xc3\xbc"
     "cher.example>",
     ADDRESS_OK, "a@xn--bcher-kva.example"},
    {"<a@B\xc3\x9c"
     "CHER.Example>",
     ADDRESS_OK, "a@xn--bcher-kva.example"},
    {"<a@bu\xcc\x88"
     "cher.example>",
     ADDRESS_OK, "a@xn--bcher-kva.example"},
    {"<a@xn--bcher-kva.example>", ADDRESS_OK, "a@xn--bcher-kva.example"},
    {"<a@XN--BCHER-KVA.example>", ADDRESS_OK, "a@xn--bcher-kva.example"},
    {"<\xc3\xb6@b\xc3\xbc"
     "cher.example>",
     ADDRESS_OK, "\xc3\xb6@xn--bcher-kva.example"},
    {"<a@stra\xc3\x9f"
     "e.example>",
     ADDRESS_OK, "a@xn--strae-oqa.example"}, /* not "strasse" */
    {"<a@\xcf\x83\xcf\x82.example>", ADDRESS_OK, "a@xn--3xab.example"},
    {"<a@\xe9\x96\xa2\xe6\x89\x80.example>", ADDRESS_OK, "a@xn--8ous75i.example"},
    {"<a@\xe9\x96\xa2\xe6\x89\x80\xe3\x80\x82"
     "example>",
     ADDRESS_OK, "a@xn--8ous75i.example"}, /* an ideographic full stop */
    {"<a@x.\xe9\x96\xa2>", ADDRESS_OK, "a@x.xn--2f5a"},
    {"<a@ab--cd.\xc3\xbc.example>", ADDRESS_OK, "a@ab--cd.xn--tda.example"},
    {"<a@\xd7\x90\xd7\x91"
     "1.example>",
     ADDRESS_OK, "a@xn--1-zhcd.example"},
    {"<a@\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d\xe0\xa4\xb7.example>", ADDRESS_OK,
     "a@xn--11b2ezcw70k.example"},
    {"<a@\xef\xbc\xb8.example>", ADDRESS_OK, "a@x.example"}, /* a wide X */
    {"<a@\xc3\xbc.example:25>", ADDRESS_SYNTAX, ""},
    {"<a@\xc3\xbc-.example>", ADDRESS_SYNTAX, ""},
    {"<a@-\xc3\xbc.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xc3\xbc..example>", ADDRESS_SYNTAX, ""},
    {"<a@.\xc3\xbc.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xc3\xbc.>", ADDRESS_SYNTAX, ""},
    {"<a@\xc3\xbc.-x.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xc3\xbc_x.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xc3\xbc x.example>", ADDRESS_SYNTAX, ""},
    {"<a@ab--\xc3\xbc.example>", ADDRESS_SYNTAX, ""},
    {"<a@xn--\xc3\xbc.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xe2\x98\x95.example>", ADDRESS_SYNTAX, ""},         /* DISALLOWED */
    {"<a@\xf0\x9f\x92\xa9.example>", ADDRESS_SYNTAX, ""},     /* DISALLOWED */
    {"<a@1\xd7\x90.example>", ADDRESS_SYNTAX, ""},            /* RFC 5893 */
    {"<a@\xc3\xbc\xe2\x80\x8d.example>", ADDRESS_SYNTAX, ""}, /* a joiner that joins nothing */
    {"<a@\xc3\xbc\xe2\x80\xae.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xe2\x84\x80.example>", ADDRESS_SYNTAX, ""}, /* maps to "a/c" */
    {"<a@\xc3\xbc\xe2\x84\x80.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xc3\xbc\xef\xbc\xa0x.example>", ADDRESS_SYNTAX, ""}, /* a wide "@" */
    {"<a@\xe2\x91\xa0.\xe2\x91\xa1>", ADDRESS_SYNTAX, ""},     /* maps to "1.2" */
    {"<a@\xff.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xc3.example>", ADDRESS_SYNTAX, ""},
    {"<a@\xc0\xae.example>", ADDRESS_SYNTAX, ""},
    {"<a@[\xc3\xbc]>", ADDRESS_SYNTAX, ""},
    {"<a@[IPv6:\xc3\xbc]>", ADDRESS_SYNTAX, ""},
    {"<@\xff.example:c@d.example>", ADDRESS_SYNTAX, ""},
    {"<a@" U32 U8 U8 ".example>", ADDRESS_OK, NULL}, /* 96 octets, an A-label of 53 */
    {"<a@" U32 U32 U32 U32 ".example>", ADDRESS_SYNTAX, ""},
    {"<a@" U "." L63 "." L63 "." L63 "." L63 ">", ADDRESS_SYNTAX, ""},
};

static const struct {
	const char *a, *b;
	bool equal;
} pairs[] = {
    {"j\xc3\xb6rg@x.example", "j\xc3\xb6rg@X.example", true},
    {"J\xc3\xb6rg@x.example", "j\xc3\xb6rg@x.example", true},
    {"jo\xcc\x88rg@x.example", "j\xc3\xb6rg@x.example", true},
    {"jorg@x.example", "j\xc3\xb6rg@x.example", false},
    {"jorg@x.example", "jo\xcc\x88rg@x.example", false},
    {"j\xc3\x96rg@x.example", "j\xc3\xb6rg@x.example", false}, /* case of ASCII alone */
    {"stra\xc3\x9f"
     "e@x.example",
     "strasse@x.example", false},
    {"a\xef\xbc\xa1@x.example", "aa@x.example", false}, /* a wide A is another character */
    {"a@b\xc3\xbc"
     "cher.example",
     "a@xn--bcher-kva.example", true},
    {"a@b\xc3\xbc"
     "cher.example",
     "a@bucher.example", false},
};

static const struct {
	const char *ascii, *unicode;
} names[] = {
    {"xn--bcher-kva.example", "b\xc3\xbc"
                              "cher.example"},
    {"x.example", "x.example"},
    {"xn--8ous75i.xn--2f5a", "\xe9\x96\xa2\xe6\x89\x80.\xe9\x96\xa2"},
    {"xn--zzzzzz.example", "xn--zzzzzz.example"}, /* none that IDNA2008 knows */
    {"xn--ls8h.example", "xn--ls8h.example"},
    {"[192.0.2.1]", "[192.0.2.1]"},
};

int
main(void)
{
	struct address address, other;
	char text[ADDRESS_TEXT_SIZE], unicode[IDNA_UNICODE_SIZE];
	size_t used;

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		const char *p = paths[i].text;
		enum address_error error =
		    address_parse_path(p, strlen(p), true, true, &address, &used);
		address_format(&address, text, sizeof text);
		bool good = error == paths[i].error &&
		            (!paths[i].out || !strcmp(text, paths[i].out)) &&
		            (error ? address_is_null(&address) : p[used - 1] == '>');
		if (good && !error)
			good = address_parse(text, strlen(text), &other) == ADDRESS_OK &&
			       !strcmp(address.local, other.local) &&
			       !strcmp(address.domain, other.domain);
		ok_of(good, "path", p);
	}
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		ok_of(address_parse(pairs[i].a, strlen(pairs[i].a), &address) == ADDRESS_OK &&
		          address_parse(pairs[i].b, strlen(pairs[i].b), &other) == ADDRESS_OK &&
		          address_equal(&address, &other) == pairs[i].equal,
		      pairs[i].equal ? "equal" : "different", pairs[i].a);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		ok_of(!strcmp(idna_to_unicode(names[i].ascii, unicode), names[i].unicode),
		      "name for people", names[i].ascii);
	return tap_end();
}
