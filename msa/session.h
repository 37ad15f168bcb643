/* One client's connection: what it has said and proved so far, and the driver that reads its lines.
 *
 * session.c (its life) and driver.c (what it reads, and when) are the only code that reads lines,
 * sends replies, sets timers and frees; the handlers (command.h) read and change the fields of
 * struct session through the functions here. */
#ifndef MSA_SESSION_H
#define MSA_SESSION_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/client.h"
#include "auth/identity.h"
#include "auth/prefix.h"
#include "core/arena.h"
#include "core/buf.h"
#include "core/clock.h"
#include "core/conf.h"
#include "core/conn.h"
#include "core/loop.h"
#include "core/service.h"
#include "core/tls.h"
#include "msa/replies.h"
#include "queue/client.h"
#include "smtp/address.h"
#include "smtp/command.h"
#include "smtp/data.h"
#include "smtp/envelope.h"
#include "smtp/header.h"

#define SESSION_OVERSIZE_READ 10 /* times limits.message_size: what is read of refused content */

struct session;
enum handled;

/* What all sessions of the process share. */
struct msa {
	struct loop *loop;
	const struct conf *conf;
	struct tls_server *tls;
	struct auth_client *auth;
	struct queue_client *queue;
	unsigned index, processes; /* which of the msa processes, of how many */
	struct session *sessions;  /* head of the list */
	struct balanced *balanced; /* likewise: connections that will be sessions, see balancer.h */
	size_t session_count;      /* of both */
	size_t session_limit;      /* limits.sessions, or what descriptors suffice for */
	enum service_load load;
	uint64_t next_number;
	bool stopping;
	void (*on_session_gone)(struct msa *msa);
};

enum session_state {
	SESSION_HANDSHAKE = 1,   /* TLS is being set up */
	SESSION_GREETED = 2,     /* no EHLO yet, or forgotten after STARTTLS */
	SESSION_READY = 4,       /* EHLO said, no transaction */
	SESSION_SASL = 8,        /* a login waits for the client's answer */
	SESSION_MAIL = 16,       /* MAIL said, no recipient accepted */
	SESSION_RCPT = 32,       /* at least one recipient accepted */
	SESSION_DATA = 64,       /* content flows, or its commit is under way */
	SESSION_CONNECTED = 128, /* the client has come, and we have not yet greeted */
	SESSION_CHUNKS = 256,    /* a chunk came, and the last one did not */
};

/* MAIL to the reply to end-of-data. Everything here ends with session_reset. */
struct transaction {
	struct arena *arena;     /* owned */
	const struct conf *conf; /* a reference: what holds for its content, whatever is reloaded */
	struct queue_submission *submission; /* owned: holds the reservations */
	struct command_mail mail;
	struct envelope_recipient pending; /* the recipient whose reservation is under way */
	char pending_orcpt[ENVELOPE_ORCPT_MAX + 1];
	struct envelope_recipient *recipients; /* owned, malloc; their texts are in the arena */
	size_t recipient_count, recipient_room;
	size_t recipient_octets; /* see QUEUE_RECIPIENTS_OCTETS */
	unsigned refused;        /* recipients refused */
	char id[QUEUE_ID_TEXT_SIZE];
	struct data_in in;
	struct header *header;      /* in the arena */
	bool over_size;             /* content is consumed and dropped */
	bool by_chunks;             /* BDAT rather than DATA */
	bool is_last;               /* the chunk that flows */
	bool spoiled;               /* a chunk was refused, so all of it is */
	uint64_t announced;         /* octets of all chunks so far */
	uint64_t chunk, chunk_left; /* octets of the one that flows */
	uint64_t received;          /* octets of content as they came */
	bool begun;                 /* content has begun: allowance has a meaning */
	int64_t allowance;          /* nsec the client may still take for it, see driver.c */
	bool paused;                /* the queue takes no more for now */
};

