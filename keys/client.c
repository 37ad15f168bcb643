#include "keys/client.h"

/* Each signature under way is one call on the link, and the link answers every call exactly once:
 * reply, peer down, or timeout. So tls_sign_done follows exactly once too, except for what is under
 * way when the client is freed: then it is failed here, and the calls are cancelled. */

#include <assert.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "core/log.h"
#include "core/mem.h"
#include "keys/text.h"

struct ask {
	struct keys_client *client;
	struct tls_sign *sign;
	uint32_t call;
	LIST_ENTRY(ask) link;
};

struct keys_client {
	struct ipc_link *link; /* borrowed */
	LIST_HEAD(, ask) asks; /* under way */
};

struct keys_client *
keys_client_new(struct ipc_link *link)
{
	struct keys_client *client = xcalloc(1, sizeof(*client));

	client->link = link;
	LIST_INIT(&client->asks);
	return client;
}

static void
ask_end(struct ask *ask, const uint8_t *signature, size_t len)
{
	struct tls_sign *sign = ask->sign;

	LIST_REMOVE(ask, link);
	free(ask);
	tls_sign_done(sign, signature, len);
}

void
keys_client_free(struct keys_client *client)
{
	struct ask *ask;

	if (!client)
		return;
	while ((ask = LIST_FIRST(&client->asks)) != NULL) {
		ipc_link_cancel(client->link, ask->call);
		ask_end(ask, NULL, 0);
	}
	free(client);
}

static void
on_reply(void *arg, enum ipc_status status, struct ipc_frame *frame)
{
	struct ask *ask = arg;

	if (status == IPC_OK && frame->len > 0) {
		ask_end(ask, frame->data, frame->len);
		return;
	}
	log_warn("-", "signature-failed", "reason=%s",
	         status == IPC_OK     ? "refused"
	         : status == IPC_DOWN ? "keys-down"
	                              : "timeout");
	ask_end(ask, NULL, 0);
}

int
keys_client_sign(struct keys_client *client, uint64_t generation, struct tls_sign *sign,
                 const char *digest, const char *padding, const uint8_t *tbs, size_t len)
{
	struct ask *ask = xcalloc(1, sizeof(*ask));
	struct buf request;

	buf_init(&request);
	wire_put_u64(&request, generation);
	wire_put_str(&request, digest);
	wire_put_str(&request, padding);
	wire_put_bytes(&request, tbs, len);
	ask->client = client;
	ask->sign = sign;
	ask->call =
	    ipc_link_call(client->link, KEYS_SIGN, &request, -1, KEYS_TIMEOUT, on_reply, ask);
	buf_clear(&request);
	if (ask->call == 0) {
		log_warn("-", "signature-failed", "reason=keys-down");
		free(ask);
		return -1;
	}
	LIST_INSERT_HEAD(&client->asks, ask, link);
	return 0;
}
