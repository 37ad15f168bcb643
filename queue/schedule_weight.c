#include "queue/schedule_int.h"

/* What an account weighs beside others: what its class says, and that is the class it has now.
 *
 * sekisho-auth is asked as it is for egress, but nobody waits for the answer, because a share that
 * is wrong for a moment does no harm: until it comes an account weighs what the class says with
 * which its mail was accepted, and an answer serves for a few seconds. What has changed holds for
 * what waits, too. Nobody is asked where all classes weigh the same. */

#include <stdio.h>
#include <string.h>

#include "auth/class.h"

#define ASK_EVERY (5 * 1000) /* msec */

static unsigned
weight_of(const struct account *account)
{
	const struct conf *conf = account->lane->schedule->conf;

	/* Notifications are nobody's. */
	return account->name[0] ? (unsigned)conf_class(conf, account->class)->weight : 1;
}

void
account_begin(struct account *account, const char *class)
{
	snprintf(account->class, sizeof(account->class), "%s", class);
	account->weight = weight_of(account);
}

static void
on_class(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct account *account = arg;
	char class[CONF_CLASS_SIZE];

	account->asked = 0;
	if (status != IPC_OK)
		return; /* its next job asks again */
	account->told = clock_mono();
	if (!auth_class_read(frame, class))
		return; /* none of auth's */
	memcpy(account->class, class, sizeof(class));
	account_weigh(account, weight_of(account));
}

void
account_ask(struct account *account)
{
	struct schedule *schedule = account->lane->schedule;

	if (!schedule->is_weighted || account->asked || account->name[0] == '\0' ||
	    (account->told && clock_mono() - account->told < ASK_EVERY))
		return;
	account->asked = auth_class_ask(schedule->auth, account->name, on_class, account);
}

void
account_stop_asking(struct account *account)
{
	ipc_link_cancel(account->lane->schedule->auth, account->asked);
}

void
weights_reload(struct schedule *schedule)
{
	const struct conf *conf = schedule->conf;

	schedule->is_weighted = false;
	for (size_t i = 0; i < conf->classes.count; i++)
		schedule->is_weighted |= conf->classes.list[i].weight != conf->standard.weight;
	for (size_t i = 0; i < QUEUE_LANES * BUCKETS; i++) {
		struct account *account;

		LIST_FOREACH(account, &schedule->lanes[i / BUCKETS].accounts[i % BUCKETS], bucket)
		{
			account_weigh(account, weight_of(account));
		}
	}
}
