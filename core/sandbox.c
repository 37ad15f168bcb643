#include "core/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <seccomp.h>

/* Problem: a flaw in a parser must not become a shell, a file or a connection.
 *
 * Idea: four layers that need no privilege. No new privileges, so nothing set-user-ID helps. Not
 * dumpable, so neither cores nor ptrace by an equal reveal secrets. A system-call filter: what is
 * not listed fails with EPERM (a library's surprise then degrades a function instead of killing a
 * process that holds sessions). Landlock: no file at all, or only below the working directory; and
 * no TCP where the job has none.
 *
 * The filter knows descriptors only, not paths, so a process without SANDBOX_OWN_DIR has no call
 * left that takes a path. Landlock is used by number: Debian 12's headers describe an older version
 * than many kernels have, and glibc has no wrappers. Rights that the running kernel does not know
 * are masked out by its ABI version.
 *
 * Threads that exist already get the filter too (TSYNC), but Landlock only binds the caller and
 * threads it starts later. That is enough: without file system calls in the filter there is nothing
 * to bind.
 *
 * Even a call without a path can reach out: ioctl puts keys into the terminal that stderr may be
 * (TIOCSTI), so only the few harmless requests are left. Memory never becomes executable.
 *
 * clone3 keeps its flags in memory, which a filter cannot read. It answers ENOSYS, and glibc then
 * uses clone, whose flags are an argument: threads yes, processes no.
 *
 * Sanitizer builds leave out the filter and the dumpable bit, and may read /proc: the leak checker
 * forks, traces itself at exit and looks there. */

static const char *const calls_always[] = {
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
    "pwritev2", "close", "close_range", "fstat", "lseek", "fcntl", "dup", "dup2", "dup3", "pipe2",
    "eventfd2",
    /* memory */
    "munmap", "mremap", "brk", "madvise", "msync", "membarrier",
    /* waiting */
    "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll",
    "select", "pselect6", "timerfd_create", "timerfd_settime", "timerfd_gettime", "nanosleep",
    "clock_nanosleep", "restart_syscall", "futex", "sched_yield", "rt_sigtimedwait",
    /* sockets that exist */
    "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg", "shutdown", "getsockopt",
    "setsockopt", "getsockname", "getpeername",
    /* ourselves */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "getpid", "gettid", "getppid",
    "getuid", "geteuid", "getgid", "getegid", "getrandom", "clock_gettime", "clock_getres",
    "gettimeofday", "time", "getrusage", "sysinfo", "uname", "getcpu", "sched_getaffinity", "rseq",
    "set_robust_list", "set_tid_address", "exit", "exit_group"};
static const char *const calls_accept[] = {"accept", "accept4"};
static const char *const calls_connect[] = {"connect", "bind"};
static const char *const calls_own_dir[] = {
    "open",      "openat",     "creat",     "mkdir",           "mkdirat", "unlink",    "unlinkat",
    "rmdir",     "rename",     "renameat",  "renameat2",       "link",    "linkat",    "getdents64",
    "stat",      "lstat",      "statx",     "newfstatat",      "fstatfs", "statfs",    "access",
    "faccessat", "faccessat2", "readlink",  "readlinkat",      "flock",   "ftruncate", "truncate",
    "fallocate", "fsync",      "fdatasync", "sync_file_range", "syncfs",  "fadvise64", "fchmod",
    "utimensat", "umask",      "mlock",     "getcwd"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
/* What may be asked of a descriptor: is it a terminal, how much is there, do not block. */
static const scmp_datum_t requests[] = {TCGETS, FIONREAD, FIONBIO};

static int
allow(scmp_filter_ctx filter, const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int call = seccomp_syscall_resolve_name(names[i]);
		if (call < 0)
			continue; /* this architecture does not have it */
		int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
		if (result < 0)
			return result;
	}
	return 0;
}

