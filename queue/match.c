#include "queue/match.h"

#include <ctype.h>
#include <string.h>

/* An address or a domain, as the selector was given. */
static bool
is_party(const char *wanted, const struct address *address)
{
	const char *at = strrchr(wanted, '@');
	struct address whole;

	if (strcmp(wanted, "<>") == 0)
		return address_is_null(address);
	if (at == NULL)
		return strcmp(wanted, address->domain) == 0;
	return strcmp(at + 1, address->domain) == 0 &&
	       address_parse(wanted, strlen(wanted), &whole) == ADDRESS_OK &&
	       address_equal(&whole, address);
}

/* Three digits are the code that it begins with. */
static bool
is_reply(const char *wanted, const char *reply)
{
	const size_t len = strlen(wanted);

	if (len == 3 && strspn(wanted, "0123456789") == len)
		return strncmp(reply, wanted, len) == 0 && !isdigit((unsigned char)reply[len]);
	return strcasestr(reply, wanted) != NULL;
}

static bool
is_at(const char *wanted, const char *domain, match_site *site, void *arg)
{
	const char *own, *named;

	if (strcmp(wanted, domain) == 0)
		return true;
	own = site(arg, domain);
	named = site(arg, wanted);
	return own && strcmp(own, named ? named : wanted) == 0;
}

bool
match_message(const struct queue_selector *selector, const struct store_message *message,
              msec_t now)
{
	const msec_t age = now - message->created;
	const uint64_t size = message->body.size; /* lists do not load what stands before it */

	return (!selector->has_message || queue_id_equal(&selector->message, &message->id)) &&
	       (!selector->account[0] || strcmp(selector->account, message->account) == 0) &&
	       (!selector->sender[0] || is_party(selector->sender, &message->from)) &&
	       (!selector->lanes || (selector->lanes & (1u << message->lane))) &&
	       (!selector->older || age > selector->older) &&
	       (!selector->younger || age < selector->younger) &&
	       (!selector->larger || size > selector->larger) &&
	       (!selector->smaller || size < selector->smaller);
}

bool
match_recipient(const struct queue_selector *selector, const struct store_recipient *recipient,
                match_site *site, void *arg)
{
	return recipient->state == STORE_QUEUED &&
	       (!selector->recipient[0] || is_party(selector->recipient, &recipient->address)) &&
	       (!selector->reply[0] || is_reply(selector->reply, recipient->reply)) &&
	       (!selector->site[0] || strcmp(selector->site, recipient->next_hop) == 0 ||
	        is_at(selector->site, recipient->address.domain, site, arg));
}

size_t
match_count(const struct queue_selector *selector, const struct store_message *message, msec_t now,
            match_site *site, void *arg)
{
	size_t count = 0;

	if (!match_message(selector, message, now))
		return 0;
	for (size_t i = 0; i < message->recipient_count; i++)
		count += match_recipient(selector, &message->recipients[i], site, arg);
	return count;
}

bool
match_lasting(const struct queue_selector *selector, const struct store_message *message)
{
	if (selector->site[0] || selector->reply[0] || selector->lanes || selector->older ||
	    selector->younger || !match_message(selector, message, message->created))
		return false;
	for (size_t i = 0; i < message->recipient_count; i++)
		if (!selector->recipient[0] ||
		    is_party(selector->recipient, &message->recipients[i].address))
			return true;
	return false;
}
