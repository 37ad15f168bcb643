#include "queue/store_int.h"

/* Reading what is committed: one message, listings, counts. Read transactions are short. */

#include <stdlib.h>
#include <string.h>

/* --- reading --- */

static size_t
scan(struct lane *lane, enum table table, struct store_key *from, size_t max, store_on_due *on_due,
     void *arg)
{
	struct lane_txn txn;
	MDB_cursor *cursor;
	struct key key;
	MDB_val k, v;
	size_t count = 0;
	int rc;

	txn_read(lane, &txn);
	cursor = txn_cursor(&txn, table);
	if (cursor) {
		key_due(&key, from->due, &from->id);
		k = (MDB_val){key.len, key.data};
		for (rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0 && count < max;
		     rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
			if (k.mv_size != key.len || memcmp(k.mv_data, key.data, key.len) == 0)
				continue;
			from->due = (msec_t)be_get(k.mv_data, 8);
			memcpy(from->id.octets, (const uint8_t *)k.mv_data + 8, STORE_ID_SIZE);
			count++;
			if (!on_due(arg, from))
				break;
		}
		mdb_cursor_close(cursor);
	}
	txn_abort(&txn);
	return count;
}

size_t
store_scan_due(struct store *store, enum queue_lane lane, struct store_key *from, size_t max,
               store_on_due *on_due, void *arg)
{
	return scan(&store->lanes[lane], TABLE_DUE, from, max, on_due, arg);
}

size_t
store_scan_held(struct store *store, struct store_key *from, size_t max, store_on_due *on_due,
                void *arg)
{
	return scan(&store->lanes[QUEUE_FRESH], TABLE_HELD, from, max, on_due, arg);
}

struct store_message *
store_load_message(struct store *store, enum queue_lane lane, const struct queue_id *id)
{
	struct lane_txn txn;
	struct store_message *message;

	txn_read(&store->lanes[lane], &txn);
	message = txn_load(&txn, id, true);
	txn_abort(&txn);
	return message;
}

bool
store_is_for(const struct store_message *message, const char *domain)
{
	for (size_t i = 0; i < message->recipient_count; i++)
		if (message->recipients[i].state == STORE_QUEUED &&
		    strcmp(message->recipients[i].address.domain, domain) == 0)
			return true;
	return false;
}

struct store_message *
store_load_detail(struct store *store, const struct queue_id *id)
{
	struct store_message *message = NULL;

	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct store_message *found = store_load_message(store, (enum queue_lane)i, id);

		if (found && message && found->generation < message->generation) {
			store_message_free(found);
		} else if (found) {
			store_message_free(message);
			message = found;
		}
	}
	history_merge(store, id, &message);
	return message;
}

bool
store_find(struct store *store, const struct queue_id *id, enum queue_lane *lane)
{
	struct lane_txn txn;
	struct key key;
	MDB_val v;

	/* Backwards, so that a message in the middle of a move is found where it is going. */
	key_id(&key, id);
	for (unsigned i = QUEUE_LANES; i-- > 0;) {
		bool found;

		txn_read(&store->lanes[i], &txn);
		found = txn_get(&txn, TABLE_MESSAGE, &key, &v);
		txn_abort(&txn);
		if (found) {
			*lane = (enum queue_lane)i;
			return true;
		}
	}
	*lane = QUEUE_LANES;
	return history_knows(store, id);
}

/* One lane's place in a listing. */
struct lister {
	struct lane_txn txn;
	MDB_cursor *cursor;
	bool here;
	struct queue_id id;
};

static void
lister_take(struct lister *lister, const char *account, const MDB_val *k, int rc)
{
	size_t front = account ? strlen(account) + 1 : 0;

	lister->here = rc == 0 && k->mv_size == front + STORE_ID_SIZE &&
	               (account == NULL || memcmp(k->mv_data, account, front) == 0);
	if (lister->here)
		memcpy(lister->id.octets, (const uint8_t *)k->mv_data + front, STORE_ID_SIZE);
}

