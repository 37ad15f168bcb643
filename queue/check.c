#include "queue/store_int.h"

/* Everything in the spool looked at: each record and row by itself, what they say of each other,
 * every body, the files, and the books.
 *
 * It is done in shares, one call each, by the reader's thread: a share ends after a bounded time,
 * so its snapshots pin few pages and its asker sees it go on; the rest of the service waits for
 * nothing. Between two shares the place in the tables is kept here, for a minute.
 *
 * What one share sees of one environment is one snapshot. Across environments and files it is not,
 * so what looks wrong there is looked at again before it is said: a body whose record has changed
 * meanwhile, an id in two lanes that is being moved, a file that is just being made. The lanes are
 * opened against the direction of moves and the ledger's first, so that nothing on its way is
 * missed by both. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"

#define SHARE_TIME   300 /* msec */
#define FAULTS_SPARE 16  /* as many as one row can have */
#define CHECKS_MAX   4
#define FORGET       (60 * 1000)      /* msec since the last share */
#define LARGE_IDLE   (10 * 60 * 1000) /* msec: a body that comes in is written to more often */
#define FILES_MAX    1000

#define ENVS        (QUEUE_LANES + 1)
#define STEP_BODIES (ENVS * TABLES)
#define STEP_LARGE  (STEP_BODIES + 1)
#define STEP_AGAIN  (STEP_BODIES + 2) /* files that nothing named */
#define STEP_BOOKS  (STEP_BODIES + 3)

struct check {
	LIST_ENTRY(check) link;
	uint64_t number;
	msec_t asked; /* monotonic */
	bool busy;    /* a share is under way */
	unsigned step;
	struct key at; /* in the table of that step; len 0: at its front */
	struct queue_check share;
	struct queue_fault faults[QUEUE_FAULTS_MAX];
	size_t count;
	struct queue_id twice[QUEUE_FAULTS_MAX]; /* seen in more than one lane, in this share */
	size_t twice_count;
	char (*files)[80]; /* below the spool */
	size_t file_count;
};

struct share {
	struct op op;
	struct check *check;
	struct lane *envs[ENVS];
	struct lane_txn txn[ENVS];
	store_on_check *on_check;
	void *arg;
};

static const char advice_record[] =
    "its mail is not delivered: look at the disk, restore the spool from a copy";
static const char advice_body[] = "look at the disk; end it with: sekishoctl queue remove ID";
static const char advice_row[] = "it does no harm; tell the makers, and how it came to be";
static const char advice_history[] = "history lacks it; look at the disk";
static const char advice_message[] = "end it with: sekishoctl queue remove ID, and ask its sender";

static void
fault(struct check *check, const char *where, const char *what, const char *todo)
{
	struct queue_fault *out;

	if (check->count == QUEUE_FAULTS_MAX)
		return;
	out = &check->faults[check->count++];
	snprintf(out->where, sizeof(out->where), "%s", where);
	snprintf(out->what, sizeof(out->what), "%s", what);
	snprintf(out->todo, sizeof(out->todo), "%s", todo);
}

/* --- one row --- */

struct row {
	struct share *share;
	struct lane_txn *txn;
	unsigned env;
	enum table table;
	const MDB_val *k, *v;
};

static bool
is_id_last(enum table table)
{
	return table == TABLE_DUE || table == TABLE_HELD || table == TABLE_ACCOUNT ||
	       table == TABLE_DOMAIN || table == TABLE_INDEX || table == TABLE_ENDED;
}

