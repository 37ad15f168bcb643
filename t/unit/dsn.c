#include <stdio.h>
#include <string.h>

#include "smtp/dsn.h"
#include "t/unit/tap.h"

static const struct {
	const char *reply;
	enum dsn_action action;
	const char *status;
} statuses[] = {
    {"550 5.1.1 no such user", DSN_FAILED, "5.1.1"},
    {"550 no such user", DSN_FAILED, "5.0.0"},
    {"550 4.2.2 class differs from the code", DSN_FAILED, "5.0.0"},
    {"550", DSN_FAILED, "5.0.0"},
    {"5.1.2 no such domain", DSN_FAILED, "5.1.2"},
    {"5.1.10 domain takes no mail", DSN_FAILED, "5.1.10"},
    {"no words of ours that say why", DSN_FAILED, "5.0.0"},
    {"451 4.7.1 later", DSN_DELAYED, "4.7.1"},
    {"451 later", DSN_DELAYED, "4.0.0"},
    {"4.4.3 DNS timed out", DSN_DELAYED, "4.4.3"},
    {"connection refused", DSN_DELAYED, "4.4.1"},
    {"4.4.1111 not a code", DSN_DELAYED, "4.4.1"},
    {"", DSN_DELAYED, "4.4.1"},
    {"", DSN_FAILED, "5.0.0"},
    {"250 2.1.5 taken", DSN_RELAYED, "2.1.5"},
    {"250 ok", DSN_RELAYED, "2.0.0"},
    {"250 5.1.1 class differs from the code", DSN_RELAYED, "2.0.0"},
};

static void
test_statuses(void)
{
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		char status[DSN_STATUS_SIZE];
		dsn_status(statuses[i].reply, statuses[i].action, status);
		ok(strcmp(status, statuses[i].status) == 0, statuses[i].reply);
	}
}

static struct address
address(const char *text)
{
	struct address out;
	if (address_parse(text, strlen(text), &out) != ADDRESS_OK)
		ok(false, text);
	return out;
}

static void
compose(enum dsn_action action, const char *head, size_t head_len, struct buf *out, bool *is_8bit)
{
	const struct dsn_recipient recipients[] = {
	    {address("carol@example.org"), "550 5.1.1 no such user", false, NULL},
	    {address("\"d e\"@example.org"), "451 4.3.0 full\x07\r\nX-Forged: 1",
	     action == DSN_FAILED, ""},
	};
	const struct dsn dsn = {
	    .action = action,
	    .hostname = "mail.example.test",
	    .id = "01new",
	    .original = "01old",
	    .to = address("alice@example.test"),
	    .date = "Wed, 25 Nov 2026 10:00:00 +0900",
	    .arrival = "Sat, 21 Nov 2026 10:00:00 +0900",
	    .retry_until = "Sun, 29 Nov 2026 10:00:00 +0900",
	    .recipients = recipients,
	    .count = 2,
	    .head = (const uint8_t *)head,
	    .head_len = head_len,
	};
	buf_init(out);
	*is_8bit = dsn_compose(&dsn, out);
}

/* What the client asked for comes back with the notification. */
static void
compose_asked(const char *envid, const char *orcpt, const char *mail, struct buf *out,
              bool *is_8bit)
{
	const struct dsn_recipient recipient = {
	    .address = address("carol@example.org"), .reply = "250 2.0.0 taken", .orcpt = orcpt};
	const struct dsn dsn = {
	    .action = mail ? DSN_FAILED : DSN_RELAYED,
	    .hostname = "mail.example.test",
	    .id = "01new",
	    .original = "01old",
	    .to = address("alice@example.test"),
	    .date = "Wed, 25 Nov 2026 10:00:00 +0900",
	    .arrival = "Sat, 21 Nov 2026 10:00:00 +0900",
	    .envid = envid,
	    .recipients = &recipient,
	    .count = 1,
	    .head = (const uint8_t *)(mail ? mail : "Subject: hello\r\n\r\nsecret"),
	    .head_len = mail ? strlen(mail) : 24,
	    .is_whole = mail,
	};
	buf_init(out);
	*is_8bit = dsn_compose(&dsn, out);
}

static bool
lines_are_good(struct buf *out)
{
	size_t start = 0;
	for (size_t i = 0; i < out->len; i++) {
		if (out->data[i] == '\n' && (i == 0 || out->data[i - 1] != '\r'))
			return false;
		if (out->data[i] == '\r' && (i + 1 == out->len || out->data[i + 1] != '\n'))
			return false;
		if (out->data[i] == '\n') {
			if (i - start > 998)
				return false;
			start = i + 1;
		}
	}
	return start == out->len;
}

