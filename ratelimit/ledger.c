#include "ratelimit/ledger.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/mem.h"
#include "core/random.h"

/* An account in memory is its rolling window (a cache of its stored rows) plus what disk does not
 * know: reservations and charges under way. While it has any of the latter it stays; otherwise it
 * is idle and may go, oldest first, beyond IDLE_MAX, and comes back through the load callback.
 *
 * The window in memory equals the stored rows plus pending: a charge becomes part of the window at
 * ledger_commit_end, and until then the account cannot leave, so no load can count it twice or miss
 * it.
 *
 * Invariant: reserved is the sum of holders; a grant is given only if used + reserved + pending
 * stays within the limit. A limit that is lowered afterwards takes nothing back, but grants nothing
 * new either.
 *
 * Account names come from logins that exist, but anybody may own a few: the hash is keyed per
 * process. */

#define IDLE_MAX 4096u

struct holder { /* what one session has reserved */
	LIST_ENTRY(holder) link;
	uint32_t channel;
	uint64_t session;
	uint64_t n; /* > 0 */
};

struct account {
	LIST_ENTRY(account) link;       /* hash bucket */
	TAILQ_ENTRY(account) idle_link; /* while idle */
	bool idle;
	struct window window;
	uint64_t reserved;
	uint64_t pending; /* charges under way */
	LIST_HEAD(, holder) holders;
	uint64_t hash;
	char name[];
};
LIST_HEAD(bucket, account);

struct ledger {
	ledger_load *load;
	void *arg;
	struct bucket *buckets;
	size_t bucket_count;        /* a power of two */
	size_t count;               /* accounts in memory */
	TAILQ_HEAD(, account) idle; /* longest idle first */
	size_t idle_count;
	uint64_t key; /* of the hash */
};

