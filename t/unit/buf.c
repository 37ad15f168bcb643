#include "core/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/random.h"
#include "t/unit/tap.h"

/* Buffers and the wire encoding: what was put comes out again, and no truncation of it is ever read
 * past its end. */

int
main(void)
{
	struct buf buf;
	struct wire wire;
	char text[8], stamp[CLOCK_RFC5322_SIZE];
	uint8_t raw[3];
	char *s;
	bool good;

	buf_init(&buf);
	ok(strcmp(buf_str(&buf), "") == 0 && buf.len == 0, "an empty buffer is an empty string");
	buf_add_str(&buf, "hello");
	buf_printf(&buf, " %d", 42);
	buf_add_char(&buf, '!');
	ok(strcmp(buf_str(&buf), "hello 42!") == 0, "adding and printing");
	buf_consume(&buf, 6);
	ok(strcmp(buf_str(&buf), "42!") == 0, "consuming");
	buf_clear(&buf);
	for (int i = 0; i < 100000; i++)
		buf_add_char(&buf, (char)i);
	good = buf.len == 100000;
	for (int i = 0; i < 100000; i++)
		good = good && buf.data[i] == (uint8_t)i;
	ok(good, "growing keeps the content");
	buf_wipe(&buf);

	wire_put_u8(&buf, 0x01);
	wire_put_u16(&buf, 0x0203);
	wire_put_u32(&buf, 0x04050607);
	wire_put_u64(&buf, 0x08090a0b0c0d0e0fu);
	wire_put_str(&buf, "abc");
	wire_put_str(&buf, NULL);
	wire_put_bytes(&buf, "x\0y", 3);
	wire_put_raw(&buf, "raw", 3);
	good = true;
	for (size_t len = 0; len <= buf.len; len++) {
		uint8_t *exact = xmalloc(len); /* so that a sanitizer sees the end */
		size_t n;

		memcpy(exact, buf.data, len);
		wire = wire_from(exact, len);
		bool same = wire_u8(&wire) == 0x01;
		same &= wire_u16(&wire) == 0x0203;
		same &= wire_u32(&wire) == 0x04050607;
		same &= wire_u64(&wire) == 0x08090a0b0c0d0e0fu;
		wire_str(&wire, text, sizeof text);
		same &= strcmp(text, "abc") == 0;
		s = wire_str_new(&wire, 10);
		same &= *s == '\0';
		free(s);
		const uint8_t *data = wire_bytes(&wire, &n);
		same &= n == 3 && data && memcmp(data, "x\0y", 3) == 0;
		wire_raw(&wire, raw, 3);
		same &= memcmp(raw, "raw", 3) == 0;
		good &= wire_done(&wire) == (len == buf.len) && same == (len == buf.len);
		free(exact);
	}
	ok(good, "round trip, and every truncation is noticed");

	buf_clear(&buf);
	wire_put_str(&buf, "toolong!");
	wire = wire_from(buf.data, buf.len);
	wire_str(&wire, text, sizeof text);
	ok(!wire_ok(&wire) && !*text, "a string longer than its array fails");
	buf_clear(&buf);
	wire_put_bytes(&buf, "a\0b", 3);
	wire = wire_from(buf.data, buf.len);
	s = wire_str_new(&wire, 100);
	ok(!wire_ok(&wire) && !*s && wire_u32(&wire) == 0,
	   "a NUL inside a string fails, and failure sticks");
	free(s);
	wire = wire_from("\xff\xff\xff\xff", 4);
	s = wire_str_new(&wire, SIZE_MAX);
	ok(!wire_ok(&wire) && !*s, "a length beyond the frame fails");
	free(s);
	buf_clear(&buf);

	struct arena *arena = arena_new();
	good = true;
	for (int i = 0; i < 1000; i++) {
		char *p = arena_alloc(arena, (size_t)i * 7);
		for (int j = 0; j < i * 7; j++)
			good &= p[j] == 0;
		memset(p, 0xff, (size_t)i * 7);
		good &= (uintptr_t)p % 16 == 0;
		if (i % 300 == 0)
			arena_reset(arena);
	}
	ok(good, "arena memory is zero-filled and aligned, also after a reset");
	ok(strcmp(arena_printf(arena, "%s-%d", "a", 7), "a-7") == 0 &&
	       strcmp(arena_strdup(arena, "b"), "b") == 0,
	   "arena strings");
	arena_free(arena);

	ok(mem_equal("abc", "abc", 3) && !mem_equal("abc", "abd", 3) && mem_equal("", "", 0),
	   "mem_equal");
	good = true;
	for (int i = 0; i < 1000; i++)
		good &= random_below(7) < 7 && random_below(1) == 0;
	ok(good, "random_below stays below");
	setenv("TZ", "UTC-9", 1);
	ok(strcmp(clock_rfc5322(1795392840000, stamp), "Mon, 23 Nov 2026 09:14:00 +0900") == 0,
	   "RFC 5322 date");
	ok(strcmp(clock_rfc3339(1795392840000, stamp), "2026-11-23T09:14:00+09:00") == 0,
	   "RFC 3339 date");
	return tap_end();
}
