/* sekisho-admin: answers the NOC. */
#include "core/service.h"

/* Listens on the admin socket and runs one request per connection at a time; more that arrive wait
 * in the connection's input buffer, and none is begun while earlier replies are unread. So memory
 * is bounded by CLIENTS_MAX times one line in and one answer out. Where all places are taken, the
 * connection that has been silent longest makes room: open connections that ask nothing must not
 * keep the NOC out.
 *
 * Who may do what is admin/roles.h; the socket's mode only narrows who may try. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/protocol.h"
#include "core/conn.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sandbox.h"

#define CLIENTS_MAX    64
#define IDLE_TIMEOUT   300000 /* msec */
#define FINISH_TIMEOUT 5000   /* msec */
#define REFUSED_EVERY  1000   /* msec between two lines about strangers */

struct client {
	struct client *prev, *next;
	struct conn *conn;
	struct request *request; /* under way, or NULL */
	bool running;            /* inside serve */
	bool waiting;            /* a request is under way */
	bool ended;              /* it sends no more, and waits for what it asked */
	bool closing;
	struct watch *watch; /* it gets events, and asks nothing more */
	msec_t active;       /* clock_mono of the last request or answer */
	struct roles_peer peer;
};

static struct protocol_peers peers;
static int listener = -1;
static struct client *clients;
static unsigned client_count;

static void
client_free(struct client *client)
{
	protocol_forget(client->request);
	watch_free(client->watch);
	conn_free(client->conn);
	roles_peer_clear(&client->peer);
	if (client->prev != NULL)
		client->prev->next = client->next;
	else
		clients = client->next;
	if (client->next != NULL)
		client->next->prev = client->prev;
	client_count--;
	free(client);
}

static void serve(struct client *client);

static void
on_reply(void *arg, const char *line, size_t len)
{
	struct client *client = arg;

	client->request = NULL;
	client->waiting = false;
	client->active = clock_mono();
	conn_write(client->conn, line, len);
	conn_set_timeout(client->conn, client->watch != NULL ? 0 : IDLE_TIMEOUT);
	if (!client->running)
		serve(client);
}

static bool
on_watch(void *arg, const struct watch_filter *filter)
{
	struct client *client = arg;

	client->watch = watch_new(filter, client->conn);
	return client->watch != NULL;
}

static void
begin(struct client *client, const char *line, size_t len)
{
	char by[ROLES_BY_SIZE];
	struct protocol_asker asker = {
	    .role = roles_of(&client->peer, peers.conf), .by = by, .on_watch = on_watch};
	struct request *request;

	roles_by(&client->peer, peers.conf, by);
	client->waiting = true;
	client->active = clock_mono();
	conn_set_timeout(client->conn, 0);
	request = protocol_handle(&peers, &asker, line, len, on_reply, client);
	if (request != NULL)
		client->request = request;
}

static void
ignore_input(struct client *client)
{
	size_t len;

	while (conn_input(client->conn, &len) != NULL)
		conn_consume(client->conn, len);
}

static void
serve(struct client *client)
{
	client->running = true;
	if (client->watch != NULL)
		ignore_input(client);
	while (client->watch == NULL && !client->waiting && !client->closing &&
	       conn_pending(client->conn) < CONN_OUTPUT_HIGH) {
		size_t len;
		const uint8_t *input = conn_input(client->conn, &len);
		const uint8_t *end = input != NULL ? memchr(input, '\n', len) : NULL;
		char *line;

		if (end == NULL) {
			if (client->ended) {
				client->closing = true;
				conn_finish(client->conn, FINISH_TIMEOUT);
			} else if (input != NULL && len >= PROTOCOL_LINE_MAX) {
				client->closing = true;
				line = protocol_complaint("syntax",
				                          "the line is longer than 64 KiB", &len);
				conn_write(client->conn, line, len);
				free(line);
				conn_finish(client->conn, FINISH_TIMEOUT);
			}
			break;
		}
		len = (size_t)(end - input) + 1;
		line = xmemdup0(input, len);
		conn_consume(client->conn, len);
		begin(client, line, len);
		mem_wipe(line, len);
		free(line);
	}
	client->running = false;
}

static void
on_input(void *arg)
{
	serve(arg);
}

static void
on_input_end(void *arg)
{
	struct client *client = arg;

	client->ended = true;
	if (client->watch != NULL)
		client_free(client);
	else if (!client->running)
		serve(client);
}

static void
on_drained(void *arg)
{
	struct client *client = arg;

	if (client->watch != NULL)
		watch_drained(client->watch);
	else
		serve(client);
}

static void
on_end(void *arg, enum conn_end why)
{
	(void)why;
	client_free(arg);
}

static const struct conn_events conn_events = {
    .on_input = on_input, .on_drained = on_drained, .on_input_end = on_input_end, .on_end = on_end};

