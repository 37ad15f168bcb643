#include "queue/proto.h"

/* Sites and reply rules, as the NOC sees them. */

#include <string.h>

void
proto_put_rate(struct buf *buf, const struct conf_burst *rate)
{
	wire_put_u32(buf, rate->at_once);
	wire_put_u32(buf, rate->count);
	wire_put_u64(buf, (uint64_t)rate->period);
}

void
proto_rate(struct wire *wire, struct conf_burst *out)
{
	out->at_once = wire_u32(wire);
	out->count = wire_u32(wire);
	out->period = (msec_t)wire_u64(wire);
	if (out->count > 0 && out->period <= 0)
		wire->failed = true;
}

static void
put_cap(struct buf *buf, const struct queue_site_cap *cap)
{
	wire_put_u64(buf, (uint64_t)cap->until);
	wire_put_u32(buf, cap->connections);
	proto_put_rate(buf, &cap->rate);
	wire_put_str(buf, cap->why);
}

static void
read_cap(struct wire *wire, struct queue_site_cap *out)
{
	out->until = (msec_t)wire_u64(wire);
	out->connections = wire_u32(wire);
	proto_rate(wire, &out->rate);
	wire_str(wire, out->why, sizeof(out->why));
}

static void
put_times(struct buf *buf, const struct queue_site_times *times)
{
	wire_put_u32(buf, times->p50);
	wire_put_u32(buf, times->p90);
	wire_put_u32(buf, times->p99);
}

static void
read_times(struct wire *wire, struct queue_site_times *out)
{
	out->p50 = wire_u32(wire);
	out->p90 = wire_u32(wire);
	out->p99 = wire_u32(wire);
}

void
proto_put_site(struct buf *buf, const struct queue_site_view *view)
{
	wire_put_str(buf, view->name);
	wire_put_str(buf, view->paused);
	wire_put_u64(buf, (uint64_t)view->until);
	wire_put_str(buf, view->why);
	wire_put_u8(buf, view->slow);
	wire_put_u8(buf, view->probing);
	wire_put_u32(buf, view->failures);
	wire_put_u64(buf, (uint64_t)view->failing);
	wire_put_u32(buf, view->limit);
	wire_put_u32(buf, view->in_flight);
	wire_put_u32(buf, view->waiting);
	proto_put_rate(buf, &view->rate);
	put_cap(buf, &view->by_rule);
	put_cap(buf, &view->by_operator);
	wire_put_str(buf, view->override);
	put_times(buf, &view->connect);
	put_times(buf, &view->greeting);
	put_times(buf, &view->reply);
	wire_put_u32(buf, (uint32_t)view->recent);
	wire_put_u64(buf, view->delivered);
	wire_put_u64(buf, view->deferred);
	wire_put_u64(buf, view->failed);
	wire_put_u64(buf, view->timed_out);
	wire_put_u64(buf, (uint64_t)view->seen);
	wire_put_str(buf, view->last_reply);
}

void
proto_site(struct wire *wire, struct queue_site_view *out)
{
	memset(out, 0, sizeof(*out));
	wire_str(wire, out->name, sizeof(out->name));
	wire_str(wire, out->paused, sizeof(out->paused));
	out->until = (msec_t)wire_u64(wire);
	wire_str(wire, out->why, sizeof(out->why));
	out->slow = wire_u8(wire) != 0;
	out->probing = wire_u8(wire) != 0;
	out->failures = wire_u32(wire);
	out->failing = (msec_t)wire_u64(wire);
	out->limit = wire_u32(wire);
	out->in_flight = wire_u32(wire);
	out->waiting = wire_u32(wire);
	proto_rate(wire, &out->rate);
	read_cap(wire, &out->by_rule);
	read_cap(wire, &out->by_operator);
	wire_str(wire, out->override, sizeof(out->override));
	read_times(wire, &out->connect);
	read_times(wire, &out->greeting);
	read_times(wire, &out->reply);
	out->recent = (int32_t)wire_u32(wire);
	out->delivered = wire_u64(wire);
	out->deferred = wire_u64(wire);
	out->failed = wire_u64(wire);
	out->timed_out = wire_u64(wire);
	out->seen = (msec_t)wire_u64(wire);
	wire_str(wire, out->last_reply, sizeof(out->last_reply));
}

void
proto_put_reply_rule(struct buf *buf, const struct queue_reply_rule *rule)
{
	wire_put_str(buf, rule->name);
	wire_put_str(buf, rule->action);
	wire_put_str(buf, rule->code);
	wire_put_str(buf, rule->enhanced);
	wire_put_str(buf, rule->text);
	wire_put_str(buf, rule->site);
	wire_put_u64(buf, (uint64_t)rule->period);
	wire_put_u8(buf, rule->shipped);
	wire_put_u64(buf, rule->count);
	wire_put_u64(buf, (uint64_t)rule->last);
}

void
proto_reply_rule(struct wire *wire, struct queue_reply_rule *out)
{
	memset(out, 0, sizeof(*out));
	wire_str(wire, out->name, sizeof(out->name));
	wire_str(wire, out->action, sizeof(out->action));
	wire_str(wire, out->code, sizeof(out->code));
	wire_str(wire, out->enhanced, sizeof(out->enhanced));
	wire_str(wire, out->text, sizeof(out->text));
	wire_str(wire, out->site, sizeof(out->site));
	out->period = (msec_t)wire_u64(wire);
	out->shipped = wire_u8(wire) != 0;
	out->count = wire_u64(wire);
	out->last = (msec_t)wire_u64(wire);
}