/* Which one it is, as people write it. */
static void
row_where(const struct row *row, char *out, size_t size)
{
	const uint8_t *key = row->k->mv_data;
	const size_t len = row->k->mv_size;
	char text[QUEUE_ID_TEXT_SIZE] = "";
	struct queue_id id;
	int at;

	at = snprintf(out, size, "%s/%s/", row->txn->lane->name, table_name(row->table));
	if (row->table == TABLE_LEDGER || row->table == TABLE_OVERRIDE ||
	    row->table == TABLE_DIRECTIVE) {
		snprintf(out + at, size - (size_t)at, "%.*s", (int)strnlen((const char *)key, len),
		         (const char *)key);
		return;
	}
	if (len >= STORE_ID_SIZE) {
		memcpy(id.octets, is_id_last(row->table) ? key + len - STORE_ID_SIZE : key,
		       STORE_ID_SIZE);
		queue_id_format(&id, text);
	}
	if (!is_id_last(row->table) && len > STORE_ID_SIZE + 1)
		snprintf(out + at, size - (size_t)at, "%s/%u", text,
		         (unsigned)be_get(key + STORE_ID_SIZE, 2));
	else
		snprintf(out + at, size - (size_t)at, "%s", text);
}

static void
row_fault(const struct row *row, const char *what, const char *todo)
{
	struct queue_fault *sizes = NULL;
	char where[sizeof(sizes->where)];

	row_where(row, where, sizeof(where));
	fault(row->share->check, where, what, todo);
}

static bool
has_row(struct lane_txn *txn, enum table table, const struct key *key)
{
	MDB_val v;

	return txn_get(txn, table, key, &v);
}

/* Whether anything was ever charged to the account: rows go only when others come. */
static bool
is_charged(struct share *share, const char *account)
{
	struct lane_txn *fresh = &share->txn[QUEUE_FRESH];
	MDB_cursor *cursor = txn_cursor(fresh, TABLE_LEDGER);
	struct key key;
	MDB_val k, v;
	bool found = false;

	if (cursor == NULL)
		return true;
	key_ledger(&key, account, 0);
	k = (MDB_val){key.len, key.data};
	found = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE) == 0 && k.mv_size == key.len &&
	        memcmp(k.mv_data, key.data, key.len - 4) == 0;
	mdb_cursor_close(cursor);
	return found;
}

/* The record as it is now; NULL when there is none. */
static struct store_message *
record_now(struct lane *lane, const struct queue_id *id)
{
	struct lane_txn txn;
	struct store_message *message;

	txn_read(lane, &txn);
	message = txn_load(&txn, id, false);
	txn_abort(&txn);
	return message;
}

static void
check_body(const struct row *row, const struct store_message *message)
{
	struct segments *segments = &row->txn->lane->store->segments;
	struct check *check = row->share->check;
	struct store_body body = message->body;
	int rc = body_verify(segments, &message->id, &body);

	/* Ended, moved or copied meanwhile? */
	while (rc != 0) {
		struct store_message *now = record_now(row->txn->lane, &message->id);
		const bool same =
		    now && now->body.segment == body.segment && now->body.offset == body.offset;

		if (now)
			body = now->body;
		store_message_free(now);
		if (now == NULL)
			return;
		if (same)
			break;
		rc = body_verify(segments, &message->id, &body);
	}
	check->share.bodies++;
	check->share.octets += body.size;
	if (rc == ENOENT)
		row_fault(row, "its body is not there", advice_body);
	else if (rc == EBADMSG)
		row_fault(row, "its body is not what was written", advice_body);
	else if (rc != 0)
		row_fault(row, strerror(rc), advice_body);
}

