/* A disk that fails, or a process that dies, at one chosen step: preloaded into every process of a
 * service under test and steered by the test through one mapped file.
 *
 * A point is PLACE.STEP. Places: fresh, retry, fallback, history (their data files), segment and
 * large (bodies), bodies and large-dir (their directories), body (a file that came through a
 * socket: msa's end of a large body). Steps: make, write, give (a part of a file to the disk, for
 * good), sync, remove, and meta, the write that makes an LMDB commit true. At the armed point,
 * after `skip` passes, the process is killed before or after the step, or the step fails with an
 * errno `times` times. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL_BEFORE = 1, KILL_AFTER, FAIL };

struct control { /* the test writes it with pack 'LLlLLLLLa32L' */
	atomic_uint armed;
	uint32_t action;
	int32_t error;
	uint32_t skip;
	uint32_t times; /* of FAIL; 0: until disarmed */
	atomic_uint seen, fired;
	atomic_uint steps; /* all of them, armed or not: a store at rest does not change it */
	char point[32];
	atomic_uint past; /* of the steps those that are over */
};

static struct control *control;

#define FDS 65536
static const char *place_of[FDS]; /* by descriptor, set where it is opened */

__attribute__((constructor)) static void
fault_open(void)
{
	const char *path = getenv("SEKISHO_FAULT");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		control = map;
}

static int
is_file(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

static const char *
place(int fd)
{
	if (control == NULL || fd < 3 || fd >= FDS || !is_file(fd))
		return NULL;
	return place_of[fd] ? place_of[fd] : "body";
}

static void
learn(int fd, const char *path)
{
	static const char *const starts[][2] = {
	    {"fresh/data", "fresh"},     {"retry/data", "retry"}, {"fallback/data", "fallback"},
	    {"history/data", "history"}, {"seg-", "segment"},     {"bodies", "bodies"},
	    {"large", "large-dir"}};
	if (control == NULL || fd < 0 || fd >= FDS)
		return;
	place_of[fd] = strlen(path) == 26 ? "large" : "other";
	for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
		if (strncmp(path, starts[i][0], strlen(starts[i][0])) == 0)
			place_of[fd] = starts[i][1];
}

static int
is_step(const char *where)
{
	return where != NULL && strcmp(where, "other") != 0;
}

/* What to do at this step: 0 for nothing. */
static uint32_t
at(const char *where, const char *step)
{
	char point[32];
	if (!is_step(where))
		return 0;
	atomic_fetch_add(&control->steps, 1);
	if (!atomic_load(&control->armed))
		return 0;
	snprintf(point, sizeof point, "%s.%s", where, step);
	if (strcmp(point, control->point) != 0)
		return 0;
	uint32_t n = atomic_fetch_add(&control->seen, 1);
	if (n < control->skip)
		return 0;
	if (control->action == FAIL && control->times && n - control->skip >= control->times)
		return 0;
	if (control->action != FAIL && n != control->skip)
		return 0;
	atomic_fetch_add(&control->fired, 1);
	return control->action;
}

static void
past(const char *where)
{
	if (is_step(where))
		atomic_fetch_add(&control->past, 1);
}

/* The sandbox forbids kill(2); a trap ends the process as suddenly. */
static void
die(const char *where)
{
	past(where);
	__builtin_trap();
}

#define REAL(name)                                                                                 \
	static __typeof__(&name) real;                                                             \
	if (real == NULL)                                                                          \
	real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define STEP(type, place, step, call)                                                              \
	const char *where = place;                                                                 \
	uint32_t action = at(where, step);                                                         \
	if (action == KILL_BEFORE)                                                                 \
		die(where);                                                                        \
	if (action == FAIL) {                                                                      \
		past(where);                                                                       \
		errno = control->error;                                                            \
		return -1;                                                                         \
	}                                                                                          \
	type result = call;                                                                        \
	if (action == KILL_AFTER)                                                                  \
		die(where);                                                                        \
	past(where);                                                                               \
	return result

static const char *
write_step(int fd)
{
	return control && fcntl(fd, F_GETFL) & O_DSYNC ? "meta" : "write";
}

/* Of a body's own file, by its name. */
static const char *
place_named(const char *path)
{
	return control == NULL                 ? NULL
	       : strncmp(path, "seg-", 4) == 0 ? "segment"
	       : strlen(path) == 26            ? "large"
	                                       : NULL;
}

#define OPEN(name, path, call)                                                                     \
	mode_t mode = 0;                                                                           \
	if (flags & (O_CREAT | O_TMPFILE)) {                                                       \
		va_list args;                                                                      \
		va_start(args, flags);                                                             \
		mode = (mode_t)va_arg(args, int);                                                  \
		va_end(args);                                                                      \
	}                                                                                          \
	const char *where = flags & O_EXCL ? place_named(path) : NULL;                             \
	uint32_t action = at(where, "make");                                                       \
	if (action == KILL_BEFORE)                                                                 \
		die(where);                                                                        \
	if (action == FAIL) {                                                                      \
		past(where);                                                                       \
		errno = control->error;                                                            \
		return -1;                                                                         \
	}                                                                                          \
	int fd = call;                                                                             \
	if (action == KILL_AFTER)                                                                  \
		die(where);                                                                        \
	learn(fd, path);                                                                           \
	past(where);                                                                               \
	return fd

int
open(const char *path, int flags, ...)
{
	REAL(open);
	OPEN(open, path, real(path, flags, mode));
}

int
open64(const char *path, int flags, ...)
{
	REAL(open64);
	OPEN(open64, path, real(path, flags, mode));
}

int
openat(int directory, const char *path, int flags, ...)
{
	REAL(openat);
	OPEN(openat, path, real(directory, path, flags, mode));
}

int
openat64(int directory, const char *path, int flags, ...)
{
	REAL(openat64);
	OPEN(openat64, path, real(directory, path, flags, mode));
}

int
close(int fd)
{
	REAL(close);
	if (fd >= 0 && fd < FDS)
		place_of[fd] = NULL;
	return real(fd);
}

int
unlinkat(int directory, const char *path, int flags)
{
	REAL(unlinkat);
	STEP(int, place_named(path), "remove", real(directory, path, flags));
}

ssize_t
write(int fd, const void *data, size_t len)
{
	REAL(write);
	STEP(ssize_t, place(fd), write_step(fd), real(fd, data, len));
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t offset)
{
	REAL(pwrite);
	STEP(ssize_t, place(fd), write_step(fd), real(fd, data, len, offset));
}

ssize_t
pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
	return pwrite(fd, data, len, offset);
}

ssize_t
writev(int fd, const struct iovec *iov, int count)
{
	REAL(writev);
	STEP(ssize_t, place(fd), write_step(fd), real(fd, iov, count));
}

ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	REAL(pwritev);
	STEP(ssize_t, place(fd), write_step(fd), real(fd, iov, count, offset));
}

ssize_t
pwritev64(int fd, const struct iovec *iov, int count, off64_t offset)
{
	return pwritev(fd, iov, count, offset);
}

int
fdatasync(int fd)
{
	REAL(fdatasync);
	STEP(int, place(fd), "sync", real(fd));
}

int
fsync(int fd)
{
	REAL(fsync);
	STEP(int, place(fd), "sync", real(fd));
}

int
sync_file_range(int fd, off_t offset, off_t len, unsigned flags)
{
	REAL(sync_file_range);
	STEP(int, place(fd), "give", real(fd, offset, len, flags));
}
