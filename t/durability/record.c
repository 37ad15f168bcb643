/* A recording layer, preloaded into every process of a service under test: each write, sync,
 * creation and removal below the spool, and each "250 … Queued as ID" at the instant msa hands it
 * to TLS, in one true order.
 *
 * The log is one mapped file shared by all processes, behind a spin lock that is held across the
 * real operation and its record, so that the order in the log is the order in which things
 * happened. Names do not matter here: a file is its inode, and a creation carries the path it was
 * made under. The replay (t/durability/replay.pl) says what it means.
 *
 * A creation's offset is the inode of the directory it was made in, 0 for the working directory.
 * Record: u32 type, u32 length of data, u64 inode, u64 offset, data. Native-endian. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { R_CREATE = 1, R_WRITE, R_WRITE_SYNCED, R_SYNC, R_TRUNCATE, R_UNLINK, R_PROMISE };

struct log {
	atomic_uint lock;
	uint32_t overflow;
	_Atomic uint64_t end; /* of the last record, from the start of the file */
};
struct record {
	uint32_t type, len;
	uint64_t inode, offset;
};
#define LOG_SIZE (2ull << 30)

static struct log *shared;

__attribute__((constructor)) static void
record_open(void)
{
	const char *path = getenv("SEKISHO_RECORD");
	if (path == NULL)
		return;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	void *map = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		shared = map;
}

static void
record_lock(void)
{
	if (shared == NULL)
		return;
	unsigned free_state = 0;
	while (!atomic_compare_exchange_weak(&shared->lock, &free_state, 1)) {
		free_state = 0;
		sched_yield();
	}
}

static void
record_unlock(void)
{
	if (shared != NULL)
		atomic_store(&shared->lock, 0);
}

static void
record_add(uint32_t type, uint64_t inode, uint64_t offset, const void *data, size_t len)
{
	if (shared == NULL)
		return;
	uint64_t at = atomic_load(&shared->end);
	if (at == 0)
		at = sizeof *shared;
	if (at + sizeof(struct record) + len > LOG_SIZE) {
		shared->overflow = 1;
		return;
	}
	struct record r = {type, (uint32_t)len, inode, offset};
	memcpy((char *)shared + at, &r, sizeof r);
	memcpy((char *)shared + at + sizeof r, data, len);
	atomic_store(&shared->end, at + sizeof r + len);
}

