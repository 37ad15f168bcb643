#include "smtp/data.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

/* Problem: two servers that disagree on where data ends let a sender smuggle a second message
 * through. Idea: the way in knows one end only, CRLF.CRLF, and turns every other line end into
 * CRLF; the way out writes nothing but CRLF and stuffs each line's leading dot, so whatever looked
 * like an end inside the content leaves as content.
 *
 * A line, for the end and for un-stuffing, begins after a true CRLF (or at the start of data): the
 * dot in LF.CRLF is content, and in CRLF.LF it is a stuffed dot that is taken off, as RFC 5321
 * section 4.5.2 says of every line that begins with a dot and goes on.
 *
 * CRCRLF is one line end: programs write it that make CRLF of the LF in CRLF. Were it two, the
 * header section of their mail would end behind its first line.
 *
 * Folding. A piece is as long as it can be; the next one begins with a blank, so it is never a dot
 * or a header field. Best is the last blank with text on either side: only CRLF goes in front of
 * it, which is folding as RFC 5322 section 2.2.3 means it. Without such a blank CRLF SP goes in,
 * not inside a UTF-8 sequence. (A cut inside a shift sequence of ISO-2022-JP would be as bad; who
 * writes a thousand octets of that without a blank or a line end is better served by long_lines:
 * reject.) In the header section no piece may be blank, which some readers take for its end, and
 * the first one must hold the colon: where that cannot be had the message is to be refused, so
 * has_unfoldable.
 *
 * Speed: octets are looked for with memchr, and whole lines that need no change go to the sink as
 * one run. Everything else is collected in out.octets, or a body of bare LFs would make millions
 * of calls. What is held back from one call to the next is the line under way, because where it
 * is folded depends on what follows, and a CR until its successor is known: so any slicing of the
 * input gives the same output. The positions of the next CR and the next LF are remembered, so each
 * octet is looked at once for either, whatever the mixture. */

enum in_state {
	IN_LINE,   /* after a true CRLF or at the start */
	IN_TEXT,   /* elsewhere, also right after a bare CR or LF */
	IN_CR,     /* CR held back */
	IN_CRCR,   /* two of them */
	IN_DOT,    /* a dot at the start of a line, not handed on */
	IN_DOT_CR, /* and a CR after it, held back */
	IN_END,    /* the end was seen */
};

struct ends { /* the next ones as far as they were looked for; the input's end: there is none */
	const uint8_t *cr, *lf;
};

struct out { /* on its way to the sink */
	struct data_in *in;
	data_sink *sink;
	void *arg;
	size_t len;
	uint8_t octets[4 * DATA_LINE_MAX];
};

void
data_in_init(struct data_in *in, enum data_kind kind)
{
	memset(in, 0, offsetof(struct data_in, line));
	in->kind = kind;
	in->state = IN_LINE;
	in->in_header = true;
}

static bool
has_8bit(const uint8_t *data, size_t len)
{
	const uint64_t high = UINT64_C(0x8080808080808080);
	uint64_t all = 0, word;
	size_t i = 0;

	for (; i + 32 <= len; i += 32) {
		uint64_t four[4];
		memcpy(four, data + i, sizeof four);
		all |= four[0] | four[1] | four[2] | four[3];
	}
	for (; i + 8 <= len; i += 8) {
		memcpy(&word, data + i, sizeof word);
		all |= word;
	}
	for (; i < len; i++)
		all |= data[i];
	return all & high;
}

static void
emit(struct out *out, const uint8_t *data, size_t len)
{
	struct data_in *in = out->in;

	if (!len)
		return;
	if (!in->has_8bit)
		in->has_8bit = has_8bit(data, len);
	in->size += len;
	out->sink(out->arg, data, len);
}

static void
flush(struct out *out)
{
	if (!out->in->has_nul)
		out->in->has_nul = memchr(out->octets, 0, out->len);
	emit(out, out->octets, out->len);
	out->len = 0;
}

