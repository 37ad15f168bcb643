#include "msa/session_int.h"

#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "msa/load.h"

/* The life of a session, and what the handlers do with it; what it reads and when it waits is in
 * driver.c.
 *
 * An object is freed when the outermost call of the driver returns (depth), never under a caller's
 * feet. */

#define INPUT_MAX      (32u * 1024)
#define FINISH_TIMEOUT 5000
#define HANDSHAKE_REST 2000 /* for a handshake whose session is to end; a client takes less */

void
session_enter(struct session *session)
{
	session->depth++;
}

static void
destroy(struct session *session)
{
	struct msa *msa = session->msa;

	log_info(session->id, "disconnect", "ip=%s errors=%u messages=%" PRIu64, session->ip,
	         session->errors, session->messages);
	auth_session_close(msa->auth, session->number);
	auth_login_cancel(session->login);
	session_reset(session);
	conn_free(session->conn);
	loop_timer_free(session->deadline);
	loop_timer_free(session->delay);
	buf_wipe(&session->out);
	free(session->account);
	identities_free(session->identities);
	if (session->prev != NULL)
		session->prev->next = session->next;
	else
		msa->sessions = session->next;
	if (session->next != NULL)
		session->next->prev = session->prev;
	msa->session_count--;
	free(session);
	msa->on_session_gone(msa);
}

void
session_leave(struct session *session)
{
	assert(session->depth > 0);
	if (--session->depth == 0 && session->ended)
		destroy(session);
}

bool
session_is_in_content(const struct session *session)
{
	return session->state == SESSION_DATA ||
	       (session->state == SESSION_CHUNKS && !session->transaction.spoiled);
}

bool
session_is_secure(const struct session *session)
{
	return conn_is_secure(session->conn);
}

void
session_set_account(struct session *session, const struct auth_account *account)
{
	_Static_assert(sizeof(session->class) == sizeof(account->class), "a class name fits");
	memcpy(session->class, account->class, sizeof(session->class));
	identities_free(session->identities);
	session->identities = identities_copy(account->identities);
}

bool
session_owns(const struct session *session, const struct address *address)
{
	const struct identity_policy policy =
	    identity_policy_of(session->msa->conf, session->class);
	char text[ADDRESS_TEXT_SIZE], word[4 * sizeof(text)];
	struct identity_match match;

	if (!identities_allow(session->identities, &policy, address, &match))
		return false;
	if (match.kind == IDENTITY_ANY)
		log_info(session->id, "sender-any", "account=%s class=%s sender=%s",
		         session->account, session->class,
		         log_word(address_format(address, text, sizeof(text)), word, sizeof(word)));
	return true;
}

void
session_flush(struct session *session)
{
	if (session->out.len > 0 && !session->ended)
		conn_write(session->conn, session->out.data, session->out.len);
	buf_clear(&session->out);
}

void
session_hang_up(struct session *session)
{
	if (session->closing)
		return;
	session->closing = true;
	session->waiting = false;
	loop_timer_cancel(session->deadline);
	loop_timer_cancel(session->delay);
	auth_login_cancel(session->login);
	session->login = NULL;
	session_flush(session);
	session_reset(session);
	if (!session->ended)
		conn_finish(session->conn, FINISH_TIMEOUT);
}

void
session_say_last_word(struct session *session)
{
	const struct conf *conf = session->msa->conf;

	switch (session->last_word) {
	case REPLY_STOPPING:
		session_say(session, REPLY_STOPPING, conf->hostname);
		break;
	case REPLY_TOO_MANY_OF_ACCOUNT:
		session_say(session, REPLY_TOO_MANY_OF_ACCOUNT,
		            (unsigned long long)conf->account_sessions);
		break;
	case REPLY_TOO_MANY_OF_CLIENT:
		session_say(session, REPLY_TOO_MANY_OF_CLIENT,
		            (unsigned long long)conf->prefix_sessions);
		break;
	case REPLY_SUSPENDED:
		session_say(session, REPLY_SUSPENDED, conf->contact);
		break;
	default:
		session_say(session, session->last_word);
		break;
	}
	session_hang_up(session);
}

void
session_end(struct session *session, enum reply_name last_word, const char *rule)
{
	session_enter(session);
	if (!session->closing && !session->ending) {
		if (rule != NULL)
			log_info(session->id, "refused", "rule=%s ip=%s account=%s", rule,
			         session->ip, session->account != NULL ? session->account : "-");
		session->ending = true;
		session->last_word = last_word;
		/* Whoever never shakes hands must not stay all the same, or a limit would be none.
		 */
		if (session->state == SESSION_HANDSHAKE)
			loop_timer_arm(session->deadline, HANDSHAKE_REST);
		else if (!session_is_in_content(session))
			session_say_last_word(session);
	}
	session_leave(session);
}

