#include "ratelimit/ledger.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/mem.h"
#include "core/random.h"

/* An account in memory is its window and pace (a cache of its stored rows) plus what disk does not
 * know: reservations, charges and resets under way. While it has any of the latter it stays;
 * otherwise it is idle and may go, oldest first, beyond IDLE_MAX, and comes back through the load
 * callback.
 *
 * The stored rows are the window in memory: a charge becomes part of it at ledger_commit_end, and
 * until then is pending and the account cannot leave, so no load can count it twice or miss it.
 * The pace counts a charge from ledger_commit_begin on, because the next message must queue behind
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
	uint32_t n; /* recipients, > 0; they hold one message together */
};

struct account {
	LIST_ENTRY(account) link;       /* hash bucket */
	TAILQ_ENTRY(account) idle_link; /* while idle */
	bool idle;
	struct window window;
	struct pace pace;
	uint64_t reserved[METERS];
	uint64_t pending[METERS]; /* charges under way */
	unsigned resets;          /* under way */
	msec_t reset_at;          /* the last one: earlier charges that end later do not count */
	struct pace forgotten;    /* by resets that are under way; if one fails, it counts again */
	msec_t pace_since;        /* the last one begun: the pace holds no earlier charge */
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
	const bool idle = account->reserved[METER_RECIPIENTS] == 0 &&
	                  account->pending[METER_MESSAGES] == 0 && account->resets == 0;

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

/* The account; NULL when it cannot be loaded. Call account_settle when done. */
static struct account *
account_get(struct ledger *ledger, const char *name, msec_t now)
{
	struct account *account = account_find(ledger, name);

	if (!account) {
		const size_t size = strlen(name) + 1;
		struct window window;
		struct pace pace = {0};

		while (ledger->idle_count > IDLE_MAX)
			account_free(ledger, TAILQ_FIRST(&ledger->idle));
		window_init(&window);
		if (ledger->load && ledger->load(ledger->arg, name, now, &window, &pace)) {
			window_clear(&window);
			return NULL;
		}
		if (ledger->count >= ledger->bucket_count)
			grow(ledger);
		account = xcalloc(1, sizeof *account + size);
		memcpy(account->name, name, size);
		account->hash = hash_name(ledger, name);
		account->window = window;
		account->pace = pace;
		LIST_INIT(&account->holders);
		LIST_INSERT_HEAD(bucket_of(ledger, account->hash), account, link);
		ledger->count++;
	}
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

static struct holder *
holder_new(struct account *account, uint32_t channel, uint64_t session)
{
	struct holder *holder = xcalloc(1, sizeof *holder);

	holder->channel = channel;
	holder->session = session;
	LIST_INSERT_HEAD(&account->holders, holder, link);
	account->reserved[METER_MESSAGES]++;
	return holder;
}

/* Takes up to n recipients back from a holder, which may be NULL or be gone afterwards. */
static void
holder_take(struct account *account, struct holder *holder, uint32_t n)
{
	if (!holder)
		return;
	if (n > holder->n)
		n = holder->n;
	holder->n -= n;
	account->reserved[METER_RECIPIENTS] -= n;
	if (holder->n == 0) {
		account->reserved[METER_MESSAGES]--;
		LIST_REMOVE(holder, link);
		free(holder);
	}
}

/* What is granted and not charged yet. */
static uint64_t
open_units(const struct account *account, enum meter meter)
{
	return account->reserved[meter] + account->pending[meter];
}

static bool
fits(const struct account *account, enum meter meter, uint64_t n, uint64_t limit)
{
	const uint64_t taken = window_used(&account->window, meter) + open_units(account, meter);

	return n == 0 || (taken <= limit && n <= limit - taken);
}

static msec_t
reset_of(const struct account *account, const struct ledger_rule *rule, enum meter meter,
         msec_t now)
{
	const uint64_t limit = rule->limit[meter], taken = open_units(account, meter);

	if (fits(account, meter, 1, limit))
		return now;
	if (limit > 0 && taken >= limit) /* as if all of it were charged now */
		return rule->window.calendar ? rule->window.day_end
		                             : window_free_at(window_minute_of(now));
	return window_reset(&account->window, &rule->window, now, meter, limit, taken + 1);
}

static void
view_fill(const struct account *account, const struct ledger_rule *rule, msec_t now,
          struct ledger_view *view)
{
	*view = (struct ledger_view){.due = pace_due(&account->pace, rule->rates, now)};
	for (int i = 0; i < METERS; i++) {
		const enum meter meter = (enum meter)i;

		view->meters[meter] = (struct ledger_use){
		    .used = window_used(&account->window, meter) + account->pending[meter],
		    .reserved = account->reserved[meter],
		    .reset = reset_of(account, rule, meter, now),
		    .left = pace_left(&account->pace, rule->rates, meter, now),
		};
	}
	view->open = view->due - rule->horizon > now ? view->due - rule->horizon : now;
}

/* Whether these units fit, on every meter; view->meter is the one that refuses. */
static bool
decide(const struct account *account, const struct ledger_rule *rule, const uint32_t units[METERS],
       struct ledger_view *view)
{
	bool good = true;

	for (int i = 0; i < METERS; i++) {
		const enum meter meter = (enum meter)i;
		const msec_t until = view->meters[meter].reset;

		if (fits(account, meter, units[meter], rule->limit[meter]))
			continue;
		if (good || until == 0 ||
		    (view->meters[view->meter].reset != 0 &&
		     until > view->meters[view->meter].reset))
			view->meter = meter;
		good = false;
	}
	return good;
}

enum ledger_answer
ledger_reserve(struct ledger *ledger, const char *name, uint32_t channel, uint64_t session,
               const struct ledger_rule *rule, msec_t now, struct ledger_view *view)
{
	struct account *account = account_get(ledger, name, now);
	enum ledger_answer answer;
	struct holder *holder;

	if (!account)
		return LEDGER_ERROR;
	window_look(&account->window, &rule->window, now);
	view_fill(account, rule, now, view);
	holder = holder_find(account, channel, session);
	const uint32_t units[METERS] = {[METER_RECIPIENTS] = 1, [METER_MESSAGES] = holder ? 0 : 1};

	if (!decide(account, rule, units, view)) {
		answer = LEDGER_OVER;
	} else if (!holder && view->open > now) {
		answer = LEDGER_TOO_FAST;
	} else {
		if (!holder)
			holder = holder_new(account, channel, session);
		holder->n++;
		account->reserved[METER_RECIPIENTS]++;
		view_fill(account, rule, now, view);
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
	holder_take(account, holder_find(account, channel, session), n);
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
					holder_take(account, holder, LEDGER_ALL);
			}
			account_settle(ledger, account);
		}
	}
}

