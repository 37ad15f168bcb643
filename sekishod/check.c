#include "sekishod/check.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/tls.h"
#include "sekishod/unprivileged.h"

#define FILE_MAX                                                                                   \
	(1024u * 1024 + 1) /* one more than legal: conf_parse then says that it is too large */

struct parse {
	const char *file;
	int fd;
};

static bool
work_parse(void *arg, struct buf *out)
{
	const struct parse *parse = arg;
	struct buf text, errors;
	buf_init(&text);
	buf_init(&errors);
	if (!unprivileged_read(parse->fd, &text, FILE_MAX)) {
		buf_printf(out, "%s: cannot read: %s\n", parse->file, strerror(errno));
		return false;
	}
	struct conf *conf = conf_parse(parse->file, buf_str(&text), text.len, &errors);
	if (conf == NULL) {
		buf_add(out, errors.data, errors.len);
		return false;
	}
	conf_encode(conf, out);
	return true;
}

/* The zone and the names, where only the system knows what is meant. */

static void
find_zone(const struct check *check)
{
	char path[128], magic[4] = "";
	if (check->conf->zone[0] == '\0')
		return;
	snprintf(path, sizeof(path), "/usr/share/zoneinfo/%s", check->conf->zone);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || read(fd, magic, sizeof(magic)) != (ssize_t)sizeof(magic) ||
	    memcmp(magic, "TZif", sizeof(magic)) != 0)
		check_complain(check, "zone",
		               "\"%s\" is unknown to this machine; write a name below "
		               "/usr/share/zoneinfo such as Asia/Tokyo, or install tzdata",
		               check->conf->zone);
	if (fd >= 0)
		close(fd);
}

static void
find_names(const struct check *check, const char *key, const struct conf_names *names)
{
	for (size_t i = 0; i < names->count; i++) {
		struct conf_name *name = &names->list[i];
		errno = 0;
		if (name->group) {
			const struct group *group = getgrnam(name->name);
			name->id = group != NULL ? group->gr_gid : CONF_NO_ID;
		} else {
			const struct passwd *user = getpwnam(name->name);
			name->id = user != NULL ? user->pw_uid : CONF_NO_ID;
		}
		if (name->id == CONF_NO_ID)
			check_complain(check, key, "no %s \"%s\"; name another, or create it",
			               name->group ? "group" : "user", name->name);
	}
}

static bool
work_find(void *arg, struct buf *out)
{
	const struct check *check = arg;
	const struct conf *conf = check->conf; /* this process's own copy */
	struct check mine = {check->file, conf, out};
	find_zone(&mine);
	find_names(&mine, "admin.look", &conf->admin_look);
	find_names(&mine, "admin.operate", &conf->admin_operate);
	find_names(&mine, "admin.admin", &conf->admin_admin);
	if (out->len > 0)
		return false;
	conf_encode(conf, out);
	return true;
}

static struct conf *
run_for_conf(unprivileged_work *work, void *arg, enum unprivileged_reach reach, const char *file,
             struct buf *said)
{
	struct conf *conf = NULL;
	struct buf out;
	buf_init(&out);
	if (!unprivileged_run(work, arg, reach, &out)) {
		buf_add(said, out.data, out.len);
		if (out.len == 0 || out.data[out.len - 1] != '\n')
			buf_add_char(said, '\n');
	} else {
		conf = conf_decode(out.data, out.len);
		if (conf == NULL)
			buf_printf(said, "%s: the checker's answer is malformed\n", file);
	}
	buf_clear(&out);
	return conf;
}

