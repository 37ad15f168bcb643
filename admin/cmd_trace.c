#include "admin/command.h"

/* trace and account.history: what became of messages. The queue has it; envelope only, and never
 * what stands in a message.
 *
 * account.history is what a subscriber may see of its own mail, so it is in words that need no NOC:
 * without the names of operators and their reasons, and nothing from before the account was made,
 * whoever had its name then. */

#include <stdio.h>
#include <string.h>

#include "queue/trace.h"
#include "smtp/address.h"

#define PAGE          100
#define SUBSCRIBER    500                          /* entries */
#define SUBSCRIBER_OF (30ll * 24 * 60 * 60 * 1000) /* msec back */
#define PLACE_SIZE    (QUEUE_ID_TEXT_SIZE + sizeof(":65535"))

static json_t *
json_place(const struct queue_trace_place *place)
{
	char id[QUEUE_ID_TEXT_SIZE];

	return place ? json_sprintf("%s:%u", queue_id_format(&place->id, id), place->index)
	             : json_null();
}

static bool
parse_place(const char *text, struct queue_trace_place *out)
{
	char id[QUEUE_ID_TEXT_SIZE];
	unsigned index;
	int len = 0;

	memset(out, 0, sizeof(*out));
	if (text[0] == '\0')
		return true;
	out->is_set = sscanf(text, "%26[0-9a-z]:%5u%n", id, &index, &len) == 2 &&
	              text[len] == '\0' && index <= UINT16_MAX && queue_id_parse(id, &out->id);
	out->index = (uint16_t)index;
	return out->is_set;
}

/* --- one message --- */

static void
set_text(json_t *object, const char *key, const char *text)
{
	if (text[0] != '\0')
		json_object_set_new(object, key, json_text(text));
}

static json_t *
event_json(const struct queue_event *event)
{
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *one = json_pack("{s:o,s:s}", "time", json_time(event->when), "event", event->what);

	set_text(one, "to", event->address);
	if (event->attempt != 0)
		json_object_set_new(one, "attempt", json_number(event->attempt));
	set_text(one, "lane", event->lane);
	set_text(one, "from_lane", event->from);
	set_text(one, "host", event->host);
	set_text(one, "ip", event->peer);
	set_text(one, "tls", event->tls);
	set_text(one, "text", event->text);
	if (event->has_other)
		json_object_set_new(one, "message",
		                    json_string(queue_id_format(&event->other, id)));
	return one;
}

static void
on_life(void *arg, enum queue_answer got, const struct queue_life *life)
{
	struct request *request = arg;
	json_t *result, *events;

	if (!request_queue_done(request, got))
		return;
	result = json_entry(&life->entry);
	if (life->finished) {
		json_object_set_new(result, "lane", json_string("finished"));
		json_object_set_new(result, "state", json_string("finished"));
		json_object_set_new(result, "due", json_null());
	}
	json_object_set_new(result, "finished", json_boolean(life->finished));
	json_object_set_new(result, "generated", json_boolean(life->generated));
	json_object_set_new(result, "incomplete", json_boolean(life->is_incomplete));
	json_object_set_new(result, "client_ip", json_text(life->client_ip));
	json_object_set_new(result, "client_port", json_number(life->client_port));
	json_object_set_new(result, "ehlo", json_text(life->ehlo));
	json_object_set_new(result, "protocol", json_text(life->protocol));
	json_object_set_new(result, "message_id", json_text(life->message_id));
	events = json_array();
	for (size_t i = 0; i < life->count; i++)
		json_array_append_new(events, event_json(&life->events[i]));
	json_object_set_new(result, "events", events);
	json_object_set_new(
	    result, "next",
	    life->more
	        ? json_sprintf("%llu", (unsigned long long)(json_integer_value(json_object_get(
	                                                        request_notes(request), "first")) +
	                                                    (json_int_t)life->count))
	        : json_null());
	request_answer(request, result);
}

/* --- a list --- */

