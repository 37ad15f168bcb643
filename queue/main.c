/* sekisho-queue: every promise of the service. Accepts for msa, hands out to relay, answers admin.
 *
 * Problem: msa may say 250 only when body, envelope and charge are durable, and may lose our answer
 * at any moment. Idea: one commit is one store_enqueue; its completion is the answer. An id that
 * was accepted once is refused for ever, and LOOKUP tells for any id whether it was accepted, is on
 * its way, or is unknown.
 *
 * Invariants:
 *   - Between quota_commit_begin and quota_commit_end lies exactly one store_enqueue. It goes on
 * when msa's channel dies; the message is then delivered without a 250, which is SMTP's own
 * at-least-once.
 *   - What belongs to (channel, token), reservations and an unfinished large body, ends with
 * COMMIT, END or the channel.
 *   - Frames are handled only from the role that has any business sending them, and a malformed one
 * is refused, logged, and harms nobody else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/sandbox.h"
#include "core/service.h"
#include "queue/hold.h"
#include "queue/operate.h"
#include "queue/proto.h"
#include "queue/quota.h"
#include "queue/schedule.h"
#include "queue/settings.h"
#include "queue/space.h"
#include "queue/store.h"
#include "queue/tracer.h"
#include "ratelimit/ledger.h"

struct large { /* a large body being received */
	LIST_ENTRY(large) link;
	uint32_t channel;
	uint64_t token;
	struct queue_id id;
	struct store_large *large;
};

struct accept { /* a commit on its way to the disk */
	LIST_ENTRY(accept) link;
	struct ipc_from from;
	struct queue_id id;
	char account[PROTO_ACCOUNT_MAX + 1];
	struct ledger_charge charge;
	msec_t due;  /* on the schedule's clock; 0: at once */
	msec_t held; /* wall clock until which its sender holds it; 0: not */
	uint64_t size;
	struct queue_quota quota;
};

struct early { /* a link that came before the store was open */
	TAILQ_ENTRY(early) link;
	enum service_role peer;
	unsigned index;
	int fd;
};

#define HOLD_MAX                                                                                   \
	(INT64_C(366) * 24 * 60 * 60 * 1000) /* msec: above what limits.future_release allows */
#define LARGE_MAX 10000 /* large bodies at once: far above what msa's session limits allow */

static struct program {
	const struct conf *conf;
	struct ipc_hub *hub;
	struct store *store;
	struct quota *quota;
	struct holds *holds;
	struct space *space;
	struct schedule *schedule;
	struct operate *operate;
	struct tracer *tracer;
	struct settings *settings;
	LIST_HEAD(, large) larges;
	unsigned large_count;
	LIST_HEAD(, accept) accepts;
	TAILQ_HEAD(, early) early;
} program;

static void
reply_verdict(struct ipc_from to, enum queue_verdict verdict, const struct queue_quota *quota)
{
	static const struct queue_quota none;
	struct buf frame;
	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)verdict);
	proto_put_quota(&frame, quota ? quota : &none);
	ipc_hub_reply(program.hub, to, &frame, -1);
	buf_clear(&frame);
}

static void
reply_u8(struct ipc_from to, unsigned value, int fd)
{
	struct buf frame;
	buf_init(&frame);
	wire_put_u8(&frame, (uint8_t)value);
	ipc_hub_reply(program.hub, to, &frame, fd);
	buf_clear(&frame);
}

static struct large *
large_find(uint32_t channel, uint64_t token)
{
	struct large *large;
	LIST_FOREACH(large, &program.larges, link)
	{
		if (large->channel == channel && large->token == token)
			return large;
	}
	return NULL;
}

/* Gives what the store holds of it to the caller. */
static struct store_large *
large_take(struct large *large)
{
	struct store_large *taken = large->large;
	LIST_REMOVE(large, link);
	program.large_count--;
	free(large);
	return taken;
}

static struct accept *
accept_find(const struct queue_id *id)
{
	struct accept *accept;
	LIST_FOREACH(accept, &program.accepts, link)
	{
		if (queue_id_equal(&accept->id, id))
			return accept;
	}
	return NULL;
}

