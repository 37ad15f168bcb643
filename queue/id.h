/* Message ids: 16 octets, sortable by time and unguessable. 48 bits of milliseconds since 1970,
 * then 80 random bits; as text 26 characters of Crockford's base 32 in lower case.
 *
 * msa makes the id when a transaction begins, so it can stand in the Received field; it is also the
 * transaction token by which msa asks a restarted queue whether a message was committed. */
#ifndef QUEUE_ID_H
#define QUEUE_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "core/clock.h"

#define QUEUE_ID_TEXT_SIZE 27
struct queue_id {
	uint8_t octets[16];
};
void queue_id_make(struct queue_id *id, msec_t wall);
char *queue_id_format(const struct queue_id *id, char out[QUEUE_ID_TEXT_SIZE]);
/* Either case. False when text is no id. */
bool queue_id_parse(const char *text, struct queue_id *out);
bool queue_id_equal(const struct queue_id *a, const struct queue_id *b);

#endif
