#include "core/service.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "core/sandbox.h"
#include "keys/client.h"
#include "msa/balancer.h"
#include "msa/load.h"

/* sekisho-msa: accepts clients and lets sessions run. Introduces auth, queue and keys to each
 * other's callers, and holds no secret and no file once it runs.
 *
 * All msa processes accept from the same inherited sockets, up to ACCEPT_TURN connections in one
 * turn of the loop, so that running sessions are not starved by new ones; whoever is awake first
 * takes the next. At limits.sessions a client is told to come again, with what fits its socket
 * buffer at once (on the port with implicit TLS nothing can be said before a handshake, so it is
 * closed). A session may take two descriptors, its socket and the file of a large body, and there
 * are no more sessions than these suffice for. When descriptors run out all the same (the system
 * has none), accepting rests for a second instead of spinning.
 *
 * Stop: listeners close, idle sessions get 421, data in flight has STOP_TIME to finish. */

#define ACCEPT_TURN   32
#define ACCEPT_REST   1000
#define STOP_TIME     25000
#define LISTENERS_MAX 64
#define KEPT          256 /* descriptors for what is no session */

struct listener {
	int fd;
	bool implicit_tls;
	struct loop_watch *watch;
};

static struct {
	struct msa msa;
	struct ipc_link *auth_link, *queue_link, *keys_link;
	struct keys_client *keys;
	struct listener listeners[LISTENERS_MAX]; /* of the generation in force */
	size_t listener_count;
	/* what has arrived for the generation to come */
	int certificate; /* -1: nothing */
	struct listener next_listeners[LISTENERS_MAX];
	size_t next_count;
	struct tls_server *next_tls; /* prepared, or NULL */
	struct loop_timer *rest;     /* armed while accepting rests */
	struct loop_timer *stop;
	size_t room; /* sessions that descriptors suffice for */
	bool stopped;
} self = {.certificate = -1};

static void
check_stopped(void)
{
	if (self.msa.stopping && self.msa.session_count == 0 && !self.stopped) {
		self.stopped = true;
		service_stopped();
	}
}

static void
on_session_gone(struct msa *msa)
{
	load_update(msa);
	check_stopped();
}

static void
on_queue_up(void *arg)
{
	(void)arg;
	queue_client_on_up(self.msa.queue);
}

static void
on_queue_down(void *arg)
{
	(void)arg;
	queue_client_on_down(self.msa.queue);
}

static void
on_auth_push(void *arg, struct ipc_frame *frame)
{
	(void)arg;
	auth_client_on_push(self.msa.auth, frame);
}

static void
on_auth_up(void *arg)
{
	(void)arg;
	for (struct session *s = self.msa.sessions; s != NULL; s = s->next) {
		struct auth_session description;
		session_describe(s, &description);
		auth_session_open(self.msa.auth, &description);
	}
}

static void
on_end(void *arg, uint64_t number, enum auth_end why)
{
	static const struct {
		enum reply_name words;
		const char *rule;
	} ends[AUTH_ENDS] = {
	    [AUTH_END_KILLED] = {REPLY_KILLED, "killed"},
	    [AUTH_END_SUSPENDED] = {REPLY_SUSPENDED, "suspended"},
	    [AUTH_END_REMOVED] = {REPLY_REMOVED, "removed"},
	    [AUTH_END_ACCOUNT_LIMIT] = {REPLY_TOO_MANY_OF_ACCOUNT, "account_sessions"},
	    [AUTH_END_PREFIX_LIMIT] = {REPLY_TOO_MANY_OF_CLIENT, "prefix_sessions"},
	};
	(void)arg;
	for (struct session *s = self.msa.sessions; s != NULL; s = s->next)
		if (s->number == number) {
			session_end(s, ends[why].words, ends[why].rule);
			return;
		}
}

static void
on_account(void *arg, const struct auth_account *account)
{
	(void)arg;
	for (struct session *s = self.msa.sessions; s != NULL; s = s->next)
		if (s->account != NULL && strcmp(s->account, account->account) == 0)
			session_set_account(s, account);
}

static const struct auth_client_events account_events = {.on_end = on_end,
                                                         .on_account = on_account};
static const struct ipc_link_events quiet_events = {0};
static const struct ipc_link_events auth_events = {.on_up = on_auth_up, .on_push = on_auth_push};
static const struct ipc_link_events queue_events = {.on_up = on_queue_up, .on_down = on_queue_down};

