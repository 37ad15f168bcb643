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

#define TEXT_MAX   (1024u * 1024)
#define DEPTH_MAX  6 /* the deepest meaningful node is routes -> domain -> value */
#define NODES_MAX  50000
#define LIST_MAX   64   /* listeners of a kind, steps of a schedule */
#define ROUTES_MAX 4000 /* the duplicate check is quadratic */
#define STRING_MAX 1024
#define ERRORS_MAX 40
#define SECONDS(n) ((uint64_t)(n)*1000)
#define MINUTES(n) (SECONDS(n) * 60)
#define HOURS(n)   (MINUTES(n) * 60)
#define DAYS(n)    (HOURS(n) * 24)
#define KIB        ((uint64_t)1024)
#define MIB        (KIB * 1024)
#define GIB        (MIB * 1024)
#define TIB        (GIB * 1024)

enum type {
	TYPE_HOSTNAME,  /* char *: a domain name; the default is this machine's name */
	TYPE_PATH,      /* char * */
	TYPE_USER,      /* char * */
	TYPE_LEVEL,     /* char *: one of levels[] */
	TYPE_COUNT,     /* uint64_t */
	TYPE_SIZE,      /* uint64_t octets */
	TYPE_MODE,      /* uint64_t, written in octal */
	TYPE_QUOTA,     /* uint64_t per day */
	TYPE_DURATION,  /* msec_t */
	TYPE_DURATIONS, /* struct conf_durations */
	TYPE_ADDRESSES, /* struct conf_addresses */
	TYPE_ROUTES,    /* struct conf_routes */
};

static const char *const type_names[] = {"hostname", "path",      "user",      "level",
                                         "count",    "size",      "mode",      "quota",
                                         "duration", "durations", "addresses", "routes"};
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
    {"listen.submission", TYPE_ADDRESSES, F(submission), ":587", 0, 0, false,
     "listeners with STARTTLS"},
    {"listen.submissions", TYPE_ADDRESSES, F(submissions), ":465", 0, 0, false,
     "listeners with TLS from the start"},
    {"tls.certificate", TYPE_PATH, F(tls_certificate), "/etc/sekisho/tls/certificate.pem", 0, 0,
     true, "PEM certificate chain"},
    {"tls.key", TYPE_PATH, F(tls_key), "/etc/sekisho/tls/key.pem", 0, 0, true, "PEM private key"},
    {"spool", TYPE_PATH, F(spool), "/var/spool/sekisho", 0, 0, false, "directory of the queue"},
    {"accounts", TYPE_PATH, F(accounts), "/var/lib/sekisho/accounts", 0, 0, false,
     "directory of the account store"},
    {"admin.socket", TYPE_PATH, F(admin_socket), "/run/sekisho/admin.sock", 0, 0, false,
     "socket of sekishoctl"},
    {"admin.mode", TYPE_MODE, F(admin_socket_mode), "0660", 0, 0777, false,
     "permissions of the socket"},
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
    {"quota.recipients", TYPE_QUOTA, F(quota_recipients), "500/day", 0, 100000000, true,
     "of one account in rolling 24 hours"},
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
    {"history.keep", TYPE_DURATION, F(history_keep), "30d", 0, DAYS(3650), true,
     "of finished messages"},
    {"relay.connections", TYPE_COUNT, F(relay_connections), "100", 1, 10000, true,
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
     "where mail for a domain, or \"*\" for all others, goes"},
};
#define OPTIONS (sizeof(options) / sizeof(options[0]))

struct place {
	uint32_t line; /* counted from 1; 0 while it is a default */
	uint32_t column;
};

struct snapshot {
	struct conf conf; /* first: what callers hold */
	struct place places[OPTIONS];
};

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
	       type == TYPE_LEVEL;
}

