/* One stream connection, plain or TLS, accepted or made: non-blocking, bounded both ways, with its
 * timeouts.
 *
 * The only code that reads or writes a peer's socket, but for a PROXY header, which msa/balancer.c
 * takes off before a connection begins here. Input waits in a bounded buffer until the
 * owner consumes it; reading stops while it is full, while output is above CONN_OUTPUT_HIGH, or
 * while the owner paused it. STARTTLS: octets that came in clear text behind the command are an
 * attack (they would count as encrypted): conn_start_tls refuses. */
#ifndef CORE_CONN_H
#define CORE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/loop.h"
#include "core/tls.h"

#define CONN_OUTPUT_HIGH (64u * 1024)

struct conn;

enum conn_end {
	CONN_EOF,     /* the peer closed its side, or reset */
	CONN_TIMEOUT, /* the deadline set by conn_set_timeout passed */
	CONN_ERROR,   /* connect, socket or TLS failure; conn_error says which */
	CONN_LOCAL, /* the same on our side: no socket, or the source is not ours; nobody was called
	             */
};

struct conn_events {
	void (*on_open)(
	    void *arg); /* an outbound connect succeeded; may be NULL for accepted ones */
	void (*on_secure)(void *arg);  /* a TLS handshake finished; may be NULL */
	void (*on_input)(void *arg);   /* there is unconsumed input, more than at the last call */
	void (*on_drained)(void *arg); /* output that was pending is all written; may be NULL */
	void (*on_end)(
	    void *arg,
	    enum conn_end why); /* at most once; the owner calls conn_free, now or later */
	/* The peer of a plain connection will send no more but may still read; once. NULL: that is
	 * the end, CONN_EOF. */
	void (*on_input_end)(void *arg);
};

/* Takes an accepted non-blocking socket. input_max bounds unconsumed input. Events and arg are
 * borrowed. Plain until conn_start_tls. */
struct conn *conn_accept(struct loop *loop, int fd_take, size_t input_max,
                         const struct conn_events *events, void *arg);
/* Starts a non-blocking connect, from the address of this machine that source names (of the same
 * family; NULL: any); on_open or on_end follows. */
struct conn *conn_connect(struct loop *loop, const struct sockaddr *address, socklen_t len,
                          const struct sockaddr *source, size_t input_max,
                          const struct conn_events *events, void *arg);
/* Events go to another owner from now on, who may also take it over inside a callback. */
void conn_hand_over(struct conn *conn, const struct conn_events *events, void *arg);
/* Closes at once; no callback follows. Safe inside callbacks, and while a signature is pending.
 * NULL is harmless. */
void conn_free(struct conn *conn);
/* Writes what is pending (bounded by timeout), closes TLS properly, then calls on_end(CONN_EOF);
 * input is dropped. */
void conn_finish(struct conn *conn, msec_t timeout);

/* Unconsumed input, contiguous; NULL when there is none. Valid until consume or return to the loop.
 */
const uint8_t *conn_input(struct conn *conn, size_t *len);
void conn_consume(struct conn *conn, size_t len);
/* While paused no further input is read from the socket (an end of the connection is still
 * noticed). */
void conn_pause_input(struct conn *conn, bool paused);

/* While bulk its input may wait for what is short: it is read as a chore of the loop. */
void conn_set_bulk(struct conn *conn, bool bulk);

/* Queues a copy for writing at the end of this turn of the loop, so that several replies leave in
 * one segment. */
void conn_write(struct conn *conn, const void *data, size_t len);
/* Octets queued and not yet taken by the kernel. */
size_t conn_pending(const struct conn *conn);

/* on_end(CONN_TIMEOUT) unless set again within delay; 0 for none. */
void conn_set_timeout(struct conn *conn, msec_t delay);

/* Starts TLS as server or client, after pending output is written in clear. -1 when clear-text
 * input is waiting. */
int conn_start_tls_server(struct conn *conn, struct tls_server *server);
/* server_name: for SNI, and to be verified by a client that verifies; "": none. */
int conn_start_tls_client(struct conn *conn, struct tls_client *client, const char *server_name);
bool conn_is_secure(const struct conn *conn);
/* "TLSv1.3" and "TLS_AES_256_GCM_SHA384"; "" while plain. */
const char *conn_tls_version(const struct conn *conn);
const char *conn_tls_cipher(const struct conn *conn);
/* Why CONN_ERROR, in words for an operator. */
const char *conn_error(const struct conn *conn);

#endif
