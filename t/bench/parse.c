/* What it costs to read what clients send, on one core: the median of RUNS runs of each row, in CPU
 * time.
 *
 * The data filter takes slices as a connection hands them over (16 KiB, a TLS record) and gives
 * them to a sink that does nothing. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/mem.h"
#include "smtp/data.h"

#define RUNS    9
#define CONTENT (32u * 1024 * 1024)
#define SLICE   (16u * 1024)

static double
cpu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* CPU seconds of one call. */
static double
median(void (*run)(void *arg), void *arg)
{
	double seconds[RUNS];

	for (int i = 0; i < RUNS; i++) {
		double start = cpu_now();
		run(arg);
		seconds[i] = cpu_now() - start;
	}
	qsort(seconds, RUNS, sizeof *seconds, by_value);
	return seconds[RUNS / 2];
}

struct content {
	enum data_kind kind;
	uint8_t *octets;
	size_t len, handed_on;
};

static void
sink(void *arg, const uint8_t *data, size_t len)
{
	struct content *content = arg;

	(void)data;
	content->handed_on += len;
}

static void
filter(void *arg)
{
	struct content *content = arg;
	struct data_in in;

	data_in_init(&in, content->kind);
	for (size_t at = 0, n, used; at < content->len; at += n) {
		n = content->len - at < SLICE ? content->len - at : SLICE;
		(void)data_in_feed(&in, content->octets + at, n, &used, sink, content);
	}
}

/* Lines of these lengths in turn, each ended by end. */
static void
measure_filter(const char *name, enum data_kind kind, const unsigned *lengths, size_t count,
               const char *end)
{
	struct content content = {.kind = kind};
	size_t size = CONTENT;

	for (size_t i = 0; i < count; i++)
		size += lengths[i] + 2;
	content.octets = xcalloc(1, size);
	for (size_t i = 0; content.len < CONTENT; i++) {
		unsigned len = lengths[i % count];
		for (unsigned k = 0; k < len; k++)
			content.octets[content.len++] = (uint8_t)('a' + (i + k) % 26);
		memcpy(content.octets + content.len, end, strlen(end));
		content.len += strlen(end);
	}
	printf("data filter, %-34s %6.2f GB/s\n", name,
	       (double)content.len / median(filter, &content) / 1e9);
	free(content.octets);
}

int
main(void)
{
	static const unsigned base64[] = {76}, text[] = {0, 12, 72, 70, 68, 71, 31, 0, 75, 3},
	                      html[] = {400, 180, 900, 20}, endless[] = {100000};

#define LINES(lengths) lengths, sizeof(lengths) / sizeof *(lengths)
	measure_filter("an attachment, base64", DATA_DOTTED, LINES(base64), "\r\n");
	measure_filter("text", DATA_DOTTED, LINES(text), "\r\n");
	measure_filter("HTML", DATA_DOTTED, LINES(html), "\r\n");
	measure_filter("text by BDAT", DATA_CHUNKED, LINES(text), "\r\n");
	measure_filter("text with bare LF", DATA_DOTTED, LINES(text), "\n");
	measure_filter("lines to be folded", DATA_DOTTED, LINES(endless), "\r\n");
	return 0;
}
