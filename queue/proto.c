#include "queue/proto.h"

#include <assert.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/text.h"

/* Encoders and decoders side by side, so that one look tells whether they agree.
 *
 * Addresses use one-octet lengths: an envelope of 1,000 recipients of 254 octets, 4,000 octets of
 * prefix and 64 KiB of body then fits one frame. All text that later reaches a log line, a record
 * or a remote server must be printable ASCII here, so no compromised peer can slip a line break
 * into an SMTP command. Checks are sticky in struct wire: a decoder reads straight down and asks
 * once at its end. */

void
proto_put_id(struct buf *buf, const struct queue_id *id)
{
	wire_put_raw(buf, id->octets, sizeof(id->octets));
}

void
proto_id(struct wire *wire, struct queue_id *out)
{
	wire_raw(wire, out->octets, sizeof(out->octets));
}

void
proto_put_address(struct buf *buf, const struct address *address)
{
	size_t local = strlen(address->local), domain = strlen(address->domain);
	assert(local <= UINT8_MAX && domain <= UINT8_MAX);
	wire_put_u8(buf, (uint8_t)local);
	wire_put_raw(buf, address->local, local);
	wire_put_u8(buf, (uint8_t)domain);
	wire_put_raw(buf, address->domain, domain);
}

static void
read_part(struct wire *wire, char *out, size_t size)
{
	size_t len = wire_u8(wire);
	if (len >= size) {
		wire->failed = true;
		len = 0;
	}
	memset(out, 0, size);
	wire_raw(wire, out, len);
	if (wire_ok(wire) && !text_is_printable(out, len))
		wire->failed = true;
	if (!wire_ok(wire))
		out[0] = '\0';
}

void
proto_address(struct wire *wire, struct address *out)
{
	read_part(wire, out->local, sizeof(out->local));
	read_part(wire, out->domain, sizeof(out->domain));
	if (!text_is_ascii(out->domain) || (out->local[0] == '\0') != (out->domain[0] == '\0'))
		wire->failed = true; /* half an address; the null path has neither part */
}

enum { /* of struct envelope, in the order of their bits */
       ENVELOPE_SMTPUTF8 = 1,
       ENVELOPE_REQUIRETLS = 2,
       ENVELOPE_TLS_OPTIONAL = 4,
       ENVELOPE_BY_TRACE = 8,
       ENVELOPE_FLAGS = 15,
};

void
proto_put_envelope(struct buf *buf, const struct envelope *envelope)
{
	wire_put_u8(buf, (uint8_t)((envelope->smtputf8 ? ENVELOPE_SMTPUTF8 : 0) |
	                           (envelope->requiretls ? ENVELOPE_REQUIRETLS : 0) |
	                           (envelope->tls_optional ? ENVELOPE_TLS_OPTIONAL : 0) |
	                           (envelope->by_trace ? ENVELOPE_BY_TRACE : 0)));
	wire_put_u8(buf, (uint8_t)envelope->body);
	wire_put_u8(buf, (uint8_t)envelope->ret);
	wire_put_str(buf, envelope->envid);
	wire_put_u8(buf, (uint8_t)(envelope->priority + ENVELOPE_PRIORITY));
	wire_put_u64(buf, (uint64_t)envelope->hold_until);
	wire_put_u8(buf, (uint8_t)envelope->by);
	wire_put_u64(buf, (uint64_t)envelope->by_deadline);
}

/* An enumerator or number of at most max. */
static unsigned
read_small(struct wire *wire, unsigned max)
{
	unsigned v = wire_u8(wire);
	if (v > max)
		wire->failed = true;
	return v > max ? 0 : v;
}

