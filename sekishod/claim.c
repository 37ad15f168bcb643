#include "sekishod/claim.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/service_proto.h"
#include "sekishod/check.h"

/* Problem: a service that finds a port taken after it has started half of its processes is worse
 * than one that says so.
 *
 * Idea: everything is claimed here, by the one process that may be root, before the first child.
 * Children get descriptors and never need a path or a privilege. All accepting processes share the
 * same sockets (no SO_REUSEPORT: a dying process would take its backlog along).
 *
 * Invariants: spool and accounts are locked (flock on the directory) for as long as any process of
 * this service holds them, so two services never write the same databases. A socket file is only
 * unlinked when nobody answers on it.
 *
 * A sekishod that was killed a moment ago leaves children that are just dying, with ports, locks
 * and the admin socket still in their hands: all of these are asked for again during PATIENCE. */

#define BACKLOG  1024
#define PATIENCE 2000 /* ms, for the whole claim */

/* False once patience has run out; otherwise true, a moment later. */
static bool
wait_a_moment(struct claim *claim)
{
	const struct timespec pause = {0, 50 * 1000 * 1000};
	if (claim->waited >= PATIENCE)
		return false;
	claim->waited += 50;
	nanosleep(&pause, NULL);
	return true;
}

static int
find_user(const char *file, const struct conf *conf, const char *key, const char *name,
          uint32_t *uid, uint32_t *gid)
{
	errno = 0;
	const struct passwd *user = getpwnam(name);
	if (user == NULL) {
		check_complain(file, conf, key,
		               "no user \"%s\"; name another, or create it: useradd --system %s",
		               name, name);
		return -1;
	}
	if (user->pw_uid == 0) {
		check_complain(file, conf, key, "\"%s\" is root; name an ordinary user", name);
		return -1;
	}
	*uid = user->pw_uid;
	*gid = user->pw_gid;
	return 0;
}

int
claim_users(struct claim *claim, const char *file, const struct conf *conf)
{
	claim->uid = claim->gid = claim->network_uid = claim->network_gid = SERVICE_KEEP_USER;
	if (geteuid() != 0)
		return 0;
	if (find_user(file, conf, "privilege.user", conf->user, &claim->uid, &claim->gid) < 0)
		return -1;
	return find_user(file, conf, "privilege.network_user", conf->network_user,
	                 &claim->network_uid, &claim->network_gid);
}

static void
print_address(const struct sockaddr_storage *addr, char *out, size_t size)
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

static void
keep_listener(struct claim *claim, enum service_listener kind, int fd)
{
	claim->listeners =
	    xreallocarray(claim->listeners, claim->listener_count + 1, sizeof(*claim->listeners));
	claim->listeners[claim->listener_count++] = (struct claim_listener){kind, fd};
}

static bool
is_any_v6(const struct conf_address *address)
{
	return address->addr.ss_family == AF_INET6 &&
	       IN6_IS_ADDR_UNSPECIFIED(
	           &((const struct sockaddr_in6 *)(const void *)&address->addr)->sin6_addr);
}

static int
bind_one(struct claim *claim, enum service_listener kind, const struct conf_address *address,
         const char *file, const struct conf *conf, const char *key)
{
	char name[80];
	int on = 1;
	print_address(&address->addr, name, sizeof(name));
	int fd = socket(address->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 && errno == EAFNOSUPPORT && is_any_v6(address)) {
		/* ":587" means every address of this machine, and it has none of this family. */
		log_warn("-", "listen", "address=%s skipped: no IPv6 here", name);
		return 0;
	}
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    (address->addr.ss_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)) {
		check_complain(file, conf, key, "cannot make a socket: %s", strerror(errno));
		goto fail;
	}
	int result;
	do
		result = bind(fd, (const struct sockaddr *)&address->addr, address->len) < 0
		             ? -1
		             : listen(fd, BACKLOG);
	while (result < 0 && errno == EADDRINUSE && wait_a_moment(claim));
	if (result < 0) {
		if (errno == EADDRINUSE)
			check_complain(
			    file, conf, key,
			    "%s is in use by another program; stop it or choose another port",
			    name);
		else if (errno == EACCES)
			check_complain(file, conf, key,
			               "%s needs root; start as root or choose a port above 1023",
			               name);
		else
			check_complain(file, conf, key, "cannot listen on %s: %s", name,
			               strerror(errno));
		goto fail;
	}
	struct sockaddr_storage bound = address->addr;
	socklen_t len = sizeof(bound);
	if (getsockname(fd, (struct sockaddr *)&bound, &len) == 0)
		print_address(&bound, name, sizeof(name));
	log_info("-", "listen", "kind=%s address=%s",
	         kind == SERVICE_SUBMISSION ? "submission" : "submissions", name);
	keep_listener(claim, kind, fd);
	return 0;
fail:
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Makes what is missing above and including path; each part 0755 but the last one. */
static int
make_directories(const char *path, mode_t mode)
{
	char *copy = xstrdup(path);
	int result = 0;
	for (char *slash = copy + 1; *slash != '\0' && result == 0; slash++) {
		if (*slash != '/')
			continue;
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			result = -1;
		*slash = '/';
	}
	if (result == 0 && mkdir(copy, mode) < 0 && errno != EEXIST)
		result = -1;
	free(copy);
	return result;
}

