/* Who may send how much more, and how soon: the accounts in memory, with reservations, charges
 * under way, the window and the pace.
 *
 * RCPT reserves, acceptance charges, everything else releases. A reservation belongs to (channel,
 * session) and ends with either; the first recipient of a session reserves a message, too. Charging
 * has two steps around the disk write: ledger_commit_begin takes the room, ledger_commit_end says
 * whether the charge was stored. On each meter used + reserved + pending <= limit holds whenever
 * something is granted. Pure: now is ledger time (ratelimit/ledger_clock.h) and an argument. Not
 * thread-safe. */
#ifndef RATELIMIT_LEDGER_H
#define RATELIMIT_LEDGER_H

#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "ratelimit/meter.h"
#include "ratelimit/pace.h"
#include "ratelimit/window.h"

#define LEDGER_ALL UINT32_MAX

struct ledger;

struct ledger_rule { /* what an account may do, as of this decision */
	uint32_t limit[METERS];
	struct window_kind window;
	struct pace_rate rates[METERS];
	msec_t horizon; /* mail that would have to wait longer is refused */
};

enum ledger_answer {
	LEDGER_OK,
	LEDGER_OVER,     /* a limit would be exceeded; nothing was taken */
	LEDGER_TOO_FAST, /* a message would be due beyond the horizon; nothing was taken */
	LEDGER_ERROR,    /* the account could not be loaded; nothing was taken */
};

struct ledger_use {        /* of one meter */
	uint64_t used;     /* charged in the window, charges under way included */
	uint64_t reserved; /* by open transactions */
	msec_t reset; /* first moment at which one more fits (reservations count as used); now if it
	                 does already; 0: never */
	int64_t left; /* pace_left */
};
struct ledger_view { /* after a decision */
	struct ledger_use meters[METERS];
	enum meter meter; /* LEDGER_OVER: which one it was; if both, the one that lasts longer */
	msec_t due;       /* a message committed now would start then; now: at once */
	msec_t open; /* first moment at which due is within the horizon; now if it is already */
};

struct ledger_charge { /* what accepting one message costs; filled by ledger_commit_begin */
	msec_t at;
	uint32_t units[METERS];
	struct pace pace; /* after it: to be stored with the charge */
	struct pace debt; /* its part of that */
};

/* Fills the (empty) window and pace of an account that is not in memory, with row_load. -1 when
 * that fails. Must not call the ledger. */
typedef int ledger_load(void *arg, const char *account, msec_t now, struct window *window,
                        struct pace *pace);

struct ledger *ledger_new(ledger_load *load, void *arg);
void ledger_free(struct ledger *ledger);

/* Reserves one recipient more for a session, with the first one a message. Only then the pace is
 * looked at. Fills view unless it answers LEDGER_ERROR. */
enum ledger_answer ledger_reserve(struct ledger *ledger, const char *account, uint32_t channel,
                                  uint64_t session, const struct ledger_rule *rule, msec_t now,
                                  struct ledger_view *view);
/* Gives back up to n recipients of what the session holds, with the last one its message;
 * LEDGER_ALL for everything. */
void ledger_release(struct ledger *ledger, const char *account, uint32_t channel, uint64_t session,
                    uint32_t n);
/* The peer is gone, and with it every reservation of its sessions. Charges under way go on. */
void ledger_drop_channel(struct ledger *ledger, uint32_t channel);

/* Takes room for a message of n recipients that is about to be stored: from the session's
 * reservations if they suffice, else decided anew for the whole message. The pace is decided anew
 * in any case. Whatever the session held is given up either way. After LEDGER_OK charge and view
 * are filled, view->due is when the message goes, and exactly one ledger_commit_end follows. */
enum ledger_answer ledger_commit_begin(struct ledger *ledger, const char *account, uint32_t channel,
                                       uint64_t session, uint32_t n, const struct ledger_rule *rule,
                                       msec_t now, struct ledger_charge *charge,
                                       struct ledger_view *view);
/* stored: the charge is in the account's row of its minute, by row_add. Otherwise it is given back.
 */
void ledger_commit_end(struct ledger *ledger, const char *account,
                       const struct ledger_charge *charge, bool stored);

/* Forgetting what was charged before the moment at, in two steps around the disk write. The order
 * of the disk is the order of the ends: a charge begun before at and stored after the reset counts
 * neither there (whoever stores it sees to that) nor here. The pace starts afresh at once. */
void ledger_reset_begin(struct ledger *ledger, const char *account, msec_t at);
void ledger_reset_end(struct ledger *ledger, const char *account, msec_t at, bool stored);

/* 0, or -1 when the account could not be loaded. */
int ledger_look(struct ledger *ledger, const char *account, const struct ledger_rule *rule,
                msec_t now, struct ledger_view *view);
/* Accounts in memory, for status. */
size_t ledger_accounts(const struct ledger *ledger);

#endif
