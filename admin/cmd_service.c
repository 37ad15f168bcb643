#include "admin/command.h"

/* status and stop: the service as a whole. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/service.h"

#define STOP_DELAY 100 /* msec */
#define HOLDS_MAX  10  /* in the status */

/* null for 0 */
static json_t *
seconds_since(msec_t wall)
{
	return wall == 0 ? json_null() : json_integer((clock_wall() - wall) / 1000);
}

/* The first of them; all are queue.holds' business. */
static void
on_holds(void *arg, enum queue_answer got, const struct queue_hold *list, size_t count, bool more)
{
	struct request *request = arg;
	json_t *holds = json_array(), *queue = json_object_get(request_notes(request), "queue");

	for (size_t i = 0; got == QUEUE_DONE && i < count && i < HOLDS_MAX; i++)
		json_array_append_new(holds, json_hold(&list[i]));
	json_object_set_new(queue, "holds", holds);
	json_object_set_new(queue, "more_holds", json_boolean(more || count > HOLDS_MAX));
	request_answer(request, json_incref(request_notes(request)));
}

static void
on_status(void *arg, enum queue_answer got, const struct queue_status *status)
{
	struct request *request = arg;
	json_t *queue = json_null(), *lanes;

	if (got == QUEUE_DONE) {
		lanes = json_object();
		for (int i = 0; i < QUEUE_LANES; i++)
			json_object_set_new(
			    lanes, queue_lane_name((enum queue_lane)i),
			    json_pack("{s:o,s:o}", "messages", json_number(status->messages[i]),
			              "recipients", json_number(status->recipients[i])));
		queue = json_object();
		json_object_set_new(queue, "lanes", lanes);
		json_object_set_new(queue, "in_flight", json_number(status->in_flight));
		json_object_set_new(queue, "oldest", json_time(status->oldest));
		json_object_set_new(queue, "oldest_age", seconds_since(status->oldest));
		json_object_set_new(queue, "accepted", json_number(status->accepted));
		json_object_set_new(queue, "generated", json_number(status->generated));
		json_object_set_new(queue, "delivered", json_number(status->delivered));
		json_object_set_new(queue, "bounced", json_number(status->bounced));
		json_object_set_new(queue, "expired", json_number(status->expired));
		json_object_set_new(queue, "removed", json_number(status->removed));
		json_object_set_new(queue, "accounts", json_number(status->accounts));
		json_object_set_new(queue, "commits", json_number(status->commits));
		json_object_set_new(queue, "committed", json_number(status->committed));
		json_object_set_new(queue, "refusing", json_boolean(status->refusing));
		json_object_set_new(queue, "refusing_why", json_text(status->refusing_why));
		json_object_set_new(queue, "disk_free", json_number(status->disk_free));
		json_object_set_new(queue, "disk_reserve", json_number(status->disk_reserve));
		json_object_set_new(queue, "files_free",
		                    status->files_free == UINT64_MAX
		                        ? json_null()
		                        : json_number(status->files_free));
		json_object_set_new(queue, "map_percent", json_number(status->map_percent));
		json_object_set_new(queue, "ledger_time", json_time(status->ledger_time));
		json_object_set_new(queue, "ledger_held", json_boolean(status->ledger_held));
	}
	json_object_set_new(request_notes(request), "queue", queue);
	if (got == QUEUE_DONE)
		queue_ask_holds(request_peers(request)->queue, 0, on_holds, request);
	else
		request_answer(request, json_incref(request_notes(request)));
}

/* Which a relay drains. */
static json_t *
lane_of(const struct conf *conf, const struct service_process *process)
{
	const unsigned lane =
	    process->role == SERVICE_RELAY ? conf_relay_lane(conf, process->index) : QUEUE_LANES;

	return lane < QUEUE_LANES ? json_string(queue_lane_name((enum queue_lane)lane))
	                          : json_null();
}

static void
on_processes(void *arg, const struct service_state *state, const struct service_process *list,
             size_t count)
{
	struct request *request = arg;
	json_t *configuration = json_object();
	json_t *processes = json_array();

	for (size_t i = 0; i < count; i++) {
		json_t *one = json_object();

		json_object_set_new(one, "role", json_string(service_role_name(list[i].role)));
		json_object_set_new(one, "index", json_number(list[i].index));
		json_object_set_new(one, "lane", lane_of(request_peers(request)->conf, &list[i]));
		json_object_set_new(one, "pid", json_integer(list[i].pid));
		json_object_set_new(one, "state",
		                    json_string(list[i].pid == 0            ? "down"
		                                : list[i].layers[0] == '\0' ? "starting"
		                                                            : "up"));
		json_object_set_new(one, "since", json_time(list[i].since));
		json_object_set_new(one, "uptime", seconds_since(list[i].since));
		json_object_set_new(one, "restarts", json_number(list[i].restarts));
		json_object_set_new(one, "log", json_string(log_level_name(list[i].level)));
		json_object_set_new(one, "load", json_string(service_load_name(list[i].load)));
		json_object_set_new(one, "layers", json_text(list[i].layers));
		json_array_append_new(processes, one);
	}
	json_object_set_new(configuration, "generation", json_number(state->generation));
	json_object_set_new(configuration, "loaded", json_time(state->loaded));
	json_object_set_new(configuration, "file", json_text(state->file));
	json_object_set_new(configuration, "certificate_expires", json_time(state->expires));
	if (state->expires != 0)
		json_object_set_new(configuration, "certificate_left",
		                    json_integer((state->expires - clock_wall()) / 1000));
	json_object_set_new(request_notes(request), "configuration", configuration);
	json_object_set_new(request_notes(request), "now", json_time(clock_wall()));
	json_object_set_new(request_notes(request), "processes", processes);
	queue_ask_status(request_peers(request)->queue, on_status, request);
}

void
cmd_status(struct request *request)
{
	service_ask_processes(on_processes, request);
}

/* A queue that hangs is what somebody who asks for the status wants to see. */
void
cmd_status_late(struct request *request)
{
	if (json_object_get(request_notes(request), "queue") == NULL)
		json_object_set_new(request_notes(request), "queue", json_null());
	request_answer(request, json_incref(request_notes(request)));
}

/* A line each, for a list. */
static json_t *
lines_json(const char *text)
{
	json_t *lines = json_array();

	while (*text != '\0') {
		const size_t len = strcspn(text, "\n");
		char *line = xmemdup0(text, len);

		if (len > 0)
			json_array_append_new(lines, json_text(line));
		free(line);
		text += len + (text[len] == '\n');
	}
	return lines;
}

static void
on_reloaded(void *arg, uint64_t generation, const char *mistakes)
{
	struct request *request = arg;
	char words[128];

	if (generation == 0) {
		request_refuse(request, "unavailable", "sekishod does not answer");
	} else if (mistakes[0] != '\0') {
		snprintf(words, sizeof(words),
		         "the configuration is refused, and generation %" PRIu64 " stays in force",
		         generation);
		request_refuse_with(request, "refused", words, "mistakes", lines_json(mistakes));
	} else {
		request_answer(request, json_pack("{s:o}", "generation", json_number(generation)));
	}
}

void
cmd_reload(struct request *request)
{
	service_ask_reload(on_reloaded, request);
}

static void
ask_stop(void *arg)
{
	(void)arg;
	service_ask_stop();
}

/* The answer goes first: sekishod ends this process, too, as soon as it is asked. */
void
cmd_stop(struct request *request)
{
	request_answer(request, json_object());
	loop_timer_arm(loop_timer_new(service_loop(), ask_stop, NULL), STOP_DELAY);
}
