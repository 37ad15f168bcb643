#include "admin/ctl.h"

/* queue: results for people. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

void
ctl_queue_print_list(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {{.key = "id", .head = "ID"},
	                                      {.key = "state", .head = "STATE"},
	                                      {.key = "lane", .head = "LANE"},
	                                      {.key = "span", .head = "AGE", .right = true},
	                                      {.key = "due", .head = "DUE"},
	                                      {.key = "attempts", .head = "TRIES", .right = true},
	                                      {.key = "unfinished", .head = "LEFT", .right = true},
	                                      {.key = "recipients", .head = "OF", .right = true},
	                                      {.key = "size", .head = "SIZE", .right = true},
	                                      {.key = "account", .head = "ACCOUNT"},
	                                      {.key = "last_reply", .head = "LAST REPLY"},
	                                      {.key = NULL}};

	json_t *rows = json_object_get(result, "messages"), *row;
	char span[CTL_SPAN_SIZE];
	size_t i;

	(void)request;
	json_array_foreach(rows, i, row)
	{
		ctl_span(json_integer_value(json_object_get(row, "age")), span);
		json_object_set_new(row, "span", json_string(span));
	}
	ctl_table(columns, rows);
}

static const struct ctl_column hold_columns[] = {
    {.key = "what", .head = "WHAT"},     {.key = "since", .head = "SINCE"},
    {.key = "until", .head = "UNTIL"},   {.key = "action", .head = "ACTION"},
    {.key = "to", .head = "TO"},         {.key = "by", .head = "BY"},
    {.key = "reason", .head = "REASON"}, {.key = NULL}};

void
ctl_queue_print_holds(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[sizeof(hold_columns) / sizeof(*hold_columns)];

	(void)request;
	if (columns[0].key == NULL)
		memcpy(columns, hold_columns, sizeof(columns));
	ctl_table(columns, json_object_get(result, "holds"));
}

/* One of maybe several: each has its tables' heads and widths. */
static void
print_message(const json_t *request, const json_t *result)
{
	static const char *const fields[][2] = {{"id", "id"},
	                                        {"state", "state"},
	                                        {"rule", "rule"},
	                                        {"lane", "lane"},
	                                        {"account", "account"},
	                                        {"from", "from"},
	                                        {"accepted", "accepted"},
	                                        {"due", "due"},
	                                        {"size", "size"},
	                                        {"attempts", "attempts"},
	                                        {"client", "client_ip"},
	                                        {"client port", "client_port"},
	                                        {"ehlo", "ehlo"}};
	struct ctl_column columns[] = {{.key = "address", .head = "RECIPIENT"},
	                               {.key = "state", .head = "STATE"},
	                               {.key = "attempts", .head = "TRIES", .right = true},
	                               {.key = "when", .head = "LAST TRY"},
	                               {.key = "next_hop", .head = "NEXT HOP"},
	                               {.key = "reply", .head = "REPLY"},
	                               {.key = NULL}};
	json_t *rows = json_object_get(result, "rcpt"), *row;
	bool rerouted = false;
	size_t index;

	(void)request;
	json_array_foreach(rows, index, row)
	{
		rerouted |= json_is_string(json_object_get(row, "next_hop"));
	}
	if (!rerouted) {
		columns[4] = columns[5];
		columns[5].key = NULL;
	}
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		ctl_line(fields[i][0], result, fields[i][1]);
	putchar('\n');
	ctl_table(columns, rows);
	if (json_array_size(json_object_get(result, "holds")) > 0) {
		struct ctl_column holds[sizeof(hold_columns) / sizeof(*hold_columns)];

		memcpy(holds, hold_columns, sizeof(holds));
		putchar('\n');
		ctl_table(holds, json_object_get(result, "holds"));
	}
}