/* Says why before it closes; the socket's empty buffer takes the line at once. */
static void
turn_away(int fd, const char *code, const char *text)
{
	size_t len = 0;
	char *line = protocol_complaint(code, text, &len);

	(void)send(fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	free(line);
	close(fd);
}

/* False when everybody is waiting for an answer. */
static bool
make_room(void)
{
	struct client *silent = NULL;

	if (client_count < CLIENTS_MAX)
		return true;
	for (struct client *c = clients; c != NULL; c = c->next)
		if (!c->waiting && c->watch == NULL &&
		    (silent == NULL || c->active < silent->active))
			silent = c;
	if (silent == NULL)
		return false;
	log_info("-", "admin-room", "closed=\"uid %u\" silent_ms=%" PRId64,
	         (unsigned)silent->peer.uid, clock_mono() - silent->active);
	client_free(silent);
	return true;
}

/* False, after telling why, for who has no role or finds no place. */
static bool
may_enter(int fd, const struct roles_peer *peer)
{
	static msec_t told;
	static unsigned untold;
	char by[ROLES_BY_SIZE], words[256];

	if (roles_of(peer, peers.conf) == ROLE_NONE) {
		roles_by(peer, peers.conf, by);
		untold++;
		if (told == 0 || clock_mono() - told >= REFUSED_EVERY) {
			log_warn("-", "admin-refused", "by=\"%s\" count=%u", by, untold);
			told = clock_mono();
			untold = 0;
		}
		snprintf(words, sizeof(words),
		         "%s has no role in this service; root can give one: a name or @group in "
		         "admin.look, admin.operate or admin.admin of its configuration",
		         by);
		turn_away(fd, "denied", words);
		return false;
	}
	if (!make_room()) {
		log_warn("-", "admin-overload", "clients=%u", client_count);
		turn_away(fd, "busy", "64 clients are being served; try again");
		return false;
	}
	return true;
}

static void
on_connection(void *arg, unsigned ready)
{
	struct client *client;
	struct roles_peer peer;
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)arg;
	(void)ready;
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			log_warn("-", "admin-accept-failed", "errno=%d", errno);
		return;
	}
	if (roles_peer_init(&peer, fd) < 0)
		log_warn("-", "admin-peer-unknown", "errno=%d", errno);
	if (!may_enter(fd, &peer)) {
		roles_peer_clear(&peer);
		return;
	}
	client = xcalloc(1, sizeof(*client));
	client->peer = peer;
	client->active = clock_mono();
	client->next = clients;
	if (clients != NULL)
		clients->prev = client;
	clients = client;
	client_count++;
	client->conn = conn_accept(service_loop(), fd, PROTOCOL_LINE_MAX, &conn_events, client);
	conn_set_timeout(client->conn, IDLE_TIMEOUT);
}

static const struct ipc_link_events quiet_events = {NULL, NULL, NULL};

static void
on_config(void *arg, const struct conf *snapshot)
{
	(void)arg;
	peers.conf = snapshot;
	peers.auth = ipc_link_new(service_loop(), "auth", &quiet_events, NULL);
	peers.queue = ipc_link_new(service_loop(), "queue", &quiet_events, NULL);
}

static void
on_commit(void *arg, const struct conf *next)
{
	(void)arg;
	peers.conf = next;
	/* Requests are judged when they come; a watcher asks no more. */
	for (struct client *c = clients, *after; c != NULL; c = after) {
		after = c->next;
		if (c->watch != NULL && roles_of(&c->peer, next) == ROLE_NONE)
			client_free(c);
	}
}

static void
on_listener(void *arg, enum service_listener kind, int fd_take)
{
	(void)arg;
	if (kind == SERVICE_ADMIN_SOCKET && listener < 0)
		listener = fd_take;
	else
		close(fd_take);
}

static void
on_link(void *arg, enum service_role peer, unsigned index, int fd_take)
{
	(void)arg;
	(void)index;
	if (peer == SERVICE_AUTH)
		ipc_link_attach(peers.auth, fd_take);
	else if (peer == SERVICE_QUEUE)
		ipc_link_attach(peers.queue, fd_take);
	else
		close(fd_take);
}

static int
on_start(void *arg)
{
	(void)arg;
	if (listener < 0) {
		log_error("-", "admin-no-socket", "path=%s", peers.conf->admin_socket);
		return -1;
	}
	loop_watch_set(loop_watch_new(service_loop(), listener, on_connection, NULL), LOOP_READ);
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct service_events events = {.on_config = on_config,
	                                             .on_listener = on_listener,
	                                             .on_link = on_link,
	                                             .on_start = on_start,
	                                             .on_commit = on_commit};
	static const struct service_opts opts = {.role = SERVICE_ADMIN,
	                                         .program = "sekisho-admin",
	                                         .purpose =
	                                             "answers sekishoctl on the admin socket",
	                                         .sandbox = SANDBOX_ACCEPT,
	                                         .events = &events};

	return service_run(&opts, argc, argv);
}
