/* A growing run of octets, and the one encoding that all our frames and records use.
 *
 * Encoding: integers big-endian and fixed in width; a string is its u32 length and its octets.
 * Reading is sticky: after the first short or malformed item every further read yields 0 or an
 * empty string, and wire_ok says false, so decoders read straight down and check once. */
#ifndef CORE_BUF_H
#define CORE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data; /* owned; NULL while empty */
	size_t len;    /* octets in use */
	size_t size;   /* octets allocated */
	size_t used;   /* as of the last buf_consume: octets that may hold old content */
};

void buf_init(struct buf *buf);
/* Frees the octets; the buffer is empty and usable again. */
void buf_clear(struct buf *buf);
/* Like buf_clear, and overwrites the octets first. */
void buf_wipe(struct buf *buf);

void buf_add(struct buf *buf, const void *data, size_t len);
void buf_add_str(struct buf *buf, const char *s);
void buf_add_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Room for len further octets; returns where to write them. Add what was written with buf_commit.
 */
uint8_t *buf_reserve(struct buf *buf, size_t len);
void buf_commit(struct buf *buf, size_t len);
/* Drops len octets from the front. */
void buf_consume(struct buf *buf, size_t len);
/* The content as a NUL-terminated string (the NUL is not counted); valid until the next change. */
const char *buf_str(struct buf *buf);

void wire_put_u8(struct buf *buf, uint8_t v);
void wire_put_u16(struct buf *buf, uint16_t v);
void wire_put_u32(struct buf *buf, uint32_t v);
void wire_put_u64(struct buf *buf, uint64_t v);
/* Any octets, at most 4 GiB - 1. */
void wire_put_bytes(struct buf *buf, const void *data, size_t len);
/* A C string; NULL is written as an empty one. */
void wire_put_str(struct buf *buf, const char *s);
/* Exactly len octets without a length, for ids and digests. */
void wire_put_raw(struct buf *buf, const void *data, size_t len);

struct wire {
	const uint8_t *data; /* borrowed */
	size_t left;
	bool failed; /* sticky */
};

struct wire wire_from(const void *data, size_t len);
/* True when nothing was malformed so far. */
bool wire_ok(const struct wire *wire);
/* True when nothing was malformed and nothing is left over: what a decoder returns. */
bool wire_done(const struct wire *wire);
uint8_t wire_u8(struct wire *wire);
uint16_t wire_u16(struct wire *wire);
uint32_t wire_u32(struct wire *wire);
uint64_t wire_u64(struct wire *wire);
/* Borrowed octets inside the frame; NULL and 0 after a failure. */
const uint8_t *wire_bytes(struct wire *wire, size_t *len);
/* A NUL-terminated copy of a string of at most max octets, freed by the caller; one that is longer
 * or holds a NUL fails the wire. Never NULL. */
char *wire_str_new(struct wire *wire, size_t max);
/* The same into a caller's array of size octets (NUL included). */
void wire_str(struct wire *wire, char *out, size_t size);
void wire_raw(struct wire *wire, void *out, size_t len);

#endif
