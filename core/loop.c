#include "core/loop.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#include "core/mem.h"

/* A thin face for libevent, so that nobody else depends on it. Each object wraps one event and
 * calls back as its last act: nothing of ours is touched after the callback, so the callback may
 * free the object.
 *
 * Armed timers are also kept in a list with their deadlines on clock_mono. Only test builds need
 * it: when the shared test clock moves, every timer is armed anew for what is left, so that a day
 * passes at once. */

struct loop_timer {
	struct loop *loop;
	struct event *event;
	loop_callback *on_timeout;
	void *arg;
	msec_t deadline; /* clock_mono */
	bool armed;
	LIST_ENTRY(loop_timer) armed_link; /* in loop->armed while armed */
};

struct loop_watch {
	struct loop *loop;
	struct event *event; /* NULL while interest is empty */
	int fd;
	unsigned interest;
	loop_ready *on_ready;
	void *arg;
};

struct loop_wake {
	struct event *event;
	int fd; /* eventfd */
	loop_callback *on_wake;
	void *arg;
};

struct loop_signal {
	struct event *event;
	loop_callback *on_signal;
	void *arg;
	SLIST_ENTRY(loop_signal) link;
};

struct loop_chore {
	struct loop *loop;
	bool (*step)(void *arg);
	void *arg;
	bool begun;
	TAILQ_ENTRY(loop_chore) link; /* in loop->chores while begun */
};

struct deferred {
	loop_callback *callback;
	void *arg;
	TAILQ_ENTRY(deferred) link;
};

struct loop {
	struct event_base *base;
	LIST_HEAD(, loop_timer) armed;
	SLIST_HEAD(, loop_signal) signals;
	TAILQ_HEAD(deferred_list, deferred) deferred; /* in the order they were asked for */
	struct event *defer_event;
	bool is_deferring;                     /* on_deferred runs */
	TAILQ_HEAD(chores, loop_chore) chores; /* in turn */
	struct event *chore_event;
	uint64_t yielding;           /* clock_usec until which they take less */
	struct loop_chore *stepping; /* NULL: none, or it was cancelled or freed meanwhile */
#ifdef SEKISHO_TEST
	struct event *test_poll;
	uint64_t test_changes; /* as of the last poll */
#endif
};

static struct timeval
timeval_of(msec_t delay)
{
	if (delay < 0)
		delay = 0;
	return (struct timeval){.tv_sec = (time_t)(delay / 1000),
	                        .tv_usec = (suseconds_t)(delay % 1000 * 1000)};
}

#ifdef SEKISHO_TEST
#define TEST_POLL 2 /* ms */

static void
on_test_poll(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	const uint64_t changes = clock_test_changes();
	struct loop_timer *timer;

	(void)fd;
	(void)what;
	if (changes == loop->test_changes)
		return;
	loop->test_changes = changes;
	LIST_FOREACH(timer, &loop->armed, armed_link)
	{
		const struct timeval left = timeval_of(timer->deadline - clock_mono());
		evtimer_add(timer->event, &left);
	}
}
#endif

/* Runs what was deferred up to now; what a callback defers in turn waits for the next turn. */
static void
on_deferred(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	struct deferred *last = TAILQ_LAST(&loop->deferred, deferred_list);
	struct deferred *first;
	const struct timeval at_once = {0};
	bool done = false;

	(void)fd;
	(void)what;
	loop->is_deferring = true;
	while (!done && (first = TAILQ_FIRST(&loop->deferred))) {
		const struct deferred job = *first;

		done = first == last;
		TAILQ_REMOVE(&loop->deferred, first, link);
		free(first);
		job.callback(job.arg);
	}
	loop->is_deferring = false;
	if (!TAILQ_EMPTY(&loop->deferred))
		evtimer_add(loop->defer_event, &at_once);
}

void
loop_defer(struct loop *loop, loop_callback *callback, void *arg)
{
	struct deferred *job = xcalloc(1, sizeof *job);
	bool is_first = TAILQ_EMPTY(&loop->deferred);

	job->callback = callback;
	job->arg = arg;
	TAILQ_INSERT_TAIL(&loop->deferred, job, link);
	/* An activated event comes behind all that are active now, in the same turn: no further
	 * look at the descriptors in between. */
	if (is_first && !loop->is_deferring)
		event_active(loop->defer_event, EV_TIMEOUT, 1);
}

/* epoll counts in milliseconds: the shortest rest, three times a slice. */
#define CHORE_SLICE 500     /* usec */
#define CHORE_REST  2       /* msec */
#define CHORE_YIELD 10      /* msec: the rest while somebody is served */
#define SERVED      1000000 /* usec */

