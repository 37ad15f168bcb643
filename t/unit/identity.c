/* Who may send as whom: the forms that people type, the match against a table, sets that travel,
 * and the table on disk with its rules. */
#include "auth/grants.h"
#include "auth/identity.h"
#include "t/unit/tap.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What is typed */

#define UE "\xc3\xbc" /* u with diaeresis, apart from the letters of a number that follow */

static const struct {
	const char *typed;
	enum identity_kind kind; /* IDENTITY_ANY: it is none */
	const char *text;
} forms[] = {
    {"info@example.net", IDENTITY_ADDRESS, "info@example.net"},
    {"Info@EXAMPLE.Net", IDENTITY_ADDRESS, "info@example.net"},
    {"\"info\"@example.net", IDENTITY_ADDRESS, "info@example.net"},
    {"\"In Fo\"@example.net", IDENTITY_ADDRESS, "\"in fo\"@example.net"},
    {"info+june@example.net", IDENTITY_ADDRESS, "info+june@example.net"},
    {"info@[192.0.2.1]", IDENTITY_ADDRESS, "info@[192.0.2.1]"},
    {"info@[IPv6:2001:DB8:0:0::1]", IDENTITY_ADDRESS, "info@[ipv6:2001:db8::1]"},
    {"@example.net", IDENTITY_DOMAIN, "@example.net"},
    {"@EXAMPLE.net", IDENTITY_DOMAIN, "@example.net"},
    {"@[192.0.2.1]", IDENTITY_DOMAIN, "@[192.0.2.1]"},
    {"@.example.net", IDENTITY_SUBDOMAINS, "@.example.net"},
    {"@.Example.NET", IDENTITY_SUBDOMAINS, "@.example.net"},
    {"caf\xc3\xa9@example.net", IDENTITY_ADDRESS, "caf\xc3\xa9@example.net"},
    {"cafe\xcc\x81@example.net", IDENTITY_ADDRESS, "caf\xc3\xa9@example.net"},
    {"Info@B" UE "cher.example", IDENTITY_ADDRESS, "info@xn--bcher-kva.example"},
    {"@b" UE "cher.example", IDENTITY_DOMAIN, "@xn--bcher-kva.example"},
    {"@XN--bcher-kva.example", IDENTITY_DOMAIN, "@xn--bcher-kva.example"},
    {"@.b" UE "cher.example", IDENTITY_SUBDOMAINS, "@.xn--bcher-kva.example"},
    {"@\xff.example", IDENTITY_ANY, ""},
    {"\xff@example.net", IDENTITY_ANY, ""},
    {"", IDENTITY_ANY, ""},
    {"@", IDENTITY_ANY, ""},
    {"@.", IDENTITY_ANY, ""},
    {"@..", IDENTITY_ANY, ""},
    {"@net", IDENTITY_ANY, ""},
    {"@.net", IDENTITY_ANY, ""},
    {"@.[192.0.2.1]", IDENTITY_ANY, ""},
    {"@..example.net", IDENTITY_ANY, ""},
    {"@@example.net", IDENTITY_ANY, ""},
    {"@example.net.", IDENTITY_ANY, ""},
    {"@*.example.net", IDENTITY_ANY, ""},
    {"*@example.net", IDENTITY_ADDRESS, "*@example.net"}, /* a name like any other */
    {"example.net", IDENTITY_ANY, ""},
    {".example.net", IDENTITY_ANY, ""},
    {"info", IDENTITY_ANY, ""},
    {"info@", IDENTITY_ANY, ""},
    {"info@net", IDENTITY_ANY, ""},
    {"<info@example.net>", IDENTITY_ANY, ""},
    {"info@example.net ", IDENTITY_ANY, ""},
    {" info@example.net", IDENTITY_ANY, ""},
    {"info@example.net,b@example.net", IDENTITY_ANY, ""},
    {"in fo@example.net", IDENTITY_ANY, ""},
    {"@example.net\n", IDENTITY_ANY, ""},
};

