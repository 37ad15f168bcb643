/* What it costs to read what clients send, on one core: the median of RUNS runs of each row, in CPU
 * time.
 *
 * A pair is the line of a MAIL and that of a RCPT, from the wire to the structs. The header section
 * is an ordinary one, looked at and handed on.
 *
 * The data filter takes slices as a connection hands them over (16 KiB, a TLS record) and gives
 * them to a sink that does nothing. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/mem.h"
#include "smtp/command.h"
#include "smtp/data.h"
#include "smtp/header.h"

#define RUNS    9
#define TIMES   20000 /* of what is small, in one run */
#define CONTENT (32u * 1024 * 1024)
#define SLICE   (16u * 1024)

static double
cpu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* CPU seconds of one call. */
static double
median(void (*run)(void *arg), void *arg)
{
	double seconds[RUNS];

	for (int i = 0; i < RUNS; i++) {
		double start = cpu_now();
		run(arg);
		seconds[i] = cpu_now() - start;
	}
	qsort(seconds, RUNS, sizeof *seconds, by_value);
	return seconds[RUNS / 2];
}

struct content {
	enum data_kind kind;
	uint8_t *octets;
	size_t len, handed_on;
};

static void
sink(void *arg, const uint8_t *data, size_t len)
{
	struct content *content = arg;

	(void)data;
	content->handed_on += len;
}

static void
filter(void *arg)
{
	struct content *content = arg;
	struct data_in in;

	data_in_init(&in, content->kind);
	for (size_t at = 0, n, used; at < content->len; at += n) {
		n = content->len - at < SLICE ? content->len - at : SLICE;
		(void)data_in_feed(&in, content->octets + at, n, &used, sink, content);
	}
}

/* Lines of these lengths in turn, each ended by end. */
static void
measure_filter(const char *name, enum data_kind kind, const unsigned *lengths, size_t count,
               const char *end)
{
	struct content content = {.kind = kind};
	size_t size = CONTENT;

	for (size_t i = 0; i < count; i++)
		size += lengths[i] + 2;
	content.octets = xcalloc(1, size);
	for (size_t i = 0; content.len < CONTENT; i++) {
		unsigned len = lengths[i % count];
		for (unsigned k = 0; k < len; k++)
			content.octets[content.len++] = (uint8_t)('a' + (i + k) % 26);
		memcpy(content.octets + content.len, end, strlen(end));
		content.len += strlen(end);
	}
	printf("data filter, %-34s %6.2f GB/s\n", name,
	       (double)content.len / median(filter, &content) / 1e9);
	free(content.octets);
}

struct pair {
	const char *mail, *rcpt;
};

static void
parse_line(const char *line, bool is_mail)
{
	const struct command_opts opts = {
	    .extensions = COMMAND_ALL,
	    .utf8 = true,
	    .now = 1800000000000,
	    .hostname = "mail.example.net",
	};
	struct command_mail mail;
	struct envelope_recipient rcpt;
	char orcpt[ENVELOPE_ORCPT_MAX + 1];
	enum address_error why;
	size_t len, verb_len, args_len;
	const char *args;

	if (!command_line((const uint8_t *)line, strlen(line), &len) ||
	    !command_split(line, len, &verb_len, &args, &args_len) ||
	    (is_mail ? command_parse_mail(args, args_len, &opts, &mail, &why)
	             : command_parse_rcpt(args, args_len, &opts, &rcpt, orcpt, &why))) {
		fprintf(stderr, "not understood: %s", line);
		exit(1);
	}
}

static void
parse_pairs(void *arg)
{
	const struct pair *pair = arg;

	for (int i = 0; i < TIMES; i++) {
		parse_line(pair->mail, true);
		parse_line(pair->rcpt, false);
	}
}

static void
measure_pair(const char *name, const char *mail, const char *rcpt)
{
	struct pair pair = {mail, rcpt};

	printf("MAIL/RCPT pair, %-31s %6.2f us\n", name, median(parse_pairs, &pair) / TIMES * 1e6);
}

