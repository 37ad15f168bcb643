#include "core/ipc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "t/unit/tap.h"

/* A link and a hub in one process and loop: answers, order under a full socket, descriptors,
 * deadlines, ends, and objects freed inside their callbacks. */

enum { ECHO = 1, MUTE, FILL, DIE, FD, FREE_ME };

static struct loop *loop;
static struct ipc_hub *hub;
static struct ipc_link *link_;
static unsigned attached, gone, ups, downs, filled, pushes;
static bool in_order = true;
static uint32_t expected;

static void
on_frame(void *arg, struct ipc_from from, struct ipc_frame *frame)
{
	struct buf payload = {
	    .data = (uint8_t *)(uintptr_t)frame->data, .len = frame->len, .size = frame->len};
	struct wire wire = wire_from(frame->data, frame->len);

	(void)arg;
	switch (frame->type) {
	case ECHO:
		ipc_hub_reply(hub, from, &payload, -1);
		break;
	case FILL:
		in_order &= wire_u32(&wire) == expected++ && frame->len == 100000;
		filled++;
		break;
	case FD:
		if (frame->fd >= 0 && write(frame->fd, "x", 1) == 1)
			ipc_hub_reply(hub, from, NULL, frame->fd);
		break;
	case DIE: {
		int pair[2];
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair);
		close(pair[0]);
		ipc_hub_attach(hub, 1, 0,
		               pair[1]); /* replaces the channel we are being called from */
		break;
	}
	default:
		break;
	}
}

static void
on_attach(void *arg, struct ipc_from peer)
{
	(void)arg;
	(void)peer;
	attached++;
}

static void
on_gone(void *arg, struct ipc_from peer)
{
	(void)arg;
	(void)peer;
	gone++;
}

static void
on_up(void *arg)
{
	(void)arg;
	ups++;
}

static void
on_down(void *arg)
{
	(void)arg;
	downs++;
}

static void
on_push(void *arg, struct ipc_frame *frame)
{
	(void)arg;
	pushes++;
	if (frame->type == FREE_ME) {
		ipc_link_free(link_);
		link_ = NULL;
	}
}

static const struct ipc_hub_events hub_events = {on_frame, on_attach, on_gone};
static const struct ipc_link_events link_events = {on_up, on_down, on_push};

