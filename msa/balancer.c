#include "msa/balancer.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "msa/load.h"
#include "msa/session_int.h"
#include "smtp/proxy.h"

/* Problem: a PROXY header stands in front of everything, also of the TLS handshake, and the octets
 * behind it belong to somebody else: to OpenSSL, which reads the descriptor itself.
 *
 * Idea: exactly the header is taken from the socket before there is a connection (core/conn.h) at
 * all. What has arrived is peeked at; as long as it is a header so far all of it is taken, and when
 * it ends, what it lacked. So the socket never stays readable for nothing, however the header is
 * sliced.
 *
 * A connection that waits for its header counts as a session of the process: whoever can reach us
 * through a balancer must not fill the descriptors. A balancer that only looks whether we are there
 * connects and leaves; that is no mistake, and not logged. */

#define PROXY_TIME 5000 /* msec; the header is the balancer's first segment */

struct balanced {
	struct balanced *prev, *next; /* in msa->balanced */
	struct msa *msa;
	int fd;
	struct sockaddr_storage peer; /* the balancer */
	bool implicit_tls;
	struct loop_watch *watch;
	struct loop_timer *deadline;
	size_t len; /* of data */
	uint8_t data[PROXY_MAX];
};

/* Returns the descriptor. */
static int
release(struct balanced *balanced)
{
	struct msa *msa = balanced->msa;
	const int fd = balanced->fd;

	loop_watch_free(balanced->watch);
	loop_timer_free(balanced->deadline);
	if (balanced->prev != NULL)
		balanced->prev->next = balanced->next;
	else
		msa->balanced = balanced->next;
	if (balanced->next != NULL)
		balanced->next->prev = balanced->prev;
	msa->session_count--;
	free(balanced);
	return fd;
}

static void
drop(struct balanced *balanced, const char *why)
{
	struct msa *msa = balanced->msa;
	char ip[INET6_ADDRSTRLEN];

	session_peer((const struct sockaddr *)&balanced->peer, ip);
	if (why != NULL)
		log_info("-", "refused", "rule=proxy-header ip=%s reason=\"%s\"", ip, why);
	close(release(balanced));
	msa->on_session_gone(msa);
}

static void
on_deadline(void *arg)
{
	drop(arg, "it did not come in time");
}

static void
on_readable(void *arg, unsigned ready)
{
	struct balanced *balanced = arg;
	struct msa *msa = balanced->msa;
	const struct sockaddr_storage peer = balanced->peer;
	const bool implicit_tls = balanced->implicit_tls;
	struct sockaddr_storage client;
	uint8_t *to = balanced->data + balanced->len;
	const char *why;
	size_t used, take;
	int fd;

	(void)ready;
	const ssize_t n = recv(balanced->fd, to, PROXY_MAX - balanced->len, MSG_PEEK);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	if (n <= 0) {
		drop(balanced, balanced->len > 0 ? "the connection ended within it" : NULL);
		return;
	}
	const enum proxy_result result =
	    proxy_parse(balanced->data, balanced->len + (size_t)n, &used, &client, &why);
	if (result == PROXY_BAD) {
		drop(balanced, why);
		return;
	}
	take = result == PROXY_MORE ? (size_t)n : used - balanced->len;
	if (recv(balanced->fd, to, take, 0) != (ssize_t)take) {
		drop(balanced, "the connection ended within it");
		return;
	}
	balanced->len += take;
	if (result == PROXY_MORE)
		return;
	fd = release(balanced);
	session_new(msa, fd, (const struct sockaddr *)(result == PROXY_CLIENT ? &client : &peer),
	            (const struct sockaddr *)&peer, implicit_tls);
}

void
balancer_take(struct msa *msa, int fd_take, const struct sockaddr *peer, bool implicit_tls)
{
	struct balanced *balanced = xcalloc(1, sizeof(*balanced));

	balanced->msa = msa;
	balanced->fd = fd_take;
	memcpy(&balanced->peer, peer,
	       peer->sa_family == AF_INET ? sizeof(struct sockaddr_in)
	                                  : sizeof(struct sockaddr_in6));
	balanced->implicit_tls = implicit_tls;
	balanced->watch = loop_watch_new(msa->loop, fd_take, on_readable, balanced);
	loop_watch_set(balanced->watch, LOOP_READ);
	balanced->deadline = loop_timer_new(msa->loop, on_deadline, balanced);
	loop_timer_arm(balanced->deadline, PROXY_TIME);
	balanced->next = msa->balanced;
	if (balanced->next != NULL)
		balanced->next->prev = balanced;
	msa->balanced = balanced;
	msa->session_count++;
	load_update(msa);
}

void
balancer_stop(struct msa *msa)
{
	for (struct balanced *at = msa->balanced, *next; at != NULL; at = next) {
		next = at->next;
		close(release(at));
	}
}
