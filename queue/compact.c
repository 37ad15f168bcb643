#include "queue/store_int.h"

/* Space that dead bodies take, given back.
 *
 * Problem: a segment goes when nothing in it lives, and one message that waits for days keeps the
 * 64 MiB around it. Idea: what still lives in a segment that is mostly dead, or partly dead and
 * old, is copied to the end of the retry writer's own, and its record then names the copy. A pass
 * looks at all records once, notes which bodies are in such segments, and copies them, a bounded
 * share each second: more when no mail comes in, little when it does. It never waits for anybody,
 * and what a pass leaves the next one takes.
 *
 * Order, for each body: read and verified, appended, synced; then one transaction of the lane that
 * has the record changes where it points; then the old place is released, and the new one if the
 * record has ended or moved meanwhile. So at every moment the record names a body that is on the
 * disk. A descriptor on the old segment stays good after its end; who finds it gone looks at the
 * record again (store_open_body).
 *
 * A move copies a record as it was read, so nothing is changed under one: what is being moved is
 * left alone, and a move that begins later reads the record behind our change, in the same writer.
 *
 * A body that does not read back is left where it is, for an operator to see; its segment is no
 * candidate any more. */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

#define PASS_EVERY   (60 * 1000)                    /* msec */
#define OLD          (INT64_C(24) * 60 * 60 * 1000) /* msec since the last append */
#define DEAD_MIN     (256u * 1024)                  /* less is not worth a file */
#define LEAVE_MIN    (1u << 20)    /* a writer's own segment, empty of life, is left from here */
#define LEAVE_AT     (16u << 20)   /* and one mostly dead from here */
#define LOOK_RECORDS 10000         /* a second */
#define FOUND_MAX    4096          /* bodies of one pass */
#define SHARE_IDLE   (8u << 20)    /* octets a second, while no mail comes in */
#define SHARE_BUSY   (512u * 1024) /* and while it does */

struct found {
	struct queue_id id;
	enum queue_lane lane;
	struct store_body body;
};

struct compact {
	struct store *store;
	bool looking;   /* through the records */
	unsigned busy;  /* ops under way */
	msec_t last;    /* monotonic; when the last pass began */
	uint64_t seen;  /* messages accepted by the last tick */
	uint64_t *dead; /* segments that are to be emptied, ascending */
	size_t dead_count;
	enum queue_lane lane; /* where looking goes on, behind id */
	struct queue_id id;
	struct found *found;
	size_t found_count, next;
	uint64_t bodies, octets; /* copied in this pass */
};

/* --- which segments --- */

static bool
is_dead(const struct segment *segment, msec_t now)
{
	const uint64_t dead = segment->end > segment->octets ? segment->end - segment->octets : 0;

	return segment->left && !segment->spoilt && dead >= DEAD_MIN &&
	       (dead >= segment->end / 4 * 3 ||
	        (dead >= segment->end / 4 && now - segment->left >= OLD));
}

static void
choose(struct compact *compact)
{
	struct segments *segments = &compact->store->segments;
	const msec_t now = clock_wall();

	pthread_mutex_lock(&segments->lock);
	compact->dead_count = 0;
	compact->dead = xreallocarray(compact->dead, segments->count + 1, sizeof(*compact->dead));
	for (size_t i = 0; i < segments->count; i++)
		if (is_dead(&segments->list[i], now))
			compact->dead[compact->dead_count++] = segments->list[i].number;
	pthread_mutex_unlock(&segments->lock);
}

static bool
is_chosen(const struct compact *compact, uint64_t number)
{
	size_t low = 0, high = compact->dead_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compact->dead[middle] < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low < compact->dead_count && compact->dead[low] == number;
}

/* --- a writer's own segment --- */

static int
leave_prepare(struct op *op)
{
	return appender_leave(&op->lane->appender);
}

static enum store_result
nothing(struct op *op, struct lane_txn *txn)
{
	(void)op;
	(void)txn;
	return STORE_OK;
}

static void
leave_complete(struct op *op)
{
	op->store->compact->busy--;
	free(op);
}

