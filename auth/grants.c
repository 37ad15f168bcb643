#include "auth/grants.h"

/* Two tables of accounts.c's environment, changed together. "identity" maps account NUL text to a
 * record (its own format version, kind, by whom, when); "holder" has text NUL account and nothing
 * else: who has that identity, which is asked when an account of that name comes or goes. Neither a
 * name nor a text holds a NUL, so a prefix that ends with one is of exactly that name. The longest
 * key is what LMDB takes.
 *
 * What holds, by the transactions below: an account's name stands in "holder" only as a delegation,
 * and what stands in "identity" is of an account that exists. */

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "auth/accounts_int.h"
#include "core/log.h"

#define RECORD_VERSION 1

struct pair { /* a key */
	char text[AUTH_ACCOUNT_MAX + 1 + IDENTITY_TEXT_MAX];
	size_t len;
};
_Static_assert(sizeof(((struct pair *)0)->text) <= 511, "mdb_env_get_maxkeysize");

/* With second "": the prefix of all of first. */
static struct pair
pair_of(const char *first, const char *second)
{
	struct pair pair;
	const size_t first_len = strlen(first), second_len = strlen(second);

	assert(first_len <= AUTH_ACCOUNT_MAX && second_len <= IDENTITY_TEXT_MAX);
	memcpy(pair.text, first, first_len + 1);
	memcpy(pair.text + first_len + 1, second, second_len);
	pair.len = first_len + 1 + second_len;
	return pair;
}

static MDB_val
value_of(const struct pair *pair)
{
	return (MDB_val){.mv_size = pair->len, .mv_data = (void *)(uintptr_t)pair->text};
}

/* The second name of the cursor's key, when its first is that of prefix. */
static bool
second_of(const MDB_val *key, const struct pair *prefix, char out[IDENTITY_TEXT_MAX + 1])
{
	const size_t len = key->mv_size - prefix->len;

	if (key->mv_size < prefix->len || memcmp(key->mv_data, prefix->text, prefix->len) != 0 ||
	    len > IDENTITY_TEXT_MAX)
		return false;
	memcpy(out, (const char *)key->mv_data + prefix->len, len);
	out[len] = '\0';
	return true;
}

/* Each key of first, in order, until visit wants no more; 0 or LMDB's error. */
typedef bool visit(void *arg, const char *second, const MDB_val *value);
static int
walk(MDB_txn *txn, MDB_dbi table, const char *first, visit *on_one, void *arg)
{
	const struct pair prefix = pair_of(first, "");
	char second[IDENTITY_TEXT_MAX + 1];
	MDB_val key = value_of(&prefix), value;
	MDB_cursor *cursor;
	int rc = mdb_cursor_open(txn, table, &cursor);

	if (rc != 0)
		return rc;
	rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	while (rc == 0 && second_of(&key, &prefix, second) && on_one(arg, second, &value))
		rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static bool
count_one(void *arg, const char *second, const MDB_val *value)
{
	(void)second;
	(void)value;
	return ++*(size_t *)arg < IDENTITIES_MAX;
}

static bool
name_one(void *arg, const char *second, const MDB_val *value)
{
	struct buf *names = arg;

	(void)value;
	buf_add(names, second, strlen(second) + 1);
	return true;
}

static bool
decode(const char *text, const MDB_val *value, struct auth_grant *out)
{
	struct wire wire = wire_from(value->mv_data, value->mv_size);
	unsigned kind;

	memset(out, 0, sizeof(*out));
	if (wire_u16(&wire) != RECORD_VERSION)
		return false;
	kind = wire_u8(&wire);
	wire_str(&wire, out->by, sizeof(out->by));
	out->since = (msec_t)wire_u64(&wire);
	strcpy(out->identity.text, text);
	out->identity.kind = (enum identity_kind)kind;
	return wire_done(&wire) && kind < IDENTITY_KINDS && kind != IDENTITY_OWN;
}

static int
put(struct accounts *store, MDB_txn *txn, const char *account, const struct auth_grant *grant)
{
	const struct pair forth = pair_of(account, grant->identity.text),
	                  back = pair_of(grant->identity.text, account);
	MDB_val key = value_of(&forth), other = value_of(&back), value, nothing = {0};
	struct buf record;
	int rc;

	buf_init(&record);
	wire_put_u16(&record, RECORD_VERSION);
	wire_put_u8(&record, (uint8_t)grant->identity.kind);
	wire_put_str(&record, grant->by);
	wire_put_u64(&record, (uint64_t)grant->since);
	value = (MDB_val){.mv_size = record.len, .mv_data = record.data};
	rc = mdb_put(txn, store->identity, &key, &value, 0);
	if (rc == 0)
		rc = mdb_put(txn, store->holder, &other, &nothing, 0);
	buf_clear(&record);
	return rc;
}

static int
drop(struct accounts *store, MDB_txn *txn, const char *account, const char *text)
{
	const struct pair forth = pair_of(account, text), back = pair_of(text, account);
	MDB_val key = value_of(&forth), other = value_of(&back);
	int rc = mdb_del(txn, store->identity, &key, NULL);

	return rc == 0 ? mdb_del(txn, store->holder, &other, NULL) : rc;
}

/* What it comes to that LMDB says so. */
static enum grants_result
result_of(enum accounts_result result)
{
	switch (result) {
	case ACCOUNTS_OK:
		return GRANTS_OK;
	case ACCOUNTS_UNKNOWN:
		return GRANTS_NONE;
	case ACCOUNTS_FULL:
		return GRANTS_FULL;
	default:
		return GRANTS_FAILED;
	}
}

static bool
is_account(struct accounts *store, MDB_txn *txn, const char *name)
{
	MDB_val key = accounts_key(name), value;

	return mdb_get(txn, store->account, &key, &value) == 0;
}

/* Whether the account may be granted that. */
static enum grants_result
check(struct accounts *store, MDB_txn *txn, const char *account, const struct identity *identity)
{
	const struct pair pair = pair_of(account, identity->text);
	const bool delegated = identity->kind == IDENTITY_DELEGATION;
	struct auth_grant now;
	MDB_val key = value_of(&pair), value;
	size_t count = 0, others = 0;

	if (!is_account(store, txn, account))
		return GRANTS_NO_ACCOUNT;
	if (strcmp(account, identity->text) == 0)
		return GRANTS_OWN;
	if (delegated != is_account(store, txn, identity->text))
		return delegated ? GRANTS_NO_OTHER : GRANTS_TAKEN;
	switch (mdb_get(txn, store->identity, &key, &value)) {
	case 0:
		return decode(identity->text, &value, &now) && now.identity.kind == identity->kind
		           ? GRANTS_EXISTS
		           : GRANTS_OK;
	case MDB_NOTFOUND:
		break;
	default:
		return GRANTS_FAILED;
	}
	if (walk(txn, store->identity, account, count_one, &count) != 0 ||
	    (delegated && walk(txn, store->holder, identity->text, count_one, &others) != 0))
		return GRANTS_FAILED;
	return count >= IDENTITIES_MAX || others >= IDENTITIES_MAX ? GRANTS_LIMIT : GRANTS_OK;
}

enum grants_result
grants_add(struct accounts *store, const char *account, const struct auth_grant *grant)
{
	enum grants_result result;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);

	if (rc != 0)
		return result_of(accounts_failed("grant", rc));
	result = check(store, txn, account, &grant->identity);
	if (result != GRANTS_OK) {
		mdb_txn_abort(txn);
		return result;
	}
	return result_of(accounts_finish(txn, "grant", put(store, txn, account, grant)));
}

