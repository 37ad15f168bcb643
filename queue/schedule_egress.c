#include "queue/schedule_int.h"

/* From which of our addresses a job leaves.
 *
 * Problem: mail of an account on probation must never leave from a clean address, whatever the
 * account's class was when the mail was accepted, and whoever was restarted since.
 *
 * Idea: sekisho-auth, whose matter classes are, is asked for each job when it is about to leave.
 * No copy is kept, so none can be old; a change that was answered holds for every job that leaves
 * after it. Notifications go by the account whose mail they are about; an account that was removed
 * by the class it had then, which auth remembers; one that auth never heard of by the class that
 * the message was accepted with. The price is a round trip on a local socket, and only where there
 * are pools. While auth does not answer, the job waits in its place at the relay: a guess could be
 * wrong.
 *
 * A job that is at a relay already goes as it began.
 *
 * Which address is blocked at which site outlives a restart, beside what is known of sites: nobody
 * waits for that, and what a crash loses the site says again. */

#include <stdio.h>
#include <string.h>

#include "auth/class.h"
#include "core/log.h"

#define FORMAT 2 /* of the row of a block: u64 written, u64 until */

static void ask(struct job *job);

/* A site's pool is for those who leave from where everybody does: a class that has a pool of its
 * own has it for a reason. */
static const struct conf_pool *
pool_for(const struct job *job, const struct conf_class *class)
{
	const struct conf *conf = job->lane->schedule->conf;
	const char *pool = sites_bounds(job->line->site)->pool;

	return pool && strcmp(class->pool, conf->standard.pool) == 0 ? conf_pool_named(conf, pool)
	                                                             : conf_pool(conf, class);
}

/* What a class that the configuration has no more said of its pool is not known: it may have been
 * that of accounts on probation. */
static bool
is_lost(const struct conf *conf, const char *class)
{
	return class[0] != '\0' && strcmp(class, "standard") != 0 &&
	       conf_class(conf, class) == &conf->standard;
}

static void
choose(struct job *job, const char *class)
{
	struct schedule *schedule = job->lane->schedule;
	struct queue_egress egress;
	char words[128];

	job->asking = false;
	if (is_lost(schedule->conf, class)) {
		snprintf(words, sizeof(words),
		         "no attempt was made: the configuration has no class %s any more", class);
		job_give_up(job, words);
		return;
	}
	if (egress_choose(schedule->egress, pool_for(job, conf_class(schedule->conf, class)),
	                  &job->id, job->line->site->name, schedule_now(schedule), &egress)) {
		job_hand_out(job, &egress);
		return;
	}
	snprintf(words, sizeof(words), "no attempt was made: egress pool %s has no address left",
	         egress.pool);
	job_give_up(job, words);
}

static void
on_class(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct job *job = arg;
	struct schedule *schedule = job->lane->schedule;
	char class[CONF_CLASS_SIZE];

	job->asked = 0;
	if (schedule->stopped || status == IPC_DOWN)
		return; /* on_up asks again */
	if (status == IPC_TIMEOUT) {
		ask(job);
		return;
	}
	choose(job, auth_class_read(frame, class) ? class : job->message->stored->class);
	lanes_dispatch(schedule); /* if it was given up its place is free */
}

static void
ask(struct job *job)
{
	job->asked =
	    auth_class_ask(job->lane->schedule->auth, job->message->stored->owner, on_class, job);
}

void
job_route_out(struct job *job)
{
	static const struct queue_egress anywhere;
	const struct store_message *stored = job->message->stored;

	if (job->lane->schedule->conf->egress.count == 0) {
		job_hand_out(job, &anywhere);
	} else if (stored->owner[0] == '\0') {
		choose(job, stored->class);
	} else {
		job->asking = true;
		ask(job);
	}
}

void
job_stop_asking(struct job *job)
{
	ipc_link_cancel(job->lane->schedule->auth, job->asked);
	job->asked = 0;
	job->asking = false;
}

static void
on_up(void *arg)
{
	struct schedule *schedule = arg;
	struct job *job;

	for (size_t i = 0; i < QUEUE_LANES && !schedule->stopped; i++) {
		LIST_FOREACH(job, &schedule->lanes[i].jobs, link)
		{
			if (job->asking && job->asked == 0)
				ask(job);
		}
	}
}

void
schedule_attach_auth(struct schedule *schedule, int fd_take)
{
	ipc_link_attach(schedule->auth, fd_take);
}

/* --- blocks --- */

static void
on_block(void *arg, const char *source, const char *site, msec_t until)
{
	struct schedule *schedule = arg;
	char name[QUEUE_SITE_SIZE + 64];
	struct buf value;

	snprintf(name, sizeof(name), "block %s %s", source, site);
	buf_init(&value);
	wire_put_u8(&value, FORMAT);
	wire_put_u64(&value, (uint64_t)schedule_now(schedule));
	wire_put_u64(&value, (uint64_t)until);
	store_sites_put(schedule->store,
	                &(struct store_site_row){name, until ? value.data : NULL,
	                                         until ? value.len : 0},
	                1, NULL, NULL);
	buf_clear(&value);
}

static void
on_row(void *arg, const char *name, const uint8_t *value, size_t len)
{
	struct schedule *schedule = arg;
	const msec_t now = schedule_now(schedule);
	struct wire wire = wire_from(value, len);
	char source[64] = "", site[QUEUE_SITE_SIZE] = "";

	if (strncmp(name, "block ", 6) != 0)
		return;
	const bool good = wire_u8(&wire) == FORMAT;
	const msec_t written = (msec_t)wire_u64(&wire), until = (msec_t)wire_u64(&wire);
	/* What was written later than now was so under a clock that has been set back. */
	if (good && wire_done(&wire) && written <= now && until > now &&
	    sscanf(name, "block %63s %263s", source, site) == 2)
		egress_block(schedule->egress, source, site, until);
	else
		store_sites_put(schedule->store, &(struct store_site_row){name, NULL, 0}, 1, NULL,
		                NULL);
}

void
egress_open(struct schedule *schedule)
{
	static const struct ipc_link_events events = {.on_up = on_up};

	schedule->egress = egress_new();
	store_each_site(schedule->store, on_row, schedule);
	egress_tell(schedule->egress, on_block, schedule);
	schedule->auth = ipc_link_new(schedule->loop, "auth", &events, schedule);
}

void
egress_close(struct schedule *schedule)
{
	egress_free(schedule->egress);
	ipc_link_free(schedule->auth);
}
