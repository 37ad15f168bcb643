#include "relay/client_int.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* What a server's reply to EHLO offers. A keyword that is not known, and a value that makes no
 * sense, is nothing. */

/* " 120": the least by-time of RFC 2852 section 2, seconds. */
static msec_t
by_least(const char *text, size_t len)
{
	msec_t least = 0;

	for (size_t i = 1; i < len && i <= 9 && isdigit((unsigned char)text[i]); i++)
		least = least * 10 + (text[i] - '0');
	return least * 1000;
}

/* " MAILMAX=10 RCPTMAX=50": RFC 9422 section 4, where what is not understood is nothing. */
static void
read_limits(struct client_limits *limits, const char *text, size_t len)
{
	const struct {
		const char *name;
		unsigned *limit;
	} known[] = {{"MAILMAX=", &limits->mails},
	             {"RCPTMAX=", &limits->rcpts},
	             {"RCPTDOMAINMAX=", &limits->domains}};

	for (size_t at = 0, end; at < len; at = end) {
		at += text[at] == ' ';
		for (end = at; end < len && text[end] != ' ';)
			end++;
		for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
			const size_t name = strlen(known[i].name);
			unsigned value = 0;
			size_t k = at + name;

			if (end - at <= name || end - at > name + 6 ||
			    strncasecmp(text + at, known[i].name, name) != 0)
				continue;
			while (k < end && isdigit((unsigned char)text[k]))
				value = value * 10 + (unsigned)(text[k++] - '0');
			if (k == end)
				*known[i].limit = value;
		}
	}
}

void
offers_on_line(void *arg, const char *text, size_t len)
{
	static const struct {
		const char *keyword;
		enum client_offer offer;
	} offers[] = {
	    {"SIZE", OFFER_SIZE},
	    {"8BITMIME", OFFER_8BITMIME},
	    {"PIPELINING", OFFER_PIPELINING},
	    {"STARTTLS", OFFER_STARTTLS},
	    {"DSN", OFFER_DSN},
	    {"CHUNKING", OFFER_CHUNKING},
	    {"BINARYMIME", OFFER_BINARYMIME},
	    {"SMTPUTF8", OFFER_SMTPUTF8},
	    {"REQUIRETLS", OFFER_REQUIRETLS},
	    {"MT-PRIORITY", OFFER_MT_PRIORITY},
	    {"DELIVERBY", OFFER_DELIVERBY},
	    {"LIMITS", OFFER_LIMITS},
	};
	struct client *client = arg;
	size_t word = 0;

	while (word < len && text[word] != ' ')
		word++;
	for (size_t i = 0; i < sizeof offers / sizeof offers[0]; i++)
		if (strlen(offers[i].keyword) == word &&
		    !strncasecmp(text, offers[i].keyword, word)) {
			client->offers |= offers[i].offer;
			if (offers[i].offer == OFFER_DELIVERBY)
				client->by_least = by_least(text + word, len - word);
			else if (offers[i].offer == OFFER_LIMITS)
				read_limits(&client->limits, text + word, len - word);
			return;
		}
	if (login_offered(text, len) > client->login)
		client->login = login_offered(text, len);
}