static void
malformed(struct ipc_from from, const struct ipc_frame *frame)
{
	log_error("-", "frame-malformed", "peer=%s-%u type=%u octets=%zu",
	          service_role_name(from.role), from.index, frame->type, frame->len);
}

static void
on_reserve(struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	char account[PROTO_ACCOUNT_MAX + 1], class[QUEUE_CLASS_MAX + 1];
	struct queue_quota view = {0};
	struct queue_quota_view look;
	uint64_t token = wire_u64(&wire);
	proto_word(&wire, account, sizeof(account));
	proto_word(&wire, class, sizeof(class));
	uint64_t size = wire_u64(&wire);
	if (!wire_done(&wire)) {
		malformed(from, frame);
		reply_verdict(from, QUEUE_UNAVAILABLE, NULL);
	} else if (frame->type == PROTO_LOOK) {
		const bool known = quota_look(program.quota, account, class, &look);
		reply_verdict(from, known ? QUEUE_OK : QUEUE_UNAVAILABLE,
		              &look.meters[QUEUE_RECIPIENTS]);
	} else if (!space_has_room(program.space, size)) {
		reply_verdict(from, QUEUE_FULL, NULL);
	} else {
		enum queue_verdict verdict =
		    quota_reserve(program.quota, account, class, from.channel, token, &view);
		reply_verdict(from, verdict, &view);
	}
}

static void
on_release(struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	char account[PROTO_ACCOUNT_MAX + 1];
	uint64_t token = wire_u64(&wire);
	proto_word(&wire, account, sizeof(account));
	uint32_t count = frame->type == PROTO_END ? LEDGER_ALL : wire_u32(&wire);
	if (!wire_done(&wire)) {
		malformed(from, frame);
		return;
	}
	quota_release(program.quota, account, from.channel, token, count);
	struct large *large = frame->type == PROTO_END ? large_find(from.channel, token) : NULL;
	if (large)
		store_large_abort(program.store, large_take(large));
}

static void
on_body_open(struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct queue_id id;
	enum store_result why = STORE_IO;
	int fd = -1;
	uint64_t token = wire_u64(&wire);
	proto_id(&wire, &id);
	if (!wire_done(&wire) || large_find(from.channel, token) ||
	    program.large_count >= LARGE_MAX) {
		malformed(from, frame);
		reply_u8(from, QUEUE_UNAVAILABLE, -1);
		return;
	}
	if (!space_has_room(program.space, 0)) {
		reply_u8(from, QUEUE_FULL, -1);
		return;
	}
	struct store_large *made = store_large_open(program.store, &id, &fd, &why);
	if (!made) {
		char text[QUEUE_ID_TEXT_SIZE];
		log_error(queue_id_format(&id, text), "body-open", "error=%s",
		          store_result_text(why));
		reply_u8(from, why == STORE_FULL ? QUEUE_FULL : QUEUE_UNAVAILABLE, -1);
		return;
	}
	struct large *large = xcalloc(1, sizeof(*large));
	large->channel = from.channel;
	large->token = token;
	large->id = id;
	large->large = made;
	LIST_INSERT_HEAD(&program.larges, large, link);
	program.large_count++;
	reply_u8(from, QUEUE_OK, fd);
	close(fd);
}

static void
on_enqueued(void *arg, enum store_result result)
{
	struct accept *accept = arg;
	char text[QUEUE_ID_TEXT_SIZE];

	queue_id_format(&accept->id, text);
	quota_commit_end(program.quota, accept->account, &accept->charge, result == STORE_OK);
	LIST_REMOVE(accept, link);
	if (result == STORE_OK) {
		log_debug(text, "queued", "account=%s recipients=%u size=%llu", accept->account,
		          accept->charge.units[METER_RECIPIENTS], (unsigned long long)accept->size);
		reply_verdict(accept->from, QUEUE_OK, &accept->quota);
		if (accept->held)
			schedule_held_message(program.schedule, accept->held);
		else
			schedule_new_message(program.schedule, QUEUE_FRESH, &accept->id,
			                     accept->due);
	} else {
		log_error(text, "enqueue-failed", "account=%s error=%s", accept->account,
		          store_result_text(result));
		reply_verdict(accept->from, result == STORE_FULL ? QUEUE_FULL : QUEUE_UNAVAILABLE,
		              NULL);
	}
	free(accept);
}

