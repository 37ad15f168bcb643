/* Opens the store in the directory named first, as sekisho-queue does after a crash, and says what
 * it found: "audit ok" or "audit bad …", then one line for each of the ids that follow: "kept ID"
 * or "lost ID". */
#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "queue/store.h"

static struct loop *loop;
static struct store *store;
static struct queue_audit audit;
static unsigned long long bodies, faults;

static void
on_audit(void *arg, const struct queue_audit *result)
{
	(void)arg;
	audit = *result;
	loop_stop(loop);
}

static void
on_check(void *arg, const struct queue_check *share)
{
	for (size_t i = 0; i < share->count; i++)
		printf("fault %s: %s\n", share->faults[i].where, share->faults[i].what);
	faults += share->count;
	bodies = share->bodies;
	if (share->number == 0)
		store_audit(store, on_audit, arg);
	else
		store_check(store, share->number, on_check, arg);
}

int
main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]) != 0)
		return 64;
	log_open("recover");
	log_set_level(LOG_LEVEL_WARN);
	loop = loop_new();
	const struct store_opts opts = {
	    .map_size = 1ull << 30, .history_keep = 86400000, .verify_bodies = true};
	char error[256] = "";
	store = store_open(loop, &opts, error, sizeof error);
	if (store == NULL) {
		printf("audit bad cannot open: %s\n", error);
		return 1;
	}
	store_check(store, 0, on_check, NULL);
	loop_run(loop);
	printf("audit %s bodies=%llu faults=%llu queued=%llu\n",
	       audit.conserved && faults == 0 ? "ok" : "bad", bodies, faults,
	       (unsigned long long)audit.queued);
	for (int i = 2; i < argc; i++) {
		struct queue_id id;
		enum queue_lane lane;
		printf("%s %s\n",
		       queue_id_parse(argv[i], &id) && store_find(store, &id, &lane) ? "kept"
		                                                                     : "lost",
		       argv[i]);
	}
	store_close(store);
	loop_free(loop);
	return 0;
}
