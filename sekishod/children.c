#include "sekishod/children_int.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

/* Problem: a dozen processes that need each other, any of which may die at any moment, and none of
 * which may ever find itself wired to a dead incarnation of another.
 *
 * Idea: two tables. programs[] says who exists and what each one holds; pairs[] (in
 * children_equip.c) says who talks to whom. Whenever a process is started, every pair it is part of
 * is made anew for each running process on the other side, and both get their end: the new one
 * among its first frames, the old one as a late frame that replaces its dead link.
 *
 * Invariants: a child with pid != 0 has an open control channel, unless that channel has failed, in
 * which case the child has been killed and its death is on its way. Only reap() clears pid.
 * sekishod never waits for a child: a control channel that is full means a child that does not
 * read, and it is killed like a dead one.
 *
 * Restarting: at once, because stateless ends are cheap to replace; but a child that keeps dying
 * young is delayed, doubling up to 5 s, so that a broken disk does not become a fork bomb.
 *
 * Stopping: first those who bring work in or carry it out, then those they lean on; a message that
 * is being accepted can so still be committed. */

#define YOUNG         1000  /* ms of life below which a death counts as young */
#define DELAY_FIRST   100   /* ms before the second restart in a row */
#define DELAY_MAX     5000  /* ms */
#define STOP_LIMIT    30000 /* ms until SIGKILL, for each of the two turns */
#define HURRY_LIMIT   1000  /* ms, once somebody has asked twice */
#define TURNS         16    /* frames taken from a child before the others' turn */
#define SOCKET_BUFFER (1024 * 1024)

static const struct program programs[] = {
    {SERVICE_KEYS, "sekisho-keys", .network = true, .certificate = true, .key = true},
    {SERVICE_AUTH, "sekisho-auth", .directory = offsetof(struct claim, accounts)},
    {SERVICE_QUEUE, "sekisho-queue", .directory = offsetof(struct claim, spool)},
    {SERVICE_RELAY, "sekisho-relay", .network = true, .routes = true, .stops_first = true},
    {SERVICE_ADMIN, "sekisho-admin", .admin = true, .stops_first = true},
    {SERVICE_MSA, "sekisho-msa", .network = true, .certificate = true, .listeners = true,
     .stops_first = true},
};
#define PROGRAMS (sizeof(programs) / sizeof(programs[0]))

static void start_child(struct child *child);
static void stop_next(struct children *all);

const char *
child_name(const struct child *child)
{
	return service_role_name(child->program->role);
}

void
child_give_up(struct child *child)
{
	loop_watch_free(child->watch);
	child->watch = NULL;
	if (child->fd >= 0)
		close(child->fd);
	child->fd = -1;
	if (child->pid != 0)
		kill(child->pid, SIGKILL);
}

void
child_send(struct child *child, enum service_frame type, const struct buf *fields, int pass)
{
	if (child->fd < 0 || service_frame_send(child->fd, type, fields, pass) == 0)
		return;
	if (errno != EPIPE && errno != ECONNRESET)
		log_error("-", "process", "unresponsive name=%s index=%u error=\"%s\"",
		          child_name(child), child->index, strerror(errno));
	child_give_up(child);
}

