#include "sekishod/children.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/service.h"
#include "core/service_proto.h"
#include "sekishod/check.h"

/* Problem: eleven processes that need each other, any of which may die at any moment, and none of
 * which may ever find itself wired to a dead incarnation of another.
 *
 * Idea: two tables. programs[] says who exists and what each one holds; pairs[] says who talks to
 * whom. Whenever a process is started, every pair it is part of is made anew for each running
 * process on the other side, and both get their end: the new one among its first frames, the old
 * one as a late frame that replaces its dead link.
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
#define STOP_LIMIT    10000 /* ms until SIGKILL */
#define TURNS         16    /* frames taken from a child before the others' turn */
#define SOCKET_BUFFER (1024 * 1024)

struct program {
	enum service_role role;
	const char *file;
	bool network;          /* runs as privilege.network_user */
	bool certificate, key; /* files it is given */
	bool routes;           /* what the routes need */
	bool listeners, admin; /* sockets it is given */
	size_t directory;      /* offset in struct claim of its directory's descriptor; 0: none */
	bool stops_first;
};

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

/* Who talks to whom: the calling side first. */
static const struct {
	enum service_role caller, server;
} pairs[] = {
    {SERVICE_MSA, SERVICE_AUTH},    {SERVICE_MSA, SERVICE_QUEUE},  {SERVICE_MSA, SERVICE_KEYS},
    {SERVICE_RELAY, SERVICE_QUEUE}, {SERVICE_ADMIN, SERVICE_AUTH}, {SERVICE_ADMIN, SERVICE_QUEUE},
};
#define PAIRS (sizeof(pairs) / sizeof(pairs[0]))

struct child {
	struct children *all;
	const struct program *program;
	unsigned index;
	pid_t pid; /* 0 while it does not run */
	int fd;    /* its control channel; -1 while it does not run, or after the channel failed */
	struct loop_watch *watch;
	struct loop_timer *restart;
	msec_t started; /* monotonic */
	msec_t since;   /* wall clock, for status */
	msec_t delay;   /* before the next restart if it dies young again */
	unsigned restarts;
	bool ready; /* READY has come */
	bool told;  /* STOP was sent */
	char layers[128];
};

struct children {
	struct loop *loop;
	const struct conf *conf;
	const struct claim *claim;
	int snapshot;             /* sealed memfd of the configuration */
	char directory[PATH_MAX]; /* of our own executable */
	struct child *list;
	size_t count;
	bool announced; /* "service ready" was logged */
	bool stopping;
	struct loop_timer *stop_limit;
};

static void start_child(struct child *child);
static void stop_next(struct children *all);

static const char *
name_of(const struct child *child)
{
	return service_role_name(child->program->role);
}

/* The channel is useless or the child too slow: its death brings a fresh one. */
static void
give_up(struct child *child)
{
	loop_watch_free(child->watch);
	child->watch = NULL;
	if (child->fd >= 0)
		close(child->fd);
	child->fd = -1;
	if (child->pid != 0)
		kill(child->pid, SIGKILL);
}

static void
send_frame(struct child *child, enum service_frame type, const struct buf *fields, int pass)
{
	if (child->fd < 0 || service_frame_send(child->fd, type, fields, pass) == 0)
		return;
	if (errno != EPIPE && errno != ECONNRESET)
		log_error("-", "process", "unresponsive name=%s index=%u error=\"%s\"",
		          name_of(child), child->index, strerror(errno));
	give_up(child);
}

static void
send_kind(struct child *child, enum service_frame type, unsigned kind, int pass)
{
	struct buf fields;
	buf_init(&fields);
	wire_put_u8(&fields, (uint8_t)kind);
	send_frame(child, type, &fields, pass);
	buf_clear(&fields);
}

static void
send_file(struct child *child, enum service_file file, int fd)
{
	int own = check_reopen(fd);
	if (own < 0) {
		log_error("-", "process", "file name=%s error=\"%s\"", name_of(child),
		          strerror(errno));
		give_up(child);
		return;
	}
	send_kind(child, SERVICE_FRAME_FILE, file, own);
	close(own);
}

static void
send_link(struct child *child, const struct child *peer, int fd)
{
	struct buf fields;
	buf_init(&fields);
	wire_put_u8(&fields, (uint8_t)peer->program->role);
	wire_put_u32(&fields, peer->index);
	send_frame(child, SERVICE_FRAME_LINK, &fields, fd);
	buf_clear(&fields);
}