static void
on_chores(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	const uint64_t begun = clock_usec();
	const struct timeval rest = timeval_of(begun < loop->yielding ? CHORE_YIELD : CHORE_REST);
	struct loop_chore *chore;

	(void)fd;
	(void)what;
	while ((chore = TAILQ_FIRST(&loop->chores)) && clock_usec() - begun < CHORE_SLICE) {
		bool more;

		/* The step may begin, cancel or free any of them, itself too. */
		loop_chore_cancel(chore);
		loop->stepping = chore;
		more = chore->step(chore->arg);
		if (more && loop->stepping)
			loop_chore_begin(chore); /* behind the others */
		loop->stepping = NULL;
	}
	if (chore)
		evtimer_add(loop->chore_event, &rest);
}

struct loop_chore *
loop_chore_new(struct loop *loop, bool (*step)(void *arg), void *arg)
{
	struct loop_chore *chore = xcalloc(1, sizeof *chore);

	chore->loop = loop;
	chore->step = step;
	chore->arg = arg;
	return chore;
}

void
loop_chore_free(struct loop_chore *chore)
{
	if (!chore)
		return;
	loop_chore_cancel(chore);
	free(chore);
}

void
loop_chore_begin(struct loop_chore *chore)
{
	struct loop *loop = chore->loop;
	const struct timeval rest = timeval_of(CHORE_REST);

	if (chore->begun)
		return;
	chore->begun = true;
	TAILQ_INSERT_TAIL(&loop->chores, chore, link);
	if (!evtimer_pending(loop->chore_event, NULL))
		evtimer_add(loop->chore_event, &rest);
}

void
loop_chores_yield(struct loop *loop)
{
	loop->yielding = clock_usec() + SERVED;
}

void
loop_chore_cancel(struct loop_chore *chore)
{
	if (chore->loop->stepping == chore)
		chore->loop->stepping = NULL;
	if (!chore->begun)
		return;
	chore->begun = false;
	TAILQ_REMOVE(&chore->loop->chores, chore, link);
}

struct loop *
loop_new(void)
{
	struct loop *loop = xcalloc(1, sizeof *loop);
	struct event_config *config = event_config_new();

	assert(config);
	/* epoll with a millisecond timeout and no timerfd: the fewest kinds of system call. */
	event_config_require_features(config, EV_FEATURE_O1);
	event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
	loop->base = event_base_new_with_config(config);
	event_config_free(config);
	assert(loop->base);
	LIST_INIT(&loop->armed);
	SLIST_INIT(&loop->signals);
	TAILQ_INIT(&loop->deferred);
	loop->defer_event = evtimer_new(loop->base, on_deferred, loop);
	assert(loop->defer_event);
	TAILQ_INIT(&loop->chores);
	loop->chore_event = evtimer_new(loop->base, on_chores, loop);
	assert(loop->chore_event);
#ifdef SEKISHO_TEST
	clock_mono(); /* maps the shared file now, before any sandbox */
	if (getenv("SEKISHO_TEST_CLOCK")) {
		const struct timeval often = timeval_of(TEST_POLL);

		loop->test_changes = clock_test_changes();
		loop->test_poll = event_new(loop->base, -1, EV_PERSIST, on_test_poll, loop);
		event_add(loop->test_poll, &often);
	}
#endif
	return loop;
}

void
loop_free(struct loop *loop)
{
	struct loop_signal *signal_;
	struct deferred *job;

	if (!loop)
		return;
	while ((signal_ = SLIST_FIRST(&loop->signals))) {
		SLIST_REMOVE_HEAD(&loop->signals, link);
		event_free(signal_->event);
		free(signal_);
	}
	while ((job = TAILQ_FIRST(&loop->deferred))) {
		TAILQ_REMOVE(&loop->deferred, job, link);
		free(job);
	}
	event_free(loop->defer_event);
	event_free(loop->chore_event);
#ifdef SEKISHO_TEST
	if (loop->test_poll)
		event_free(loop->test_poll);
#endif
	event_base_free(loop->base);
	free(loop);
}

