/* Which messages a selector means: each condition alone and all together, its text, and what
 * travels.
 */
#include "queue/selector.h"

#include <stdlib.h>
#include <string.h>

#include "queue/match.h"
#include "t/unit/tap.h"

#define HOUR (60 * 60 * 1000)

static struct store_recipient recipients[3];
static struct store_message message;
static const msec_t now = 100 * (msec_t)HOUR;

static void
begin(void)
{
	static char account[] = "alice@example.net",
	            deferred[] = "451 4.7.1 Greylisted, come again", none[] = "",
	            full[] = "4.4.1 mx.example.org: connect: timed out",
	            relay[] = "relay.example.net:25";

	memset(&message, 0, sizeof(message));
	memset(recipients, 0, sizeof(recipients));
	message.id.octets[0] = 7;
	message.lane = QUEUE_RETRY;
	message.account = account;
	message.created = now - 5 * HOUR;
	message.body.size = 2000;
	address_parse("alice@example.net", 17, &message.from);
	address_parse("Bob@example.org", 15, &recipients[0].address);
	address_parse("carol@example.com", 17, &recipients[1].address);
	address_parse("dave@example.org", 16, &recipients[2].address);
	recipients[0].reply = deferred;
	recipients[1].reply = none;
	recipients[2].reply = full;
	recipients[0].next_hop = recipients[1].next_hop = none;
	recipients[2].next_hop = relay;
	message.recipients = recipients;
	message.recipient_count = 3;
}

static const char *
site(void *arg, const char *name)
{
	(void)arg;
	return strcmp(name, "example.org") == 0 || strcmp(name, "other.example.org") == 0 ||
	               strcmp(name, "mx.example.org") == 0
	           ? "mx.example.org"
	           : NULL;
}

static void
selects(const struct queue_selector *selector, size_t expected, const char *text)
{
	char out[QUEUE_SELECTOR_TEXT_SIZE];
	const size_t got = match_count(selector, &message, now, site, NULL);
	struct queue_selector read;
	struct buf buf;
	struct wire wire;

	if (!ok(got == expected && strcmp(queue_selector_text(selector, out), text) == 0, text))
		printf("# %zu of \"%s\"\n", got, out);
	buf_init(&buf);
	queue_selector_put(&buf, selector);
	wire = wire_from(buf.data, buf.len);
	queue_selector_read(&wire, &read);
	ok(wire_done(&wire) && match_count(&read, &message, now, site, NULL) == expected,
	   "as read");
	buf_clear(&buf);
}

#define SELECTS(expected, text, ...) selects(&(struct queue_selector){__VA_ARGS__}, expected, text)

static void
test_conditions(void)
{
	begin();
	SELECTS(3, "all", .lanes = 0);
	SELECTS(3, "account alice@example.net", .account = "alice@example.net");
	SELECTS(0, "account bob@example.net", .account = "bob@example.net");
	SELECTS(3, "sender example.net", .sender = "example.net");
	SELECTS(3, "sender Alice@example.net", .sender = "Alice@example.net");
	SELECTS(0, "sender net", .sender = "net");
	SELECTS(0, "sender <>", .sender = "<>");
	SELECTS(2, "recipient example.org", .recipient = "example.org");
	SELECTS(1, "recipient bob@example.org", .recipient = "bob@example.org");
	SELECTS(0, "recipient example.net", .recipient = "example.net");
	SELECTS(2, "site mx.example.org", .site = "mx.example.org");
	SELECTS(2, "site other.example.org", .site = "other.example.org");
	SELECTS(1, "site example.com", .site = "example.com");
	SELECTS(0, "site example", .site = "example");
	SELECTS(1, "site relay.example.net:25", .site = "relay.example.net:25");
	SELECTS(3, "lane retry", .lanes = 1u << QUEUE_RETRY);
	SELECTS(0, "lane fresh", .lanes = 1u << QUEUE_FRESH);
	SELECTS(3, "lane fresh lane retry", .lanes = 1u << QUEUE_RETRY | 1u << QUEUE_FRESH);
	SELECTS(3, "older 4h", .older = 4 * HOUR);
	SELECTS(0, "older 5h", .older = 5 * HOUR);
	SELECTS(0, "younger 5h", .younger = 5 * HOUR);
	SELECTS(3, "younger 6h", .younger = 6 * HOUR);
	SELECTS(3, "larger 1999", .larger = 1999);
	SELECTS(0, "larger 2000", .larger = 2000);
	SELECTS(3, "smaller 2KiB", .smaller = 2048);
	SELECTS(0, "smaller 2000", .smaller = 2000);
	SELECTS(1, "reply 451", .reply = "451");
	SELECTS(0, "reply 450", .reply = "450");
	SELECTS(1, "reply greyLISTED", .reply = "greyLISTED");
	SELECTS(1, "reply timed out", .reply = "timed out");
	SELECTS(0, "reply 250", .reply = "250");
	SELECTS(3, "message 07000000000000000000000000", .has_message = true,
	        .message = message.id);
	message.from = (struct address){"", ""};
	SELECTS(3, "sender <>", .sender = "<>");
}

static void
test_together(void)
{
	begin();
	SELECTS(1, "account alice@example.net recipient example.org lane retry older 4h reply 451",
	        .account = "alice@example.net", .recipient = "example.org",
	        .lanes = 1u << QUEUE_RETRY, .older = 4 * HOUR, .reply = "451");
	SELECTS(0, "recipient example.com reply 451", .recipient = "example.com", .reply = "451");
	SELECTS(0, "account alice@example.net lane fresh", .account = "alice@example.net",
	        .lanes = 1u << QUEUE_FRESH);
	recipients[0].state = STORE_DELIVERED;
	SELECTS(1, "recipient example.org", .recipient = "example.org");
	SELECTS(2, "all", .lanes = 0);
}

static void
test_bounds(void)
{
	struct queue_selector selector = {.reply = "a"}, read;
	struct buf buf;
	struct wire wire;

	ok(queue_selector_is_good(&selector) && !queue_selector_is_all(&selector) &&
	       queue_selector_has_recipient(&selector),
	   "good");
	memcpy(selector.reply, "say \"no\"", 9);
	ok(!queue_selector_is_good(&selector), "a quotation mark would forge a log line");
	buf_init(&buf);
	queue_selector_put(&buf, &selector);
	wire = wire_from(buf.data, buf.len);
	queue_selector_read(&wire, &read);
	ok(!wire_ok(&wire), "and is not read");
	for (size_t len = 0; len < buf.len; len++) {
		wire = wire_from(buf.data, len);
		queue_selector_read(&wire, &read);
		if (wire_ok(&wire))
			break;
		if (len + 1 == buf.len)
			ok(true, "nor is what is cut");
	}
	buf_clear(&buf);
	memcpy(selector.reply, "a\nb", 4);
	ok(!queue_selector_is_good(&selector), "nor does a line end");
	memset(&selector, 0, sizeof(selector));
	memset(selector.account, 'a', sizeof(selector.account) - 1);
	ok(queue_selector_is_good(&selector), "the longest account");
	memset(selector.sender, 'b', sizeof(selector.sender) - 1);
	ok(!queue_selector_is_good(&selector),
	   "but not all of it with what its name has no room for");
	ok(!queue_selector_is_good(&(struct queue_selector){.lanes = 1u << QUEUE_LANES}),
	   "no such lane");
}

int
main(void)
{
	test_conditions();
	test_together();
	test_bounds();
	return tap_end();
}
