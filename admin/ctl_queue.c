#include "admin/ctl.h"

/* queue: results for people. */

#include <stdio.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

void
ctl_queue_print_list(const json_t *request, const json_t *result)
{
	static struct ctl_column columns[] = {{.key = "id", .head = "ID"},
	                                      {.key = "lane", .head = "LANE"},
	                                      {.key = "accepted", .head = "ACCEPTED"},
	                                      {.key = "due", .head = "DUE"},
	                                      {.key = "attempts", .head = "TRIES", .right = true},
	                                      {.key = "unfinished", .head = "LEFT", .right = true},
	                                      {.key = "recipients", .head = "OF", .right = true},
	                                      {.key = "size", .head = "SIZE", .right = true},
	                                      {.key = "account", .head = "ACCOUNT"},
	                                      {.key = "last_reply", .head = "LAST REPLY"},
	                                      {.key = NULL}};

	(void)request;
	ctl_table(columns, json_object_get(result, "messages"));
}

void
ctl_queue_print_message(const json_t *request, const json_t *result)
{
	static const char *const fields[][2] = {{"id", "id"},
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
	static struct ctl_column columns[] = {{.key = "address", .head = "RECIPIENT"},
	                                      {.key = "state", .head = "STATE"},
	                                      {.key = "attempts", .head = "TRIES", .right = true},
	                                      {.key = "when", .head = "LAST TRY"},
	                                      {.key = "reply", .head = "REPLY"},
	                                      {.key = NULL}};

	(void)request;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		ctl_line(fields[i][0], result, fields[i][1]);
	putchar('\n');
	ctl_table(columns, json_object_get(result, "rcpt"));
}

void
ctl_queue_print_audit(const json_t *request, const json_t *result)
{
	static const char *const fields[][2] = {{"accepted", "accepted"},
	                                        {"generated", "generated"},
	                                        {"delivered", "delivered"},
	                                        {"bounced", "bounced"},
	                                        {"expired", "expired"},
	                                        {"removed", "removed"},
	                                        {"queued", "queued"},
	                                        {"messages", "messages"},
	                                        {"bodies checked", "bodies_checked"},
	                                        {"bodies bad", "bodies_bad"},
	                                        {"orphans", "orphans"}};
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