static void
stop(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void
run(msec_t for_ms)
{
	struct loop_timer *timer = loop_timer_new(loop, stop, NULL);

	loop_timer_arm(timer, for_ms);
	loop_run(loop);
	loop_timer_free(timer);
}

static void
join(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
		exit(1);
	ipc_hub_attach(hub, 1, 0, pair[0]);
	ipc_link_attach(link_, pair[1]);
}

struct result {
	unsigned calls;
	enum ipc_status status;
	size_t len;
	int fd;
};

static void
on_reply(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct result *result = arg;

	result->calls++;
	result->status = status;
	result->len = frame ? frame->len : 0;
	result->fd = -1;
	if (frame) {
		result->fd = frame->fd;
		frame->fd = -1;
	}
}

static void
on_reply_again(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	on_reply(arg, status, frame);
	join();
	ipc_link_call(link_, ECHO, NULL, -1, 1000, on_reply, (struct result *)arg + 1);
}

static unsigned order;
static void
first(void *arg)
{
	*(unsigned *)arg = ++order;
}

int
main(void)
{
	struct result r[8] = {0};
	struct buf payload;
	int pipes[2];
	char c = 0;
	uint32_t call;

	log_open("t-ipc");
	log_set_level(LOG_LEVEL_ERROR);
	loop = loop_new();
	hub = ipc_hub_new(loop, &hub_events, NULL);
	link_ = ipc_link_new(loop, "test", &link_events, NULL);
	ok(ipc_link_call(link_, ECHO, NULL, -1, 10, on_reply, &r[0]) == 0 && !ipc_link_is_up(link_),
	   "down at first");
	join();
	ok(ipc_link_is_up(link_) && ups == 1 && attached == 1, "up after attaching");

	buf_init(&payload);
	for (unsigned i = 0; i < IPC_FRAME_MAX; i++)
		buf_add_char(&payload, 'x');
	call = ipc_link_call(link_, ECHO, &payload, -1, 1000, on_reply, &r[0]);
	ok(call != 0 && r[0].calls == 0, "never from inside the call");
	ipc_link_call(link_, ECHO, NULL, -1, 1000, on_reply, &r[1]);
	run(50);
	ok(r[0].calls == 1 && r[0].status == IPC_OK && r[0].len == IPC_FRAME_MAX,
	   "the largest frame goes and comes");
	ok(r[1].calls == 1 && r[1].status == IPC_OK && r[1].len == 0, "the empty one too");

	if (pipe(pipes))
		return 1;
	ipc_link_call(link_, FD, NULL, pipes[1], 1000, on_reply, &r[2]);
	run(50);
	ok(r[2].calls == 1 && r[2].fd >= 0 && read(pipes[0], &c, 1) == 1 && c == 'x',
	   "a descriptor there and back");
	if (r[2].fd >= 0)
		close(r[2].fd);

	memset(r, 0, sizeof r);
	ipc_link_call(link_, MUTE, NULL, -1, 20, on_reply, &r[0]);
	call = ipc_link_call(link_, MUTE, NULL, -1, 20, on_reply, &r[1]);
	ipc_link_cancel(link_, call);
	run(60);
	ok(r[0].calls == 1 && r[0].status == IPC_TIMEOUT, "a deadline");
	ok(r[1].calls == 0, "a cancelled call stays silent");

	bool sent = true;
	for (uint32_t i = 0; i < 300; i++) {
		buf_clear(&payload);
		wire_put_u32(&payload, i);
		memset(buf_reserve(&payload, 99996), 0, 99996);
		buf_commit(&payload, 99996);
		sent &= ipc_link_tell(link_, FILL, &payload, i % 2 ? pipes[0] : -1);
	}
	run(300);
	ok(sent && filled == 300 && in_order,
	   "30 MB at once wait in the backlog and arrive in order");

	ipc_hub_push_all(hub, 1, 9, NULL);
	run(20);
	ok(pushes == 1, "a push");

	memset(r, 0, sizeof r);
	ipc_link_call(link_, MUTE, NULL, -1, 5000, on_reply_again, &r[0]);
	ipc_link_tell(link_, DIE, NULL, -1);
	run(100);
	ok(r[0].calls == 1 && r[0].status == IPC_DOWN && downs == 1,
	   "the peer went down: the call learns it");
	ok(r[1].calls == 1 && r[1].status == IPC_OK && ups == 2,
	   "and a call over the channel attached meanwhile succeeds");

	bool up = true;
	for (uint32_t i = 0; up && i < 1000; i++)
		up = ipc_link_tell(link_, MUTE, &payload, -1);
	ok(!up && downs == 1 && !ipc_link_is_up(link_),
	   "a backlog that overflows breaks the channel, told later");
	run(50);
	ok(downs == 2, "which is now");

	join();
	ipc_hub_push_all(hub, 1, FREE_ME, NULL);
	ipc_hub_push_all(hub, 1, FREE_ME, NULL);
	const unsigned gone_before = gone;
	run(50);
	ok(link_ == NULL && gone == gone_before + 1,
	   "a link freed inside its own callback; the hub learns it");

	unsigned a = 0, b = 0;
	loop_defer(loop, first, &a);
	loop_defer(loop, first, &b);
	run(5);
	ok(a == 1 && b == 2, "deferred calls run in order");
	ipc_hub_free(hub);
	loop_free(loop);
	buf_clear(&payload);
	close(pipes[0]);
	close(pipes[1]);
	return tap_end();
}
