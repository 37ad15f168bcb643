#include "msa/command.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/text.h"

/* DATA: content streams to the queue as it comes, while the header section is looked at on the way;
 * the verdict falls at the end.
 *
 * Nothing is promised before the queue's QUEUE_OK: the content it holds until then is dropped with
 * the submission. A message over the limit is read to its end (a client that is cut off in the
 * middle would try again for days), but no longer passed on; the driver gives up at ten times
 * the limit. Every mailbox of From and Sender must
 * be the account's own; a missing From, Date, Message-ID or Sender is added, and what must not
 * leave is taken out (RFC 6409 section 8). */

static void
on_ready(void *arg)
{
	session_unpause(arg);
}

static void
keep(void *arg, const uint8_t *data, size_t len)
{
	struct session *session = arg;

	if (!queue_submission_body(session->transaction.submission, data, len))
		session_pause(session);
}

static void
take(void *arg, const uint8_t *data, size_t len)
{
	struct session *session = arg;
	struct transaction *transaction = &session->transaction;

	if (transaction->in.size > transaction->conf->message_size)
		transaction->over_size = true;
	if (!transaction->over_size)
		header_feed(transaction->header, data, len, keep, session);
}

void
cmd_data_begin(struct session *session, enum data_kind kind)
{
	struct transaction *transaction = &session->transaction;
	const struct conf *conf = transaction->conf;

	data_in_init(&transaction->in, kind);
	transaction->header =
	    header_new(transaction->arena, &(struct header_opts){
	                                       .size_max = conf->header_size,
	                                       .received_max = (unsigned)conf->received_hops,
	                                       .remove_bcc = !conf->keep_bcc,
	                                   });
	queue_submission_body_start(transaction->submission, on_ready, session);
	session_begin_data(session);
	session->messages++;
}

enum handled
cmd_data(struct session *session, const char *args, size_t len)
{
	struct transaction *transaction = &session->transaction;

	(void)args;
	(void)len;
	if (transaction->recipient_count == 0) {
		session_say(session,
		            transaction->refused > 0 ? REPLY_NO_RECIPIENTS : REPLY_BAD_SEQUENCE);
		return HANDLED_REPLY;
	}
	if (transaction->mail.envelope.body == BODY_BINARYMIME) {
		session_say(session, REPLY_BINARY_BY_DATA);
		return HANDLED_REPLY;
	}
	cmd_data_begin(session, DATA_DOTTED);
	session->state = SESSION_DATA;
	session_say(session, REPLY_DATA_GO);
	return HANDLED_REPLY;
}

bool
cmd_data_feed(struct session *session, const unsigned char *data, size_t len, size_t *used)
{
	struct transaction *transaction = &session->transaction;

	assert(session->state == SESSION_DATA);
	if (!transaction->by_chunks)
		return data_in_feed(&transaction->in, data, len, used, take, session);
	if (len > transaction->chunk_left)
		len = (size_t)transaction->chunk_left;
	(void)data_in_feed(&transaction->in, data, len, used, take, session);
	transaction->chunk_left -= len;
	return transaction->chunk_left == 0;
}

/* True when the content may be accepted; otherwise the refusal was said. */
static bool
check(struct session *session)
{
	const struct transaction *transaction = &session->transaction;
	const struct conf *conf = transaction->conf;

	if (transaction->over_size) {
		session_say(session, REPLY_TOO_BIG, (unsigned long long)conf->message_size);
		return false;
	}
	if (transaction->in.has_nul) {
		session_say(session, REPLY_NUL);
		return false;
	}
	if (transaction->in.has_bare && conf->refuse_bare_line_ends) {
		session_say(session, REPLY_BARE_LINE_END);
		return false;
	}
	if ((transaction->in.has_long && conf->refuse_long_lines) ||
	    transaction->in.has_unfoldable) {
		session_say(session, REPLY_LONG_LINE, DATA_LINE_MAX);
		return false;
	}
	switch (header_error(transaction->header)) {
	case HEADER_OK:
		break;
	case HEADER_TOO_BIG:
		session_say(session, REPLY_HEADER_TOO_BIG, (unsigned long long)conf->header_size);
		return false;
	case HEADER_LOOP:
		session_say(session, REPLY_LOOP);
		return false;
	case HEADER_BAD_FROM:
		session_say(session, REPLY_BAD_FROM);
		return false;
	}
	if (header_has_utf8_author(transaction->header) && !transaction->mail.envelope.smtputf8) {
		session_say(session, REPLY_AUTHOR_NON_ASCII);
		return false;
	}
	size_t count = 0;
	const struct address *authors = header_authors(transaction->header, &count);
	for (size_t i = 0; i < count; i++)
		if (!session_owns(session, &authors[i])) {
			char text[ADDRESS_TEXT_SIZE];
			session_say(session, REPLY_AUTHOR_NOT_OWNED,
			            address_format(&authors[i], text, sizeof(text)));
			return false;
		}
	return true;
}

