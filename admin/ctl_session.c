#include "admin/ctl.h"

/* session: clients that are connected. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

void
ctl_session_print_list(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {
	    {.key = "session", .head = "SESSION"},
	    {.key = "since", .head = "SINCE"},
	    {.key = "account", .head = "ACCOUNT"},
	    {.key = "ip", .head = "IP"},
	    {.key = "port", .head = "PORT", .right = true},
	    {.key = "listener", .head = "LISTENER"},
	    {.key = "tls", .head = "TLS"},
	    {.key = "mechanism", .head = "MECHANISM"},
	    {.key = NULL},
	};

	(void)request;
	ctl_table(columns, json_object_get(result, "sessions"));
}

void
ctl_session_prepare_kill(json_t *request)
{
	const char *text = json_string_value(json_object_get(request, "session"));
	long long n;
	char *end;

	if ((text != NULL) == (json_object_get(request, "account") != NULL))
		ctl_usage("usage: sekishoctl session kill NUMBER | --account ACCOUNT");
	if (text == NULL)
		return;
	errno = 0;
	n = strtoll(text, &end, 10);
	if (*end != '\0' || errno != 0 || n <= 0)
		ctl_usage("a session is a number; sekishoctl session list shows them");
	json_object_set_new(request, "session", json_integer((json_int_t)n));
}

void
ctl_session_print_killed(const json_t *request, const json_t *result)
{
	(void)request;
	printf("sessions ended: %s\n", ctl_show(result, "ended"));
}
