#include "admin/watch.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/logline.h"
#include "core/mem.h"

/* Following an account: most lines about a message carry only its id. So a watcher of an account
 * remembers the ids of the lines that named it, the last IDS_MAX of them. */

#define IDS_MAX 256
#define ID_SIZE 40
#define TURNS   64 /* lines taken from a process before the others' turn */

struct tap { /* one process's lines */
	struct tap *prev, *next;
	enum service_role role;
	unsigned index;
	int fd;
	struct loop_watch *watch;
};

struct watch {
	struct watch *prev, *next;
	struct watch_filter filter;
	struct conn *conn;
	uint64_t lost; /* since it was told last */
	char ids[IDS_MAX][ID_SIZE];
	unsigned id_next;
};

static struct tap *taps;
static struct watch *watches;
static unsigned watch_count;

static void
tap_free(struct tap *tap)
{
	loop_watch_free(tap->watch);
	close(tap->fd);
	if (tap->prev != NULL)
		tap->prev->next = tap->next;
	else
		taps = tap->next;
	if (tap->next != NULL)
		tap->next->prev = tap->prev;
	free(tap);
}

static bool
is_listed(const char *list, const struct logline_text *what)
{
	while (*list != '\0') {
		const size_t len = strcspn(list, ",");

		if (len == what->len && memcmp(list, what->at, len) == 0)
			return true;
		list += len + (list[len] == ',');
	}
	return false;
}

static bool
remembers(const struct watch *watch, const struct logline_text *id)
{
	char name[ID_SIZE];

	if (id->len >= ID_SIZE || logline_is(id, "-"))
		return false;
	memcpy(name, id->at, id->len);
	name[id->len] = '\0';
	for (unsigned i = 0; i < IDS_MAX; i++)
		if (strcmp(watch->ids[i], name) == 0)
			return true;
	return false;
}

static void
remember(struct watch *watch, const struct logline_text *id)
{
	if (id->len >= ID_SIZE || logline_is(id, "-") || remembers(watch, id))
		return;
	memcpy(watch->ids[watch->id_next], id->at, id->len);
	watch->ids[watch->id_next][id->len] = '\0';
	watch->id_next = (watch->id_next + 1) % IDS_MAX;
}

/* Whether the line is about the account; what belongs to it from now on is remembered. */
static bool
is_about(struct watch *watch, const struct logline *line)
{
	struct logline_text rest = line->rest, key, value, id = {NULL, 0};
	bool named = false;

	while (logline_next(&rest, &key, &value)) {
		if (logline_is(&key, "account") && logline_is(&value, watch->filter.account))
			named = true;
		else if (logline_is(&key, "id"))
			id = value;
	}
	if (!named)
		return remembers(watch, &line->id);
	remember(watch, &line->id);
	if (id.len > 0)
		remember(watch, &id);
	return true;
}

/* In this order: what an account's line teaches must not depend on the other filters. */
static bool
passes(struct watch *watch, const struct tap *tap, const struct logline *line)
{
	if (logline_is(&line->event, "log_dropped"))
		return true;
	if (watch->filter.account[0] != '\0' && !is_about(watch, line))
		return false;
	if (watch->filter.event[0] != '\0' && !is_listed(watch->filter.event, &line->event))
		return false;
	return process_covers(&watch->filter.process, tap->role, tap->index);
}

static json_t *
text_json(const struct logline_text *text)
{
	return json_stringn(text->at, text->len);
}

/* The line for the watchers, with its end; the caller frees it. */
static char *
event_line(const struct tap *tap, const struct logline *line, const char *whole, size_t *len)
{
	struct logline_text rest = line->rest, key, value;
	json_t *fields = json_object(), *words = json_array(), *event;
	char name[PROCESS_NAME_SIZE], *text;

	while (logline_next(&rest, &key, &value)) {
		if (key.len > 0)
			json_object_setn_new(fields, key.at, key.len, text_json(&value));
		else
			json_array_append_new(words, text_json(&value));
	}
	event =
	    json_pack("{s:{s:o,s:s,s:i,s:s,s:o,s:o,s:o,s:o,s:s%}}", "event", "time",
	              text_json(&line->time), "process", process_name(tap->role, tap->index, name),
	              "pid", (int)line->pid, "level", log_level_name(line->level), "id",
	              text_json(&line->id), "event", text_json(&line->event), "words", words,
	              "fields", fields, "line", whole, *len);
	text = json_dumps(event, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(event);
	if (text == NULL)
		return NULL;
	*len = strlen(text);
	text[(*len)++] = '\n';
	return text;
}

static void
tell_lost(struct watch *watch)
{
	char text[64];
	const int len =
	    snprintf(text, sizeof(text), "{\"lost\":%llu}\n", (unsigned long long)watch->lost);

	watch->lost = 0;
	conn_write(watch->conn, text, (size_t)len);
}

/* What is lost is told before anything else, and where there is room again. */
static void
hand_over(struct watch *watch, const char *text, size_t len)
{
	const size_t pending = conn_pending(watch->conn);

	if (pending + len > WATCH_PENDING_MAX || (watch->lost > 0 && pending > 0)) {
		watch->lost++;
		return;
	}
	if (watch->lost > 0)
		tell_lost(watch);
	conn_write(watch->conn, text, len);
}

static void
take_line(const struct tap *tap, const char *whole, size_t len)
{
	struct logline line;
	char *text = NULL;

	if (!logline_parse(whole, len, &line))
		return;
	for (struct watch *w = watches; w != NULL; w = w->next) {
		if (!passes(w, tap, &line))
			continue;
		if (text == NULL && (text = event_line(tap, &line, whole, &len)) == NULL)
			return;
		hand_over(w, text, len);
	}
	free(text);
}

static void
on_lines(void *arg, unsigned ready)
{
	struct tap *tap = arg;
	char line[LOG_LINE_MAX];

	(void)ready;
	for (int turn = 0; turn < TURNS; turn++) {
		ssize_t n = recv(tap->fd, line, sizeof(line), MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			tap_free(tap);
			return;
		}
		take_line(tap, line, (size_t)n);
	}
}

static void
on_tap(void *arg, enum service_role role, unsigned index, int fd_take)
{
	struct tap *tap = xcalloc(1, sizeof(*tap));

	(void)arg;
	tap->role = role;
	tap->index = index;
	tap->fd = fd_take;
	tap->watch = loop_watch_new(service_loop(), fd_take, on_lines, tap);
	tap->next = taps;
	if (taps != NULL)
		taps->prev = tap;
	taps = tap;
	loop_watch_set(tap->watch, LOOP_READ);
}

struct watch *
watch_new(const struct watch_filter *filter, struct conn *conn)
{
	struct watch *watch;

	if (watch_count == WATCH_MAX)
		return NULL;
	watch = xcalloc(1, sizeof(*watch));
	watch->filter = *filter;
	watch->conn = conn;
	watch->next = watches;
	if (watches != NULL)
		watches->prev = watch;
	watches = watch;
	if (watch_count++ == 0)
		service_ask_tap(on_tap, NULL);
	return watch;
}

void
watch_free(struct watch *watch)
{
	if (watch == NULL)
		return;
	if (watch->prev != NULL)
		watch->prev->next = watch->next;
	else
		watches = watch->next;
	if (watch->next != NULL)
		watch->next->prev = watch->prev;
	free(watch);
	if (--watch_count > 0)
		return;
	service_ask_tap(NULL, NULL);
	while (taps != NULL)
		tap_free(taps);
}

void
watch_drained(struct watch *watch)
{
	if (watch->lost > 0)
		tell_lost(watch);
}
