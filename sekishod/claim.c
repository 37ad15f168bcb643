#include "sekishod/claim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

#include "core/mem.h"
#include "core/service_proto.h"

/* Problem: a service that finds something taken after it has started half of its processes is worse
 * than one that says so.
 *
 * Idea: everything is claimed here, by the one process that may be root, before the first child.
 * Children get descriptors and never need a path or a privilege. Ports are claimed in
 * sekishod/generation.c, because they change with a reload.
 *
 * Invariants: spool and accounts are locked (flock on the directory) for as long as any process of
 * this service holds them, so two services never write the same databases. A socket file is only
 * unlinked when nobody answers on it.
 *
 * A sekishod that was killed a moment ago leaves children that are just dying, with ports, locks
 * and the admin socket still in their hands: all of these are asked for again during PATIENCE. */

#define PATIENCE 2000 /* ms, for the whole claim */

bool
claim_wait(void)
{
	static unsigned waited;
	const struct timespec pause = {0, 50 * 1000 * 1000};
	if (waited >= PATIENCE)
		return false;
	waited += 50;
	nanosleep(&pause, NULL);
	return true;
}

static int
find_user(const struct check *check, const char *key, const char *name, uint32_t *uid,
          uint32_t *gid)
{
	errno = 0;
	const struct passwd *user = getpwnam(name);
	if (user == NULL) {
		check_complain(check, key,
		               "no user \"%s\"; name another, or create it: useradd --system %s",
		               name, name);
		return -1;
	}
	if (user->pw_uid == 0) {
		check_complain(check, key, "\"%s\" is root; name an ordinary user", name);
		return -1;
	}
	*uid = user->pw_uid;
	*gid = user->pw_gid;
	return 0;
}

int
claim_users(struct claim *claim, const struct check *check)
{
	const struct conf *conf = check->conf;
	claim->uid = claim->gid = claim->network_uid = claim->network_gid = SERVICE_KEEP_USER;
	if (geteuid() != 0)
		return 0;
	if (find_user(check, "privilege.user", conf->user, &claim->uid, &claim->gid) < 0)
		return -1;
	return find_user(check, "privilege.network_user", conf->network_user, &claim->network_uid,
	                 &claim->network_gid);
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
open_directory(const struct claim *claim, const struct check *check, const char *key,
               const char *path)
{
	struct stat st;
	int fd = -1;
	if (make_directories(path, 0700) < 0 ||
	    (fd = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC)) < 0) {
		check_complain(check, key, "cannot open %s: %s; name a directory", path,
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
			check_complain(check, key,
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
	check_complain(check, key, "cannot prepare %s: %s", path, strerror(errno));
	close(fd);
	return -1;
}

static int
lock_directory(int fd, const struct check *check, const char *key, const char *path)
{
	while (flock(fd, LOCK_EX | LOCK_NB) < 0)
		if (!claim_wait()) {
			check_complain(check, key,
			               "%s is in use by another sekishod; stop it or name another",
			               path);
			return -1;
		}
	return 0;
}

/* True when path is free now; says why not otherwise. */
static bool
clear_socket(const struct sockaddr_un *addr, const struct check *check)
{
	struct stat st;
	int result, why;
	if (lstat(addr->sun_path, &st) < 0)
		return true; /* bind will tell what is wrong, if anything */
	if (!S_ISSOCK(st.st_mode)) {
		check_complain(check, "admin.socket",
		               "%s exists and is no socket; choose another path", addr->sun_path);
		return false;
	}
	do {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		result = fd < 0 ? -1 : connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
		why = errno;
		if (fd >= 0)
			close(fd);
	} while (!(result < 0 && why == ECONNREFUSED) && claim_wait());
	if (result < 0 && why == ECONNREFUSED)
		return unlink(addr->sun_path) == 0 || errno == ENOENT;
	check_complain(check, "admin.socket",
	               "somebody answers on %s; is sekishod running already?", addr->sun_path);
	return false;
}

static int
bind_admin(struct claim *claim, const struct check *check)
{
	const struct conf *conf = check->conf;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const char *path = conf->admin_socket;
	if (strlen(path) >= sizeof(addr.sun_path)) {
		check_complain(check, "admin.socket",
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
	if (!clear_socket(&addr, check))
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
	claim->admin_socket = xstrdup(path);
	if ((claim->uid != SERVICE_KEEP_USER && chown(path, claim->uid, claim->gid) < 0) ||
	    chmod(path, (mode_t)conf->admin_socket_mode) < 0 || listen(fd, 64) < 0)
		goto fail;
	claim->admin = fd;
	return 0;
fail:
	check_complain(check, "admin.socket", "cannot listen on %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	claim_release(claim);
	return -1;
}

int
claim_take(struct claim *claim, const struct check *check, struct activation *activation)
{
	const struct conf *conf = check->conf;
	claim->spool = open_directory(claim, check, "spool", conf->spool);
	if (claim->spool < 0)
		return -1;
	claim->accounts = open_directory(claim, check, "accounts", conf->accounts);
	if (claim->accounts < 0)
		return -1;
	struct stat spool, accounts;
	if (fstat(claim->spool, &spool) == 0 && fstat(claim->accounts, &accounts) == 0 &&
	    spool.st_dev == accounts.st_dev && spool.st_ino == accounts.st_ino) {
		check_complain(check, "accounts",
		               "the same directory as spool; name one of its own");
		return -1;
	}
	if (lock_directory(claim->spool, check, "spool", conf->spool) < 0 ||
	    lock_directory(claim->accounts, check, "accounts", conf->accounts) < 0)
		return -1;
	claim->admin = activation_admin(activation, conf->admin_socket);
	return claim->admin >= 0 ? 0 : bind_admin(claim, check);
}

void
claim_release(struct claim *claim)
{
	if (claim->admin_socket != NULL)
		unlink(claim->admin_socket);
	free(claim->admin_socket);
	claim->admin_socket = NULL;
}
