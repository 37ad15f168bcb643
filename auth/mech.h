/* Cyrus SASL, and with mech_login the only file that knows it: exchanges that end with a proof of
 * the password. */
#ifndef AUTH_MECH_H
#define AUTH_MECH_H

#include <stddef.h>
#include <stdint.h>

#include "auth/cache.h"
#include "auth/client.h"
#include "auth/accounts.h"

struct mech_opts { /* borrowed for the process's life */
	struct accounts *store;
	struct cache *cache;
	_Atomic uint32_t iterations; /* what a wrong password costs at least, whosever it is */
	const char *hostname;        /* borrowed for the call alone */
};

/* Loads the mechanisms; once per process, before the sandbox closes the file system. -1 with the
 * reason in error. */
int mech_init(const struct mech_opts *opts, char *error, size_t size);
/* Another number of iterations; never fewer than before, as accounts may have the old number. */
void mech_set_iterations(uint32_t iterations);
void mech_done(void);
/* Those that are served, space-separated, in the order to offer them. */
const char *mech_list(void);

/* Whether this first message would be answered in microseconds: the cache knows the password that
 * it shows. */
bool mech_is_quick(const char *mechanism, const uint8_t *message, size_t len);

/* One login attempt; never shared between threads at the same time. */
struct mech;
struct mech *mech_new(const char *mechanism);
void mech_free(struct mech *mech);
/* The next message of the client; NULL (first time only) when it sent none. May take milliseconds
 * of CPU. The challenge is borrowed until the next call. */
enum auth_outcome mech_step(struct mech *mech, const uint8_t *message, size_t len,
                            const uint8_t **challenge, size_t *challenge_len);
/* As it was given to mech_new. */
const char *mech_name(const struct mech *mech);
/* After AUTH_OK: the account as it was when the check began. After AUTH_REFUSED only entry.account
 * means something: who it claimed to be, empty if that was no address. */
const struct accounts_record *mech_record(const struct mech *mech);

#endif
