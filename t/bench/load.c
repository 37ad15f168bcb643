/* A closed-loop SMTP submission load: CLIENTS threads, each sending one message after another and
 * waiting for every reply.
 *
 * load PORT CLIENTS MESSAGES PER-CONNECTION SIZE ACCOUNT PASSWORD
 * Implicit TLS on 127.0.0.1. A new connection every PER-CONNECTION messages (handshake, EHLO, AUTH
 * PLAIN included in the time). Prints "messages seconds rate p50 p95 p99 max" with latencies in
 * milliseconds, from the start of a message (or its connection) to its 250. */
#include "t/bench/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int clients, messages, per_connection;
static atomic_int next_message;
static double *latency;
static char *body;

static void *
run(void *arg)
{
	struct client client = {0};
	int sent = 0;

	(void)arg;
	for (int i; (i = atomic_fetch_add(&next_message, 1)) < messages;) {
		double start = client_now();
		if (client.ssl == NULL)
			client_open(&client);
		client_begin(&client, (unsigned long)i);
		client_command(&client, body, '2');
		latency[i] = (client_now() - start) * 1000;
		if (++sent == per_connection || i + clients >= messages) {
			client_close(&client);
			sent = 0;
		}
	}
	return NULL;
}

int
main(int argc, char **argv)
{
	if (argc != 8) {
		fprintf(stderr,
		        "usage: load PORT CLIENTS MESSAGES PER-CONNECTION SIZE ACCOUNT PASSWORD\n");
		return 64;
	}
	clients = atoi(argv[2]);
	messages = atoi(argv[3]);
	per_connection = atoi(argv[4]);
	const int size = atoi(argv[5]);
	if (clients < 1 || messages < 1 || per_connection < 1 || size < 0)
		return 64;
	client_setup(atoi(argv[1]), argv[6], argv[7]);
	latency = calloc((size_t)messages, sizeof *latency);
	body = client_content((size_t)size);
	strcat(body, ".\r\n");

	pthread_t threads[clients];
	double start = client_now();
	for (int i = 0; i < clients; i++)
		pthread_create(&threads[i], NULL, run, NULL);
	for (int i = 0; i < clients; i++)
		pthread_join(threads[i], NULL);
	double seconds = client_now() - start;
	qsort(latency, (size_t)messages, sizeof *latency, client_compare);
	printf("%d %.2f %.0f %.2f %.2f %.2f %.2f\n", messages, seconds, messages / seconds,
	       latency[messages / 2], latency[messages * 95 / 100], latency[messages * 99 / 100],
	       latency[messages - 1]);
	return 0;
}
