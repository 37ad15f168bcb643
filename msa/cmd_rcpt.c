#include "msa/command.h"

#include <inttypes.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"

/* RCPT reserves one recipient of the account's quota before it says 250: the queue's word, not
 * ours. The next command is read only after that word came, so replies keep their order and at most
 * one reservation of a session is under way.
 *
 * A client that does not hear that the account is over its limit is let go after OVER_LIMIT_MAX
 * refusals, but not while recipients of its message were accepted: they are to get it. */

#define OVER_LIMIT_MAX 20

static enum reply_name
address_reply(enum address_error why)
{
	switch (why) {
	case ADDRESS_UNQUALIFIED:
		return REPLY_RECIPIENT_UNQUALIFIED;
	case ADDRESS_NON_ASCII:
		return REPLY_ADDRESS_NON_ASCII;
	default:
		return REPLY_RECIPIENT_SYNTAX;
	}
}

static size_t
octets(const struct envelope_recipient *recipient)
{
	return strlen(recipient->address.local) + strlen(recipient->address.domain) +
	       strlen(recipient->orcpt) + QUEUE_RECIPIENT_OCTETS;
}

static void
keep(struct transaction *transaction)
{
	if (transaction->recipient_count == transaction->recipient_room) {
		transaction->recipient_room =
		    transaction->recipient_room == 0 ? 4 : transaction->recipient_room * 2;
		transaction->recipients =
		    xreallocarray(transaction->recipients, transaction->recipient_room,
		                  sizeof(*transaction->recipients));
	}
	transaction->pending.orcpt = arena_strdup(transaction->arena, transaction->pending.orcpt);
	transaction->recipient_octets += octets(&transaction->pending);
	transaction->recipients[transaction->recipient_count++] = transaction->pending;
}

static void
on_verdict(void *arg, enum queue_verdict verdict, const struct queue_quota *quota)
{
	struct session *session = arg;
	struct transaction *transaction = &session->transaction;

	if (verdict == QUEUE_OK) {
		keep(transaction);
		session->state = SESSION_RCPT;
		session_say(session, REPLY_RECIPIENT_OK);
	} else {
		transaction->refused++;
		session_say_verdict(session, verdict, quota);
		if (session->over_limit >= OVER_LIMIT_MAX && transaction->recipient_count == 0) {
			log_info(session->id, "refused", "rule=over_limit account=%s refusals=%u",
			         session->account, session->over_limit);
			session_say(session, REPLY_TOO_MANY_REFUSALS);
			session_done(session, HANDLED_HANG_UP);
			return;
		}
	}
	session_done(session, HANDLED_REPLY);
}

static enum handled
refuse(struct session *session, enum reply_name name)
{
	session->transaction.refused++;
	session_say(session, name);
	return HANDLED_REPLY;
}

enum handled
cmd_rcpt(struct session *session, const char *args, size_t len)
{
	const struct conf *conf = session->msa->conf;
	struct transaction *transaction = &session->transaction;
	const struct command_opts opts = command_opts(session);
	enum address_error why = ADDRESS_OK;

	switch (command_parse_rcpt(args, len, &opts, &transaction->pending,
	                           transaction->pending_orcpt, &why)) {
	case COMMAND_OK:
		break;
	case COMMAND_BAD_ADDRESS:
		return refuse(session, address_reply(why));
	case COMMAND_UNKNOWN_PARAM:
		return refuse(session, REPLY_UNKNOWN_PARAMETER);
	default:
		return refuse(session, REPLY_BAD_ARGUMENTS);
	}
	if (transaction->recipient_count >= conf->recipients ||
	    transaction->recipient_count >= QUEUE_RECIPIENTS_MAX ||
	    transaction->recipient_octets + octets(&transaction->pending) >
	        QUEUE_RECIPIENTS_OCTETS) {
		const uint64_t limit = transaction->recipient_count < conf->recipients
		                           ? transaction->recipient_count
		                           : conf->recipients;
		log_info(session->id, "refused", "rule=recipients account=%s limit=%" PRIu64,
		         session->account, limit);
		transaction->refused++;
		session_say(session, REPLY_TOO_MANY_RECIPIENTS, (unsigned long long)limit);
		return HANDLED_REPLY;
	}
	queue_submission_reserve(transaction->submission, on_verdict, session);
	return HANDLED_LATER;
}