enum grants_result
grants_remove(struct accounts *store, const char *account, const char *text)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);

	if (rc != 0)
		return result_of(accounts_failed("revoke", rc));
	if (!is_account(store, txn, account)) {
		mdb_txn_abort(txn);
		return GRANTS_NO_ACCOUNT;
	}
	return result_of(accounts_finish(txn, "revoke", drop(store, txn, account, text)));
}

struct listing {
	struct auth_grant *list;
	size_t count;
	bool damaged;
};

static bool
list_one(void *arg, const char *text, const MDB_val *value)
{
	struct listing *listing = arg;

	if (listing->count == IDENTITIES_MAX)
		return false;
	listing->damaged = !decode(text, value, &listing->list[listing->count++]);
	return !listing->damaged;
}

enum grants_result
grants_list(struct accounts *store, const char *account, struct auth_grant *list, size_t *count)
{
	struct listing listing = {.list = list};
	bool known = false;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

	*count = 0;
	if (rc == 0) {
		known = is_account(store, txn, account);
		rc = walk(txn, store->identity, account, list_one, &listing);
		mdb_txn_abort(txn);
	}
	if (rc == 0 && listing.damaged)
		rc = MDB_CORRUPTED;
	if (rc != 0)
		return result_of(accounts_failed("identities", rc));
	*count = listing.count;
	return known ? GRANTS_OK : GRANTS_NO_ACCOUNT;
}

struct loading {
	struct identities *set;
	bool damaged;
};

static bool
load_one(void *arg, const char *text, const MDB_val *value)
{
	struct loading *loading = arg;
	struct auth_grant grant;

	loading->damaged = !decode(text, value, &grant);
	return !loading->damaged && identities_add(loading->set, grant.identity.kind, text);
}

struct identities *
grants_load(struct accounts *store, const char *account)
{
	struct loading loading = {.set = identities_new(account)};
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

	if (rc == 0) {
		rc = walk(txn, store->identity, account, load_one, &loading);
		mdb_txn_abort(txn);
	}
	if (rc == 0 && loading.damaged)
		rc = MDB_CORRUPTED;
	if (rc == 0)
		return loading.set;
	accounts_failed("identities", rc);
	identities_free(loading.set);
	return NULL;
}

static bool
first_one(void *arg, const char *account, const MDB_val *value)
{
	(void)value;
	strcpy(arg, account);
	return false;
}

bool
grants_holder(struct accounts *store, const char *text, char account[AUTH_ACCOUNT_MAX + 1])
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

	_Static_assert(AUTH_ACCOUNT_MAX == IDENTITY_TEXT_MAX, "either may be the second of a key");
	account[0] = '\0';
	if (rc == 0) {
		rc = walk(txn, store->holder, text, first_one, account);
		mdb_txn_abort(txn);
	}
	if (rc != 0)
		accounts_failed("holder", rc);
	return account[0] != '\0';
}

int
grants_check_name(struct accounts *store, MDB_txn *txn, const char *name)
{
	size_t count = 0;
	int rc = walk(txn, store->holder, name, count_one, &count);

	return rc == 0 && count > 0 ? MDB_KEYEXIST : rc;
}

int
grants_drop_account(struct accounts *store, MDB_txn *txn, const char *account, struct buf *ended)
{
	struct buf texts;
	int rc;

	buf_init(&texts);
	rc = walk(txn, store->identity, account, name_one, &texts);
	for (size_t at = 0; rc == 0 && at < texts.len; at += strlen((char *)texts.data + at) + 1)
		rc = drop(store, txn, account, (char *)texts.data + at);
	buf_clear(&texts);
	if (rc == 0)
		rc = walk(txn, store->holder, account, name_one, ended);
	for (size_t at = 0; rc == 0 && at < ended->len; at += strlen((char *)ended->data + at) + 1)
		rc = drop(store, txn, (char *)ended->data + at, account);
	return rc;
}