void
proto_envelope(struct wire *wire, struct envelope *out)
{
	unsigned flags = read_small(wire, ENVELOPE_FLAGS);

	memset(out, 0, sizeof(*out));
	out->smtputf8 = flags & ENVELOPE_SMTPUTF8;
	out->requiretls = flags & ENVELOPE_REQUIRETLS;
	out->tls_optional = flags & ENVELOPE_TLS_OPTIONAL;
	out->by_trace = flags & ENVELOPE_BY_TRACE;
	out->body = (enum envelope_body)read_small(wire, BODY_BINARYMIME);
	out->ret = (enum envelope_ret)read_small(wire, RET_HDRS);
	wire_str(wire, out->envid, sizeof(out->envid));
	if (out->envid[0] && !envelope_is_envid(out->envid, strlen(out->envid))) {
		wire->failed = true;
		out->envid[0] = '\0';
	}
	out->priority = (int)read_small(wire, 2 * ENVELOPE_PRIORITY) - ENVELOPE_PRIORITY;
	out->hold_until = (msec_t)wire_u64(wire);
	out->by = (enum envelope_by)read_small(wire, BY_RETURN);
	out->by_deadline = (msec_t)wire_u64(wire);
	if (out->hold_until < 0)
		wire->failed = true;
}

static void
put_recipient(struct buf *buf, const struct address *address, unsigned notify, const char *orcpt)
{
	proto_put_address(buf, address);
	wire_put_u8(buf, (uint8_t)notify);
	wire_put_u16(buf, (uint16_t)strlen(orcpt));
	wire_put_raw(buf, orcpt, strlen(orcpt));
}

/* Its text is allocated from arena. */
static void
read_recipient(struct wire *wire, struct arena *arena, struct envelope_recipient *out)
{
	char orcpt[ENVELOPE_ORCPT_MAX + 1] = "";

	proto_address(wire, &out->address);
	out->notify = wire_u8(wire);
	size_t len = wire_u16(wire);
	if (len < sizeof(orcpt))
		wire_raw(wire, orcpt, len);
	if (len >= sizeof(orcpt) || (len > 0 && !envelope_is_orcpt(orcpt, len)) ||
	    !envelope_is_notify(out->notify) || address_is_null(&out->address))
		wire->failed = true;
	out->orcpt = len > 0 && wire_ok(wire) ? arena_memdup0(arena, orcpt, len) : "";
}

void
proto_put_quota(struct buf *buf, const struct queue_quota *quota)
{
	wire_put_u8(buf, (uint8_t)quota->meter);
	wire_put_u32(buf, quota->limit);
	wire_put_u32(buf, quota->used);
	wire_put_u32(buf, quota->reserved);
	wire_put_u64(buf, (uint64_t)quota->reset);
	wire_put_u64(buf, (uint64_t)quota->start);
}

void
proto_quota(struct wire *wire, struct queue_quota *out)
{
	unsigned meter = wire_u8(wire);
	if (meter >= QUEUE_METERS) {
		wire->failed = true;
		meter = QUEUE_RECIPIENTS;
	}
	out->meter = (enum queue_meter)meter;
	out->limit = wire_u32(wire);
	out->used = wire_u32(wire);
	out->reserved = wire_u32(wire);
	out->reset = (msec_t)wire_u64(wire);
	out->start = (msec_t)wire_u64(wire);
}

void
proto_put_view(struct buf *buf, const struct queue_quota_view *view)
{
	wire_put_str(buf, view->account);
	wire_put_str(buf, view->class);
	wire_put_u8(buf, view->calendar);
	for (size_t i = 0; i < QUEUE_METERS; i++) {
		const struct queue_burst *burst = &view->burst[i];
		proto_put_quota(buf, &view->meters[i]);
		wire_put_u32(buf, burst->at_once);
		wire_put_u32(buf, burst->count);
		wire_put_u64(buf, (uint64_t)burst->period);
		wire_put_u64(buf, (uint64_t)burst->left);
	}
	wire_put_u8(buf, view->overridden);
	wire_put_u32(buf, view->class_limit);
	wire_put_u64(buf, (uint64_t)view->override_set);
	wire_put_str(buf, view->override_by);
	wire_put_str(buf, view->override_reason);
	wire_put_u64(buf, (uint64_t)view->reset_when);
	wire_put_str(buf, view->reset_by);
	wire_put_str(buf, view->reset_reason);
}