static void
test_forms(void)
{
	struct identity got;
	char longest[400] = "@";

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		const bool good = identity_parse(forms[i].typed, strlen(forms[i].typed), &got);

		ok_of(good == (forms[i].kind != IDENTITY_ANY) &&
		          (!good ||
		           (got.kind == forms[i].kind && strcmp(got.text, forms[i].text) == 0)),
		      "form", forms[i].typed[0] != '\0' ? forms[i].typed : "(empty)");
	}
	ok_of(!identity_parse("@example.net\0x", 14, &got), "form", "with a NUL");
	while (strlen(longest) < 240)
		strcat(longest, "abcdefghi.");
	strcat(longest, "example");
	ok_of(identity_parse(longest, strlen(longest), &got) && strcmp(got.text, longest) == 0,
	      "form", "a long domain");
	strcat(longest, ".example.example");
	ok_of(!identity_parse(longest, strlen(longest), &got), "form", "one that is too long");
}

/* The match: one account's identities, and every question about them. */

static const struct {
	enum identity_kind kind;
	const char *text;
} granted[] = {
    {IDENTITY_ADDRESS, "info@example.net"},
    {IDENTITY_ADDRESS, "\"in fo\"@example.net"},
    {IDENTITY_ADDRESS, "tagged+one@example.net"},
    {IDENTITY_DETAILS, "sales@example.net"},
    {IDENTITY_DETAILS, "a+b@example.net"},
    {IDENTITY_DELEGATION, "boss@example.net"},
    {IDENTITY_DOMAIN, "@company.example"},
    {IDENTITY_DOMAIN, "@[192.0.2.1]"},
    {IDENTITY_SUBDOMAINS, "@.hosting.example"},
    {IDENTITY_ADDRESS, "special@company.example"},
    {IDENTITY_DETAILS, "caf\xc3\xa9@example.net"},
    {IDENTITY_DOMAIN, "@xn--bcher-kva.example"},
    {IDENTITY_SUBDOMAINS, "@.xn--bcher-kva.example"},
};