static void
check_message(const struct row *row)
{
	struct share *share = row->share;
	struct lane_txn *txn = row->txn;
	struct store_message *message, *whole;
	struct queue_id id;
	struct key key;

	if (row->k->mv_size != STORE_ID_SIZE ||
	    (message = record_decode(row->v->mv_data, row->v->mv_size)) == NULL) {
		row_fault(row, "the record does not read", advice_record);
		return;
	}
	memcpy(id.octets, row->k->mv_data, STORE_ID_SIZE);
	message->id = id;
	key_due(&key, message->due, &id);
	if (!has_row(txn, table_due(message), &key))
		row_fault(row, "it is in no order of due times, so it is never attempted",
		          advice_message);
	key_account(&key, message->account, &id);
	if (!has_row(txn, TABLE_ACCOUNT, &key))
		row_fault(row, "its account's list lacks it", advice_message);
	if (!message->generated && message->account[0] && !is_charged(share, message->account))
		row_fault(row, "its account was never charged", advice_row);
	whole = txn_load(txn, &id, true);
	txn->rc = 0; /* a recipient's row that does not read is named where its turn is */
	if (whole) {
		uint32_t unfinished = 0;

		bool listed = true;

		for (size_t i = 0; i < whole->recipient_count; i++) {
			if (whole->recipients[i].state != STORE_QUEUED)
				continue;
			unfinished++;
			listed &= !has_domains(txn->lane) ||
			          txn_has_domain(txn, whole->recipients[i].address.domain, &id);
		}
		if (!listed)
			row_fault(row, "a domain's list lacks it, so that no success wakes it",
			          "it is attempted in its own time all the same");
		if (unfinished != message->unfinished || unfinished == 0)
			row_fault(row, "it has not as many recipients as it says", advice_message);
	}
	store_message_free(whole);
	key_id(&key, &id);
	for (unsigned i = row->env + 1; i < QUEUE_LANES; i++)
		if (has_row(&share->txn[i], TABLE_MESSAGE, &key) &&
		    share->check->twice_count < QUEUE_FAULTS_MAX)
			share->check->twice[share->check->twice_count++] = id;
	check_body(row, message);
	store_message_free(message);
}

/* A row that belongs to a message. */
static void
check_index(const struct row *row)
{
	const bool front = !is_id_last(row->table);
	const size_t len = row->k->mv_size;
	struct store_message *message;
	struct store_recipient recipient;
	struct key key = {.len = STORE_ID_SIZE}, own = {0};
	MDB_val v;

	if (len < STORE_ID_SIZE || (row->table == TABLE_RECIPIENT && len != STORE_ID_SIZE + 2)) {
		row_fault(row, "the row has no name that it could have", advice_row);
		return;
	}
	if (row->table == TABLE_RECIPIENT) {
		if (recipient_decode(row->v->mv_data, row->v->mv_size, 0, &recipient))
			recipient_clear(&recipient);
		else
			row_fault(row, "the recipient does not read", advice_record);
	}
	memcpy(key.data, (const uint8_t *)row->k->mv_data + (front ? 0 : len - STORE_ID_SIZE),
	       STORE_ID_SIZE);
	if (!txn_get(row->txn, TABLE_MESSAGE, &key, &v)) {
		row_fault(row, "there is no message of that id", advice_row);
		return;
	}
	message = front || row->table == TABLE_DOMAIN ? NULL : record_decode(v.mv_data, v.mv_size);
	if (message == NULL)
		return;
	memcpy(message->id.octets, key.data, STORE_ID_SIZE);
	if (row->table == TABLE_ACCOUNT)
		key_account(&own, message->account, &message->id);
	else
		key_due(&own, message->due, &message->id);
	if (own.len != len || memcmp(own.data, row->k->mv_data, len) != 0 ||
	    (row->table != TABLE_ACCOUNT && row->table != table_due(message)))
		row_fault(row, "it is not where its record says", advice_row);
	store_message_free(message);
}

/* A row about what has become of a message, on its way to history or there. */
static void
check_outcome(const struct row *row)
{
	const uint8_t *key = row->k->mv_data;
	const MDB_val *v = row->v;
	struct store_recipient recipient;
	struct store_message *message;
	struct history_act act;
	struct event event;
	unsigned index = OUTBOX_SUMMARY_INDEX;

	if (row->k->mv_size != (row->table == TABLE_SUMMARY ? STORE_ID_SIZE : OUTBOX_KEY_SIZE)) {
		row_fault(row, "the row has no name that it could have", advice_row);
		return;
	}
	if (row->table != TABLE_SUMMARY)
		index = (unsigned)be_get(key + STORE_ID_SIZE, 2);
	if (index == OUTBOX_SUMMARY_INDEX) {
		if (row->table == TABLE_OUTBOX && v->mv_size == 0)
			return; /* history is to look its message up */
		if ((message = record_decode(v->mv_data, v->mv_size)) == NULL)
			row_fault(row, "what is told of a message does not read", advice_history);
		store_message_free(message);
	} else if (index == OUTBOX_EVENT_INDEX) {
		if (!event_decode(v->mv_data, v->mv_size, &event))
			row_fault(row, "what happened to a message does not read", advice_history);
	} else if (index == OUTBOX_ACT_INDEX) {
		if (!act_decode(v->mv_data, v->mv_size, &act))
			row_fault(row, "what an operator did does not read", advice_history);
	} else if (recipient_decode(v->mv_data, v->mv_size, 0, &recipient)) {
		recipient_clear(&recipient);
	} else {
		row_fault(row, "an outcome does not read", advice_history);
	}
}

