/* A submission client that waits for every reply, for load programs: implicit TLS on 127.0.0.1,
 * AUTH PLAIN. Whatever goes wrong ends the program. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <openssl/ssl.h>
#include <stddef.h>

struct client {
	SSL *ssl;
	int fd;
};
/* Before anything else; borrowed. */
void client_setup(int port, const char *account, const char *password);
/* Connects, says EHLO, logs in. */
void client_open(struct client *client);
/* Says QUIT. */
void client_close(struct client *client);
/* Closes the connection without a word. */
void client_drop(struct client *client);
/* Sends the text and reads a whole reply, whose first digit must be this one. */
void client_command(struct client *client, const char *text, char digit);
void client_write(struct client *client, const char *data, size_t len);
/* MAIL, one RCPT and DATA. */
void client_begin(struct client *client, unsigned long number);
/* Seconds, monotonic. */
double client_now(void);
/* Content of at least size octets, without the final dot; to be freed. */
char *client_content(size_t size);
/* For qsort. */
int client_compare(const void *a, const void *b);

#endif
