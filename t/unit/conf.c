/* The configuration table: what an operator may write, and what the mistakes say. */
#include "core/conf.h"
#include "t/unit/tap.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct conf *
parse(const char *text, struct buf *errors)
{
	buf_clear(errors);
	return conf_parse("f.yaml", text, strlen(text), errors);
}

/* The text is refused and the errors begin with, or hold, what is expected. */
static void
refused(const char *text, const char *expect, const char *what)
{
	struct buf errors;
	buf_init(&errors);
	struct conf *conf = parse(text, &errors);
	bool good = conf == NULL && strstr(buf_str(&errors), expect) != NULL;
	ok(good, what);
	if (!good)
		printf("# expected %s, got %s\n", expect, buf_str(&errors));
	conf_free(conf);
	buf_clear(&errors);
}

static void
test_defaults(void)
{
	struct buf errors;
	buf_init(&errors);
	struct conf *conf = parse("", &errors);
	ok(conf != NULL && errors.len == 0, "an empty file is legal");
	if (conf == NULL)
		return;
	ok(conf->standard.recipients == 500, "500 recipients a day");
	ok(conf_relay_count(conf) == 3 && conf_relay_lane(conf, 0) == 0 &&
	       conf_relay_lane(conf, 2) == 2 && conf_relay_lane(conf, 3) == CONF_LANES,
	   "a relay for each lane");
	ok(conf->message_size == 26214400, "25 MiB");
	ok(conf->retry_schedule.count == 8 && conf->retry_schedule.list[7] == 4 * 3600 * 1000,
	   "retry schedule");
	ok(conf->submission.count == 2 && conf->submissions.count == 2,
	   "every address, both families");
	ok(conf->admin_socket_mode == 0666, "octal mode");
	ok(conf->disk_reserve == 4ull << 30 && conf->map_size == 64ull << 30, "GiB");
	ok(conf->retry_expire == 4ll * 86400000 && conf->history_keep == 30ll * 86400000, "days");
	ok(conf->hostname[0] != '\0' && strcmp(conf->log_level, "info") == 0, "texts");
	unsigned line, column;
	conf_where(conf, "tls.key", &line, &column);
	ok(line == 0, "a default has no place");
	conf_free(conf);
	buf_clear(&errors);
}

static const char full[] =
    "hostname: mx1.example.org\n"
    "listen: {submission: [\"127.0.0.1:5587\", \"[::1]:0\"], submissions: [], balancers: "
    "[192.0.2.0/25, \"2001:db8::/33\", 198.51.100.7]}\n"
    "tls:\n"
    "  certificate: \"we ird\\\\\\\"path\"\n"
    "limits: {message_size: 1MiB, data_rate: 0}\n"
    "zone: Asia/Tokyo\n"
    "classes: {business: {messages: 9/day, window: calendar, burst_recipients: off, "
    "senders: any, pool: p}, free: {}}\n"
    "quota: {recipients: 7/24h, pool: clean, burst_messages: 3 then 2/1min}\n"
    "admin: {look: [\"@noc\", taro]}\n"
    "dns: {servers: [\"127.0.0.1:5353\", \"2001:db8::53\"]}\n"
    "timeouts: {command: 1500ms}\n"
    "retry: {schedule: [1s, 90s], fallback_after: 1min, expire: 1h}\n"
    "routes: {\"*\": \"127.0.0.1:2525\", Example.ORG: \"mx.example.org\", six.example: "
    "\"[::1]:26\", \"*.example.org\": mx, \"*.b.example.org\": {host: smart.example.net, port: "
    "587, "
    "tls: require, user: isp, password_file: /etc/p}}\n"
    "replies:\n"
    "  rules:\n"
    "  - {name: full, code: 452, site: \"*.Example.JP\", action: slower, for: 2h}\n"
    "  - {name: gone, enhanced: \"5.1.\", text: 'no (such )?user \\[x\\]', action: user-unknown}\n"
    "  shipped: off\n"
    "egress:\n"
    "- {name: clean, sources: [127.0.0.2, \"::1\"]}\n"
    "- {name: p, sources: [127.0.0.3]}\n"
    "fallback: {host: {host: last.example.net, port: 587, tls: verify, user: u, password_file: "
    "/etc/q}}\n";