/* The inode of a regular file or directory; 0 for everything else, which is not recorded. */
static uint64_t
inode_of(int fd)
{
	struct stat st;
	if (shared == NULL || fstat(fd, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return 0;
	return st.st_ino;
}

#define REAL(name)                                                                                 \
	static __typeof__(&name) real;                                                             \
	if (real == NULL)                                                                          \
	real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static uint32_t
write_type(int fd)
{
	return fcntl(fd, F_GETFL) & O_DSYNC ? R_WRITE_SYNCED : R_WRITE;
}

static void
record_write(int fd, uint64_t offset, const struct iovec *iov, int count, ssize_t written)
{
	uint64_t inode = written > 0 ? inode_of(fd) : 0;
	if (inode == 0)
		return;
	size_t left = (size_t)written;
	for (int i = 0; i < count && left > 0; i++) {
		size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
		record_add(write_type(fd), inode, offset, iov[i].iov_base, n);
		offset += n;
		left -= n;
	}
}

static void
record_create(int directory, const char *path, int fd, int flags, int existed)
{
	if (fd < 0 || !(flags & O_CREAT) || existed || inode_of(fd) == 0)
		return;
	record_add(R_CREATE, inode_of(fd), directory == AT_FDCWD ? 0 : inode_of(directory), path,
	           strlen(path));
}

#define OPEN_BODY(call, directory)                                                                 \
	mode_t mode = 0;                                                                           \
	if (flags & (O_CREAT | O_TMPFILE)) {                                                       \
		va_list args;                                                                      \
		va_start(args, flags);                                                             \
		mode = (mode_t)va_arg(args, int);                                                  \
		va_end(args);                                                                      \
	}                                                                                          \
	if (shared == NULL || !(flags & O_CREAT))                                                  \
		return call;                                                                       \
	record_lock();                                                                             \
	struct stat st;                                                                            \
	int existed = fstatat(directory, path, &st, 0) == 0;                                       \
	int fd = call;                                                                             \
	int saved = errno;                                                                         \
	record_create(directory, path, fd, flags, existed);                                        \
	if (fd >= 0 && existed && (flags & O_TRUNC))                                               \
		record_add(R_TRUNCATE, st.st_ino, 0, "", 0);                                       \
	record_unlock();                                                                           \
	errno = saved;                                                                             \
	return fd

int
open(const char *path, int flags, ...)
{
	REAL(open);
	OPEN_BODY(real(path, flags, mode), AT_FDCWD);
}

int
open64(const char *path, int flags, ...)
{
	REAL(open64);
	OPEN_BODY(real(path, flags, mode), AT_FDCWD);
}

int
openat(int directory, const char *path, int flags, ...)
{
	REAL(openat);
	OPEN_BODY(real(directory, path, flags, mode), directory);
}

int
openat64(int directory, const char *path, int flags, ...)
{
	REAL(openat64);
	OPEN_BODY(real(directory, path, flags, mode), directory);
}

/* Operations on descriptors that are no files pass untouched: they must not wait for the lock. */
#define FILE_OP(type, fd, call, action)                                                            \
	if (inode_of(fd) == 0)                                                                     \
		return call;                                                                       \
	record_lock();                                                                             \
	type result = call;                                                                        \
	int saved = errno;                                                                         \
	action;                                                                                    \
	record_unlock();                                                                           \
	errno = saved;                                                                             \
	return result

ssize_t
write(int fd, const void *data, size_t len)
{
	REAL(write);
	struct iovec iov = {(void *)(uintptr_t)data, len};
	FILE_OP(ssize_t, fd, real(fd, data, len),
	        record_write(fd, (uint64_t)(lseek(fd, 0, SEEK_CUR) - (result > 0 ? result : 0)),
	                     &iov, 1, result));
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t offset)
{
	REAL(pwrite);
	struct iovec iov = {(void *)(uintptr_t)data, len};
	FILE_OP(ssize_t, fd, real(fd, data, len, offset),
	        record_write(fd, (uint64_t)offset, &iov, 1, result));
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
	FILE_OP(ssize_t, fd, real(fd, iov, count),
	        record_write(fd, (uint64_t)(lseek(fd, 0, SEEK_CUR) - (result > 0 ? result : 0)),
	                     iov, count, result));
}

ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	REAL(pwritev);
	FILE_OP(ssize_t, fd, real(fd, iov, count, offset),
	        record_write(fd, (uint64_t)offset, iov, count, result));
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
	FILE_OP(int, fd, real(fd), if (result == 0) record_add(R_SYNC, inode_of(fd), 0, "", 0));
}

int
fsync(int fd)
{
	REAL(fsync);
	FILE_OP(int, fd, real(fd), if (result == 0) record_add(R_SYNC, inode_of(fd), 0, "", 0));
}

int
ftruncate(int fd, off_t len)
{
	REAL(ftruncate);
	FILE_OP(int, fd, real(fd, len),
	        if (result == 0) record_add(R_TRUNCATE, inode_of(fd), (uint64_t)len, "", 0));
}

int
ftruncate64(int fd, off64_t len)
{
	return ftruncate(fd, len);
}

#define UNLINK_BODY(call, directory)                                                               \
	record_lock();                                                                             \
	struct stat st;                                                                            \
	int known = shared != NULL && fstatat(directory, path, &st, 0) == 0;                       \
	int result = call;                                                                         \
	int saved = errno;                                                                         \
	if (known && result == 0)                                                                  \
		record_add(R_UNLINK, st.st_ino, 0, path, strlen(path));                            \
	record_unlock();                                                                           \
	errno = saved;                                                                             \
	return result

int
unlink(const char *path)
{
	REAL(unlink);
	UNLINK_BODY(real(path), AT_FDCWD);
}

int
unlinkat(int directory, const char *path, int flags)
{
	REAL(unlinkat);
	UNLINK_BODY(real(directory, path, flags), directory);
}

/* The promise, seen where msa hands it to TLS. */
static void
record_promise(const char *text, size_t len)
{
	static const char mark[] = "Queued as ";
	const char *found = shared == NULL ? NULL : memmem(text, len, mark, sizeof mark - 1);
	if (found == NULL)
		return;
	found += sizeof mark - 1;
	size_t id_len = 0;
	while (found + id_len < text + len && found[id_len] != '\r' && found[id_len] != ';' &&
	       found[id_len] != ' ')
		id_len++;
	record_lock();
	record_add(R_PROMISE, 0, 0, found, id_len);
	record_unlock();
}

int SSL_write(void *ssl, const void *data, int len);
int
SSL_write(void *ssl, const void *data, int len)
{
	REAL(SSL_write);
	record_promise(data, (size_t)len);
	return real(ssl, data, len);
}

int SSL_write_ex(void *ssl, const void *data, size_t len, size_t *written);
int
SSL_write_ex(void *ssl, const void *data, size_t len, size_t *written)
{
	REAL(SSL_write_ex);
	record_promise(data, len);
	return real(ssl, data, len, written);
}
