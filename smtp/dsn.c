#include "smtp/dsn.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "core/text.h"
#include "smtp/command.h"
#include "smtp/envelope.h"
#include "smtp/idna.h"

/* Three parts (RFC 6522): words for a tired person, the fields of RFC 3464 for programs, and the
 * header section of the mail, by which its sender knows it again.
 *
 * The body is returned to who asked for it (RET=FULL) only, and only of what failed: its sender has
 * it, and the fewer copies of private mail travel, the better. Auto-Submitted and the null
 * reverse-path keep other machines from answering (RFC 3834). Status and action agree (RFC 3464
 * section 2.3.4): a recipient that failed after temporary replies is 4.4.7, delivery time expired,
 * and the last reply stays in Diagnostic-Code.
 *
 * Whoever has an ASCII address is told by means that every server passes on and every mail program
 * reads: international addresses in the fields are written in ASCII (RFC 6533 section 3), and a
 * header section in UTF-8 comes back in base64. Only the words are UTF-8, in the body, where each
 * name stands as people write it. Whoever has an international address gets all of it as it is
 * (message/global-*), which needs SMTPUTF8, as his address does anyway.
 *
 * Boundaries are made of our own queue id, which no stranger can foresee, so no mail
 * that is returned can end its part early. */

#define REPLY_SHOWN 255

static bool
is_enhanced(const char *text, size_t *len)
{
	size_t n = 0, digits = 0;

	if ((text[0] != '2' && text[0] != '4' && text[0] != '5') || text[1] != '.')
		return false;
	for (n = 2; isdigit((unsigned char)text[n]); n++)
		digits++;
	if (digits == 0 || digits > 3 || text[n] != '.')
		return false;
	for (digits = 0, n++; isdigit((unsigned char)text[n]); n++)
		digits++;
	if (digits == 0 || digits > 3 || (text[n] != ' ' && text[n] != '\0'))
		return false;
	*len = n;
	return true;
}

/* Whether a reply begins with an SMTP code, which makes it a server's. */
static bool
is_smtp(const char *reply)
{
	return reply[0] >= '2' && reply[0] <= '5' && isdigit((unsigned char)reply[1]) &&
	       isdigit((unsigned char)reply[2]) && (reply[3] == ' ' || reply[3] == '\0');
}

const char *
dsn_status(const char *reply, enum dsn_action action, char out[DSN_STATUS_SIZE])
{
	const char *text = is_smtp(reply) && reply[3] == ' ' ? reply + 4 : reply;
	char class = action == DSN_RELAYED               ? '2'
	             : action == DSN_DELAYED             ? '4'
	             : is_smtp(reply) && reply[0] == '5' ? '5'
	                                                 : '\0';
	size_t len;

	if (is_enhanced(text, &len) && (class == '\0' ? text[0] != '2' : text[0] == class))
		snprintf(out, DSN_STATUS_SIZE, "%.*s", (int)len, text);
	else if (is_smtp(reply) || action != DSN_DELAYED)
		snprintf(out, DSN_STATUS_SIZE, "%c.0.0", class == '\0' ? '5' : class);
	else
		snprintf(out, DSN_STATUS_SIZE, "4.4.1");
	return out;
}

/* One line's worth of a reply; it is printable already where it was parsed, and is made so here for
 * whatever is not. */
static void
add_reply(const char *reply, struct buf *out)
{
	for (size_t i = 0; i < REPLY_SHOWN && reply[i] != '\0'; i++)
		buf_add_char(out, reply[i] >= ' ' && reply[i] <= '~' ? reply[i] : '?');
}

