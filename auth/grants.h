/* Who was granted which identities, by whom and when: the tables beside the accounts.
 *
 * A name that is an account belongs to that account: others have it only as a delegation, which
 * ends with the account. All from any thread. */
#ifndef AUTH_GRANTS_H
#define AUTH_GRANTS_H

#include "auth/accounts.h"
#include "auth/control.h"
#include "auth/identity.h"

enum grants_result {
	GRANTS_OK,
	GRANTS_NO_ACCOUNT, /* there is no such account */
	GRANTS_NONE,       /* it has no such identity */
	GRANTS_EXISTS,     /* it has it already */
	GRANTS_OWN,        /* it is the account's own name */
	GRANTS_TAKEN,      /* the name of another account: only as a delegation */
	GRANTS_NO_OTHER,   /* a delegation to send as nobody */
	GRANTS_LIMIT,      /* IDENTITIES_MAX are granted already, to the account or of the other */
	GRANTS_FULL,       /* as ACCOUNTS_FULL */
	GRANTS_FAILED,
};
/* Durable with GRANTS_OK. What the account had with the same text and of another kind is replaced.
 */
enum grants_result grants_add(struct accounts *store, const char *account,
                              const struct auth_grant *grant);
enum grants_result grants_remove(struct accounts *store, const char *account, const char *text);
/* Those of the account, which must be there, in order of text; at most IDENTITIES_MAX. */
enum grants_result grants_list(struct accounts *store, const char *account, struct auth_grant *list,
                               size_t *count);
/* What the account may send as; the caller's. NULL when it cannot be read, which is logged. */
struct identities *grants_load(struct accounts *store, const char *account);
/* An account to which that was granted, the first in order; false when there is none. */
bool grants_holder(struct accounts *store, const char *text, char account[AUTH_ACCOUNT_MAX + 1]);

#endif
