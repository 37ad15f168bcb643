/* Who may send how much more: the accounts in memory, with reservations, charges under way and the
 * rolling window.
 *
 * RCPT reserves, acceptance charges, everything else releases. A reservation belongs to (channel,
 * session) and ends with either. Charging has two steps around the disk write: ledger_commit_begin
 * takes the room, ledger_commit_end says whether the charge was stored. used + reserved + pending
 * <= limit holds whenever something is granted. Pure: now is ledger time (ratelimit/ledger_clock.h)
 * and an argument. Not thread-safe. */
#ifndef RATELIMIT_LEDGER_H
#define RATELIMIT_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "ratelimit/window.h"

#define LEDGER_UNLIMITED UINT64_MAX
#define LEDGER_ALL       UINT32_MAX

struct ledger;

enum ledger_answer {
	LEDGER_OK,
	LEDGER_OVER,  /* the limit would be exceeded; nothing was taken */
	LEDGER_ERROR, /* the account could not be loaded; nothing was taken */
};

/* Fills the (empty) window of an account that is not in memory, with window_load_row. -1 when that
 * fails. Must not call the ledger. */
typedef int ledger_load(void *arg, const char *account, msec_t now, struct window *window);

struct ledger_view {
	uint64_t used;     /* charged in the window, charges under way included */
	uint64_t reserved; /* by open transactions */
	msec_t reset; /* first moment at which one more fits (reservations count as used); now if it
	                 does already; 0: never */
};

struct ledger *ledger_new(ledger_load *load, void *arg);
void ledger_free(struct ledger *ledger);

/* Reserves n more recipients for a session. */
enum ledger_answer ledger_reserve(struct ledger *ledger, const char *account, uint32_t channel,
                                  uint64_t session, uint32_t n, uint64_t limit, msec_t now);
/* Gives back up to n of what the session holds; LEDGER_ALL for everything. */
void ledger_release(struct ledger *ledger, const char *account, uint32_t channel, uint64_t session,
                    uint32_t n);
/* The peer is gone, and with it every reservation of its sessions. Charges under way go on. */
void ledger_drop_channel(struct ledger *ledger, uint32_t channel);

/* Takes room for a message of n recipients that is about to be stored: from the session's
 * reservations if they suffice, else decided anew for the whole message (what the session still
 * held is given up either way up to n). After LEDGER_OK exactly one ledger_commit_end follows. */
enum ledger_answer ledger_commit_begin(struct ledger *ledger, const char *account, uint32_t channel,
                                       uint64_t session, uint32_t n, uint64_t limit, msec_t now);
/* charged: the charge was stored in minute window_minute_of(at) of the account's rows. Otherwise it
 * is given back. */
void ledger_commit_end(struct ledger *ledger, const char *account, uint32_t n, bool charged,
                       msec_t at);

/* 0, or -1 when the account could not be loaded. */
int ledger_look(struct ledger *ledger, const char *account, uint64_t limit, msec_t now,
                struct ledger_view *view);
/* Accounts in memory, for status. */
size_t ledger_accounts(const struct ledger *ledger);

#endif