void
proto_view(struct wire *wire, struct queue_quota_view *out)
{
	wire_str(wire, out->account, sizeof(out->account));
	wire_str(wire, out->class, sizeof(out->class));
	out->calendar = wire_u8(wire) != 0;
	for (size_t i = 0; i < QUEUE_METERS; i++) {
		struct queue_burst *burst = &out->burst[i];
		proto_quota(wire, &out->meters[i]);
		burst->at_once = wire_u32(wire);
		burst->count = wire_u32(wire);
		burst->period = (msec_t)wire_u64(wire);
		burst->left = (int64_t)wire_u64(wire);
	}
	out->overridden = wire_u8(wire) != 0;
	out->class_limit = wire_u32(wire);
	out->override_set = (msec_t)wire_u64(wire);
	wire_str(wire, out->override_by, sizeof(out->override_by));
	wire_str(wire, out->override_reason, sizeof(out->override_reason));
	out->reset_when = (msec_t)wire_u64(wire);
	wire_str(wire, out->reset_by, sizeof(out->reset_by));
	wire_str(wire, out->reset_reason, sizeof(out->reset_reason));
}

void
proto_word(struct wire *wire, char *out, size_t size)
{
	wire_str(wire, out, size);
	if (wire_ok(wire) && (out[0] == '\0' || !text_is_printable(out, strlen(out))))
		wire->failed = true;
	if (!wire_ok(wire))
		out[0] = '\0';
}

/* A text that is "" or printable. */
static void
read_text(struct wire *wire, char *out, size_t size)
{
	wire_str(wire, out, size);
	if (!text_is_printable(out, strlen(out)))
		wire->failed = true;
}

void
proto_put_commit(struct buf *buf, const struct proto_commit *commit)
{
	wire_put_u64(buf, commit->token);
	proto_put_id(buf, &commit->id);
	wire_put_str(buf, commit->account);
	wire_put_str(buf, commit->class);
	wire_put_str(buf, commit->client_ip);
	wire_put_u16(buf, commit->client_port);
	wire_put_str(buf, commit->ehlo);
	wire_put_str(buf, commit->protocol);
	wire_put_str(buf, commit->message_id);
	wire_put_u8(buf, commit->in_file);
	proto_put_address(buf, &commit->from);
	proto_put_envelope(buf, &commit->envelope);
	wire_put_u16(buf, commit->recipient_count);
	for (size_t i = 0; i < commit->recipient_count; i++)
		put_recipient(buf, &commit->recipients[i].address, commit->recipients[i].notify,
		              commit->recipients[i].orcpt);
	wire_put_bytes(buf, commit->prefix, commit->prefix_len);
	wire_put_u64(buf, commit->checksum);
	if (commit->in_file)
		wire_put_u64(buf, commit->body_size);
	else
		wire_put_bytes(buf, commit->body, (size_t)commit->body_size);
}

bool
proto_commit(const void *data, size_t len, struct proto_commit *out)
{
	struct wire wire = wire_from(data, len);

	memset(out, 0, sizeof(*out));
	out->token = wire_u64(&wire);
	proto_id(&wire, &out->id);
	proto_word(&wire, out->account, sizeof(out->account));
	proto_word(&wire, out->class, sizeof(out->class));
	proto_word(&wire, out->client_ip, sizeof(out->client_ip));
	out->client_port = wire_u16(&wire);
	proto_word(&wire, out->ehlo, sizeof(out->ehlo));
	read_text(&wire, out->protocol, sizeof(out->protocol));
	read_text(&wire, out->message_id, sizeof(out->message_id));
	out->in_file = read_small(&wire, 1);
	proto_address(&wire, &out->from);
	proto_envelope(&wire, &out->envelope);
	size_t count = wire_u16(&wire);
	if (count == 0 || count > QUEUE_RECIPIENTS_MAX)
		wire.failed = true;
	if (!wire_ok(&wire))
		return false;
	out->arena = arena_new();
	out->recipients = arena_alloc(out->arena, count * sizeof(*out->recipients));
	out->recipient_count = (uint16_t)count;
	for (size_t i = 0; i < count && wire_ok(&wire); i++)
		read_recipient(&wire, out->arena, &out->recipients[i]);
	out->prefix = wire_bytes(&wire, &out->prefix_len);
	if (out->prefix_len > QUEUE_PREFIX_MAX)
		wire.failed = true;
	out->checksum = wire_u64(&wire);
	if (out->in_file) {
		out->body_size = wire_u64(&wire);
	} else {
		size_t body_len = 0;
		out->body = wire_bytes(&wire, &body_len);
		out->body_size = body_len;
		if (body_len > QUEUE_INLINE_MAX)
			wire.failed = true;
	}
	if (wire_done(&wire))
		return true;
	proto_commit_clear(out);
	return false;
}

