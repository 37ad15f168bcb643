/* What the two files of the account store share: accounts.c owns the environment and the accounts,
 * grants.c the identities that were granted to them. */
#ifndef AUTH_ACCOUNTS_INT_H
#define AUTH_ACCOUNTS_INT_H

#include <lmdb.h>

#include "auth/accounts.h"

struct accounts {
	MDB_env *env;
	MDB_dbi account, meta;
	MDB_dbi removed; /* account: u64 when, str class; for mail of it that still waits */
	MDB_dbi identity, holder;                   /* see grants.c */
	uint32_t iterations_most, iterations_usual; /* when opened */
	uint8_t secret[ACCOUNTS_SECRET_SIZE];
};

MDB_val accounts_key(const char *account);
/* Logs it. */
enum accounts_result accounts_failed(const char *what, int rc);
/* Ends a transaction that writes: commits when rc is 0. */
enum accounts_result accounts_finish(MDB_txn *txn, const char *what, int rc);

/* grants.c, for accounts.c; all return what LMDB does. */

/* MDB_KEYEXIST when some account has name as an identity, else 0. */
int grants_check_name(struct accounts *store, MDB_txn *txn, const char *name);
/* As accounts_remove. */
int grants_drop_account(struct accounts *store, MDB_txn *txn, const char *account,
                        struct buf *ended);

#endif
