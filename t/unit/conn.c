/* core/conn and core/tls end to end: a server connection whose signatures come later from a loop
 * timer, a client connection, and everything between them that may go wrong. */
#include "core/conn.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/random.h"
#include "core/tls_int.h"
#include "keys/text.h"
#include "t/unit/tap.h"

#define ECHO_SIZE (300u * 1024)

/* The process that has the key, played by timers. */
struct pending {
	struct tls_sign *sign;
	struct loop_timer *timer;
	uint8_t signature[TLS_SIGNATURE_MAX];
	size_t len;
};

enum mood { SIGN_LATER, SIGN_BADLY, SIGN_NEVER, SIGN_DOWN };

static struct loop *loop;
static struct tls_private *private;
static enum mood mood;
static unsigned asked, unanswered, unsignable;
static struct tls_sign *kept[2000];

static void
on_signature(void *arg)
{
	struct pending *p = arg;

	unanswered--;
	tls_sign_done(p->sign, p->len ? p->signature : NULL, p->len);
	loop_timer_free(p->timer);
	free(p);
}

static int
signer(void *arg, struct tls_sign *sign, const char *digest, const char *padding,
       const uint8_t *tbs, size_t len)
{
	struct pending *p;

	(void)arg;
	asked++;
	if (mood == SIGN_DOWN)
		return -1;
	if (!keys_text_is_signable(tbs, len, padding))
		unsignable++;
	if (mood == SIGN_NEVER) {
		kept[unanswered++] = sign;
		return 0;
	}
	p = xcalloc(1, sizeof(*p));
	p->sign = sign;
	if (mood == SIGN_LATER)
		p->len = tls_private_sign(private, digest, padding, tbs, len, p->signature);
	p->timer = loop_timer_new(loop, on_signature, p);
	loop_timer_arm(p->timer, (msec_t)random_below(8));
	unanswered++;
	return 0;
}

/* One side of a conversation. */
struct side {
	struct conn *conn;
	struct side *other;
	bool is_server, is_echo, is_injecting;
	bool opened, secured, ended, refused;
	enum conn_end why;
	struct buf got;
	size_t sent; /* of the pattern */
};

static struct tls_server *server;
static struct tls_client *client;
static uint8_t pattern[ECHO_SIZE];
static bool is_implicit;
static bool is_mixing; /* each side is bulk now and then */

static void
send_slices(struct side *s)
{
	while (s->sent < ECHO_SIZE && conn_pending(s->conn) < CONN_OUTPUT_HIGH) {
		size_t n = 1 + (size_t)random_below(9000);

		if (n > ECHO_SIZE - s->sent)
			n = ECHO_SIZE - s->sent;
		conn_write(s->conn, pattern + s->sent, n);
		s->sent += n;
	}
}

static void
on_open(void *arg)
{
	struct side *s = arg;

	s->opened = true;
	if (is_implicit)
		conn_start_tls_client(s->conn, client, "mail.example");
	else
		conn_write(s->conn, "STARTTLS\r\nEVIL\r\n", s->is_injecting ? 16 : 10);
}

static void
on_secure(void *arg)
{
	struct side *s = arg;

	s->secured = true;
	if (!s->is_server && s->is_echo)
		send_slices(s);
}

static void
on_input(void *arg)
{
	struct side *s = arg;
	size_t len;
	const uint8_t *data = conn_input(s->conn, &len);

	if (is_mixing)
		conn_set_bulk(s->conn, random_below(2) == 0);
	if (!s->is_server && conn_is_secure(s->conn)) {
		size_t n = 1 + (size_t)random_below(len);

		if (s->got.len + len == ECHO_SIZE)
			n = len;
		buf_add(&s->got, data, n);
		conn_consume(s->conn, n);
		send_slices(s);
		if (s->got.len == ECHO_SIZE)
			conn_finish(s->conn, 3000);
	} else if (s->is_server && conn_is_secure(s->conn)) {
		conn_write(s->conn, data, len);
		conn_consume(s->conn, len);
	} else if (s->is_server && len >= 10) {
		conn_consume(s->conn, 10);
		conn_write(s->conn, "220 go\r\n", 8);
		if (conn_start_tls_server(s->conn, server) != 0) {
			s->refused = true;
			conn_finish(s->conn, 1000);
		}
	} else if (!s->is_server && len == 8) {
		conn_consume(s->conn, 8);
		if (!s->is_injecting)
			conn_start_tls_client(s->conn, client, "");
	}
}

