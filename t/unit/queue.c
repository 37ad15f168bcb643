/* The queue program and its three client sides in one process, over socket pairs: reservations,
 * caps, small and large bodies, a lost reply, delivery, deferral to the retry lane, restart with a
 * job past its final dot, what operators do, and conservation. */
#define main            queue_main
#define service_loop    test_loop
#define service_stopped test_stopped
#include "core/loop.h"
struct loop *test_loop(void);
#include "queue/main.c"
#include "queue/store_int.h"
#include "t/unit/tap.h"
#undef main

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct loop *loop;
static struct ipc_link *msa_link, *admin_link;
static struct queue_client *client;
static struct queue_worker *worker;
static struct conf conf;
static struct loop_timer *alarm_timer;

void
test_stopped(void)
{
}

struct loop *
test_loop(void)
{
	return loop;
}

static bool late;
static void
on_alarm(void *arg)
{
	(void)arg;
	late = true;
	loop_stop(loop);
}

/* Runs the loop until somebody stops it, at most msec. */
static bool
run(msec_t msec)
{
	late = false;
	loop_timer_arm(alarm_timer, msec);
	loop_run(loop);
	loop_timer_cancel(alarm_timer);
	return !late;
}

static void
up(void *arg)
{
	(void)arg;
	queue_client_on_up(client);
}
static void
down(void *arg)
{
	(void)arg;
	queue_client_on_down(client);
}
static const struct ipc_link_events msa_events = {.on_up = up, .on_down = down};
static const struct ipc_link_events admin_events = {0};

static void
connect_all(bool relay)
{
	int pair[2];
	for (int i = 0; i < 3; i++) {
		if (i == 2 && !relay)
			break;
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ==
		    -1)
			abort();
		if (i == 0)
			ipc_link_attach(msa_link, pair[0]);
		else if (i == 1)
			ipc_link_attach(admin_link, pair[0]);
		else
			queue_worker_attach(worker, pair[0]);
		on_link(NULL,
		        i == 0   ? SERVICE_MSA
		        : i == 1 ? SERVICE_ADMIN
		                 : SERVICE_RELAY,
		        0, pair[1]);
	}
}

static void
queue_down(void)
{
	struct ipc_hub *hub = program.hub;
	on_stop(NULL);
	program.hub = NULL;
	ipc_hub_free(hub);
}

static enum queue_verdict verdict;
static struct queue_quota quota_seen;
static void
on_verdict(void *arg, enum queue_verdict v, const struct queue_quota *quota)
{
	(void)arg;
	verdict = v;
	quota_seen = *quota;
	loop_stop(loop);
}

