/* Asking sekisho-queue: submission, for msa. See queue/worker.h for relay and queue/control.h for
 * admin.
 *
 * Every answer comes through a callback, never from inside the call, exactly once, unless the
 * submission is freed first. */
#ifndef QUEUE_CLIENT_H
#define QUEUE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ipc.h"
#include "queue/id.h"
#include "smtp/address.h"
#include "smtp/envelope.h"

#define QUEUE_INLINE_MAX                                                                           \
	(64u * 1024) /* octets of body that travel in the frame; a larger body gets a file */
#define QUEUE_PREFIX_MAX     4000 /* octets of prefix header */
#define QUEUE_MESSAGE_ID_MAX 255  /* octets that are kept of a Message-ID */
#define QUEUE_PROTOCOL_MAX   15   /* octets of "ESMTPSA" and the like */
#define QUEUE_RECIPIENTS_MAX 1000 /* the largest limits.recipients */
#define QUEUE_RECIPIENTS_OCTETS                                                                    \
	300000 /* of a message's recipients, so that they fit one frame: the texts of each and     \
	          QUEUE_RECIPIENT_OCTETS more */
#define QUEUE_RECIPIENT_OCTETS 8
#define QUEUE_TIMEOUT          120000 /* msec for a commit; a reservation gets 10 s */
#define QUEUE_LOST_REPLY                                                                           \
	30000 /* msec during which a restarted queue is asked about a lost reply                   \
	       */

struct queue_client;
/* The link to sekisho-queue is borrowed; its on_up and on_down must be passed on with the two
 * functions below. */
struct queue_client *queue_client_new(struct loop *loop, struct ipc_link *link);
void queue_client_free(struct queue_client *client);
void queue_client_on_up(struct queue_client *client);
void queue_client_on_down(struct queue_client *client);

enum queue_verdict {
	QUEUE_OK,
	QUEUE_OVER,     /* a cap of the account: 450 4.7.1; struct queue_quota tells which one */
	QUEUE_TOO_FAST, /* beyond what is paced: 450 4.7.1; struct queue_quota tells until when */
	QUEUE_FULL,     /* disk or map: 452 4.3.1 */
	QUEUE_UNAVAILABLE, /* down, late or an I/O error: 451 4.3.0; nothing was accepted */
};
enum queue_meter { QUEUE_RECIPIENTS, QUEUE_MESSAGES, QUEUE_METERS };
struct queue_quota {
	enum queue_meter meter;         /* QUEUE_OVER: the one that refused; else recipients */
	uint32_t limit, used, reserved; /* of that meter, in the account's window */
	msec_t reset; /* wall clock of the first moment at which one more fits (QUEUE_TOO_FAST: at
	                 which mail is taken again); 0: now */
	msec_t start; /* paced: wall clock of the expected start; 0: at once */
};
typedef void queue_on_verdict(void *arg, enum queue_verdict verdict,
                              const struct queue_quota *quota);

/* One transaction's dealings with the queue: reservations, body, commit. */
struct queue_submission;
#define QUEUE_CLASS_MAX 31 /* octets of a class name */
/* account and class are copied. */
struct queue_submission *queue_submission_new(struct queue_client *client, const char *account,
                                              const char *class);
/* Releases every reservation and an unfinished body. A commit that is under way goes on without a
 * callback. NULL is harmless. */
void queue_submission_free(struct queue_submission *submission);
const struct queue_id *queue_submission_id(const struct queue_submission *submission);

/* What the client says that its message will have, in octets: one for which there is no room is
 * refused with its first recipient. */
void queue_submission_announce(struct queue_submission *submission, uint64_t size);

/* Reserves one recipient more. Several may be under way; answers come in order. */
void queue_submission_reserve(struct queue_submission *submission, queue_on_verdict *on_verdict,
                              void *arg);
/* What the account could still send, at most a second late: as queue_submission_reserve, but
 * nothing is taken. QUEUE_OK or QUEUE_UNAVAILABLE. */
void queue_submission_look(struct queue_submission *submission, queue_on_verdict *on_verdict,
                           void *arg);
/* Gives one reserved recipient back (it was refused after all). */
void queue_submission_release(struct queue_submission *submission);

/* Body, in order of arrival. Octets are copied up to QUEUE_INLINE_MAX; beyond that they stream into
 * a file of the queue through a descriptor fetched on the way. False asks the caller to pause input
 * until on_ready (given to _start) is called. */
typedef void queue_on_ready(void *arg);
void queue_submission_body_start(struct queue_submission *submission, queue_on_ready *on_ready,
                                 void *arg);
bool queue_submission_body(struct queue_submission *submission, const void *data, size_t len);

struct queue_envelope { /* all borrowed for the call */
	struct address from;
	const struct envelope_recipient *recipients; /* within QUEUE_RECIPIENTS_OCTETS */
	size_t recipient_count;                      /* equals the live reservations */
	struct envelope envelope;
	const void *prefix; /* header fields added in front */
	size_t prefix_len;
	const char *client_ip;
	uint16_t client_port;
	const char *ehlo;
	/* For whoever asks what became of it; "" when unknown. */
	const char *protocol;   /* as in Received */
	const char *message_id; /* without angle brackets */
};
/* QUEUE_OK only once body, envelope and charge are durable. While the queue restarts, waits up to
 * QUEUE_LOST_REPLY for its word on a lost reply; never says OK without it. The submission is then
 * ended: free it. */
void queue_submission_commit(struct queue_submission *submission,
                             const struct queue_envelope *envelope, queue_on_verdict *on_verdict,
                             void *arg);

#endif
