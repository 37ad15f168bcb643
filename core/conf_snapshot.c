#include "core/conf_int.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

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

static void
encode_route(const struct conf_route *route, struct buf *out)
{
	wire_put_u8(out, route->mx);
	wire_put_str(out, route->host);
	wire_put_u16(out, route->port);
	wire_put_u8(out, (uint8_t)route->tls);
	wire_put_str(out, route->user);
	wire_put_str(out, route->password_file);
}

static bool
decode_route(struct wire *wire, struct conf_route *route)
{
	route->mx = wire_u8(wire) != 0;
	route->host = wire_str_new(wire, 256);
	route->port = wire_u16(wire);
	route->tls = (enum conf_tls)wire_u8(wire);
	route->user = wire_str_new(wire, STRING_MAX);
	route->password_file = wire_str_new(wire, STRING_MAX);
	return route->tls <= CONF_TLS_IMPLICIT;
}

static bool
decode_label(struct wire *wire, char *label)
{
	wire_str(wire, label, CONF_CLASS_SIZE);
	return conf_is_label(label);
}

static void
encode_value(const void *base, const struct option *option, struct buf *out)
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
	case TYPE_SERVERS:
	case TYPE_SOURCES: {
		const struct conf_addresses *list = from;
		wire_put_u32(out, (uint32_t)list->count);
		for (size_t j = 0; j < list->count; j++)
			wire_put_bytes(out, &list->list[j].addr, list->list[j].len);
		break;
	}
	case TYPE_NETWORKS: {
		const struct conf_networks *networks = from;
		wire_put_u32(out, (uint32_t)networks->count);
		for (size_t j = 0; j < networks->count; j++) {
			const struct conf_network *network = &networks->list[j];
			wire_put_bytes(out, network->prefix, network->family == AF_INET6 ? 16 : 4);
			wire_put_u8(out, network->bits);
		}
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
	case TYPE_CHOICE:
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
			wire_put_u8(out, class->any_sender);
			wire_put_u8(out, (uint8_t) class->priority);
			wire_put_u8(out, (uint8_t) class->weight);
			wire_put_str(out, class->pool);
		}
		break;
	}
	case TYPE_ROUTES: {
		const struct conf_routes *routes = from;
		wire_put_u32(out, (uint32_t)routes->count);
		for (size_t j = 0; j < routes->count; j++) {
			wire_put_str(out, routes->list[j].domain);
			encode_route(&routes->list[j], out);
		}
		break;
	}
	case TYPE_ROUTE:
		encode_route(from, out);
		break;
	case TYPE_LABEL:
		wire_put_str(out, from);
		break;
	case TYPE_WORD:
		wire_put_u32(out, *(const unsigned *)from);
		break;
	case TYPE_RECORDS: {
		const struct record *record = option->record;
		const struct records *records = from;
		wire_put_u32(out, (uint32_t)records->count);
		for (size_t i = 0; i < records->count; i++)
			for (size_t j = 0; j < record->count; j++)
				encode_value((const char *)records->list + i * record->size,
				             &record->fields[j], out);
		break;
	}
	case TYPE_DURATION:
		wire_put_u64(out, (uint64_t) * (const msec_t *)from);
		break;
	default:
		wire_put_u64(out, *(const uint64_t *)from);
	}
}

void
conf_encode(const struct conf *conf, struct buf *out)
{
	const struct snapshot *snapshot = (const struct snapshot *)conf;
	wire_put_u32(out, (uint32_t)conf_option_count);
	for (size_t i = 0; i < conf_option_count; i++) {
		wire_put_u32(out, snapshot->places[i].line);
		wire_put_u32(out, snapshot->places[i].column);
		encode_value(conf, &conf_options[i], out);
	}
}

/* The sender of a snapshot may be the unprivileged checker, so numbers meet their bounds again and
 * counts are bounded before they size anything. */
static bool decode_value(const struct option *option, struct wire *wire, void *base);

