/* Compaction: a segment that is mostly dead goes although something in it lives, whatever lane that
 * is in, whoever reads it, and whatever happens to it meanwhile. */

#include <limits.h>
#include <sys/mman.h>

#include "t/unit/spool.h"
#include "t/unit/tap.h"

#define MANY 100

static struct clock_test_offsets *offsets;
static struct queue_id ids[MANY];
static char body[60000];

static void
pass_time(msec_t by)
{
	offsets->wall += by;
	offsets->mono += by;
	offsets->changes++;
}

/* MANY messages in a segment that nobody appends to, of which only the last `live` are left. */
static void
fill(const char *name, unsigned live)
{
	new_spool(name);
	for (unsigned i = 0; i < MANY; i++) {
		memset(body, 'a' + (int)i % 26, sizeof(body));
		enqueue(&ids[i], 1, body, sizeof(body), NULL, 0, on_done, NULL);
	}
	wait_all();
	if (!reopen())
		abort();
	for (unsigned i = 0; i < MANY - live; i++)
		finish(QUEUE_FRESH, &ids[i], 1, 0, STORE_DELIVERED);
	wait_all();
}

static void
move(unsigned i, enum queue_lane from, enum queue_lane to)
{
	waiting++;
	store_move(store, &ids[i], from, to, clock_wall() + 60000, on_done, NULL);
}

static struct store_message *
load(unsigned i)
{
	enum queue_lane lane = QUEUE_LANES;

	(void)store_find(store, &ids[i], &lane);
	return lane == QUEUE_LANES ? NULL : store_load_message(store, lane, &ids[i]);
}

static bool
reads_back(unsigned i, int fd, uint64_t offset)
{
	char data[sizeof(body)];

	memset(body, 'a' + (int)i % 26, sizeof(body));
	return fd >= 0 && pread(fd, data, sizeof(data), (off_t)offset) == (ssize_t)sizeof(data) &&
	       memcmp(data, body, sizeof(body)) == 0;
}

static const char *
path_of(uint64_t segment)
{
	static char path[64];
	char name[32];

	snprintf(path, sizeof(path), "bodies/%s", segment_name(segment, name));
	return path;
}

static struct loop_timer *looking;

/* Half a second, which is a hundredth of that. */
static void
on_look(void *arg)
{
	if (access(arg, F_OK) < 0) {
		loop_stop(loop);
		return;
	}
	pass_time(495);
	loop_timer_arm(looking, 5);
}

/* Time passes until the segment is gone. */
static void
wait_gone(const char *path)
{
	looking = loop_timer_new(loop, on_look, (void *)path);
	pass_time(61000);
	loop_timer_arm(looking, 0);
	loop_run(loop);
	loop_timer_free(looking);
}

static void
test_lanes(void)
{
	fill("lanes", 9);
	for (unsigned i = MANY - 6; i < MANY; i++)
		move(i, QUEUE_FRESH, QUEUE_RETRY);
	wait_all();
	for (unsigned i = MANY - 3; i < MANY; i++)
		move(i, QUEUE_RETRY, QUEUE_FALLBACK);
	wait_all();
	struct store_message *stale = load(MANY - 1);
	struct store_body place = stale->body;
	const int before = store_open_body(store, &ids[MANY - 1], &stale->body);

	wait_gone(path_of(place.segment));
	ok(conserved(9) && checked.bodies == 9, "a segment mostly dead is gone, all in it lives");
	ok(reads_back(MANY - 1, before, place.offset), "a descriptor from before still reads");
	close(before);
	const int after = store_open_body(store, &ids[MANY - 1], &stale->body);
	ok(stale->body.segment != place.segment && reads_back(MANY - 1, after, stale->body.offset),
	   "who knows the old place only finds the new one");
	close(after);
	store_message_free(stale);
	ok(reopen() && conserved(9), "and it is so after a restart");
	unsigned good = 0;
	for (unsigned i = MANY - 9; i < MANY; i++) {
		struct store_message *message = load(i);
		const int fd = store_open_body(store, &ids[i], &message->body);

		good += reads_back(i, fd, message->body.offset);
		close(fd);
		store_message_free(message);
		finish(i < MANY - 6   ? QUEUE_FRESH
		       : i < MANY - 3 ? QUEUE_RETRY
		                      : QUEUE_FALLBACK,
		       &ids[i], 1, 0, STORE_DELIVERED);
	}
	ok(good == 9, "every body is what it was");
	wait_all();
	ok(conserved(0), "and all end");
	end_spool();
}

