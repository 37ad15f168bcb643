/* What the two files of a connection share: core/conn.c drives it, core/conn_tls.c speaks to
 * OpenSSL.
 */
#ifndef CORE_CONN_INT_H
#define CORE_CONN_INT_H

#include "core/buf.h"
#include "core/conn.h"
#include "core/tls_int.h"

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
	bool is_local; /* it could not even call */
	bool is_paused;
	bool is_bulk;
	bool is_queued;           /* its input waits for its turn among the chores */
	bool is_turn;             /* which is now */
	bool has_read;            /* and brought something */
	struct loop_chore *chore; /* made when first needed */
	bool is_input_ended;      /* on_input_end was called */
	bool is_unheard;   /* the peer takes nothing more; what it said before is still read */
	bool is_finishing; /* conn_finish was called */
	bool is_half_shut; /* our FIN is out */
	bool is_ended;     /* on_end was called */
	bool is_freed;     /* by the owner; the struct waits for depth and kicked */
	bool is_kicked;    /* loop_defer holds this connection */
	unsigned watched;  /* what the loop waits for, LOOP_* */
	bool is_drain_due; /* output was queued since the last on_drained */
	unsigned depth;    /* callbacks under way */
	msec_t finish_by;  /* clock_mono */
	char error[200];
};

/* ---- core/conn.c; after those that say "True while" the owner may have freed the connection */

/* Drives the connection before the loop waits again. */
void conn_kick(struct conn *conn);
/* Calls back the owner, who may be NULL. True while the connection lives. */
bool conn_call(struct conn *conn, void (*callback)(void *arg));
/* Tells the owner of the end, once. */
void conn_close(struct conn *conn, enum conn_end why);
void conn_fail(struct conn *conn, const char *what, const char *why);
/* A system call failed for good: a peer that left is an end, everything else an error. */
void conn_fail_errno(struct conn *conn, const char *what, int error);
/* Whether that error of a write says that the peer is gone. */
bool conn_is_gone(int error);
/* After such a write. True while the connection lives, see is_unheard. */
bool conn_drop_output(struct conn *conn);
size_t conn_in_len(const struct conn *conn);

/* ---- core/conn_tls.c */

/* Clear output is out. True while the connection lives. */
bool conn_handshake_start(struct conn *conn);
/* Does what can be done now; tls and tls_interest tell. True while the connection lives. */
bool conn_handshake_step(struct conn *conn);
/* TLS_SECURE only: 1 done, 0 not now (write_wants_read, read_wants_write), -1 the connection ended.
 */
int conn_tls_write(struct conn *conn, const uint8_t *data, size_t len, size_t *written);
int conn_tls_read(struct conn *conn, uint8_t *to, size_t room, size_t *got);
/* Says close_notify; false: not now. */
bool conn_tls_shutdown(struct conn *conn);

#endif
