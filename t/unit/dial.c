#include "relay/dial.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "t/unit/tap.h"

/* Setup: listeners on the loopback network: one that takes, one whose backlog is full, so that a
 * connection to it neither comes about nor fails, and a port where nobody listens; where the
 * machine has it, ::1 too.
 * Expectation: who answers is taken, and hears nothing of the others; who does not answer is waited
 * for beside the next, a better host longer than an equal; every address that fails says so once;
 * nothing stays open. */

#define WAIT 400 /* ms, for who does not answer */

static struct loop *loop;
static struct dns_target targets[DNS_TARGETS_MAX];
static size_t count;

static struct {
	unsigned opened, failed, timeouts, local, last; /* callbacks; last: those with no more */
	size_t target;
	char why[200], heard[64];
	struct conn *conn;
	bool stop; /* at whatever fails */
} got;

static void
on_input(void *arg)
{
	size_t len;
	const uint8_t *data = conn_input(got.conn, &len);

	(void)arg;
	if (len > sizeof got.heard - 1)
		len = sizeof got.heard - 1;
	memcpy(got.heard, data, len);
	conn_consume(got.conn, len);
	loop_stop(loop);
}

static void
on_end(void *arg, enum conn_end why)
{
	(void)arg;
	(void)why;
	loop_stop(loop);
}

static void
on_open(void *arg, size_t target, struct conn *conn, msec_t took)
{
	static const struct conn_events events = {.on_input = on_input, .on_end = on_end};

	(void)arg;
	got.opened++;
	got.target = target;
	got.conn = conn;
	if (took < 0)
		abort();
	conn_hand_over(conn, &events, NULL);
	loop_stop(loop);
}

static void
on_failed(void *arg, size_t target, const char *why, enum conn_end end, bool more)
{
	(void)arg;
	(void)target;
	got.failed++;
	got.timeouts += end == CONN_TIMEOUT;
	got.local += end == CONN_LOCAL;
	got.last += !more;
	snprintf(got.why, sizeof got.why, "%s", why);
	if (!more || got.stop)
		loop_stop(loop);
}

static const struct dial_events events = {.on_open = on_open, .on_failed = on_failed};

static unsigned
open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* One more target; returns its listener, or what only holds the port. -1: no such address here. */
static int
add(const char *ip, unsigned preference, int backlog)
{
	struct dns_target *target = &targets[count];
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&target->addr;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&target->addr;
	int fd;

	memset(target, 0, sizeof *target);
	target->preference = preference;
	if (inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1) {
		target->addr.ss_family = AF_INET6;
		target->len = sizeof *v6;
	} else {
		target->addr.ss_family = AF_INET;
		inet_pton(AF_INET, ip, &v4->sin_addr);
		target->len = sizeof *v4;
	}
	fd = socket(target->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&target->addr, target->len) != 0 ||
	    (backlog >= 0 && listen(fd, backlog) != 0)) {
		close(fd);
		return -1;
	}
	getsockname(fd, (struct sockaddr *)&target->addr, &target->len);
	count++;
	return fd;
}

/* Connections until one stays without an answer; all are kept in fds, as many as is returned. */
static size_t
fill(int fds[16])
{
	const struct dns_target *target = &targets[count - 1];

	for (size_t n = 0; n < 16; n++) {
		struct pollfd ready = {.events = POLLOUT};

		ready.fd = fds[n] =
		    socket(target->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)connect(fds[n], (const struct sockaddr *)&target->addr, target->len);
		if (poll(&ready, 1, 100) == 0)
			return n + 1;
	}
	abort();
}

static void
empty(int fds[16], size_t n)
{
	while (n)
		close(fds[--n]);
}

static bool
is_called(int listener)
{
	struct pollfd ready = {.fd = listener, .events = POLLIN};

	return poll(&ready, 1, 0) == 1;
}

static struct dial *
start_from(const struct queue_egress *egress, unsigned which, msec_t timeout)
{
	memset(&got, 0, sizeof got);
	return dial_new(&(struct dial_opts){.loop = loop,
	                                    .targets = targets,
	                                    .count = count,
	                                    .which = which,
	                                    .egress = egress,
	                                    .input_max = 1000,
	                                    .timeout = timeout},
	                &events, NULL);
}

static struct dial *
start(unsigned which, msec_t timeout)
{
	static const struct queue_egress anywhere;

	return start_from(&anywhere, which, timeout);
}

static void
run_from(const struct queue_egress *egress, unsigned which, msec_t timeout)
{
	start_from(egress, which, timeout);
	loop_run(loop);
}

/* Until somebody answers or nobody will; returns for how long. */
static msec_t
run(unsigned which, msec_t timeout)
{
	const msec_t since = clock_mono();

	start(which, timeout);
	loop_run(loop);
	return clock_mono() - since;
}

static void
hang_up(void)
{
	conn_free(got.conn);
	got.conn = NULL;
}

