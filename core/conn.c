#include "core/conn.h"

/* One stream connection.
 *
 * Everything that may happen is one function, drive: finish connecting, start or continue a
 * handshake, write, read, and then say to the loop what to wait for. It runs when the descriptor is
 * ready and, once per turn, when anybody changed something (conn_kick); so replies written one by
 * one leave in one segment, and no caller is ever called back from inside its own call.
 *
 * - OpenSSL decides what it waits for: a write may need the descriptor readable and the reverse, so
 * a ready descriptor makes drive try everything that is wanted. Octets inside OpenSSL never make
 * the descriptor ready: while there may be some (has_more) and reading is wanted, drive kicks
 * itself.
 * - The loop is told at once what to wait for, and told to stop only when the descriptor was ready
 * for nothing that is wanted: input is paused and resumed around every question to another process,
 * and a client that waits for its reply sends nothing meanwhile.
 * - STARTTLS: what was queued before conn_start_tls leaves in clear (clear_left counts it), what is
 * queued after it waits for the handshake. Nothing is read from the descriptor in between but the
 * handshake, so clear text that arrives late is a TLS error; clear text that was already read makes
 * conn_start_tls refuse.
 * - A suspended handshake (wait.sign) waits for its signature and for nothing else: any SSL call
 * would resume it.
 * - Callbacks may free the connection: depth counts the callbacks under way, and the struct
 * outlives them and a kick that the loop still holds; after each callback is_freed is asked.
 * - After a fatal TLS error no further SSL call is made (not even a shutdown).
 * - A peer that refuses and leaves while we write has said why: its words arrived before its reset.
 * So a write that finds it gone ends nothing while somebody reads (is_unheard): what is to be
 * written is dropped, what has arrived is read, and then the end is found by reading. OpenSSL is
 * told that such a write could not be done now, because after an error it would not read.
 * - Finishing: pending output, close_notify, our FIN, then input is read and dropped for a moment:
 * closing with unread input would send a reset, which may overtake our last reply. */

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <openssl/async.h>
#include <openssl/err.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/tls_int.h"

#define READ_MAX    (16u * 1024) /* per system call; also a TLS record */
#define LINGER      1000         /* msec for the peer to close after us */
#define JOB_RETRY   20           /* msec until a handshake that found no free job tries again */
#define JOBS_MAX    1024         /* suspended handshakes; 48 KiB each */
#define PAUSE_CHECK 1000 /* msec between looks for the end of a connection that nobody reads */

enum tls_state {
	TLS_NONE,
	TLS_WAITING, /* clear output goes first */
	TLS_HANDSHAKE,
	TLS_SECURE,
	TLS_SHUT,   /* close_notify is out */
	TLS_BROKEN, /* no SSL call any more */
};

struct conn {
	struct loop *loop;
	int fd;
	struct loop_watch *watch;
	struct loop_timer *deadline;
	struct loop_timer *retry; /* JOB_RETRY and PAUSE_CHECK; made when first needed */
	const struct conn_events *events;
	void *arg;

	struct buf in; /* unconsumed from in_at on */
	size_t in_at;
	size_t in_max;
	struct buf out; /* unwritten from out_at on */
	size_t out_at;
	size_t clear_left; /* of out, octets that leave before the handshake */

	enum tls_state tls;
	SSL *ssl;
	struct tls_wait wait;
	unsigned tls_interest; /* what the handshake waits for, LOOP_* */
	bool has_more;         /* OpenSSL holds octets, and the last read did not wait for others */
	bool read_wants_write; /* OpenSSL's last answers */
	bool write_wants_read;
	bool job_is_missing; /* all jobs are taken: retry is armed */

	bool is_connecting;
	bool is_paused;
	bool is_input_ended; /* on_input_end was called */
	bool is_unheard;     /* the peer takes nothing more; what it said before is still read */
	bool is_finishing;   /* conn_finish was called */
	bool is_half_shut;   /* our FIN is out */
	bool is_ended;       /* on_end was called */
	bool is_freed;       /* by the owner; the struct waits for depth and kicked */
	bool is_kicked;      /* loop_defer holds this connection */
	unsigned watched;    /* what the loop waits for, LOOP_* */
	bool is_drain_due;   /* output was queued since the last on_drained */
	unsigned depth;      /* callbacks under way */
	msec_t finish_by;    /* clock_mono */
	char error[200];
};

