#include "core/conf.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <yaml.h>

#include "core/mem.h"
#include "core/near.h"

/* Problem: an operator's mistake must be found before anything starts, with the place where it was
 * made; and what is checked, dumped, shipped and documented must never disagree.
 *
 * Idea: everything follows from options[] below. The YAML text becomes a small tree of nodes that
 * remember line and column (libyaml's event API: its document API hides duplicate keys, and its
 * cost for deep nesting is quadratic, so depth and number of nodes are bounded here while events
 * arrive). The tree is then walked against the table. Defaults are texts in the table and go
 * through the same parsers as the operator's values, so they obey the same bounds.
 *
 * Invariants: a snapshot is never changed once conf_parse or conf_decode returned it. struct
 * snapshot begins with the public struct conf, so the pointer handed out finds the places behind
 * it. The rows of one section stand together, because the dump opens a section once.
 *
 * Deliberately not done: anchors, aliases and several documents. They would let one line of the
 * file mean two things, and an error's place would be ambiguous. */

#define TEXT_MAX    (1024u * 1024)
#define DEPTH_MAX   6 /* the deepest meaningful node is routes -> domain -> value */
#define NODES_MAX   50000
#define LIST_MAX    64   /* listeners of a kind, steps of a schedule */
#define ROUTES_MAX  4000 /* the duplicate check is quadratic */
#define CLASSES_MAX 200
#define CONTACT_MAX 100
#define STRING_MAX  1024
#define ERRORS_MAX  40
#define SECONDS(n)  ((uint64_t)(n)*1000)
#define MINUTES(n)  (SECONDS(n) * 60)
#define HOURS(n)    (MINUTES(n) * 60)
#define DAYS(n)     (HOURS(n) * 24)
#define KIB         ((uint64_t)1024)
#define MIB         (KIB * 1024)
#define GIB         (MIB * 1024)
#define TIB         (GIB * 1024)

enum type {
	TYPE_HOSTNAME,  /* char *: a domain name; the default is this machine's name */
	TYPE_PATH,      /* char * */
	TYPE_USER,      /* char * */
	TYPE_LEVEL,     /* char *: one of levels[] */
	TYPE_ZONE,      /* char *: a name of the time zone database, or empty */
	TYPE_TEXT,      /* char *: a few printable words */
	TYPE_COUNT,     /* uint64_t */
	TYPE_SIZE,      /* uint64_t octets */
	TYPE_MODE,      /* uint64_t, written in octal */
	TYPE_QUOTA,     /* uint64_t per day */
	TYPE_WINDOW,    /* bool: calendar */
	TYPE_BURST,     /* struct conf_burst */
	TYPE_DURATION,  /* msec_t */
	TYPE_DURATIONS, /* struct conf_durations */
	TYPE_ADDRESSES, /* struct conf_addresses: to listen on */
	TYPE_SERVERS,   /* struct conf_addresses: to ask, on port 53 unless told */
	TYPE_NAMES,     /* struct conf_names */
	TYPE_CLASSES,   /* struct conf_classes */
	TYPE_ROUTES,    /* struct conf_routes */
};

static const char *const type_names[] = {"hostname", "path",  "user",     "level",     "zone",
                                         "text",     "count", "size",     "mode",      "quota",
                                         "window",   "burst", "duration", "durations", "addresses",
                                         "servers",  "names", "classes",  "routes"};
static const char *const levels[] = {"error", "warn", "info", "debug"};

struct option {
	const char *key;
	enum type type;
	size_t field; /* offset in struct conf */
	const char
	    *standard; /* the default as an operator would write it; lists separated by commas */
	uint64_t min, max; /* of numbers, in base units */
	bool reloadable;
	const char *help;
};

#define F(name) offsetof(struct conf, name)
static const struct option options[] = {
    {"hostname", TYPE_HOSTNAME, F(hostname), "", 0, 0, false,
     "name in greeting, Received and Message-ID; default: this machine's name"},
    {"zone", TYPE_ZONE, F(zone), "", 0, 0, false,
     "time zone of days, logs and replies, such as Asia/Tokyo; default: this machine's"},
    {"contact", TYPE_TEXT, F(contact), "your provider's support", 0, 0, true,
     "whom the holder of a suspended account is told to ask"},
    {"listen.submission", TYPE_ADDRESSES, F(submission), ":587", 0, 0, true,
     "listeners with STARTTLS"},
    {"listen.submissions", TYPE_ADDRESSES, F(submissions), ":465", 0, 0, true,
     "listeners with TLS from the start"},
    {"tls.certificate", TYPE_PATH, F(tls_certificate), "/etc/sekisho/tls/certificate.pem", 0, 0,
     true, "PEM certificate chain"},
    {"tls.key", TYPE_PATH, F(tls_key), "/etc/sekisho/tls/key.pem", 0, 0, true, "PEM private key"},
    {"spool", TYPE_PATH, F(spool), "/var/spool/sekisho", 0, 0, false, "directory of the queue"},
    {"accounts", TYPE_PATH, F(accounts), "/var/lib/sekisho/accounts", 0, 0, false,
     "directory of the account store"},
    {"admin.socket", TYPE_PATH, F(admin_socket), "/run/sekisho/admin.sock", 0, 0, false,
     "socket of sekishoctl"},
    {"admin.mode", TYPE_MODE, F(admin_socket_mode), "0666", 0, 0777, false,
     "permissions of the socket: who may try; what one may do is up to the next three"},
    {"admin.look", TYPE_NAMES, F(admin_look), "", 0, 0, true,
     "users and @groups that may see everything and change nothing"},
    {"admin.operate", TYPE_NAMES, F(admin_operate), "", 0, 0, true,
     "users and @groups that may also steer queue, sessions and quotas"},
    {"admin.admin", TYPE_NAMES, F(admin_admin), "", 0, 0, true,
     "users and @groups that may do everything, as root and the service's own user always may"},
    {"privilege.user", TYPE_USER, F(user), "sekisho", 0, 0, false,
     "owner of spool and accounts; used when started as root"},
    {"privilege.network_user", TYPE_USER, F(network_user), "sekisho-net", 0, 0, false,
     "user of the processes that face the network or hold keys"},
    {"msa.processes", TYPE_COUNT, F(msa_processes), "0", 0, 64, false,
     "accepting processes; 0: one per core"},
    {"log.level", TYPE_LEVEL, F(log_level), "info", 0, 0, true, "error, warn, info or debug"},
    {"limits.message_size", TYPE_SIZE, F(message_size), "25MiB", KIB, 2 * GIB - 1, true,
     "of one message"},
    {"limits.recipients", TYPE_COUNT, F(recipients), "500", 1, 10000, true, "of one message"},
    {"limits.messages", TYPE_COUNT, F(messages), "100", 1, 1000000, true, "of one session"},
    {"limits.sessions", TYPE_COUNT, F(sessions), "2000", 1, 100000, true,
     "at once in one accepting process"},
    {"limits.account_sessions", TYPE_COUNT, F(account_sessions), "30", 1, 100000, true,
     "at once of one account"},
    {"limits.prefix_sessions", TYPE_COUNT, F(prefix_sessions), "50", 1, 100000, true,
     "at once from one IPv4 address or IPv6 /64"},
    {"limits.header_size", TYPE_SIZE, F(header_size), "128KiB", KIB, 16 * MIB, true,
     "of one message's header"},
    {"limits.received_hops", TYPE_COUNT, F(received_hops), "50", 1, 1000, true,
     "Received fields that mean a mail loop"},
    {"limits.auth_failures", TYPE_COUNT, F(auth_failures), "3", 1, 100, true, "of one session"},
    {"limits.errors_soft", TYPE_COUNT, F(errors_soft), "10", 0, 1000, true,
     "errors in a session after which replies are late"},
    {"limits.errors_hard", TYPE_COUNT, F(errors_hard), "20", 1, 1000, true,
     "errors that end a session"},
    {"limits.data_rate", TYPE_SIZE, F(data_rate), "500", 0, MIB, true,
     "octets per second a client must keep up while sending data"},
    {"timeouts.command", TYPE_DURATION, F(command_timeout), "300s", 100, HOURS(1), true,
     "wait for a command"},
    {"timeouts.data", TYPE_DURATION, F(data_timeout), "180s", 100, HOURS(1), true,
     "wait for a block of data"},
    {"timeouts.handshake", TYPE_DURATION, F(handshake_timeout), "60s", 100, HOURS(1), true,
     "wait for a TLS handshake"},
    {"auth.failure_delay", TYPE_DURATION, F(auth_failure_delay), "2s", 0, SECONDS(15), true,
     "before the answer to a failed login; doubles up to 15s"},
    {"auth.cache", TYPE_DURATION, F(auth_cache), "5min", 0, DAYS(1), true,
     "how long a verified credential is remembered"},
    {"auth.scram_iterations", TYPE_COUNT, F(scram_iterations), "15000", 4096, 65536, true,
     "of new passwords"},
    {"quota.recipients", TYPE_QUOTA, F(standard.recipients), "500/day", 0, 100000000, true,
     "of one account"},
    {"quota.messages", TYPE_QUOTA, F(standard.messages), "500/day", 0, 100000000, true,
     "of one account"},
    {"quota.window", TYPE_WINDOW, F(standard.calendar), "rolling", 0, 0, true,
     "what a day is: rolling is any 24 hours, calendar begins at midnight"},
    {"quota.burst_recipients", TYPE_BURST, F(standard.burst_recipients), "100 then 50/5min", 1,
     1000000, true, "recipients sent on at once, and how many more with time; the rest is paced"},
    {"quota.burst_messages", TYPE_BURST, F(standard.burst_messages), "30 then 30/1min", 1, 1000000,
     true, "messages sent on at once, and how many more with time; the rest is paced"},
    {"quota.pace_horizon", TYPE_DURATION, F(pace_horizon), "1h", 0, DAYS(1), true,
     "mail that would be paced for longer is refused for now"},
    {"classes", TYPE_CLASSES, F(classes), "", 0, 0, true,
     "other classes of accounts: a name, and below it what differs from quota"},
    {"queue.disk_reserve", TYPE_SIZE, F(disk_reserve), "4GiB", 0, 1024 * TIB, true,
     "refuse mail below this much free space, or 10 %, whichever is smaller"},
    {"queue.map_size", TYPE_SIZE, F(map_size), "64GiB", 16 * MIB, 16 * TIB, false,
     "of each database, sparse"},
    {"retry.schedule", TYPE_DURATIONS, F(retry_schedule),
     "2min, 5min, 10min, 15min, 30min, 1h, 2h, 4h", 100, DAYS(7), true,
     "waits between attempts; the last one repeats"},
    {"retry.fallback_after", TYPE_DURATION, F(retry_fallback), "4h", 100, DAYS(30), true,
     "age at which a message moves to the fallback lane"},
    {"retry.expire", TYPE_DURATION, F(retry_expire), "4d", 100, DAYS(30), true,
     "age at which a message bounces"},
    {"retry.delay_notice", TYPE_DURATIONS, F(delay_notice), "4h, 24h", MINUTES(1), DAYS(30), true,
     "ages of undelivered mail at which its sender is told"},
    {"history.keep", TYPE_DURATION, F(history_keep), "30d", 0, DAYS(3650), true,
     "of finished messages"},
    {"dns.servers", TYPE_SERVERS, F(dns_servers), "", 0, 0, true,
     "resolvers to ask; default: those of /etc/resolv.conf"},
    {"dns.trust_anchor", TYPE_PATH, F(dns_trust_anchor), "", 0, 0, false,
     "file of DS or DNSKEY records to validate answers with; default: answers are trusted"},
    {"dns.timeout", TYPE_DURATION, F(dns_timeout), "10s", 100, MINUTES(5), true,
     "wait for an answer"},
    {"relay.port", TYPE_COUNT, F(relay_port), "25", 1, 65535, true, "of MX hosts"},
    {"relay.deliveries", TYPE_COUNT, F(relay_deliveries), "100", 1, 100000, true,
     "on one connection"},
    {"relay.idle", TYPE_DURATION, F(relay_idle), "10s", 0, HOURS(1), true,
     "how long an unused connection is kept"},
    {"relay.ca_file", TYPE_PATH, F(relay_ca_file), "/etc/ssl/certs/ca-certificates.crt", 0, 0, true,
     "PEM certificates that routes which verify a host trust"},
    {"relay.connections", TYPE_COUNT, F(relay_connections), "100", 1, 10000, false,
     "at once in one relay process"},
    {"relay.site_connections", TYPE_COUNT, F(relay_site_connections), "20", 1, 10000, true,
     "at once to one site"},
    {"relay.connect_timeout", TYPE_DURATION, F(connect_timeout), "30s", 100, HOURS(1), true,
     "wait to connect"},
    {"relay.reply_timeout", TYPE_DURATION, F(reply_timeout), "300s", 100, HOURS(1), true,
     "wait for a reply before the data"},
    {"relay.data_timeout", TYPE_DURATION, F(relay_data_timeout), "180s", 100, HOURS(1), true,
     "wait for the reply to DATA and for each block"},
    {"relay.final_timeout", TYPE_DURATION, F(final_timeout), "600s", 100, HOURS(1), true,
     "wait for the reply to the final dot"},
    {"routes", TYPE_ROUTES, F(routes), "", 0, 0, true,
     "where mail for a domain, \"*.suffix\" or \"*\" goes; without a line: to its MX hosts"},
};
#define OPTIONS (sizeof(options) / sizeof(options[0]))

