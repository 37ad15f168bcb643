#include "relay/client_int.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/log.h"

/* Problem: say to the queue, for every recipient exactly once, what became of it, whatever the
 * other side does. Idea: outcomes start unsettled; each is settled once, by the reply that decides
 * it, and whatever ends the attempt settles the rest. A recipient is delivered by one event only: a
 * 2xx to the final dot after its own RCPT was taken.
 *
 * A recipient whom one host refuses for now may be taken by the next host of the domain, in the
 * same attempt: each transaction carries those who are unsettled. That ends where it could deliver
 * twice: when a connection is lost after the final dot left.
 *
 * A host may lack what a message needs. Such a one is passed over like one that refuses for now;
 * when all that are asked lack it, the recipients failed.
 *
 * Choices. 421 anywhere ends the transaction for now. 8-bit content goes out as it is when the
 * server does not offer 8BITMIME: bouncing or re-coding it would hurt, and today's servers take it.
 * Where CHUNKING is offered content goes as one chunk (RFC 3030): it is stored as it is to be sent
 * and its size known, so BDAT saves the round trip of DATA's 354 and both sides the dots; binary
 * content (BINARYMIME) has no lines, and nobody takes it by DATA. Neither is pipelined with RCPT: a
 * 354 after refused recipients would oblige us to an empty message.
 *
 * A job may have more recipients than a transaction or a session may (RFC 9422, or the site's own
 * bound): it is carried by several, the host's willingness given. */

#define BLOCK (16u * 1024)
#define PIPELINE                                                                                   \
	50 /* commands unanswered at once, so that neither side can fill the other's window */

/* ---- outcomes */

void
transaction_log(const struct queue_job *job, size_t i, const struct queue_outcome *outcome,
                const char *host, const char *peer, const char *source)
{
	static const char *const fates[] = {"delivered", "deferred", "failed"};
	char id[QUEUE_ID_TEXT_SIZE], to[ADDRESS_TEXT_SIZE], word[4 * sizeof to];
	char said[sizeof outcome->reply.text];

	address_format(&job->recipients[i].address, to, sizeof to);
	log_info(queue_id_format(&job->id, id), "attempt",
	         "to=<%s> host=%s ip=%s source=%s code=%d enhanced=%s fate=%s n=%u text=\"%s\"",
	         log_word(to, word, sizeof word), host[0] ? host : "-", peer[0] ? peer : "-",
	         source[0] ? source : "-", outcome->reply.code,
	         outcome->reply.enhanced[0] ? outcome->reply.enhanced : "-", fates[outcome->fate],
	         job->attempt, log_text(outcome->reply.text, said, sizeof said));
}

/* Whether the sender wants to be told, and the server will not do it. */
static bool
is_unconfirmed(const struct client *client, size_t i)
{
	const struct envelope *envelope = &client->job->envelope;
	const unsigned notify = client->job->recipients[i].notify;

	if ((notify & NOTIFY_SUCCESS) && !(client->offers & OFFER_DSN))
		return true;
	/* RFC 2852: whoever named a time hears where its promise ends, and with the trace modifier
	 * of each hop. */
	return envelope->by && !(notify & NOTIFY_NEVER) &&
	       (envelope->by_trace || !(client->offers & OFFER_DELIVERBY));
}

static void
settle(struct client *client, size_t i, enum queue_fate fate, const struct reply *reply)
{
	assert(!client->settled[i]);
	client->settled[i] = true;
	client->outcomes[i].fate = fate;
	client->outcomes[i].unconfirmed = fate == QUEUE_DELIVERED && is_unconfirmed(client, i);
	client->outcomes[i].reply = *reply;
	transaction_log(client->job, i, &client->outcomes[i], client->target.host, client->peer,
	                client->contact.source);
}

static void
settle_rest(struct client *client, enum queue_fate fate, const struct reply *reply)
{
	for (size_t i = 0; i < client->job->recipient_count; i++)
		if (!client->settled[i])
			settle(client, i, fate, reply);
}

