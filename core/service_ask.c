#include "core/service.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/service_proto.h"

/* What sekisho-admin asks of sekishod. Each question has an id, one answer, and a timer: sekishod
 * may be busy, and a full control channel is answered like a silent sekishod. Tap sockets come
 * unasked once they were asked for. */

#define ASK_TIMEOUT    2000  /* ms */
#define RELOAD_TIMEOUT 90000 /* ms; sekishod's own bounds are tighter */

struct ask {
	struct ask *next;
	uint32_t id;
	enum service_frame answer; /* which of the next three it is */
	union {
		service_on_processes *processes;
		service_on_reloaded *reloaded;
		service_on_level_set *level_set;
	} on;
	void *arg;
	struct loop_timer *timer;
};

static struct {
	uint32_t ids; /* given out */
	struct ask *asking;
	service_on_tap *on_tap; /* NULL: none wanted */
	void *tap_arg;
} self;

static void
ask_unlink(const struct ask *ask)
{
	struct ask **at = &self.asking;
	while (*at != ask)
		at = &(*at)->next;
	*at = ask->next;
}

/* NULL: it had timed out. */
static struct ask *
ask_find(uint32_t id, enum service_frame answer)
{
	struct ask *ask = self.asking;
	while (ask != NULL && (ask->id != id || ask->answer != answer))
		ask = ask->next;
	return ask;
}

static void
ask_free(struct ask *ask)
{
	loop_timer_free(ask->timer);
	free(ask);
}

static void
on_timeout(void *arg)
{
	const struct service_state nothing = {0};
	struct ask *ask = arg;
	ask_unlink(ask);
	if (ask->answer == SERVICE_FRAME_PROCESSES)
		ask->on.processes(ask->arg, &nothing, NULL, 0);
	else if (ask->answer == SERVICE_FRAME_RELOADED)
		ask->on.reloaded(ask->arg, 0, "sekishod does not answer\n");
	else
		ask->on.level_set(ask->arg, 0);
	ask_free(ask);
}

static struct ask *
ask_new(enum service_frame answer, void *arg, struct buf *fields)
{
	struct ask *ask = xcalloc(1, sizeof(*ask));
	ask->id = ++self.ids;
	ask->answer = answer;
	ask->arg = arg;
	ask->timer = loop_timer_new(service_loop(), on_timeout, ask);
	ask->next = self.asking;
	self.asking = ask;
	buf_init(fields);
	wire_put_u32(fields, ask->id);
	return ask;
}

static void
ask_send(struct ask *ask, enum service_frame type, struct buf *fields, msec_t timeout)
{
	int sent = service_frame_send(SERVICE_CONTROL_FD, type, fields, -1);
	loop_timer_arm(ask->timer, sent == 0 ? timeout : 0);
	buf_clear(fields);
}

void
service_ask_processes(service_on_processes *on_processes, void *arg)
{
	struct buf fields;
	struct ask *ask = ask_new(SERVICE_FRAME_PROCESSES, arg, &fields);
	ask->on.processes = on_processes;
	ask_send(ask, SERVICE_FRAME_ASK_PROCESSES, &fields, ASK_TIMEOUT);
}

void
service_ask_reload(service_on_reloaded *on_reloaded, void *arg)
{
	struct buf fields;
	struct ask *ask = ask_new(SERVICE_FRAME_RELOADED, arg, &fields);
	ask->on.reloaded = on_reloaded;
	ask_send(ask, SERVICE_FRAME_ASK_RELOAD, &fields, RELOAD_TIMEOUT);
}

void
service_ask_log_level(enum service_role role, int index, enum log_level level,
                      service_on_level_set *on_level_set, void *arg)
{
	struct buf fields;
	struct ask *ask = ask_new(SERVICE_FRAME_LEVEL_SET, arg, &fields);
	ask->on.level_set = on_level_set;
	wire_put_u8(&fields, (uint8_t)role);
	wire_put_u32(&fields, index < 0 ? UINT32_MAX : (uint32_t)index);
	wire_put_u8(&fields, (uint8_t)level);
	ask_send(ask, SERVICE_FRAME_ASK_LOG_LEVEL, &fields, ASK_TIMEOUT);
}

