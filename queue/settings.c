#include "queue/settings.h"

/* A setting is answered when it is on the disk, with the account as it is then; so whoever reads
 * the answer reads what holds. Until then its request is kept in a struct setting. */

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "queue/proto.h"

struct settings {
	struct ipc_hub *hub;
	struct store *store;
	struct quota *quota;
};

struct setting { /* an override, or a reset, on its way to the disk */
	struct settings *settings;
	struct ipc_from from;
	char account[PROTO_ACCOUNT_MAX + 1], class[QUEUE_CLASS_MAX + 1];
	char by[64];
	bool clear;
	uint32_t limit;
	msec_t at; /* of a reset: ledger time */
};

static void
reply(struct settings *settings, struct ipc_from to, enum queue_answer answer)
{
	struct buf frame;
	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)answer);
	ipc_hub_reply(settings->hub, to, &frame, -1);
	buf_clear(&frame);
}

static void
reply_view(struct settings *settings, struct ipc_from to, const char *account, const char *class)
{
	struct queue_quota_view view;
	struct buf frame;
	if (!quota_look(settings->quota, account, class, &view)) {
		reply(settings, to, QUEUE_DOWN);
		return;
	}
	buf_init(&frame);
	wire_put_u8(&frame, QUEUE_DONE);
	proto_put_view(&frame, &view);
	ipc_hub_reply(settings->hub, to, &frame, -1);
	buf_clear(&frame);
}

static void
on_show(struct settings *settings, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	char account[PROTO_ACCOUNT_MAX + 1], class[QUEUE_CLASS_MAX + 1];
	proto_word(&wire, account, sizeof(account));
	proto_word(&wire, class, sizeof(class));
	if (wire_done(&wire))
		reply_view(settings, from, account, class);
	else
		reply(settings, from, QUEUE_INVALID);
}

/* Answers with the view, and ends the setting. */
static void
setting_end(struct setting *setting, enum store_result result)
{
	if (result == STORE_OK) {
		reply_view(setting->settings, setting->from, setting->account, setting->class);
	} else {
		log_error("-", "quota-change-failed", "account=%s by=%s error=%s", setting->account,
		          setting->by, store_result_text(result));
		reply(setting->settings, setting->from, QUEUE_DOWN);
	}
	free(setting);
}

static void
on_override_stored(void *arg, enum store_result result)
{
	struct setting *setting = arg;
	if (setting->clear && result == STORE_MISSING)
		result = STORE_OK;
	if (result == STORE_OK && setting->clear)
		log_info("-", "quota-cleared", "account=%s by=%s", setting->account, setting->by);
	else if (result == STORE_OK)
		log_info("-", "quota-set", "account=%s limit=%u by=%s", setting->account,
		         setting->limit, setting->by);
	setting_end(setting, result);
}

static void
on_reset_stored(void *arg, enum store_result result)
{
	struct setting *setting = arg;
	quota_reset_end(setting->settings->quota, setting->account, setting->at,
	                result == STORE_OK);
	if (result == STORE_OK)
		log_info("-", "quota-reset", "account=%s by=%s", setting->account, setting->by);
	setting_end(setting, result);
}

/* The account and class that a request of the NOC begins with. */
static struct setting *
setting_new(struct settings *settings, struct ipc_from from, struct wire *wire)
{
	struct setting *setting = xcalloc(1, sizeof(*setting));
	setting->settings = settings;
	setting->from = from;
	proto_word(wire, setting->account, sizeof(setting->account));
	proto_word(wire, setting->class, sizeof(setting->class));
	return setting;
}

static void
on_set(struct settings *settings, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct store_override override = {.when = clock_wall()};
	struct setting *setting = setting_new(settings, from, &wire);
	setting->clear = wire_u8(&wire) != 0;
	override.limit = wire_u32(&wire);
	wire_str(&wire, override.by, sizeof(override.by));
	wire_str(&wire, override.reason, sizeof(override.reason));
	if (!wire_done(&wire)) {
		reply(settings, from, QUEUE_INVALID);
		free(setting);
		return;
	}
	setting->limit = override.limit;
	memcpy(setting->by, override.by, sizeof(setting->by));
	store_override_set(settings->store, setting->account, setting->clear ? NULL : &override,
	                   on_override_stored, setting);
}

static void
on_reset(struct settings *settings, struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct store_reset reset = {.when = clock_wall()};
	struct setting *setting = setting_new(settings, from, &wire);
	wire_str(&wire, reset.by, sizeof(reset.by));
	wire_str(&wire, reset.reason, sizeof(reset.reason));
	if (!wire_done(&wire)) {
		reply(settings, from, QUEUE_INVALID);
		free(setting);
		return;
	}
	memcpy(setting->by, reset.by, sizeof(setting->by));
	reset.at = setting->at = quota_reset_begin(settings->quota, setting->account);
	store_ledger_reset(settings->store, setting->account, &reset, on_reset_stored, setting);
}

bool
settings_frame(struct settings *settings, struct ipc_from from, const struct ipc_frame *frame)
{
	switch (frame->type) {
	case PROTO_QUOTA_SHOW:
		on_show(settings, from, frame);
		return true;
	case PROTO_QUOTA_SET:
		on_set(settings, from, frame);
		return true;
	case PROTO_QUOTA_RESET:
		on_reset(settings, from, frame);
		return true;
	default:
		return false;
	}
}

struct settings *
settings_new(struct ipc_hub *hub, struct store *store, struct quota *quota)
{
	struct settings *settings = xcalloc(1, sizeof(*settings));
	*settings = (struct settings){.hub = hub, .store = store, .quota = quota};
	return settings;
}

void
settings_free(struct settings *settings)
{
	free(settings);
}
