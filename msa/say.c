#include "msa/session.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/log.h"
#include "core/text.h"

/* The one place that turns a row of the reply table into octets. UTF-8 is for clients that said
 * SMTPUTF8 (RFC 6531 section 3.7.4.1). */

void
session_say(struct session *session, enum reply_name name, ...)
{
	char line[COMMAND_AUTH_MAX + 64];
	va_list ap;

	va_start(ap, name);
	int n = vsnprintf(line, sizeof(line), reply_format(name), ap);
	va_end(ap);
	assert(n > 0 && (size_t)n < sizeof(line));
	for (size_t i = 0, len; i < (size_t)n; i += len) {
		len = text_char(line + i, (size_t)n - i);
		if (len == 0 || (len > 1 && !session->transaction.mail.envelope.smtputf8)) {
			line[i] = '?';
			len = 1;
		}
	}
	buf_add(&session->out, line, (size_t)n);
	buf_add(&session->out, "\r\n", 2);
	if (reply_is_client_error(name)) {
		session->errors++;
		log_info(session->id, "refused", "reply=\"%s\"",
		         log_text(line, line, sizeof(line)));
	}
}

void
session_say_verdict(struct session *session, enum queue_verdict verdict,
                    const struct queue_quota *quota)
{
	char when[CLOCK_RFC3339_SIZE];

	assert(verdict != QUEUE_OK);
	session->over_limit += verdict == QUEUE_OVER || verdict == QUEUE_TOO_FAST;
	switch (verdict) {
	case QUEUE_OVER:
		assert(quota != NULL);
		clock_rfc3339(quota->reset, when);
		log_info(session->id, "refused",
		         "rule=%s account=%s limit=%u used=%u reserved=%u resets=%s",
		         quota->meter == QUEUE_MESSAGES ? "Q2" : "Q1", session->account,
		         quota->limit, quota->used, quota->reserved, when);
		session_say(session,
		            quota->meter == QUEUE_MESSAGES ? REPLY_QUOTA_MESSAGES : REPLY_QUOTA,
		            quota->limit, when);
		break;
	case QUEUE_TOO_FAST: {
		assert(quota != NULL);
		const msec_t wait = quota->reset - clock_wall();
		const unsigned long long seconds =
		    wait > 0 ? (unsigned long long)(wait + 999) / 1000 : 1;
		log_info(session->id, "refused", "rule=B1 account=%s retry_s=%llu",
		         session->account, seconds);
		session_say(session, REPLY_TOO_FAST, seconds);
		break;
	}
	case QUEUE_FULL:
		log_warn(session->id, "refused", "rule=queue-full account=%s", session->account);
		session_say(session, REPLY_QUEUE_FULL);
		break;
	default:
		log_warn(session->id, "refused", "rule=queue-unavailable account=%s",
		         session->account);
		session_say(session, REPLY_QUEUE_UNAVAILABLE);
		break;
	}
}