#define NO IDENTITY_KINDS + 1
static const struct {
	const char *address;
	char separator;
	unsigned kind; /* NO: not allowed */
	bool detail;
} questions[] = {
    /* the account's name */
    {"alice@example.net", '+', IDENTITY_OWN, false},
    {"ALICE@Example.NET", '+', IDENTITY_OWN, false},
    {"\"alice\"@example.net", '+', IDENTITY_OWN, false},
    {"\"ALICE\"@example.net", '+', IDENTITY_OWN, false},
    {"alice+x@example.net", '+', IDENTITY_OWN, true},
    {"ALICE+X@example.net", '+', IDENTITY_OWN, true},
    {"alice+x+y@example.net", '+', IDENTITY_OWN, true},
    {"alice++@example.net", '+', IDENTITY_OWN, true},
    {"alice+x.y@example.net", '+', IDENTITY_OWN, true},
    {"\"alice+x\"@example.net", '+', IDENTITY_OWN, true}, /* quotes that change nothing */
    {"alice+@example.net", '+', NO, false},               /* no detail at all */
    {"+alice@example.net", '+', NO, false},
    {"x+alice@example.net", '+', NO, false},
    {"alice-x@example.net", '+', NO, false},
    {"alicex@example.net", '+', NO, false},
    {"alic@example.net", '+', NO, false},
    {"\"alice+x y\"@example.net", '+', NO, false}, /* a quoted name has no detail */
    {"\"alice \"@example.net", '+', NO, false},
    {"alice.@example.org", '+', NO, false},
    {"alice+x@example.net", '\0', NO, false},
    {"alice+x@example.net", '-', NO, false},
    {"alice-x@example.net", '-', IDENTITY_OWN, true},
    {"alice-x-y@example.net", '-', IDENTITY_OWN, true},
    {"alice-@example.net", '-', NO, false},
    {"alice_x@example.net", '_', IDENTITY_OWN, true},
    {"alice=x@example.net", '=', IDENTITY_OWN, true},
    {"alice@example.org", '+', NO, false},
    {"alice@sub.example.net", '+', NO, false},
    {"alice@example.net.org", '+', NO, false},
    {"alice@xexample.net", '+', NO, false},
    {"alice+x@example.org", '+', NO, false},
    /* an address is that address */
    {"info@example.net", '+', IDENTITY_ADDRESS, false},
    {"Info@Example.Net", '+', IDENTITY_ADDRESS, false},
    {"info+x@example.net", '+', NO, false},
    {"info@example.org", '+', NO, false},
    {"nfo@example.net", '+', NO, false},
    {"infoo@example.net", '+', NO, false},
    {"\"in fo\"@example.net", '+', IDENTITY_ADDRESS, false},
    {"\"In Fo\"@example.net", '+', IDENTITY_ADDRESS, false},
    {"\"in  fo\"@example.net", '+', NO, false},
    {"tagged+one@example.net", '+', IDENTITY_ADDRESS, false},
    {"tagged@example.net", '+', NO, false},
    {"tagged+two@example.net", '+', NO, false},
    {"tagged+one+two@example.net", '+', NO, false},
    {"tagged+one@example.net", '\0', IDENTITY_ADDRESS, false},
    /* with details */
    {"sales@example.net", '+', IDENTITY_DETAILS, false},
    {"sales+june@example.net", '+', IDENTITY_DETAILS, true},
    {"sales+june@example.org", '+', NO, false},
    {"sales-june@example.net", '-', IDENTITY_DETAILS, true},
    {"sales+june@example.net", '\0', NO, false},
    {"a+b@example.net", '+', IDENTITY_DETAILS, false},
    {"a+b+c@example.net", '+', IDENTITY_DETAILS, true},
    {"a+c@example.net", '+', NO, false},
    {"a@example.net", '+', NO, false},
    {"a+bc@example.net", '+', NO, false},
    /* another account */
    {"boss@example.net", '+', IDENTITY_DELEGATION, false},
    {"boss+x@example.net", '+', IDENTITY_DELEGATION, true},
    {"boss+x@example.net", '\0', NO, false},
    {"bigboss@example.net", '+', NO, false},
    /* a domain */
    {"anybody@company.example", '+', IDENTITY_DOMAIN, false},
    {"anybody+x@Company.Example", '+', IDENTITY_DOMAIN, false},
    {"\"any body\"@company.example", '+', IDENTITY_DOMAIN, false},
    {"\"at@sign\"@company.example", '+', IDENTITY_DOMAIN, false},
    {"special@company.example", '+', IDENTITY_ADDRESS, false},
    {"x@sub.company.example", '+', NO, false},
    {"x@mycompany.example", '+', NO, false},
    {"x@company.example.org", '+', NO, false},
    {"\"x@company.example\"@elsewhere.example", '+', NO, false},
    {"x@[192.0.2.1]", '+', IDENTITY_DOMAIN, false},
    {"x@[192.0.2.10]", '+', NO, false},
    /* all below one */
    {"x@a.hosting.example", '+', IDENTITY_SUBDOMAINS, false},
    {"x@b.a.hosting.example", '+', IDENTITY_SUBDOMAINS, false},
    {"x@C.B.a.Hosting.example", '+', IDENTITY_SUBDOMAINS, false},
    {"x@hosting.example", '+', NO, false},
    {"x@ahosting.example", '+', NO, false},
    {"x@a.hosting.example.org", '+', NO, false},
    {"\"x@a.hosting.example\"@elsewhere.example", '+', NO, false},
    {"x@[IPv6:2001:db8::1]", '+', NO, false},
    /* other scripts: local parts in either normal form, domains as U- or A-labels */
    {"caf\xc3\xa9@example.net", '+', IDENTITY_DETAILS, false},
    {"cafe\xcc\x81@example.net", '+', IDENTITY_DETAILS, false},
    {"CAF\xc3\xa9@example.net", '+', IDENTITY_DETAILS, false},
    {"CAF\xc3\x89@example.net", '+', NO, false}, /* case is folded in ASCII alone */
    {"cafe@example.net", '+', NO, false},
    {"caf\xc3\xa9+na\xc3\xafve@example.net", '+', IDENTITY_DETAILS, true},
    {"alice+caf\xc3\xa9@example.net", '+', IDENTITY_OWN, true},
    {"\xd0\xb0lice@example.net", '+', NO, false}, /* a Cyrillic letter */
    {"x@b" UE "cher.example", '+', IDENTITY_DOMAIN, false},
    {"x@bu\xcc\x88"
     "cher.example",
     '+', IDENTITY_DOMAIN, false},
    {"x@xn--bcher-kva.example", '+', IDENTITY_DOMAIN, false},
    {"x@bucher.example", '+', NO, false},
    {"x@mail.B\xc3\x9c"
     "CHER.example",
     '+', IDENTITY_SUBDOMAINS, false},
    {"x@m\xc3\xa4il.xn--bcher-kva.example", '+', IDENTITY_SUBDOMAINS, false},
};

