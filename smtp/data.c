#include "smtp/data.h"

#include <assert.h>
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
 * A line may have any length: nothing here holds one, RFC 5321 section 4.5.3.1 asks for no limits
 * where none are needed, and who refuses lines over 998 octets refuses real mail.
 *
 * Speed: octets are looked for with memchr, and what needs no change goes to the sink as one run,
 * over as many lines as there are. A CR that ends a slice is held back in the state until its
 * successor is known; that is all that is ever held, so any slicing of the input gives the same
 * output. The position of the next LF is remembered, so input of mere CRs costs no second look. */

enum in_state {
	IN_LINE,   /* after a true CRLF or at the start */
	IN_TEXT,   /* elsewhere, also right after a bare CR or LF */
	IN_CR,     /* CR held back */
	IN_DOT,    /* a dot at the start of a line, not handed on */
	IN_DOT_CR, /* and a CR after it, held back */
	IN_END,    /* the end was seen */
};

void
data_in_init(struct data_in *in)
{
	memset(in, 0, sizeof *in);
	in->state = IN_LINE;
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
emit(struct data_in *in, const uint8_t *from, const uint8_t *to, data_sink *sink, void *arg)
{
	size_t len = (size_t)(to - from);

	if (!len)
		return;
	if (!in->has_8bit)
		in->has_8bit = has_8bit(from, len);
	if (!in->has_nul)
		in->has_nul = memchr(from, 0, len);
	in->size += len;
	sink(arg, from, len);
}

static void
emit_crlf(struct data_in *in, data_sink *sink, void *arg)
{
	in->size += 2;
	sink(arg, (const uint8_t *)"\r\n", 2);
}

bool
data_in_feed(struct data_in *in, const uint8_t *data, size_t len, size_t *used, data_sink *sink,
             void *arg)
{
	const uint8_t *p = data, *end = data + len;
	const uint8_t *run = p; /* seen, and to be handed on as it is */
	const uint8_t *lf = NULL;
	const uint8_t *cr;

	assert(in->state != IN_END);
	while (p < end) {
		switch ((enum in_state)in->state) {
		case IN_CR:
			emit_crlf(in, sink, arg);
			in->state = *p == '\n' ? IN_LINE : IN_TEXT;
			if (*p == '\n')
				p++;
			run = p;
			continue;
		case IN_DOT:
			in->state = *p == '\r' ? IN_DOT_CR : IN_TEXT;
			if (*p == '\r')
				p++;
			run = p;
			continue;
		case IN_DOT_CR:
			if (*p == '\n') {
				in->state = IN_END;
				*used = (size_t)(p + 1 - data);
				return true;
			}
			emit_crlf(in, sink, arg);
			in->state = IN_TEXT;
			run = p;
			continue;
		case IN_LINE:
			if (*p == '.') {
				emit(in, run, p, sink, arg);
				run = ++p;
				in->state = IN_DOT;
				continue;
			}
			in->state = IN_TEXT;
			break;
		case IN_TEXT:
			break;
		case IN_END:
			assert(0 && "data after its end");
		}
		if (!lf || lf < p) {
			lf = memchr(p, '\n', (size_t)(end - p));
			if (!lf)
				lf = end;
		}
		cr = memchr(p, '\r', (size_t)(lf - p));
		if (!cr) {
			p = lf;
			if (lf < end) { /* a bare LF */
				emit(in, run, lf, sink, arg);
				emit_crlf(in, sink, arg);
				run = ++p;
			}
			continue;
		}
		p = cr + 1;
		if (p == end) {
			emit(in, run, cr, sink, arg);
			run = end;
			in->state = IN_CR;
		} else if (p == lf) {
			p++;
			in->state = IN_LINE;
		} else { /* a bare CR */
			emit(in, run, cr, sink, arg);
			emit_crlf(in, sink, arg);
			run = p;
		}
	}
	emit(in, run, end, sink, arg);
	*used = len;
	return false;
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
