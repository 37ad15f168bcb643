#include "relay/client_int.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"

/* What must be true of a connection before mail goes over it: TLS and login, as the route and the
 * sender want them.
 *
 * TLS is opportunistic (RFC 7435) unless the operator or the sender wants more: when the handshake
 * fails the same address is tried once more in clear. Whatever is wrong with our login or with a
 * TLS that must be is between the operator and that host, and no mail's fault: deferred, also after
 * a 5xx. */

enum conf_tls
secure_wanted(const struct route_result *route, const struct envelope *envelope)
{
	const enum conf_tls tls = route->tls;

	if (envelope->requiretls)
		return tls < CONF_TLS_VERIFY ? CONF_TLS_VERIFY : tls;
	if (envelope->tls_optional && (tls == CONF_TLS_REQUIRE || tls == CONF_TLS_VERIFY) &&
	    !(route->conf && route->conf->user[0]))
		return CONF_TLS_MAY;
	return tls;
}

bool
secure_is_doubtful(const struct envelope *envelope, const struct route_result *route,
                   const struct dns_target *target)
{
	return envelope->requiretls && !route->conf && !target->mx_secure;
}

/* This host is no good as it is, for a reason the operator should hear. */
static void __attribute__((format(printf, 3, 4)))
refuse_host(struct client *client, const char *status, const char *format, ...)
{
	char why[REPLY_TEXT_MAX], said[sizeof why], id[QUEUE_ID_TEXT_SIZE];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	log_warn(queue_id_format(&client->job->id, id), "host-refused",
	         "host=%s ip=%s error=\"%s\"", client->target.host, client->peer,
	         log_text(why, said, sizeof said));
	client_cannot(client, status, "%s", why);
}

void
secure_failed(struct client *client, const char *why, bool broken)
{
	char id[QUEUE_ID_TEXT_SIZE];

	if (broken && client->job->envelope.requiretls) {
		client_cannot(client, "5.7.5",
		              "%s; the sender requires TLS with a host that "
		              "proves its name",
		              why);
		return;
	}
	if (client->tls != CONF_TLS_MAY) {
		refuse_host(client, "4.7.5", "%s", why);
		return;
	}
	log_info(queue_id_format(&client->job->id, id), "tls-failed", "host=%s ip=%s error=\"%s\"",
	         client->target.host, client->peer, why);
	client_try_in_clear(client);
}

void
secure_start_tls(struct client *client)
{
	const bool verify = client->tls >= CONF_TLS_VERIFY;
	struct tls_client *tls = verify ? client->opts.tls_verifying : client->opts.tls;

	if (!tls) {
		refuse_host(client, "4.7.5", "relay.ca_file has no certificates to verify it with");
	} else if (conn_start_tls_client(client->conn, tls, client->target.host)) {
		secure_failed(client, "TLS cannot start here", false);
	} else {
		client->state = CLIENT_HANDSHAKE;
		conn_set_timeout(client->conn, client->opts.conf->handshake_timeout);
	}
}

/* The next line of the login. The client may have given up this host afterwards. */
static void
say_login(struct client *client)
{
	char line[LOGIN_LINE_SIZE];
	size_t len = login_line(client->login, client->login_step++, client->route.conf->user,
	                        client->route.password, line);

	if (!len) {
		refuse_host(client, "4.7.8", "it asks for more than user and password");
		return;
	}
	assert(conn_is_secure(client->conn));
	client_set_state(client, CLIENT_LOGIN);
	conn_write(client->conn, line, len);
	conn_write(client->conn, "\r\n", 2);
	mem_wipe(line, sizeof line);
}

void
secure_prepare(struct client *client)
{
	const struct conf_route *conf = client->route.conf;
	const enum conf_tls tls = client->tls;
	const bool secure = conn_is_secure(client->conn);

	if (!secure && (client->offers & OFFER_STARTTLS) && tls != CONF_TLS_NONE &&
	    !client->no_tls) {
		client_set_state(client, CLIENT_STARTTLS);
		client_say(client, "STARTTLS\r\n");
	} else if (!secure && client->job->envelope.requiretls) {
		client_cannot(client, "5.7.30", "the sender requires TLS, and it is not offered");
	} else if (!secure && tls >= CONF_TLS_REQUIRE) {
		refuse_host(client, "4.7.4", "TLS is required, and not offered");
	} else if (!conf || !conf->user[0]) {
		transaction_begin(client);
	} else if (!client->route.password) {
		refuse_host(client, "4.7.8", "there is no password to log in with");
	} else if (client->login == LOGIN_NONE) {
		refuse_host(client, "4.7.8", "it offers neither AUTH PLAIN nor LOGIN");
	} else {
		client->login_step = 0;
		say_login(client);
	}
}

void
secure_on_starttls_reply(struct client *client, const struct reply *reply)
{
	if (reply->code / 100 == 2) {
		secure_start_tls(client);
	} else if (reply->code == 421 || client->tls != CONF_TLS_MAY) {
		client->last = *reply;
		client_next_host(client);
	} else {
		transaction_begin(client);
	}
}

void
secure_on_login_reply(struct client *client, const struct reply *reply)
{
	if (reply->code == 235)
		transaction_begin(client);
	else if (reply->code == 334)
		say_login(client);
	else
		refuse_host(client, "4.7.8", "our login was refused: %d %s%s%s", reply->code,
		            reply->enhanced, reply->enhanced[0] ? " " : "", reply->text);
}