static struct identities *
make_set(void)
{
	struct identities *set = identities_new("alice@example.net");

	for (size_t i = 0; i < sizeof(granted) / sizeof(granted[0]); i++)
		identities_add(set, granted[i].kind, granted[i].text);
	return set;
}

static bool
ask(const struct identities *set, struct identity_policy policy, const char *text,
    struct identity_match *match)
{
	struct address address;

	if (address_parse(text, strlen(text), &address) != ADDRESS_OK)
		memset(&address, 0, sizeof(address));
	return identities_allow(set, &policy, &address, match);
}

static void
test_match(void)
{
	struct identities *set = make_set(), *copy = identities_copy(set), *sent;
	struct identity_match match, other;
	struct buf buf;
	struct wire wire;

	identities_free(set);
	buf_init(&buf);
	identities_put(&buf, copy);
	wire = wire_from(buf.data, buf.len);
	sent = identities_get(&wire);
	ok_of(sent != NULL && wire_done(&wire) &&
	          identities_count(sent) == sizeof(granted) / sizeof(granted[0]),
	      "set", "copied and sent");
	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
		const struct identity_policy policy = {.separator = questions[i].separator};
		const bool yes = ask(copy, policy, questions[i].address, &match);

		ok_of(yes == (questions[i].kind != NO) &&
		          (!yes ||
		           (match.kind == questions[i].kind &&
		            match.detail == questions[i].detail && match.text[0] != '\0')) &&
		          ask(sent, policy, questions[i].address, &other) == yes &&
		          other.kind == match.kind && strcmp(other.text, match.text) == 0,
		      "match", questions[i].address);
	}
	for (size_t cut = 0; cut < buf.len; cut++) {
		wire = wire_from(buf.data, cut);
		set = identities_get(&wire);
		if (set != NULL)
			break;
	}
	ok_of(set == NULL, "set", "cut anywhere is none");
	buf.data[buf.len - 1] = '\0';
	wire = wire_from(buf.data, buf.len);
	identities_free(identities_get(&wire));
	buf_clear(&buf);

	const struct identity_policy any = {.any = true, .separator = '+'};
	ok_of(ask(copy, any, "x@elsewhere.example", &match) && match.kind == IDENTITY_ANY &&
	          match.text[0] == '\0' && ask(copy, any, "info@example.net", &match) &&
	          match.kind == IDENTITY_ADDRESS,
	      "match", "a class that may send as anybody is the last reason");
	ok_of(!ask(copy, any, "", NULL), "match", "the null address is nobody's");
	identities_free(copy);
	identities_free(sent);
}

