#include "queue/store_int.h"

/* How keys and values look in the environments.
 *
 * Keys are big-endian, so LMDB's order of octets is the order of numbers. The id stands in every
 * key: there are no duplicate keys (LMDB 0.9.24 has known bugs there). Values begin with a version
 * and follow core/buf's wire encoding; a record and a recipient end with a checksum, because what a
 * disk has damaged must not be taken for an address. All strings that strangers can size were
 * bounded by the grammar; what could still be longer is cut here, so that a record stays below 2000
 * octets and fits into one leaf page. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "core/mem.h"
#include "queue/proto.h"

#define FORMAT_SEALED 5 /* the first whose records end with a checksum */

enum { FLAG_GENERATED = 1, FLAG_8BIT = 2 /* formats 1 and 2 */, FLAG_HELD = 4 };

uint64_t
be_get(const uint8_t *data, size_t len)
{
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++)
		v = (v << 8) | data[i];
	return v;
}

void
be_put(uint8_t *data, size_t len, uint64_t v)
{
	for (size_t i = len; i > 0; i--) {
		data[i - 1] = (uint8_t)v;
		v >>= 8;
	}
}

static void
key_add(struct key *key, const void *data, size_t len)
{
	assert(key->len + len <= sizeof(key->data));
	memcpy(key->data + key->len, data, len);
	key->len += len;
}

static void
key_add_be(struct key *key, uint64_t v, size_t len)
{
	uint8_t octets[8];

	be_put(octets, len, v);
	key_add(key, octets, len);
}

void
key_id(struct key *key, const struct queue_id *id)
{
	key->len = 0;
	key_add(key, id->octets, STORE_ID_SIZE);
}

void
key_recipient(struct key *key, const struct queue_id *id, uint16_t index)
{
	key_id(key, id);
	key_add_be(key, index, 2);
}

void
key_due(struct key *key, msec_t due, const struct queue_id *id)
{
	key->len = 0;
	key_add_be(key, due < 0 ? 0 : (uint64_t)due, 8);
	key_add(key, id->octets, STORE_ID_SIZE);
}

void
key_text(struct key *key, const char *text)
{
	key->len = 0;
	key_add(key, text, strlen(text));
}

void
key_account(struct key *key, const char *account, const struct queue_id *id)
{
	key_text(key, account);
	key_add(key, "", 1);
	key_add(key, id->octets, STORE_ID_SIZE);
}

void
key_outbox(struct key *key, const struct queue_id *id, uint16_t index, uint32_t attempt)
{
	key_recipient(key, id, index);
	key_add_be(key, attempt, 4);
}

void
key_ledger(struct key *key, const char *account, uint32_t row)
{
	key_text(key, account);
	key_add(key, "", 1);
	key_add_be(key, row, 4);
}

static void
put_cut(struct buf *out, const char *s, size_t max)
{
	wire_put_bytes(out, s ? s : "", s ? strnlen(s, max) : 0);
}

/* The last of a record: what all before it, from start on, sums up to. */
static void
put_seal(struct buf *out, size_t start)
{
	wire_put_u64(out, XXH3_64bits(out->data + start, out->len - start));
}

/* Of a record of that many octets, those before its seal; SIZE_MAX if it is broken. */
static size_t
sealed(const uint8_t *data, size_t len)
{
	if (len == 0 || data[0] < FORMAT_SEALED)
		return len;
	if (len < 9 || be_get(data + len - 8, 8) != XXH3_64bits(data, len - 8))
		return SIZE_MAX;
	return len - 8;
}

