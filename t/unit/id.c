/* Message ids: they sort by time, as octets and as text; what follows the time nobody can guess;
 * and they survive being read aloud. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/id.h"
#include "t/unit/tap.h"

#define COUNT 20000

static void
test_order(void)
{
	static const msec_t walls[] = {
	    0, 1, 255, 256, 1700000000000, 1700000000001, 1800000000000, (INT64_C(1) << 48) - 1};
	struct queue_id before, id;
	char before_text[QUEUE_ID_TEXT_SIZE], text[QUEUE_ID_TEXT_SIZE];
	bool good = true;

	for (int round = 0; round < 100; round++)
		for (size_t i = 0; i < sizeof(walls) / sizeof(*walls); i++) {
			queue_id_make(&id, walls[i]);
			queue_id_format(&id, text);
			if (i > 0)
				good &= memcmp(before.octets, id.octets, sizeof(id.octets)) < 0 &&
				        strcmp(before_text, text) < 0;
			before = id;
			strcpy(before_text, text);
		}
	ok(good, "a later one sorts behind an earlier one, as octets and as text");
}

static int
compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct queue_id));
}

/* All in the same millisecond: the 80 bits behind it. */
static void
test_unguessable(void)
{
	struct queue_id *ids = calloc(COUNT, sizeof(*ids));
	unsigned ones[80] = {0};
	bool time_only = true, distinct = true, even = true;
	unsigned same_step = 0;

	for (size_t i = 0; i < COUNT; i++) {
		queue_id_make(&ids[i], 1700000000000);
		time_only &= memcmp(ids[i].octets, ids[0].octets, 6) == 0;
		for (unsigned bit = 0; bit < 80; bit++)
			ones[bit] += ids[i].octets[6 + bit / 8] >> (bit % 8) & 1;
		if (i > 1)
			same_step += (uint8_t)(ids[i].octets[15] - ids[i - 1].octets[15]) ==
			             (uint8_t)(ids[i - 1].octets[15] - ids[i - 2].octets[15]);
	}
	ok(time_only, "six octets are the time and nothing else");
	for (unsigned bit = 0; bit < 80; bit++) /* seven standard deviations */
		even &= ones[bit] > COUNT / 2 - 500 && ones[bit] < COUNT / 2 + 500;
	ok(even, "each of the 80 bits behind it is set half of the time");
	ok(same_step < COUNT / 100, "they are not counted up");
	qsort(ids, COUNT, sizeof(*ids), compare);
	for (size_t i = 1; i < COUNT; i++)
		distinct &= compare(&ids[i - 1], &ids[i]) != 0;
	ok(distinct, "no two are the same");
	free(ids);
}

static void
test_text(void)
{
	struct queue_id id, back;
	char text[QUEUE_ID_TEXT_SIZE], spoken[QUEUE_ID_TEXT_SIZE];
	bool good = true, aloud = true;

	for (int i = 0; i < 1000; i++) {
		queue_id_make(&id, 1700000000000 + i);
		queue_id_format(&id, text);
		good &= strlen(text) == QUEUE_ID_TEXT_SIZE - 1 &&
		        strspn(text, "0123456789abcdefghjkmnpqrstvwxyz") == strlen(text) &&
		        queue_id_parse(text, &back) && queue_id_equal(&id, &back);
		for (size_t k = 0; k < sizeof(text); k++)
			spoken[k] = (char)(text[k] == '1'   ? 'I'
			                   : text[k] == '0' ? 'o'
			                   : text[k] >= 'a' ? text[k] - 'a' + 'A'
			                                    : text[k]);
		aloud &= queue_id_parse(spoken, &back) && queue_id_equal(&id, &back);
	}
	ok(good, "26 characters that nothing else is written in, and back");
	ok(aloud, "capitals, I for 1 and o for 0 are the same id");
	ok(!queue_id_parse("", &back) && !queue_id_parse("0123456789abcdefghjkmnpqrs0", &back) &&
	       !queue_id_parse("8zzzzzzzzzzzzzzzzzzzzzzzzz", &back) &&
	       !queue_id_parse("0123456789abcdefghjkmnpqr", &back) &&
	       !queue_id_parse("0123456789abcdefghjkmnpqu0", &back) &&
	       !queue_id_parse("0123456789abcdefghjk-npqr0", &back),
	   "what is no id is refused");
}

int
main(void)
{
	test_order();
	test_unguessable();
	test_text();
	return tap_end();
}