static void
check_full(const struct conf *conf, const char *what)
{
	ok(conf != NULL && conf->submission.count == 2 && conf->submissions.count == 0 &&
	       conf->message_size == 1 << 20 && conf->data_rate == 0 &&
	       conf->standard.recipients == 7 && conf->command_timeout == 1500 &&
	       conf->retry_schedule.count == 2 && conf->retry_schedule.list[1] == 90000 &&
	       conf->routes.count == 5 && strcmp(conf->routes.list[1].domain, "example.org") == 0 &&
	       conf->routes.list[1].port == 25 && strcmp(conf->routes.list[2].host, "::1") == 0 &&
	       strcmp(conf->tls_certificate, "we ird\\\"path") == 0,
	   what);
}

static void
check_kinds(const struct conf *conf, const char *what)
{
	const struct conf_class *class = conf_class(conf, "business");
	const struct conf_route *route = conf_route(conf, "a.b.example.org");
	ok(strcmp(conf->zone, "Asia/Tokyo") == 0 && class->messages == 9 &&
	       class->recipients == 7 && class->calendar && class->burst_recipients.count == 0 &&
	       class->burst_messages.at_once == 3 && class->burst_messages.count == 2 &&
	       class->burst_messages.period == 60000 && class->any_sender &&
	       !conf_class(conf, "free")->any_sender && !conf->standard.any_sender &&
	       !conf_class(conf, "free")->calendar &&
	       conf_class(conf, "no such") == &conf->standard &&
	       conf->standard.burst_recipients.at_once == 100 && conf->admin_look.count == 2 &&
	       conf->admin_look.list[0].group &&
	       strcmp(conf->admin_look.list[0].name, "noc") == 0 &&
	       !conf->admin_look.list[1].group && conf->dns_servers.count == 2,
	   what);
	ok(strcmp(route->host, "smart.example.net") == 0 && route->port == 587 &&
	       route->tls == CONF_TLS_REQUIRE && strcmp(route->user, "isp") == 0 &&
	       conf_route(conf, "b.example.org")->mx && conf_route(conf, "x.example.org")->mx &&
	       strcmp(conf_route(conf, "example.org")->host, "mx.example.org") == 0 &&
	       conf_route(conf, "elsewhere.example")->port == 2525,
	   "and its routes: own line, longest suffix, all others");
	const struct conf_reply_rule *rules = conf->reply_rules.list;
	ok(conf->reply_rules.count == 2 && conf->no_shipped_replies &&
	       strcmp(rules[0].name, "full") == 0 && strcmp(rules[0].code, "452") == 0 &&
	       strcmp(rules[0].site, "*.example.jp") == 0 && rules[0].text[0] == '\0' &&
	       rules[0].action == CONF_REPLY_SLOWER && rules[0].period == 7200000 &&
	       rules[1].site[0] == '\0' && rules[1].action == CONF_REPLY_UNKNOWN &&
	       strcmp(rules[1].text, "no (such )?user \\[x\\]") == 0 && rules[1].period == 1800000,
	   "and lists of records, with defaults for what a map leaves out");
	const struct conf_pool *pool = conf_pool(conf, &conf->standard);
	ok(pool && strcmp(pool->name, "clean") == 0 && pool->sources.count == 2 &&
	       pool->sources.list[1].addr.ss_family == AF_INET6 &&
	       conf_pool(conf, class) == &conf->egress.list[1] &&
	       conf_pool(conf, conf_class(conf, "free")) == pool,
	   "and the pools of classes");
	ok(strcmp(conf->fallback_host.host, "last.example.net") == 0 &&
	       conf->fallback_host.port == 587 && conf->fallback_host.tls == CONF_TLS_VERIFY &&
	       strcmp(conf->fallback_host.password_file, "/etc/q") == 0,
	   "and a route of its own");
}

static bool
holds(const struct conf *conf, const char *text)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return conf_networks_hold(&conf->balancers, (const struct sockaddr *)&v4);
	return inet_pton(AF_INET6, text, &v6.sin6_addr) == 1 &&
	       conf_networks_hold(&conf->balancers, (const struct sockaddr *)&v6);
}

