#include "admin/command.h"

/* queue: what sekisho-queue has promised; envelopes only, never content. */

static json_t *
entry_json(const struct queue_entry *entry)
{
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *one = json_object();

	json_object_set_new(one, "id", json_string(queue_id_format(&entry->id, id)));
	json_object_set_new(one, "lane", json_string(queue_lane_name(entry->lane)));
	json_object_set_new(one, "account", json_text(entry->account));
	json_object_set_new(one, "from", json_text(entry->from));
	json_object_set_new(one, "accepted", json_time(entry->accepted));
	json_object_set_new(one, "due", json_time(entry->due));
	json_object_set_new(one, "size", json_number(entry->size));
	json_object_set_new(one, "attempts", json_number(entry->attempts));
	json_object_set_new(one, "recipients", json_number(entry->recipients));
	json_object_set_new(one, "unfinished", json_number(entry->unfinished));
	json_object_set_new(one, "last_reply", json_text(entry->last_reply));
	return one;
}

static void
on_list(void *arg, enum queue_answer got, const struct queue_entry *list, size_t count, bool more)
{
	struct request *request = arg;
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *messages;

	if (!request_queue_done(request, got))
		return;
	messages = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(messages, entry_json(&list[i]));
	request_answer(request,
	               json_pack("{s:o,s:o}", "messages", messages, "next",
	                         more && count > 0
	                             ? json_string(queue_id_format(&list[count - 1].id, id))
	                             : json_null()));
}

void
cmd_queue_list(struct request *request)
{
	const char *account = request_account(request);

	queue_ask_list(request_peers(request)->queue, *account != '\0' ? account : NULL,
	               request_message(request), on_list, request);
}

static void
on_detail(void *arg, enum queue_answer got, const struct queue_detail *detail)
{
	struct request *request = arg;
	json_t *result, *recipients;

	if (!request_queue_done(request, got))
		return;
	result = entry_json(&detail->entry);
	if (detail->finished)
		json_object_set_new(result, "lane", json_string("finished"));
	json_object_set_new(result, "finished", json_boolean(detail->finished));
	json_object_set_new(result, "client_ip", json_text(detail->client_ip));
	json_object_set_new(result, "client_port", json_number(detail->client_port));
	json_object_set_new(result, "ehlo", json_text(detail->ehlo));
	recipients = json_array();
	for (size_t i = 0; i < detail->recipient_count; i++) {
		const struct queue_recipient_view *view = &detail->recipients[i];

		json_array_append_new(
		    recipients,
		    json_pack("{s:o,s:o,s:o,s:o,s:o}", "address", json_text(view->address), "state",
		              json_text(view->state), "attempts", json_number(view->attempts),
		              "when", json_time(view->when), "reply", json_text(view->reply)));
	}
	json_object_set_new(result, "rcpt", recipients);
	request_answer(request, result);
}

void
cmd_queue_show(struct request *request)
{
	queue_ask_detail(request_peers(request)->queue, request_message(request), on_detail,
	                 request);
}

static void
on_audit(void *arg, enum queue_answer got, const struct queue_audit *audit)
{
	struct request *request = arg;
	json_t *result;

	if (!request_queue_done(request, got))
		return;
	result = json_object();
	json_object_set_new(result, "conserved", json_boolean(audit->conserved));
	json_object_set_new(result, "accepted", json_number(audit->accepted));
	json_object_set_new(result, "generated", json_number(audit->generated));
	json_object_set_new(result, "delivered", json_number(audit->delivered));
	json_object_set_new(result, "bounced", json_number(audit->bounced));
	json_object_set_new(result, "expired", json_number(audit->expired));
	json_object_set_new(result, "removed", json_number(audit->removed));
	json_object_set_new(result, "queued", json_number(audit->queued));
	json_object_set_new(result, "messages", json_number(audit->messages));
	json_object_set_new(result, "bodies_checked", json_number(audit->bodies_checked));
	json_object_set_new(result, "bodies_bad", json_number(audit->bodies_bad));
	json_object_set_new(result, "orphans", json_number(audit->orphans));
	request_answer(request, result);
}

void
cmd_queue_audit(struct request *request)
{
	queue_ask_audit(request_peers(request)->queue, on_audit, request);
}