struct place {
	uint32_t line; /* counted from 1; 0 while it is a default */
	uint32_t column;
};

struct snapshot {
	struct conf conf; /* first: what callers hold */
	struct place places[OPTIONS];
	unsigned references;
};

static struct snapshot *
snapshot_new(void)
{
	struct snapshot *snapshot = xcalloc(1, sizeof(*snapshot));
	snapshot->references = 1;
	return snapshot;
}

static void *
field(struct conf *conf, const struct option *option)
{
	return (char *)conf + option->field;
}

static const void *
field_of(const struct conf *conf, const struct option *option)
{
	return (const char *)conf + option->field;
}

static bool
is_text(enum type type)
{
	return type == TYPE_HOSTNAME || type == TYPE_PATH || type == TYPE_USER ||
	       type == TYPE_LEVEL || type == TYPE_ZONE || type == TYPE_TEXT;
}

static bool
is_list(enum type type)
{
	return type == TYPE_DURATIONS || type == TYPE_ADDRESSES || type == TYPE_SERVERS ||
	       type == TYPE_NAMES;
}

/* Units. The first that divides a value is the one it is written in. */

struct unit {
	const char *name;
	uint64_t factor;
};
static const struct unit sizes[] = {{"TiB", TIB}, {"GiB", GIB}, {"MiB", MIB},
                                    {"KiB", KIB}, {"", 1},      {NULL, 0}};
static const struct unit durations[] = {{"d", DAYS(1)},    {"h", HOURS(1)}, {"min", MINUTES(1)},
                                        {"s", SECONDS(1)}, {"ms", 1},       {NULL, 0}};

/* The digits of "500/day": how many there were, 0 when there were none or too many. */
static size_t
digits(const char *text, uint64_t *value)
{
	size_t n = 0;
	*value = 0;
	while (n < 18 && isdigit((unsigned char)text[n]))
		*value = *value * 10 + (uint64_t)(text[n++] - '0');
	return isdigit((unsigned char)text[n]) ? 0 : n;
}

static const char *
parse_units(const char *text, const struct unit *units, uint64_t *value)
{
	uint64_t number;
	size_t n = digits(text, &number);
	if (n == 0)
		return "not a number with a unit";
	while (text[n] == ' ')
		n++;
	for (; units->name != NULL; units++)
		if (strcmp(text + n, units->name) == 0)
			return __builtin_mul_overflow(number, units->factor, value) ? "too large"
			                                                            : NULL;
	return "wrong or missing unit";
}

bool
conf_duration(const char *text, msec_t *out)
{
	uint64_t value;
	if (parse_units(text, durations, &value) != NULL || value > INT64_MAX)
		return false;
	*out = (msec_t)value;
	return true;
}

static void
print_units(uint64_t value, const struct unit *units, struct buf *out)
{
	while (units[1].name != NULL &&
	       (value == 0 ? units->factor > SECONDS(1) : value % units->factor != 0))
		units++;
	buf_printf(out, "%llu%s", (unsigned long long)(value / units->factor), units->name);
}

static void
print_size(uint64_t value, struct buf *out)
{
	if (value == 0)
		buf_add_str(out, "0");
	else
		print_units(value, sizes, out);
}

static void
print_burst(const struct conf_burst *burst, struct buf *out)
{
	if (burst->count == 0) {
		buf_add_str(out, "off");
		return;
	}
	buf_printf(out, "%u then %u/", burst->at_once, burst->count);
	print_units((uint64_t)burst->period, durations, out);
}

static void
print_number(const struct option *option, uint64_t value, struct buf *out)
{
	switch (option->type) {
	case TYPE_SIZE:
		print_size(value, out);
		break;
	case TYPE_DURATION:
	case TYPE_DURATIONS:
		print_units(value, durations, out);
		break;
	case TYPE_MODE:
		buf_printf(out, "%04llo", (unsigned long long)value);
		break;
	case TYPE_QUOTA:
		buf_printf(out, "%llu/day", (unsigned long long)value);
		break;
	default:
		buf_printf(out, "%llu", (unsigned long long)value);
	}
}

/* Letters, digits, hyphens and dots in labels of at most 63: what may stand in a greeting or a
 * route. */
static bool
is_domain(const char *text)
{
	size_t label = 0, len = strlen(text);
	if (len == 0 || len > 253)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (c == '.') {
			if (label == 0 || text[i - 1] == '-')
				return false;
			label = 0;
			continue;
		}
		if (!isalnum((unsigned char)c) && c != '_' && (c != '-' || label == 0))
			return false;
		if (++label > 63)
			return false;
	}
	return label > 0 && text[len - 1] != '-';
}

static bool
parse_port(const char *text, unsigned min, uint16_t *port)
{
	uint64_t value;
	size_t n = digits(text, &value);
	if (n == 0 || text[n] != '\0' || value < min || value > 65535)
		return false;
	*port = (uint16_t)value;
	return true;
}

static void
add_address(struct conf_addresses *list, const void *addr, size_t len)
{
	list->list = xreallocarray(list->list, list->count + 1, sizeof(*list->list));
	struct conf_address *slot = &list->list[list->count++];
	memset(slot, 0, sizeof(*slot));
	memcpy(&slot->addr, addr, len);
	slot->len = (socklen_t)len;
}