static void
check_networks(const struct conf *conf)
{
	const struct sockaddr nobody = {.sa_family = AF_UNIX};
	ok(conf->balancers.count == 3 && holds(conf, "192.0.2.0") && holds(conf, "192.0.2.127") &&
	       holds(conf, "::ffff:192.0.2.9") && !holds(conf, "192.0.2.128") &&
	       !holds(conf, "192.0.3.0") && holds(conf, "198.51.100.7") &&
	       !holds(conf, "198.51.100.6") && holds(conf, "2001:db8:7fff::1") &&
	       !holds(conf, "2001:db8:8000::") && !holds(conf, "2001:db9::") &&
	       !holds(conf, "::c000:200") && !conf_networks_hold(&conf->balancers, &nobody),
	   "networks hold what they hold");
}

static void
test_round_trips(void)
{
	struct buf errors, first, second, wire;
	unsigned line = 0, column = 0;
	buf_init(&errors);
	buf_init(&first);
	buf_init(&second);
	buf_init(&wire);
	struct conf *conf = parse(full, &errors);
	check_full(conf, "units, lists, routes");
	if (conf != NULL)
		check_kinds(conf, "classes, names, bursts");
	check_networks(conf);
	if (conf == NULL) {
		printf("# %s\n", buf_str(&errors));
		return;
	}
	conf_dump(conf, &first);
	struct conf *again = conf_parse("dump", (const char *)first.data, first.len, &errors);
	check_full(again, "a dump parses to the same");
	if (again != NULL)
		conf_dump(again, &second);
	ok(first.len == second.len && memcmp(first.data, second.data, first.len) == 0,
	   "and dumps the same");
	conf_encode(conf, &wire);
	struct conf *decoded = conf_decode(wire.data, wire.len);
	check_full(decoded, "a snapshot travels");
	if (decoded != NULL)
		check_kinds(decoded, "with all kinds of values");
	check_networks(decoded);
	if (decoded != NULL)
		conf_where(decoded, "tls.certificate", &line, &column);
	ok(line == 4 && column == 16, "and keeps its places");
	bool all_refused = true;
	for (size_t len = 0; len < wire.len; len++) {
		struct conf *part = conf_decode(wire.data, len);
		all_refused = all_refused && part == NULL;
		conf_free(part);
	}
	ok(all_refused, "a cut snapshot is refused at every length");
	conf_free(conf);
	conf_free(again);
	conf_free(decoded);
	buf_clear(&errors);
	buf_clear(&first);
	buf_clear(&second);
	buf_clear(&wire);
}

