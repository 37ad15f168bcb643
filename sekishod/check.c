#include "sekishod/check.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/sandbox.h"
#include "core/tls.h"

/* Problem: YAML, certificates and keys are parsed by large libraries, and sekishod may be root.
 *
 * Idea: each parse happens in a forked child that first becomes nobody. It gets open descriptors,
 * because nobody could not read a private key by name, and answers through a pipe: one octet, '+'
 * and a result, or '-' and the text for the operator. The parent bounds what it reads, and
 * conf_decode trusts nothing in it. Time and memory of the child are bounded, and it enters the
 * sandbox of a process that may do nothing but compute, which holds without root as well.
 *
 * Invariant: the child never returns into the parent's code; it ends with _exit. */

#define NOBODY 65534
#define FILE_MAX                                                                                   \
	(1024u * 1024 + 1) /* one more than legal: conf_parse then says that it is too large */
#define ANSWER_MAX   (16u * 1024 * 1024)
#define CHECK_TIME   60                   /* seconds of processor time */
#define CHECK_MEMORY (256u * 1024 * 1024) /* octets of its own */

typedef bool check_work(void *arg, struct buf *out);

static void
become_nobody(void)
{
	const struct rlimit time = {CHECK_TIME, CHECK_TIME};
	char layers[128], error[256];
	setrlimit(RLIMIT_CPU, &time);
	const struct rlimit memory = {CHECK_MEMORY, CHECK_MEMORY};
	if (!SANDBOX_SANITIZED) /* whose shadow alone is larger */
		setrlimit(RLIMIT_DATA, &memory);
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	                       setresuid(NOBODY, NOBODY, NOBODY) < 0))
		_exit(2);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sandbox_enter(0, layers, sizeof(layers), error, sizeof(error)) < 0) {
		fprintf(stderr, "sekishod: %s\n", error);
		_exit(2);
	}
}

static void
write_all(int fd, const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(2);
		data += n;
		len -= (size_t)n;
	}
}

static bool
read_all(int fd, struct buf *out, size_t max)
{
	while (out->len < max) {
		size_t room = max - out->len < 65536 ? max - out->len : 65536;
		ssize_t n = read(fd, buf_reserve(out, room), room);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0;
		buf_commit(out, (size_t)n);
	}
	return true;
}

/* Runs work unprivileged. True with its result in out; false with a text for the operator in out.
 */
