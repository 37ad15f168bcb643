#include "msa/command.h"

/* BDAT (RFC 3030): content in chunks of announced size, which go the way of DATA's content but for
 * the dots.
 *
 * Problem: what follows the command is content whatever we think of the command, and a client that
 * pipelines has sent the next chunks before it hears of a refusal. Taken for commands they would be
 * commands written by whoever wrote the mail. Idea: a refusal is said at once, and as many octets
 * as were announced are dropped (session->discard); where the size cannot be read, or is beyond
 * what we want to read, the session ends. A refused chunk spoils its transaction: the ones behind
 * it are dropped and said to be, up to the last one, or a message would be accepted with a hole in
 * it.
 *
 * The limit of size counts what is announced, so no octet of what cannot be accepted is stored. */

static enum handled
drop(struct session *session, const struct command_bdat *bdat)
{
	session->discard = bdat->size;
	if (bdat->last && session->state == SESSION_CHUNKS)
		session_reset(session);
	return HANDLED_REPLY;
}

enum handled
cmd_bdat_refused(struct session *session, const char *args, size_t len)
{
	const uint64_t limit = session->msa->conf->message_size;
	struct command_bdat bdat;
	enum command_error error;

	if (!command_parse_bdat(args, len, &bdat, &error) ||
	    bdat.size / SESSION_OVERSIZE_READ > limit)
		return HANDLED_HANG_UP;
	return drop(session, &bdat);
}

enum handled
cmd_bdat(struct session *session, const char *args, size_t len)
{
	struct transaction *transaction = &session->transaction;
	const uint64_t limit = transaction->conf->message_size;
	struct command_bdat bdat;
	enum command_error error;

	if (!command_parse_bdat(args, len, &bdat, &error)) {
		session_say(session, REPLY_CHUNK_SIZE);
		return HANDLED_HANG_UP;
	}
	transaction->announced = bdat.size > UINT64_MAX - transaction->announced
	                             ? UINT64_MAX
	                             : transaction->announced + bdat.size;
	if (transaction->announced / SESSION_OVERSIZE_READ > limit) {
		session_say(session, REPLY_CHUNK_TOO_BIG, (unsigned long long)limit);
		return HANDLED_HANG_UP;
	}
	if (transaction->recipient_count == 0) {
		session_say(session,
		            transaction->refused > 0 ? REPLY_NO_RECIPIENTS : REPLY_BAD_SEQUENCE);
		if (!bdat.last) { /* no recipient that comes behind it may get the rest */
			transaction->spoiled = true;
			session->state = SESSION_CHUNKS;
		}
		return drop(session, &bdat);
	}
	if (session->state == SESSION_RCPT) {
		cmd_data_begin(session, transaction->mail.envelope.body == BODY_BINARYMIME
		                            ? DATA_BINARY
		                            : DATA_CHUNKED);
		transaction->by_chunks = true;
		session->state = SESSION_CHUNKS;
	}
	if (transaction->spoiled)
		session_say(session, REPLY_CHUNK_DISCARDED);
	else if (error != COMMAND_OK)
		session_say(session, REPLY_BAD_ARGUMENTS);
	else if (transaction->announced > limit)
		session_say(session, REPLY_TOO_BIG, (unsigned long long)limit);
	else {
		transaction->is_last = bdat.last;
		transaction->chunk = transaction->chunk_left = bdat.size;
		session->state = SESSION_DATA;
		return bdat.size == 0 ? cmd_data_end(session) : HANDLED_REPLY;
	}
	transaction->spoiled = true;
	return drop(session, &bdat);
}

enum handled
cmd_bdat_end(struct session *session)
{
	struct transaction *transaction = &session->transaction;

	session->state = SESSION_CHUNKS;
	transaction->spoiled = transaction->over_size;
	if (transaction->spoiled)
		session_say(session, REPLY_TOO_BIG,
		            (unsigned long long)transaction->conf->message_size);
	else
		session_say(session, REPLY_CHUNK_OK, (unsigned long long)transaction->chunk);
	return HANDLED_REPLY;
}