static void
add(struct out *out, const uint8_t *from, const uint8_t *to)
{
	size_t len = (size_t)(to - from);

	if (len > sizeof out->octets - out->len)
		flush(out);
	if (len <= DATA_LINE_MAX) {
		memcpy(out->octets + out->len, from, len);
		out->len += len;
		return;
	}
	flush(out);
	if (!out->in->has_nul)
		out->in->has_nul = memchr(from, 0, len);
	emit(out, from, len);
}

/* At most DATA_LINE_MAX octets, and CRLF. */
static void
add_line(struct out *out, const uint8_t *from, const uint8_t *to)
{
	size_t len = (size_t)(to - from);
	uint8_t *at;

	if (len + 2 > sizeof out->octets - out->len)
		flush(out);
	at = out->octets + out->len;
	memcpy(at, from, len);
	at[len] = '\r';
	at[len + 1] = '\n';
	out->len += len + 2;
}

static bool
is_blank(uint8_t c)
{
	return c == ' ' || c == '\t';
}

/* The last blank in from..to - 1, or NULL. */
static const uint8_t *
last_blank(const uint8_t *from, const uint8_t *to)
{
	const uint8_t *space = memrchr(from, ' ', (size_t)(to - from));
	const uint8_t *rest = space ? space : from;
	const uint8_t *tab = memrchr(rest, '\t', (size_t)(to - rest));

	return tab ? tab : space;
}

/* Where the full line under way, which next follows, is to be cut; see above. */
static size_t
find_cut(struct data_in *in, uint8_t next, bool *at_blank)
{
	const uint8_t *line = in->line, *blank;
	size_t cut, text = 0, end = DATA_LINE_MAX, back = 0;
	uint8_t after;

	while (text < DATA_LINE_MAX && is_blank(line[text]))
		text++;
	while (is_blank(next) && end > text && is_blank(line[end - 1]))
		end--;
	blank = last_blank(line + text, line + end);
	*at_blank = blank;
	if (blank)
		return (size_t)(blank - line);
	if (is_blank(line[DATA_LINE_MAX - 1])) {
		in->has_unfoldable |= in->in_header;
		return DATA_LINE_MAX;
	}
	cut = is_blank(next) ? DATA_LINE_MAX - 1 : DATA_LINE_MAX;
	after = cut < DATA_LINE_MAX ? line[cut] : next;
	for (; (after & 0xc0) == 0x80 && back < 4; back++)
		after = line[cut - back - 1];
	if (back < 4 && !is_blank(after))
		cut -= back;
	if (text >= cut)
		in->has_unfoldable |= in->in_header;
	return cut;
}

static void
fold(struct out *out, uint8_t next)
{
	struct data_in *in = out->in;
	bool at_blank;
	size_t cut = find_cut(in, next, &at_blank), rest = DATA_LINE_MAX - cut;

	in->has_long = true;
	if (in->in_header && !in->is_folded && !is_blank(in->line[0]) &&
	    !memchr(in->line, ':', cut))
		in->has_unfoldable = true;
	add_line(out, in->line, in->line + cut);
	memmove(in->line + !at_blank, in->line + cut, rest);
	if (!at_blank)
		in->line[0] = ' ';
	in->line_len = rest + !at_blank;
	in->is_folded = true;
}

/* More of the line under way. */
static void
add_text(struct out *out, const uint8_t *from, const uint8_t *to)
{
	struct data_in *in = out->in;

	while (from < to) {
		size_t len = (size_t)(to - from);
		if (in->line_len == DATA_LINE_MAX)
			fold(out, *from);
		if (len > DATA_LINE_MAX - in->line_len)
			len = DATA_LINE_MAX - in->line_len;
		memcpy(in->line + in->line_len, from, len);
		in->line_len += len;
		from += len;
	}
}

/* A whole line that has at most DATA_LINE_MAX octets. */
static void
put_line(struct out *out, const uint8_t *from, const uint8_t *to, bool bare)
{
	struct data_in *in = out->in;

	in->has_bare |= bare;
	if (from == to)
		in->in_header = false;
	add_line(out, from, to);
	in->state = bare ? IN_TEXT : IN_LINE;
}