static bool
is_list(enum type type)
{
	return type == TYPE_DURATIONS || type == TYPE_ADDRESSES;
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

/* "host:port", "[v6]:port", either without port (25). */
static const char *
parse_route(const char *domain, const char *text, struct conf_routes *routes)
{
	char host[256];
	uint16_t port = 25;
	struct in6_addr v6;
	size_t len = strlen(text), end;
	if (strcmp(domain, "*") != 0 && !is_domain(domain))
		return "not a domain; write a name such as example.org, or \"*\" for all others";
	if (len >= sizeof(host))
		return "too long";
	if (text[0] == '[') {
		const char *close = strchr(text, ']');
		if (close == NULL)
			return "misses the closing bracket; write \"[2001:db8::1]:25\"";
		end = (size_t)(close - text);
		memcpy(host, text + 1, end - 1);
		host[end - 1] = '\0';
		if (inet_pton(AF_INET6, host, &v6) != 1)
			return "not an IPv6 address; write \"[2001:db8::1]:25\"";
		end++;
	} else {
		end = strcspn(text, ":");
		memcpy(host, text, end);
		host[end] = '\0';
		if (!is_domain(host))
			return "not a host with a port; write \"mx.example.org:25\" or "
			       "\"192.0.2.1:25\"";
	}
	if (text[end] != '\0' && (text[end] != ':' || !parse_port(text + end + 1, 1, &port)))
		return "has no usable port; write one from 1 to 65535 after the last colon";
	routes->list = xreallocarray(routes->list, routes->count + 1, sizeof(*routes->list));
	struct conf_route *route = &routes->list[routes->count++];
	route->domain = xstrdup(domain);
	for (char *c = route->domain; *c != '\0'; c++)
		*c = (char)tolower((unsigned char)*c);
	route->host = xstrdup(host);
	route->port = port;
	return NULL;
}

static bool
has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return true;
	return false;
}

static const char *
parse_text(const struct option *option, const char *text, char **out)
{
	switch (option->type) {
	case TYPE_HOSTNAME:
		if (!is_domain(text))
			return "not a host name";
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
		if (text[0] == '\0')
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
		buf_add_str(out, "write a map of domain to host:port");
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
	struct buf *errors;
	unsigned mistakes;
	yaml_parser_t parser;
	size_t nodes;
	struct snapshot *snapshot;
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
 * them. */
static bool
mistake(struct reader *reader, unsigned line, unsigned column, const char *key)
{
	if (++reader->mistakes > ERRORS_MAX)
		return false;
	buf_printf(reader->errors, "%s:%u:%u: ", reader->file, line, column);
	if (key[0] != '\0')
		buf_printf(reader->errors, "%s: ", key);
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

static bool
next_event(struct reader *reader, yaml_event_t *event)
{
	if (yaml_parser_parse(&reader->parser, event))
		return true;
	const yaml_parser_t *p = &reader->parser;
	const yaml_mark_t *mark =
	    p->problem_mark.line != 0 || p->problem_mark.column != 0 ? &p->problem_mark : &p->mark;
	char what[256];
	snprintf(what, sizeof(what), "%s%s%s; correct the YAML",
	         p->problem != NULL ? p->problem : "unreadable", p->context != NULL ? " " : "",
	         p->context != NULL ? p->context : "");
	mistake_mark(reader, mark, what);
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

static size_t
distance(const char *a, const char *b)
{
	size_t row[81];
	size_t la = strnlen(a, 80), lb = strnlen(b, 80);
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[lb];
}

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
			offer(section, distance(key, section), &best, out, size);
		}
		if (top && is_map)
			continue;
		offer(option, distance(key, option), &best, out, size);
		offer(option, distance(last_part(key), last_part(option)) + 1, &best, out, size);
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
		if (domain->kind != NODE_SCALAR || target->kind != NODE_SCALAR) {
			mistake_at(reader, domain, option->key,
			           "not a domain with a host:port; write one per line");
			continue;
		}
		const char *wrong = parse_route(domain->text, target->text, routes);
		if (wrong != NULL) {
			if (mistake(reader, target->line, target->column, option->key)) {
				print_shown(domain->text, reader->errors);
				buf_add_str(reader->errors, ": ");
				print_shown(target->text, reader->errors);
				buf_printf(reader->errors, " %s\n", wrong);
			}
			continue;
		}
		for (size_t j = 0; j + 1 < routes->count; j++)
			if (strcmp(routes->list[j].domain,
			           routes->list[routes->count - 1].domain) == 0) {
				mistake_at(reader, domain, option->key,
				           "a second route for the same domain; remove one");
				break;
			}
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
			if (mistake(reader, name->line, name->column, "")) {
				for (const char *c = key; *c != '\0'; c++)
					buf_add_char(reader->errors,
					             (unsigned char)*c < 0x7f ? *c : '?');
				buf_printf(reader->errors, ": unknown key; did you mean %s?\n",
				           near);
			}
		}
	}
}

