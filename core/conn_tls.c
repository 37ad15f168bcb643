#include "core/conn_int.h"

/* The part of a connection that speaks to OpenSSL. core/conn.c has the rules; what they mean here:
 * after a fatal error no further call is made (TLS_BROKEN), a suspended handshake is left alone,
 * and a write that finds the peer gone is told to OpenSSL as one that could not be done now,
 * because after an error it would not read what the peer said before. */

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <openssl/async.h>
#include <openssl/err.h>

#define JOBS_MAX 1024 /* suspended handshakes; 48 KiB each */

static void
on_signed(void *arg)
{
	conn_kick(arg);
}

/* See is_unheard. */
static long
on_bio(BIO *bio, int operation, const char *data, size_t len, int argi, long argl, int ret,
       size_t *processed)
{
	struct conn *conn = (void *)BIO_get_callback_arg(bio);

	(void)data, (void)len, (void)argi, (void)argl, (void)processed;
	if (operation == (BIO_CB_WRITE | BIO_CB_RETURN) && ret <= 0 && conn->tls == TLS_SECURE &&
	    conn_is_gone(errno)) {
		conn->is_unheard = true;
		BIO_set_retry_write(bio);
	}
	return ret;
}

/* OpenSSL asks for an empty queue of errors before each call; it is, but after a failure, and to
 * look is ten times cheaper than to empty it. */
static void
forget_errors(void)
{
	if (ERR_peek_error() != 0)
		ERR_clear_error();
}

/* OpenSSL's failures, in the words of conn_end. error is errno right after the call. */
static void
conn_tls_fail(struct conn *conn, int reason, int error, const char *what)
{
	char text[160];

	if (conn->tls != TLS_NONE)
		conn->tls = TLS_BROKEN;
	if (reason == SSL_ERROR_ZERO_RETURN) {
		conn_close(conn, CONN_EOF);
	} else if (reason == SSL_ERROR_SYSCALL && ERR_peek_error() == 0) {
		if (error == 0)
			conn_close(conn, CONN_EOF);
		else
			conn_fail_errno(conn, what, error);
	} else if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
		conn_fail(conn, what,
		          X509_verify_cert_error_string(SSL_get_verify_result(conn->ssl)));
	} else {
		tls_error_text(text, sizeof(text));
		conn_fail(conn, what, text);
	}
	ERR_clear_error();
}

bool
conn_handshake_start(struct conn *conn)
{
	static bool is_limited;

	assert(conn->clear_left == 0);
	if (!is_limited)
		is_limited = ASYNC_init_thread(JOBS_MAX, 0) == 1;
	conn->wait = (struct tls_wait){.on_signed = on_signed, .arg = conn};
	if (SSL_set_fd(conn->ssl, conn->fd) != 1) {
		conn_tls_fail(conn, SSL_ERROR_SSL, 0, "TLS");
		return false;
	}
	BIO_set_callback_ex(SSL_get_wbio(conn->ssl), on_bio);
	BIO_set_callback_arg(SSL_get_wbio(conn->ssl), (char *)conn);
	conn->tls = TLS_HANDSHAKE;
	return true;
}

bool
conn_handshake_step(struct conn *conn)
{
	struct tls_sign *asked = conn->wait.sign;
	int done, reason, error;

	/* Driven for another reason than the signature's arrival: the job would only pause again.
	 */
	if (asked && !tls_sign_is_done(asked))
		return true;
	if (conn->job_is_missing && conn->retry && loop_timer_is_armed(conn->retry))
		return true;
	conn->job_is_missing = false;
	errno = 0;
	done = tls_handshake(conn->ssl, &conn->wait);
	error = errno;
	if (done == 1) {
		conn->tls = TLS_SECURE;
		/* From here on nothing is signed, and a job for each read would be waste. */
		SSL_clear_mode(conn->ssl, SSL_MODE_ASYNC);
		/* A client that speaks first waits for the acknowledgement of what it sent last,
		 * and nothing of ours carries it. */
		if (SSL_is_server(conn->ssl))
			(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1},
			                 sizeof(int));
		conn->has_more = SSL_has_pending(conn->ssl) == 1;
		return conn_call(conn, conn->events->on_secure);
	}
	reason = SSL_get_error(conn->ssl, done);
	switch (reason) {
	case SSL_ERROR_WANT_READ:
		conn->tls_interest = LOOP_READ;
		return true;
	case SSL_ERROR_WANT_WRITE:
		conn->tls_interest = LOOP_WRITE;
		return true;
	case SSL_ERROR_WANT_ASYNC:
		conn->tls_interest = 0;
		return true;
	case SSL_ERROR_WANT_ASYNC_JOB:
		conn->tls_interest = 0;
		conn->job_is_missing = true;
		return true;
	default:
		conn_tls_fail(conn, reason, error, "TLS handshake");
		return false;
	}
}