static void
on_end(void *arg, enum conn_end why)
{
	struct side *s = arg;

	s->ended = true;
	s->why = why;
	if (s->is_server && why == CONN_EOF) {
		conn_free(s->conn);
		s->conn = NULL;
	}
	if (s->other->ended)
		loop_stop(loop);
	else if (!s->is_server && !s->is_echo)
		loop_stop(loop);
}

static const struct conn_events events = {on_open, on_secure, on_input, NULL, on_end};

static int listener = -1;
static struct sockaddr_in address;

static void
listen_local(void)
{
	socklen_t len = sizeof(address);

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)&address, len) != 0 || listen(listener, 64) != 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &len) != 0)
		abort();
}

static void
pair_open(struct side *a, struct side *b, bool is_echo)
{
	int fd;

	memset(a, 0, sizeof(*a));
	memset(b, 0, sizeof(*b));
	a->is_server = true;
	a->is_echo = b->is_echo = is_echo;
	a->other = b;
	b->other = a;
	b->conn = conn_connect(loop, (struct sockaddr *)&address, sizeof(address), NULL, 20000,
	                       &events, b);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	a->conn = conn_accept(loop, fd, 20000, &events, a);
	if (is_implicit)
		conn_start_tls_server(a->conn, server);
	conn_set_timeout(a->conn, 10000);
	conn_set_timeout(b->conn, 10000);
}

static void
pair_close(struct side *a, struct side *b)
{
	conn_free(a->conn);
	conn_free(b->conn);
	buf_clear(&a->got);
	buf_clear(&b->got);
}

/* What is under way in the loop for msec milliseconds. */
static void
spin(msec_t delay)
{
	struct loop_timer *timer =
	    loop_timer_new(loop, (loop_callback *)(void (*)(void))loop_stop, loop);

	loop_timer_arm(timer, delay);
	loop_run(loop);
	loop_timer_free(timer);
}

static void
test_echo(const char *name)
{
	struct side a, b;
	char text[200];
	unsigned before = asked;

	mood = SIGN_LATER;
	pair_open(&a, &b, true);
	loop_run(loop);
	snprintf(text, sizeof(text), "%s %s: echo of %u octets", name,
	         is_implicit ? "implicit" : "STARTTLS", ECHO_SIZE);
	ok(a.secured && b.secured && b.got.len == ECHO_SIZE &&
	       memcmp(b.got.data, pattern, ECHO_SIZE) == 0,
	   text);
	ok(a.why == CONN_EOF && b.why == CONN_EOF && asked == before + 1 && unsignable == 0,
	   "both ends end properly, one signable signature was asked");
	if (tap_failures)
		printf(
		    "# a: sec %d why %d %s; b: sec %d why %d %s got %zu asked %u unsignable %u\n",
		    a.secured, a.why, a.conn ? conn_error(a.conn) : "", b.secured, b.why,
		    conn_error(b.conn), b.got.len, asked - before, unsignable);
	pair_close(&a, &b);
}

static void
test_refusals(void)
{
	struct side a, b;

	is_implicit = false;
	pair_open(&a, &b, true);
	b.is_injecting = true;
	loop_run(loop);
	ok(a.refused && !a.secured && !b.secured && a.why == CONN_EOF,
	   "clear text behind STARTTLS is refused");
	pair_close(&a, &b);

	for (mood = SIGN_BADLY; mood <= SIGN_DOWN; mood++) {
		if (mood == SIGN_NEVER)
			continue;
		pair_open(&a, &b, true);
		loop_run(loop);
		ok(!a.secured && a.why == CONN_ERROR && b.why == CONN_ERROR && *conn_error(a.conn),
		   mood == SIGN_BADLY ? "a refused signature fails the handshake"
		                      : "a signer that is down fails the handshake");
		pair_close(&a, &b);
	}

	mood = SIGN_NEVER;
	pair_open(&a, &b, true);
	conn_set_timeout(a.conn, 200);
	loop_run(loop);
	ok(a.why == CONN_TIMEOUT && unanswered == 1,
	   "a signature that never comes ends in the deadline");
	tls_sign_done(kept[--unanswered], (const uint8_t *)"late", 4);
	pair_close(&a, &b);
}

