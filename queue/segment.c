#include "queue/store_int.h"

/* Bodies: small ones appended to segments, large ones in files of their own.
 *
 * Each lane's writer appends to a segment of its own, front to back, and never rewrites. It is
 * abandoned at 64 MiB, at the first failed write or sync (after a failed fdatasync the kernel calls
 * the pages clean, so neither reading back nor syncing again proves anything), and at every start.
 * It is unlinked when nobody appends to it and no record names a body in it; readers that still
 * hold a descriptor are not disturbed by that.
 *
 * It grows by a MiB of zeros, which bodies then take the place of. So nearly every sync writes
 * octets where there are some: the file system has nothing of its own to commit for it, and does
 * not wait for what it has to commit for the large bodies that stream in meanwhile. What is left of
 * the zeros is cut when the segment is abandoned, or at the next start like any other tail.
 *
 * Freeing what a removed file held takes the kernel tens of milliseconds for 25 MiB, hundreds where
 * some of it is being written just then; the writer and the loop, for whom everybody waits, do not.
 * They take the name away with the file open, and a thread of its own closes it.
 *
 * What still lives in a segment that is mostly dead is copied elsewhere (compact.c).
 *
 * live counts bodies from the moment they are appended, before any record exists, so that a segment
 * which is rolled over in the middle of a group cannot vanish under that group. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "core/mem.h"

/* Of large files, given to the disk. */
#define PIECE    (256u * 1024)
#define REST_MIN 100   /* usec */
#define REST_MAX 50000 /* usec */

static void *
close_files(void *arg)
{
	struct segments *segments = arg;

	pthread_mutex_lock(&segments->lock);
	for (;;) {
		while (segments->closing_count == 0 && !segments->stop)
			pthread_cond_wait(&segments->wake, &segments->lock);
		if (segments->closing_count == 0)
			break;
		int fd = segments->closing[--segments->closing_count];

		pthread_mutex_unlock(&segments->lock);
		close(fd);
		pthread_mutex_lock(&segments->lock);
	}
	pthread_mutex_unlock(&segments->lock);
	return NULL;
}

/* Removes a file. Locked. When too many wait to be closed, whoever removes more of them waits. */
static void
remove_file(struct segments *segments, int dir, const char *name)
{
	int fd = -1;

	if (segments->running && segments->closing_count < SEGMENTS_CLOSING)
		fd = openat(dir, name, O_PATH | O_CLOEXEC);
	(void)unlinkat(dir, name, 0);
	if (fd < 0)
		return;
	segments->closing[segments->closing_count++] = fd;
	pthread_cond_signal(&segments->wake);
}