static int
allow_some(scmp_filter_ctx filter, unsigned allowed)
{
	int result;
	/* fstat through its modern name, on a descriptor only. */
	if ((allowed & SANDBOX_OWN_DIR) == 0 &&
	    (result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
	                               SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH))) <
	        0)
		return result;
	for (size_t i = 0; i < COUNT(requests); i++)
		if ((result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
		                               SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX,
		                                       requests[i]))) < 0)
			return result;
	if ((result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
	                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0))) < 0 ||
	    (result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
	                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0))) < 0)
		return result;
	/* Our own limits may be read. */
	if ((result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2,
	                               SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0))) < 0)
		return result;
	/* abort(3). */
	if ((result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
	                               SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()))) < 0)
		return result;
	if ((allowed & SANDBOX_CONNECT) != 0 &&
	    ((result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
	                                SCMP_A0(SCMP_CMP_EQ, AF_INET))) < 0 ||
	     (result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
	                                SCMP_A0(SCMP_CMP_EQ, AF_INET6))) < 0))
		return result;
	if ((allowed & SANDBOX_THREADS) != 0) {
		if ((result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3),
		                               0)) < 0 ||
		    (result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
		                               SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD,
		                                       CLONE_THREAD))) < 0)
			return result;
	}
	return 0;
}

/* 1: active, 0: this kernel has no filters, -1: failed. */
static int
enter_seccomp(unsigned allowed, char *error, size_t size)
{
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0 && errno == EINVAL)
		return 0;
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (filter == NULL) {
		snprintf(error, size, "cannot make a system-call filter");
		return -1;
	}
	int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (result == 0)
		result = allow(filter, calls_always, COUNT(calls_always));
	if (result == 0 && (allowed & SANDBOX_ACCEPT) != 0)
		result = allow(filter, calls_accept, COUNT(calls_accept));
	if (result == 0 && (allowed & SANDBOX_CONNECT) != 0)
		result = allow(filter, calls_connect, COUNT(calls_connect));
	if (result == 0 && (allowed & SANDBOX_OWN_DIR) != 0)
		result = allow(filter, calls_own_dir, COUNT(calls_own_dir));
	if (result == 0)
		result = allow_some(filter, allowed);
	if (result == 0)
		result = seccomp_load(filter);
	seccomp_release(filter);
	if (result == 0)
		return 1;
	snprintf(error, size, "system-call filter: %s", strerror(-result));
	return -1;
}

/* Landlock, by number. */

#define LL_CREATE_RULESET 444
#define LL_ADD_RULE       445
#define LL_RESTRICT_SELF  446
#define LL_VERSION_FLAG   1u
#define LL_PATH_BENEATH   1

#define LL_FS_EXECUTE     (1ull << 0)
#define LL_FS_WRITE_FILE  (1ull << 1)
#define LL_FS_READ_FILE   (1ull << 2)
#define LL_FS_READ_DIR    (1ull << 3)
#define LL_FS_REMOVE_DIR  (1ull << 4)
#define LL_FS_REMOVE_FILE (1ull << 5)
#define LL_FS_MAKE_DIR    (1ull << 7)
#define LL_FS_MAKE_REG    (1ull << 8)
#define LL_FS_REFER       (1ull << 13)
#define LL_FS_TRUNCATE    (1ull << 14)
#define LL_NET_BIND       (1ull << 0)
#define LL_NET_CONNECT    (1ull << 1)
#define LL_SCOPE_ALL      3ull /* abstract Unix sockets, signals */

struct ll_ruleset {
	uint64_t fs;
	uint64_t net;    /* ABI 4 */
	uint64_t scoped; /* ABI 6 */
};

struct ll_path {
	uint64_t allowed;
	int32_t fd;
} __attribute__((packed));

static uint64_t
known_rights(long abi)
{
	if (abi >= 5)
		return (1ull << 16) - 1;
	if (abi >= 3)
		return (1ull << 15) - 1;
	return abi == 2 ? (1ull << 14) - 1 : (1ull << 13) - 1;
}

static int
allow_path(int ruleset, const char *path, uint64_t rights)
{
	struct ll_path rule = {.allowed = rights, .fd = open(path, O_PATH | O_CLOEXEC)};
	if (rule.fd < 0)
		return -1;
	long result = syscall(LL_ADD_RULE, ruleset, LL_PATH_BENEATH, &rule, 0);
	close(rule.fd);
	return result < 0 ? -1 : 0;
}