static json_t *
row_json(const struct queue_trace_row *row)
{
	json_t *one = json_entry(&row->entry);

	if (strcmp(row->state, "queued") != 0) {
		json_object_set_new(one, "state", json_string(row->state));
		json_object_set_new(one, "due", json_null());
		json_object_set_new(one, "rule", json_null());
	}
	if (row->finished)
		json_object_set_new(one, "lane", json_string("finished"));
	json_object_del(one, "last_reply");
	json_object_set_new(one, "to", json_text(row->address));
	json_object_set_new(one, "attempts", json_number(row->attempts));
	json_object_set_new(one, "when", json_time(row->when));
	json_object_set_new(one, "reply", json_text(row->reply));
	json_object_set_new(one, "host", json_text(row->host));
	return one;
}

static void
on_list(void *arg, enum queue_answer got, const struct queue_trace_row *rows, size_t count,
        const struct queue_trace_place *next)
{
	struct request *request = arg;
	json_t *list;

	if (!request_queue_done(request, got))
		return;
	list = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, row_json(&rows[i]));
	request_answer(request,
	               json_pack("{s:o,s:o}", "recipients", list, "next", json_place(next)));
}

/* What is looked for in a list, as the queue indexes it; false after a refusal. */
static bool
take_text(struct request *request, enum history_by *by, char text[QUEUE_TRACE_MAX + 1])
{
	const char *message_id = request_text(request, "message_id");
	const char *typed = request_identity(request)->text;
	char folded[ADDRESS_FOLD_SIZE];
	struct address address;

	if (*message_id != '\0') {
		const size_t len = strlen(message_id);
		const bool open = message_id[0] == '<', close = message_id[len - 1] == '>';

		*by = HISTORY_BY_MESSAGE_ID;
		snprintf(text, QUEUE_MESSAGE_ID_MAX + 1, "%.*s", (int)(len - open - close),
		         message_id + open);
		return true;
	}
	*by = HISTORY_BY_ADDRESS;
	if (address_parse(typed, strlen(typed), &address) != ADDRESS_OK) {
		request_refuse(request, "invalid", "the argument \"address\" is no mail address");
		return false;
	}
	snprintf(text, QUEUE_TRACE_MAX + 1, "%s", address_fold(&address, folded));
	return true;
}

void
cmd_trace(struct request *request)
{
	const struct queue_id *message = request_message(request);
	const char *after = request_text(request, "after");
	const msec_t since = request_duration(request, "since");
	const uint32_t limit = request_count(request, "limit");
	struct queue_trace_place from;
	char text[QUEUE_TRACE_MAX + 1];
	unsigned first = 0;
	enum history_by by;

	if ((message != NULL) + (request_text(request, "message_id")[0] != '\0') +
	        (request_identity(request)->text[0] != '\0') !=
	    1) {
		request_refuse(request, "usage",
		               "say what: one of \"message\", \"message_id\" and \"address\"");
		return;
	}
	if (since == 0 && *request_text(request, "since") != '\0') {
		request_refuse(request, "invalid", "the argument \"since\" is no time at all");
		return;
	}
	if (message != NULL ? *after != '\0' && sscanf(after, "%6u", &first) != 1
	                    : !parse_place(after, &from)) {
		request_refuse(request, "invalid",
		               "the argument \"after\" is none that an answer had as \"next\"");
		return;
	}
	if (message != NULL) {
		json_object_set_new(request_notes(request), "first", json_number(first));
		queue_ask_life(request_peers(request)->queue, message, first, on_life, request);
	} else if (take_text(request, &by, text)) {
		queue_ask_trace(request_peers(request)->queue, by, text,
		                since ? clock_wall() - since : 0,
		                limit > 0 && limit < PAGE ? limit : PAGE, &from, on_list, request);
	}
}

/* --- the subscriber's view --- */

