/* sekisho-keys as sekishod starts it, sandbox and all, asked by the client that sekisho-msa uses.
 */
#define main keys_main
#include "keys/main.c"
#undef main

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "core/conf.h"
#include "core/conn.h"
#include "core/service_proto.h"
#include "keys/client.h"
#include "t/unit/tap.h"

static void
frame(int control, enum service_frame type, struct buf *fields, int pass)
{
	if (service_frame_send(control, type, fields, pass) != 0)
		abort();
	buf_clear(fields);
	if (pass >= 0)
		close(pass);
}

static int
snapshot(void)
{
	static const char text[] = "hostname: mail.example\n"
	                           "listen:\n  submission: [\"127.0.0.1:5587\"]\n"
	                           "tls:\n  certificate: /etc/c.pem\n  key: /etc/k.pem\n";
	struct buf errors, encoded;
	struct conf *conf;
	int fd = memfd_create("conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	buf_init(&errors);
	buf_init(&encoded);
	conf = conf_parse("test.yaml", text, sizeof(text) - 1, &errors);
	if (!conf) {
		printf("Bail out! %s\n", buf_str(&errors));
		exit(1);
	}
	conf_encode(conf, &encoded);
	if (write(fd, encoded.data, encoded.len) != (ssize_t)encoded.len)
		abort();
	(void)fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	conf_free(conf);
	buf_clear(&encoded);
	buf_clear(&errors);
	return fd;
}

#define GENERATION 7

/* A new sekisho-keys; returns its pid, the control channel and the channel to it. */
static pid_t
start_keys(const char *key_path, int *control, int *peer)
{
	int ends[2], channel[2];
	char *argv[] = {(char *)(uintptr_t) "sekisho-keys", NULL};
	struct buf fields;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel) != 0)
		abort();
	(void)fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (dup2(ends[1], SERVICE_CONTROL_FD) < 0)
			abort();
		closefrom(SERVICE_CONTROL_FD + 1);
		_exit(keys_main(1, argv));
	}
	close(ends[1]);
	buf_init(&fields);
	wire_put_u64(&fields, GENERATION);
	wire_put_u32(&fields, 0);
	wire_put_u32(&fields, SERVICE_KEEP_USER);
	wire_put_u32(&fields, SERVICE_KEEP_USER);
	frame(ends[0], SERVICE_FRAME_CONFIG, &fields, snapshot());
	wire_put_u8(&fields, SERVICE_KEY);
	wire_put_u32(&fields, 0);
	frame(ends[0], SERVICE_FRAME_FILE, &fields, open(key_path, O_RDONLY | O_CLOEXEC));
	wire_put_u8(&fields, SERVICE_MSA);
	wire_put_u32(&fields, 0);
	frame(ends[0], SERVICE_FRAME_LINK, &fields, channel[1]);
	frame(ends[0], SERVICE_FRAME_START, &fields, -1);
	*control = ends[0];
	*peer = channel[0];
	return pid;
}

static uint64_t generation = GENERATION; /* asked for */
static struct loop *loop;
static struct ipc_link *to_keys;
static size_t answered;
static enum ipc_status status;
static unsigned secure, ended;

static void
on_answer(void *arg, enum ipc_status how, struct ipc_frame *reply)
{
	(void)arg;
	status = how;
	answered = how == IPC_OK ? reply->len : 0;
	loop_stop(loop);
}

static size_t
ask(const char *digest, const char *padding, const void *text, size_t len)
{
	struct buf request;

	buf_init(&request);
	wire_put_u64(&request, generation);
	wire_put_str(&request, digest);
	wire_put_str(&request, padding);
	wire_put_bytes(&request, text, len);
	answered = 0;
	if (ipc_link_call(to_keys, KEYS_SIGN, &request, -1, 5000, on_answer, NULL) != 0)
		loop_run(loop);
	buf_clear(&request);
	return answered;
}

static int
sign_with(void *arg, struct tls_sign *wait, const char *digest, const char *padding,
          const uint8_t *tbs, size_t len)
{
	return keys_client_sign(arg, generation, wait, digest, padding, tbs, len);
}

static void
on_secure(void *arg)
{
	(void)arg;
	if (++secure == 2)
		loop_stop(loop);
}