struct conf *
check_config(const char *file, struct buf *said)
{
	struct parse parse = {.file = file, .fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
	struct conf *conf = NULL, *found;
	struct stat st;
	struct buf out;
	if (parse.fd < 0) {
		buf_printf(said, "%s: cannot open: %s\n", file, strerror(errno));
		return NULL;
	}
	buf_init(&out);
	if (fstat(parse.fd, &st) < 0 || !S_ISREG(st.st_mode))
		buf_printf(said, "%s: not a regular file; name one that holds the configuration\n",
		           file);
	else
		conf = run_for_conf(work_parse, &parse, UNPRIVILEGED_COMPUTES, file, said);
	close(parse.fd);
	if (conf == NULL)
		return NULL;
	struct check check = {.file = file, .conf = conf, .said = &out};
	found = run_for_conf(work_find, &check, UNPRIVILEGED_LOOKS, file, said);
	conf_free(conf);
	return found;
}

void
check_complain(const struct check *check, const char *key, const char *format, ...)
{
	unsigned line, column;
	char text[2048];
	va_list args;
	conf_where(check->conf, key, &line, &column);
	if (line == 0) /* a default: the mistake is that the file does not set it */
		line = column = 1;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	buf_printf(check->said, "%s:%u:%u: %s: %s\n", check->file, line, column, key, text);
}

int
check_reopen(int fd)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

struct pair {
	int certificate, key;
};

/* The result: when it expires, and a warning or "". */

static bool
work_pair(void *arg, struct buf *out)
{
	const struct pair *pair = arg;
	char error[512] = "";
	int result = tls_check_pair(pair->certificate, pair->key, error, sizeof(error));
	if (result == 0)
		wire_put_u64(out, (uint64_t)tls_chain_expires(pair->certificate));
	buf_add_str(out, error);
	return result == 0;
}

int
check_seal(int fd_take)
{
	if (fd_take >= 0 && fcntl(fd_take, F_ADD_SEALS,
	                          F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) {
		close(fd_take);
		return -1;
	}
	return fd_take;
}

/* What is in force stays as it was checked: a process that is started again reads this copy,
 * whatever has become of the file. The kernel makes it, so that no key gets into our memory. */
static int
keep_copy(int file)
{
	int copy = memfd_create("sekisho-file", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t done = 0;
	ssize_t n;
	if (copy < 0)
		return -1;
	do {
		n = sendfile(copy, file, NULL, FILE_MAX - done);
		done += n > 0 ? (size_t)n : 0;
	} while ((n > 0 && done < FILE_MAX) || (n < 0 && errno == EINTR));
	if (n < 0) {
		close(copy);
		return -1;
	}
	return check_seal(copy);
}

/* A copy of the file, and what it was. */
static int
open_named(const struct check *check, const char *key, const char *path, struct stat *st)
{
	int copy, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		check_complain(check, key, "cannot open %s: %s; name a readable file", path,
		               strerror(errno));
		return -1;
	}
	if (fstat(fd, st) < 0 || !S_ISREG(st->st_mode)) {
		check_complain(check, key, "%s is not a file; name a file", path);
		close(fd);
		return -1;
	}
	copy = keep_copy(fd);
	if (copy < 0)
		check_complain(check, key, "cannot copy %s: %s", path, strerror(errno));
	close(fd);
	return copy;
}

int
check_pair(const struct check *check, int *certificate, int *key, msec_t *expires)
{
	const struct conf *conf = check->conf;
	struct pair pair = {-1, -1};
	struct stat st;
	struct buf out;
	bool good = false;
	buf_init(&out);
	*certificate = open_named(check, "tls.certificate", conf->tls_certificate, &st);
	*key = open_named(check, "tls.key", conf->tls_key, &st);
	if (*certificate < 0 || *key < 0)
		goto done;
	/* Fresh descriptions: the originals stay at their beginning for the children to come. */
	pair.certificate = check_reopen(*certificate);
	pair.key = check_reopen(*key);
	if (pair.certificate < 0 || pair.key < 0) {
		check_complain(check, "tls.key", "cannot open again through /proc: %s; mount /proc",
		               strerror(errno));
		goto done;
	}
	good = unprivileged_run(work_pair, &pair, UNPRIVILEGED_COMPUTES, &out);
	if (good) {
		struct wire wire = wire_from(out.data, out.len);
		*expires = (msec_t)wire_u64(&wire);
		buf_consume(&out, out.len - wire.left);
		if (wire.left > 0)
			check_complain(check, "tls.certificate", "warning: %s: %s",
			               conf->tls_certificate, buf_str(&out));
	} else {
		check_complain(check, "tls.certificate", "%s with %s: %s; name a matching pair",
		               conf->tls_certificate, conf->tls_key, buf_str(&out));
	}
done:
	buf_clear(&out);
	if (pair.certificate >= 0)
		close(pair.certificate);
	if (pair.key >= 0)
		close(pair.key);
	return good ? 0 : -1;
}

static bool
work_ca(void *arg, struct buf *out)
{
	char error[512] = "";
	struct tls_client *client =
	    tls_client_new_verifying(dup(*(const int *)arg), error, sizeof(error));
	if (client == NULL)
		buf_add_str(out, error);
	tls_client_free(client);
	return client != NULL;
}

static int
open_ca(const struct check *check)
{
	const struct conf *conf = check->conf;
	static const char key[] = "relay.ca_file";
	struct stat st;
	struct buf out;
	int fd = open_named(check, key, conf->relay_ca_file, &st);
	if (fd < 0)
		return -1;
	buf_init(&out);
	if (!unprivileged_run(work_ca, &fd, UNPRIVILEGED_COMPUTES, &out)) {
		check_complain(check, key, "%s: %s; name a file of PEM certificates",
		               conf->relay_ca_file, buf_str(&out));
		close(fd);
		fd = -1;
	}
	buf_clear(&out);
	return fd;
}

/* What is wrong with the first line of a password file, which is all that a relay reads of it, or
 * NULL. */
static const char *
password_complaint(int fd)
{
	char text[CONF_SECRET_MAX + 1];
	const ssize_t n = pread(fd, text, sizeof(text), 0);
	size_t len = 0;
	const char *wrong = NULL;
	while (n > 0 && len < (size_t)n && text[len] != '\r' && text[len] != '\n')
		len++;
	if (n < 0)
		wrong = "cannot be read; name a plain file";
	else if (len == 0)
		wrong = "is empty; write the password into its first line";
	else if (len > CONF_SECRET_MAX)
		wrong = "has a first line of more than 1024 octets; no password is that long";
	else if (memchr(text, '\0', len) != NULL)
		wrong = "holds a NUL octet; write the password as text into its first line";
	mem_wipe(text, sizeof(text));
	return wrong;
}

static int
open_password(const struct check *check, const char *path)
{
	struct stat st;
	int fd = open_named(check, "routes", path, &st);
	if (fd < 0)
		return -1;
	const char *wrong = password_complaint(fd);
	if (wrong == NULL && (st.st_mode & S_IROTH) != 0)
		wrong = "can be read by everybody; chmod it to 0600";
	if (wrong == NULL)
		return fd;
	check_complain(check, "routes", "%s %s", path, wrong);
	close(fd);
	return -1;
}

int
check_routes(const struct check *check, int *ca, int **passwords, size_t *password_count)
{
	const struct conf *conf = check->conf;
	bool verifies = false, good = true;
	*passwords = xcalloc(conf->routes.count + 2, sizeof(**passwords));
	*password_count = 0;
	*ca = -1;
	for (size_t i = 0; i < conf->routes.count; i++) {
		const struct conf_route *route = &conf->routes.list[i];
		verifies |= route->tls >= CONF_TLS_VERIFY;
		if (route->user[0] == '\0')
			continue;
		int fd = open_password(check, route->password_file);
		good &= fd >= 0;
		(*passwords)[(*password_count)++] = fd;
	}
	for (size_t i = 0; i < conf->sites.count; i++)
		verifies |= conf->sites.list[i].tls >= CONF_TLS_VERIFY;
	verifies |= conf->fallback_host.tls >= CONF_TLS_VERIFY;
	if (conf->fallback_host.user[0] != '\0') {
		int fd = open_password(check, conf->fallback_host.password_file);
		good &= fd >= 0;
		(*passwords)[(*password_count)++] = fd;
	}
	/* Any mail may ask for a verified host (REQUIRETLS): without the file it waits. */
	if (verifies || access(conf->relay_ca_file, R_OK) == 0) {
		*ca = open_ca(check);
		good &= *ca >= 0;
	}
	return good ? 0 : -1;
}

/* By binding to it, as the relay will: what another machine has, or an interface that is not up,
 * would otherwise be found by mail that waits. */
int
check_egress(const struct check *check)
{
	int result = 0;
	for (size_t i = 0; i < check->conf->egress.count; i++) {
		const struct conf_pool *pool = &check->conf->egress.list[i];
		for (size_t j = 0; j < pool->sources.count; j++) {
			const struct conf_address *source = &pool->sources.list[j];
			const struct sockaddr *addr = (const struct sockaddr *)&source->addr;
			char host[64] = "?";
			int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
			if (fd >= 0 && bind(fd, addr, source->len) == 0) {
				close(fd);
				continue;
			}
			const char *why = strerror(errno);
			if (fd >= 0)
				close(fd);
			getnameinfo(addr, source->len, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
			check_complain(
			    check, "egress",
			    "pool %s: %s cannot be sent from: %s; name addresses of this "
			    "machine",
			    pool->name, host, why);
			result = -1;
		}
	}
	return result;
}