static long
resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long all = 0, rss = 0;

	if (!f || fscanf(f, "%ld %ld", &all, &rss) != 2)
		rss = 0;
	if (f)
		fclose(f);
	return rss * 4;
}

/* Freed while the signature is pending: half of the answers arrive late, half already before the
 * next turn. */
static void
test_abandon(void)
{
	struct side a, b;
	long before = 0, after;
	unsigned suspended = 0;

	mood = SIGN_NEVER;
	for (int i = 0; i < 600; i++) {
		if (i == 100)
			before = resident();
		pair_open(&a, &b, true);
		for (int n = 0; n < 50 && unanswered == 0; n++)
			spin(1);
		suspended += unanswered == 1;
		if (unanswered == 1 && i % 3 == 0)
			tls_sign_done(kept[--unanswered], (const uint8_t *)"x", 1);
		pair_close(&a, &b);
		if (unanswered == 1)
			tls_sign_done(kept[--unanswered], (const uint8_t *)"x", 1);
	}
	spin(20);
	after = resident();
	ok(suspended == 600, "600 connections freed while their signature is pending");
	printf("# resident after 100: %ld KiB, after 600: %ld KiB\n", before, after);
#ifdef __SANITIZE_ADDRESS__
	after = before; /* freed memory rests in quarantine */
#endif
	ok(after - before < 2500, "which leaks no job");
	mood = SIGN_LATER;
}

/* Many at once, answered in random order. */
static void
test_crowd(void)
{
	enum { CROWD = 60 };
	struct side *a = xcalloc(CROWD, sizeof(*a)), *b = xcalloc(CROWD, sizeof(*b));
	unsigned good = 0;

	for (int i = 0; i < CROWD; i++)
		pair_open(&a[i], &b[i], false);
	for (int n = 0; n < 300 && good < CROWD; n++) {
		spin(10);
		good = 0;
		for (int i = 0; i < CROWD; i++)
			good += a[i].secured && b[i].secured;
	}
	ok(good == CROWD, "60 handshakes at once, signatures in random order");
	for (int i = 0; i < CROWD; i++)
		pair_close(&a[i], &b[i]);
	free(a);
	free(b);
}

static void
test_plain(void)
{
	struct side a = {0}, b;
	char text[64] = "";

	/* Refused connects come as an event, never from inside the call. */
	memset(&b, 0, sizeof(b));
	a.ended = true;
	b.other = &a;
	struct sockaddr_in nobody = address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(nobody);
	nobody.sin_port = 0;
	if (bind(fd, (struct sockaddr *)&nobody, len) != 0 ||
	    getsockname(fd, (struct sockaddr *)&nobody, &len) != 0)
		abort();
	b.conn =
	    conn_connect(loop, (struct sockaddr *)&nobody, sizeof(nobody), NULL, 100, &events, &b);
	ok(!b.ended, "no callback from inside conn_connect");
	loop_run(loop);
	snprintf(text, sizeof(text), "%s", conn_error(b.conn));
	ok(b.ended && b.why == CONN_ERROR && !b.opened && strstr(text, "refused"),
	   "a refused connect is an error with its reason");
	conn_free(b.conn);
	close(fd);
}

