#include "core/conn_int.h"

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

#include "core/mem.h"

#define READ_MAX    (16u * 1024) /* per system call; also a TLS record */
#define LINGER      1000         /* msec for the peer to close after us */
#define JOB_RETRY   20           /* msec until a handshake that found no free job tries again */
#define PAUSE_CHECK 1000 /* msec between looks for the end of a connection that nobody reads */

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

void
conn_kick(struct conn *conn)
{
	if (conn->is_kicked || conn->is_ended || conn->is_freed)
		return;
	conn->is_kicked = true;
	loop_defer(conn->loop, on_kick, conn);
}

bool
conn_call(struct conn *conn, void (*callback)(void *arg))
{
	if (!callback)
		return true;
	conn->depth++;
	callback(conn->arg);
	conn->depth--;
	return !conn->is_freed && !conn->is_ended;
}

void
conn_close(struct conn *conn, enum conn_end why)
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
	if (conn->chore)
		loop_chore_cancel(conn->chore);
	conn->depth++;
	conn->events->on_end(conn->arg, why);
	conn->depth--;
}

void
conn_fail(struct conn *conn, const char *what, const char *why)
{
	snprintf(conn->error, sizeof(conn->error), "%s: %s", what, why);
	conn_close(conn, CONN_ERROR);
}

bool
conn_is_gone(int error)
{
	return error == ECONNRESET || error == EPIPE;
}

void
conn_fail_errno(struct conn *conn, const char *what, int error)
{
	if (conn_is_gone(error))
		conn_close(conn, CONN_EOF);
	else
		conn_fail(conn, what, strerror(error));
}

static bool
is_again(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

size_t
conn_in_len(const struct conn *conn)
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
	return !conn->is_paused && !conn->is_input_ended && conn_in_len(conn) < conn->in_max &&
	       conn_pending(conn) <= CONN_OUTPUT_HIGH;
}

bool
conn_drop_output(struct conn *conn)
{
	conn->is_unheard = true;
	buf_wipe(&conn->out);
	conn->out_at = 0;
	conn->is_drain_due = false;
	if (!conn->is_half_shut && !wants_input(conn)) {
		conn_close(conn, CONN_EOF);
		return false;
	}
	return true;
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
		conn_fail(conn, "connect", strerror(error));
		return false;
	}
	conn->is_connecting = false;
	return conn_call(conn, conn->events->on_open);
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
		/* At most a record; after a refusal OpenSSL insists on no less than before, and
		 * pending only grows. */
		int done = conn_tls_write(conn, data, len < READ_MAX ? len : READ_MAX, &written);

		if (done <= 0)
			return done;
	} else {
		if (conn->tls == TLS_WAITING && len > conn->clear_left)
			len = conn->clear_left;
		sent = send(conn->fd, data, len, MSG_NOSIGNAL);
		if (sent < 0 && is_again(errno))
			return 0;
		if (sent < 0 && conn_is_gone(errno))
			return conn_drop_output(conn) ? 0 : -1;
		if (sent < 0) {
			conn_fail_errno(conn, "write", errno);
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

	/* The last reply, close_notify and our FIN in one segment. */
	if (conn->is_finishing && conn_pending(conn) > 0)
		(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int));
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
			return conn_call(conn, conn->events->on_drained);
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
	if (conn->tls == TLS_SECURE && !conn_tls_shutdown(conn))
		return true;
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
	conn_close(conn, CONN_EOF);
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
		int done = conn_tls_read(conn, to, room, &got);

		if (done <= 0) {
			if (done == 0 && conn->in.len == 0)
				buf_clear(&conn->in);
			return done == 0;
		}
	} else {
		ssize_t n = recv(conn->fd, to, room, 0);

		if (n < 0 && is_again(errno)) {
			if (conn->in.len == 0)
				buf_clear(&conn->in);
			return true;
		}
		if (n < 0) {
			conn_fail_errno(conn, "read", errno);
			return false;
		}
		if (n == 0 && conn->events->on_input_end != NULL) {
			conn->is_input_ended = true;
			return conn_call(conn, conn->events->on_input_end);
		}
		if (n == 0) {
			conn_close(conn, CONN_EOF);
			return false;
		}
		got = (size_t)n;
	}
	buf_commit(&conn->in, got);
	conn->has_read = true;
	return conn_call(conn, conn->events->on_input);
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
		conn_close(conn, CONN_EOF);
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
	if (wants_input(conn) && !conn->is_queued)
		interest |= conn->read_wants_write ? LOOP_WRITE : LOOP_READ;
	if (conn_pending(conn) > 0 || (conn->is_finishing && !conn->is_half_shut))
		interest |= conn->write_wants_read ? LOOP_READ : LOOP_WRITE;
	return interest;
}

/* One piece; whether there may be more. */
static bool
read_turn(void *arg)
{
	struct conn *conn = arg;
	bool more = false;

	conn->depth++;
	conn->is_turn = true;
	conn->has_read = false;
	drive(conn, true);
	conn->is_turn = false;
	if (!conn->is_ended && !conn->is_freed) {
		more = conn->is_bulk && conn->has_read && wants_input(conn);
		conn->is_queued = more;
		if (!more)
			conn_kick(conn);
	}
	conn->depth--;
	release(conn);
	return more;
}