static enum queue_fate
fate_of(const struct reply *reply)
{
	/* 530: it wants TLS or a login (RFC 3207, RFC 4954), which is no mail's fault. */
	if (reply->code / 100 == 5 && reply->code != 530)
		return QUEUE_FAILED;
	return QUEUE_DEFERRED; /* 4xx, and what makes no sense here */
}

void
transaction_defer_rest(struct client *client, const struct reply *why,
                       enum client_farewell farewell)
{
	bool rest = false;

	for (size_t i = 0; i < client->job->recipient_count; i++)
		rest |= !client->settled[i];
	if (rest && client_has_next(client)) {
		client->last = *why;
		client_next_host(client);
		return;
	}
	const enum queue_fate fate =
	    client_is_lack(why) && !client->may_change ? QUEUE_FAILED : QUEUE_DEFERRED;
	for (size_t i = 0; i < client->job->recipient_count; i++)
		if (!client->settled[i])
			settle(client, i, fate,
			       client->outcomes[i].reply.code ? &client->outcomes[i].reply : why);
	client_finish(client, farewell);
}

/* ---- the envelope and the content */

void
transaction_new(struct client *client)
{
	struct arena *arena = client->job->arena;
	size_t count = client->job->recipient_count;

	client->outcomes = arena_alloc(arena, count * sizeof *client->outcomes);
	client->settled = arena_alloc(arena, count * sizeof *client->settled);
	client->tried = arena_alloc(arena, count * sizeof *client->tried);
	client->accepted = arena_alloc(arena, count * sizeof *client->accepted);
	client->todo = arena_alloc(arena, count * sizeof *client->todo);
	for (size_t i = 0; i < count; i++)
		client->outcomes[i].index = client->job->recipients[i].index;
}

void
transaction_forget_host(struct client *client)
{
	memset(client->tried, 0, client->job->recipient_count * sizeof *client->tried);
}

static unsigned
lesser(unsigned bound, unsigned other)
{
	return other && other < bound ? other : bound;
}

size_t
transaction_room(const struct client *client, const struct queue_job *job)
{
	const unsigned deliveries = job->session_messages
	                                ? job->session_messages
	                                : (unsigned)client->opts.conf->relay_deliveries;
	const unsigned mails = lesser(deliveries, client->limits.mails);
	unsigned rcpts = lesser(UINT_MAX, job->session_recipients);

	if (client->mails >= mails || client->rcpts >= rcpts)
		return 0;
	if (client->limits.domains && client->domains >= client->limits.domains &&
	    strcmp(client->domain, job->domain) != 0)
		return 0;
	return lesser(rcpts - client->rcpts, client->limits.rcpts);
}

/* RFC 2852 section 4: what is left of the sender's time, in whole seconds and at most nine digits;
 * below 0 when it is over. */
static long long
by_time(const struct queue_job *job)
{
	const long long left = (job->envelope.by_deadline - clock_wall()) / 1000;

	return left < -999999999 ? -999999999 : left;
}

/* Where the message does not need it, either all of a job's recipients do, or none. */
static bool
needs_smtputf8(const struct queue_job *job)
{
	return job->envelope.smtputf8 || address_is_utf8(&job->recipients[0].address);
}

bool
transaction_lacks(const struct client *client, const struct queue_job *job, struct reply *why)
{
	const struct envelope *envelope = &job->envelope;
	const unsigned offers = client->offers;
	const char *status, *what;

	if (envelope->requiretls && !(offers & OFFER_REQUIRETLS)) {
		status = "5.7.30";
		what = "the sender requires TLS all the way (REQUIRETLS), which it does not offer";
	} else if (envelope->body == BODY_BINARYMIME &&
	           (~offers & (OFFER_CHUNKING | OFFER_BINARYMIME))) {
		status = "5.6.3";
		what = "it takes no binary content; send it again encoded as base64";
	} else if (needs_smtputf8(job) && !(offers & OFFER_SMTPUTF8)) {
		status = "5.6.7";
		what = "it takes no mail with international addresses (SMTPUTF8)";
	} else if (envelope->by == BY_RETURN && !(offers & OFFER_DELIVERBY)) {
		status = "5.4.7";
		what = "it cannot promise delivery in time, as the sender wants it";
	} else if (envelope->by == BY_RETURN &&
	           (by_time(job) < 1 || by_time(job) * 1000 < client->by_least)) {
		status = "5.4.7";
		what = "too little is left of the time that the sender gave it";
	} else {
		return false;
	}
	if (why)
		client_words(why, status, "%s [%s]: %s", client->target.host, client->peer, what);
	return true;
}