/* An address to ask; without a port it is 53. */
static const char *
parse_server(const char *text, struct conf_addresses *list)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(53)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
	char host[64];
	uint16_t port = 53;
	size_t len = strlen(text);
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
		add_address(list, &v4, sizeof(v4));
		return NULL;
	}
	if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
		add_address(list, &v6, sizeof(v6));
		return NULL;
	}
	const char *colon = strrchr(text, ':');
	if (colon == NULL || colon == text || !parse_port(colon + 1, 1, &port) ||
	    (len = (size_t)(colon - text)) >= sizeof(host))
		return "not an address";
	memcpy(host, text, len);
	host[len] = '\0';
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		v6.sin6_port = htons(port);
		if (inet_pton(AF_INET6, host + 1, &v6.sin6_addr) != 1)
			return "not an address";
		add_address(list, &v6, sizeof(v6));
		return NULL;
	}
	v4.sin_port = htons(port);
	if (inet_pton(AF_INET, host, &v4.sin_addr) != 1)
		return "not an address";
	add_address(list, &v4, sizeof(v4));
	return NULL;
}

static const char *
parse_name(const char *text, struct conf_names *names)
{
	bool group = text[0] == '@';
	if (text[group] == '\0' || strlen(text) > 64 ||
	    strspn(text + group,
	           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
	        strlen(text + group))
		return "not a name";
	names->list = xreallocarray(names->list, names->count + 1, sizeof(*names->list));
	names->list[names->count++] =
	    (struct conf_name){.name = xstrdup(text + group), .group = group, .id = CONF_NO_ID};
	return NULL;
}

/* "100 then 50/5min", or "off". */
static const char *
parse_burst(const struct option *option, const char *text, struct conf_burst *burst)
{
	static const char *const wrong = "not a burst";
	uint64_t at_once, count, period;
	if (strcmp(text, "off") == 0) {
		memset(burst, 0, sizeof(*burst));
		return NULL;
	}
	size_t n = digits(text, &at_once);
	if (n == 0 || strncmp(text + n, " then ", 6) != 0)
		return wrong;
	text += n + 6;
	n = digits(text, &count);
	if (n == 0 || text[n] != '/' || parse_units(text + n + 1, durations, &period) != NULL)
		return wrong;
	if (at_once < option->min || count < option->min || period < SECONDS(1))
		return "too small";
	if (at_once > option->max || count > option->max || period > DAYS(1))
		return "too large";
	burst->at_once = (uint32_t)at_once;
	burst->count = (uint32_t)count;
	burst->period = (msec_t)period;
	return NULL;
}

/* Port 0 is legal: the kernel chooses, and sekishod logs what it chose. */
static const char *
parse_address(const char *text, struct conf_addresses *list)
{
	static const char *const wrong = "not an address with a port";
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	char host[64];
	uint16_t port;
	const char *colon = strrchr(text, ':');
	if (colon == NULL || !parse_port(colon + 1, 0, &port) ||
	    (size_t)(colon - text) >= sizeof(host))
		return wrong;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	v4.sin_port = htons(port);
	v6.sin6_port = htons(port);
	if (host[0] == '\0') {
		add_address(list, &v4, sizeof(v4));
		add_address(list, &v6, sizeof(v6));
		return NULL;
	}
	size_t len = strlen(host);
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &v6.sin6_addr) != 1)
			return wrong;
		add_address(list, &v6, sizeof(v6));
		return NULL;
	}
	if (inet_pton(AF_INET, host, &v4.sin_addr) != 1)
		return wrong;
	add_address(list, &v4, sizeof(v4));
	return NULL;
}

/* "example.org", "*.example.org" or "*". */
static const char *
parse_route_domain(const char *text, struct conf_route *route)
{
	const char *name = strncmp(text, "*.", 2) == 0 ? text + 2 : text;
	if (strcmp(text, "*") != 0 && !is_domain(name))
		return "is not a domain; write a name such as example.org, \"*.example.org\" for "
		       "all "
		       "below "
		       "it, or \"*\" for all others";
	route->domain = xstrdup(text);
	for (char *c = route->domain; *c != '\0'; c++)
		*c = (char)tolower((unsigned char)*c);
	return NULL;
}

/* "host:port", "[v6]:port", either without port (25). */
static const char *
parse_route_host(const char *text, struct conf_route *route)
{
	char host[256];
	struct in6_addr v6;
	struct in_addr v4;
	size_t len = strlen(text), end;
	route->port = 25;
	if (len >= sizeof(host))
		return "is too long";
	if (text[0] == '[') {
		const char *close = strchr(text, ']');
		if (close == NULL)
			return "misses the closing bracket; write \"[2001:db8::1]:25\"";
		end = (size_t)(close - text);
		memcpy(host, text + 1, end - 1);
		host[end - 1] = '\0';
		if (inet_pton(AF_INET6, host, &v6) != 1)
			return "is not an IPv6 address; write \"[2001:db8::1]:25\"";
		end++;
	} else {
		end = strcspn(text, ":");
		memcpy(host, text, end);
		host[end] = '\0';
		/* "300.0.2.1" and "10.1" are no names anybody could look up. */
		const char *last = strrchr(host, '.') != NULL ? strrchr(host, '.') + 1 : host;
		if (!is_domain(host) || (strspn(last, "0123456789") == strlen(last) &&
		                         inet_pton(AF_INET, host, &v4) != 1))
			return "is not a host with a port; write \"mx.example.org:25\" or "
			       "\"192.0.2.1:25\", or mx for the domain's MX hosts";
	}
	if (text[end] != '\0' && (text[end] != ':' || !parse_port(text + end + 1, 1, &route->port)))
		return "has no usable port; write one from 1 to 65535 after the last colon";
	free(route->host);
	route->host = xstrdup(host);
	return NULL;
}

/* Also what YAML takes for a line break or does not let through unescaped, so that a dump means the
 * same: C1, line and paragraph separator, byte order marks. The text is UTF-8. */
static bool
has_control(const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++)
		if (*c < ' ' || *c == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0) ||
		    (c[0] == 0xe2 && c[1] == 0x80 && (c[2] == 0xa8 || c[2] == 0xa9)) ||
		    (c[0] == 0xef && c[1] == 0xbb && c[2] == 0xbf) ||
		    (c[0] == 0xef && c[1] == 0xbf && c[2] >= 0xbe))
			return true;
	return false;
}

/* Its default is empty and stands for something. */
static bool
may_be_empty(const struct option *option)
{
	return option->type == TYPE_ZONE ||
	       (option->type == TYPE_PATH && option->standard[0] == '\0');
}

