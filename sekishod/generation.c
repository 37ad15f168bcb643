#include "sekishod/generation.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "sekishod/claim.h"

/* Problem: during a reload there are two configurations, and each must be complete whichever of
 * them wins.
 *
 * Idea: a generation owns everything it names. What both have in common, a port that stays, it has
 * a descriptor of its own for. So committing is freeing the old one, and dropping is freeing the
 * new one; a port is closed when the last generation that names it goes.
 *
 * All accepting processes share the same sockets (no SO_REUSEPORT: a dying process would take its
 * backlog along). */

#define BACKLOG   1024
#define NO_FAMILY (-2)

void
generation_address(const struct sockaddr_storage *addr, char *out, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "";
	if (addr->ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(out, size, "[%s]:%u", host, ntohs(v6->sin6_port));
	} else {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(out, size, "%s:%u", host, ntohs(v4->sin_port));
	}
}

static bool
is_any_v6(const struct conf_address *address)
{
	return address->addr.ss_family == AF_INET6 &&
	       IN6_IS_ADDR_UNSPECIFIED(
	           &((const struct sockaddr_in6 *)(const void *)&address->addr)->sin6_addr);
}

static in_port_t
port_of(const struct conf_address *address)
{
	/* At the same place in both families. */
	return ((const struct sockaddr_in *)(const void *)&address->addr)->sin_port;
}

static bool
has_port(const struct generation *running, const struct conf_address *address)
{
	for (size_t i = 0; running != NULL && i < running->listener_count; i++)
		if (port_of(&running->listeners[i].address) == port_of(address))
			return true;
	return false;
}

/* The socket, -1 after saying why, or NO_FAMILY. */
static int
bind_one(const struct conf_address *address, const struct generation *running,
         const struct check *check, const char *key)
{
	char name[80];
	int on = 1;
	generation_address(&address->addr, name, sizeof(name));
	int fd = socket(address->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 && errno == EAFNOSUPPORT && is_any_v6(address)) {
		/* ":587" means every address of this machine, and it has none of this family. */
		log_warn("-", "listen", "address=%s skipped: no IPv6 here", name);
		return NO_FAMILY;
	}
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    (address->addr.ss_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)) {
		check_complain(check, key, "cannot make a socket: %s", strerror(errno));
		goto fail;
	}
	int result;
	do
		result = bind(fd, (const struct sockaddr *)&address->addr, address->len) < 0
		             ? -1
		             : listen(fd, BACKLOG);
	while (result < 0 && errno == EADDRINUSE && running == NULL && claim_wait());
	if (result < 0) {
		if (errno == EADDRINUSE && has_port(running, address))
			check_complain(check, key,
			               "%s overlaps a listener in force; move it to another port, "
			               "or restart the service",
			               name);
		else if (errno == EADDRINUSE)
			check_complain(
			    check, key,
			    "%s is in use by another program; stop it or choose another port",
			    name);
		else if (errno == EACCES)
			check_complain(check, key,
			               "%s needs root; start as root or choose a port above 1023",
			               name);
		else
			check_complain(check, key, "cannot listen on %s: %s", name,
			               strerror(errno));
		goto fail;
	}
	return fd;