static void
say_mail(struct client *client)
{
	const struct queue_job *job = client->job;
	const struct envelope *envelope = &job->envelope;
	const unsigned offers = client->offers;
	char from[ADDRESS_TEXT_SIZE], parameters[512] = "";
	const long long by = by_time(job);
	size_t len = 0;

#define ADD(...) len += (size_t)snprintf(parameters + len, sizeof parameters - len, __VA_ARGS__)
	if (offers & OFFER_SIZE)
		ADD(" SIZE=%llu", (unsigned long long)job->prefix_len + job->body_size);
	if (envelope->body == BODY_BINARYMIME)
		ADD(" BODY=BINARYMIME");
	else if (envelope->body == BODY_8BITMIME && (offers & OFFER_8BITMIME))
		ADD(" BODY=8BITMIME");
	if (needs_smtputf8(job))
		ADD(" SMTPUTF8");
	if ((offers & OFFER_DSN) && envelope->ret)
		ADD(" RET=%s", envelope->ret == RET_FULL ? "FULL" : "HDRS");
	if ((offers & OFFER_DSN) && envelope->envid[0])
		ADD(" ENVID=%s", envelope->envid);
	if ((offers & OFFER_MT_PRIORITY) && envelope->priority)
		ADD(" MT-PRIORITY=%d", envelope->priority);
	if ((offers & OFFER_DELIVERBY) && envelope->by)
		ADD(" BY=%lld;%s%s", by < 1 && envelope->by == BY_RETURN ? 1 : by,
		    envelope->by == BY_RETURN ? "R" : "N", envelope->by_trace ? "T" : "");
	if (envelope->requiretls)
		ADD(" REQUIRETLS");
	/* RFC 4954 section 5: who submitted it is not known there. */
	if (client->route.conf && client->route.conf->user[0])
		ADD(" AUTH=<>");
#undef ADD
	assert(len < sizeof parameters);
	client->mails++;
	if (strcmp(client->domain, job->domain) != 0) {
		client->domains++;
		snprintf(client->domain, sizeof client->domain, "%s", job->domain);
	}
	client_say(client, "MAIL FROM:<%s>%s\r\n", address_format(&job->from, from, sizeof from),
	           parameters);
}

