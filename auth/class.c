#include "auth/class.h"

#include "auth/proto.h"

#define PATIENCE 5000 /* msec */

uint32_t
auth_class_ask(struct ipc_link *link, const char *account, ipc_on_reply *on_reply, void *arg)
{
	struct buf payload;
	uint32_t call;

	buf_init(&payload);
	wire_put_str(&payload, account);
	call = ipc_link_call(link, AUTH_FRAME_CLASS_OF, &payload, -1, PATIENCE, on_reply, arg);
	buf_clear(&payload);
	return call;
}

bool
auth_class_read(const struct ipc_frame *frame, char class[CONF_CLASS_SIZE])
{
	struct wire wire = wire_from(frame->data, frame->len);
	const bool known = wire_u8(&wire) == 1;

	wire_str(&wire, class, CONF_CLASS_SIZE);
	return wire_done(&wire) && known;
}