void
proto_commit_clear(struct proto_commit *commit)
{
	arena_free(commit->arena);
	commit->arena = NULL;
	commit->recipients = NULL;
	commit->recipient_count = 0;
}

static void
put_egress(struct buf *buf, const struct queue_egress *egress)
{
	wire_put_str(buf, egress->pool);
	wire_put_u8(buf, egress->has_v4);
	wire_put_raw(buf, &egress->v4, sizeof(egress->v4));
	wire_put_u8(buf, egress->has_v6);
	wire_put_raw(buf, &egress->v6, sizeof(egress->v6));
}

static void
read_egress(struct wire *wire, struct queue_egress *out)
{
	read_text(wire, out->pool, sizeof(out->pool));
	out->has_v4 = read_small(wire, 1);
	wire_raw(wire, &out->v4, sizeof(out->v4));
	out->has_v6 = read_small(wire, 1);
	wire_raw(wire, &out->v6, sizeof(out->v6));
	/* A job that is bound to nothing must not look like one that may leave from anywhere. */
	if ((out->pool[0] != '\0') != (out->has_v4 || out->has_v6))
		wire->failed = true;
}

void
proto_put_job(struct buf *buf, const struct queue_job *job)
{
	assert(job->recipient_count <= PROTO_JOB_MAX);
	wire_put_u64(buf, job->number);
	proto_put_id(buf, &job->id);
	wire_put_u32(buf, job->attempt);
	proto_put_address(buf, &job->from);
	wire_put_str(buf, job->domain);
	proto_put_envelope(buf, &job->envelope);
	wire_put_bytes(buf, job->prefix, job->prefix_len);
	wire_put_u64(buf, job->body_offset);
	wire_put_u64(buf, job->body_size);
	wire_put_u64(buf, job->body_checksum);
	wire_put_u16(buf, (uint16_t)job->recipient_count);
	for (size_t i = 0; i < job->recipient_count; i++) {
		const struct queue_recipient *recipient = &job->recipients[i];
		wire_put_u16(buf, recipient->index);
		put_recipient(buf, &recipient->address, recipient->notify, recipient->orcpt);
	}
	put_egress(buf, &job->egress);
	wire_put_u32(buf, job->session_recipients);
	wire_put_u32(buf, job->session_messages);
	wire_put_u8(buf, job->by_fallback_host);
	wire_put_str(buf, job->next_hop);
}

bool
proto_job(const void *data, size_t len, struct arena *arena, struct queue_job *out)
{
	struct wire wire = wire_from(data, len);
	char domain[ADDRESS_DOMAIN_MAX + 1], next_hop[CONF_HOST_TEXT_SIZE];

	memset(out, 0, sizeof(*out));
	out->arena = arena;
	out->body_fd = -1;
	out->number = wire_u64(&wire);
	proto_id(&wire, &out->id);
	out->attempt = wire_u32(&wire);
	proto_address(&wire, &out->from);
	proto_word(&wire, domain, sizeof(domain));
	out->domain = arena_strdup(arena, domain);
	proto_envelope(&wire, &out->envelope);
	const uint8_t *prefix = wire_bytes(&wire, &out->prefix_len);
	out->prefix = (const uint8_t *)arena_memdup0(arena, prefix ? prefix : (const uint8_t *)"",
	                                             out->prefix_len);
	out->body_offset = wire_u64(&wire);
	out->body_size = wire_u64(&wire);
	out->body_checksum = wire_u64(&wire);
	size_t count = wire_u16(&wire);
	if (count == 0 || count > PROTO_JOB_MAX)
		wire.failed = true;
	if (!wire_ok(&wire))
		return false;
	out->recipients = arena_alloc(arena, count * sizeof(*out->recipients));
	out->recipient_count = count;
	for (size_t i = 0; i < count; i++) {
		struct envelope_recipient recipient;
		uint16_t index = wire_u16(&wire);
		read_recipient(&wire, arena, &recipient);
		out->recipients[i] = (struct queue_recipient){index, recipient.address,
		                                              recipient.notify, recipient.orcpt};
	}
	read_egress(&wire, &out->egress);
	out->session_recipients = wire_u32(&wire);
	out->session_messages = wire_u32(&wire);
	out->by_fallback_host = read_small(&wire, 1);
	proto_next_hop(&wire, next_hop);
	out->next_hop = arena_strdup(arena, next_hop);
	return wire_done(&wire);
}

