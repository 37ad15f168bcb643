/* Asking sekisho-auth: the client side for msa (logins, sessions) and admin (accounts, sessions).
 *
 * The interface fits every SASL mechanism: a login is an exchange of opaque octets with an end. One
 * exchange is one handle; its answers come through on_step, never from inside a call. */
#ifndef AUTH_CLIENT_H
#define AUTH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ipc.h"

#define AUTH_ACCOUNT_MAX    255 /* octets of an account name, which is its address in lower case */
#define AUTH_IDENTITIES_MAX 16
#define AUTH_REASON_MAX     127
#define AUTH_MESSAGE_MAX    9216  /* decoded octets of one SASL message: 12,288 of base64 */
#define AUTH_TIMEOUT        30000 /* msec until a caller gives up: 454 */

struct auth_client;
/* The link to sekisho-auth is borrowed. */
struct auth_client *auth_client_new(struct ipc_link *link);
/* Logins must have been cancelled before; account requests under way lose their callback's link
 * with it. */
void auth_client_free(struct auth_client *client);
/* For the link's on_push. Frames that are none of ours are ignored. */
void auth_client_on_push(struct auth_client *client, struct ipc_frame *frame);

struct auth_account { /* who logged in; borrowed for the callback */
	char account[AUTH_ACCOUNT_MAX + 1];
	char class[32]; /* plan name, meaning in the configuration: "standard" */
	unsigned identity_count;
	char identities[AUTH_IDENTITIES_MAX][AUTH_ACCOUNT_MAX + 1]; /* addresses it may send from */
};

enum auth_outcome {
	AUTH_CONTINUE, /* send challenge, then auth_login_step with the answer */
	AUTH_OK,
	AUTH_REFUSED,      /* 535 5.7.8, whatever the reason */
	AUTH_SUSPENDED,    /* 525 5.7.13: the password was right, but the account may not */
	AUTH_NO_MECHANISM, /* 504 5.5.4 */
	AUTH_UNAVAILABLE,  /* 454 4.7.0: the authenticator is down, late or overloaded */
};
typedef void auth_on_step(void *arg, enum auth_outcome outcome, const uint8_t *challenge,
                          size_t len, const struct auth_account *account);

struct auth_login;
struct auth_peer {
	const char *mechanism; /* "PLAIN", as the client said it, upper case */
	const char *client_ip;
	const char *tls_version;
	uint64_t session; /* its number, as opened with auth_session_open */
};
/* Starts an exchange. initial is NULL when the client sent no initial response (an empty one has
 * len 0). Always answers through on_step, which after anything but AUTH_CONTINUE has ended the
 * handle. The caller wipes its own copies. */
struct auth_login *auth_login_start(struct auth_client *client, const struct auth_peer *peer,
                                    const uint8_t *initial, size_t len, auth_on_step *on_step,
                                    void *arg);
void auth_login_step(struct auth_login *login, const uint8_t *response, size_t len);
/* The client went away or sent "*": no callback follows. NULL is harmless. */
void auth_login_cancel(struct auth_login *login);
/* Mechanisms to offer over TLS, space-separated, as sekisho-auth announced them ("PLAIN", which
 * every sekisho-auth has, until it did); "" while it is down. */
const char *auth_client_mechanisms(const struct auth_client *client);

/* Sessions. sekisho-auth keeps count of them over all msa processes, and tells the one that has it
 * when a session has to end. All of this is unanswered; while sekisho-auth is down it is lost, so
 * whoever comes up again is told of every session anew. */
struct auth_session {
	uint64_t number; /* unique over all msa processes */
	char ip[46];
	uint16_t port;
	bool implicit_tls;
	msec_t since; /* wall clock */
	/* after the login, else "" */
	char account[AUTH_ACCOUNT_MAX + 1];
	char mechanism[24];
	char tls[16];
};
/* Before the session's first login; with account when it is told anew. */
void auth_session_open(struct auth_client *client, const struct auth_session *session);
void auth_session_close(struct auth_client *client, uint64_t number);

enum auth_end {
	AUTH_END_KILLED, /* by an operator */
	AUTH_END_SUSPENDED,
	AUTH_END_REMOVED,
	AUTH_END_ACCOUNT_LIMIT, /* limits.account_sessions */
	AUTH_END_PREFIX_LIMIT,  /* limits.prefix_sessions */
	AUTH_ENDS
};
/* False: what is told is lost, and who asks hears AUTH_UNAVAILABLE. */
bool auth_client_is_up(const struct auth_client *client);
/* For msa; both may concern sessions that are gone. One that ends because of what its login would
 * make too many hears so before the login's outcome. */
struct auth_client_events {
	void (*on_end)(void *arg, uint64_t number, enum auth_end why);
	/* The account's class, as it is from now on. */
	void (*on_account)(void *arg, const char *account, const char *class);
};
/* events and arg are borrowed for the client's life. */
void auth_client_set_events(struct auth_client *client, const struct auth_client_events *events,
                            void *arg);

/* For admin. */
enum auth_result {
	AUTH_DONE,
	AUTH_EXISTS,
	AUTH_UNKNOWN,
	AUTH_INVALID,
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
void auth_account_add(struct auth_client *client, const char *account, const char *password,
                      size_t password_len, auth_on_result *on_result, void *arg);
/* New logins need it at once; open sessions go on. */
void auth_account_passwd(struct auth_client *client, const char *account, const char *password,
                         size_t password_len, auth_on_result *on_result, void *arg);
/* Logins fail at once and open sessions end; the queue keeps what was promised. */
void auth_account_suspend(struct auth_client *client, const char *account, const char *reason,
                          auth_on_result *on_result, void *arg);
void auth_account_resume(struct auth_client *client, const char *account, auth_on_result *on_result,
                         void *arg);
/* The class must be one of the configuration; open sessions have it at once. */
void auth_account_class(struct auth_client *client, const char *account, const char *class,
                        auth_on_result *on_result, void *arg);
/* As suspended, and for good. */
void auth_account_remove(struct auth_client *client, const char *account, auth_on_result *on_result,
                         void *arg);
void auth_account_show(struct auth_client *client, const char *account, auth_on_result *on_result,
                       void *arg);
/* In order of name, at most 500 a call, after the given name ("" at first). */
void auth_account_list(struct auth_client *client, const char *after, auth_on_result *on_result,
                       void *arg);

/* In order of arrival, at most 200 a call, those of account or with "" all; after is 0 at first,
 * then what next was, which is 0 at the end. list is borrowed for the callback. */
typedef void auth_on_sessions(void *arg, enum auth_result result, const char *error,
                              const struct auth_session *list, size_t count, uint64_t next);
void auth_sessions_list(struct auth_client *client, const char *account, uint64_t after,
                        auth_on_sessions *on_sessions, void *arg);
/* Ends one session, or with number 0 all of account; ended is how many there were. */
typedef void auth_on_killed(void *arg, enum auth_result result, const char *error, unsigned ended);
void auth_session_kill(struct auth_client *client, uint64_t number, const char *account,
                       auth_on_killed *on_killed, void *arg);

#endif