static void
say_rcpt(struct client *client, const struct queue_recipient *recipient)
{
	static const char *const words[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"};
	char to[ADDRESS_TEXT_SIZE], notify[40] = "";
	const bool orcpt = (client->offers & OFFER_DSN) && recipient->orcpt[0];

	if (client->offers & OFFER_DSN)
		for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
			if (recipient->notify & 1u << i) {
				strcat(notify, notify[0] ? "," : " NOTIFY=");
				strcat(notify, words[i]);
			}
	client->rcpts++;
	client_say(client, "RCPT TO:<%s>%s%s%s\r\n",
	           address_format(&recipient->address, to, sizeof to), notify,
	           orcpt ? " ORCPT=" : "", orcpt ? recipient->orcpt : "");
}

static void
say_envelope(struct client *client)
{
	const size_t window = client->offers & OFFER_PIPELINING ? PIPELINE : 1;

	if (!client->mail_sent) {
		say_mail(client);
		client->mail_sent = true;
	}
	while (client->rcpt_sent < client->todo_count &&
	       client->rcpt_sent - client->rcpt_answered + (client->mail_answered ? 0 : 1) < window)
		say_rcpt(client, &client->job->recipients[client->todo[client->rcpt_sent++]]);
}

void
transaction_begin(struct client *client)
{
	const size_t room = transaction_room(client, client->job);

	client->todo_count = client->accepted_count = 0;
	client->mail_sent = client->mail_answered = false;
	client->rcpt_sent = client->rcpt_answered = 0;
	client->sent = 0;
	XXH3_64bits_reset(client->hash);
	for (size_t i = 0; i < client->job->recipient_count; i++) {
		client->accepted[i] = false;
		if (client->settled[i] || client->tried[i] || client->todo_count == room)
			continue;
		client->tried[i] = true;
		client->todo[client->todo_count++] = i;
	}
	if (transaction_lacks(client, client->job, &client->last)) {
		if (client->is_unproven) /* time has passed since it suited */
			client_begin_again(client);
		else
			transaction_defer_rest(client, &client->last, QUIT);
		return;
	}
	client_set_state(client, CLIENT_ENVELOPE);
	say_envelope(client);
}

static void
sink(void *arg, const uint8_t *data, size_t len)
{
	struct client *client = arg;
	conn_write(client->conn, data, len);
}

/* Ends the attempt without the end of the content: the server must not take half a message. */
static void
body_unreadable(struct client *client, const char *error)
{
	const struct queue_job *job = client->job;
	char id[QUEUE_ID_TEXT_SIZE];
	struct reply words;

	log_error(queue_id_format(&job->id, id), "body-unreadable", "offset=%llu error=\"%s\"",
	          (unsigned long long)(job->body_offset + client->sent), error);
	client_words(&words, "4.3.0", "our copy of the message could not be read");
	settle_rest(client, QUEUE_DEFERRED, &words);
	client_finish(client, DROP);
}

/* Writes content while the connection takes it; its end when all is out, and is what was written.
 * Less than CONN_OUTPUT_HIGH waits at any time, so that an early answer is read. */
static void
pump(struct client *client)
{
	struct queue_job *job = client->job;
	static uint8_t block[BLOCK]; /* one loop, one thread */

	client_set_state(client, CLIENT_BODY);
	while (client->sent < job->body_size && conn_pending(client->conn) < CONN_OUTPUT_HIGH / 2) {
		uint64_t left = job->body_size - client->sent;
		ssize_t n = pread(job->body_fd, block, left < BLOCK ? (size_t)left : BLOCK,
		                  (off_t)(job->body_offset + client->sent));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			body_unreadable(client, n ? strerror(errno) : "file too short");
			return;
		}
		XXH3_64bits_update(client->hash, block, (size_t)n);
		if (client->sent + (uint64_t)n == job->body_size &&
		    XXH3_64bits_digest(client->hash) != job->body_checksum) {
			body_unreadable(client, "not what was written");
			return;
		}
		if (client->chunk)
			sink(client, block, (size_t)n);
		else
			data_out_feed(&client->out, block, (size_t)n, sink, client);
		client->sent += (uint64_t)n;
	}
	if (client->sent == job->body_size) {
		queue_job_final(job);
		if (!client->chunk)
			data_out_end(&client->out, sink, client);
		client_set_state(client, CLIENT_FINAL);
	}
}

/* For those whom the server took. */
static void
say_content(struct client *client)
{
	const struct queue_job *job = client->job;

	client->chunk = client->offers & OFFER_CHUNKING;
	if (!client->chunk) {
		client_set_state(client, CLIENT_DATA);
		client_say(client, "DATA\r\n");
		return;
	}
	client_say(client, "BDAT %llu LAST\r\n",
	           (unsigned long long)job->prefix_len + job->body_size);
	sink(client, job->prefix, job->prefix_len);
	pump(client);
}

/* ---- replies */

static void
on_rcpt_reply(struct client *client, const struct reply *reply)
{
	size_t i = client->todo[client->rcpt_answered++];

	if (reply->code / 100 == 2) {
		client->accepted[i] = true;
		client->accepted_count++;
		memset(&client->outcomes[i].reply, 0, sizeof client->outcomes[i].reply);
		return;
	}
	/* RFC 5321 section 4.5.3.1.10: 552 from old servers means "too many recipients", to be
	 * tried again. */
	if (fate_of(reply) == QUEUE_FAILED &&
	    !(reply->code == 552 && (!reply->enhanced[0] || !strcmp(reply->enhanced, "5.5.3"))))
		settle(client, i, QUEUE_FAILED, reply);
	else
		client->outcomes[i].reply = *reply;
}