static void drive(struct conn *conn, bool is_readable);

static void
release(struct conn *conn)
{
	if (conn->is_freed && conn->depth == 0 && !conn->is_kicked)
		free(conn);
}

static void
on_kick(void *arg)
{
	struct conn *conn = arg;

	conn->is_kicked = false;
	if (conn->is_freed)
		release(conn);
	else
		drive(conn, false);
}

static void
kick(struct conn *conn)
{
	if (conn->is_kicked || conn->is_ended || conn->is_freed)
		return;
	conn->is_kicked = true;
	loop_defer(conn->loop, on_kick, conn);
}

/* Calls back the owner; false when the connection is gone afterwards (for the owner, or altogether
 * ended). */
static bool
call(struct conn *conn, void (*callback)(void *arg))
{
	if (!callback)
		return true;
	conn->depth++;
	callback(conn->arg);
	conn->depth--;
	return !conn->is_freed && !conn->is_ended;
}

static void
end(struct conn *conn, enum conn_end why)
{
	if (conn->is_ended)
		return;
	conn->is_ended = true;
	if (conn->wait.sign) {
		tls_abandon(conn->ssl, &conn->wait);
		conn->tls = TLS_BROKEN;
	}
	if (conn->watch)
		loop_watch_set(conn->watch, 0);
	loop_timer_cancel(conn->deadline);
	if (conn->retry)
		loop_timer_cancel(conn->retry);
	conn->depth++;
	conn->events->on_end(conn->arg, why);
	conn->depth--;
}

static void
fail(struct conn *conn, const char *what, const char *why)
{
	snprintf(conn->error, sizeof(conn->error), "%s: %s", what, why);
	end(conn, CONN_ERROR);
}

static bool
is_gone(int error)
{
	return error == ECONNRESET || error == EPIPE;
}

/* A system call failed for good: a peer that left is an end, everything else an error. */
static void
fail_errno(struct conn *conn, const char *what, int error)
{
	if (is_gone(error))
		end(conn, CONN_EOF);
	else
		fail(conn, what, strerror(error));
}

static bool
is_again(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

static size_t
in_len(const struct conn *conn)
{
	return conn->in.len - conn->in_at;
}

static bool
wants_input(const struct conn *conn)
{
	if (conn->tls == TLS_WAITING || conn->tls == TLS_HANDSHAKE)
		return false;
	if (conn->is_finishing)
		return conn->is_half_shut;
	return !conn->is_paused && !conn->is_input_ended && in_len(conn) < conn->in_max &&
	       conn_pending(conn) <= CONN_OUTPUT_HIGH;
}

/* After a write found the peer gone. True while the connection lives, see is_unheard. */
static bool
drop_output(struct conn *conn)
{
	conn->is_unheard = true;
	buf_wipe(&conn->out);
	conn->out_at = 0;
	conn->is_drain_due = false;
	if (!conn->is_half_shut && !wants_input(conn)) {
		end(conn, CONN_EOF);
		return false;
	}
	return true;
}

/* See is_unheard. */
static long
on_bio(BIO *bio, int operation, const char *data, size_t len, int argi, long argl, int ret,
       size_t *processed)
{
	struct conn *conn = (void *)BIO_get_callback_arg(bio);

	(void)data, (void)len, (void)argi, (void)argl, (void)processed;
	if (operation == (BIO_CB_WRITE | BIO_CB_RETURN) && ret <= 0 && conn->tls == TLS_SECURE &&
	    is_gone(errno)) {
		conn->is_unheard = true;
		BIO_set_retry_write(bio);
	}
	return ret;
}

static void
on_signed(void *arg)
{
	kick(arg);
}

static bool
connect_step(struct conn *conn)
{
	struct pollfd poll_out = {.fd = conn->fd, .events = POLLOUT};
	int error = 0;
	socklen_t len = sizeof(error);

	if (poll(&poll_out, 1, 0) != 1)
		return true;
	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error != 0) {
		fail(conn, "connect", strerror(error));
		return false;
	}
	conn->is_connecting = false;
	return call(conn, conn->events->on_open);
}