void
record_encode(const struct store_message *message, struct buf *out)
{
	const size_t start = out->len;

	wire_put_u8(out, STORE_FORMAT);
	wire_put_u8(out, (uint8_t)((message->generated ? FLAG_GENERATED : 0) |
	                           (message->held ? FLAG_HELD : 0)));
	wire_put_u64(out, message->generation);
	put_cut(out, message->account, 255);
	wire_put_str(out, message->from.local);
	wire_put_str(out, message->from.domain);
	wire_put_u64(out, (uint64_t)message->created);
	wire_put_u64(out, (uint64_t)message->due);
	put_cut(out, message->client_ip, 63);
	wire_put_u16(out, message->client_port);
	put_cut(out, message->ehlo, 255);
	wire_put_u32(out, message->attempts);
	wire_put_u64(out, message->body.segment);
	wire_put_u64(out, message->body.offset);
	wire_put_u64(out, message->body.size);
	wire_put_u64(out, message->body.checksum);
	wire_put_u32(out, message->total);
	wire_put_u32(out, message->unfinished);
	put_cut(out, message->last_reply, STORE_REPLY_MAX);
	wire_put_u64(out, (uint64_t)message->warned);
	proto_put_envelope(out, &message->envelope);
	put_cut(out, message->message_id, QUEUE_MESSAGE_ID_MAX);
	wire_put_str(out, message->protocol);
	wire_put_u32(out, message->deferrals);
	put_cut(out, message->generated ? message->owner : "", 255);
	put_cut(out, message->class, QUEUE_CLASS_MAX);
	put_seal(out, start);
}

/* 0 for one that is not ours to read. */
static unsigned
version_of(struct wire *wire)
{
	unsigned version = wire_u8(wire);

	return version <= STORE_FORMAT ? version : 0;
}

struct store_message *
record_decode(const void *data, size_t len)
{
	const size_t octets = sealed(data, len);
	struct wire wire = wire_from(data, octets == SIZE_MAX ? 0 : octets);
	struct store_message *message;
	unsigned version = version_of(&wire), flags;

	if (version == 0 || wire.failed)
		return NULL;
	message = xcalloc(1, sizeof(*message));
	flags = wire_u8(&wire);
	message->generated = flags & FLAG_GENERATED;
	message->held = flags & FLAG_HELD;
	message->generation = wire_u64(&wire);
	message->account = wire_str_new(&wire, 255);
	wire_str(&wire, message->from.local, sizeof(message->from.local));
	wire_str(&wire, message->from.domain, sizeof(message->from.domain));
	message->created = (msec_t)wire_u64(&wire);
	message->due = (msec_t)wire_u64(&wire);
	message->client_ip = wire_str_new(&wire, 63);
	message->client_port = wire_u16(&wire);
	message->ehlo = wire_str_new(&wire, 255);
	message->attempts = wire_u32(&wire);
	message->body.segment = wire_u64(&wire);
	message->body.offset = wire_u64(&wire);
	message->body.size = wire_u64(&wire);
	message->body.checksum = wire_u64(&wire);
	message->total = wire_u32(&wire);
	message->unfinished = wire_u32(&wire);
	message->last_reply = wire_str_new(&wire, STORE_REPLY_MAX);
	message->warned = version >= 2 ? (msec_t)wire_u64(&wire) : 0;
	if (version >= 3)
		proto_envelope(&wire, &message->envelope);
	else if (flags & FLAG_8BIT)
		message->envelope.body = BODY_8BITMIME;
	message->message_id =
	    version >= 4 ? wire_str_new(&wire, QUEUE_MESSAGE_ID_MAX) : xstrdup("");
	if (version >= 4) {
		wire_str(&wire, message->protocol, sizeof(message->protocol));
		message->deferrals = wire_u32(&wire);
	}
	message->owner = version >= 6 ? wire_str_new(&wire, 255) : xstrdup("");
	message->class = version >= 6 ? wire_str_new(&wire, QUEUE_CLASS_MAX) : xstrdup("");
	if (!message->generated) {
		free(message->owner);
		message->owner = xstrdup(message->account);
	}
	if (wire_done(&wire))
		return message;
	store_message_free(message);
	return NULL;
}