/* When the pace lets a message leave; 0: at once. If its sender wants it back before that (RFC
 * 2852), then it is due to end. */
static msec_t
leave_at(const struct queue_quota *quota, const struct envelope *envelope)
{
	return envelope->by == BY_RETURN && envelope->by_deadline < quota->start
	           ? envelope->by_deadline
	           : quota->start;
}

static void
on_commit(struct ipc_from from, const struct ipc_frame *frame)
{
	struct proto_commit commit;
	char text[QUEUE_ID_TEXT_SIZE];

	if (!proto_commit(frame->data, frame->len, &commit)) {
		malformed(from, frame);
		/* Whatever it was: the token ends here, as msa thinks it does. */
		struct large *unused = large_find(from.channel, commit.token);
		if (unused)
			store_large_abort(program.store, large_take(unused));
		if (commit.account[0])
			quota_release(program.quota, commit.account, from.channel, commit.token,
			              LEDGER_ALL);
		reply_verdict(from, QUEUE_UNAVAILABLE, NULL);
		return;
	}
	queue_id_format(&commit.id, text);
	enum queue_verdict verdict = QUEUE_OK;
	struct large *large = large_find(from.channel, commit.token);
	if (accept_find(&commit.id)) { /* one that is stored already is the store's to refuse */
		log_error(text, "id-repeated", "account=%s", commit.account);
		verdict = QUEUE_UNAVAILABLE;
	} else if (commit.in_file != (large != NULL) ||
	           (large && !queue_id_equal(&large->id, &commit.id))) {
		log_error(text, "body-missing", "account=%s", commit.account);
		verdict = QUEUE_UNAVAILABLE;
	} else if (!commit.in_file &&
	           XXH3_64bits(commit.body, (size_t)commit.body_size) != commit.checksum) {
		log_error(text, "body-damaged", "account=%s size=%llu", commit.account,
		          (unsigned long long)commit.body_size);
		verdict = QUEUE_UNAVAILABLE;
	} else if (commit.envelope.hold_until - clock_wall() > HOLD_MAX) {
		log_error(text, "hold-too-long", "account=%s", commit.account);
		verdict = QUEUE_UNAVAILABLE;
	} else if (!space_has_room(program.space, 0)) {
		verdict = QUEUE_FULL;
	}
	struct accept *accept = xcalloc(1, sizeof(*accept));
	if (verdict == QUEUE_OK)
		verdict = quota_commit_begin(program.quota, commit.account, commit.class,
		                             from.channel, commit.token, commit.recipient_count,
		                             &accept->charge, &accept->quota);
	else
		quota_release(program.quota, commit.account, from.channel, commit.token,
		              LEDGER_ALL);
	if (verdict != QUEUE_OK) {
		if (large)
			store_large_abort(program.store, large_take(large));
		reply_verdict(from, verdict, &accept->quota);
		free(accept);
		proto_commit_clear(&commit);
		return;
	}
	accept->from = from;
	accept->id = commit.id;
	memcpy(accept->account, commit.account, sizeof(accept->account));
	accept->size = commit.prefix_len + commit.body_size;
	LIST_INSERT_HEAD(&program.accepts, accept, link);
	msec_t now = clock_wall();
	const msec_t start = leave_at(&accept->quota, &commit.envelope);
	if (start)
		accept->due = schedule_now(program.schedule) + start - now;
	if (commit.envelope.hold_until > now)
		accept->held =
		    commit.envelope.hold_until > start ? commit.envelope.hold_until : start;
	struct store_message_new message = {
	    .id = commit.id,
	    .account = accept->account,
	    .class = commit.class,
	    .from = commit.from,
	    .recipients = commit.recipients,
	    .recipient_count = commit.recipient_count,
	    .envelope = commit.envelope,
	    .created = now,
	    .due = accept->held  ? accept->held
	           : accept->due ? accept->due
	                         : now,
	    .held = accept->held,
	    .client_ip = commit.client_ip,
	    .client_port = commit.client_port,
	    .ehlo = commit.ehlo,
	    .protocol = commit.protocol,
	    .message_id = commit.message_id,
	    .prefix = commit.prefix,
	    .prefix_len = commit.prefix_len,
	    .body = commit.body,
	    .body_len = commit.in_file ? 0 : (size_t)commit.body_size,
	    .large_take = large ? large_take(large) : NULL,
	    .large_size = commit.in_file ? commit.body_size : 0,
	    .large_checksum = commit.checksum,
	    .charge = &accept->charge,
	};
	store_enqueue(program.store, &message, on_enqueued, accept);
	proto_commit_clear(&commit);
}

