#include <stdio.h>
#include <string.h>

#include "smtp/header.h"
#include "t/unit/tap.h"

static const struct {
	const char *name, *text;
	enum header_error error;
	const char *flags;   /* d date, i message-id, f from, m missing, s needs a Sender, t TLS is
	                        optional, 8 8-bit, u an author in UTF-8 */
	const char *authors; /* joined by a blank */
	const char *left;    /* what is handed on; NULL: all of it */
} rows[] = {
    {"usual", "From: A <a@x.example>\r\nDate: now\r\nMessage-ID: <1>\r\n\r\nFrom: b@x.example\r\n",
     HEADER_OK, "dif", "a@x.example"},
    {"8-bit octets", "From: \xc3\xb6 <a@x.example>\r\n\r\n", HEADER_OK, "f8", "a@x.example"},
    {"8-bit octets in the body", "From: a@x.example\r\n\r\n\xc3\xb6\r\n", HEADER_OK, "f",
     "a@x.example"},
    {"8-bit octets in what does not leave", "From: a@x.example\r\nBcc: \xc3\xb6@x.example\r\n\r\n",
     HEADER_OK, "f", "a@x.example", "From: a@x.example\r\n\r\n"},
    {"8-bit octets at the end of a long line",
     "X: 0123456789012345678901234567890123456789012345678901\xc3\xb6\r\n\r\n", HEADER_OK, "8", ""},
    {"an international author", "From: \xc3\xb6@x.example\r\n\r\n", HEADER_OK, "f8u",
     "\xc3\xb6@x.example"},
    {"an international author's domain",
     "From: a@x.example, b@\xc3\xbc.example\r\nSender: a@x.example\r\n\r\n", HEADER_OK, "f8u",
     "a@x.example b@xn--tda.example a@x.example"},
    {"no section, and 8-bit octets", "h\xc3\xb6llo\r\n", HEADER_OK, "m", ""},
    {"case, gap and folding", "FROM \t:\r\n A\r\n\t<a@x.example>\r\nmessage-id: x\r\n\r\n",
     HEADER_OK, "if", "a@x.example"},
    {"sender", "Sender: s@x.example\r\nFrom: a@x.example, b@x.example\r\n\r\n", HEADER_OK, "f",
     "a@x.example b@x.example s@x.example"},
    {"no empty line at the end", "From: a@x.example", HEADER_OK, "f", "a@x.example"},
    {"empty section", "\r\nbody\r\n", HEADER_OK, "", ""},
    {"no section", "hello world\r\nFrom: a@x.example\r\n", HEADER_OK, "m", ""},
    {"mbox line", "From a@x Mon Nov 23 09:14:00 2026\r\nFrom: a@x.example\r\n\r\nFrom b\r\n",
     HEADER_OK, "f", "a@x.example", "From: a@x.example\r\n\r\nFrom b\r\n"},
    {"mbox line, then Bcc", "From\ta 09:14 2026\r\nBcc: x\r\nDate:\r\nTo: x\r\n\r\n", HEADER_OK, "",
     "", "To: x\r\n\r\n"},
    {"mbox line, then a text", "From a@x Mon Nov 23 09:14:00 2026\r\nhello\r\nTo: x\r\n", HEADER_OK,
     "m", ""},
    {"mbox line, then an empty one", "From a@x Mon Nov 23 09:14:00 2026\r\n\r\nTo: x\r\n",
     HEADER_OK, "m", ""},
    {"mbox line, then another", "From a 09:14:00 2026\r\nFrom b 09:14:00 2026\r\nTo: x\r\n",
     HEADER_OK, "m", ""},
    {"mbox line alone", "From a 09:14:00 2026\r\n", HEADER_OK, "m", ""},
    {"mbox line that does not end", "From a 09:14:00 2026", HEADER_OK, "m", ""},
    {"a text that begins with From", "From now on\r\nNote: a word\r\n", HEADER_OK, "m", ""},
    {"From, a gap and a value", "From  \t: a@x.example\r\n\r\n", HEADER_OK, "f", "a@x.example"},
    {"starts folded", " x\r\n\r\n", HEADER_OK, "m", ""},
    {"nothing at all", "", HEADER_OK, "m", ""},
    {"no colon, no line end", "hello", HEADER_OK, "m", ""},
    {"junk in the middle hides no From", "Subject: x\r\njunk\r\nFrom: a@x.example\r\n\r\n",
     HEADER_OK, "f", "a@x.example"},
    {"Resent-From is not From", "Resent-From: a@x.example\r\nX-From: b\r\n\r\n", HEADER_OK, "", ""},
    {"two Froms", "From: a@x.example\r\nfrom: b@x.example\r\n\r\n", HEADER_BAD_FROM, NULL, NULL},
    {"two Senders", "Sender: a@x.example\r\nSender: b@x.example\r\n\r\n", HEADER_BAD_FROM, NULL,
     NULL},
    {"no mailbox", "From: nobody\r\n\r\n", HEADER_BAD_FROM, NULL, NULL},
    {"empty From", "From:\r\n\r\n", HEADER_BAD_FROM, NULL, NULL},
    {"empty Sender", "From: a@x.example\r\nSender: \r\n\r\n", HEADER_BAD_FROM, NULL, NULL},
    {"loop", "Received: 1\r\nReceived: 2\r\nReceived: 3\r\nReceived: 4\r\n\r\n", HEADER_LOOP, NULL,
     NULL},
    {"three hops are fine", "Received: 1\r\nReceived: 2\r\nReceived: 3\r\n\r\n", HEADER_OK, "", ""},
    {"no value: Date and Message-ID go, to be added",
     "Date: \r\nSubject:\r\nMessage-ID:\r\n \r\n\t\r\nTo:\r\n\r\nDate:\r\n", HEADER_OK, "", "",
     "Subject:\r\nTo:\r\n\r\nDate:\r\n"},
    {"a value on the next line", "Date:\r\n \r\n now\r\nMessage-ID :\r\n\t<1>\r\n\r\n", HEADER_OK,
     "di", ""},
    {"one Date without a value, one with", "Date:\r\nDate: now\r\nDate: then\r\n\r\n", HEADER_OK,
     "d", "", "Date: now\r\nDate: then\r\n\r\n"},
    {"no value at the end of all", "Subject: x\r\nDate:  ", HEADER_OK, "", "", "Subject: x\r\n"},
    {"no value, then junk", "Date:\r\njunk\r\n\r\n", HEADER_OK, "", "", "junk\r\n\r\n"},
    {"names that are longer or shorter", "Dat: 1\r\nDates:\r\nResent-Date:\r\nXBcc: 1\r\n\r\n",
     HEADER_OK, "", ""},
    {"Bcc", "Bcc: a@x\r\nSubject: 1\r\nBcc: b@x\r\nBCC:c@x\r\n\r\nBcc: d@x\r\n", HEADER_OK, "", "",
     "Subject: 1\r\n\r\nBcc: d@x\r\n"},
    {"Bcc, folded", "To: t@x\r\nbcc: a@x,\r\n b@x,\r\n\r\n c@x\r\n", HEADER_OK, "", "",
     "To: t@x\r\n\r\n c@x\r\n"},
    {"Bcc, folded with a line of blanks", "Bcc:\r\n \t\r\n a@x\r\nTo: t@x\r\n\r\n", HEADER_OK, "",
     "", "To: t@x\r\n\r\n"},
    {"Bcc with a gap", "To: t@x\r\nBcc \t : a@x\r\nBcc\t a@x\r\nBcc:\r\n\r\n", HEADER_OK, "", "",
     "To: t@x\r\nBcc\t a@x\r\n\r\n"},
    {"Bcc last, no line end", "To: t@x\r\nBcc: a@x, b@x", HEADER_OK, "", "", "To: t@x\r\n"},
    {"Bcc alone", "Bcc: a@x\r\n", HEADER_OK, "", "", ""},
    {"Bcc in front of what is no field", "Bcc: a@x\r\nhello\r\n\r\n", HEADER_OK, "", "",
     "hello\r\n\r\n"},
    {"Bcc is a word of the body", "Bcc was forgotten\r\nBcc: a@x\r\n", HEADER_OK, "m", ""},
    {"Bcc without a colon, no line end", "To: t@x\r\nBcc ", HEADER_OK, "", ""},
    {"in the middle of a name", "To: t@x\r\nMessage-I", HEADER_OK, "", ""},
    {"Resent fields", "Resent-Bcc: a@x\r\nResent-To: b@x\r\nResent-From: c@x\r\n\r\n", HEADER_OK,
     "", "", "Resent-To: b@x\r\nResent-From: c@x\r\n\r\n"},
    {"Return-Path", "Return-Path:\r\n <a@x>\r\nreturn-path: <>\r\nX-Return-Path: <>\r\n\r\n",
     HEADER_OK, "", "", "X-Return-Path: <>\r\n\r\n"},
    {"several authors, no Sender", "From: a@x.example, b@x.example\r\n\r\n", HEADER_OK, "fs",
     "a@x.example b@x.example"},
    {"several authors, a group", "From: us: a@x.example, b@x.example;\r\n\r\n", HEADER_OK, "fs",
     "a@x.example b@x.example"},
    {"TLS-Required", "TLS-Required: No\r\n\r\n", HEADER_OK, "t", ""},
    {"TLS-Required, folded", "tls-required:\r\n no \r\n\r\n", HEADER_OK, "t", ""},
    {"TLS-Required, other values", "TLS-Required: Not\r\n\r\n", HEADER_OK, "", ""},
    {"TLS-Required, no value", "TLS-Required:\r\n\r\n", HEADER_OK, "", ""},
    {"TLS-Required twice says nothing", "TLS-Required: No\r\nTLS-Required: No\r\n\r\n", HEADER_OK,
     "", ""},
    {"TLS-Required in the body", "Subject: x\r\n\r\nTLS-Required: No\r\n", HEADER_OK, "", ""},
    {"8-bit, trailing blanks, tabs, a lone dot",
     "Subject: \xe9\x96\xa2 \t \r\n\t\xff \r\nX-\x80: \r\n\r\n \t\r\n.\r\n \xe9", HEADER_OK, "8",
     ""},
    {"too big",
     "X: 0123456789012345678901234567890123456789012345678901234567890123456789\r\nY: "
     "012345678901234567890123456789\r\n\r\n",
     HEADER_TOO_BIG, NULL, NULL},
};

