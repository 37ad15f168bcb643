#include "queue/selector.h"

#include <stdio.h>
#include <string.h>

#include "core/conf.h"
#include "core/text.h"
#include "queue/client.h"

static void
tell(const struct queue_selector *selector, struct buf *out)
{
	char id[QUEUE_ID_TEXT_SIZE];

	if (selector->has_message)
		buf_printf(out, " message %s", queue_id_format(&selector->message, id));
	if (selector->account[0])
		buf_printf(out, " account %s", selector->account);
	if (selector->sender[0])
		buf_printf(out, " sender %s", selector->sender);
	if (selector->recipient[0])
		buf_printf(out, " recipient %s", selector->recipient);
	if (selector->site[0])
		buf_printf(out, " site %s", selector->site);
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		if (selector->lanes & (1u << i))
			buf_printf(out, " lane %s", queue_lane_name((enum queue_lane)i));
	if (selector->older) {
		buf_add_str(out, " older ");
		conf_print_duration(selector->older, out);
	}
	if (selector->younger) {
		buf_add_str(out, " younger ");
		conf_print_duration(selector->younger, out);
	}
	if (selector->larger) {
		buf_add_str(out, " larger ");
		conf_print_size(selector->larger, out);
	}
	if (selector->smaller) {
		buf_add_str(out, " smaller ");
		conf_print_size(selector->smaller, out);
	}
	if (selector->reply[0])
		buf_printf(out, " reply %s", selector->reply);
	if (out->len == 0)
		buf_add_str(out, " all");
}

char *
queue_selector_text(const struct queue_selector *selector, char out[QUEUE_SELECTOR_TEXT_SIZE])
{
	struct buf text;

	buf_init(&text);
	tell(selector, &text);
	snprintf(out, QUEUE_SELECTOR_TEXT_SIZE, "%s", buf_str(&text) + 1);
	buf_clear(&text);
	return out;
}

bool
queue_selector_is_good(const struct queue_selector *selector)
{
	struct buf text;
	bool good;

	buf_init(&text);
	tell(selector, &text);
	good = text.len <= QUEUE_SELECTOR_TEXT_SIZE &&
	       text_is_printable(buf_str(&text), text.len) && strchr(buf_str(&text), '"') == NULL &&
	       selector->lanes < 1u << QUEUE_LANES && selector->older >= 0 &&
	       selector->younger >= 0;
	buf_clear(&text);
	return good;
}

bool
queue_selector_is_all(const struct queue_selector *selector)
{
	char text[QUEUE_SELECTOR_TEXT_SIZE];

	return strcmp(queue_selector_text(selector, text), "all") == 0;
}

bool
queue_selector_has_recipient(const struct queue_selector *selector)
{
	return selector->recipient[0] || selector->site[0] || selector->reply[0];
}

void
queue_selector_put(struct buf *buf, const struct queue_selector *selector)
{
	wire_put_u8(buf, selector->has_message);
	wire_put_raw(buf, selector->message.octets, sizeof(selector->message.octets));
	wire_put_str(buf, selector->account);
	wire_put_str(buf, selector->sender);
	wire_put_str(buf, selector->recipient);
	wire_put_str(buf, selector->site);
	wire_put_str(buf, selector->reply);
	wire_put_u8(buf, (uint8_t)selector->lanes);
	wire_put_u64(buf, (uint64_t)selector->older);
	wire_put_u64(buf, (uint64_t)selector->younger);
	wire_put_u64(buf, selector->larger);
	wire_put_u64(buf, selector->smaller);
}

void
queue_selector_read(struct wire *wire, struct queue_selector *out)
{
	memset(out, 0, sizeof(*out));
	out->has_message = wire_u8(wire) != 0;
	wire_raw(wire, out->message.octets, sizeof(out->message.octets));
	wire_str(wire, out->account, sizeof(out->account));
	wire_str(wire, out->sender, sizeof(out->sender));
	wire_str(wire, out->recipient, sizeof(out->recipient));
	wire_str(wire, out->site, sizeof(out->site));
	wire_str(wire, out->reply, sizeof(out->reply));
	out->lanes = wire_u8(wire);
	out->older = (msec_t)wire_u64(wire);
	out->younger = (msec_t)wire_u64(wire);
	out->larger = wire_u64(wire);
	out->smaller = wire_u64(wire);
	if (!wire_ok(wire) || !queue_selector_is_good(out))
		wire->failed = true;
}
