/* Who is next: a bounded queue in which clients take turns. However much one of them asks, another
 * waits for one job of each client before it, and when the queue is full it is the client that
 * asks most who loses. No I/O, no lock. */
#ifndef AUTH_TURNS_H
#define AUTH_TURNS_H

#include <stddef.h>

struct turns;
struct turns_job { /* embedded in what waits */
	struct turns_job *next;
};

struct turns *turns_new(size_t max);
/* Jobs that wait are forgotten. */
void turns_free(struct turns *turns);
/* client is an IP address in text (an IPv6 /64 is one client) or any other name. Returns the job
 * for which there is no room: NULL, or the newest of the client with most of them, which may be
 * this one. */
struct turns_job *turns_add(struct turns *turns, const char *client, struct turns_job *job);
/* The next one, or NULL. */
struct turns_job *turns_take(struct turns *turns);

#endif
