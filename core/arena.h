/* Memory that lives exactly as long as one transaction or one delivery attempt: many allocations,
 * one free. */
#ifndef CORE_ARENA_H
#define CORE_ARENA_H

#include <stddef.h>

struct arena;

struct arena *arena_new(void);
/* Frees everything that was allocated from it. NULL is harmless. */
void arena_free(struct arena *arena);
/* Forgets every allocation and keeps the first block for the next transaction. */
void arena_reset(struct arena *arena);

/* Zero-filled, aligned for any type; never NULL. Belongs to the arena. */
void *arena_alloc(struct arena *arena, size_t size);
char *arena_strdup(struct arena *arena, const char *s);
/* A NUL-terminated copy of exactly len octets. */
char *arena_memdup0(struct arena *arena, const void *data, size_t len);
char *arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Octets handed out since the last reset. */
size_t arena_used(const struct arena *arena);

#endif
