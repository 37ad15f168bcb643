#include "core/conf_int.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* What people divide user and detail with; more would be taken for part of a name. */
#define SEPARATORS "+-_="

const char *const conf_tls_names[] = {"may", "none", "require", "verify", "implicit"};

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

bool
conf_size(const char *text, uint64_t *out)
{
	return parse_units(text, sizes, out) == NULL;
}

static void
print_units(uint64_t value, const struct unit *units, struct buf *out)
{
	while (units[1].name != NULL &&
	       (value == 0 ? units->factor > SECONDS(1) : value % units->factor != 0))
		units++;
	buf_printf(out, "%llu%s", (unsigned long long)(value / units->factor), units->name);
}

void
conf_print_duration(msec_t value, struct buf *out)
{
	print_units((uint64_t)value, durations, out);
}

void
conf_print_size(uint64_t value, struct buf *out)
{
	if (value == 0)
		buf_add_str(out, "0");
	else
		print_units(value, sizes, out);
}

void
conf_print_burst(const struct conf_burst *burst, struct buf *out)
{
	if (burst->count == 0) {
		buf_add_str(out, "off");
		return;
	}
	buf_printf(out, "%u then %u/", burst->at_once, burst->count);
	print_units((uint64_t)burst->period, durations, out);
}

void
conf_print_number(const struct option *option, uint64_t value, struct buf *out)
{
	switch (option->type) {
	case TYPE_SIZE:
		conf_print_size(value, out);
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
bool
conf_is_domain(const char *text)
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

bool
conf_is_label(const char *text)
{
	const size_t len = strlen(text);

	return len > 0 && len < CONF_CLASS_SIZE &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_-") == len;
}

bool
conf_parse_port(const char *text, unsigned min, uint16_t *port)
{
	uint64_t value;
	size_t n = digits(text, &value);
	if (n == 0 || text[n] != '\0' || value < min || value > 65535)
		return false;
	*port = (uint16_t)value;
	return true;
}

void
conf_add_address(struct conf_addresses *list, const void *addr, size_t len)
{
	list->list = xreallocarray(list->list, list->count + 1, sizeof(*list->list));
	struct conf_address *slot = &list->list[list->count++];
	memset(slot, 0, sizeof(*slot));
	memcpy(&slot->addr, addr, len);
	slot->len = (socklen_t)len;
}

/* One that a connection can come from. */
static const char *
parse_source(const char *text, struct conf_addresses *list)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1 && v4.sin_addr.s_addr != 0)
		conf_add_address(list, &v4, sizeof(v4));
	else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1 &&
	         !IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr) && !IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
		conf_add_address(list, &v6, sizeof(v6));
	else
		return "not an address";
	return NULL;
}

static const char *
parse_word(const struct option *option, const char *text, unsigned *out)
{
	for (unsigned i = 0; option->list[i] != NULL; i++)
		if (strcmp(option->list[i], text) == 0) {
			*out = i;
			return NULL;
		}
	return "not one of the words";
}

/* An address to ask; without a port it is 53. */
static const char *
parse_server(const char *text, struct conf_addresses *list)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(53)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
	char host[64];
	uint16_t port = 53;
	size_t len;
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
		conf_add_address(list, &v4, sizeof(v4));
		return NULL;
	}
	if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
		conf_add_address(list, &v6, sizeof(v6));
		return NULL;
	}
	const char *colon = strrchr(text, ':');
	if (colon == NULL || colon == text || !conf_parse_port(colon + 1, 1, &port) ||
	    (len = (size_t)(colon - text)) >= sizeof(host))
		return "not an address";
	memcpy(host, text, len);
	host[len] = '\0';
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		v6.sin6_port = htons(port);
		if (inet_pton(AF_INET6, host + 1, &v6.sin6_addr) != 1)
			return "not an address";
		conf_add_address(list, &v6, sizeof(v6));
		return NULL;
	}
	v4.sin_port = htons(port);
	if (inet_pton(AF_INET, host, &v4.sin_addr) != 1)
		return "not an address";
	conf_add_address(list, &v4, sizeof(v4));
	return NULL;
}

/* "192.0.2.0/24": octets that the length leaves out are a slip, and which half of it was meant is
 * for the operator to say. */
