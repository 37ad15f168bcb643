#include <string.h>

#include "relay/client_int.h"
#include "t/unit/tap.h"

/* Setup: connections that have carried something, to hosts with and without LIMITS, and jobs with
 * and without a bound of their own.
 * Expectation: a transaction has as many recipients as host, job and configuration all bear; a
 * connection that has carried what it may has room for none. */

static struct conf conf = {.relay_deliveries = 100};

static size_t
room(const struct client *client, unsigned session_recipients, const char *domain)
{
	const struct queue_job job = {.session_recipients = session_recipients, .domain = domain};

	return transaction_room(client, &job);
}

int
main(void)
{
	struct client client = {.opts.conf = &conf};

	ok(room(&client, 0, "a.example") >= 1000, "without bounds as many as there are");
	ok(room(&client, 100, "a.example") == 100, "the job's bound");
	client.limits.rcpts = 30;
	ok(room(&client, 100, "a.example") == 30 && room(&client, 20, "a.example") == 20,
	   "the host's bound of a transaction, whichever is less");
	client.mails = 1;
	client.rcpts = 80;
	ok(room(&client, 100, "a.example") == 20, "what the session still bears");
	client.rcpts = 100;
	ok(room(&client, 100, "a.example") == 0, "a session that has had its recipients");
	ok(room(&client, 0, "a.example") == 30, "is open to a job without a bound");
	client.limits = (struct client_limits){.mails = 2};
	ok(room(&client, 0, "a.example") > 0, "one message of two");
	client.mails = 2;
	ok(room(&client, 0, "a.example") == 0, "two of two");
	client.limits.mails = 1000;
	client.mails = 99;
	ok(room(&client, 0, "a.example") > 0, "the hundredth");
	client.mails = 100;
	ok(room(&client, 0, "a.example") == 0, "relay.deliveries, whatever the host would bear");
	const struct queue_job more = {.session_messages = 101}, fewer = {.session_messages = 99};
	ok(transaction_room(&client, &more) > 0 && transaction_room(&client, &fewer) == 0,
	   "what the site's entry says instead");
	client = (struct client){.opts.conf = &conf, .limits.domains = 1, .domains = 1};
	strcpy(client.domain, "a.example");
	ok(room(&client, 0, "a.example") > 0 && room(&client, 0, "b.example") == 0,
	   "a session for one domain");
	return tap_end();
}