/* What is being done, in words; for what ended, how. */
static json_t *
plain_words(const struct queue_trace_row *row)
{
	const struct queue_entry *entry = &row->entry;
	char due[CLOCK_RFC3339_SIZE] = "";

	if (strcmp(row->state, "delivered") == 0)
		return json_string("delivered to the recipient's mail server");
	if (strcmp(row->state, "bounced") == 0)
		return json_string(
		    row->host[0] != '\0'
		        ? "not delivered: the recipient's mail server refused it"
		        : "not delivered: the reply says why"); /* nobody was asked */
	if (strcmp(row->state, "expired") == 0)
		return json_string("not delivered: given up after trying for days");
	if (strcmp(row->state, "removed") == 0)
		return json_string("not delivered: removed by the mail service");
	if (entry->due)
		clock_rfc3339(entry->due, due);
	switch (entry->state) {
	case QUEUE_STATE_ACTIVE:
		return json_string("being sent now");
	case QUEUE_STATE_PACED:
		return json_sprintf("waits until %s, because much was sent at once", due);
	case QUEUE_STATE_DEFERRED:
	case QUEUE_STATE_SUSPENDED:
		return json_sprintf("not delivered yet; the next attempt is at %s", due);
	case QUEUE_STATE_HELD:
		return json_string("held back by the mail service");
	case QUEUE_STATE_SENDER:
		return json_sprintf("waits until %s, as its sender asked", due);
	default:
		return json_string("waits for its turn");
	}
}

static json_t *
subscriber_json(const struct queue_trace_row *row)
{
	const bool waits = strcmp(row->state, "queued") == 0;
	const bool removed = strcmp(row->state, "removed") == 0;
	char id[QUEUE_ID_TEXT_SIZE];

	return json_pack("{s:s,s:o,s:o,s:o,s:o,s:s,s:o,s:o,s:o,s:o}", "id",
	                 queue_id_format(&row->entry.id, id), "time",
	                 json_time(row->entry.accepted), "from", json_text(row->entry.from), "to",
	                 json_text(row->address), "size", json_number(row->entry.size), "state",
	                 waits ? "waiting" : row->state, "words", plain_words(row), "attempts",
	                 json_number(row->attempts), "when", json_time(row->when), "reply",
	                 json_text(removed ? "" : row->reply));
}

static void
on_history(void *arg, enum queue_answer got, const struct queue_trace_row *rows, size_t count,
           const struct queue_trace_place *next)
{
	struct request *request = arg;
	json_t *notes, *entries;

	if (got != QUEUE_DONE) {
		(void)request_queue_done(request, got);
		return;
	}
	notes = request_notes(request);
	entries = json_object_get(notes, "entries");
	for (size_t i = 0; i < count && json_array_size(entries) < SUBSCRIBER; i++)
		json_array_append_new(entries, subscriber_json(&rows[i]));
	if (next == NULL || json_array_size(entries) >= SUBSCRIBER) {
		request_answer(request,
		               json_pack("{s:o,s:O}", "account",
		                         json_text(request_account(request)), "entries", entries));
		return;
	}
	if (request_is_over(request))
		return;
	queue_ask_trace(request_peers(request)->queue, HISTORY_BY_ACCOUNT, request_account(request),
	                (msec_t)json_integer_value(json_object_get(notes, "since")), PAGE, next,
	                on_history, request);
}

static void
on_account(void *arg, enum auth_result result, const char *error, const struct auth_entry *list,
           size_t count, const char *next)
{
	struct request *request = arg;
	msec_t since = clock_wall() - SUBSCRIBER_OF;

	(void)next;
	if (!request_auth_done(request, result, error) || request_is_over(request))
		return;
	if (count > 0 && list[0].created > since)
		since = list[0].created;
	json_object_set_new(request_notes(request), "since", json_number((uint64_t)since));
	json_object_set_new(request_notes(request), "entries", json_array());
	queue_ask_trace(request_peers(request)->queue, HISTORY_BY_ACCOUNT, request_account(request),
	                since, PAGE, &(struct queue_trace_place){.is_set = false}, on_history,
	                request);
}

void
cmd_account_history(struct request *request)
{
	auth_account_ask(request_peers(request)->auth, AUTH_SHOW, request_account(request), NULL,
	                 on_account, request);
}
