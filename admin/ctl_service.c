#include "admin/ctl.h"

/* status and stop: what somebody wants to see who was woken up. */

#include <stdio.h>
#include <string.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

#define PATIENCE_STOP   90
#define CERTIFICATE_LOW (14 * 86400) /* s */

static json_int_t
number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* What needs attention, first and in capitals; nothing else is. */
static void
print_trouble(const json_t *result)
{
	const json_t *queue = json_object_get(result, "queue"), *row;
	const json_t *configuration = json_object_get(result, "configuration");
	const json_t *left = json_object_get(configuration, "certificate_left");
	char span[CTL_SPAN_SIZE];
	bool some = false;
	size_t index;

	json_array_foreach(json_object_get(result, "processes"), index, row)
	{
		const char *state = ctl_show(row, "state");

		if (strcmp(state, "up") == 0)
			continue;
		printf("%-*s %s %s is %s, restarted %s times\n", CTL_TITLE, "PROCESS",
		       ctl_show(row, "role"), ctl_show(row, "index"), state,
		       ctl_show(row, "restarts"));
		some = true;
	}
	json_array_foreach(json_object_get(result, "processes"), index, row)
	{
		const char *load = ctl_show(row, "load");

		if (strcmp(load, "normal") == 0)
			continue;
		printf("%-*s %s %s is %s, and %s\n", CTL_TITLE, "LOAD", ctl_show(row, "role"),
		       ctl_show(row, "index"), load,
		       strcmp(load, "full") == 0 ? "refuses new sessions"
		                                 : "gives clients less time");
		some = true;
	}
	if (json_array_size(json_object_get(result, "processes")) == 0)
		some = printf("%-*s sekishod does not answer\n", CTL_TITLE, "SEKISHOD") > 0;
	if (!json_is_object(queue))
		some = printf("%-*s the queue does not answer\n", CTL_TITLE, "QUEUE") > 0;
	if (json_is_true(json_object_get(queue, "refusing")))
		some = printf("%-*s %s\n", CTL_TITLE, "REFUSING MAIL",
		              ctl_show(queue, "refusing_why")) > 0;
	if (json_is_true(json_object_get(queue, "ledger_held")))
		some = printf("%-*s the clock jumped forward; quotas free nothing until it has "
		              "stayed, or \"quota clock\" (ledger %s)\n",
		              CTL_TITLE, "LEDGER HELD", ctl_show(queue, "ledger_time")) > 0;
	if (json_is_integer(left) && json_integer_value(left) <= 0)
		some = printf("%-*s expired %s\n", CTL_TITLE, "CERTIFICATE",
		              ctl_show(configuration, "certificate_expires")) > 0;
	else if (json_is_integer(left) && json_integer_value(left) < CERTIFICATE_LOW)
		some = printf("%-*s expires in %s, %s\n", CTL_TITLE, "CERTIFICATE",
		              ctl_span(json_integer_value(left), span),
		              ctl_show(configuration, "certificate_expires")) > 0;
	if (!some)
		puts("nothing needs attention");
}

static void
print_processes(const json_t *processes)
{
	struct ctl_column columns[] = {
	    {.key = "role", .head = "PROCESS"},
	    {.key = "index", .head = "NO", .right = true},
	    {.key = "lane", .head = "LANE"},
	    {.key = "pid", .head = "PID", .right = true},
	    {.key = "state", .head = "STATE"},
	    {.key = "span", .head = "UPTIME"},
	    {.key = "since", .head = "SINCE"},
	    {.key = "restarts", .head = "RESTARTS", .right = true},
	    {.key = "log", .head = "LOG"},
	    {.key = "layers", .head = "LAYERS"},
	    {.key = NULL},
	};
	json_t *rows = json_deep_copy(processes), *row;
	char span[CTL_SPAN_SIZE];
	size_t index;

	json_array_foreach(rows, index, row)
	{
		if (json_is_integer(json_object_get(row, "uptime")))
			json_object_set_new(row, "span",
			                    json_string(ctl_span(number(row, "uptime"), span)));
	}
	ctl_table(columns, rows);
	json_decref(rows);
}

static void
print_queue(const json_t *queue)
{
	static const char *const counters[] = {"accepted", "generated", "delivered",
	                                       "bounced",  "expired",   "removed"};
	struct ctl_column columns[] = {
	    {.key = "lane", .head = "LANE"},
	    {.key = "messages", .head = "MESSAGES", .right = true},
	    {.key = "recipients", .head = "RECIPIENTS", .right = true},
	    {.key = NULL},
	};
	json_t *rows = json_array(), *lane;
	char span[CTL_SPAN_SIZE];
	const char *name;

	json_object_foreach(json_object_get(queue, "lanes"), name, lane)
	{
		json_t *row = json_copy(lane);

		json_object_set_new(row, "lane", json_string(name));
		json_array_append_new(rows, row);
	}
	ctl_table(columns, rows);
	json_decref(rows);
	putchar('\n');
	ctl_line("in flight", queue, "in_flight");
	printf("%-*s %s", CTL_TITLE, "oldest", ctl_show(queue, "oldest"));
	if (json_is_integer(json_object_get(queue, "oldest_age")))
		printf(", %s ago", ctl_span(number(queue, "oldest_age"), span));
	putchar('\n');
	printf("%-*s %lld MiB on disk, mail is refused below %lld MiB; databases %s %% full\n",
	       CTL_TITLE, "room", (long long)(number(queue, "disk_free") >> 20),
	       (long long)(number(queue, "disk_reserve") >> 20), ctl_show(queue, "map_percent"));
	if (json_array_size(json_object_get(queue, "holds")) > 0) {
		putchar('\n');
		ctl_queue_print_holds(NULL, queue);
		if (json_is_true(json_object_get(queue, "more_holds")))
			puts("and more: sekishoctl queue holds");
	}
	puts("\nrecipients since the spool was made");
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		ctl_line(counters[i], queue, counters[i]);
}

void
ctl_status_print(const json_t *request, const json_t *result)
{
	const json_t *queue = json_object_get(result, "queue");
	const json_t *configuration = json_object_get(result, "configuration");
	const json_t *left = json_object_get(configuration, "certificate_left");
	char span[CTL_SPAN_SIZE];

	(void)request;
	print_trouble(result);
	putchar('\n');
	if (number(configuration, "generation") > 0)
		printf("%-*s generation %s of %s, since %s\n", CTL_TITLE, "configuration",
		       ctl_show(configuration, "generation"), ctl_show(configuration, "file"),
		       ctl_show(configuration, "loaded"));
	if (json_is_integer(left))
		printf("%-*s expires %s, in %s\n", CTL_TITLE, "certificate",
		       ctl_show(configuration, "certificate_expires"),
		       ctl_span(json_integer_value(left), span));
	printf("%-*s %s\n\n", CTL_TITLE, "now", ctl_show(result, "now"));
	print_processes(json_object_get(result, "processes"));
	if (!json_is_object(queue))
		return;
	putchar('\n');
	print_queue(queue);
}

void
ctl_stop_print(const json_t *request, const json_t *result)
{
	(void)request;
	(void)result;
	puts("stopped");
}

/* Also for --json: the answer comes before the end. */
int
ctl_stop_finish(const json_t *result)
{
	(void)result;
	ctl_ask_await_end(PATIENCE_STOP);
	return 0;
}