static int
make_pair(int ends[2])
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

/* A direction matters to readers of pairs[] only; the socket pair is symmetric. */
static bool
are_paired(const struct child *a, const struct child *b)
{
	enum service_role x = a->program->role, y = b->program->role;
	for (size_t i = 0; i < PAIRS; i++)
		if ((pairs[i].caller == x && pairs[i].server == y) ||
		    (pairs[i].caller == y && pairs[i].server == x))
			return true;
	return false;
}

static void
link_child(struct child *child)
{
	struct children *all = child->all;
	for (size_t i = 0; i < all->count; i++) {
		struct child *peer = &all->list[i];
		int ends[2];
		if (peer == child || peer->fd < 0 || !are_paired(child, peer))
			continue;
		/* Without one of its peers it would seem to run and refuse everything. */
		if (child->fd >= 0 && make_pair(ends) < 0)
			give_up(child);
		if (child->fd < 0)
			return;
		send_link(child, peer, ends[0]);
		send_link(peer, child, ends[1]);
		close(ends[0]);
		close(ends[1]);
	}
}

/* Everything between the fork and START. */
static void
equip(struct child *child)
{
	const struct children *all = child->all;
	const struct claim *claim = all->claim;
	const struct program *program = child->program;
	struct buf fields;
	buf_init(&fields);
	wire_put_u32(&fields, child->index);
	wire_put_u32(&fields, program->network ? claim->network_uid : claim->uid);
	wire_put_u32(&fields, program->network ? claim->network_gid : claim->gid);
	send_frame(child, SERVICE_FRAME_CONFIG, &fields, all->snapshot);
	buf_clear(&fields);
	if (program->certificate)
		send_file(child, SERVICE_CERTIFICATE, claim->certificate);
	if (program->key)
		send_file(child, SERVICE_KEY, claim->key);
	if (program->routes && claim->ca >= 0)
		send_file(child, SERVICE_CA, claim->ca);
	for (size_t i = 0; program->routes && i < claim->password_count; i++)
		send_file(child, SERVICE_PASSWORD, claim->passwords[i]);
	if (program->directory != 0)
		send_kind(child, SERVICE_FRAME_FILE, SERVICE_DIRECTORY,
		          *(const int *)((const char *)claim + program->directory));
	for (size_t i = 0; i < claim->listener_count; i++) {
		const struct claim_listener *listener = &claim->listeners[i];
		if (listener->kind == SERVICE_ADMIN_SOCKET ? program->admin : program->listeners)
			send_kind(child, SERVICE_FRAME_LISTENER, listener->kind, listener->fd);
	}
	link_child(child);
	send_frame(child, SERVICE_FRAME_START, NULL, -1);
}

static void
answer_processes(struct child *child, uint32_t ask)
{
	const struct children *all = child->all;
	struct buf fields;
	buf_init(&fields);
	wire_put_u32(&fields, ask);
	wire_put_u32(&fields, (uint32_t)all->count);
	for (size_t i = 0; i < all->count; i++) {
		const struct child *each = &all->list[i];
		wire_put_u8(&fields, (uint8_t)each->program->role);
		wire_put_u32(&fields, each->index);
		wire_put_u32(&fields, (uint32_t)each->pid);
		wire_put_u64(&fields, (uint64_t)each->since);
		wire_put_u32(&fields, each->restarts);
		wire_put_str(&fields, each->layers);
	}
	send_frame(child, SERVICE_FRAME_PROCESSES, &fields, -1);
	buf_clear(&fields);
}

static void
announce(struct children *all)
{
	for (size_t i = 0; i < all->count; i++)
		if (!all->list[i].ready)
			return;
	if (!all->announced)
		log_info("-", "service", "ready processes=%zu", all->count);
	all->announced = true;
}

/* A child is no authority, and only admin may ask. One that says what it may not is broken or taken
 * over: it is replaced. */
