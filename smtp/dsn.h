/* Delivery status notifications (RFC 3464): what a sender is told when mail did not arrive, or not
 * yet, or went where nobody will tell. Pure: struct in, message out. */
#ifndef SMTP_DSN_H
#define SMTP_DSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "smtp/address.h"

enum dsn_action { /* RFC 3464 section 2.3.3 */
	          DSN_FAILED,
	          DSN_DELAYED,
	          DSN_RELAYED, /* taken by a server that will not tell of its delivery */
	          DSN_ACTIONS
};

struct dsn_recipient {
	struct address address;
	/* The last answer, as queue and history keep it: "550 5.1.1 no such user" from a server, or
	 * our own words about a contact that failed, with or without an enhanced code in front
	 * ("4.4.1 connection refused by mx1.example.org"). */
	const char *reply;
	bool expired;      /* given up after the last temporary failure */
	const char *orcpt; /* RFC 3461 section 4.2, as the client gave it; "" or NULL: none */
};

struct dsn { /* all borrowed for the call; dates are RFC 5322 texts */
	enum dsn_action action;
	const char *hostname;    /* ours: Reporting-MTA and right side of ids */
	const char *id;          /* queue id of the notification */
	const char *original;    /* queue id of the mail it is about */
	struct address to;       /* its envelope sender; never null */
	const char *date;        /* now */
	const char *arrival;     /* when the mail was accepted */
	const char *retry_until; /* DSN_DELAYED only */
	const char *envid;       /* RFC 3461 section 4.4, as the client gave it; "" or NULL: none */
	const struct dsn_recipient *recipients;
	size_t count;        /* at least 1 */
	const uint8_t *head; /* the mail from its first octet on: its header section is returned,
	                        cut at DSN_HEADER_MAX, and nothing of its body */
	size_t head_len;
	bool smtputf8; /* the mail needed SMTPUTF8: 8-bit octets in its header section are UTF-8 */
	bool is_whole; /* that is the whole mail, and all of it is returned: at most
	                  DSN_WHOLE_MAX, and in lines */
};

#define DSN_HEADER_MAX (16u * 1024)
#define DSN_WHOLE_MAX  (64u * 1024)
/* Never more than that, whatever the recipients' replies are; and with is_whole twice
 * DSN_WHOLE_MAX.
 */
#define DSN_SIZE_MAX(count) (2 * DSN_HEADER_MAX + 4096u + (size_t)(count)*4096u)

/* Appends the whole message, CRLF lines of at most 998 octets. Returns whether its body holds 8-bit
 * octets. It needs SMTPUTF8 (RFC 6533) if address_is_utf8(&to), and never otherwise. */
bool dsn_compose(const struct dsn *dsn, struct buf *out);

/* The status code (RFC 3463) of a reply as above: the server's own if it gave one, else one that
 * its code or our words stand for. Returns out. */
#define DSN_STATUS_SIZE 12
const char *dsn_status(const char *reply, enum dsn_action action, char out[DSN_STATUS_SIZE]);

#endif
