#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "smtp/data.h"

/* Each row is fed whole, octet by octet, and cut at every place: the result is always the same. */

static int count, failures;

static void
ok(bool good, const char *kind, const char *name)
{
	printf("%sok %d - %s %s\n", good ? "" : "not ", ++count, kind, name);
	failures += !good;
}

#define S(text) text, sizeof text - 1
static const struct {
	const char *name, *in;
	size_t in_len;
	const char *out;
	size_t out_len;
	bool end;
	size_t rest; /* octets behind the end */
} rows[] = {
    {"empty message", S(".\r\n"), S(""), true, 0},
    {"a line", S("a\r\n.\r\n"), S("a\r\n"), true, 0},
    {"pipelined command", S("a\r\n.\r\nQUIT\r\n"), S("a\r\n"), true, 6},
    {"stuffed dot", S("..\r\n...a\r\n.b\r\n.\r\n"), S(".\r\n..a\r\nb\r\n"), true, 0},
    {"dot inside", S("a.\r\nb .\r\n.\r\n"), S("a.\r\nb .\r\n"), true, 0},
    {"no end", S("a\r\n."), S("a\r\n"), false, 0},
    {"no line end", S("a"), S("a"), false, 0},
    {"LF.LF", S("a\n.\nb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"LF.CRLF", S("a\n.\r\nb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"CRLF.LF", S("a\r\n.\nb\r\n.\r\n"), S("a\r\n\r\nb\r\n"), true, 0},
    {"CRLF.CR", S("a\r\n.\rb\r\n.\r\n"), S("a\r\n\r\nb\r\n"), true, 0},
    {"CR.CR", S("a\r.\rb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"CR.LF", S("a\r.\nb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"CR.CRLF", S("a\r.\r\nb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"LF.CR", S("a\n.\rb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"CRLF.CRCRLF", S("a\r\n.\r\r\nb\r\n.\r\n"), S("a\r\n\r\n\r\nb\r\n"), true, 0},
    {"CRCRLF.LF", S("a\r\r\n.\nb\r\n.\r\n"), S("a\r\n\r\n\r\nb\r\n"), true, 0},
    {"CRLF.NUL CRLF", S("a\r\n.\0\r\n.\r\n"), S("a\r\n\0\r\n"), true, 0},
    {"LFCRLF.", S("\n\r\n.\r\n"), S("\r\n\r\n"), true, 0},
    {"CRs", S("\r\r\r\r\n.\r\n"), S("\r\n\r\n\r\n\r\n"), true, 0},
    {"LFs", S("\n\n\n"), S("\r\n\r\n\r\n"), false, 0},
};
static const struct {
	const char *name, *in;
	size_t in_len;
	const char *out;
	size_t out_len;
} outs[] = {
    {"nothing", S(""), S(".\r\n")},
    {"a line", S("a\r\n"), S("a\r\n.\r\n")},
    {"no line end", S("a"), S("a\r\n.\r\n")},
    {"dots", S(".\r\n..\r\na.\r\n"), S("..\r\n...\r\na.\r\n.\r\n")},
    {"bare LF before a dot", S("a\n.\nb"), S("a\r\n..\r\nb\r\n.\r\n")},
    {"bare CR before a dot", S("a\r.\rb"), S("a\r\n..\r\nb\r\n.\r\n")},
    {"CR at the end", S("a\r"), S("a\r\n.\r\n")},
    {"dot at the end", S("a\r\n."), S("a\r\n..\r\n.\r\n")},
};

static void
sink(void *arg, const uint8_t *data, size_t len)
{
	buf_add(arg, data, len);
}

static bool
same(const struct buf *buf, const char *out, size_t len)
{
	return buf->len == len && (!len || !memcmp(buf->data, out, len));
}

/* Feeds slices of step octets, the first one of first. Each is copied, so that a sanitizer sees a
 * look beyond it. */
static bool
feed_in(const char *text, size_t len, size_t first, size_t step, struct data_in *in,
        struct buf *out, size_t *used)
{
	bool end = false;
	size_t at = 0, n, took;

	data_in_init(in);
	for (n = first; !end && at < len; at += took, n = step) {
		if (n > len - at)
			n = len - at;
		uint8_t *copy = malloc(n ? n : 1);
		if (!copy)
			abort();
		memcpy(copy, text + at, n);
		end = data_in_feed(in, copy, n, &took, sink, out);
		free(copy);
		if (!end && took != n)
			abort();
	}
	*used = at;
	return end;
}

static bool
check_in(size_t i, size_t first, size_t step)
{
	struct data_in in;
	struct buf out;
	size_t used;
	bool good;

	buf_init(&out);
	good = feed_in(rows[i].in, rows[i].in_len, first, step, &in, &out, &used) == rows[i].end &&
	       used == rows[i].in_len - rows[i].rest && same(&out, rows[i].out, rows[i].out_len) &&
	       in.size == out.len;
	buf_clear(&out);
	return good;
}

static bool
check_out(size_t i, size_t cut, size_t step)
{
	struct data_out out;
	struct buf buf;
	size_t len = outs[i].in_len;
	bool good;

	buf_init(&buf);
	data_out_init(&out);
	for (size_t at = 0, n = cut; at < len; at += n, n = step) {
		if (n > len - at)
			n = len - at;
		data_out_feed(&out, (const uint8_t *)outs[i].in + at, n, sink, &buf);
	}
	data_out_end(&out, sink, &buf);
	good = same(&buf, outs[i].out, outs[i].out_len);
	buf_clear(&buf);
	return good;
}

/* All texts of up to seven of these octets: slicing never matters, and the end is where the five
 * octets (or three at the start) say. */
static void
exhaustive(void)
{
	static const char alphabet[] = "\r\n.a";
	bool good = true, end_good = true;

	for (size_t len = 1; len <= 7; len++) {
		for (size_t n = 0; n < (size_t)1 << (2 * len); n++) {
			char text[10] = "\r\n";
			struct data_in a, b;
			struct buf x, y;
			size_t used_a, used_b;
			for (size_t k = 0; k < len; k++)
				text[2 + k] = alphabet[n >> (2 * k) & 3];
			buf_init(&x), buf_init(&y);
			bool end = feed_in(text + 2, len, len, len, &a, &x, &used_a);
			good &= feed_in(text + 2, len, 1, 1, &b, &y, &used_b) == end &&
			        used_a == used_b && a.state == b.state &&
			        same(&y, x.data ? (const char *)x.data : "", x.len) &&
			        a.size == b.size;
			const char *mark = memmem(text, len + 2, "\r\n.\r\n", 5);
			end_good &=
			    end == !!mark && (!mark || (size_t)(mark + 5 - (text + 2)) == used_a);
			buf_clear(&x), buf_clear(&y);
		}
	}
	ok(good, "in", "exhaustive: octet by octet is as whole");
	ok(end_good, "in", "exhaustive: CRLF.CRLF and nothing else ends");
}

int
main(void)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		bool good = check_in(i, 1, 1);
		for (size_t cut = 0; cut <= rows[i].in_len; cut++)
			good &= check_in(i, cut, rows[i].in_len + 1);
		ok(good, "in", rows[i].name);
	}
	for (size_t i = 0; i < sizeof outs / sizeof *outs; i++) {
		bool good = check_out(i, 1, 1);
		for (size_t cut = 0; cut <= outs[i].in_len; cut++)
			good &= check_out(i, cut, outs[i].in_len + 1);
		ok(good, "out", outs[i].name);
	}
	exhaustive();

	struct data_in in;
	struct buf out;
	size_t used;
	buf_init(&out);
	feed_in(S("a\0b\r\n"), 1, 1, &in, &out, &used);
	ok(in.has_nul && !in.has_8bit, "in", "NUL is seen");
	feed_in(S("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xe9\r\n"), 100, 100, &in, &out,
	        &used);
	ok(in.has_8bit && !in.has_nul, "in", "8-bit is seen");
	buf_clear(&out);
	printf("1..%d\n", count);
	return failures != 0;
}
