/* Who may send as whom: the addresses of one account, and the one answer to "is this one of them".
 * Pure; the table on disk is auth/grants.h.
 *
 * An identity is granted to an account by an operator, but for the first, which is the account's
 * name. Its text is canonical, so that octets compare as address_equal does. */
#ifndef AUTH_IDENTITY_H
#define AUTH_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/conf.h"
#include "smtp/address.h"

#define IDENTITY_TEXT_MAX 255 /* octets, as of an account's name */
#define IDENTITIES_MAX    500 /* of one account; as many accounts may send as one other */

enum identity_kind {
	IDENTITY_OWN,        /* the account's name, with any detail */
	IDENTITY_ADDRESS,    /* "info@example.net" */
	IDENTITY_DETAILS,    /* the same with any detail: "info+june@example.net", too */
	IDENTITY_DOMAIN,     /* "@example.net": every address there, but none below it */
	IDENTITY_SUBDOMAINS, /* "@.example.net": every address in the domains below it, but not
	                        there */
	IDENTITY_DELEGATION, /* another account's name: as that account's own */
	IDENTITY_KINDS,
	IDENTITY_ANY = IDENTITY_KINDS, /* none of these: its class may send as anybody */
};
/* "own", "address", …, "any" */
const char *identity_kind_name(enum identity_kind kind);

struct identity {
	enum identity_kind kind;
	char text[IDENTITY_TEXT_MAX + 1];
};
/* What somebody typed: ADDRESS, DOMAIN or SUBDOMAINS by its form. False when it is none. */
bool identity_parse(const char *text, size_t len, struct identity *out);

/* Those of one account. */
struct identities;
/* With the account's name, in its canonical spelling. */
struct identities *identities_new(const char *account);
struct identities *identities_copy(const struct identities *set);
void identities_free(struct identities *set);
/* False, and it is not taken in, when there are IDENTITIES_MAX already, or it is the account's
 * name. One of the same text is replaced. */
bool identities_add(struct identities *set, enum identity_kind kind, const char *text);
/* Those granted; the account's name is not counted. */
size_t identities_count(const struct identities *set);

/* How a set travels. identities_get returns NULL when it makes no sense. */
void identities_put(struct buf *out, const struct identities *set);
struct identities *identities_get(struct wire *wire);

struct identity_policy { /* what the configuration says */
	char separator;  /* between a user and a detail; '\0': there are no details */
	bool any;        /* the account's class may send as anybody */
};
struct identity_policy identity_policy_of(const struct conf *conf, const char *class);
struct identity_match { /* why */
	enum identity_kind kind;
	bool detail;      /* after a detail was taken off */
	const char *text; /* the identity's, borrowed from the set; "" with IDENTITY_ANY */
};
/* Whether the account may send as this address, and by which of its identities: the nearest one, in
 * the order the address, the address without its detail, its domain, a domain above; then its
 * class. The null address is nobody's. match may be NULL. */
bool identities_allow(const struct identities *set, const struct identity_policy *policy,
                      const struct address *address, struct identity_match *match);

#endif
