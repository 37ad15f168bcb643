/* The schedule over a real store, with relays that keep what they are handed until the test
 * answers: who gets the places while many sites are silent, and whose mail comes first. */
#include "queue/schedule.h"

#include <limits.h>
#include <sys/socket.h>

#include "auth/proto.h"
#include "core/log.h"
#include "core/service.h"
#include "queue/worker.h"
#include "t/unit/spool.h"
#include "t/unit/tap.h"

#define PLACES 20

static msec_t steps[] = {60000};
static struct conf conf = {.standard = {.weight = 1},
                           .retry_schedule = {steps, 1},
                           .retry_fallback = 4 * 3600 * 1000,
                           .retry_expire = 4 * 24 * 3600 * 1000LL,
                           .pace_horizon = 3600 * 1000,
                           .relay_site_connections = 20,
                           .retry_connections = 100,
                           .fallback_connections = 100};
static unsigned places = PLACES;
static const char *class = "standard"; /* that mail is accepted with */
static struct ipc_hub *hub;
static struct holds *holds;
static struct quota *quota;
static struct schedule *schedule;
static struct queue_worker *worker;
static struct loop_timer *look;

static struct queue_job *held[100];
static unsigned held_count;

static void
on_frame(void *arg, struct ipc_from from, struct ipc_frame *frame)
{
	(void)arg;
	schedule_frame(schedule, from, frame);
}
static void
on_gone(void *arg, struct ipc_from peer)
{
	(void)arg;
	schedule_gone(schedule, peer);
}
static const struct ipc_hub_events hub_events = {.on_frame = on_frame, .on_gone = on_gone};

static void
on_job(void *arg, struct queue_job *job)
{
	(void)arg;
	held[held_count++] = job;
}

static void
forget(struct queue_job *job)
{
	unsigned i = 0;

	while (held[i] != job)
		i++;
	held[i] = held[--held_count];
}

static void
on_abandon(void *arg, struct queue_job *job)
{
	(void)arg;
	forget(job);
}
static const struct queue_worker_events worker_events = {on_job, on_abandon};

static void
on_holds(void *arg, bool ended)
{
	(void)arg;
	schedule_holds_changed(schedule, ended);
}

static void
begin(const char *name, enum queue_lane lane)
{
	new_spool(name);
	hub = ipc_hub_new(loop, &hub_events, NULL);
	holds = holds_new(loop, store, on_holds, NULL);
	quota = quota_new(loop, store, &conf);
	schedule = schedule_new(loop, store, hub, holds, quota, &conf);
	worker = queue_worker_new(loop, lane, places, &worker_events, NULL);
}

static void
connect_relay(enum queue_lane lane)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	queue_worker_attach(worker, pair[0]);
	ipc_hub_attach(hub, SERVICE_RELAY, lane, pair[1]);
}

static void
end(void)
{
	schedule_stop(schedule);
	quota_stop(quota);
	queue_worker_free(worker);
	held_count = 0;
	store_close(store);
	store = NULL;
	schedule_free(schedule);
	holds_free(holds);
	quota_free(quota);
	ipc_hub_free(hub);
	end_spool();
}

/* A message to that domain, of an account of its own, which is due then, in the lane. */
static void
put(const char *to, enum queue_lane lane, msec_t due)
{
	struct envelope_recipient recipient = {.address = address("bob", to)};
	struct store_message_new message = {
	    .account = to,
	    .class = class,
	    .from = address("alice", "example.net"),
	    .recipients = &recipient,
	    .recipient_count = 1,
	    .created = clock_wall(),
	    .due = due,
	    .client_ip = "192.0.2.1",
	    .ehlo = "pc",
	    .protocol = "ESMTPSA",
	    .message_id = "",
	    .prefix = "",
	    .body = "x\r\n",
	    .body_len = 3,
	};

	queue_id_make(&message.id, clock_wall());
	waiting++;
	store_enqueue(store, &message, on_done, NULL);
	if (lane != QUEUE_FRESH) {
		waiting++;
		store_move(store, &message.id, QUEUE_FRESH, lane, due, on_done, NULL);
	}
}

