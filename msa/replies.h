/* Every reply sekisho-msa can give, in one table: what a client reads is decided, checked and
 * translated here alone. */
#ifndef MSA_REPLIES_H
#define MSA_REPLIES_H

#include <stdbool.h>

enum reply_name {
	REPLY_GREETING, /* hostname, banner */
	REPLY_EARLY,
	REPLY_OVERLOAD, /* hostname */
	REPLY_STOPPING, /* hostname */
	REPLY_TIMEOUT,  /* hostname */
	REPLY_SLOW,     /* hostname, octets per second */
	REPLY_TOO_MANY_ERRORS,
	REPLY_TOO_MANY_MESSAGES, /* limit */
	REPLY_TOO_MANY_LOGINS,
	REPLY_TOO_MANY_REFUSALS,
	REPLY_TOO_MANY_OF_ACCOUNT, /* limit */
	REPLY_TOO_MANY_OF_CLIENT,  /* limit */
	REPLY_KILLED,
	REPLY_SUSPENDED, /* contact */
	REPLY_REMOVED,
	REPLY_HTTP,

	REPLY_BARE_LF,
	REPLY_LINE_TOO_LONG,
	REPLY_UNKNOWN_VERB,
	REPLY_BAD_OCTETS,
	REPLY_BAD_ARGUMENTS,
	REPLY_BAD_SEQUENCE,
	REPLY_EHLO_FIRST,
	REPLY_UNKNOWN_PARAMETER,
	REPLY_TLS_FIRST,
	REPLY_AUTH_FIRST,

	REPLY_HELO,               /* hostname */
	REPLY_EHLO_FIRST_LINE,    /* hostname */
	REPLY_EHLO_LINE,          /* keyword */
	REPLY_EHLO_SIZE,          /* octets */
	REPLY_EHLO_DELIVERBY,     /* seconds */
	REPLY_EHLO_FUTURERELEASE, /* seconds, date */
	REPLY_EHLO_LIMITS,        /* recipients, messages */
	REPLY_EHLO_AUTH,          /* mechanisms */
	REPLY_EHLO_LAST,

	REPLY_TLS_READY,
	REPLY_TLS_ACTIVE,

	REPLY_AUTH_NEEDS_TLS,
	REPLY_AUTH_TWICE,
	REPLY_AUTH_CHALLENGE, /* base64 */
	REPLY_AUTH_CANCELLED,
	REPLY_AUTH_BASE64,
	REPLY_AUTH_TOO_LONG,
	REPLY_AUTH_OK,
	REPLY_AUTH_REFUSED,
	REPLY_AUTH_SUSPENDED, /* contact */
	REPLY_AUTH_MECHANISM,
	REPLY_AUTH_UNAVAILABLE,

	REPLY_SENDER_OK,
	REPLY_SENDER_OK_PRIORITY, /* priority */
	REPLY_SENDER_SYNTAX,
	REPLY_SENDER_UNQUALIFIED,
	REPLY_SENDER_NOT_OWNED, /* address */
	REPLY_ADDRESS_NON_ASCII,
	REPLY_HELD_TOO_LONG, /* seconds */
	REPLY_BY_TOO_SOON,   /* seconds */
	REPLY_BY_BEFORE_RELEASE,
	REPLY_TOO_BIG, /* octets */

	REPLY_RECIPIENT_OK,
	REPLY_RECIPIENT_SYNTAX,
	REPLY_RECIPIENT_UNQUALIFIED,
	REPLY_TOO_MANY_RECIPIENTS, /* limit */
	REPLY_QUOTA,               /* limit, time */
	REPLY_QUOTA_MESSAGES,      /* limit, time */
	REPLY_TOO_FAST,            /* seconds */
	REPLY_QUEUE_FULL,
	REPLY_QUEUE_UNAVAILABLE,

	REPLY_DATA_GO,
	REPLY_NO_RECIPIENTS,
	REPLY_BINARY_BY_DATA,
	REPLY_CHUNK_OK, /* octets */
	REPLY_CHUNK_DISCARDED,
	REPLY_CHUNK_SIZE,
	REPLY_CHUNK_TOO_BIG, /* octets */
	REPLY_NUL,
	REPLY_BARE_LINE_END,
	REPLY_LONG_LINE,      /* octets (int) */
	REPLY_HEADER_TOO_BIG, /* octets */
	REPLY_LOOP,
	REPLY_BAD_FROM,
	REPLY_AUTHOR_NON_ASCII,
	REPLY_AUTHOR_NOT_OWNED, /* address */
	REPLY_QUEUED,           /* id */
	REPLY_QUEUED_PACED,     /* id, minutes */
	REPLY_QUEUED_HELD,      /* id, date */

	REPLY_OK,
	REPLY_BYE,
	REPLY_VRFY,
	REPLY_EXPN,
	REPLY_HELP_FIRST_LINE,
	REPLY_HELP_LAST,
	REPLY_NAMES
};

/* The printf format of a reply, without CRLF. */
const char *reply_format(enum reply_name name);
/* True when the reply tells a client of a mistake it made, which the session's error budget counts.
 * What is our own state (quota, queue, authenticator) or has a budget of its own (wrong passwords)
 * is not counted. */
bool reply_is_client_error(enum reply_name name);

#endif
