/* Who may send how much: the ledger in memory, the store behind it, and the overrides; private to
 * sekisho-queue. */
#ifndef QUEUE_QUOTA_H
#define QUEUE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "core/conf.h"
#include "core/loop.h"
#include "queue/client.h"
#include "queue/control.h"
#include "queue/store.h"

struct quota;

/* All borrowed, the configuration until the next one. */
struct quota *quota_new(struct loop *loop, struct store *store, const struct conf *conf);
/* Its classes hold from the next decision on. */
void quota_reload(struct quota *quota, const struct conf *conf);
/* Stops its timer; to be called before the store closes. */
void quota_stop(struct quota *quota);
void quota_free(struct quota *quota);

/* One recipient more for (channel, token): QUEUE_OK, QUEUE_OVER or QUEUE_TOO_FAST with *out filled,
 * or QUEUE_UNAVAILABLE. */
enum queue_verdict quota_reserve(struct quota *quota, const char *account, const char *class,
                                 uint32_t channel, uint64_t token, struct queue_quota *out);
/* LEDGER_ALL for everything. */
void quota_release(struct quota *quota, const char *account, uint32_t channel, uint64_t token,
                   uint32_t count);
void quota_drop_channel(struct quota *quota, uint32_t channel);

/* Decides count recipients for a message about to be stored, what is to be stored with it, and, in
 * out->start, when it is due. After QUEUE_OK exactly one quota_commit_end follows, with the charge
 * as given here. Whatever else the token held is released. */
enum queue_verdict quota_commit_begin(struct quota *quota, const char *account, const char *class,
                                      uint32_t channel, uint64_t token, uint32_t count,
                                      struct ledger_charge *charge, struct queue_quota *out);
void quota_commit_end(struct quota *quota, const char *account, const struct ledger_charge *charge,
                      bool stored);

/* Around a store_ledger_reset for the moment that the first returns. */
msec_t quota_reset_begin(struct quota *quota, const char *account);
void quota_reset_end(struct quota *quota, const char *account, msec_t at, bool stored);

/* False when the account's rows cannot be read. */
bool quota_look(struct quota *quota, const char *account, const char *class,
                struct queue_quota_view *out);
uint64_t quota_accounts(const struct quota *quota);
msec_t quota_time(struct quota *quota);
bool quota_is_held(const struct quota *quota);
/* The operator vouches for the wall clock. */
void quota_confirm_clock(struct quota *quota);

#endif