static void
test_first(void)
{
	int a = add("127.0.0.1", 10, 5), b = add("127.0.0.2", 10, 5), accepted;

	run(3, 10000);
	ok(got.opened == 1 && got.target == 0 && !got.failed, "the first that answers is taken");
	ok(!is_called(b), "the second hears nothing");
	accepted = accept(a, NULL, NULL);
	if (write(accepted, "220", 3) != 3)
		abort();
	loop_run(loop);
	ok(!strcmp(got.heard, "220"), "the connection is its new owner's");
	hang_up();
	run(2, 10000);
	ok(got.opened == 1 && got.target == 1, "only who may be called is called");
	hang_up();
	close(accepted);
	close(a);
	close(b);
	count = 0;
}

static void
test_refused(void)
{
	int a = add("127.0.0.1", 10, -1), b = add("127.0.0.2", 20, 5);
	const msec_t took = run(3, 10000);

	ok(got.opened == 1 && got.target == 1 && got.failed == 1 && !got.last,
	   "refused: the next is taken, and the first has said so");
	ok(strstr(got.why, "refused") && took < DIAL_LATER_DELAY,
	   "without a wait, though it is less preferred");
	hang_up();
	run(1, 10000);
	ok(!got.opened && got.failed == 1 && got.last == 1, "nobody is left: that is said");
	close(a);
	close(b);
	count = 0;
}

static void
test_silent(const char *silent, const char *other, const char *name)
{
	int fds[16], a = add(silent, 10, 0);
	size_t n;
	int b;
	msec_t took;

	if (a < 0) {
		printf("# this machine has no %s\n", silent);
		return;
	}
	n = fill(fds);
	b = add(other, 10, 5);
	took = run(3, 10000);
	ok_of(got.opened == 1 && got.target == 1 && !got.failed, "the next is called beside it",
	      name);
	ok_of(took >= DIAL_DELAY && took < 10000, "after a moment, before the first gives up",
	      name);
	hang_up();
	targets[1].preference = 20;
	took = run(3, 10000);
	ok_of(got.opened == 1 && got.target == 1 && took >= DIAL_LATER_DELAY,
	      "a less preferred host waits longer", name);
	hang_up();
	run(1, WAIT);
	ok_of(got.failed == 1 && got.timeouts == 1 && got.last == 1 &&
	          !strcmp(got.why, "timed out"),
	      "alone it times out", name);
	empty(fds, n);
	close(a);
	close(b);
	count = 0;
}

static void
test_all_silent(void)
{
	int fds[2][16], a = add("127.0.0.1", 10, 0);
	size_t n = fill(fds[0]), m;
	int b = add("127.0.0.2", 10, 0);
	msec_t took;

	m = fill(fds[1]);
	took = run(3, 1500);
	ok(got.timeouts == 2 && got.last == 1, "of two that do not answer each times out");
	ok(took < 2 * 1500, "beside each other");
	empty(fds[0], n);
	empty(fds[1], m);
	close(a);
	close(b);
	count = 0;
}

static void
test_hang_up(void)
{
	int fds[16], a = add("127.0.0.1", 10, 0);
	size_t n = fill(fds);
	int b = add("127.0.0.2", 10, -1);
	const unsigned before = open_files();
	struct dial *dial = start(3, 10000);

	got.stop = true;
	loop_run(loop);
	ok(got.failed == 1 && !got.last && open_files() == before + 1, "one is still called");
	dial_free(dial);
	ok(open_files() == before, "who hangs up leaves nothing open");
	empty(fds, n);
	close(a);
	close(b);
	count = 0;
}

static void
test_source(void)
{
	struct queue_egress from = {.pool = "clean", .has_v4 = true};
	struct sockaddr_in peer;
	socklen_t len = sizeof peer;
	int a = add("127.0.0.1", 10, 5), accepted;

	inet_pton(AF_INET, "127.0.0.3", &from.v4);
	run_from(&from, 1, 10000);
	accepted = accept(a, (struct sockaddr *)&peer, &len);
	ok(got.opened == 1 && peer.sin_addr.s_addr == from.v4.s_addr, "it calls from its address");
	hang_up();
	close(accepted);
	inet_pton(AF_INET, "192.0.2.1", &from.v4);
	run_from(&from, 1, 10000);
	ok(got.failed == 1 && got.local == 1 && !is_called(a),
	   "from one that is not ours nobody is called");
	close(a);
	count = 0;
}

int
main(void)
{
	unsigned before;

	loop = loop_new();
	before = open_files();
	test_first();
	test_refused();
	test_silent("127.0.0.1", "127.0.0.2", "of one family");
	test_silent("::1", "127.0.0.1", "IPv6, then IPv4");
	test_all_silent();
	test_hang_up();
	test_source();
	ok(open_files() == before, "nothing stays open");
	loop_free(loop);
	return tap_end();
}
