#include "admin/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* queue: what sekisho-queue has promised; envelopes only, never content. */

#define FLUSH_RATE 100 /* messages a second, unless the operator says otherwise */

json_t *
json_entry(const struct queue_entry *entry)
{
	const msec_t age = clock_wall() - entry->accepted;
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *one = json_object();

	json_object_set_new(one, "id", json_string(queue_id_format(&entry->id, id)));
	json_object_set_new(one, "state", json_string(queue_state_name(entry->state)));
	json_object_set_new(one, "rule", entry->rule[0] ? json_text(entry->rule) : json_null());
	json_object_set_new(one, "lane", json_string(queue_lane_name(entry->lane)));
	json_object_set_new(one, "account", json_text(entry->account));
	json_object_set_new(one, "from", json_text(entry->from));
	json_object_set_new(one, "accepted", json_time(entry->accepted));
	json_object_set_new(one, "age", json_number((uint64_t)(age > 0 ? age : 0) / 1000));
	json_object_set_new(one, "due", json_time(entry->due));
	json_object_set_new(one, "size", json_number(entry->size));
	json_object_set_new(one, "attempts", json_number(entry->attempts));
	json_object_set_new(one, "recipients", json_number(entry->recipients));
	json_object_set_new(one, "unfinished", json_number(entry->unfinished));
	json_object_set_new(one, "last_reply", json_text(entry->last_reply));
	return one;
}

static void
on_list(void *arg, enum queue_answer got, const struct queue_entry *list, size_t count,
        const struct queue_id *next)
{
	struct request *request = arg;
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *messages;

	if (!request_queue_done(request, got))
		return;
	messages = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(messages, json_entry(&list[i]));
	request_answer(request,
	               json_pack("{s:o,s:o}", "messages", messages, "next",
	                         next ? json_string(queue_id_format(next, id)) : json_null()));
}

/* The bit that the word stands for; 0 after a refusal that lists the words. */
static unsigned
bit_of(struct request *request, const char *what, const char *word, const char *(*name)(unsigned),
       unsigned count)
{
	char words[160];
	size_t len = 0;

	for (unsigned i = 0; i < count; i++)
		if (strcmp(word, name(i)) == 0)
			return 1u << i;
	len = (size_t)snprintf(words, sizeof(words), "there is no such %s; there are:", what);
	for (unsigned i = 0; i < count; i++)
		len += (size_t)snprintf(words + len, sizeof(words) - len, " %s", name(i));
	request_refuse(request, "invalid", words);
	return 0;
}

static const char *
lane_word(unsigned lane)
{
	return queue_lane_name((enum queue_lane)lane);
}

static const char *
state_word(unsigned state)
{
	return queue_state_name((enum queue_state)state);
}

/* Which messages; false after a refusal. */
static bool
take_selector(struct request *request, struct queue_selector *out)
{
	const struct queue_id *message = request_message(request);
	const char *lane = request_text(request, "lane");

	memset(out, 0, sizeof(*out));
	if (*lane && (out->lanes = bit_of(request, "lane", lane, lane_word, QUEUE_LANES)) == 0)
		return false;
	out->has_message = message != NULL;
	if (message != NULL)
		out->message = *message;
	snprintf(out->account, sizeof(out->account), "%s", request_account(request));
	request_mailbox(request, "sender", out->sender);
	request_mailbox(request, "recipient", out->recipient);
	snprintf(out->site, sizeof(out->site), "%s", request_text(request, "site"));
	for (char *c = out->site; *c != '\0'; c++)
		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
	snprintf(out->reply, sizeof(out->reply), "%s", request_text(request, "reply"));
	out->older = request_duration(request, "older");
	out->younger = request_duration(request, "younger");
	out->larger = request_size(request, "larger");
	out->smaller = request_size(request, "smaller");
	if (out->younger == 0 && *request_text(request, "younger") != '\0') {
		/* It would be no condition, where nothing is meant. */
		request_refuse(request, "invalid", "nothing is younger than that");
		return false;
	}
	if (queue_selector_is_good(out))
		return true;
	request_refuse(request, "invalid",
	               "the conditions are together longer than 375 octets, or \"reply\" holds a "
	               "quotation mark");
	return false;
}

