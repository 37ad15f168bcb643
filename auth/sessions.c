#include "auth/sessions.h"

/* Three ways lead to a session: a hash of its number, the list in order of arrival, and its groups,
 * one for the client's prefix and, once it is logged in, one for the account. A group is found by
 * its name through a hash, too; names of both kinds live in one table, because an account has an @
 * and a prefix has none. A group without sessions is gone.
 *
 * The hashes are keyed with a random number: their keys are chosen by strangers. */

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "auth/prefix.h"
#include "core/mem.h"
#include "core/random.h"

#define BUCKETS 8192 /* a power of two */

struct group {
	LIST_ENTRY(group) in_bucket;
	unsigned count;
	char *name; /* owned */
};

struct entry {
	TAILQ_ENTRY(entry) in_order;
	LIST_ENTRY(entry) in_bucket;
	uint64_t place; /* in the order */
	struct ipc_from owner;
	struct group *prefix, *account; /* account NULL before the login */
	struct auth_session session;
};

struct sessions {
	TAILQ_HEAD(, entry) order;
	LIST_HEAD(, entry) numbers[BUCKETS];
	LIST_HEAD(, group) groups[BUCKETS];
	size_t count;
	uint64_t last_place;
	uint64_t seed;
};

struct sessions *
sessions_new(void)
{
	struct sessions *sessions = xcalloc(1, sizeof(*sessions));

	TAILQ_INIT(&sessions->order);
	random_bytes(&sessions->seed, sizeof(sessions->seed));
	return sessions;
}

/* FNV-1a; the seed stands in for its constant start. */
static size_t
bucket_of(const struct sessions *sessions, const void *key, size_t len)
{
	uint64_t hash = sessions->seed;

	for (const uint8_t *octet = key; len > 0; len--)
		hash = (hash ^ *octet++) * 0x100000001b3u;
	return (size_t)((hash ^ hash >> 32) & (BUCKETS - 1));
}

static struct group *
find_group(const struct sessions *sessions, const char *name)
{
	struct group *group;

	LIST_FOREACH(group, &sessions->groups[bucket_of(sessions, name, strlen(name))], in_bucket)
	if (strcmp(group->name, name) == 0)
		return group;
	return NULL;
}

static struct group *
join(struct sessions *sessions, const char *name)
{
	struct group *group = find_group(sessions, name);

	if (group == NULL) {
		group = xcalloc(1, sizeof(*group));
		group->name = xstrdup(name);
		LIST_INSERT_HEAD(&sessions->groups[bucket_of(sessions, name, strlen(name))], group,
		                 in_bucket);
	}
	group->count++;
	return group;
}

static void
part(struct group *group)
{
	if (group == NULL || --group->count > 0)
		return;
	LIST_REMOVE(group, in_bucket);
	free(group->name);
	free(group);
}

static void
remove_entry(struct sessions *sessions, struct entry *entry)
{
	TAILQ_REMOVE(&sessions->order, entry, in_order);
	LIST_REMOVE(entry, in_bucket);
	part(entry->prefix);
	part(entry->account);
	free(entry);
	sessions->count--;
}

void
sessions_free(struct sessions *sessions)
{
	struct entry *entry;

	if (sessions == NULL)
		return;
	while ((entry = TAILQ_FIRST(&sessions->order)) != NULL)
		remove_entry(sessions, entry);
	free(sessions);
}

static struct entry *
find(const struct sessions *sessions, const struct ipc_from *owner, uint64_t number)
{
	struct entry *entry;

	LIST_FOREACH(entry, &sessions->numbers[bucket_of(sessions, &number, sizeof(number))],
	             in_bucket)
	if (entry->session.number == number &&
	    (owner == NULL || entry->owner.channel == owner->channel))
		return entry;
	return NULL;
}

static void
set_account(struct sessions *sessions, struct entry *entry, const char *account)
{
	part(entry->account);
	entry->account = account[0] != '\0' ? join(sessions, account) : NULL;
}

bool
sessions_open(struct sessions *sessions, struct ipc_from owner, const struct auth_session *session)
{
	struct entry *entry;
	char prefix[PREFIX_SIZE];

	sessions_close(sessions, owner, session->number);
	if (sessions->count == SESSIONS_MAX)
		return false;
	entry = xcalloc(1, sizeof(*entry));
	entry->place = ++sessions->last_place;
	entry->owner = owner;
	entry->session = *session;
	prefix_of(session->ip, prefix);
	entry->prefix = join(sessions, prefix);
	set_account(sessions, entry, session->account);
	TAILQ_INSERT_TAIL(&sessions->order, entry, in_order);
	LIST_INSERT_HEAD(
	    &sessions->numbers[bucket_of(sessions, &session->number, sizeof(session->number))],
	    entry, in_bucket);
	sessions->count++;
	return true;
}

bool
sessions_login(struct sessions *sessions, struct ipc_from owner, uint64_t number,
               const char *account, const char *mechanism, const char *tls)
{
	struct entry *entry = find(sessions, &owner, number);

	if (entry == NULL)
		return false;
	set_account(sessions, entry, account);
	strncpy(entry->session.account, account, sizeof(entry->session.account) - 1);
	strncpy(entry->session.mechanism, mechanism, sizeof(entry->session.mechanism) - 1);
	strncpy(entry->session.tls, tls, sizeof(entry->session.tls) - 1);
	return true;
}

void
sessions_close(struct sessions *sessions, struct ipc_from owner, uint64_t number)
{
	struct entry *entry = find(sessions, &owner, number);

	if (entry != NULL)
		remove_entry(sessions, entry);
}

void
sessions_drop(struct sessions *sessions, struct ipc_from owner)
{
	struct entry *next;

	for (struct entry *e = TAILQ_FIRST(&sessions->order); e != NULL; e = next) {
		next = TAILQ_NEXT(e, in_order);
		if (e->owner.channel == owner.channel)
			remove_entry(sessions, e);
	}
}

static unsigned
count_of(const struct sessions *sessions, const char *name)
{
	const struct group *group = find_group(sessions, name);

	return group != NULL ? group->count : 0;
}

unsigned
sessions_of_client(const struct sessions *sessions, const char *ip)
{
	char prefix[PREFIX_SIZE];

	prefix_of(ip, prefix);
	return count_of(sessions, prefix);
}

unsigned
sessions_of_account(const struct sessions *sessions, const char *account)
{
	return count_of(sessions, account);
}

bool
sessions_walk(const struct sessions *sessions, const char *account, uint64_t *after, size_t max,
              sessions_visit *visit, void *arg)
{
	const struct group *wanted = account[0] != '\0' ? find_group(sessions, account) : NULL;
	const struct entry *entry;
	size_t count = 0;
	uint64_t last = 0;

	if (account[0] != '\0' && wanted == NULL)
		return false;
	TAILQ_FOREACH(entry, &sessions->order, in_order)
	{
		if (entry->place <= *after || (wanted != NULL && entry->account != wanted))
			continue;
		if (count++ == max) {
			*after = last;
			return true;
		}
		last = entry->place;
		visit(arg, entry->owner, &entry->session);
	}
	return false;
}

bool
sessions_visit_one(const struct sessions *sessions, uint64_t number, sessions_visit *visit,
                   void *arg)
{
	const struct entry *entry = find(sessions, NULL, number);

	if (entry != NULL)
		visit(arg, entry->owner, &entry->session);
	return entry != NULL;
}
