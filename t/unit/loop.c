#include "core/loop.h"

#include <stdlib.h>
#include <unistd.h>

#include "t/unit/tap.h"

/* Chores: done in turn and to the end, and never so long at a time that what is ready waits. */

static struct loop *loop;
static struct loop_chore *one, *other, *freed;
static struct loop_timer *end;
static unsigned ones, others, freeings, again;
static char order[64];
static size_t length;

static void
on_end(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void
run(msec_t time)
{
	loop_timer_arm(end, time);
	loop_run(loop);
}

static bool
step_one(void *arg)
{
	unsigned *left = arg;

	if (length < sizeof(order) - 1)
		order[length++] = 'a';
	ones++;
	return --*left > 0;
}

static bool
step_other(void *arg)
{
	unsigned *left = arg;

	if (length < sizeof(order) - 1)
		order[length++] = 'b';
	others++;
	return --*left > 0;
}

static bool
step_freed(void *arg)
{
	(void)arg;
	freeings++;
	loop_chore_free(freed);
	freed = NULL;
	return true;
}

static bool
step_cancelled(void *arg)
{
	loop_chore_cancel(one);
	++*(unsigned *)arg;
	return true;
}

static bool
step_again(void *arg)
{
	(void)arg;
	if (++again == 1)
		loop_chore_begin(one); /* itself */
	return false;
}

/* For ever, a tenth of a millisecond each. */
static bool
step_busy(void *arg)
{
	const uint64_t begun = clock_usec();

	while (clock_usec() - begun < 100)
		;
	*(uint64_t *)arg += clock_usec() - begun;
	return true;
}

static int rounds;
static int ends[2];

static void
on_ready(void *arg, unsigned ready)
{
	char octet;

	(void)arg;
	(void)ready;
	if (read(ends[0], &octet, 1) == 1 && write(ends[1], "x", 1) == 1)
		rounds++;
}

int
main(void)
{
	unsigned three = 3, two = 2, steps = 0;
	uint64_t spent = 0, begun;
	struct loop_watch *watch;

	loop = loop_new();
	end = loop_timer_new(loop, on_end, NULL);
	one = loop_chore_new(loop, step_one, &three);
	other = loop_chore_new(loop, step_other, &two);
	freed = loop_chore_new(loop, step_freed, NULL);
	loop_chore_begin(one);
	loop_chore_begin(one);
	loop_chore_begin(other);
	loop_chore_begin(freed);
	ok(ones == 0, "nothing is done inside the call");
	run(50);
	ok(ones == 3 && others == 2, "each until it says that it is done");
	ok(order[0] == 'a' && order[1] == 'b' && order[2] == 'a' && order[3] == 'b', "in turns");
	ok(freeings == 1 && freed == NULL, "one may free itself");
	two = 2;
	others = 0;
	loop_chore_begin(other);
	loop_chore_cancel(other);
	run(20);
	ok(others == 0, "what was cancelled is not done");
	loop_chore_free(one);
	one = loop_chore_new(loop, step_cancelled, &steps);
	loop_chore_begin(one);
	run(20);
	ok(steps == 1, "one may cancel itself");
	loop_chore_free(one);
	one = loop_chore_new(loop, step_again, NULL);
	loop_chore_begin(one);
	run(20);
	ok(again == 2, "what begins itself comes once more");
	loop_chore_free(one);
	one = loop_chore_new(loop, step_busy, &spent);
	if (pipe(ends) < 0)
		return 1;
	watch = loop_watch_new(loop, ends[0], on_ready, NULL);
	loop_watch_set(watch, LOOP_READ);
	if (write(ends[1], "x", 1) != 1)
		return 1;
	loop_chore_begin(one);
	begun = clock_usec();
	run(200);
	begun = clock_usec() - begun;
	ok(spent > 0 && spent < begun / 2, "all of them leave most of the time to what is ready");
	ok(rounds > 100, "which has its turn meanwhile");
	printf("# %.0f %% of the time, %d turns\n", 100.0 * (double)spent / (double)begun, rounds);
	spent = 0;
	loop_chores_yield(loop);
	begun = clock_usec();
	run(200);
	begun = clock_usec() - begun;
	ok(spent > 0 && spent < begun / 6, "and nearly all of it while somebody is served");
	printf("# %.0f %% of the time\n", 100.0 * (double)spent / (double)begun);
	loop_watch_free(watch);
	loop_chore_free(one);
	loop_chore_free(other);
	loop_timer_free(end);
	loop_free(loop);
	return tap_end();
}
