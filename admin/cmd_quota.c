#include "admin/command.h"

/* quota: sekisho-queue keeps the ledger, and asks nobody whether an account exists. */

static json_t *
burst(const struct queue_burst *burst)
{
	if (burst->count == 0)
		return json_null();
	return json_pack("{s:o,s:o,s:o,s:I}", "at_once", json_number(burst->at_once), "count",
	                 json_number(burst->count), "period_ms",
	                 json_number((uint64_t)burst->period), "left", (json_int_t)burst->left);
}

/* A limit lowered below what was used leaves nothing, not less. */
static void
add_meter(json_t *object, const struct queue_quota *quota)
{
	const uint64_t taken = (uint64_t)quota->used + quota->reserved;

	json_object_set_new(object, "limit", json_number(quota->limit));
	json_object_set_new(object, "used", json_number(quota->used));
	json_object_set_new(object, "reserved", json_number(quota->reserved));
	json_object_set_new(object, "remaining",
	                    json_number(taken < quota->limit ? quota->limit - taken : 0));
	json_object_set_new(object, "reset", json_time(quota->reset));
}

/* The meter of recipients stands by itself, as what people ask for. */
static void
on_quota(void *arg, enum queue_answer got, const struct queue_quota_view *view)
{
	struct request *request = arg;
	json_t *result, *messages;

	if (!request_queue_done(request, got))
		return;
	result = json_pack("{s:o,s:b,s:o}", "account", json_text(view->account), "overridden",
	                   view->overridden, "class_limit", json_number(view->class_limit));
	add_meter(result, &view->meters[QUEUE_RECIPIENTS]);
	if (view->overridden) {
		json_object_set_new(result, "override_set", json_time(view->override_set));
		json_object_set_new(result, "override_by", json_text(view->override_by));
		json_object_set_new(result, "override_reason", json_text(view->override_reason));
	}
	json_object_set_new(result, "class", json_text(view->class));
	json_object_set_new(result, "window", json_text(view->calendar ? "calendar" : "rolling"));
	messages = json_object();
	add_meter(messages, &view->meters[QUEUE_MESSAGES]);
	json_object_set_new(result, "messages", messages);
	json_object_set_new(result, "burst",
	                    json_pack("{s:o,s:o}", "recipients",
	                              burst(&view->burst[QUEUE_RECIPIENTS]), "messages",
	                              burst(&view->burst[QUEUE_MESSAGES])));
	json_object_set_new(result, "start", json_time(view->meters[QUEUE_RECIPIENTS].start));
	if (view->reset_when != 0) {
		json_object_set_new(result, "reset_when", json_time(view->reset_when));
		json_object_set_new(result, "reset_by", json_text(view->reset_by));
		json_object_set_new(result, "reset_reason", json_text(view->reset_reason));
	}
	request_answer(request, result);
}

static void
ask_quota(struct request *request, const char *class)
{
	queue_ask_quota(request_peers(request)->queue, request_account(request), class, on_quota,
	                request);
}

static void
set_quota(struct request *request, const char *class)
{
	queue_set_quota(request_peers(request)->queue, request_account(request), class, false,
	                request_count(request, "limit"), request_by(request),
	                request_text(request, "reason"), on_quota, request);
}

/* The account's class; NULL, and the request has ended, for a name nobody has. When auth is down
 * the ledger still answers, as for the standard class. */
static const char *
class_of(struct request *request, enum auth_result result, const char *error,
         const struct auth_entry *list, size_t count)
{
	if (request_is_over(request))
		return NULL;
	if (result == AUTH_UNKNOWN) {
		request_refuse(request, "not-found", error);
		return NULL;
	}
	return count > 0 ? list[0].class : "standard";
}

static void
on_known_show(void *arg, enum auth_result result, const char *error, const struct auth_entry *list,
              size_t count, const char *next)
{
	const char *class = class_of(arg, result, error, list, count);

	(void)next;
	if (class != NULL)
		ask_quota(arg, class);
}

static void
on_known_set(void *arg, enum auth_result result, const char *error, const struct auth_entry *list,
             size_t count, const char *next)
{
	const char *class = class_of(arg, result, error, list, count);

	(void)next;
	if (class != NULL)
		set_quota(arg, class);
}

static void
on_known_reset(void *arg, enum auth_result result, const char *error, const struct auth_entry *list,
               size_t count, const char *next)
{
	struct request *request = arg;
	const char *class = class_of(request, result, error, list, count);

	(void)next;
	if (class == NULL)
		return;
	queue_reset_quota(request_peers(request)->queue, request_account(request), class,
	                  request_by(request), request_text(request, "reason"), on_quota, request);
}

void
cmd_quota_show(struct request *request)
{
	auth_account_ask(request_peers(request)->auth, AUTH_SHOW, request_account(request), NULL,
	                 on_known_show, request);
}

void
cmd_quota_set(struct request *request)
{
	auth_account_ask(request_peers(request)->auth, AUTH_SHOW, request_account(request), NULL,
	                 on_known_set, request);
}

void
cmd_quota_reset(struct request *request)
{
	auth_account_ask(request_peers(request)->auth, AUTH_SHOW, request_account(request), NULL,
	                 on_known_reset, request);
}

/* Also for an account that is gone. */
void
cmd_quota_clear(struct request *request)
{
	queue_set_quota(request_peers(request)->queue, request_account(request), "standard", true,
	                0, request_by(request), request_text(request, "reason"), on_quota, request);
}

static void
on_confirmed(void *arg, enum queue_answer got, const struct queue_status *status)
{
	struct request *request = arg;

	if (request_queue_done(request, got))
		request_answer(request,
		               json_pack("{s:o,s:b}", "ledger_time", json_time(status->ledger_time),
		                         "ledger_held", status->ledger_held));
}

void
cmd_quota_clock(struct request *request)
{
	queue_confirm_clock(request_peers(request)->queue, on_confirmed, request);
}