/* The ABI version, 0 when the kernel has none or has it switched off, -1 when it failed. */
static long
enter_landlock(unsigned allowed, char *error, size_t size)
{
	long abi = syscall(LL_CREATE_RULESET, NULL, 0, LL_VERSION_FLAG);
	if (abi <= 0)
		return 0;
	/* Who connects may choose from which address: the filter has no listen for it. */
	struct ll_ruleset rules = {.fs = known_rights(abi), .scoped = LL_SCOPE_ALL};
	if ((allowed & SANDBOX_CONNECT) == 0)
		rules.net = LL_NET_BIND | LL_NET_CONNECT;
	size_t length = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
	int ruleset = (int)syscall(LL_CREATE_RULESET, &rules, length, 0);
	if (ruleset < 0) {
		snprintf(error, size, "landlock: %s", strerror(errno));
		return -1;
	}
	if ((allowed & SANDBOX_OWN_DIR) != 0) {
		uint64_t own = LL_FS_WRITE_FILE | LL_FS_READ_FILE | LL_FS_READ_DIR |
		               LL_FS_REMOVE_DIR | LL_FS_REMOVE_FILE | LL_FS_MAKE_DIR |
		               LL_FS_MAKE_REG | LL_FS_REFER | LL_FS_TRUNCATE;
		if (allow_path(ruleset, ".", own & known_rights(abi)) < 0)
			goto fail;
		/* Libraries that seed themselves from a file; harmless where it is missing. */
		allow_path(ruleset, "/dev/urandom", LL_FS_READ_FILE);
		allow_path(ruleset, "/dev/random", LL_FS_READ_FILE);
	}
	if (SANDBOX_SANITIZED && allow_path(ruleset, "/proc", LL_FS_READ_FILE | LL_FS_READ_DIR) < 0)
		goto fail;
	if (syscall(LL_RESTRICT_SELF, ruleset, 0) < 0)
		goto fail;
	close(ruleset);
	return abi;
fail:
	snprintf(error, size, "landlock: %s", strerror(errno));
	close(ruleset);
	return -1;
}

static void
add_layer(char *layers, size_t size, const char *name)
{
	size_t len = strlen(layers);
	snprintf(layers + len, size - len, "%s%s", len > 0 ? "," : "", name);
}

int
sandbox_no_dumps(void)
{
	const struct rlimit none = {0, 0};
	/* A core_pattern that pipes into a program ignores the limit. */
	return setrlimit(RLIMIT_CORE, &none) < 0 ||
	               (!SANDBOX_SANITIZED && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
	           ? -1
	           : 0;
}

int
sandbox_enter(unsigned allowed, char *layers, size_t layers_size, char *error, size_t error_size)
{
	layers[0] = '\0';
	error[0] = '\0';
	/* The time zone is read now. With TZ set, localtime(3) does not look at the file again,
	 * which it could no longer open: it would silently change to UTC. */
	setenv("TZ", ":/etc/localtime", 0);
	tzset();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		snprintf(error, error_size, "no new privileges: %s", strerror(errno));
		return -1;
	}
	add_layer(layers, layers_size, "no-new-privs");
	if (sandbox_no_dumps() < 0) {
		snprintf(error, error_size, "no dumps: %s", strerror(errno));
		return -1;
	}
	if (!SANDBOX_SANITIZED)
		add_layer(layers, layers_size, "no-dump");
	/* Landlock before the filter, which does not allow its calls. */
	long abi = enter_landlock(allowed, error, error_size);
	if (abi < 0)
		return -1;
	if (!SANDBOX_SANITIZED) {
		int filtered = enter_seccomp(allowed, error, error_size);
		if (filtered < 0)
			return -1;
		if (filtered > 0)
			add_layer(layers, layers_size, "seccomp");
	}
	if (abi > 0) {
		char name[32];
		snprintf(name, sizeof(name), "landlock:%ld", abi);
		add_layer(layers, layers_size, name);
	}
	return 0;
}