size_t
store_list(struct store *store, const char *account, const struct queue_id *after, size_t max,
           store_on_message *on_message, void *arg, bool *more)
{
	struct queue_id first = {{0}};
	struct lister listers[QUEUE_LANES];
	struct key key;
	MDB_val k, v;
	size_t count = 0;

	if (account)
		key_account(&key, account, after ? after : &first);
	else
		key_id(&key, after ? after : &first);
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct lister *lister = &listers[i];

		lister->here = false;
		txn_read(&store->lanes[i], &lister->txn);
		lister->cursor = txn_cursor(&lister->txn, account ? TABLE_ACCOUNT : TABLE_MESSAGE);
		if (lister->cursor == NULL)
			continue;
		k = (MDB_val){key.len, key.data};
		lister_take(lister, account, &k,
		            mdb_cursor_get(lister->cursor, &k, &v, MDB_SET_RANGE));
		if (lister->here && after && queue_id_equal(&lister->id, after))
			lister_take(lister, account, &k,
			            mdb_cursor_get(lister->cursor, &k, &v, MDB_NEXT));
	}
	*more = false;
	for (;;) {
		struct store_message *best = NULL;
		const struct queue_id *least = NULL;
		struct queue_id id;

		for (unsigned i = 0; i < QUEUE_LANES; i++)
			if (listers[i].here &&
			    (least == NULL || memcmp(&listers[i].id, least, STORE_ID_SIZE) < 0))
				least = &listers[i].id;
		if (least == NULL)
			break;
		if (count == max) {
			*more = true;
			break;
		}
		id = *least;
		for (unsigned i = 0; i < QUEUE_LANES; i++) {
			struct lister *lister = &listers[i];
			struct store_message *message;

			if (!lister->here || !queue_id_equal(&lister->id, &id))
				continue;
			message = txn_load(&lister->txn, &id, false);
			lister->txn.rc = 0; /* one record that does not read hides no others */
			if (message && (best == NULL || message->generation > best->generation)) {
				store_message_free(best);
				best = message;
			} else {
				store_message_free(message);
			}
			lister_take(lister, account, &k,
			            mdb_cursor_get(lister->cursor, &k, &v, MDB_NEXT));
		}
		if (best) {
			on_message(arg, best);
			count++;
		}
		store_message_free(best);
	}
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		if (listers[i].cursor)
			mdb_cursor_close(listers[i].cursor);
		txn_abort(&listers[i].txn);
	}
	return count;
}

static msec_t
oldest_in(struct lane_txn *txn)
{
	MDB_cursor *cursor = txn_cursor(txn, TABLE_MESSAGE);
	struct store_message *message = NULL;
	msec_t created = 0;
	MDB_val k, v;

	if (cursor == NULL)
		return 0;
	if (mdb_cursor_get(cursor, &k, &v, MDB_FIRST) == 0 &&
	    (message = record_decode(v.mv_data, v.mv_size)) != NULL)
		created = message->created;
	store_message_free(message);
	mdb_cursor_close(cursor);
	return created;
}

void
store_counts(struct store *store, struct store_counts *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < QUEUE_LANES; i++) {
		struct lane *lane = &store->lanes[i];
		struct lane_txn txn;
		uint64_t n[COUNTERS];
		unsigned percent;
		msec_t oldest;
		MDB_stat stat;

		txn_read(lane, &txn);
		if (txn.rc) {
			txn_abort(&txn);
			continue;
		}
		for (unsigned c = 0; c < COUNTERS; c++)
			n[c] = txn_counter(&txn, (enum counter)c);
		if (mdb_stat(txn.txn, lane->dbi[TABLE_MESSAGE], &stat) == 0)
			out->messages[i] = stat.ms_entries;
		oldest = oldest_in(&txn);
		percent = (unsigned)(txn_used(&txn) * 100 / lane->map_size);
		txn_abort(&txn);
		out->recipients[i] = n[COUNTER_ACCEPTED] + n[COUNTER_GENERATED] +
		                     n[COUNTER_MOVED_IN] - n[COUNTER_MOVED_OUT] -
		                     n[COUNTER_DELIVERED] - n[COUNTER_BOUNCED] -
		                     n[COUNTER_EXPIRED] - n[COUNTER_REMOVED];
		out->accepted += n[COUNTER_ACCEPTED];
		out->generated += n[COUNTER_GENERATED];
		out->delivered += n[COUNTER_DELIVERED];
		out->bounced += n[COUNTER_BOUNCED];
		out->expired += n[COUNTER_EXPIRED];
		out->removed += n[COUNTER_REMOVED];
		if (oldest && (out->oldest == 0 || oldest < out->oldest))
			out->oldest = oldest;
		if (percent > out->map_percent)
			out->map_percent = percent;
	}
	pthread_mutex_lock(&store->lanes[QUEUE_FRESH].lock);
	out->commits = store->lanes[QUEUE_FRESH].commits;
	out->committed = store->lanes[QUEUE_FRESH].committed;
	pthread_mutex_unlock(&store->lanes[QUEUE_FRESH].lock);
}
