/* How far a word is from the one that was probably meant. */
#ifndef CORE_NEAR_H
#define CORE_NEAR_H

#include <stddef.h>

/* How many letters to add, drop or change to make b of a (Levenshtein); of each, the first 80
 * octets count. */
size_t near_distance(const char *a, const char *b);

#endif