/* The canonical text is as good as address_equal. */
static void
test_equal(void)
{
	const size_t n = sizeof(questions) / sizeof(questions[0]);
	const struct identity_policy exact = {0};
	bool same = true;

	for (size_t i = 0; i < n; i++) {
		struct address a, b;
		struct identity one;
		const char *text = questions[i].address;

		if (address_parse(text, strlen(text), &a) != ADDRESS_OK ||
		    !identity_parse(text, strlen(text), &one))
			continue;
		struct identities *set = identities_new(one.text);
		for (size_t j = 0; j < n; j++) {
			text = questions[j].address;
			if (address_parse(text, strlen(text), &b) == ADDRESS_OK)
				same = same && identities_allow(set, &exact, &b, NULL) ==
				                   address_equal(&a, &b);
		}
		identities_free(set);
	}
	ok_of(same, "match", "of every pair as address_equal says");
}

static void
test_policy(void)
{
	struct conf_class list[] = {{.name = "smarthost", .any_sender = true}};
	struct conf conf = {.detail_separator = "+", .classes = {list, 1}};
	struct identity_policy policy = identity_policy_of(&conf, "smarthost");

	ok_of(policy.any && policy.separator == '+', "policy", "of a class");
	conf.detail_separator = "off";
	policy = identity_policy_of(&conf, "standard");
	ok_of(!policy.any && policy.separator == '\0', "policy", "of another, without details");
}

static void
test_many(void)
{
	struct identities *set = identities_new("alice@example.net");
	const struct identity_policy policy = {.separator = '+'};
	struct address address;
	const char *text = "a+b+c+d+e+f@one.two.three.four.example.net";
	char name[80];
	const unsigned rounds = 20000;
	unsigned taken = 0;
	clock_t start;
	double ns;

	for (unsigned i = 0; i < 2 * IDENTITIES_MAX; i++) {
		snprintf(name, sizeof(name), "alias%u@example.net", i * 7919 % 1000);
		taken += identities_add(set, IDENTITY_ADDRESS, name);
	}
	ok_of(taken == IDENTITIES_MAX && identities_count(set) == IDENTITIES_MAX, "set",
	      "has a bound");
	ok_of(!identities_add(set, IDENTITY_ADDRESS, "alice@example.net") &&
	          identities_add(set, IDENTITY_DETAILS, "alias0@example.net") &&
	          identities_count(set) == IDENTITIES_MAX &&
	          ask(set, policy, "alias0+x@example.net", NULL) &&
	          !ask(set, policy, "alias919+x@example.net", NULL),
	      "set", "replaces what has the same text, and never the account's name");
	if (address_parse(text, strlen(text), &address) != ADDRESS_OK)
		return;
	start = clock();
	for (unsigned i = 0; i < rounds; i++)
		if (identities_allow(set, &policy, &address, NULL))
			tap_failures++;
	ns = (double)(clock() - start) * 1e9 / CLOCKS_PER_SEC / rounds;
	printf("# %.0f ns for a no among %d, five details and five domains\n", ns, IDENTITIES_MAX);
	ok_of(ns < 50000, "match", "is cheap");
	identities_free(set);
}

/* On disk */

static struct accounts *store;

static bool
add_account(const char *name)
{
	struct accounts_record record = {.verifier = {.iterations = 4096}};

	strcpy(record.entry.account, name);
	strcpy(record.entry.class, "standard");
	return accounts_add(store, &record) == ACCOUNTS_OK;
}

static enum grants_result
grant(const char *account, enum identity_kind kind, const char *text)
{
	struct auth_grant grant = {.identity = {.kind = kind}, .by = "root (uid 0)", .since = 7};

	strcpy(grant.identity.text, text);
	return grants_add(store, account, &grant);
}

static size_t
count_of(const char *account)
{
	static struct auth_grant list[IDENTITIES_MAX];
	size_t count;

	return grants_list(store, account, list, &count) == GRANTS_OK ? count : 9999;
}