static bool
has(struct buf *out, const char *what)
{
	return strstr(buf_str(out), what) != NULL;
}

#define OE "\xc3\xb6"

/* About a mail that needed SMTPUTF8. */
static void
compose_utf8(const char *to, const char *recipient, const char *head, struct buf *out,
             bool *is_8bit)
{
	const struct dsn_recipient recipients[] = {
	    {.address = address(recipient), .reply = "5.6.7 no SMTPUTF8"}};
	const struct dsn dsn = {
	    .action = DSN_FAILED,
	    .hostname = "mail.example.test",
	    .id = "01new",
	    .original = "01old",
	    .to = address(to),
	    .date = "Wed, 25 Nov 2026 10:00:00 +0900",
	    .arrival = "Sat, 21 Nov 2026 10:00:00 +0900",
	    .recipients = recipients,
	    .count = 1,
	    .head = (const uint8_t *)head,
	    .head_len = strlen(head),
	    .smtputf8 = true,
	};
	buf_init(out);
	*is_8bit = dsn_compose(&dsn, out);
}

static void
test_utf8(void)
{
	struct buf out;
	bool is_8bit;

	compose_utf8("alice@example.test", "j" OE "rg+a@b" OE "rse.example",
	             "To: j" OE "rg\r\nX: y\r\n\r\nsecret", &out, &is_8bit);
	ok(lines_are_good(&out) && is_8bit &&
	       has(&out, "Content-Type: text/plain; charset=utf-8\r\n"
	                 "Content-Transfer-Encoding: 8bit\r\n\r\n") &&
	       has(&out, "\r\n  j" OE "rg+a@b" OE "rse.example\r\n"),
	   "an international address in words, as people write it");
	ok(has(&out, "Content-Type: message/delivery-status\r\n\r\n") &&
	       has(&out, "\r\nFinal-Recipient: utf-8; j\\x{F6}rg\\x{2B}a@xn--brse-5qa.example\r\n"),
	   "and in ASCII for who has an ASCII address");
	ok(has(&out, "Content-Type: message/global-headers\r\n"
	             "Content-Transfer-Encoding: base64\r\n\r\n"
	             "VG86IGrDtnJnDQpYOiB5DQo=\r\n"),
	   "with the header section in base64");
	buf_clear(&out);

	compose_utf8("alice@example.test", "bob@b" OE "rse.example", "Subject: x\r\n", &out,
	             &is_8bit);
	ok(has(&out, "Final-Recipient: rfc822; bob@xn--brse-5qa.example\r\n") &&
	       has(&out, "\r\n  bob@b" OE "rse.example\r\n") &&
	       has(&out, "Content-Type: text/rfc822-headers\r\n"
	                 "Content-Transfer-Encoding: 7bit\r\n\r\nSubject: x\r\n"),
	   "a name with U-labels is told as A-labels");
	buf_clear(&out);

	compose_utf8("j" OE "rg@example.test", "j" OE "rg@x.example", "To: j" OE "rg\r\n", &out,
	             &is_8bit);
	ok(lines_are_good(&out) && is_8bit && has(&out, "To: <j" OE "rg@example.test>\r\n"),
	   "to an international address");
	ok(has(&out, "Content-Type: message/global-delivery-status\r\n"
	             "Content-Transfer-Encoding: 8bit\r\n\r\n") &&
	       has(&out, "\r\nFinal-Recipient: utf-8; j" OE "rg@x.example\r\n") &&
	       has(&out, "Content-Type: message/global-headers\r\n"
	                 "Content-Transfer-Encoding: 8bit\r\n\r\nTo: j" OE "rg\r\n"),
	   "everything as it is");
	buf_clear(&out);

	static char large[2 * DSN_HEADER_MAX];
	for (size_t i = 0; i + 8 < sizeof(large); i += 8)
		memcpy(large + i, "X: " OE "b\r\n", 8);
	compose_utf8("alice@example.test", "bob@x.example", large, &out, &is_8bit);
	ok(lines_are_good(&out) && !is_8bit && out.len <= DSN_SIZE_MAX(1),
	   "base64 within the bound");
	buf_clear(&out);
}