/* The line under way ends. */
static void
end_line(struct out *out, bool bare)
{
	struct data_in *in = out->in;

	put_line(out, in->line, in->line + in->line_len, bare);
	in->line_len = 0;
	in->is_folded = false;
}

static const uint8_t *
find(uint8_t octet, const uint8_t *p, const uint8_t *end)
{
	const uint8_t *found = memchr(p, octet, (size_t)(end - p));

	return found ? found : end;
}

static inline void
find_ends(const uint8_t *p, const uint8_t *end, struct ends *ends)
{
	if (!ends->lf || ends->lf < p)
		ends->lf = find('\n', p, end);
	if (!ends->cr || ends->cr < p)
		ends->cr = find('\r', p, end);
}

/* Whole lines that stay as they are, from p on, where an output line begins; returns where the
 * first one begins that is not such, or where one begins that is looked at more closely. */
static const uint8_t *
add_lines(struct out *out, const uint8_t *p, const uint8_t *end, struct ends *ends)
{
	struct data_in *in = out->in;
	const uint8_t *run = p;

	while (p < end) {
		find_ends(p, end, ends);
		if (ends->lf == end || ends->cr + 1 != ends->lf || ends->cr - p > DATA_LINE_MAX)
			break;
		bool is_empty = ends->cr == p;
		p = ends->lf + 1;
		in->state = IN_LINE;
		if (is_empty && in->in_header) {
			in->in_header = false;
			break;
		}
		if (p < end && *p == '.' && in->kind == DATA_DOTTED)
			break;
	}
	if (p > run)
		add(out, run, p);
	return p;
}

/* The same of lines that are as they should be but for their end, a bare LF. */
static const uint8_t *
mend_lines(struct out *out, const uint8_t *p, const uint8_t *end, struct ends *ends)
{
	const struct data_in *in = out->in;

	while (p < end && (in->in_header || in->kind != DATA_BINARY)) {
		find_ends(p, end, ends);
		if (ends->lf == end || ends->cr < ends->lf || ends->lf - p > DATA_LINE_MAX)
			break;
		put_line(out, p, ends->lf, true);
		p = ends->lf + 1;
	}
	return p;
}

/* The line under way up to its end, or to that of the input; returns what follows. */
static const uint8_t *
take_line(struct out *out, const uint8_t *p, const uint8_t *end, struct ends *ends)
{
	struct data_in *in = out->in;
	const uint8_t *stop;

	find_ends(p, end, ends);
	stop = ends->cr < ends->lf ? ends->cr : ends->lf;
	add_text(out, p, stop);
	in->state = IN_TEXT;
	if (stop == end)
		return end;
	if (*stop == '\r')
		in->state = IN_CR;
	else
		end_line(out, true);
	return stop + 1;
}

static const uint8_t *
step(struct out *out, const uint8_t *p, const uint8_t *end, struct ends *ends)
{
	struct data_in *in = out->in;

	switch ((enum in_state)in->state) {
	case IN_CR:
		if (*p == '\r') {
			in->state = IN_CRCR;
			return p + 1;
		}
		end_line(out, *p != '\n');
		return p + (in->state == IN_LINE);
	case IN_CRCR:
		if (*p == '\n') {
			in->has_bare = true;
			end_line(out, false);
			return p + 1;
		}
		end_line(out, true);
		/* A binary body, which may begin here, is not looked at: nothing is held back for
		 * it. */
		if (*p != '\r' || (in->kind == DATA_BINARY && !in->in_header)) {
			end_line(out, true);
			return p;
		}
		in->state = IN_CRCR;
		return p + 1;
	case IN_DOT:
		in->state = *p == '\r' ? IN_DOT_CR : IN_TEXT;
		return p + (*p == '\r');
	case IN_DOT_CR:
		if (*p == '\n') {
			in->state = IN_END;
			return p + 1;
		}
		in->state = IN_CR; /* whose line is empty */
		return p;
	case IN_LINE:
		if (*p == '.' && in->kind == DATA_DOTTED) {
			in->state = IN_DOT;
			return p + 1;
		}
		break;
	case IN_TEXT:
		break;
	case IN_END:
		assert(0 && "data after its end");
	}
	if (in->line_len == 0) {
		const uint8_t *after = add_lines(out, p, end, ends);
		if (after == p)
			after = mend_lines(out, p, end, ends);
		if (after > p)
			return after;
	}
	return take_line(out, p, end, ends);
}

