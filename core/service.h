/* The life of a child of sekishod, as the child sees it.
 *
 * sekishod starts each program with a control channel on descriptor SERVICE_CONTROL_FD and sends
 * over it, in this order: the configuration snapshot, files and directories it opened on the
 * child's behalf, listening sockets, links to peers, then START. The child prepares, enters its
 * sandbox and answers READY. Later frames: a new link whenever a peer is restarted; STOP. When the
 * control channel closes, sekishod is gone and the child leaves at once. A program started by hand
 * (no control channel) prints what it is and how it is meant to be started, and exits 64. --help
 * and --version are answered here. */
#ifndef CORE_SERVICE_H
#define CORE_SERVICE_H

#include <stdbool.h>

#include "core/conf.h"
#include "core/ipc.h"
#include "core/loop.h"

#define SERVICE_CONTROL_FD 3

enum service_role {
	SERVICE_SEKISHOD,
	SERVICE_MSA,
	SERVICE_AUTH,
	SERVICE_QUEUE,
	SERVICE_RELAY, /* index is the enum queue_lane it drains */
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
	SERVICE_CA,          /* relay.ca_file, read-only, when a route verifies its host */
	SERVICE_PASSWORD,    /* of the next route with a user, in the order of the routes */
	SERVICE_DIRECTORY, /* the child's own directory; service_run has already made it the working
	                      directory */
};

struct service;

/* Every callback is borrowed; those a program has no use for are NULL. */
struct service_events {
	void (*on_config)(void *arg, const struct conf *conf); /* borrowed for the process's life */
	void (*on_file)(void *arg, enum service_file file, int fd_take);
	void (*on_listener)(void *arg, enum service_listener kind, int fd_take);
	void (*on_link)(void *arg, enum service_role peer, unsigned index, int fd_take);
	int (*on_start)(void *arg); /* all has arrived; -1 (after logging why) ends the process */
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
/* Said once by on_stop's work when it is done: leaves the loop. */
void service_stopped(void);

/* What sekisho-admin may ask of sekishod over its control channel. */
struct service_process {
	enum service_role role;
	unsigned index;
	int pid;      /* 0 while it is being restarted */
	msec_t since; /* wall clock of the last start */
	unsigned restarts;
	char layers[128]; /* active sandbox layers, comma-separated:
	                     "no-new-privs,seccomp,landlock:7" */
};
typedef void service_on_processes(void *arg, const struct service_process *list, size_t count);
/* Calls back once, with count 0 if sekishod did not answer. Only in sekisho-admin. */
void service_ask_processes(service_on_processes *on_processes, void *arg);
/* Asks sekishod to stop the whole service gracefully. Only in sekisho-admin. */
void service_ask_stop(void);

#endif