static void
on_ready(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static struct queue_submission *
reserved(unsigned n)
{
	struct queue_submission *s = queue_submission_new(client, "alice@example.org", "standard");
	for (unsigned i = 0; i < n; i++) {
		queue_submission_reserve(s, on_verdict, NULL);
		run(5000);
	}
	return s;
}

static struct queue_id last_id;
static int priority = -9; /* of what is committed */
static void
commit(struct queue_submission *s, size_t body, const char *domain, unsigned n)
{
	static char block[8192];
	struct envelope_recipient to[8];
	memset(block, 'x', sizeof(block));
	memset(to, 0, sizeof(to));
	queue_submission_body_start(s, on_ready, NULL);
	while (body > 0) {
		size_t part = body < sizeof(block) ? body : sizeof(block);
		if (!queue_submission_body(s, block, part))
			run(5000);
		body -= part;
	}
	for (unsigned i = 0; i < n; i++) {
		snprintf(to[i].address.local, sizeof(to[i].address.local), "r%u", i);
		snprintf(to[i].address.domain, sizeof(to[i].address.domain), "%s", domain);
		to[i].notify = NOTIFY_SUCCESS | NOTIFY_FAILURE;
		to[i].orcpt = i ? "" : "rfc822;r@x.example";
	}
	struct queue_envelope envelope = {.from = {"alice", "example.org"},
	                                  .recipients = to,
	                                  .recipient_count = n,
	                                  .envelope = {.body = BODY_8BITMIME,
	                                               .ret = RET_HDRS,
	                                               .envid = "e",
	                                               .priority = priority},
	                                  .prefix = "Received: x\r\n",
	                                  .prefix_len = 13,
	                                  .client_ip = "127.0.0.1",
	                                  .client_port = 1,
	                                  .ehlo = "me",
	                                  .protocol = "ESMTPSA",
	                                  .message_id = ""};
	last_id = *queue_submission_id(s);
	queue_submission_commit(s, &envelope, on_verdict, NULL);
}

static enum queue_fate fate;
static bool hold;
static struct queue_job *held;
static unsigned jobs, abandoned;
static uint64_t body_seen;
static int came[100]; /* priorities of the jobs, as they came */
static size_t came_count;
static bool asked_seen; /* the last job's envelope was what commit() gave */
static void
finish(struct queue_job *job)
{
	struct queue_outcome outcomes[PROTO_JOB_MAX];
	memset(outcomes, 0, sizeof(outcomes));
	for (size_t i = 0; i < job->recipient_count; i++) {
		outcomes[i].index = job->recipients[i].index;
		outcomes[i].fate = fate;
		outcomes[i].reply.code = fate == QUEUE_DELIVERED  ? 250
		                         : fate == QUEUE_DEFERRED ? 451
		                                                  : 550;
		strcpy(outcomes[i].reply.text, "words");
	}
	queue_job_done(job, &(struct queue_contact){.end = QUEUE_CONTACT_OK}, outcomes,
	               job->recipient_count);
}
static void
on_job(void *arg, struct queue_job *job)
{
	char c = 0;
	(void)arg;
	jobs++;
	body_seen = job->body_size;
	if (came_count < sizeof(came) / sizeof(*came))
		came[came_count++] = job->envelope.priority;
	asked_seen = job->envelope.body == BODY_8BITMIME && job->envelope.ret == RET_HDRS &&
	             strcmp(job->envelope.envid, "e") == 0 && job->envelope.priority == priority &&
	             job->recipients[0].notify == (NOTIFY_SUCCESS | NOTIFY_FAILURE) &&
	             (job->recipients[0].index ||
	              strcmp(job->recipients[0].orcpt, "rfc822;r@x.example") == 0);
	if (pread(job->body_fd, &c, 1, (off_t)(job->body_offset + job->body_size - 1)) != 1 ||
	    c != 'x')
		body_seen = 0;
	held = hold ? job : NULL;
	if (!hold)
		finish(job);
	loop_stop(loop);
}
static void
on_abandon(void *arg, struct queue_job *job)
{
	(void)arg;
	(void)job;
	abandoned++;
}
static const struct queue_worker_events worker_events = {on_job, on_abandon};

static struct queue_status status;
static void
on_status_seen(void *arg, enum queue_answer answer, const struct queue_status *s)
{
	(void)arg;
	memset(&status, 0, sizeof(status));
	if (answer == QUEUE_DONE)
		status = *s;
	loop_stop(loop);
}
static const struct queue_status *
look(void)
{
	run(100);
	queue_ask_status(admin_link, on_status_seen, NULL);
	run(5000);
	return &status;
}
static struct queue_quota_view view_seen;
static void
on_quota_seen(void *arg, enum queue_answer answer, const struct queue_quota_view *view)
{
	(void)arg;
	memset(&view_seen, 0, sizeof(view_seen));
	if (answer == QUEUE_DONE)
		view_seen = *view;
	loop_stop(loop);
}
static size_t listed;
static void
on_listed(void *arg, enum queue_answer answer, const struct queue_entry *list, size_t count,
          const struct queue_id *next)
{
	(void)arg;
	(void)next;
	listed = answer == QUEUE_DONE && count > 0 && list[0].unfinished > 0 ? count : 0;
	loop_stop(loop);
}
static char detail_state[16];
static size_t detail_count;
static void
on_detailed(void *arg, enum queue_answer answer, const struct queue_detail *detail)
{
	(void)arg;
	detail_count = answer == QUEUE_DONE ? detail->recipient_count : 0;
	strcpy(detail_state, detail_count ? detail->recipients[0].state : "");
	loop_stop(loop);
}
static struct queue_audit audit_seen;
static void
on_audited(void *arg, enum queue_answer answer, const struct queue_audit *audit)
{
	(void)arg;
	if (answer == QUEUE_DONE)
		audit_seen = *audit;
	loop_stop(loop);
}

static struct buf untaken;
static void
on_untaken_frame(void *arg, struct ipc_from from, struct ipc_frame *frame)
{
	(void)arg;
	(void)from;
	if (frame->type != PROTO_UNTAKEN)
		return;
	buf_add(&untaken, frame->data, frame->len);
	loop_stop(loop);
}
static struct ipc_from worker_peer;
static void
on_worker(void *arg, struct ipc_from peer)
{
	(void)arg;
	worker_peer = peer;
}
static void
on_raw_job(void *arg, struct ipc_frame *frame)
{
	(void)arg;
	if (frame->type == PROTO_JOB)
		buf_add(&untaken, frame->data, 8 + sizeof(struct queue_id));
	loop_stop(loop);
}

/* A job that its relay cannot take: the relay says so, and the queue tries it again. */
static void
test_untaken(void)
{
	static const struct ipc_hub_events raw_events = {.on_frame = on_untaken_frame,
	                                                 .on_attach = on_worker};
	static const struct ipc_link_events relay_events = {.on_push = on_raw_job};
	struct ipc_hub *hub = ipc_hub_new(loop, &raw_events, NULL);
	struct ipc_link *relay = ipc_link_new(loop, "queue", &relay_events, NULL);
	struct buf frame;
	int pair[2];

	queue_down();
	run(50);
	buf_init(&untaken);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	queue_worker_attach(worker, pair[0]);
	ipc_hub_attach(hub, SERVICE_RELAY, QUEUE_FRESH, pair[1]);
	buf_init(&frame);
	wire_put_u64(&frame, 7);
	proto_put_id(&frame, &last_id);
	ipc_hub_push(hub, worker_peer, PROTO_JOB, &frame, -1);
	run(5000);
	ok(untaken.len == frame.len && !memcmp(untaken.data, frame.data, frame.len),
	   "a job that cannot be read is handed back");
	buf_clear(&frame);
	buf_clear(&untaken);
	ipc_hub_free(hub);
	run(50);

	connect_all(false);
	on_start(NULL);
	struct queue_submission *s = reserved(1);
	commit(s, 10, "untaken.example", 1);
	run(5000);
	queue_submission_free(s);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	ipc_link_attach(relay, pair[0]);
	on_link(NULL, SERVICE_RELAY, QUEUE_FRESH, pair[1]);
	wire_put_u8(&frame, QUEUE_FRESH);
	wire_put_u32(&frame, 1);
	wire_put_u32(&frame, 0);
	ipc_link_tell(relay, PROTO_HELLO, &frame, -1);
	run(5000);
	ok(look()->in_flight == 1, "a job is at its relay");
	const uint64_t so_far = status.messages[QUEUE_RETRY];
	ipc_link_tell(relay, PROTO_UNTAKEN, &untaken, -1);
	for (unsigned i = 0; i < 50 && look()->messages[QUEUE_RETRY] == so_far; i++)
		;
	ok(status.in_flight == 0 && status.messages[QUEUE_RETRY] == so_far + 1,
	   "handed back it is tried again");
	buf_clear(&frame);
	buf_clear(&untaken);
	ipc_link_free(relay);
	run(200);
}

/* A relay carries over a recipient that has ended already (or never was): the rest of the message
 * must still be delivered, and nothing hangs. */
static void
test_carried_nonsense(void)
{
	struct ipc_link *relay = ipc_link_new(loop, "queue", &admin_events, NULL);
	struct buf hello, carried;
	int pair[2];

	queue_down();
	run(50);
	connect_all(false);
	on_start(NULL);
	struct queue_submission *s = reserved(2);
	commit(s, 10, "two.example", 2);
	run(5000);
	queue_submission_free(s);
	struct store_outcome outcome = {.index = 0, .state = STORE_DELIVERED, .reply = "250 ok"};
	const struct store_batch batch = {.id = last_id,
	                                  .attempt = 1,
	                                  .outcomes = &outcome,
	                                  .count = 1,
	                                  .when = clock_wall(),
	                                  .due = clock_wall()};
	store_finish(program.store, &batch, NULL, NULL);
	run(200);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	ipc_link_attach(relay, pair[0]);
	on_link(NULL, SERVICE_RELAY, QUEUE_FRESH, pair[1]);
	for (uint16_t n = 0; n < 2; n++) {
		buf_init(&carried);
		wire_put_u64(&carried, n);
		proto_put_id(&carried, &last_id);
		wire_put_str(&carried, "two.example");
		wire_put_u16(&carried, 1);
		wire_put_u16(&carried, n ? 999 : 0);
		ipc_link_tell(relay, PROTO_CARRIED, &carried, -1);
		buf_clear(&carried);
	}
	buf_init(&hello);
	wire_put_u8(&hello, QUEUE_FRESH);
	wire_put_u32(&hello, 0);
	wire_put_u32(&hello, 2);
	ipc_link_tell(relay, PROTO_HELLO, &hello, -1);
	run(200);
	ipc_link_free(relay);
	buf_clear(&hello);
	run(200);
	fate = QUEUE_DELIVERED;
	unsigned so_far = jobs;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	queue_worker_attach(worker, pair[0]);
	on_link(NULL, SERVICE_RELAY, QUEUE_FRESH, pair[1]);
	for (int i = 0; i < 20 && look()->messages[QUEUE_FRESH] > 0; i++)
		;
	ok(jobs == so_far + 1 && status.messages[QUEUE_FRESH] == 0,
	   "carried recipients that have ended are not the round's: the rest goes out once");
}

static enum queue_verdict
send_one(void)
{
	struct queue_submission *s = reserved(1);
	if (verdict == QUEUE_OK) {
		commit(s, 10, "rate.example", 1);
		run(5000);
	}
	queue_submission_free(s);
	return verdict;
}

/* What refuses and what paces, each told apart; a restart and a reset in between. */
static void
test_rates(void)
{
	struct conf_class slow = {.name = "slow", .recipients = 100, .messages = 3};
	fate = QUEUE_DELIVERED;
	conf.standard.messages = 0;
	ok(send_one() == QUEUE_OVER && quota_seen.meter == QUEUE_MESSAGES &&
	       quota_seen.limit == 0 && quota_seen.reset > clock_wall(),
	   "the messages meter refuses by its name");
	conf.standard.messages = 100;
	conf.standard.burst_messages = (struct conf_burst){1, 1, 60000};
	const msec_t before = clock_wall() - 10; /* two clocks, each cut to a millisecond */
	ok(send_one() == QUEUE_OK && quota_seen.start == 0, "the first message goes at once");
	look();
	look();
	const unsigned so_far = jobs;
	ok(send_one() == QUEUE_OK && quota_seen.start >= before + 60000 &&
	       quota_seen.start <= clock_wall() + 60000,
	   "the second is paced");
	const msec_t start = quota_seen.start;
	const struct queue_id paced = last_id;
	queue_down();
	run(50);
	connect_all(true);
	on_start(NULL);
	look();
	enum queue_lane lane;
	ok(jobs == so_far && store_find(program.store, &paced, &lane) && lane == QUEUE_FRESH,
	   "and waits, after a restart too");
	struct store_message *stored = store_load_message(program.store, QUEUE_FRESH, &paced);
	ok(stored && llabs(stored->due - start) <= 10, "until the bucket says");
	store_message_free(stored);
	ok(send_one() == QUEUE_TOO_FAST && quota_seen.reset > clock_wall() + 20000 &&
	       quota_seen.reset <= clock_wall() + 30000,
	   "what would be due beyond the horizon is refused, and told until when");
	queue_reset_quota(admin_link, "alice@example.org", "standard", "noc", "a mistake",
	                  on_quota_seen, NULL);
	run(5000);
	ok(view_seen.meters[QUEUE_RECIPIENTS].used == 0 &&
	       view_seen.meters[QUEUE_MESSAGES].used == 0 &&
	       view_seen.burst[QUEUE_MESSAGES].left == 1 && view_seen.reset_when > 0 &&
	       strcmp(view_seen.reset_by, "noc") == 0 &&
	       strcmp(view_seen.reset_reason, "a mistake") == 0,
	   "a reset forgets what was charged, and is remembered");
	queue_down();
	run(50);
	connect_all(true);
	on_start(NULL);
	ok(send_one() == QUEUE_OK && quota_seen.start == 0 && quota_seen.used == 1,
	   "after a restart too");
	look();
	look();
	conf.classes = (struct conf_classes){&slow, 1};
	queue_ask_quota(admin_link, "alice@example.org", "slow", on_quota_seen, NULL);
	run(5000);
	ok(view_seen.meters[QUEUE_MESSAGES].limit == 3 && view_seen.class_limit == 100 &&
	       view_seen.burst[QUEUE_MESSAGES].count == 0,
	   "another class, other limits");
	conf.classes = (struct conf_classes){0};
	conf.standard.burst_messages = (struct conf_burst){0};
}

static struct queue_count counts_seen[2];
static unsigned counted, wanted;
static void
on_count(void *arg, enum queue_answer answer, const struct queue_count *count)
{
	(void)arg;
	memset(&counts_seen[counted], 0, sizeof(counts_seen[counted]));
	if (answer == QUEUE_DONE && count)
		counts_seen[counted] = *count;
	if (--wanted == 0)
		loop_stop(loop);
	counted++;
}

/* Asks n times at once. */
static void
act(enum queue_action action, const char *domain, msec_t expiry, unsigned n)
{
	struct queue_order order = {
	    .action = action, .by = "noc", .reason = "test", .expiry = expiry};
	snprintf(order.selector.recipient, sizeof(order.selector.recipient), "%s", domain);
	counted = 0;
	wanted = n;
	for (unsigned i = 0; i < n; i++)
		queue_act(admin_link, &order, on_count, NULL);
	run(5000);
}

static void
send_to(const char *domain, unsigned n)
{
	struct queue_submission *s = reserved(n);
	commit(s, 10, domain, n);
	run(5000);
	queue_submission_free(s);
}

static void
send_prior(const int *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		priority = list[i];
		struct queue_submission *s = reserved(1);
		commit(s, 10, "prior.example", 1);
		run(5000);
		queue_submission_free(s);
	}
}