static bool
run_unprivileged(check_work *work, void *arg, struct buf *out)
{
	int ends[2], status = -1;
	bool good = false;
	if (pipe2(ends, O_CLOEXEC) < 0) {
		buf_printf(out, "cannot make a pipe: %s", strerror(errno));
		return false;
	}
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		struct buf answer;
		buf_init(&answer);
		close(ends[0]);
		become_nobody();
		good = work(arg, &answer);
		write_all(ends[1], (const uint8_t *)(good ? "+" : "-"), 1);
		write_all(ends[1], answer.data, answer.len);
		_exit(0);
	}
	close(ends[1]);
	if (pid < 0) {
		buf_printf(out, "cannot start the checker: %s", strerror(errno));
		close(ends[0]);
		return false;
	}
	bool complete = read_all(ends[0], out, ANSWER_MAX);
	close(ends[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!complete || status != 0 || out->len == 0) {
		buf_clear(out);
		buf_printf(out, "the checker ended early (status 0x%x)", (unsigned)status);
		return false;
	}
	good = out->data[0] == '+';
	buf_consume(out, 1);
	return good;
}

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
	if (!read_all(parse->fd, &text, FILE_MAX)) {
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

struct conf *
check_config(const char *file)
{
	struct parse parse = {.file = file, .fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
	struct conf *conf = NULL;
	struct stat st;
	struct buf out;
	if (parse.fd < 0) {
		fprintf(stderr, "%s: cannot open: %s\n", file, strerror(errno));
		return NULL;
	}
	buf_init(&out);
	if (fstat(parse.fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		fprintf(stderr, "%s: not a regular file; name one that holds the configuration\n",
		        file);
	} else if (!run_unprivileged(work_parse, &parse, &out)) {
		fprintf(stderr, "%s", buf_str(&out));
		if (out.len == 0 || out.data[out.len - 1] != '\n')
			fputc('\n', stderr);
	} else {
		conf = conf_decode(out.data, out.len);
		if (conf == NULL)
			fprintf(stderr, "%s: the checker's answer is malformed\n", file);
	}
	close(parse.fd);
	buf_clear(&out);
	return conf;
}

void
check_complain(const char *file, const struct conf *conf, const char *key, const char *format, ...)
{
	unsigned line, column;
	va_list args;
	conf_where(conf, key, &line, &column);
	if (line == 0) /* a default: the mistake is that the file does not set it */
		line = column = 1;
	fprintf(stderr, "%s:%u:%u: %s: ", file, line, column, key);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
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

static bool
work_pair(void *arg, struct buf *out)
{
	const struct pair *pair = arg;
	char error[512] = "";
	int result = tls_check_pair(pair->certificate, pair->key, error, sizeof(error));
	buf_add_str(out, error);
	return result == 0;
}

static int
open_named(const char *file, const struct conf *conf, const char *key, const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		check_complain(file, conf, key, "cannot open %s: %s; name a readable file", path,
		               strerror(errno));
		return -1;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		check_complain(file, conf, key, "%s is not a file; name a file", path);
		close(fd);
		return -1;
	}
	return fd;
}

int
check_pair(const char *file, const struct conf *conf, int *certificate, int *key)
{
	struct pair pair = {-1, -1};
	struct buf out;
	bool good;
	*certificate = open_named(file, conf, "tls.certificate", conf->tls_certificate);
	*key = open_named(file, conf, "tls.key", conf->tls_key);
	if (*certificate < 0 || *key < 0)
		goto fail;
	/* Fresh descriptions: the originals stay at their beginning for the children to come. */
	pair.certificate = check_reopen(*certificate);
	pair.key = check_reopen(*key);
	if (pair.certificate < 0 || pair.key < 0) {
		check_complain(file, conf, "tls.key",
		               "cannot open again through /proc: %s; mount /proc", strerror(errno));
		goto fail;
	}
	buf_init(&out);
	good = run_unprivileged(work_pair, &pair, &out);
	if (good && out.len > 0)
		check_complain(file, conf, "tls.certificate", "warning: %s: %s",
		               conf->tls_certificate, buf_str(&out));
	if (!good)
		check_complain(file, conf, "tls.certificate",
		               "%s with %s: %s; name a matching pair", conf->tls_certificate,
		               conf->tls_key, buf_str(&out));
	buf_clear(&out);
	if (!good)
		goto fail;
	close(pair.certificate);
	close(pair.key);
	return 0;
fail:
	if (pair.certificate >= 0)
		close(pair.certificate);
	if (pair.key >= 0)
		close(pair.key);
	if (*certificate >= 0)
		close(*certificate);
	if (*key >= 0)
		close(*key);
	return -1;
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
open_ca(const char *file, const struct conf *conf)
{
	static const char key[] = "relay.ca_file";
	struct buf out;
	int fd = open_named(file, conf, key, conf->relay_ca_file);
	if (fd < 0)
		return -1;
	buf_init(&out);
	if (!run_unprivileged(work_ca, &fd, &out)) {
		check_complain(file, conf, key, "%s: %s; name a file of PEM certificates",
		               conf->relay_ca_file, buf_str(&out));
		close(fd);
		fd = -1;
	}
	buf_clear(&out);
	return fd;
}

static int
open_password(const char *file, const struct conf *conf, const char *path)
{
	struct stat st;
	int fd = open_named(file, conf, "routes", path);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && (st.st_mode & S_IROTH) == 0 && st.st_size > 0)
		return fd;
	check_complain(file, conf, "routes", "%s %s", path,
	               st.st_size == 0 ? "is empty; write the password into its first line"
	                               : "can be read by everybody; chmod it to 0600");
	close(fd);
	return -1;
}

int
check_routes(const char *file, const struct conf *conf, int *ca, int **passwords,
             size_t *password_count)
{
	bool verifies = false, good = true;
	*passwords = xcalloc(conf->routes.count + 1, sizeof(**passwords));
	*password_count = 0;
	*ca = -1;
	for (size_t i = 0; i < conf->routes.count; i++) {
		const struct conf_route *route = &conf->routes.list[i];
		verifies |= route->tls >= CONF_TLS_VERIFY;
		if (route->user[0] == '\0')
			continue;
		int fd = open_password(file, conf, route->password_file);
		good &= fd >= 0;
		(*passwords)[(*password_count)++] = fd;
	}
	if (verifies) {
		*ca = open_ca(file, conf);
		good &= *ca >= 0;
	}
	return good ? 0 : -1; /* the process ends, and all descriptors with it */
}