/* From an address that is ours, and from one that is not. */
static void
test_source(void)
{
	struct sockaddr_in from = {.sin_family = AF_INET};
	socklen_t len = sizeof(from);
	struct side a = {.ended = true}, b = {.other = &a};
	int fd;

	inet_pton(AF_INET, "127.0.0.2", &from.sin_addr);
	b.conn = conn_connect(loop, (struct sockaddr *)&address, sizeof(address),
	                      (struct sockaddr *)&from, 100, &events, &b);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	ok(getpeername(fd, (struct sockaddr *)&from, &len) == 0 &&
	       ntohl(from.sin_addr.s_addr) == 0x7f000002,
	   "it comes from the address it is bound to");
	conn_free(b.conn);
	close(fd);
	inet_pton(AF_INET, "192.0.2.1", &from.sin_addr);
	from.sin_port = 0;
	b.conn = conn_connect(loop, (struct sockaddr *)&address, sizeof(address),
	                      (struct sockaddr *)&from, 100, &events, &b);
	loop_run(loop);
	ok(b.ended && b.why == CONN_LOCAL && strstr(conn_error(b.conn), "source address"),
	   "from an address of another machine it does not come about");
	conn_free(b.conn);
}

/* A peer that leaves while nobody reads. */
static void
test_paused_end(void)
{
	struct side a, b;

	is_implicit = true;
	pair_open(&a, &b, true);
	conn_pause_input(a.conn, true);
	b.is_echo = false;
	for (int i = 0; i < 100 && !(a.secured && b.secured); i++)
		spin(5);
	conn_free(b.conn);
	b.conn = NULL;
	b.ended = true;
	a.is_echo = true;
	loop_run(loop);
	ok(a.ended && a.why != CONN_TIMEOUT, "the end of a paused connection is noticed");
	pair_close(&a, &b);
}

static void
on_hear(void *arg)
{
	struct side *s = arg;
	size_t len;
	const uint8_t *data = conn_input(s->conn, &len);

	buf_add(&s->got, data, len);
	conn_consume(s->conn, len);
}

static void
on_hear_end(void *arg, enum conn_end why)
{
	struct side *s = arg;

	s->ended = true;
	s->why = why;
	loop_stop(loop);
}

static void
on_hear_secure(void *arg)
{
	struct side *s = arg;

	s->secured = true;
}

/* The peer says something and resets the connection before we write again. */
static void
test_last_words(void)
{
	static const struct conn_events hear = {NULL, on_hear_secure, on_hear, NULL, on_hear_end};
	struct side a = {.is_server = true}, b = {.is_server = false};
	int fd;

	mood = SIGN_LATER;
	b.conn = conn_connect(loop, (struct sockaddr *)&address, sizeof(address), NULL, 20000,
	                      &hear, &b);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	a.conn = conn_accept(loop, fd, 20000, &hear, &a);
	if (is_implicit) {
		conn_start_tls_server(a.conn, server);
		conn_start_tls_client(b.conn, client, "");
	}
	for (int i = 0; i < 100 && (i < 1 || (is_implicit && !(a.secured && b.secured))); i++)
		spin(20);
	conn_pause_input(a.conn, true);
	conn_pause_input(b.conn, true);
	spin(20);
	conn_write(b.conn, pattern, 100); /* never read */
	conn_write(a.conn, "552 no\r\n", 8);
	spin(20);
	conn_free(a.conn);
	conn_pause_input(b.conn, false);
	conn_write(b.conn, pattern, 10000);
	conn_set_timeout(b.conn, 5000);
	if (!b.ended)
		loop_run(loop);
	ok(b.got.len == 8 && memcmp(b.got.data, "552 no\r\n", 8) == 0 && b.why == CONN_EOF,
	   is_implicit ? "what was said before a reset is heard, over TLS"
	               : "what was said before a reset is heard");
	conn_free(b.conn);
	buf_clear(&b.got);
}

