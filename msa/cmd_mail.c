#include "msa/command.h"

#include <inttypes.h>

#include "core/log.h"

/* MAIL opens a transaction. The envelope sender must be the account's own, so that bounces and
 * blame go where they belong; the null path is allowed, because notices and disposition
 * notifications need it, and the header From is checked all the same. */

static enum reply_name
address_reply(enum address_error why)
{
	switch (why) {
	case ADDRESS_UNQUALIFIED:
		return REPLY_SENDER_UNQUALIFIED;
	case ADDRESS_NON_ASCII:
		return REPLY_ADDRESS_NON_ASCII;
	default:
		return REPLY_SENDER_SYNTAX;
	}
}

/* Otherwise the refusal was said. */
static bool
times_are_possible(struct session *session, const struct envelope *envelope, msec_t now)
{
	const msec_t longest = session->msa->conf->future_release;

	if (envelope->hold_until - now > longest)
		session_say(session, REPLY_HELD_TOO_LONG, (unsigned long long)longest / 1000);
	else if (envelope->by == BY_RETURN && envelope->by_deadline - now < CMD_MAIL_BY_MIN * 1000)
		session_say(session, REPLY_BY_TOO_SOON, (unsigned long long)CMD_MAIL_BY_MIN);
	else if (envelope->by == BY_RETURN && envelope->by_deadline <= envelope->hold_until)
		session_say(session, REPLY_BY_BEFORE_RELEASE);
	else
		return true;
	return false;
}

/* RFC 6710 section 5: who may ask for how much is the server's to say, and the reply tells. */
static void
clamp_priority(const struct session *session, struct envelope *envelope)
{
	const int highest = (int)conf_class(session->msa->conf, session->class)->priority;

	if (envelope->priority > highest)
		envelope->priority = highest;
}

enum handled
cmd_mail(struct session *session, const char *args, size_t len)
{
	const struct conf *conf = session->msa->conf;
	struct transaction *transaction = &session->transaction;
	struct command_mail *mail = &transaction->mail;
	const struct command_opts opts = command_opts(session);
	enum address_error why = ADDRESS_OK;
	char text[ADDRESS_TEXT_SIZE];

	if (session->messages >= conf->messages) {
		log_info(session->id, "refused", "rule=messages account=%s limit=%" PRIu64,
		         session->account, conf->messages);
		session_say(session, REPLY_TOO_MANY_MESSAGES, (unsigned long long)conf->messages);
		return HANDLED_HANG_UP;
	}
	switch (command_parse_mail(args, len, &opts, mail, &why)) {
	case COMMAND_OK:
		break;
	case COMMAND_BAD_ADDRESS:
		session_say(session, address_reply(why));
		return HANDLED_REPLY;
	case COMMAND_UNKNOWN_PARAM:
		session_say(session, REPLY_UNKNOWN_PARAMETER);
		return HANDLED_REPLY;
	default:
		session_say(session, REPLY_BAD_ARGUMENTS);
		return HANDLED_REPLY;
	}
	if (!address_is_null(&mail->from) && !session_owns(session, &mail->from)) {
		session_say(session, REPLY_SENDER_NOT_OWNED,
		            address_format(&mail->from, text, sizeof(text)));
		return HANDLED_REPLY;
	}
	if (mail->has_size && mail->size > conf->message_size) {
		session_say(session, REPLY_TOO_BIG, (unsigned long long)conf->message_size);
		return HANDLED_REPLY;
	}
	if (!times_are_possible(session, &mail->envelope, opts.now))
		return HANDLED_REPLY;
	const int asked = mail->envelope.priority;
	clamp_priority(session, &mail->envelope);
	transaction->arena = arena_new();
	transaction->conf = conf_ref(conf);
	transaction->submission =
	    queue_submission_new(session->msa->queue, session->account, session->class);
	if (mail->has_size)
		queue_submission_announce(transaction->submission, mail->size);
	queue_id_format(queue_submission_id(transaction->submission), transaction->id);
	session->state = SESSION_MAIL;
	if (mail->envelope.priority != asked)
		session_say(session, REPLY_SENDER_OK_PRIORITY, mail->envelope.priority);
	else
		session_say(session, REPLY_SENDER_OK);
	return HANDLED_REPLY;
}