static const char *
parse_text(const struct option *option, const char *text, char **out)
{
	switch (option->type) {
	case TYPE_HOSTNAME:
		if (!is_domain(text))
			return "not a host name";
		break;
	case TYPE_ZONE:
		if (strlen(text) > 64 || text[0] == '/' || strstr(text, "..") != NULL ||
		    strspn(text,
		           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_+-") !=
		        strlen(text))
			return "not a time zone";
		break;
	case TYPE_TEXT:
		if (text[0] == '\0')
			return "empty";
		if (strlen(text) > CONTACT_MAX)
			return "too long";
		for (const char *c = text; *c != '\0'; c++)
			if (*c < ' ' || *c > '~')
				return "not plain ASCII";
		break;
	case TYPE_LEVEL: {
		bool known = false;
		for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
			known = known || strcmp(text, levels[i]) == 0;
		if (!known)
			return "not a log level";
		break;
	}
	default:
		if (text[0] == '\0' && !may_be_empty(option))
			return "empty";
		if (strlen(text) > STRING_MAX)
			return "too long";
		if (has_control(text))
			return "holds control characters";
	}
	free(*out);
	*out = xstrdup(text);
	return NULL;
}

static const char *
parse_number(const struct option *option, const char *text, uint64_t *out)
{
	uint64_t value = 0;
	const char *wrong = NULL;
	size_t n;
	char *end;
	switch (option->type) {
	case TYPE_SIZE:
		wrong = parse_units(text, sizes, &value);
		break;
	case TYPE_DURATION:
	case TYPE_DURATIONS:
		wrong = parse_units(text, durations, &value);
		break;
	case TYPE_MODE:
		if (text[0] == '\0' || strlen(text) > 5 || strspn(text, "01234567") != strlen(text))
			return "not an octal mode";
		value = strtoull(text, &end, 8);
		break;
	case TYPE_QUOTA:
		n = digits(text, &value);
		if (n == 0 || (strcmp(text + n, "/day") != 0 && strcmp(text + n, "/24h") != 0))
			return "not a number per day";
		break;
	default:
		n = digits(text, &value);
		if (n == 0 || text[n] != '\0')
			return "not a whole number";
	}
	if (wrong != NULL)
		return wrong;
	if (value < option->min)
		return "too small";
	if (value > option->max)
		return "too large";
	*out = value;
	return NULL;
}

/* One scalar: the whole value, or one element of a list. NULL, or what is wrong with it. */
static const char *
parse_scalar(const struct option *option, const char *text, struct conf *conf)
{
	void *to = field(conf, option);
	uint64_t value;
	const char *wrong;
	if (is_text(option->type))
		return parse_text(option, text, to);
	switch (option->type) {
	case TYPE_ADDRESSES:
		return parse_address(text, to);
	case TYPE_SERVERS:
		return parse_server(text, to);
	case TYPE_NAMES:
		return parse_name(text, to);
	case TYPE_BURST:
		return parse_burst(option, text, to);
	case TYPE_WINDOW:
		if (strcmp(text, "rolling") != 0 && strcmp(text, "calendar") != 0)
			return "not a kind of day";
		*(bool *)to = text[0] == 'c';
		return NULL;
	case TYPE_DURATIONS: {
		struct conf_durations *list = to;
		wrong = parse_number(option, text, &value);
		if (wrong != NULL)
			return wrong;
		list->list = xreallocarray(list->list, list->count + 1, sizeof(*list->list));
		list->list[list->count++] = (msec_t)value;
		return NULL;
	}
	case TYPE_DURATION:
		wrong = parse_number(option, text, &value);
		if (wrong == NULL)
			*(msec_t *)to = (msec_t)value;
		return wrong;
	default:
		return parse_number(option, text, to);
	}
}

/* What to do about a wrong value. */
static void
print_advice(const struct option *option, struct buf *out)
{
	switch (option->type) {
	case TYPE_HOSTNAME:
		buf_add_str(out, "write a domain name such as mail.example.org");
		return;
	case TYPE_PATH:
		buf_add_str(out, "write a path");
		return;
	case TYPE_USER:
		buf_add_str(out, "write the name of a user");
		return;
	case TYPE_LEVEL:
		buf_add_str(out, "write error, warn, info or debug");
		return;
	case TYPE_ADDRESSES:
		buf_add_str(
		    out,
		    "write \"192.0.2.1:587\", \"[2001:db8::1]:587\" or \":587\" for every address");
		return;
	case TYPE_ROUTES:
		buf_add_str(out, "write a map of domain to host:port, or to mx");
		return;
	case TYPE_ZONE:
		buf_add_str(out, "write a name of the time zone database such as Asia/Tokyo");
		return;
	case TYPE_TEXT:
		buf_printf(out, "write 1 to %d printable ASCII characters", CONTACT_MAX);
		return;
	case TYPE_WINDOW:
		buf_add_str(out, "write rolling or calendar");
		return;
	case TYPE_BURST:
		buf_printf(
		    out,
		    "write off, or \"100 then 50/5min\" with numbers from %llu to %llu and a time "
		    "from 1s to 1d",
		    (unsigned long long)option->min, (unsigned long long)option->max);
		return;
	case TYPE_SERVERS:
		buf_add_str(out,
		            "write \"192.0.2.53\", \"127.0.0.1:5353\" or \"[2001:db8::53]:53\"");
		return;
	case TYPE_NAMES:
		buf_add_str(out, "write a list of users and groups such as [alice, \"@noc\"]");
		return;
	case TYPE_CLASSES:
		buf_add_str(out, "write a map of name to what differs from quota");
		return;
	case TYPE_MODE:
		buf_add_str(out, "write an octal mode");
		break;
	case TYPE_QUOTA:
		buf_add_str(out, "write a number per day");
		break;
	case TYPE_SIZE:
		buf_add_str(out, "write octets, or a number with KiB, MiB, GiB or TiB,");
		break;
	case TYPE_DURATION:
	case TYPE_DURATIONS:
		buf_add_str(out, "write a number with ms, s, min, h or d,");
		break;
	default:
		buf_add_str(out, "write a whole number");
	}
	buf_add_str(out, " from ");
	print_number(option, option->min, out);
	buf_add_str(out, " to ");
	print_number(option, option->max, out);
}

/* The tree. */

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
	enum node_kind kind;
	unsigned line, column; /* from 1 */
	char *text;            /* of a scalar */
	bool plain;            /* an unquoted scalar: empty, "~" and "null" then mean nothing */
	struct node **list;    /* elements; of a map: key, value, key, value … */
	size_t count;
};

struct reader {
	const char *file;
	const char *text;
	size_t len;
	struct buf *errors;
	unsigned mistakes;
	yaml_parser_t parser;
	size_t nodes;
	struct snapshot *snapshot;
	const struct node *classes; /* looked at last: they begin as copies of quota */
};

static void
node_free(struct node *node)
{
	if (node == NULL)
		return;
	for (size_t i = 0; i < node->count; i++)
		node_free(node->list[i]);
	free(node->list);
	free(node->text);
	free(node);
}

static bool
is_nothing(const struct node *node)
{
	return node->kind == NODE_SCALAR && node->plain &&
	       (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
	        strcmp(node->text, "null") == 0);
}

/* A value from the file inside a message: bounded, and no terminal ever sees its control
 * characters. */
static void
print_shown(const char *text, struct buf *out)
{
	buf_add_char(out, '"');
	for (size_t i = 0; text[i] != '\0'; i++) {
		if (i == 60) {
			buf_add_str(out, "...");
			break;
		}
		if ((unsigned char)text[i] < ' ' || (unsigned char)text[i] >= 0x7f)
			buf_printf(out, "\\x%02X", (unsigned char)text[i]);
		else
			buf_add_char(out, text[i]);
	}
	buf_add_char(out, '"');
}

/* Opens one error line; the caller adds the text and a newline. False once there are enough of
 * them. A key may be a stranger's: what is not ASCII becomes "?". */
static bool
mistake(struct reader *reader, unsigned line, unsigned column, const char *key)
{
	if (++reader->mistakes > ERRORS_MAX)
		return false;
	buf_printf(reader->errors, "%s:%u:%u: ", reader->file, line, column);
	for (const char *c = key; *c != '\0'; c++)
		buf_add_char(reader->errors, (unsigned char)*c < 0x7f ? *c : '?');
	buf_add_str(reader->errors, ": ");
	return true;
}

static void
mistake_at(struct reader *reader, const struct node *node, const char *key, const char *what)
{
	if (mistake(reader, node->line, node->column, key))
		buf_printf(reader->errors, "%s\n", what);
}

static void
mistake_mark(struct reader *reader, const yaml_mark_t *mark, const char *what)
{
	if (mistake(reader, (unsigned)mark->line + 1, (unsigned)mark->column + 1, "yaml"))
		buf_printf(reader->errors, "%s\n", what);
}

/* Octets count as columns; close enough for an editor to get there. */
static yaml_mark_t
mark_of(const struct reader *reader, size_t offset)
{
	yaml_mark_t mark = {.index = offset};
	for (size_t i = 0; i < offset && i < reader->len; i++) {
		mark.column++;
		if (reader->text[i] == '\n') {
			mark.line++;
			mark.column = 0;
		}
	}
	return mark;
}

static bool
next_event(struct reader *reader, yaml_event_t *event)
{
	if (yaml_parser_parse(&reader->parser, event))
		return true;
	const yaml_parser_t *p = &reader->parser;
	yaml_mark_t mark =
	    p->problem_mark.line != 0 || p->problem_mark.column != 0 ? p->problem_mark : p->mark;
	if (p->error == YAML_READER_ERROR) /* has no mark, but the octet's offset */
		mark = mark_of(reader, p->problem_offset);
	char what[256];
	snprintf(what, sizeof(what), "%s%s%s; correct the YAML",
	         p->problem != NULL ? p->problem : "unreadable", p->context != NULL ? " " : "",
	         p->context != NULL ? p->context : "");
	mistake_mark(reader, &mark, what);
	return false;
}

static struct node *
node_new(struct reader *reader, const yaml_event_t *event)
{
	const yaml_mark_t *mark = &event->start_mark;
	const yaml_char_t *anchor = NULL, *tag = NULL;
	if (++reader->nodes > NODES_MAX) {
		mistake_mark(reader, mark, "too many values; shorten the file");
		return NULL;
	}
	struct node *node = xcalloc(1, sizeof(*node));
	node->line = (unsigned)mark->line + 1;
	node->column = (unsigned)mark->column + 1;
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		node->kind = NODE_SCALAR;
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
		node->text = xmemdup0(event->data.scalar.value, event->data.scalar.length);
		node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
		if (strlen(node->text) != event->data.scalar.length) {
			mistake_mark(reader, mark, "a value holds a NUL; remove it");
			node_free(node);
			return NULL;
		}
		break;
	case YAML_SEQUENCE_START_EVENT:
		node->kind = NODE_LIST;
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
		break;
	default:
		node->kind = NODE_MAP;
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
	}
	if (anchor != NULL || tag != NULL) {
		mistake_mark(reader, mark,
		             "anchors and tags have no meaning here; write the value itself");
		node_free(node);
		return NULL;
	}
	return node;
}

/* Reads the node that begins with event, which is consumed. Bounded by DEPTH_MAX. NULL after a
 * mistake. */
static struct node *
read_node(struct reader *reader, yaml_event_t *event, unsigned depth)
{
	if (event->type == YAML_ALIAS_EVENT) {
		mistake_mark(reader, &event->start_mark,
		             "aliases have no meaning here; write the value itself");
		yaml_event_delete(event);
		return NULL;
	}
	if (depth > DEPTH_MAX) {
		mistake_mark(reader, &event->start_mark, "nested too deeply; no option needs this");
		yaml_event_delete(event);
		return NULL;
	}
	struct node *node = node_new(reader, event);
	yaml_event_delete(event);
	if (node == NULL || node->kind == NODE_SCALAR)
		return node;
	yaml_event_type_t end =
	    node->kind == NODE_LIST ? YAML_SEQUENCE_END_EVENT : YAML_MAPPING_END_EVENT;
	for (;;) {
		yaml_event_t inner;
		if (!next_event(reader, &inner))
			break;
		if (inner.type == end) {
			yaml_event_delete(&inner);
			return node;
		}
		struct node *child = read_node(reader, &inner, depth + 1);
		if (child == NULL)
			break;
		if ((node->count & (node->count - 1)) == 0) /* grows at powers of two */
			node->list =
			    xreallocarray(node->list, node->count == 0 ? 1 : node->count * 2,
			                  sizeof(*node->list));
		node->list[node->count++] = child;
	}
	node_free(node);
	return NULL;
}

