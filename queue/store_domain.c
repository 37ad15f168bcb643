#include "queue/store_int.h"

/* Which messages in retry and fallback are for a domain, so that a site that answers again wakes
 * what waits for it, and nothing else is read. Fresh has no such index: nobody waits there, and its
 * commits are what clients wait for.
 *
 * An entry is there as long as the message is in the lane, also when its recipients in that domain
 * have ended: whoever reads it looks at the message anyway. */

#include <string.h>

bool
has_domains(const struct lane *lane)
{
	return lane->tables & (1u << TABLE_DOMAIN);
}

static void
key_domain(struct key *key, const char *domain, const struct queue_id *id)
{
	key_account(key, domain, id); /* name, 0, id */
}

void
txn_domains(struct lane_txn *txn, const struct store_message *message, bool drop)
{
	const char *last = "";
	struct key key;

	if (!has_domains(txn->lane))
		return;
	for (size_t i = 0; i < message->recipient_count && txn->rc == 0; i++) {
		const struct store_recipient *recipient = &message->recipients[i];

		if ((!drop && recipient->state != STORE_QUEUED) ||
		    strcmp(last, recipient->address.domain) == 0)
			continue;
		last = recipient->address.domain;
		key_domain(&key, last, &message->id);
		if (drop)
			txn_del(txn, TABLE_DOMAIN, &key);
		else
			txn_put(txn, TABLE_DOMAIN, &key, "", 0);
	}
}

bool
txn_has_domain(struct lane_txn *txn, const char *domain, const struct queue_id *id)
{
	struct key key;
	MDB_val v;

	key_domain(&key, domain, id);
	return txn_get(txn, TABLE_DOMAIN, &key, &v);
}

void
txn_domains_make(struct lane_txn *txn)
{
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;

	key_text(&key, "domains");
	if (!has_domains(txn->lane) || txn_get(txn, TABLE_META, &key, &v))
		return;
	cursor = txn_cursor(txn, TABLE_MESSAGE);
	while (cursor && txn->rc == 0 && mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		struct store_message *message;
		struct queue_id id;

		memcpy(id.octets, k.mv_data, STORE_ID_SIZE);
		message = txn_load(txn, &id, true);
		if (message)
			txn_domains(txn, message, false);
		store_message_free(message);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	if (txn->rc == MDB_CORRUPTED)
		txn->rc = 0; /* recovery says which record it is; the next start tries again */
	else
		txn_put(txn, TABLE_META, &key, "", 0);
}

size_t
store_scan_domain(struct store *store, enum queue_lane lane, const char *domain,
                  struct queue_id *after, size_t max, store_on_id *on_id, void *arg)
{
	const size_t front = strlen(domain) + 1;
	struct lane_txn txn;
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;
	size_t count = 0;
	int rc;

	if (!has_domains(&store->lanes[lane]))
		return 0;
	txn_read(&store->lanes[lane], &txn);
	cursor = txn_cursor(&txn, TABLE_DOMAIN);
	if (cursor) {
		key_domain(&key, domain, after);
		k = (MDB_val){key.len, key.data};
		for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0 && count < max;
		     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
			if (k.mv_size != key.len || memcmp(k.mv_data, key.data, front) != 0)
				break;
			if (memcmp(k.mv_data, key.data, key.len) == 0)
				continue;
			memcpy(after->octets, (const uint8_t *)k.mv_data + front, STORE_ID_SIZE);
			count++;
			on_id(arg, after);
		}
		mdb_cursor_close(cursor);
	}
	txn_abort(&txn);
	return count;
}
