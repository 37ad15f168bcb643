#include "sekishod/reload.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "sekishod/notify.h"

/* Check first, then ask everybody. The checks take their time in children of their own, for which
 * sekishod waits (sekishod/unprivileged.h bounds it): nobody else waits for sekishod, except a
 * process that has just died. Then the generation is offered (children_reload.c), and only what
 * everybody has agreed to comes into force. */

#define LOOK_EVERY (60 * 60 * 1000) /* ms; at the certificate */
#define DAY        (24 * 60 * 60 * 1000)

struct reload {
	const char *file;
	struct children *children;
	bool running;
	bool again; /* one more afterwards */
	bool asked; /* by asker */
	struct children_asker asker;
	struct buf said; /* warnings of the generation under way */
	struct loop_timer *look;
	uint64_t warned_of; /* the generation whose certificate the next field is about */
	int warned;         /* days before the end that were warned of last */
};

static void
look_at_certificate(void *arg)
{
	static const int days[] = {0, 1, 7, 30};
	struct reload *reload = arg;
	const struct generation *generation = children_running(reload->children);
	msec_t left = generation->expires - clock_wall();
	char when[CLOCK_RFC3339_SIZE];
	loop_timer_arm(reload->look, LOOK_EVERY);
	if (reload->warned_of != generation->number)
		reload->warned = INT32_MAX;
	reload->warned_of = generation->number;
	for (size_t i = 0; i < sizeof(days) / sizeof(days[0]); i++) {
		if (generation->expires == 0 || left > (msec_t)days[i] * DAY ||
		    reload->warned <= days[i])
			continue;
		reload->warned = days[i];
		log_warn("-", "certificate", "%s=%s file=%s: renew it and reload",
		         left > 0 ? "expires" : "expired", clock_rfc3339(generation->expires, when),
		         generation->conf->tls_certificate);
		return;
	}
}

struct reload *
reload_new(struct loop *loop, const char *file, struct children *children)
{
	struct reload *reload = xcalloc(1, sizeof(*reload));
	reload->file = file;
	reload->children = children;
	buf_init(&reload->said);
	reload->look = loop_timer_new(loop, look_at_certificate, reload);
	loop_timer_arm(reload->look, 0);
	return reload;
}

void
reload_free(struct reload *reload)
{
	if (reload == NULL)
		return;
	loop_timer_free(reload->look);
	buf_clear(&reload->said);
	free(reload);
}

/* Lines become one, with " | " between them. */
static char *
in_one_line(struct buf *text)
{
	struct buf line;
	buf_init(&line);
	for (const char *c = buf_str(text); *c != '\0'; c++) {
		if (*c != '\n')
			buf_add_char(&line, *c);
		else if (c[1] != '\0')
			buf_add_str(&line, " | ");
	}
	char *result = xstrdup(buf_str(&line));
	buf_clear(&line);
	return result;
}

static void
finish(struct reload *reload, const char *mistakes)
{
	const struct generation *running = children_running(reload->children);
	reload->running = false;
	if (mistakes != NULL)
		buf_add_str(&reload->said, mistakes);
	char *line = in_one_line(&reload->said);
	if (mistakes != NULL)
		log_error("-", "reload", "refused generation=%" PRIu64 " stays: %s",
		          running->number, line);
	else
		log_info("-", "reload", "done generation=%" PRIu64 " file=%s%s%s", running->number,
		         reload->file, line[0] != '\0' ? " " : "", line);
	free(line);
	if (reload->asked)
		children_answer_reload(reload->children, reload->asker,
		                       mistakes != NULL ? buf_str(&reload->said) : "");
	reload->asked = false;
	buf_clear(&reload->said);
	if (children_are_stopping(reload->children))
		return;
	if (mistakes != NULL)
		notify_send("READY=1\nSTATUS=Reload refused, see the log; configuration %" PRIu64
		            " stays in force",
		            running->number);
	else
		notify_send("READY=1\nSTATUS=Configuration %" PRIu64 " in force", running->number);
	if (mistakes == NULL)
		look_at_certificate(reload);
	if (!reload->again)
		return;
	reload->again = false;
	reload_begin(reload);
}

static void
on_reload(void *arg, const char *refusal)
{
	finish(arg, refusal);
}

void
reload_begin(struct reload *reload)
{
	const struct generation *running = children_running(reload->children);
	if (children_are_stopping(reload->children))
		return;
	if (reload->running) {
		reload->again = true;
		return;
	}
	reload->running = true;
	notify_send("RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=Reloading", clock_usec());
	struct generation *next = generation_new(reload->file, &reload->said);
	if (next == NULL) {
		finish(reload, "");
		return;
	}
	const struct check check = {reload->file, next->conf, &reload->said};
	if (!conf_may_follow(running->conf, next->conf, reload->file, &reload->said) ||
	    generation_bind(next, running, NULL, &check) < 0) {
		generation_free(next);
		finish(reload, "");
		return;
	}
	children_reload(reload->children, next, on_reload, reload);
}

void
reload_ask(struct reload *reload, struct children_asker asker)
{
	if (reload->running || children_are_stopping(reload->children)) {
		children_answer_reload(reload->children, asker,
		                       reload->running ? "another reload is under way; try again\n"
		                                       : "the service is stopping\n");
		return;
	}
	reload->asked = true;
	reload->asker = asker;
	reload_begin(reload);
}
