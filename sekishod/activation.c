#include "sekishod/activation.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/mem.h"
#include "sekishod/generation.h"

/* The configuration says where this service listens, also when systemd does the listening: the
 * operator reads one file to know it, and status, reload and certificates need no second source. So
 * each socket must be one the configuration names; one that is left over is refused at the start,
 * instead of taking connections that nobody accepts. What the configuration names beyond them is
 * bound as always. */

#define FIRST 3 /* SD_LISTEN_FDS_START */
#define MAX   64
#define OUT   64 /* descriptors from here on have no fixed meaning */

struct passed {
	int fd; /* -1 once it was asked for */
	char name[32];
	struct sockaddr_storage addr;
	bool usable; /* a listening stream socket */
};

struct activation {
	struct passed list[MAX];
	size_t count;
};

static void
examine(struct passed *passed)
{
	int type = 0, listens = 0;
	socklen_t len = sizeof(type);
	passed->usable =
	    getsockopt(passed->fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
	len = sizeof(listens);
	passed->usable = passed->usable &&
	                 getsockopt(passed->fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 &&
	                 listens;
	len = sizeof(passed->addr);
	passed->usable =
	    passed->usable && getsockname(passed->fd, (struct sockaddr *)&passed->addr, &len) == 0;
	int flags = fcntl(passed->fd, F_GETFL);
	if (flags >= 0)
		fcntl(passed->fd, F_SETFL, flags | O_NONBLOCK);
}

struct activation *
activation_take(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS"),
	           *names = getenv("LISTEN_FDNAMES");
	char *end;
	if (pid == NULL || fds == NULL || strtol(pid, &end, 10) != getpid() || *end != '\0')
		return NULL;
	long count = strtol(fds, &end, 10);
	if (*end != '\0' || count < 1 || count > MAX)
		return NULL;
	struct activation *activation = xcalloc(1, sizeof(*activation));
	for (int i = 0; i < (int)count; i++) {
		struct passed *passed = &activation->list[activation->count];
		size_t len = names != NULL ? strcspn(names, ":") : 0;
		snprintf(passed->name, sizeof(passed->name), "%.*s", (int)len,
		         names != NULL ? names : "");
		if (names != NULL)
			names += len + (names[len] == ':');
		passed->fd = fcntl(FIRST + i, F_DUPFD_CLOEXEC, OUT);
		close(FIRST + i);
		if (passed->fd < 0)
			continue;
		examine(passed);
		activation->count++;
	}
	return activation;
}

static bool
is_dual(const struct passed *passed)
{
	int only = 0;
	socklen_t len = sizeof(only);
	return passed->addr.ss_family == AF_INET6 &&
	       getsockopt(passed->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &len) == 0 && !only &&
	       IN6_IS_ADDR_UNSPECIFIED(
	           &((const struct sockaddr_in6 *)(const void *)&passed->addr)->sin6_addr);
}

static bool
is_at(const struct passed *passed, const struct conf_address *address)
{
	const struct sockaddr_in *a4 = (const void *)&passed->addr,
	                         *b4 = (const void *)&address->addr;
	const struct sockaddr_in6 *a6 = (const void *)a4, *b6 = (const void *)b4;
	if (passed->addr.ss_family != address->addr.ss_family)
		return false;
	if (passed->addr.ss_family == AF_INET)
		return a4->sin_port == b4->sin_port && a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return a6->sin6_port == b6->sin6_port &&
	       IN6_ARE_ADDR_EQUAL(&a6->sin6_addr, &b6->sin6_addr) && !is_dual(passed);
}

static int
take(struct passed *passed)
{
	int fd = passed->fd;
	passed->fd = -1;
	return fd;
}

int
activation_listener(struct activation *activation, enum service_listener kind,
                    const struct conf_address *address)
{
	const char *name = kind == SERVICE_SUBMISSION ? "submission" : "submissions";
	for (size_t i = 0; activation != NULL && i < activation->count; i++) {
		struct passed *passed = &activation->list[i];
		if (passed->fd >= 0 && passed->usable && strcmp(passed->name, name) == 0 &&
		    is_at(passed, address))
			return take(passed);
	}
	return -1;
}

int
activation_admin(struct activation *activation, const char *path)
{
	for (size_t i = 0; activation != NULL && i < activation->count; i++) {
		struct passed *passed = &activation->list[i];
		const struct sockaddr_un *addr = (const void *)&passed->addr;
		if (passed->fd >= 0 && passed->usable && strcmp(passed->name, "admin") == 0 &&
		    addr->sun_family == AF_UNIX && strcmp(addr->sun_path, path) == 0)
			return take(passed);
	}
	return -1;
}

static void
complain(const struct passed *passed, const struct check *check)
{
	bool admin = strcmp(passed->name, "admin") == 0;
	bool implicit = strcmp(passed->name, "submissions") == 0;
	const char *key = admin      ? "admin.socket"
	                  : implicit ? "listen.submissions"
	                             : "listen.submission";
	char where[128] = "a socket";
	if (passed->addr.ss_family == AF_UNIX)
		snprintf(where, sizeof(where), "%s",
		         ((const struct sockaddr_un *)(const void *)&passed->addr)->sun_path);
	else if (passed->usable)
		generation_address(&passed->addr, where, sizeof(where));
	if (!admin && !implicit && strcmp(passed->name, "submission") != 0)
		check_complain(check, key,
		               "systemd hands over %s named \"%s\"; set FileDescriptorName= to "
		               "submission, submissions or admin",
		               where, passed->name);
	else if (!passed->usable)
		check_complain(check, key,
		               "systemd hands over %s that is no listening stream socket; use "
		               "ListenStream= and Accept=no",
		               where);
	else if (is_dual(passed))
		check_complain(
		    check, key,
		    "systemd hands over %s for both families; set BindIPv6Only=ipv6-only "
		    "and add ListenStream=0.0.0.0 with the port",
		    where);
	else
		check_complain(
		    check, key,
		    "systemd hands over %s, which is not named here; make the socket unit "
		    "and this file agree",
		    where);
}

int
activation_end(struct activation *activation, const struct check *check)
{
	int result = 0;
	for (size_t i = 0; activation != NULL && i < activation->count; i++) {
		if (activation->list[i].fd < 0)
			continue;
		complain(&activation->list[i], check);
		close(activation->list[i].fd);
		result = -1;
	}
	free(activation);
	return result;
}
