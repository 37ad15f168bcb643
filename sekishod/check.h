/* What sekishod may not do itself because it may be root: read what a human or a stranger wrote. */
#ifndef SEKISHOD_CHECK_H
#define SEKISHOD_CHECK_H

#include "core/conf.h"

/* Reads and parses the file in an unprivileged child. NULL after printing every mistake on stderr.
 */
struct conf *check_config(const char *file);
/* Opens certificate and key and lets an unprivileged child try them together. 0 with both
 * descriptors, or -1 after printing why, with the place in the file. */
int check_pair(const char *file, const struct conf *conf, int *certificate, int *key);
/* Opens what the routes need: relay.ca_file if one verifies its host (else -1), and the password
 * file of each that logs in, in their order. 0, or -1 after printing why. */
int check_routes(const char *file, const struct conf *conf, int *ca, int **passwords,
                 size_t *password_count);
/* Prints "FILE:LINE:COLUMN: KEY: " and the text on stderr, with the place where key was set. */
void check_complain(const char *file, const struct conf *conf, const char *key, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));
/* A fresh description of an open file, so that readers do not share a position. */
int check_reopen(int fd);

#endif