/* With one place at the relay, what waits for one domain goes by priority, which is a head start
 * and no more. */
static void
test_priority(void)
{
	static const int mixed[] = {0, -2, 0, 9, 4, 0, -9, 4};
	static const int sorted[] = {9, 4, 4, 0, 0, 0, -2, -9};
	int many[31];
	const uint64_t places = conf.relay_site_connections, recipients = conf.standard.recipients,
	               messages = conf.standard.messages;
	int pair[2];
	size_t low = 0;

	conf.relay_site_connections = 1;
	conf.standard.recipients = conf.standard.messages = 1000;
	for (size_t i = 1; i < 31; i++)
		many[i] = 1;
	many[0] = 0;
	for (unsigned round = 0; round < 2; round++) {
		queue_down();
		run(50);
		connect_all(false);
		on_start(NULL);
		queue_reset_quota(admin_link, "alice@example.org", "standard", "noc", "",
		                  on_quota_seen, NULL);
		run(5000);
		queue_set_quota(admin_link, "alice@example.org", "standard", true, 0, "noc", "",
		                on_quota_seen, NULL);
		run(5000);
		if (round == 0)
			send_prior(mixed, 8);
		else
			send_prior(many, 31);
		came_count = 0;
		fate = QUEUE_DELIVERED;
		hold = false;
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ==
		    -1)
			abort();
		queue_worker_attach(worker, pair[0]);
		on_link(NULL, SERVICE_RELAY, QUEUE_FRESH, pair[1]);
		for (int i = 0; i < 300 && came_count < (round ? 31u : 8u); i++)
			run(100);
		for (int i = 0; i < 20 && look()->in_flight > 0; i++)
			;
		if (round == 0)
			ok(came_count == 8 && memcmp(came, sorted, sizeof(sorted)) == 0,
			   "what waits goes by priority, and else in its order");
	}
	for (size_t i = 0; i < came_count; i++)
		if (came[i] == 0)
			low = i;
	ok(came_count == 31 && low == 20 - 1,
	   "what has a lower one is overtaken by so many and no more");
	printf("# at place %zu of %zu\n", low, came_count);
	conf.relay_site_connections = places;
	conf.standard.recipients = recipients;
	conf.standard.messages = messages;
}