void
ctl_queue_print_audit(const json_t *request, const json_t *result)
{
	static const char *const fields[][2] = {
	    {"accepted", "accepted"}, {"generated", "generated"}, {"delivered", "delivered"},
	    {"bounced", "bounced"},   {"expired", "expired"},     {"removed", "removed"},
	    {"queued", "queued"},     {"messages", "messages"},   {"orphans", "orphans"}};
	(void)request;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		ctl_line(fields[i][0], result, fields[i][1]);
	puts(ctl_queue_finish_audit(result) == 0
	         ? "conserved: every accepted recipient is accounted for"
	         : "NOT CONSERVED");
}

int
ctl_queue_finish_audit(const json_t *result)
{
	return json_is_true(json_object_get(result, "conserved")) ? 0 : CTL_REFUSED;
}

/* Which messages: some condition, or all. */
void
ctl_queue_prepare(json_t *request)
{
	static const char *const keys[] = {"message", "account", "sender", "recipient",
	                                   "site",    "lane",    "older",  "younger",
	                                   "larger",  "smaller", "reply"};
	const char *rate = json_string_value(json_object_get(request, "rate"));
	unsigned given = 0;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		given += json_object_get(request, keys[i]) != NULL;
	if ((given > 0) == (json_object_get(request, "all") != NULL))
		ctl_usage("say which messages: an id, or --account, --sender, --recipient, --site, "
		          "--lane, --older, --younger, --larger, --smaller, --reply");
	if (rate == NULL)
		return;
	if (*rate == '\0' || strlen(rate) > 6 || strspn(rate, "0123456789") != strcspn(rate, "/") ||
	    atoi(rate) == 0 || (strchr(rate, '/') != NULL && strcmp(strchr(rate, '/'), "/s") != 0))
		ctl_usage("--rate takes a number of messages a second, such as 100 or 100/s");
	json_object_set_new(request, "rate", json_integer(atoi(rate)));
}

#define PATIENCE       15 /* s, of one share */
#define PROGRESS_AFTER 2  /* s */

/* --- several ids --- */

/* The request, for the i-th of the ids, or as it is if there is one or none; NULL behind the last.
 */
static json_t *
request_for(const json_t *request, size_t i)
{
	const json_t *ids = json_object_get(request, "messages");
	json_t *one;

	if (i >= (ids != NULL ? json_array_size(ids) : 1))
		return NULL;
	one = json_deep_copy(request);
	if (ids != NULL)
		json_object_set(one, "message", json_array_get(ids, i));
	json_object_del(one, "messages");
	return one;
}

static void
tell_ids(const char *title, const json_t *ids)
{
	const json_t *id;
	size_t i;

	fflush(stdout);
	json_array_foreach(ids, i, id)
	{
		fprintf(stderr, "%s%s", i > 0 ? " " : title, ctl_harmless(json_string_value(id)));
	}
	fputs(i > 0 ? "\n" : "", stderr);
}

static bool
has_ids(const json_t *request)
{
	return json_object_get(request, "message") != NULL;
}

/* Ends the program if one of them is not in the queue: a slip is not to be half done. */
static void
check_ids(const json_t *request)
{
	json_t *unknown = json_array(), *one;

	for (size_t i = 0; has_ids(request) && (one = request_for(request, i)) != NULL; i++) {
		json_t *id = json_object_get(one, "message");
		json_t *found = ctl_ask(
		    json_pack("{s:s,s:O}", "command", "queue.list", "message", id), PATIENCE);

		if (json_array_size(json_object_get(found, "messages")) == 0)
			json_array_append(unknown, id);
		json_decref(found);
		json_decref(one);
	}
	if (json_array_size(unknown) > 0) {
		json_t *told = json_pack("{s:O}", "unknown", unknown);

		if (ctl_wants_json()) {
			ctl_json(told);
			putchar('\n');
		}
		tell_ids("not queued: ", unknown);
		ctl_die(CTL_REFUSED, "nothing was done");
	}
	json_decref(unknown);
}

