/* The accounts on disk: one LMDB environment in the working directory. */
#ifndef AUTH_STORE_H
#define AUTH_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "auth/client.h"
#include "auth/verify.h"

struct store;

struct store_record {
	struct auth_entry entry;
	struct verifier verifier;
};

/* Opens or makes the environment. NULL with the reason in error, also when a newer version wrote
 * it. */
struct store *store_open(uint64_t map_size, char *error, size_t size);
void store_close(struct store *store);

enum store_result {
	STORE_OK,
	STORE_UNKNOWN, /* no such account */
	STORE_EXISTS,
	STORE_FAILED, /* disk or damage; logged */
};
/* From any thread. */
enum store_result store_get(struct store *store, const char *account, struct store_record *out);
/* The next two only from the one writing thread; STORE_OK means durable. */
enum store_result store_add(struct store *store, const struct store_record *record);
enum store_result store_remove(struct store *store, const char *account);
/* Up to max entries in order of name after the given one; *more says whether others follow. */
enum store_result store_list(struct store *store, const char *after, struct auth_entry *list,
                             size_t max, size_t *count, bool *more);

#endif