/* Of the jobs at relays, those for domains that end so. */
static unsigned
under_way(const char *suffix)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < held_count; i++) {
		const char *domain = held[i]->domain;

		sum += strlen(domain) >= strlen(suffix) &&
		       strcmp(domain + strlen(domain) - strlen(suffix), suffix) == 0;
	}
	return sum;
}

static const char *awaited;
static unsigned wanted, looks;

static void
on_look(void *arg)
{
	(void)arg;
	if (looks-- == 0 || under_way(awaited) >= wanted)
		loop_stop(loop);
	else
		loop_timer_arm(look, 10);
}

/* Until so many are; false: there never were. */
static bool
wait_for(const char *suffix, unsigned count)
{
	awaited = suffix;
	wanted = count;
	looks = 2000;
	loop_timer_arm(look, 0);
	loop_run(loop);
	loop_timer_cancel(look);
	return under_way(suffix) >= count;
}

static void
answer(const char *domain, enum queue_contact_end met, enum queue_fate fate)
{
	unsigned i = 0;

	while (i < held_count && strcmp(held[i]->domain, domain) != 0)
		i++;
	if (i == held_count)
		return;
	struct queue_job *job = held[i];
	const struct queue_contact contact = {.end = met, .connect = 1, .greeting = 1, .reply = 1};
	const struct queue_outcome outcome = {.index = job->recipients[0].index,
	                                      .fate = fate,
	                                      .reply = {.code = 250, .text = "words"}};

	forget(job);
	queue_job_done(job, &contact, &outcome, 1);
}

static void
meet_good(enum queue_lane lane)
{
	put("a.good", lane, clock_wall() - 20000);
	wait_all();
	connect_relay(lane);
	wait_for("a.good", 1);
	answer("a.good", QUEUE_CONTACT_OK, QUEUE_DELIVERED);
}

/* Nothing has met any of these sites but one. */
static void
test_silent(enum queue_lane lane, const char *name)
{
	const msec_t due = clock_wall() - 10000;
	char domain[64];
	bool one = true;

	begin(name, lane);
	meet_good(lane);
	for (int i = 0; i < 30; i++) {
		snprintf(domain, sizeof(domain), "a%d.silent", i);
		for (int n = 0; n < 4; n++)
			put(domain, lane, due + i);
	}
	for (int n = 0; n < 8; n++)
		put("a.good", lane, due + 1000);
	wait_all();
	connect_relay(lane);
	ok(wait_for(".good", 1),
	   "mail for a site that answers goes, though thirty silent ones were first");
	for (int i = 0; i < 30; i++) {
		snprintf(domain, sizeof(domain), "a%d.silent", i);
		one = one && under_way(domain) <= 1;
	}
	ok(one, "each of these has one place");
	ok(wait_for("a.good", 2), "the one that has answered has more");
	ok(under_way(".silent") == PLACES / 2, "all of the others have half of the places");
	end();
}