/* What history is searched and pruned by. */
static void
check_history_index(const struct row *row)
{
	const size_t len = row->k->mv_size;
	struct key key = {.len = STORE_ID_SIZE};
	MDB_cursor *cursor;
	MDB_val k, v;
	bool known;

	if (len < STORE_ID_SIZE) {
		row_fault(row, "the row has no name that it could have", advice_row);
		return;
	}
	memcpy(key.data, (const uint8_t *)row->k->mv_data + len - STORE_ID_SIZE, STORE_ID_SIZE);
	known = has_row(row->txn, TABLE_SUMMARY, &key);
	/* Of two lanes' outboxes an outcome may come first. */
	if (!known && row->table == TABLE_INDEX &&
	    (cursor = txn_cursor(row->txn, TABLE_OUTCOME)) != NULL) {
		k = (MDB_val){key.len, key.data};
		known = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE) == 0 &&
		        k.mv_size >= STORE_ID_SIZE &&
		        memcmp(k.mv_data, key.data, STORE_ID_SIZE) == 0;
		mdb_cursor_close(cursor);
	}
	if (!known)
		row_fault(row, "nothing is known of a message of that id", advice_row);
}

static void
check_row(const struct row *row)
{
	struct store_override override;
	struct history_act act;

	row->share->check->share.records++;
	switch (row->table) {
	case TABLE_MESSAGE:
		check_message(row);
		break;
	case TABLE_PREFIX:
	case TABLE_RECIPIENT:
	case TABLE_DUE:
	case TABLE_HELD:
	case TABLE_ACCOUNT:
	case TABLE_DOMAIN:
		check_index(row);
		break;
	case TABLE_OUTBOX:
	case TABLE_OUTCOME:
	case TABLE_SUMMARY:
		check_outcome(row);
		break;
	case TABLE_INDEX:
	case TABLE_ENDED:
		check_history_index(row);
		break;
	case TABLE_ACT:
		if (!act_decode(row->v->mv_data, row->v->mv_size, &act))
			row_fault(row, "what an operator did does not read", advice_history);
		break;
	case TABLE_LEDGER:
		if (!ledger_row_reads(row->k, row->v))
			row_fault(row, "what was charged does not read",
			          "its mail is refused: sekishoctl quota reset ACCOUNT");
		break;
	case TABLE_OVERRIDE:
		if (!override_decode(row->v->mv_data, row->v->mv_size, &override))
			row_fault(row, "a limit of its own does not read",
			          "sekishoctl quota set ACCOUNT, or quota clear ACCOUNT");
		break;
	default: /* what directives say is others' to know */
		break;
	}
}

/* --- files --- */

static bool
is_segment_known(struct segments *segments, const char *name)
{
	uint64_t number;
	char own[32];

	return sscanf(name, "seg-%16" SCNx64, &number) == 1 &&
	       strcmp(segment_name(number, own), name) == 0 && segments_know(segments, number);
}

static bool
is_large_known(struct store *store, const char *name)
{
	struct queue_id id;
	struct stat st;
	bool known = false;

	if (!queue_id_parse(name, &id))
		return false;
	for (unsigned i = 0; i < QUEUE_LANES && !known; i++) {
		struct store_message *message = record_now(&store->lanes[i], &id);

		known = message && message->body.segment == 0;
		store_message_free(message);
	}
	/* Or it is being received. */
	return known || fstatat(store->segments.large, name, &st, 0) < 0 ||
	       clock_wall() - (msec_t)st.st_mtim.tv_sec * 1000 < LARGE_IDLE;
}

