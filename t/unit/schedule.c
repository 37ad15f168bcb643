/* The schedule over a real store, with relays that keep what they are handed until the test
 * answers: who gets the places while many sites are silent, whose mail comes first, and which relay
 * of several gets what. */
#include "queue/schedule.h"

#include <arpa/inet.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "auth/proto.h"
#include "core/log.h"
#include "core/service.h"
#include "queue/worker.h"
#include "t/unit/spool.h"
#include "t/unit/tap.h"

#define PLACES 20
#define MANY   1500 /* jobs, of which not all fit one frame */

static msec_t steps[] = {60000};
static struct conf conf = {.standard = {.weight = 1},
                           .retry_schedule = {steps, 1},
                           .retry_fallback = 4 * 3600 * 1000,
                           .retry_expire = 4 * 24 * 3600 * 1000LL,
                           .pace_horizon = 3600 * 1000,
                           .relay_site_connections = 20,
                           .lane_relays = {1, 1, 1},
                           .retry_connections = 100,
                           .fallback_connections = 100};
static unsigned places = PLACES;
static const char *class = "standard"; /* that mail is accepted with */
static bool nobodys;                   /* it has no account */
static struct envelope envelope;
static struct queue_id last_id; /* of it */
static struct ipc_hub *hub;
static struct holds *holds;
static struct quota *quota;
static struct schedule *schedule;
static struct queue_worker *workers[2];
static struct loop_timer *look;

static struct queue_job *held[2000];
static unsigned held_by[2000]; /* which worker */
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
static void
on_attach(void *arg, struct ipc_from peer)
{
	(void)arg;
	schedule_attached(schedule, peer);
}
static const struct ipc_hub_events hub_events = {
    .on_frame = on_frame, .on_attach = on_attach, .on_gone = on_gone};

static void
on_job(void *arg, struct queue_job *job)
{
	held_by[held_count] = *(const unsigned *)arg;
	held[held_count++] = job;
}