static void
on_config(void *arg, const struct conf *conf)
{
	(void)arg;
	self.msa.conf = conf;
	if (self.msa.loop != NULL)
		return;
	struct loop *loop = service_loop();
	self.msa.loop = loop;
	self.msa.index = service_index();
	self.msa.processes = conf_msa_count(conf);
	self.msa.on_session_gone = on_session_gone;
	self.auth_link = ipc_link_new(loop, "auth", &auth_events, NULL);
	self.queue_link = ipc_link_new(loop, "queue", &queue_events, NULL);
	self.keys_link = ipc_link_new(loop, "keys", &quiet_events, NULL);
	self.msa.auth = auth_client_new(self.auth_link);
	auth_client_set_events(self.msa.auth, &account_events, NULL);
	self.msa.queue = queue_client_new(loop, self.queue_link);
	self.keys = keys_client_new(self.keys_link);
}

static void
on_file(void *arg, enum service_file file, unsigned index, int fd_take)
{
	(void)arg;
	(void)index;
	if (file != SERVICE_CERTIFICATE) {
		close(fd_take);
		return;
	}
	if (self.certificate >= 0)
		close(self.certificate);
	self.certificate = fd_take;
}

static void
on_listener(void *arg, enum service_listener kind, int fd_take)
{
	(void)arg;
	if (kind == SERVICE_ADMIN_SOCKET || self.next_count == LISTENERS_MAX) {
		log_error("-", "listener", "reason=\"not for this program, or more than %d\"",
		          LISTENERS_MAX);
		close(fd_take);
		return;
	}
	self.next_listeners[self.next_count++] =
	    (struct listener){.fd = fd_take, .implicit_tls = kind == SERVICE_SUBMISSIONS};
}

static void
on_link(void *arg, enum service_role peer, unsigned index, int fd_take)
{
	(void)arg;
	(void)index;
	assert(self.msa.loop != NULL);
	switch (peer) {
	case SERVICE_AUTH:
		ipc_link_attach(self.auth_link, fd_take);
		break;
	case SERVICE_QUEUE:
		ipc_link_attach(self.queue_link, fd_take);
		break;
	case SERVICE_KEYS:
		ipc_link_attach(self.keys_link, fd_take);
		break;
	default:
		close(fd_take);
		break;
	}
}

static void
set_accepting(bool accepting)
{
	for (size_t i = 0; i < self.listener_count; i++)
		loop_watch_set(self.listeners[i].watch, accepting ? LOOP_READ : 0);
}

static void
on_rested(void *arg)
{
	(void)arg;
	if (!self.msa.stopping)
		set_accepting(true);
}

