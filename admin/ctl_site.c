#include "admin/ctl.h"

/* site: for people. */

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

/* "suspended", "waits", "probing", "slow", "limited"; "-": nothing of that. */
static const char *
state_of(const json_t *site)
{
	const char *paused = json_string_value(json_object_get(site, "paused"));

	if (paused)
		return strcmp(paused, "operator") == 0 ? "suspended" : paused;
	if (json_is_true(json_object_get(site, "probing")))
		return "probing";
	if (json_is_true(json_object_get(site, "slow")))
		return "slow";
	return json_is_object(json_object_get(site, "by_operator")) ||
	               json_is_object(json_object_get(site, "by_rule"))
	           ? "limited"
	           : "-";
}

void
ctl_site_print_list(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {
	    {.key = "site", .head = "SITE"},
	    {.key = "state", .head = "STATE"},
	    {.key = "limit", .head = "LIMIT", .right = true},
	    {.key = "in_flight", .head = "NOW", .right = true},
	    {.key = "waiting", .head = "IN LINE", .right = true},
	    {.key = "recent", .head = "P90 MS", .right = true},
	    {.key = "timeouts", .head = "TIMEOUTS", .right = true},
	    {.key = "delivered", .head = "DELIVERED", .right = true},
	    {.key = "deferred", .head = "DEFERRED", .right = true},
	    {.key = "failed", .head = "FAILED", .right = true},
	    {.key = "last_reply", .head = "LAST REPLY"},
	    {.key = NULL}};
	json_t *rows = json_object_get(result, "sites"), *row;
	size_t i;

	(void)request;
	json_array_foreach(rows, i, row)
	{
		json_object_set_new(row, "state", json_string(state_of(row)));
	}
	ctl_table(columns, rows);
}

void
ctl_site_print_rules(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {{.key = "name", .head = "RULE"},
	                                      {.key = "action", .head = "ACTION"},
	                                      {.key = "count", .head = "COUNT", .right = true},
	                                      {.key = "last", .head = "LAST"},
	                                      {.key = "site", .head = "SITE"},
	                                      {.key = "code", .head = "CODE"},
	                                      {.key = "enhanced", .head = "ENHANCED"},
	                                      {.key = "text", .head = "TEXT"},
	                                      {.key = NULL}};

	(void)request;
	ctl_table(columns, json_object_get(result, "rules"));
}

static void
print_rate(const char *title, const json_t *rate)
{
	char span[CTL_SPAN_SIZE];

	if (json_is_object(rate))
		printf("%-*s %s in %s\n", CTL_TITLE, title, ctl_show(rate, "count"),
		       ctl_span(json_integer_value(json_object_get(rate, "seconds")), span));
}

static void
print_cap(const char *title, const json_t *cap)
{
	if (!json_is_object(cap))
		return;
	printf("%-*s until %s: %s\n", CTL_TITLE, title, ctl_show(cap, "until"),
	       ctl_show(cap, "why"));
	ctl_line("  connections", cap, "connections");
	print_rate("  rate", json_object_get(cap, "rate"));
}

static void
print_times(const json_t *result)
{
	static const char *const kinds[] = {"connect", "greeting", "reply"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const json_t *times = json_object_get(result, kinds[i]);

		printf("%-*s half in %s ms, 90 %% in %s, 99 %% in %s\n", CTL_TITLE, kinds[i],
		       ctl_show(times, "p50"), ctl_show(times, "p90"), ctl_show(times, "p99"));
	}
}

void
ctl_site_print(const json_t *request, const json_t *result)
{
	static const char *const counts[][2] = {
	    {"in flight", "in_flight"},      {"in line", "waiting"},
	    {"at once now", "limit"},        {"configured as", "override"},
	    {"pauses in a row", "failures"}, {"failing since", "failing"}};
	static const char *const more[][2] = {
	    {"recent p90 ms", "recent"}, {"delivered", "delivered"}, {"deferred", "deferred"},
	    {"failed", "failed"},        {"timeouts", "timeouts"},   {"last contact", "seen"},
	    {"last reply", "last_reply"}};
	const json_t *domains = json_object_get(result, "domains"), *domain;
	size_t i;

	(void)request;
	ctl_line("site", result, "site");
	printf("%-*s %s\n", CTL_TITLE, "state", state_of(result));
	if (json_is_string(json_object_get(result, "paused")))
		printf("%-*s until %s: %s\n", CTL_TITLE, "paused", ctl_show(result, "until"),
		       ctl_show(result, "why"));
	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		ctl_line(counts[i][0], result, counts[i][1]);
	print_rate("rate", json_object_get(result, "rate"));
	print_cap("by a rule", json_object_get(result, "by_rule"));
	print_cap("by an operator", json_object_get(result, "by_operator"));
	print_times(result);
	for (i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		ctl_line(more[i][0], result, more[i][1]);
	json_array_foreach(domains, i, domain)
	{
		printf("%-*s %s\n", CTL_TITLE, i == 0 ? "serves" : "",
		       ctl_harmless(json_string_value(domain)));
	}
	if (json_integer_value(json_object_get(result, "domain_count")) >
	    (json_int_t)json_array_size(domains))
		printf("%-*s … %s in all\n", CTL_TITLE, "", ctl_show(result, "domain_count"));
}

void
ctl_site_prepare_limit(json_t *request)
{
	const char *text = json_string_value(json_object_get(request, "connections"));
	unsigned long long n;
	char *end;

	if (json_object_get(request, "clear") != NULL) {
		if (text != NULL || json_object_get(request, "rate") != NULL ||
		    json_object_get(request, "for") != NULL)
			ctl_usage("--clear ends a limit; it takes no other but --reason");
		json_object_del(request, "clear");
		json_object_set_new(request, "command", json_string("site.unlimit"));
		return;
	}
	if (text == NULL)
		return;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || n == 0 ||
	    n > UINT32_MAX)
		ctl_usage("--connections takes a number above 0");
	json_object_set_new(request, "connections", json_integer((json_int_t)n));
}
