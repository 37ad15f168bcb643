#include "queue/store_int.h"

/* What a crash left is put right here, before any writer runs and before anything is scheduled; the
 * table in store.c says why.
 *
 * Order matters: first an id that is in two lanes is reduced to its higher generation; then every
 * remaining record counts its body; only then are files looked at, and only what no record names is
 * removed. Nothing that a record names is ever touched: a body that is missing or short is reported
 * and its record kept. If a record cannot be read, no file is removed at all, by this start or
 * later: the others go on, and that one waits for somebody to restore it. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

struct extent { /* what records name of one segment */
	uint64_t number, end;
};
struct extents {
	struct extent *list;
	size_t count, size;
	uint64_t lost; /* bodies shorter than their record says, or gone */
	bool unknown;  /* a record does not read: what it names is not to be touched either */
};

/* Deletes id from lane as the second half of a move would have. What does not read stays, and is
 * attempted from nowhere. */
static int
forget(struct lane *lane, const struct queue_id *id)
{
	struct lane_txn txn;
	struct store_message *message;

	txn_write(lane, &txn);
	message = txn_load(&txn, id, true);
	if (txn.rc == MDB_CORRUPTED) {
		char text[QUEUE_ID_TEXT_SIZE];

		log_error(queue_id_format(id, text), "record-bad", "lane=%s", lane->name);
		txn_abort(&txn);
		return 0;
	}
	if (message) {
		txn_drop(&txn, message);
		txn_count(&txn, COUNTER_MOVED_OUT, message->unfinished);
	}
	store_message_free(message);
	return txn_commit(&txn);
}