/* The request of each id; of several, what is not found is told at the end. */
static int
run_each(const json_t *request, void (*print)(const json_t *request, const json_t *result))
{
	const bool several = json_object_get(request, "messages") != NULL;
	json_t *results = json_array(), *unknown = json_array(), *one;
	int status;

	for (size_t i = 0; (one = request_for(request, i)) != NULL; i++) {
		json_t *id = json_object_get(one, "message");
		json_t *result = several ? ctl_ask_known(json_deep_copy(one), PATIENCE)
		                         : ctl_ask(json_deep_copy(one), PATIENCE);

		if (result == NULL)
			json_array_append(unknown, id);
		else if (ctl_wants_json())
			json_array_append(results, result);
		else
			print(one, result);
		json_decref(result);
		json_decref(one);
	}
	if (ctl_wants_json()) {
		json_t *whole = several
		                    ? json_pack("{s:O,s:O}", "results", results, "unknown", unknown)
		                    : json_incref(json_array_get(results, 0));

		ctl_json(whole);
		putchar('\n');
		json_decref(whole);
	}
	tell_ids("not found: ", unknown);
	status = json_array_size(unknown) > 0 ? CTL_REFUSED : 0;
	json_decref(results);
	json_decref(unknown);
	return status;
}

static void
print_one_of_many(const json_t *request, const json_t *result)
{
	static bool again;

	if (again)
		putchar('\n');
	again = true;
	print_message(request, result);
}

int
ctl_queue_run_show(json_t *request)
{
	return run_each(request, print_one_of_many);
}

static void
print_hold(const json_t *request, const json_t *result)
{
	const char *command = json_string_value(json_object_get(request, "command"));

	if (strcmp(command, "queue.release") == 0)
		printf("released: %s\n", ctl_show(result, "what"));
	else
		printf("held: %s, until %s\n", ctl_show(result, "what"),
		       json_is_null(json_object_get(result, "until")) ? "it is released"
		                                                      : ctl_show(result, "until"));
}

/* --- acts upon many messages, which come in shares --- */

static const char *const sums[] = {"messages", "recipients", "busy"};

/* All shares of one request, which is taken, added to total. */
static void
add_shares(json_t *request, json_t *total, time_t *told)
{
	for (bool more = true; more;) {
		json_t *share = ctl_ask(json_deep_copy(request), PATIENCE);
		json_t *next = json_object_get(share, "next");

		for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++)
			json_object_set_new(
			    total, sums[i],
			    json_integer(json_integer_value(json_object_get(total, sums[i])) +
			                 json_integer_value(json_object_get(share, sums[i]))));
		more = json_is_string(next);
		if (more)
			json_object_set(request, "after", next);
		json_decref(share);
		if (more && time(NULL) - *told >= PROGRESS_AFTER) {
			*told = time(NULL);
			fprintf(stderr, "%s messages so far\n", ctl_show(total, "messages"));
		}
	}
	json_decref(request);
}

static json_t *
run_shares(const json_t *request)
{
	json_t *total = json_pack("{s:i,s:i,s:i}", sums[0], 0, sums[1], 0, sums[2], 0), *one;
	time_t told = time(NULL);

	for (size_t i = 0; (one = request_for(request, i)) != NULL; i++)
		add_shares(one, total, &told);
	return total;
}

static int
run_act(json_t *request, const char *done, const char *would)
{
	json_t *total;

	check_ids(request);
	total = run_shares(request);
	if (ctl_wants_json()) {
		ctl_json(total);
		putchar('\n');
	} else {
		printf("%s: %s recipients of %s messages\n",
		       json_is_true(json_object_get(request, "dry_run")) ? would : done,
		       ctl_show(total, "recipients"), ctl_show(total, "messages"));
		if (json_integer_value(json_object_get(total, "busy")) > 0)
			printf("left alone, because they are being attempted: %s\n",
			       ctl_show(total, "busy"));
	}
	json_decref(total);
	return 0;
}

int
ctl_queue_run_hold(json_t *request)
{
	const bool release =
	    strcmp(json_string_value(json_object_get(request, "command")), "queue.release") == 0;

	if (json_is_true(json_object_get(request, "dry_run")))
		return run_act(request, "", release ? "selected" : "would be held");
	if (!release)
		check_ids(request);
	return run_each(request, print_hold);
}

int
ctl_queue_run_flush(json_t *request)
{
	return run_act(request, "due now", "would be due now");
}

