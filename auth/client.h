/* Asking sekisho-auth: the client side for msa (logins, sessions); admin has auth/control.h.
 *
 * The interface fits every SASL mechanism: a login is an exchange of opaque octets with an end. One
 * exchange is one handle; its answers come through on_step, never from inside a call. */
#ifndef AUTH_CLIENT_H
#define AUTH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ipc.h"

struct identities; /* auth/identity.h */

#define AUTH_ACCOUNT_MAX 255 /* octets of an account name, which is its address in lower case */
#define AUTH_REASON_MAX  127
#define AUTH_MESSAGE_MAX 9216  /* decoded octets of one SASL message: 12,288 of base64 */
#define AUTH_TIMEOUT     30000 /* msec until a caller gives up: 454 */

struct auth_client;
/* The link to sekisho-auth is borrowed. */
struct auth_client *auth_client_new(struct ipc_link *link);
/* Logins must have been cancelled before; account requests under way lose their callback's link
 * with it. */
void auth_client_free(struct auth_client *client);
/* For the link's on_push. Frames that are none of ours are ignored. */
void auth_client_on_push(struct auth_client *client, struct ipc_frame *frame);

struct auth_account { /* borrowed for the callback */
	char account[AUTH_ACCOUNT_MAX + 1];
	char class[32]; /* plan name, meaning in the configuration: "standard" */
	const struct identities *identities; /* what it may send as */
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
	/* The account's class and identities, as they are from now on. */
	void (*on_account)(void *arg, const struct auth_account *account);
};
/* events and arg are borrowed for the client's life. */
void auth_client_set_events(struct auth_client *client, const struct auth_client_events *events,
                            void *arg);

#endif