/* The whole text; NULL after a mistake, and for an empty document, which is a legal file of
 * defaults. */
static struct node *
read_document(struct reader *reader)
{
	struct node *root = NULL;
	yaml_event_t event;
	unsigned documents = 0;
	for (;;) {
		if (!next_event(reader, &event))
			break;
		switch (event.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			yaml_event_delete(&event);
			continue;
		case YAML_DOCUMENT_START_EVENT:
			if (++documents > 1) {
				mistake_mark(reader, &event.start_mark,
				             "a second document; remove it");
				yaml_event_delete(&event);
				goto fail;
			}
			yaml_event_delete(&event);
			continue;
		case YAML_STREAM_END_EVENT:
			yaml_event_delete(&event);
			return root;
		default:
			root = read_node(reader, &event, 1);
			if (root == NULL)
				return NULL;
		}
	}
fail:
	node_free(root);
	return NULL;
}

/* The tree against the table. */

static const char *
last_part(const char *key)
{
	const char *dot = strrchr(key, '.');
	return dot != NULL ? dot + 1 : key;
}

static void
offer(const char *candidate, size_t d, size_t *best, char *out, size_t size)
{
	if (d >= *best)
		return;
	*best = d;
	snprintf(out, size, "%s", candidate);
}

/* The nearest section, when the stranger stands where sections do, or option, unless the stranger
 * holds a map. A right name in the wrong section counts as near. */
static void
nearest(const char *key, bool top, bool is_map, char *out, size_t size)
{
	size_t best = SIZE_MAX;
	for (size_t i = 0; i < OPTIONS; i++) {
		char section[80];
		const char *option = options[i].key, *dot = strchr(option, '.');
		if (top) {
			snprintf(section, sizeof(section), "%.*s",
			         dot != NULL ? (int)(dot - option) : (int)strlen(option), option);
			offer(section, near_distance(key, section), &best, out, size);
		}
		if (top && is_map)
			continue;
		offer(option, near_distance(key, option), &best, out, size);
		offer(option, near_distance(last_part(key), last_part(option)) + 1, &best, out,
		      size);
	}
}

static const struct option *
option_find(const char *key)
{
	for (size_t i = 0; i < OPTIONS; i++)
		if (strcmp(options[i].key, key) == 0)
			return &options[i];
	return NULL;
}

static bool
is_section_name(const char *key)
{
	size_t len = strlen(key);
	for (size_t i = 0; i < OPTIONS; i++)
		if (strncmp(options[i].key, key, len) == 0 && options[i].key[len] == '.')
			return true;
	return false;
}

static void
wrong_value(struct reader *reader, const struct option *option, const struct node *node,
            const char *what)
{
	if (!mistake(reader, node->line, node->column, option->key))
		return;
	if (node->kind == NODE_SCALAR) {
		print_shown(node->text, reader->errors);
		buf_add_str(reader->errors, " is ");
	}
	buf_printf(reader->errors, "%s; ", what);
	print_advice(option, reader->errors);
	buf_add_str(reader->errors, "\n");
}

static void
wrong_route(struct reader *reader, const struct node *node, const char *domain, const char *what)
{
	if (!mistake(reader, node->line, node->column, "routes"))
		return;
	print_shown(domain, reader->errors);
	buf_add_str(reader->errors, ": ");
	if (node->kind == NODE_SCALAR) {
		print_shown(node->text, reader->errors);
		buf_add_char(reader->errors, ' ');
	}
	buf_printf(reader->errors, "%s\n", what);
}

static const char *const tls_names[] = {"may", "none", "require", "verify", "implicit"};

static const char *
parse_tls(const char *text, enum conf_tls *tls)
{
	for (size_t i = 0; i < sizeof(tls_names) / sizeof(tls_names[0]); i++)
		if (strcmp(tls_names[i], text) == 0) {
			*tls = (enum conf_tls)i;
			return NULL;
		}
	return "is no kind of TLS; write may, none, require, verify or implicit";
}

/* One line of a route's map. */
static const char *
parse_route_line(const char *name, const char *text, struct conf_route *route)
{
	if (strcmp(name, "host") == 0) {
		uint16_t port = route->port;
		const char *wrong = parse_route_host(text, route);
		if (port != 0 && wrong == NULL && strchr(text, ':') == NULL)
			route->port = port;
		return wrong;
	}
	if (strcmp(name, "port") == 0)
		return parse_port(text, 1, &route->port)
		           ? NULL
		           : "is no port; write a number from 1 to 65535";
	if (strcmp(name, "tls") == 0)
		return parse_tls(text, &route->tls);
	char **to = strcmp(name, "user") == 0            ? &route->user
	            : strcmp(name, "password_file") == 0 ? &route->password_file
	                                                 : NULL;
	if (to == NULL)
		return "stands at an unknown key; a route has host, port, tls, user and "
		       "password_file";
	if (text[0] == '\0' || strlen(text) > STRING_MAX || has_control(text))
		return "is empty, too long or holds control characters";
	free(*to);
	*to = xstrdup(text);
	return NULL;
}

static void
apply_route_map(struct reader *reader, const char *domain, const struct node *map,
                struct conf_route *route)
{
	unsigned mistakes = reader->mistakes;
	for (size_t i = 0; i < map->count; i += 2) {
		const struct node *name = map->list[i], *value = map->list[i + 1];
		const char *wrong = NULL;
		if (name->kind != NODE_SCALAR || value->kind != NODE_SCALAR)
			wrong = "is not a single value; write one";
		for (size_t j = 0; j < i && wrong == NULL; j += 2)
			if (map->list[j]->kind == NODE_SCALAR &&
			    strcmp(map->list[j]->text, name->text) == 0)
				wrong = "is set a second time; remove one";
		if (wrong == NULL)
			wrong = parse_route_line(name->text, value->text, route);
		if (wrong != NULL)
			wrong_route(reader, value, domain, wrong);
	}
	if (reader->mistakes > mistakes)
		return;
	if (route->host == NULL)
		wrong_route(reader, map, domain, "names no host; add host: mx.example.org");
	else if ((route->user == NULL) != (route->password_file == NULL))
		wrong_route(reader, map, domain, "needs both user and password_file, or neither");
	else if (route->user != NULL && (route->tls == CONF_TLS_MAY || route->tls == CONF_TLS_NONE))
		wrong_route(
		    reader, map, domain,
		    "would send a password in clear; set tls to require, verify or implicit");
}

static void
route_clear(struct conf_route *route)
{
	free(route->domain);
	free(route->host);
	free(route->user);
	free(route->password_file);
}

static void
apply_routes(struct reader *reader, const struct option *option, const struct node *node)
{
	struct conf_routes *routes = field(&reader->snapshot->conf, option);
	if (node->kind != NODE_MAP) {
		wrong_value(reader, option, node, "not a map");
		return;
	}
	if (node->count / 2 > ROUTES_MAX) {
		mistake_at(reader, node, option->key, "too many routes; keep at most 4000");
		return;
	}
	for (size_t i = 0; i < node->count; i += 2) {
		const struct node *domain = node->list[i], *target = node->list[i + 1];
		struct conf_route route = {0};
		unsigned mistakes = reader->mistakes;
		const char *wrong = NULL;
		if (domain->kind != NODE_SCALAR || target->kind == NODE_LIST) {
			mistake_at(reader, domain, option->key,
			           "not a domain with a host:port; write one per line");
			continue;
		}
		wrong = parse_route_domain(domain->text, &route);
		if (wrong == NULL && target->kind == NODE_MAP)
			apply_route_map(reader, domain->text, target, &route);
		else if (wrong == NULL && strcmp(target->text, "mx") == 0)
			route.mx = true;
		else if (wrong == NULL)
			wrong = parse_route_host(target->text, &route);
		if (wrong != NULL)
			wrong_route(reader, target, domain->text, wrong);
		for (size_t j = 0; j < routes->count && reader->mistakes == mistakes; j++)
			if (strcmp(routes->list[j].domain, route.domain) == 0)
				mistake_at(reader, domain, option->key,
				           "a second route for the same domain; remove one");
		if (reader->mistakes > mistakes) {
			route_clear(&route);
			continue;
		}
		if (route.host == NULL)
			route.host = xstrdup("");
		if (route.user == NULL)
			route.user = xstrdup("");
		if (route.password_file == NULL)
			route.password_file = xstrdup("");
		routes->list =
		    xreallocarray(routes->list, routes->count + 1, sizeof(*routes->list));
		routes->list[routes->count++] = route;
	}
}

/* Whether a class may say something else than quota. */
static bool
is_of_class(const struct option *option)
{
	return option->field >= F(standard) &&
	       option->field < F(standard) + sizeof(struct conf_class);
}

