#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "queue/store_int.h"
#include "ratelimit/row.h"

/* The ledger's rows, overrides and directives: what is small, belongs to an account or an operator,
 * and lives in fresh because a charge must be one transaction with its message.
 *
 * A reset deletes rows instead of hiding them behind a date: charges of one minute are one number,
 * and a reset may fall into the middle of a minute. Its marker stays as the account's last row,
 * because the body of a large message may be synced while the reset overtakes it. */

#define ROW_RESET UINT32_MAX

/* --- charging --- */

static void
raise_ledger_time(struct lane_txn *txn, msec_t ledger_time)
{
	struct key key;
	uint8_t octets[8];
	MDB_val v;

	key_text(&key, "ledger");
	if (txn_get(txn, TABLE_META, &key, &v) &&
	    (msec_t)be_get(v.mv_data, v.mv_size) >= ledger_time)
		return;
	be_put(octets, sizeof(octets), (uint64_t)ledger_time);
	txn_put(txn, TABLE_META, &key, octets, sizeof(octets));
}

/* Deletes the account's rows below oldest. */
static void
trim_rows(struct lane_txn *txn, const char *account, uint32_t oldest)
{
	MDB_cursor *cursor = txn_cursor(txn, TABLE_LEDGER);
	struct key low, high;
	MDB_val k, v;
	int rc;

	if (cursor == NULL)
		return;
	key_ledger(&low, account, 0);
	key_ledger(&high, account, oldest);
	k = (MDB_val){low.len, low.data};
	for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0;
	     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
		if (k.mv_size != high.len || memcmp(k.mv_data, high.data, high.len) >= 0)
			break;
		if ((txn->rc = mdb_cursor_del(cursor, 0)) != 0)
			break;
	}
	mdb_cursor_close(cursor);
}

static bool
get_reset(struct lane_txn *txn, const char *account, struct store_reset *out)
{
	struct key key;
	MDB_val v;

	key_ledger(&key, account, ROW_RESET);
	return txn_get(txn, TABLE_LEDGER, &key, &v) && reset_decode(v.mv_data, v.mv_size, out);
}

void
txn_charge(struct lane_txn *txn, const char *account, const struct ledger_charge *charge)
{
	const uint32_t minute = window_minute_of(charge->at);
	struct store_reset reset;
	struct key key;
	struct buf row;
	MDB_val v = {0, NULL};

	raise_ledger_time(txn, charge->at);
	if (get_reset(txn, account, &reset) && reset.at > charge->at)
		return;
	buf_init(&row);
	key_ledger(&key, account, row_of(minute));
	(void)txn_get(txn, TABLE_LEDGER, &key, &v);
	if (txn->rc == 0 &&
	    row_add(v.mv_data, v.mv_size, minute, charge->units, &charge->pace, &row) < 0)
		txn->rc = MDB_CORRUPTED;
	txn_put(txn, TABLE_LEDGER, &key, row.data, row.len);
	buf_clear(&row);
	trim_rows(txn, account, row_oldest(charge->at));
}

/* --- reading --- */

bool
store_load_ledger_rows(struct store *store, const char *account, store_on_row *on_row, void *arg)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;
	uint32_t row;
	int rc = EIO;

	txn_read(&store->lanes[QUEUE_FRESH], &txn);
	cursor = txn_cursor(&txn, TABLE_LEDGER);
	if (cursor) {
		key_ledger(&key, account, 0);
		k = (MDB_val){key.len, key.data};
		for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0;
		     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
			if (k.mv_size != key.len || memcmp(k.mv_data, key.data, key.len - 4) != 0)
				break;
			row = (uint32_t)be_get((const uint8_t *)k.mv_data + key.len - 4, 4);
			if (row != ROW_RESET)
				on_row(arg, account, row, v.mv_data, v.mv_size);
		}
		mdb_cursor_close(cursor);
	}
	txn_abort(&txn);
	return rc == 0 || rc == MDB_NOTFOUND;
}

msec_t
store_ledger_time(struct store *store)
{
	struct lane_txn txn;
	struct key key;
	MDB_val v;
	msec_t at = 0;

	txn_read(&store->lanes[QUEUE_FRESH], &txn);
	key_text(&key, "ledger");
	if (txn_get(&txn, TABLE_META, &key, &v))
		at = (msec_t)be_get(v.mv_data, v.mv_size);
	txn_abort(&txn);
	return at;
}

bool
store_load_reset(struct store *store, const char *account, struct store_reset *out)
{
	struct lane_txn txn;
	bool found;

	txn_read(&store->lanes[QUEUE_FRESH], &txn);
	found = get_reset(&txn, account, out);
	txn_abort(&txn);
	return found;
}

bool
ledger_row_reads(const MDB_val *key, const MDB_val *value)
{
	const uint8_t *octets = key->mv_data;
	struct store_reset reset;
	struct window window;
	struct pace pace = {0};
	uint32_t row;
	bool good;

	if (key->mv_size < 6 || memchr(octets, 0, key->mv_size - 4) != octets + key->mv_size - 5)
		return false;
	row = (uint32_t)be_get(octets + key->mv_size - 4, 4);
	if (row == ROW_RESET)
		return reset_decode(value->mv_data, value->mv_size, &reset);
	window_init(&window);
	good = row_load(value->mv_data, value->mv_size, row, 0, &window, &pace) == 0;
	window_clear(&window);
	return good;
}

