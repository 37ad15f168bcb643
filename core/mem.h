/* Memory that never runs out quietly, and secrets that do not linger.
 *
 * The x… family aborts when the system has no memory, so its callers have no out-of-memory
 * branches; in return, whatever a stranger can size is bounded before it gets here. */
#ifndef CORE_MEM_H
#define CORE_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-filled where calloc would be; freed with free(). */
void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
/* Room for count elements of size octets; aborts on overflow of the product. */
void *xreallocarray(void *old, size_t count, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
/* A NUL-terminated copy of exactly len octets. */
char *xmemdup0(const void *data, size_t len) __attribute__((malloc, returns_nonnull));

/* Overwrites a secret in a way that the compiler may not remove. */
void mem_wipe(void *data, size_t len);
/* Compares secrets in time that depends on len only. */
bool mem_equal(const void *a, const void *b, size_t len);

#endif
