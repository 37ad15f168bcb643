/* RFC 5321 paths and mailboxes, and RFC 5322 mailbox lists, international ones (RFC 6531, RFC 6532)
 * included: text in, struct out. */
#ifndef SMTP_ADDRESS_H
#define SMTP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#define ADDRESS_LOCAL_MAX  64  /* RFC 5321 section 4.5.3.1.1 */
#define ADDRESS_DOMAIN_MAX 255 /* section 4.5.3.1.2 */
#define ADDRESS_MAX        254 /* local part, @ and domain inside a 256-octet path, section 4.5.3.1.3 */

/* A mailbox in its canonical form: the quoted local part unquoted where RFC 5321 allows it, domain
 * in lower case and as A-labels. Only the local part can be other than ASCII: then it is UTF-8
 * that core/text.h calls printable, as it was given. Both empty: the null reverse-path "<>". */
struct address {
	char local[ADDRESS_LOCAL_MAX * 2 +
	           3]; /* as it must be written, quotes included where needed */
	char domain[ADDRESS_DOMAIN_MAX + 1]; /* lower-case name, or a literal with its brackets */
};

enum address_error {
	ADDRESS_OK,
	ADDRESS_SYNTAX,      /* 501 5.1.3 / 5.1.7 */
	ADDRESS_TOO_LONG,    /* 501 5.1.3 */
	ADDRESS_UNQUALIFIED, /* a domain without a dot, or none: RFC 6409 section 6.2 wants it
	                        qualified or refused */
	ADDRESS_NON_ASCII,   /* octets over 127 where utf8 did not allow them: 553 5.6.7 */
};

/* Parses "<path>" at the start of text (source routes are accepted and ignored); *used is its
 * length, brackets included. null_ok allows "<>", utf8 allows a local part and U-labels in UTF-8.
 */
enum address_error address_parse_path(const char *text, size_t len, bool null_ok, bool utf8,
                                      struct address *out, size_t *used);
/* Parses a bare mailbox that must fill text wholly, as account names and command-line arguments
 * are; UTF-8 is allowed. */
enum address_error address_parse(const char *text, size_t len, struct address *out);
bool address_is_null(const struct address *address);
/* Whether a mail to or from it needs SMTPUTF8. */
bool address_is_utf8(const struct address *address);
/* Local parts compare with case folded (ASCII): submission accounts are handed out by us, and
 * "Alice@" is no stranger. Of other characters equal are those that Unicode calls so (NFC). */
bool address_equal(const struct address *a, const struct address *b);
/* A text that equal addresses have in common, for indexes: "" for the null path. Returns out. */
#define ADDRESS_FOLD_SIZE (4 * ADDRESS_LOCAL_MAX + 1 + ADDRESS_DOMAIN_MAX + 1)
char *address_fold(const struct address *address, char out[ADDRESS_FOLD_SIZE]);
/* "local@domain", or "" for the null path. Returns out. */
#define ADDRESS_TEXT_SIZE (sizeof(struct address))
char *address_format(const struct address *address, char *out, size_t size);

/* Walks the mailboxes of an unfolded From or Sender field body (RFC 5322 section 3.4, groups and
 * comments included, obsolete forms too). Called with *at = 0 at first; returns 1 with the next
 * mailbox, 0 at the end, -1 on a syntax error. *utf8 becomes true with a mailbox that is not
 * ASCII as it is written, its domain included. */
int address_list_next(const char *body, size_t len, size_t *at, struct address *out, bool *utf8);

#endif
