#include "auth/identity.h"

/* Problem: every MAIL, and every author in every header section, asks who may send as whom, and a
 * company's account has hundreds of addresses.
 *
 * Idea: equal addresses have one canonical text (auth/name.h), so the set is a sorted list of texts
 * and a question is a few binary searches: for the address, for what is left of it when a detail is
 * taken off, for its domain and for each domain above. No kind of identity is looked for in a walk.
 *
 * A detail (RFC 5233) is what follows a separator in the local part: of "a+b+c" that is "c" or
 * "b+c", whichever leaves somebody's user. An empty user or an empty detail is none, and a quoted
 * local part has none: who writes "a b+c"@ means that very name. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "auth/name.h"
#include "core/mem.h"

struct entry {
	uint32_t text; /* where in texts */
	uint8_t kind;
};

struct identities {
	struct entry *list; /* owned, in order of text */
	size_t count, room;
	char *texts; /* owned: each ends with NUL; the account's name is the first */
	size_t texts_len, texts_room;
};

const char *
identity_kind_name(enum identity_kind kind)
{
	static const char *const names[] = {
	    [IDENTITY_OWN] = "own",
	    [IDENTITY_ADDRESS] = "address",
	    [IDENTITY_DETAILS] = "details",
	    [IDENTITY_DOMAIN] = "domain",
	    [IDENTITY_SUBDOMAINS] = "subdomains",
	    [IDENTITY_DELEGATION] = "delegation",
	    [IDENTITY_ANY] = "any",
	};

	return names[kind];
}

bool
identity_parse(const char *text, size_t len, struct identity *out)
{
	char mailbox[IDENTITY_TEXT_MAX + 2], name[AUTH_ACCOUNT_MAX + 1];
	const bool below = len > 1 && text[0] == '@' && text[1] == '.';

	_Static_assert(sizeof(out->text) == sizeof(name), "a name is an identity's text");
	memset(out, 0, sizeof(*out));
	if (len == 0 || len > IDENTITY_TEXT_MAX)
		return false;
	if (text[0] != '@') {
		out->kind = IDENTITY_ADDRESS;
		return name_canonical(text, len, out->text);
	}
	/* A domain is what may stand in an address. */
	mailbox[0] = 'x';
	mailbox[1] = '@';
	memcpy(mailbox + 2, text + 1 + below, len - 1 - below);
	if (!name_canonical(mailbox, len + 1 - below, name) || (below && name[2] == '['))
		return false;
	out->kind = below ? IDENTITY_SUBDOMAINS : IDENTITY_DOMAIN;
	strcpy(out->text, below ? "@." : "@");
	strcat(out->text, name + 2);
	return true;
}

struct identity_policy
identity_policy_of(const struct conf *conf, const char *class)
{
	const char *separator = conf->detail_separator;

	return (struct identity_policy){
	    .separator = separator[0] != '\0' && separator[1] == '\0' ? separator[0] : '\0',
	    .any = conf_class(conf, class)->any_sender};
}

static const char *
text_at(const struct identities *set, size_t i)
{
	return set->texts + set->list[i].text;
}

