/* What large uploads cost others: the time small messages take to their 250, alone and beside
 * UPLOADS messages of SIZE octets that arrive at RATE octets per second each, in turn.
 *
 * beside PORT UPLOADS SIZE RATE PAIRS ACCOUNT PASSWORD
 * SMALL clients, each on a connection of its own, send a message of 4 KB every PAUSE msec. Phases
 * last as long as one upload. Prints "p50 p99 p50 p99 ratio uploaded": msec alone, msec beside,
 * each the median of its phases, the median of the pairs' p99 beside by p99 alone, and how many
 * uploads were accepted. */
#include "t/bench/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL   4
#define PAUSE   25
#define SAMPLES 100000
#define PIECE   (16u * 1024)

static size_t size;
static double rate;
static char *large, *small;
static atomic_int uploaded, sampled;
static atomic_bool stop;
static double sample[SAMPLES];

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
	struct client client;
	double start;

	client_open(&client);
	client_begin(&client, (unsigned long)(size_t)arg);
	start = client_now();
	for (size_t at = 0; at < size; at += PIECE) {
		pause_until(start + (double)at / rate);
		client_write(&client, large + at, size - at < PIECE ? size - at : PIECE);
	}
	client_command(&client, "\r\n.\r\n", '2');
	atomic_fetch_add(&uploaded, 1);
	client_close(&client);
	return NULL;
}

static void *
send_small(void *arg)
{
	struct client client;
	double next = client_now() + (double)(size_t)arg * PAUSE / SMALL / 1000;

	client_open(&client);
	for (unsigned long i = 0; !atomic_load(&stop); i++) {
		pause_until(next);
		double start = client_now();
		client_begin(&client, i);
		client_command(&client, small, '2');
		int at = atomic_fetch_add(&sampled, 1);
		if (at < SAMPLES)
			sample[at] = (client_now() - start) * 1000;
		next = start + PAUSE / 1000.0;
		if (next < client_now())
			next = client_now();
	}
	client_close(&client);
	return NULL;
}

/* One phase. */
static void
measure(int uploads, double *p50, double *p99)
{
	pthread_t threads[uploads + SMALL];
	double end = client_now() + (double)size / rate;

	atomic_store(&stop, false);
	atomic_store(&sampled, 0);
	for (int i = 0; i < uploads; i++)
		pthread_create(&threads[SMALL + i], NULL, upload, (void *)(size_t)i);
	for (int i = 0; i < SMALL; i++)
		pthread_create(&threads[i], NULL, send_small, (void *)(size_t)i);
	pause_until(end);
	for (int i = 0; i < uploads; i++)
		pthread_join(threads[SMALL + i], NULL);
	atomic_store(&stop, true);
	for (int i = 0; i < SMALL; i++)
		pthread_join(threads[i], NULL);
	int count = sampled < SAMPLES ? sampled : SAMPLES;
	qsort(sample, (size_t)count, sizeof *sample, client_compare);
	*p50 = sample[count / 2];
	*p99 = sample[count * 99 / 100];
}

int
main(int argc, char **argv)
{
	if (argc != 8) {
		fprintf(stderr, "usage: beside PORT UPLOADS SIZE RATE PAIRS ACCOUNT PASSWORD\n");
		return 64;
	}
	const int uploads = atoi(argv[2]), pairs = atoi(argv[5]);
	size = (size_t)atol(argv[3]);
	rate = atof(argv[4]);
	if (uploads < 0 || pairs < 1 || size < 1 || rate < 1)
		return 64;
	client_setup(atoi(argv[1]), argv[6], argv[7]);
	large = client_content(size);
	small = client_content(4096);
	strcat(small, ".\r\n");
	double column[5][pairs];

	for (int i = 0; i < pairs; i++) {
		measure(0, &column[0][i], &column[1][i]);
		measure(uploads, &column[2][i], &column[3][i]);
		column[4][i] = column[3][i] / column[1][i];
		fprintf(stderr, "  alone %.2f %.2f  beside %.2f %.2f  ratio %.2f\n", column[0][i],
		        column[1][i], column[2][i], column[3][i], column[4][i]);
	}
	for (int i = 0; i < 5; i++) {
		qsort(column[i], (size_t)pairs, sizeof *column[i], client_compare);
		printf("%.2f ", column[i][pairs / 2]);
	}
	printf("%d\n", uploaded);
	return 0;
}
