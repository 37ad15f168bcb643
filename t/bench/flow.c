/* How long fresh mail takes from its acceptance to its first attempt and to its delivery: a client
 * and the next hop of what it sends, in one program, so that both use the same clock.
 *
 * flow PORT HOP-PORT RATE SECONDS ACCOUNT PASSWORD [BULK-ACCOUNT BULK-RATE]
 * Messages of 4 KB with one recipient come at RATE a second, whatever becomes of those before, by
 * implicit TLS on 127.0.0.1; RATE 0: each of the clients sends one after another. The service must
 * have a route for example.org to 127.0.0.1:HOP-PORT. With BULK-ACCOUNT another client sends
 * messages to 500 recipients there at BULK-RATE a second, which are not counted.
 *
 * Prints "rate accept50 accept99 attempt50 attempt99 delivered50 delivered99 missing": accepted
 * messages a second; msec to the 250 (from the moment that the message was due, or begun), from
 * there to the RCPT that the next hop sees, and to its final dot; and how many had not arrived a
 * minute after the last one was sent. */
#include "t/bench/client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS        16
#define CLOSED         8 /* of them with RATE 0 */
#define MOST           1000000
#define PER_CONNECTION 100
#define BULK_RCPT      500

static double rate, seconds, begin, end;
static char *body;
static atomic_int next_message;
static atomic_ulong arrived;
/* By message. */
static double *due, *accepted, *attempted, *delivered;

/* --- the next hop --- */

static int
say(int fd, const char *text)
{
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static unsigned long
number_of(const char *line)
{
	unsigned long number;

	return sscanf(line, "RCPT TO:<r%lu@", &number) == 1 && number < MOST ? number : MOST;
}

struct hop { /* one connection */
	int fd;
	bool content;
	unsigned long number; /* MOST: none of ours */
};

/* One line without its end. */
static int
hear(struct hop *hop, const char *line)
{
	if (hop->content) {
		if (strcmp(line, ".") != 0)
			return 0;
		hop->content = false;
		if (hop->number < MOST) {
			delivered[hop->number] = client_now();
			atomic_fetch_add(&arrived, 1);
		}
		hop->number = MOST;
		return say(hop->fd, "250 2.0.0 kept\r\n");
	}
	if (strncmp(line, "EHLO", 4) == 0)
		return say(hop->fd, "250-hop\r\n250-PIPELINING\r\n250 8BITMIME\r\n");
	if (strncmp(line, "RCPT", 4) == 0 && number_of(line) < MOST) {
		hop->number = number_of(line);
		attempted[hop->number] = client_now();
	}
	if (strcmp(line, "DATA") == 0) {
		hop->content = true;
		return say(hop->fd, "354 go on\r\n");
	}
	if (strcmp(line, "QUIT") == 0)
		return (void)say(hop->fd, "221 2.0.0 bye\r\n"), -1;
	return say(hop->fd, "250 2.0.0 ok\r\n");
}

static void *
serve(void *arg)
{
	struct hop hop = {.fd = (int)(size_t)arg, .number = MOST};
	char buffer[65536];
	size_t len = 0;
	int rc = say(hop.fd, "220 hop\r\n");

	while (rc == 0) {
		const ssize_t n = read(hop.fd, buffer + len, sizeof buffer - 1 - len);
		char *line = buffer, *stop;

		if (n <= 0)
			break;
		len += (size_t)n;
		buffer[len] = '\0';
		while (rc == 0 && (stop = strstr(line, "\r\n")) != NULL) {
			*stop = '\0';
			rc = hear(&hop, line);
			line = stop + 2;
		}
		len -= (size_t)(line - buffer);
		memmove(buffer, line, len);
	}
	close(hop.fd);
	return NULL;
}

static void *
hop_run(void *arg)
{
	const int listener = *(int *)arg, one = 1;

	for (;;) {
		const int fd = accept(listener, NULL, NULL);
		pthread_t thread;

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		if (pthread_create(&thread, NULL, serve, (void *)(size_t)fd) == 0)
			pthread_detach(thread);
	}
	return NULL;
}

static int
hop_listen(int port)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
	                         .sin_port = htons((uint16_t)port),
	                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 512) != 0) {
		perror("flow: next hop");
		exit(1);
	}
	return fd;
}

