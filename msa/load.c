#include "msa/load.h"

#include "core/log.h"
#include "msa/session_int.h"

/* Problem: clients that hold sessions and say nothing take the places of those that have mail, and
 * a process that takes in everybody serves nobody.
 *
 * Idea: one number, sessions against their limit, because everything that a session takes is
 * bounded (memory) or counted in that limit (descriptors, see main.c). First clients have less
 * time: every wait for them is at most LOAD_TIMEOUT, also those that are under way, so whoever
 * idles makes room at once. At the limit new sessions are told 421; those under way finish, in
 * either case.
 *
 * The levels have hysteresis, so that a process at a limit does not log each client; whether a new
 * session fits is decided by the limit alone. */

enum service_load
load_level(enum service_load now, size_t sessions, size_t limit)
{
	if (sessions >= limit || (now == SERVICE_FULL && sessions * 10 >= limit * 9))
		return SERVICE_FULL;
	if (sessions * 5 >= limit * 4 || (now != SERVICE_NORMAL && sessions * 10 >= limit * 7))
		return SERVICE_BUSY;
	return SERVICE_NORMAL;
}

void
load_update(struct msa *msa)
{
	const enum service_load now = load_level(msa->load, msa->session_count, msa->session_limit);
	const bool was_normal = msa->load == SERVICE_NORMAL;

	if (now == msa->load)
		return;
	msa->load = now;
	log_warn("-", "load", "level=%s sessions=%zu limit=%zu", service_load_name(now),
	         msa->session_count, msa->session_limit);
	service_report_load(now);
	if (was_normal != (now == SERVICE_NORMAL))
		for (struct session *s = msa->sessions; s != NULL; s = s->next)
			driver_await_client_again(s);
}

msec_t
load_timeout(const struct msa *msa, msec_t timeout)
{
	return msa->load != SERVICE_NORMAL && timeout > LOAD_TIMEOUT ? LOAD_TIMEOUT : timeout;
}