static void
set_default(struct conf *conf, const struct option *option)
{
	if (option->type == TYPE_ROUTES)
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

/* What no single row can say. */
static void
check_together(struct reader *reader)
{
	const struct conf *conf = &reader->snapshot->conf;
	if (conf->submission.count == 0 && conf->submissions.count == 0)
		blame(reader, "listen.submission",
		      "no listener is left; name an address here or in listen.submissions");
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
	struct reader reader = {.file = file, .errors = errors};
	if (len > TEXT_MAX) {
		buf_printf(errors, "%s:1:1: yaml: larger than 1 MiB; shorten the file\n", file);
		return NULL;
	}
	int ok = yaml_parser_initialize(&reader.parser);
	assert(ok); /* fails only without memory */
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, len);
	reader.snapshot = xcalloc(1, sizeof(*reader.snapshot));
	struct node *root = read_document(&reader);
	if (root != NULL && root->kind == NODE_MAP)
		walk(&reader, root, "");
	else if (root != NULL && !is_nothing(root))
		mistake_at(&reader, root, "yaml",
		           "not a list of options; write \"key: value\" lines");
	node_free(root);
	yaml_parser_delete(&reader.parser);
	for (size_t i = 0; i < OPTIONS && reader.mistakes == 0; i++)
		if (reader.snapshot->places[i].line == 0)
			set_default(&reader.snapshot->conf, &options[i]);
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

void
conf_free(struct conf *conf)
{
	if (conf == NULL)
		return;
	for (size_t i = 0; i < OPTIONS; i++)
		if (is_text(options[i].type))
			free(*(char **)field(conf, &options[i]));
	free(conf->submission.list);
	free(conf->submissions.list);
	free(conf->retry_schedule.list);
	for (size_t i = 0; i < conf->routes.count; i++) {
		free(conf->routes.list[i].domain);
		free(conf->routes.list[i].host);
	}
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
print_value(const struct conf *conf, const struct option *option, struct buf *out)
{
	const void *from = field_of(conf, option);
	switch (option->type) {
	case TYPE_HOSTNAME:
	case TYPE_PATH:
	case TYPE_USER:
	case TYPE_LEVEL:
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
	case TYPE_ADDRESSES: {
		const struct conf_addresses *list = from;
		buf_add_char(out, '[');
		for (size_t i = 0; i < list->count; i++) {
			buf_add_str(out, i > 0 ? ", " : "");
			print_address(&list->list[i], out);
		}
		buf_add_char(out, ']');
		break;
	}
	case TYPE_ROUTES: {
		const struct conf_routes *routes = from;
		buf_add_str(out, routes->count == 0 ? "{}" : "");
		for (size_t i = 0; i < routes->count; i++) {
			const struct conf_route *route = &routes->list[i];
			bool v6 = strchr(route->host, ':') != NULL;
			buf_printf(out, "\n  \"%s\": \"%s%s%s:%u\"", route->domain, v6 ? "[" : "",
			           route->host, v6 ? "]" : "", route->port);
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

/* Snapshots. The places travel too. */

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
			wire_put_str(out, *(char *const *)from);
			break;
		case TYPE_DURATIONS: {
			const struct conf_durations *list = from;
			wire_put_u32(out, (uint32_t)list->count);
			for (size_t j = 0; j < list->count; j++)
				wire_put_u64(out, (uint64_t)list->list[j]);
			break;
		}
		case TYPE_ADDRESSES: {
			const struct conf_addresses *list = from;
			wire_put_u32(out, (uint32_t)list->count);
			for (size_t j = 0; j < list->count; j++)
				wire_put_bytes(out, &list->list[j].addr, list->list[j].len);
			break;
		}
		case TYPE_ROUTES: {
			const struct conf_routes *routes = from;
			wire_put_u32(out, (uint32_t)routes->count);
			for (size_t j = 0; j < routes->count; j++) {
				wire_put_str(out, routes->list[j].domain);
				wire_put_str(out, routes->list[j].host);
				wire_put_u16(out, routes->list[j].port);
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
		*(char **)to = wire_str_new(wire, STRING_MAX);
		return (*(char **)to)[0] != '\0';
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
	case TYPE_ADDRESSES: {
		uint32_t count = wire_u32(wire);
		if (count > 2 * LIST_MAX)
			return false;
		for (uint32_t i = 0; i < count; i++) {
			size_t len;
			const uint8_t *addr = wire_bytes(wire, &len);
			if (len != sizeof(struct sockaddr_in) && len != sizeof(struct sockaddr_in6))
				return false;
			add_address(to, addr, len);
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
			route->host = wire_str_new(wire, 256);
			route->port = wire_u16(wire);
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
	struct snapshot *snapshot = xcalloc(1, sizeof(*snapshot));
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
