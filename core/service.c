#include "core/service.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/sandbox.h"
#include "core/service_proto.h"

/* Problem: six programs begin, run and end in the same way, and getting the order wrong (a sandbox
 * before the files are open, privileges dropped after a stranger was read) is a hole.
 *
 * Idea: the order lives here once, driven by sekishod's frames. CONFIG comes first and drops
 * privileges before the snapshot is even decoded; START closes the preparation: the program's
 * on_start, then the sandbox, then READY. Nothing from a network is read before READY, because
 * listeners are only acted upon from the loop.
 *
 * Invariants: one service per process, hence the static. The control channel's end means that
 * sekishod is gone: we leave with _exit, without waiting for anything, since what matters is on
 * disk already. The kernel's parent-death signal does the same when we are stuck; it is set again
 * after the change of user because that change clears it.
 *
 * A reload is a second preparation beside the running one. The snapshot offered is held here until
 * it is committed or dropped, so a program sees at most one beside the one in force.
 *
 * SIGTERM means the same as STOP. SIGINT and SIGHUP are ignored: a terminal sends them to
 * everybody, but only sekishod decides the order in which processes stop. */

static struct {
	const struct service_opts *opts;
	struct loop *loop;
	struct loop_watch *watch;
	const struct conf *conf;
	const struct conf *next; /* offered by a reload; NULL when there is none under way */
	uint64_t generation, next_generation;
	uint32_t offer; /* sekishod's number of it */
	unsigned index;
	bool in_directory; /* the working directory is ours; otherwise it becomes / */
	bool started;
	bool stopping;
	int status; /* what service_run returns */
} self;

const char *
service_load_name(enum service_load load)
{
	static const char *const names[SERVICE_LOADS] = {"normal", "busy", "full"};
	return load < SERVICE_LOADS ? names[load] : "?";
}

const char *
service_role_name(enum service_role role)
{
	static const char *const names[SERVICE_ROLES] = {"sekishod", "msa",  "auth", "queue",
	                                                 "relay",    "keys", "admin"};
	assert(role < SERVICE_ROLES);
	return names[role];
}

int
service_frame_send(int fd, enum service_frame type, const struct buf *fields, int pass)
{
	uint8_t octet = (uint8_t)type;
	struct iovec parts[2] = {{&octet, 1}, {NULL, 0}};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 1};
	if (fields != NULL && fields->len > 0) {
		parts[1].iov_base = fields->data;
		parts[1].iov_len = fields->len;
		msg.msg_iovlen = 2;
	}
	if (pass >= 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &pass, sizeof(int));
	}
	ssize_t n;
	do
		n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : 0;
}

ssize_t
service_frame_recv(int fd, uint8_t *data, int *pass)
{
	struct iovec part = {data, SERVICE_FRAME_MAX};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = &part,
	                     .msg_iovlen = 1,
	                     .msg_control = &control,
	                     .msg_controllen = sizeof(control)};
	*pass = -1;
	ssize_t n;
	do
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -1;
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg != NULL && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS &&
	    cmsg->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(pass, CMSG_DATA(cmsg), sizeof(int));
	return n;
}

struct loop *
service_loop(void)
{
	return self.loop;
}

unsigned
service_index(void)
{
	return self.index;
}

uint64_t
service_generation(void)
{
	return self.generation;
}

void
service_report_load(enum service_load load)
{
	struct buf fields;
	buf_init(&fields);
	wire_put_u8(&fields, (uint8_t)load);
	/* What finds the channel full is told with the next change. */
	(void)service_frame_send(SERVICE_CONTROL_FD, SERVICE_FRAME_LOAD, &fields, -1);
	buf_clear(&fields);
}

void
service_stopped(void)
{
	loop_stop(self.loop);
}

static void
leave(int status)
{
	self.status = status;
	loop_stop(self.loop);
}

static void
stop(void *arg)
{
	(void)arg;
	if (self.stopping)
		return;
	self.stopping = true;
	if (self.started && self.opts->events->on_stop != NULL)
		self.opts->events->on_stop(self.opts->arg);
	else
		leave(0);
}

static int
drop_privileges(uint32_t uid, uint32_t gid)
{
	if (uid != SERVICE_KEEP_USER && (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
	                                 setresuid(uid, uid, uid) < 0)) {
		log_error("-", "privileges", "error=%s", strerror(errno));
		return -1;
	}
	/* The key and a stranger's password come before the sandbox does. */
	if (sandbox_no_dumps() < 0) {
		log_error("-", "privileges", "no dumps error=%s", strerror(errno));
		return -1;
	}
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		log_warn("-", "privileges", "parent-death-signal error=%s", strerror(errno));
	return 0;
}

