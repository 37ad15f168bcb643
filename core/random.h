/* Randomness, from the kernel. Test builds seed it from SEKISHO_TEST_SEED when that is set. */
#ifndef CORE_RANDOM_H
#define CORE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *out, size_t len);
/* Uniform in [0, bound); bound > 0. */
uint64_t random_below(uint64_t bound);

#endif
