/* Which messages an operator means: one set of conditions for every verb, the same in lists, in
 * acts and in what stays in force. */
#ifndef QUEUE_SELECTOR_H
#define QUEUE_SELECTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/clock.h"
#include "queue/id.h"
#include "queue/worker.h"
#include "smtp/address.h"

/* What is given must all be true; nothing given: every message. Sender and recipient are an address
 * or a domain, canonical; the sender "<>" is the null sender's. */
struct queue_selector {
	bool has_message;
	struct queue_id message;
	char account[256];
	char sender[ADDRESS_TEXT_SIZE];
	/* Of one recipient, that has not ended; acts that end recipients concern only these. */
	char recipient[ADDRESS_TEXT_SIZE];
	char site[QUEUE_SITE_SIZE]; /* or a domain that it serves; or where an operator sends it */
	char reply[128];       /* the last one: its three digits, or any part of it, case aside */
	unsigned lanes;        /* a bit set; 0: any */
	msec_t older, younger; /* than that is the message; 0: of any age */
	uint64_t larger, smaller; /* than that many octets; 0: of any size */
};

/* Each condition as the command line names it, "account NAME lane retry", or "all": it names a rule
 * in logs and on the disk. Returns out. */
#define QUEUE_SELECTOR_TEXT_SIZE 384
char *queue_selector_text(const struct queue_selector *selector,
                          char out[QUEUE_SELECTOR_TEXT_SIZE]);
/* Whether the text tells all of it, in characters that may stand in a log. */
bool queue_selector_is_good(const struct queue_selector *selector);
bool queue_selector_is_all(const struct queue_selector *selector);
/* Whether it has a condition of recipients; it then concerns only those. */
bool queue_selector_has_recipient(const struct queue_selector *selector);

void queue_selector_put(struct buf *buf, const struct queue_selector *selector);
/* Fails the wire on one that is not good. */
void queue_selector_read(struct wire *wire, struct queue_selector *out);

#endif
