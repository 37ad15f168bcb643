#include "core/service.h"

/* sekisho-keys: the private key of the certificate, and nothing else.
 *
 * It speaks to no network and opens no file: the key arrives as a descriptor, is read once, and the
 * descriptor is closed before the sandbox. Only sekisho-msa's processes are listened to, only the
 * two texts of keys/text.h are signed, and only at a bounded rate, so a captured msa process gets
 * no signature that outlives its capture usefully. Every request is answered; an empty answer is a
 * refusal.
 *
 * A handshake shows its client one certificate and must be signed with the key of that one. So each
 * request names the generation it was begun under. A key is there from the moment its generation is
 * prepared, and after a reload the keys before it stay for as long as a handshake may last. */

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/ipc.h"
#include "core/log.h"
#include "core/sandbox.h"
#include "core/tls.h"
#include "keys/text.h"

#define RATE_MAX   20000 /* signatures per second */
#define WARN_EVERY 10000 /* msec between log lines about refusals */
#define HELD_MAX   16    /* keys: one in force, and those of handshakes begun before a reload */

struct held {
	uint64_t generation; /* of the configuration that named it */
	struct tls_private *key;
};

struct keys {
	struct ipc_hub *hub;
	struct tls_private *came;   /* the file of the generation to come, or NULL */
	char reason[200];           /* why not, if it came and is unusable */
	struct held held[HELD_MAX]; /* the newest first */
	size_t held_count;
	uint64_t prepared;         /* the generation in held[0] that is not in force yet, or 0 */
	msec_t grace;              /* how long a handshake may last */
	struct loop_timer *forget; /* all but the one in force */
	msec_t window;             /* of the rate bound */
	unsigned spent;
	uint64_t refused; /* since the last warning */
	msec_t warned;    /* clock_mono */
};

static void
refuse(struct keys *keys, const struct ipc_from *from, const char *reason)
{
	msec_t now = clock_mono();

	keys->refused++;
	if (keys->warned != 0 && now - keys->warned < WARN_EVERY)
		return;
	log_warn("-", "sign-refused", "reason=%s peer=%s/%u count=%llu", reason,
	         service_role_name((enum service_role)from->role), from->index,
	         (unsigned long long)keys->refused);
	keys->warned = now;
	keys->refused = 0;
}

static const struct tls_private *
find_key(const struct keys *keys, uint64_t generation)
{
	for (size_t i = 0; i < keys->held_count; i++)
		if (keys->held[i].generation == generation)
			return keys->held[i].key;
	return NULL;
}

/* The length of the signature, or 0 after saying why. */
static size_t
sign(struct keys *keys, const struct ipc_from *from, const struct ipc_frame *frame,
     uint8_t out[TLS_SIGNATURE_MAX])
{
	struct wire wire = wire_from(frame->data, frame->len);
	char digest[KEYS_NAME_MAX], padding[KEYS_NAME_MAX];
	const uint8_t *text;
	const struct tls_private *key;
	size_t text_len, len;
	uint64_t generation = wire_u64(&wire);

	wire_str(&wire, digest, sizeof(digest));
	wire_str(&wire, padding, sizeof(padding));
	text = wire_bytes(&wire, &text_len);
	if (frame->type != KEYS_SIGN || !wire_done(&wire) || !text || text_len > KEYS_TEXT_MAX) {
		refuse(keys, from, "malformed");
		return 0;
	}
	if (!keys_text_is_signable(text, text_len, padding)) {
		refuse(keys, from, "text");
		return 0;
	}
	if (!keys_rate_allows(&keys->window, &keys->spent, clock_mono(), RATE_MAX)) {
		refuse(keys, from, "rate");
		return 0;
	}
	key = find_key(keys, generation);
	if (!key) {
		refuse(keys, from, "generation");
		return 0;
	}
	len = tls_private_sign(key, digest, padding, text, text_len, out);
	if (len == 0)
		refuse(keys, from, "method");
	return len;
}

static void
on_frame(void *arg, struct ipc_from from, struct ipc_frame *frame)
{
	struct keys *keys = arg;
	uint8_t signature[TLS_SIGNATURE_MAX];
	struct buf reply;
	size_t len = sign(keys, &from, frame, signature);

	if (from.call == 0)
		return;
	buf_init(&reply);
	buf_add(&reply, signature, len);
	ipc_hub_reply(keys->hub, from, &reply, -1);
	buf_clear(&reply);
}