void
recipient_encode(const struct store_recipient *recipient, struct buf *out)
{
	const size_t start = out->len;

	wire_put_u8(out, STORE_FORMAT);
	wire_put_u8(out, (uint8_t)recipient->state);
	wire_put_u32(out, recipient->attempts);
	wire_put_u64(out, (uint64_t)recipient->when);
	wire_put_str(out, recipient->address.local);
	wire_put_str(out, recipient->address.domain);
	put_cut(out, recipient->reply, STORE_REPLY_MAX);
	wire_put_u8(out, (uint8_t)recipient->notify);
	wire_put_str(out, recipient->orcpt);
	wire_put_u8(out, (uint8_t)recipient->lane);
	put_cut(out, recipient->host, 255);
	wire_put_str(out, recipient->peer);
	wire_put_str(out, recipient->tls);
	put_cut(out, recipient->next_hop, CONF_HOST_TEXT_SIZE - 1);
	put_seal(out, start);
}

bool
recipient_decode(const void *data, size_t len, uint16_t index, struct store_recipient *out)
{
	const size_t octets = sealed(data, len);
	struct wire wire = wire_from(data, octets == SIZE_MAX ? 0 : octets);
	unsigned version = version_of(&wire), state, lane;

	memset(out, 0, sizeof(*out));
	if (version == 0 || wire.failed)
		return false;
	out->index = index;
	state = wire_u8(&wire);
	out->state = (enum store_state)state;
	out->attempts = wire_u32(&wire);
	out->when = (msec_t)wire_u64(&wire);
	wire_str(&wire, out->address.local, sizeof(out->address.local));
	wire_str(&wire, out->address.domain, sizeof(out->address.domain));
	out->reply = wire_str_new(&wire, STORE_REPLY_MAX);
	out->notify = version >= 3 ? wire_u8(&wire) : 0;
	out->orcpt = version >= 3 ? wire_str_new(&wire, ENVELOPE_ORCPT_MAX) : xstrdup("");
	lane = version >= 4 ? wire_u8(&wire) : QUEUE_FRESH;
	out->lane = (enum queue_lane)lane;
	out->host = version >= 4 ? wire_str_new(&wire, 255) : xstrdup("");
	if (version >= 4) {
		wire_str(&wire, out->peer, sizeof(out->peer));
		wire_str(&wire, out->tls, sizeof(out->tls));
	}
	out->next_hop = version >= 7 ? wire_str_new(&wire, CONF_HOST_TEXT_SIZE - 1) : xstrdup("");
	if (wire_done(&wire) && state <= STORE_REMOVED && lane < QUEUE_LANES &&
	    envelope_is_notify(out->notify))
		return true;
	recipient_clear(out);
	return false;
}

void
recipient_clear(struct store_recipient *recipient)
{
	free(recipient->reply);
	free(recipient->orcpt);
	free(recipient->host);
	free(recipient->next_hop);
	recipient->reply = recipient->orcpt = recipient->host = recipient->next_hop = NULL;
}

void
key_index(struct key *key, enum history_by by, const char *text, const struct queue_id *id)
{
	key->len = 0;
	key_add_be(key, by, 1);
	key_add_be(key, XXH3_64bits(text, strlen(text)), 8);
	key_add(key, id->octets, STORE_ID_SIZE);
}

void
event_encode(const struct event *event, struct buf *out)
{
	wire_put_u8(out, STORE_FORMAT);
	wire_put_u8(out, (uint8_t)event->kind);
	wire_put_u64(out, (uint64_t)event->when);
	wire_put_u8(out, (uint8_t)event->lane);
	wire_put_u8(out, (uint8_t)event->from);
	wire_put_u8(out, (uint8_t)event->action);
	proto_put_id(out, &event->other);
	wire_put_str(out, event->next_hop);
	wire_put_str(out, event->why);
}