static void
gather(void *arg, const uint8_t *data, size_t len)
{
	buf_add(arg, data, len);
}

static bool
check(size_t i, size_t cut, size_t step)
{
	struct arena *arena = arena_new();
	struct header *header = header_new(
	    arena, &(struct header_opts){.size_max = 100, .received_max = 3, .remove_bcc = true});
	const char *text = rows[i].text, *left = rows[i].left ? rows[i].left : text;
	size_t len = strlen(text), n, authors;
	char flags[12] = "", address[ADDRESS_TEXT_SIZE], all[1024] = "";
	struct buf out;
	bool good;

	buf_init(&out);
	n = cut;
	for (size_t at = 0; at < len; at += n, n = step) {
		if (n > len - at)
			n = len - at;
		header_feed(header, (const uint8_t *)text + at, n, gather, &out);
	}
	header_end(header, gather, &out);
	good = header_error(header) == rows[i].error;
	if (good && !rows[i].error) {
		snprintf(
		    flags, sizeof flags, "%s%s%s%s%s%s%s%s", header_has_date(header) ? "d" : "",
		    header_has_message_id(header) ? "i" : "", header_has_from(header) ? "f" : "",
		    header_is_missing(header) ? "m" : "", header_needs_sender(header) ? "s" : "",
		    header_is_tls_optional(header) ? "t" : "", header_is_8bit(header) ? "8" : "",
		    header_has_utf8_author(header) ? "u" : "");
		const struct address *list = header_authors(header, &authors);
		for (size_t k = 0; k < authors; k++) {
			strcat(all, k ? " " : "");
			strcat(all, address_format(&list[k], address, sizeof address));
		}
		good = !strcmp(flags, rows[i].flags) && !strcmp(all, rows[i].authors) &&
		       out.len == strlen(left) && !strcmp(buf_str(&out), left);
	}
	buf_clear(&out);
	arena_free(arena);
	return good;
}

