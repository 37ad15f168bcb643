/* The accounts on disk: one LMDB environment in the working directory. */
#ifndef AUTH_ACCOUNTS_H
#define AUTH_ACCOUNTS_H

#include <stddef.h>
#include <stdint.h>

#include "auth/control.h"
#include "auth/verify.h"
#include "core/buf.h"
#include "core/conf.h"

struct accounts;

struct accounts_record {
	struct auth_entry entry;
	struct verifier verifier;
};

/* Opens or makes the environment. NULL with the reason in error, also when a newer version wrote
 * it. */
struct accounts *accounts_open(uint64_t map_size, char *error, size_t size);
void accounts_close(struct accounts *store);
/* The most iterations any account's verifier had when the store was opened, and those that most
 * accounts had; 0 without accounts. */
uint32_t accounts_iterations(const struct accounts *store, uint32_t *usual);
/* A secret of this store, made with it: what is derived from it stays the same over restarts. */
#define ACCOUNTS_SECRET_SIZE 32
const uint8_t *accounts_secret(const struct accounts *store);

enum accounts_result {
	ACCOUNTS_OK,
	ACCOUNTS_UNKNOWN, /* no such account */
	ACCOUNTS_EXISTS,
	ACCOUNTS_GRANTED, /* the name is an identity of another account: see grants_holder */
	ACCOUNTS_FULL,    /* the map is; raise queue.map_size */
	ACCOUNTS_FAILED,  /* disk or damage; logged */
};
/* All of these from any thread. */
enum accounts_result accounts_get(struct accounts *store, const char *account,
                                  struct accounts_record *out);
/* The class of an account that there is, or that it had when it was removed. */
enum accounts_result accounts_class(struct accounts *store, const char *account,
                                    char out[CONF_CLASS_SIZE]);
/* ACCOUNTS_OK means durable. */
enum accounts_result accounts_add(struct accounts *store, const struct accounts_record *record);
/* What is NULL stays as it is; a reason comes with the state that it is for. */
struct accounts_change {
	const struct verifier *verifier;
	const char *class;
	const char *reason;
	bool suspended;
	msec_t now;
};
/* Reads, changes and writes in one transaction; out is the record as it is then, wiped by the
 * caller. */
enum accounts_result accounts_change(struct accounts *store, const char *account,
                                     const struct accounts_change *change,
                                     struct accounts_record *out);
/* With all that was granted to it, and all delegations to others to send as it: ended, which the
 * caller clears, gets the names of those others, each with a NUL behind it. */
enum accounts_result accounts_remove(struct accounts *store, const char *account,
                                     struct buf *ended);
/* Up to max entries in order of name after the given one; *more says whether others follow. */
enum accounts_result accounts_list(struct accounts *store, const char *after,
                                   struct auth_entry *list, size_t max, size_t *count, bool *more);

#endif
