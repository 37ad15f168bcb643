#include "auth/manage.h"

/* A change derives a key or waits for the disk, so it goes through the pool, and is told to the msa
 * processes when it is durable and before it is answered: what the answer says is true then. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/grants.h"
#include "auth/name.h"
#include "auth/pool.h"
#include "auth/proto.h"
#include "auth/roster.h"
#include "core/log.h"
#include "core/mem.h"

#define DEFAULT_CLASS "standard"

static struct ipc_hub *hub;
static struct accounts *store;

void
manage_init(struct ipc_hub *the_hub, struct accounts *the_store)
{
	hub = the_hub;
	store = the_store;
}

static void
answer_accounts(struct ipc_from to, enum auth_result result, const char *error,
                const struct auth_entry *list, size_t count, const char *next)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_u8(&payload, (uint8_t)result);
	wire_put_str(&payload, error);
	wire_put_u32(&payload, (uint32_t)count);
	for (size_t i = 0; i < count; i++) {
		wire_put_str(&payload, list[i].account);
		wire_put_str(&payload, list[i].class);
		wire_put_u8(&payload, list[i].suspended);
		wire_put_str(&payload, list[i].reason);
		wire_put_u64(&payload, (uint64_t)list[i].created);
		wire_put_u64(&payload, (uint64_t)list[i].changed);
	}
	wire_put_str(&payload, next);
	ipc_hub_reply(hub, to, &payload, -1);
	buf_clear(&payload);
}

static void
answer_stored(struct ipc_from to, enum accounts_result result, const struct auth_entry *entry)
{
	switch (result) {
	case ACCOUNTS_OK:
		answer_accounts(to, AUTH_DONE, "", entry, entry != NULL, "");
		return;
	case ACCOUNTS_UNKNOWN:
		answer_accounts(to, AUTH_UNKNOWN, "there is no such account", NULL, 0, "");
		return;
	case ACCOUNTS_EXISTS:
		answer_accounts(to, AUTH_EXISTS, "the account exists already", NULL, 0, "");
		return;
	case ACCOUNTS_GRANTED:
	case ACCOUNTS_FULL:
		answer_accounts(to, AUTH_FAILED,
		                "the account store is full; raise queue.map_size and restart the "
		                "service",
		                NULL, 0, "");
		return;
	case ACCOUNTS_FAILED:
		break;
	}
	answer_accounts(to, AUTH_FAILED, "the account store failed; the log says why", NULL, 0, "");
}

/* A change of an account on its way through the pool. */
struct change {
	struct pool_job job; /* first, so that one pointer names both */
	struct ipc_from from;
	uint16_t type; /* of the frame that asked for it */
	enum accounts_result result;
	struct accounts_record record; /* as it is to be, then as it is */
	uint32_t iterations;
	int password_len;
	char password[VERIFY_PREPARED_SIZE];
	struct buf ended; /* accounts whose delegation ended with this one, see accounts_remove */
};

static void
change_free(struct change *change)
{
	buf_clear(&change->ended);
	mem_wipe(change, sizeof(*change));
	free(change);
}

static const struct {
	uint16_t type;
	const char *event; /* in the log */
} events[] = {
    {AUTH_FRAME_ADD, "account-added"},         {AUTH_FRAME_PASSWD, "account-password"},
    {AUTH_FRAME_SUSPEND, "account-suspended"}, {AUTH_FRAME_RESUME, "account-resumed"},
    {AUTH_FRAME_CLASS, "account-class"},       {AUTH_FRAME_REMOVE, "account-removed"},
};

static void
change_work(struct pool_job *job)
{
	struct change *change = (struct change *)job;
	struct accounts_record record = change->record;
	struct accounts_change what = {.now = record.entry.changed};

	if (change->password_len > 0)
		verify_make(&record.verifier, change->password, (size_t)change->password_len,
		            change->iterations);
	switch (change->type) {
	case AUTH_FRAME_ADD:
		change->result = accounts_add(store, &record);
		break;
	case AUTH_FRAME_REMOVE:
		change->result = accounts_remove(store, record.entry.account, &change->ended);
		break;
	default:
		if (change->type == AUTH_FRAME_PASSWD)
			what.verifier = &record.verifier;
		else if (change->type == AUTH_FRAME_CLASS)
			what.class = record.entry.class;
		else
			what.reason = record.entry.reason;
		what.suspended = record.entry.suspended;
		change->result =
		    accounts_change(store, record.entry.account, &what, &change->record);
		break;
	}
	mem_wipe(&record, sizeof(record));
}

/* Those who could send as the account that was removed. */
static void
tell_ended(const struct change *change)
{
	const char *removed = change->record.entry.account;
	char name[4 * (AUTH_ACCOUNT_MAX + 1)], word[4 * (AUTH_ACCOUNT_MAX + 1)];
	size_t at = 0;

	while (at < change->ended.len) {
		const char *account = (const char *)change->ended.data + at;

		roster_tell_account(account);
		log_info("-", "identity-ended", "account=%s identity=%s",
		         log_word(account, name, sizeof(name)),
		         log_word(removed, word, sizeof(word)));
		at += strlen(account) + 1;
	}
}

static void
change_tell(const struct change *change)
{
	const struct auth_entry *entry = &change->record.entry;
	unsigned ended = 0;

	if (change->type == AUTH_FRAME_REMOVE)
		ended = roster_end_account(entry->account, AUTH_END_REMOVED);
	else if (change->type == AUTH_FRAME_SUSPEND)
		ended = roster_end_account(entry->account, AUTH_END_SUSPENDED);
	else if (change->type == AUTH_FRAME_CLASS)
		roster_tell_account(entry->account);
	tell_ended(change);
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i].type == change->type)
			log_info("-", events[i].event, "account=%s class=%s ended=%u",
			         entry->account, entry->class, ended);
}

