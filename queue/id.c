#include "queue/id.h"

/* Crockford's base 32 leaves out i, l, o and u, so an id read over the telephone stays itself. 128
 * bits are 26 digits of 5 bits with two zero bits in front: the first digit is at most 7. On
 * reading, i and l are 1 and o is 0. */

#include <string.h>

#include "core/random.h"

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

void
queue_id_make(struct queue_id *id, msec_t wall)
{
	for (unsigned i = 0; i < 6; i++)
		id->octets[i] = (uint8_t)((uint64_t)wall >> (8 * (5 - i)));
	random_bytes(id->octets + 6, 10);
}

char *
queue_id_format(const struct queue_id *id, char out[QUEUE_ID_TEXT_SIZE])
{
	unsigned bits = 2; /* the two zero bits in front */
	unsigned value = 0;
	size_t n = 0;

	for (size_t i = 0; i < sizeof(id->octets); i++) {
		value = (value << 8) | id->octets[i];
		for (bits += 8; bits >= 5; bits -= 5)
			out[n++] = digits[(value >> (bits - 5)) & 31];
		value &= 0xff;
	}
	out[n] = '\0';
	return out;
}

static int
digit_value(char c)
{
	const char *at;

	if (c >= 'A' && c <= 'Z')
		c = (char)(c - 'A' + 'a');
	if (c == 'i' || c == 'l')
		return 1;
	if (c == 'o')
		return 0;
	at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

bool
queue_id_parse(const char *text, struct queue_id *out)
{
	struct queue_id id;
	unsigned bits = 0;
	uint32_t value = 0;
	size_t n = 0;

	if (strlen(text) != QUEUE_ID_TEXT_SIZE - 1)
		return false;
	for (size_t i = 0; text[i]; i++) {
		int digit = digit_value(text[i]);

		if (digit < 0 || (i == 0 && digit > 7))
			return false;
		value = (value << 5) | (uint32_t)digit;
		bits += i == 0 ? 3 : 5;
		if (bits >= 8) {
			bits -= 8;
			id.octets[n++] = (uint8_t)(value >> bits);
		}
		value &= 0xff;
	}
	*out = id;
	return true;
}

bool
queue_id_equal(const struct queue_id *a, const struct queue_id *b)
{
	return memcmp(a->octets, b->octets, sizeof(a->octets)) == 0;
}