static void
test_bcc_kept(void)
{
	struct arena *arena = arena_new();
	struct header *header =
	    header_new(arena, &(struct header_opts){.size_max = 100, .received_max = 3});
	const char *text = "Bcc: a@x\r\nResent-Bcc: b@x\r\nReturn-Path: <>\r\n\r\n";
	struct buf out;

	buf_init(&out);
	header_feed(header, (const uint8_t *)text, strlen(text), gather, &out);
	header_end(header, gather, &out);
	ok(!strcmp(buf_str(&out), "Bcc: a@x\r\nResent-Bcc: b@x\r\n\r\n"), "Bcc may be kept");
	buf_clear(&out);
	arena_free(arena);
}

static void
message_id(const char *text, char out[32])
{
	struct arena *arena = arena_new();
	struct header *header =
	    header_new(arena, &(struct header_opts){.size_max = 500, .received_max = 3});
	struct buf left;

	buf_init(&left);
	for (size_t i = 0; i < strlen(text); i++)
		header_feed(header, (const uint8_t *)text + i, 1, gather, &left);
	header_end(header, gather, &left);
	header_message_id(header, out, 32);
	buf_clear(&left);
	arena_free(arena);
}

static void
test_message_id(void)
{
	static const char *const table[][2] = {
	    {"Message-ID: <1.a@pc.example>\r\n\r\n", "1.a@pc.example"},
	    {"message-id:\r\n <1@pc> (mine)\r\nFrom: a@x\r\n\r\n", "1@pc"},
	    {"Message-ID: 1@pc \t\r\n\r\n", "1@pc"},
	    {"Message-ID: \r\nMessage-ID: <2@pc>\r\nMessage-ID: <3@pc>\r\n\r\n", "2@pc"},
	    {"Message-ID: <\033[2J@pc>\r\n\r\n", ""},
	    {"Subject: <1@pc>\r\n\r\nMessage-ID: <1@pc>\r\n", ""},
	    {"Message-ID: <123456789012345678901234567890@pc>\r\n\r\n",
	     "1234567890123456789012345678901"},
	};
	bool good = true;

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		char got[32];

		message_id(table[i][0], got);
		if (strncmp(got, table[i][1], 30) != 0) {
			printf("# %zu: %s\n", i, got);
			good = false;
		}
	}
	ok(good, "a Message-ID is the first that has a value, without what is around it");
}