void
proto_put_contact(struct buf *buf, const struct queue_contact *contact)
{
	wire_put_u8(buf, (uint8_t)contact->end);
	wire_put_str(buf, contact->site);
	wire_put_str(buf, contact->host);
	wire_put_str(buf, contact->address);
	wire_put_str(buf, contact->source);
	wire_put_str(buf, contact->tls);
	wire_put_u32(buf, (uint32_t)contact->connect);
	wire_put_u32(buf, (uint32_t)contact->greeting);
	wire_put_u32(buf, (uint32_t)contact->reply);
}

static int32_t
read_wait(struct wire *wire)
{
	const uint32_t wait = wire_u32(wire);

	return wait > INT32_MAX ? -1 : (int32_t)wait;
}

void
proto_contact(struct wire *wire, struct queue_contact *out)
{
	memset(out, 0, sizeof(*out));
	const unsigned end = wire_u8(wire);
	if (end > QUEUE_CONTACT_OK)
		wire->failed = true;
	else
		out->end = (enum queue_contact_end)end;
	read_text(wire, out->site, sizeof(out->site));
	read_text(wire, out->host, sizeof(out->host));
	read_text(wire, out->address, sizeof(out->address));
	read_text(wire, out->source, sizeof(out->source));
	read_text(wire, out->tls, sizeof(out->tls));
	out->connect = read_wait(wire);
	out->greeting = read_wait(wire);
	out->reply = read_wait(wire);
}

void
proto_put_outcome(struct buf *buf, const struct queue_outcome *outcome)
{
	wire_put_u16(buf, outcome->index);
	wire_put_u8(buf, (uint8_t)outcome->fate);
	wire_put_u8(buf, outcome->unconfirmed);
	wire_put_u16(buf, (uint16_t)outcome->reply.code);
	wire_put_str(buf, outcome->reply.enhanced);
	wire_put_str(buf, outcome->reply.text);
}

void
proto_outcome(struct wire *wire, struct queue_outcome *out)
{
	memset(out, 0, sizeof(*out));
	out->index = wire_u16(wire);
	unsigned fate = wire_u8(wire);
	if (fate > QUEUE_FAILED) {
		wire->failed = true;
		fate = QUEUE_DEFERRED;
	}
	out->fate = (enum queue_fate)fate;
	out->unconfirmed = wire_u8(wire);
	out->reply.code = wire_u16(wire);
	if (out->reply.code > 599)
		wire->failed = true;
	wire_str(wire, out->reply.enhanced, sizeof(out->reply.enhanced));
	wire_str(wire, out->reply.text, sizeof(out->reply.text));
	/* The remote's words: whatever is not printable becomes a question mark instead of a reason
	 * to lose the outcome. */
	for (char *p = out->reply.text; *p; p++) {
		if (!text_char(p, 1))
			*p = '?';
	}
	if (!text_is_printable(out->reply.enhanced, strlen(out->reply.enhanced)))
		out->reply.enhanced[0] = '\0';
}

const char *
queue_action_name(enum queue_action action)
{
	static const char *const names[] = {"flush",   "remove", "bounce",
	                                    "reroute", "hold",   "release"};

	assert(action < QUEUE_ACTIONS);
	return names[action];
}

void
proto_put_hold(struct buf *buf, const struct queue_hold *hold)
{
	wire_put_u8(buf, (uint8_t)hold->action);
	wire_put_u8(buf, (uint8_t)hold->lane);
	queue_selector_put(buf, &hold->selector);
	wire_put_u64(buf, (uint64_t)hold->since);
	wire_put_u64(buf, (uint64_t)hold->until);
	wire_put_str(buf, hold->by);
	wire_put_str(buf, hold->reason);
	wire_put_str(buf, hold->next_hop);
}