static void
apply_class(struct reader *reader, const char *name, const struct node *map)
{
	struct conf scratch = {.standard = reader->snapshot->conf.standard};
	struct conf_classes *classes = &reader->snapshot->conf.classes;
	for (size_t i = 0; i < map->count; i += 2) {
		const struct node *key = map->list[i], *value = map->list[i + 1];
		char full[96], path[128];
		snprintf(path, sizeof(path), "classes.%s", name);
		if (key->kind != NODE_SCALAR || strlen(key->text) > 64 || has_control(key->text)) {
			mistake_at(reader, key, path, "not a key; write a plain word");
			continue;
		}
		snprintf(full, sizeof(full), "quota.%s", key->text);
		const struct option *option = option_find(full);
		bool again = false;
		for (size_t j = 0; j < i; j += 2)
			again = again || (map->list[j]->kind == NODE_SCALAR &&
			                  strcmp(map->list[j]->text, key->text) == 0);
		if (option == NULL || !is_of_class(option)) {
			mistake_at(reader, key, path,
			           "unknown key; a class has recipients, messages, window, "
			           "burst_recipients and burst_messages");
			continue;
		}
		const char *wrong = again ? "set a second time"
		                    : value->kind != NODE_SCALAR
		                        ? "not a single value"
		                        : parse_scalar(option, value->text, &scratch);
		if (wrong != NULL)
			wrong_value(reader, option, value, wrong);
	}
	classes->list = xreallocarray(classes->list, classes->count + 1, sizeof(*classes->list));
	classes->list[classes->count] = scratch.standard;
	classes->list[classes->count++].name = xstrdup(name);
}

static void
apply_classes(struct reader *reader, const struct node *node)
{
	const struct option *option = option_find("classes");
	if (node->kind != NODE_MAP) {
		if (!is_nothing(node))
			wrong_value(reader, option, node, "not a map");
		return;
	}
	if (node->count / 2 > CLASSES_MAX) {
		mistake_at(reader, node, option->key, "too many classes; keep at most 200");
		return;
	}
	for (size_t i = 0; i < node->count; i += 2) {
		const struct node *name = node->list[i], *map = node->list[i + 1];
		bool again = false;
		for (size_t j = 0; j < i; j += 2)
			again = again ||
			        (name->kind == NODE_SCALAR && node->list[j]->kind == NODE_SCALAR &&
			         strcmp(node->list[j]->text, name->text) == 0);
		if (name->kind != NODE_SCALAR || name->text[0] == '\0' ||
		    strlen(name->text) >= CONF_CLASS_SIZE ||
		    strspn(name->text, "abcdefghijklmnopqrstuvwxyz0123456789_-") !=
		        strlen(name->text))
			mistake_at(
			    reader, name, option->key,
			    "not the name of a class; write at most 31 of a-z, 0-9, - and _");
		else if (strcmp(name->text, "standard") == 0)
			mistake_at(reader, name, option->key,
			           "standard is what quota says; change it there");
		else if (again)
			mistake_at(reader, name, option->key,
			           "a second class of the same name; remove one");
		else if (map->kind != NODE_MAP)
			mistake_at(reader, map, option->key,
			           "not a class; write what differs from quota below its name");
		else
			apply_class(reader, name->text, map);
	}
}

static void
apply(struct reader *reader, const struct option *option, const struct node *node)
{
	struct place *place = &reader->snapshot->places[option - options];
	struct conf *conf = &reader->snapshot->conf;
	if (place->line != 0) {
		if (mistake(reader, node->line, node->column, option->key))
			buf_printf(reader->errors,
			           "set a second time, first in line %u; remove one\n",
			           place->line);
		return;
	}
	place->line = node->line;
	place->column = node->column;
	if (option->type == TYPE_ROUTES) {
		apply_routes(reader, option, node);
		return;
	}
	if (option->type == TYPE_CLASSES) {
		reader->classes = node;
		return;
	}
	if (node->kind == NODE_LIST && is_list(option->type)) {
		if (node->count > LIST_MAX) {
			mistake_at(reader, node, option->key, "too many elements; keep at most 64");
			return;
		}
		for (size_t i = 0; i < node->count; i++) {
			const struct node *item = node->list[i];
			const char *wrong = item->kind == NODE_SCALAR
			                        ? parse_scalar(option, item->text, conf)
			                        : "not a single value";
			if (wrong != NULL)
				wrong_value(reader, option, item, wrong);
		}
		return;
	}
	if (node->kind != NODE_SCALAR) {
		wrong_value(reader, option, node, "not a single value");
		return;
	}
	if (is_nothing(node)) {
		mistake_at(reader, node, option->key,
		           "has no value; write one, or remove the key for the default");
		return;
	}
	const char *wrong = parse_scalar(option, node->text, conf);
	if (wrong != NULL)
		wrong_value(reader, option, node, wrong);
}

static void
walk(struct reader *reader, const struct node *map, const char *prefix)
{
	for (size_t i = 0; i < map->count; i += 2) {
		const struct node *name = map->list[i], *value = map->list[i + 1];
		char key[160];
		if (name->kind != NODE_SCALAR || strlen(name->text) > 64 ||
		    has_control(name->text)) {
			mistake_at(reader, name, prefix[0] != '\0' ? prefix : "yaml",
			           "not a key; write a plain word");
			continue;
		}
		snprintf(key, sizeof(key), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "",
		         name->text);
		const struct node *first = NULL;
		/* At the first mistakes only: a hostile file of 25000 keys would make this a
		 * noticeable wait. */
		for (size_t j = 0; j < i && first == NULL && reader->mistakes <= ERRORS_MAX; j += 2)
			if (map->list[j]->kind == NODE_SCALAR &&
			    strcmp(map->list[j]->text, name->text) == 0)
				first = map->list[j];
		const struct option *option = option_find(key);
		if (first != NULL) {
			if (mistake(reader, name->line, name->column, key))
				buf_printf(reader->errors,
				           "set a second time, first in line %u; remove one\n",
				           first->line);
		} else if (option != NULL) {
			apply(reader, option, value);
		} else if (is_section_name(key)) {
			if (value->kind == NODE_MAP)
				walk(reader, value, key);
			else if (!is_nothing(value))
				mistake_at(
				    reader, value, key,
				    "a group of options, not a value; indent its options below it");
		} else {
			char near[80] = "";
			nearest(key, prefix[0] == '\0', value->kind == NODE_MAP, near,
			        sizeof(near));
			if (mistake(reader, name->line, name->column, key))
				buf_printf(reader->errors, "unknown key; did you mean %s?\n", near);
		}
	}
}

static void
set_default(struct conf *conf, const struct option *option)
{
	if (option->type == TYPE_ROUTES || option->type == TYPE_CLASSES ||
	    (option->standard[0] == '\0' && is_list(option->type)))
		return;
	if (option->type == TYPE_HOSTNAME) {
		char name[256] = "";
		if (gethostname(name, sizeof(name) - 1) < 0 || !is_domain(name))
			snprintf(name, sizeof(name), "localhost");
		const char *wrong = parse_scalar(option, name, conf);
		assert(wrong == NULL);
		return;
	}
	char copy[128];
	snprintf(copy, sizeof(copy), "%s", option->standard);
	char *rest = copy;
	for (char *item; (item = strsep(&rest, ",")) != NULL;) {
		const char *wrong = parse_scalar(option, item + strspn(item, " "), conf);
		assert(wrong == NULL);
	}
}

static void
blame(struct reader *reader, const char *key, const char *what)
{
	const struct place *place = &reader->snapshot->places[option_find(key) - options];
	if (mistake(reader, place->line != 0 ? place->line : 1,
	            place->line != 0 ? place->column : 1, key))
		buf_printf(reader->errors, "%s\n", what);
}

static bool
is_same(const struct conf_address *a, const struct conf_address *b)
{
	return a->len == b->len && memcmp(&a->addr, &b->addr, a->len) == 0;
}

/* Each address once over both kinds; port 0 is another one each time. */
static bool
repeats_address(const struct conf_addresses *list, const struct conf_addresses *more)
{
	for (size_t i = 0; i < more->count; i++) {
		const struct sockaddr_in *addr = (const struct sockaddr_in *)&more->list[i].addr;
		for (size_t j = 0; j < (list == more ? i : list->count); j++)
			if (addr->sin_port != 0 && is_same(&list->list[j], &more->list[i]))
				return true;
	}
	return false;
}

/* What no single row can say. */
static void
check_together(struct reader *reader)
{
	const struct conf *conf = &reader->snapshot->conf;
	if (conf->submission.count == 0 && conf->submissions.count == 0)
		blame(reader, "listen.submission",
		      "no listener is left; name an address here or in listen.submissions");
	if (repeats_address(&conf->submission, &conf->submission))
		blame(reader, "listen.submission", "names an address twice; remove one");
	if (repeats_address(&conf->submissions, &conf->submissions))
		blame(reader, "listen.submissions", "names an address twice; remove one");
	if (repeats_address(&conf->submission, &conf->submissions))
		blame(reader, "listen.submissions",
		      "names an address of listen.submission; choose another port for one");
	if (conf->retry_schedule.count == 0)
		blame(reader, "retry.schedule", "empty; name at least one wait such as [10min]");
	if (conf->errors_hard < conf->errors_soft)
		blame(reader, "limits.errors_hard", "below limits.errors_soft; raise it");
	if (conf->retry_expire < conf->retry_fallback)
		blame(reader, "retry.expire",
		      "shorter than retry.fallback_after; raise it or lower the other");
	if (conf->header_size > conf->message_size)
		blame(reader, "limits.header_size", "above limits.message_size; lower it");
}

