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

/* All borrowed. */
struct quota *quota_new(struct loop *loop, struct store *store, const struct conf *conf);
/* Stops its timer; to be called before the store closes. */
void quota_stop(struct quota *quota);
void quota_free(struct quota *quota);

/* One recipient more for (channel, token): QUEUE_OK, QUEUE_OVER with *view filled, or
 * QUEUE_UNAVAILABLE. */
enum queue_verdict quota_reserve(struct quota *quota, const char *account, uint32_t channel,
                                 uint64_t token, struct queue_quota *view);
/* LEDGER_ALL for everything. */
void quota_release(struct quota *quota, const char *account, uint32_t channel, uint64_t token,
                   uint32_t count);
void quota_drop_channel(struct quota *quota, uint32_t channel);

/* Decides count recipients for a message about to be stored, and what is to be stored with it.
 * After QUEUE_OK exactly one quota_commit_end follows, with the charge as given here. Whatever else
 * the token held is released. */
enum queue_verdict quota_commit_begin(struct quota *quota, const char *account, uint32_t channel,
                                      uint64_t token, uint32_t count, struct store_charge *charge,
                                      struct queue_quota *view);
void quota_commit_end(struct quota *quota, const char *account, const struct store_charge *charge,
                      bool stored);

/* False when the account's rows cannot be read. */
bool quota_look(struct quota *quota, const char *account, struct queue_quota_view *view);
uint64_t quota_accounts(const struct quota *quota);
msec_t quota_time(struct quota *quota);
bool quota_is_held(const struct quota *quota);

#endif
