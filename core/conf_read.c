#include "core/conf_int.h"

#include <assert.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/near.h"

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
	for (size_t i = 0; i < conf_option_count; i++) {
		char section[80];
		const char *option = conf_options[i].key, *dot = strchr(option, '.');
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

static bool
is_section_name(const char *key)
{
	size_t len = strlen(key);
	for (size_t i = 0; i < conf_option_count; i++)
		if (strncmp(conf_options[i].key, key, len) == 0 && conf_options[i].key[len] == '.')
			return true;
	return false;
}

static void
wrong_value(struct reader *reader, const struct option *option, const struct node *node,
            const char *what)
{
	if (!conf_mistake(reader, node->line, node->column, option->key))
		return;
	if (node->kind == NODE_SCALAR) {
		conf_print_shown(node->text, reader->errors);
		buf_add_str(reader->errors, " is ");
	}
	buf_printf(reader->errors, "%s; ", what);
	conf_print_advice(option, reader->errors);
	buf_add_str(reader->errors, "\n");
}

/* domain NULL: of fallback.host. */
static void
wrong_route(struct reader *reader, const struct node *node, const char *domain, const char *what)
{
	if (!conf_mistake(reader, node->line, node->column, domain ? "routes" : "fallback.host"))
		return;
	if (domain) {
		conf_print_shown(domain, reader->errors);
		buf_add_str(reader->errors, ": ");
	}
	if (node->kind == NODE_SCALAR) {
		conf_print_shown(node->text, reader->errors);
		buf_add_char(reader->errors, ' ');
	}
	buf_printf(reader->errors, "%s\n", what);
}

static const char *
parse_tls(const char *text, enum conf_tls *tls)
{
	for (size_t i = 0; i < CONF_TLS_IMPLICIT + 1; i++)
		if (strcmp(conf_tls_names[i], text) == 0) {
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
		const char *wrong = conf_parse_route_host(text, route);
		if (port != 0 && wrong == NULL && strchr(text, ':') == NULL)
			route->port = port;
		return wrong;
	}
	if (strcmp(name, "port") == 0)
		return conf_parse_port(text, 1, &route->port)
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
	if (text[0] == '\0' || strlen(text) > CONF_SECRET_MAX || conf_has_control(text))
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
complete_route(struct conf_route *route)
{
	if (route->host == NULL)
		route->host = xstrdup("");
	if (route->user == NULL)
		route->user = xstrdup("");
	if (route->password_file == NULL)
		route->password_file = xstrdup("");
}

static void
apply_route(struct reader *reader, const struct option *option, const struct node *node)
{
	struct conf_route *route = conf_field(&reader->snapshot->conf, option);
	const char *wrong = NULL;

	if (node->kind == NODE_MAP)
		apply_route_map(reader, NULL, node, route);
	else if (node->kind == NODE_SCALAR && !conf_is_nothing(node) && node->text[0] != '\0')
		wrong = conf_parse_route_host(node->text, route);
	else if (node->kind == NODE_LIST || conf_is_nothing(node)) /* "" is none */
		wrong_value(reader, option, node, "not a host");
	if (wrong != NULL)
		wrong_route(reader, node, NULL, wrong);
	complete_route(route);
}

static void
apply_routes(struct reader *reader, const struct option *option, const struct node *node)
{
	struct conf_routes *routes = conf_field(&reader->snapshot->conf, option);
	if (node->kind != NODE_MAP) {
		wrong_value(reader, option, node, "not a map");
		return;
	}
	if (node->count / 2 > ROUTES_MAX) {
		conf_mistake_at(reader, node, option->key, "too many routes; keep at most 4000");
		return;
	}
	for (size_t i = 0; i < node->count; i += 2) {
		const struct node *domain = node->list[i], *target = node->list[i + 1];
		struct conf_route route = {0};
		unsigned mistakes = reader->mistakes;
		const char *wrong = NULL;
		if (domain->kind != NODE_SCALAR || target->kind == NODE_LIST) {
			conf_mistake_at(reader, domain, option->key,
			                "not a domain with a host:port; write one per line");
			continue;
		}
		wrong = conf_parse_route_domain(domain->text, &route);
		if (wrong == NULL && target->kind == NODE_MAP)
			apply_route_map(reader, domain->text, target, &route);
		else if (wrong == NULL && strcmp(target->text, "mx") == 0)
			route.mx = true;
		else if (wrong == NULL)
			wrong = conf_parse_route_host(target->text, &route);
		if (wrong != NULL)
			wrong_route(reader, target, domain->text, wrong);
		for (size_t j = 0; j < routes->count && reader->mistakes == mistakes; j++)
			if (strcmp(routes->list[j].domain, route.domain) == 0)
				conf_mistake_at(reader, domain, option->key,
				                "a second route for the same domain; remove one");
		if (reader->mistakes > mistakes) {
			conf_route_clear(&route);
			continue;
		}
		complete_route(&route);
		routes->list =
		    xreallocarray(routes->list, routes->count + 1, sizeof(*routes->list));
		routes->list[routes->count++] = route;
	}
}

/* Whether a class may say something else than quota. */
static bool
is_of_class(const struct option *option)
{
	return option->field >= offsetof(struct conf, standard) &&
	       option->field < offsetof(struct conf, standard) + sizeof(struct conf_class);
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
		if (key->kind != NODE_SCALAR || strlen(key->text) > 64 ||
		    conf_has_control(key->text)) {
			conf_mistake_at(reader, key, path, "not a key; write a plain word");
			continue;
		}
		snprintf(full, sizeof(full), "quota.%s", key->text);
		const struct option *option = conf_option_find(full);
		bool again = false;
		for (size_t j = 0; j < i; j += 2)
			again = again || (map->list[j]->kind == NODE_SCALAR &&
			                  strcmp(map->list[j]->text, key->text) == 0);
		if (option == NULL || !is_of_class(option)) {
			conf_mistake_at(
			    reader, key, path,
			    "unknown key; a class has recipients, messages, window, "
			    "burst_recipients, burst_messages, priority, weight, pool and "
			    "senders");
			continue;
		}
		const char *wrong = again ? "set a second time"
		                    : value->kind != NODE_SCALAR
		                        ? "not a single value"
		                        : conf_parse_scalar(option, value->text, &scratch);
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
	const struct option *option = conf_option_find("classes");
	if (node->kind != NODE_MAP) {
		if (!conf_is_nothing(node))
			wrong_value(reader, option, node, "not a map");
		return;
	}
	if (node->count / 2 > CLASSES_MAX) {
		conf_mistake_at(reader, node, option->key, "too many classes; keep at most 200");
		return;
	}
	for (size_t i = 0; i < node->count; i += 2) {
		const struct node *name = node->list[i], *map = node->list[i + 1];
		bool again = false;
		for (size_t j = 0; j < i; j += 2)
			again = again ||
			        (name->kind == NODE_SCALAR && node->list[j]->kind == NODE_SCALAR &&
			         strcmp(node->list[j]->text, name->text) == 0);
		if (name->kind != NODE_SCALAR || !conf_is_label(name->text))
			conf_mistake_at(
			    reader, name, option->key,
			    "not the name of a class; write at most 31 of a-z, 0-9, - and _");
		else if (strcmp(name->text, "standard") == 0)
			conf_mistake_at(reader, name, option->key,
			                "standard is what quota says; change it there");
		else if (again)
			conf_mistake_at(reader, name, option->key,
			                "a second class of the same name; remove one");
		else if (map->kind != NODE_MAP)
			conf_mistake_at(
			    reader, map, option->key,
			    "not a class; write what differs from quota below its name");
		else
			apply_class(reader, name->text, map);
	}
}

static void
set_default(void *base, const struct option *option)
{
	if (option->type == TYPE_ROUTE) {
		complete_route(conf_field(base, option));
		return;
	}
	if (option->type == TYPE_ROUTES || option->type == TYPE_CLASSES ||
	    option->type == TYPE_RECORDS ||
	    (option->standard[0] == '\0' && conf_is_list(option->type)))
		return;
	if (option->type == TYPE_HOSTNAME) {
		char name[256] = "";
		if (gethostname(name, sizeof(name) - 1) < 0 || !conf_is_domain(name))
			snprintf(name, sizeof(name), "localhost");
		const char *wrong = conf_parse_scalar(option, name, base);
		assert(wrong == NULL);
		return;
	}
	if (!conf_is_list(option->type)) {
		const char *wrong = conf_parse_scalar(option, option->standard, base);
		assert(wrong == NULL);
		return;
	}
	char copy[128];
	snprintf(copy, sizeof(copy), "%s", option->standard);
	char *rest = copy;
	for (char *item; (item = strsep(&rest, ",")) != NULL;) {
		const char *wrong = conf_parse_scalar(option, item + strspn(item, " "), base);
		assert(wrong == NULL);
	}
}

static void
wrong_field(struct reader *reader, const struct option *of, const struct option *field,
            const struct node *node, const char *what)
{
	if (!conf_mistake(reader, node->line, node->column, of->key))
		return;
	buf_printf(reader->errors, "%s: ", field->key);
	if (node->kind == NODE_SCALAR) {
		conf_print_shown(node->text, reader->errors);
		buf_add_str(reader->errors, " is ");
	}
	buf_printf(reader->errors, "%s; ", what);
	conf_print_advice(field, reader->errors);
	buf_add_str(reader->errors, "\n");
}

static void
unknown_field(struct reader *reader, const struct option *of, const struct node *key)
{
	const struct record *record = of->record;

	if (!conf_mistake(reader, key->line, key->column, of->key))
		return;
	conf_print_shown(key->kind == NODE_SCALAR ? key->text : "", reader->errors);
	buf_printf(reader->errors, " is an unknown key; %s has", record->noun);
	for (size_t i = 0; i < record->count; i++)
		buf_printf(reader->errors, "%s %s",
		           i == 0                  ? ""
		           : i + 1 < record->count ? ","
		                                   : " and",
		           record->fields[i].key);
	buf_add_str(reader->errors, "\n");
}

static void
apply_field(struct reader *reader, const struct option *of, const struct option *field,
            const struct node *node, void *base)
{
	const char *wrong;

	if (node->kind == NODE_LIST && conf_is_list(field->type) && node->count <= LIST_MAX) {
		for (size_t i = 0; i < node->count; i++) {
			const struct node *item = node->list[i];

			wrong = item->kind == NODE_SCALAR
			            ? conf_parse_scalar(field, item->text, base)
			            : "not a single value";
			if (wrong != NULL)
				wrong_field(reader, of, field, item, wrong);
		}
		return;
	}
	wrong = node->kind != NODE_SCALAR ? "not a single value"
	        : conf_is_nothing(node)   ? "empty"
	                                  : conf_parse_scalar(field, node->text, base);
	if (wrong != NULL)
		wrong_field(reader, of, field, node, wrong);
}

/* One map of a list of records. */
static void
apply_record(struct reader *reader, const struct option *option, const struct node *map, void *base)
{
	const struct record *record = option->record;
	bool set[32] = {false};

	assert(record->count <= sizeof(set));
	for (size_t i = 0; i < map->count; i += 2) {
		const struct node *key = map->list[i];
		size_t f = 0;

		while (f < record->count &&
		       (key->kind != NODE_SCALAR || strcmp(record->fields[f].key, key->text) != 0))
			f++;
		if (f == record->count) {
			unknown_field(reader, option, key);
		} else if (set[f]) {
			if (conf_mistake(reader, key->line, key->column, option->key))
				buf_printf(reader->errors, "%s: set a second time; remove one\n",
				           key->text);
		} else {
			set[f] = true;
			apply_field(reader, option, &record->fields[f], map->list[i + 1], base);
		}
	}
	for (size_t f = 0; f < record->count; f++) {
		const struct option *field = &record->fields[f];

		if (set[f])
			continue;
		if (field->standard != NULL)
			set_default(base, field);
		else if (conf_mistake(reader, map->line, map->column, option->key))
			buf_printf(reader->errors, "%s needs %s; add it\n", record->noun,
			           field->key);
	}
}

static void
apply_records(struct reader *reader, const struct option *option, const struct node *node)
{
	const struct record *record = option->record;
	struct records *records = conf_field(&reader->snapshot->conf, option);

	if (node->kind != NODE_LIST) {
		if (!conf_is_nothing(node))
			wrong_value(reader, option, node, "not a list");
		return;
	}
	if (node->count > record->max) {
		if (conf_mistake(reader, node->line, node->column, option->key))
			buf_printf(reader->errors, "too many of them; keep at most %zu\n",
			           record->max);
		return;
	}
	records->list = xcalloc(node->count + 1, record->size);
	for (size_t i = 0; i < node->count; i++) {
		const struct node *map = node->list[i];
		const unsigned mistakes = reader->mistakes;
		const char *wrong;

		if (map->kind != NODE_MAP) {
			wrong_value(reader, option, map, "not a map");
			continue;
		}
		apply_record(reader, option, map,
		             (char *)records->list + records->count++ * record->size);
		if (reader->mistakes > mistakes || record->check == NULL)
			continue;
		wrong = record->check(records->list, records->count - 1);
		if (wrong != NULL)
			conf_mistake_at(reader, map, option->key, wrong);
	}
}

static void
apply(struct reader *reader, const struct option *option, const struct node *node)
{
	struct place *place = &reader->snapshot->places[option - conf_options];
	struct conf *conf = &reader->snapshot->conf;
	if (place->line != 0) {
		if (conf_mistake(reader, node->line, node->column, option->key))
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
	if (option->type == TYPE_ROUTE) {
		apply_route(reader, option, node);
		return;
	}
	if (option->type == TYPE_RECORDS) {
		apply_records(reader, option, node);
		return;
	}
	if (option->type == TYPE_CLASSES) {
		reader->classes = node;
		return;
	}
	if (node->kind == NODE_LIST && conf_is_list(option->type)) {
		if (node->count > LIST_MAX) {
			conf_mistake_at(reader, node, option->key,
			                "too many elements; keep at most 64");
			return;
		}
		for (size_t i = 0; i < node->count; i++) {
			const struct node *item = node->list[i];
			const char *wrong = item->kind == NODE_SCALAR
			                        ? conf_parse_scalar(option, item->text, conf)
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
	if (conf_is_nothing(node)) {
		conf_mistake_at(reader, node, option->key,
		                "has no value; write one, or remove the key for the default");
		return;
	}
	const char *wrong = conf_parse_scalar(option, node->text, conf);
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
		    conf_has_control(name->text)) {
			conf_mistake_at(reader, name, prefix[0] != '\0' ? prefix : "yaml",
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
		const struct option *option = conf_option_find(key);
		if (first != NULL) {
			if (conf_mistake(reader, name->line, name->column, key))
				buf_printf(reader->errors,
				           "set a second time, first in line %u; remove one\n",
				           first->line);
		} else if (option != NULL) {
			apply(reader, option, value);
		} else if (is_section_name(key)) {
			if (value->kind == NODE_MAP)
				walk(reader, value, key);
			else if (!conf_is_nothing(value))
				conf_mistake_at(
				    reader, value, key,
				    "a group of options, not a value; indent its options below it");
		} else {
			char near[80] = "";
			nearest(key, prefix[0] == '\0', value->kind == NODE_MAP, near,
			        sizeof(near));
			if (conf_mistake(reader, name->line, name->column, key))
				buf_printf(reader->errors, "unknown key; did you mean %s?\n", near);
		}
	}
}

static void
blame(struct reader *reader, const char *key, const char *what)
{
	const struct place *place = &reader->snapshot->places[conf_option_find(key) - conf_options];
	if (conf_mistake(reader, place->line != 0 ? place->line : 1,
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

static void
check_pool_of(struct reader *reader, const char *key, const char *whose, const char *pool)
{
	char what[512];

	if (strcmp(pool, "default") == 0 || conf_pool_named(&reader->snapshot->conf, pool))
		return;
	snprintf(what, sizeof(what), "%s%segress has no pool %s; name one of egress, or default",
	         whose ? whose : "", whose ? ": " : "", pool);
	blame(reader, key, what);
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
	if (conf->standard.any_sender)
		blame(reader, "quota.senders",
		      "would let every account send as anybody; make a class for those that must");
	check_pool_of(reader, "quota.pool", NULL, conf->standard.pool);
	for (size_t i = 0; i < conf->classes.count; i++)
		check_pool_of(reader, "classes", conf->classes.list[i].name,
		              conf->classes.list[i].pool);
	for (size_t i = 0; i < conf->sites.count; i++)
		check_pool_of(reader, "sites", conf->sites.list[i].match, conf->sites.list[i].pool);
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
	reader.snapshot = conf_snapshot_new();
	struct node *root = conf_read_document(&reader);
	if (root != NULL && root->kind == NODE_MAP)
		walk(&reader, root, "");
	else if (root != NULL && !conf_is_nothing(root))
		conf_mistake_at(&reader, root, "yaml",
		                "not a list of options; write \"key: value\" lines");
	for (size_t i = 0; i < conf_option_count && reader.mistakes == 0; i++)
		if (reader.snapshot->places[i].line == 0)
			set_default(&reader.snapshot->conf, &conf_options[i]);
	if (reader.classes != NULL)
		apply_classes(&reader, reader.classes);
	conf_node_free(root);
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