static void
take_frame(struct child *child, enum service_frame type, struct wire *wire)
{
	switch (type) {
	case SERVICE_FRAME_READY:
		wire_str(wire, child->layers, sizeof(child->layers));
		if (!wire_done(wire) || child->ready)
			break;
		child->ready = true;
		log_info("-", "process", "up name=%s index=%u pid=%d layers=%s", name_of(child),
		         child->index, (int)child->pid, child->layers);
		announce(child->all);
		return;
	case SERVICE_FRAME_ASK_PROCESSES: {
		uint32_t ask = wire_u32(wire);
		if (!wire_done(wire) || child->program->role != SERVICE_ADMIN)
			break;
		answer_processes(child, ask);
		return;
	}
	case SERVICE_FRAME_ASK_STOP:
		if (child->program->role != SERVICE_ADMIN)
			break;
		children_stop(child->all);
		return;
	default:
		break;
	}
	log_error("-", "process", "unexpected name=%s index=%u frame=%u", name_of(child),
	          child->index, (unsigned)type);
	give_up(child);
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
		take_frame(child, (enum service_frame)data[0], &wire);
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
	if (make_pair(ends) < 0) {
		retry_later(child);
		return;
	}
	pid_t parent = getpid(), pid = fork();
	if (pid == 0)
		become(child, ends[1], parent);
	close(ends[1]);
	if (pid < 0) {
		log_error("-", "process", "fork name=%s error=\"%s\"", name_of(child),
		          strerror(errno));
		close(ends[0]);
		retry_later(child);
		return;
	}
	child->pid = pid;
	child->fd = ends[0];
	child->ready = false;
	child->told = false;
	child->layers[0] = '\0';
	child->started = clock_mono();
	child->since = clock_wall();
	child->watch = loop_watch_new(child->all->loop, child->fd, on_control, child);
	loop_watch_set(child->watch, LOOP_READ);
	equip(child);
}

static void
log_death(const struct child *child, int status, bool expected)
{
	enum log_level level = expected ? LOG_LEVEL_INFO : LOG_LEVEL_WARN;
	if (WIFSIGNALED(status))
		log_event(level, "-", "process", "down name=%s index=%u pid=%d status=signal:%d",
		          name_of(child), child->index, (int)child->pid, WTERMSIG(status));
	else
		log_event(level, "-", "process", "down name=%s index=%u pid=%d status=exit:%d",
		          name_of(child), child->index, (int)child->pid, WEXITSTATUS(status));
}

static void
reap(struct child *child, int status)
{
	struct children *all = child->all;
	log_death(child, status, all->stopping);
	child->pid = 0;
	give_up(child);
	child->ready = false;
	child->since = 0;
	child->layers[0] = '\0';
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
	bool first_left = false, any_left = false;
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
		child->told = true;
		send_frame(child, SERVICE_FRAME_STOP, NULL, -1);
	}
}

static void
on_stop_limit(void *arg)
{
	struct children *all = arg;
	for (size_t i = 0; i < all->count; i++)
		if (all->list[i].pid != 0) {
			log_warn("-", "process", "killed name=%s index=%u: did not stop in time",
			         name_of(&all->list[i]), all->list[i].index);
			kill(all->list[i].pid, SIGKILL);
		}
}

void
children_stop(struct children *all)
{
	if (all->stopping)
		return;
	all->stopping = true;
	log_info("-", "service", "stopping");
	loop_timer_arm(all->stop_limit, STOP_LIMIT);
	stop_next(all);
}

static unsigned
how_many(const struct conf *conf, enum service_role role)
{
	if (role == SERVICE_RELAY)
		return 3; /* one for each lane */
	if (role != SERVICE_MSA)
		return 1;
	return conf_msa_count(conf);
}

/* Sealed, so that no child can change what another one reads. */
static int
make_snapshot(const struct conf *conf)
{
	struct buf encoded;
	size_t done = 0;
	int fd = memfd_create("sekisho-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	buf_init(&encoded);
	conf_encode(conf, &encoded);
	while (fd >= 0 && done < encoded.len) {
		ssize_t n = write(fd, encoded.data + done, encoded.len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			close(fd);
			fd = -1;
			break;
		}
		done += (size_t)n;
	}
	buf_clear(&encoded);
	if (fd >= 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		log_error("-", "service", "cannot prepare the snapshot error=\"%s\"",
		          strerror(errno));
	return fd;
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
children_new(struct loop *loop, const struct conf *conf, const struct claim *claim)
{
	struct children *all = xcalloc(1, sizeof(*all));
	all->loop = loop;
	all->conf = conf;
	all->claim = claim;
	all->snapshot = make_snapshot(conf);
	if (all->snapshot < 0 || find_programs(all) < 0) {
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
	if (all->snapshot >= 0)
		close(all->snapshot);
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
