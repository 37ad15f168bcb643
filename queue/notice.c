#include "queue/store_int.h"

/* Notifications to senders (RFC 3464), enqueued by the transaction that makes them necessary.
 *
 * The message is composed inside that transaction, because only there it is known which recipients
 * really end with it; its body is appended to the writer's own segment and synced before the
 * commit, so either recipient, outcome, notification and its body are all there, or nothing of it
 * happened. It starts in the lane of the mail that it is about, with the null account and the null
 * sender: it is never charged, and nobody is notified of it in turn.
 *
 * A batch that is replayed composes anew: what the first try appended is given back. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"

/* RFC 3461 section 4.3 wants the whole mail back when delivery failed and the sender said so. Not
 * where it would take a binary or a long notification, nor of mail that must not travel without TLS
 * (RFC 8689 section 5). */
static bool
returns_whole(const struct notice *notice, const struct store_message *about)
{
	return notice->action == DSN_FAILED && about->envelope.ret == RET_FULL &&
	       !about->envelope.requiretls && about->envelope.body != BODY_BINARYMIME &&
	       about->prefix_len + about->body.size <= DSN_WHOLE_MAX;
}

/* The mail's own beginning: prefix and the front of the body, up to max octets. A body that cannot
 * be read is another fault, told elsewhere. */
static void
read_head(struct store *store, const struct store_message *about, size_t max, struct buf *out)
{
	size_t want = about->body.size < max ? (size_t)about->body.size : max;
	struct store_body body = about->body;
	int fd = store_open_body(store, &about->id, &body);
	uint64_t at = body.offset;

	buf_add(out, about->prefix, about->prefix_len);
	while (fd >= 0 && want > 0) {
		ssize_t n = pread(fd, buf_reserve(out, want), want, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		buf_commit(out, (size_t)n);
		at += (uint64_t)n;
		want -= (size_t)n;
	}
	if (fd >= 0)
		close(fd);
}

static bool
compose(struct store *store, const struct notice *notice, const struct store_message *about,
        const struct dsn_recipient *recipients, size_t count, struct buf *out)
{
	char id[QUEUE_ID_TEXT_SIZE], original[QUEUE_ID_TEXT_SIZE];
	char date[CLOCK_RFC5322_SIZE], arrival[CLOCK_RFC5322_SIZE], until[CLOCK_RFC5322_SIZE];
	struct dsn dsn = {
	    .action = notice->action,
	    .hostname = store->hostname,
	    .id = queue_id_format(&notice->id, id),
	    .original = queue_id_format(&about->id, original),
	    .to = about->from,
	    .date = clock_rfc5322(notice->when, date),
	    .arrival = clock_rfc5322(about->created, arrival),
	    .retry_until = clock_rfc5322(notice->retry_until, until),
	    .envid = about->envelope.envid,
	    .recipients = recipients,
	    .count = count,
	    .smtputf8 = about->envelope.smtputf8,
	};
	const bool whole = returns_whole(notice, about);
	struct buf head;
	bool is_8bit;

	buf_init(&head);
	read_head(store, about, whole ? DSN_WHOLE_MAX : DSN_HEADER_MAX, &head);
	dsn.head = head.data;
	dsn.head_len = head.len;
	dsn.is_whole = whole && head.len == about->prefix_len + about->body.size;
	is_8bit = dsn_compose(&dsn, out);
	buf_clear(&head);
	return is_8bit;
}

void
notice_put(struct lane_txn *txn, struct notice *notice, const struct store_message *about,
           const struct dsn_recipient *recipients, size_t count)
{
	struct store *store = txn->lane->store;
	char id[QUEUE_ID_TEXT_SIZE], message_id[QUEUE_MESSAGE_ID_MAX + 1];
	struct store_recipient to = {.address = about->from, .orcpt = "", .reply = "", .host = ""};
	struct store_message message = {
	    .id = notice->id,
	    .generated = true,
	    .generation = 1,
	    .account = "",
	    .owner = about->owner,
	    .class = about->class,
	    .created = notice->when,
	    .due = notice->when,
	    .client_ip = "",
	    .ehlo = "",
	    .message_id = message_id,
	    .envelope = {.requiretls = about->envelope.requiretls},
	    .last_reply = "",
	    .total = 1,
	    .unfinished = 1,
	    .recipients = &to,
	    .recipient_count = 1,
	};
	struct event event = {.when = notice->when,
	                      .lane = (enum queue_lane)(txn->lane - store->lanes),
	                      .action = notice->action};
	struct buf body;

	queue_id_format(&notice->id, id);
	snprintf(message_id, sizeof(message_id), "%s@%s", id, store->hostname);
	if (txn->rc)
		return;
	buf_init(&body);
	if (compose(store, notice, about, recipients, count, &body))
		message.envelope.body = BODY_8BITMIME;
	message.envelope.smtputf8 = address_is_utf8(&about->from);
	txn->rc = appender_append(&txn->lane->appender, body.data, body.len, &notice->body);
	buf_clear(&body);
	if (txn->rc)
		return;
	notice->placed = true;
	message.body = notice->body;
	txn_store(txn, &message);
	txn_count(txn, COUNTER_GENERATED, 1);
	event.kind = EVENT_NOTICE;
	event.other = notice->id;
	txn_event(txn, &about->id, (uint32_t)be_get(notice->id.octets + 12, 4), &event);
	event.kind = EVENT_ABOUT;
	event.other = about->id;
	txn_event(txn, &notice->id, 0, &event);
}

void
notice_withdraw(struct store *store, struct notice *notice)
{
	if (notice->placed)
		segments_release(&store->segments, &notice->id, &notice->body);
	notice->placed = false;
}