/* A reply that decides about everybody in the transaction. The client may be gone afterwards. */
static void
end_transaction(struct client *client, const struct reply *reply, enum client_farewell farewell)
{
	if (fate_of(reply) == QUEUE_FAILED)
		settle_rest(client, QUEUE_FAILED, reply);
	transaction_defer_rest(client, reply, farewell);
}

/* This transaction is over with that reply. Those whom the bounds of transaction or session kept
 * out of it come next, unless the host would have everybody later. */
static void
go_on(struct client *client, const struct reply *reply, enum client_farewell farewell)
{
	bool rest = false;

	for (size_t i = 0; i < client->job->recipient_count; i++)
		rest |= !client->settled[i] && !client->tried[i];
	if (!rest || farewell == DROP || reply->code / 100 == 4)
		transaction_defer_rest(client, reply, farewell);
	else if (farewell == STAY && transaction_room(client, client->job))
		transaction_begin(client);
	else
		client_renew(client);
}

static void
on_envelope_reply(struct client *client, const struct reply *reply)
{
	assert(client->job);
	if (!client->mail_answered) {
		if (client->is_unproven && reply->code / 100 != 2) {
			client_begin_again(client);
			return;
		}
		client->is_unproven = false;
		client->mail_answered = true;
		if (reply->code / 100 != 2) {
			end_transaction(client, reply, QUIT);
			return;
		}
	} else if (client->rcpt_answered < client->rcpt_sent) {
		on_rcpt_reply(client, reply);
	}
	if (client->rcpt_answered < client->todo_count) {
		client_set_state(client, CLIENT_ENVELOPE);
		say_envelope(client);
	} else if (client->accepted_count) {
		say_content(client);
	} else {
		go_on(client, reply, QUIT);
	}
}

/* The answer to DATA or to the whole message, for those whom the server took. The client may be
 * gone afterwards. */
static void
on_data_reply(struct client *client, enum queue_fate fate, const struct reply *reply,
              enum client_farewell farewell)
{
	assert(client->job);
	for (size_t i = 0; i < client->job->recipient_count; i++) {
		if (!client->accepted[i])
			continue;
		if (fate != QUEUE_DEFERRED)
			settle(client, i, fate, reply);
		else
			client->outcomes[i].reply = *reply;
	}
	go_on(client, reply, farewell);
}

void
transaction_on_reply(struct client *client, const struct reply *reply)
{
	const bool good = reply->code / 100 == 2;

	if (reply->code == 421 && !client->is_unproven) {
		transaction_defer_rest(client, reply, DROP);
		return;
	}
	switch (client->state) {
	case CLIENT_ENVELOPE:
		on_envelope_reply(client, reply);
		return;
	case CLIENT_DATA:
		if (reply->code == 354) {
			const struct queue_job *job = client->job;
			data_out_init(&client->out);
			data_out_feed(&client->out, job->prefix, job->prefix_len, sink, client);
			pump(client);
			return;
		}
		on_data_reply(client, fate_of(reply), reply, QUIT);
		return;
	case CLIENT_FINAL:
		if (conn_pending(client->conn) == 0) {
			on_data_reply(client, good ? QUEUE_DELIVERED : fate_of(reply), reply,
			              good ? STAY : QUIT);
			return;
		}
		/* The end is still here. */
		/* fall through */
	case CLIENT_BODY: /* an answer to a message that is not complete: refused early, or nonsense
	                   */
		on_data_reply(client, fate_of(reply), reply, DROP);
		return;
	default:
		assert(0 && "a reply to no transaction");
	}
}

void
transaction_on_drained(struct client *client)
{
	if (client->state == CLIENT_BODY)
		pump(client);
}