static void
on_late_stored(void *arg, enum store_result result)
{
	*(bool *)arg = result == STORE_OK;
}

/* What became visible while no relay was there, and is due before what is held. */
static void
test_late(void)
{
	const struct envelope_recipient to = {.address = {"late", "late.example"}};
	struct store_message_new message = {.account = "",
	                                    .generated = true,
	                                    .recipients = &to,
	                                    .recipient_count = 1,
	                                    .created = clock_wall() - 3600000,
	                                    .due = clock_wall() - 3600000,
	                                    .body = "x",
	                                    .body_len = 1};
	bool is_stored = false;
	int pair[2];

	send_to("held.example", 2);
	act(QUEUE_HOLD, "other.example", 0, 1);
	act(QUEUE_RELEASE, "other.example", 0, 1);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	queue_worker_attach(worker, pair[0]);
	run(50);
	queue_id_make(&message.id, clock_wall());
	store_enqueue(program.store, &message, on_late_stored, &is_stored);
	for (int i = 0; i < 300 && !is_stored; i++)
		run(50);
	schedule_new_message(program.schedule, QUEUE_FRESH, &message.id, 0);
	const unsigned so_far = jobs;
	on_link(NULL, SERVICE_RELAY, QUEUE_FRESH, pair[1]);
	for (int i = 0; i < 10 && jobs == so_far; i++)
		look();
	look();
	ok(jobs == so_far + 1,
	   "a relay that comes back gets what came meanwhile, whenever it was due");
}

