#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/sandbox.h"
#include "core/service_proto.h"
#include "sekishod/notify.h"
#include "sekishod/reload.h"

/* sekishod: check, claim, start, watch.
 *
 * The order is the promise: nothing is bound before the configuration and the certificate were
 * found good, and nobody is started before everything is bound. So a bad configuration never
 * starts, and a start that fails leaves nothing behind.
 *
 * SIGHUP reloads, as everywhere, with one exception: a service that was started from a terminal and
 * has lost it gets SIGHUP, too, and must not go on running where nobody sees it. The kernel takes
 * the terminal away before it sends the signal, so /dev/tty tells one from the other. Where SIGHUP
 * was ignored, nohup(1) asked not to mind either; sekishoctl reload works there. */

#define EXIT_CONFIG 1
#define EXIT_USAGE  64
#define DEFAULT     "/etc/sekisho/sekisho.yaml"

static const char usage[] =
    "usage: sekishod [-c FILE] [-t | -T]\n"
    "  -c, --config FILE  configuration (" DEFAULT ")\n"
    "  -t, --test         check the configuration, say so and leave\n"
    "  -T, --dump         print the effective configuration and leave\n"
    "  -h, --help         this text\n"
    "      --version      the version\n"
    "Runs in the foreground and logs to standard error; SIGTERM stops it, SIGHUP reloads.\n";

enum mode { MODE_RUN, MODE_TEST, MODE_DUMP };

/* Descriptors 0 to 2 must be something, and SERVICE_CONTROL_FD must be nothing that a child could
 * lose when its control channel is put there. */
static void
settle_descriptors(void)
{
	int fd;
	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd < 0) {
			perror("/dev/null");
			exit(EXIT_CONFIG);
		}
	} while (fd < SERVICE_CONTROL_FD);
	if (fd == SERVICE_CONTROL_FD)
		return;
	dup3(fd, SERVICE_CONTROL_FD, O_CLOEXEC); /* inherited by mistake: nobody needs it */
	close(fd);
}

/* What whoever started us happened to have must not reach the processes to come: open files, other
 * people's settings of libraries, blocked or ignored signals, a mask that locks operators out of
 * the admin socket's directory. And nobody here leaves a core. */
static void
scrub(void)
{
	static const char *const kept[] = {
	    "TZ",
#ifdef SEKISHO_TEST
	    "LD_PRELOAD",
	    "SEKISHO_RECORD",
	    "SEKISHO_FAULT",
	    "SEKISHO_TEST_CLOCK",
	    "SEKISHO_TEST_SEED",
	    "ASAN_OPTIONS",
	    "LSAN_OPTIONS",
	    "UBSAN_OPTIONS",
#endif
	};
	enum { KEPT = sizeof(kept) / sizeof(kept[0]) };
	char *values[KEPT];
	sigset_t none;
	for (size_t i = 0; i < KEPT; i++) {
		const char *value = getenv(kept[i]);
		values[i] = value != NULL ? xstrdup(value) : NULL;
	}
	clearenv();
	for (size_t i = 0; i < KEPT; i++) {
		if (values[i] != NULL)
			setenv(kept[i], values[i], 1);
		free(values[i]);
	}
	close_range(SERVICE_CONTROL_FD, UINT_MAX, CLOSE_RANGE_CLOEXEC);
	umask(022);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	sandbox_no_dumps();
}