void
session_reset(struct session *session)
{
	struct transaction *transaction = &session->transaction;

	queue_submission_free(transaction->submission);
	arena_free(transaction->arena);
	free(transaction->recipients);
	conf_free(transaction->conf);
	memset(transaction, 0, sizeof(*transaction));
	if (session->state & (SESSION_MAIL | SESSION_RCPT | SESSION_DATA | SESSION_CHUNKS))
		session->state = SESSION_READY;
}

void
session_delay(struct session *session, msec_t delay, void (*on_delay)(struct session *session))
{
	session->on_delay = on_delay;
	loop_timer_arm(session->delay, delay);
}

static void
on_delay(void *arg)
{
	struct session *session = arg;

	session_enter(session);
	session->on_delay(session);
	session_leave(session);
}

uint16_t
session_peer(const struct sockaddr *peer, char ip[INET6_ADDRSTRLEN])
{
	const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)peer;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)peer;

	ip[0] = '\0';
	if (peer->sa_family == AF_INET) {
		inet_ntop(AF_INET, &in4->sin_addr, ip, INET6_ADDRSTRLEN);
		return ntohs(in4->sin_port);
	}
	if (peer->sa_family != AF_INET6)
		return 0;
	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], ip, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, &in6->sin6_addr, ip, INET6_ADDRSTRLEN);
	return ntohs(in6->sin6_port);
}

/* sekisho-auth counts the sessions of a client over all processes. While it is down each process
 * allows its share of them. */
static bool
is_over_share(const struct session *session)
{
	const struct msa *msa = session->msa;
	const uint64_t share = (msa->conf->prefix_sessions + msa->processes - 1) / msa->processes;
	uint64_t count = 0;

	if (auth_client_is_up(msa->auth))
		return false;
	for (const struct session *s = msa->sessions; s != NULL; s = s->next)
		count += strcmp(s->prefix, session->prefix) == 0;
	if (count > share)
		log_info(session->id, "refused",
		         "rule=prefix_sessions ip=%s limit=%" PRIu64 " processes=%u", session->ip,
		         share, msa->processes);
	return count > share;
}

void
session_new(struct msa *msa, int fd_take, const struct sockaddr *client, const struct sockaddr *via,
            bool implicit_tls)
{
	struct session *session = xcalloc(1, sizeof(*session));
	struct auth_session description;
	char balancer[INET6_ADDRSTRLEN];

	session->msa = msa;
	session->number = ++msa->next_number * 1000 + msa->index;
	snprintf(session->id, sizeof(session->id), "%" PRIu64, session->number);
	session->implicit_tls = implicit_tls;
	session->port = session_peer(client, session->ip);
	prefix_of(session->ip, session->prefix);
	session->since = clock_wall();
	session->came = clock_mono();
	buf_init(&session->out);
	session->deadline = loop_timer_new(msa->loop, driver_on_deadline, session);
	session->delay = loop_timer_new(msa->loop, on_delay, session);
	session->next = msa->sessions;
	if (session->next != NULL)
		session->next->prev = session;
	msa->sessions = session;
	msa->session_count++;
	if (via != NULL)
		session_peer(via, balancer);
	log_info(session->id, "connect", "ip=%s port=%u listener=%s%s%s", session->ip,
	         session->port, implicit_tls ? "submissions" : "submission",
	         via != NULL ? " via=" : "", via != NULL ? balancer : "");

	session_enter(session);
	session->state = SESSION_CONNECTED;
	session->conn = conn_accept(msa->loop, fd_take, INPUT_MAX, &driver_events, session);
	if (implicit_tls)
		driver_start_tls(session);
	else
		driver_greet(session);
	session_describe(session, &description);
	auth_session_open(msa->auth, &description);
	if (is_over_share(session))
		session_end(session, REPLY_TOO_MANY_OF_CLIENT, NULL);
	load_update(msa);
	session_leave(session);
}

void
session_describe(const struct session *session, struct auth_session *out)
{
	*out = (struct auth_session){.number = session->number,
	                             .port = session->port,
	                             .implicit_tls = session->implicit_tls,
	                             .since = session->since};
	_Static_assert(sizeof(out->ip) == sizeof(session->ip) &&
	                   sizeof(out->mechanism) == sizeof(session->mechanism),
	               "they fit");
	memcpy(out->ip, session->ip, sizeof(out->ip));
	if (session->account == NULL)
		return;
	snprintf(out->account, sizeof(out->account), "%s", session->account);
	memcpy(out->mechanism, session->mechanism, sizeof(out->mechanism));
	snprintf(out->tls, sizeof(out->tls), "%s", conn_tls_version(session->conn));
}

void
session_stop(struct session *session)
{
	session_enter(session);
	if (session->state == SESSION_HANDSHAKE)
		session->ended = true;
	else
		session_end(session, REPLY_STOPPING, NULL);
	session_leave(session);
}

void
session_abort(struct session *session)
{
	session_enter(session);
	session->ended = true;
	session_leave(session);
}