static const char *
parse_network(const char *text, struct conf_networks *networks)
{
	struct conf_network network = {.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET};
	const unsigned most = network.family == AF_INET6 ? 128 : 32;
	char host[INET6_ADDRSTRLEN];
	uint64_t bits = most;
	size_t len = strcspn(text, "/");
	if (len >= sizeof(host))
		return "not a network";
	memcpy(host, text, len);
	host[len] = '\0';
	if (inet_pton(network.family, host, network.prefix) != 1)
		return "not a network";
	if (text[len] == '/' &&
	    (digits(text + len + 1, &bits) != strlen(text + len + 1) || text[len + 1] == '\0'))
		return "not a network";
	if (bits > most)
		return "longer than an address";
	for (unsigned bit = (unsigned)bits; bit < most; bit++)
		if (network.prefix[bit / 8] & 0x80u >> bit % 8)
			return "an address within the network";
	network.bits = (uint8_t)bits;
	networks->list =
	    xreallocarray(networks->list, networks->count + 1, sizeof(*networks->list));
	networks->list[networks->count++] = network;
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
	if (colon == NULL || !conf_parse_port(colon + 1, 0, &port) ||
	    (size_t)(colon - text) >= sizeof(host))
		return wrong;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	v4.sin_port = htons(port);
	v6.sin6_port = htons(port);
	if (host[0] == '\0') {
		conf_add_address(list, &v4, sizeof(v4));
		conf_add_address(list, &v6, sizeof(v6));
		return NULL;
	}
	size_t len = strlen(host);
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &v6.sin6_addr) != 1)
			return wrong;
		conf_add_address(list, &v6, sizeof(v6));
		return NULL;
	}
	if (inet_pton(AF_INET, host, &v4.sin_addr) != 1)
		return wrong;
	conf_add_address(list, &v4, sizeof(v4));
	return NULL;
}

/* "example.org", "*.example.org" or "*". */
const char *
conf_parse_pattern(const char *text, char **out)
{
	const char *name = strncmp(text, "*.", 2) == 0 ? text + 2 : text;
	if (strcmp(text, "*") != 0 && !conf_is_domain(name))
		return "not a domain";
	free(*out);
	*out = xstrdup(text);
	for (char *c = *out; *c != '\0'; c++)
		*c = (char)tolower((unsigned char)*c);
	return NULL;
}

const char *
conf_parse_route_domain(const char *text, struct conf_route *route)
{
	return conf_parse_pattern(text, &route->domain) == NULL
	           ? NULL
	           : "is not a domain; write a name such as example.org, \"*.example.org\" for "
	             "all below it, or \"*\" for all others";
}

/* "300.0.2.1" and "10.1" are no names anybody could look up. */
static bool
is_host_name(const char *name)
{
	const char *last = strrchr(name, '.') != NULL ? strrchr(name, '.') + 1 : name;
	struct in_addr v4;

	return conf_is_domain(name) &&
	       (strspn(last, "0123456789") != strlen(last) || inet_pton(AF_INET, name, &v4) == 1);
}

const char *
conf_host(const char *text, struct conf_host *out)
{
	const bool bracket = text[0] == '[';
	const char *name = bracket ? text + 1 : text;
	const size_t len = strcspn(name, bracket ? "]" : ":");
	const char *rest = name + len;
	struct in6_addr v6;

	out->port = 25;
	if (len >= sizeof(out->name))
		return "is too long";
	if (bracket && *rest++ != ']')
		return "misses the closing bracket; write \"[2001:db8::1]:25\"";
	memcpy(out->name, name, len);
	out->name[len] = '\0';
	if (strchr(out->name, ':') != NULL ? inet_pton(AF_INET6, out->name, &v6) != 1
	                                   : !is_host_name(out->name))
		return bracket ? "is not an IPv6 address; write \"[2001:db8::1]:25\""
		               : "is not a host with a port; write \"mx.example.org:25\" or "
		                 "\"192.0.2.1:25\", or mx for the domain's MX hosts";
	if (*rest != '\0' && (*rest != ':' || !conf_parse_port(rest + 1, 1, &out->port)))
		return "has no usable port; write one from 1 to 65535 after the last colon";
	for (char *c = out->name; *c != '\0'; c++)
		*c = (char)tolower((unsigned char)*c);
	return NULL;
}

char *
conf_host_text(const struct conf_host *host, char out[CONF_HOST_TEXT_SIZE])
{
	const bool v6 = strchr(host->name, ':') != NULL;

	snprintf(out, CONF_HOST_TEXT_SIZE, "%s%s%s:%u", v6 ? "[" : "", host->name, v6 ? "]" : "",
	         host->port);
	return out;
}

const char *
conf_parse_route_host(const char *text, struct conf_route *route)
{
	struct conf_host host;
	const char *wrong = conf_host(text, &host);

	route->port = host.port;
	if (wrong != NULL)
		return wrong;
	free(route->host);
	route->host = xstrdup(host.name);
	return NULL;
}

/* Also what YAML takes for a line break or does not let through unescaped, so that a dump means the
 * same: C1, line and paragraph separator, byte order marks. The text is UTF-8. */
bool
conf_has_control(const char *text)
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
bool
conf_may_be_empty(const struct option *option)
{
	return option->type == TYPE_ZONE ||
	       ((option->type == TYPE_PATH || option->type == TYPE_TEXT ||
	         option->type == TYPE_PATTERN) &&
	        option->standard != NULL && option->standard[0] == '\0');
}

