/* A store in the current directory, and what the tests of it have in common. */
#ifndef UNIT_SPOOL_H
#define UNIT_SPOOL_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "core/clock.h"
#include "core/loop.h"
#include "queue/store.h"
#include "queue/store_int.h"

static struct loop *loop;
static struct store *store;
static unsigned waiting;
static enum store_result last;
static unsigned results[8];

static inline void
on_done(void *arg, enum store_result result)
{
	(void)arg;
	last = result;
	results[result]++;
	if (--waiting == 0)
		loop_stop(loop);
}

static inline void
wait_all(void)
{
	if (waiting)
		loop_run(loop);
}

static uint64_t map_size = 256u << 20;

/* The store in the current directory, anew. */
static inline bool
reopen(void)
{
	struct store_opts opts = {
	    .map_size = map_size, .history_keep = 30LL * 86400 * 1000, .verify_bodies = true};
	char error[256] = "";

	store_close(store);
	store = store_open(loop, &opts, error, sizeof(error));
	if (store == NULL)
		printf("# %s\n", error);
	return store != NULL;
}

static struct queue_audit audit;
static bool audited;

static inline void
on_audit(void *arg, const struct queue_audit *result)
{
	(void)arg;
	audit = *result;
	audited = true;
	loop_stop(loop);
}

static inline void
wait_audit(void)
{
	while (!audited)
		loop_run(loop);
	audited = false;
}

static inline void
run_audit(void)
{
	store_audit(store, on_audit, NULL);
	wait_audit();
}

static struct queue_check checked; /* the last share of a check */
static struct queue_fault faults[200];
static size_t fault_count;
static bool check_over;

static inline void
on_check(void *arg, const struct queue_check *share)
{
	(void)arg;
	checked = *share;
	for (size_t i = 0; i < share->count && fault_count < 200; i++)
		faults[fault_count++] = share->faults[i];
	check_over = share->number == 0;
	if (check_over)
		loop_stop(loop);
	else if (!store_check(store, share->number, on_check, NULL))
		abort();
}

static inline void
wait_check(void)
{
	while (!check_over)
		loop_run(loop);
}

/* Faults in all that is stored: how many. */
static inline size_t
run_check(void)
{
	fault_count = 0;
	check_over = false;
	if (!store_check(store, 0, on_check, NULL))
		abort();
	wait_check();
	return fault_count;
}

/* Whether there is one of that kind at such a place. */
static inline bool
found(const char *where, const char *what)
{
	for (size_t i = 0; i < fault_count; i++)
		if (strstr(faults[i].where, where) && strstr(faults[i].what, what))
			return true;
	return false;
}

/* Notifications, of which none is delivered here, aside. */
static inline bool
conserved(uint64_t queued)
{
	run_audit();
	queued += audit.generated;
	if (!audit.conserved || audit.queued != queued)
		printf("# conserved %d accepted %llu delivered %llu bounced %llu queued %llu (want "
		       "%llu) orphans %llu\n",
		       audit.conserved, (unsigned long long)audit.accepted,
		       (unsigned long long)audit.delivered, (unsigned long long)audit.bounced,
		       (unsigned long long)audit.queued, (unsigned long long)queued,
		       (unsigned long long)audit.orphans);
	run_check();
	for (size_t i = 0; i < fault_count; i++)
		printf("# %s: %s\n", faults[i].where, faults[i].what);
	return audit.conserved && audit.queued == queued && fault_count == 0;
}

static inline struct address
address(const char *local, const char *domain)
{
	struct address a = {{0}, {0}};

	snprintf(a.local, sizeof(a.local), "%s", local);
	snprintf(a.domain, sizeof(a.domain), "%s", domain);
	return a;
}

static uint64_t spoil; /* what the checksum of large bodies is off by */

