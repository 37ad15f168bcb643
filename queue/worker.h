/* The relay's side of the queue: jobs in, outcomes back. One worker per relay process, bound to one
 * lane, which may have several.
 *
 * A job is one message to some recipients in one domain, with a read-only descriptor on its body.
 * The relay says how many jobs it can carry; the queue never has more under way. An outcome that
 * the queue did not hear (it was restarted) is said again by this module when it returns; jobs that
 * have not yet sent their final dot are abandoned then, because the new queue will hand them out
 * again. */
#ifndef QUEUE_WORKER_H
#define QUEUE_WORKER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/ipc.h"
#include "queue/id.h"
#include "smtp/address.h"
#include "smtp/envelope.h"
#include "smtp/reply.h"

enum queue_lane { QUEUE_FRESH, QUEUE_RETRY, QUEUE_FALLBACK, QUEUE_LANES };
const char *queue_lane_name(enum queue_lane lane); /* "fresh", "retry", "fallback" */

struct queue_recipient {
	uint16_t index; /* its place in the message's envelope */
	struct address address;
	unsigned notify;   /* NOTIFY_* bits, as in struct envelope_recipient */
	const char *orcpt; /* in the arena; "" when not given */
};
/* "mx.example.net", "mx1.example.net+3f2a": the MX hosts that serve a domain, see dns_result. */
#define QUEUE_SITE_SIZE 264

/* The addresses of this machine that a job may leave from. */
#define QUEUE_POOL_SIZE 32
struct queue_egress {
	char pool[QUEUE_POOL_SIZE]; /* what they are, for people; "": any address will do */
	bool has_v4, has_v6;
	struct in_addr v4;
	struct in6_addr v6;
};

struct queue_job { /* lives until queue_job_done or on_abandon returns; so does everything in it */
	struct arena *arena; /* the attempt's memory, for the relay too */
	uint64_t number;     /* unique for one incarnation of the queue */
	struct queue_id id;
	unsigned attempt; /* 1 for the first */
	struct address from;
	const char *domain; /* where all recipients are */
	struct envelope envelope;
	const uint8_t *prefix; /* to be sent before the body */
	size_t prefix_len;
	int body_fd; /* read-only, closed by this module */
	uint64_t body_offset, body_size;
	uint64_t body_checksum; /* XXH3-64: what reads otherwise must not be sent */
	struct queue_recipient *recipients;
	size_t recipient_count;
	struct queue_egress egress;
	unsigned session_recipients; /* on one connection, those of other jobs too; 0: no bound */
	unsigned session_messages;   /* the same; 0: relay.deliveries */
	bool by_fallback_host;       /* not to MX hosts, but to fallback.host */
	const char *next_hop; /* to that host, whatever the configuration says, as conf_host_text
	                         writes it; "": as it says */
};

enum queue_fate {
	QUEUE_DELIVERED, /* the remote's 250 to the final dot */
	QUEUE_DEFERRED,  /* 4xx, or no contact: tried again by the schedule */
	QUEUE_FAILED,    /* 5xx: bounced */
};
struct queue_outcome {
	uint16_t index;
	enum queue_fate fate;
	bool unconfirmed; /* delivered to a host that tells nobody of it, though the sender asked:
	                     we tell that it went there (RFC 3461 section 5.2.2) */
	struct reply
	    reply; /* the remote's, or our own words with code 0 about a failed connection */
};

/* How far the attempt came with the host that it spoke to last. */
enum queue_contact_end {
	QUEUE_CONTACT_NONE,    /* nobody was asked: no host is known, or none has what is needed */
	QUEUE_CONTACT_FAILED,  /* no connection, no greeting, no handshake */
	QUEUE_CONTACT_TIMEOUT, /* the same, or anything later, for want of an answer */
	QUEUE_CONTACT_LOST,    /* the connection ended within the transaction */
	QUEUE_CONTACT_OK,      /* it answered what it was asked */
};
/* What an attempt met. Texts are "" and times -1 for what it did not come to. */
struct queue_contact {
	enum queue_contact_end end;
	char site[QUEUE_SITE_SIZE]; /* which serves the domain; "": DNS did not say */
	char host[256], address[64];
	char source[64]; /* of ours, that the job was bound to; "": any */
	char tls[16];    /* "TLSv1.3"; "" in clear */
	/* msec: until connected; from there to the greeting; the longest wait for a reply in the
	 * transaction. The first two are of a new connection only. */
	int32_t connect, greeting, reply;
};

struct queue_worker;
struct queue_worker_events {
	void (*on_job)(void *arg, struct queue_job *job); /* begin; the answer is queue_job_done */
	void (*on_abandon)(void *arg, struct queue_job *job); /* the queue went away before the
	                                                         final dot: drop the attempt now */
};
/* capacity: jobs at once. */
struct queue_worker *queue_worker_new(struct loop *loop, enum queue_lane lane, unsigned capacity,
                                      const struct queue_worker_events *events, void *arg);
void queue_worker_free(struct queue_worker *worker);
/* Takes a channel to (a new incarnation of) the queue. */
void queue_worker_attach(struct queue_worker *worker, int fd_take);
/* No further jobs; on_idle once all that are under way are done. */
void queue_worker_stop(struct queue_worker *worker, void (*on_idle)(void *arg));

/* From here to queue_job_done the remote may already have accepted: the job is no longer abandoned.
 * Call before the final dot is written. */
void queue_job_final(struct queue_job *job);
/* One outcome for every recipient; ends the job. */
void queue_job_done(struct queue_job *job, const struct queue_contact *contact,
                    const struct queue_outcome *outcomes, size_t count);

#endif
