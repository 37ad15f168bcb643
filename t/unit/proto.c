#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/proto.h"
#include "t/unit/tap.h"

/* What msa and relay face travels to the queue in these frames; whoever took one of them over must
 * not get a frame through that no parser of ours would have made. */

static const struct envelope_recipient recipients[] = {
    {.address = {"bob", "example.org"}, .notify = NOTIFY_NEVER, .orcpt = "rfc822;b+2Bb@x.example"},
    {.address = {"carol", "example.org"}, .notify = NOTIFY_SUCCESS | NOTIFY_DELAY, .orcpt = ""},
};

static struct proto_commit
sample(void)
{
	return (struct proto_commit){
	    .token = 7,
	    .account = "alice@example.net",
	    .class = "standard",
	    .client_ip = "192.0.2.1",
	    .ehlo = "pc",
	    .protocol = "ESMTPSA",
	    .message_id = "1@pc.example.net",
	    .from = {"alice", "example.net"},
	    .envelope = {.body = BODY_BINARYMIME,
	                 .smtputf8 = true,
	                 .requiretls = true,
	                 .tls_optional = true,
	                 .ret = RET_FULL,
	                 .envid = "QQ+2B314159",
	                 .priority = 9,
	                 .hold_until = 1800000000000,
	                 .by = BY_NOTIFY,
	                 .by_trace = true,
	                 .by_deadline = -5},
	    .recipients = (struct envelope_recipient *)recipients,
	    .recipient_count = 2,
	    .prefix = (const uint8_t *)"Received: x\r\n",
	    .prefix_len = 13,
	    .body = (const uint8_t *)"body",
	    .body_size = 4,
	};
}

/* Whether it is taken on the other side. */
static bool
passes(const struct proto_commit *commit)
{
	struct proto_commit got;
	struct buf frame;

	buf_init(&frame);
	proto_put_commit(&frame, commit);
	bool good = proto_commit(frame.data, frame.len, &got);
	if (good)
		proto_commit_clear(&got);
	buf_clear(&frame);
	return good;
}

static void
refuses(const char *name, void (*spoil)(struct proto_commit *commit))
{
	struct proto_commit commit = sample();
	struct envelope_recipient copy[2] = {recipients[0], recipients[1]};

	commit.recipients = copy;
	spoil(&commit);
	ok(!passes(&commit), name);
}

#define SPOIL(name, change)                                                                        \
	static void spoil_##name(struct proto_commit *c)                                           \
	{                                                                                          \
		change;                                                                            \
	}
SPOIL(envid_break, strcpy(c->envelope.envid, "x\r\nRCPT TO:<z@x>"))
SPOIL(envid_space, strcpy(c->envelope.envid, "x RET=FULL"))
SPOIL(envid_hex, strcpy(c->envelope.envid, "x+0D"))
SPOIL(orcpt_break, c->recipients[0].orcpt = "rfc822;x\r\nQUIT")
SPOIL(orcpt_type, c->recipients[0].orcpt = "bob@x.example")
SPOIL(notify_never, c->recipients[0].notify = NOTIFY_NEVER | NOTIFY_DELAY)
SPOIL(notify_bits, c->recipients[0].notify = 16)
SPOIL(priority_high, c->envelope.priority = 10)
SPOIL(priority_low, c->envelope.priority = -10)
SPOIL(body, c->envelope.body = (enum envelope_body)3)
SPOIL(ret, c->envelope.ret = (enum envelope_ret)3)
SPOIL(by, c->envelope.by = (enum envelope_by)3)
SPOIL(hold, c->envelope.hold_until = -1)
SPOIL(message_id, strcpy(c->message_id, "1@pc\r\n"))
SPOIL(null_recipient, memset(&c->recipients[1].address, 0, sizeof(struct address)))