fail:
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Sealed, so that no child can change what another one reads. */
static int
make_snapshot(const struct conf *conf)
{
	struct buf encoded;
	size_t done = 0;
	int fd = memfd_create("sekisho-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	buf_init(&encoded);
	conf_encode(conf, &encoded);
	while (fd >= 0 && done < encoded.len) {
		ssize_t n = write(fd, encoded.data + done, encoded.len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			close(fd);
			fd = -1;
			break;
		}
		done += (size_t)n;
	}
	buf_clear(&encoded);
	return check_seal(fd);
}

struct generation *
generation_new(const char *file, struct buf *said)
{
	struct conf *conf = check_config(file, said);
	if (conf == NULL)
		return NULL;
	struct generation *generation = xcalloc(1, sizeof(*generation));
	const struct check check = {.file = file, .conf = conf, .said = said};
	generation->number = 1;
	generation->file = file;
	generation->conf = conf;
	generation->snapshot = generation->certificate = generation->key = generation->ca = -1;
	/* All of them, so that the operator reads all mistakes at once. */
	int pair =
	    check_pair(&check, &generation->certificate, &generation->key, &generation->expires);
	int routes = check_routes(&check, &generation->ca, &generation->passwords,
	                          &generation->password_count);
	int egress = check_egress(&check);
	if (pair == 0 && routes == 0 && egress == 0) {
		generation->snapshot = make_snapshot(conf);
		if (generation->snapshot >= 0)
			return generation;
		buf_printf(said, "%s: cannot make its snapshot: %s\n", file, strerror(errno));
	}
	generation_free(generation);
	return NULL;
}

/* Asked of the running generation: the socket of an address that stays, whatever its kind was. */
static int
inherit(const struct generation *running, bool *used, const struct conf_address *address)
{
	for (size_t i = 0; running != NULL && i < running->listener_count; i++) {
		const struct generation_listener *old = &running->listeners[i];
		if (used[i] || old->address.len != address->len ||
		    memcmp(&old->address.addr, &address->addr, address->len) != 0)
			continue;
		used[i] = true;
		return fcntl(old->fd, F_DUPFD_CLOEXEC, 0);
	}
	return -1;
}

static void
tell_listener(const struct generation_listener *listener, const char *how)
{
	struct sockaddr_storage bound = listener->address.addr;
	socklen_t len = sizeof(bound);
	char name[80];
	getsockname(listener->fd, (struct sockaddr *)&bound, &len);
	generation_address(&bound, name, sizeof(name));
	log_info("-", "listen", "kind=%s address=%s%s",
	         listener->kind == SERVICE_SUBMISSION ? "submission" : "submissions", name, how);
}

int
generation_bind(struct generation *generation, const struct generation *running,
                struct activation *activation, const struct check *check)
{
	const struct conf *conf = generation->conf;
	const struct conf_addresses *lists[] = {&conf->submission, &conf->submissions};
	static const enum service_listener kinds[] = {SERVICE_SUBMISSION, SERVICE_SUBMISSIONS};
	static const char *const keys[] = {"listen.submission", "listen.submissions"};
	bool *used = xcalloc((running != NULL ? running->listener_count : 0) + 1, sizeof(*used));
	int result = 0;
	generation->listeners =
	    xcalloc(lists[0]->count + lists[1]->count + 1, sizeof(*generation->listeners));
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < lists[k]->count; i++) {
			struct generation_listener one = {kinds[k], lists[k]->list[i], -1};
			const char *how = NULL;
			one.fd = inherit(running, used, &one.address);
			if (one.fd < 0) {
				how = " from=systemd";
				one.fd = activation_listener(activation, one.kind, &one.address);
			}
			if (one.fd < 0) {
				how = "";
				one.fd = bind_one(&one.address, running, check, keys[k]);
			}
			if (one.fd == -1)
				result = -1;
			if (one.fd < 0)
				continue;
			if (how != NULL)
				tell_listener(&one, how);
			generation->listeners[generation->listener_count++] = one;
		}
	free(used);
	return result;
}

static void
close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

void
generation_free(struct generation *generation)
{
	if (generation == NULL)
		return;
	for (size_t i = 0; i < generation->listener_count; i++)
		close(generation->listeners[i].fd);
	for (size_t i = 0; i < generation->password_count; i++)
		close_if(generation->passwords[i]);
	close_if(generation->snapshot);
	close_if(generation->certificate);
	close_if(generation->key);
	close_if(generation->ca);
	free(generation->listeners);
	free(generation->passwords);
	conf_free(generation->conf);
	free(generation);
}