static void
on_verdict(void *arg, enum queue_verdict verdict, const struct queue_quota *quota)
{
	struct session *session = arg;
	const struct transaction *transaction = &session->transaction;

	if (verdict == QUEUE_OK) {
		log_info(session->id, "accepted", "id=%s account=%s recipients=%zu size=%" PRIu64,
		         transaction->id, session->account, transaction->recipient_count,
		         transaction->in.size);
		const msec_t wait = quota->start ? quota->start - clock_wall() : 0;
		const msec_t until = transaction->mail.envelope.hold_until;
		char date[CLOCK_RFC3339_SIZE];
		if (until > clock_wall())
			session_say(session, REPLY_QUEUED_HELD, transaction->id,
			            clock_rfc3339(until, date));
		else if (wait > 0)
			session_say(session, REPLY_QUEUED_PACED, transaction->id,
			            (unsigned long long)(wait + 59999) / 60000);
		else
			session_say(session, REPLY_QUEUED, transaction->id);
	} else
		session_say_verdict(session, verdict, quota);
	session_reset(session);
	session_done(session, HANDLED_REPLY);
}

/* A header section with 8-bit octets from a client that did not say SMTPUTF8 is what many programs
 * send and every server takes: it needs nothing. */
static bool
needs_smtputf8(const struct transaction *transaction, const struct buf *prefix)
{
	return address_is_utf8(&transaction->mail.from) ||
	       !text_is_7bit(prefix->data, prefix->len) ||
	       (transaction->mail.envelope.smtputf8 && header_is_8bit(transaction->header));
}

static void
commit(struct session *session)
{
	struct transaction *transaction = &session->transaction;
	const struct header *header = transaction->header;
	const struct address *sender = &transaction->mail.from;
	char date[CLOCK_RFC5322_SIZE], from[ADDRESS_TEXT_SIZE];
	char message_id[QUEUE_MESSAGE_ID_MAX + 1];
	struct header_prefix prefix = {
	    .ehlo = session->ehlo,
	    .client_ip = transaction->conf->mask_client ? NULL : session->ip,
	    .hostname = session->msa->conf->hostname,
	    .protocol = transaction->mail.envelope.smtputf8 ? "UTF8SMTPSA" : "ESMTPSA",
	    .tls_version = conn_tls_version(session->conn),
	    .tls_cipher = conn_tls_cipher(session->conn),
	    .id = transaction->id,
	    .date = clock_rfc5322(clock_wall(), date),
	    .from = header_has_from(header)   ? NULL
	            : address_is_null(sender) ? session->account
	                                      : address_format(sender, from, sizeof(from)),
	    .sender = header_needs_sender(header) ? session->account : NULL,
	    .add_date = !header_has_date(header),
	    .add_message_id = !header_has_message_id(header),
	    .end_section = header_is_missing(header),
	};
	struct buf text;

	buf_init(&text);
	header_compose_prefix(&prefix, &text);
	assert(text.len <= QUEUE_PREFIX_MAX);
	header_message_id(header, message_id, sizeof(message_id));
	if (prefix.add_message_id)
		snprintf(message_id, sizeof(message_id), "%s@%s", prefix.id, prefix.hostname);
	struct queue_envelope envelope = {
	    .from = *sender,
	    .recipients = transaction->recipients,
	    .recipient_count = transaction->recipient_count,
	    .envelope = transaction->mail.envelope,
	    .prefix = text.data,
	    .prefix_len = text.len,
	    .client_ip = session->ip,
	    .client_port = session->port,
	    .ehlo = session->ehlo,
	    .protocol = prefix.protocol,
	    .message_id = message_id,
	};
	envelope.envelope.smtputf8 = needs_smtputf8(transaction, &text);
	if (envelope.envelope.body == BODY_7BIT && transaction->in.has_8bit)
		envelope.envelope.body = BODY_8BITMIME;
	/* Who asks for both is taken at the safer word (RFC 8689 section 5). */
	envelope.envelope.tls_optional =
	    header_is_tls_optional(header) && !envelope.envelope.requiretls;
	queue_submission_commit(transaction->submission, &envelope, on_verdict, session);
	buf_clear(&text);
}

enum handled
cmd_data_end(struct session *session)
{
	if (session->transaction.by_chunks && !session->transaction.is_last)
		return cmd_bdat_end(session);
	if (session->transaction.by_chunks)
		data_in_end(&session->transaction.in, take, session);
	header_end(session->transaction.header, keep, session);
	session_unpause(session); /* the commit waits for what we would wait for */
	if (!check(session)) {
		session_reset(session);
		return HANDLED_REPLY;
	}
	commit(session);
	return HANDLED_LATER;
}
