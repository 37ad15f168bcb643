/* Databases of 1 MiB that fill up: new mail is refused and changes nothing; what is queued can
 * still be attempted, moved and ended, and what that frees is taken for new mail again. */

#include <limits.h>

#include "core/conf.h"
#include "queue/space.h"
#include "t/unit/spool.h"
#include "t/unit/tap.h"

#define MANY 20000

static struct queue_id ids[MANY];
static bool accepted[MANY];
static unsigned count, refused;

static void
on_accepted(void *arg, enum store_result result)
{
	accepted[(bool *)arg - accepted] = result == STORE_OK;
	on_done(NULL, result);
}

/* Until the database is full: those that were taken stand at the front of ids. */
static void
fill(void)
{
	const unsigned before = count;

	memset(accepted, 0, sizeof(accepted));
	results[STORE_FULL] = 0;
	for (unsigned i = 0; i < 2000 && before + i < MANY; i++)
		enqueue(&ids[before + i], 4, "body", 4, NULL, 0, on_accepted,
		        &accepted[before + i]);
	wait_all();
	for (unsigned i = before; i < MANY; i++)
		if (accepted[i])
			ids[count++] = ids[i];
	refused = results[STORE_FULL];
}

static void
on_look(void *arg)
{
	struct lane_txn txn;
	bool has_room;

	txn_read(&store->lanes[QUEUE_FRESH], &txn);
	has_room = txn_has_room(&txn, false);
	txn_abort(&txn);
	if (has_room)
		loop_stop(loop);
	else
		loop_defer(loop, on_look, arg);
}

/* Outcomes leave the lane when history has copied them. */
static void
wait_room(void)
{
	loop_defer(loop, on_look, NULL);
	loop_run(loop);
}

static void
on_mark(void *arg)
{
	if (space_has_room(arg, 0))
		loop_stop(loop);
	else
		loop_defer(loop, on_mark, arg);
}

static void
wait_mark(struct space *space)
{
	loop_defer(loop, on_mark, space);
	loop_run(loop);
}

static void
end(enum queue_lane lane, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		for (uint16_t r = 0; r < 4; r++)
			finish(lane, &ids[i], 2, r, i % 20 || r ? STORE_DELIVERED : STORE_BOUNCED);
	wait_all();
}

static void
test_accept(void)
{
	static const struct conf conf; /* no reserve of the disk */
	struct space_view view;

	new_spool("accept");
	struct space *space = space_new(loop, store, &conf);
	ok(space_has_room(space, 0) && space_has_room(space, 1000), "there is room at first");
	fill();
	space_reload(space, &conf);
	space_look(space, &view);
	ok(!space_has_room(space, 0) && view.map_percent >= 90 &&
	       strstr(view.refusing, "queue.map_size"),
	   "a database at its mark is known before anything is written");
	ok(count > 0 && refused > 0 && conserved(4 * count), "a full database refuses new mail");
	memset(results, 0, sizeof(results));
	const unsigned first = count, half = count / 2;
	end(QUEUE_FRESH, 0, half);
	ok(results[STORE_OK] == 4 * half && conserved(4 * (first - half)),
	   "what is in it ends, bounces and their notifications too");
	wait_room();
	fill();
	ok(count > first, "and what that frees is taken again");
	end(QUEUE_FRESH, half, count);
	ok(conserved(0), "all of it ends");
	wait_mark(space);
	ok(space_has_room(space, 0), "and there is room again");
	space_free(space);
	ok(reopen() && conserved(0), "after a restart, too");
	end_spool();
}

static void
test_move(enum queue_lane to)
{
	unsigned moved = 0, full = 0;

	count = 0;
	new_spool(queue_lane_name(to));
	while (full == 0 && count < MANY - 2000) {
		const unsigned from = count;

		fill();
		memset(results, 0, sizeof(results));
		for (unsigned i = from; i < count; i++) {
			waiting++;
			store_move(store, &ids[i], QUEUE_FRESH, to, clock_wall(), on_done, NULL);
		}
		wait_all();
		moved += results[STORE_OK];
		full += results[STORE_FULL];
	}
	ok(moved > 0 && full > 0 && conserved(4 * count),
	   "a move into a lane that is full leaves the message where it is");
	memset(results, 0, sizeof(results));
	unsigned ended = 0;
	for (unsigned i = 0; i < count; i++) {
		enum queue_lane lane = QUEUE_LANES;

		(void)store_find(store, &ids[i], &lane);
		if (lane == to && ended++ < moved / 2)
			for (uint16_t r = 0; r < 4; r++)
				finish(lane, &ids[i], 2, r, STORE_DELIVERED);
	}
	wait_all();
	ok(results[STORE_OK] == moved / 2 * 4 && conserved(4 * (count - moved / 2)),
	   "what is in the full lane ends");
	for (unsigned i = 0; i < count; i++) {
		enum queue_lane lane = QUEUE_LANES;

		(void)store_find(store, &ids[i], &lane);
		if (lane == QUEUE_FRESH) {
			waiting++;
			store_move(store, &ids[i], lane, to, clock_wall(), on_done, NULL);
		}
	}
	memset(results, 0, sizeof(results));
	wait_all();
	ok(results[STORE_OK] == full && conserved(4 * (count - moved / 2)), "then the others move");
	end_spool();
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-full-XXXXXX", command[PATH_MAX];

	if (mkdtemp(dir) == NULL || chdir(dir) < 0)
		return 1;
	map_size = 1u << 20;
	loop = loop_new();
	test_accept();
	test_move(QUEUE_RETRY);
	test_move(QUEUE_FALLBACK);
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") < 0 || system(command) != 0)
		return 1;
	return tap_end();
}
