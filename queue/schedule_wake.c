#include "queue/schedule_int.h"

/* The first success wakes the rest. What waits for a site that answers again is found by the index
 * of its domains and made due as an operator's flush does it, a page at a time and only as fast as
 * it is handed out, so a backlog of any length comes back at the pace of its site. Nothing of this
 * is remembered: if the process ends, the rest is due by the schedule. */

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

#define EVERY     80   /* msec */
#define PAGE      20   /* messages looked at each time */
#define WAKES_MAX 1000 /* sites at once; what is not woken is due by the schedule */

struct wake {
	LIST_ENTRY(wake) link;
	char site[QUEUE_SITE_SIZE];
	char **domains; /* as they were known when it began */
	size_t count, at;
	enum queue_lane lane;
	struct queue_id after;
	unsigned woken;
};

struct wakes {
	struct schedule *schedule;
	struct loop_timer *timer; /* until the next look at all of them */
	struct loop_chore *chore; /* which that is */
	struct wake *next;        /* looked at by its next step */
	LIST_HEAD(, wake) list;
	unsigned count;
};

static void
wake_free(struct wakes *wakes, struct wake *wake)
{
	LIST_REMOVE(wake, link);
	wakes->count--;
	for (size_t i = 0; i < wake->count; i++)
		free(wake->domains[i]);
	free(wake->domains);
	free(wake);
}

struct page {
	struct queue_id ids[PAGE];
	size_t count;
};

static void
on_id(void *arg, const struct queue_id *id)
{
	struct page *page = arg;

	page->ids[page->count++] = *id;
}

static void
on_woken(void *arg, enum store_result result)
{
	(void)arg;
	(void)result; /* what could not be written is due by the schedule */
}

/* True when there may be more. */
static bool
wake_page(struct schedule *schedule, struct wake *wake)
{
	const char *domain = wake->domains[wake->at];
	struct page page = {.count = 0};
	const size_t seen = store_scan_domain(schedule->store, wake->lane, domain, &wake->after,
	                                      PAGE, on_id, &page);

	for (size_t i = 0; i < page.count; i++) {
		struct store_message *stored =
		    store_load_message(schedule->store, wake->lane, &page.ids[i]);

		if (stored && store_is_for(stored, domain))
			wake->woken += schedule_flush(schedule, stored, schedule_now(schedule),
			                              false, on_woken, NULL);
		store_message_free(stored);
	}
	if (seen == PAGE)
		return true;
	memset(&wake->after, 0, sizeof(wake->after));
	if (wake->lane == QUEUE_RETRY) {
		wake->lane = QUEUE_FALLBACK;
		return true;
	}
	wake->lane = QUEUE_RETRY;
	return ++wake->at < wake->count;
}

/* Whether what was woken before has been handed out. */
static bool
has_room(const struct schedule *schedule, const struct wake *wake)
{
	const struct line *line = line_find(&schedule->lanes[wake->lane], wake->site);

	return line == NULL || line->load.pending < PAGE;
}

/* The next site's page. */
static bool
on_step(void *arg)
{
	struct wakes *wakes = arg;
	struct wake *wake = wakes->next;
	const struct site *site;

	if (wake == NULL) {
		if (wakes->count > 0)
			loop_timer_arm(wakes->timer, EVERY);
		return false;
	}
	wakes->next = LIST_NEXT(wake, link);
	site = sites_find(wakes->schedule->sites, wake->site);
	if (site == NULL || site->failing || site_is_paused(site, schedule_now(wakes->schedule))) {
		wake_free(wakes, wake);
	} else if (has_room(wakes->schedule, wake) && !wake_page(wakes->schedule, wake)) {
		if (wake->woken > 0)
			log_info("-", "site-woken", "site=%s messages=%u", wake->site, wake->woken);
		wake_free(wakes, wake);
	}
	return true;
}

static void
on_timer(void *arg)
{
	struct wakes *wakes = arg;

	if (wakes->next == NULL)
		wakes->next = LIST_FIRST(&wakes->list);
	loop_chore_begin(wakes->chore);
}

static void
on_domain(void *arg, const char *domain)
{
	struct wake *wake = arg;

	wake->domains = xreallocarray(wake->domains, wake->count + 1, sizeof(*wake->domains));
	wake->domains[wake->count++] = xstrdup(domain);
}

void
wakes_begin(struct wakes *wakes, const struct site *site)
{
	struct wake *wake;

	LIST_FOREACH(wake, &wakes->list, link)
	{
		if (strcmp(wake->site, site->name) == 0)
			return; /* it goes on */
	}
	if (wakes->count == WAKES_MAX || wakes->schedule->stopped)
		return;
	wake = xcalloc(1, sizeof(*wake));
	memcpy(wake->site, site->name, sizeof(wake->site));
	wake->lane = QUEUE_RETRY;
	sites_each_domain(site, on_domain, wake);
	LIST_INSERT_HEAD(&wakes->list, wake, link);
	wakes->count++;
	if (wake->count == 0)
		wake_free(wakes, wake);
	else
		loop_timer_arm(wakes->timer, 0);
}

struct wakes *
wakes_new(struct schedule *schedule)
{
	struct wakes *wakes = xcalloc(1, sizeof(*wakes));

	wakes->schedule = schedule;
	LIST_INIT(&wakes->list);
	wakes->timer = loop_timer_new(schedule->loop, on_timer, wakes);
	wakes->chore = loop_chore_new(schedule->loop, on_step, wakes);
	return wakes;
}

void
wakes_stop(struct wakes *wakes)
{
	loop_timer_cancel(wakes->timer);
	loop_chore_cancel(wakes->chore);
}

void
wakes_free(struct wakes *wakes)
{
	while (!LIST_EMPTY(&wakes->list))
		wake_free(wakes, LIST_FIRST(&wakes->list));
	loop_timer_free(wakes->timer);
	loop_chore_free(wakes->chore);
	free(wakes);
}