/* Where key stands, or would stand. */
static size_t
place_of(const struct identities *set, const char *key, bool *there)
{
	size_t low = 0, high = set->count;

	*there = false;
	while (low < high) {
		const size_t middle = low + (high - low) / 2;
		const int order = strcmp(text_at(set, middle), key);

		if (order == 0) {
			*there = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool
identities_add(struct identities *set, enum identity_kind kind, const char *text)
{
	const size_t len = strlen(text);
	bool there;
	const size_t place = place_of(set, text, &there);

	assert(len > 0 && kind < IDENTITY_KINDS);
	if (there && set->list[place].kind == IDENTITY_OWN)
		return false;
	if (there) {
		set->list[place].kind = (uint8_t)kind;
		return true;
	}
	if (set->count > IDENTITIES_MAX)
		return false;
	if (set->count == set->room) {
		set->room = set->room * 2 + 1;
		set->list = xreallocarray(set->list, set->room, sizeof(*set->list));
	}
	if (set->texts_room - set->texts_len < len + 1) {
		set->texts_room = set->texts_room * 2 + len + 1;
		set->texts = xreallocarray(set->texts, set->texts_room, 1);
	}
	memmove(set->list + place + 1, set->list + place,
	        (set->count - place) * sizeof(*set->list));
	set->list[place] = (struct entry){(uint32_t)set->texts_len, (uint8_t)kind};
	memcpy(set->texts + set->texts_len, text, len + 1);
	set->texts_len += len + 1;
	set->count++;
	return true;
}

struct identities *
identities_new(const char *account)
{
	struct identities *set = xcalloc(1, sizeof(*set));

	identities_add(set, IDENTITY_OWN, account);
	return set;
}

struct identities *
identities_copy(const struct identities *set)
{
	struct identities *copy = xcalloc(1, sizeof(*copy));

	*copy = *set;
	copy->room = set->count;
	copy->list = xreallocarray(NULL, copy->room, sizeof(*copy->list));
	memcpy(copy->list, set->list, set->count * sizeof(*copy->list));
	copy->texts_room = set->texts_len;
	copy->texts = xmalloc(copy->texts_room);
	memcpy(copy->texts, set->texts, set->texts_len);
	return copy;
}

void
identities_free(struct identities *set)
{
	if (set == NULL)
		return;
	free(set->list);
	free(set->texts);
	free(set);
}

size_t
identities_count(const struct identities *set)
{
	return set->count - 1;
}

void
identities_put(struct buf *out, const struct identities *set)
{
	wire_put_str(out, set->texts);
	wire_put_u32(out, (uint32_t)(set->count - 1));
	for (size_t i = 0; i < set->count; i++)
		if (set->list[i].kind != IDENTITY_OWN) {
			wire_put_u8(out, set->list[i].kind);
			wire_put_str(out, text_at(set, i));
		}
}

struct identities *
identities_get(struct wire *wire)
{
	struct identities *set;
	char text[IDENTITY_TEXT_MAX + 1] = "";
	uint32_t count;

	wire_str(wire, text, sizeof(text));
	count = wire_u32(wire);
	if (!wire_ok(wire) || text[0] == '\0' || count > IDENTITIES_MAX)
		return NULL;
	set = identities_new(text);
	for (uint32_t i = 0; i < count; i++) {
		const unsigned kind = wire_u8(wire);

		wire_str(wire, text, sizeof(text));
		if (!wire_ok(wire) || text[0] == '\0' || kind >= IDENTITY_KINDS ||
		    kind == IDENTITY_OWN || !identities_add(set, kind, text)) {
			identities_free(set);
			return NULL;
		}
	}
	return set;
}

/* Kinds of identities, as bits. */
#define EXACT      (1u << IDENTITY_OWN | 1u << IDENTITY_ADDRESS | DETAILED)
#define DETAILED   (1u << IDENTITY_OWN | 1u << IDENTITY_DETAILS | 1u << IDENTITY_DELEGATION)
#define DOMAIN     (1u << IDENTITY_DOMAIN)
#define SUBDOMAINS (1u << IDENTITY_SUBDOMAINS)

static bool
has(const struct identities *set, const char *key, unsigned kinds, struct identity_match *match)
{
	bool there;
	const size_t place = place_of(set, key, &there);

	if (!there || (kinds & 1u << set->list[place].kind) == 0)
		return false;
	match->kind = set->list[place].kind;
	match->detail = kinds == DETAILED;
	match->text = text_at(set, place);
	return true;
}

static bool
has_without_detail(const struct identities *set, char separator, const char *text, const char *at,
                   struct identity_match *match)
{
	char user[IDENTITY_TEXT_MAX + 1];

	if (separator == '\0' || text[0] == '"')
		return false;
	for (const char *c = at - 2; c > text; c--)
		if (*c == separator) {
			memcpy(user, text, (size_t)(c - text));
			strcpy(user + (c - text), at);
			if (has(set, user, DETAILED, match))
				return true;
		}
	return false;
}

static bool
has_domain(const struct identities *set, const char *at, struct identity_match *match)
{
	char key[IDENTITY_TEXT_MAX + 2] = "@";

	if (has(set, at, DOMAIN, match))
		return true;
	for (const char *dot = strchr(at, '.'); dot != NULL && at[1] != '[';
	     dot = strchr(dot + 1, '.')) {
		strcpy(key + 1, dot);
		if (has(set, key, SUBDOMAINS, match))
			return true;
	}
	return false;
}

bool
identities_allow(const struct identities *set, const struct identity_policy *policy,
                 const struct address *address, struct identity_match *match)
{
	struct identity_match unwanted;
	char text[AUTH_ACCOUNT_MAX + 1];
	const char *at;

	if (match == NULL)
		match = &unwanted;
	if (!name_of_address(address, text))
		return false;
	at = strrchr(text, '@');
	if (has(set, text, EXACT, match) ||
	    has_without_detail(set, policy->separator, text, at, match) ||
	    has_domain(set, at, match))
		return true;
	*match = (struct identity_match){.kind = IDENTITY_ANY, .text = ""};
	return policy->any;
}