static void
add_words(const struct dsn *dsn, struct buf *out)
{
	char domain[IDNA_UNICODE_SIZE];

	switch (dsn->action) {
	case DSN_FAILED:
		buf_add_str(
		    out,
		    "Your mail could not be delivered to the recipients below. It will not be "
		    "tried again;\r\nfor these recipients, send it once more when the cause is "
		    "mended.\r\n");
		break;
	case DSN_DELAYED:
		buf_printf(
		    out,
		    "Your mail has not been delivered to the recipients below yet. There is "
		    "nothing you need\r\nto do: it is tried again and again until\r\n%s.\r\n",
		    dsn->retry_until);
		break;
	case DSN_RELAYED:
		buf_add_str(
		    out,
		    "You asked to be told when your mail is delivered. For the recipients below it "
		    "was handed\r\nto a mail server that confirms no deliveries, so this is the "
		    "last that you hear of it,\r\nunless it fails there.\r\n");
		break;
	case DSN_ACTIONS:
		assert(0 && "no action");
	}
	for (size_t i = 0; i < dsn->count; i++) {
		const struct dsn_recipient *recipient = &dsn->recipients[i];

		buf_printf(out, "\r\n  %s@%s\r\n    ", recipient->address.local,
		           idna_to_unicode(recipient->address.domain, domain));
		if (recipient->expired)
			buf_add_str(
			    out,
			    "could not be reached in all that time; the last answer was:\r\n    ");
		add_reply(recipient->reply, out);
		buf_add_str(out, "\r\n");
	}
	buf_printf(out, "\r\nThe mail was handed in on %s\r\nand is known here as %s.\r\n",
	           dsn->arrival, dsn->original);
}

/* xtext (RFC 3461 section 4) decoded, for one line: a field must not end early. */
static void
add_xtext(const char *text, struct buf *out)
{
	static const char digits[] = "0123456789ABCDEF";

	for (; text[0] != '\0'; text++) {
		const char *high = text[0] == '+' && text[1] ? strchr(digits, text[1]) : NULL;
		const char *low = high && text[2] ? strchr(digits, text[2]) : NULL;
		char c = text[0];

		if (low) {
			c = (char)((high - digits) << 4 | (low - digits));
			text += 2;
		}
		buf_add_char(out, c >= ' ' && c <= '~' ? c : '?');
	}
}

static void
add_original_recipient(const char *orcpt, struct buf *out)
{
	const char *address = strchr(orcpt, ';');

	if (!address)
		return;
	buf_add_str(out, "Original-Recipient: ");
	buf_add(out, orcpt, (size_t)(address - orcpt));
	buf_add_str(out, "; ");
	add_xtext(address + 1, out);
	buf_add_str(out, "\r\n");
}

static void
add_final_recipient(const struct dsn *dsn, const struct address *address, struct buf *out)
{
	char text[ADDRESS_TEXT_SIZE], ascii[8 * sizeof(text)];

	address_format(address, text, sizeof(text));
	if (address_is_utf8(address) && !address_is_utf8(&dsn->to) &&
	    envelope_utf8_xtext(text, strlen(text), " +=\\", ascii, sizeof(ascii)))
		buf_printf(out, "Final-Recipient: utf-8; %s\r\n", ascii);
	else
		buf_printf(out, "Final-Recipient: %s; %s\r\n",
		           address_is_utf8(address) ? "utf-8" : "rfc822", text);
}

static void
add_fields(const struct dsn *dsn, struct buf *out)
{
	static const char *const actions[] = {"failed", "delayed", "relayed"};
	char status[DSN_STATUS_SIZE];

	if (dsn->envid && dsn->envid[0]) {
		buf_add_str(out, "Original-Envelope-Id: ");
		add_xtext(dsn->envid, out);
		buf_add_str(out, "\r\n");
	}
	buf_printf(out, "Reporting-MTA: dns; %s\r\nArrival-Date: %s\r\n", dsn->hostname,
	           dsn->arrival);
	for (size_t i = 0; i < dsn->count; i++) {
		const struct dsn_recipient *recipient = &dsn->recipients[i];

		buf_add_str(out, "\r\n");
		if (recipient->orcpt)
			add_original_recipient(recipient->orcpt, out);
		add_final_recipient(dsn, &recipient->address, out);
		buf_printf(out, "Action: %s\r\nStatus: %s\r\n", actions[dsn->action],
		           recipient->expired ? "4.4.7"
		                              : dsn_status(recipient->reply, dsn->action, status));
		buf_add_str(out, is_smtp(recipient->reply) ? "Diagnostic-Code: smtp; "
		                                           : "Diagnostic-Code: x-sekisho; ");
		add_reply(recipient->reply, out);
		buf_printf(out, "\r\nLast-Attempt-Date: %s\r\n", dsn->date);
		if (dsn->action == DSN_DELAYED)
			buf_printf(out, "Will-Retry-Until: %s\r\n", dsn->retry_until);
	}
}

