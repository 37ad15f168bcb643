/* The sessions of all msa processes, and how many each client and each account has. Pure
 * bookkeeping: nobody is told of anything here. */
#ifndef AUTH_SESSIONS_H
#define AUTH_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/client.h"

#define SESSIONS_MAX 262144 /* more are not taken in */

struct sessions;
struct sessions *sessions_new(void);
void sessions_free(struct sessions *sessions);

/* owner is the channel that speaks for it; a session is named by both. One that is there already is
 * replaced. False, and it is not taken in, when the table is full. */
bool sessions_open(struct sessions *sessions, struct ipc_from owner,
                   const struct auth_session *session);
/* It belongs to account from now on. False when it is not there. */
bool sessions_login(struct sessions *sessions, struct ipc_from owner, uint64_t number,
                    const char *account, const char *mechanism, const char *tls);
void sessions_close(struct sessions *sessions, struct ipc_from owner, uint64_t number);
/* All of one channel. */
void sessions_drop(struct sessions *sessions, struct ipc_from owner);

/* How many there are of the client's prefix (auth/prefix.h), and of the account. */
unsigned sessions_of_client(const struct sessions *sessions, const char *ip);
unsigned sessions_of_account(const struct sessions *sessions, const char *account);

/* Whoever iterates must not change the table. */
typedef void sessions_visit(void *arg, struct ipc_from owner, const struct auth_session *session);
/* Each session of account, or with "" all, in order of arrival, which place *after precedes; at
 * most max. Returns whether others follow, and then *after is where to go on. */
bool sessions_walk(const struct sessions *sessions, const char *account, uint64_t *after,
                   size_t max, sessions_visit *visit, void *arg);
/* The session of that number, whoever owns it; false when there is none. */
bool sessions_visit_one(const struct sessions *sessions, uint64_t number, sessions_visit *visit,
                        void *arg);

#endif