struct session {
	struct msa *msa;
	struct session *prev, *next;
	struct conn *conn; /* owned */
	uint64_t number;
	char id[24]; /* number as text, for the log */
	char ip[INET6_ADDRSTRLEN], prefix[PREFIX_SIZE];
	uint16_t port;
	msec_t since; /* wall clock */
	bool implicit_tls;

	enum session_state state;
	bool waiting; /* an answer is pending: no command is read */
	bool closing; /* only the rest of the output and the end are still to come */
	bool ending;  /* last_word is to be said as soon as nothing is promised */
	enum reply_name last_word;
	bool ended;                  /* on_end was called: freed when the outermost call returns */
	bool skipping;               /* inside a line that was refused as too long */
	uint64_t discard;            /* octets to come of a chunk that was refused */
	bool start_tls;              /* set by a handler: TLS starts behind the reply */
	unsigned depth;              /* calls of the driver on the stack */
	struct buf out;              /* replies not yet given to conn */
	struct loop_timer *deadline; /* the client's */
	msec_t awaited;              /* clock_mono of the client's turn, for which deadline runs */
	msec_t came;                 /* clock_mono */
	struct loop_timer *delay;    /* ours, see session_delay */
	void (*on_delay)(struct session *session);

	char ehlo[ADDRESS_DOMAIN_MAX + 1];
	unsigned extensions; /* COMMAND_* that EHLO offered: MAIL and RCPT take their parameters */
	struct auth_login *login; /* owned while an exchange runs */
	char mechanism[24];
	char *account;                   /* owned; NULL before a login */
	char class[QUEUE_CLASS_MAX + 1]; /* the account's plan */
	struct identities *identities;   /* owned: what it may send as */
	unsigned auth_failures;
	bool is_suspended; /* what the last of them was about */
	unsigned errors;
	unsigned over_limit; /* refusals because the account was over a limit */
	uint64_t messages;
	struct transaction transaction;
};

/* Takes an accepted, non-blocking socket and greets; the session then looks after itself. client is
 * who is at the other end; via is the balancer between, NULL for none. */
void session_new(struct msa *msa, int fd_take, const struct sockaddr *client,
                 const struct sockaddr *via, bool implicit_tls);
/* Ends it with this reply, which is one that nobody asked for: at once, or where a handshake is
 * under way behind it, or where data flows or its fate is not known yet behind the reply to that.
 * rule is for the log; NULL when it is none, or was told. */
void session_end(struct session *session, enum reply_name last_word, const char *rule);
/* What sekisho-auth is told of it. */
void session_describe(const struct session *session, struct auth_session *out);
/* The service stops: as session_end, but no handshake is waited for. */
void session_stop(struct session *session);
/* Ends it without another word. */
void session_abort(struct session *session);

/* For handlers. Adds one reply line with the arguments its row names. */
void session_say(struct session *session, enum reply_name name, ...);
/* Ends a HANDLED_LATER: the reply was said. */
void session_done(struct session *session, enum handled handled);
/* For HANDLED_LATER: calls on_delay after delay milliseconds. */
void session_delay(struct session *session, msec_t delay,
                   void (*on_delay)(struct session *session));
/* Ends the transaction, if any: reservations are released. */
void session_reset(struct session *session);
/* Content begins to flow: from now on limits.data_rate counts, until the transaction ends. */
void session_begin_data(struct session *session);
/* The queue takes no more for now / again. */
void session_pause(struct session *session);
void session_unpause(struct session *session);
/* Whether content has begun to come and may still be accepted. */
bool session_is_in_content(const struct session *session);
bool session_is_secure(const struct session *session);
/* Class and identities of the account it belongs to, as they are from now on. */
void session_set_account(struct session *session, const struct auth_account *account);
/* Whether the account may send as this address; logged where only its class says so. */
bool session_owns(const struct session *session, const struct address *address);
/* Says the reply to a verdict other than QUEUE_OK, and logs the rule. */
void session_say_verdict(struct session *session, enum queue_verdict verdict,
                         const struct queue_quota *quota);

#endif