/* --- the clients --- */

static void
pause_until(double when)
{
	const double left = when - client_now();

	if (left > 0)
		usleep((useconds_t)(left * 1e6));
}

static void *
send_all(void *arg)
{
	struct client client = {0};
	int sent = 0;

	(void)arg;
	client_open(&client);
	pause_until(begin);
	for (int i; (i = atomic_fetch_add(&next_message, 1)) < MOST; sent++) {
		due[i] = rate > 0 ? begin + i / rate : client_now();
		if (due[i] >= end) {
			due[i] = 0;
			break;
		}
		pause_until(due[i]);
		if (sent == PER_CONNECTION) {
			client_close(&client);
			client_open(&client);
			sent = 0;
		}
		client_begin(&client, (unsigned long)i);
		client_command(&client, body, '2');
		accepted[i] = client_now();
	}
	client_close(&client);
	return NULL;
}

static void
send_bulk(int port, const char *account, const char *password, double bulk_rate)
{
	struct client client;
	char line[600];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	client_setup(port, account, password);
	body = client_content(4096);
	strcat(body, ".\r\n");
	client_open(&client);
	for (int i = 0;; i++) {
		pause_until(begin + i / bulk_rate);
		snprintf(line, sizeof line, "MAIL FROM:<%s>\r\n", account);
		client_command(&client, line, '2');
		for (int k = 0; k < BULK_RCPT; k++) {
			snprintf(line, sizeof line, "RCPT TO:<b%d.%d@example.org>\r\n", i, k);
			client_command(&client, line, '2');
		}
		client_command(&client, "DATA\r\n", '3');
		client_command(&client, body, '2');
	}
}

/* --- */

static void
print_percentiles(const double *from, const double *to, size_t count)
{
	double *took = calloc(count + 1, sizeof *took);
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		if (from[i] > 0 && to[i] > 0)
			took[n++] = to[i] > from[i] ? (to[i] - from[i]) * 1000 : 0;
	qsort(took, n, sizeof *took, client_compare);
	printf(" %.2f %.2f", took[n / 2], took[n * 99 / 100]);
	free(took);
}

int
main(int argc, char **argv)
{
	if (argc != 7 && argc != 9) {
		fprintf(stderr, "usage: flow PORT HOP-PORT RATE SECONDS ACCOUNT PASSWORD "
		                "[BULK-ACCOUNT BULK-RATE]\n");
		return 64;
	}
	const int port = atoi(argv[1]);
	int listener = hop_listen(atoi(argv[2]));
	pthread_t hop, threads[CLIENTS];
	pid_t bulk = 0;

	signal(SIGPIPE, SIG_IGN);
	rate = atof(argv[3]);
	seconds = atof(argv[4]);
	begin = client_now() + 1; /* by then all have logged in */
	end = begin + seconds;
	if (argc == 9 && (bulk = fork()) == 0) {
		close(listener);
		send_bulk(port, argv[7], argv[6], atof(argv[8]));
	}
	due = calloc(MOST, sizeof *due);
	accepted = calloc(MOST, sizeof *accepted);
	attempted = calloc(MOST, sizeof *attempted);
	delivered = calloc(MOST, sizeof *delivered);
	client_setup(port, argv[5], argv[6]);
	body = client_content(4096);
	strcat(body, ".\r\n");
	pthread_create(&hop, NULL, hop_run, &listener);
	const int clients = rate > 0 ? CLIENTS : CLOSED;
	for (int i = 0; i < clients; i++)
		pthread_create(&threads[i], NULL, send_all, NULL);
	for (int i = 0; i < clients; i++)
		pthread_join(threads[i], NULL);
	const double stopped = client_now();
	if (bulk > 0)
		kill(bulk, SIGKILL);

	size_t count = 0, sent = 0;
	for (; count < MOST && (due[count] > 0 || accepted[count] > 0); count++)
		sent += accepted[count] > 0;
	while (atomic_load(&arrived) < sent && client_now() < stopped + 60)
		usleep(10000);
	printf("%.1f", (double)sent / (stopped - begin));
	print_percentiles(due, accepted, count);
	print_percentiles(accepted, attempted, count);
	print_percentiles(accepted, delivered, count);
	printf(" %ld\n", (long)sent - (long)atomic_load(&arrived));
	return 0;
}
