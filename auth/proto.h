/* The frames between auth/client.c and sekisho-auth; nobody else's business.
 *
 * An exchange is named by its client with a number unique on the channel, so that it can be
 * cancelled before the first answer. Both sides are of one build, so there is no version. */
#ifndef AUTH_PROTO_H
#define AUTH_PROTO_H

#include "auth/control.h"
#include "core/buf.h"

enum auth_frame {
	AUTH_FRAME_START = 1,  /* u64 exchange, u64 session, str mechanism, str ip, str tls, u8 has
	                          initial, bytes initial */
	AUTH_FRAME_STEP,       /* u64 exchange, bytes response */
	AUTH_FRAME_CANCEL,     /* u64 exchange; no answer */
	AUTH_FRAME_MECHANISMS, /* call: empty, answer: str; push: str */
	AUTH_FRAME_ADD,        /* str account, bytes password */
	AUTH_FRAME_PASSWD,     /* str account, bytes password */
	AUTH_FRAME_SUSPEND,    /* str account, str reason */
	AUTH_FRAME_RESUME,     /* str account */
	AUTH_FRAME_CLASS,      /* str account, str class */
	AUTH_FRAME_REMOVE,     /* str account */
	AUTH_FRAME_SHOW,       /* str account */
	AUTH_FRAME_LIST,       /* str after */
	/* about sessions */
	AUTH_FRAME_OPEN,     /* a session; no answer */
	AUTH_FRAME_CLOSE,    /* u64 number; no answer */
	AUTH_FRAME_END,      /* push: u64 number, u8 enum auth_end */
	AUTH_FRAME_ACCOUNT,  /* push: an account */
	AUTH_FRAME_SESSIONS, /* str account, u64 after */
	AUTH_FRAME_KILL,     /* u64 number, str account */
	/* about identities */
	AUTH_FRAME_GRANT,   /* str account, a grant */
	AUTH_FRAME_REVOKE,  /* str account, str text */
	AUTH_FRAME_GRANTS,  /* str account */
	AUTH_FRAME_EXPLAIN, /* str account, str address */
	/* of the queue */
	AUTH_FRAME_CLASS_OF, /* str account -> u8 known, str class */
};
/* A session: u64 number, str ip, u16 port, u8 implicit TLS, u64 since, str account, str mechanism,
 * str tls. An account: str account, str class, identities (auth/identity.h). A grant: u8 kind, str
 * text, str by, u64 since.
 *
 * Answer to START and STEP: u8 outcome; then for AUTH_CONTINUE bytes challenge; for AUTH_OK an
 * account. To the account frames: u8 result, str error, u32 count, per entry (str account, str
 * class, u8 suspended, str reason, u64 created, u64 changed), str next. To SESSIONS: u32 count, the
 * sessions, u64 next. To KILL: u32 ended. To GRANT, REVOKE and GRANTS: u8 result, str error, u32
 * count, the grants. To EXPLAIN: the same without grants, but for AUTH_DONE u8 result, str error,
 * u8 allowed, u8 detail, a grant, str class, u8 any, u8 suspended, u8 is account. */

#define AUTH_MECHANISMS_MAX 128
#define AUTH_MECHANISM_MAX  20  /* RFC 4422 section 3.1 */
#define AUTH_PASSWORD_MIN   8   /* octets */
#define AUTH_PASSWORD_MAX   256 /* octets */
#define AUTH_LIST_MAX       500 /* entries in one answer */
#define AUTH_SESSIONS_MAX   200
#define AUTH_ERROR_SIZE     1024 /* of a sentence, which may name two accounts twice */

/* How a session travels. */
void auth_session_put(struct buf *out, const struct auth_session *session);
void auth_session_get(struct wire *wire, struct auth_session *out);
/* And an account, and a grant. */
void auth_account_put(struct buf *out, const char *account, const char *class,
                      const struct identities *identities);
void auth_grant_put(struct buf *out, const struct auth_grant *grant);
void auth_grant_get(struct wire *wire, struct auth_grant *out);

#endif