/* Makes the writers leave segments of which little or nothing lives, which only then can go. */
static void
leave_dead(struct compact *compact)
{
	struct segments *segments = &compact->store->segments;

	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		const uint64_t number = atomic_load(&compact->store->lanes[i].appender.active);
		bool leave = false;

		pthread_mutex_lock(&segments->lock);
		for (size_t k = 0; number && k < segments->count; k++) {
			const struct segment *segment = &segments->list[k];

			if (segment->number == number && segment->left == 0)
				leave =
				    segment->end >= (segment->live == 1 ? LEAVE_MIN : LEAVE_AT) &&
				    segment->octets <= segment->end / 4;
		}
		pthread_mutex_unlock(&segments->lock);
		if (leave) {
			struct op *op = xcalloc(1, sizeof(*op));

			op->prepare = leave_prepare;
			op->apply = nothing;
			op->complete = leave_complete;
			compact->busy++;
			store_post(compact->store, &compact->store->lanes[i], op);
		}
	}
}

/* --- which bodies --- */

struct look {
	struct op op;
	struct compact *compact; /* nobody else touches it meanwhile */
	bool over;               /* all records were seen, or enough found */
};

/* The reader's thread: the next share of the records. */
static int
look_prepare(struct op *op)
{
	struct look *look = (struct look *)op;
	struct compact *compact = look->compact;
	struct lane_txn txn;
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;
	unsigned left = LOOK_RECORDS;
	int rc = MDB_NOTFOUND;

	txn_read(&compact->store->lanes[compact->lane], &txn);
	cursor = txn_cursor(&txn, TABLE_MESSAGE);
	key_id(&key, &compact->id);
	k = (MDB_val){key.len, key.data};
	for (rc = cursor ? mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE) : rc;
	     rc == 0 && left > 0 && compact->found_count < FOUND_MAX;
	     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT), left--) {
		struct store_message *message = record_decode(v.mv_data, v.mv_size);

		memcpy(compact->id.octets, k.mv_data, STORE_ID_SIZE);
		if (message && message->body.segment && is_chosen(compact, message->body.segment))
			compact->found[compact->found_count++] =
			    (struct found){compact->id, compact->lane, message->body};
		store_message_free(message);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	txn_abort(&txn);
	look->over = compact->found_count == FOUND_MAX;
	if (rc != 0 && !look->over) {
		memset(&compact->id, 0, sizeof(compact->id));
		look->over = ++compact->lane == QUEUE_LANES;
	}
	return 0;
}

static void
look_complete(struct op *op)
{
	struct look *look = (struct look *)op;

	look->compact->busy--;
	look->compact->looking = !look->over;
	free(look);
}

static void
look_on(struct compact *compact)
{
	struct look *look = xcalloc(1, sizeof(*look));

	look->compact = compact;
	look->op.prepare = look_prepare;
	look->op.complete = look_complete;
	compact->busy++;
	store_post(compact->store, &compact->store->audit, &look->op);
}

/* --- copying --- */

struct copy {
	struct op op;
	struct compact *compact;
	struct found found;
	struct store_body to;
	bool placed; /* to is on the disk and counted */
};

/* The retry writer's thread. */
static int
copy_prepare(struct op *op)
{
	struct copy *copy = (struct copy *)op;
	struct segments *segments = &op->store->segments;
	void *data = xmalloc(copy->found.body.size ? (size_t)copy->found.body.size : 1);
	char text[QUEUE_ID_TEXT_SIZE];
	int rc = segments_read(segments, &copy->found.body, data);

	if (rc == EBADMSG || rc == EIO) {
		log_error(queue_id_format(&copy->found.id, text), "body-bad",
		          "segment=%llu offset=%llu size=%llu",
		          (unsigned long long)copy->found.body.segment,
		          (unsigned long long)copy->found.body.offset,
		          (unsigned long long)copy->found.body.size);
		segments_spoil(segments, copy->found.body.segment);
	}
	/* ENOENT: it has ended, and its segment with it. */
	if (rc == 0)
		rc = appender_append(&op->lane->appender, data, (size_t)copy->found.body.size,
		                     &copy->to);
	copy->placed = rc == 0;
	free(data);
	return rc;
}

static enum store_result
copy_apply(struct op *op, struct lane_txn *txn)
{
	struct copy *copy = (struct copy *)op;
	struct store_message *message = txn_load(txn, &copy->found.id, false);
	enum store_result result = STORE_MISSING;
	struct key key;
	struct buf buf;

	if (message && message->body.segment == copy->found.body.segment &&
	    message->body.offset == copy->found.body.offset) {
		message->body = copy->to;
		buf_init(&buf);
		record_encode(message, &buf);
		key_id(&key, &message->id);
		txn_put(txn, TABLE_MESSAGE, &key, buf.data, buf.len);
		buf_clear(&buf);
		result = STORE_OK;
	}
	store_message_free(message);
	return result;
}