/* What an earlier configuration paced waits for its time under one that knows no such waits. */
static void
test_shorter(void)
{
	static msec_t schedule[] = {1000};
	struct conf shorter;
	int pair[2];

	fate = QUEUE_DELIVERED;
	queue_reset_quota(admin_link, "alice@example.org", "standard", "noc", "test", on_quota_seen,
	                  NULL);
	run(5000);
	conf.standard.burst_messages = (struct conf_burst){1, 1, 80000};
	ok(send_one() == QUEUE_OK && send_one() == QUEUE_OK && quota_seen.start != 0, "paced");
	conf.standard.burst_messages = (struct conf_burst){0};
	look();
	const unsigned so_far = jobs;
	shorter = conf;
	shorter.retry_schedule = (struct conf_durations){schedule, 1};
	shorter.pace_horizon = 1000;
	on_reloaded(NULL, &shorter);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	queue_worker_attach(worker, pair[0]);
	run(50);
	on_link(NULL, SERVICE_RELAY, QUEUE_FRESH, pair[1]);
	look();
	look();
	ok(jobs == so_far, "shorter waits by a reload: what is paced is not sent early");
	on_reloaded(NULL, &conf);
}

/* More places for a site, while it has as many under way as it had. */
static void
test_places(void)
{
	hold = true;
	unsigned so_far = jobs;
	for (unsigned i = 0; i < 4; i++)
		send_to("places.example", 1);
	look();
	ok(jobs == so_far + 2, "a site gets as many jobs at a time as it has places");
	so_far = jobs;
	conf.relay_site_connections = 4;
	on_reloaded(NULL, &conf);
	look();
	ok(jobs == so_far + 2, "and more as soon as it may have more");
	hold = false;
	queue_down();
	run(50);
	connect_all(true);
	on_start(NULL);
	look();
}

