/* Opens the store in the directory named first, as sekisho-queue does after a crash, and says what
 * it found: "audit ok" or "audit bad …", then one line for each of the ids that follow: "kept ID"
 * or "lost ID". */
#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "queue/store.h"

struct audited {
	struct loop *loop;
	struct queue_audit audit;
};

static void
on_audit(void *arg, const struct queue_audit *audit)
{
	struct audited *audited = arg;

	audited->audit = *audit;
	loop_stop(audited->loop);
}

int
main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]) != 0)
		return 64;
	log_open("recover");
	log_set_level(LOG_LEVEL_WARN);
	struct loop *loop = loop_new();
	const struct store_opts opts = {
	    .map_size = 1ull << 30, .history_keep = 86400000, .verify_bodies = true};
	char error[256] = "";
	struct store *store = store_open(loop, &opts, error, sizeof error);
	if (store == NULL) {
		printf("audit bad cannot open: %s\n", error);
		return 1;
	}
	struct audited audited = {.loop = loop};
	store_audit(store, on_audit, &audited);
	loop_run(loop);
	const struct queue_audit audit = audited.audit;
	printf("audit %s bodies=%llu bad=%llu orphans=%llu queued=%llu\n",
	       audit.conserved ? "ok" : "bad", (unsigned long long)audit.bodies_checked,
	       (unsigned long long)audit.bodies_bad, (unsigned long long)audit.orphans,
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