static struct loop_timer *again[MANY];

static void
on_moved(void *arg, enum store_result result)
{
	const size_t i = (size_t)((struct queue_id *)arg - ids);

	if (result != STORE_OK)
		abort();
	loop_timer_arm(again[i], rand() % 10000);
}

static void
on_again(void *arg)
{
	enum queue_lane lane;

	if (store && store_find(store, arg, &lane))
		store_move(store, arg, lane, (enum queue_lane)((lane + 1) % QUEUE_LANES),
		           clock_wall(), on_moved, arg);
}

/* Everything that lives moves about all the time. */
static void
test_beside_moves(void)
{
	fill("moves", 20);
	for (unsigned i = MANY - 20; i < MANY; i++) {
		again[i] = loop_timer_new(loop, on_again, &ids[i]);
		loop_timer_arm(again[i], 0);
	}
	wait_gone(path_of(1));
	ok(conserved(20), "what moves is copied between two moves");
	ok(reopen() && conserved(20) && checked.bodies == 20, "and kept");
	end_spool();
	for (unsigned i = MANY - 20; i < MANY; i++)
		loop_timer_free(again[i]);
}

static void
test_young(void)
{
	struct stat st;

	fill("young", MANY / 2);
	pass_time(61000);
	ok(conserved(MANY / 2) && stat(path_of(1), &st) == 0,
	   "one half dead stays while it is young");
	pass_time(25LL * 3600 * 1000);
	wait_gone(path_of(1));
	ok(conserved(MANY / 2), "and goes when it is old");
	end_spool();
}

static void
test_own(void)
{
	new_spool("own");
	for (unsigned i = 0; i < MANY; i++)
		enqueue(&ids[i], 1, body, sizeof(body), NULL, 0, on_done, NULL);
	wait_all();
	for (unsigned i = 0; i < MANY; i++)
		finish(QUEUE_FRESH, &ids[i], 1, 0, STORE_DELIVERED);
	wait_all();
	wait_gone(path_of(1));
	ok(conserved(0), "a writer leaves a segment in which nothing lives");
	enqueue(&ids[0], 1, body, sizeof(body), NULL, 0, on_done, NULL);
	wait_all();
	ok(last == STORE_OK && conserved(1), "and goes on in another");
	end_spool();
}

static void
test_spoilt(void)
{
	fill("spoilt", 2);
	struct store_message *message = load(MANY - 1);
	const int fd = open(path_of(message->body.segment), O_WRONLY);

	if (pwrite(fd, "?", 1, (off_t)message->body.offset + 7) != 1)
		abort();
	close(fd);
	pass_time(61000);
	for (bool copied = false; !copied;) {
		struct store_message *other = load(MANY - 2);

		copied = other->body.segment != message->body.segment;
		store_message_free(other);
		pass_time(500);
		run_audit();
	}
	run_audit();
	ok(run_check() == 1 && found("fresh/message/", "not what was written") && audit.queued == 2,
	   "a body that does not read back stays where it is, and the others go");
	store_message_free(message);
	end_spool();
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-compact-XXXXXX", command[PATH_MAX], clock[] = "clock";
	int fd;

	if (mkdtemp(dir) == NULL || chdir(dir) < 0 ||
	    (fd = open(clock, O_RDWR | O_CREAT, 0600)) < 0 || ftruncate(fd, sizeof(*offsets)) < 0)
		return 1;
	offsets = mmap(NULL, sizeof(*offsets), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	setenv("SEKISHO_TEST_CLOCK", clock, 1);
	alarm(120);
	loop = loop_new();
	test_lanes();
	test_beside_moves();
	test_young();
	test_own();
	test_spoilt();
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") < 0 || system(command) != 0)
		return 1;
	return tap_end();
}