/* A name that somebody has as an identity is no account's. */
static void
answer_granted(const struct change *change)
{
	const char *name = change->record.entry.account;
	char holder[AUTH_ACCOUNT_MAX + 1], error[AUTH_ERROR_SIZE];

	if (!grants_holder(store, name, holder))
		strcpy(holder, "ACCOUNT");
	snprintf(error, sizeof(error),
	         "%s may send as it; end that first: sekishoctl account identity remove %s %s",
	         holder, holder, name);
	answer_accounts(change->from, AUTH_EXISTS, error, NULL, 0, "");
}

static void
change_done(struct pool_job *job, bool worked)
{
	struct change *change = (struct change *)job;

	if (worked && change->result == ACCOUNTS_OK)
		change_tell(change);
	if (!worked)
		answer_accounts(change->from, AUTH_FAILED,
		                "the authenticator is overloaded; try again", NULL, 0, "");
	else if (change->result == ACCOUNTS_GRANTED)
		answer_granted(change);
	else
		answer_stored(change->from, change->result,
		              change->type == AUTH_FRAME_REMOVE ? NULL : &change->record.entry);
	change_free(change);
}

/* False, after saying why, when the password cannot be used. */
static bool
take_password(struct change *change, const char *password, size_t len)
{
	const char *why = verify_policy(password, len);

	if (why != NULL) {
		answer_accounts(change->from, AUTH_INVALID, why, NULL, 0, "");
		return false;
	}
	change->password_len = verify_prepare(password, len, change->password);
	assert(change->password_len > 0); /* or verify_policy had refused it */
	return true;
}

static bool
take_class(struct change *change, const struct conf *conf, const char *name)
{
	char error[224];
	int len;

	if (strcmp(name, DEFAULT_CLASS) == 0 || conf_class(conf, name) != &conf->standard) {
		/* A class that is configured fits. */
		snprintf(change->record.entry.class, sizeof(change->record.entry.class), "%.*s",
		         (int)sizeof(change->record.entry.class) - 1, name);
		return true;
	}
	len = snprintf(error, sizeof(error),
	               "the configuration has no such class; it has " DEFAULT_CLASS);
	for (size_t i = 0; i < conf->classes.count && len < (int)sizeof(error) - 40; i++)
		len += snprintf(error + len, sizeof(error) - (size_t)len, ", %s",
		                conf->classes.list[i].name);
	answer_accounts(change->from, AUTH_INVALID, error, NULL, 0, "");
	return false;
}

/* text and password are what else the frame held. */
static void
change_start(const struct conf *conf, struct ipc_from from, uint16_t type, const char *account,
             const char *text, const char *password, size_t password_len)
{
	struct change *change = xcalloc(1, sizeof(*change));
	struct auth_entry *entry = &change->record.entry;

	change->job.work = change_work;
	change->job.done = change_done;
	change->from = from;
	change->type = type;
	change->iterations = (uint32_t)conf->scram_iterations;
	strcpy(entry->account, account);
	strcpy(entry->class, DEFAULT_CLASS);
	entry->created = entry->changed = clock_wall();
	entry->suspended = type == AUTH_FRAME_SUSPEND;
	if (type == AUTH_FRAME_SUSPEND)
		snprintf(entry->reason, sizeof(entry->reason), "%s", text);
	if ((password != NULL && !take_password(change, password, password_len)) ||
	    (type == AUTH_FRAME_CLASS && !take_class(change, conf, text))) {
		change_free(change);
		return;
	}
	pool_run("admin", &change->job);
}

static void
account_list(struct ipc_from from, const char *after)
{
	struct auth_entry *list = xcalloc(AUTH_LIST_MAX, sizeof(*list));
	size_t count;
	bool more;

	if (accounts_list(store, after, list, AUTH_LIST_MAX, &count, &more) == ACCOUNTS_OK)
		answer_accounts(from, AUTH_DONE, "", list, count,
		                more ? list[count - 1].account : "");
	else
		answer_stored(from, ACCOUNTS_FAILED, NULL);
	free(list);
}

static void
account_show(struct ipc_from from, const char *account)
{
	struct accounts_record record;
	enum accounts_result result = accounts_get(store, account, &record);

	answer_stored(from, result, result == ACCOUNTS_OK ? &record.entry : NULL);
	mem_wipe(&record, sizeof(record));
}

void
manage_on_frame(const struct conf *conf, struct ipc_from from, uint16_t type, struct wire *wire)
{
	char told[AUTH_ACCOUNT_MAX + 1], name[AUTH_ACCOUNT_MAX + 1], text[AUTH_REASON_MAX + 1] = "";
	const uint8_t *password = NULL;
	size_t len = 0;

	wire_str(wire, told, sizeof(told));
	if (type == AUTH_FRAME_ADD || type == AUTH_FRAME_PASSWD)
		password = wire_bytes(wire, &len);
	if (type == AUTH_FRAME_SUSPEND || type == AUTH_FRAME_CLASS)
		wire_str(wire, text, sizeof(text));
	if (!wire_done(wire))
		answer_accounts(from, AUTH_INVALID, "the account name is too long or no text", NULL,
		                0, "");
	else if (type == AUTH_FRAME_LIST)
		account_list(from, told);
	else if (!name_canonical(told, strlen(told), name))
		answer_accounts(from, AUTH_INVALID,
		                "the account name is no mail address like user@example.net", NULL,
		                0, "");
	else if (type == AUTH_FRAME_SHOW)
		account_show(from, name);
	else
		change_start(conf, from, type, name, text, (const char *)password, len);
}
