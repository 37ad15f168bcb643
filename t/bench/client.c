#include "t/bench/client.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int port;
static const char *account, *password;
static SSL_CTX *context;

void
client_setup(int to_port, const char *as, const char *with)
{
	port = to_port;
	account = as;
	password = with;
	context = SSL_CTX_new(TLS_client_method());
}

double
client_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
fail(const char *what, const char *said)
{
	fprintf(stderr, "%s: %s\n", what, said);
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

void
client_write(struct client *client, const char *data, size_t len)
{
	for (int n; len > 0; data += n, len -= (size_t)n)
		if ((n = SSL_write(client->ssl, data, len > 65536 ? 65536 : (int)len)) <= 0)
			fail("write", "connection lost");
}

void
client_command(struct client *client, const char *text, char digit)
{
	client_write(client, text, strlen(text));
	expect(client->ssl, digit, text);
}

void
client_open(struct client *client)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
	                         .sin_port = htons((uint16_t)port),
	                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	client->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(client->fd, (struct sockaddr *)&to, sizeof to) != 0)
		fail("connect", "refused");
	client->ssl = SSL_new(context);
	SSL_set_fd(client->ssl, client->fd);
	if (SSL_connect(client->ssl) != 1)
		fail("handshake", "failed");
	expect(client->ssl, '2', "greeting");
	client_command(client, "EHLO bench.example.test\r\n", '2');
	char plain[512], line[1024] = "AUTH PLAIN ";
	int n = snprintf(plain, sizeof plain, "%c%s%c%s", 0, account, 0, password);
	EVP_EncodeBlock((unsigned char *)line + strlen(line), (unsigned char *)plain, n);
	strcat(line, "\r\n");
	client_command(client, line, '2');
}

void
client_close(struct client *client)
{
	client_command(client, "QUIT\r\n", '2');
	SSL_shutdown(client->ssl);
	client_drop(client);
}

void
client_drop(struct client *client)
{
	SSL_free(client->ssl);
	close(client->fd);
	client->ssl = NULL;
}

void
client_begin(struct client *client, unsigned long number)
{
	char line[512];

	snprintf(line, sizeof line, "MAIL FROM:<%s>\r\n", account);
	client_command(client, line, '2');
	snprintf(line, sizeof line, "RCPT TO:<r%lu@example.org>\r\n", number);
	client_command(client, line, '2');
	client_command(client, "DATA\r\n", '3');
}

char *
client_content(size_t size)
{
	char *content = malloc(size + 1024);
	size_t at;

	if (content == NULL)
		abort();
	at = (size_t)sprintf(content, "From: <%s>\r\nSubject: bench\r\n\r\n", account);
	while (at < size)
		at += (size_t)sprintf(
		    content + at, "The quick brown fox jumps over the lazy dog, 0123456789.\r\n");
	return content;
}

int
client_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}
