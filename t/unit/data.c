#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "smtp/data.h"
#include "t/unit/tap.h"

/* Each row is fed whole, octet by octet, and cut at every place: the result is always the same. */

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
    {"no line end", S("a"), S(""), false, 0}, /* a line is held until it ends */
    {"LF.LF", S("a\n.\nb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"LF.CRLF", S("a\n.\r\nb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"CRLF.LF", S("a\r\n.\nb\r\n.\r\n"), S("a\r\n\r\nb\r\n"), true, 0},
    {"CRLF.CR", S("a\r\n.\rb\r\n.\r\n"), S("a\r\n\r\nb\r\n"), true, 0},
    {"CR.CR", S("a\r.\rb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"CR.LF", S("a\r.\nb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"CR.CRLF", S("a\r.\r\nb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"LF.CR", S("a\n.\rb\r\n.\r\n"), S("a\r\n.\r\nb\r\n"), true, 0},
    {"CRLF.CRCRLF", S("a\r\n.\r\r\nb\r\n.\r\n"), S("a\r\n\r\nb\r\n"), true, 0},
    {"CRCRLF.LF", S("a\r\r\n.\nb\r\n.\r\n"), S("a\r\n\r\nb\r\n"), true, 0},
    {"CRLF.CRCR", S("a\r\n.\r\rb\r\n.\r\n"), S("a\r\n\r\n\r\nb\r\n"), true, 0},
    {"CRLF.NUL CRLF", S("a\r\n.\0\r\n.\r\n"), S("a\r\n\0\r\n"), true, 0},
    {"LFCRLF.", S("\n\r\n.\r\n"), S("\r\n\r\n"), true, 0},
    {"CRs", S("\r\r\r\r\n.\r\n"), S("\r\n\r\n\r\n"), true, 0},
    {"CRCRLF ends a line once", S("a\r\r\nb\r\r\n\r\r\n.\r\n"), S("a\r\nb\r\n\r\n"), true, 0},
    {"CRCR ends two", S("a\r\rb\r\r.\r\n.\r\n"), S("a\r\n\r\nb\r\n\r\n.\r\n"), true, 0},
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
feed_in(enum data_kind kind, const char *text, size_t len, size_t first, size_t step,
        struct data_in *in, struct buf *out, size_t *used)
{
	bool end = false;
	size_t at = 0, n, took;

	data_in_init(in, kind);
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
	if (kind != DATA_DOTTED) {
		data_in_end(in, sink, out);
		return true;
	}
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
	good = feed_in(DATA_DOTTED, rows[i].in, rows[i].in_len, first, step, &in, &out, &used) ==
	           rows[i].end &&
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
			bool end = feed_in(DATA_DOTTED, text + 2, len, len, len, &a, &x, &used_a);
			good &= feed_in(DATA_DOTTED, text + 2, len, 1, 1, &b, &y, &used_b) == end &&
			        used_a == used_b && a.state == b.state &&
			        same(&y, x.data ? (const char *)x.data : "", x.len) &&
			        a.size == b.size;
			const char *mark = memmem(text, len + 2, "\r\n.\r\n", 5);
			end_good &=
			    end == !!mark && (!mark || (size_t)(mark + 5 - (text + 2)) == used_a);
			buf_clear(&x), buf_clear(&y);
		}
	}
	ok_of(good, "in", "exhaustive: octet by octet is as whole");
	ok_of(end_good, "in", "exhaustive: CRLF.CRLF and nothing else ends");
}

/* Folding, in another way: the whole content at once, line by line, each from its beginning. */

static bool
blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool
all_blank(const char *text, size_t len)
{
	while (len && blank(text[len - 1]))
		len--;
	return !len;
}

struct facts {
	bool bare, folded, unfoldable;
};

/* How much of a line of more than 998 octets goes first. */
static size_t
reference_cut(const char *line, bool header, bool *insert, struct facts *facts)
{
	for (size_t cut = 997; cut > 0; cut--)
		if (blank(line[cut]) && !blank(line[cut + 1]) && !all_blank(line, cut)) {
			*insert = false;
			return cut;
		}
	*insert = true;
	if (blank(line[997])) {
		facts->unfoldable |= header;
		return 998;
	}
	size_t cut = blank(line[998]) ? 997 : 998, sane = cut;
	while (cut - sane < 4 && (line[sane] & 0xc0) == 0x80)
		sane--;
	if (cut - sane < 4 && !blank(line[sane]))
		cut = sane;
	facts->unfoldable |= header && all_blank(line, cut);
	return cut;
}

static void
reference_line(const char *text, size_t len, bool header, struct facts *facts, struct buf *out)
{
	char *line = malloc(len + 1000);
	bool first = true;

	if (!line)
		abort();
	memcpy(line, text, len);
	while (len > 998) {
		bool insert;
		size_t cut = reference_cut(line, header, &insert, facts);
		facts->folded = true;
		if (first && header && !blank(line[0]) && !memchr(line, ':', cut))
			facts->unfoldable = true;
		first = false;
		buf_add(out, line, cut);
		buf_add_str(out, "\r\n");
		len -= cut;
		memmove(line + insert, line + cut, len);
		if (insert)
			line[0] = ' ';
		len += insert;
	}
	buf_add(out, line, len);
	buf_add_str(out, "\r\n");
	free(line);
}

/* Content as BDAT brings it. */
static void
reference(const char *text, size_t len, struct facts *facts, struct buf *out)
{
	bool header = true;
	size_t at = 0;

	*facts = (struct facts){0};
	while (at < len) {
		size_t line = 0;
		while (at + line < len && text[at + line] != '\r' && text[at + line] != '\n')
			line++;
		reference_line(text + at, line, header, facts, out);
		header &= line > 0;
		at += line;
		if (at + 1 < len && text[at] == '\r' && text[at + 1] == '\n')
			at += 2;
		else if (at + 2 < len && !memcmp(text + at, "\r\r\n", 3)) {
			facts->bare = true;
			at += 3;
		} else if (at < len) {
			facts->bare = true;
			at++;
		}
	}
}

/* xorshift: the same texts in every run. */
static uint64_t
draw(uint64_t below)
{
	static uint64_t x = 88172645463325252;
	x ^= x << 13, x ^= x >> 7, x ^= x << 17;
	return x % below;
}

/* Content of everything that matters to the filter, lines around the limit above all. */
static size_t
invent(char *text)
{
	static const char *const pieces[] = {"\r\n",
	                                     "\r\n",
	                                     "\r\n\r\n",
	                                     "\r",
	                                     "\n",
	                                     " ",
	                                     "\t",
	                                     "  ",
	                                     ".",
	                                     "..",
	                                     ":",
	                                     "From: a",
	                                     "\xe3\x81\x82",
	                                     "\xf0\x9f\x98\x80",
	                                     "\x80",
	                                     "\xc3"};
	size_t len = 0, parts = 1 + draw(24);

	for (size_t i = 0; i < parts; i++) {
		size_t kind = draw(20), n = draw(2) ? draw(8) : 990 + draw(16);
		if (kind < 16)
			n = draw(8) ? 1 : n / strlen(pieces[kind]);
		for (size_t k = 0; k < n; k++)
			if (kind < 16)
				len += (size_t)sprintf(text + len, "%s", pieces[kind]);
			else
				text[len++] = "xy \x82"[kind - 16];
	}
	return len;
}

static bool
is_strict(const struct buf *out)
{
	size_t line = 0;

	for (size_t i = 0; i < out->len; i++) {
		uint8_t c = out->data[i];
		if (c == '\n' && (!i || out->data[i - 1] != '\r'))
			return false;
		if (c == '\r' && (i + 1 == out->len || out->data[i + 1] != '\n'))
			return false;
		line = c == '\n' ? 0 : line + (c != '\r');
		if (line > DATA_LINE_MAX)
			return false;
	}
	return true;
}

static void
against_reference(void)
{
	static char text[64 * 1024], wire[130 * 1024];
	bool as_reference = true, dotted = true, sliced = true, strict = true, exact = true;
	struct facts facts;
	struct data_in in;

	for (int i = 0; i < 3000; i++) {
		size_t len = invent(text), used, n = 0, step = 1 + draw(draw(2) ? 8 : 2000);
		struct buf want, got, cut, out;
		struct data_out stuffer;
		buf_init(&want), buf_init(&got), buf_init(&cut), buf_init(&out);
		reference(text, len, &facts, &want);
		feed_in(DATA_CHUNKED, text, len, len, 1, &in, &got, &used);
		as_reference &= same(&got, (char *)want.data, want.len) && in.size == got.len &&
		                in.has_bare == facts.bare && in.has_long == facts.folded &&
		                in.has_unfoldable == facts.unfoldable;
		strict &= is_strict(&got);
		exact &= facts.bare || facts.folded ||
		         (got.len >= len && got.len <= len + 2 &&
		          (!len || !memcmp(got.data, text, len)));
		feed_in(DATA_CHUNKED, text, len, draw(len + 1), step, &in, &cut, &used);
		sliced &= same(&cut, (char *)want.data, want.len) &&
		          in.has_unfoldable == facts.unfoldable && in.has_long == facts.folded;
		/* The same content by DATA: stuffed where a line begins after a true CRLF. */
		for (size_t k = 0; k < len; k++) {
			if (text[k] == '.' && (!k || (k > 1 && !memcmp(text + k - 2, "\r\n", 2))))
				wire[n++] = '.';
			wire[n++] = text[k];
		}
		n += (size_t)sprintf(wire + n, "%s.\r\n",
		                     len > 1 && !memcmp(text + len - 2, "\r\n", 2)   ? ""
		                     : len > 1 && !memcmp(text + len - 2, "\r\r", 2) ? "\r\n"
		                     : len && text[len - 1] == '\r'                  ? "\n"
		                     : len                                           ? "\r\n"
		                                                                     : "");
		buf_clear(&cut);
		bool end = feed_in(DATA_DOTTED, wire, n, draw(n + 1), step, &in, &cut, &used);
		/* After a bare LF at the end, DATA cannot end without another line. */
		if (len && text[len - 1] == '\n' && (len < 2 || text[len - 2] != '\r'))
			cut.len -= 2;
		dotted &= end && same(&cut, (char *)want.data, want.len) && used == n;
		/* And what leaves reads back as what is kept. */
		data_out_init(&stuffer);
		if (want.len)
			data_out_feed(&stuffer, want.data, want.len, sink, &out);
		data_out_end(&stuffer, sink, &out);
		buf_clear(&cut);
		dotted &=
		    feed_in(DATA_DOTTED, (char *)out.data, out.len, 7, 1000, &in, &cut, &used) &&
		    same(&cut, (char *)want.data, want.len) && !in.has_bare && !in.has_long;
		buf_clear(&want), buf_clear(&got), buf_clear(&cut), buf_clear(&out);
	}
	ok_of(as_reference, "fold", "as the reference folds");
	ok_of(sliced, "fold", "the same in random slices");
	ok_of(dotted, "fold", "the same by DATA, and once more when it has left");
	ok_of(strict, "fold", "strict CRLF, and no line of more than 998 octets");
	ok_of(exact, "fold", "what is well-formed is kept to the octet");
}

/* Lines at the limit, as a person would fold them. */
static void
folds(void)
{
	struct {
		const char *name, *in, *out;
		bool unfoldable;
	} row[] = {
	    {"998 octets stay", "a:%990x\r\n", "a:%990x\r\n", false},
	    {"before the last blank", "a: %490x %600x\r\n", "a: %490x\r\n %600x\r\n", false},
	    {"at a tab", "a: %490x\t%600x\r\n", "a: %490x\r\n\t%600x\r\n", false},
	    {"without a blank", "a:%1000x\r\n", "a:%996x\r\n %4x\r\n", false},
	    {"again and again", "\r\n%2000x\r\n", "\r\n%998x\r\n %997x\r\n %5x\r\n", false},
	    {"a blank at the end begins no line", "a:%996x \r\n", "a:%995x\r\n x \r\n", false},
	    {"a dot begins no line", "\r\n%998x.\r\n", "\r\n%998x\r\n .\r\n", false},
	    {"a field begins no line", "a:%996xFrom: b\r\n", "a:%996x\r\n From: b\r\n", false},
	    {"no colon in the first piece", "a: b\r\n%999x: b\r\n", NULL, true},
	    {"the same in the body", "\r\n%998x: b\r\n", "\r\n%998x\r\n : b\r\n", false},
	    {"blanks in the header section", "a:%1999 b\r\n", NULL, true},
	    {"a blank line in the header section", "a: b\r\n%1999 \r\n", NULL, true},
	    {"blanks in the body", "\r\n%1000 \r\n", "\r\n%998 \r\n   \r\n", false},
	    {"not inside UTF-8 of two", "\r\n%997x\xc3\xa9\r\n", "\r\n%997x\r\n \xc3\xa9\r\n",
	     false},
	    {"nor of four", "\r\n%995x\xf0\x9f\x98\x80\r\n", "\r\n%995x\r\n \xf0\x9f\x98\x80\r\n",
	     false},
	    {"of four that fits", "\r\n%994x\xf0\x9f\x98\x80x\r\n",
	     "\r\n%994x\xf0\x9f\x98\x80\r\n x\r\n", false},
	};

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct buf text[2], got;
		struct data_in in;
		size_t used;
		for (int k = 0; k < 2; k++) {
			buf_init(&text[k]);
			/* "%990x" is 990 times "x". */
			for (const char *p = k ? row[i].out : row[i].in; p && *p; p++) {
				char *end = NULL;
				long n = *p == '%' ? strtol(p + 1, &end, 10) : 1;
				if (end)
					p = end;
				while (n--)
					buf_add_char(&text[k], *p);
			}
		}
		buf_init(&got);
		feed_in(DATA_CHUNKED, (char *)text[0].data, text[0].len, 1, 1, &in, &got, &used);
		ok_of(in.has_unfoldable == row[i].unfoldable &&
		          (row[i].unfoldable || same(&got, (char *)text[1].data, text[1].len)),
		      "fold", row[i].name);
		buf_clear(&text[0]), buf_clear(&text[1]), buf_clear(&got);
	}
}

static void
binary(void)
{
	static const char text[] = "From: a\r\nContent-Transfer-Encoding: binary\r\n\r\n"
	                           "\0\r\n.\r\n\r\r\n\n..\n\xff no end";
	struct data_in in;
	struct buf got;
	size_t used;
	bool good = true;

	for (size_t cut = 0; cut < sizeof text; cut++) {
		buf_init(&got);
		feed_in(DATA_BINARY, text, sizeof text - 1, cut, cut % 7 + 1, &in, &got, &used);
		good &= same(&got, text, sizeof text - 1) && !in.has_nul && !in.has_bare &&
		        !in.has_long && in.size == sizeof text - 1;
		buf_clear(&got);
	}
	ok_of(good, "binary", "a body is kept to the octet");
	feed_in(DATA_BINARY, S("a: b\nc: d\r\n\r\n\n"), 3, 2, &in, &got, &used);
	ok_of(in.has_bare && same(&got, S("a: b\r\nc: d\r\n\r\n\n")), "binary",
	      "its header section is text");
	buf_clear(&got);
	feed_in(DATA_BINARY, S("a: b\r\n\r\r\rbody"), 3, 2, &in, &got, &used);
	ok_of(same(&got, S("a: b\r\n\r\n\r\n\rbody")), "binary", "and no CR of its end moves");
	buf_clear(&got);
	feed_in(DATA_BINARY, S("a: b\0\r\n\r\n"), 3, 2, &in, &got, &used);
	ok_of(in.has_nul, "binary", "without NUL");
	buf_clear(&got);
	feed_in(DATA_BINARY, S("a: b\r\nc"), 3, 2, &in, &got, &used);
	ok_of(same(&got, S("a: b\r\nc\r\n")), "binary", "and of whole lines");
	buf_clear(&got);
}

/* What the service does at the end of chunks. */
static void
chunks(void)
{
	struct data_in in;
	struct buf got;
	size_t used;

	buf_init(&got);
	feed_in(DATA_CHUNKED, S("a\r\n.\r\n..b"), 1, 1, &in, &got, &used);
	ok_of(same(&got, S("a\r\n.\r\n..b\r\n")), "chunked",
	      "dots are content; the end is a line end");
	buf_clear(&got);
	feed_in(DATA_CHUNKED, S("a\r"), 1, 1, &in, &got, &used);
	ok_of(same(&got, S("a\r\n")) && in.has_bare, "chunked", "a CR at the end is a bare one");
	buf_clear(&got);
	feed_in(DATA_CHUNKED, S(""), 1, 1, &in, &got, &used);
	ok_of(same(&got, S("")), "chunked", "nothing");
	buf_clear(&got);
}

int
main(void)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		bool good = check_in(i, 1, 1);
		for (size_t cut = 0; cut <= rows[i].in_len; cut++)
			good &= check_in(i, cut, rows[i].in_len + 1);
		ok_of(good, "in", rows[i].name);
	}
	for (size_t i = 0; i < sizeof outs / sizeof *outs; i++) {
		bool good = check_out(i, 1, 1);
		for (size_t cut = 0; cut <= outs[i].in_len; cut++)
			good &= check_out(i, cut, outs[i].in_len + 1);
		ok_of(good, "out", outs[i].name);
	}
	exhaustive();
	folds();
	against_reference();
	chunks();
	binary();

	struct data_in in;
	struct buf out;
	size_t used;
	buf_init(&out);
	feed_in(DATA_DOTTED, S("a\0b\r\n"), 1, 1, &in, &out, &used);
	ok_of(in.has_nul && !in.has_8bit, "in", "NUL is seen");
	feed_in(DATA_DOTTED, S("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xe9\r\n"), 100, 100,
	        &in, &out, &used);
	ok_of(in.has_8bit && !in.has_nul, "in", "8-bit is seen");
	buf_clear(&out);
	return tap_end();
}
