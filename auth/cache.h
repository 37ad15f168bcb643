/* Remembers for a short while which password was right, so that a client logging in every minute
 * costs one PBKDF2 in five. */
#ifndef AUTH_CACHE_H
#define AUTH_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "auth/verify.h"
#include "core/clock.h"

#define CACHE_ENTRIES 100000

struct cache;

/* hold: how long a success is remembered; 0 remembers nothing. All functions are safe from any
 * thread. */
struct cache *cache_new(msec_t hold);
void cache_free(struct cache *cache);
/* hold, for successes from now on; a shorter one also ends what was remembered for longer. */
void cache_hold(struct cache *cache, msec_t hold);
/* True when this password was right for this account, under this very verifier, less than hold ago.
 * now is monotonic. */
bool cache_has(struct cache *cache, const char *account, const struct verifier *verifier,
               const char *password, size_t len, msec_t now);
void cache_add(struct cache *cache, const char *account, const struct verifier *verifier,
               const char *password, size_t len, msec_t now);

#endif
