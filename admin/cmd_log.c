#include "admin/command.h"

/* log: how much each process tells. sekishod keeps the levels; a level that is set for a time ends
 * by a timer here, and falls back to the configured one. */

#include <stdlib.h>
#include <string.h>

#include "admin/process.h"
#include "core/mem.h"

#define RETURNS_MAX 64

struct level_return {
	struct level_return *next;
	struct process process;
	const struct protocol_peers *peers;
	msec_t when; /* wall clock */
	struct loop_timer *timer;
};

static struct level_return *returns;
static unsigned return_count;

static void
remove_return(struct level_return **at)
{
	struct level_return *gone = *at;

	*at = gone->next;
	loop_timer_free(gone->timer);
	free(gone);
	return_count--;
}

/* What is set now is not ended by what was set before. */
static void
forget_returns(const struct process *process)
{
	struct level_return **at = &returns;

	while (*at != NULL) {
		const struct process *old = &(*at)->process;

		if (process->role == SERVICE_ROLES ||
		    (process->role == old->role &&
		     (process->index < 0 || process->index == old->index)))
			remove_return(at);
		else
			at = &(*at)->next;
	}
}

static void
on_returned(void *arg, unsigned count)
{
	(void)arg;
	(void)count;
}

static void
on_return(void *arg)
{
	struct level_return *ended = arg, **at = &returns;

	service_ask_log_level(ended->process.role, ended->process.index,
	                      log_level_named(ended->peers->conf->log_level), on_returned, NULL);
	while (*at != ended)
		at = &(*at)->next;
	remove_return(at);
}

static msec_t
add_return(const struct process *process, const struct protocol_peers *peers, msec_t delay)
{
	struct level_return *new = xcalloc(1, sizeof(*new));

	new->process = *process;
	new->peers = peers;
	new->when = clock_wall() + delay;
	new->timer = loop_timer_new(service_loop(), on_return, new);
	new->next = returns;
	returns = new;
	return_count++;
	loop_timer_arm(new->timer, delay);
	return new->when;
}

static void
on_level_set(void *arg, unsigned count)
{
	struct request *request = arg;
	const char *process_text = request_text(request, "process");
	const char *level = request_text(request, "level");
	const msec_t delay = request_duration(request, "for");
	struct process process;
	msec_t until = 0;

	if (request_is_over(request))
		return;
	if (count == 0) {
		request_refuse(request, "not-found",
		               "no such process runs; sekishoctl status shows them");
		return;
	}
	process_parse(process_text, &process);
	forget_returns(&process);
	if (delay > 0)
		until = add_return(&process, request_peers(request), delay);
	request_answer(request,
	               json_pack("{s:s,s:s,s:o,s:o}", "process", process_text, "level", level,
	                         "processes", json_number(count), "until", json_time(until)));
}

void
cmd_log_set(struct request *request)
{
	struct process process;

	if (return_count >= RETURNS_MAX && request_duration(request, "for") > 0) {
		request_refuse(request, "busy",
		               "too many levels are set for a time; set one for good first");
		return;
	}
	process_parse(request_text(request, "process"), &process);
	service_ask_log_level(process.role, process.index,
	                      log_level_named(request_text(request, "level")), on_level_set,
	                      request);
}

static json_t *
level_json(enum service_role role, unsigned index, enum log_level level)
{
	char name[PROCESS_NAME_SIZE];
	msec_t until = 0;

	for (const struct level_return *r = returns; r != NULL && until == 0; r = r->next)
		if (process_covers(&r->process, role, index))
			until = r->when;
	return json_pack("{s:s,s:s,s:o}", "process", process_name(role, index, name), "level",
	                 log_level_name(level), "until", json_time(until));
}

static void
on_levels(void *arg, const struct service_state *state, const struct service_process *list,
          size_t count)
{
	struct request *request = arg;
	json_t *levels;

	if (count == 0) {
		request_refuse(request, "unavailable", "sekishod does not answer");
		return;
	}
	levels = json_array();
	json_array_append_new(levels, level_json(SERVICE_SEKISHOD, 0, state->level));
	for (size_t i = 0; i < count; i++)
		json_array_append_new(levels,
		                      level_json(list[i].role, list[i].index, list[i].level));
	request_answer(request,
	               json_pack("{s:s,s:o}", "configured", request_peers(request)->conf->log_level,
	                         "levels", levels));
}

void
cmd_log_show(struct request *request)
{
	service_ask_processes(on_levels, request);
}

void
cmd_watch(struct request *request)
{
	struct watch_filter filter = {.process = {SERVICE_ROLES, -1}};
	const char *process = request_text(request, "process");

	if (process[0] != '\0')
		process_parse(process, &filter.process);
	strcpy(filter.event, request_text(request, "event"));
	strcpy(filter.account, request_account(request));
	if (request_watch(request, &filter))
		request_answer(request, json_pack("{s:b}", "watching", 1));
	else
		request_refuse(request, "busy", "16 watch already; try again when one has ended");
}