static uint64_t
hash_name(const struct ledger *ledger, const char *name)
{
	uint64_t h = ledger->key;

	for (; *name; name++) {
		h ^= (uint8_t)*name;
		h *= 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	return h ^ h >> 29;
}

static struct bucket *
bucket_of(struct ledger *ledger, uint64_t hash)
{
	return &ledger->buckets[hash & (ledger->bucket_count - 1)];
}

static void
account_free(struct ledger *ledger, struct account *account)
{
	struct holder *holder;

	while ((holder = LIST_FIRST(&account->holders))) {
		LIST_REMOVE(holder, link);
		free(holder);
	}
	if (account->idle) {
		TAILQ_REMOVE(&ledger->idle, account, idle_link);
		ledger->idle_count--;
	}
	LIST_REMOVE(account, link);
	ledger->count--;
	window_clear(&account->window);
	free(account);
}

static struct account *
account_find(struct ledger *ledger, const char *name)
{
	const uint64_t hash = hash_name(ledger, name);
	struct account *account;

	LIST_FOREACH(account, bucket_of(ledger, hash), link)
	{
		if (account->hash == hash && strcmp(account->name, name) == 0)
			return account;
	}
	return NULL;
}

static void
grow(struct ledger *ledger)
{
	struct bucket *old = ledger->buckets;
	const size_t old_count = ledger->bucket_count;
	struct account *account;

	ledger->bucket_count = old_count * 2;
	ledger->buckets = xcalloc(ledger->bucket_count, sizeof *ledger->buckets);
	for (size_t i = 0; i < old_count; i++) {
		while ((account = LIST_FIRST(&old[i]))) {
			LIST_REMOVE(account, link);
			LIST_INSERT_HEAD(bucket_of(ledger, account->hash), account, link);
		}
	}
	free(old);
}

/* Settles whether the account may leave memory; it may be gone afterwards, never in favour of one
 * that is in use. */
static void
account_settle(struct ledger *ledger, struct account *account)
{
	const bool idle = account->reserved == 0 && account->pending == 0;

	if (idle == account->idle)
		return;
	account->idle = idle;
	if (!idle) {
		TAILQ_REMOVE(&ledger->idle, account, idle_link);
		ledger->idle_count--;
		return;
	}
	TAILQ_INSERT_TAIL(&ledger->idle, account, idle_link);
	ledger->idle_count++;
}

/* The account with its window as of now; NULL when it cannot be loaded. Call account_settle when
 * done. */
static struct account *
account_get(struct ledger *ledger, const char *name, msec_t now)
{
	struct account *account = account_find(ledger, name);

	if (!account) {
		const size_t size = strlen(name) + 1;
		struct window window;

		while (ledger->idle_count > IDLE_MAX)
			account_free(ledger, TAILQ_FIRST(&ledger->idle));
		window_init(&window);
		if (ledger->load && ledger->load(ledger->arg, name, now, &window)) {
			window_clear(&window);
			return NULL;
		}
		if (ledger->count >= ledger->bucket_count)
			grow(ledger);
		account = xcalloc(1, sizeof *account + size);
		memcpy(account->name, name, size);
		account->hash = hash_name(ledger, name);
		account->window = window;
		LIST_INIT(&account->holders);
		LIST_INSERT_HEAD(bucket_of(ledger, account->hash), account, link);
		ledger->count++;
	}
	window_expire(&account->window, now);
	return account;
}

struct ledger *
ledger_new(ledger_load *load, void *arg)
{
	struct ledger *ledger = xcalloc(1, sizeof *ledger);

	ledger->load = load;
	ledger->arg = arg;
	ledger->bucket_count = 256;
	ledger->buckets = xcalloc(ledger->bucket_count, sizeof *ledger->buckets);
	TAILQ_INIT(&ledger->idle);
	random_bytes(&ledger->key, sizeof ledger->key);
	return ledger;
}

void
ledger_free(struct ledger *ledger)
{
	struct account *account;

	if (!ledger)
		return;
	for (size_t i = 0; i < ledger->bucket_count; i++)
		while ((account = LIST_FIRST(&ledger->buckets[i])))
			account_free(ledger, account);
	free(ledger->buckets);
	free(ledger);
}

static struct holder *
holder_find(struct account *account, uint32_t channel, uint64_t session)
{
	struct holder *holder;

	LIST_FOREACH(holder, &account->holders, link)
	{
		if (holder->channel == channel && holder->session == session)
			return holder;
	}
	return NULL;
}

/* Takes up to n back from a holder, which may be NULL or be gone afterwards; returns how many. */
static uint64_t
holder_take(struct account *account, struct holder *holder, uint64_t n)
{
	if (!holder)
		return 0;
	if (n > holder->n)
		n = holder->n;
	holder->n -= n;
	account->reserved -= n;
	if (holder->n == 0) {
		LIST_REMOVE(holder, link);
		free(holder);
	}
	return n;
}

static bool
fits(const struct account *account, uint64_t n, uint64_t limit)
{
	const uint64_t taken = window_used(&account->window) + account->reserved + account->pending;

	return limit == LEDGER_UNLIMITED || (taken <= limit && n <= limit - taken);
}

enum ledger_answer
ledger_reserve(struct ledger *ledger, const char *name, uint32_t channel, uint64_t session,
               uint32_t n, uint64_t limit, msec_t now)
{
	struct account *account = account_get(ledger, name, now);
	enum ledger_answer answer = LEDGER_OVER;

	if (!account)
		return LEDGER_ERROR;
	if (fits(account, n, limit)) {
		struct holder *holder = holder_find(account, channel, session);

		if (!holder && n) {
			holder = xcalloc(1, sizeof *holder);
			holder->channel = channel;
			holder->session = session;
			LIST_INSERT_HEAD(&account->holders, holder, link);
		}
		if (n)
			holder->n += n;
		account->reserved += n;
		answer = LEDGER_OK;
	}
	account_settle(ledger, account);
	return answer;
}

void
ledger_release(struct ledger *ledger, const char *name, uint32_t channel, uint64_t session,
               uint32_t n)
{
	struct account *account = account_find(ledger, name);

	if (!account)
		return;
	holder_take(account, holder_find(account, channel, session),
	            n == LEDGER_ALL ? UINT64_MAX : n);
	account_settle(ledger, account);
}

void
ledger_drop_channel(struct ledger *ledger, uint32_t channel)
{
	for (size_t i = 0; i < ledger->bucket_count; i++) {
		struct account *account, *next_account;

		for (account = LIST_FIRST(&ledger->buckets[i]); account; account = next_account) {
			struct holder *holder, *next;

			next_account = LIST_NEXT(account, link);
			for (holder = LIST_FIRST(&account->holders); holder; holder = next) {
				next = LIST_NEXT(holder, link);
				if (holder->channel == channel)
					holder_take(account, holder, UINT64_MAX);
			}
			account_settle(ledger, account);
		}
	}
}

enum ledger_answer
ledger_commit_begin(struct ledger *ledger, const char *name, uint32_t channel, uint64_t session,
                    uint32_t n, uint64_t limit, msec_t now)
{
	struct account *account = account_get(ledger, name, now);
	enum ledger_answer answer;
	uint64_t held;

	if (!account)
		return LEDGER_ERROR;
	held = holder_take(account, holder_find(account, channel, session), n);
	answer = held == n || fits(account, n, limit) ? LEDGER_OK : LEDGER_OVER;
	if (answer == LEDGER_OK)
		account->pending += n;
	account_settle(ledger, account);
	return answer;
}

void
ledger_commit_end(struct ledger *ledger, const char *name, uint32_t n, bool charged, msec_t at)
{
	struct account *account = account_find(ledger, name);

	if (!account) {
		assert(n == 0); /* pending recipients keep an account in memory */
		return;
	}
	assert(account->pending >= n);
	account->pending -= n;
	if (charged)
		window_charge(&account->window, at, n);
	account_settle(ledger, account);
}

int
ledger_look(struct ledger *ledger, const char *name, uint64_t limit, msec_t now,
            struct ledger_view *view)
{
	struct account *account = account_get(ledger, name, now);
	const struct window *window;
	uint64_t taken;

	if (!account)
		return -1;
	window = &account->window;
	view->used = window_used(window) + account->pending;
	view->reserved = account->reserved;
	taken = account->reserved + account->pending;
	if (limit == LEDGER_UNLIMITED)
		view->reset = now;
	else if (limit > 0 && taken >= limit) /* as if all of it were charged now */
		view->reset = (msec_t)(window_minute_of(now) + 1 + WINDOW_MINUTES) * 60000;
	else
		view->reset = window_reset(window, now, limit, taken + 1);
	account_settle(ledger, account);
	return 0;
}

size_t
ledger_accounts(const struct ledger *ledger)
{
	return ledger->count;
}