static void
test_rules(void)
{
	static struct auth_grant list[IDENTITIES_MAX];
	struct accounts_record record = {.verifier = {.iterations = 4096}};
	char holder[AUTH_ACCOUNT_MAX + 1];
	size_t count;

	ok_of(add_account("alice@example.net") && add_account("boss@example.net") &&
	          add_account("carol@example.net"),
	      "grants", "three accounts");
	ok_of(grant("nobody@example.net", IDENTITY_ADDRESS, "x@example.net") == GRANTS_NO_ACCOUNT &&
	          grants_remove(store, "nobody@example.net", "x@example.net") ==
	              GRANTS_NO_ACCOUNT &&
	          grants_list(store, "nobody@example.net", list, &count) == GRANTS_NO_ACCOUNT,
	      "grants", "an unknown account");
	ok_of(grant("alice@example.net", IDENTITY_ADDRESS, "info@example.net") == GRANTS_OK &&
	          grant("alice@example.net", IDENTITY_ADDRESS, "info@example.net") ==
	              GRANTS_EXISTS &&
	          grant("carol@example.net", IDENTITY_ADDRESS, "info@example.net") == GRANTS_OK,
	      "grants", "an address, once, but two accounts may share it");
	ok_of(grant("alice@example.net", IDENTITY_DETAILS, "info@example.net") == GRANTS_OK &&
	          count_of("alice@example.net") == 1,
	      "grants", "another kind replaces");
	ok_of(grant("alice@example.net", IDENTITY_ADDRESS, "alice@example.net") == GRANTS_OWN &&
	          grant("alice@example.net", IDENTITY_DELEGATION, "alice@example.net") ==
	              GRANTS_OWN,
	      "grants", "its own name");
	ok_of(grant("alice@example.net", IDENTITY_ADDRESS, "boss@example.net") == GRANTS_TAKEN &&
	          grant("alice@example.net", IDENTITY_DETAILS, "boss@example.net") == GRANTS_TAKEN,
	      "grants", "another account's name");
	ok_of(grant("alice@example.net", IDENTITY_DELEGATION, "x@example.net") == GRANTS_NO_OTHER &&
	          grant("alice@example.net", IDENTITY_DELEGATION, "boss@example.net") ==
	              GRANTS_OK &&
	          grant("carol@example.net", IDENTITY_DELEGATION, "boss@example.net") == GRANTS_OK,
	      "grants", "is delegated, of accounts only");
	ok_of(grant("alice@example.net", IDENTITY_DOMAIN, "@company.example") == GRANTS_OK &&
	          grant("alice@example.net", IDENTITY_SUBDOMAINS, "@.company.example") == GRANTS_OK,
	      "grants", "domains");
	strcpy(record.entry.account, "info@example.net");
	ok_of(accounts_add(store, &record) == ACCOUNTS_GRANTED &&
	          grants_holder(store, "info@example.net", holder) &&
	          strcmp(holder, "alice@example.net") == 0 &&
	          !grants_holder(store, "inf@example.net", holder),
	      "grants", "what somebody has is no account's name");
	strcpy(record.entry.account, "boss@example.net");
	ok_of(accounts_add(store, &record) == ACCOUNTS_EXISTS, "grants",
	      "and an account that is delegated is there already");
	ok_of(add_account("someone@company.example"), "grants", "a domain keeps no account out");
	ok_of(grants_list(store, "alice@example.net", list, &count) == GRANTS_OK && count == 4 &&
	          strcmp(list[0].identity.text, "@.company.example") == 0 &&
	          list[0].identity.kind == IDENTITY_SUBDOMAINS && list[0].since == 7 &&
	          strcmp(list[0].by, "root (uid 0)") == 0 &&
	          list[1].identity.kind == IDENTITY_DOMAIN &&
	          list[2].identity.kind == IDENTITY_DELEGATION &&
	          list[3].identity.kind == IDENTITY_DETAILS,
	      "grants", "listed in order, with who and when");
	ok_of(grants_remove(store, "alice@example.net", "info@example.net") == GRANTS_OK &&
	          grants_remove(store, "alice@example.net", "info@example.net") == GRANTS_NONE &&
	          grants_holder(store, "info@example.net", holder) &&
	          strcmp(holder, "carol@example.net") == 0,
	      "grants", "taken back, of that account only");
}