bool
event_decode(const void *data, size_t len, struct event *out)
{
	struct wire wire = wire_from(data, len);
	const unsigned version = version_of(&wire);
	unsigned kind, lane, from, action;

	memset(out, 0, sizeof(*out));
	if (version == 0)
		return false;
	kind = wire_u8(&wire);
	out->when = (msec_t)wire_u64(&wire);
	lane = wire_u8(&wire);
	from = wire_u8(&wire);
	action = wire_u8(&wire);
	proto_id(&wire, &out->other);
	if (version >= 7) {
		wire_str(&wire, out->next_hop, sizeof(out->next_hop));
		wire_str(&wire, out->why, sizeof(out->why));
	}
	out->kind = (enum event_kind)kind;
	out->lane = (enum queue_lane)lane;
	out->from = (enum queue_lane)from;
	out->action = (enum dsn_action)action;
	return wire_done(&wire) && kind < EVENTS && lane < QUEUE_LANES && from < QUEUE_LANES &&
	       action < DSN_ACTIONS;
}

void
act_encode(const struct history_act *act, struct buf *out)
{
	wire_put_u8(out, STORE_FORMAT);
	wire_put_u64(out, (uint64_t)act->when);
	wire_put_u64(out, (uint64_t)act->until);
	wire_put_str(out, act->what);
	queue_selector_put(out, &act->selector);
	wire_put_str(out, act->by);
	wire_put_str(out, act->reason);
	wire_put_str(out, act->goal);
}

bool
act_decode(const void *data, size_t len, struct history_act *out)
{
	struct wire wire = wire_from(data, len);
	const unsigned version = version_of(&wire);

	memset(out, 0, sizeof(*out));
	if (version == 0)
		return false;
	out->when = (msec_t)wire_u64(&wire);
	out->until = (msec_t)wire_u64(&wire);
	wire_str(&wire, out->what, sizeof(out->what));
	queue_selector_read(&wire, &out->selector);
	wire_str(&wire, out->by, sizeof(out->by));
	wire_str(&wire, out->reason, sizeof(out->reason));
	if (version >= 7)
		wire_str(&wire, out->goal, sizeof(out->goal));
	return wire_done(&wire);
}

void
override_encode(const struct store_override *override, struct buf *out)
{
	wire_put_u8(out, STORE_FORMAT);
	wire_put_u32(out, override->limit);
	wire_put_u64(out, (uint64_t) override->when);
	wire_put_str(out, override->by);
	wire_put_str(out, override->reason);
}

bool
override_decode(const void *data, size_t len, struct store_override *out)
{
	struct wire wire = wire_from(data, len);

	memset(out, 0, sizeof(*out));
	if (version_of(&wire) == 0)
		return false;
	out->limit = wire_u32(&wire);
	out->when = (msec_t)wire_u64(&wire);
	wire_str(&wire, out->by, sizeof(out->by));
	wire_str(&wire, out->reason, sizeof(out->reason));
	return wire_done(&wire);
}

void
reset_encode(const struct store_reset *reset, struct buf *out)
{
	wire_put_u8(out, STORE_FORMAT);
	wire_put_u64(out, (uint64_t)reset->at);
	wire_put_u64(out, (uint64_t)reset->when);
	wire_put_str(out, reset->by);
	wire_put_str(out, reset->reason);
}

bool
reset_decode(const void *data, size_t len, struct store_reset *out)
{
	struct wire wire = wire_from(data, len);

	memset(out, 0, sizeof(*out));
	if (version_of(&wire) == 0)
		return false;
	out->at = (msec_t)wire_u64(&wire);
	out->when = (msec_t)wire_u64(&wire);
	wire_str(&wire, out->by, sizeof(out->by));
	wire_str(&wire, out->reason, sizeof(out->reason));
	return wire_done(&wire);
}

void
store_message_free(struct store_message *message)
{
	if (message == NULL)
		return;
	for (size_t i = 0; i < message->recipient_count; i++)
		recipient_clear(&message->recipients[i]);
	free(message->recipients);
	free(message->account);
	free(message->client_ip);
	free(message->ehlo);
	free(message->message_id);
	free(message->owner);
	free(message->class);
	free(message->last_reply);
	free(message->prefix);
	free(message);
}
