/* The accounts on disk: one LMDB environment in the working directory. */
#ifndef AUTH_STORE_H
#define AUTH_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "auth/client.h"
#include "auth/verify.h"

struct auth_store;

struct auth_store_record {
	struct auth_entry entry;
	struct verifier verifier;
};

/* Opens or makes the environment. NULL with the reason in error, also when a newer version wrote
 * it. */
struct auth_store *auth_store_open(uint64_t map_size, char *error, size_t size);
void auth_store_close(struct auth_store *store);

enum auth_store_result {
	AUTH_STORE_OK,
	AUTH_STORE_UNKNOWN, /* no such account */
	AUTH_STORE_EXISTS,
	AUTH_STORE_FAILED, /* disk or damage; logged */
};
/* From any thread. */
enum auth_store_result auth_store_get(struct auth_store *store, const char *account,
                                      struct auth_store_record *out);
/* The next two only from the one writing thread; AUTH_STORE_OK means durable. */
enum auth_store_result auth_store_add(struct auth_store *store,
                                      const struct auth_store_record *record);
enum auth_store_result auth_store_remove(struct auth_store *store, const char *account);
/* Up to max entries in order of name after the given one; *more says whether others follow. */
enum auth_store_result auth_store_list(struct auth_store *store, const char *after,
                                       struct auth_entry *list, size_t max, size_t *count,
                                       bool *more);

#endif