void
service_ask_tap(service_on_tap *on_tap, void *arg)
{
	struct buf fields;
	self.on_tap = on_tap;
	self.tap_arg = arg;
	buf_init(&fields);
	wire_put_u8(&fields, on_tap != NULL);
	if (service_frame_send(SERVICE_CONTROL_FD, SERVICE_FRAME_ASK_TAP, &fields, -1) < 0)
		log_warn("-", "tap", "cannot ask sekishod error=\"%s\"", strerror(errno));
	buf_clear(&fields);
}

void
service_ask_stop(void)
{
	if (service_frame_send(SERVICE_CONTROL_FD, SERVICE_FRAME_ASK_STOP, NULL, -1) < 0)
		log_warn("-", "stop", "cannot ask sekishod error=\"%s\"", strerror(errno));
}

/* The answers. sekishod is trusted and of the same build, so a malformed one is our bug. */

static void
take_processes(struct wire *wire)
{
	struct service_state state = {0};
	uint32_t id = wire_u32(wire);
	struct ask *ask = ask_find(id, SERVICE_FRAME_PROCESSES);
	state.generation = wire_u64(wire);
	state.loaded = (msec_t)wire_u64(wire);
	wire_str(wire, state.file, sizeof(state.file));
	state.expires = (msec_t)wire_u64(wire);
	state.level = (enum log_level)wire_u8(wire);
	uint32_t count = wire_u32(wire);
	assert(count <= 1024);
	struct service_process *list = xcalloc(count + 1, sizeof(*list));
	for (uint32_t i = 0; i < count; i++) {
		list[i].role = (enum service_role)wire_u8(wire);
		list[i].index = wire_u32(wire);
		list[i].pid = (int)wire_u32(wire);
		list[i].since = (msec_t)wire_u64(wire);
		list[i].restarts = wire_u32(wire);
		list[i].level = (enum log_level)wire_u8(wire);
		list[i].load = (enum service_load)wire_u8(wire);
		wire_str(wire, list[i].layers, sizeof(list[i].layers));
	}
	if (ask != NULL && wire_done(wire)) {
		ask_unlink(ask);
		ask->on.processes(ask->arg, &state, list, count);
		ask_free(ask);
	}
	free(list);
}

static void
take_reloaded(struct wire *wire)
{
	struct ask *ask = ask_find(wire_u32(wire), SERVICE_FRAME_RELOADED);
	uint64_t generation = wire_u64(wire);
	char *mistakes = wire_str_new(wire, SERVICE_TEXT_MAX);
	if (ask != NULL && wire_done(wire)) {
		ask_unlink(ask);
		ask->on.reloaded(ask->arg, generation, mistakes);
		ask_free(ask);
	}
	free(mistakes);
}

static void
take_level_set(struct wire *wire)
{
	struct ask *ask = ask_find(wire_u32(wire), SERVICE_FRAME_LEVEL_SET);
	unsigned count = wire_u32(wire);
	if (ask == NULL || !wire_done(wire))
		return;
	ask_unlink(ask);
	ask->on.level_set(ask->arg, count);
	ask_free(ask);
}

static void
take_tapped(struct wire *wire, int *pass)
{
	enum service_role role = (enum service_role)wire_u8(wire);
	unsigned index = wire_u32(wire);
	if (self.on_tap == NULL || *pass < 0 || !wire_done(wire))
		return;
	self.on_tap(self.tap_arg, role, index, *pass);
	*pass = -1;
}

bool
service_ask_frame(enum service_frame type, struct wire *wire, int *pass)
{
	switch (type) {
	case SERVICE_FRAME_PROCESSES:
		take_processes(wire);
		break;
	case SERVICE_FRAME_RELOADED:
		take_reloaded(wire);
		break;
	case SERVICE_FRAME_LEVEL_SET:
		take_level_set(wire);
		break;
	case SERVICE_FRAME_TAPPED:
		take_tapped(wire, pass);
		break;
	default:
		return false;
	}
	return wire_done(wire);
}