static struct conf *
read_snapshot(int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || st.st_size <= 0)
		return NULL;
	void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return NULL;
	struct conf *conf = conf_decode(map, (size_t)st.st_size);
	munmap(map, (size_t)st.st_size);
	return conf;
}

static int
take_config(struct wire *wire, int fd)
{
	self.generation = wire_u64(wire);
	self.index = wire_u32(wire);
	uint32_t uid = wire_u32(wire), gid = wire_u32(wire);
	if (!wire_done(wire) || fd < 0 || self.conf != NULL)
		return -1;
	if (drop_privileges(uid, gid) < 0)
		return -1;
	self.conf = read_snapshot(fd);
	if (self.conf == NULL)
		return -1;
	clock_set_zone(self.conf->zone);
	log_set_level(log_level_named(self.conf->log_level));
	if (self.opts->events->on_config != NULL)
		self.opts->events->on_config(self.opts->arg, self.conf);
	return 0;
}

/* The directory is entered here; a program that also wants the descriptor gets it like any file. */
static int
take_file(struct wire *wire, int *fd)
{
	enum service_file file = (enum service_file)wire_u8(wire);
	unsigned index = wire_u32(wire);
	if (!wire_done(wire) || *fd < 0)
		return -1;
	if (file == SERVICE_DIRECTORY) {
		if (fchdir(*fd) < 0) {
			log_error("-", "directory", "error=%s", strerror(errno));
			return -1;
		}
		self.in_directory = true;
	}
	if (self.opts->events->on_file != NULL) {
		self.opts->events->on_file(self.opts->arg, file, index, *fd);
		*fd = -1;
	}
	return 0;
}

static int
start(void)
{
	char layers[128] = "", error[256] = "";
	if (self.started || self.conf == NULL)
		return -1;
	self.started = true;
	if (!self.in_directory && chdir("/") < 0)
		return -1;
	if (self.opts->events->on_start != NULL && self.opts->events->on_start(self.opts->arg) < 0)
		return -1;
	if (sandbox_enter(self.opts->sandbox, layers, sizeof(layers), error, sizeof(error)) < 0) {
		log_error("-", "sandbox", "error=\"%s\"", error);
		return -1;
	}
	struct buf fields;
	buf_init(&fields);
	wire_put_str(&fields, layers);
	int sent = service_frame_send(SERVICE_CONTROL_FD, SERVICE_FRAME_READY, &fields, -1);
	buf_clear(&fields);
	return sent;
}

/* The generation to come, or nothing: sekishod ends one before it begins another. */
static int
take_next(struct wire *wire, int fd)
{
	uint64_t generation = wire_u64(wire);
	self.offer = wire_u32(wire);
	if (!wire_done(wire) || fd < 0 || self.next != NULL || !self.started)
		return -1;
	self.next = read_snapshot(fd);
	self.next_generation = generation;
	return self.next != NULL ? 0 : -1;
}

static int
prepare(void)
{
	const struct service_events *events = self.opts->events;
	char error[512] = "";
	struct buf fields;
	uint64_t running = self.generation;
	if (self.next == NULL)
		return -1;
	if (self.stopping) {
		snprintf(error, sizeof(error), "%s", "it is stopping");
	} else if (events->on_prepare != NULL) {
		self.generation = self.next_generation;
		if (events->on_prepare(self.opts->arg, self.next, error, sizeof(error)) == 0)
			error[0] = '\0';
		else if (error[0] == '\0')
			snprintf(error, sizeof(error), "%s", "it cannot work so");
		self.generation = running;
	}
	buf_init(&fields);
	wire_put_u32(&fields, self.offer);
	wire_put_str(&fields, error);
	int sent = service_frame_send(SERVICE_CONTROL_FD, SERVICE_FRAME_PREPARED, &fields, -1);
	buf_clear(&fields);
	return sent;
}

static int
commit(void)
{
	const struct conf *old = self.conf;
	if (self.next == NULL)
		return -1;
	self.conf = self.next;
	self.next = NULL;
	self.generation = self.next_generation;
	log_set_level(log_level_named(self.conf->log_level));
	if (self.opts->events->on_commit != NULL)
		self.opts->events->on_commit(self.opts->arg, self.conf);
	conf_free(old);
	return 0;
}