/* What is for good: counts first, and asks. */
static void
confirm(json_t *request, const char *verb)
{
	json_t *count;
	int c;

	if (!isatty(STDIN_FILENO))
		ctl_usage("where nobody can be asked it takes --yes; --dry-run counts only");
	check_ids(request);
	json_object_set_new(request, "dry_run", json_true());
	count = run_shares(request);
	json_object_del(request, "dry_run");
	fprintf(stderr, "%s %s recipients of %s messages? (y/n) ", verb,
	        ctl_show(count, "recipients"), ctl_show(count, "messages"));
	json_decref(count);
	c = getchar();
	if (c != 'y' && c != 'Y')
		ctl_die(CTL_REFUSED, "nothing was done");
}

static int
run_for_good(json_t *request, const char *verb, const char *done, const char *would)
{
	const bool sure = json_object_del(request, "yes") == 0;

	if (!sure && !json_is_true(json_object_get(request, "dry_run")))
		confirm(request, verb);
	return run_act(request, done, would);
}

int
ctl_queue_run_bounce(json_t *request)
{
	return run_for_good(request, "Bounce", "bounced", "would be bounced");
}

int
ctl_queue_run_reroute(json_t *request)
{
	const char *to = json_string_value(json_object_get(request, "to"));
	bool lane;

	if (to == NULL)
		ctl_usage("say where: --to fresh, --to retry, --to fallback, --to HOST[:PORT], or "
		          "--to default for where the configuration sends it");
	lane = strcmp(to, "fresh") == 0 || strcmp(to, "retry") == 0 || strcmp(to, "fallback") == 0;
	return run_act(request, lane ? "moved" : "rerouted",
	               lane ? "would be moved" : "would be rerouted");
}

int
ctl_queue_run_remove(json_t *request)
{
	return run_for_good(request, "Remove", "removed", "would be removed");
}

/* --- a check, which comes in shares, too --- */

#define PATIENCE_CHECK 90 /* s, of one share: the last one waits for the books */

static void
tell_progress(const json_t *share)
{
	fprintf(stderr, "%s records, %s bodies, %lld MiB so far (%s)\n", ctl_show(share, "records"),
	        ctl_show(share, "bodies"),
	        (long long)(json_integer_value(json_object_get(share, "octets")) >> 20),
	        ctl_show(share, "doing"));
}

static void
print_faults(const json_t *faults)
{
	const json_t *fault;
	size_t i;

	json_array_foreach(faults, i, fault)
	{
		printf("%s: %s\n", ctl_show(fault, "where"), ctl_show(fault, "what"));
		printf("    %s\n", ctl_show(fault, "todo"));
	}
}

int
ctl_queue_run_check(json_t *request)
{
	json_t *all = json_array(), *share = NULL;
	time_t told = time(NULL);
	bool more = true;
	size_t count;

	while (more) {
		json_decref(share);
		share = ctl_ask(json_deep_copy(request), PATIENCE_CHECK);
		json_array_extend(all, json_object_get(share, "faults"));
		if (!ctl_wants_json())
			print_faults(json_object_get(share, "faults"));
		more = !json_is_null(json_object_get(share, "next"));
		if (more)
			json_object_set(request, "check", json_object_get(share, "next"));
		if (more && time(NULL) - told >= PROGRESS_AFTER) {
			told = time(NULL);
			tell_progress(share);
		}
	}
	count = json_array_size(all);
	if (ctl_wants_json()) {
		json_object_set(share, "faults", all);
		json_object_del(share, "doing");
		json_object_del(share, "next");
		ctl_json(share);
		putchar('\n');
	} else {
		printf("%s records and %s bodies of %lld MiB: ", ctl_show(share, "records"),
		       ctl_show(share, "bodies"),
		       (long long)(json_integer_value(json_object_get(share, "octets")) >> 20));
		if (count)
			printf("%zu faults\n", count);
		else
			puts("nothing is wrong");
	}
	json_decref(share);
	json_decref(all);
	return count ? CTL_REFUSED : 0;
}