static bool
received_from(const char *ehlo, const char *client_ip, const char *from)
{
	const struct header_prefix prefix = {
	    .ehlo = ehlo,
	    .client_ip = client_ip,
	    .hostname = "mail.example.org",
	    .protocol = "ESMTPSA",
	    .id = "0abc",
	    .date = "Mon, 23 Nov 2026 09:14:00 +0900",
	};
	struct buf out;
	bool good;

	buf_init(&out);
	header_compose_prefix(&prefix, &out);
	good = !strncmp(buf_str(&out), from, strlen(from)) &&
	       !strcmp(buf_str(&out) + strlen(from),
	               "\r\n\tby mail.example.org with ESMTPSA\r\n\tid 0abc;\r\n\tMon, 23 Nov 2026 "
	               "09:14:00 +0900\r\n");
	buf_clear(&out);
	return good;
}

int
main(void)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		bool good = check(i, 1, 1);
		for (size_t cut = 0; cut <= strlen(rows[i].text); cut++)
			good &= check(i, cut, 1000);
		ok(good, rows[i].name);
	}
	test_bcc_kept();
	test_message_id();
	ok(received_from("[192.0.2.1]", "192.0.2.1",
	                 "Received: from [192.0.2.1]\r\n\t([192.0.2.1])") &&
	       received_from("[IPv6:2001:db8::1]", "2001:db8::1",
	                     "Received: from [IPv6:2001:db8::1]\r\n\t([IPv6:2001:db8::1])"),
	   "a client that calls itself by an address");
	ok(received_from("[a](b)by]", "192.0.2.1", "Received: from ?a??b?by?\r\n\t([192.0.2.1])") &&
	       received_from("[", "192.0.2.1", "Received: from ?\r\n\t([192.0.2.1])") &&
	       received_from("a:b;\\\"<c>,@[]", "192.0.2.1",
	                     "Received: from a?b????c?????\r\n\t([192.0.2.1])"),
	   "a name that would say more than a name");
	ok(received_from("laptop.home", NULL,
	                 "Received: from client.invalid\r\n\t(address withheld)"),
	   "neither address nor name when the address is withheld");
	struct buf out;
	struct header_prefix prefix = {
	    .ehlo = "evil(;x",
	    .client_ip = "2001:db8::1",
	    .hostname = "mail.example.org",
	    .protocol = "ESMTPSA",
	    .tls_version = "TLSv1.3",
	    .tls_cipher = "TLS_AES_256_GCM_SHA384",
	    .id = "0abc",
	    .date = "Mon, 23 Nov 2026 09:14:00 +0900",
	    .from = "a@x.example",
	    .sender = "s@x.example",
	    .add_date = true,
	    .add_message_id = true,
	    .end_section = true,
	};
	buf_init(&out);
	header_compose_prefix(&prefix, &out);
	ok(!strcmp(buf_str(&out),
	           "Received: from evil??x\r\n\t([IPv6:2001:db8::1])\r\n\tby "
	           "mail.example.org with ESMTPSA\r\n"
	           "\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\tid 0abc;\r\n\tMon, 23 "
	           "Nov 2026 09:14:00 +0900\r\n"
	           "Date: Mon, 23 Nov 2026 09:14:00 +0900\r\nMessage-ID: "
	           "<0abc@mail.example.org>\r\nFrom: a@x.example\r\nSender: s@x.example\r\n\r\n"),
	   "prefix");
	buf_clear(&out);
	return tap_end();
}