static int
drop(void)
{
	if (self.next == NULL)
		return -1;
	if (self.opts->events->on_drop != NULL)
		self.opts->events->on_drop(self.opts->arg);
	conf_free(self.next);
	self.next = NULL;
	return 0;
}

static int
take_frame(enum service_frame type, struct wire *wire, int *fd)
{
	const struct service_events *events = self.opts->events;
	switch (type) {
	case SERVICE_FRAME_CONFIG:
		return take_config(wire, *fd);
	case SERVICE_FRAME_FILE:
		return take_file(wire, fd);
	case SERVICE_FRAME_LISTENER: {
		enum service_listener kind = (enum service_listener)wire_u8(wire);
		if (!wire_done(wire) || *fd < 0)
			return -1;
		if (events->on_listener != NULL) {
			events->on_listener(self.opts->arg, kind, *fd);
			*fd = -1;
		}
		return 0;
	}
	case SERVICE_FRAME_LINK: {
		enum service_role peer = (enum service_role)wire_u8(wire);
		unsigned index = wire_u32(wire);
		if (!wire_done(wire) || *fd < 0)
			return -1;
		if (events->on_link != NULL) {
			events->on_link(self.opts->arg, peer, index, *fd);
			*fd = -1;
		}
		return 0;
	}
	case SERVICE_FRAME_START:
		return start();
	case SERVICE_FRAME_STOP:
		stop(NULL);
		return 0;
	case SERVICE_FRAME_NEXT:
		return take_next(wire, *fd);
	case SERVICE_FRAME_PREPARE:
		return prepare();
	case SERVICE_FRAME_COMMIT:
		return commit();
	case SERVICE_FRAME_DROP:
		return drop();
	case SERVICE_FRAME_LOG_LEVEL:
		log_set_level((enum log_level)wire_u8(wire));
		return wire_done(wire) ? 0 : -1;
	case SERVICE_FRAME_TAP:
		log_tap(*fd);
		*fd = -1;
		return 0;
	default:
		return service_ask_frame(type, wire, fd) ? 0 : -1;
	}
}

static void
on_control(void *arg, unsigned ready)
{
	static uint8_t data[SERVICE_FRAME_MAX];
	(void)arg;
	(void)ready;
	for (;;) {
		int fd;
		ssize_t n = service_frame_recv(SERVICE_CONTROL_FD, data, &fd);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0)
			_exit(0);
		struct wire wire = wire_from(data + 1, (size_t)n - 1);
		int result = take_frame((enum service_frame)data[0], &wire, &fd);
		if (fd >= 0)
			close(fd);
		if (result < 0) {
			log_error("-", "start", "failed frame=%u", data[0]);
			leave(1);
			return;
		}
	}
}

static bool
has_control_channel(void)
{
	int type, domain;
	socklen_t len = sizeof(type);
	if (getsockopt(SERVICE_CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    type != SOCK_SEQPACKET)
		return false;
	len = sizeof(domain);
	return getsockopt(SERVICE_CONTROL_FD, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
	       domain == AF_UNIX;
}

static void
print_purpose(FILE *out, const struct service_opts *opts)
{
	fprintf(out,
	        "%s: %s\n"
	        "It is started by sekishod and has no options besides --help and --version.\n"
	        "To start the service: sekishod -c /etc/sekisho/sekisho.yaml\n",
	        opts->program, opts->purpose);
}

int
service_run(const struct service_opts *opts, int argc, char **argv)
{
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		print_purpose(stdout, opts);
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		printf("%s %s\n", opts->program, SEKISHO_VERSION);
		return 0;
	}
	if (argc > 1 || !has_control_channel()) {
		print_purpose(stderr, opts);
		return 64;
	}
	self.opts = opts;
	log_open(opts->program);
	umask(077);
	fcntl(SERVICE_CONTROL_FD, F_SETFD, FD_CLOEXEC);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	clock_mono(); /* a test's shared clock file is named relative to where we started */
	self.loop = loop_new();
	loop_on_signal(self.loop, SIGTERM, stop, NULL);
	self.watch = loop_watch_new(self.loop, SERVICE_CONTROL_FD, on_control, NULL);
	loop_watch_set(self.watch, LOOP_READ);
	loop_run(self.loop);
	/* What the program holds lives as long as the process; the kernel takes it back. */
	return self.status;
}