void
proto_next_hop(struct wire *wire, char out[CONF_HOST_TEXT_SIZE])
{
	char text[CONF_HOST_TEXT_SIZE];
	struct conf_host host;

	wire_str(wire, out, CONF_HOST_TEXT_SIZE);
	if (out[0] != '\0' && strcmp(out, QUEUE_NEXT_HOP_DEFAULT) != 0 &&
	    (conf_host(out, &host) != NULL || strcmp(conf_host_text(&host, text), out) != 0))
		wire->failed = true;
}

void
proto_hold(struct wire *wire, struct queue_hold *out)
{
	proto_hold_of_lane(wire, out);
	proto_next_hop(wire, out->next_hop);
}

void
proto_hold_of_lane(struct wire *wire, struct queue_hold *out)
{
	const unsigned action = wire_u8(wire), lane = wire_u8(wire);

	out->next_hop[0] = '\0';
	out->action = (enum queue_action)action;
	out->lane = (enum queue_lane)lane;
	if (action < QUEUE_REMOVE || action > QUEUE_HOLD || lane >= QUEUE_LANES)
		wire->failed = true;
	queue_selector_read(wire, &out->selector);
	out->since = (msec_t)wire_u64(wire);
	out->until = (msec_t)wire_u64(wire);
	wire_str(wire, out->by, sizeof(out->by));
	wire_str(wire, out->reason, sizeof(out->reason));
	if (queue_selector_is_all(&out->selector))
		wire->failed = true;
}

/* The longest page of each kind is one frame; a text is four octets longer than what it holds. */
#define FITS(page, type, texts)                                                                    \
	((page) * (sizeof(type) + 4 * (texts)) + sizeof(struct queue_entry) +                      \
	     PROTO_DETAIL_HOLDS * (sizeof(struct queue_hold) + 4 * 8) <=                           \
	 IPC_FRAME_MAX)
_Static_assert(FITS(PROTO_LIST_PAGE, struct queue_entry, 4), "a list");
_Static_assert(FITS(PROTO_DETAIL_PAGE, struct queue_recipient_view, 4), "recipients of one");
_Static_assert(FITS(PROTO_EVENTS_PAGE, struct queue_event, 8), "a life");
_Static_assert(FITS(PROTO_TRACE_PAGE, struct queue_trace_row, 8), "what history found");
_Static_assert(FITS(PROTO_HOLDS_PAGE, struct queue_hold, 8), "what is in force");
_Static_assert(FITS(PROTO_AGES_PAGE, struct queue_age_row, 1), "ages");
_Static_assert(FITS(QUEUE_FAULTS_MAX, struct queue_fault, 3), "faults");

void
proto_put_event(struct buf *buf, const struct queue_event *event)
{
	wire_put_str(buf, event->what);
	wire_put_u64(buf, (uint64_t)event->when);
	wire_put_str(buf, event->address);
	wire_put_u32(buf, event->attempt);
	wire_put_str(buf, event->lane);
	wire_put_str(buf, event->from);
	wire_put_str(buf, event->host);
	wire_put_str(buf, event->peer);
	wire_put_str(buf, event->tls);
	wire_put_str(buf, event->text);
	wire_put_u8(buf, event->has_other);
	proto_put_id(buf, &event->other);
}

void
proto_event(struct wire *wire, struct queue_event *out)
{
	wire_str(wire, out->what, sizeof(out->what));
	out->when = (msec_t)wire_u64(wire);
	wire_str(wire, out->address, sizeof(out->address));
	out->attempt = wire_u32(wire);
	wire_str(wire, out->lane, sizeof(out->lane));
	wire_str(wire, out->from, sizeof(out->from));
	wire_str(wire, out->host, sizeof(out->host));
	wire_str(wire, out->peer, sizeof(out->peer));
	wire_str(wire, out->tls, sizeof(out->tls));
	wire_str(wire, out->text, sizeof(out->text));
	out->has_other = wire_u8(wire) != 0;
	proto_id(wire, &out->other);
}

void
proto_put_place(struct buf *buf, const struct queue_trace_place *place)
{
	wire_put_u8(buf, place->is_set);
	proto_put_id(buf, &place->id);
	wire_put_u16(buf, place->index);
}

void
proto_place(struct wire *wire, struct queue_trace_place *out)
{
	out->is_set = wire_u8(wire) != 0;
	proto_id(wire, &out->id);
	out->index = wire_u16(wire);
}