static bool
decode_records(const struct record *record, struct wire *wire, struct records *records)
{
	const uint32_t count = wire_u32(wire);

	if (count > record->max)
		return false;
	records->list = xcalloc(count + 1, record->size);
	while (records->count < count && wire_ok(wire)) {
		char *base = (char *)records->list + records->count++ * record->size;
		for (size_t j = 0; j < record->count; j++)
			if (!decode_value(&record->fields[j], wire, base))
				return false;
	}
	return true;
}

static bool
decode_word(const struct option *option, struct wire *wire, unsigned *out)
{
	unsigned count = 0;

	while (option->list[count] != NULL)
		count++;
	*out = wire_u32(wire);
	return *out < count;
}

static bool
decode_value(const struct option *option, struct wire *wire, void *base)
{
	void *to = conf_field(base, option);
	switch (option->type) {
	case TYPE_HOSTNAME:
	case TYPE_PATH:
	case TYPE_USER:
	case TYPE_LEVEL:
	case TYPE_ZONE:
	case TYPE_TEXT:
	case TYPE_SEPARATOR:
	case TYPE_PATTERN:
		*(char **)to = wire_str_new(wire, STRING_MAX);
		return (*(char **)to)[0] != '\0' || conf_may_be_empty(option);
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
	case TYPE_SERVERS:
	case TYPE_SOURCES: {
		uint32_t count = wire_u32(wire);
		if (count > 2 * LIST_MAX)
			return false;
		for (uint32_t i = 0; i < count; i++) {
			size_t len;
			const uint8_t *addr = wire_bytes(wire, &len);
			if (len != sizeof(struct sockaddr_in) && len != sizeof(struct sockaddr_in6))
				return false;
			conf_add_address(to, addr, len);
			const struct conf_addresses *list = to;
			if (list->list[i].addr.ss_family !=
			    (len == sizeof(struct sockaddr_in) ? AF_INET : AF_INET6))
				return false;
		}
		return true;
	}
	case TYPE_NETWORKS: {
		struct conf_networks *networks = to;
		uint32_t count = wire_u32(wire);
		if (count > LIST_MAX)
			return false;
		networks->list = xcalloc(count + 1, sizeof(*networks->list));
		for (; networks->count < count; networks->count++) {
			struct conf_network *network = &networks->list[networks->count];
			size_t len;
			const uint8_t *prefix = wire_bytes(wire, &len);
			network->bits = wire_u8(wire);
			if ((len != 4 && len != 16) || network->bits > len * 8)
				return false;
			network->family = len == 16 ? AF_INET6 : AF_INET;
			memcpy(network->prefix, prefix, len);
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
	case TYPE_ROUTE:
		return decode_route(wire, to);
	case TYPE_LABEL:
		return decode_label(wire, to);
	case TYPE_WORD:
		return decode_word(option, wire, to);
	case TYPE_RECORDS:
		return decode_records(option->record, wire, to);
	case TYPE_CHOICE:
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
			class->any_sender = wire_u8(wire) != 0;
			class->priority = wire_u8(wire);
			class->weight = wire_u8(wire);
			if (class->priority > 9 || class->weight < 1 ||
			    class->weight > CONF_WEIGHT_MAX || !decode_label(wire, class->pool))
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
			if (!decode_route(wire, route))
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
	struct snapshot *snapshot = conf_snapshot_new();
	if (wire_u32(&wire) != conf_option_count)
		goto fail;
	for (size_t i = 0; i < conf_option_count; i++) {
		snapshot->places[i].line = wire_u32(&wire);
		snapshot->places[i].column = wire_u32(&wire);
		if (!decode_value(&conf_options[i], &wire, &snapshot->conf) || !wire_ok(&wire))
			goto fail;
	}
	if (wire_done(&wire))
		return &snapshot->conf;
fail:
	conf_free(&snapshot->conf);
	return NULL;
}