/* OpenSSL's failures, in the words of conn_end. error is errno right after the call. */
static void
tls_fail(struct conn *conn, int reason, int error, const char *what)
{
	char text[160];

	if (conn->tls != TLS_NONE)
		conn->tls = TLS_BROKEN;
	if (reason == SSL_ERROR_ZERO_RETURN) {
		end(conn, CONN_EOF);
	} else if (reason == SSL_ERROR_SYSCALL && ERR_peek_error() == 0) {
		if (error == 0)
			end(conn, CONN_EOF);
		else
			fail_errno(conn, what, error);
	} else if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
		fail(conn, what, X509_verify_cert_error_string(SSL_get_verify_result(conn->ssl)));
	} else {
		tls_error_text(text, sizeof(text));
		fail(conn, what, text);
	}
	ERR_clear_error();
}

static bool
handshake_start(struct conn *conn)
{
	static bool is_limited;

	assert(conn->clear_left == 0);
	if (!is_limited)
		is_limited = ASYNC_init_thread(JOBS_MAX, 0) == 1;
	conn->wait = (struct tls_wait){.on_signed = on_signed, .arg = conn};
	if (SSL_set_fd(conn->ssl, conn->fd) != 1) {
		tls_fail(conn, SSL_ERROR_SSL, 0, "TLS");
		return false;
	}
	BIO_set_callback_ex(SSL_get_wbio(conn->ssl), on_bio);
	BIO_set_callback_arg(SSL_get_wbio(conn->ssl), (char *)conn);
	conn->tls = TLS_HANDSHAKE;
	return true;
}

static bool
handshake_step(struct conn *conn)
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
		conn->has_more = SSL_has_pending(conn->ssl) == 1;
		return call(conn, conn->events->on_secure);
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
		tls_fail(conn, reason, error, "TLS handshake");
		return false;
	}
}

/* Writes a piece. 1: some went out. 0: not now. -1: the connection ended. */
static int
write_some(struct conn *conn)
{
	size_t len = conn_pending(conn);
	const uint8_t *data = conn->out.data + conn->out_at;
	size_t written = 0;
	ssize_t sent;

	if (conn->tls == TLS_SECURE) {
		int done, error, reason;

		/* At most a record; after a refusal OpenSSL insists on no less than before, and
		 * pending only grows. */
		if (len > READ_MAX)
			len = READ_MAX;
		ERR_clear_error();
		errno = 0;
		done = SSL_write_ex(conn->ssl, data, len, &written);
		error = errno;
		conn->write_wants_read = false;
		if (!done) {
			reason = SSL_get_error(conn->ssl, 0);
			if (reason == SSL_ERROR_WANT_WRITE)
				return !conn->is_unheard || drop_output(conn) ? 0 : -1;
			if (reason == SSL_ERROR_WANT_READ) {
				conn->write_wants_read = true;
				return 0;
			}
			tls_fail(conn, reason, error, "TLS write");
			return -1;
		}
	} else {
		if (conn->tls == TLS_WAITING && len > conn->clear_left)
			len = conn->clear_left;
		sent = send(conn->fd, data, len, MSG_NOSIGNAL);
		if (sent < 0 && is_again(errno))
			return 0;
		if (sent < 0 && is_gone(errno))
			return drop_output(conn) ? 0 : -1;
		if (sent < 0) {
			fail_errno(conn, "write", errno);
			return -1;
		}
		written = (size_t)sent;
		if (conn->tls == TLS_WAITING)
			conn->clear_left -= written;
	}
	conn->out_at += written;
	if (conn->out_at == conn->out.len) {
		buf_wipe(&conn->out); /* it may have been a login */
		conn->out_at = 0;
	} else if (conn->out_at >= CONN_OUTPUT_HIGH) {
		buf_consume(&conn->out, conn->out_at);
		conn->out_at = 0;
	}
	return 1;
}

/* True while the connection lives. */
static bool
flush(struct conn *conn)
{
	int more = 1;

	while (more > 0 && conn_pending(conn) > 0) {
		if (conn->tls == TLS_HANDSHAKE ||
		    (conn->tls == TLS_WAITING && conn->clear_left == 0))
			return true;
		more = write_some(conn);
	}
	if (more < 0)
		return false;
	if (conn_pending(conn) == 0 && conn->is_drain_due) {
		conn->is_drain_due = false;
		if (!conn->is_finishing)
			return call(conn, conn->events->on_drained);
	}
	return true;
}