static void
on_lookup(struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	struct queue_id id;
	enum queue_lane lane;
	proto_id(&wire, &id);
	if (!wire_done(&wire)) {
		malformed(from, frame);
		return;
	}
	reply_u8(from,
	         accept_find(&id)                        ? PROTO_PENDING
	         : store_find(program.store, &id, &lane) ? PROTO_COMMITTED
	                                                 : PROTO_NOT_COMMITTED,
	         -1);
}

static void
on_status(struct ipc_from from)
{
	struct store_counts counts;
	struct space_view space;
	struct buf frame;
	store_counts(program.store, &counts);
	space_look(program.space, &space);
	buf_init(&frame);
	wire_put_u8(&frame, QUEUE_DONE);
	for (size_t i = 0; i < QUEUE_LANES; i++) {
		wire_put_u64(&frame, counts.messages[i]);
		wire_put_u64(&frame, counts.recipients[i]);
	}
	wire_put_u64(&frame, schedule_in_flight(program.schedule));
	wire_put_u64(&frame, (uint64_t)counts.oldest);
	wire_put_u64(&frame, counts.accepted);
	wire_put_u64(&frame, counts.generated);
	wire_put_u64(&frame, counts.delivered);
	wire_put_u64(&frame, counts.bounced);
	wire_put_u64(&frame, counts.expired);
	wire_put_u64(&frame, counts.removed);
	wire_put_u64(&frame, quota_accounts(program.quota));
	wire_put_u64(&frame, counts.commits);
	wire_put_u64(&frame, counts.committed);
	wire_put_u8(&frame, space.refusing[0] != '\0');
	wire_put_str(&frame, space.refusing);
	wire_put_u64(&frame, space.disk_free);
	wire_put_u64(&frame, space.disk_reserve);
	wire_put_u64(&frame, space.files_free);
	wire_put_u8(&frame, (uint8_t)space.map_percent);
	wire_put_u64(&frame, (uint64_t)quota_time(program.quota));
	wire_put_u8(&frame, quota_is_held(program.quota));
	ipc_hub_reply(program.hub, from, &frame, -1);
	buf_clear(&frame);
}

static void
on_audit_done(void *arg, const struct queue_audit *audit)
{
	struct ipc_from *from = arg;
	struct buf reply;
	const uint64_t fields[] = {audit->accepted, audit->generated, audit->delivered,
	                           audit->bounced,  audit->expired,   audit->removed,
	                           audit->queued,   audit->messages,  audit->orphans};
	buf_init(&reply);
	wire_put_u8(&reply, QUEUE_DONE);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		wire_put_u64(&reply, fields[i]);
	wire_put_u8(&reply, audit->conserved);
	ipc_hub_reply(program.hub, *from, &reply, -1);
	buf_clear(&reply);
	free(from);
}

static void
on_audit(struct ipc_from from)
{
	struct ipc_from *kept = xmalloc(sizeof(*kept));
	*kept = from;
	store_audit(program.store, on_audit_done, kept);
}