static inline uint64_t
large_sum(const struct queue_id *id)
{
	static char data[1 << 20];
	char path[64], name[QUEUE_ID_TEXT_SIZE];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "large/%s", queue_id_format(id, name));
	fd = open(path, O_RDONLY);
	n = read(fd, data, sizeof(data));
	close(fd);
	return XXH3_64bits(data, n > 0 ? (size_t)n : 0) ^ spoil;
}

static const struct envelope asked = {
    .body = BODY_BINARYMIME,
    .smtputf8 = true,
    .requiretls = true,
    .ret = RET_HDRS,
    .envid = "QQ+2B314159",
    .priority = -4,
    .hold_until = 1,
    .by = BY_RETURN,
    .by_trace = true,
    .by_deadline = -2,
};

static inline bool
same_envelope(const struct envelope *a, const struct envelope *b)
{
	return a->body == b->body && a->smtputf8 == b->smtputf8 && a->requiretls == b->requiretls &&
	       a->tls_optional == b->tls_optional && a->ret == b->ret &&
	       strcmp(a->envid, b->envid) == 0 && a->priority == b->priority &&
	       a->hold_until == b->hold_until && a->by == b->by && a->by_trace == b->by_trace &&
	       a->by_deadline == b->by_deadline;
}

static inline void
enqueue(struct queue_id *id, unsigned recipients, const void *body, size_t len,
        struct store_large *large, uint64_t large_size, store_on_done *done, void *arg)
{
	struct envelope_recipient list[4] = {{.notify = NOTIFY_DELAY, .orcpt = "rfc822;b+2Bb@x"}};
	const struct ledger_charge charge = {.at = clock_wall(), .units = {recipients, 1}};
	struct store_message_new message = {
	    .account = "alice@example.net",
	    .class = "business",
	    .from = address("alice", "example.net"),
	    .recipients = list,
	    .recipient_count = recipients,
	    .created = clock_wall(),
	    .due = clock_wall(),
	    .envelope = asked,
	    .client_ip = "192.0.2.1",
	    .client_port = 4711,
	    .ehlo = "pc",
	    .protocol = "ESMTPSA",
	    .message_id = "1@pc.example.net",
	    .prefix = "Received: x\r\n",
	    .prefix_len = 13,
	    .body = body,
	    .body_len = len,
	    .large_take = large,
	    .large_size = large_size,
	    .charge = &charge,
	};

	for (unsigned i = 0; i < recipients; i++)
		list[i].address = address(i ? "carol" : "bob", "example.org");
	if (large == NULL)
		queue_id_make(id, clock_wall());
	message.id = *id;
	if (large)
		message.large_checksum = large_sum(id);
	waiting++;
	store_enqueue(store, &message, done, arg);
}

static inline void
finish(enum queue_lane lane, const struct queue_id *id, unsigned attempt, uint16_t index,
       enum store_state state)
{
	struct store_outcome outcome = {.index = index, .state = state, .reply = "250 2.0.0 kept"};

	const struct store_batch batch = {.lane = lane,
	                                  .id = *id,
	                                  .attempt = attempt,
	                                  .outcomes = &outcome,
	                                  .count = 1,
	                                  .when = clock_wall(),
	                                  .due = clock_wall() + 60000};

	waiting++;
	store_finish(store, &batch, on_done, NULL);
}

/* In fresh, on the first attempt. */
static inline void
finish_one(const struct queue_id *id, const struct store_outcome *outcome, store_on_done *on)
{
	const struct store_batch batch = {.id = *id,
	                                  .attempt = 1,
	                                  .outcomes = outcome,
	                                  .count = 1,
	                                  .when = clock_wall(),
	                                  .due = 1};

	store_finish(store, &batch, on, NULL);
}

/* Into a directory of that name, with an empty store in it. */
static inline void
new_spool(const char *name)
{
	if (mkdir(name, 0700) < 0 || chdir(name) < 0 || !reopen())
		abort();
}

static inline void
end_spool(void)
{
	store_close(store);
	store = NULL;
	if (chdir("..") < 0)
		abort();
}

#endif
