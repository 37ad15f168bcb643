#include "relay/dns.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/sandbox.h"
#include "relay/answer.h"

/* Setup: a real nsd on a free loopback port serves a root of our own and a signed zone; a name
 * server of our own in the same loop keeps silent, talks nonsense or counts. The resolver runs in
 * the relay's sandbox.
 * Expectation: RFC 5321 section 5.1 and RFC 7505 to the letter, with a status fit for the sender
 * each time; no name server makes a lookup longer than its own timeout; what was answered is
 * remembered as long as it may be. */

#define NSD         "build/peers/usr/sbin/nsd"
#define OWN_TIMEOUT 300 /* ms, for those who do not answer */

static const char root_zone[] =
    "$TTL 60\n"
    ". SOA ns. host. 1 3600 600 86400 60\n. NS ns.\nns. A 127.0.0.1\n"
    "a.hosts. A 127.0.0.1\nb.hosts. A 127.0.0.2\nc.hosts. A 127.0.0.3\n"
    "both.hosts. A 127.0.0.4\nboth.hosts. AAAA ::1\n"
    "alias.hosts. CNAME a.hosts.\n"
    "nobody.hosts. A 0.0.0.0\nnobody.hosts. A 224.0.0.1\nnobody.hosts. AAAA ::\nnobody.hosts. AAAA "
    "ff02::1\nnobody.hosts. AAAA ::ffff:127.0.0.1\n"
    "pref. MX 20 b.hosts.\npref. MX 10 A.Hosts.\npref. MX 30 c.hosts.\n"
    "equal. MX 10 a.hosts.\nequal. MX 10 b.hosts.\nequal. MX 10 c.hosts.\n"
    "twice. MX 10 a.hosts.\ntwice. MX 20 b.hosts.\ntwice. MX 30 a.hosts.\n"
    "families. MX 10 both.hosts.\n"
    "implicit. A 127.0.0.5\nimplicit. AAAA ::1\n"
    "alias. CNAME pref.\nalias-implicit. CNAME implicit.\nalias-nothing. CNAME no-such-name.\n"
    "alias-host. MX 10 alias.hosts.\n"
    "round. CNAME trip.\ntrip. CNAME round.\n"
    "null. MX 0 .\nhalf-null. MX 0 .\nhalf-null. MX 10 a.hosts.\n"
    "empty. TXT x\n"
    "ours. MX 10 mail.here.\nours. MX 20 a.hosts.\n"
    "backup. MX 5 a.hosts.\nbackup. MX 10 MAIL.here.\nbackup. MX 10 c.hosts.\nbackup. MX 20 "
    "b.hosts.\n"
    "mail.here. A 127.0.0.9\n"
    "literal. MX 10 192.0.2.1.\nliteral. MX 20 a.hosts.\n"
    "odd. MX 5 a\\032b.hosts.\nodd. MX 6 a\\.b.hosts.\nodd. MX 20 a.hosts.\n"
    "no-host. MX 10 nowhere.hosts.\nno-host. MX 20 a.hosts.\n"
    "no-hosts. MX 10 nowhere.hosts.\nno-hosts. MX 10 empty.\n"
    "nobodys. MX 10 nobody.hosts.\n"
    "broken-host. MX 10 x.broken.\nbroken-host. MX 20 a.hosts.\n"
    "broken-hosts. MX 10 x.broken.\nbroken-hosts. MX 20 nowhere.hosts.\n"
    "unsigned. MX 10 a.hosts.\n"
    "to-signed. MX 10 host.signed.\n";

static const char signed_zone[] =
    "$TTL 60\n"
    "signed. SOA ns. host. 1 3600 600 86400 60\nsigned. NS ns.\n"
    "signed. MX 10 host.signed.\nhost.signed. A 127.0.0.7\n"
    "out.signed. MX 10 a.hosts.\n"
    "forged.signed. MX 10 forged-host.signed.\nforged.signed. MX 20 a.hosts.\n"
    "forged-mx.signed. MX 10 true-host.signed.\n"
    "forged-host.signed. A 127.0.0.8\n";