static void
test_mistakes(void)
{
	refused("limits:\n  mesage_size: 1MiB\n",
	        "f.yaml:2:3: limits.mesage_size: unknown key; did you mean limits.message_size?",
	        "unknown key");
	refused("limit:\n  recipients: 4\n", "f.yaml:1:1: limit: unknown key; did you mean limits?",
	        "unknown section");
	refused("message_size: 1MiB\n", "did you mean limits.message_size?",
	        "right name, wrong place");
	refused("spool: /a\nspool: /b\n", "f.yaml:2:1: spool: set a second time, first in line 1",
	        "duplicate");
	refused("limits: {recipients: 5}\nlimits: {messages: 5}\n",
	        "2:1: limits: set a second time", "duplicate section");
	refused("limits: {recipients: many}\n",
	        "f.yaml:1:22: limits.recipients: \"many\" is not a whole number", "wrong type");
	refused("limits: {recipients: [5]}\n", "not a single value", "list for a number");
	refused("limits: {recipients: 0}\n", "is too small; write a whole number from 1 to 10000",
	        "below");
	refused("limits: {recipients: 10001}\n", "is too large", "above");
	refused("limits: {message_size: 99999999999999999TiB}\n", "is too large", "overflow");
	refused("limits: {message_size: 25MB}\n", "wrong or missing unit", "unknown unit");
	refused("timeouts: {command: 30}\n",
	        "f.yaml:1:21: timeouts.command: \"30\" is wrong or missing unit",
	        "duration without unit");
	refused("listen: {submission: \":587\", submissions: \":587\"}\n",
	        "f.yaml:1:43: listen.submissions: names an address of listen.submission",
	        "one address for two kinds");
	refused("listen: {submission: [\"[::1]:587\", \"[::1]:587\"]}\n",
	        "listen.submission: names an address twice", "one address twice");
	refused("routes: {\"*\": \"300.0.2.1:25\"}\n", "is not a host with a port",
	        "no IPv4 address");
	refused("routes: {\"*\": {[a]: b, host: c.example}}\n", "not a single value",
	        "a list as key of a route");
	refused("routes: {\"*\": \"10.1:25\"}\n", "not a host with a port", "half an IPv4 address");
	refused("spool: \"/a\\x85b\"\n", "holds control characters", "what YAML takes for a break");
	refused("spool: \"/a\\u2028b\"\n", "holds control characters", "a line separator");
	refused("spool: \"/a\\uFFFEb\"\n", "holds control characters", "no character at all");
	refused("quota: {recipients: 500/h}\n", "not a number per day", "quota of another period");
	refused("quota: {recipients: 500}\n",
	        "not a number per day; write a number per day from 0/day", "quota without period");
	refused("listen: {submission: [\"localhost:587\"]}\n", "not an address with a port",
	        "name as address");
	refused("listen: {submission: [], submissions: []}\n", "no listener is left",
	        "no listener");
	refused("routes: {\"*\": \"h:1\", \"*\": \"h:2\"}\n", "second route", "duplicate route");
	refused("routes: {\"a..b\": \"h:1\"}\n", "not a domain", "malformed domain");
	refused("routes: {a.example: {port: 25}}\n", "names no host", "route without host");
	refused("routes: {a.example: {host: h, user: u}}\n", "needs both user and password_file",
	        "user without password");
	refused("routes: {a.example: {host: h, user: u, password_file: /p}}\n",
	        "would send a password in clear", "password without TLS");
	refused("routes: {a.example: {host: h, tls: maybe}}\n", "is no kind of TLS", "TLS kind");
	refused("routes: {a.example: {hots: h}}\n", "unknown key", "route key");
	refused("quota: {burst_messages: 30/min}\n", "is not a burst; write off, or", "burst");
	refused("quota: {burst_messages: 30 then 1/10ms}\n", "is too small", "burst period");
	refused("content: {bcc: yes}\n", "write remove or keep", "choice");
	refused("quota: {window: weekly}\n", "write rolling or calendar", "window");
	refused("quota: {senders: any}\n", "f.yaml:1:18: quota.senders: would let every account",
	        "any for everybody");
	refused("quota: {senders: mine}\n", "write own or any", "senders");
	refused("auth: {detail_separator: \"++\"}\n", "write one of the characters +-_=, or off",
	        "separator");
	refused("classes: {big: {recipents: 5/day}}\n",
	        "f.yaml:1:17: classes.big: unknown key; a class has", "class key");
	refused("replies: {rules: {name: a}}\n",
	        "not a list; write a list of maps, each of them a rule",
	        "a map for a list of records");
	refused("replies: {rules: [a]}\n", "not a map", "a record that is a word");
	refused(
	    "replies: {rules: [{name: a, code: 4, action: waits}]}\n",
	    "f.yaml:1:46: replies.rules: action: \"waits\" is not one of the words; write one of "
	    "defer, bounce,",
	    "a word of a record");
	refused("replies: {rules: [{name: a, code: 4, code: 5, action: defer}]}\n",
	        "code: set a second time", "a key of a record twice");
	refused("replies: {rules: [{name: a, cod: 4, action: defer}]}\n",
	        "\"cod\" is an unknown key; a rule has name, code, enhanced, text, site, action "
	        "and for",
	        "an unknown key of a record");
	refused("replies: {rules: [{name: a, code: 4}]}\n", "a rule needs action; add it",
	        "a key that a record needs");
	refused("replies: {rules: [{name: a, action: defer}]}\n", "matches every reply",
	        "a rule without a condition");
	refused("replies: {rules: [{name: a, text: '(', action: defer}]}\n",
	        "no POSIX extended regular expression", "an expression");
	refused("replies: {rules: [{name: a, text: '(.)\\1', action: defer}]}\n", "refer back",
	        "an expression that may take any time");
	refused("replies: {rules: [{name: a, code: 4, action: defer}, {name: a, code: 5, action: "
	        "defer}]}\n",
	        "f.yaml:1:54: replies.rules: a second rule of the same name", "a name twice");
	refused("replies: {rules: [{name: a, code: [4], action: defer}]}\n",
	        "code: not a single value", "a list in a record");
	refused("replies: {rules: [{name: a, code: , action: defer}]}\n", "code: \"\" is empty",
	        "nothing in a record");
	refused("egress: [{name: a, sources: []}]\n", "a pool without addresses", "no address");
	refused("egress: [{name: A, sources: [127.0.0.1]}]\n", "not the name of a pool",
	        "a pool's name");
	refused("egress: [{name: a, sources: [127.0.0.1]}, {name: a, sources: [127.0.0.2]}]\n",
	        "a second pool of the same name", "a pool twice");
	refused("egress: [{name: a, sources: [127.0.0.1]}, {name: b, sources: [127.0.0.1]}]\n",
	        "f.yaml:1:43: egress: an address that is named twice", "one address in two pools");
	refused("classes: {free: {pool: b}}\n",
	        "f.yaml:1:10: classes: free: egress has no pool b; name one of egress, or default",
	        "a class with a pool that is none");
	refused(
	    "sites: [{match: a.example, pool: b}]\n",
	    "f.yaml:1:8: sites: a.example: egress has no pool b; name one of egress, or default",
	    "a site with a pool that is none");
	refused("sites: [{match: a.example, tls: implicit}]\n",
	        "tls: \"implicit\" is not one of the words; write one of may, none,",
	        "TLS of a site");
	refused("quota: {pool: B}\n", "\"B\" is not a name; write at most 31 of", "a pool's name");
	refused("fallback: {host: {port: 25}}\n", "fallback.host: names no host", "no host");
	refused("fallback: {host: {host: a.example, user: u, password_file: /p}}\n",
	        "f.yaml:1:18: fallback.host: would send a password in clear",
	        "a password in clear");
	refused("fallback: {host: [a]}\n", "write host:port, or a map of", "a list for a host");
	refused("classes: {standard: {}}\n", "standard is what quota says", "class standard");
	refused("classes: {a: {recipients: 5}}\n", "not a number per day", "class value");
	refused("zone: ../etc/passwd\n", "not a time zone", "zone");
	refused("admin: {look: [\"a b\"]}\n", "not a name", "admin name");
	refused("listen: {balancers: 192.0.2.0/33}\n", "longer than an address", "network length");
	refused("listen: {balancers: 192.0.2.1/24}\n",
	        "an address within the network; write \"192.0.2.0/24\"", "a network's address");
	refused("listen: {balancers: \"2001:db8::1/127\"}\n", "within the network", "or IPv6");
	refused("listen: {balancers: [192.0.2.0/]}\n", "not a network", "network without length");
	refused("listen: {balancers: [192.0.2/24]}\n", "not a network", "half a network");
	refused("listen: {balancers: [lb.example]}\n", "not a network", "network by name");
	refused("dns: {servers: [resolver.example]}\n", "not an address", "dns server by name");
	refused("retry: {expire: 1h}\n", "f.yaml:1:17: retry.expire: shorter",
	        "options against each other");
	refused("spool:\n", "f.yaml:1:7: spool: has no value", "no value");
	refused("limits: 5\n", "a group of options, not a value", "value for a section");
	refused("- a\n", "not a list of options", "a list");
	refused("spool: &a /x\n", "anchors and tags", "anchor");
	refused("spool: *a\n", "aliases", "alias");
	refused("spool: /x\n---\nspool: /y\n", "second document", "second document");
	refused("spool: [1, 2\n", "f.yaml:", "broken YAML");
	refused("spool: \"a\\0b\"\n", "NUL", "NUL");
	refused("\x01\xff", "f.yaml:1:", "not text");
	refused("spool: /a\nadmin:\n  socket: /b\xe9\n",
	        "f.yaml:3:13: yaml: ", "not UTF-8, with its place");
	refused("spool: /a\nhostname: \x07\n", "f.yaml:2:11: yaml: control",
	        "a control character, with its place");
	refused("log: {level: loud}\n", "write error, warn, info or debug", "level");
	refused("sp\x1b[31mool: 1\n", "f.yaml:1:", "control characters");
}

