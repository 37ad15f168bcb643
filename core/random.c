#include "core/random.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* getrandom(2) without flags blocks only before the kernel is seeded at boot and never fails after
 * that; anything else means that we have no randomness, and then nothing we promise holds.
 *
 * Test builds may be seeded, so that a failing schedule can be replayed; installed programs do not
 * contain that code. */

#ifdef SEKISHO_TEST
static pthread_mutex_t seed_lock = PTHREAD_MUTEX_INITIALIZER;
static enum { SEED_UNKNOWN, SEED_NONE, SEED_SET } seed_state;
static uint64_t seed;

/* splitmix64; false when no seed is set. */
static bool
random_seeded(uint8_t *out, size_t len)
{
	bool seeded;

	pthread_mutex_lock(&seed_lock);
	if (seed_state == SEED_UNKNOWN) {
		const char *text = getenv("SEKISHO_TEST_SEED");
		seed_state = text && *text ? SEED_SET : SEED_NONE;
		seed = text ? strtoull(text, NULL, 0) : 0;
	}
	seeded = seed_state == SEED_SET;
	for (size_t i = 0; seeded && i < len; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15u;
		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		out[i] = (uint8_t)(z >> 56);
	}
	pthread_mutex_unlock(&seed_lock);
	return seeded;
}
#endif

void
random_bytes(void *out, size_t len)
{
	uint8_t *p = out;

#ifdef SEKISHO_TEST
	if (random_seeded(p, len))
		return;
#endif
	while (len) {
		const ssize_t n = getrandom(p, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			abort();
		p += n;
		len -= (size_t)n;
	}
}

uint64_t
random_below(uint64_t bound)
{
	uint64_t v, skip;

	assert(bound > 0);
	/* The lowest 2^64 mod bound values would make some results likelier than others. */
	skip = (0 - bound) % bound;
	do
		random_bytes(&v, sizeof v);
	while (v < skip);
	return v % bound;
}