static void
test_removal(void)
{
	struct buf ended;
	char holder[AUTH_ACCOUNT_MAX + 1];

	buf_init(&ended);
	ok_of(accounts_remove(store, "nobody@example.net", &ended) == ACCOUNTS_UNKNOWN &&
	          ended.len == 0,
	      "removal", "of an unknown account");
	ok_of(accounts_remove(store, "boss@example.net", &ended) == ACCOUNTS_OK &&
	          ended.len == 36 &&
	          memcmp(ended.data, "alice@example.net\0carol@example.net", 36) == 0,
	      "removal", "ends its delegations, and says whose");
	ok_of(count_of("alice@example.net") == 2 && count_of("carol@example.net") == 1 &&
	          !grants_holder(store, "boss@example.net", holder),
	      "removal", "and nothing else");
	ok_of(add_account("boss@example.net") && count_of("boss@example.net") == 0 &&
	          count_of("alice@example.net") == 2,
	      "removal", "the next of that name is nobody's");
	buf_clear(&ended);
	ok_of(accounts_remove(store, "alice@example.net", &ended) == ACCOUNTS_OK &&
	          ended.len == 0 && add_account("alice@example.net") &&
	          count_of("alice@example.net") == 0 &&
	          !grants_holder(store, "@company.example", holder),
	      "removal", "takes what it was granted along");
	buf_clear(&ended);
}

static void
test_limits(void)
{
	static struct auth_grant list[IDENTITIES_MAX];
	struct identities *set;
	char name[300], longest[300];
	const struct identity_policy policy = {0};
	unsigned granted_count = 0;
	size_t count;

	for (unsigned i = 0; i < IDENTITIES_MAX; i++) {
		snprintf(name, sizeof(name), "a%u@example.org", i);
		granted_count += grant("carol@example.net", IDENTITY_ADDRESS, name) == GRANTS_OK;
	}
	/* One was there. */
	ok_of(granted_count == IDENTITIES_MAX - 1 &&
	          grant("carol@example.net", IDENTITY_ADDRESS, "more@example.org") ==
	              GRANTS_LIMIT &&
	          grants_list(store, "carol@example.net", list, &count) == GRANTS_OK &&
	          count == IDENTITIES_MAX,
	      "limit", "of one account");
	set = grants_load(store, "carol@example.net");
	ok_of(set != NULL && identities_count(set) == IDENTITIES_MAX &&
	          ask(set, policy, "a77@example.org", NULL) &&
	          ask(set, policy, "carol@example.net", NULL) &&
	          !ask(set, policy, "more@example.org", NULL),
	      "limit", "all of them loaded");
	identities_free(set);
	/* The longest names there are make the longest key there is. */
	memset(longest, 'a', 64);
	strcpy(longest + 64, "@");
	while (strlen(longest) < 254 - 11)
		strcat(longest, "bbbbbbbbb.");
	strcat(longest, "ccccccccccccccccc");
	longest[254] = '\0';
	ok_of(add_account(longest), "limit", "the longest account");
	strcpy(name, longest);
	name[0] = 'x';
	ok_of(grant(longest, IDENTITY_ADDRESS, name) == GRANTS_OK && count_of(longest) == 1 &&
	          grants_remove(store, longest, name) == GRANTS_OK && count_of(longest) == 0,
	      "limit", "with the longest identity");
}

static void
test_store(void)
{
	char dir[] = "/tmp/sekisho-identity-XXXXXX", error[256];

	if (mkdtemp(dir) == NULL || chdir(dir) != 0)
		exit(99);
	store = accounts_open(1u << 26, error, sizeof(error));
	if (store == NULL)
		exit(98);
	test_rules();
	accounts_close(store);
	store = accounts_open(1u << 26, error, sizeof(error));
	ok_of(store != NULL && count_of("alice@example.net") == 3, "grants",
	      "are there after reopening");
	test_removal();
	test_limits();
	accounts_close(store);
	unlink("accounts.lmdb");
	unlink("accounts.lmdb-lock");
	if (chdir("/") == 0)
		rmdir(dir);
}

int
main(void)
{
	test_forms();
	test_match();
	test_equal();
	test_policy();
	test_many();
	test_store();
	return tap_end();
}