static void
copy_settled(struct op *op)
{
	struct copy *copy = (struct copy *)op;
	struct segments *segments = &op->store->segments;

	if (op->result == STORE_OK && op->apply == copy_apply)
		segments_release(segments, &copy->found.id, &copy->found.body);
	else if (op->result != STORE_OK && copy->placed)
		segments_release(segments, &copy->found.id, &copy->to);
}

static void
copy_complete(struct op *op)
{
	struct copy *copy = (struct copy *)op;
	struct compact *compact = copy->compact;
	struct store *store = op->store;

	if (op->result == STORE_OK && op->apply == nothing) {
		if (!store->closing && !store_is_moving(store, &copy->found.id)) {
			op->prepare = NULL;
			op->apply = copy_apply;
			store_post(store, &store->lanes[copy->found.lane], op);
			return;
		}
		segments_release(&store->segments, &copy->found.id, &copy->to);
	} else if (op->result == STORE_OK) {
		compact->bodies++;
		compact->octets += copy->to.size;
	}
	compact->busy--;
	free(copy);
}

static void
copy_start(struct compact *compact, const struct found *found)
{
	struct copy *copy = xcalloc(1, sizeof(*copy));

	copy->compact = compact;
	copy->found = *found;
	copy->op.weight = 1;
	copy->op.octets = (size_t)found->body.size;
	copy->op.prepare = copy_prepare;
	copy->op.apply = found->lane == QUEUE_RETRY ? copy_apply : nothing;
	copy->op.settled = copy_settled;
	copy->op.complete = copy_complete;
	compact->busy++;
	store_post(compact->store, &compact->store->lanes[QUEUE_RETRY], &copy->op);
}

static void
copy_share(struct compact *compact, uint64_t share)
{
	uint64_t octets = 0;

	while (compact->next < compact->found_count && octets < share) {
		const struct found *found = &compact->found[compact->next++];

		if (store_is_moving(compact->store, &found->id))
			continue;
		octets += found->body.size;
		copy_start(compact, found);
	}
}

/* --- passes --- */

static void
pass_begin(struct compact *compact)
{
	compact->last = clock_mono();
	choose(compact);
	if (compact->dead_count == 0)
		return;
	compact->looking = true;
	compact->lane = QUEUE_FRESH;
	memset(&compact->id, 0, sizeof(compact->id));
	if (compact->found == NULL)
		compact->found = xcalloc(FOUND_MAX, sizeof(*compact->found));
}

static void
pass_end(struct compact *compact)
{
	if (compact->bodies)
		log_info("-", "compacted", "bodies=%llu octets=%llu",
		         (unsigned long long)compact->bodies, (unsigned long long)compact->octets);
	compact->bodies = compact->octets = 0;
	compact->found_count = compact->next = 0;
	free(compact->found);
	compact->found = NULL;
}

void
compact_tick(struct compact *compact)
{
	struct lane *fresh = &compact->store->lanes[QUEUE_FRESH];
	uint64_t seen;
	bool idle;

	pthread_mutex_lock(&fresh->lock);
	seen = fresh->committed;
	pthread_mutex_unlock(&fresh->lock);
	idle = seen == compact->seen;
	compact->seen = seen;
	if (compact->store->closing || compact->busy)
		return;
	leave_dead(compact);
	if (compact->looking)
		look_on(compact);
	else if (compact->next < compact->found_count)
		copy_share(compact, idle ? SHARE_IDLE : SHARE_BUSY);
	else if (compact->found)
		pass_end(compact);
	else if (clock_mono() - compact->last >= PASS_EVERY)
		pass_begin(compact);
}

struct compact *
compact_new(struct store *store)
{
	struct compact *compact = xcalloc(1, sizeof(*compact));

	compact->store = store;
	compact->last = clock_mono();
	return compact;
}

void
compact_free(struct compact *compact)
{
	if (compact == NULL)
		return;
	assert(compact->busy == 0);
	free(compact->found);
	free(compact->dead);
	free(compact);
}
