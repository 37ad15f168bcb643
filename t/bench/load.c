/* A closed-loop SMTP submission load: CLIENTS threads, each sending one message after another and
 * waiting for every reply.
 *
 * load PORT CLIENTS MESSAGES PER-CONNECTION SIZE ACCOUNT PASSWORD
 * Implicit TLS on 127.0.0.1. A new connection every PER-CONNECTION messages (handshake, EHLO, AUTH
 * PLAIN included in the time). Prints "messages seconds rate p50 p95 p99 max" with latencies in
 * milliseconds, from the start of a message (or its connection) to its 250. */
#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int port, clients, messages, per_connection, size;
static const char *account, *password;
static atomic_int next_message;
static double *latency;
static SSL_CTX *context;
static char *body;

static double
now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
fail(const char *what, const char *said)
{
	fprintf(stderr, "load: %s: %s\n", what, said);
	exit(1);
}

/* Reads one whole reply and checks its first digit. */
static void
expect(SSL *ssl, char digit, const char *what)
{
	char reply[4096];
	size_t len = 0;
	for (;;) {
		int n = SSL_read(ssl, reply + len, (int)(sizeof reply - 1 - len));
		if (n <= 0)
			fail(what, "connection lost");
		len += (size_t)n;
		reply[len] = '\0';
		if (len < 4 || reply[len - 1] != '\n')
			continue;
		char *line = reply;
		for (char *p = reply; p < reply + len - 1; p++)
			if (*p == '\n')
				line = p + 1;
		if (line[3] == ' ')
			break;
	}
	if (reply[0] != digit)
		fail(what, reply);
}

static void
command(SSL *ssl, const char *text, char digit)
{
	if (SSL_write(ssl, text, (int)strlen(text)) <= 0)
		fail(text, "connection lost");
	expect(ssl, digit, text);
}

static SSL *
login(int *fd)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
	                         .sin_port = htons((uint16_t)port),
	                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	*fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(*fd, (struct sockaddr *)&to, sizeof to) != 0)
		fail("connect", "refused");
	SSL *ssl = SSL_new(context);
	SSL_set_fd(ssl, *fd);
	if (SSL_connect(ssl) != 1)
		fail("handshake", "failed");
	expect(ssl, '2', "greeting");
	command(ssl, "EHLO bench.example.test\r\n", '2');
	char plain[512], line[1024] = "AUTH PLAIN ";
	int n = snprintf(plain, sizeof plain, "%c%s%c%s", 0, account, 0, password);
	EVP_EncodeBlock((unsigned char *)line + strlen(line), (unsigned char *)plain, n);
	strcat(line, "\r\n");
	command(ssl, line, '2');
	return ssl;
}

static void *
client(void *arg)
{
	(void)arg;
	char mail[512], rcpt[64];
	snprintf(mail, sizeof mail, "MAIL FROM:<%s>\r\n", account);
	int fd = -1, sent = 0;
	SSL *ssl = NULL;
	for (int i; (i = atomic_fetch_add(&next_message, 1)) < messages;) {
		double start = now();
		if (ssl == NULL)
			ssl = login(&fd);
		snprintf(rcpt, sizeof rcpt, "RCPT TO:<r%d@example.org>\r\n", i);
		command(ssl, mail, '2');
		command(ssl, rcpt, '2');
		command(ssl, "DATA\r\n", '3');
		command(ssl, body, '2');
		latency[i] = (now() - start) * 1000;
		if (++sent == per_connection || i + clients >= messages) {
			command(ssl, "QUIT\r\n", '2');
			SSL_shutdown(ssl);
			SSL_free(ssl);
			close(fd);
			ssl = NULL;
			sent = 0;
		}
	}
	return NULL;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

int
main(int argc, char **argv)
{
	if (argc != 8) {
		fprintf(stderr,
		        "usage: load PORT CLIENTS MESSAGES PER-CONNECTION SIZE ACCOUNT PASSWORD\n");
		return 64;
	}
	port = atoi(argv[1]);
	clients = atoi(argv[2]);
	messages = atoi(argv[3]);
	per_connection = atoi(argv[4]);
	size = atoi(argv[5]);
	account = argv[6];
	password = argv[7];
	if (clients < 1 || messages < 1 || per_connection < 1 || size < 0)
		return 64;
	context = SSL_CTX_new(TLS_client_method());
	latency = calloc((size_t)messages, sizeof *latency);
	body = malloc((size_t)size + 1024);
	int at = sprintf(body, "From: <%s>\r\nSubject: bench\r\n\r\n", account);
	while (at < size)
		at += sprintf(body + at,
		              "The quick brown fox jumps over the lazy dog, 0123456789.\r\n");
	strcpy(body + at, ".\r\n");

	pthread_t threads[clients];
	double start = now();
	for (int i = 0; i < clients; i++)
		pthread_create(&threads[i], NULL, client, NULL);
	for (int i = 0; i < clients; i++)
		pthread_join(threads[i], NULL);
	double seconds = now() - start;
	qsort(latency, (size_t)messages, sizeof *latency, by_value);
	printf("%d %.2f %.0f %.2f %.2f %.2f %.2f\n", messages, seconds, messages / seconds,
	       latency[messages / 2], latency[messages * 95 / 100], latency[messages * 99 / 100],
	       latency[messages - 1]);
	return 0;
}