static void
turn_away(int fd_take, bool implicit_tls)
{
	char text[512];

	if (!implicit_tls) {
		int n = snprintf(text, sizeof(text) - 2, reply_format(REPLY_OVERLOAD),
		                 self.msa.conf->hostname);
		assert(n > 0 && (size_t)n < sizeof(text) - 2);
		memcpy(text + n, "\r\n", 2);
		struct iovec part = {.iov_base = text, .iov_len = (size_t)n + 2};
		struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
		(void)!sendmsg(fd_take, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	close(fd_take);
}

static void
take(int fd_take, const struct sockaddr *peer, bool implicit_tls)
{
	struct msa *msa = &self.msa;

	if (msa->session_count >= msa->session_limit)
		turn_away(fd_take, implicit_tls);
	else if (conf_networks_hold(&msa->conf->balancers, peer))
		balancer_take(msa, fd_take, peer, implicit_tls);
	else
		session_new(msa, fd_take, peer, NULL, implicit_tls);
}

static void
on_acceptable(void *arg, unsigned ready)
{
	struct listener *listener = arg;

	(void)ready;
	for (int i = 0; i < ACCEPT_TURN; i++) {
		struct sockaddr_storage peer = {0};
		socklen_t len = sizeof(peer);
		int fd = accept4(listener->fd, (struct sockaddr *)&peer, &len,
		                 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			take(fd, (struct sockaddr *)&peer, listener->implicit_tls);
			continue;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			log_error("-", "accept", "reason=\"%s\" rest_ms=%d", strerror(errno),
			          ACCEPT_REST);
			set_accepting(false);
			loop_timer_arm(self.rest, ACCEPT_REST);
			return;
		}
		/* Everything else concerns the one connection that went away meanwhile. */
	}
}

/* The signer of a certificate; arg is its generation, in the pointer's place: it then needs no
 * owner who knows when the last handshake with it is over. */
static int
sign(void *arg, struct tls_sign *wait, const char *digest, const char *padding, const uint8_t *tbs,
     size_t len)
{
	return keys_client_sign(self.keys, (uint64_t)(uintptr_t)arg, wait, digest, padding, tbs,
	                        len);
}

static int
on_prepare(void *arg, const struct conf *next, char *error, size_t size)
{
	char reason[256] = "no certificate was handed over";
	int certificate = self.certificate;

	(void)arg;
	self.certificate = -1;
	if (certificate >= 0)
		self.next_tls = tls_server_new(certificate, sign,
		                               (void *)(uintptr_t)service_generation(), // NOLINT
		                               reason, sizeof(reason));
	if (self.next_tls != NULL)
		return 0;
	snprintf(error, size, "tls.certificate: %s: %s", next->tls_certificate, reason);
	return -1;
}

static void
close_listeners(struct listener *list, size_t *count)
{
	for (size_t i = 0; i < *count; i++) {
		loop_watch_free(list[i].watch);
		close(list[i].fd);
	}
	*count = 0;
}

static void
set_limit(void)
{
	const size_t wanted = self.msa.conf->sessions;

	self.msa.session_limit = wanted < self.room ? wanted : self.room;
	if (wanted > self.room)
		log_warn("-", "descriptors", "limits.sessions=%zu sessions=%zu", wanted, self.room);
	load_update(&self.msa);
}

/* Sessions go on with what they began with; a socket that stays is the same under its new number.
 */
static void
on_commit(void *arg, const struct conf *conf)
{
	(void)arg;
	self.msa.conf = conf;
	tls_server_free(self.msa.tls);
	self.msa.tls = self.next_tls;
	self.next_tls = NULL;
	close_listeners(self.listeners, &self.listener_count);
	memcpy(self.listeners, self.next_listeners, sizeof(self.listeners));
	self.listener_count = self.next_count;
	self.next_count = 0;
	if (self.msa.stopping)
		close_listeners(self.listeners, &self.listener_count);
	for (size_t i = 0; i < self.listener_count; i++)
		self.listeners[i].watch = loop_watch_new(self.msa.loop, self.listeners[i].fd,
		                                         on_acceptable, &self.listeners[i]);
	set_accepting(!loop_timer_is_armed(self.rest));
	set_limit();
}

static void
on_drop(void *arg)
{
	(void)arg;
	if (self.certificate >= 0)
		close(self.certificate);
	self.certificate = -1;
	tls_server_free(self.next_tls);
	self.next_tls = NULL;
	close_listeners(self.next_listeners, &self.next_count);
}

static size_t
count_room(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return SIZE_MAX;
	return limit.rlim_cur > 2 * KEPT ? (limit.rlim_cur - KEPT) / 2 : KEPT / 2;
}

static int
on_start(void *arg)
{
	char error[512] = "";

	if (on_prepare(arg, self.msa.conf, error, sizeof(error)) < 0) {
		log_error("-", "start", "reason=\"%s\"", error);
		return -1;
	}
	self.rest = loop_timer_new(self.msa.loop, on_rested, NULL);
	self.room = count_room();
	on_commit(arg, self.msa.conf);
	return 0;
}

static void
on_stop_time(void *arg)
{
	(void)arg;
	for (struct session *session = self.msa.sessions, *next; session != NULL; session = next) {
		next = session->next;
		session_abort(session);
	}
}

static void
on_stop(void *arg)
{
	(void)arg;
	if (self.msa.stopping)
		return;
	self.msa.stopping = true;
	close_listeners(self.listeners, &self.listener_count);
	balancer_stop(&self.msa);
	self.stop = loop_timer_new(self.msa.loop, on_stop_time, NULL);
	loop_timer_arm(self.stop, STOP_TIME);
	for (struct session *session = self.msa.sessions, *next; session != NULL; session = next) {
		next = session->next;
		session_stop(session);
	}
	check_stopped();
}

int
main(int argc, char **argv)
{
	static const struct service_events service_events = {
	    .on_config = on_config,
	    .on_file = on_file,
	    .on_listener = on_listener,
	    .on_link = on_link,
	    .on_start = on_start,
	    .on_prepare = on_prepare,
	    .on_commit = on_commit,
	    .on_drop = on_drop,
	    .on_stop = on_stop,
	};
	const struct service_opts opts = {
	    .role = SERVICE_MSA,
	    .program = "sekisho-msa",
	    .purpose = "accepts mail from the accounts of this service (ports 587 and 465)",
	    .sandbox = SANDBOX_ACCEPT,
	    .events = &service_events,
	};
	return service_run(&opts, argc, argv);
}
