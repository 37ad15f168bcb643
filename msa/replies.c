#include "msa/replies.h"

#include <assert.h>
#include <stddef.h>

/* Problem: reply texts spread over handlers drift apart, and clients, help desks and tests all
 * depend on them.
 *
 * Idea: one row per reply. A row's arguments are named beside its enumerator; session_say formats
 * it and replaces whatever is not printable ASCII, so an address quoted back can never forge a
 * second line.
 *
 * Codes follow RFC 5321, RFC 3463 (enhanced codes), RFC 4954 (AUTH), RFC 3207 (STARTTLS) and RFC
 * 6409 (submission). */

struct reply_row {
	const char *format;
	bool client_error;
};

#define SAY(name, text)   [REPLY_##name] = {text, false}
#define BLAME(name, text) [REPLY_##name] = {text, true}

static const struct reply_row rows[REPLY_NAMES] = {
    SAY(GREETING, "220 %s ESMTP %s"),
    SAY(EARLY,
        "554 5.5.1 Your mail program spoke before the greeting, closing connection; check its "
        "port and its TLS setting"),
    SAY(OVERLOAD, "421 4.3.2 %s Too many connections, try again later"),
    SAY(STOPPING, "421 4.3.2 %s Service is shutting down, try again later"),
    SAY(TIMEOUT, "421 4.4.2 %s Timeout, closing connection; send the mail again"),
    SAY(SLOW, "421 4.4.2 %s Data arrived slower than %llu octets per second, closing connection; "
              "send the mail again, by a faster connection"),
    SAY(TOO_MANY_ERRORS,
        "421 4.7.0 Too many errors, closing connection; the replies before this one say which"),
    SAY(TOO_MANY_MESSAGES,
        "421 4.7.0 Limit of %llu messages in one session reached, please reconnect"),
    SAY(TOO_MANY_LOGINS, "421 4.7.0 Too many authentication failures, closing connection; check "
                         "user name and password"),
    SAY(TOO_MANY_REFUSALS, "421 4.7.28 Sending over the limit again and again, closing connection; "
                           "wait until it resets"),
    SAY(TOO_MANY_OF_ACCOUNT,
        "421 4.7.0 Limit of %llu sessions of one account reached; close some, or try again later"),
    SAY(TOO_MANY_OF_CLIENT, "421 4.7.0 Limit of %llu sessions from one network address reached; "
                            "close some, or try again later"),
    SAY(KILLED, "421 4.7.0 Session ended by an operator, try again later"),
    SAY(SUSPENDED, "421 4.7.0 Account suspended, contact %s, code K7"),
    SAY(REMOVED, "421 4.7.0 The account has changed, please log in again"),
    SAY(HTTP, "554 5.5.1 This is a mail server, closing connection; use a mail program"),

    SAY(BARE_LF, "554 5.5.2 Line ends with a bare <LF>; it must be <CR><LF>, closing connection"),
    BLAME(LINE_TOO_LONG, "500 5.5.2 Line too long, shorten the command"),
    BLAME(UNKNOWN_VERB, "500 5.5.1 Command not recognized; HELP says which are"),
    BLAME(BAD_OCTETS,
          "500 5.5.2 Command holds octets that no command may hold; use printable ones"),
    BLAME(BAD_ARGUMENTS, "501 5.5.4 Syntax error in parameters or arguments; check the address, or "
                         "update the mail program"),
    BLAME(BAD_SEQUENCE,
          "503 5.5.1 Bad sequence of commands; use EHLO, AUTH, MAIL, RCPT, DATA in this order"),
    BLAME(EHLO_FIRST, "503 5.5.1 Send EHLO first"),
    BLAME(UNKNOWN_PARAMETER, "555 5.5.4 Parameter not recognized; use those that EHLO offers"),
    BLAME(TLS_FIRST,
          "530 5.7.0 Must issue a STARTTLS command first; set the mail program to use STARTTLS"),
    BLAME(AUTH_FIRST, "530 5.7.0 Authentication required; set user name and password for sending "
                      "in the mail program"),

    SAY(HELO, "250 %s"),
    SAY(EHLO_FIRST_LINE, "250-%s"),
    SAY(EHLO_LINE, "250-%s"),
    SAY(EHLO_SIZE, "250-SIZE %llu"),
    SAY(EHLO_DELIVERBY, "250-DELIVERBY %llu"),
    SAY(EHLO_FUTURERELEASE, "250-FUTURERELEASE %llu %s"),
    SAY(EHLO_LIMITS, "250-LIMITS RCPTMAX=%llu MAILMAX=%llu"),
    SAY(EHLO_AUTH, "250-AUTH %s"),
    SAY(EHLO_LAST, "250 ENHANCEDSTATUSCODES"),

    SAY(TLS_READY, "220 2.0.0 Ready to start TLS"),
    BLAME(TLS_ACTIVE, "503 5.5.1 TLS is already active, go on with EHLO"),

    BLAME(AUTH_NEEDS_TLS,
          "538 5.7.11 Encryption required for authentication, issue STARTTLS first"),
    BLAME(AUTH_TWICE, "503 5.5.1 Already authenticated, go on with MAIL"),
    SAY(AUTH_CHALLENGE, "334 %s"),
    BLAME(AUTH_CANCELLED, "501 5.7.0 Authentication cancelled; use AUTH to begin again"),
    BLAME(AUTH_BASE64, "501 5.5.2 Invalid base64; check that it is whole, with its padding"),
    BLAME(
        AUTH_TOO_LONG,
        "500 5.5.6 Authentication exchange line is too long, shorten it or use another mechanism"),
    SAY(AUTH_OK, "235 2.7.0 Authentication successful"),
    SAY(AUTH_REFUSED, "535 5.7.8 Authentication credentials invalid; check user name and password"),
    SAY(AUTH_SUSPENDED, "525 5.7.13 Account suspended, contact %s, code K7"),
    BLAME(AUTH_MECHANISM, "504 5.5.4 Unrecognized authentication type; use one that EHLO offers"),
    SAY(AUTH_UNAVAILABLE, "454 4.7.0 Temporary authentication failure, try again later"),

    SAY(SENDER_OK, "250 2.1.0 Sender OK"),
    SAY(SENDER_OK_PRIORITY, "250 2.3.6 %d is the new priority, the highest of this account"),
    BLAME(SENDER_SYNTAX,
          "501 5.1.7 Bad sender address syntax; check your own address in the mail program"),
    BLAME(SENDER_UNQUALIFIED,
          "501 5.1.7 Sender address needs a fully qualified domain; write it as name@example.org"),
    BLAME(SENDER_NOT_OWNED,
          "553 5.7.1 <%s>: Sender address not owned by this account; choose your own, or ask "
          "your provider to add it"),
    BLAME(ADDRESS_NON_ASCII,
          "553 5.6.7 Internationalized address: MAIL must say SMTPUTF8, or use an ASCII address"),
    BLAME(HELD_TOO_LONG, "501 5.5.4 A message is held for at most %llu seconds; ask for less"),
    BLAME(BY_TOO_SOON,
          "555 5.5.4 BY needs at least %llu seconds to return a message; ask for more"),
    BLAME(BY_BEFORE_RELEASE, "501 5.5.4 BY ends before the message is released; ask for more"),
    BLAME(TOO_BIG, "552 5.3.4 Message size exceeds limit of %llu octets; send less in one message"),

    SAY(RECIPIENT_OK, "250 2.1.5 Recipient OK"),
    BLAME(RECIPIENT_SYNTAX, "501 5.1.3 Bad recipient address syntax; check how it is written"),
    BLAME(
        RECIPIENT_UNQUALIFIED,
        "501 5.1.3 Recipient address needs a fully qualified domain; write it as name@example.org"),
    SAY(TOO_MANY_RECIPIENTS,
        "452 4.5.3 Too many recipients, limit %llu; send to the others in another message"),
    SAY(QUOTA, "450 4.7.1 Daily recipient limit %u reached; resets %s; code Q1"),
    SAY(QUOTA_MESSAGES, "450 4.7.1 Daily message limit %u reached; resets %s; code Q2"),
    SAY(TOO_FAST, "450 4.7.1 Sending too fast; retry after %llu s; code B1"),
    SAY(QUEUE_FULL, "452 4.3.1 Insufficient storage, try again later"),
    SAY(QUEUE_UNAVAILABLE, "451 4.3.0 Queue unavailable, try again later"),

    SAY(DATA_GO, "354 End data with <CR><LF>.<CR><LF>"),
    BLAME(NO_RECIPIENTS, "554 5.5.1 No valid recipients; check those that were refused"),
    BLAME(BINARY_BY_DATA, "503 5.5.1 BODY=BINARYMIME cannot go by DATA; use BDAT"),
    SAY(CHUNK_OK, "250 2.0.0 %llu octets received"),
    SAY(CHUNK_DISCARDED, "503 5.5.1 Chunk dropped, as one before it was refused; send RSET"),
    SAY(CHUNK_SIZE, "501 5.5.4 No size to read, closing connection; send BDAT size [LAST]"),
    SAY(CHUNK_TOO_BIG, "552 5.3.4 Message size exceeds limit of %llu octets by far, closing "
                       "connection; send less"),
    BLAME(NUL, "554 5.6.0 Message holds a NUL octet, send it encoded as base64"),
    BLAME(BARE_LINE_END,
          "554 5.6.0 Message holds a bare <CR> or <LF>; end every line with <CR><LF>"),
    BLAME(LONG_LINE, "554 5.6.0 Message holds a line of more than %d octets; send it as "
                     "quoted-printable or base64, fold header fields"),
    BLAME(HEADER_TOO_BIG,
          "552 5.3.4 Header section exceeds limit of %llu octets; shorten its fields"),
    BLAME(LOOP, "554 5.4.6 Too many Received fields, this looks like a mail loop; check who "
                "forwards to whom"),
    BLAME(BAD_FROM,
          "554 5.6.0 From or Sender field is malformed or stands twice; write one, with addresses"),
    BLAME(AUTHOR_NON_ASCII, "550 5.6.7 Internationalized address in From or Sender: MAIL must say "
                            "SMTPUTF8, or use an ASCII address there"),
    BLAME(AUTHOR_NOT_OWNED,
          "550 5.7.1 <%s>: From/Sender address not owned by this account; choose your own, or "
          "ask your provider to add it"),
    SAY(QUEUED, "250 2.0.0 Queued as %s"),
    SAY(QUEUED_PACED, "250 2.0.0 Queued as %s; paced, expected start within %llu min"),
    SAY(QUEUED_HELD, "250 2.0.0 Queued as %s; held for you until %.40s"),

    SAY(OK, "250 2.0.0 OK"),
    SAY(BYE, "221 2.0.0 Bye"),
    SAY(VRFY, "252 2.5.0 Cannot verify, but will try to deliver"),
    BLAME(EXPN, "502 5.5.1 EXPN is not implemented; write to the list itself"),
    SAY(HELP_FIRST_LINE,
        "214-2.0.0 EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT"),
    SAY(HELP_LAST, "214 2.0.0 See RFC 5321 and RFC 6409"),
};

const char *
reply_format(enum reply_name name)
{
	assert(name < REPLY_NAMES && rows[name].format != NULL);
	return rows[name].format;
}

bool
reply_is_client_error(enum reply_name name)
{
	assert(name < REPLY_NAMES);
	return rows[name].client_error;
}
