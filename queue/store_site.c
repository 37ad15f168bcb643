#include "queue/store_int.h"

/* What is remembered of sites: named octets in the environment of history, whose writer is in no
 * hurry. Many change at a time, and a change that is lost costs nothing but having to learn it
 * again. */

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

struct site_rows {
	struct op op;
	size_t count;
	struct row {
		struct key key;
		void *value; /* NULL: delete */
		size_t len;
	} rows[];
};

static enum store_result
rows_apply(struct op *op, struct lane_txn *txn)
{
	const struct site_rows *rows = (const struct site_rows *)op;

	for (size_t i = 0; i < rows->count; i++) {
		const struct row *row = &rows->rows[i];

		if (row->value)
			txn_put(txn, TABLE_SITE, &row->key, row->value, row->len);
		else
			txn_del(txn, TABLE_SITE, &row->key);
	}
	return STORE_OK;
}

static void
rows_complete(struct op *op)
{
	struct site_rows *rows = (struct site_rows *)op;

	store_tell(op);
	for (size_t i = 0; i < rows->count; i++)
		free(rows->rows[i].value);
	free(rows);
}

void
store_sites_put(struct store *store, const struct store_site_row *in, size_t count,
                store_on_done *on_done, void *arg)
{
	struct site_rows *rows = xcalloc(1, sizeof(*rows) + count * sizeof(rows->rows[0]));

	rows->count = count;
	for (size_t i = 0; i < count; i++) {
		struct row *row = &rows->rows[i];

		key_text(&row->key, in[i].name);
		row->value = in[i].value ? xmemdup0(in[i].value, in[i].len) : NULL;
		row->len = in[i].len;
	}
	rows->op.weight = count;
	rows->op.apply = rows_apply;
	rows->op.complete = rows_complete;
	rows->op.on_done = on_done;
	rows->op.arg = arg;
	store_post(store, &store->history, &rows->op);
}

void
store_each_site(struct store *store, store_on_site *on_site, void *arg)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	MDB_val k, v;

	txn_read(&store->history, &txn);
	cursor = txn_cursor(&txn, TABLE_SITE);
	while (cursor && mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		char name[sizeof(((struct key *)0)->data) + 1];

		if (k.mv_size >= sizeof(name))
			continue;
		memcpy(name, k.mv_data, k.mv_size);
		name[k.mv_size] = '\0';
		on_site(arg, name, v.mv_data, v.mv_size);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	txn_abort(&txn);
}
