/* What a DNS message answers about one name: its MX hosts or its addresses. Text out, no I/O. */
#ifndef RELAY_ANSWER_H
#define RELAY_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWER_NAME_SIZE 256

enum answer_type { ANSWER_A = 1, ANSWER_MX = 15, ANSWER_AAAA = 28 }; /* as in DNS */

struct answer_record { /* what its type has */
	unsigned preference;
	char host[ANSWER_NAME_SIZE]; /* lower case; "." is the root, "" a name no host can have */
	uint8_t address[16];         /* 4 or 16 octets, as in the message */
};

enum answer_kind {
	ANSWER_DATA,      /* on_record was called at least once */
	ANSWER_NO_DATA,   /* the name exists and has no record of this type */
	ANSWER_NO_NAME,   /* NXDOMAIN */
	ANSWER_FAILED,    /* SERVFAIL, REFUSED and the like */
	ANSWER_MALFORMED, /* no DNS answer; on_record may have been called */
};

typedef void answer_on_record(void *arg, const struct answer_record *record);
/* Calls on_record for each record of the type that name has, by way of the CNAMEs in the message.
 * canonical is where those lead, or name itself. */
enum answer_kind answer_parse(const uint8_t *message, size_t len, const char *name,
                              enum answer_type type, answer_on_record *on_record, void *arg,
                              char canonical[ANSWER_NAME_SIZE]);

/* A name that a host can have: labels of letters, digits, hyphens and underscores, with or without
 * the final dot, in lower case and without it to out; false and "" for anything else. */
bool answer_host_name(const char *name, char out[ANSWER_NAME_SIZE]);

#endif
