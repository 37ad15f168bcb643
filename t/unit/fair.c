#include "queue/fair.h"

#include <stdlib.h>

#include "t/unit/tap.h"

/* The order of fair queueing, with one place for all: what is served when, against what others have
 * waiting. */

#define JOBS 4000

struct job {
	int64_t tag;
	unsigned who, came;
};
static struct job waiting[JOBS];
static size_t count;
static unsigned clock_;
static struct fair fair;
static struct fair_account accounts[1000];
static unsigned weights[1000];

static void
begin(void)
{
	count = 0;
	clock_ = 0;
	fair = (struct fair){0};
	for (size_t i = 0; i < sizeof(accounts) / sizeof(accounts[0]); i++)
		accounts[i] = (struct fair_account){0}, weights[i] = 1;
}

static void
come(unsigned who, unsigned recipients, uint64_t octets)
{
	waiting[count++] = (struct job){fair_enter(&fair, &accounts[who],
	                                           fair_cost(recipients, octets), weights[who]),
	                                who, clock_++};
}

static unsigned
serve(void)
{
	size_t best = 0;
	unsigned who;

	for (size_t i = 1; i < count; i++)
		if (waiting[i].tag < waiting[best].tag ||
		    (waiting[i].tag == waiting[best].tag && waiting[i].came < waiting[best].came))
			best = i;
	who = waiting[best].who;
	fair_serve(&fair, waiting[best].tag);
	waiting[best] = waiting[--count];
	return who;
}

static void
weigh(unsigned who, unsigned weight)
{
	for (size_t i = 0; i < count; i++)
		if (waiting[i].who == who)
			waiting[i].tag = fair_reweigh(&fair, waiting[i].tag, weights[who], weight);
	accounts[who].last = fair_reweigh(&fair, accounts[who].last, weights[who], weight);
	weights[who] = weight;
}

/* How many are served until one of that account is. */
static unsigned
until(unsigned who)
{
	unsigned n = 1;

	while (serve() != who)
		n++;
	return n;
}

int
main(void)
{
	unsigned served[2] = {0, 0};
	bool good = true;

	ok(fair_cost(1, 0) == FAIR_RECIPIENT, "one recipient of a small mail");
	ok(fair_cost(50, FAIR_OCTETS - 1) < fair_cost(51, 0),
	   "content below 64 KiB costs less than a recipient");
	ok(fair_cost(1, 10 * FAIR_OCTETS) == 11 * FAIR_RECIPIENT, "640 KiB cost ten");

	begin();
	for (unsigned i = 0; i < 1000; i++)
		come(0, 1, 0);
	come(1, 1, 0);
	ok(until(1) <= 2, "a single mail behind 1000 of another account is second");
	for (unsigned i = 0; i < 300; i++)
		serve();
	come(1, 1, 0);
	ok(until(1) <= 2, "and the next one too, 300 later");

	begin();
	for (unsigned i = 0; i < 10; i++)
		come(0, 50, 0);
	come(1, 1, 0);
	ok(until(1) == 1, "one recipient comes before a job of fifty that nobody has begun");
	serve();
	come(1, 1, 0);
	ok(until(1) == 1, "and before the next one");

	begin();
	for (unsigned i = 0; i < 100; i++) {
		come(0, 50, 0);
		come(1, 1, 0);
	}
	for (unsigned i = 0; i < 102; i++)
		served[serve()]++;
	ok(served[1] >= 99 && served[0] <= 3, "shares are of recipients, not of jobs");

	begin();
	for (unsigned i = 0; i < 500; i++)
		come(0, 1, 0);
	for (unsigned i = 0; i < 500; i++) {
		come(1, 1, 0);
		served[0] = served[1] = 0;
	}
	for (unsigned i = 0; i < 400; i++) {
		served[serve()]++;
		good = good && served[0] <= served[1] + 1 && served[1] <= served[0] + 1;
	}
	ok(good, "two with as much waiting take turns");

	begin();
	for (unsigned i = 0; i < 500; i++)
		come(0, 1, 0);
	for (unsigned i = 0; i < 500; i++)
		serve();
	come(0, 1, 0);
	come(1, 1, 0);
	ok(serve() == 0 && serve() == 1, "what an account had in the past does not count");

	begin();
	come(0, 1, 0);
	for (unsigned who = 1; who < 1000; who++)
		come(who, 1, 0);
	good = true;
	for (unsigned who = 0; who < 1000; who++)
		good = good && serve() == who;
	ok(good, "accounts with one each keep the order in which they came");

	begin();
	come(0, 1, 0);
	fair_serve(&fair, 100 * FAIR_RECIPIENT);
	fair_serve(&fair, waiting[0].tag);
	ok(fair.now == 100 * FAIR_RECIPIENT, "virtual time does not run backwards");

	begin();
	weights[1] = 4;
	for (unsigned i = 0; i < 500; i++) {
		come(0, 1, 0);
		come(1, 1, 0);
	}
	served[0] = served[1] = 0;
	good = true;
	for (unsigned i = 0; i < 400; i++) {
		served[serve()]++;
		good = good && served[1] + 4 >= 4 * served[0] && served[1] <= 4 * served[0] + 4;
	}
	ok(good && served[1] == 320, "one of weight 4 beside one of weight 1 has four of five");
	weigh(0, 100);
	weigh(1, 1);
	served[0] = served[1] = 0;
	for (unsigned i = 0; i < 101; i++)
		served[serve()]++;
	ok(served[0] == 100 && served[1] == 1, "another weight holds for what waits already");

	begin();
	weights[0] = 100;
	for (unsigned i = 0; i < 100; i++)
		come(0, 1, 0);
	come(1, 1, 0);
	ok(until(1) <= 101, "the heaviest is before the lightest, but not for long");
	return tap_end();
}