static unsigned tests, failures;
static char dir[] = "/tmp/sekisho-dns-XXXXXX";
static unsigned nsd_port;
static struct loop *loop;

static void __attribute__((format(printf, 2, 3))) ok(bool good, const char *format, ...)
{
	va_list args;

	printf("%sok %u - ", good ? "" : "not ", ++tests);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	failures += !good;
}

static void __attribute__((format(printf, 1, 2), noreturn)) bail(const char *format, ...)
{
	va_list args;

	printf("Bail out! ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

/* ---- one question */

struct asked {
	bool done;
	char text[4096]; /* "a.hosts[127.0.0.1] b.hosts[…]", or "5.1.2 words" */
	size_t count;
	bool secure;
	msec_t took;
	msec_t began;
};

static void
on_done(void *arg, const struct dns_result *result)
{
	struct asked *asked = arg;
	size_t at = 0;

	asked->done = true;
	asked->took = clock_mono() - asked->began;
	asked->count = result->count;
	asked->secure = result->count > 0;
	asked->text[0] = '\0';
	for (size_t i = 0; i < result->count; i++) {
		const struct dns_target *target = &result->list[i];
		char ip[INET6_ADDRSTRLEN];
		const struct sockaddr_in *in = (const struct sockaddr_in *)&target->addr;
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&target->addr;
		const bool v6 = target->addr.ss_family == AF_INET6;

		inet_ntop(target->addr.ss_family,
		          v6 ? (const void *)&in6->sin6_addr : (const void *)&in->sin_addr, ip,
		          sizeof ip);
		if (ntohs(v6 ? in6->sin6_port : in->sin_port) != 2525)
			snprintf(ip, sizeof ip, "wrong port");
		at += (size_t)snprintf(asked->text + at, sizeof asked->text - at, "%s%s[%s]",
		                       i ? " " : "", target->host, ip);
		asked->secure &= target->secure;
	}
	if (!result->count)
		snprintf(asked->text, sizeof asked->text, "%s%s %s",
		         result->why.code == 556 ? "556 " : "", result->why.enhanced,
		         result->why.text);
	loop_stop(loop);
}

static struct asked
ask_mx(struct dns *dns, const char *domain)
{
	struct asked asked = {.began = clock_mono()};

	dns_find_mx(dns, domain, 2525, on_done, &asked);
	if (asked.done)
		bail("called back before it returned");
	loop_run(loop);
	return asked;
}

static struct asked
ask_host(struct dns *dns, const char *host)
{
	struct asked asked = {.began = clock_mono()};

	dns_find_host(dns, host, 2525, on_done, &asked);
	if (asked.done)
		bail("called back before it returned");
	loop_run(loop);
	return asked;
}

static void
says(struct dns *dns, const char *domain, const char *expected, const char *what)
{
	struct asked asked = ask_mx(dns, domain);
	/* A status with the start of its words, or all targets. */
	bool good = expected[0] >= '0' && expected[0] <= '9' && strchr(expected, ' ')
	                ? !strncmp(asked.text, expected, strlen(expected))
	                : !strcmp(asked.text, expected);

	ok(good, "%s", what);
	if (!good)
		printf("# %s: %s, expected %s\n", domain, asked.text, expected);
}

static struct dns *
resolver(unsigned port, const struct dns_files *files, msec_t timeout)
{
	struct conf_address server = {.len = sizeof(struct sockaddr_in)};
	struct sockaddr_in addr = {.sin_family = AF_INET,
	                           .sin_port = htons((uint16_t)port),
	                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	char error[256];
	struct dns *dns;

	memcpy(&server.addr, &addr, sizeof addr);
	dns = dns_new(&(struct dns_opts){.loop = loop,
	                                 .files = files,
	                                 .servers = &(struct conf_addresses){&server, 1},
	                                 .hostname = "mail.here",
	                                 .timeout = timeout},
	              error, sizeof error);
	if (!dns)
		bail("no resolver: %s", error);
	return dns;
}

/* ---- the answers of nsd */

static void
test_rules(struct dns *dns)
{
	struct asked asked;
	bool first[3] = {false}, same = true;
	char before[sizeof asked.text] = "";

	says(dns, "pref", "a.hosts[127.0.0.1] b.hosts[127.0.0.2] c.hosts[127.0.0.3]",
	     "MX hosts in the order of preference");
	says(dns, "PREF", "a.hosts[127.0.0.1] b.hosts[127.0.0.2] c.hosts[127.0.0.3]",
	     "letters of either case");
	for (int i = 0; i < 60; i++) {
		asked = ask_mx(dns, "equal");
		first[asked.text[0] - 'a'] = true;
		same &= !before[0] || !strcmp(asked.text, before);
		memcpy(before, asked.text, sizeof before);
	}
	ok(first[0] && first[1] && first[2] && !same && asked.count == 3,
	   "equals in random order, all of them");
	says(dns, "twice", "a.hosts[127.0.0.1] b.hosts[127.0.0.2]",
	     "a host named twice counts once");
	says(dns, "families", "both.hosts[::1] both.hosts[127.0.0.4]", "both families");
	says(dns, "implicit", "implicit[::1] implicit[127.0.0.5]", "without MX the domain itself");
	says(dns, "alias", "a.hosts[127.0.0.1] b.hosts[127.0.0.2] c.hosts[127.0.0.3]",
	     "an alias of a domain with MX");
	says(dns, "alias-implicit", "alias-implicit[::1] alias-implicit[127.0.0.5]",
	     "an alias of one without");
	says(dns, "alias-nothing", "5.1.2 ", "an alias of nothing");
	says(dns, "alias-host", "alias.hosts[127.0.0.1]", "an MX host that is an alias");
	says(dns, "round", "4.4.3 ", "aliases in a circle");
	says(dns, "null", "556 5.1.10 ", "null MX");
	says(dns, "half-null", "a.hosts[127.0.0.1]", "a null MX beside others is none");
	says(dns, "no-such-domain", "5.1.2 the domain no-such-domain does not exist",
	     "a domain that does not exist");
	says(dns, "empty", "5.4.4 empty has neither MX nor address", "a domain without mail");
	says(dns, "ours", "5.4.6 ", "we are the best MX");
	says(dns, "mail.here", "5.4.6 ", "we are the domain");
	says(dns, "backup", "a.hosts[127.0.0.1]", "only those preferred to us");
	says(dns, "literal", "a.hosts[127.0.0.1]", "an MX that is an address is passed over");
	says(dns, "odd", "a.hosts[127.0.0.1]", "one with a name that no host has, too");
	says(dns, "no-host", "a.hosts[127.0.0.1]", "a host that does not exist, too");
	says(dns, "no-hosts", "5.4.4 no MX host of no-hosts has an address",
	     "no host with an address");
	says(dns, "nobodys", "5.4.4 ", "addresses that are no host's");
	says(dns, "name.broken", "4.4.3 the MX of name.broken cannot be resolved: ", "SERVFAIL");
	says(dns, "broken-host", "a.hosts[127.0.0.1]",
	     "a host that cannot be resolved now is passed over");
	says(dns, "broken-hosts", "4.4.3 the address of x.broken cannot be resolved: ",
	     "but if no other has an address it may come back");
	says(dns, "[127.0.0.6]", "127.0.0.6[127.0.0.6]", "an address literal");
	says(dns, "[IPv6:::1]", "::1[::1]", "an IPv6 literal");
	says(dns, "[no]", "5.1.2 ", "an impossible literal");
	says(dns, "[0.0.0.0]", "5.4.4 ", "a literal that is no host's");
	says(dns, "no..name", "5.1.2 ", "an impossible domain");
}

static void
test_bounds(struct dns *dns)
{
	struct asked asked = ask_mx(dns, "lots");
	unsigned v6 = 0;

	ok(asked.count == 5, "of many addresses five are tried");
	for (const char *at = asked.text; (at = strstr(at, "[2001")); at++)
		v6++;
	ok(v6 == 3 && strstr(asked.text, "[127.1"), "of both families");
	printf("# %s\n", asked.text);
	asked = ask_mx(dns, "both-lots");
	ok(asked.count == 3 && strstr(asked.text, "a.hosts"),
	   "a host of many addresses leaves room for the next");
	asked = ask_mx(dns, "huge");
	ok(asked.count == 5 && !strncmp(asked.text, "h000.hosts", 10) &&
	       strstr(asked.text, "h004.hosts"),
	   "the best five of 900 MX records, which need TCP");
	printf("# %s\n", asked.text);
}

static void
test_hosts(struct dns *dns)
{
	struct asked asked = ask_host(dns, "localhost");

	ok(strstr(asked.text, "localhost[127.0.0.1]") != NULL, "localhost from the hosts file");
	asked = ask_host(dns, "127.0.0.6");
	ok(!strcmp(asked.text, "127.0.0.6[127.0.0.6]"), "a literal");
	asked = ask_host(dns, "::1");
	ok(!strcmp(asked.text, "::1[::1]"), "an IPv6 literal");
	asked = ask_host(dns, "Both.hosts");
	ok(!strcmp(asked.text, "both.hosts[::1] both.hosts[127.0.0.4]"), "a name in DNS");
	asked = ask_host(dns, "mail.here");
	ok(!strcmp(asked.text, "mail.here[127.0.0.9]"), "our own, if the operator says so");
	asked = ask_host(dns, "no-such-host.example");
	ok(!strncmp(asked.text, "4.4.4 the name of the next host cannot be resolved", 50),
	   "a host that does not exist is the operator's mistake, and for this time");
	asked = ask_host(dns, "x.broken");
	ok(!strncmp(asked.text, "4.4.3 ", 6), "SERVFAIL");
}

static void
test_dnssec(struct dns *dns)
{
	struct asked asked = ask_mx(dns, "signed");

	ok(!strcmp(asked.text, "host.signed[127.0.0.7]") && asked.secure, "signed is secure");
	asked = ask_mx(dns, "unsigned");
	ok(!strcmp(asked.text, "a.hosts[127.0.0.1]") && !asked.secure, "unsigned is not");
	asked = ask_mx(dns, "out.signed");
	ok(!strcmp(asked.text, "a.hosts[127.0.0.1]") && !asked.secure,
	   "a signed MX to an unsigned host is not");
	asked = ask_mx(dns, "to-signed");
	ok(!strcmp(asked.text, "host.signed[127.0.0.7]") && !asked.secure,
	   "an unsigned MX to a signed host is not");
	asked = ask_mx(dns, "forged-mx.signed");
	ok(!strncmp(asked.text, "4.4.3 ", 6) && strstr(asked.text, "not authentic"),
	   "a forged MX is temporary, though it has data");
	printf("# %s\n", asked.text);
	asked = ask_mx(dns, "forged.signed");
	ok(!strcmp(asked.text, "a.hosts[127.0.0.1]"), "a forged address is not used");
	asked = ask_mx(dns, "nothing.signed");
	ok(!strncmp(asked.text, "5.1.2 ", 6), "what provably does not exist does not exist");
}

/* ---- a name server of our own */

static struct fake {
	int fd;
	unsigned port;
	enum { SILENT, GARBAGE, CUT, ANSWER } mode;
	unsigned queries;
} fake;

/* An A or MX answer with a TTL of one second. */
static size_t
fake_answer(uint8_t *data, size_t len)
{
	size_t end = 12;
	bool mx;

	while (end < len && data[end])
		end += data[end] + 1u;
	end += 5;
	mx = data[end - 3] == 15;
	data[2] = 0x85; /* answer, authoritative, recursion desired */
	data[3] = 0x80;
	memset(data + 6, 0, 6);
	if (data[end - 3] != 15 && data[end - 3] != 1)
		return end;
	data[7] = 1;
	memcpy(data + end, "\xc0\x0c\0\x01\0\x01\0\0\0\x01", 10);
	data[end + 3] = mx ? 15 : 1;
	memcpy(data + end + 10, mx ? "\0\x04\0\x0a\xc0\x0c" : "\0\x04\x7f\0\0\x01", 6);
	return end + 16;
}

static void
on_fake(void *arg, unsigned ready)
{
	uint8_t data[4096];
	struct sockaddr_storage from;
	socklen_t from_len = sizeof from;
	ssize_t n = recvfrom(fake.fd, data, 2048, 0, (struct sockaddr *)&from, &from_len);
	size_t len;

	(void)arg;
	(void)ready;
	if (n < 17)
		return;
	fake.queries++;
	switch (fake.mode) {
	case SILENT:
		return;
	case GARBAGE: /* the id is right */
		memset(data + 2, 0xff, 300);
		len = 302;
		break;
	case CUT:
		len = fake_answer(data, (size_t)n) - 3;
		break;
	case ANSWER:
	default:
		len = fake_answer(data, (size_t)n);
	}
	(void)sendto(fake.fd, data, len, 0, (struct sockaddr *)&from, from_len);
}

static void
test_no_answer(struct dns *dns, const char *what)
{
	struct asked asked = ask_mx(dns, "some.example");

	ok(!strncmp(asked.text, "4.4.3 ", 6) && asked.took < OWN_TIMEOUT + 1500,
	   "%s: temporary, in time", what);
	printf("# %s, %lld ms\n", asked.text, (long long)asked.took);
}

static void
test_fake(struct dns *silent, struct dns *closed, struct dns *garbage, struct dns *cut,
          struct dns *counted)
{
	struct asked asked = {0};
	unsigned queries;

	fake.mode = SILENT;
	test_no_answer(silent, "a name server that keeps silent");
	dns_cancel(dns_find_mx(silent, "other.example", 25, on_done, &asked));
	dns_cancel(dns_find_host(silent, "localhost", 25, on_done, &asked));
	dns_find_mx(silent, "third.example", 25, on_done, &asked);
	dns_free(silent);
	test_no_answer(closed, "none at that port");
	fake.mode = GARBAGE;
	test_no_answer(garbage, "nonsense");
	fake.mode = CUT;
	test_no_answer(cut, "half an answer");
	fake.mode = ANSWER;
	fake.queries = 0;
	asked = ask_mx(counted, "some.example");
	queries = fake.queries;
	ok(!strcmp(asked.text, "some.example[127.0.0.1]") && queries == 3,
	   "MX and both families are asked once");
	printf("# %s, %u queries\n", asked.text, queries);
	for (int i = 0; i < 10; i++)
		asked = ask_mx(counted, "some.example");
	ok(fake.queries < 20, "and remembered");
	queries = fake.queries;
	while (fake.queries == queries && clock_mono() - asked.began < 20000) {
		const msec_t began = asked.began;
		asked = ask_mx(counted, "some.example");
		asked.began = began;
	}
	ok(fake.queries > queries, "until their TTL is over");
}

/* ---- messages */

static void
on_record(void *arg, const struct answer_record *record)
{
	(void)record;
	++*(int *)arg;
}

static void
test_messages(void)
{
	static const uint8_t good[] = "\0\x01\x81\x80\0\x01\0\x02\0\0\0\0"
	                              "\x01"
	                              "a\0\0\x0f\0\x01"
	                              "\xc0\x0c\0\x0f\0\x01\0\0\0\x3c\0\x07\0\x0a\x02mx\xc0\x0c"
	                              "\xc0\x0c\0\x0f\0\x01\0\0\0\x3c\0\x03\0\x14\0";
	uint8_t data[sizeof good];
	char canonical[ANSWER_NAME_SIZE];
	int records = 0, bad = 0;

	ok(answer_parse(good, sizeof good - 1, "A.", ANSWER_MX, on_record, &records, canonical) ==
	           ANSWER_DATA &&
	       records == 2,
	   "a message with two records");
	for (size_t len = 0; len < sizeof good - 1; len++)
		bad += answer_parse(good, len, "a", ANSWER_MX, on_record, &records, canonical) ==
		       ANSWER_MALFORMED;
	ok(bad == sizeof good - 1, "is malformed when cut anywhere");
	for (size_t i = 0; i < sizeof good - 1; i++)
		for (unsigned value = 0; value < 256; value++) {
			memcpy(data, good, sizeof data);
			data[i] = (uint8_t)value;
			answer_parse(data, sizeof data - 1, "a", ANSWER_MX, on_record, &records,
			             canonical);
			answer_parse(data, sizeof data - 1, "a", ANSWER_A, on_record, &records,
			             canonical);
		}
	ok(true, "any octet may be any other");
	memcpy(data, good, sizeof data);
	data[20] = 19; /* a name that is itself */
	ok(answer_parse(data, sizeof data - 1, "a", ANSWER_MX, on_record, &records, canonical) !=
	       ANSWER_DATA,
	   "a name in a circle");
}

/* ---- all together */

static void
run_tests(void)
{
	char anchor[64], layers[128], error[256];
	struct sockaddr_in addr = {.sin_family = AF_INET,
	                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof addr;
	int closed_fd = socket(AF_INET, SOCK_DGRAM, 0);
	unsigned closed_port;
	struct dns_files *files, *anchored;
	struct dns *plain, *validating, *silent, *closed, *garbage, *cut, *counted;
	struct loop_watch *watch;
	struct asked asked;
	msec_t began;

	loop = loop_new();
	fake.fd = socket(AF_INET, SOCK_DGRAM, 0);
	bind(closed_fd, (struct sockaddr *)&addr, sizeof addr);
	bind(fake.fd, (struct sockaddr *)&addr, sizeof addr);
	getsockname(closed_fd, (struct sockaddr *)&addr, &len);
	closed_port = ntohs(addr.sin_port);
	close(closed_fd);
	getsockname(fake.fd, (struct sockaddr *)&addr, &len);
	fake.port = ntohs(addr.sin_port);
	watch = loop_watch_new(loop, fake.fd, on_fake, NULL);
	loop_watch_set(watch, LOOP_READ);

	snprintf(anchor, sizeof anchor, "%s/anchor", dir);
	files = dns_files_new("", error, sizeof error);
	anchored = dns_files_new(anchor, error, sizeof error);
	if (!files || !anchored)
		bail("no files: %s", error);
	validating = resolver(nsd_port, anchored, 10000);
	silent = resolver(fake.port, files, OWN_TIMEOUT);
	closed = resolver(closed_port, files, OWN_TIMEOUT);
	garbage = resolver(fake.port, files, OWN_TIMEOUT);
	cut = resolver(fake.port, files, OWN_TIMEOUT);
	counted = resolver(fake.port, files, 10000);
	if (dns_files_new("/nowhere", error, sizeof error))
		bail("a missing trust anchor is no mistake");
	if (sandbox_enter(SANDBOX_CONNECT, layers, sizeof layers, error, sizeof error) < 0)
		bail("no sandbox: %s", error);
	printf("# sandbox: %s\n", layers);
	plain = resolver(nsd_port, files, 10000);
	began = clock_mono();
	do
		asked = ask_mx(plain, "pref");
	while (!asked.count && clock_mono() - began < 60000);
	if (!asked.count)
		bail("nsd does not answer: %s", asked.text);

	test_rules(plain);
	test_bounds(plain);
	test_hosts(plain);
	test_dnssec(validating);
	test_fake(silent, closed, garbage, cut, counted);
	test_messages();
	dns_free(plain);
	dns_free(validating);
	dns_free(closed);
	dns_free(garbage);
	dns_free(cut);
	dns_free(counted);
	dns_free(NULL);
	dns_files_free(files);
	dns_files_free(anchored);
	loop_watch_free(watch);
	loop_free(loop);
	printf("1..%u\n", tests);
	fflush(stdout);
}

static FILE *
file_in_dir(const char *name)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	file = fopen(path, "w");
	if (!file)
		bail("cannot write %s", path);
	return file;
}

static void
write_zones(void)
{
	FILE *file = file_in_dir("root.zone");

	fputs(root_zone, file);
	for (int i = 0; i < 20; i++)
		fprintf(file, "lots.hosts. A 127.1.0.%d\nlots.hosts. AAAA 2001:db8::%d\n", i + 1,
		        i + 1);
	fprintf(file, "lots. MX 10 lots.hosts.\n"
	              "both-lots. MX 10 lots.hosts.\nboth-lots. MX 20 a.hosts.\n");
	for (int i = 0; i < 900; i++)
		fprintf(file, "huge. MX %d h%03d.hosts.\nh%03d.hosts. A 127.2.%d.%d\n", 10 + i, i,
		        i, i / 200, i % 200 + 1);
	fclose(file);
	file = file_in_dir("signed.zone");
	fputs(signed_zone, file);
	fclose(file);
	file = file_in_dir("nsd.conf");
	fprintf(file,
	        "server:\n ip-address: 127.0.0.1@%u\n username: \"\"\n chroot: \"\"\n"
	        " zonesdir: \"%s\"\n database: \"\"\n pidfile: \"\"\n zonelistfile: \"%s/list\"\n"
	        " xfrdfile: \"%s/xfrd\"\n xfrdir: \"%s\"\n logfile: \"%s/log\"\n"
	        " server-count: 1\n rrl-ratelimit: 0\n"
	        "remote-control:\n control-enable: no\n"
	        "zone:\n name: \".\"\n zonefile: root.zone\n"
	        "zone:\n name: \"broken.\"\n zonefile: no-such.zone\n"
	        "zone:\n name: \"signed.\"\n zonefile: forged.zone\n",
	        nsd_port, dir, dir, dir, dir, dir);
	fclose(file);
}

/* Signs; then an A and an MX are changed behind the signer's back. */
static void
sign_zone(void)
{
	char command[1024];

	snprintf(command, sizeof command,
	         "cd %s && key=$(ldns-keygen -a ECDSAP256SHA256 -k signed) && "
	         "ldns-signzone -f signed.done signed.zone $key 2>&1 && "
	         "sed -e 's/127\\.0\\.0\\.8/127.0.0.66/' -e 's/true-host/false-host/' signed.done "
	         ">forged.zone && cat $key.key >anchor",
	         dir);
	if (system(command) != 0)
		bail("ldns-signzone failed");
}

int
main(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
	                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof addr;
	int fd = socket(AF_INET, SOCK_STREAM, 0), status = 1;
	pid_t nsd, child;
	char conf[128], command[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!mkdtemp(dir) || bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		bail("no directory or port");
	nsd_port = ntohs(addr.sin_port);
	close(fd);
	write_zones();
	sign_zone();
	snprintf(conf, sizeof conf, "%s/nsd.conf", dir);
	if (access(NSD, X_OK) < 0)
		bail("no " NSD ": run t/packages.sh test");
	nsd = fork();
	if (!nsd) {
		execl(NSD, "nsd", "-d", "-c", conf, (char *)NULL);
		_exit(1);
	}
	child = fork();
	if (!child) {
		run_tests();
		exit(failures != 0);
	}
	waitpid(child, &status, 0);
	kill(nsd, SIGTERM);
	waitpid(nsd, NULL, 0);
	snprintf(command, sizeof command, "rm -r %s", dir);
	if (system(command) != 0)
		printf("# %s is left\n", dir);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