static void
scan_headers(void *arg)
{
	struct content *content = arg;
	const struct header_opts opts = {
	    .size_max = CONTENT, .received_max = 50, .remove_bcc = true};

	for (int i = 0; i < TIMES; i++) {
		struct arena *arena = arena_new();
		struct header *header = header_new(arena, &opts);
		header_feed(header, content->octets, content->len, sink, content);
		header_end(header, sink, content);
		arena_free(arena);
	}
}

static void
measure_header(void)
{
	struct buf text;

	buf_init(&text);
	for (int i = 0; i < 5; i++)
		buf_printf(&text,
		           "Received: from host%d.example.org (host.example.org [192.0.2.%d])\r\n"
		           "\tby mail.example.com with ESMTPS id 4X1y2Z3abc\r\n"
		           "\tfor <bob@example.org>; Wed, 25 Nov 2026 10:00:00 +0900\r\n",
		           i, i);
	buf_add_str(&text, "From: Alice <alice@example.net>\r\nTo: Bob <bob@example.org>,\r\n"
	                   " Carol <carol@example.org>\r\nBcc: dave@example.org\r\n"
	                   "Subject: =?utf-8?B?5pys5pel44Gv5pm05aSp44Gq44KK?=\r\n"
	                   "Date: Wed, 25 Nov 2026 10:00:00 +0900\r\nMessage-ID: "
	                   "<20261125100000.1234@example.net>\r\nMIME-Version: 1.0\r\n"
	                   "Content-Type: multipart/mixed; boundary=\"b1\"\r\n\r\n");
	struct content content = {.octets = text.data, .len = text.len};
	printf("header section of %zu octets %22s %6.2f us\n", text.len, "",
	       median(scan_headers, &content) / TIMES * 1e6);
	buf_clear(&text);
}

int
main(void)
{
	measure_pair("plain", "MAIL FROM:<alice@example.net>\r\n",
	             "RCPT TO:<bob.jones@mail.example.org>\r\n");
	measure_pair("with what mail programs add",
	             "MAIL FROM:<alice@example.net> SIZE=34567 BODY=8BITMIME\r\n",
	             "RCPT TO:<bob.jones@mail.example.org> NOTIFY=FAILURE,DELAY "
	             "ORCPT=rfc822;bob.jones@mail.example.org\r\n");
	measure_pair("with all there is",
	             "MAIL FROM:<\"a b\"@example.net> SIZE=34567 BODY=8BITMIME RET=HDRS "
	             "ENVID=QQ314159+2D1 AUTH=alice@example.net SMTPUTF8 HOLDFOR=600 MT-PRIORITY=3 "
	             "BY=3600;RT REQUIRETLS\r\n",
	             "RCPT TO:<@a.example.com,@b.example.com:bob.jones@[IPv6:2001:db8::1]> "
	             "NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;bob.jones@mail.example.org\r\n");
	measure_pair("in UTF-8", "MAIL FROM:<\u95a2\u6240@\u4f8b.example> SMTPUTF8\r\n",
	             "RCPT TO:<\u7528\u6237@\u4f8b\u5b50.example> "
	             "ORCPT=utf-8;\u7528\u6237@example.org\r\n");
	measure_header();

	static const unsigned base64[] = {76}, text[] = {0, 12, 72, 70, 68, 71, 31, 0, 75, 3},
	                      html[] = {400, 180, 900, 20}, endless[] = {100000};

#define LINES(lengths) lengths, sizeof(lengths) / sizeof *(lengths)
	measure_filter("an attachment, base64", DATA_DOTTED, LINES(base64), "\r\n");
	measure_filter("text", DATA_DOTTED, LINES(text), "\r\n");
	measure_filter("HTML", DATA_DOTTED, LINES(html), "\r\n");
	measure_filter("text by BDAT", DATA_CHUNKED, LINES(text), "\r\n");
	measure_filter("text with bare LF", DATA_DOTTED, LINES(text), "\n");
	measure_filter("lines to be folded", DATA_DOTTED, LINES(endless), "\r\n");
	return 0;
}
