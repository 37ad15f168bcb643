#include "queue/space.h"

/* Looked at once a second: what a second of mail can fill is far below the reserves. What was low
 * has to rise somewhat above the mark before mail is taken again, so that a queue which drains as
 * fast as it fills does not say yes and no in turn. A message of which the size was announced must
 * leave the reserve whole, so the largest are refused first. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "core/log.h"
#include "core/mem.h"

#define LOOK_EVERY    1000 /* msec */
#define FILES_RESERVE 10000u
#define MAP_FULL      90 /* percent */
#define MAP_ROOM      85

struct space {
	struct store *store;
	struct loop_timer *timer;
	const struct conf *conf; /* borrowed */
	struct space_view view;
	char why[128];
};

/* A mark, and where it is left again. */
static uint64_t
mark(uint64_t need, bool is_low)
{
	return is_low ? need + need / 8 : need;
}

static uint64_t
least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void
judge(struct space *space, const struct statvfs *disk)
{
	struct space_view *view = &space->view;
	const bool was = space->why[0] != '\0';
	const uint64_t block = disk->f_frsize;
	const uint64_t files = least(FILES_RESERVE, disk->f_files / 100);

	view->disk_free = disk->f_bavail * block;
	view->disk_reserve = least(space->conf->disk_reserve, disk->f_blocks * block / 10);
	view->files_free = disk->f_files ? disk->f_favail : UINT64_MAX;
	space->why[0] = '\0';
	if (view->disk_free < mark(view->disk_reserve, was))
		snprintf(space->why, sizeof(space->why), "%llu MiB free, %llu MiB reserved",
		         (unsigned long long)(view->disk_free >> 20),
		         (unsigned long long)(view->disk_reserve >> 20));
	else if (view->files_free < mark(files, was))
		snprintf(space->why, sizeof(space->why), "%llu files can be made, %llu reserved",
		         (unsigned long long)view->files_free, (unsigned long long)files);
	else if (view->map_percent >= (was ? MAP_ROOM : MAP_FULL))
		snprintf(space->why, sizeof(space->why), "queue.map_size is %u %% full",
		         view->map_percent);
}

static void
look(void *arg)
{
	struct space *space = arg;
	const bool was = space->why[0] != '\0';
	struct store_counts counts;
	struct statvfs disk;

	loop_timer_arm(space->timer, LOOK_EVERY);
	store_counts(space->store, &counts);
	space->view.map_percent = counts.map_percent;
	if (statvfs(".", &disk) == -1)
		snprintf(space->why, sizeof(space->why), "statvfs: %s", strerror(errno));
	else
		judge(space, &disk);
	if (space->why[0] != '\0' && !was)
		log_error("-", "refusing", "why=\"%s\"", space->why);
	else if (was && space->why[0] == '\0')
		log_info("-", "accepting", "%s", "again=1");
}

struct space *
space_new(struct loop *loop, struct store *store, const struct conf *conf)
{
	struct space *space = xcalloc(1, sizeof(*space));

	space->store = store;
	space->conf = conf;
	space->view.refusing = space->why;
	space->timer = loop_timer_new(loop, look, space);
	look(space);
	return space;
}

void
space_free(struct space *space)
{
	if (space == NULL)
		return;
	loop_timer_free(space->timer);
	free(space);
}

void
space_reload(struct space *space, const struct conf *conf)
{
	space->conf = conf;
	look(space);
}

bool
space_has_room(const struct space *space, uint64_t size)
{
	const struct space_view *view = &space->view;

	return space->why[0] == '\0' &&
	       (size == 0 || (view->disk_free >= view->disk_reserve &&
	                      view->disk_free - view->disk_reserve >= size));
}

void
space_look(const struct space *space, struct space_view *out)
{
	*out = space->view;
}
