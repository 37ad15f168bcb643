#include "core/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* Growth doubles, so adding is linear overall. Growth is by copy into fresh memory with the old
 * octets wiped: a buffer that carried a secret leaves none behind in the heap, and buf_wipe need
 * only care about the last copy.
 *
 * Readers never trust a length: every item is checked against what is left before it is touched. */

void
buf_init(struct buf *buf)
{
	*buf = (struct buf){0};
}

void
buf_clear(struct buf *buf)
{
	free(buf->data);
	buf_init(buf);
}

/* Only what was ever written: most often that is little. */
static void
wipe_used(struct buf *buf)
{
	mem_wipe(buf->data, buf->used > buf->len ? buf->used : buf->len);
}

void
buf_wipe(struct buf *buf)
{
	wipe_used(buf);
	buf_clear(buf);
}

uint8_t *
buf_reserve(struct buf *buf, size_t len)
{
	assert(len <= SIZE_MAX / 4 && buf->len <= SIZE_MAX / 4);
	if (!buf->data || buf->size - buf->len < len) {
		size_t size = buf->size ? buf->size : 64;
		uint8_t *data;

		while (size - buf->len < len)
			size *= 2;
		data = xmalloc(size);
		assert(!buf->len || buf->data);
		if (buf->len)
			memcpy(data, buf->data, buf->len);
		wipe_used(buf);
		free(buf->data);
		buf->data = data;
		buf->size = size;
		buf->used = 0;
	}
	return buf->data + buf->len;
}

void
buf_commit(struct buf *buf, size_t len)
{
	assert(len <= buf->size - buf->len);
	buf->len += len;
}

void
buf_add(struct buf *buf, const void *data, size_t len)
{
	if (len == 0)
		return;
	memcpy(buf_reserve(buf, len), data, len);
	buf->len += len;
}

void
buf_add_str(struct buf *buf, const char *s)
{
	buf_add(buf, s, strlen(s));
}

void
buf_add_char(struct buf *buf, char c)
{
	buf_add(buf, &c, 1);
}

void
buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args;
	int len;

	assert(format);
	va_start(args, format);
	len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	assert(len >= 0);
	buf_reserve(buf, (size_t)len + 1);
	va_start(args, format);
	vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, format, args);
	va_end(args);
	buf->len += (size_t)len;
}

void
buf_consume(struct buf *buf, size_t len)
{
	assert(len <= buf->len);
	if (buf->used < buf->len)
		buf->used = buf->len;
	buf->len -= len;
	if (buf->len && len)
		memmove(buf->data, buf->data + len, buf->len);
}

const char *
buf_str(struct buf *buf)
{
	*buf_reserve(buf, 1) = '\0';
	return (const char *)buf->data;
}

void
wire_put_u8(struct buf *buf, uint8_t v)
{
	buf_add(buf, &v, 1);
}

static void
put_integer(struct buf *buf, uint64_t v, unsigned width)
{
	uint8_t octets[8];

	for (unsigned i = 0; i < width; i++)
		octets[i] = (uint8_t)(v >> (8 * (width - 1 - i)));
	buf_add(buf, octets, width);
}

void
wire_put_u16(struct buf *buf, uint16_t v)
{
	put_integer(buf, v, 2);
}

void
wire_put_u32(struct buf *buf, uint32_t v)
{
	put_integer(buf, v, 4);
}

void
wire_put_u64(struct buf *buf, uint64_t v)
{
	put_integer(buf, v, 8);
}

void
wire_put_bytes(struct buf *buf, const void *data, size_t len)
{
	assert(len <= UINT32_MAX);
	wire_put_u32(buf, (uint32_t)len);
	buf_add(buf, data, len);
}

void
wire_put_str(struct buf *buf, const char *s)
{
	wire_put_bytes(buf, s, s ? strlen(s) : 0);
}

void
wire_put_raw(struct buf *buf, const void *data, size_t len)
{
	buf_add(buf, data, len);
}

struct wire
wire_from(const void *data, size_t len)
{
	return (struct wire){.data = data, .left = len};
}

bool
wire_ok(const struct wire *wire)
{
	return !wire->failed;
}

bool
wire_done(const struct wire *wire)
{
	return !wire->failed && wire->left == 0;
}

/* The next len octets, or NULL and failed for ever. len > 0. */
static const uint8_t *
take(struct wire *wire, size_t len)
{
	const uint8_t *data = wire->data;

	if (wire->failed || wire->left < len) {
		wire->failed = true;
		return NULL;
	}
	wire->data += len;
	wire->left -= len;
	return data;
}

static uint64_t
get_integer(struct wire *wire, unsigned width)
{
	const uint8_t *octets = take(wire, width);
	uint64_t v = 0;

	for (unsigned i = 0; octets && i < width; i++)
		v = v << 8 | octets[i];
	return v;
}

uint8_t
wire_u8(struct wire *wire)
{
	return (uint8_t)get_integer(wire, 1);
}

uint16_t
wire_u16(struct wire *wire)
{
	return (uint16_t)get_integer(wire, 2);
}

uint32_t
wire_u32(struct wire *wire)
{
	return (uint32_t)get_integer(wire, 4);
}

uint64_t
wire_u64(struct wire *wire)
{
	return get_integer(wire, 8);
}

const uint8_t *
wire_bytes(struct wire *wire, size_t *len)
{
	const size_t n = wire_u32(wire);
	const uint8_t *data = n || wire->failed ? take(wire, n) : wire->data;

	*len = wire->failed ? 0 : n;
	return data;
}

char *
wire_str_new(struct wire *wire, size_t max)
{
	size_t len;
	const uint8_t *data = wire_bytes(wire, &len);

	if (len > max || (len && memchr(data, 0, len))) {
		wire->failed = true;
		len = 0;
	}
	return xmemdup0(data, len);
}

void
wire_str(struct wire *wire, char *out, size_t size)
{
	size_t len;
	const uint8_t *data = wire_bytes(wire, &len);

	assert(size > 0);
	if (len >= size || (len && memchr(data, 0, len))) {
		wire->failed = true;
		len = 0;
	}
	if (len)
		memcpy(out, data, len);
	out[len] = '\0';
}

void
wire_raw(struct wire *wire, void *out, size_t len)
{
	const uint8_t *data;

	if (len == 0)
		return;
	data = take(wire, len);
	if (data)
		memcpy(out, data, len);
	else
		memset(out, 0, len);
}