static bool
is_file_known(struct store *store, const char *file)
{
	const char *name = strchr(file, '/') + 1;

	return file[0] == 'b' ? is_segment_known(&store->segments, name)
	                      : is_large_known(store, name);
}

static void
look_at_files(struct store *store, struct check *check, const char *directory)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	if (check->files == NULL)
		check->files = xcalloc(FILES_MAX, sizeof(*check->files));
	if (dir == NULL)
		fault(check, directory, strerror(errno), "look at the disk");
	while (dir && (entry = readdir(dir)) != NULL && check->file_count < FILES_MAX) {
		char *file = check->files[check->file_count];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(*check->files), "%s/%.60s", directory, entry->d_name);
		if (!is_file_known(store, file))
			check->file_count++;
	}
	if (dir)
		closedir(dir);
}

/* What nobody knew then and nobody knows now. */
static void
look_again(struct store *store, struct check *check)
{
	while (check->file_count && check->count < QUEUE_FAULTS_MAX - FAULTS_SPARE) {
		const char *file = check->files[--check->file_count];

		if (access(file, F_OK) == 0 && !is_file_known(store, file))
			fault(check, file, "no record names it", "the next start removes it");
	}
}

/* --- shares --- */

static bool
is_checked(const struct lane *env, unsigned table)
{
	return (env->tables & (1u << table)) && table != TABLE_META && table != TABLE_COUNTER;
}

