#include "core/conf_int.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

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
	           route->port, conf_tls_names[route->tls]);
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
	conf_print_burst(&class->burst_recipients, out);
	buf_add_str(out, "\", burst_messages: \"");
	conf_print_burst(&class->burst_messages, out);
	buf_printf(out, "\", priority: %llu, weight: %llu, pool: %s, senders: %s }",
	           (unsigned long long)class->priority, (unsigned long long)class->weight,
	           class->pool, class->any_sender ? "any" : "own");
}

static void
print_sources(const struct conf_addresses *sources, struct buf *out)
{
	char host[INET6_ADDRSTRLEN];

	buf_add_char(out, '[');
	for (size_t i = 0; i < sources->count; i++) {
		const struct sockaddr_storage *addr = &sources->list[i].addr;
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;

		if (addr->ss_family == AF_INET6)
			inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		else
			inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		buf_printf(out, "%s\"%s\"", i > 0 ? ", " : "", host);
	}
	buf_add_char(out, ']');
}

/* Whether the file may leave it out: what cannot be written down is the default. */
static bool
is_empty(const struct option *option, const void *base)
{
	return conf_is_text(option->type) &&
	       (*(char *const *)conf_field_of(base, option))[0] == '\0';
}

static void
print_records(const struct record *record, const struct records *records, struct buf *out)
{
	buf_add_str(out, records->count == 0 ? "[]" : "");
	for (size_t i = 0; i < records->count; i++) {
		const char *base = (const char *)records->list + i * record->size;
		const char *before = "\n  - { ";

		for (size_t j = 0; j < record->count; j++) {
			if (is_empty(&record->fields[j], base))
				continue;
			buf_printf(out, "%s%s: ", before, record->fields[j].key);
			conf_print_value(base, &record->fields[j], out);
			before = ", ";
		}
		buf_add_str(out, " }");
	}
}

void
conf_print_value(const void *base, const struct option *option, struct buf *out)
{
	const void *from = conf_field_of(base, option);
	switch (option->type) {
	case TYPE_HOSTNAME:
	case TYPE_PATH:
	case TYPE_USER:
	case TYPE_LEVEL:
	case TYPE_ZONE:
	case TYPE_TEXT:
	case TYPE_SEPARATOR:
	case TYPE_PATTERN:
		print_quoted(*(char *const *)from, out);
		break;
	case TYPE_DURATIONS: {
		const struct conf_durations *list = from;
		buf_add_char(out, '[');
		for (size_t i = 0; i < list->count; i++) {
			buf_add_str(out, i > 0 ? ", " : "");
			conf_print_number(option, (uint64_t)list->list[i], out);
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
	case TYPE_NETWORKS: {
		const struct conf_networks *networks = from;
		char host[INET6_ADDRSTRLEN];
		buf_add_char(out, '[');
		for (size_t i = 0; i < networks->count; i++)
			buf_printf(out, "%s\"%s/%u\"", i > 0 ? ", " : "",
			           inet_ntop(networks->list[i].family, networks->list[i].prefix,
			                     host, sizeof(host)),
			           networks->list[i].bits);
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
	case TYPE_CHOICE:
		buf_add_str(out, option->words[*(const bool *)from]);
		break;
	case TYPE_BURST:
		buf_add_char(out, '"');
		conf_print_burst(from, out);
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
	case TYPE_WORD:
		buf_add_str(out, option->list[*(const unsigned *)from]);
		break;
	case TYPE_SOURCES:
		print_sources(from, out);
		break;
	case TYPE_RECORDS:
		print_records(option->record, from, out);
		break;
	case TYPE_ROUTE: {
		const struct conf_route *route = from;
		if (route->host[0] == '\0')
			buf_add_str(out, "\"\"");
		else
			print_route(route, out);
		break;
	}
	case TYPE_LABEL:
		buf_add_str(out, from);
		break;
	case TYPE_DURATION:
		conf_print_number(option, (uint64_t) * (const msec_t *)from, out);
		break;
	default:
		conf_print_number(option, *(const uint64_t *)from, out);
	}
}

void
conf_dump(const struct conf *conf, struct buf *out)
{
	char section[32] = "";
	for (size_t i = 0; i < conf_option_count; i++) {
		const char *dot = strchr(conf_options[i].key, '.');
		if (dot != NULL) {
			size_t len = (size_t)(dot - conf_options[i].key);
			assert(len < sizeof(section));
			if (strlen(section) != len ||
			    strncmp(section, conf_options[i].key, len) != 0) {
				snprintf(section, sizeof(section), "%.*s", (int)len,
				         conf_options[i].key);
				buf_printf(out, "%s:\n", section);
			}
		} else {
			section[0] = '\0';
		}
		buf_printf(out, "%s%s: ", dot != NULL ? "  " : "",
		           dot != NULL ? dot + 1 : conf_options[i].key);
		conf_print_value(conf, &conf_options[i], out);
		buf_add_char(out, '\n');
	}
}
