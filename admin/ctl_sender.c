#include "admin/ctl.h"

/* account identity and sender: who may send as whom, for people. */

#include <stdio.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

void
ctl_identities_print(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {
	    {.key = "identity", .head = "IDENTITY"},
	    {.key = "kind", .head = "KIND"},
	    {.key = "since", .head = "SINCE"},
	    {.key = "by", .head = "BY"},
	    {.key = NULL},
	};

	(void)request;
	ctl_table(columns, json_object_get(result, "identities"));
}

void
ctl_identity_print_removed(const json_t *request, const json_t *result)
{
	printf("%s may not send as %s any more\n", ctl_show(result, "account"),
	       ctl_show(request, "identity"));
}

void
ctl_sender_print(const json_t *request, const json_t *result)
{
	const json_t *identity = json_object_get(result, "identity");

	(void)request;
	ctl_line("account", result, "account");
	ctl_line("sender", result, "sender");
	printf("%-*s %s: %s\n", CTL_TITLE, "allowed",
	       json_is_true(json_object_get(result, "allowed")) ? "yes" : "no",
	       ctl_show(result, "why"));
	ctl_line("rule", result, "rule");
	if (json_is_object(identity)) {
		ctl_line("identity", identity, "identity");
		if (!json_is_null(json_object_get(identity, "by")))
			printf("%-*s %s by %s\n", CTL_TITLE, "granted", ctl_show(identity, "since"),
			       ctl_show(identity, "by"));
	}
	ctl_line("class", result, "class");
	ctl_line("state", result, "state");
	if (!json_is_null(json_object_get(result, "remedy")))
		ctl_line("to allow it", result, "remedy");
}

int
ctl_sender_finish(const json_t *result)
{
	return json_is_true(json_object_get(result, "allowed")) ? 0 : CTL_REFUSED;
}
