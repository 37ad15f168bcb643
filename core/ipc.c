#include "core/ipc.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

/* One packet is one frame: u16 type and u32 id, big-endian, then the payload; at most one
 * descriptor rides along.
 *
 * Invariants. Frames leave in the order they were sent: while the backlog is not empty, new frames
 * join it. Nothing calls back from inside a send: a channel that breaks while sending is only
 * marked broken, and its end is reported from a deferred turn. A channel freed inside its own
 * callback stays allocated until that callback has unwound (busy), and dead stops the loop that
 * delivers frames. A reply to a call that is no longer known is dropped.
 *
 * Peers are our own processes, but one may have been taken over: lengths, types and ids are
 * checked, and descriptors beyond the first are closed. */

#define HEADER_SIZE   6u
#define SOCKET_BUFFER (1024 * 1024)
#define TURN_FRAMES   8 /* received per readiness, so that one busy peer cannot starve the others */

struct outgoing {
	STAILQ_ENTRY(outgoing) link;
	int fd; /* own duplicate, -1 for none */
	size_t len;
	uint8_t data[]; /* header included */
};

/* One end of one socket pair. */
struct ipc {
	struct loop *loop;
	struct loop_watch *watch; /* NULL once freed */
	int fd;
	bool dead;     /* freed by its owner, or its end was reported */
	bool broken;   /* sending failed: ends in the next turn */
	unsigned busy; /* callbacks and deferred turns that still refer to it */
	STAILQ_HEAD(, outgoing) backlog;
	size_t backlog_size; /* octets */
	void (*on_frame)(void *arg, struct ipc_frame *frame);
	void (*on_end)(void *arg); /* at most once; calls ipc_free */
	void *arg;
};

/* Shared by all channels: frames are handled one after the other. Nested delivery does not happen,
 * because callbacks never run a loop. */
static uint8_t receive_buffer[HEADER_SIZE + IPC_FRAME_MAX];

static void
ipc_unbusy(struct ipc *ipc)
{
	assert(ipc->busy > 0);
	if (--ipc->busy == 0 && !ipc->watch)
		free(ipc);
}

static void
ipc_free(struct ipc *ipc)
{
	struct outgoing *out;

	ipc->dead = true;
	loop_watch_free(ipc->watch);
	ipc->watch = NULL;
	close(ipc->fd);
	while ((out = STAILQ_FIRST(&ipc->backlog))) {
		STAILQ_REMOVE_HEAD(&ipc->backlog, link);
		if (out->fd >= 0)
			close(out->fd);
		mem_wipe(out->data, out->len);
		free(out);
	}
	if (!ipc->busy)
		free(ipc);
}

static void
ipc_end(struct ipc *ipc)
{
	if (ipc->dead)
		return;
	ipc->dead = true;
	ipc->on_end(ipc->arg);
}

static void
on_broken(void *arg)
{
	struct ipc *ipc = arg;

	ipc_end(ipc);
	ipc_unbusy(ipc);
}

static void
ipc_break(struct ipc *ipc)
{
	if (ipc->broken || ipc->dead)
		return;
	ipc->broken = true;
	ipc->busy++;
	loop_watch_set(ipc->watch, 0);
	loop_defer(ipc->loop, on_broken, ipc);
}

/* 1 sent, 0 would block, -1 broken. */
static int
ipc_transmit(struct ipc *ipc, struct iovec *iov, size_t count, int fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof control);
		message.msg_control = &control;
		message.msg_controllen = sizeof control.space;
		cmsg = CMSG_FIRSTHDR(&message);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
	}
	do
		n = sendmsg(ipc->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 1;
	/* ENOBUFS and ETOOMANYREFS pass as well; the watch tries again as soon as there is room. */
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ENOMEM ||
	               errno == ETOOMANYREFS
	           ? 0
	           : -1;
}

static bool
ipc_send(struct ipc *ipc, uint16_t type, uint32_t id, const struct buf *payload, int fd)
{
	const size_t len = payload ? payload->len : 0;
	uint8_t header[HEADER_SIZE] = {(uint8_t)(type >> 8), (uint8_t)type,
	                               (uint8_t)(id >> 24),  (uint8_t)(id >> 16),
	                               (uint8_t)(id >> 8),   (uint8_t)id};
	struct iovec iov[2] = {{header, sizeof header}, {len ? payload->data : NULL, len}};
	struct outgoing *out;
	int sent = 0;

	assert(len <= IPC_FRAME_MAX);
	if (ipc->dead || ipc->broken)
		return false;
	if (STAILQ_EMPTY(&ipc->backlog))
		sent = ipc_transmit(ipc, iov, len ? 2 : 1, fd);
	if (sent > 0)
		return true;
	if (sent < 0 || ipc->backlog_size + HEADER_SIZE + len > IPC_BACKLOG_MAX) {
		ipc_break(ipc);
		return false;
	}
	out = xmalloc(sizeof *out + HEADER_SIZE + len);
	out->fd = -1;
	if (fd >= 0) {
		out->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (out->fd < 0) {
			free(out);
			ipc_break(ipc);
			return false;
		}
	}
	out->len = HEADER_SIZE + len;
	memcpy(out->data, header, HEADER_SIZE);
	if (len)
		memcpy(out->data + HEADER_SIZE, payload->data, len);
	STAILQ_INSERT_TAIL(&ipc->backlog, out, link);
	ipc->backlog_size += out->len;
	loop_watch_set(ipc->watch, LOOP_READ | LOOP_WRITE);
	return true;
}

