#include "auth/accounts_int.h"

/* Tables: "account" maps the name to a record in core/buf's encoding, which starts with its own
 * format version; "meta" holds the environment's, and the secret; the tables of grants.c are in the
 * same environment, because an account and what it was granted end together. A newer version than
 * ours refuses to open. An older one is marked as ours when it is opened, so that no older program
 * opens it any more (version 2 would remove an account and leave what it was granted to the next of
 * that name); its records are read as they are (version 1 had no reason) and get the new form when
 * they change.
 *
 * LMDB's ways: the tables are opened in one transaction that commits, before any other; MDB_NOTLS,
 * so that a thread may read while it holds nothing; plain synchronous commits, so ACCOUNTS_OK is
 * durable; threads that write wait for each other in mdb_txn_begin. The lock file's table of
 * readers is swept at open because a killed process leaves its slots behind. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/name.h"
#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/random.h"

#define FILE_NAME        "accounts.lmdb"
#define ACCOUNTS_VERSION 3
#define RECORD_VERSION   2
#define REMOVED_KEEP     (INT64_C(400) * 24 * 60 * 60 * 1000) /* ms; mail may be held for a year */
#define COUNTS_MAX       16 /* different iteration counts that are told apart */

static int
put_meta(struct accounts *store, MDB_txn *txn, MDB_val key, const void *data, size_t len)
{
	MDB_val value = {.mv_size = len, .mv_data = (void *)(uintptr_t)data};

	return mdb_put(txn, store->meta, &key, &value, 0);
}

static int
check_version(struct accounts *store, MDB_txn *txn, unsigned *version)
{
	MDB_val key = {.mv_size = 7, .mv_data = "version"}, value;
	struct buf buf;
	struct wire wire;
	int rc = mdb_get(txn, store->meta, &key, &value);

	*version = 0;
	if (rc == 0) {
		wire = wire_from(value.mv_data, value.mv_size);
		*version = wire_u32(&wire);
		if (!wire_done(&wire))
			return MDB_CORRUPTED;
	} else if (rc != MDB_NOTFOUND) {
		return rc;
	}
	if (*version >= ACCOUNTS_VERSION)
		return 0;
	*version = ACCOUNTS_VERSION;
	buf_init(&buf);
	wire_put_u32(&buf, ACCOUNTS_VERSION);
	rc = put_meta(store, txn, key, buf.data, buf.len);
	buf_clear(&buf);
	return rc;
}

static int
get_secret(struct accounts *store, MDB_txn *txn)
{
	MDB_val key = {.mv_size = 6, .mv_data = "secret"}, value;
	int rc = mdb_get(txn, store->meta, &key, &value);

	if (rc == MDB_NOTFOUND) {
		random_bytes(store->secret, sizeof(store->secret));
		return put_meta(store, txn, key, store->secret, sizeof(store->secret));
	}
	if (rc == 0 && value.mv_size != sizeof(store->secret))
		return MDB_CORRUPTED;
	if (rc == 0)
		memcpy(store->secret, value.mv_data, sizeof(store->secret));
	return rc;
}

