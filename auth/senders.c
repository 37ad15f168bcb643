#include "auth/senders.h"

/* A change waits for the disk, so it goes through the pool as those of manage.c do; what is asked
 * is read at once. An explanation asks the same function as a session, with the same set. */

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

static struct ipc_hub *hub;
static struct accounts *store;

void
senders_init(struct ipc_hub *the_hub, struct accounts *the_store)
{
	hub = the_hub;
	store = the_store;
}

static void
begin(struct buf *payload, enum auth_result result, const char *error)
{
	buf_init(payload);
	wire_put_u8(payload, (uint8_t)result);
	wire_put_str(payload, error);
}

static void
answer(struct ipc_from to, enum auth_result result, const char *error,
       const struct auth_grant *list, size_t count)
{
	struct buf payload;

	begin(&payload, result, error);
	wire_put_u32(&payload, (uint32_t)count);
	for (size_t i = 0; i < count; i++)
		auth_grant_put(&payload, &list[i]);
	ipc_hub_reply(hub, to, &payload, -1);
	buf_clear(&payload);
}

/* Why not: a sentence that says what to do. */
static enum auth_result
explain(enum grants_result result, const char *account, const char *text,
        char error[AUTH_ERROR_SIZE])
{
	switch (result) {
	case GRANTS_OK:
		error[0] = '\0';
		return AUTH_DONE;
	case GRANTS_NO_ACCOUNT:
		snprintf(error, AUTH_ERROR_SIZE, "there is no such account");
		return AUTH_UNKNOWN;
	case GRANTS_NONE:
		snprintf(error, AUTH_ERROR_SIZE,
		         "%s was not granted %s; it has what sekishoctl account identity list %s "
		         "shows",
		         account, text, account);
		return AUTH_UNKNOWN;
	case GRANTS_EXISTS:
		snprintf(error, AUTH_ERROR_SIZE, "%s has %s already", account, text);
		return AUTH_EXISTS;
	case GRANTS_OWN:
		snprintf(error, AUTH_ERROR_SIZE,
		         "%s is the account's name, as which it may send anyway", text);
		return AUTH_EXISTS;
	case GRANTS_TAKEN:
		snprintf(error, AUTH_ERROR_SIZE,
		         "%s is an account; to let %s send as it, sekishoctl account identity add "
		         "%s %s --delegate",
		         text, account, account, text);
		return AUTH_INVALID;
	case GRANTS_NO_OTHER:
		snprintf(error, AUTH_ERROR_SIZE,
		         "%s is no account; an address that is none is granted without --delegate",
		         text);
		return AUTH_UNKNOWN;
	case GRANTS_LIMIT:
		snprintf(error, AUTH_ERROR_SIZE,
		         "an account has at most %d identities, and as many others may send as it; "
		         "a whole domain is one identity: @example.net",
		         IDENTITIES_MAX);
		return AUTH_LIMIT;
	case GRANTS_FULL:
		snprintf(error, AUTH_ERROR_SIZE,
		         "the account store is full; raise queue.map_size and restart the service");
		return AUTH_FAILED;
	case GRANTS_FAILED:
		break;
	}
	snprintf(error, AUTH_ERROR_SIZE, "the account store failed; the log says why");
	return AUTH_FAILED;
}

static void
answer_result(struct ipc_from to, enum grants_result result, const char *account, const char *text,
              const struct auth_grant *list, size_t count)
{
	char error[AUTH_ERROR_SIZE];
	const enum auth_result told = explain(result, account, text, error);

	answer(to, told, error, list, told == AUTH_DONE ? count : 0);
}

/* Changes */

struct change {
	struct pool_job job; /* first, so that one pointer names both */
	struct ipc_from from;
	bool remove;
	char account[AUTH_ACCOUNT_MAX + 1];
	struct auth_grant grant;
	enum grants_result result;
};

static void
change_work(struct pool_job *job)
{
	struct change *change = (struct change *)job;

	change->result = change->remove
	                     ? grants_remove(store, change->account, change->grant.identity.text)
	                     : grants_add(store, change->account, &change->grant);
}

static void
change_done(struct pool_job *job, bool worked)
{
	struct change *change = (struct change *)job;
	const struct identity *identity = &change->grant.identity;
	char name[4 * sizeof(change->account)], word[4 * sizeof(identity->text)];

	if (!worked) {
		answer(change->from, AUTH_FAILED, "the authenticator is overloaded; try again",
		       NULL, 0);
	} else {
		if (change->result == GRANTS_OK) {
			roster_tell_account(change->account);
			log_info("-", change->remove ? "identity-removed" : "identity-added",
			         "account=%s identity=%s",
			         log_word(change->account, name, sizeof(name)),
			         log_word(identity->text, word, sizeof(word)));
		}
		answer_result(change->from, change->result, change->account, identity->text,
		              &change->grant, !change->remove);
	}
	free(change);
}

