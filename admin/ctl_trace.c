#include "admin/ctl.h"

/* trace and account history: results for people. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"
#include "queue/id.h"

#define PATIENCE  15 /* s */
#define LIMIT     100
#define LIMIT_MAX 10000

/* A queue id, a Message-ID (in angle brackets) or an address: which, tells the form. */
static void
take_what(json_t *request)
{
	json_t *what = json_object_get(request, "what");
	const char *text = json_string_value(what);
	struct queue_id id;

	if (queue_id_parse(text, &id))
		json_object_set(request, "message", what);
	else if (text[0] == '<')
		json_object_set(request, "message_id", what);
	else if (strchr(text, '@') != NULL)
		json_object_set(request, "address", what);
	else
		ctl_usage("say what to trace: a queue id, a Message-ID in <>, or an address");
	json_object_del(request, "what");
}

/* Pages of a list, at most limit of its rows, as one result. */
static json_t *
ask_pages(json_t *request, const char *key, size_t limit)
{
	json_t *whole = NULL;

	for (bool more = true; more;) {
		json_t *page = ctl_ask(json_deep_copy(request), PATIENCE);
		json_t *next = json_object_get(page, "next");

		if (whole == NULL)
			whole = json_incref(page);
		else
			json_array_extend(json_object_get(whole, key), json_object_get(page, key));
		more = json_is_string(next) && json_array_size(json_object_get(whole, key)) < limit;
		if (json_is_string(next))
			json_object_set(request, "after", next);
		json_object_set(whole, "next", next);
		json_decref(page);
	}
	while (json_array_size(json_object_get(whole, key)) > limit)
		json_array_remove(json_object_get(whole, key), limit);
	json_object_del(request, "after");
	return whole;
}

/* Where, and whom it met, in one column each. */
static void
add_columns(json_t *event)
{
	const char *host = json_string_value(json_object_get(event, "host"));
	const char *ip = json_string_value(json_object_get(event, "ip"));
	const char *tls = json_string_value(json_object_get(event, "tls"));
	const char *lane = json_string_value(json_object_get(event, "lane"));
	const char *from = json_string_value(json_object_get(event, "from_lane"));
	const char *message = json_string_value(json_object_get(event, "message"));
	const char *text = json_string_value(json_object_get(event, "text"));

	if (host != NULL)
		json_object_set_new(event, "met",
		                    json_sprintf("%s%s%s%s%s%s", host, ip ? " [" : "", ip ? ip : "",
		                                 ip ? "]" : "", tls ? " " : "", tls ? tls : ""));
	if (from != NULL)
		json_object_set_new(event, "text", json_sprintf("%s to %s", from, lane));
	if (message != NULL)
		json_object_set_new(event, "text",
		                    json_sprintf("%s, %s", message, text ? text : ""));
}

static void
print_life(const json_t *result)
{
	static const char *const fields[][2] = {{"id", "id"},
	                                        {"state", "state"},
	                                        {"rule", "rule"},
	                                        {"lane", "lane"},
	                                        {"next attempt", "due"},
	                                        {"account", "account"},
	                                        {"from", "from"},
	                                        {"message-id", "message_id"},
	                                        {"size", "size"},
	                                        {"recipients", "recipients"},
	                                        {"client", "client_ip"},
	                                        {"client port", "client_port"},
	                                        {"ehlo", "ehlo"},
	                                        {"protocol", "protocol"}};
	static struct ctl_column columns[] = {
	    {.key = "time", .head = "TIME"},    {.key = "event", .head = "EVENT"},
	    {.key = "to", .head = "RECIPIENT"}, {.key = "attempt", .head = "TRY", .right = true},
	    {.key = "lane", .head = "LANE"},    {.key = "met", .head = "HOST"},
	    {.key = "text", .head = "WHAT"},    {.key = NULL}};
	json_t *events = json_object_get(result, "events"), *event;
	size_t i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		ctl_line(fields[i][0], result, fields[i][1]);
	putchar('\n');
	json_array_foreach(events, i, event)
	{
		add_columns(event);
	}
	ctl_table(columns, events);
	if (json_is_true(json_object_get(result, "incomplete")))
		puts("\nso many attempts were deferred that not each is listed");
}

static void
print_list(const json_t *result)
{
	static struct ctl_column columns[] = {{.key = "accepted", .head = "ACCEPTED"},
	                                      {.key = "id", .head = "ID"},
	                                      {.key = "from", .head = "FROM"},
	                                      {.key = "to", .head = "TO"},
	                                      {.key = "size", .head = "SIZE", .right = true},
	                                      {.key = "state", .head = "STATE"},
	                                      {.key = "attempts", .head = "TRIES", .right = true},
	                                      {.key = "due", .head = "NEXT TRY"},
	                                      {.key = "reply", .head = "LAST REPLY"},
	                                      {.key = NULL}};

	ctl_table(columns, json_object_get(result, "recipients"));
	if (json_is_string(json_object_get(result, "next")))
		puts("\nthere are older ones; --limit shows more");
}

/* The one message that all rows are about; NULL: there are several, or none. */
static json_t *
only_message(const json_t *result)
{
	json_t *rows = json_object_get(result, "recipients"), *row, *id = NULL;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (id != NULL && !json_equal(id, json_object_get(row, "id")))
			return NULL;
		id = json_object_get(row, "id");
	}
	return json_is_string(json_object_get(result, "next")) ? NULL : id;
}

static size_t
take_limit(json_t *request)
{
	const char *text = json_string_value(json_object_get(request, "limit"));
	char *end = NULL;
	unsigned long limit = LIMIT;

	if (text != NULL) {
		limit = strtoul(text, &end, 10);
		if (*end != '\0' || end == text || limit == 0 || limit > LIMIT_MAX)
			ctl_usage("--limit takes a number from 1 to 10000");
	}
	json_object_del(request, "limit");
	return limit;
}

int
ctl_trace_run(json_t *request)
{
	const size_t limit = take_limit(request);
	json_t *result, *id;

	take_what(request);
	if (json_object_get(request, "message") == NULL) {
		const bool by_id = json_object_get(request, "message_id") != NULL;

		result = ask_pages(request, "recipients", limit);
		if (json_array_size(json_object_get(result, "recipients")) == 0)
			ctl_die(CTL_REFUSED,
			        by_id ? "no message with that Message-ID is known"
			              : "no mail from or to that address is known; a Message-ID "
			                "goes in <>");
		id = by_id ? only_message(result) : NULL;
		if (id == NULL) {
			if (ctl_wants_json()) {
				ctl_json(result);
				putchar('\n');
			} else {
				print_list(result);
			}
			json_decref(result);
			return 0;
		}
		json_object_del(request, "message_id");
		json_object_del(request, "since");
		json_object_set(request, "message", id);
		json_decref(result);
	}
	result = ask_pages(request, "events", LIMIT_MAX);
	json_object_del(result, "next");
	if (ctl_wants_json()) {
		ctl_json(result);
		putchar('\n');
	} else {
		print_life(result);
	}
	json_decref(result);
	return 0;
}

void
ctl_account_print_history(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {{.key = "time", .head = "TIME"},
	                                      {.key = "from", .head = "FROM"},
	                                      {.key = "to", .head = "TO"},
	                                      {.key = "size", .head = "SIZE", .right = true},
	                                      {.key = "words", .head = "STATE"},
	                                      {.key = "reply", .head = "LAST REPLY"},
	                                      {.key = NULL}};

	(void)request;
	ctl_table(columns, json_object_get(result, "entries"));
}
