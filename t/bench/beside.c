/* What large uploads cost others: the time small messages take to their 250, alone and beside
 * UPLOADS messages of SIZE octets that are always under way, in turn.
 *
 * beside PORT UPLOADS SIZE RATE PAIRS SECONDS ACCOUNT PASSWORD
 * A phase lasts SECONDS. Small messages of 4 KB come at a fixed rate, whatever becomes of those
 * before: the time of each counts from the moment it was due, so what waits behind another is seen.
 * An upload takes RATE octets a second (0: what the service takes), and the next one follows at
 * once. The first ones of a phase are of all sizes up to SIZE, so that they do not end together.
 * What the end of a phase finds under way is dropped. Before each phase everything is on the disk
 * and its queue is empty; that is not timed.
 *
 * Prints "p50 p99 p50 p99 ratio MB/s": msec alone, msec beside, each the median of its phases, the
 * median of the pairs' p99 beside by p99 alone, and the octets that the uploads sent, per second.
 */
#include "t/bench/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENTS    16
#define SMALL_RATE 100 /* a second, all clients together */
#define PIECE      (16u * 1024)
#define SETTLED    1024 /* KB that may wait to be written, of all programs */

static size_t size;
static double rate, seconds;
static int uploads;
static char *head, *large, *small;
static atomic_int next_small;
static atomic_bool stop;
static atomic_ullong sent;
static double begin, *sample;

static void
pause_until(double when)
{
	double left = when - client_now();

	if (left > 0)
		usleep((useconds_t)(left * 1e6));
}

static void *
upload(void *arg)
{
	const size_t number = (size_t)arg;
	size_t at = size - size * (number + 1) / (size_t)uploads;
	struct client client;

	client_open(&client);
	pause_until(begin);
	for (; !atomic_load(&stop); at = 0) {
		const size_t from = at;
		double start = client_now();
		client_begin(&client, number);
		client_write(&client, head, strlen(head));
		for (size_t n; at < size && !atomic_load(&stop); at += n) {
			n = size - at < PIECE ? size - at : PIECE;
			if (rate > 0)
				pause_until(start + (double)(at - from) / rate);
			client_write(&client, large + at, n);
			atomic_fetch_add(&sent, n);
		}
		if (at < size)
			break;
		client_command(&client, "\r\n.\r\n", '2');
	}
	client_drop(&client);
	return NULL;
}

static void *
send_small(void *arg)
{
	const int count = (int)(seconds * SMALL_RATE);
	struct client client;

	(void)arg;
	client_open(&client);
	for (int i; (i = atomic_fetch_add(&next_small, 1)) < count;) {
		double due = begin + (double)i / SMALL_RATE;
		pause_until(due);
		client_begin(&client, (unsigned long)i);
		client_command(&client, small, '2');
		sample[i] = (client_now() - due) * 1000;
	}
	client_close(&client);
	return NULL;
}

/* KB that wait to be written or are being written. */
static unsigned long
unwritten(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[128];
	unsigned long sum = 0, kb;

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "Dirty: %lu", &kb) == 1 ||
		    sscanf(line, "Writeback: %lu", &kb) == 1)
			sum += kb;
	if (file)
		fclose(file);
	return sum;
}

static void
settle(void)
{
	double end = client_now() + 10;

	do {
		sync();
		usleep(200000);
	} while (unwritten() > SETTLED && client_now() < end);
}

/* One phase; adds to *mbs. */
static void
measure(bool beside, double *p50, double *p99, double *mbs)
{
	const int count = (int)(seconds * SMALL_RATE), threads = beside ? uploads : 0;
	pthread_t small_threads[CLIENTS], upload_threads[uploads + 1];

	settle();
	atomic_store(&stop, false);
	atomic_store(&next_small, 0);
	atomic_store(&sent, 0);
	begin = client_now() + 1; /* by then all have logged in */
	for (int i = 0; i < threads; i++)
		pthread_create(&upload_threads[i], NULL, upload, (void *)(size_t)i);
	for (int i = 0; i < CLIENTS; i++)
		pthread_create(&small_threads[i], NULL, send_small, NULL);
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(small_threads[i], NULL);
	*mbs = (double)atomic_load(&sent) / (client_now() - begin) / 1e6;
	atomic_store(&stop, true);
	for (int i = 0; i < threads; i++)
		pthread_join(upload_threads[i], NULL);
	qsort(sample, (size_t)count, sizeof *sample, client_compare);
	*p50 = sample[count / 2];
	*p99 = sample[count * 99 / 100];
}

int
main(int argc, char **argv)
{
	enum { P50, P99, P50_BESIDE, P99_BESIDE, RATIO, MBS, COLUMNS };
	if (argc != 9) {
		fprintf(stderr, "usage: beside PORT UPLOADS SIZE RATE PAIRS SECONDS ACCOUNT "
		                "PASSWORD\n");
		return 64;
	}
	const int pairs = atoi(argv[5]);
	uploads = atoi(argv[2]);
	size = (size_t)atol(argv[3]);
	rate = atof(argv[4]);
	seconds = atof(argv[6]);
	if (uploads < 1 || pairs < 1 || size < 1 || rate < 0 || seconds < 1)
		return 64;
	client_setup(atoi(argv[1]), argv[7], argv[8]);
	head = client_content(0);
	large = client_content(size);
	small = client_content(4096);
	strcat(small, ".\r\n");
	sample = calloc((size_t)(seconds * SMALL_RATE), sizeof *sample);
	double column[COLUMNS][pairs];

	for (int i = 0; i < pairs; i++) {
		measure(false, &column[P50][i], &column[P99][i], &column[MBS][i]);
		measure(true, &column[P50_BESIDE][i], &column[P99_BESIDE][i], &column[MBS][i]);
		column[RATIO][i] = column[P99_BESIDE][i] / column[P99][i];
		fprintf(stderr, "  alone %.2f %.2f  beside %.2f %.2f  ratio %.2f  %.0f MB/s\n",
		        column[P50][i], column[P99][i], column[P50_BESIDE][i],
		        column[P99_BESIDE][i], column[RATIO][i], column[MBS][i]);
	}
	for (int i = 0; i < COLUMNS; i++) {
		qsort(column[i], (size_t)pairs, sizeof *column[i], client_compare);
		printf("%.2f ", column[i][pairs / 2]);
	}
	printf("\n");
	return 0;
}