static void
change_start(struct ipc_from from, bool remove, const char *account, const struct auth_grant *grant)
{
	struct change *change = xcalloc(1, sizeof(*change));

	change->job.work = change_work;
	change->job.done = change_done;
	change->from = from;
	change->remove = remove;
	strcpy(change->account, account);
	change->grant = *grant;
	change->grant.since = clock_wall();
	pool_run("admin", &change->job);
}

/* Questions */

static void
list(struct ipc_from from, const char *account)
{
	struct auth_grant *grants = xcalloc(IDENTITIES_MAX, sizeof(*grants));
	size_t count;
	const enum grants_result result = grants_list(store, account, grants, &count);

	answer_result(from, result, account, "", grants, count);
	free(grants);
}

/* What is on record about the identity of that text. */
static void
find_grant(const char *account, const char *text, struct auth_grant *out)
{
	struct auth_grant *grants = xcalloc(IDENTITIES_MAX, sizeof(*grants));
	size_t count;

	if (grants_list(store, account, grants, &count) == GRANTS_OK)
		for (size_t i = 0; i < count; i++)
			if (strcmp(grants[i].identity.text, text) == 0)
				*out = grants[i];
	free(grants);
}

static void
explain_sender(const struct conf *conf, struct ipc_from from, const char *account, const char *text,
               const struct address *address)
{
	struct accounts_record record, other;
	struct auth_grant grant = {0};
	struct identity_match match;
	struct identity_policy policy;
	struct identities *identities = NULL;
	struct buf payload;
	const enum accounts_result found = accounts_get(store, account, &record);
	bool is_account;

	if (found != ACCOUNTS_OK || (identities = grants_load(store, account)) == NULL) {
		answer_result(from, found == ACCOUNTS_UNKNOWN ? GRANTS_NO_ACCOUNT : GRANTS_FAILED,
		              account, text, NULL, 0);
		mem_wipe(&record, sizeof(record));
		return;
	}
	policy = identity_policy_of(conf, record.entry.class);
	begin(&payload, AUTH_DONE, "");
	wire_put_u8(&payload, identities_allow(identities, &policy, address, &match));
	wire_put_u8(&payload, match.detail);
	find_grant(account, match.text, &grant);
	grant.identity.kind = match.kind;
	snprintf(grant.identity.text, sizeof(grant.identity.text), "%s", match.text);
	auth_grant_put(&payload, &grant);
	wire_put_str(&payload, record.entry.class);
	wire_put_u8(&payload, policy.any);
	wire_put_u8(&payload, record.entry.suspended);
	is_account = strcmp(account, text) != 0 && accounts_get(store, text, &other) == ACCOUNTS_OK;
	wire_put_u8(&payload, is_account);
	ipc_hub_reply(hub, from, &payload, -1);
	buf_clear(&payload);
	identities_free(identities);
	mem_wipe(&record, sizeof(record));
	mem_wipe(&other, sizeof(other));
}

void
senders_on_frame(const struct conf *conf, struct ipc_from from, uint16_t type, struct wire *wire)
{
	char told[AUTH_ACCOUNT_MAX + 1], account[AUTH_ACCOUNT_MAX + 1];
	char text[IDENTITY_TEXT_MAX + 1] = "", name[AUTH_ACCOUNT_MAX + 1];
	struct auth_grant grant = {0};
	struct address address;

	wire_str(wire, told, sizeof(told));
	if (type == AUTH_FRAME_GRANT)
		auth_grant_get(wire, &grant);
	else if (type != AUTH_FRAME_GRANTS)
		wire_str(wire, text, sizeof(text));
	if (type == AUTH_FRAME_REVOKE) { /* whatever its kind */
		grant.identity.kind = IDENTITY_ADDRESS;
		strcpy(grant.identity.text, text);
	}
	if (!wire_done(wire) || !name_canonical(told, strlen(told), account))
		answer(from, AUTH_INVALID,
		       "the account name is no mail address like user@example.net", NULL, 0);
	else if (type == AUTH_FRAME_GRANTS)
		list(from, account);
	else if (type == AUTH_FRAME_EXPLAIN) {
		if (address_parse(text, strlen(text), &address) != ADDRESS_OK ||
		    !name_of_address(&address, name))
			answer(from, AUTH_INVALID, "the sender is no mail address", NULL, 0);
		else
			explain_sender(conf, from, account, name, &address);
	} else if (grant.identity.text[0] == '\0' || grant.identity.kind == IDENTITY_OWN ||
	           grant.identity.kind >= IDENTITY_KINDS) {
		answer(from, AUTH_INVALID, "that is no identity", NULL, 0);
	} else {
		change_start(from, type == AUTH_FRAME_REVOKE, account, &grant);
	}
}