int
conn_tls_write(struct conn *conn, const uint8_t *data, size_t len, size_t *written)
{
	int done, error, reason;

	forget_errors();
	errno = 0;
	done = SSL_write_ex(conn->ssl, data, len, written);
	error = errno;
	conn->write_wants_read = false;
	if (done)
		return 1;
	reason = SSL_get_error(conn->ssl, 0);
	if (reason == SSL_ERROR_WANT_WRITE)
		return !conn->is_unheard || conn_drop_output(conn) ? 0 : -1;
	if (reason == SSL_ERROR_WANT_READ) {
		conn->write_wants_read = true;
		return 0;
	}
	conn_tls_fail(conn, reason, error, "TLS write");
	return -1;
}

int
conn_tls_read(struct conn *conn, uint8_t *to, size_t room, size_t *got)
{
	int done, error, reason;

	forget_errors();
	errno = 0;
	done = SSL_read_ex(conn->ssl, to, room, got);
	error = errno;
	conn->read_wants_write = false;
	conn->has_more = done && SSL_has_pending(conn->ssl) == 1;
	if (done)
		return 1;
	reason = SSL_get_error(conn->ssl, 0);
	if (reason == SSL_ERROR_WANT_WRITE && conn->is_unheard) {
		conn_close(conn, CONN_EOF);
		return -1;
	}
	conn->read_wants_write = reason == SSL_ERROR_WANT_WRITE;
	if (reason == SSL_ERROR_WANT_WRITE || reason == SSL_ERROR_WANT_READ)
		return 0;
	conn_tls_fail(conn, reason, error, "TLS read");
	return -1;
}

bool
conn_tls_shutdown(struct conn *conn)
{
	int done;

	forget_errors();
	done = SSL_shutdown(conn->ssl);
	if (done < 0 && SSL_get_error(conn->ssl, done) == SSL_ERROR_WANT_WRITE && !conn->is_unheard)
		return false;
	ERR_clear_error();
	conn->tls = TLS_SHUT;
	return true;
}

static int
start_tls(struct conn *conn, SSL *ssl)
{
	assert(conn->tls == TLS_NONE && !conn->ssl);
	if (!ssl)
		return -1;
	conn->ssl = ssl;
	conn->tls = TLS_WAITING;
	conn->clear_left = conn_pending(conn);
	conn_kick(conn);
	return 0;
}

int
conn_start_tls_server(struct conn *conn, struct tls_server *server)
{
	if (conn_in_len(conn) > 0 || conn->is_ended)
		return -1;
	return start_tls(conn, tls_server_ssl(server));
}

int
conn_start_tls_client(struct conn *conn, struct tls_client *client, const char *server_name)
{
	if (conn_in_len(conn) > 0 || conn->is_ended)
		return -1;
	return start_tls(conn, tls_client_ssl(client, server_name));
}

static bool
has_session(const struct conn *conn)
{
	return conn->ssl && (conn->tls == TLS_SECURE || conn->tls == TLS_SHUT);
}

bool
conn_is_secure(const struct conn *conn)
{
	return has_session(conn);
}

const char *
conn_tls_version(const struct conn *conn)
{
	return has_session(conn) ? SSL_get_version(conn->ssl) : "";
}

const char *
conn_tls_cipher(const struct conn *conn)
{
	return has_session(conn) ? SSL_get_cipher_name(conn->ssl) : "";
}