/* Rows of one table, from where it stands; true at its end. */
static bool
check_table(struct share *share, unsigned env, enum table table, msec_t until)
{
	struct check *check = share->check;
	struct lane_txn *txn = &share->txn[env];
	MDB_cursor *cursor = txn_cursor(txn, table);
	MDB_val k = {check->at.len, check->at.data}, v;
	int rc = EIO;

	if (cursor)
		rc = mdb_cursor_get(cursor, &k, &v, check->at.len ? MDB_SET_RANGE : MDB_FIRST);
	if (rc == 0 && k.mv_size == check->at.len &&
	    memcmp(k.mv_data, check->at.data, k.mv_size) == 0)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	while (rc == 0 && check->count <= QUEUE_FAULTS_MAX - FAULTS_SPARE && clock_mono() < until &&
	       !share->op.store->closing) {
		const struct row row = {share, txn, env, table, &k, &v};

		check_row(&row);
		txn->rc = 0;
		check->at.len = k.mv_size < sizeof(check->at.data) ? k.mv_size : 0;
		memcpy(check->at.data, k.mv_data, check->at.len);
		rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	if (rc != 0 && rc != MDB_NOTFOUND) {
		char where[64];

		snprintf(where, sizeof(where), "%s/%s", txn->lane->name, table_name(table));
		fault(check, where, mdb_strerror(rc),
		      "look at the disk, restore the spool from a copy");
	}
	return rc != 0;
}

/* The reader's thread. */
static int
share_prepare(struct op *op)
{
	struct share *share = (struct share *)op;
	struct check *check = share->check;
	struct store *store = op->store;
	const msec_t until = clock_mono() + SHARE_TIME;

	check->count = check->twice_count = 0;
	for (unsigned i = ENVS; i-- > 0;)
		txn_read(share->envs[i], &share->txn[i]);
	while (check->step < STEP_BODIES && clock_mono() < until &&
	       check->count <= QUEUE_FAULTS_MAX - FAULTS_SPARE) {
		const unsigned env = check->step / TABLES, table = check->step % TABLES;

		if (is_checked(share->envs[env], table) &&
		    !check_table(share, env, (enum table)table, until))
			break;
		check->step++;
		check->at.len = 0;
	}
	for (unsigned i = 0; i < ENVS; i++)
		txn_abort(&share->txn[i]);
	if (check->count > QUEUE_FAULTS_MAX - FAULTS_SPARE)
		return 0;
	if (check->step == STEP_BODIES) {
		look_at_files(store, check, "bodies");
		check->step = STEP_LARGE;
	} else if (check->step == STEP_LARGE) {
		look_at_files(store, check, "large");
		check->step = STEP_AGAIN;
	} else if (check->step == STEP_AGAIN) {
		look_again(store, check);
		if (check->file_count == 0)
			check->step = STEP_BOOKS;
	}
	return 0;
}

static void
check_free(struct check *check)
{
	LIST_REMOVE(check, link);
	free(check->files);
	free(check);
}

static void
share_answer(struct share *share)
{
	struct check *check = share->check;
	const bool over = check->share.number == 0;

	check->busy = false;
	check->asked = clock_mono();
	check->share.faults = check->faults;
	check->share.count = check->count;
	share->on_check(share->arg, &check->share);
	if (over)
		check_free(check);
	free(share);
}

static void
on_books(void *arg, const struct queue_audit *audit)
{
	struct share *share = arg;

	if (!audit->conserved)
		fault(share->check, "books",
		      "recipients that came in are not those that went out and wait",
		      "sekishoctl queue audit shows both sides; tell the makers");
	share_answer(share);
}

static void
look_twice(struct store *store, struct check *check)
{
	for (size_t i = 0; i < check->twice_count; i++) {
		const struct queue_id *id = &check->twice[i];
		char text[QUEUE_ID_TEXT_SIZE];
		unsigned lanes = 0;

		for (unsigned lane = 0; lane < QUEUE_LANES; lane++) {
			struct store_message *message = record_now(&store->lanes[lane], id);

			lanes += message != NULL;
			store_message_free(message);
		}
		if (lanes > 1 && !store_is_moving(store, id))
			fault(check, queue_id_format(id, text), "it is in more than one lane",
			      "restart sekisho-queue: the older record is deleted at its start");
	}
}

static void
share_complete(struct op *op)
{
	struct share *share = (struct share *)op;
	struct check *check = share->check;

	look_twice(op->store, check);
	if (check->step == STEP_BOOKS) {
		check->share.number = 0;
		snprintf(check->share.doing, sizeof(check->share.doing), "books");
		store_audit(op->store, on_books, share);
		return;
	}
	check->share.number = check->number;
	if (check->step < STEP_BODIES)
		snprintf(check->share.doing, sizeof(check->share.doing), "%s/%s",
		         share->envs[check->step / TABLES]->name,
		         table_name((enum table)(check->step % TABLES)));
	else
		snprintf(check->share.doing, sizeof(check->share.doing), "files");
	share_answer(share);
}

/* NULL when there are too many, or none of that number. */
static struct check *
check_of(struct store *store, uint64_t number)
{
	struct check *check, *next;
	unsigned count = 0;

	for (check = LIST_FIRST(&store->checks); check; check = next) {
		next = LIST_NEXT(check, link);
		if (number && check->number == number)
			return check->busy ? NULL : check;
		if (!check->busy && clock_mono() - check->asked > FORGET)
			check_free(check);
		else
			count++;
	}
	if (number || count == CHECKS_MAX)
		return NULL;
	check = xcalloc(1, sizeof(*check));
	check->number = ++store->check_number;
	LIST_INSERT_HEAD(&store->checks, check, link);
	return check;
}

bool
store_check(struct store *store, uint64_t number, store_on_check *on_check, void *arg)
{
	struct check *check = check_of(store, number);
	struct share *share;

	if (check == NULL)
		return false;
	check->busy = true;
	share = xcalloc(1, sizeof(*share));
	share->check = check;
	share->on_check = on_check;
	share->arg = arg;
	for (unsigned i = 0; i < QUEUE_LANES; i++)
		share->envs[i] = &store->lanes[i];
	share->envs[QUEUE_LANES] = &store->history;
	share->op.prepare = share_prepare;
	share->op.complete = share_complete;
	store_post(store, &store->audit, &share->op);
	return true;
}

void
checks_free(struct store *store)
{
	while (!LIST_EMPTY(&store->checks))
		check_free(LIST_FIRST(&store->checks));
}