void
loop_run(struct loop *loop)
{
	event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

void
loop_stop(struct loop *loop)
{
	event_base_loopbreak(loop->base);
}

struct event_base *
loop_base(struct loop *loop)
{
	return loop->base;
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct loop_timer *timer = arg;

	(void)fd;
	(void)what;
	loop_timer_cancel(timer);
	timer->on_timeout(timer->arg);
}

struct loop_timer *
loop_timer_new(struct loop *loop, loop_callback *on_timeout, void *arg)
{
	struct loop_timer *timer = xcalloc(1, sizeof *timer);

	timer->loop = loop;
	timer->on_timeout = on_timeout;
	timer->arg = arg;
	timer->event = evtimer_new(loop->base, on_timer, timer);
	assert(timer->event);
	return timer;
}

void
loop_timer_free(struct loop_timer *timer)
{
	if (!timer)
		return;
	loop_timer_cancel(timer);
	event_free(timer->event);
	free(timer);
}

void
loop_timer_arm(struct loop_timer *timer, msec_t delay)
{
	const struct timeval wait = timeval_of(delay);

	timer->deadline = clock_mono() + (delay > 0 ? delay : 0);
	if (!timer->armed)
		LIST_INSERT_HEAD(&timer->loop->armed, timer, armed_link);
	timer->armed = true;
	evtimer_add(timer->event, &wait);
}

void
loop_timer_cancel(struct loop_timer *timer)
{
	if (!timer->armed)
		return;
	timer->armed = false;
	LIST_REMOVE(timer, armed_link);
	evtimer_del(timer->event);
}

bool
loop_timer_is_armed(const struct loop_timer *timer)
{
	return timer->armed;
}

static void
on_watch(evutil_socket_t fd, short what, void *arg)
{
	struct loop_watch *watch = arg;
	unsigned ready = 0;

	(void)fd;
	if (what & EV_READ)
		ready |= LOOP_READ;
	if (what & EV_WRITE)
		ready |= LOOP_WRITE;
	ready &= watch->interest; /* it may have changed after the kernel was asked */
	if (ready)
		watch->on_ready(watch->arg, ready);
}

struct loop_watch *
loop_watch_new(struct loop *loop, int fd, loop_ready *on_ready, void *arg)
{
	struct loop_watch *watch = xcalloc(1, sizeof *watch);

	watch->loop = loop;
	watch->fd = fd;
	watch->on_ready = on_ready;
	watch->arg = arg;
	watch->event = event_new(loop->base, fd, EV_PERSIST, on_watch, watch);
	assert(watch->event);
	return watch;
}

void
loop_watch_free(struct loop_watch *watch)
{
	if (!watch)
		return;
	event_free(watch->event);
	free(watch);
}

void
loop_watch_set(struct loop_watch *watch, unsigned interest)
{
	short what = EV_PERSIST;
	int failed;

	if (interest == watch->interest)
		return;
	watch->interest = interest;
	event_del(watch->event);
	if (!interest)
		return;
	if (interest & LOOP_READ)
		what |= EV_READ;
	if (interest & LOOP_WRITE)
		what |= EV_WRITE;
	failed = event_assign(watch->event, watch->loop->base, watch->fd, what, on_watch, watch);
	assert(!failed);
	failed = event_add(watch->event, NULL);
	assert(!failed);
}

static void
on_signal_event(evutil_socket_t signo, short what, void *arg)
{
	struct loop_signal *signal_ = arg;

	(void)signo;
	(void)what;
	signal_->on_signal(signal_->arg);
}

void
loop_on_signal(struct loop *loop, int signo, loop_callback *on_signal, void *arg)
{
	struct loop_signal *signal_ = xcalloc(1, sizeof *signal_);

	signal_->on_signal = on_signal;
	signal_->arg = arg;
	signal_->event = evsignal_new(loop->base, signo, on_signal_event, signal_);
	assert(signal_->event);
	event_add(signal_->event, NULL);
	SLIST_INSERT_HEAD(&loop->signals, signal_, link);
}

static void
on_wake_event(evutil_socket_t fd, short what, void *arg)
{
	struct loop_wake *wake = arg;
	uint64_t rings;
	ssize_t n;

	(void)what;
	do
		n = read(fd, &rings, sizeof rings);
	while (n < 0 && errno == EINTR);
	if (n == sizeof rings)
		wake->on_wake(wake->arg);
}

struct loop_wake *
loop_wake_new(struct loop *loop, loop_callback *on_wake, void *arg)
{
	struct loop_wake *wake = xcalloc(1, sizeof *wake);

	wake->on_wake = on_wake;
	wake->arg = arg;
	wake->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert(wake->fd >= 0);
	wake->event = event_new(loop->base, wake->fd, EV_READ | EV_PERSIST, on_wake_event, wake);
	assert(wake->event);
	event_add(wake->event, NULL);
	return wake;
}

void
loop_wake_free(struct loop_wake *wake)
{
	if (!wake)
		return;
	event_free(wake->event);
	close(wake->fd);
	free(wake);
}

void
loop_wake_ring(struct loop_wake *wake)
{
	const uint64_t one = 1;
	ssize_t n;

	/* EAGAIN means that the counter is full: it is rung already. */
	do
		n = write(wake->fd, &one, sizeof one);
	while (n < 0 && errno == EINTR);
}
