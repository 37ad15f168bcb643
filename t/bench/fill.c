/* Fills the spool of a stopped service with mail that waits for dead domains, as if it had been
 * accepted and attempted long ago: the store's own writers put the store's own records.
 *
 * fill SPOOL MESSAGES DOMAINS LANE FROM SPAN
 * MESSAGES of 1 KB, one recipient each, from SENDERS accounts in turn to d0.dead, d1.dead and so
 * on, DOMAINS of them. LANE is retry or fallback. They are due evenly from FROM seconds from now
 * (negative: ago) over SPAN seconds. Prints the seconds it took. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "queue/store_int.h"

#define SENDERS  1000
#define BATCH    5000 /* messages in a commit */
#define HOUR     (60 * 60 * 1000)
#define ATTEMPTS 3

struct batch {
	struct op op;
	unsigned long first, count;
};

static struct loop *loop;
static struct store *store;
static struct lane *lane;
static unsigned long messages, domains;
static msec_t begun, from, span;
static char body[1000];
static const char prefix[] = "Received: from pc.example.test (pc.example.test [192.0.2.1])\r\n"
                             "\tby mail.example.test with ESMTPSA;\r\n"
                             "\tWed, 25 Nov 2026 10:00:00 +0000\r\n";

static void post(unsigned long first);

static void
put(struct lane_txn *txn, unsigned long number)
{
	const msec_t age = lane == &store->lanes[QUEUE_RETRY] ? HOUR : 6 * HOUR;
	char account[64], reply[] = "451 4.4.1 connection refused", empty[] = "";
	struct store_recipient recipient = {.attempts = ATTEMPTS,
	                                    .when = begun - HOUR,
	                                    .reply = reply,
	                                    .orcpt = empty,
	                                    .host = empty,
	                                    .lane = QUEUE_RETRY};
	struct store_message message = {
	    .generation = 1,
	    .account = account,
	    .created = begun - age,
	    .due = begun + from + (msec_t)((double)span * (double)number / (double)messages),
	    .warned = age - age % (4 * HOUR), /* the notices that it is old enough for are out */
	    .client_ip = empty,
	    .ehlo = empty,
	    .message_id = empty,
	    .attempts = ATTEMPTS,
	    .last_reply = reply,
	    .prefix = (uint8_t *)xstrdup(prefix),
	    .prefix_len = sizeof(prefix) - 1,
	    .total = 1,
	    .unfinished = 1,
	    .recipients = &recipient,
	    .recipient_count = 1,
	};

	snprintf(account, sizeof(account), "s%lu@example.test", number % SENDERS);
	snprintf(message.from.local, sizeof(message.from.local), "s%lu", number % SENDERS);
	snprintf(message.from.domain, sizeof(message.from.domain), "example.test");
	snprintf(recipient.address.local, sizeof(recipient.address.local), "r%lu", number);
	snprintf(recipient.address.domain, sizeof(recipient.address.domain), "d%lu.dead",
	         number % domains);
	queue_id_make(&message.id, message.created);
	if (txn->rc == 0)
		txn->rc = appender_append(&lane->appender, body, sizeof(body), &message.body);
	txn_store(txn, &message);
	free(message.prefix);
}

static enum store_result
apply(struct op *op, struct lane_txn *txn)
{
	const struct batch *batch = (struct batch *)op;

	for (unsigned long i = 0; i < batch->count; i++)
		put(txn, batch->first + i);
	txn_count(txn, COUNTER_ACCEPTED, batch->count);
	return STORE_OK;
}

static void
complete(struct op *op)
{
	struct batch *batch = (struct batch *)op;

	if (op->result != STORE_OK) {
		fprintf(stderr, "fill: %s\n", store_result_text(op->result));
		exit(1);
	}
	post(batch->first + batch->count);
	free(batch);
}

static void
post(unsigned long first)
{
	struct batch *batch;

	if (first == messages) {
		loop_stop(loop);
		return;
	}
	batch = xcalloc(1, sizeof(*batch));
	batch->first = first;
	batch->count = messages - first < BATCH ? messages - first : BATCH;
	batch->op.lane = lane;
	batch->op.apply = apply;
	batch->op.complete = complete;
	store_post(store, lane, &batch->op);
}

/* What it makes must be the service's to read. */
static void
become_owner(void)
{
	struct stat st;

	if (stat(".", &st) < 0 ||
	    (geteuid() == 0 && (setegid(st.st_gid) < 0 || seteuid(st.st_uid) < 0))) {
		perror("fill");
		exit(1);
	}
}

int
main(int argc, char **argv)
{
	const struct store_opts opts = {.map_size = 64ull << 30, .history_keep = 86400000};
	char error[256] = "";
	msec_t start;

	if (argc != 7 || chdir(argv[1]) < 0) {
		fprintf(stderr, "usage: fill SPOOL MESSAGES DOMAINS retry|fallback FROM SPAN\n");
		return 64;
	}
	messages = strtoul(argv[2], NULL, 10);
	domains = strtoul(argv[3], NULL, 10);
	from = atol(argv[5]) * 1000;
	span = atol(argv[6]) * 1000;
	if (messages < 1 || domains < 1)
		return 64;
	become_owner();
	memset(body, 'x', sizeof(body));
	memcpy(body, "Subject: waits\r\n\r\n", 18);
	log_open("fill");
	log_set_level(LOG_LEVEL_WARN);
	begun = clock_wall();
	start = clock_mono();
	loop = loop_new();
	store = store_open(loop, &opts, error, sizeof(error));
	if (store == NULL) {
		fprintf(stderr, "fill: %s\n", error);
		return 1;
	}
	lane = &store->lanes[strcmp(argv[4], "fallback") == 0 ? QUEUE_FALLBACK : QUEUE_RETRY];
	post(0);
	loop_run(loop);
	store_close(store);
	loop_free(loop);
	printf("%.1f\n", (double)(clock_mono() - start) / 1000);
	return 0;
}