static void
test_bombs(void)
{
	const size_t size = 900000;
	char *text = malloc(size + 1);
	text[size] = '\0';
	memset(text, '[', size);
	refused(text, "nested too deeply", "depth, flow");
	memset(text, '{', size);
	refused(text, "nested too deeply", "depth, maps");
	for (size_t i = 0; i < size; i += 2)
		memcpy(text + i, "- ", 2);
	refused(text, "nested too deeply", "depth, block");
	for (size_t i = 0; i < size; i += 2)
		memcpy(text + i, i == 0 ? "[[" : "1,", 2);
	refused(text, "too many values", "width");
	free(text);
	char *large = calloc(1, 1100000);
	memset(large, '#', 1099999);
	refused(large, "larger than 1 MiB", "length");
	free(large);
}

static void
test_relays(void)
{
	const struct conf conf = {.lane_relays = {2, 1, 3}};
	unsigned lanes = 0;

	for (unsigned i = 0; i < 7; i++)
		lanes = 10 * lanes + conf_relay_lane(&conf, i);
	ok(conf_relay_count(&conf) == 6 && lanes == 12223, "relays are numbered lane by lane");
}

static void
test_table(void)
{
	struct buf out, errors;
	buf_init(&out);
	buf_init(&errors);
	conf_describe(&out);
	size_t lines = 0, tabs = 0;
	for (size_t i = 0; i < out.len; i++) {
		lines += out.data[i] == '\n';
		tabs += out.data[i] == '\t';
	}
	ok(lines > 40 && tabs == 5 * lines, "six columns for each option");
	buf_clear(&out);
	FILE *sample = fopen("etc/sekisho.yaml", "r");
	char text[8192];
	size_t len = sample != NULL ? fread(text, 1, sizeof(text), sample) : 0;
	if (sample != NULL)
		fclose(sample);
	struct conf *conf = conf_parse("etc/sekisho.yaml", text, len, &errors);
	ok(len > 0 && conf != NULL, "the shipped sample is good");
	if (conf == NULL)
		printf("# %s\n", buf_str(&errors));
	conf_free(conf);
	buf_clear(&errors);
}

