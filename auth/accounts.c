#include "auth/accounts.h"

/* Tables: "account" maps the name to a record in core/buf's encoding, which starts with its own
 * format version; "meta" holds the environment's. A newer version than ours refuses to open; an
 * older one would be upgraded here.
 *
 * LMDB's ways: the tables are opened in one transaction that commits, before any other; MDB_NOTLS,
 * so that a thread may read while it holds nothing; plain synchronous commits, so ACCOUNTS_OK is
 * durable; threads that write wait for each other in mdb_txn_begin. The lock file's table of
 * readers is swept at open because a killed process leaves its slots behind. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"

#define FILE_NAME        "accounts.lmdb"
#define ACCOUNTS_VERSION 1
#define RECORD_VERSION   1

struct accounts {
	MDB_env *env;
	MDB_dbi account, meta;
	uint32_t iterations; /* most of any account when opened */
};

static int
check_version(struct accounts *store, MDB_txn *txn, unsigned *version)
{
	MDB_val key = {.mv_size = 7, .mv_data = "version"}, value;
	struct buf buf;
	struct wire wire;
	int rc = mdb_get(txn, store->meta, &key, &value);

	if (rc == MDB_NOTFOUND) {
		buf_init(&buf);
		wire_put_u32(&buf, ACCOUNTS_VERSION);
		value = (MDB_val){.mv_size = buf.len, .mv_data = buf.data};
		rc = mdb_put(txn, store->meta, &key, &value, 0);
		buf_clear(&buf);
		*version = ACCOUNTS_VERSION;
	} else if (rc == 0) {
		wire = wire_from(value.mv_data, value.mv_size);
		*version = wire_u32(&wire);
		if (!wire_done(&wire))
			rc = MDB_CORRUPTED;
	}
	return rc;
}

static bool
decode(const MDB_val *key, const MDB_val *value, struct accounts_record *out)
{
	struct wire wire = wire_from(value->mv_data, value->mv_size);

	memset(out, 0, sizeof(*out));
	if (key->mv_size > AUTH_ACCOUNT_MAX || wire_u16(&wire) != RECORD_VERSION)
		return false;
	memcpy(out->entry.account, key->mv_data, key->mv_size);
	wire_str(&wire, out->entry.class, sizeof(out->entry.class));
	wire_str(&wire, out->entry.state, sizeof(out->entry.state));
	out->entry.created = (msec_t)wire_u64(&wire);
	out->entry.changed = (msec_t)wire_u64(&wire);
	out->verifier.iterations = wire_u32(&wire);
	wire_raw(&wire, out->verifier.salt, sizeof(out->verifier.salt));
	wire_raw(&wire, out->verifier.stored_key, sizeof(out->verifier.stored_key));
	wire_raw(&wire, out->verifier.server_key, sizeof(out->verifier.server_key));
	/* Zero iterations would be an endless or a free check; neither was ever written. */
	return wire_done(&wire) && out->verifier.iterations >= 1 &&
	       out->verifier.iterations <= 1u << 20;
}

/* What a check costs must not tell which accounts there are, so the dearest sets the price. */
static int
find_iterations(struct accounts *store)
{
	struct accounts_record record;
	MDB_val key, value;
	MDB_cursor *cursor;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

	if (rc != 0)
		return rc;
	if ((rc = mdb_cursor_open(txn, store->account, &cursor)) == 0) {
		while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
			if (decode(&key, &value, &record) &&
			    record.verifier.iterations > store->iterations)
				store->iterations = record.verifier.iterations;
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	mem_wipe(&record, sizeof(record));
	return rc == MDB_NOTFOUND ? 0 : rc;
}

uint32_t
accounts_iterations(const struct accounts *store)
{
	return store->iterations;
}

/* LMDB syncs the file, not its name: a store made a moment ago would be gone with the power. */
static int
sync_directory(void)
{
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd) != 0)
		rc = errno;
	if (fd >= 0)
		close(fd);
	return rc;
}

struct accounts *
accounts_open(uint64_t map_size, char *error, size_t size)
{
	struct accounts *store = xcalloc(1, sizeof(*store));
	MDB_txn *txn = NULL;
	unsigned version = 0;
	int dead = 0, rc;

	if ((rc = mdb_env_create(&store->env)) != 0)
		goto fail;
	if ((rc = mdb_env_set_mapsize(store->env, map_size)) != 0 ||
	    (rc = mdb_env_set_maxdbs(store->env, 4)) != 0)
		goto fail;
	if ((rc = mdb_env_open(store->env, FILE_NAME, MDB_NOSUBDIR | MDB_NOTLS, 0600)) != 0)
		goto fail;
	(void)mdb_reader_check(store->env, &dead);
	if ((rc = mdb_txn_begin(store->env, NULL, 0, &txn)) != 0)
		goto fail;
	if ((rc = mdb_dbi_open(txn, "account", MDB_CREATE, &store->account)) != 0 ||
	    (rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &store->meta)) != 0 ||
	    (rc = check_version(store, txn, &version)) != 0)
		goto fail;
	if (version > ACCOUNTS_VERSION) {
		snprintf(
		    error, size,
		    "%s has format %u, and this program knows up to %d; install the newer Sekisho",
		    FILE_NAME, version, ACCOUNTS_VERSION);
		mdb_txn_abort(txn);
		accounts_close(store);
		return NULL;
	}
	rc = mdb_txn_commit(txn);
	txn = NULL;
	if (rc == 0 && (rc = sync_directory()) == 0 && (rc = find_iterations(store)) == 0)
		return store;