static void
raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static bool
has_terminal(void)
{
	int fd = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

struct service {
	struct children *children;
	struct reload *reload;
	bool had_terminal;
};

static void
on_terminate(void *arg)
{
	const struct service *service = arg;
	children_stop(service->children);
}

static void
on_hang_up(void *arg)
{
	const struct service *service = arg;
	if (service->had_terminal && !has_terminal())
		children_stop(service->children);
	else
		reload_begin(service->reload);
}

static void
on_ready(void *arg)
{
	(void)arg;
	notify_send("READY=1\nSTATUS=Accepting and delivering mail");
}

static void
on_ask_reload(void *arg, struct children_asker asker)
{
	const struct service *service = arg;
	reload_ask(service->reload, asker);
}

static void
on_stopping(void *arg)
{
	(void)arg;
	notify_send("STOPPING=1\nSTATUS=Finishing what is under way");
}

static void
say(struct buf *said)
{
	if (said->len > 0)
		fwrite(said->data, 1, said->len, stderr);
	buf_clear(said);
}

static int
run(struct generation *first_take, struct claim *claim, struct activation *activation,
    struct buf *said)
{
	static const struct children_events events = {
	    .on_ready = on_ready, .on_ask_reload = on_ask_reload, .on_stopping = on_stopping};
	struct service service = {.had_terminal = has_terminal()};
	const struct check check = {first_take->file, first_take->conf, said};
	clock_set_zone(first_take->conf->zone);
	log_open("sekishod");
	log_set_level(log_level_named(first_take->conf->log_level));
	raise_descriptor_limit();
	signal(SIGPIPE, SIG_IGN);
	/* All of them, so that the operator reads all mistakes at once; the socket last, as it is
	 * the one that would have to be taken away again. */
	int bound = generation_bind(first_take, NULL, activation, &check);
	int claimed = bound == 0 ? claim_take(claim, &check, activation) : -1;
	int activated = activation_end(activation, &check);
	say(said);
	if (bound < 0 || claimed < 0 || activated < 0) {
		claim_release(claim);
		generation_free(first_take);
		return EXIT_CONFIG;
	}
	struct loop *loop = loop_new();
	service.children = children_new(loop, first_take, claim, &events, &service);
	if (service.children == NULL) {
		claim_release(claim);
		loop_free(loop);
		return EXIT_CONFIG;
	}
	service.reload = reload_new(loop, first_take->file, service.children);
	loop_on_signal(loop, SIGTERM, on_terminate, &service);
	loop_on_signal(loop, SIGINT, on_terminate, &service);
	if (signal(SIGHUP, SIG_IGN) != SIG_IGN)
		loop_on_signal(loop, SIGHUP, on_hang_up, &service);
	children_start(service.children);
	loop_run(loop);
	claim_release(claim);
	reload_free(service.reload);
	children_free(service.children);
	loop_free(loop);
	return 0;
}

static int
dump(const struct conf *conf)
{
	struct buf out;
	buf_init(&out);
	conf_dump(conf, &out);
	fwrite(out.data, 1, out.len, stdout);
	buf_clear(&out);
	return fflush(stdout) == 0 ? 0 : EXIT_CONFIG;
}

static int
start(const char *file, enum mode mode, struct claim *claim, struct activation *activation)
{
	struct buf said;
	int status = EXIT_CONFIG;
	buf_init(&said);
	if (mode == MODE_DUMP) {
		struct conf *conf = check_config(file, &said);
		status = conf != NULL ? dump(conf) : EXIT_CONFIG;
		conf_free(conf);
		say(&said);
		return status;
	}
	struct generation *generation = generation_new(file, &said);
	if (generation == NULL) {
		say(&said);
		return EXIT_CONFIG;
	}
	const struct check check = {file, generation->conf, &said};
	bool good = claim_users(claim, &check) == 0;
	say(&said);
	if (good && mode == MODE_RUN)
		return run(generation, claim, activation, &said);
	if (good) {
		printf("%s: ok\n", file);
		status = 0;
	}
	generation_free(generation);
	return status;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"config", required_argument, NULL, 'c'}, {"test", no_argument, NULL, 't'},
	    {"dump", no_argument, NULL, 'T'},         {"help", no_argument, NULL, 'h'},
	    {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0}};
	const char *file = DEFAULT;
	enum mode mode = MODE_RUN;
	struct claim claim = {.admin = -1, .spool = -1, .accounts = -1};
	struct activation *activation = activation_take();
	int option;
	while ((option = getopt_long(argc, argv, "c:tTh", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			file = optarg;
			break;
		case 't':
			mode = MODE_TEST;
			break;
		case 'T':
			mode = MODE_DUMP;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("sekishod " SEKISHO_VERSION);
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	settle_descriptors();
	notify_init();
	scrub();
	return start(file, mode, &claim, activation);
}
