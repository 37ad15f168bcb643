#include "msa/command.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

/* AUTH (RFC 4954): carries opaque octets between the client and sekisho-auth, and knows no
 * mechanism.
 *
 * Decoded credentials live in one buffer on the heap for the duration of a call and are overwritten
 * before it is freed; the line they came in is overwritten by the driver. A refusal waits
 * (auth.failure_delay, doubling up to 15 s) before it is told, and the one that reaches
 * limits.auth_failures ends the session: with 421 behind its own 535, so that a mail program shows
 * its user the reason and not a temporary failure. What a client is told never depends on whether
 * the account exists; that it is suspended hears only who knew its password. */

#define DELAY_MAX 15000

static void
tell_refusal(struct session *session)
{
	if (session->is_suspended)
		session_say(session, REPLY_AUTH_SUSPENDED, session->msa->conf->contact);
	else
		session_say(session, REPLY_AUTH_REFUSED);
	if (session->auth_failures >= session->msa->conf->auth_failures) {
		log_info(session->id, "refused", "rule=auth_failures ip=%s failures=%u",
		         session->ip, session->auth_failures);
		session_say(session, REPLY_TOO_MANY_LOGINS);
		session_done(session, HANDLED_HANG_UP);
		return;
	}
	session_done(session, HANDLED_REPLY);
}

static void
refuse(struct session *session, bool is_suspended)
{
	msec_t delay = session->msa->conf->auth_failure_delay;

	for (unsigned i = 0; i < session->auth_failures && delay < DELAY_MAX; i++)
		delay *= 2;
	if (delay > DELAY_MAX)
		delay = DELAY_MAX;
	session->auth_failures++;
	session->is_suspended = is_suspended;
	log_info(session->id, "refused",
	         "rule=auth_failure_delay ip=%s mechanism=%s failures=%u delay_ms=%" PRId64,
	         session->ip, session->mechanism, session->auth_failures, delay);
	session_delay(session, delay, tell_refusal);
}

static void
log_in(struct session *session, const struct auth_account *account)
{
	assert(account != NULL);
	session->account = xstrdup(account->account);
	session_set_account(session, account);
	log_info(session->id, "login", "account=%s ip=%s mechanism=%s tls=%s", session->account,
	         session->ip, session->mechanism, conn_tls_version(session->conn));
}

static void
on_step(void *arg, enum auth_outcome outcome, const uint8_t *challenge, size_t len,
        const struct auth_account *account)
{
	struct session *session = arg;

	if (outcome == AUTH_CONTINUE) {
		assert(len <= AUTH_MESSAGE_MAX);
		char text[COMMAND_BASE64_SIZE(AUTH_MESSAGE_MAX)];
		command_base64_encode(challenge, len, text);
		session_say(session, REPLY_AUTH_CHALLENGE, text);
		session->state = SESSION_SASL;
		session_done(session, HANDLED_REPLY);
		return;
	}
	session->login = NULL;
	session->state = SESSION_READY;
	switch (outcome) {
	case AUTH_OK:
		log_in(session, account);
		session_say(session, REPLY_AUTH_OK);
		break;
	case AUTH_REFUSED:
	case AUTH_SUSPENDED:
		refuse(session, outcome == AUTH_SUSPENDED);
		return;
	case AUTH_NO_MECHANISM:
		session_say(session, REPLY_AUTH_MECHANISM);
		break;
	default:
		log_warn(session->id, "refused", "rule=auth-unavailable ip=%s", session->ip);
		session_say(session, REPLY_AUTH_UNAVAILABLE);
		break;
	}
	session_done(session, HANDLED_REPLY);
}

static bool
is_mechanism(const char *name, size_t len)
{
	if (len == 0 || len > 20)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_')
			return false;
	return true;
}

/* A heap copy of the decoded octets, *size of them; NULL when text is no base64 or too long. */
static uint8_t *
decode(const char *text, size_t len, size_t *size)
{
	uint8_t *data = xmalloc(len + 1);
	int n = command_base64_decode(text, len, data);

	if (n >= 0 && (size_t)n <= AUTH_MESSAGE_MAX) {
		*size = (size_t)n;
		return data;
	}
	mem_wipe(data, len + 1);
	free(data);
	return NULL;
}

enum handled
cmd_auth(struct session *session, const char *args, size_t len)
{
	if (session->account != NULL) {
		session_say(session, REPLY_AUTH_TWICE);
		return HANDLED_REPLY;
	}
	assert(session->state == SESSION_READY); /* no transaction without a login */
	const char *space = memchr(args, ' ', len);
	size_t name_len = space != NULL ? (size_t)(space - args) : len;
	if (!is_mechanism(args, name_len)) {
		session_say(session, REPLY_BAD_ARGUMENTS);
		return HANDLED_REPLY;
	}
	for (size_t i = 0; i < name_len; i++)
		session->mechanism[i] = (char)toupper((unsigned char)args[i]);
	session->mechanism[name_len] = '\0';

	uint8_t *initial = NULL;
	size_t initial_len = 0, room = 0;
	if (space != NULL) {
		const char *text = space + 1;
		size_t text_len = len - name_len - 1;
		if (text_len == 1 && text[0] == '=')
			text_len = 0; /* an empty initial response, RFC 4954 section 4 */
		else if (text_len == 0) {
			session_say(session, REPLY_BAD_ARGUMENTS);
			return HANDLED_REPLY;
		}
		room = text_len + 1;
		initial = decode(text, text_len, &initial_len);
		if (initial == NULL) {
			session_say(session, REPLY_AUTH_BASE64);
			return HANDLED_REPLY;
		}
	}
	struct auth_peer peer = {
	    .mechanism = session->mechanism,
	    .client_ip = session->ip,
	    .tls_version = conn_tls_version(session->conn),
	    .session = session->number,
	};
	session->login =
	    auth_login_start(session->msa->auth, &peer, initial, initial_len, on_step, session);
	if (initial != NULL) {
		mem_wipe(initial, room);
		free(initial);
	}
	return HANDLED_LATER;
}

enum handled
cmd_auth_response(struct session *session, const char *line, size_t len)
{
	assert(session->login != NULL);
	size_t size = 0;
	uint8_t *response = NULL;
	bool cancelled = len == 1 && line[0] == '*';

	if (!cancelled)
		response = decode(line, len, &size);
	if (response == NULL) {
		auth_login_cancel(session->login);
		session->login = NULL;
		session->state = SESSION_READY;
		session_say(session, cancelled ? REPLY_AUTH_CANCELLED : REPLY_AUTH_BASE64);
		return HANDLED_REPLY;
	}
	auth_login_step(session->login, response, size);
	mem_wipe(response, len + 1);
	free(response);
	return HANDLED_LATER;
}