/* After the last output: close_notify, FIN, a moment of patience. True while the connection lives.
 */
static bool
finish_step(struct conn *conn)
{
	msec_t left;

	if (conn->is_half_shut || conn->is_connecting || conn_pending(conn) > 0 ||
	    conn->tls == TLS_WAITING || conn->tls == TLS_HANDSHAKE)
		return true;
	if (conn->tls == TLS_SECURE) {
		int done;

		ERR_clear_error();
		done = SSL_shutdown(conn->ssl);
		if (done < 0 && SSL_get_error(conn->ssl, done) == SSL_ERROR_WANT_WRITE &&
		    !conn->is_unheard)
			return true;
		ERR_clear_error();
		conn->tls = TLS_SHUT;
	}
	(void)shutdown(conn->fd, SHUT_WR);
	conn->is_half_shut = true;
	left = conn->finish_by - clock_mono();
	loop_timer_arm(conn->deadline, left < LINGER ? left : LINGER);
	return true;
}

/* True while the connection lives. */
static bool
drop_input(struct conn *conn)
{
	char waste[4096];
	ssize_t got = recv(conn->fd, waste, sizeof(waste), 0);

	if (got > 0 || (got < 0 && is_again(errno)))
		return true;
	end(conn, CONN_EOF);
	return false;
}

/* One piece of input. True while the connection lives. */
static bool
read_some(struct conn *conn)
{
	size_t room, got = 0;
	uint8_t *to;

	if (conn->is_half_shut)
		return drop_input(conn);
	if (conn->in_at > 0) {
		buf_consume(&conn->in, conn->in_at);
		conn->in_at = 0;
	}
	room = conn->in_max - conn->in.len;
	if (room > READ_MAX)
		room = READ_MAX;
	to = buf_reserve(&conn->in, room);

	if (conn->tls == TLS_SECURE) {
		int done, error, reason;

		ERR_clear_error();
		errno = 0;
		done = SSL_read_ex(conn->ssl, to, room, &got);
		error = errno;
		conn->read_wants_write = false;
		conn->has_more = done && SSL_has_pending(conn->ssl) == 1;
		if (!done) {
			reason = SSL_get_error(conn->ssl, 0);
			if (reason == SSL_ERROR_WANT_WRITE && conn->is_unheard) {
				end(conn, CONN_EOF);
				return false;
			}
			if (reason == SSL_ERROR_WANT_WRITE)
				conn->read_wants_write = true;
			if (reason == SSL_ERROR_WANT_WRITE || reason == SSL_ERROR_WANT_READ) {
				if (conn->in.len == 0)
					buf_clear(&conn->in);
				return true;
			}
			tls_fail(conn, reason, error, "TLS read");
			return false;
		}
	} else {
		ssize_t n = recv(conn->fd, to, room, 0);

		if (n < 0 && is_again(errno)) {
			if (conn->in.len == 0)
				buf_clear(&conn->in);
			return true;
		}
		if (n < 0) {
			fail_errno(conn, "read", errno);
			return false;
		}
		if (n == 0 && conn->events->on_input_end != NULL) {
			conn->is_input_ended = true;
			return call(conn, conn->events->on_input_end);
		}
		if (n == 0) {
			end(conn, CONN_EOF);
			return false;
		}
		got = (size_t)n;
	}
	buf_commit(&conn->in, got);
	return call(conn, conn->events->on_input);
}

static void
on_retry(void *arg)
{
	struct conn *conn = arg;
	struct pollfd look = {.fd = conn->fd, .events = POLLRDHUP};
	int unread = 0;

	if (conn->job_is_missing) {
		drive(conn, false);
		return;
	}
	/* Nobody reads; is anybody there? A half-close behind unread octets is none of our business
	 * yet. */
	if (!wants_input(conn) && conn->tls != TLS_HANDSHAKE && poll(&look, 1, 0) == 1 &&
	    ((look.revents & (POLLHUP | POLLERR)) ||
	     (!conn->is_input_ended && ioctl(conn->fd, FIONREAD, &unread) == 0 && unread == 0 &&
	      !conn->has_more))) {
		conn->depth++;
		end(conn, CONN_EOF);
		conn->depth--;
		release(conn);
		return;
	}
	drive(conn, false);
}