struct conf *
conf_parse(const char *file, const char *text, size_t len, struct buf *errors)
{
	struct reader reader = {.file = file, .text = text, .len = len, .errors = errors};
	if (len > TEXT_MAX) {
		buf_printf(errors, "%s:1:1: yaml: larger than 1 MiB; shorten the file\n", file);
		return NULL;
	}
	int ok = yaml_parser_initialize(&reader.parser);
	assert(ok); /* fails only without memory */
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, len);
	reader.snapshot = snapshot_new();
	struct node *root = read_document(&reader);
	if (root != NULL && root->kind == NODE_MAP)
		walk(&reader, root, "");
	else if (root != NULL && !is_nothing(root))
		mistake_at(&reader, root, "yaml",
		           "not a list of options; write \"key: value\" lines");
	yaml_parser_delete(&reader.parser);
	for (size_t i = 0; i < OPTIONS && reader.mistakes == 0; i++)
		if (reader.snapshot->places[i].line == 0)
			set_default(&reader.snapshot->conf, &options[i]);
	if (reader.classes != NULL)
		apply_classes(&reader, reader.classes);
	node_free(root);
	if (reader.mistakes == 0)
		check_together(&reader);
	if (reader.mistakes > ERRORS_MAX)
		buf_printf(
		    errors,
		    "%s:1:1: yaml: %u mistakes, of which %u are shown; correct these first\n", file,
		    reader.mistakes, ERRORS_MAX);
	if (reader.mistakes == 0)
		return &reader.snapshot->conf;
	conf_free(&reader.snapshot->conf);
	return NULL;
}

static void
names_clear(struct conf_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->list[i].name);
	free(names->list);
}

const struct conf *
conf_ref(const struct conf *conf)
{
	((struct snapshot *)conf)->references++;
	return conf;
}

void
conf_free(const struct conf *held)
{
	struct conf *conf = (struct conf *)held;
	if (conf == NULL || --((struct snapshot *)conf)->references > 0)
		return;
	for (size_t i = 0; i < OPTIONS; i++)
		if (is_text(options[i].type))
			free(*(char **)field(conf, &options[i]));
	free(conf->submission.list);
	free(conf->submissions.list);
	free(conf->dns_servers.list);
	free(conf->retry_schedule.list);
	free(conf->delay_notice.list);
	names_clear(&conf->admin_look);
	names_clear(&conf->admin_operate);
	names_clear(&conf->admin_admin);
	for (size_t i = 0; i < conf->classes.count; i++)
		free(conf->classes.list[i].name);
	free(conf->classes.list);
	for (size_t i = 0; i < conf->routes.count; i++)
		route_clear(&conf->routes.list[i]);
	free(conf->routes.list);
	free(conf); /* the first member of its snapshot */
}

/* Dump. Texts are quoted so that any path survives. */

static void
print_quoted(const char *text, struct buf *out)
{
	buf_add_char(out, '"');
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			buf_add_char(out, '\\');
		buf_add_char(out, *text);
	}
	buf_add_char(out, '"');
}

static void
print_address(const struct conf_address *address, struct buf *out)
{
	char host[INET6_ADDRSTRLEN];
	if (address->addr.ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->addr;
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		buf_printf(out, "\"[%s]:%u\"", host, ntohs(v6->sin6_port));
	} else {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->addr;
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		buf_printf(out, "\"%s:%u\"", host, ntohs(v4->sin_port));
	}
}

static void
print_route(const struct conf_route *route, struct buf *out)
{
	bool v6 = strchr(route->host, ':') != NULL;
	if (route->mx) {
		buf_add_str(out, "mx");
		return;
	}
	buf_printf(out, "{ host: \"%s%s%s:%u\", tls: %s", v6 ? "[" : "", route->host, v6 ? "]" : "",
	           route->port, tls_names[route->tls]);
	if (route->user[0] != '\0') {
		buf_add_str(out, ", user: ");
		print_quoted(route->user, out);
		buf_add_str(out, ", password_file: ");
		print_quoted(route->password_file, out);
	}
	buf_add_str(out, " }");
}

static void
print_class(const struct conf_class *class, struct buf *out)
{
	buf_printf(out, "\n  %s: { recipients: %llu/day, messages: %llu/day, window: %s, ",
	           class->name, (unsigned long long)class->recipients,
	           (unsigned long long)class->messages, class->calendar ? "calendar" : "rolling");
	buf_add_str(out, "burst_recipients: \"");
	print_burst(&class->burst_recipients, out);
	buf_add_str(out, "\", burst_messages: \"");
	print_burst(&class->burst_messages, out);
	buf_add_str(out, "\" }");
}

static void
print_value(const struct conf *conf, const struct option *option, struct buf *out)
{
	const void *from = field_of(conf, option);
	switch (option->type) {
	case TYPE_HOSTNAME:
	case TYPE_PATH:
	case TYPE_USER:
	case TYPE_LEVEL:
	case TYPE_ZONE:
	case TYPE_TEXT:
		print_quoted(*(char *const *)from, out);
		break;
	case TYPE_DURATIONS: {
		const struct conf_durations *list = from;
		buf_add_char(out, '[');
		for (size_t i = 0; i < list->count; i++) {
			buf_add_str(out, i > 0 ? ", " : "");
			print_number(option, (uint64_t)list->list[i], out);
		}
		buf_add_char(out, ']');
		break;
	}
	case TYPE_ADDRESSES:
	case TYPE_SERVERS: {
		const struct conf_addresses *list = from;
		buf_add_char(out, '[');
		for (size_t i = 0; i < list->count; i++) {
			buf_add_str(out, i > 0 ? ", " : "");
			print_address(&list->list[i], out);
		}
		buf_add_char(out, ']');
		break;
	}
	case TYPE_NAMES: {
		const struct conf_names *names = from;
		buf_add_char(out, '[');
		for (size_t i = 0; i < names->count; i++)
			buf_printf(out, "%s\"%s%s\"", i > 0 ? ", " : "",
			           names->list[i].group ? "@" : "", names->list[i].name);
		buf_add_char(out, ']');
		break;
	}
	case TYPE_WINDOW:
		buf_add_str(out, *(const bool *)from ? "calendar" : "rolling");
		break;
	case TYPE_BURST:
		buf_add_char(out, '"');
		print_burst(from, out);
		buf_add_char(out, '"');
		break;
	case TYPE_CLASSES: {
		const struct conf_classes *classes = from;
		buf_add_str(out, classes->count == 0 ? "{}" : "");
		for (size_t i = 0; i < classes->count; i++)
			print_class(&classes->list[i], out);
		break;
	}
	case TYPE_ROUTES: {
		const struct conf_routes *routes = from;
		buf_add_str(out, routes->count == 0 ? "{}" : "");
		for (size_t i = 0; i < routes->count; i++) {
			const struct conf_route *route = &routes->list[i];
			buf_printf(out, "\n  \"%s\": ", route->domain);
			print_route(route, out);
		}
		break;
	}
	case TYPE_DURATION:
		print_number(option, (uint64_t) * (const msec_t *)from, out);
		break;
	default:
		print_number(option, *(const uint64_t *)from, out);
	}
}

void
conf_dump(const struct conf *conf, struct buf *out)
{
	char section[32] = "";
	for (size_t i = 0; i < OPTIONS; i++) {
		const char *dot = strchr(options[i].key, '.');
		if (dot != NULL) {
			size_t len = (size_t)(dot - options[i].key);
			assert(len < sizeof(section));
			if (strlen(section) != len || strncmp(section, options[i].key, len) != 0) {
				snprintf(section, sizeof(section), "%.*s", (int)len,
				         options[i].key);
				buf_printf(out, "%s:\n", section);
			}
		} else {
			section[0] = '\0';
		}
		buf_printf(out, "%s%s: ", dot != NULL ? "  " : "",
		           dot != NULL ? dot + 1 : options[i].key);
		print_value(conf, &options[i], out);
		buf_add_char(out, '\n');
	}
}

bool
conf_may_follow(const struct conf *running, const struct conf *next, const char *file,
                struct buf *errors)
{
	bool may = true;
	for (size_t i = 0; i < OPTIONS; i++) {
		struct buf was, is;
		unsigned line, column;
		if (options[i].reloadable)
			continue;
		buf_init(&was);
		buf_init(&is);
		print_value(running, &options[i], &was);
		print_value(next, &options[i], &is);
		if (strcmp(buf_str(&was), buf_str(&is)) != 0) {
			conf_where(next, options[i].key, &line, &column);
			buf_printf(errors,
			           "%s:%u:%u: %s: is %s until a restart; restart the service, or "
			           "set it back\n",
			           file, line != 0 ? line : 1, line != 0 ? column : 1,
			           options[i].key, buf_str(&was));
			may = false;
		}
		buf_clear(&was);
		buf_clear(&is);
	}
	return may;
}

/* Snapshots. The places travel too. */

static void
encode_burst(const struct conf_burst *burst, struct buf *out)
{
	wire_put_u32(out, burst->at_once);
	wire_put_u32(out, burst->count);
	wire_put_u64(out, (uint64_t)burst->period);
}

static bool
decode_burst(struct wire *wire, struct conf_burst *burst)
{
	burst->at_once = wire_u32(wire);
	burst->count = wire_u32(wire);
	burst->period = (msec_t)wire_u64(wire);
	return burst->count == 0 || (burst->at_once > 0 && burst->period >= (msec_t)SECONDS(1) &&
	                             burst->period <= (msec_t)DAYS(1));
}