static void
on_input(void *arg)
{
	(void)arg;
}

static void
on_end(void *arg, enum conn_end why)
{
	(void)arg;
	(void)why;
	if (++ended == 2)
		loop_stop(loop);
}

static void
handshake(struct tls_server *server, struct tls_client *client)
{
	static const struct conn_events events = {
	    .on_secure = on_secure, .on_input = on_input, .on_end = on_end};
	struct conn *a, *b;
	int ends[2];

	secure = ended = 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
		abort();
	a = conn_accept(loop, ends[0], 4096, &events, NULL);
	b = conn_accept(loop, ends[1], 4096, &events, NULL);
	conn_start_tls_server(a, server);
	conn_start_tls_client(b, client, "mail.example");
	conn_set_timeout(a, 10000);
	conn_set_timeout(b, 10000);
	loop_run(loop);
	conn_free(a);
	conn_free(b);
}

int
main(void)
{
	static const struct ipc_link_events none = {0};
	char dir[] = "/tmp/sekisho-keys-XXXXXX", command[500], key[100], pem[100], error[200];
	uint8_t text[130];
	int control, peer, code;
	pid_t pid;
	struct keys_client *keys;
	struct tls_server *server;
	struct tls_client *client;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(60);
	if (!mkdtemp(dir))
		abort();
	snprintf(key, sizeof(key), "%s/key", dir);
	snprintf(pem, sizeof(pem), "%s/pem", dir);
	snprintf(command, sizeof(command),
	         "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "
	         "/CN=mail.example -days 3 -keyout %s -out %s 2>/dev/null",
	         key, pem);
	if (system(command) != 0)
		abort();

	pid = start_keys(key, &control, &peer);
	loop = loop_new();
	to_keys = ipc_link_new(loop, "keys", &none, NULL);
	ipc_link_attach(to_keys, peer);

	memset(text, ' ', sizeof(text));
	memcpy(text + 64, "TLS 1.3, server CertificateVerify", 34);
	ok(ask("SHA2-256", "", text, sizeof(text)) > 60, "a TLS 1.3 text is signed");
	ok(ask("SHA2-256", "pss", text, sizeof(text)) == 0 && status == IPC_OK,
	   "a padding of another kind of key is refused");
	ok(ask("SHA1", "", text, sizeof(text)) == 0 && status == IPC_OK, "SHA-1 is refused");
	text[73] = 'c';
	ok(ask("SHA2-256", "", text, sizeof(text)) == 0 && status == IPC_OK,
	   "any other text is refused");
	ok(ask("SHA2-256 and much too long a name", "", text, sizeof(text)) == 0 &&
	       status == IPC_OK,
	   "a malformed request is refused");

	keys = keys_client_new(to_keys);
	server =
	    tls_server_new(open(pem, O_RDONLY | O_CLOEXEC), sign_with, keys, error, sizeof(error));
	client = tls_client_new();
	handshake(server, client);
	ok(secure == 2, "a handshake with the key in another process");

	kill(pid, SIGSTOP);
	{
		struct loop_timer *timer =
		    loop_timer_new(loop, (loop_callback *)(void (*)(void))loop_stop, loop);
		loop_timer_arm(timer, 300);
		handshake(server, client);
		ok(secure == 0 && ended == 0, "while sekisho-keys hangs, the loop goes on");
		loop_timer_free(timer);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &code, 0);
	handshake(server, client);
	ok(secure == 0 && ended == 2, "without sekisho-keys the handshake fails at once");
	close(control);

	pid = start_keys(key, &control, &peer);
	ipc_link_attach(to_keys, peer);
	handshake(server, client);
	ok(secure == 2, "and works again after its restart");
	{
		struct buf fields;
		buf_init(&fields);
		frame(control, SERVICE_FRAME_STOP, &fields, -1);
	}
	ok(waitpid(pid, &code, 0) == pid && WIFEXITED(code) && WEXITSTATUS(code) == 0,
	   "STOP ends it with status 0");

	tls_server_free(server);
	tls_client_free(client);
	keys_client_free(keys);
	ipc_link_free(to_keys);
	loop_free(loop);
	close(control);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (system(command) != 0)
		return 1;
	return tap_end();
}