bool
data_in_feed(struct data_in *in, const uint8_t *data, size_t len, size_t *used, data_sink *sink,
             void *arg)
{
	const uint8_t *p = data, *end = data + len;
	struct ends ends = {0};
	struct out out;

	out.in = in;
	out.sink = sink;
	out.arg = arg;
	out.len = 0;
	assert(in->state != IN_END);
	while (p < end && in->state != IN_END && (in->in_header || in->kind != DATA_BINARY))
		p = step(&out, p, end, &ends);
	flush(&out);
	if (in->kind == DATA_BINARY && !in->in_header) {
		emit(&out, p, (size_t)(end - p));
		p = end;
	}
	*used = (size_t)(p - data);
	return in->state == IN_END;
}

void
data_in_end(struct data_in *in, data_sink *sink, void *arg)
{
	struct out out;

	out.in = in;
	out.sink = sink;
	out.arg = arg;
	out.len = 0;
	assert(in->kind != DATA_DOTTED);
	const bool is_bare = in->state == IN_CR || in->state == IN_CRCR;
	if (in->state == IN_CRCR)
		end_line(&out, true);
	if (is_bare || in->line_len > 0)
		end_line(&out, is_bare);
	flush(&out);
	in->state = IN_END;
}

enum out_state {
	OUT_LINE, /* at the start of a line as the peer will see it */
	OUT_TEXT,
	OUT_CR, /* CR held back */
};

void
data_out_init(struct data_out *out)
{
	out->state = OUT_LINE;
}

static void
put(const uint8_t *from, const uint8_t *to, data_sink *sink, void *arg)
{
	if (to > from)
		sink(arg, from, (size_t)(to - from));
}

static void
put_crlf(data_sink *sink, void *arg)
{
	sink(arg, (const uint8_t *)"\r\n", 2);
}

void
data_out_feed(struct data_out *out, const uint8_t *data, size_t len, data_sink *sink, void *arg)
{
	const uint8_t *p = data, *end = data + len, *run = p, *lf = NULL, *cr;

	while (p < end) {
		if (out->state == OUT_CR) {
			put_crlf(sink, arg);
			if (*p == '\n')
				p++;
			run = p;
			out->state = OUT_LINE;
			continue;
		}
		if (out->state == OUT_LINE && *p == '.') {
			put(run, p, sink, arg);
			run = p++; /* this dot goes twice */
			sink(arg, (const uint8_t *)".", 1);
			out->state = OUT_TEXT;
			continue;
		}
		out->state = OUT_TEXT;
		if (!lf || lf < p) {
			lf = memchr(p, '\n', (size_t)(end - p));
			if (!lf)
				lf = end;
		}
		cr = memchr(p, '\r', (size_t)(lf - p));
		if (!cr) {
			p = lf;
			if (lf < end) {
				put(run, lf, sink, arg);
				put_crlf(sink, arg);
				run = ++p;
				out->state = OUT_LINE;
			}
			continue;
		}
		p = cr + 1;
		if (p == end) {
			put(run, cr, sink, arg);
			run = end;
			out->state = OUT_CR;
		} else if (p == lf) {
			p++;
			out->state = OUT_LINE;
		} else {
			put(run, cr, sink, arg);
			put_crlf(sink, arg);
			run = p;
			out->state = OUT_LINE;
		}
	}
	put(run, end, sink, arg);
}

void
data_out_end(struct data_out *out, data_sink *sink, void *arg)
{
	if (out->state != OUT_LINE)
		put_crlf(sink, arg);
	sink(arg, (const uint8_t *)".\r\n", 3);
	out->state = OUT_LINE;
}
