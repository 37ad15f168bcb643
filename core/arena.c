#include "core/arena.h"

#include <assert.h>
#include <stdarg.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* A list of blocks; allocation moves a mark in the newest one. A request that does not fit opens a
 * new block, at least as big as the request. Reset frees all but the first block, which is kept
 * because the next transaction will want one. */

#define BLOCK_SIZE 4096u

struct block {
	struct block *older;
	size_t size; /* of data */
	size_t used;
	alignas(max_align_t) uint8_t data[];
};

struct arena {
	struct block *newest; /* NULL until the first allocation */
	size_t used;          /* octets handed out since the last reset */
};

struct arena *
arena_new(void)
{
	return xcalloc(1, sizeof(struct arena));
}

void
arena_free(struct arena *arena)
{
	if (!arena)
		return;
	arena_reset(arena);
	free(arena->newest);
	free(arena);
}

void
arena_reset(struct arena *arena)
{
	struct block *block = arena->newest;

	arena->used = 0;
	while (block && block->older) {
		struct block *older = block->older;
		free(block);
		block = older;
	}
	if (block)
		block->used = 0;
	arena->newest = block;
}

void *
arena_alloc(struct arena *arena, size_t size)
{
	const size_t unit = alignof(max_align_t);
	struct block *block = arena->newest;
	size_t room;
	void *p;

	assert(size <= SIZE_MAX / 2);
	room = (size + unit - 1) / unit * unit;
	if (!block || block->size - block->used < room) {
		const size_t block_size = room > BLOCK_SIZE ? room : BLOCK_SIZE;
		block = xmalloc(sizeof *block + block_size);
		block->older = arena->newest;
		block->size = block_size;
		block->used = 0;
		arena->newest = block;
	}
	p = block->data + block->used;
	block->used += room;
	arena->used += size;
	memset(p, 0, room);
	return p;
}

char *
arena_strdup(struct arena *arena, const char *s)
{
	return arena_memdup0(arena, s, strlen(s));
}

char *
arena_memdup0(struct arena *arena, const void *data, size_t len)
{
	char *copy;

	assert(len < SIZE_MAX / 2);
	copy = arena_alloc(arena, len + 1);
	if (len)
		memcpy(copy, data, len);
	return copy;
}

char *
arena_printf(struct arena *arena, const char *format, ...)
{
	va_list args;
	char *text;
	int len;

	assert(format);
	va_start(args, format);
	len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	assert(len >= 0);
	text = arena_alloc(arena, (size_t)len + 1);
	va_start(args, format);
	vsnprintf(text, (size_t)len + 1, format, args);
	va_end(args);
	return text;
}

size_t
arena_used(const struct arena *arena)
{
	return arena->used;
}