/* False after a refusal. *from is what a cursor may say beside the id. */
static bool
take_cursor(struct request *request, struct queue_id *id, msec_t *from)
{
	const char *after = request_text(request, "after"), *dot = strchr(after, '.');
	char text[QUEUE_ID_TEXT_SIZE];
	int len = snprintf(text, sizeof(text), "%.*s", (int)strcspn(after, "."), after);

	*from = dot != NULL ? (msec_t)strtoll(dot + 1, NULL, 10) : 0;
	if (len < (int)sizeof(text) && queue_id_parse(text, id) && *from >= 0)
		return true;
	request_refuse(request, "invalid",
	               "the argument \"after\" is nothing that \"next\" of an answer was");
	return false;
}

void
cmd_queue_list(struct request *request)
{
	const char *state = request_text(request, "state");
	const bool from_start = *request_text(request, "after") == '\0';
	struct queue_selector selector;
	struct queue_id after;
	unsigned states = 0;
	msec_t from;

	if (!take_selector(request, &selector))
		return;
	if (*state && (states = bit_of(request, "state", state, state_word, QUEUE_STATES)) == 0)
		return;
	if (!from_start && !take_cursor(request, &after, &from))
		return;
	queue_ask_list(request_peers(request)->queue, &selector, states, from_start ? NULL : &after,
	               on_list, request);
}

static void
on_ages(void *arg, enum queue_answer got, const struct queue_age_row *rows, size_t count,
        const struct queue_id *next)
{
	struct request *request = arg;
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *list;

	if (!request_queue_done(request, got))
		return;
	list = json_array();
	for (size_t i = 0; i < count; i++) {
		json_t *row = json_pack("{s:s,s:o}", "lane", queue_lane_name(rows[i].lane), "site",
		                        json_text(rows[i].site));

		for (unsigned k = 0; k < QUEUE_AGES; k++)
			json_object_set_new(row, queue_age_name(k),
			                    json_number(rows[i].messages[k]));
		json_array_append_new(list, row);
	}
	request_answer(request,
	               json_pack("{s:o,s:o}", "rows", list, "next",
	                         next ? json_string(queue_id_format(next, id)) : json_null()));
}

void
cmd_age(struct request *request)
{
	const bool from_start = *request_text(request, "after") == '\0';
	struct queue_id after;
	msec_t from;

	if (from_start || take_cursor(request, &after, &from))
		queue_ask_ages(request_peers(request)->queue, from_start ? NULL : &after, on_ages,
		               request);
}

json_t *
json_hold(const struct queue_hold *hold)
{
	char what[QUEUE_SELECTOR_TEXT_SIZE];

	return json_pack("{s:s,s:o,s:o,s:o,s:o,s:o,s:o}", "action", queue_action_name(hold->action),
	                 "to",
	                 hold->action != QUEUE_REROUTE ? json_null()
	                 : hold->next_hop[0]           ? json_string(hold->next_hop)
	                                               : json_string(queue_lane_name(hold->lane)),
	                 "what", json_text(queue_selector_text(&hold->selector, what)), "since",
	                 json_time(hold->since), "until", json_time(hold->until), "by",
	                 json_text(hold->by), "reason", json_text(hold->reason));
}

static void
on_holds(void *arg, enum queue_answer got, const struct queue_hold *list, size_t count, bool more)
{
	struct request *request = arg;
	json_t *holds;

	if (!request_queue_done(request, got))
		return;
	holds = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(holds, json_hold(&list[i]));
	request_answer(request,
	               json_pack("{s:o,s:o}", "holds", holds, "next",
	                         more ? json_number(request_count(request, "after") + count)
	                              : json_null()));
}

void
cmd_queue_holds(struct request *request)
{
	queue_ask_holds(request_peers(request)->queue, request_count(request, "after"), on_holds,
	                request);
}

