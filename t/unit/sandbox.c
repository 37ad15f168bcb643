#include "core/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Setup: a child of its own per set of rights, which enters the sandbox and tries.
 * Expectation: a process that only accepts or only connects opens no file. */

static unsigned tests;

static void
check(bool good, const char *what)
{
	printf("%sok %u - %s\n", good ? "" : "not ", ++tests, what);
}

static bool
opens(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

enum {
	ENTERED = 1,
	HOSTS = 4,
	PASSWD = 8,
	WRITES = 16,
	CREATES = 32,
	LOCAL_SOCKET = 64,
	LIBRARY = 128,
	TYPES = 256,
	EXECUTES = 512,
};

/* What a process with these rights could do. */
static int
tries(unsigned allowed)
{
	int ends[2], all = 0;
	if (pipe(ends) < 0)
		return 0;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		char layers[128], error[256];
		int did = 0;
		if (sandbox_enter(allowed, layers, sizeof(layers), error, sizeof(error)) < 0)
			_exit(0);
		did |= ENTERED;
		did |= opens("/etc/hosts", O_RDONLY) ? HOSTS : 0;
		did |= opens("/etc/passwd", O_RDONLY) ? PASSWD : 0;
		did |= opens("/etc/hosts", O_WRONLY) || opens("/dev/null", O_RDWR) ? WRITES : 0;
		did |= opens("/tmp/sekisho-sandbox-test", O_RDONLY | O_CREAT) ||
		               opens("/tmp", O_TMPFILE | O_RDWR)
		           ? CREATES
		           : 0;
		did |= socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? LOCAL_SOCKET : 0;
		did |= opens("/etc/ld.so.cache", O_RDONLY) ? LIBRARY : 0;
		char key = 'x';
		void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		did |= ioctl(2, TIOCSTI, &key) == 0 || errno != EPERM ? TYPES : 0;
		did |= page == MAP_FAILED || mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0
		           ? EXECUTES
		           : 0;
		_exit(write(ends[1], &did, sizeof(did)) != sizeof(did));
	}
	close(ends[1]);
	if (pid < 0 || read(ends[0], &all, sizeof(all)) != sizeof(all))
		all = 0;
	close(ends[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return all;
}

int
main(void)
{
	int did = tries(SANDBOX_CONNECT);
	check(did & ENTERED, "a connecting process enters");
	check(!(did & (HOSTS | PASSWD | WRITES | CREATES | LIBRARY)), "it opens no file at all");
#ifndef __SANITIZE_ADDRESS__
	check(!(did & LOCAL_SOCKET), "it makes no local socket");
	check(!(did & TYPES), "it types nothing into a terminal");
	check(!(did & EXECUTES), "it makes no memory executable");
#endif
	did = tries(SANDBOX_ACCEPT);
	check(did & ENTERED, "an accepting process enters");
#ifndef __SANITIZE_ADDRESS__
	check(!(did & TYPES), "it types nothing into a terminal");
	check(!(did & EXECUTES), "it makes no memory executable");
#endif
	check(!(did & (HOSTS | PASSWD | WRITES | CREATES | LIBRARY)), "it opens no file at all");
	printf("1..%u\n", tests);
	return 0;
}