static void
test_failing(void)
{
	begin("failing", QUEUE_RETRY);
	meet_good(QUEUE_RETRY);
	for (int n = 0; n < 8; n++)
		put("a.good", QUEUE_RETRY, clock_wall() - 10000);
	wait_all();
	connect_relay(QUEUE_RETRY);
	ok(wait_for("a.good", 2), "two places of a site that has answered");
	answer("a.good", QUEUE_CONTACT_FAILED, QUEUE_DEFERRED);
	answer("a.good", QUEUE_CONTACT_FAILED, QUEUE_DEFERRED);
	wait_for("a.good", 1);
	run_audit();
	ok(under_way("a.good") == 1, "and one when it fails");
	answer("a.good", QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	wait_for("a.good", 1);
	answer("a.good", QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	answer("a.good", QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	wait_for("a.good", 1);
	run_audit();
	ok(under_way("a.good") == 1, "until it has answered often enough for more");
	end();
}

/* More silent sites than the window has room for, before one that answers. */
static void
test_window(void)
{
	const msec_t due = clock_wall() - 10000;
	char domain[64];

	begin("window", QUEUE_RETRY);
	meet_good(QUEUE_RETRY);
	for (int i = 0; i < 3000; i++) {
		snprintf(domain, sizeof(domain), "a%d.silent", i);
		put(domain, QUEUE_RETRY, due);
	}
	wait_all();
	put("a.good", QUEUE_RETRY, due + 1);
	wait_all();
	connect_relay(QUEUE_RETRY); /* what was put there is looked for */
	ok(wait_for("a.good", 1),
	   "mail for a site that answers is behind no window full of others");
	ok(under_way(".silent") == PLACES / 2, "while those have their share");
	end();
}

/* sekisho-auth: who was heavy is not, and the other way round. */
static unsigned questions;
static struct ipc_hub *auth;
static void
on_question(void *arg, struct ipc_from from, struct ipc_frame *frame)
{
	struct wire wire = wire_from(frame->data, frame->len);
	char account[64];
	struct buf reply;

	(void)arg;
	if (frame->type != AUTH_FRAME_CLASS_OF)
		abort();
	wire_str(&wire, account, sizeof(account));
	buf_init(&reply);
	wire_put_u8(&reply, 1);
	wire_put_str(&reply, strcmp(account, "a.heavy") == 0 ? "standard" : "heavy");
	ipc_hub_reply(auth, from, &reply, -1);
	buf_clear(&reply);
	questions++;
}
static const struct ipc_hub_events auth_events = {.on_frame = on_question};

/* Of so many that are delivered one after the other, those of the account. */
static unsigned
served(unsigned count, const char *account)
{
	unsigned sum = 0;

	while (count-- > 0 && wait_for("", 1)) {
		sum += strcmp(held[0]->domain, account) == 0;
		answer(held[0]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	}
	return sum;
}

static void
test_weight(void)
{
	static struct conf_class heavy = {.name = (char *)"heavy", .weight = 4};
	const msec_t due = clock_wall() - 10000;
	int pair[2];

	conf.classes = (struct conf_classes){&heavy, 1};
	places = 1;
	begin("weight", QUEUE_FRESH);
	for (int n = 0; n < 40; n++) {
		class = "heavy";
		put("a.heavy", QUEUE_FRESH, due);
		class = "standard";
		put("a.light", QUEUE_FRESH, due);
	}
	wait_all();
	connect_relay(QUEUE_FRESH);
	const unsigned heavies = served(20, "a.heavy");
	ok(heavies >= 15 && heavies <= 17, "of weight 4 beside 1: four of five");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	auth = ipc_hub_new(loop, &auth_events, NULL);
	schedule_attach_auth(schedule, pair[0]);
	ipc_hub_attach(auth, SERVICE_QUEUE, 0, pair[1]);
	put("a.heavy", QUEUE_FRESH, due);
	put("a.light", QUEUE_FRESH, due);
	wait_all();
	connect_relay(QUEUE_FRESH);
	for (int n = 0; n < 100 && questions < 2; n++)
		run_audit();
	served(2, ""); /* those that were next before auth said it */
	const unsigned lights = served(20, "a.light");
	ok(questions == 2 && lights >= 15 && lights <= 17,
	   "their classes are exchanged: what waits already goes by what they are now");
	heavy.weight = 1;
	schedule_reload(schedule, &conf);
	const unsigned even = served(10, "a.light");
	ok(even >= 4 && even <= 6, "and by what the configuration says now");
	schedule_stop(schedule);
	ipc_hub_free(auth);
	end();
	conf.classes = (struct conf_classes){0};
	places = PLACES;
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-schedule-XXXXXX", command[PATH_MAX];

	if (mkdtemp(dir) == NULL || chdir(dir) < 0)
		return 1;
	log_open("schedule-test");
	alarm(300);
	loop = loop_new();
	look = loop_timer_new(loop, on_look, NULL);
	test_silent(QUEUE_RETRY, "retry");
	test_silent(QUEUE_FALLBACK, "fallback");
	test_failing();
	test_window();
	test_weight();
	loop_timer_free(look);
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") < 0 || system(command) != 0)
		return 1;
	return tap_end();
}