int
child_make_pair(int ends[2])
{
	int size = SOCKET_BUFFER;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) {
		log_error("-", "process", "socketpair error=\"%s\"", strerror(errno));
		return -1;
	}
	for (int i = 0; i < 2; i++)
		if (setsockopt(ends[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
			setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return 0;
}

static void
on_control(void *arg, unsigned ready)
{
	static uint8_t data[SERVICE_FRAME_MAX];
	struct child *child = arg;
	(void)ready;
	/* A turn each: one that never stops talking holds up nobody else. */
	for (int turn = 0; turn < TURNS && child->fd >= 0; turn++) {
		int fd;
		ssize_t n = service_frame_recv(child->fd, data, &fd);
		if (fd >= 0)
			close(fd);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			/* It is ending by itself; its exit status tells more than a SIGKILL from us
			 * would. */
			loop_watch_set(child->watch, 0);
			return;
		}
		struct wire wire = wire_from(data + 1, (size_t)n - 1);
		if (!child_frame(child, (enum service_frame)data[0], &wire)) {
			log_error("-", "process", "unexpected name=%s index=%u frame=%u",
			          child_name(child), child->index, data[0]);
			child_give_up(child);
		}
	}
}

/* In the forked child. Only what sekishod itself knows; the rest is service_run's. */
static void
become(const struct child *child, int control, pid_t parent)
{
	char path[PATH_MAX];
	char *argv[] = {(char *)child->program->file, NULL};
	sigset_t none;
	int written =
	    snprintf(path, sizeof(path), "%s/%s", child->all->directory, child->program->file);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* main keeps /dev/null on this number, so nothing else can be there; it becomes standard
	 * input. */
	dup2(SERVICE_CONTROL_FD, STDIN_FILENO);
	assert(control != SERVICE_CONTROL_FD);
	if (getppid() != parent || written < 0 || (size_t)written >= sizeof(path) ||
	    dup2(control, SERVICE_CONTROL_FD) < 0)
		_exit(71);
	execv(path, argv);
	_exit(72); /* the parent logs this status */
}

static void
on_restart(void *arg)
{
	struct child *child = arg;
	if (child->pid == 0 && !child->all->stopping)
		start_child(child);
}

static void
retry_later(struct child *child)
{
	loop_timer_arm(child->restart, child->delay);
	child->delay = child->delay == 0 ? DELAY_FIRST : child->delay * 2;
	if (child->delay > DELAY_MAX)
		child->delay = DELAY_MAX;
}

static void
start_child(struct child *child)
{
	int ends[2];
	if (child_make_pair(ends) < 0) {
		retry_later(child);
		return;
	}
	pid_t parent = getpid(), pid = fork();
	if (pid == 0)
		become(child, ends[1], parent);
	close(ends[1]);
	if (pid < 0) {
		log_error("-", "process", "fork name=%s error=\"%s\"", child_name(child),
		          strerror(errno));
		close(ends[0]);
		retry_later(child);
		return;
	}
	child->pid = pid;
	child->fd = ends[0];
	child->ready = false;
	child->told = false;
	child->level = log_level_named(child->all->running->conf->log_level);
	child->layers[0] = '\0';
	child->load = SERVICE_NORMAL;
	child->started = clock_mono();
	child->since = clock_wall();
	child->watch = loop_watch_new(child->all->loop, child->fd, on_control, child);
	loop_watch_set(child->watch, LOOP_READ);
	child_equip(child);
}

static void
log_death(const struct child *child, int status, bool expected)
{
	enum log_level level = expected ? LOG_LEVEL_INFO : LOG_LEVEL_WARN;
	if (WIFSIGNALED(status))
		log_event(level, "-", "process", "down name=%s index=%u pid=%d status=signal:%d",
		          child_name(child), child->index, (int)child->pid, WTERMSIG(status));
	else
		log_event(level, "-", "process", "down name=%s index=%u pid=%d status=exit:%d",
		          child_name(child), child->index, (int)child->pid, WEXITSTATUS(status));
}

static void
reap(struct child *child, int status)
{
	struct children *all = child->all;
	log_death(child, status, all->stopping);
	child->pid = 0;
	child_give_up(child);
	child->ready = false;
	child->since = 0;
	child->layers[0] = '\0';
	child->load = SERVICE_NORMAL;
	if (child->program->role == SERVICE_ADMIN)
		children_untap(all);
	children_reload_lost(all, child);
	if (all->stopping) {
		stop_next(all);
		return;
	}
	child->restarts++;
	if (clock_mono() - child->started >= YOUNG)
		child->delay = 0;
	retry_later(child);
}

static void
on_child_signal(void *arg)
{
	struct children *all = arg;
	for (size_t i = 0; i < all->count; i++) {
		int status;
		if (all->list[i].pid != 0 &&
		    waitpid(all->list[i].pid, &status, WNOHANG) == all->list[i].pid)
			reap(&all->list[i], status);
	}
}

/* STOP for those whose turn it is; the end of the loop when nobody is left. */
static void
stop_next(struct children *all)
{
	bool first_left = false, any_left = false, told = false;
	for (size_t i = 0; i < all->count; i++) {
		any_left = any_left || all->list[i].pid != 0;
		first_left =
		    first_left || (all->list[i].pid != 0 && all->list[i].program->stops_first);
	}
	if (!any_left) {
		log_info("-", "service", "stopped");
		loop_stop(all->loop);
		return;
	}
	for (size_t i = 0; i < all->count; i++) {
		struct child *child = &all->list[i];
		if (child->pid == 0 || child->told || (first_left && !child->program->stops_first))
			continue;
		child->told = told = true;
		child_send(child, SERVICE_FRAME_STOP, NULL, -1);
	}
	if (told && !all->hurried)
		loop_timer_arm(all->stop_limit, STOP_LIMIT);
}

/* Those whose turn has not come yet get theirs. */
static void
on_stop_limit(void *arg)
{
	struct children *all = arg;
	for (size_t i = 0; i < all->count; i++)
		if (all->list[i].pid != 0 && all->list[i].told) {
			log_warn("-", "process", "killed name=%s index=%u: did not stop in time",
			         child_name(&all->list[i]), all->list[i].index);
			kill(all->list[i].pid, SIGKILL);
		}
	if (all->hurried)
		loop_timer_arm(all->stop_limit, HURRY_LIMIT);
}

void
children_stop(struct children *all)
{
	if (all->stopping) {
		if (!all->hurried)
			log_info("-", "service", "stopping at once");
		all->hurried = true;
		loop_timer_arm(all->stop_limit, HURRY_LIMIT);
		return;
	}
	all->stopping = true;
	log_info("-", "service", "stopping");
	children_refuse(all, "the service is stopping\n");
	all->events->on_stopping(all->arg);
	stop_next(all);
}

bool
children_are_stopping(const struct children *all)
{
	return all->stopping;
}

const struct generation *
children_running(const struct children *all)
{
	return all->running;
}

static unsigned
how_many(const struct conf *conf, enum service_role role)
{
	if (role == SERVICE_RELAY)
		return conf_relay_count(conf);
	if (role != SERVICE_MSA)
		return 1;
	return conf_msa_count(conf);
}

static int
find_programs(struct children *all)
{
	ssize_t len = readlink("/proc/self/exe", all->directory, sizeof(all->directory) - 1);
	char *slash = len > 0 ? memrchr(all->directory, '/', (size_t)len) : NULL;
	if (slash == NULL) {
		log_error("-", "service", "cannot find my own program through /proc");
		return -1;
	}
	*slash = '\0';
	for (size_t i = 0; i < PROGRAMS; i++) {
		char path[PATH_MAX + 32];
		snprintf(path, sizeof(path), "%s/%s", all->directory, programs[i].file);
		if (access(path, X_OK) < 0) {
			log_error("-", "service", "cannot start %s: %s", path, strerror(errno));
			return -1;
		}
	}
	return 0;
}

struct children *
children_new(struct loop *loop, struct generation *first_take, const struct claim *claim,
             const struct children_events *events, void *arg)
{
	struct children *all = xcalloc(1, sizeof(*all));
	const struct conf *conf = first_take->conf;
	all->loop = loop;
	all->events = events;
	all->arg = arg;
	all->running = first_take;
	all->running->loaded = clock_wall();
	all->claim = claim;
	if (find_programs(all) < 0) {
		children_free(all);
		return NULL;
	}
	for (size_t i = 0; i < PROGRAMS; i++)
		all->count += how_many(conf, programs[i].role);
	all->list = xcalloc(all->count, sizeof(*all->list));
	struct child *child = all->list;
	for (size_t i = 0; i < PROGRAMS; i++)
		for (unsigned n = 0;
		     n < how_many(conf, programs[i].role) && child < all->list + all->count; n++) {
			child->all = all;
			child->program = &programs[i];
			child->index = n;
			child->fd = -1;
			child->restart = loop_timer_new(loop, on_restart, child);
			child++;
		}
	/* The number of cores may change between two questions. */
	all->count = (size_t)(child - all->list);
	all->stop_limit = loop_timer_new(loop, on_stop_limit, all);
	all->reload_limit = loop_timer_new(loop, children_reload_late, all);
	return all;
}

void
children_free(struct children *all)
{
	if (all == NULL)
		return;
	for (size_t i = 0; i < all->count; i++) {
		struct child *child = &all->list[i];
		loop_watch_free(child->watch);
		loop_timer_free(child->restart);
		if (child->fd >= 0)
			close(child->fd);
	}
	if (all->stop_limit != NULL)
		loop_timer_free(all->stop_limit);
	if (all->reload_limit != NULL)
		loop_timer_free(all->reload_limit);
	generation_free(all->running);
	free(all->list);
	free(all);
}

void
children_start(struct children *all)
{
	loop_on_signal(all->loop, SIGCHLD, on_child_signal, all);
	for (size_t i = 0; i < all->count; i++)
		start_child(&all->list[i]);
}