static void
ipc_flush(struct ipc *ipc)
{
	struct outgoing *out;

	while ((out = STAILQ_FIRST(&ipc->backlog))) {
		struct iovec iov = {out->data, out->len};
		const int sent = ipc_transmit(ipc, &iov, 1, out->fd);

		if (sent == 0)
			return;
		if (sent < 0) {
			ipc_break(ipc);
			return;
		}
		STAILQ_REMOVE_HEAD(&ipc->backlog, link);
		ipc->backlog_size -= out->len;
		if (out->fd >= 0)
			close(out->fd);
		mem_wipe(out->data, out->len);
		free(out);
	}
	loop_watch_set(ipc->watch, LOOP_READ);
}

/* Takes the first descriptor that came along and closes any other. */
static int
take_descriptor(struct msghdr *message)
{
	int taken = -1;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg;
	     cmsg = CMSG_NXTHDR(message, cmsg)) {
		size_t count;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
			if (taken < 0)
				taken = fd;
			else
				close(fd);
		}
	}
	return taken;
}

/* Receives and delivers one frame. 1 delivered, 0 nothing there, -1 the channel ended. */
static int
ipc_receive(struct ipc *ipc)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {receive_buffer, sizeof receive_buffer};
	struct msghdr message = {.msg_iov = &iov,
	                         .msg_iovlen = 1,
	                         .msg_control = &control,
	                         .msg_controllen = sizeof control.space};
	struct ipc_frame frame;
	struct wire wire;
	ssize_t n;

	do
		n = recvmsg(ipc->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOMEM ? 0 : -1;
	frame.fd = take_descriptor(&message);
	if (n < (ssize_t)HEADER_SIZE || message.msg_flags & MSG_TRUNC) {
		if (frame.fd >= 0)
			close(frame.fd);
		return -1;
	}
	wire = wire_from(receive_buffer, (size_t)n);
	frame.type = wire_u16(&wire);
	frame.id = wire_u32(&wire);
	frame.data = wire.data;
	frame.len = wire.left;
	ipc->on_frame(ipc->arg, &frame);
	if (frame.fd >= 0)
		close(frame.fd);
	mem_wipe(receive_buffer, (size_t)n); /* passwords pass through here */
	return 1;
}

static void
on_channel(void *arg, unsigned ready)
{
	struct ipc *ipc = arg;
	int more = 1;

	ipc->busy++;
	if (ready & LOOP_WRITE)
		ipc_flush(ipc);
	if (ready & LOOP_READ)
		for (int i = 0; more > 0 && i < TURN_FRAMES && !ipc->dead && !ipc->broken; i++)
			more = ipc_receive(ipc);
	if (more < 0)
		ipc_end(ipc);
	ipc_unbusy(ipc);
}

static void
raise_buffer(int fd, int force, int plain)
{
	const int size = SOCKET_BUFFER;

	if (setsockopt(fd, SOL_SOCKET, force, &size, sizeof size))
		setsockopt(fd, SOL_SOCKET, plain, &size, sizeof size);
}

static struct ipc *
ipc_new(struct loop *loop, int fd_take, void (*on_frame)(void *, struct ipc_frame *),
        void (*on_end)(void *), void *arg)
{
	struct ipc *ipc = xcalloc(1, sizeof *ipc);

	assert(fd_take >= 0);
	ipc->loop = loop;
	ipc->fd = fd_take;
	ipc->on_frame = on_frame;
	ipc->on_end = on_end;
	ipc->arg = arg;
	STAILQ_INIT(&ipc->backlog);
	raise_buffer(fd_take, SO_SNDBUFFORCE, SO_SNDBUF);
	raise_buffer(fd_take, SO_RCVBUFFORCE, SO_RCVBUF);
	ipc->watch = loop_watch_new(loop, fd_take, on_channel, ipc);
	loop_watch_set(ipc->watch, LOOP_READ);
	return ipc;
}

/* The calling side. Calls live in a hash by id, so that an answer finds its call at once with ten
 * thousand under way; each has its own timer. */

#define CALL_BUCKETS 1024u

