/* The life of a child of sekishod, as the child sees it.
 *
 * sekishod starts each program with a control channel on descriptor SERVICE_CONTROL_FD and sends
 * over it, in this order: the configuration snapshot, files and directories it opened on the
 * child's behalf, listening sockets, links to peers, then START. The child prepares, enters its
 * sandbox and answers READY. Later frames: a new link whenever a peer is restarted; a reload; STOP.
 * When the control channel closes, sekishod is gone and the child leaves at once.
 *
 * A reload brings a whole new generation: the next snapshot, then again all its files and listening
 * sockets (those that stay as well), then the question whether the child could work so. Everybody
 * must agree, within 10 s, or all drop it. A program started by hand
 * (no control channel) prints what it is and how it is meant to be started, and exits 64. --help
 * and --version are answered here. */
#ifndef CORE_SERVICE_H
#define CORE_SERVICE_H

#include <stdbool.h>

#include "core/conf.h"
#include "core/ipc.h"
#include "core/log.h"
#include "core/loop.h"

#define SERVICE_CONTROL_FD 3

enum service_role {
	SERVICE_SEKISHOD,
	SERVICE_MSA,
	SERVICE_AUTH,
	SERVICE_QUEUE,
	SERVICE_RELAY, /* which lane it drains, conf_relay_lane says */
	SERVICE_KEYS,
	SERVICE_ADMIN,
	SERVICE_ROLES
};
/* "msa", "auth", … as in status and log. */
const char *service_role_name(enum service_role role);

enum service_listener { SERVICE_SUBMISSION, SERVICE_SUBMISSIONS, SERVICE_ADMIN_SOCKET };
enum service_file {
	SERVICE_CERTIFICATE, /* PEM chain, read-only */
	SERVICE_KEY,         /* PEM private key, read-only: for sekisho-keys alone */
	SERVICE_CA,          /* relay.ca_file, read-only, if there is one */
	SERVICE_PASSWORD,  /* of the route whose place in conf->routes is the index; that count: of
	                      fallback.host */
	SERVICE_DIRECTORY, /* the child's own directory; service_run has already made it the working
	                      directory */
};

/* How much of what it can bear a process has to bear. */
enum service_load {
	SERVICE_NORMAL,
	SERVICE_BUSY, /* it saves: clients get less time */
	SERVICE_FULL, /* it takes in nobody any more */
	SERVICE_LOADS
};
/* "normal", "busy", "full" */
const char *service_load_name(enum service_load load);

struct service;

/* Every callback is borrowed; those a program has no use for are NULL. */
struct service_events {
	void (*on_config)(void *arg, const struct conf *conf); /* borrowed until on_commit; conf_ref
	                                                          keeps it longer */
	/* index is 0 but for SERVICE_PASSWORD. */
	void (*on_file)(void *arg, enum service_file file, unsigned index, int fd_take);
	void (*on_listener)(void *arg, enum service_listener kind, int fd_take);
	void (*on_link)(void *arg, enum service_role peer, unsigned index, int fd_take);
	int (*on_start)(void *arg); /* all has arrived; -1 (after logging why) ends the process */
	/* The files and listeners since on_start, or since the last reload ended, belong to next:
	 * build what it takes, aside. -1 refuses, with a text that names the key. NULL: agrees. */
	int (*on_prepare)(void *arg, const struct conf *next, char *error, size_t size);
	/* What was prepared is in force. conf is what on_config's was; the one before is freed when
	 * its last reference goes, after this returns at the earliest. */
	void (*on_commit)(void *arg, const struct conf *conf);
	/* It never will be: closes what on_file, on_listener and on_prepare kept aside, if
	 * anything. Also without on_prepare before, where somebody else has refused first. */
	void (*on_drop)(void *arg);
	void (*on_stop)(void *arg); /* finish, then call service_stopped; NULL: stop at once */
};

/* What the program may still do once it runs; see core/sandbox.h. */
struct service_opts {
	enum service_role role;
	const char *program; /* "sekisho-msa" */
	const char *purpose; /* one line for --help */
	unsigned sandbox;    /* SANDBOX_* bits */
	const struct service_events *events;
	void *arg;
};

/* The whole of main(): returns the exit status. */
int service_run(const struct service_opts *opts, int argc, char **argv);
/* Inside callbacks. */
struct loop *service_loop(void);
unsigned service_index(void);
/* The generation in force, counted from 1; within on_prepare the one being prepared. The same in
 * all processes. */
uint64_t service_generation(void);
/* For the status; a process that says nothing is SERVICE_NORMAL. */
void service_report_load(enum service_load load);
/* Said once by on_stop's work when it is done: leaves the loop. */
void service_stopped(void);

/* What sekisho-admin, and nobody else, may ask of sekishod over its control channel. */
struct service_process {
	enum service_role role;
	unsigned index;
	int pid;      /* 0 while it is being restarted */
	msec_t since; /* wall clock of the last start */
	unsigned restarts;
	enum log_level level;
	enum service_load load;
	char layers[128]; /* active sandbox layers, comma-separated:
	                     "no-new-privs,seccomp,landlock:7" */
};
struct service_state {        /* of the service as a whole */
	uint64_t generation;  /* of the configuration in force, from 1 */
	msec_t loaded;        /* wall clock; when it came into force */
	char file[1024];      /* where it was read from */
	msec_t expires;       /* wall clock; of the certificate */
	enum log_level level; /* sekishod's own */
};
/* Calls back once, with count 0 and a zeroed state if sekishod did not answer. */
typedef void service_on_processes(void *arg, const struct service_state *state,
                                  const struct service_process *list, size_t count);
void service_ask_processes(service_on_processes *on_processes, void *arg);
/* Asks sekishod to stop the whole service gracefully. */
void service_ask_stop(void);
/* Asks sekishod to read its configuration anew. Calls back once: with "" when the given generation
 * came into force; otherwise with every mistake found, a line each, and the generation that stays;
 * 0 when sekishod did not answer. */
typedef void service_on_reloaded(void *arg, uint64_t generation, const char *mistakes);
void service_ask_reload(service_on_reloaded *on_reloaded, void *arg);
/* Sets the log level of the processes of a role (SERVICE_ROLES: of every role), all of them or the
 * one of that index (-1: all), sekishod included. It lasts until the process is restarted or the
 * configuration reloaded. Calls back once with how many there were. */
typedef void service_on_level_set(void *arg, unsigned count);
void service_ask_log_level(enum service_role role, int index, enum log_level level,
                           service_on_level_set *on_level_set, void *arg);
/* Taps the log of every process, sekishod and this one included: on_tap brings a SOCK_SEQPACKET
 * socket for each now, and another whenever a process is restarted; the end of a socket is the end
 * of its process. One packet is one line, as in core/log.h and bounded by LOG_LINE_MAX. Lines that
 * the reader is too slow for are lost and counted, log_dropped says so. NULL: no new ones any more;
 * closing those that came ends them. */
typedef void service_on_tap(void *arg, enum service_role role, unsigned index, int fd_take);
void service_ask_tap(service_on_tap *on_tap, void *arg);

#endif
