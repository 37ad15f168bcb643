#include "admin/command.h"

/* quota: sekisho-queue keeps the ledger, and asks nobody whether an account exists. */

#include "core/log.h"

static void
on_quota(void *arg, enum queue_answer got, const struct queue_quota_view *view)
{
	struct request *request = arg;
	json_t *result;

	if (!request_queue_done(request, got))
		return;
	const struct queue_quota *quota = &view->meters[QUEUE_RECIPIENTS];
	result =
	    json_pack("{s:o,s:o,s:o,s:o,s:o,s:b,s:o}", "account", json_text(view->account), "limit",
	              json_number(quota->limit), "used", json_number(quota->used), "reserved",
	              json_number(quota->reserved), "reset", json_time(quota->reset), "overridden",
	              view->overridden, "class_limit", json_number(view->class_limit));
	if (view->overridden) {
		json_object_set_new(result, "override_set", json_time(view->override_set));
		json_object_set_new(result, "override_by", json_text(view->override_by));
		json_object_set_new(result, "override_reason", json_text(view->override_reason));
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
	log_info("-", "quota-set", "account=%s limit=%u by=\"%s\"", request_account(request),
	         request_count(request, "limit"), request_by(request));
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

void
cmd_quota_show(struct request *request)
{
	auth_account_show(request_peers(request)->auth, request_account(request), on_known_show,
	                  request);
}

void
cmd_quota_set(struct request *request)
{
	auth_account_show(request_peers(request)->auth, request_account(request), on_known_set,
	                  request);
}

/* Also for an account that is gone. */
void
cmd_quota_clear(struct request *request)
{
	log_info("-", "quota-clear", "account=%s by=\"%s\"", request_account(request),
	         request_by(request));
	queue_set_quota(request_peers(request)->queue, request_account(request), "standard", true,
	                0, request_by(request), request_text(request, "reason"), on_quota, request);
}