static int
settle_pair(struct lane *a, struct lane *b)
{
	struct lane_txn first, second;
	struct queue_id *losers_a = NULL, *losers_b = NULL;
	size_t count_a = 0, count_b = 0;
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc;

	txn_read(a, &first);
	txn_read(b, &second);
	cursor = txn_cursor(&first, TABLE_MESSAGE);
	while (cursor && first.rc == 0 && second.rc == 0 &&
	       mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		struct store_message *one, *other;
		struct queue_id id;

		memcpy(id.octets, k.mv_data, STORE_ID_SIZE);
		other = txn_load(&second, &id, false);
		one = other ? txn_load(&first, &id, false) : NULL;
		if (first.rc == MDB_CORRUPTED)
			first.rc = 0; /* count_bodies says so */
		if (second.rc == MDB_CORRUPTED)
			second.rc = 0;
		if (other == NULL)
			continue;
		if (one && one->generation > other->generation) {
			losers_b = xreallocarray(losers_b, count_b + 1, sizeof(id));
			losers_b[count_b++] = id;
		} else if (one) {
			losers_a = xreallocarray(losers_a, count_a + 1, sizeof(id));
			losers_a[count_a++] = id;
		}
		store_message_free(one);
		store_message_free(other);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	rc = first.rc ? first.rc : second.rc;
	txn_abort(&first);
	txn_abort(&second);
	for (size_t i = 0; i < count_a && rc == 0; i++)
		rc = forget(a, &losers_a[i]);
	for (size_t i = 0; i < count_b && rc == 0; i++)
		rc = forget(b, &losers_b[i]);
	if (count_a + count_b)
		log_info("-", "moves-settled", "lanes=%s,%s count=%zu", a->name, b->name,
		         count_a + count_b);
	free(losers_a);
	free(losers_b);
	return rc;
}

static struct extent *
extent_of(struct extents *extents, uint64_t number, bool make)
{
	size_t low = 0, high = extents->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (extents->list[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < extents->count && extents->list[low].number == number)
		return &extents->list[low];
	if (!make)
		return NULL;
	if (extents->count == extents->size) {
		extents->size = extents->size ? extents->size * 2 : 64;
		extents->list = xreallocarray(extents->list, extents->size, sizeof(*extents->list));
	}
	memmove(extents->list + low + 1, extents->list + low,
	        (extents->count - low) * sizeof(*extents->list));
	extents->count++;
	extents->list[low] = (struct extent){.number = number};
	return &extents->list[low];
}

static int
count_bodies(struct store *store, struct lane *lane, struct extents *extents, char *error,
             size_t size)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	MDB_val k, v;

	error[0] = '\0';
	txn_read(lane, &txn);
	cursor = txn_cursor(&txn, TABLE_MESSAGE);
	while (cursor && txn.rc == 0) {
		struct store_message *message;
		struct queue_id id;
		int rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);

		if (rc) {
			txn.rc = rc == MDB_NOTFOUND ? 0 : rc;
			break;
		}
		message = k.mv_size == STORE_ID_SIZE ? record_decode(v.mv_data, v.mv_size) : NULL;
		if (message == NULL) {
			unsigned version = v.mv_size ? *(const uint8_t *)v.mv_data : 0;

			if (version > STORE_FORMAT) {
				snprintf(error, size,
				         "%s: a record was written by a newer version (format %u, "
				         "this program knows %u)",
				         lane->name, version, STORE_FORMAT);
				txn.rc = MDB_CORRUPTED;
				break;
			}
			extents->unknown = true;
			log_error("-", "record-bad", "lane=%s octets=%zu", lane->name, v.mv_size);
			continue;
		}
		memcpy(id.octets, k.mv_data, STORE_ID_SIZE);
		if (message->body.segment) {
			struct extent *extent = extent_of(extents, message->body.segment, true);

			if (extent->end < message->body.offset + message->body.size)
				extent->end = message->body.offset + message->body.size;
			segments_retain(&store->segments, &message->body);
			if (message->body.segment >= store->segments.next)
				store->segments.next = message->body.segment + 1;
		}
		if (store->opts.verify_bodies &&
		    body_verify(&store->segments, &id, &message->body) != 0)
			extents->lost++;
		store_message_free(message);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	txn_abort(&txn);
	if (txn.rc && error[0] == '\0')
		snprintf(error, size, "%s: cannot read the records: %s", lane->name,
		         mdb_strerror(txn.rc));
	return txn.rc;
}

static DIR *
open_dir(int fd)
{
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = own < 0 ? NULL : fdopendir(own);

	if (dir == NULL && own >= 0)
		close(own);
	return dir;
}

/* Cuts what is behind the last recorded octet, removes what nothing names. */
static int
clean_segments(struct store *store, struct extents *extents)
{
	struct segments *segments = &store->segments;
	DIR *dir = open_dir(segments->bodies);
	struct dirent *entry;
	char name[32];

	if (dir == NULL)
		return -1;
	while ((entry = readdir(dir)) != NULL) {
		struct extent *extent;
		uint64_t number;
		struct stat st;

		if (sscanf(entry->d_name, "seg-%16" SCNx64, &number) != 1 ||
		    strcmp(segment_name(number, name), entry->d_name) != 0)
			continue;
		if (number >= segments->next)
			segments->next = number + 1;
		if (extents->unknown) {
			/* Kept by a life that nothing ends. */
			segments_retain(segments, &(struct store_body){.segment = number});
			continue;
		}
		extent = extent_of(extents, number, false);
		if (extent == NULL) {
			(void)unlinkat(segments->bodies, name, 0);
			continue;
		}
		if (fstatat(segments->bodies, name, &st, 0) < 0)
			continue;
		segments_measure(segments, number, extent->end,
		                 (msec_t)st.st_mtim.tv_sec * 1000 + 1);
		if ((uint64_t)st.st_size > extent->end) {
			int fd = openat(segments->bodies, name, O_WRONLY | O_CLOEXEC);

			if (fd < 0 || ftruncate(fd, (off_t)extent->end) < 0)
				log_warn("-", "segment-tail", "file=%s error=\"%s\"", name,
				         strerror(errno));
			if (fd >= 0)
				close(fd);
		} else if ((uint64_t)st.st_size < extent->end) {
			log_error("-", "segment-short", "file=%s size=%llu recorded=%llu", name,
			          (unsigned long long)st.st_size, (unsigned long long)extent->end);
		}
	}
	closedir(dir);
	return 0;
}

static int
clean_large(struct store *store)
{
	DIR *dir = open_dir(store->segments.large);
	struct dirent *entry;
	int rc = 0;

	if (dir == NULL)
		return -1;
	while (rc == 0 && (entry = readdir(dir)) != NULL) {
		struct queue_id id;
		bool named = false;

		if (!queue_id_parse(entry->d_name, &id))
			continue;
		for (unsigned i = 0; i < QUEUE_LANES && !named && rc == 0; i++) {
			struct lane_txn txn;
			struct store_message *message;

			txn_read(&store->lanes[i], &txn);
			message = txn_load(&txn, &id, false);
			named = message && message->body.segment == 0;
			rc = txn.rc ? -1 : 0;
			store_message_free(message);
			txn_abort(&txn);
		}
		if (rc == 0 && !named)
			(void)unlinkat(store->segments.large, entry->d_name, 0);
	}
	closedir(dir);
	return rc;
}

int
store_recover(struct store *store, char *error, size_t size)
{
	struct extents extents = {0};
	struct lane *lanes = store->lanes;
	int rc;

	if ((rc = settle_pair(&lanes[QUEUE_RETRY], &lanes[QUEUE_FRESH])) != 0 ||
	    (rc = settle_pair(&lanes[QUEUE_FALLBACK], &lanes[QUEUE_RETRY])) != 0 ||
	    (rc = settle_pair(&lanes[QUEUE_FALLBACK], &lanes[QUEUE_FRESH])) != 0) {
		snprintf(error, size, "cannot settle moves: %s", mdb_strerror(rc));
		return -1;
	}
	for (unsigned i = 0; i < QUEUE_LANES && rc == 0; i++)
		rc = count_bodies(store, &lanes[i], &extents, error, size);
	if (rc == 0 &&
	    (clean_segments(store, &extents) < 0 || (!extents.unknown && clean_large(store) < 0))) {
		snprintf(error, size, "bodies or large: cannot be cleaned: %s", strerror(errno));
		rc = -1;
	}
	if (extents.lost)
		log_error("-", "bodies-lost", "count=%llu", (unsigned long long)extents.lost);
	free(extents.list);
	return rc ? -1 : 0;
}