static bool
decode(const MDB_val *key, const MDB_val *value, struct accounts_record *out)
{
	struct wire wire = wire_from(value->mv_data, value->mv_size);
	unsigned version = wire_u16(&wire);
	char state[16];

	memset(out, 0, sizeof(*out));
	if (key->mv_size > AUTH_ACCOUNT_MAX || version < 1 || version > RECORD_VERSION)
		return false;
	memcpy(out->entry.account, key->mv_data, key->mv_size);
	wire_str(&wire, out->entry.class, sizeof(out->entry.class));
	wire_str(&wire, state, sizeof(state));
	out->entry.suspended = strcmp(state, name_of_state(false)) != 0;
	if (version > 1)
		wire_str(&wire, out->entry.reason, sizeof(out->entry.reason));
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

/* Which iteration counts there are: a check must cost what the dearest does, and a verifier that is
 * made up must look like most. */
static int
find_iterations(struct accounts *store)
{
	struct {
		uint32_t iterations, accounts;
	} counts[COUNTS_MAX] = {0}, *usual = &counts[0];
	struct accounts_record record;
	MDB_val key, value;
	MDB_cursor *cursor;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

	if (rc != 0)
		return rc;
	if ((rc = mdb_cursor_open(txn, store->account, &cursor)) == 0) {
		while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
			unsigned i = 0;

			if (!decode(&key, &value, &record))
				continue;
			if (record.verifier.iterations > store->iterations_most)
				store->iterations_most = record.verifier.iterations;
			while (i < COUNTS_MAX - 1 && counts[i].accounts > 0 &&
			       counts[i].iterations != record.verifier.iterations)
				i++;
			counts[i].iterations = record.verifier.iterations;
			counts[i].accounts++;
		}
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	mem_wipe(&record, sizeof(record));
	for (unsigned i = 1; i < COUNTS_MAX; i++)
		if (counts[i].accounts > usual->accounts)
			usual = &counts[i];
	store->iterations_usual = usual->iterations;
	return rc == MDB_NOTFOUND ? 0 : rc;
}

uint32_t
accounts_iterations(const struct accounts *store, uint32_t *usual)
{
	*usual = store->iterations_usual;
	return store->iterations_most;
}

const uint8_t *
accounts_secret(const struct accounts *store)
{
	return store->secret;
}

/* Which account had which class is remembered for longer than any mail can wait. */
static int
forget_removed(struct accounts *store, MDB_txn *txn, msec_t before)
{
	MDB_val key, value;
	MDB_cursor *cursor;
	int rc = mdb_cursor_open(txn, store->removed, &cursor);

	if (rc != 0)
		return rc;
	while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
		struct wire wire = wire_from(value.mv_data, value.mv_size);

		if ((msec_t)wire_u64(&wire) < before && (rc = mdb_cursor_del(cursor, 0)) != 0)
			break;
	}
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
remember_class(struct accounts *store, MDB_txn *txn, MDB_val key, const char *class)
{
	struct buf buf;
	MDB_val value;
	int rc;

	buf_init(&buf);
	wire_put_u64(&buf, (uint64_t)clock_wall());
	wire_put_str(&buf, class);
	value = (MDB_val){.mv_size = buf.len, .mv_data = buf.data};
	rc = mdb_put(txn, store->removed, &key, &value, 0);
	buf_clear(&buf);
	return rc;
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
	    (rc = mdb_env_set_maxdbs(store->env, 8)) != 0)
		goto fail;
	if ((rc = mdb_env_open(store->env, FILE_NAME, MDB_NOSUBDIR | MDB_NOTLS, 0600)) != 0)
		goto fail;
	(void)mdb_reader_check(store->env, &dead);
	if ((rc = mdb_txn_begin(store->env, NULL, 0, &txn)) != 0)
		goto fail;
	if ((rc = mdb_dbi_open(txn, "account", MDB_CREATE, &store->account)) != 0 ||
	    (rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &store->meta)) != 0 ||
	    (rc = mdb_dbi_open(txn, "identity", MDB_CREATE, &store->identity)) != 0 ||
	    (rc = mdb_dbi_open(txn, "holder", MDB_CREATE, &store->holder)) != 0 ||
	    (rc = mdb_dbi_open(txn, "removed", MDB_CREATE, &store->removed)) != 0 ||
	    (rc = check_version(store, txn, &version)) != 0 || (rc = get_secret(store, txn)) != 0 ||
	    (rc = forget_removed(store, txn, clock_wall() - REMOVED_KEEP)) != 0)
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
	mem_wipe(store, sizeof(*store));
	free(store);
}

enum accounts_result
accounts_failed(const char *what, int rc)
{
	log_error("-", "accounts-failed", "doing=%s error=\"%s\"", what, mdb_strerror(rc));
	return ACCOUNTS_FAILED;
}

static void
encode(const struct accounts_record *record, struct buf *out)
{
	wire_put_u16(out, RECORD_VERSION);
	wire_put_str(out, record->entry.class);
	wire_put_str(out, name_of_state(record->entry.suspended));
	wire_put_str(out, record->entry.reason);
	wire_put_u64(out, (uint64_t)record->entry.created);
	wire_put_u64(out, (uint64_t)record->entry.changed);
	wire_put_u32(out, record->verifier.iterations);
	wire_put_raw(out, record->verifier.salt, sizeof(record->verifier.salt));
	wire_put_raw(out, record->verifier.stored_key, sizeof(record->verifier.stored_key));
	wire_put_raw(out, record->verifier.server_key, sizeof(record->verifier.server_key));
}

MDB_val
accounts_key(const char *account)
{
	size_t len = strlen(account);

	assert(len > 0 && len <= AUTH_ACCOUNT_MAX);
	return (MDB_val){.mv_size = len, .mv_data = (void *)(uintptr_t)account};
}

enum accounts_result
accounts_get(struct accounts *store, const char *account, struct accounts_record *out)
{
	MDB_val key = accounts_key(account), value;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

	if (rc != 0)
		return accounts_failed("get", rc);
	rc = mdb_get(txn, store->account, &key, &value);
	if (rc == 0 && !decode(&key, &value, out))
		rc = MDB_CORRUPTED;
	mdb_txn_abort(txn);
	if (rc == MDB_NOTFOUND)
		return ACCOUNTS_UNKNOWN;
	return rc == 0 ? ACCOUNTS_OK : accounts_failed("get", rc);
}