static void
test_site(void)
{
	static struct queue_site_view site, got;
	struct buf frame;
	unsigned taken = 0;

	memset(&site, 0, sizeof(site));
	strcpy(site.name, "mx.example.net+3f2a");
	strcpy(site.paused, "operator");
	memset(site.why, 'w', sizeof(site.why) - 1);
	site.until = 1800000000000;
	site.slow = true;
	site.limit = 7;
	site.recent = -1;
	site.rate = (struct conf_burst){1, 10, 60000};
	site.by_operator.until = 1800000000001;
	site.by_operator.rate = site.rate;
	site.reply.p99 = 4095;
	site.timed_out = 3;
	strcpy(site.last_reply, "450 4.2.1 busy");
	buf_init(&frame);
	proto_put_site(&frame, &site);
	struct wire wire = wire_from(frame.data, frame.len);
	proto_site(&wire, &got);
	ok(wire_done(&wire) && memcmp(&site, &got, sizeof(site)) == 0, "a site arrives as it is");
	for (size_t i = 0; i < frame.len; i++) {
		wire = wire_from(frame.data, i);
		proto_site(&wire, &got);
		taken += wire_done(&wire);
	}
	ok(taken == 0, "none of its beginnings is one");
	buf_clear(&frame);

	buf_init(&frame);
	proto_put_rate(&frame, &(struct conf_burst){1, 10, 0});
	wire = wire_from(frame.data, frame.len);
	proto_rate(&wire, &got.rate);
	ok(!wire_ok(&wire), "a rate in no time is none");
	buf_clear(&frame);
}

int
main(void)
{
	struct proto_commit commit = sample(), got;
	struct buf frame;
	unsigned taken = 0;

	buf_init(&frame);
	proto_put_commit(&frame, &commit);
	ok(proto_commit(frame.data, frame.len, &got), "a commit arrives");
	ok(got.envelope.body == BODY_BINARYMIME && got.envelope.smtputf8 &&
	       got.envelope.requiretls && got.envelope.tls_optional &&
	       got.envelope.ret == RET_FULL && !strcmp(got.envelope.envid, "QQ+2B314159") &&
	       got.envelope.priority == 9 && got.envelope.hold_until == 1800000000000 &&
	       got.envelope.by == BY_NOTIFY && got.envelope.by_trace &&
	       got.envelope.by_deadline == -5 && !strcmp(got.protocol, "ESMTPSA") &&
	       !strcmp(got.message_id, "1@pc.example.net"),
	   "with its envelope");
	ok(got.recipient_count == 2 && got.recipients[0].notify == NOTIFY_NEVER &&
	       !strcmp(got.recipients[0].orcpt, "rfc822;b+2Bb@x.example") &&
	       got.recipients[1].notify == (NOTIFY_SUCCESS | NOTIFY_DELAY) &&
	       !strcmp(got.recipients[1].orcpt, ""),
	   "and its recipients");
	proto_commit_clear(&got);

	for (size_t i = 0; i < frame.len; i++) {
		uint8_t *part = malloc(i ? i : 1); /* so that a sanitizer sees a read behind it */
		memcpy(part, frame.data, i);
		taken += proto_commit(part, i, &got);
		free(part);
	}
	ok(taken == 0, "none of its beginnings is one");
	buf_clear(&frame);

	refuses("ENVID with a line break", spoil_envid_break);
	refuses("ENVID with another parameter", spoil_envid_space);
	refuses("ENVID that stands for a control", spoil_envid_hex);
	refuses("ORCPT with a line break", spoil_orcpt_break);
	refuses("ORCPT without a type", spoil_orcpt_type);
	refuses("NOTIFY=NEVER with another", spoil_notify_never);
	refuses("an unknown NOTIFY", spoil_notify_bits);
	refuses("priority 10", spoil_priority_high);
	refuses("priority -10", spoil_priority_low);
	refuses("an unknown BODY", spoil_body);
	refuses("an unknown RET", spoil_ret);
	refuses("an unknown BY", spoil_by);
	refuses("a time before time", spoil_hold);
	refuses("a Message-ID with a line break", spoil_message_id);
	refuses("nobody", spoil_null_recipient);
	test_site();
	return tap_end();
}
