/* All that a reload replaces, as one whole: the configuration, the files and the ports it names. */
#ifndef SEKISHOD_GENERATION_H
#define SEKISHOD_GENERATION_H

#include "core/service.h"
#include "sekishod/activation.h"
#include "sekishod/check.h"

struct generation_listener {
	enum service_listener kind;
	struct conf_address address; /* as configured: port 0 is what the kernel chose */
	int fd;
};

struct generation {
	uint64_t number;  /* from 1 */
	msec_t loaded;    /* wall clock; when it came into force */
	const char *file; /* borrowed */
	struct conf *conf;
	int snapshot;    /* sealed memfd of the configuration */
	int certificate; /* sealed copies, as all files; each child gets a description of its own */
	int key;
	msec_t expires; /* wall clock; of the certificate */
	int ca;         /* relay.ca_file, -1 when there is none and nothing needs it */
	int *passwords; /* of each route with a user, in their order */
	size_t password_count;
	struct generation_listener *listeners;
	size_t listener_count;
};

/* Reads, checks and opens everything but ports. NULL with every mistake in said; there may be
 * warnings otherwise. The file's name is borrowed. */
struct generation *generation_new(const char *file, struct buf *said);
/* The listeners: those of the running generation (NULL at the start) that stay, what systemd handed
 * over, and the rest bound now. 0, or -1 after saying why. */
int generation_bind(struct generation *generation, const struct generation *running,
                    struct activation *activation, const struct check *check);
void generation_free(struct generation *generation);

/* "192.0.2.1:587" or "[2001:db8::1]:587". */
void generation_address(const struct sockaddr_storage *addr, char *out, size_t size);

#endif