/* The order that the request is, but for what goes with its action. */
static bool
take_order(struct request *request, enum queue_action action, struct queue_order *out)
{
	const bool all = request_flag(request, "all");

	memset(out, 0, sizeof(*out));
	out->action = action;
	out->by = request_by(request);
	out->reason = request_text(request, "reason");
	out->dry_run = request_flag(request, "dry_run");
	out->expiry = request_duration(request, "for");
	if (out->expiry == 0 && *request_text(request, "for") != '\0') {
		/* Without a time it would be for good. */
		request_refuse(request, "invalid",
		               "the argument \"for\" is no time at all; without it a hold is "
		               "in force until it is released, and others are not in force");
		return false;
	}
	if (out->expiry)
		out->expiry += clock_wall();
	if (!take_selector(request, &out->selector))
		return false;
	if (queue_selector_is_all(&out->selector) == all)
		return true;
	request_refuse(request, "usage",
	               all ? "\"all\" and conditions: one of both"
	                   : "say which messages: \"message\", \"account\", \"recipient\", …");
	return false;
}

static void
on_count(void *arg, enum queue_answer got, const struct queue_count *count)
{
	struct request *request = arg;
	char id[QUEUE_ID_TEXT_SIZE];
	json_t *next;

	if (!request_queue_done(request, got))
		return;
	next = !count->more ? json_null()
	                    : json_sprintf("%s.%lld", queue_id_format(&count->next, id),
	                                   (long long)count->from);
	request_answer(request,
	               json_pack("{s:o,s:o,s:o,s:o}", "messages", json_number(count->messages),
	                         "recipients", json_number(count->recipients), "busy",
	                         json_number(count->busy), "next", next));
}

/* What is done to messages: a bounded share, and where to go on. */
static void
act(struct request *request, const struct queue_order *whole)
{
	struct queue_order order = *whole;
	struct queue_id id;

	if (*request_text(request, "after") != '\0') {
		if (!take_cursor(request, &id, &order.from))
			return;
		order.after = &id;
	}
	queue_act(request_peers(request)->queue, &order, on_count, request);
}

void
cmd_queue_flush(struct request *request)
{
	struct queue_order order;

	if (!take_order(request, QUEUE_FLUSH, &order))
		return;
	order.rate = request_count(request, "rate");
	if (order.rate == 0)
		order.rate = FLUSH_RATE;
	act(request, &order);
}

void
cmd_queue_bounce(struct request *request)
{
	struct queue_order order;

	if (take_order(request, QUEUE_BOUNCE, &order))
		act(request, &order);
}

/* A lane, a host or the word for none; false after a refusal. A single word is never a host,
 * because it is more likely a lane with a slip: "localhost:25" and "[localhost]" are. */
static bool
take_goal(struct request *request, struct queue_order *order, char next_hop[CONF_HOST_TEXT_SIZE])
{
	const char *to = request_text(request, "to"), *wrong;
	struct conf_host host;
	char words[512];

	for (unsigned i = 0; i < QUEUE_LANES; i++)
		if (strcmp(to, lane_word(i)) == 0) {
			order->lane = (enum queue_lane)i;
			return true;
		}
	order->next_hop = next_hop;
	snprintf(next_hop, CONF_HOST_TEXT_SIZE, "%s", QUEUE_NEXT_HOP_DEFAULT);
	if (strcmp(to, QUEUE_NEXT_HOP_DEFAULT) == 0)
		return true;
	wrong = strpbrk(to, ".:[") == NULL ? "is no lane, and no host" : conf_host(to, &host);
	if (wrong == NULL) {
		conf_host_text(&host, next_hop);
		return true;
	}
	snprintf(words, sizeof(words),
	         "%s %s; it takes a lane (fresh, retry, fallback), a host such as "
	         "relay.example.net:25 or [2001:db8::1]:25, or default: where the configuration "
	         "sends it",
	         to, wrong);
	request_refuse(request, "invalid", words);
	return false;
}

void
cmd_queue_reroute(struct request *request)
{
	char next_hop[CONF_HOST_TEXT_SIZE];
	struct queue_order order;

	if (take_order(request, QUEUE_REROUTE, &order) && take_goal(request, &order, next_hop))
		act(request, &order);
}

void
cmd_queue_remove(struct request *request)
{
	struct queue_order order;

	if (take_order(request, QUEUE_REMOVE, &order))
		act(request, &order);
}