static void
retry_after(struct conn *conn, msec_t delay)
{
	if (!conn->retry)
		conn->retry = loop_timer_new(conn->loop, on_retry, conn);
	if (!loop_timer_is_armed(conn->retry))
		loop_timer_arm(conn->retry, delay);
}

/* What the descriptor should be ready for, LOOP_*. */
static unsigned
wanted(const struct conn *conn)
{
	unsigned interest = 0;

	if (conn->is_connecting)
		return LOOP_WRITE;
	if (conn->tls == TLS_HANDSHAKE)
		return conn->tls_interest;
	if (wants_input(conn))
		interest |= conn->read_wants_write ? LOOP_WRITE : LOOP_READ;
	if (conn_pending(conn) > 0 || (conn->is_finishing && !conn->is_half_shut))
		interest |= conn->write_wants_read ? LOOP_READ : LOOP_WRITE;
	return interest;
}

/* in_vain: the descriptor was readable and nobody wanted to read. */
static void
set_interest(struct conn *conn, bool in_vain)
{
	bool reading = wants_input(conn);

	if (conn->job_is_missing)
		retry_after(conn, JOB_RETRY);
	else if (!conn->is_connecting && !reading && !conn->is_finishing &&
	         conn->tls != TLS_WAITING && conn->tls != TLS_HANDSHAKE)
		retry_after(conn, PAUSE_CHECK);
	else if (conn->retry)
		loop_timer_cancel(conn->retry);
	if (reading && conn->has_more)
		kick(conn);
	conn->watched = wanted(conn) | (in_vain ? 0 : conn->watched & LOOP_READ);
	loop_watch_set(conn->watch, conn->watched);
}

/* The whole of the above in its order; false when the connection ended or was freed on the way. */
static bool
drive_steps(struct conn *conn, bool is_readable)
{
	if (conn->is_connecting && !connect_step(conn))
		return false;
	if (conn->is_connecting)
		return true;
	/* A peer that has had enough says so and leaves: the write would only find out the latter.
	 */
	if (is_readable && conn_pending(conn) > 0 && wants_input(conn)) {
		if (!read_some(conn))
			return false;
		is_readable = false;
	}
	if (!flush(conn))
		return false;
	if (conn->tls == TLS_WAITING && conn->clear_left == 0 && !handshake_start(conn))
		return false;
	if (conn->tls == TLS_HANDSHAKE) {
		if (!handshake_step(conn))
			return false;
		if (conn->tls == TLS_HANDSHAKE)
			return true;
	}
	is_readable = is_readable || conn->has_more;
	if (is_readable && wants_input(conn) && !read_some(conn))
		return false;
	/* What the callback above wrote leaves at the end of this turn, with what others still add
	 * to it. */
	if (conn->is_finishing)
		return flush(conn) && finish_step(conn);
	return true;
}

static void
drive(struct conn *conn, bool is_readable)
{
	bool in_vain = is_readable && !(wanted(conn) & LOOP_READ) && !conn->read_wants_write;

	if (conn->is_ended || conn->is_freed)
		return;
	conn->depth++;
	/* Kicked, it is driven again in this turn, and most often writes all of its output then. */
	if (drive_steps(conn, is_readable) && !conn->is_ended && !conn->is_freed &&
	    !conn->is_kicked)
		set_interest(conn, in_vain);
	conn->depth--;
	release(conn);
}

static void
on_ready(void *arg, unsigned ready)
{
	struct conn *conn = arg;

	drive(conn, (ready & LOOP_READ) || conn->read_wants_write);
}

static void
on_deadline(void *arg)
{
	struct conn *conn = arg;

	conn->depth++;
	end(conn, conn->is_half_shut ? CONN_EOF : CONN_TIMEOUT);
	conn->depth--;
	release(conn);
}

static struct conn *
conn_new(struct loop *loop, int fd, size_t input_max, const struct conn_events *events, void *arg)
{
	struct conn *conn = xcalloc(1, sizeof(*conn));
	static bool is_deaf;
	int on = 1;

	assert(input_max > 0 && events->on_input && events->on_end);
	/* OpenSSL writes with write(2): a peer that left must not kill us. */
	if (!is_deaf)
		is_deaf = signal(SIGPIPE, SIG_IGN) != SIG_ERR;
	conn->loop = loop;
	conn->fd = fd;
	conn->in_max = input_max;
	conn->events = events;
	conn->arg = arg;
	buf_init(&conn->in);
	buf_init(&conn->out);
	if (fd >= 0) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		conn->watch = loop_watch_new(loop, fd, on_ready, conn);
	}
	conn->deadline = loop_timer_new(loop, on_deadline, conn);
	return conn;
}