static void
on_checked(void *arg, const struct queue_check *share)
{
	struct ipc_from *from = arg;
	struct buf reply;

	buf_init(&reply);
	wire_put_u8(&reply, QUEUE_DONE);
	wire_put_u64(&reply, share->number);
	wire_put_u64(&reply, share->records);
	wire_put_u64(&reply, share->bodies);
	wire_put_u64(&reply, share->octets);
	wire_put_str(&reply, share->doing);
	wire_put_u16(&reply, (uint16_t)share->count);
	for (size_t i = 0; i < share->count; i++) {
		wire_put_str(&reply, share->faults[i].where);
		wire_put_str(&reply, share->faults[i].what);
		wire_put_str(&reply, share->faults[i].todo);
	}
	ipc_hub_reply(program.hub, *from, &reply, -1);
	buf_clear(&reply);
	free(from);
}

static void
on_check(struct ipc_from from, const struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	const uint64_t number = wire_u64(&wire);
	struct ipc_from *kept = xmalloc(sizeof(*kept));

	*kept = from;
	if (wire_done(&wire) && store_check(program.store, number, on_checked, kept))
		return;
	reply_u8(from,
	         !wire_done(&wire) ? QUEUE_INVALID
	         : number          ? QUEUE_NOT_FOUND
	                           : QUEUE_LIMIT,
	         -1);
	free(kept);
}

static void
msa_frame(struct ipc_from from, struct ipc_frame *frame)
{
	if (frame->type == PROTO_RESERVE || frame->type == PROTO_LOOK)
		on_reserve(from, frame);
	else if (frame->type == PROTO_RELEASE || frame->type == PROTO_END)
		on_release(from, frame);
	else if (frame->type == PROTO_BODY_OPEN)
		on_body_open(from, frame);
	else if (frame->type == PROTO_COMMIT)
		on_commit(from, frame);
	else if (frame->type == PROTO_LOOKUP)
		on_lookup(from, frame);
	else
		malformed(from, frame);
}

static void
admin_frame(struct ipc_from from, struct ipc_frame *frame)
{
	if (frame->type == PROTO_STATUS)
		on_status(from);
	else if (frame->type == PROTO_CLOCK_CONFIRM) {
		quota_confirm_clock(program.quota);
		on_status(from);
	} else if (frame->type == PROTO_AUDIT)
		on_audit(from);
	else if (frame->type == PROTO_CHECK)
		on_check(from, frame);
	else if (!settings_frame(program.settings, from, frame) &&
	         !schedule_site_frame(program.schedule, from, frame) &&
	         !operate_frame(program.operate, from, frame) &&
	         !tracer_frame(program.tracer, from, frame))
		malformed(from, frame);
}

static void
on_frame(void *arg, struct ipc_from from, struct ipc_frame *frame)
{
	(void)arg;
	if (!program.store)
		return;
	if (from.role == SERVICE_MSA)
		msa_frame(from, frame);
	else if (from.role == SERVICE_RELAY)
		schedule_frame(program.schedule, from, frame);
	else if (from.role == SERVICE_ADMIN)
		admin_frame(from, frame);
	else
		malformed(from, frame);
}

static void
on_gone(void *arg, struct ipc_from peer)
{
	(void)arg;
	if (!program.store)
		return;
	if (peer.role == SERVICE_RELAY)
		schedule_gone(program.schedule, peer);
	if (peer.role != SERVICE_MSA)
		return;
	quota_drop_channel(program.quota, peer.channel);
	struct large *large, *next;
	for (large = LIST_FIRST(&program.larges); large; large = next) {
		next = LIST_NEXT(large, link);
		if (large->channel == peer.channel)
			store_large_abort(program.store, large_take(large));
	}
}

static void
on_attach(void *arg, struct ipc_from peer)
{
	(void)arg;
	if (peer.role == SERVICE_RELAY)
		schedule_attached(program.schedule, peer);
}

static const struct ipc_hub_events hub_events = {
    .on_frame = on_frame,
    .on_attach = on_attach,
    .on_gone = on_gone,
};

static void
on_config(void *arg, const struct conf *conf)
{
	(void)arg;
	program.conf = conf;
}

static void
attach(enum service_role peer, unsigned index, int fd_take)
{
	if (peer == SERVICE_AUTH)
		schedule_attach_auth(program.schedule, fd_take);
	else
		ipc_hub_attach(program.hub, peer, index, fd_take);
}

/* A peer may speak before we are ready to listen, so its channel is not read until the store is
 * open. */
