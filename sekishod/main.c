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
#include "sekishod/check.h"
#include "sekishod/children.h"
#include "sekishod/claim.h"

/* sekishod: check, claim, start, watch.
 *
 * The order is the promise: nothing is bound before the configuration and the certificate were
 * found good, and nobody is started before everything is bound. So a bad configuration never
 * starts, and a start that fails leaves nothing behind. */

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
    "Runs in the foreground and logs to standard error; SIGTERM stops it.\n";

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
	    "LD_PRELOAD",   "SEKISHO_RECORD", "SEKISHO_TEST_CLOCK", "SEKISHO_TEST_SEED",
	    "ASAN_OPTIONS", "LSAN_OPTIONS",   "UBSAN_OPTIONS",
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

static void
set_level(const char *name)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (strcmp(name, levels[i]) == 0)
			log_set_level((enum log_level)i);
}

static void
on_terminate(void *arg)
{
	children_stop(arg);
}

static int
run(const char *file, const struct conf *conf, struct claim *claim)
{
	log_open("sekishod");
	set_level(conf->log_level);
	raise_descriptor_limit();
	signal(SIGPIPE, SIG_IGN);
	if (claim_take(claim, file, conf) < 0)
		return EXIT_CONFIG;
	struct loop *loop = loop_new();
	struct children *children = children_new(loop, conf, claim);
	if (children == NULL) {
		claim_release(claim);
		loop_free(loop);
		return EXIT_CONFIG;
	}
	loop_on_signal(loop, SIGTERM, on_terminate, children);
	loop_on_signal(loop, SIGINT, on_terminate, children);
	/* The terminal of a foreground service was closed; nohup(1) asks not to mind. */
	if (signal(SIGHUP, SIG_IGN) != SIG_IGN)
		loop_on_signal(loop, SIGHUP, on_terminate, children);
	children_start(children);
	loop_run(loop);
	claim_release(claim);
	children_free(children);
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

int
main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"config", required_argument, NULL, 'c'}, {"test", no_argument, NULL, 't'},
	    {"dump", no_argument, NULL, 'T'},         {"help", no_argument, NULL, 'h'},
	    {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0}};
	const char *file = DEFAULT;
	enum mode mode = MODE_RUN;
	struct claim claim = {.spool = -1, .accounts = -1, .certificate = -1, .key = -1};
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
	scrub();
	struct conf *conf = check_config(file);
	if (conf == NULL)
		return EXIT_CONFIG;
	int status = EXIT_CONFIG;
	if (mode == MODE_DUMP) {
		status = dump(conf);
	} else if (claim_users(&claim, file, conf) == 0 &&
	           check_pair(file, conf, &claim.certificate, &claim.key) == 0 &&
	           check_routes(file, conf, &claim.ca, &claim.passwords, &claim.password_count) ==
	               0) {
		if (mode == MODE_TEST) {
			printf("%s: ok\n", file);
			status = 0;
		} else {
			status = run(file, conf, &claim);
		}
	}
	free(claim.listeners);
	free(claim.passwords);
	conf_free(conf);
	return status;
}