struct conn *
conn_accept(struct loop *loop, int fd_take, size_t input_max, const struct conn_events *events,
            void *arg)
{
	struct conn *conn = conn_new(loop, fd_take, input_max, events, arg);

	kick(conn);
	return conn;
}

static void
on_connect_refused(void *arg)
{
	struct conn *conn = arg;

	conn->is_kicked = false;
	if (!conn->is_freed) {
		conn->depth++;
		end(conn, CONN_ERROR);
		conn->depth--;
	}
	release(conn);
}

struct conn *
conn_connect(struct loop *loop, const struct sockaddr *address, socklen_t len, size_t input_max,
             const struct conn_events *events, void *arg)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct conn *conn = conn_new(loop, fd, input_max, events, arg);

	conn->is_connecting = true;
	if (fd < 0 || (connect(fd, address, len) != 0 && errno != EINPROGRESS)) {
		snprintf(conn->error, sizeof(conn->error), "connect: %s", strerror(errno));
		conn->is_kicked = true;
		loop_defer(loop, on_connect_refused, conn);
		return conn;
	}
	kick(conn);
	return conn;
}

void
conn_free(struct conn *conn)
{
	if (!conn)
		return;
	assert(!conn->is_freed);
	conn->is_freed = true;
	if (conn->wait.sign)
		tls_abandon(conn->ssl, &conn->wait);
	SSL_free(conn->ssl);
	conn->ssl = NULL;
	if (conn->watch)
		loop_watch_free(conn->watch);
	loop_timer_free(conn->deadline);
	if (conn->retry)
		loop_timer_free(conn->retry);
	if (conn->fd >= 0)
		close(conn->fd);
	conn->fd = -1;
	buf_wipe(&conn->in);
	buf_wipe(&conn->out);
	release(conn);
}

void
conn_finish(struct conn *conn, msec_t timeout)
{
	if (conn->is_ended || conn->is_finishing)
		return;
	conn->is_finishing = true;
	conn->finish_by = clock_mono() + timeout;
	conn->in_at = 0;
	buf_wipe(&conn->in);
	loop_timer_arm(conn->deadline, timeout);
	kick(conn);
}

const uint8_t *
conn_input(struct conn *conn, size_t *len)
{
	*len = in_len(conn);
	return *len > 0 ? conn->in.data + conn->in_at : NULL;
}

void
conn_consume(struct conn *conn, size_t len)
{
	assert(len <= in_len(conn));
	conn->in_at += len;
	if (conn->in_at == conn->in.len) {
		/* An idle connection keeps no buffer; what was in it may have been a password. */
		buf_wipe(&conn->in);
		conn->in_at = 0;
	}
	if (len > 0)
		kick(conn);
}

void
conn_pause_input(struct conn *conn, bool paused)
{
	if (conn->is_paused == paused)
		return;
	conn->is_paused = paused;
	kick(conn);
}

void
conn_write(struct conn *conn, const void *data, size_t len)
{
	if (len == 0 || conn->is_ended || conn->is_finishing || conn->is_unheard)
		return;
	buf_add(&conn->out, data, len);
	conn->is_drain_due = true;
	kick(conn);
}

size_t
conn_pending(const struct conn *conn)
{
	return conn->out.len - conn->out_at;
}

void
conn_set_timeout(struct conn *conn, msec_t delay)
{
	if (conn->is_ended || conn->is_finishing)
		return;
	if (delay > 0)
		loop_timer_arm(conn->deadline, delay);
	else
		loop_timer_cancel(conn->deadline);
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
	kick(conn);
	return 0;
}

int
conn_start_tls_server(struct conn *conn, struct tls_server *server)
{
	if (in_len(conn) > 0 || conn->is_ended)
		return -1;
	return start_tls(conn, tls_server_ssl(server));
}

int
conn_start_tls_client(struct conn *conn, struct tls_client *client, const char *server_name)
{
	if (in_len(conn) > 0 || conn->is_ended)
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

const char *
conn_error(const struct conn *conn)
{
	return conn->error;
}