int
main(void)
{
	static const char head[] =
	    "Subject: hello\r\nFrom: alice@example.test\r\n\r\nsecret body\r\n";
	struct buf out;
	bool is_8bit;

	test_statuses();
	test_utf8();
	compose(DSN_FAILED, head, sizeof(head) - 1, &out, &is_8bit);
	ok(lines_are_good(&out) && !is_8bit, "failed: CRLF lines, no 8-bit");
	ok(out.len <= DSN_SIZE_MAX(2), "within its bound");
	ok(has(&out, "Subject: hello\r\nFrom: alice@example.test\r\n"),
	   "the header section returns");
	ok(!has(&out, "secret"), "the body does not");
	ok(has(&out,
	       "Final-Recipient: rfc822; carol@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n"
	       "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n"),
	   "fields of a recipient");
	ok(has(&out, "rfc822; \"d e\"@example.org\r\nAction: failed\r\nStatus: 4.4.7\r\n"),
	   "expired is 4.4.7");
	ok(!has(&out, "\nX-Forged"), "a reply cannot forge a field");
	ok(has(&out, "Auto-Submitted: auto-replied\r\n") &&
	       has(&out, "To: <alice@example.test>\r\n"),
	   "addressed, and no answer is wanted");
	buf_clear(&out);

	compose(DSN_DELAYED, "Subject: \xe3\x81\x82\r\n", 14, &out, &is_8bit);
	ok(is_8bit && has(&out, "Content-Transfer-Encoding: 8bit\r\n"), "8-bit header section");
	ok(has(&out, "Action: delayed\r\nStatus: 4.3.0\r\n") &&
	       has(&out, "Will-Retry-Until: Sun, 29 Nov 2026 10:00:00 +0900\r\n"),
	   "delayed");
	buf_clear(&out);

	static char large[4 * DSN_HEADER_MAX];
	for (size_t i = 0; i + 8 < sizeof(large); i += 8)
		memcpy(large + i, "X: abc\r\n", 8);
	compose(DSN_FAILED, large, sizeof(large), &out, &is_8bit);
	ok(lines_are_good(&out) && out.len <= DSN_SIZE_MAX(2), "a huge header section is cut");
	buf_clear(&out);
	compose(DSN_FAILED, "no line end", 11, &out, &is_8bit);
	ok(lines_are_good(&out), "a mail without any line");
	buf_clear(&out);

	compose_asked("QQ+2B314+3D", "rfc822;Carol+2BX@example.org", NULL, &out, &is_8bit);
	ok(lines_are_good(&out) && !has(&out, "secret"), "relayed: no body");
	ok(has(&out, "Original-Envelope-Id: QQ+314=\r\nReporting-MTA: "),
	   "the envelope id, decoded");
	ok(has(&out, "\r\n\r\nOriginal-Recipient: rfc822; Carol+X@example.org\r\n"
	             "Final-Recipient: rfc822; carol@example.org\r\nAction: relayed\r\n"
	             "Status: 2.0.0\r\nDiagnostic-Code: smtp; 250 2.0.0 taken\r\n"),
	   "the recipient as the client knows it, and where it went");
	buf_clear(&out);
	compose_asked("a+0D+0AX-Forged: 1+0", "rfc822;a+0D+0AX-Forged: 1+", NULL, &out, &is_8bit);
	ok(lines_are_good(&out) && !has(&out, "\nX-Forged"), "xtext cannot forge a field");
	ok(has(&out, "Original-Envelope-Id: a??X-Forged: 1+0\r\n"), "nor end in the middle");
	buf_clear(&out);
	compose_asked("", "no type", NULL, &out, &is_8bit);
	ok(!has(&out, "Original-"), "what was not given is not told");
	buf_clear(&out);
	compose_asked(NULL, NULL, "Subject: hello\r\n\r\nbody \xe3\x81\x82", &out, &is_8bit);
	ok(lines_are_good(&out) && is_8bit &&
	       has(&out, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n"
	                 "\r\nSubject: hello\r\n\r\nbody \xe3\x81\x82\r\n--"),
	   "the whole mail, when asked for");
	buf_clear(&out);
	static char whole[DSN_WHOLE_MAX + 1];
	for (size_t i = 0; i + 8 < sizeof(whole); i += 8)
		memcpy(whole + i, "abcdef\r\n", 8);
	compose_asked(NULL, NULL, whole, &out, &is_8bit);
	ok(lines_are_good(&out) && out.len <= DSN_SIZE_MAX(1) + DSN_WHOLE_MAX, "within its bound");
	buf_clear(&out);
	return tap_end();
}
