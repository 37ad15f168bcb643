#include "admin/ctl.h"

/* quota: limits as people write them, and both meters side by side. */

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

/* "1000", "1000/day", or "default", which is a command of its own. */
void
ctl_quota_prepare(json_t *request)
{
	const char *text = json_string_value(json_object_get(request, "limit"));
	unsigned long long n;
	char *end;

	if (strcmp(text, "default") == 0) {
		json_object_del(request, "limit");
		json_object_set_new(request, "command", json_string("quota.clear"));
		return;
	}
	errno = 0;
	n = strtoull(text, &end, 10);
	if (strcmp(end, "/day") == 0)
		end += 4;
	if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || n > UINT32_MAX)
		ctl_usage("the limit must be a number from 0 to 4294967295 such as 1000 or "
		          "1000/day, or default");
	json_object_set_new(request, "limit", json_integer((json_int_t)n));
}

/* "100, then 50 in 5 min" */
static json_t *
burst_text(const json_t *burst)
{
	char period[CTL_SPAN_SIZE], text[96];

	if (!json_is_object(burst))
		return json_string("no limit");
	snprintf(text, sizeof(text), "%s, then %s in %s", ctl_show(burst, "at_once"),
	         ctl_show(burst, "count"),
	         ctl_span(json_integer_value(json_object_get(burst, "period_ms")) / 1000, period));
	return json_string(text);
}

static void
add_meter(json_t *rows, const char *name, const json_t *meter, const json_t *burst)
{
	json_t *row = json_deep_copy(meter);

	json_object_set_new(row, "meter", json_string(name));
	json_object_set_new(row, "burst", burst_text(burst));
	json_object_set(row, "left", json_object_get(burst, "left"));
	json_array_append_new(rows, row);
}

static void
print_record(const char *title, const json_t *result, const char *when, const char *by,
             const char *reason)
{
	printf("%-*s %s by %s", CTL_TITLE, title, ctl_show(result, when), ctl_show(result, by));
	if (json_string_length(json_object_get(result, reason)) > 0)
		printf(": %s", ctl_show(result, reason));
	putchar('\n');
}

void
ctl_quota_print(const json_t *request, const json_t *result)
{
	struct ctl_column columns[] = {
	    {.key = "meter", .head = "METER"},
	    {.key = "limit", .head = "LIMIT", .right = true},
	    {.key = "used", .head = "USED", .right = true},
	    {.key = "reserved", .head = "RESERVED", .right = true},
	    {.key = "remaining", .head = "REMAINING", .right = true},
	    {.key = "reset", .head = "RESETS AT"},
	    {.key = "left", .head = "AT ONCE", .right = true},
	    {.key = "burst", .head = "BURST"},
	    {.key = NULL},
	};
	const json_t *burst = json_object_get(result, "burst");
	json_t *rows = json_array();

	(void)request;
	ctl_line("account", result, "account");
	ctl_line("class", result, "class");
	ctl_line("window", result, "window");
	printf("%-*s %s%s\n", CTL_TITLE, "pace",
	       json_is_string(json_object_get(result, "start")) ? "mail accepted now starts at "
	                                                        : "at once",
	       json_is_string(json_object_get(result, "start")) ? ctl_show(result, "start") : "");
	if (json_is_true(json_object_get(result, "overridden"))) {
		ctl_line("configured", result, "class_limit");
		print_record("override", result, "override_set", "override_by", "override_reason");
	}
	if (json_object_get(result, "reset_when") != NULL)
		print_record("reset", result, "reset_when", "reset_by", "reset_reason");
	putchar('\n');
	add_meter(rows, "recipients", result, json_object_get(burst, "recipients"));
	add_meter(rows, "messages", json_object_get(result, "messages"),
	          json_object_get(burst, "messages"));
	ctl_table(columns, rows);
	json_decref(rows);
}

void
ctl_quota_print_clock(const json_t *request, const json_t *result)
{
	(void)request;
	ctl_line("quota time", result, "ledger_time");
}