void
conf_encode(const struct conf *conf, struct buf *out)
{
	const struct snapshot *snapshot = (const struct snapshot *)conf;
	wire_put_u32(out, OPTIONS);
	for (size_t i = 0; i < OPTIONS; i++) {
		const void *from = field_of(conf, &options[i]);
		wire_put_u32(out, snapshot->places[i].line);
		wire_put_u32(out, snapshot->places[i].column);
		switch (options[i].type) {
		case TYPE_HOSTNAME:
		case TYPE_PATH:
		case TYPE_USER:
		case TYPE_LEVEL:
		case TYPE_ZONE:
		case TYPE_TEXT:
			wire_put_str(out, *(char *const *)from);
			break;
		case TYPE_DURATIONS: {
			const struct conf_durations *list = from;
			wire_put_u32(out, (uint32_t)list->count);
			for (size_t j = 0; j < list->count; j++)
				wire_put_u64(out, (uint64_t)list->list[j]);
			break;
		}
		case TYPE_ADDRESSES:
		case TYPE_SERVERS: {
			const struct conf_addresses *list = from;
			wire_put_u32(out, (uint32_t)list->count);
			for (size_t j = 0; j < list->count; j++)
				wire_put_bytes(out, &list->list[j].addr, list->list[j].len);
			break;
		}
		case TYPE_NAMES: {
			const struct conf_names *names = from;
			wire_put_u32(out, (uint32_t)names->count);
			for (size_t j = 0; j < names->count; j++) {
				wire_put_str(out, names->list[j].name);
				wire_put_u8(out, names->list[j].group);
				wire_put_u32(out, names->list[j].id);
			}
			break;
		}
		case TYPE_WINDOW:
			wire_put_u8(out, *(const bool *)from);
			break;
		case TYPE_BURST:
			encode_burst(from, out);
			break;
		case TYPE_CLASSES: {
			const struct conf_classes *classes = from;
			wire_put_u32(out, (uint32_t)classes->count);
			for (size_t j = 0; j < classes->count; j++) {
				const struct conf_class *class = &classes->list[j];
				wire_put_str(out, class->name);
				wire_put_u64(out, class->recipients);
				wire_put_u64(out, class->messages);
				wire_put_u8(out, class->calendar);
				encode_burst(&class->burst_recipients, out);
				encode_burst(&class->burst_messages, out);
			}
			break;
		}
		case TYPE_ROUTES: {
			const struct conf_routes *routes = from;
			wire_put_u32(out, (uint32_t)routes->count);
			for (size_t j = 0; j < routes->count; j++) {
				const struct conf_route *route = &routes->list[j];
				wire_put_str(out, route->domain);
				wire_put_u8(out, route->mx);
				wire_put_str(out, route->host);
				wire_put_u16(out, route->port);
				wire_put_u8(out, (uint8_t)route->tls);
				wire_put_str(out, route->user);
				wire_put_str(out, route->password_file);
			}
			break;
		}
		case TYPE_DURATION:
			wire_put_u64(out, (uint64_t) * (const msec_t *)from);
			break;
		default:
			wire_put_u64(out, *(const uint64_t *)from);
		}
	}
}

/* The sender of a snapshot may be the unprivileged checker, so numbers meet their bounds again and
 * counts are bounded before they size anything. */
static bool
decode_value(const struct option *option, struct wire *wire, struct conf *conf)
{
	void *to = field(conf, option);
	switch (option->type) {
	case TYPE_HOSTNAME:
	case TYPE_PATH:
	case TYPE_USER:
	case TYPE_LEVEL:
	case TYPE_ZONE:
	case TYPE_TEXT:
		*(char **)to = wire_str_new(wire, STRING_MAX);
		return (*(char **)to)[0] != '\0' || may_be_empty(option);
	case TYPE_DURATIONS: {
		struct conf_durations *list = to;
		uint32_t count = wire_u32(wire);
		if (count > LIST_MAX)
			return false;
		list->list = xcalloc(count + 1, sizeof(*list->list));
		for (; list->count < count; list->count++) {
			uint64_t value = wire_u64(wire);
			if (value < option->min || value > option->max)
				return false;
			list->list[list->count] = (msec_t)value;
		}
		return true;
	}
	case TYPE_ADDRESSES:
	case TYPE_SERVERS: {
		uint32_t count = wire_u32(wire);
		if (count > 2 * LIST_MAX)
			return false;
		for (uint32_t i = 0; i < count; i++) {
			size_t len;
			const uint8_t *addr = wire_bytes(wire, &len);
			if (len != sizeof(struct sockaddr_in) && len != sizeof(struct sockaddr_in6))
				return false;
			add_address(to, addr, len);
			const struct conf_addresses *list = to;
			if (list->list[i].addr.ss_family !=
			    (len == sizeof(struct sockaddr_in) ? AF_INET : AF_INET6))
				return false;
		}
		return true;
	}
	case TYPE_NAMES: {
		struct conf_names *names = to;
		uint32_t count = wire_u32(wire);
		if (count > LIST_MAX)
			return false;
		names->list = xcalloc(count + 1, sizeof(*names->list));
		for (uint32_t i = 0; i < count; i++) {
			struct conf_name *name = &names->list[names->count++];
			name->name = wire_str_new(wire, 64);
			name->group = wire_u8(wire) != 0;
			name->id = wire_u32(wire);
		}
		return true;
	}
	case TYPE_WINDOW:
		*(bool *)to = wire_u8(wire) != 0;
		return true;
	case TYPE_BURST:
		return decode_burst(wire, to);
	case TYPE_CLASSES: {
		struct conf_classes *classes = to;
		uint32_t count = wire_u32(wire);
		if (count > CLASSES_MAX)
			return false;
		classes->list = xcalloc(count + 1, sizeof(*classes->list));
		for (uint32_t i = 0; i < count; i++) {
			struct conf_class *class = &classes->list[classes->count++];
			class->name = wire_str_new(wire, CONF_CLASS_SIZE - 1);
			class->recipients = wire_u64(wire);
			class->messages = wire_u64(wire);
			class->calendar = wire_u8(wire) != 0;
			if (!decode_burst(wire, &class->burst_recipients) ||
			    !decode_burst(wire, &class->burst_messages))
				return false;
		}
		return true;
	}
	case TYPE_ROUTES: {
		struct conf_routes *routes = to;
		uint32_t count = wire_u32(wire);
		if (count > ROUTES_MAX)
			return false;
		routes->list = xcalloc(count + 1, sizeof(*routes->list));
		for (uint32_t i = 0; i < count; i++) {
			struct conf_route *route = &routes->list[routes->count++];
			route->domain = wire_str_new(wire, 256);
			route->mx = wire_u8(wire) != 0;
			route->host = wire_str_new(wire, 256);
			route->port = wire_u16(wire);
			route->tls = (enum conf_tls)wire_u8(wire);
			route->user = wire_str_new(wire, STRING_MAX);
			route->password_file = wire_str_new(wire, STRING_MAX);
			if (route->tls > CONF_TLS_IMPLICIT)
				return false;
		}
		return true;
	}
	default: {
		uint64_t value = wire_u64(wire);
		if (value < option->min || value > option->max)
			return false;
		if (option->type == TYPE_DURATION)
			*(msec_t *)to = (msec_t)value;
		else
			*(uint64_t *)to = value;
		return true;
	}
	}
}

struct conf *
conf_decode(const void *data, size_t len)
{
	struct wire wire = wire_from(data, len);
	struct snapshot *snapshot = snapshot_new();
	if (wire_u32(&wire) != OPTIONS)
		goto fail;
	for (size_t i = 0; i < OPTIONS; i++) {
		snapshot->places[i].line = wire_u32(&wire);
		snapshot->places[i].column = wire_u32(&wire);
		if (!decode_value(&options[i], &wire, &snapshot->conf) || !wire_ok(&wire))
			goto fail;
	}
	if (wire_done(&wire))
		return &snapshot->conf;
fail:
	conf_free(&snapshot->conf);
	return NULL;
}

unsigned
conf_msa_count(const struct conf *conf)
{
	const long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (conf->msa_processes != 0)
		return (unsigned)conf->msa_processes;
	return cores < 1 ? 1 : cores > 64 ? 64 : (unsigned)cores;
}

const struct conf_class *
conf_class(const struct conf *conf, const char *name)
{
	for (size_t i = 0; i < conf->classes.count; i++)
		if (strcmp(conf->classes.list[i].name, name) == 0)
			return &conf->classes.list[i];
	return &conf->standard;
}

/* Whether pattern, "*.suffix" or "*", covers the domain. */
static bool
covers(const char *pattern, const char *domain)
{
	size_t suffix = strlen(pattern + 1), len = strlen(domain);
	return pattern[0] == '*' && len > suffix && strcmp(domain + len - suffix, pattern + 1) == 0;
}

const struct conf_route *
conf_route(const struct conf *conf, const char *domain)
{
	const struct conf_route *best = NULL;
	for (size_t i = 0; i < conf->routes.count; i++) {
		const struct conf_route *route = &conf->routes.list[i];
		if (strcmp(route->domain, domain) == 0)
			return route;
		if (covers(route->domain, domain) &&
		    (best == NULL || strlen(route->domain) > strlen(best->domain)))
			best = route;
	}
	return best;
}

void
conf_where(const struct conf *conf, const char *key, unsigned *line, unsigned *column)
{
	const struct option *option = option_find(key);
	assert(option != NULL);
	const struct place *place = &((const struct snapshot *)conf)->places[option - options];
	*line = place->line;
	*column = place->column;
}

void
conf_describe(struct buf *out)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *option = &options[i];
		buf_printf(out, "%s\t%s\t%s\t", option->key, type_names[option->type],
		           option->standard);
		if (option->max != 0) {
			print_number(option, option->min, out);
			buf_add_str(out, " to ");
			print_number(option, option->max, out);
		}
		buf_printf(out, "\t%s\t%s\n", option->reloadable ? "yes" : "no", option->help);
	}
}
