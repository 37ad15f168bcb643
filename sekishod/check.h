/* What the operator wrote, and the files it names, found good or bad before anything is done with
 * them. */
#ifndef SEKISHOD_CHECK_H
#define SEKISHOD_CHECK_H

#include "core/conf.h"

/* What is checked, and where its mistakes are collected: one line each. */
struct check {
	const char *file;
	const struct conf *conf;
	struct buf *said;
};

/* Reads and parses the file, finds the zone and the users and groups it names. NULL with every
 * mistake in said. */
struct conf *check_config(const char *file, struct buf *said);
/* Opens certificate and key and tries them together. 0 with both descriptors and the time at which
 * the first certificate of the chain expires, or -1 after saying why. A certificate out of its time
 * is only warned of. */
int check_pair(const struct check *check, int *certificate, int *key, msec_t *expires);
/* Opens what the routes need: relay.ca_file if there is one or a route or site has hosts verified
 * (else -1), and the password file of each that logs in, in their order, fallback.host last. 0, or
 * -1 after saying why; what was opened is in place in either case. */
int check_routes(const struct check *check, int *ca, int **passwords, size_t *password_count);
/* Tries whether each address of egress is this machine's. 0, or -1 after saying which is not. */
int check_egress(const struct check *check);
/* Adds "FILE:LINE:COLUMN: KEY: " and the text, with the place where key was set. */
void check_complain(const struct check *check, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Nobody changes this memfd any more. It, or -1 and it is closed. */
int check_seal(int fd_take);
/* A fresh description of an open file, so that readers do not share a position. */
int check_reopen(int fd);

#endif
