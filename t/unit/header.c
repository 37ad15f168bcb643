#include <stdio.h>
#include <string.h>

#include "smtp/header.h"

static int count, failures;

static void
ok(bool good, const char *name)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++count, name);
	failures += !good;
}

static const struct {
	const char *name, *text;
	enum header_error error;
	const char *flags;   /* d date, i message-id, f from, m missing */
	const char *authors; /* joined by a blank */
} rows[] = {
    {"usual", "From: A <a@x.example>\r\nDate: now\r\nMessage-ID: <1>\r\n\r\nFrom: b@x.example\r\n",
     HEADER_OK, "dif", "a@x.example"},
    {"case, gap and folding", "FROM \t:\r\n A\r\n\t<a@x.example>\r\nmessage-id: x\r\n\r\n",
     HEADER_OK, "if", "a@x.example"},
    {"sender", "Sender: s@x.example\r\nFrom: a@x.example, b@x.example\r\n\r\n", HEADER_OK, "f",
     "a@x.example b@x.example s@x.example"},
    {"no empty line at the end", "From: a@x.example", HEADER_OK, "f", "a@x.example"},
    {"empty section", "\r\nbody\r\n", HEADER_OK, "", ""},
    {"no section", "hello world\r\nFrom: a@x.example\r\n", HEADER_OK, "m", ""},
    {"mbox line", "From a@x.example Mon Nov 23\r\nFrom: a@x.example\r\n\r\n", HEADER_OK, "m", ""},
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
    {"too big",
     "X: 0123456789012345678901234567890123456789012345678901234567890123456789\r\nY: "
     "012345678901234567890123456789\r\n\r\n",
     HEADER_TOO_BIG, NULL, NULL},
};

static bool
check(size_t i, size_t cut, size_t step)
{
	struct arena *arena = arena_new();
	struct header *header = header_new(arena, 100, 3);
	size_t len = strlen(rows[i].text), n, authors;
	char flags[8] = "", text[ADDRESS_TEXT_SIZE], all[1024] = "";
	bool good;

	n = cut;
	for (size_t at = 0; at < len; at += n, n = step) {
		if (n > len - at)
			n = len - at;
		if (!header_feed(header, (const uint8_t *)rows[i].text + at, n))
			break;
	}
	header_end(header);
	good = header_error(header) == rows[i].error;
	if (good && !rows[i].error) {
		snprintf(flags, sizeof flags, "%s%s%s%s", header_has_date(header) ? "d" : "",
		         header_has_message_id(header) ? "i" : "",
		         header_has_from(header) ? "f" : "", header_is_missing(header) ? "m" : "");
		const struct address *list = header_authors(header, &authors);
		for (size_t k = 0; k < authors; k++) {
			strcat(all, k ? " " : "");
			strcat(all, address_format(&list[k], text, sizeof text));
		}
		good = !strcmp(flags, rows[i].flags) && !strcmp(all, rows[i].authors);
	}
	arena_free(arena);
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
	    .add_date = true,
	    .add_message_id = true,
	    .end_section = true,
	};
	buf_init(&out);
	header_compose_prefix(&prefix, &out);
	ok(!strcmp(buf_str(&out), "Received: from evil??x\r\n\t([IPv6:2001:db8::1])\r\n\tby "
	                          "mail.example.org with ESMTPSA\r\n"
	                          "\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\tid 0abc;\r\n\tMon, 23 "
	                          "Nov 2026 09:14:00 +0900\r\n"
	                          "Date: Mon, 23 Nov 2026 09:14:00 +0900\r\nMessage-ID: "
	                          "<0abc@mail.example.org>\r\nFrom: a@x.example\r\n\r\n"),
	   "prefix");
	buf_clear(&out);
	printf("1..%d\n", count);
	return failures != 0;
}