static void
on_link(void *arg, enum service_role peer, unsigned index, int fd_take)
{
	(void)arg;
	if (program.store) {
		attach(peer, index, fd_take);
		return;
	}
	struct early *early = xcalloc(1, sizeof(*early));
	early->peer = peer;
	early->index = index;
	early->fd = fd_take;
	TAILQ_INSERT_TAIL(&program.early, early, link);
}

static void
on_generated(void *arg, enum queue_lane lane, const struct queue_id *id)
{
	(void)arg;
	schedule_new_message(program.schedule, lane, id, 0);
}

/* Limits and schedule need no preparation. */
static void
on_reloaded(void *arg, const struct conf *conf)
{
	(void)arg;
	program.conf = conf;
	store_keep_history(program.store, conf->history_keep, conf->history_size);
	space_reload(program.space, conf);
	quota_reload(program.quota, conf);
	schedule_reload(program.schedule, conf);
}

static void
on_holds_changed(void *arg, bool ended)
{
	(void)arg;
	schedule_holds_changed(program.schedule, ended);
}

static int
on_start(void *arg)
{
	char error[256] = "";
	(void)arg;
	struct store_opts opts = {.map_size = program.conf->map_size,
	                          .history_keep = program.conf->history_keep,
	                          .history_size = program.conf->history_size,
	                          .hostname = program.conf->hostname,
	                          .on_generated = on_generated};
	program.store = store_open(service_loop(), &opts, error, sizeof(error));
	if (!program.store) {
		log_error("-", "store-open", "error=\"%s\"", error);
		return -1;
	}
	program.space = space_new(service_loop(), program.store, program.conf);
	program.quota = quota_new(service_loop(), program.store, program.conf);
	program.hub = ipc_hub_new(service_loop(), &hub_events, NULL);
	program.holds = holds_new(service_loop(), program.store, on_holds_changed, NULL);
	program.schedule = schedule_new(service_loop(), program.store, program.hub, program.holds,
	                                program.quota, program.conf);
	program.settings = settings_new(program.hub, program.store, program.quota);
	program.operate = operate_new(service_loop(), program.hub, program.store, program.schedule,
	                              program.holds);
	program.tracer = tracer_new(program.hub, program.store, program.operate);
	while (!TAILQ_EMPTY(&program.early)) {
		struct early *early = TAILQ_FIRST(&program.early);
		TAILQ_REMOVE(&program.early, early, link);
		attach(early->peer, early->index, early->fd);
		free(early);
	}
	return 0;
}

static void
on_stop(void *arg)
{
	(void)arg;
	if (program.schedule) {
		schedule_stop(program.schedule);
		quota_stop(program.quota);
	}
	/* Completions still to come find quota and schedule in place; no frame is taken any more
	 * after this. */
	struct store *store = program.store;
	space_free(program.space);
	program.space = NULL;
	while (store && !LIST_EMPTY(&program.larges))
		store_large_abort(store, large_take(LIST_FIRST(&program.larges)));
	store_close(store);
	program.store = NULL;
	tracer_free(program.tracer);
	operate_free(program.operate);
	settings_free(program.settings);
	schedule_free(program.schedule);
	holds_free(program.holds);
	quota_free(program.quota);
	program.tracer = NULL;
	program.operate = NULL;
	program.settings = NULL;
	program.schedule = NULL;
	program.holds = NULL;
	program.quota = NULL;
	service_stopped();
}

static const struct service_events service_events = {
    .on_config = on_config,
    .on_link = on_link,
    .on_start = on_start,
    .on_commit = on_reloaded,
    .on_stop = on_stop,
};

int
main(int argc, char **argv)
{
	const struct service_opts opts = {
	    .role = SERVICE_QUEUE,
	    .program = "sekisho-queue",
	    .purpose = "keeps every accepted message, the quota ledger and the delivery schedule",
	    .sandbox = SANDBOX_OWN_DIR | SANDBOX_THREADS,
	    .events = &service_events,
	};
	LIST_INIT(&program.larges);
	LIST_INIT(&program.accepts);
	TAILQ_INIT(&program.early);
	return service_run(&opts, argc, argv);
}