static void
test_hosts(void)
{
	static const char *const good[][2] = {{"mx.example.org", "mx.example.org:25"},
	                                      {"MX.Example.org:2525", "mx.example.org:2525"},
	                                      {"[mx.example.org]:587", "mx.example.org:587"},
	                                      {"192.0.2.1:1", "192.0.2.1:1"},
	                                      {"[192.0.2.1]", "192.0.2.1:25"},
	                                      {"[2001:DB8::1]:65535", "[2001:db8::1]:65535"}};
	static const char *const bad[] = {
	    "",      "[",       "[]",      ":25",    "[::1", "[::g]",     "::1",
	    "a:0",   "a:65536", "a:",      "a b",    "a..b", "300.1.1.1", "a@b.c:25",
	    "[a]25", "[[::1]]", "a:25:25", "[::1]:", "-a.b"};
	char text[CONF_HOST_TEXT_SIZE], large[600];
	struct conf_host host;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ok(conf_host(good[i][0], &host) == NULL &&
		       strcmp(conf_host_text(&host, text), good[i][1]) == 0 &&
		       conf_host(text, &host) == NULL,
		   "a host");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(conf_host(bad[i], &host) != NULL, "no host");
	memset(large, 'a', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	ok(conf_host(large, &host) != NULL, "a long one");
	large[0] = '[';
	large[sizeof(large) - 2] = ']';
	ok(conf_host(large, &host) != NULL, "and in brackets");
}

int
main(void)
{
	test_defaults();
	test_round_trips();
	test_mistakes();
	test_bombs();
	test_relays();
	test_table();
	test_hosts();
	return tap_end();
}
