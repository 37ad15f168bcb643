/* Who is connected, and must go: the frames about sessions. Counts over all msa processes, holds
 * everybody to the limits, and pushes what concerns a session to the process that has it. */
#ifndef AUTH_ROSTER_H
#define AUTH_ROSTER_H

#include "auth/accounts.h"
#include "core/conf.h"

/* hub and store are borrowed for the process's life. */
void roster_init(struct ipc_hub *hub, struct accounts *store);

/* One of the frames OPEN and CLOSE of msa, SESSIONS and KILL of admin. */
void roster_on_frame(const struct conf *conf, struct ipc_from from, uint16_t type,
                     struct wire *wire);
/* An msa process is gone, and its sessions with it. */
void roster_on_gone(struct ipc_from peer);

/* Somebody proved to be account in this session. False when he cannot be let in: the session is
 * unknown, or was told to end because it is one too many. */
bool roster_login(const struct conf *conf, struct ipc_from from, uint64_t session,
                  const char *account, const char *mechanism, const char *tls);
/* Ends all sessions of account; how many. */
unsigned roster_end_account(const char *account, enum auth_end why);
/* Tells the msa processes what the account's class and identities are now, where it has sessions.
 */
void roster_tell_account(const char *account);

#endif