static void
test_texts(void)
{
	uint8_t text[256];
	msec_t window = 0;
	unsigned spent = 0, allowed = 0;

	memset(text, ' ', sizeof(text));
	memcpy(text + 64, "TLS 1.3, server CertificateVerify", 34);
	ok(keys_text_is_signable(text, 130, "") && keys_text_is_signable(text, 146, "pss") &&
	       !keys_text_is_signable(text, 130, "pkcs1") &&
	       !keys_text_is_signable(text, 131, "") && !keys_text_is_signable(text, 98, ""),
	   "TLS 1.3 texts are judged");
	text[73] = 'c';
	ok(!keys_text_is_signable(text, 130, ""), "another context is not signed");
	memset(text, 7, sizeof(text));
	memcpy(text + 64, "\x03\x00\x1d\x20", 4);
	ok(keys_text_is_signable(text, 100, "pkcs1") && !keys_text_is_signable(text, 101, "") &&
	       !keys_text_is_signable(text, 64, "") && !keys_text_is_signable(text, 0, ""),
	   "TLS 1.2 texts are judged");
	text[64] = 1;
	ok(!keys_text_is_signable(text, 100, ""), "only named curves");
	for (int i = 0; i < 100; i++)
		allowed += keys_rate_allows(&window, &spent, 5000 + i, 30);
	ok(allowed == 30 && keys_rate_allows(&window, &spent, 6001, 30), "the rate is bounded");
}

static void
make_pair(const char *dir, const char *kind, const char *options)
{
	char command[600];

	snprintf(command, sizeof(command),
	         "openssl req -x509 -newkey %s -nodes -subj /CN=mail.example -days 3 "
	         "-keyout %s/%s.key -out %s/%s.pem 2>/dev/null",
	         options, dir, kind, dir, kind);
	if (system(command) != 0)
		abort();
}

static int
open_in(const char *dir, const char *kind, const char *suffix)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s.%s", dir, kind, suffix);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		abort();
	return fd;
}

/* The struct's first field, as core/tls.c has it. */
static void
limit_client(int version)
{
	tls_client_free(client);
	client = tls_client_new();
	SSL_CTX_set_max_proto_version(*(SSL_CTX **)(void *)client, version);
}

int
main(void)
{
	static const char *const kinds[] = {"ec", "rsa"};
	char dir[] = "/tmp/sekisho-conn-XXXXXX", error[300] = "", command[100];
	int chain, key;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(120);
	if (!mkdtemp(dir))
		abort();
	make_pair(dir, "ec", "ec -pkeyopt ec_paramgen_curve:P-256");
	make_pair(dir, "rsa", "rsa:2048");
	random_bytes(pattern, sizeof(pattern));
	loop = loop_new();
	listen_local();

	chain = open_in(dir, "ec", "pem");
	key = open_in(dir, "ec", "key");
	ok(tls_check_pair(chain, key, error, sizeof(error)) == 0, "a matching pair");
	close(key);
	key = open_in(dir, "rsa", "key");
	ok(tls_check_pair(chain, key, error, sizeof(error)) == -1 && *error,
	   "a pair that does not match");
	ok(tls_check_pair(key, chain, error, sizeof(error)) == -1 && *error,
	   "a key is no certificate");
	close(key);
	close(chain);

	for (int k = 0; k < 2; k++) {
		private = tls_private_new(open_in(dir, kinds[k], "key"), error, sizeof(error));
		server = tls_server_new(open_in(dir, kinds[k], "pem"), signer, NULL, error,
		                        sizeof(error));
		if (!private || !server) {
			printf("Bail out! %s\n", error);
			return 1;
		}
		for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
			char name[40];

			snprintf(name, sizeof(name), "%s TLS 1.%d", kinds[k],
			         version - TLS1_VERSION);
			limit_client(version);
			is_implicit = false;
			test_echo(name);
			is_implicit = true;
			test_echo(name);
			is_mixing = true;
			strcat(name, " bulk");
			test_echo(name);
			is_mixing = false;
			if (k == 1 && version == TLS1_2_VERSION) {
				SSL_CTX_set1_sigalgs_list(*(SSL_CTX **)(void *)client,
				                          "RSA+SHA256");
				test_echo("rsa TLS 1.2 PKCS #1");
			}
		}
		test_refusals();
		is_implicit = true;
		test_abandon();
		test_crowd();
		test_paused_end();
		is_implicit = true;
		test_last_words();
		tls_server_free(server);
		tls_private_free(private);
		tls_client_free(client);
		client = NULL;
	}
	is_implicit = false;
	test_last_words();
	test_plain();
	test_source();
	test_texts();

	close(listener);
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (system(command) != 0)
		return 1;
	return tap_end();
}
