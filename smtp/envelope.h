/* What a message carries beside its content and its addresses: the parameters of MAIL and RCPT, as
 * they travel from the client's command through the queue to the next hop. Value types; plain data.
 */
#ifndef SMTP_ENVELOPE_H
#define SMTP_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "smtp/address.h"

enum envelope_body { BODY_7BIT, BODY_8BITMIME /* RFC 6152 */, BODY_BINARYMIME /* RFC 3030 */ };
enum envelope_ret { RET_UNSET, RET_FULL, RET_HDRS }; /* RFC 3461 section 4.3 */
enum envelope_by { BY_NONE, BY_NOTIFY, BY_RETURN };  /* RFC 2852 section 4 */

#define ENVELOPE_ENVID_MAX 100 /* octets of xtext, RFC 3461 section 4.4 */
#define ENVELOPE_ORCPT_MAX 500 /* octets of addr-type ";" xtext, section 4.2 */
#define ENVELOPE_PRIORITY  9   /* -9 to 9, RFC 6710 section 4.1 */

struct envelope { /* of a message; all zero: nothing was asked for */
	enum envelope_body body;
	bool smtputf8;     /* the message needs it (RFC 6531): its sender or header section is not
	                      ASCII; MAIL's word alone does not make it so. Recipients tell for
	                      themselves (address_is_utf8) */
	bool requiretls;   /* RFC 8689: every hop by TLS, or back to the sender */
	bool tls_optional; /* "TLS-Required: No" (section 5): rather in clear than not at all */
	enum envelope_ret ret;
	char envid[ENVELOPE_ENVID_MAX + 1]; /* as given, xtext; "" */
	int priority;                       /* clamped by the account's class */
	msec_t hold_until; /* wall clock before which it is not delivered (RFC 4865); 0 */
	enum envelope_by by;
	bool by_trace;
	msec_t by_deadline; /* wall clock; means nothing with BY_NONE */
};

/* RFC 3461 section 4.1; 0: not given, which means failure and, if we like, delay. */
enum { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };

struct envelope_recipient {
	struct address address;
	unsigned notify;   /* NOTIFY_* bits */
	const char *orcpt; /* as given, addr-type;xtext; "" when not. Borrowed, see its holder */
};

/* xtext (RFC 3461 section 4) of at least one octet: what AUTH= may hold. */
bool envelope_is_xtext(const char *text, size_t len);
/* The same, and what it stands for is printable ASCII, so that a notification can show it. */
bool envelope_is_envid(const char *text, size_t len);
/* addr-type ";" xtext of printable ASCII, at most ENVELOPE_ORCPT_MAX. */
bool envelope_is_orcpt(const char *text, size_t len);
/* utf-8-addr-xtext (RFC 6533 section 3) of printable text: what is not ASCII, or one of the octets
 * in also, as \x{HEX}. False when it has no room. */
bool envelope_utf8_xtext(const char *text, size_t len, const char *also, char *out, size_t size);
/* Whether NOTIFY_* bits go together: NEVER stands alone. */
bool envelope_is_notify(unsigned notify);

#endif
