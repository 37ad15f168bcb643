/* How full a process is, and what it does about it: the overload ladder. */
#ifndef MSA_LOAD_H
#define MSA_LOAD_H

#include "msa/session.h"

#define LOAD_TIMEOUT                                                                               \
	10000 /* msec; the longest wait for a client while the process is not normal               \
	       */

/* The level for that many sessions, coming from the level now: busy at 4/5 of the limit, normal
 * again below 7/10; full at the limit, busy again below 9/10. */
enum service_load load_level(enum service_load now, size_t sessions, size_t limit);
/* To be called whenever msa->session_count or the limit has changed. A change of level is logged
 * and reported, and the deadlines of all sessions follow it. */
void load_update(struct msa *msa);
/* A wait for a client as the level has it. */
msec_t load_timeout(const struct msa *msa, msec_t timeout);

#endif
