#include "ratelimit/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The ledger against a naive reference: random sessions reserve, release, commit, and vanish, while
 * a pretended disk keeps what was charged; the cap must hold exactly, and what is refused must
 * really not have fitted. */

static int count, failures;

static void
ok(bool good, const char *what)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++count, what);
	failures += !good;
}

#define MINUTE   60000
#define ACCOUNTS 3
#define SESSIONS 6
#define LIMIT    40
#define PENDINGS 8

static uint64_t seed = 7;

static uint64_t
next(uint64_t bound)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % bound;
}

struct charge {
	msec_t at;
	uint32_t n;
};
struct disk {
	struct charge list[200000];
	size_t count;
	size_t first; /* earlier ones are free */
};
static struct disk disks[ACCOUNTS];
static uint32_t held[ACCOUNTS][SESSIONS]; /* sessions 0-2 on channel 1, 3-5 on channel 2 */
static struct {
	int account; /* -1: unused */
	uint32_t n;
	msec_t at;
} pending[PENDINGS];
static unsigned loads;

static uint64_t
stored(int a, msec_t now)
{
	struct disk *disk = &disks[a];
	uint64_t used = 0;

	while (disk->first < disk->count &&
	       (disk->list[disk->first].at / MINUTE + 1441) * MINUTE + 10 * MINUTE <= now)
		disk->first++;
	for (size_t i = disk->first; i < disk->count; i++)
		if ((disk->list[i].at / MINUTE + 1441) * MINUTE > now)
			used += disk->list[i].n;
	return used;
}

static uint64_t
taken(int a, msec_t now, uint64_t *reserved, uint64_t *under_way)
{
	*reserved = *under_way = 0;
	for (int s = 0; s < SESSIONS; s++)
		*reserved += held[a][s];
	for (int p = 0; p < PENDINGS; p++)
		if (pending[p].account == a)
			*under_way += pending[p].n;
	return stored(a, now) + *reserved + *under_way;
}

static int
load(void *arg, const char *name, msec_t now, struct window *window)
{
	const struct disk *disk;

	(void)arg;
	(void)now;
	loads++;
	if (name[0] == 'z')
		return -1;
	disk = &disks[name[0] - 'a'];
	for (size_t i = disk->first; i < disk->count; i++)
		window_charge(window, disk->list[i].at, disk->list[i].n);
	return 0;
}

