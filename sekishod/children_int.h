/* What the files of children share: supervising (children.c), what each process is given
 * (children_equip.c), what it says (children_ask.c), and reloading (children_reload.c). */
#ifndef SEKISHOD_CHILDREN_INT_H
#define SEKISHOD_CHILDREN_INT_H

#include <limits.h>
#include <sys/types.h>

#include "core/service_proto.h"
#include "sekishod/children.h"

struct program {
	enum service_role role;
	const char *file;
	bool network;          /* runs as privilege.network_user */
	bool certificate, key; /* files it is given */
	bool routes;           /* what the routes need */
	bool listeners, admin; /* sockets it is given */
	size_t directory;      /* offset in struct claim of its directory's descriptor; 0: none */
	bool stops_first;
};

struct child {
	struct children *all;
	const struct program *program;
	unsigned index;
	pid_t pid; /* 0 while it does not run */
	int fd;    /* its control channel; -1 while it does not run, or after the channel failed */
	struct loop_watch *watch;
	struct loop_timer *restart;
	msec_t started; /* monotonic */
	msec_t since;   /* wall clock, for status */
	msec_t delay;   /* before the next restart if it dies young again */
	unsigned restarts;
	bool ready;       /* READY has come */
	bool told;        /* STOP was sent */
	uint32_t offered; /* the last generation it was offered */
	bool agreed;      /* to that */
	enum log_level level;
	enum service_load load;
	char layers[128];
};

struct children {
	struct loop *loop;
	const struct children_events *events;
	void *arg;
	const struct claim *claim;
	struct generation *running;
	char directory[PATH_MAX]; /* of our own executable */
	struct child *list;
	size_t count;
	bool announced; /* "service ready" was logged */
	bool tapped;    /* sekisho-admin wants everybody's log lines */
	bool stopping, hurried;
	struct loop_timer *stop_limit;
	/* a reload */
	struct generation *next; /* offered to everybody; NULL: none */
	uint32_t offer;          /* counts them, so that a late answer is told from a new one */
	children_on_reload *on_reload;
	void *reload_arg;
	struct loop_timer *reload_limit;
};

const char *child_name(const struct child *child);
/* The channel is useless or the child too slow: its death brings a fresh one. */
void child_give_up(struct child *child);
/* Gives up on a child that cannot be sent to. */
void child_send(struct child *child, enum service_frame type, const struct buf *fields, int pass);
/* A socket pair for frames. 0, or -1 after logging why. */
int child_make_pair(int ends[2]);

/* Everything between the fork and START. */
void child_equip(struct child *child);
/* The files and listeners of a generation that this child has a use for. */
void child_send_generation(struct child *child, const struct generation *generation);

/* A frame the child sent. False when it may not say so: it is broken or taken over. */
bool child_frame(struct child *child, enum service_frame type, struct wire *wire);
/* Its log lines go to sekisho-admin from now on, if that wants them. */
void child_tap(struct child *child);
/* Nobody wants log lines any more. */
void children_untap(struct children *all);

/* The answer to an offer; refusal "" agrees. */
void child_prepared(struct child *child, uint32_t offer, const char *refusal);
/* It has got ready, or was before: it is made the offer that stands, if it does not have it. */
void children_reload_ready(struct child *child);
/* It died: no offer stands without it. */
void children_reload_lost(struct children *all, const struct child *child);
void children_reload_late(void *arg);
/* Drops the offer everywhere, if there is one. */
void children_refuse(struct children *all, const char *why);

#endif
