#include "admin/ctl.h"

/* log, watch and reload: what the service tells, while it tells it. */

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

#define PATIENCE_WATCH 15 /* s; for the beginning */

/* "log" alone asks, "log msa debug" sets. */
void
ctl_log_prepare(json_t *request)
{
	const bool any = json_object_size(request) > 1;

	if (json_object_get(request, "level") != NULL)
		json_object_set_new(request, "command", json_string("log.set"));
	else if (any)
		ctl_usage("usage: sekishoctl log [PROCESS|all LEVEL [--for TIME]]");
}

void
ctl_log_print(const json_t *request, const json_t *result)
{
	struct ctl_column columns[] = {
	    {.key = "process", .head = "PROCESS"},
	    {.key = "level", .head = "LEVEL"},
	    {.key = "until", .head = "UNTIL"},
	    {.key = NULL},
	};

	(void)request;
	if (json_object_get(result, "levels") != NULL) {
		ctl_table(columns, json_object_get(result, "levels"));
		return;
	}
	printf("%s: level %s, %s processes", ctl_show(result, "process"), ctl_show(result, "level"),
	       ctl_show(result, "processes"));
	if (json_is_string(json_object_get(result, "until")))
		printf(", until %s", ctl_show(result, "until"));
	puts(json_is_string(json_object_get(result, "until"))
	         ? ""
	         : ", until the next restart or reload");
}

void
ctl_reload_print(const json_t *request, const json_t *result)
{
	(void)request;
	printf("generation %s is in force\n", ctl_show(result, "generation"));
}

/* Every line printed is out by now, or not begun. */
static void
on_interrupt(int number)
{
	(void)number;
	_exit(0);
}

static void
print_event(const json_t *line)
{
	const json_t *event = json_object_get(line, "event");

	if (ctl_wants_json()) {
		ctl_json(line);
		putchar('\n');
	} else if (event != NULL) {
		puts(ctl_harmless_line(json_string_value(json_object_get(event, "line"))));
	} else {
		printf("(%s lines lost: this watcher is too slow)\n", ctl_show(line, "lost"));
	}
}

/* Until it is interrupted, which is a good end, or the reader of its output goes. */
int
ctl_watch_run(json_t *request)
{
	const struct sigaction action = {.sa_handler = on_interrupt};
	json_t *line;

	json_decref(ctl_ask(json_copy(request), PATIENCE_WATCH));
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((line = ctl_ask_next()) != NULL) {
		print_event(line);
		json_decref(line);
		ctl_print_done();
	}
	ctl_die(CTL_UNAVAILABLE, "the service has ended the watch; sekishoctl status shows why");
}