static void
property(void)
{
	static const char names[ACCOUNTS][2] = {"a", "b", "c"};
	struct ledger *ledger = ledger_new(load, NULL);
	bool answers = true, views = true, never_over = true;
	uint64_t over = 0, granted = 0;
	msec_t now = 1795000000000;

	for (int p = 0; p < PENDINGS; p++)
		pending[p].account = -1;
	for (int step = 0; step < 200000; step++) {
		const int a = (int)next(ACCOUNTS), s = (int)next(SESSIONS), p = (int)next(PENDINGS);
		const uint32_t channel = s < 3 ? 1 : 2, n = 1 + (uint32_t)next(6);
		uint64_t reserved, under_way;
		enum ledger_answer answer;

		now += (msec_t)next(2 * MINUTE);
		switch (next(8)) {
		case 0:
		case 1:
		case 2:
			answer =
			    ledger_reserve(ledger, names[a], channel, (uint64_t)s, n, LIMIT, now);
			answers &= (answer == LEDGER_OK) ==
			           (taken(a, now, &reserved, &under_way) + n <= LIMIT);
			if (answer == LEDGER_OK)
				held[a][s] += n;
			break;
		case 3:
			ledger_release(ledger, names[a], channel, (uint64_t)s,
			               next(2) ? n : LEDGER_ALL);
			/* The reference asks what is left instead of repeating the coin. */
			{
				struct ledger_view view;
				uint64_t others = 0;
				ledger_look(ledger, names[a], LIMIT, now, &view);
				for (int o = 0; o < SESSIONS; o++)
					others += o == s ? 0 : held[a][o];
				answers &= view.reserved >= others &&
				           view.reserved <= others + held[a][s] &&
				           (view.reserved == others ||
				            view.reserved == others + held[a][s] - n);
				held[a][s] = (uint32_t)(view.reserved - others);
			}
			break;
		case 4:
		case 5:
			if (pending[p].account >= 0)
				break;
			{
				const uint32_t gone = held[a][s] < n ? held[a][s] : n;
				answer = ledger_commit_begin(ledger, names[a], channel, (uint64_t)s,
				                             n, LIMIT, now);
				held[a][s] -= gone;
				answers &= (answer == LEDGER_OK) ==
				           (gone == n ||
				            taken(a, now, &reserved, &under_way) + n <= LIMIT);
				if (answer == LEDGER_OK) {
					pending[p].account = a;
					pending[p].n = n;
					pending[p].at = now;
				}
				granted += answer == LEDGER_OK;
				over += answer == LEDGER_OVER;
			}
			break;
		case 6:
			if (pending[p].account < 0)
				break;
			{
				const bool charged = next(5) != 0;
				struct disk *disk = &disks[pending[p].account];
				ledger_commit_end(ledger, names[pending[p].account], pending[p].n,
				                  charged, pending[p].at);
				if (charged)
					disk->list[disk->count++] =
					    (struct charge){pending[p].at, pending[p].n};
				pending[p].account = -1;
			}
			break;
		case 7:
			if (next(20))
				break;
			ledger_drop_channel(ledger, channel);
			for (int o = 0; o < SESSIONS; o++)
				for (int b = 0; b < ACCOUNTS; b++)
					if ((o < 3) == (channel == 1))
						held[b][o] = 0;
			if (next(4) == 0) { /* a crash: nothing but the disk survives */
				ledger_free(ledger);
				ledger = ledger_new(load, NULL);
				memset(held, 0, sizeof held);
				for (int q = 0; q < PENDINGS; q++)
					pending[q].account = -1;
			}
			break;
		}
		struct ledger_view view;
		const uint64_t all = taken(a, now, &reserved, &under_way);
		views &= ledger_look(ledger, names[a], LIMIT, now, &view) == 0 &&
		         view.reserved == reserved && view.used + view.reserved == all &&
		         (view.reset == now) == (all < LIMIT) && view.reset >= now;
		never_over &= all <= LIMIT;
	}
	ok(answers, "every answer is the reference's");
	ok(views, "every view is the reference's");
	ok(never_over, "never over the limit");
	ok(granted > 1000 && over > 1000, "both answers occurred often");
	ledger_free(ledger);
}

static void
cases(void)
{
	struct ledger *ledger = ledger_new(load, NULL);
	const msec_t now = 1995000000000;
	struct ledger_view view;
	char name[32];

	ok(ledger_reserve(ledger, "z", 1, 1, 1, 10, now) == LEDGER_ERROR &&
	       ledger_look(ledger, "z", 1, now, &view) == -1 && ledger_accounts(ledger) == 0,
	   "an account that cannot be loaded grants nothing");
	ok(ledger_reserve(ledger, "a", 1, 1, 1, 0, now) == LEDGER_OVER &&
	       ledger_reserve(ledger, "a", 1, 1, 1000, LEDGER_UNLIMITED, now) == LEDGER_OK,
	   "limit 0 is nothing, unlimited is unlimited");
	ok(ledger_commit_begin(ledger, "a", 1, 1, 1000, 5, now) == LEDGER_OK,
	   "a live reservation is honoured after the limit was lowered");
	ok(ledger_commit_begin(ledger, "a", 1, 1, 1, 5, now) == LEDGER_OVER,
	   "and nothing new is granted");
	ledger_commit_end(ledger, "a", 1000, true, now);
	ledger_look(ledger, "a", 1000, now, &view);
	ok(view.used == 1000 && view.reset == (now / 60000 + 1441) * 60000,
	   "reset is when the minute comes back");
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof name, "c%d", i);
		ledger_look(ledger, name, 10, now, &view);
	}
	ok(ledger_accounts(ledger) <= 4100, "idle accounts leave memory");
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof name, "c%d", i);
		ledger_reserve(ledger, name, 1, (uint64_t)i, 1, 10, now + 3 * 86400000LL);
	}
	ok(ledger_accounts(ledger) >= 20000, "those with reservations stay");
	ledger_drop_channel(ledger, 1);
	ledger_look(ledger, "b", 10, now, &view);
	ok(ledger_accounts(ledger) <= 4100, "until their channel is gone");
	ledger_free(ledger);
}

int
main(void)
{
	property();
	cases();
	printf("1..%d\n", count);
	return failures != 0;
}