static const char *
parse_text(const struct option *option, const char *text, char **out)
{
	switch (option->type) {
	case TYPE_HOSTNAME:
		if (!conf_is_domain(text))
			return "not a host name";
		break;
	case TYPE_ZONE:
		if (strlen(text) > 64 || text[0] == '/' || strstr(text, "..") != NULL ||
		    strspn(text,
		           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_+-") !=
		        strlen(text))
			return "not a time zone";
		break;
	case TYPE_PATTERN:
		if (text[0] != '\0')
			return conf_parse_pattern(text, out);
		if (!conf_may_be_empty(option))
			return "empty";
		break;
	case TYPE_TEXT:
		if (text[0] == '\0' && !conf_may_be_empty(option))
			return "empty";
		if (strlen(text) > CONTACT_MAX)
			return "too long";
		for (const char *c = text; *c != '\0'; c++)
			if (*c < ' ' || *c > '~')
				return "not plain ASCII";
		break;
	case TYPE_SEPARATOR:
		if (strcmp(text, "off") != 0 &&
		    (text[0] == '\0' || text[1] != '\0' || strchr(SEPARATORS, text[0]) == NULL))
			return "not a separator";
		break;
	case TYPE_LEVEL: {
		bool known = false;
		for (size_t i = 0; i < CONF_LEVELS; i++)
			known = known || strcmp(text, conf_levels[i]) == 0;
		if (!known)
			return "not a log level";
		break;
	}
	default:
		if (text[0] == '\0' && !conf_may_be_empty(option))
			return "empty";
		if (strlen(text) > STRING_MAX)
			return "too long";
		if (conf_has_control(text))
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
const char *
conf_parse_scalar(const struct option *option, const char *text, void *base)
{
	void *to = conf_field(base, option);
	uint64_t value;
	const char *wrong;
	if (conf_is_text(option->type))
		return parse_text(option, text, to);
	switch (option->type) {
	case TYPE_ADDRESSES:
		return parse_address(text, to);
	case TYPE_SERVERS:
		return parse_server(text, to);
	case TYPE_SOURCES:
		return parse_source(text, to);
	case TYPE_WORD:
		return parse_word(option, text, to);
	case TYPE_NETWORKS:
		return parse_network(text, to);
	case TYPE_NAMES:
		return parse_name(text, to);
	case TYPE_BURST:
		return parse_burst(option, text, to);
	case TYPE_CHOICE:
		*(bool *)to = strcmp(text, option->words[1]) == 0;
		return *(bool *)to || strcmp(text, option->words[0]) == 0 ? NULL
		                                                          : "not one of the words";
	case TYPE_LABEL:
		if (!conf_is_label(text))
			return "not a name";
		snprintf(to, CONF_CLASS_SIZE, "%s", text);
		return NULL;
	case TYPE_ROUTE:
		return conf_parse_route_host(text, to);
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
void
conf_print_advice(const struct option *option, struct buf *out)
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
	case TYPE_LABEL:
		buf_add_str(out, "write at most 31 of a-z, 0-9, - and _");
		return;
	case TYPE_ROUTE:
		buf_add_str(out, "write host:port, or a map of host, port, tls, user and "
		                 "password_file");
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
	case TYPE_CHOICE:
		buf_printf(out, "write %s or %s", option->words[0], option->words[1]);
		return;
	case TYPE_SEPARATOR:
		buf_add_str(out, "write one of the characters " SEPARATORS ", or off");
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
	case TYPE_NETWORKS:
		buf_add_str(out, "write \"192.0.2.0/24\", \"2001:db8::/32\" or an address");
		return;
	case TYPE_NAMES:
		buf_add_str(out, "write a list of users and groups such as [alice, \"@noc\"]");
		return;
	case TYPE_CLASSES:
		buf_add_str(out, "write a map of name to what differs from quota");
		return;
	case TYPE_WORD:
		buf_add_str(out, "write one of ");
		for (size_t i = 0; option->list[i] != NULL; i++)
			buf_printf(out, "%s%s", i > 0 ? ", " : "", option->list[i]);
		return;
	case TYPE_PATTERN:
		buf_add_str(out,
		            "write a name such as example.org, \"*.example.org\" for all below "
		            "it, or \"*\" for all");
		return;
	case TYPE_SOURCES:
		buf_add_str(out, "write \"192.0.2.1\" or \"2001:db8::1\"");
		return;
	case TYPE_RECORDS:
		buf_printf(out, "write a list of maps, each of them %s", option->record->noun);
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
	conf_print_number(option, option->min, out);
	buf_add_str(out, " to ");
	conf_print_number(option, option->max, out);
}
