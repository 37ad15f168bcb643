#include "core/near.h"

#include <string.h>

#define LENGTH_MAX 80

size_t
near_distance(const char *a, const char *b)
{
	size_t row[LENGTH_MAX + 1];
	size_t la = strnlen(a, LENGTH_MAX), lb = strnlen(b, LENGTH_MAX);
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[lb];
}
