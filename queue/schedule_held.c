#include "queue/schedule_int.h"

/* Mail that its sender holds: FUTURERELEASE, RFC 4865.
 *
 * Problem: it may be held for weeks, by many, and a wall clock that is set wrongly in the meantime
 * must not send it early; a due time, however, is forgiven for being in an impossible future, and
 * so cannot say "in a month". Idea: held mail stands in an order of its own. When the moment has
 * come both by the wall clock and by ledger time, which is not fooled by a clock that jumps ahead,
 * it is given a due time, in one transaction, and is ordinary mail. Nothing is in memory but a
 * timer for the first of the order. */

#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"

#define RELEASE_MAX 250         /* at once: one group of the lane's writer */
#define LOOK        (60 * 1000) /* at least that often while something is held: a clock may be set */
#define AGAIN       (5 * 1000)  /* after a failed write */

struct release {
	struct schedule *schedule;
	struct queue_id id;
	msec_t due;
};

struct look {
	msec_t now;
	msec_t next; /* of the first that stays; 0: none */
	size_t count;
	struct queue_id ids[RELEASE_MAX];
};

msec_t
begun(const struct store_message *stored)
{
	const msec_t until = stored->envelope.hold_until;

	return until > stored->created ? until : stored->created;
}

static msec_t
held_now(struct schedule *schedule)
{
	const msec_t wall = clock_wall(), ledger = quota_time(schedule->quota);

	return wall < ledger ? wall : ledger;
}

static void
held_wake_in(struct schedule *schedule, msec_t delay)
{
	loop_timer_arm(schedule->held_timer, delay < 0 ? 0 : delay < LOOK ? delay : LOOK);
}

static void look_at_held(void *arg);

static void
on_released(void *arg, enum store_result result)
{
	struct release *release = arg;
	struct schedule *schedule = release->schedule;
	char text[QUEUE_ID_TEXT_SIZE];

	schedule->releasing--;
	if (result == STORE_OK)
		log_info(queue_id_format(&release->id, text), "hold-over",
		         "what=\"message %s\" by=sender", text);
	if (!schedule->stopped && result == STORE_OK)
		lane_due_at(&schedule->lanes[QUEUE_FRESH], release->due);
	if (!schedule->stopped && schedule->releasing == 0) {
		schedule->held_wake = 1; /* what comes in now is not due before the rest of these */
		held_wake_in(schedule, result == STORE_OK || result == STORE_MISSING ? 0 : AGAIN);
	}
	free(release);
}

static bool
on_held(void *arg, const struct store_key *key)
{
	struct look *look = arg;

	if (key->due > look->now) {
		look->next = key->due;
		return false;
	}
	look->ids[look->count++] = key->id;
	return look->count < RELEASE_MAX;
}

static void
look_at_held(void *arg)
{
	struct schedule *schedule = arg;
	struct store_key from = {0};
	struct look look = {.now = held_now(schedule)};

	schedule->held_wake = 0;
	if (schedule->stopped || schedule->releasing)
		return; /* the last of them looks again */
	store_scan_held(schedule->store, &from, RELEASE_MAX, on_held, &look);
	for (size_t i = 0; i < look.count; i++) {
		struct release *release = xcalloc(1, sizeof(*release));

		release->schedule = schedule;
		release->id = look.ids[i];
		release->due = schedule_now(schedule);
		schedule->releasing++;
		store_set_due(schedule->store, QUEUE_FRESH, &release->id, release->due, on_released,
		              release);
	}
	if (look.next && look.count == 0) {
		schedule->held_wake = look.next;
		held_wake_in(schedule, look.next - look.now);
	}
}

void
schedule_held_message(struct schedule *schedule, msec_t until)
{
	if (schedule->stopped || (schedule->held_wake && schedule->held_wake <= until) ||
	    schedule->releasing)
		return;
	schedule->held_wake = until;
	held_wake_in(schedule, until - held_now(schedule));
}

void
held_open(struct schedule *schedule)
{
	schedule->held_timer = loop_timer_new(schedule->loop, look_at_held, schedule);
	loop_timer_arm(schedule->held_timer, 0);
}

void
held_close(struct schedule *schedule)
{
	loop_timer_free(schedule->held_timer);
}