static void
on_held(void *arg, enum queue_answer got, const struct queue_count *count)
{
	struct request *request = arg;

	(void)count;
	if (got == QUEUE_NOT_FOUND)
		request_refuse(request, "not-found",
		               "there is no such hold; sekishoctl queue holds shows them");
	else if (request_queue_done(request, got))
		request_answer(request, json_incref(request_notes(request)));
}

static void
change_hold(struct request *request, enum queue_action action)
{
	char what[QUEUE_SELECTOR_TEXT_SIZE];
	struct queue_order order;

	if (!take_order(request, action, &order))
		return;
	if (order.dry_run) {
		act(request, &order);
		return;
	}
	json_object_set_new(request_notes(request), "what",
	                    json_text(queue_selector_text(&order.selector, what)));
	json_object_set_new(request_notes(request), "until", json_time(order.expiry));
	queue_act(request_peers(request)->queue, &order, on_held, request);
}

void
cmd_queue_hold(struct request *request)
{
	change_hold(request, QUEUE_HOLD);
}

void
cmd_queue_release(struct request *request)
{
	change_hold(request, QUEUE_RELEASE);
}

static void
on_detail(void *arg, enum queue_answer got, const struct queue_detail *detail)
{
	struct request *request = arg;
	json_t *result, *recipients, *holds;

	if (!request_queue_done(request, got))
		return;
	result = json_entry(&detail->entry);
	if (detail->finished) {
		json_object_set_new(result, "lane", json_string("finished"));
		json_object_set_new(result, "state", json_string("finished"));
	}
	json_object_set_new(result, "finished", json_boolean(detail->finished));
	json_object_set_new(result, "client_ip", json_text(detail->client_ip));
	json_object_set_new(result, "client_port", json_number(detail->client_port));
	json_object_set_new(result, "ehlo", json_text(detail->ehlo));
	recipients = json_array();
	for (size_t i = 0; i < detail->recipient_count; i++) {
		const struct queue_recipient_view *view = &detail->recipients[i];

		json_array_append_new(
		    recipients,
		    json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "address", json_text(view->address),
		              "state", json_text(view->state), "attempts",
		              json_number(view->attempts), "when", json_time(view->when), "reply",
		              json_text(view->reply), "next_hop",
		              view->next_hop[0] ? json_string(view->next_hop) : json_null()));
	}
	json_object_set_new(result, "rcpt", recipients);
	holds = json_array();
	for (size_t i = 0; i < detail->hold_count; i++)
		json_array_append_new(holds, json_hold(&detail->holds[i]));
	json_object_set_new(result, "holds", holds);
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
	json_object_set_new(result, "orphans", json_number(audit->orphans));
	request_answer(request, result);
}

void
cmd_queue_audit(struct request *request)
{
	queue_ask_audit(request_peers(request)->queue, on_audit, request);
}

static void
on_check(void *arg, enum queue_answer got, const struct queue_check *share)
{
	struct request *request = arg;
	json_t *result, *faults;

	if (got == QUEUE_LIMIT || got == QUEUE_NOT_FOUND)
		request_refuse(request, got == QUEUE_LIMIT ? "refused" : "not-found",
		               got == QUEUE_LIMIT
		                   ? "as many checks as there may be are under way; ask again later"
		                   : "that check is forgotten, or the queue was started anew; "
		                     "begin again");
	if (got == QUEUE_LIMIT || got == QUEUE_NOT_FOUND || !request_queue_done(request, got))
		return;
	faults = json_array();
	for (size_t i = 0; i < share->count; i++)
		json_array_append_new(faults, json_pack("{s:o,s:o,s:o}", "where",
		                                        json_text(share->faults[i].where), "what",
		                                        json_text(share->faults[i].what), "todo",
		                                        json_text(share->faults[i].todo)));
	result = json_object();
	json_object_set_new(result, "faults", faults);
	json_object_set_new(result, "records", json_number(share->records));
	json_object_set_new(result, "bodies", json_number(share->bodies));
	json_object_set_new(result, "octets", json_number(share->octets));
	json_object_set_new(result, "doing", json_text(share->doing));
	json_object_set_new(result, "next",
	                    share->number ? json_number(share->number) : json_null());
	request_answer(request, result);
}

void
cmd_queue_check(struct request *request)
{
	queue_ask_check(request_peers(request)->queue, request_number(request, "check"), on_check,
	                request);
}
