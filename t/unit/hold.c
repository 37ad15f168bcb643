/* Holds that the first versions wrote, with one condition each, and reroutes from when there were
 * only lanes to go to, are in force, and end for good when they are released. */
#include "queue/hold.h"

#include <limits.h>

#include "queue/proto.h"
#include "t/unit/spool.h"
#include "t/unit/tap.h"

static struct holds *holds;
static struct queue_hold seen[8];
static size_t count;
static enum queue_answer answered;

static void
on_change(void *arg, bool ended)
{
	(void)arg;
	(void)ended;
}

static void
on_hold(void *arg, const struct queue_hold *hold)
{
	(void)arg;
	if (count < 8)
		seen[count++] = *hold;
}

static void
on_answer(void *arg, enum queue_answer answer)
{
	(void)arg;
	answered = answer;
	loop_stop(loop);
}

static void
on_name(void *arg, const char *name, const uint8_t *value, size_t len)
{
	(void)value;
	(void)len;
	buf_printf(arg, "%s\n", name);
}

/* As format 1 was: the kind, an id, a name; since, until, by, reason. */
static void
write_old(unsigned kind, const char *name, const struct queue_id *id, const char *directive)
{
	struct buf value;

	buf_init(&value);
	wire_put_u8(&value, 1);
	wire_put_u8(&value, (uint8_t)kind);
	proto_put_id(&value, id);
	wire_put_str(&value, name);
	wire_put_u64(&value, 1700000000000);
	wire_put_u64(&value, 0);
	wire_put_str(&value, "root");
	wire_put_str(&value, "why");
	waiting++;
	store_directive_put(store, directive, value.data, value.len, on_done, NULL);
	buf_clear(&value);
}

/* As format 3 was: today's, but for the next hop. */
static void
write_lane(void)
{
	struct queue_hold hold = {
	    .action = QUEUE_REROUTE, .lane = QUEUE_FALLBACK, .by = "root", .reason = "why"};
	struct buf value;

	snprintf(hold.selector.account, sizeof(hold.selector.account), "b@example.org");
	buf_init(&value);
	wire_put_u8(&value, 3);
	proto_put_hold(&value, &hold);
	waiting++;
	store_directive_put(store, "hold account b@example.org", value.data, value.len - 4, on_done,
	                    NULL);
	buf_clear(&value);
}

/* As format 2 was: that, but for action and lane, because there were holds only. */
static void
write_plain(void)
{
	struct queue_hold hold = {.action = QUEUE_HOLD, .by = "root", .reason = "why"};
	struct buf value;

	snprintf(hold.selector.account, sizeof(hold.selector.account), "c@example.org");
	buf_init(&value);
	proto_put_hold(&value, &hold);
	value.data[1] = 2;
	waiting++;
	store_directive_put(store, "hold account c@example.org", value.data + 1, value.len - 5,
	                    on_done, NULL);
	buf_clear(&value);
}

static void
start(void)
{
	ok(reopen(), "the store opens");
	holds = holds_new(loop, store, on_change, NULL);
	count = 0;
	holds_page(holds, 0, 8, on_hold, NULL);
}

static void
stop(void)
{
	store_close(store);
	store = NULL;
	holds_free(holds);
}

static const struct queue_hold *
about(bool message, const char *account, const char *recipient)
{
	for (size_t i = 0; i < count; i++)
		if (seen[i].selector.has_message == message &&
		    strcmp(seen[i].selector.account, account) == 0 &&
		    strcmp(seen[i].selector.recipient, recipient) == 0)
			return &seen[i];
	return NULL;
}

int
main(void)
{
	char dir[] = "/tmp/sekisho-hold-XXXXXX", command[PATH_MAX], text[QUEUE_ID_TEXT_SIZE];
	char name[QUEUE_ID_TEXT_SIZE + 16];
	const struct queue_id nobody = {{0}};
	struct queue_id id;
	struct buf names;

	if (mkdtemp(dir) == NULL || chdir(dir) < 0)
		return 1;
	alarm(60);
	loop = loop_new();
	queue_id_make(&id, clock_wall());
	ok(reopen(), "a new store");
	write_old(2, "a@example.org", &nobody, "hold account a@example.org");
	write_old(3, "example.org", &nobody, "hold domain example.org");
	snprintf(name, sizeof(name), "hold message %s", queue_id_format(&id, text));
	write_old(1, "", &id, name);
	write_old(4, "x", &nobody, "hold what x");
	write_lane();
	write_plain();
	wait_all();

	start();
	const struct queue_hold *domain = about(false, "", "example.org");
	ok(count == 5 && about(false, "a@example.org", "") && about(true, "", "") && domain,
	   "each is in force");
	ok(domain && domain->action == QUEUE_HOLD && domain->since == 1700000000000 &&
	       domain->until == 0 && strcmp(domain->by, "root") == 0 &&
	       strcmp(domain->reason, "why") == 0,
	   "and is whose, since when and why it was");
	const struct queue_hold *reroute = about(false, "b@example.org", "");
	ok(reroute && reroute->action == QUEUE_REROUTE && reroute->lane == QUEUE_FALLBACK &&
	       reroute->next_hop[0] == '\0' && strcmp(reroute->reason, "why") == 0,
	   "a reroute goes to its lane");
	const struct queue_hold *plain = about(false, "c@example.org", "");
	ok(plain && plain->action == QUEUE_HOLD && strcmp(plain->by, "root") == 0, "a hold is one");
	ok(queue_id_equal(&about(true, "", "")->selector.message, &id), "of that message");
	const struct queue_selector selector = domain->selector;
	stop();
	ok(reopen(), "the store opens");
	buf_init(&names);
	store_each_directive(store, on_name, &names);
	ok(strstr(buf_str(&names), "hold domain ") == NULL &&
	       strstr(buf_str(&names), "hold recipient example.org\n") != NULL,
	   "they have their names of today");
	buf_clear(&names);

	start();
	ok(count == 5, "a restart finds the same");
	answered = QUEUE_DOWN;
	holds_release(holds, &selector, "root", on_answer, NULL);
	loop_run(loop);
	ok(answered == QUEUE_DONE, "one is released");
	stop();
	start();
	ok(count == 4 && !about(false, "", "example.org"), "and does not come back");
	stop();

	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") < 0 || system(command) != 0)
		return 1;
	return tap_end();
}