/* --- changing --- */

struct setting { /* one row put or deleted, or the ledger time raised */
	struct op op;
	enum table table;
	struct key key;
	bool deletes;
	msec_t ledger_time;
	size_t len;
	uint8_t value[];
};

static enum store_result
setting_apply(struct op *op, struct lane_txn *txn)
{
	struct setting *setting = (struct setting *)op;

	if (setting->table == TABLE_META)
		raise_ledger_time(txn, setting->ledger_time);
	else if (setting->deletes)
		txn_del(txn, setting->table, &setting->key);
	else
		txn_put(txn, setting->table, &setting->key, setting->value, setting->len);
	return STORE_OK;
}

static struct setting *
setting_new(enum table table, const char *name, const void *value, size_t len,
            store_on_done *on_done, void *arg)
{
	struct setting *setting = xcalloc(1, sizeof(*setting) + len);

	assert(value || !len);
	setting->table = table;
	key_text(&setting->key, name);
	setting->deletes = value == NULL;
	setting->len = len;
	if (len)
		memcpy(setting->value, value, len);
	setting->op.weight = 1;
	setting->op.apply = setting_apply;
	setting->op.complete = store_complete;
	setting->op.on_done = on_done;
	setting->op.arg = arg;
	return setting;
}

struct reset {
	struct op op;
	struct store_reset reset;
	char account[];
};

static enum store_result
reset_apply(struct op *op, struct lane_txn *txn)
{
	const struct reset *reset = (const struct reset *)op;
	struct key key;
	struct buf buf;

	raise_ledger_time(txn, reset->reset.at);
	trim_rows(txn, reset->account, ROW_RESET);
	buf_init(&buf);
	reset_encode(&reset->reset, &buf);
	key_ledger(&key, reset->account, ROW_RESET);
	txn_put(txn, TABLE_LEDGER, &key, buf.data, buf.len);
	buf_clear(&buf);
	return STORE_OK;
}

void
store_ledger_reset(struct store *store, const char *account, const struct store_reset *in,
                   store_on_done *on_done, void *arg)
{
	struct reset *reset = xcalloc(1, sizeof(*reset) + strlen(account) + 1);

	reset->reset = *in;
	strcpy(reset->account, account);
	reset->op.weight = 2;
	reset->op.apply = reset_apply;
	reset->op.complete = store_complete;
	reset->op.on_done = on_done;
	reset->op.arg = arg;
	store_post(store, &store->lanes[QUEUE_FRESH], &reset->op);
}

void
store_ledger_time_set(struct store *store, msec_t ledger_time, store_on_done *on_done, void *arg)
{
	struct setting *setting = setting_new(TABLE_META, "ledger", "", 0, on_done, arg);

	setting->ledger_time = ledger_time;
	store_post(store, &store->lanes[QUEUE_FRESH], &setting->op);
}

void
store_override_set(struct store *store, const char *account, const struct store_override *override,
                   store_on_done *on_done, void *arg)
{
	struct setting *setting;
	struct buf buf;

	buf_init(&buf);
	if (override)
		override_encode(override, &buf);
	setting =
	    setting_new(TABLE_OVERRIDE, account, override ? buf.data : NULL, buf.len, on_done, arg);
	buf_clear(&buf);
	store_post(store, &store->lanes[QUEUE_FRESH], &setting->op);
}

bool
store_load_override(struct store *store, const char *account, struct store_override *out)
{
	struct lane_txn txn;
	struct key key;
	MDB_val v;
	bool found;

	txn_read(&store->lanes[QUEUE_FRESH], &txn);
	key_text(&key, account);
	found =
	    txn_get(&txn, TABLE_OVERRIDE, &key, &v) && override_decode(v.mv_data, v.mv_size, out);
	txn_abort(&txn);
	return found;
}

void
store_directive_put(struct store *store, const char *name, const void *value, size_t len,
                    store_on_done *on_done, void *arg)
{
	assert(strlen(name) >= 1 && strlen(name) <= 400 && len <= 2000);
	store_post(store, &store->lanes[QUEUE_FRESH],
	           &setting_new(TABLE_DIRECTIVE, name, value, len, on_done, arg)->op);
}

void
store_each_directive(struct store *store, store_on_directive *on_directive, void *arg)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	MDB_val k, v;

	txn_read(&store->lanes[QUEUE_FRESH], &txn);
	cursor = txn_cursor(&txn, TABLE_DIRECTIVE);
	if (cursor) {
		while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
			char *name = xmemdup0(k.mv_data, k.mv_size);

			on_directive(arg, name, v.mv_data, v.mv_size);
			free(name);
		}
		mdb_cursor_close(cursor);
	}
	txn_abort(&txn);
}