enum ledger_answer
ledger_commit_begin(struct ledger *ledger, const char *name, uint32_t channel, uint64_t session,
                    uint32_t n, const struct ledger_rule *rule, msec_t now,
                    struct ledger_charge *charge, struct ledger_view *view)
{
	struct account *account = account_get(ledger, name, now);
	const uint32_t units[METERS] = {[METER_RECIPIENTS] = n, [METER_MESSAGES] = 1};
	enum ledger_answer answer;
	struct holder *holder;
	bool held;

	if (!account)
		return LEDGER_ERROR;
	window_look(&account->window, &rule->window, now);
	holder = holder_find(account, channel, session);
	held = holder && holder->n >= n;
	holder_take(account, holder, LEDGER_ALL);
	view_fill(account, rule, now, view);
	if (!held && !decide(account, rule, units, view)) {
		answer = LEDGER_OVER;
	} else if (view->open > now) {
		answer = LEDGER_TOO_FAST;
	} else {
		const msec_t due = view->due;

		*charge = (struct ledger_charge){.at = now};
		pace_take(&account->pace, rule->rates, due, units, &charge->debt);
		charge->pace = account->pace;
		for (int m = 0; m < METERS; m++) {
			charge->units[m] = units[m];
			account->pending[m] += units[m];
		}
		view_fill(account, rule, now, view);
		view->due = due;
		answer = LEDGER_OK;
	}
	account_settle(ledger, account);
	return answer;
}

void
ledger_commit_end(struct ledger *ledger, const char *name, const struct ledger_charge *charge,
                  bool stored)
{
	struct account *account = account_find(ledger, name);

	assert(account); /* what is pending keeps an account in memory */
	for (int m = 0; m < METERS; m++) {
		assert(account->pending[m] >= charge->units[m]);
		account->pending[m] -= charge->units[m];
	}
	if (stored && charge->at >= account->reset_at)
		window_charge(&account->window, charge->at, charge->units);
	if (!stored && charge->at >= account->pace_since)
		pace_give_back(&account->pace, &charge->debt);
	account_settle(ledger, account);
}

void
ledger_reset_begin(struct ledger *ledger, const char *name, msec_t at)
{
	struct account *account = account_get(ledger, name, at);

	if (!account)
		return; /* its rows are malformed, which a reset cures */
	account->resets++;
	pace_merge(&account->forgotten, &account->pace);
	account->pace = (struct pace){0};
	account->pace_since = at;
	account_settle(ledger, account);
}

void
ledger_reset_end(struct ledger *ledger, const char *name, msec_t at, bool stored)
{
	struct account *account = account_find(ledger, name);

	if (!account)
		return;
	if (account->resets > 0) /* or it could not be loaded before */
		account->resets--;
	if (stored) {
		window_clear(&account->window);
		account->reset_at = at;
	} else {
		pace_merge(&account->pace, &account->forgotten);
	}
	if (stored || account->resets == 0)
		account->forgotten = (struct pace){0};
	account_settle(ledger, account);
}

int
ledger_look(struct ledger *ledger, const char *name, const struct ledger_rule *rule, msec_t now,
            struct ledger_view *view)
{
	struct account *account = account_get(ledger, name, now);

	if (!account)
		return -1;
	window_look(&account->window, &rule->window, now);
	view_fill(account, rule, now, view);
	account_settle(ledger, account);
	return 0;
}

size_t
ledger_accounts(const struct ledger *ledger)
{
	return ledger->count;
}