/* An own file system's lost+found does not count. */
static bool
is_empty(int fd)
{
	int own = openat(fd, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	DIR *directory = own < 0 ? NULL : fdopendir(own);
	const struct dirent *entry;
	bool empty = directory != NULL;
	while (empty && (entry = readdir(directory)) != NULL)
		empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		        strcmp(entry->d_name, "lost+found") == 0;
	if (directory != NULL)
		closedir(directory);
	else if (own >= 0)
		close(own);
	return empty;
}

static int
open_directory(const struct claim *claim, const char *file, const struct conf *conf,
               const char *key, const char *path)
{
	struct stat st;
	int fd = -1;
	if (make_directories(path, 0700) < 0 ||
	    (fd = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC)) < 0) {
		check_complain(file, conf, key, "cannot open %s: %s; name a directory", path,
		               strerror(errno));
		return -1;
	}
	if (fstat(fd, &st) < 0)
		goto fail;
	uid_t owner = claim->uid != SERVICE_KEEP_USER ? claim->uid : geteuid();
	if (st.st_uid != owner) {
		/* An empty one of root's is ours to hand over; anything else could be a mistake in
		 * the path. */
		if (geteuid() != 0 || st.st_uid != 0 || !is_empty(fd)) {
			check_complain(file, conf, key,
			               "%s belongs to another user; name a new or empty directory, "
			               "or change its owner",
			               path);
			close(fd);
			return -1;
		}
		if (fchown(fd, claim->uid, claim->gid) < 0)
			goto fail;
	}
	if ((st.st_mode & 077) != 0 && fchmod(fd, 0700) < 0)
		goto fail;
	return fd;
fail:
	check_complain(file, conf, key, "cannot prepare %s: %s", path, strerror(errno));
	close(fd);
	return -1;
}

static int
lock_directory(struct claim *claim, int fd, const char *file, const struct conf *conf,
               const char *key, const char *path)
{
	while (flock(fd, LOCK_EX | LOCK_NB) < 0)
		if (!wait_a_moment(claim)) {
			check_complain(file, conf, key,
			               "%s is in use by another sekishod; stop it or name another",
			               path);
			return -1;
		}
	return 0;
}

/* True when path is free now; says why not otherwise. */
static bool
clear_socket(struct claim *claim, const struct sockaddr_un *addr, const char *file,
             const struct conf *conf)
{
	struct stat st;
	int result, why;
	if (lstat(addr->sun_path, &st) < 0)
		return true; /* bind will tell what is wrong, if anything */
	if (!S_ISSOCK(st.st_mode)) {
		check_complain(file, conf, "admin.socket",
		               "%s exists and is no socket; choose another path", addr->sun_path);
		return false;
	}
	do {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		result = fd < 0 ? -1 : connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
		why = errno;
		if (fd >= 0)
			close(fd);
	} while (!(result < 0 && why == ECONNREFUSED) && wait_a_moment(claim));
	if (result < 0 && why == ECONNREFUSED)
		return unlink(addr->sun_path) == 0 || errno == ENOENT;
	check_complain(file, conf, "admin.socket",
	               "somebody answers on %s; is sekishod running already?", addr->sun_path);
	return false;
}

static int
bind_admin(struct claim *claim, const char *file, const struct conf *conf)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const char *path = conf->admin_socket;
	if (strlen(path) >= sizeof(addr.sun_path)) {
		check_complain(file, conf, "admin.socket",
		               "longer than %zu octets; choose a shorter path",
		               sizeof(addr.sun_path) - 1);
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	const char *slash = strrchr(path, '/');
	if (slash != NULL && slash != path) {
		char *parent = xmemdup0(path, (size_t)(slash - path));
		make_directories(parent, 0755); /* bind reports a failure */
		free(parent);
	}
	if (!clear_socket(claim, &addr, file, conf))
		return -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		goto fail;
	/* Nobody else may connect between bind and chmod. */
	mode_t old = umask(0177);
	int result = bind(fd, (const struct sockaddr *)&addr, sizeof(addr));
	umask(old);
	if (result < 0)
		goto fail;
	claim->admin_socket = path;
	if ((claim->uid != SERVICE_KEEP_USER && chown(path, claim->uid, claim->gid) < 0) ||
	    chmod(path, (mode_t)conf->admin_socket_mode) < 0 || listen(fd, 64) < 0)
		goto fail;
	keep_listener(claim, SERVICE_ADMIN_SOCKET, fd);
	return 0;
fail:
	check_complain(file, conf, "admin.socket", "cannot listen on %s: %s", path,
	               strerror(errno));
	if (fd >= 0)
		close(fd);
	claim_release(claim);
	return -1;
}

int
claim_take(struct claim *claim, const char *file, const struct conf *conf)
{
	for (size_t i = 0; i < conf->submission.count; i++)
		if (bind_one(claim, SERVICE_SUBMISSION, &conf->submission.list[i], file, conf,
		             "listen.submission") < 0)
			return -1;
	for (size_t i = 0; i < conf->submissions.count; i++)
		if (bind_one(claim, SERVICE_SUBMISSIONS, &conf->submissions.list[i], file, conf,
		             "listen.submissions") < 0)
			return -1;
	claim->spool = open_directory(claim, file, conf, "spool", conf->spool);
	if (claim->spool < 0)
		return -1;
	claim->accounts = open_directory(claim, file, conf, "accounts", conf->accounts);
	if (claim->accounts < 0)
		return -1;
	struct stat spool, accounts;
	if (fstat(claim->spool, &spool) == 0 && fstat(claim->accounts, &accounts) == 0 &&
	    spool.st_dev == accounts.st_dev && spool.st_ino == accounts.st_ino) {
		check_complain(file, conf, "accounts",
		               "the same directory as spool; name one of its own");
		return -1;
	}
	if (lock_directory(claim, claim->spool, file, conf, "spool", conf->spool) < 0 ||
	    lock_directory(claim, claim->accounts, file, conf, "accounts", conf->accounts) < 0)
		return -1;
	return bind_admin(claim, file, conf);
}

void
claim_release(struct claim *claim)
{
	if (claim->admin_socket != NULL)
		unlink(claim->admin_socket);
	claim->admin_socket = NULL;
}