fail:
	snprintf(error, size, "%s: %s; %s", FILE_NAME, mdb_strerror(rc),
	         rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND
	             ? "put the copy from your backup in its place"
	             : "it must be a file on a local disk that the service's user may write");
	if (txn != NULL)
		mdb_txn_abort(txn);
	accounts_close(store);
	return NULL;
}

void
accounts_close(struct accounts *store)
{
	if (store == NULL)
		return;
	if (store->env != NULL)
		mdb_env_close(store->env);
	free(store);
}

static enum accounts_result
failed(const char *what, int rc)
{
	log_error("-", "accounts-failed", "doing=%s error=\"%s\"", what, mdb_strerror(rc));
	return ACCOUNTS_FAILED;
}

static void
encode(const struct accounts_record *record, struct buf *out)
{
	wire_put_u16(out, RECORD_VERSION);
	wire_put_str(out, record->entry.class);
	wire_put_str(out, record->entry.state);
	wire_put_u64(out, (uint64_t)record->entry.created);
	wire_put_u64(out, (uint64_t)record->entry.changed);
	wire_put_u32(out, record->verifier.iterations);
	wire_put_raw(out, record->verifier.salt, sizeof(record->verifier.salt));
	wire_put_raw(out, record->verifier.stored_key, sizeof(record->verifier.stored_key));
	wire_put_raw(out, record->verifier.server_key, sizeof(record->verifier.server_key));
}

static MDB_val
name_key(const char *account)
{
	size_t len = strlen(account);

	assert(len > 0 && len <= AUTH_ACCOUNT_MAX);
	return (MDB_val){.mv_size = len, .mv_data = (void *)(uintptr_t)account};
}

enum accounts_result
accounts_get(struct accounts *store, const char *account, struct accounts_record *out)
{
	MDB_val key = name_key(account), value;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

	if (rc != 0)
		return failed("get", rc);
	rc = mdb_get(txn, store->account, &key, &value);
	if (rc == 0 && !decode(&key, &value, out))
		rc = MDB_CORRUPTED;
	mdb_txn_abort(txn);
	if (rc == MDB_NOTFOUND)
		return ACCOUNTS_UNKNOWN;
	return rc == 0 ? ACCOUNTS_OK : failed("get", rc);
}

enum accounts_result
accounts_add(struct accounts *store, const struct accounts_record *record)
{
	MDB_val key = name_key(record->entry.account), value;
	struct buf buf;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);

	if (rc != 0)
		return failed("add", rc);
	buf_init(&buf);
	encode(record, &buf);
	value = (MDB_val){.mv_size = buf.len, .mv_data = buf.data};
	rc = mdb_put(txn, store->account, &key, &value, MDB_NOOVERWRITE);
	buf_wipe(&buf);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	if (rc == MDB_KEYEXIST)
		return ACCOUNTS_EXISTS;
	if (rc == MDB_MAP_FULL)
		return ACCOUNTS_FULL;
	return rc == 0 ? ACCOUNTS_OK : failed("add", rc);
}

enum accounts_result
accounts_remove(struct accounts *store, const char *account)
{
	MDB_val key = name_key(account);
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);

	if (rc != 0)
		return failed("remove", rc);
	rc = mdb_del(txn, store->account, &key, NULL);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	if (rc == MDB_NOTFOUND)
		return ACCOUNTS_UNKNOWN;
	return rc == 0 ? ACCOUNTS_OK : failed("remove", rc);
}

enum accounts_result
accounts_list(struct accounts *store, const char *after, struct auth_entry *list, size_t max,
              size_t *count, bool *more)
{
	MDB_val key = {0}, value;
	MDB_cursor *cursor;
	MDB_txn *txn;
	struct accounts_record record;
	size_t after_len = strlen(after);
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

	*count = 0;
	*more = false;
	if (rc != 0)
		return failed("list", rc);
	if ((rc = mdb_cursor_open(txn, store->account, &cursor)) != 0) {
		mdb_txn_abort(txn);
		return failed("list", rc);
	}
	if (after_len == 0) {
		rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
	} else {
		key = (MDB_val){.mv_size = after_len, .mv_data = (void *)(uintptr_t)after};
		rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
		if (rc == 0 && key.mv_size == after_len &&
		    memcmp(key.mv_data, after, after_len) == 0)
			rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
	}
	for (; rc == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
		if (*count == max) {
			*more = true;
			break;
		}
		if (!decode(&key, &value, &record)) {
			rc = MDB_CORRUPTED;
			break;
		}
		list[(*count)++] = record.entry;
	}
	mem_wipe(&record, sizeof(record));
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return rc == 0 || rc == MDB_NOTFOUND ? ACCOUNTS_OK : failed("list", rc);
}
