#include "auth/roster.h"

/* A session that is told to end still counts until its msa process says that it is gone: what is
 * counted are connections, and one more than the limit must not make room for the next.
 *
 * After a restart we know nothing. Every msa process tells of its sessions again before it asks
 * anything else, so that counts are right when the first login comes; what happened to an account
 * meanwhile is looked up for each. */

#include <inttypes.h>

#include "auth/grants.h"
#include "auth/proto.h"
#include "auth/sessions.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/service.h"

static struct ipc_hub *hub;
static struct accounts *store;
static struct sessions *sessions;

void
roster_init(struct ipc_hub *the_hub, struct accounts *the_store)
{
	hub = the_hub;
	store = the_store;
	sessions = sessions_new();
}

static void
push_end(struct ipc_from owner, uint64_t number, enum auth_end why)
{
	struct buf payload;

	buf_init(&payload);
	wire_put_u64(&payload, number);
	wire_put_u8(&payload, (uint8_t)why);
	ipc_hub_push(hub, owner, AUTH_FRAME_END, &payload, -1);
	buf_clear(&payload);
}

struct ending {
	enum auth_end why;
	unsigned count;
};

static void
end_one(void *arg, struct ipc_from owner, const struct auth_session *session)
{
	struct ending *ending = arg;

	push_end(owner, session->number, ending->why);
	ending->count++;
}

unsigned
roster_end_account(const char *account, enum auth_end why)
{
	struct ending ending = {.why = why};
	uint64_t after = 0;

	(void)sessions_walk(sessions, account, &after, SESSIONS_MAX, end_one, &ending);
	return ending.count;
}

/* False, and nothing is put, when it cannot be read. */
static bool
put_account(struct buf *payload, const struct auth_entry *entry)
{
	struct identities *identities = grants_load(store, entry->account);

	if (identities == NULL)
		return false;
	auth_account_put(payload, entry->account, entry->class, identities);
	identities_free(identities);
	return true;
}

void
roster_tell_account(const char *account)
{
	struct accounts_record record;
	struct buf payload;

	if (sessions_of_account(sessions, account) == 0)
		return;
	buf_init(&payload);
	if (accounts_get(store, account, &record) == ACCOUNTS_OK &&
	    put_account(&payload, &record.entry))
		ipc_hub_push_all(hub, SERVICE_MSA, AUTH_FRAME_ACCOUNT, &payload);
	mem_wipe(&record, sizeof(record));
	buf_clear(&payload);
}

static bool
is_over_account_limit(const struct conf *conf, struct ipc_from owner, uint64_t number,
                      const char *account)
{
	if (sessions_of_account(sessions, account) <= conf->account_sessions)
		return false;
	log_info("-", "refused",
	         "rule=account_sessions account=%s session=%" PRIu64 " limit=%" PRIu64, account,
	         number, conf->account_sessions);
	push_end(owner, number, AUTH_END_ACCOUNT_LIMIT);
	return true;
}

/* A session whose login we did not see: it is from before our restart. */
static void
look_again(const struct conf *conf, struct ipc_from owner, const struct auth_session *session)
{
	struct accounts_record record;
	struct buf payload;
	enum accounts_result result = accounts_get(store, session->account, &record);

	if (result == ACCOUNTS_UNKNOWN) {
		push_end(owner, session->number, AUTH_END_REMOVED);
	} else if (result == ACCOUNTS_OK && record.entry.suspended) {
		push_end(owner, session->number, AUTH_END_SUSPENDED);
	} else if (result == ACCOUNTS_OK &&
	           !is_over_account_limit(conf, owner, session->number, session->account)) {
		buf_init(&payload);
		if (put_account(&payload, &record.entry))
			ipc_hub_push(hub, owner, AUTH_FRAME_ACCOUNT, &payload, -1);
		buf_clear(&payload);
	}
	mem_wipe(&record, sizeof(record));
}

static void
on_open(const struct conf *conf, struct ipc_from from, struct wire *wire)
{
	struct auth_session session;

	auth_session_get(wire, &session);
	if (!wire_done(wire))
		return;
	if (!sessions_open(sessions, from, &session)) {
		log_warn("-", "sessions-full", "limit=%d", SESSIONS_MAX);
		return;
	}
	if (sessions_of_client(sessions, session.ip) > conf->prefix_sessions) {
		log_info("-", "refused",
		         "rule=prefix_sessions ip=%s session=%" PRIu64 " limit=%" PRIu64,
		         session.ip, session.number, conf->prefix_sessions);
		push_end(from, session.number, AUTH_END_PREFIX_LIMIT);
	} else if (session.account[0] != '\0') {
		look_again(conf, from, &session);
	}
}

static void
on_close(struct ipc_from from, struct wire *wire)
{
	uint64_t number = wire_u64(wire);

	if (wire_done(wire))
		sessions_close(sessions, from, number);
}

bool
roster_login(const struct conf *conf, struct ipc_from from, uint64_t session, const char *account,
             const char *mechanism, const char *tls)
{
	return sessions_login(sessions, from, session, account, mechanism, tls) &&
	       !is_over_account_limit(conf, from, session, account);
}

void
roster_on_gone(struct ipc_from peer)
{
	sessions_drop(sessions, peer);
}

/* Admin */

struct page {
	struct buf sessions;
	uint32_t count;
};

static void
list_one(void *arg, struct ipc_from owner, const struct auth_session *session)
{
	struct page *page = arg;

	(void)owner;
	auth_session_put(&page->sessions, session);
	page->count++;
}

static void
on_list(struct ipc_from from, struct wire *wire)
{
	struct page page = {.count = 0};
	struct buf payload;
	char account[AUTH_ACCOUNT_MAX + 1];
	uint64_t after;
	bool more = false;

	wire_str(wire, account, sizeof(account));
	after = wire_u64(wire);
	buf_init(&page.sessions);
	if (wire_done(wire))
		more = sessions_walk(sessions, account, &after, AUTH_SESSIONS_MAX, list_one, &page);
	buf_init(&payload);
	wire_put_u32(&payload, page.count);
	buf_add(&payload, page.sessions.data, page.sessions.len);
	wire_put_u64(&payload, more ? after : 0);
	ipc_hub_reply(hub, from, &payload, -1);
	buf_clear(&payload);
	buf_clear(&page.sessions);
}

static void
on_kill(struct ipc_from from, struct wire *wire)
{
	struct ending ending = {.why = AUTH_END_KILLED};
	struct buf payload;
	char account[AUTH_ACCOUNT_MAX + 1];
	uint64_t number = wire_u64(wire);

	wire_str(wire, account, sizeof(account));
	if (wire_done(wire) && number != 0)
		(void)sessions_visit_one(sessions, number, end_one, &ending);
	else if (wire_done(wire) && account[0] != '\0')
		ending.count = roster_end_account(account, AUTH_END_KILLED);
	buf_init(&payload);
	wire_put_u32(&payload, ending.count);
	ipc_hub_reply(hub, from, &payload, -1);
	buf_clear(&payload);
}

void
roster_on_frame(const struct conf *conf, struct ipc_from from, uint16_t type, struct wire *wire)
{
	switch (type) {
	case AUTH_FRAME_OPEN:
		on_open(conf, from, wire);
		break;
	case AUTH_FRAME_CLOSE:
		on_close(from, wire);
		break;
	case AUTH_FRAME_SESSIONS:
		on_list(from, wire);
		break;
	case AUTH_FRAME_KILL:
		on_kill(from, wire);
		break;
	default:
		break;
	}
}