/* The octets of the header section, at most max of them and whole lines only. */
static size_t
section(const uint8_t *data, size_t len, size_t max)
{
	size_t end = 0;

	for (size_t i = 0; i + 1 < len && i + 2 <= max; i++) {
		if (data[i] != '\r' || data[i + 1] != '\n')
			continue;
		if (i == end)
			return end;
		end = i + 2;
	}
	return end;
}

static void
add_base64(const uint8_t *data, size_t len, struct buf *out)
{
	char line[COMMAND_BASE64_SIZE(57)];

	for (size_t n; len > 0; data += n, len -= n) {
		n = len < 57 ? len : 57;
		command_base64_encode(data, n, line);
		buf_printf(out, "%s\r\n", line);
	}
}

static void
begin_part(const struct dsn *dsn, const char *type, const char *encoding, struct buf *out)
{
	buf_printf(out, "%s--=_%s\r\nContent-Type: %s\r\n", out->len > 0 ? "\r\n" : "", dsn->id,
	           type);
	if (encoding)
		buf_printf(out, "Content-Transfer-Encoding: %s\r\n", encoding);
	buf_add_str(out, "\r\n");
}

static void
add_parts(const struct dsn *dsn, struct buf *out)
{
	const size_t head =
	    dsn->is_whole ? dsn->head_len : section(dsn->head, dsn->head_len, DSN_HEADER_MAX);
	const bool global = address_is_utf8(&dsn->to);
	const bool head_8bit = !text_is_7bit(dsn->head, head),
	           head_utf8 = head_8bit && dsn->smtputf8;
	struct buf words;

	buf_init(&words);
	add_words(dsn, &words);
	if (!text_is_7bit(words.data, words.len))
		begin_part(dsn, "text/plain; charset=utf-8", "8bit", out);
	else
		begin_part(dsn, "text/plain; charset=us-ascii", NULL, out);
	buf_add(out, words.data, words.len);
	buf_clear(&words);
	if (global)
		begin_part(dsn, "message/global-delivery-status", "8bit", out);
	else
		begin_part(dsn, "message/delivery-status", NULL, out);
	add_fields(dsn, out);
	begin_part(dsn,
	           dsn->is_whole ? head_utf8 ? "message/global" : "message/rfc822"
	           : head_utf8   ? "message/global-headers"
	                         : "text/rfc822-headers",
	           head_utf8 && !global ? "base64"
	           : head_8bit          ? "8bit"
	                                : "7bit",
	           out);
	if (head_utf8 && !global)
		add_base64(dsn->head, head, out);
	else
		buf_add(out, dsn->head, head);
	buf_printf(out, "\r\n--=_%s--\r\n", dsn->id);
}

bool
dsn_compose(const struct dsn *dsn, struct buf *out)
{
	static const char *const subjects[] = {"Undelivered mail",
	                                       "Delayed mail (still being tried)",
	                                       "Mail handed on, without confirmation"};
	char to[ADDRESS_TEXT_SIZE];
	struct buf parts;
	bool parts_8bit;

	assert(dsn->count > 0 && !address_is_null(&dsn->to));
	assert(!dsn->is_whole || dsn->head_len <= DSN_WHOLE_MAX);
	buf_init(&parts);
	add_parts(dsn, &parts);
	parts_8bit = !text_is_7bit(parts.data, parts.len);
	address_format(&dsn->to, to, sizeof(to));
	buf_printf(out,
	           "Received: by %s id %s;\r\n\t%s\r\n"
	           "From: Mail Delivery System <MAILER-DAEMON@%s>\r\n"
	           "To: <%s>\r\n"
	           "Subject: %s\r\n"
	           "Date: %s\r\n"
	           "Message-ID: <%s@%s>\r\n"
	           "Auto-Submitted: auto-replied\r\n"
	           "MIME-Version: 1.0\r\n"
	           "Content-Type: multipart/report; report-type=delivery-status;\r\n"
	           "\tboundary=\"=_%s\"\r\n"
	           "Content-Transfer-Encoding: %s\r\n"
	           "\r\n",
	           dsn->hostname, dsn->id, dsn->date, dsn->hostname, to, subjects[dsn->action],
	           dsn->date, dsn->id, dsn->hostname, dsn->id, parts_8bit ? "8bit" : "7bit");
	buf_add(out, parts.data, parts.len);
	buf_clear(&parts);
	return parts_8bit;
}