/* A write that is under way when the disk begins to refuse may be one that ends a commit. */
static bool
is_at_rest(const struct store *store)
{
	bool rest = store->pending == 0;

	for (unsigned i = 0; i < QUEUE_LANES; i++)
		rest = rest && !store->dirty[i] && !store->sweeping[i];
	return rest;
}

static void
test_orders(void)
{
	struct store_counts before, after;
	const struct rlimit none = {4096, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};

	fate = QUEUE_DELIVERED;
	act(QUEUE_HOLD, "held.example", 0, 1);
	test_late();
	test_priority();
	const uint64_t removed = look()->removed;
	act(QUEUE_REMOVE, "held.example", 0, 2);
	ok(counted == 2 && counts_seen[0].recipients + counts_seen[1].recipients == 2 &&
	       counts_seen[0].busy + counts_seen[1].busy == 2 && look()->removed == removed + 2,
	   "what one removal has taken is not the next one's");

	const msec_t over = clock_wall() + 4000;
	act(QUEUE_HOLD, "over.example", over, 1);
	while (!is_at_rest(program.store))
		run(10);
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &none);
	store_counts(program.store, &before);
	run(over > clock_wall() ? over - clock_wall() + 1500 : 1500);
	store_counts(program.store, &after);
	setrlimit(RLIMIT_FSIZE, &all);
	ok(after.commits > before.commits && after.commits - before.commits < 10,
	   "the end of a hold that the disk refuses is tried again, but not without pause");
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-queue-XXXXXX";
	msec_t schedule[] = {60000, 120000};
	if (!mkdtemp(dir) || chdir(dir) == -1)
		return 1;
	log_open("queue-test");
	loop = loop_new();
	alarm_timer = loop_timer_new(loop, on_alarm, NULL);
	LIST_INIT(&program.larges);
	LIST_INIT(&program.accepts);
	TAILQ_INIT(&program.early);
	conf.standard.recipients = 5;
	conf.standard.messages = 20;
	conf.standard.weight = 1;
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		conf.lane_relays[i] = 1;
	conf.pace_horizon = 90000;
	conf.map_size = 64u << 20;
	conf.message_size = 1u << 20;
	conf.retry_schedule = (struct conf_durations){schedule, 2};
	conf.retry_fallback = 4 * 3600 * 1000;
	conf.retry_expire = 4 * 24 * 3600 * 1000LL;
	conf.history_keep = 24 * 3600 * 1000LL;
	conf.relay_site_connections = 2;
	msa_link = ipc_link_new(loop, "queue", &msa_events, NULL);
	admin_link = ipc_link_new(loop, "queue", &admin_events, NULL);
	client = queue_client_new(loop, msa_link);
	worker = queue_worker_new(loop, QUEUE_FRESH, 10, &worker_events, NULL);

	struct queue_submission *s = reserved(1);
	ok(verdict == QUEUE_UNAVAILABLE, "a queue that is down answers unavailable");
	queue_submission_free(s);

	on_config(NULL, &conf);
	connect_all(false);
	ok(on_start(NULL) == 0, "store opens");
	s = reserved(5);
	ok(verdict == QUEUE_OK && quota_seen.reserved == 5, "five reservations fit");
	queue_submission_reserve(s, on_verdict, NULL);
	run(5000);
	ok(verdict == QUEUE_OVER && quota_seen.limit == 5 && quota_seen.reset > 0,
	   "the sixth is over");
	queue_submission_free(s);
	s = reserved(2);
	ok(verdict == QUEUE_OK, "the end of a submission releases");
	commit(s, 1000, "example.net", 2);
	ok(run(5000) && verdict == QUEUE_OK, "small message is committed");
	queue_submission_free(s);
	ok(look()->messages[QUEUE_FRESH] == 1 && status.accepted == 2, "status counts it");

	s = reserved(1);
	commit(s, 300000, "example.com", 1);
	ok(run(5000) && verdict == QUEUE_OK, "large message is committed");
	queue_submission_free(s);
	ok(look()->messages[QUEUE_FRESH] == 2, "both are queued");

	/* The queue goes away with a commit sent and unanswered. */
	s = reserved(1);
	commit(s, 10, "example.org", 1);
	queue_submission_free(s);
	s = queue_submission_new(client, "alice@example.org", "standard");
	queue_submission_free(s);
	queue_down();
	run(50);
	connect_all(false);
	ok(on_start(NULL) == 0, "store opens again");
	s = reserved(1);
	ok(verdict == QUEUE_OK && quota_seen.used >= 3, "charges survive the restart");
	commit(s, 10, "example.edu", 1);
	queue_down(); /* the frame was never read: nothing was committed */
	run(50);
	connect_all(false);
	on_start(NULL);
	ok(run(5000) && verdict == QUEUE_UNAVAILABLE,
	   "a lost commit is asked about and was not committed");
	queue_submission_free(s);

	/* Delivery. */
	fate = QUEUE_DELIVERED;
	int pair[2];
	uint64_t before = look()->recipients[QUEUE_FRESH];
	socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
	queue_worker_attach(worker, pair[0]);
	on_link(NULL, SERVICE_RELAY, QUEUE_FRESH, pair[1]);
	while (look()->recipients[QUEUE_FRESH] > 0 && jobs < 10)
		;
	ok(before == status.delivered && status.in_flight == 0 && jobs >= 2,
	   "what was queued is delivered");

	queue_set_quota(admin_link, "alice@example.org", "standard", false, 100, "noc", "test",
	                on_quota_seen, NULL);
	run(5000);
	ok(view_seen.overridden && view_seen.meters[QUEUE_RECIPIENTS].limit == 100 &&
	       view_seen.class_limit == 5,
	   "override set");

	fate = QUEUE_DEFERRED;
	s = reserved(1);
	ok(verdict == QUEUE_OK && quota_seen.limit == 100, "override is in force");
	commit(s, 100, "slow.example", 1);
	run(5000);
	struct queue_id id = last_id;
	queue_submission_free(s);
	for (unsigned i = 0; i < 50 && look()->messages[QUEUE_RETRY] == 0; i++)
		;
	while (status.messages[QUEUE_FRESH] > 0)
		look(); /* the second half of the move */
	ok(status.messages[QUEUE_RETRY] == 1 && status.messages[QUEUE_FRESH] == 0,
	   "a deferred message moves to retry");
	queue_ask_list(admin_link, &(struct queue_selector){0}, 0, NULL, on_listed, NULL);
	run(5000);
	ok(listed == 1, "list shows it");
	queue_ask_detail(admin_link, &id, on_detailed, NULL);
	run(5000);
	ok(detail_count == 1 && strcmp(detail_state, "queued") == 0, "detail shows it");

	/* A restart with one job past its final dot and one before it. */
	hold = true;
	fate = QUEUE_DELIVERED;
	s = reserved(1);
	commit(s, 70000, "final.example", 1);
	run(5000);
	queue_submission_free(s);
	for (int i = 0; i < 20 && (!held || strcmp(held->domain, "final.example") != 0); i++)
		run(100);
	ok(held && body_seen == 70000, "job with its body arrives");
	ok(asked_seen, "and with what was asked for");
	struct queue_job *past = held;
	queue_job_final(past);
	s = reserved(1);
	commit(s, 10, "before.example", 1);
	run(5000);
	queue_submission_free(s);
	for (int i = 0; i < 20 && held == past; i++)
		run(100);
	unsigned so_far = jobs;
	queue_down();
	run(50);
	ok(abandoned == 1, "the job before its final dot is abandoned");
	connect_all(true);
	on_start(NULL);
	hold = false;
	look();
	look();
	ok(jobs == so_far + 1 && status.in_flight == 1, "only that one is handed out again");
	finish(past);
	look();
	look();
	ok(status.in_flight == 0 && status.messages[QUEUE_FRESH] == 0,
	   "the other one's outcome is taken");

	fate = QUEUE_FAILED;
	s = reserved(2);
	commit(s, 10, "bounce.example", 2);
	run(5000);
	id = last_id;
	queue_submission_free(s);
	look();
	look();
	for (unsigned i = 0; i < 50 && status.bounced < 3; i++)
		look();
	ok(status.bounced == 3 && status.generated == 1,
	   "a refusal bounces, and so does the notification about it");
	queue_ask_audit(admin_link, on_audited, NULL);
	run(5000);
	ok(audit_seen.conserved && audit_seen.queued == 1, "conserved");
	test_untaken();
	test_carried_nonsense();
	test_rates();
	test_shorter();
	test_places();
	test_orders();
	queue_down();
	queue_client_free(client);
	queue_worker_free(worker);
	char remove[sizeof(dir) + 16];
	snprintf(remove, sizeof(remove), "rm -rf %s", dir);
	if (chdir("/") == -1 || system(remove) != 0)
		printf("# %s is left behind\n", dir);
	return tap_end();
}