struct call {
	LIST_ENTRY(call) link;
	struct loop_timer *timer;
	uint32_t id;
	uint32_t generation; /* of the channel it went through */
	ipc_on_reply *on_reply;
	void *arg;
};
LIST_HEAD(calls, call);

struct ipc_link {
	struct loop *loop;
	char *name;
	const struct ipc_link_events *events;
	void *arg;
	struct ipc *ipc; /* NULL while down */
	uint32_t last_id;
	uint32_t generation; /* of the channel attached last */
	struct calls calls[CALL_BUCKETS];
	unsigned busy; /* functions of ours below the current callback */
	bool freed;    /* by a callback; memory goes when busy is 0 */
};

static void
call_free(struct call *call)
{
	LIST_REMOVE(call, link);
	loop_timer_free(call->timer);
	free(call);
}

static struct call *
call_find(struct ipc_link *link, uint32_t id)
{
	struct call *call;

	LIST_FOREACH(call, &link->calls[id % CALL_BUCKETS], link)
	{
		if (call->id == id)
			return call;
	}
	return NULL;
}

static void
link_unbusy(struct ipc_link *link)
{
	assert(link->busy > 0);
	if (--link->busy == 0 && link->freed)
		free(link);
}

/* Forgets the call, then tells its owner. */
static void
call_finish(struct call *call, enum ipc_status status, struct ipc_frame *frame)
{
	ipc_on_reply *const on_reply = call->on_reply;
	void *const arg = call->arg;

	call_free(call);
	on_reply(arg, status, frame);
}

static void
on_call_timeout(void *arg)
{
	call_finish(arg, IPC_TIMEOUT, NULL);
}

static void
on_link_frame(void *arg, struct ipc_frame *frame)
{
	struct ipc_link *link = arg;

	link->busy++;
	if (frame->type == IPC_REPLY) {
		struct call *call = call_find(link, frame->id);
		if (call)
			call_finish(call, IPC_OK, frame);
	} else if (link->events && link->events->on_push) {
		link->events->on_push(link->arg, frame);
	}
	link_unbusy(link);
}

static void
on_link_end(void *arg)
{
	struct ipc_link *link = arg;
	const uint32_t generation = link->generation;

	link->busy++;
	ipc_free(link->ipc);
	link->ipc = NULL;
	log_info("-", "link_down", "peer=%s", link->name);
	if (link->events && link->events->on_down)
		link->events->on_down(link->arg);
	/* Callbacks may attach a fresh channel and call through it, cancel, or free the link: so
	 * each step looks anew, and only calls of the channel that ended are lost. */
	for (unsigned i = 0; !link->freed && i < CALL_BUCKETS; i++) {
		struct call *call = LIST_FIRST(&link->calls[i]);

		while (!link->freed && call) {
			if (call->generation == generation) {
				call_finish(call, IPC_DOWN, NULL);
				call = link->freed ? NULL : LIST_FIRST(&link->calls[i]);
			} else {
				call = LIST_NEXT(call, link);
			}
		}
	}
	link_unbusy(link);
}

struct ipc_link *
ipc_link_new(struct loop *loop, const char *name, const struct ipc_link_events *events, void *arg)
{
	struct ipc_link *link = xcalloc(1, sizeof *link);

	link->loop = loop;
	link->name = xstrdup(name);
	link->events = events;
	link->arg = arg;
	return link;
}

void
ipc_link_free(struct ipc_link *link)
{
	struct call *call;

	if (!link || link->freed)
		return;
	link->freed = true;
	for (unsigned i = 0; i < CALL_BUCKETS; i++)
		while ((call = LIST_FIRST(&link->calls[i])))
			call_free(call);
	if (link->ipc)
		ipc_free(link->ipc);
	link->ipc = NULL;
	free(link->name);
	link->name = NULL;
	if (!link->busy)
		free(link);
}

void
ipc_link_attach(struct ipc_link *link, int fd_take)
{
	link->busy++;
	if (link->ipc)
		on_link_end(link);
	if (link->freed || link->ipc) {
		/* A callback freed the link, or attached a channel of its own meanwhile. */
		close(fd_take);
	} else {
		link->generation++;
		link->ipc = ipc_new(link->loop, fd_take, on_link_frame, on_link_end, link);
		log_debug("-", "link_up", "peer=%s", link->name);
		if (link->events && link->events->on_up)
			link->events->on_up(link->arg);
	}
	link_unbusy(link);
}

bool
ipc_link_is_up(const struct ipc_link *link)
{
	return link->ipc && !link->ipc->broken;
}

