#include "queue/space.h"

/* Looked at once a second at most: what a second of mail can fill is far below the reserve. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "core/log.h"

#define LOOK_EVERY  1000 /* msec */
#define MAP_PERCENT 90

static msec_t looked;    /* monotonic */
static uint64_t reserve; /* as it was then */
static char why[128];

const char *
space_shortage(struct store *store, const struct conf *conf)
{
	msec_t now = clock_mono();
	struct store_counts counts;
	struct statvfs disk;
	if (looked != 0 && now - looked < LOOK_EVERY && reserve == conf->disk_reserve)
		return why;
	const bool was = why[0] != '\0';
	looked = now;
	reserve = conf->disk_reserve;
	why[0] = '\0';
	store_counts(store, &counts);
	if (statvfs(".", &disk) == -1) {
		snprintf(why, sizeof(why), "statvfs: %s", strerror(errno));
	} else {
		uint64_t left = (uint64_t)disk.f_bavail * disk.f_frsize;
		uint64_t tenth = (uint64_t)disk.f_blocks * disk.f_frsize / 10;
		uint64_t need = reserve < tenth ? reserve : tenth;
		if (left < need)
			snprintf(why, sizeof(why), "%llu MiB free, %llu MiB reserved",
			         (unsigned long long)(left >> 20),
			         (unsigned long long)(need >> 20));
	}
	if (why[0] == '\0' && counts.map_percent >= MAP_PERCENT)
		snprintf(why, sizeof(why), "queue.map_size is %u %% full", counts.map_percent);
	if (why[0] != '\0' && !was)
		log_error("-", "refusing", "why=\"%s\"", why);
	else if (was && why[0] == '\0')
		log_info("-", "accepting", "%s", "again=1");
	return why;
}