static void
queue_input(struct conn *conn)
{
	if (conn->is_queued)
		return;
	if (!conn->chore)
		conn->chore = loop_chore_new(conn->loop, read_turn, conn);
	conn->is_queued = true;
	loop_chore_begin(conn->chore);
}

void
conn_set_bulk(struct conn *conn, bool bulk)
{
	conn->is_bulk = bulk;
	if (bulk || !conn->is_queued || conn->is_turn)
		return;
	loop_chore_cancel(conn->chore);
	conn->is_queued = false;
	conn_kick(conn);
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
	if (reading && conn->has_more && conn->is_bulk)
		queue_input(conn);
	else if (reading && conn->has_more)
		conn_kick(conn);
	conn->watched = wanted(conn) | (in_vain || conn->is_queued ? 0 : conn->watched & LOOP_READ);
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
	if (conn->is_bulk && !conn->is_turn)
		is_readable = false;
	/* A peer that has had enough says so and leaves: the write would only find out the latter.
	 */
	if (is_readable && conn_pending(conn) > 0 && wants_input(conn)) {
		if (!read_some(conn))
			return false;
		is_readable = false;
	}
	if (!flush(conn))
		return false;
	if (conn->tls == TLS_WAITING && conn->clear_left == 0 && !conn_handshake_start(conn))
		return false;
	if (conn->tls == TLS_HANDSHAKE) {
		if (!conn_handshake_step(conn))
			return false;
		if (conn->tls == TLS_HANDSHAKE)
			return true;
	}
	is_readable = is_readable || (conn->has_more && !conn->is_bulk);
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

	const bool is_readable = (ready & LOOP_READ) || conn->read_wants_write;

	if (is_readable && conn->is_bulk && wants_input(conn))
		queue_input(conn);
	drive(conn, is_readable);
}

static void
on_deadline(void *arg)
{
	struct conn *conn = arg;

	conn->depth++;
	conn_close(conn, conn->is_half_shut ? CONN_EOF : CONN_TIMEOUT);
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

	conn_kick(conn);
	return conn;
}

static void
on_connect_refused(void *arg)
{
	struct conn *conn = arg;

	conn->is_kicked = false;
	if (!conn->is_freed) {
		conn->depth++;
		conn_close(conn, conn->is_local ? CONN_LOCAL : CONN_ERROR);
		conn->depth--;
	}
	release(conn);
}

/* Without a port: the kernel finds one at connect(2), free for that peer, so that not all
 * connections of an address share its 28,000 ports. */
static int
bind_source(int fd, const struct sockaddr *source, socklen_t len)
{
	const int on = 1;

	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	return bind(fd, source, len);
}

struct conn *
conn_connect(struct loop *loop, const struct sockaddr *address, socklen_t len,
             const struct sockaddr *source, size_t input_max, const struct conn_events *events,
             void *arg)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct conn *conn = conn_new(loop, fd, input_max, events, arg);
	const bool is_bound = fd < 0 || !source || bind_source(fd, source, len) == 0;

	conn->is_connecting = true;
	conn->is_local = fd < 0 || !is_bound;
	if (fd < 0 || !is_bound || (connect(fd, address, len) != 0 && errno != EINPROGRESS)) {
		snprintf(conn->error, sizeof(conn->error), "%s: %s",
		         is_bound ? "connect" : "source address", strerror(errno));
		conn->is_kicked = true;
		loop_defer(loop, on_connect_refused, conn);
		return conn;
	}
	conn_kick(conn);
	return conn;
}

void
conn_hand_over(struct conn *conn, const struct conn_events *events, void *arg)
{
	conn->events = events;
	conn->arg = arg;
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
	loop_chore_free(conn->chore);
	conn->chore = NULL;
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
	conn_kick(conn);
}

const uint8_t *
conn_input(struct conn *conn, size_t *len)
{
	*len = conn_in_len(conn);
	return *len > 0 ? conn->in.data + conn->in_at : NULL;
}

void
conn_consume(struct conn *conn, size_t len)
{
	assert(len <= conn_in_len(conn));
	conn->in_at += len;
	if (conn->in_at == conn->in.len) {
		/* An idle connection keeps no buffer; what was in it may have been a password. */
		buf_wipe(&conn->in);
		conn->in_at = 0;
	}
	if (len > 0)
		conn_kick(conn);
}

void
conn_pause_input(struct conn *conn, bool paused)
{
	if (conn->is_paused == paused)
		return;
	conn->is_paused = paused;
	conn_kick(conn);
}

void
conn_write(struct conn *conn, const void *data, size_t len)
{
	if (len == 0 || conn->is_ended || conn->is_finishing || conn->is_unheard)
		return;
	buf_add(&conn->out, data, len);
	conn->is_drain_due = true;
	conn_kick(conn);
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

const char *
conn_error(const struct conn *conn)
{
	return conn->error;
}
