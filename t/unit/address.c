#include <stdio.h>
#include <string.h>

#include "smtp/address.h"

static int count, failures;

static void
ok(bool good, const char *name, const char *what)
{
	printf("%sok %d - %s %s\n", good ? "" : "not ", ++count, name, what);
	failures += !good;
}

static const struct {
	const char *text;
	enum address_error error;
	const char *out; /* canonical */
} paths[] = {
    {"<alice@example.org>", ADDRESS_OK, "alice@example.org"},
    {"<Alice@EXAMPLE.org> SIZE=1", ADDRESS_OK, "Alice@example.org"},
    {"<>", ADDRESS_OK, ""},
    {"<@a.example,@b.example:c@d.example>", ADDRESS_OK, "c@d.example"},
    {"<\"alice\"@example.org>", ADDRESS_OK, "alice@example.org"},
    {"<\"a b\"@example.org>", ADDRESS_OK, "\"a b\"@example.org"},
    {"<\"a\\\"b\"@example.org>", ADDRESS_OK, "\"a\\\"b\"@example.org"},
    {"<\"a>b\"@example.org>", ADDRESS_OK, "\"a>b\"@example.org"},
    {"<\"\"@example.org>", ADDRESS_OK, "\"\"@example.org"},
    {"<a@[192.0.2.1]>", ADDRESS_OK, "a@[192.0.2.1]"},
    {"<a@[ipv6:2001:DB8::1]>", ADDRESS_OK, "a@[IPv6:2001:db8::1]"},
    {"<a+b=c@x-y.example>", ADDRESS_OK, "a+b=c@x-y.example"},
    {"<a@localhost>", ADDRESS_UNQUALIFIED, ""},
    {"<postmaster>", ADDRESS_UNQUALIFIED, ""},
    {"<\xc3\xa4@example.org>", ADDRESS_NON_ASCII, ""},
    {"<a@\xc3\xa4.example>", ADDRESS_NON_ASCII, ""},
    {"a@example.org", ADDRESS_SYNTAX, ""},
    {"<a@example.org", ADDRESS_SYNTAX, ""},
    {"<a@example.org.>", ADDRESS_SYNTAX, ""},
    {"<a@.example.org>", ADDRESS_SYNTAX, ""},
    {"<a@ex..org>", ADDRESS_SYNTAX, ""},
    {"<a@-x.org>", ADDRESS_SYNTAX, ""},
    {"<a@x-.org>", ADDRESS_SYNTAX, ""},
    {"<.a@example.org>", ADDRESS_SYNTAX, ""},
    {"<a.@example.org>", ADDRESS_SYNTAX, ""},
    {"<a..b@example.org>", ADDRESS_SYNTAX, ""},
    {"<a b@example.org>", ADDRESS_SYNTAX, ""},
    {"<@example.org>", ADDRESS_SYNTAX, ""},
    {"<a@b@c.example>", ADDRESS_SYNTAX, ""},
    {"<a@[192.0.2.256]>", ADDRESS_SYNTAX, ""},
    {"<a@[IPv6:zz]>", ADDRESS_SYNTAX, ""},
    {"<\"a@example.org>", ADDRESS_SYNTAX, ""},
    {"<a@example.org\t>", ADDRESS_SYNTAX, ""},
    {"<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@x.example>", ADDRESS_OK,
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@x.example"},
    {"<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@x.example>",
     ADDRESS_TOO_LONG, ""},
};

static const struct {
	const char *body;
	const char *out; /* mailboxes joined by a blank, NULL: error */
} lists[] = {
    {"alice@example.org", "alice@example.org"},
    {" Alice <alice@example.org>", "alice@example.org"},
    {"\"Doe, Jane\" <jane@example.org>, bob@Example.net", "jane@example.org bob@example.net"},
    {"Group: a@x.example, B <b@x.example>;", "a@x.example b@x.example"},
    {"undisclosed:;", ""},
    {"a@x.example (comment, with (nested) comma)", "a@x.example"},
    {"(c) a (c) @ (c) x . example (c)", "a@x.example"},
    {"J. R. Doe <a . b @ x.example>", "a.b@x.example"},
    {"<@r.example:a@x.example>", "a@x.example"},
    {"\"a b\"@x.example", "\"a b\"@x.example"},
    {"J\xc3\xb6rg <j@x.example>", "j@x.example"},
    {"\"J\xc3\xb6rg\" <j@x.example>", "j@x.example"},
    {",, a@x.example,", "a@x.example"},
    {"a@localhost", "a@localhost"},
    {"a@[192.0.2.1]", "a@[192.0.2.1]"},
    {"", ""},
    {"alice", NULL},
    {"<>", NULL},
    {"Alice <alice>", NULL},
    {"a@x.example b@x.example", NULL},
    {"A <a@x.example> <b@x.example>", NULL},
    {"A <a@x.example", NULL},
    {"a@x.example (open", NULL},
    {"\"open a@x.example", NULL},
    {"a b@x.example", NULL},
    {"a@x example", NULL},
    {"j\xc3\xb6@x.example", NULL},
    {"@x.example", NULL},
    {":a@x.example", NULL},
};

int
main(void)
{
	struct address address, other;
	char text[ADDRESS_TEXT_SIZE];
	size_t used;

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		const char *p = paths[i].text;
		enum address_error error = address_parse_path(p, strlen(p), true, &address, &used);
		ok(error == paths[i].error &&
		       !strcmp(address_format(&address, text, sizeof text), paths[i].out) &&
		       (error || p[used - 1] == '>'),
		   "path", i < 14 || p[1] > 0 ? p : "8-bit");
	}
	ok(address_parse_path("<>", 2, false, &address, &used) == ADDRESS_SYNTAX, "path",
	   "null where none may be");
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		char all[1024] = "";
		size_t at = 0;
		int n;
		while ((n = address_list_next(lists[i].body, strlen(lists[i].body), &at,
		                              &address)) == 1) {
			if (all[0])
				strcat(all, " ");
			strcat(all, address_format(&address, text, sizeof text));
		}
		ok(n < 0 ? !lists[i].out : lists[i].out && !strcmp(all, lists[i].out), "list",
		   lists[i].body);
	}
	ok(address_parse("Bob@Example.org", 15, &address) == ADDRESS_OK &&
	       address_parse("bob@example.ORG", 15, &other) == ADDRESS_OK &&
	       address_equal(&address, &other),
	   "mailbox", "compares with case folded");
	ok(address_parse("bob@example.org ", 16, &address) == ADDRESS_SYNTAX, "mailbox",
	   "must fill the text");
	ok(address_parse("", 0, &address) != ADDRESS_OK && address_is_null(&address), "mailbox",
	   "empty");
	printf("1..%d\n", count);
	return failures != 0;
}
