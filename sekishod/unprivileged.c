#include "sekishod/unprivileged.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/sandbox.h"

/* Problem: YAML, certificates and keys are parsed by large libraries, users are found by modules
 * that whoever runs the machine has chosen, and sekishod may be root.
 *
 * Idea: each such work happens in a forked child that first becomes nobody. It gets open
 * descriptors, because nobody could not read a private key by name, and answers through a pipe: one
 * octet, '+' and a result, or '-' and the text for the operator. The parent bounds what it reads,
 * and trusts nothing in it. Time and memory of the child are bounded, and unless it looks for users
 * it enters the sandbox of a process that may do nothing but compute, which holds without root as
 * well.
 *
 * Invariant: the child never returns into the parent's code; it ends with _exit. */

#define NOBODY       65534
#define ANSWER_MAX   (16u * 1024 * 1024)
#define CHECK_TIME   20                   /* seconds, of processor time and of time */
#define CHECK_MEMORY (256u * 1024 * 1024) /* octets of its own */

static void
become_nobody(enum unprivileged_reach reach)
{
	const struct rlimit time = {CHECK_TIME, CHECK_TIME};
	char layers[128], error[256];
	setrlimit(RLIMIT_CPU, &time);
	alarm(CHECK_TIME); /* sekishod waits */
	const struct rlimit memory = {CHECK_MEMORY, CHECK_MEMORY};
	if (!SANDBOX_SANITIZED) /* whose shadow alone is larger */
		setrlimit(RLIMIT_DATA, &memory);
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	                       setresuid(NOBODY, NOBODY, NOBODY) < 0))
		_exit(2);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (reach == UNPRIVILEGED_LOOKS) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		return;
	}
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

bool
unprivileged_read(int fd, struct buf *out, size_t max)
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

bool
unprivileged_run(unprivileged_work *work, void *arg, enum unprivileged_reach reach, struct buf *out)
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
		become_nobody(reach);
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
	bool complete = unprivileged_read(ends[0], out, ANSWER_MAX);
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
