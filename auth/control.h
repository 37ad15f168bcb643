/* What the NOC may see and change in sekisho-auth: the client side for admin. Every answer comes
 * through a callback, once. */
#ifndef AUTH_CONTROL_H
#define AUTH_CONTROL_H

#include "auth/client.h"
#include "auth/identity.h"
#include "core/ipc.h"

enum auth_result {
	AUTH_DONE,
	AUTH_EXISTS,
	AUTH_UNKNOWN,
	AUTH_INVALID,
	AUTH_LIMIT, /* as many as there may be */
	AUTH_FAILED /* down or disk */
};
struct auth_entry {
	char account[AUTH_ACCOUNT_MAX + 1];
	char class[32];
	bool suspended;
	char reason[AUTH_REASON_MAX + 1]; /* of the suspension, or "" */
	msec_t created;                   /* wall clock */
	msec_t changed;
};
/* error is a sentence for people when result is not AUTH_DONE. list is borrowed for the callback;
 * next is "" at the end, else the account to continue after. */
typedef void auth_on_result(void *arg, enum auth_result result, const char *error,
                            const struct auth_entry *list, size_t count, const char *next);
/* What is asked about an account, and what text then is; NULL where nothing is said. */
enum auth_verb {
	AUTH_ADD,     /* the password */
	AUTH_PASSWD,  /* the password: new logins need it at once, open sessions go on */
	AUTH_SUSPEND, /* the reason: logins fail at once and open sessions end; the queue keeps what
	                 was promised */
	AUTH_RESUME,
	AUTH_CLASS,  /* one of the configuration's; open sessions have it at once */
	AUTH_REMOVE, /* as suspended, and for good */
	AUTH_SHOW,
	AUTH_LIST, /* in order of name, at most 500 a call, after the given name ("" at first) */
};
void auth_account_ask(struct ipc_link *link, enum auth_verb verb, const char *account,
                      const char *text, auth_on_result *on_result, void *arg);

/* Who may send as whom. */
#define AUTH_BY_SIZE 64
struct auth_grant {
	struct identity identity;
	char by[AUTH_BY_SIZE]; /* who granted it */
	msec_t since;          /* wall clock */
};
/* list is borrowed for the callback: all of an account, what was added, or nothing. */
typedef void auth_on_grants(void *arg, enum auth_result result, const char *error,
                            const struct auth_grant *list, size_t count);
/* Open sessions have it at once; since is told by sekisho-auth. One of the same text and another
 * kind is replaced. */
void auth_grant_add(struct ipc_link *link, const char *account, const struct auth_grant *grant,
                    auth_on_grants *on_grants, void *arg);
/* As suddenly; by the identity's text. */
void auth_grant_remove(struct ipc_link *link, const char *account, const char *text,
                       auth_on_grants *on_grants, void *arg);
/* Those granted, at most IDENTITIES_MAX, in order of text. */
void auth_grants_list(struct ipc_link *link, const char *account, auth_on_grants *on_grants,
                      void *arg);

struct auth_explanation {
	bool allowed;
	bool detail;             /* after a detail was taken off */
	struct auth_grant grant; /* what allows it; by "" and since 0 of the kinds OWN and ANY */
	char class[32];
	bool any;        /* the class may send as anybody */
	bool suspended;  /* the account, which cannot log in then */
	bool is_account; /* the address is another account's name */
};
/* Whether account may send as address, by what a session asks. explanation is borrowed for the
 * callback, and NULL unless AUTH_DONE. */
typedef void auth_on_explained(void *arg, enum auth_result result, const char *error,
                               const struct auth_explanation *explanation);
void auth_sender_explain(struct ipc_link *link, const char *account, const char *address,
                         auth_on_explained *on_explained, void *arg);

/* In order of arrival, at most 200 a call, those of account or with "" all; after is 0 at first,
 * then what next was, which is 0 at the end. list is borrowed for the callback. */
typedef void auth_on_sessions(void *arg, enum auth_result result, const char *error,
                              const struct auth_session *list, size_t count, uint64_t next);
void auth_sessions_list(struct ipc_link *link, const char *account, uint64_t after,
                        auth_on_sessions *on_sessions, void *arg);
/* Ends one session, or with number 0 all of account; ended is how many there were. */
typedef void auth_on_killed(void *arg, enum auth_result result, const char *error, unsigned ended);
void auth_session_kill(struct ipc_link *link, uint64_t number, const char *account,
                       auth_on_killed *on_killed, void *arg);

#endif