int
segments_open(struct segments *segments)
{
	memset(segments, 0, sizeof(*segments));
	pthread_mutex_init(&segments->lock, NULL);
	pthread_cond_init(&segments->wake, NULL);
	segments->bodies = segments->large = -1;
	segments->next = 1;
	if ((mkdir("bodies", 0700) < 0 && errno != EEXIST) ||
	    (mkdir("large", 0700) < 0 && errno != EEXIST))
		return -1;
	segments->bodies = open("bodies", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	segments->large = open("large", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (segments->bodies < 0 || segments->large < 0)
		return -1;
	segments->running = thread_start(&segments->closer, close_files, segments) == 0;
	return segments->running ? 0 : -1;
}

/* Forgets the descriptor that is kept. Locked. */
static void
stop_reading(struct segments *segments)
{
	if (segments->read_number)
		close(segments->read_fd);
	segments->read_number = 0;
}

void
segments_close(struct segments *segments)
{
	if (segments->running) {
		pthread_mutex_lock(&segments->lock);
		segments->stop = true;
		pthread_cond_signal(&segments->wake);
		pthread_mutex_unlock(&segments->lock);
		pthread_join(segments->closer, NULL);
		segments->running = false;
	}
	if (segments->bodies >= 0)
		close(segments->bodies);
	if (segments->large >= 0)
		close(segments->large);
	stop_reading(segments);
	free(segments->list);
	segments->list = NULL;
	segments->count = 0;
	segments->bodies = segments->large = -1;
	pthread_mutex_destroy(&segments->lock);
	pthread_cond_destroy(&segments->wake);
}

char *
segment_name(uint64_t number, char out[32])
{
	snprintf(out, 32, "seg-%016" PRIx64, number);
	return out;
}

char *
large_name(const struct queue_id *id, char out[QUEUE_ID_TEXT_SIZE])
{
	return queue_id_format(id, out);
}

/* The place of number in the list, or where it would be. Locked. */
static size_t
find(const struct segments *segments, uint64_t number)
{
	size_t low = 0, high = segments->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (segments->list[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The segment of that number, made if it is not there. Locked. */
static struct segment *
segment_of(struct segments *segments, uint64_t number)
{
	size_t at = find(segments, number);

	if (at < segments->count && segments->list[at].number == number)
		return &segments->list[at];
	if (segments->count == segments->size) {
		segments->size = segments->size ? segments->size * 2 : 64;
		segments->list =
		    xreallocarray(segments->list, segments->size, sizeof(*segments->list));
	}
	memmove(segments->list + at + 1, segments->list + at,
	        (segments->count - at) * sizeof(*segments->list));
	segments->list[at] = (struct segment){.number = number};
	segments->count++;
	return &segments->list[at];
}

void
segments_retain(struct segments *segments, const struct store_body *body)
{
	struct segment *segment;

	pthread_mutex_lock(&segments->lock);
	segment = segment_of(segments, body->segment);
	segment->live++;
	segment->octets += body->size;
	if (segment->end < body->offset + body->size)
		segment->end = body->offset + body->size;
	pthread_mutex_unlock(&segments->lock);
}

void
segments_measure(struct segments *segments, uint64_t number, uint64_t end, msec_t left)
{
	struct segment *segment;

	pthread_mutex_lock(&segments->lock);
	segment = segment_of(segments, number);
	segment->end = end;
	segment->left = left;
	pthread_mutex_unlock(&segments->lock);
}

bool
segments_know(struct segments *segments, uint64_t number)
{
	bool known;
	size_t at;

	pthread_mutex_lock(&segments->lock);
	at = find(segments, number);
	known = at < segments->count && segments->list[at].number == number;
	pthread_mutex_unlock(&segments->lock);
	return known;
}

void
segments_spoil(struct segments *segments, uint64_t number)
{
	size_t at;

	pthread_mutex_lock(&segments->lock);
	at = find(segments, number);
	if (at < segments->count && segments->list[at].number == number)
		segments->list[at].spoilt = true;
	pthread_mutex_unlock(&segments->lock);
}

/* One life less; the last one takes the file along. */
static void
release_one(struct segments *segments, uint64_t number, uint64_t octets)
{
	char name[32];
	size_t at;

	pthread_mutex_lock(&segments->lock);
	at = find(segments, number);
	if (at == segments->count || segments->list[at].number != number) {
		pthread_mutex_unlock(&segments->lock);
		return;
	}
	segments->list[at].octets -= octets;
	if (--segments->list[at].live == 0) {
		if (segments->read_number == number)
			stop_reading(segments); /* it would keep the space */
		remove_file(segments, segments->bodies, segment_name(number, name));
		segments->count--;
		memmove(segments->list + at, segments->list + at + 1,
		        (segments->count - at) * sizeof(*segments->list));
	}
	pthread_mutex_unlock(&segments->lock);
}

void
segments_release(struct segments *segments, const struct queue_id *id,
                 const struct store_body *body)
{
	char name[QUEUE_ID_TEXT_SIZE];

	if (body->segment) {
		release_one(segments, body->segment, body->size);
		return;
	}
	pthread_mutex_lock(&segments->lock);
	remove_file(segments, segments->large, large_name(id, name));
	pthread_mutex_unlock(&segments->lock);
}

void
appender_abandon(struct appender *appender)
{
	uint64_t number = appender->active;

	appender->dirty = appender->made = false;
	appender->broken = 0;
	appender->active = 0;
	if (number == 0)
		return;
	(void)!ftruncate(appender->fd, (off_t)appender->end);
	close(appender->fd);
	segments_measure(appender->segments, number, appender->end, clock_wall());
	release_one(appender->segments, number, 0);
}

int
appender_leave(struct appender *appender)
{
	int rc = appender_sync(appender);

	if (rc == 0)
		appender_abandon(appender);
	return rc;
}

int
appender_sync(struct appender *appender)
{
	if (appender->broken)
		return appender->broken;
	if ((appender->dirty && fdatasync(appender->fd) < 0) ||
	    (appender->made && fsync(appender->segments->bodies) < 0))
		return appender->broken = errno;
	appender->dirty = appender->made = false;
	return 0;
}

static int
roll(struct appender *appender)
{
	struct segments *segments = appender->segments;
	uint64_t number;
	char name[32];
	int rc;

	if ((rc = appender_leave(appender)) != 0)
		return rc;
	pthread_mutex_lock(&segments->lock);
	number = segments->next++;
	pthread_mutex_unlock(&segments->lock);
	appender->fd = openat(segments->bodies, segment_name(number, name),
	                      O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (appender->fd < 0)
		return errno;
	segments_retain(segments, &(struct store_body){.segment = number});
	appender->active = number;
	appender->end = appender->room = 0;
	appender->made = true;
	return 0;
}

/* 0 or an errno. */
static int
write_at(int fd, const uint8_t *data, size_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, data, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		data += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* For len octets more: 0 or an errno. */
static int
make_room(struct appender *appender, size_t len)
{
	static uint8_t zeros[STORE_SEGMENT_ROOM];
	int rc = 0;

	while (rc == 0 && appender->end + len > appender->room) {
		rc = write_at(appender->fd, zeros, sizeof(zeros), appender->room);
		if (rc == 0)
			appender->room += sizeof(zeros);
	}
	return rc;
}

int
appender_append(struct appender *appender, const void *data, size_t len, struct store_body *out)
{
	int rc;

	if (appender->broken)
		return appender->broken;
	if ((appender->active == 0 || appender->end + len > STORE_SEGMENT_MAX) &&
	    (rc = roll(appender)) != 0)
		return rc;
	*out = (struct store_body){.segment = appender->active,
	                           .offset = appender->end,
	                           .size = len,
	                           .checksum = XXH3_64bits(len ? data : "", len)};
	appender->dirty = true;
	if ((rc = make_room(appender, len)) != 0 ||
	    (rc = write_at(appender->fd, data, len, appender->end)) != 0)
		return rc;
	appender->end += len;
	segments_retain(appender->segments, out);
	return 0;
}

/* Size octets (or, with whole, up to the end) from offset: 0 or an errno. */
static int
sum(int fd, uint64_t offset, uint64_t size, bool whole, uint64_t *size_out, uint64_t *checksum)
{
	XXH3_state_t *state = XXH3_createState();
	size_t chunk = 256u * 1024;
	uint8_t *data = xmalloc(chunk);
	uint64_t done = 0;
	int rc = 0;

	if (state == NULL)
		abort();
	XXH3_64bits_reset(state);
	while (whole || done < size) {
		size_t want = whole || size - done > chunk ? chunk : (size_t)(size - done);
		ssize_t n = pread(fd, data, want, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = errno;
		if (n == 0 && !whole)
			rc = EBADMSG;
		if (n <= 0)
			break;
		XXH3_64bits_update(state, data, (size_t)n);
		done += (uint64_t)n;
	}
	*size_out = done;
	*checksum = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	free(data);
	return rc;
}

/* Whether somebody can still write to the file. The kernel grants a read lease only on one that is
 * open for writing nowhere, so a descriptor that msa kept shows; nobody can open it anew, because
 * msa has no path to it. Where there are no leases (some network filesystems), the checksum has to
 * do. */
static bool
is_open_for_writing(int fd)
{
	if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0)
		return errno == EAGAIN;
	(void)fcntl(fd, F_SETLEASE, F_UNLCK);
	return false;
}

int
large_write(const struct store *store, int fd, uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < to; at += PIECE) {
		const uint64_t begun = clock_usec();
		uint64_t rest;

		if (sync_file_range(fd, (off_t)at, PIECE,
		                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
		                        SYNC_FILE_RANGE_WAIT_AFTER) < 0)
			return errno;
		rest = clock_usec() - begun;
		if (rest < REST_MIN)
			continue; /* it was there already */
		if (store_is_serving(store))
			rest = rest * 9 / (1 + atomic_load(&store->large_waiting));
		if (rest > REST_MAX)
			rest = REST_MAX;
		if (!store->closing)
			nanosleep(&(struct timespec){.tv_nsec = (long)rest * 1000}, NULL);
	}
	return 0;
}

int
large_sync(struct store *store, const struct queue_id *id, struct store_body *out)
{
	const int directory = store->segments.large;
	char name[QUEUE_ID_TEXT_SIZE];
	struct stat st;
	int fd = openat(directory, large_name(id, name), O_RDONLY | O_CLOEXEC);
	int rc = 0;

	memset(out, 0, sizeof(*out));
	if (fd < 0)
		return errno;
	if (fstat(fd, &st) == 0)
		rc = large_write(store, fd, 0, (uint64_t)st.st_size);
	if (rc == 0 && is_open_for_writing(fd))
		rc = EBUSY;
	if (rc == 0 && (fdatasync(fd) < 0 || fsync(directory) < 0))
		rc = errno;
	if (rc == 0)
		rc = sum(fd, 0, 0, true, &out->size, &out->checksum);
	close(fd);
	return rc;
}

int
segments_read(struct segments *segments, const struct store_body *body, void *data)
{
	char name[32];
	uint8_t *at = data;
	uint64_t done = 0;
	int rc = 0,
	    fd = openat(segments->bodies, segment_name(body->segment, name), O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	while (done < body->size && rc == 0) {
		ssize_t n =
		    pread(fd, at + done, (size_t)(body->size - done), (off_t)(body->offset + done));

		if (n > 0)
			done += (uint64_t)n;
		else if (n == 0)
			rc = EBADMSG;
		else if (errno != EINTR)
			rc = errno;
	}
	close(fd);
	if (rc == 0 && XXH3_64bits(data, (size_t)body->size) != body->checksum)
		rc = EBADMSG;
	return rc;
}

int
body_verify(struct segments *segments, const struct queue_id *id, const struct store_body *body)
{
	char name[32];
	uint64_t size, checksum;
	struct stat st;
	int fd, rc;

	if (body->segment)
		fd = openat(segments->bodies, segment_name(body->segment, name),
		            O_RDONLY | O_CLOEXEC);
	else
		fd = openat(segments->large, large_name(id, name), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	rc = sum(fd, body->offset, body->size, false, &size, &checksum);
	if (rc == 0 && checksum != body->checksum)
		rc = EBADMSG;
	if (rc == 0 && body->segment == 0 &&
	    (fstat(fd, &st) < 0 || (uint64_t)st.st_size != body->size))
		rc = EBADMSG;
	close(fd);
	return rc;
}

static int
open_body(struct segments *segments, const struct queue_id *id, const struct store_body *body)
{
	char name[32];
	int fd;

	if (!body->segment)
		return openat(segments->large, large_name(id, name), O_RDONLY | O_CLOEXEC);
	pthread_mutex_lock(&segments->lock);
	if (segments->read_number != body->segment) {
		stop_reading(segments);
		segments->read_fd = openat(segments->bodies, segment_name(body->segment, name),
		                           O_RDONLY | O_CLOEXEC);
		segments->read_number = segments->read_fd < 0 ? 0 : body->segment;
	}
	fd = segments->read_number ? fcntl(segments->read_fd, F_DUPFD_CLOEXEC, 3) : -1;
	pthread_mutex_unlock(&segments->lock);
	return fd;
}

int
store_open_body(struct store *store, const struct queue_id *id, struct store_body *body)
{
	int fd = open_body(&store->segments, id, body);

	/* Compaction may have given it another place since the record was read. */
	for (unsigned i = 0; fd < 0 && body->segment && i < QUEUE_LANES; i++) {
		struct lane_txn txn;
		struct store_message *message;

		txn_read(&store->lanes[i], &txn);
		message = txn_load(&txn, id, false);
		txn_abort(&txn);
		if (message && message->body.segment != body->segment &&
		    (fd = open_body(&store->segments, id, &message->body)) >= 0)
			*body = message->body;
		store_message_free(message);
	}
	return fd;
}