static int
put_record(struct accounts *store, MDB_txn *txn, const struct accounts_record *record,
           unsigned flags)
{
	MDB_val key = accounts_key(record->entry.account), value;
	struct buf buf;
	int rc;

	buf_init(&buf);
	encode(record, &buf);
	value = (MDB_val){.mv_size = buf.len, .mv_data = buf.data};
	rc = mdb_put(txn, store->account, &key, &value, flags);
	buf_wipe(&buf);
	return rc;
}

enum accounts_result
accounts_finish(MDB_txn *txn, const char *what, int rc)
{
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	switch (rc) {
	case 0:
		return ACCOUNTS_OK;
	case MDB_KEYEXIST:
		return ACCOUNTS_EXISTS;
	case MDB_NOTFOUND:
		return ACCOUNTS_UNKNOWN;
	case MDB_MAP_FULL:
		return ACCOUNTS_FULL;
	default:
		return accounts_failed(what, rc);
	}
}

enum accounts_result
accounts_add(struct accounts *store, const struct accounts_record *record)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);

	if (rc != 0)
		return accounts_failed("add", rc);
	rc = put_record(store, txn, record, MDB_NOOVERWRITE);
	/* Whoever has it may write as the account that is to be. */
	if (rc == 0 &&
	    (rc = grants_check_name(store, txn, record->entry.account)) == MDB_KEYEXIST) {
		mdb_txn_abort(txn);
		return ACCOUNTS_GRANTED;
	}
	return accounts_finish(txn, "add", rc);
}

enum accounts_result
accounts_change(struct accounts *store, const char *account, const struct accounts_change *change,
                struct accounts_record *out)
{
	MDB_val key = accounts_key(account), value;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);

	if (rc != 0)
		return accounts_failed("change", rc);
	rc = mdb_get(txn, store->account, &key, &value);
	if (rc == 0 && !decode(&key, &value, out))
		rc = MDB_CORRUPTED;
	if (rc == 0) {
		if (change->verifier != NULL)
			out->verifier = *change->verifier;
		if (change->class != NULL)
			snprintf(out->entry.class, sizeof(out->entry.class), "%s", change->class);
		if (change->reason != NULL) {
			out->entry.suspended = change->suspended;
			snprintf(out->entry.reason, sizeof(out->entry.reason), "%s",
			         change->reason);
		}
		out->entry.changed = change->now;
		rc = put_record(store, txn, out, 0);
	}
	return accounts_finish(txn, "change", rc);
}

enum accounts_result
accounts_class(struct accounts *store, const char *account, char out[CONF_CLASS_SIZE])
{
	MDB_val key = accounts_key(account), value;
	struct accounts_record record = {0};
	MDB_txn *txn;
	enum accounts_result result = accounts_get(store, account, &record);
	int rc;

	memcpy(out, record.entry.class, CONF_CLASS_SIZE);
	mem_wipe(&record, sizeof(record));
	if (result != ACCOUNTS_UNKNOWN)
		return result;
	if ((rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn)) != 0)
		return accounts_failed("class", rc);
	if ((rc = mdb_get(txn, store->removed, &key, &value)) == 0) {
		struct wire wire = wire_from(value.mv_data, value.mv_size);

		(void)wire_u64(&wire);
		wire_str(&wire, out, CONF_CLASS_SIZE);
		rc = wire_done(&wire) ? 0 : MDB_CORRUPTED;
	}
	mdb_txn_abort(txn);
	return rc == 0              ? ACCOUNTS_OK
	       : rc == MDB_NOTFOUND ? ACCOUNTS_UNKNOWN
	                            : accounts_failed("class", rc);
}

enum accounts_result
accounts_remove(struct accounts *store, const char *account, struct buf *ended)
{
	MDB_val key = accounts_key(account), value;
	struct accounts_record record = {0};
	MDB_txn *txn;
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);

	if (rc != 0)
		return accounts_failed("remove", rc);
	if ((rc = mdb_get(txn, store->account, &key, &value)) == 0 && decode(&key, &value, &record))
		rc = remember_class(store, txn, key, record.entry.class);
	mem_wipe(&record, sizeof(record));
	if (rc == 0 && (rc = mdb_del(txn, store->account, &key, NULL)) == 0)
		rc = grants_drop_account(store, txn, account, ended);
	return accounts_finish(txn, "remove", rc);
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
		return accounts_failed("list", rc);
	if ((rc = mdb_cursor_open(txn, store->account, &cursor)) != 0) {
		mdb_txn_abort(txn);
		return accounts_failed("list", rc);
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
	return rc == 0 || rc == MDB_NOTFOUND ? ACCOUNTS_OK : accounts_failed("list", rc);
}