uint32_t
ipc_link_call(struct ipc_link *link, uint16_t type, const struct buf *payload, int fd,
              msec_t timeout, ipc_on_reply *on_reply, void *arg)
{
	struct call *call;
	uint32_t id = link->last_id;

	if (!link->ipc)
		return 0;
	do
		id = id == UINT32_MAX ? 1 : id + 1;
	while (call_find(link, id));
	if (!ipc_send(link->ipc, type, id, payload, fd))
		return 0;
	link->last_id = id;
	call = xcalloc(1, sizeof *call);
	call->id = id;
	call->generation = link->generation;
	call->on_reply = on_reply;
	call->arg = arg;
	call->timer = loop_timer_new(link->loop, on_call_timeout, call);
	loop_timer_arm(call->timer, timeout);
	LIST_INSERT_HEAD(&link->calls[id % CALL_BUCKETS], call, link);
	return id;
}

void
ipc_link_cancel(struct ipc_link *link, uint32_t id)
{
	struct call *call = id ? call_find(link, id) : NULL;

	if (call)
		call_free(call);
}

bool
ipc_link_tell(struct ipc_link *link, uint16_t type, const struct buf *payload, int fd)
{
	return link->ipc && ipc_send(link->ipc, type, 0, payload, fd);
}

/* The serving side. A handful of peers, so a list is searched. */

struct peer {
	LIST_ENTRY(peer) link;
	struct ipc_hub *hub;
	struct ipc *ipc;
	struct ipc_from from; /* call is 0 */
};

struct ipc_hub {
	struct loop *loop;
	const struct ipc_hub_events *events;
	void *arg;
	LIST_HEAD(, peer) peers;
	uint32_t last_channel;
};

/* Below, nothing of the hub or the peer is touched after a callback, which may free either. */

static void
on_peer_frame(void *arg, struct ipc_frame *frame)
{
	struct peer *peer = arg;
	struct ipc_from from = peer->from;

	from.call = frame->id;
	peer->hub->events->on_frame(peer->hub->arg, from, frame);
}

static void
peer_free(struct peer *peer)
{
	LIST_REMOVE(peer, link);
	ipc_free(peer->ipc);
	free(peer);
}

static void
on_peer_end(void *arg)
{
	struct peer *peer = arg;
	struct ipc_hub *hub = peer->hub;
	const struct ipc_from from = peer->from;

	peer_free(peer);
	if (hub->events->on_gone)
		hub->events->on_gone(hub->arg, from);
}

static struct peer *
peer_find(struct ipc_hub *hub, uint32_t channel)
{
	struct peer *peer;

	LIST_FOREACH(peer, &hub->peers, link)
	{
		if (peer->from.channel == channel)
			return peer;
	}
	return NULL;
}

struct ipc_hub *
ipc_hub_new(struct loop *loop, const struct ipc_hub_events *events, void *arg)
{
	struct ipc_hub *hub = xcalloc(1, sizeof *hub);

	hub->loop = loop;
	hub->events = events;
	hub->arg = arg;
	LIST_INIT(&hub->peers);
	return hub;
}

void
ipc_hub_free(struct ipc_hub *hub)
{
	struct peer *peer;

	if (!hub)
		return;
	while ((peer = LIST_FIRST(&hub->peers)))
		peer_free(peer);
	free(hub);
}

void
ipc_hub_attach(struct ipc_hub *hub, unsigned role, unsigned index, int fd_take)
{
	struct peer *peer, *old = NULL;

	LIST_FOREACH(peer, &hub->peers, link)
	{
		if (peer->from.role == role && peer->from.index == index)
			old = peer;
	}
	if (old)
		on_peer_end(old); /* on_gone must not free the hub here: it is attaching */
	peer = xcalloc(1, sizeof *peer);
	peer->hub = hub;
	peer->from =
	    (struct ipc_from){.channel = ++hub->last_channel, .role = role, .index = index};
	peer->ipc = ipc_new(hub->loop, fd_take, on_peer_frame, on_peer_end, peer);
	LIST_INSERT_HEAD(&hub->peers, peer, link);
	if (hub->events->on_attach)
		hub->events->on_attach(hub->arg, peer->from);
}

void
ipc_hub_reply(struct ipc_hub *hub, struct ipc_from to, const struct buf *payload, int fd)
{
	struct peer *peer = to.call ? peer_find(hub, to.channel) : NULL;

	if (peer)
		ipc_send(peer->ipc, IPC_REPLY, to.call, payload, fd);
}

bool
ipc_hub_push(struct ipc_hub *hub, struct ipc_from to, uint16_t type, const struct buf *payload,
             int fd)
{
	struct peer *peer = peer_find(hub, to.channel);

	return peer && ipc_send(peer->ipc, type, 0, payload, fd);
}

void
ipc_hub_push_all(struct ipc_hub *hub, unsigned role, uint16_t type, const struct buf *payload)
{
	struct peer *peer;

	LIST_FOREACH(peer, &hub->peers, link)
	{
		if (peer->from.role == role)
			ipc_send(peer->ipc, type, 0, payload, -1);
	}
}
