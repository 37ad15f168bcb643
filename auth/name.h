/* The one spelling of an account's name. Store, ledger, log and the session's ownership check all
 * compare names octet by octet, so whoever takes a name from a person asks here first. */
#ifndef AUTH_NAME_H
#define AUTH_NAME_H

#include <stdbool.h>
#include <stddef.h>

#include "auth/client.h"
#include "smtp/address.h"

/* The account name for what somebody typed: a valid address, quoted only where it must be, its
 * letters from A to Z in lower case, its domain as A-labels, all in Unicode's normal form (NFC).
 * False, and out "", when it is none. */
bool name_canonical(const char *text, size_t len, char out[AUTH_ACCOUNT_MAX + 1]);

/* The same for an address that was parsed; false for the null address. */
bool name_of_address(const struct address *address, char out[AUTH_ACCOUNT_MAX + 1]);

/* "active" or "suspended", on disk as for people. */
const char *name_of_state(bool suspended);

#endif