static struct ipc_hub *
hub(struct keys *keys)
{
	static const struct ipc_hub_events events = {.on_frame = on_frame};

	if (!keys->hub)
		keys->hub = ipc_hub_new(service_loop(), &events, keys);
	return keys->hub;
}

static void
on_file(void *arg, enum service_file file, unsigned index, int fd_take)
{
	struct keys *keys = arg;

	(void)index;
	if (file != SERVICE_KEY) {
		close(fd_take);
		return;
	}
	tls_private_free(keys->came);
	keys->came = tls_private_new(fd_take, keys->reason, sizeof(keys->reason));
}

/* Forgets all but the newest of this number. */
static void
keep(struct keys *keys, size_t count)
{
	while (keys->held_count > count)
		tls_private_free(keys->held[--keys->held_count].key);
}

static void
hold(struct keys *keys)
{
	keep(keys, HELD_MAX - 1);
	memmove(keys->held + 1, keys->held, keys->held_count * sizeof(keys->held[0]));
	keys->held[0] = (struct held){service_generation(), keys->came};
	keys->held_count++;
	keys->came = NULL;
}

static void
on_forget(void *arg)
{
	struct keys *keys = arg;

	/* A generation that is being prepared stands before the one in force. */
	keep(keys, keys->prepared ? 2 : 1);
}

static void
on_config(void *arg, const struct conf *conf)
{
	struct keys *keys = arg;

	keys->grace = conf->handshake_timeout;
}

static int
on_prepare(void *arg, const struct conf *next, char *error, size_t size)
{
	struct keys *keys = arg;

	if (!keys->came) {
		snprintf(error, size, "tls.key: %s: %s", next->tls_key,
		         keys->reason[0] ? keys->reason : "no key was given");
		return -1;
	}
	hold(keys);
	keys->prepared = service_generation();
	return 0;
}

static void
on_commit(void *arg, const struct conf *conf)
{
	struct keys *keys = arg;

	keys->prepared = 0;
	/* Those under way were begun with the time that was in force then. */
	loop_timer_arm(keys->forget, keys->grace);
	keys->grace = conf->handshake_timeout;
}

static void
on_drop(void *arg)
{
	struct keys *keys = arg;

	tls_private_free(keys->came);
	keys->came = NULL;
	if (!keys->prepared)
		return;
	keys->prepared = 0;
	tls_private_free(keys->held[0].key);
	keys->held_count--;
	memmove(keys->held, keys->held + 1, keys->held_count * sizeof(keys->held[0]));
}

static void
on_link(void *arg, enum service_role peer, unsigned index, int fd_take)
{
	if (peer != SERVICE_MSA) {
		close(fd_take);
		return;
	}
	ipc_hub_attach(hub(arg), peer, index, fd_take);
}

static int
on_start(void *arg)
{
	struct keys *keys = arg;

	if (!keys->came) {
		log_error("-", "key-unusable", "reason=\"%s\"",
		          keys->reason[0] ? keys->reason : "no key was given");
		return -1;
	}
	hold(keys);
	keys->forget = loop_timer_new(service_loop(), on_forget, keys);
	(void)hub(keys);
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct service_events events = {
	    .on_config = on_config,
	    .on_file = on_file,
	    .on_link = on_link,
	    .on_start = on_start,
	    .on_prepare = on_prepare,
	    .on_commit = on_commit,
	    .on_drop = on_drop,
	};
	struct keys keys = {0};
	const struct rlimit none = {0, 0};
	const struct service_opts opts = {
	    .role = SERVICE_KEYS,
	    .program = "sekisho-keys",
	    .purpose = "holds the private key of the certificate and signs TLS handshakes with it",
	    .sandbox = 0,
	    .events = &events,
	    .arg = &keys,
	};
	int status;

	/* Before the key arrives, not only with the sandbox. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	(void)setrlimit(RLIMIT_CORE, &none);
	status = service_run(&opts, argc, argv);
	ipc_hub_free(keys.hub);
	loop_timer_free(keys.forget);
	tls_private_free(keys.came);
	keep(&keys, 0);
	return status;
}