static void
forget(struct queue_job *job)
{
	unsigned i = 0;

	while (held[i] != job)
		i++;
	held[i] = held[--held_count];
	held_by[i] = held_by[held_count];
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
open_schedule(void)
{
	hub = ipc_hub_new(loop, &hub_events, NULL);
	holds = holds_new(loop, store, on_holds, NULL);
	quota = quota_new(loop, store, &conf);
	schedule = schedule_new(loop, store, hub, holds, quota, &conf);
}

static void
close_schedule(void)
{
	schedule_stop(schedule);
	quota_stop(quota);
	store_close(store);
	store = NULL;
	schedule_free(schedule);
	holds_free(holds);
	quota_free(quota);
	ipc_hub_free(hub);
}

static void
begin(const char *name, enum queue_lane lane)
{
	static const unsigned numbers[] = {0, 1};

	new_spool(name);
	open_schedule();
	for (unsigned i = 0; i < conf.lane_relays[lane]; i++)
		workers[i] = queue_worker_new(loop, lane, places, &worker_events,
		                              (void *)(uintptr_t)&numbers[i]);
}

/* What the worker attaches to, which is its relay's end; it is there from now on. */
static int
relay_comes(enum queue_lane lane, unsigned number)
{
	unsigned index = number;
	int pair[2];

	for (unsigned i = 0; i < lane; i++)
		index += (unsigned)conf.lane_relays[i];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	ipc_hub_attach(hub, SERVICE_RELAY, index, pair[1]);
	return pair[0];
}

static void
connect_relay(enum queue_lane lane)
{
	for (unsigned i = 0; i < conf.lane_relays[lane]; i++)
		queue_worker_attach(workers[i], relay_comes(lane, i));
}

static void
end(void)
{
	for (unsigned i = 0; i < 2; i++) {
		queue_worker_free(workers[i]);
		workers[i] = NULL;
	}
	held_count = 0;
	close_schedule();
	end_spool();
}

/* A message to a domain, or two, of an account of its own, which is due then, in the lane. */
static void
put_two(const char *to, const char *other, enum queue_lane lane, msec_t due)
{
	struct envelope_recipient recipients[] = {{.address = address("bob", to)},
	                                          {.address = address("bob", other)}};
	struct store_message_new message = {
	    .account = nobodys ? "" : to,
	    .class = class,
	    .from = address("alice", "example.net"),
	    .recipients = recipients,
	    .recipient_count = *other ? 2 : 1,
	    .envelope = envelope,
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
	last_id = message.id;
	waiting++;
	store_enqueue(store, &message, on_done, NULL);
	if (lane != QUEUE_FRESH) {
		waiting++;
		store_move(store, &message.id, QUEUE_FRESH, lane, due, on_done, NULL);
	}
}

static void
put(const char *to, enum queue_lane lane, msec_t due)
{
	put_two(to, "", lane, due);
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

/* What is on its way comes. */
static void
turn(void)
{
	looks = 0;
	wanted = UINT_MAX;
	loop_timer_arm(look, 10);
	loop_run(loop);
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
	for (int n = 0; n < 2000 && questions < 2; n++)
		turn();
	served(2, ""); /* those that were next before auth said it */
	const unsigned lights = served(20, "a.light");
	ok(questions == 2 && lights >= 15 && lights <= 17,
	   "their classes are exchanged: what waits already goes by what they are now");
	heavy.weight = 1;
	schedule_reload(schedule, &conf);
	const unsigned even = served(10, "a.light");
	ok(even >= 4 && even <= 6, "and by what the configuration says now");
	ipc_hub_free(auth);
	end();
	conf.classes = (struct conf_classes){0};
	places = PLACES;
}

static unsigned
held_of(unsigned worker)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < held_count; i++)
		sum += held_by[i] == worker;
	return sum;
}

static struct queue_job *
job_for(const char *domain)
{
	unsigned i = 0;

	while (i < held_count && strcmp(held[i]->domain, domain) != 0)
		i++;
	return i < held_count ? held[i] : NULL;
}

/* Two relays for a lane. */
static void
test_relays(void)
{
	char domain[64];

	conf.lane_relays[QUEUE_FRESH] = 2;
	places = 10;
	begin("relays", QUEUE_FRESH);
	for (int i = 0; i < 30; i++) {
		snprintf(domain, sizeof(domain), "a%d.example", i);
		put(domain, QUEUE_FRESH, clock_wall() - 1000);
	}
	wait_all();
	connect_relay(QUEUE_FRESH);
	wait_for(".example", 20);
	run_audit();
	ok(held_of(0) == 10 && held_of(1) == 10, "each has as many as it has places");
	for (int i = 0; i < 3; i++) {
		unsigned k = 0;

		while (held_by[k] != 1)
			k++;
		answer(held[k]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
		wait_for(".example", 20);
	}
	ok(held_of(0) == 10 && held_of(1) == 10, "what is free goes to who has it");
	queue_worker_attach(workers[0], relay_comes(QUEUE_FRESH, 0));
	wait_for(".example", 20);
	run_audit();
	ok(held_of(0) == 10 && held_of(1) == 10 && schedule_in_flight(schedule) == 20,
	   "one that comes anew gets what it had, and the other keeps its own");
	queue_worker_stop(workers[1], NULL);
	while (held_of(1) > 0) {
		unsigned k = 0;

		while (held_by[k] != 1)
			k++;
		answer(held[k]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	}
	run_audit();
	run_audit();
	ok(held_of(0) == 10 && held_of(1) == 0, "one that stops gets nothing more");
	end();

	conf.lane_relays[QUEUE_FRESH] = 1;
	conf.lane_relays[QUEUE_RETRY] = 2;
	conf.retry_connections = 12;
	begin("budget", QUEUE_RETRY);
	meet_good(QUEUE_RETRY);
	for (int i = 0; i < 30; i++) {
		snprintf(domain, sizeof(domain), "a%d.example", i);
		put(domain, QUEUE_RETRY, clock_wall() - 1000);
	}
	for (int i = 0; i < 10; i++)
		put("a.good", QUEUE_RETRY, clock_wall() - 2000);
	wait_all();
	connect_relay(QUEUE_RETRY);
	wait_for("", 8);
	run_audit();
	run_audit();
	ok(held_of(0) == 4 && held_of(1) == 4, "the lane's budgets are of all its relays together");
	end();
	conf.lane_relays[QUEUE_RETRY] = 1;
	conf.retry_connections = 100;
	places = PLACES;
}

/* Each of two relays is past the final dot with half of a message when the queue comes anew. */
static void
test_carried(void)
{
	conf.lane_relays[QUEUE_FRESH] = 2;
	begin("carried", QUEUE_FRESH);
	put_two("a.example", "b.example", QUEUE_FRESH, clock_wall() - 2000);
	wait_all();
	connect_relay(QUEUE_FRESH);
	wait_for(".example", 2);
	ok(held_of(0) == 1 && held_of(1) == 1, "each relay has half of a message");
	queue_job_final(held[0]);
	queue_job_final(held[1]);
	put("c.example", QUEUE_FRESH, clock_wall() - 1000);
	wait_all();
	close_schedule();
	reopen();
	open_schedule();
	const int late = relay_comes(QUEUE_FRESH, 1);

	queue_worker_attach(workers[0], relay_comes(QUEUE_FRESH, 0));
	run_audit();
	run_audit();
	ok(held_count == 2 && schedule_in_flight(schedule) == 1,
	   "one has said what it has: nothing begins before the other has");
	for (unsigned i = 0; i < held_count; i++) {
		if (held_by[i] == 0) {
			answer(held[i]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
			break;
		}
	}
	for (int n = 0; n < 2000 && schedule_in_flight(schedule) > 0; n++)
		turn();
	ok(held_count == 1 && schedule_in_flight(schedule) == 0,
	   "but its outcome is taken, and the rest of the message waits");
	queue_worker_attach(workers[1], late);
	wait_for("c.example", 1);
	run_audit();
	ok(held_count == 2 && job_for("c.example") && schedule_in_flight(schedule) == 2,
	   "then it begins, and hands out nothing twice");
	answer(held[0]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	answer(held[0]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	run_audit();
	for (int n = 0; n < 2000 && audit.queued > 0; n++) {
		turn();
		run_audit();
	}
	ok(audit.delivered == 3 && audit.queued == 0 && audit.conserved, "each is delivered once");

	/* One is gone for good: nobody waits for it. */
	close_schedule();
	reopen();
	open_schedule();
	const int dead = relay_comes(QUEUE_FRESH, 1);

	put("d.example", QUEUE_FRESH, clock_wall() - 1000);
	wait_all();
	queue_worker_attach(workers[0], relay_comes(QUEUE_FRESH, 0));
	run_audit();
	const bool waits = held_count == 0;
	close(dead);
	ok(waits && wait_for("d.example", 1),
	   "nobody waits for one that dies before it says anything");
	end();
	conf.lane_relays[QUEUE_FRESH] = 1;
}

/* A relay is past the final dot with more than one frame can name. */
static void
test_many_carried(void)
{
	char domain[250];

	places = MANY;
	begin("many", QUEUE_FRESH);
	memset(domain, 'a', sizeof(domain) - 1);
	domain[sizeof(domain) - 1] = '\0';
	for (int i = 0; i < MANY; i++) {
		domain[snprintf(domain, sizeof(domain), "d%d", i)] = '.';
		put(domain, QUEUE_FRESH, clock_wall() - 2000);
	}
	wait_all();
	connect_relay(QUEUE_FRESH);
	wait_for("", MANY);
	for (unsigned i = 0; i < held_count; i++)
		queue_job_final(held[i]);
	close_schedule();
	reopen();
	open_schedule();
	connect_relay(QUEUE_FRESH);
	for (int n = 0; n < 2000 && schedule_in_flight(schedule) < MANY; n++)
		turn();
	ok(held_count == MANY && schedule_in_flight(schedule) == MANY,
	   "the next queue hears of each, however many they are");
	while (held_count > 0)
		answer(held[0]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	run_audit();
	for (int n = 0; n < 2000 && audit.queued > 0; n++) {
		turn();
		run_audit();
	}
	ok(audit.delivered == MANY && audit.queued == 0 && held_count == 0,
	   "and each was delivered once");
	end();
	places = PLACES;
}

/* What was written under a clock that has been set back since, and silent sites first. */
static void
test_set_back(void)
{
	const msec_t due = clock_wall() + 30 * 24 * 3600 * 1000LL;
	char domain[64];

	begin("set-back", QUEUE_RETRY);
	meet_good(QUEUE_RETRY);
	for (int i = 0; i < 3000; i++) {
		snprintf(domain, sizeof(domain), "a%d.silent", i);
		put(domain, QUEUE_RETRY, due);
	}
	for (int i = 0; i < 300; i++)
		put("a.later", QUEUE_RETRY, clock_wall() + 3000 * 1000 + i);
	wait_all();
	put("a.good", QUEUE_RETRY, due + 1);
	wait_all();
	connect_relay(QUEUE_RETRY); /* what was put there is looked for */
	ok(wait_for("a.good", 1), "what is due in an impossible future hides nothing behind it");
	end();
}

static void
keep_block(const char *site, msec_t written, msec_t until)
{
	char name[64];
	struct buf value;

	buf_init(&value);
	wire_put_u8(&value, 2);
	wire_put_u64(&value, (uint64_t)written);
	wire_put_u64(&value, (uint64_t)until);
	snprintf(name, sizeof(name), "block 192.0.2.1 %s", site);
	waiting++;
	store_sites_put(store, &(struct store_site_row){name, value.data, value.len}, 1, on_done,
	                NULL);
	wait_all();
	buf_clear(&value);
}

/* An address is blocked at one site, and was at another under a clock that was a year ahead. */
static void
test_blocked(void)
{
	struct conf_address source = {.len = sizeof(struct sockaddr_in)};
	struct conf_pool pool = {.name = (char *)"all", .sources = {&source, 1}};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&source.addr;
	const msec_t now = clock_wall(), year = 365 * 24 * 3600 * 1000LL;

	v4->sin_family = AF_INET;
	v4->sin_addr.s_addr = htonl(0xc0000201);
	conf.egress = (struct conf_pools){&pool, 1};
	strcpy(conf.standard.pool, "all");
	nobodys = true;
	begin("blocked", QUEUE_FRESH);
	keep_block("a.example", now, now + 3600 * 1000);
	keep_block("b.example", now + year, now + year + 3600 * 1000);
	close_schedule();
	reopen();
	open_schedule();
	put("a.example", QUEUE_FRESH, now - 2000);
	put("b.example", QUEUE_FRESH, now - 1000);
	wait_all();
	connect_relay(QUEUE_FRESH);
	ok(wait_for("b.example", 1) && under_way("a.example") == 0,
	   "a block outlives a restart, but not a year that was none");
	end();
	nobodys = false;
	conf.standard.pool[0] = '\0';
	conf.egress = (struct conf_pools){0};
}

/* More than the window holds for sites that answer, behind silent ones. */
static void
test_behind(void)
{
	const msec_t due = clock_wall() - 10000;
	char domain[64];

	begin("behind", QUEUE_FALLBACK);
	for (int i = 0; i < 300; i++) {
		snprintf(domain, sizeof(domain), "g%d.good", i);
		put(domain, QUEUE_FALLBACK, due);
	}
	put("a.front", QUEUE_FALLBACK, due);
	wait_all();
	connect_relay(QUEUE_FALLBACK);
	for (int i = 0; i < 301 && wait_for("", 1); i++)
		answer(held[0]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
	for (int i = 0; i < 600; i++)
		put("a.front", QUEUE_FALLBACK, due - 1000);
	for (int i = 0; i < 12000; i++) {
		snprintf(domain, sizeof(domain), "a%d.silent", i);
		put(domain, QUEUE_FALLBACK, due);
	}
	wait_all();
	for (int i = 0; i < 1500; i++) {
		snprintf(domain, sizeof(domain), "g%d.good", i % 300);
		put(domain, QUEUE_FALLBACK, due + 1);
	}
	wait_all();
	const msec_t begun = clock_mono();
	msec_t first = 0;
	unsigned good = 0, front = 0;

	connect_relay(QUEUE_FALLBACK);
	for (int n = 0; n < 6000 && good < 1500; n++) {
		for (unsigned i = 0; i < held_count; i++) {
			if (strstr(held[i]->domain, ".silent"))
				continue;
			if (strstr(held[i]->domain, ".front"))
				front++;
			else if (good++ == 0)
				first = clock_mono();
			answer(held[i--]->domain, QUEUE_CONTACT_OK, QUEUE_DELIVERED);
		}
		turn();
	}
	const msec_t rest = clock_mono() - first;

	printf("# the first after %lld ms, all %lld ms later\n", (long long)(first - begun),
	       (long long)rest);
	printf("# %u of 600 from before them\n", front);
	ok(good == 1500 && rest < 3 * (first - begun),
	   "what is behind silent sites' mail is reached once, not anew for each window of it");
	ok(front > 400, "and what was left before it has its share meanwhile");
	end();
}

/* A job whose pool is blocked gives its place to the next. */
static void
test_given_up(void)
{
	struct conf_class heavy = {.name = (char *)"heavy", .weight = 1};
	struct conf_address source = {.len = sizeof(struct sockaddr_in)};
	struct conf_pool pool = {.name = (char *)"all", .sources = {&source, 1}};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&source.addr;
	const msec_t now = clock_wall();
	int pair[2];

	v4->sin_family = AF_INET;
	v4->sin_addr.s_addr = htonl(0xc0000201);
	conf.egress = (struct conf_pools){&pool, 1};
	strcpy(conf.standard.pool, "all");
	strcpy(heavy.pool, "all");
	conf.classes = (struct conf_classes){&heavy, 1};
	places = 1;
	begin("given-up", QUEUE_FRESH);
	keep_block("a.example", now, now + 3600 * 1000);
	close_schedule();
	reopen();
	open_schedule();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
		abort();
	auth = ipc_hub_new(loop, &auth_events, NULL);
	schedule_attach_auth(schedule, pair[0]);
	ipc_hub_attach(auth, SERVICE_QUEUE, 0, pair[1]);
	put_two("a.example", "b.example", QUEUE_FRESH, now - 2000);
	wait_all();
	connect_relay(QUEUE_FRESH);
	ok(wait_for("b.example", 1), "what no address may send leaves its place to others");
	answer("b.example", QUEUE_CONTACT_OK, QUEUE_DELIVERED);

	/* An account of a class that is not configured any more. */
	conf.classes = (struct conf_classes){0};
	schedule_reload(schedule, &conf);
	put("c.example", QUEUE_FRESH, now - 3000);
	put("a.heavy", QUEUE_FRESH, now - 1000);
	wait_all();
	connect_relay(QUEUE_FRESH);
	ok(wait_for("a.heavy", 1) && !job_for("c.example"),
	   "an account whose class is lost does not send from everybody's address");
	ipc_hub_free(auth);
	end();
	places = PLACES;
	conf.classes = (struct conf_classes){0};
	conf.standard.pool[0] = '\0';
	conf.egress = (struct conf_pools){0};
}

/* What needs no relay ends while nothing can be written. */
static void
test_not_written(void)
{
	struct rlimit full, room;
	char rule[QUEUE_RULE_SIZE];
	struct store_message *stored;
	bool is_pending = false;

	begin("not-written", QUEUE_FRESH);
	envelope.by = BY_RETURN;
	envelope.by_deadline = clock_wall() - 1000;
	put("a.example", QUEUE_FRESH, clock_wall() - 2000);
	envelope = (struct envelope){.by = BY_NONE};
	wait_all();
	stored = store_load_message(store, QUEUE_FRESH, &last_id);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &room);
	full = (struct rlimit){.rlim_cur = 8192, .rlim_max = room.rlim_max};
	setrlimit(RLIMIT_FSIZE, &full);
	connect_relay(QUEUE_FRESH);
	for (int n = 0; n < 2000 && !is_pending; n++) {
		turn();
		is_pending = schedule_is_active(schedule, &last_id) &&
		             schedule_state(schedule, stored, rule) == QUEUE_STATE_QUEUED;
	}
	setrlimit(RLIMIT_FSIZE, &room);
	for (int n = 0; n < 2000 && audit.bounced == 0; n++) {
		turn();
		run_audit();
	}
	ok(is_pending && audit.bounced == 1, "what could not be written is, when there is room");
	store_message_free(stored);
	end();
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
	test_relays();
	test_carried();
	test_many_carried();
	test_set_back();
	test_blocked();
	test_not_written();
	test_behind();
	test_given_up();
	loop_timer_free(look);
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") < 0 || system(command) != 0)
		return 1;
	return tap_end();
}
