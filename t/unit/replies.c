#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "msa/replies.h"
#include "smtp/address.h"
#include "t/unit/tap.h"

/* Every row of the reply table: what a client, its user and a help desk can rely on. */

/* The IANA registry of SMTP enhanced status codes, subject and detail: 6.10 is there as a duplicate
 * that is not to be used. */
static bool
is_registered(int subject, int detail)
{
	static const int details[] = {0, 10, 4, 6, 7, 6, 9, 30};

	return subject >= 0 && subject <= 7 && detail >= 0 && detail <= details[subject];
}

/* The enhanced code a reply begins with, if it has one. */
static bool
enhanced(const char *text, int *class, int *subject, int *detail)
{
	int used = 0;

	return sscanf(text, "%1d.%3d.%3d%n", class, subject, detail, &used) == 3 && used > 0 &&
	       (text[used] == ' ' || !text[used]);
}

/* RFC 2034 section 4: all but the greeting, the answer to EHLO and HELO, and 3xx. */
static bool
needs_enhanced(enum reply_name name)
{
	return name != REPLY_GREETING && name != REPLY_HELO &&
	       (name < REPLY_EHLO_FIRST_LINE || name > REPLY_EHLO_LAST) &&
	       name != REPLY_AUTH_CHALLENGE && name != REPLY_DATA_GO;
}

/* A refusal tells its reader what to do: in words of these, or by when. */
static bool
says_what_next(const char *text)
{
	static const char *const words[] = {
	    "later",  "again",     "retry",     "resets",    "contact", "check",  "use ",
	    "write ", "shorten",   "send ",     "close",     "fold ",   "go on ", "choose ",
	    "ask ",   "end every", "set ",      "Send EHLO", "must be", "wait",   "issue",
	    "or use", "say ",      "reconnect", "replies",   "HELP"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strstr(text, words[i]))
			return true;
	return false;
}

#define BANNER_MAX 100

/* What the format makes of the longest arguments it can get: a hostname of 255 octets is longer
 * than an address, a queue id or a time, and only a banner stands behind one. Returns its length.
 */
static size_t
expand(const char *format, char *out)
{
	size_t len = 0, room = ADDRESS_DOMAIN_MAX;

	for (const char *p = format; *p; p++) {
		size_t longest = 1;
		if (!strncmp(p, "%llu", 4)) {
			longest = 20;
			p += 3;
		} else if (!strncmp(p, "%u", 2)) {
			longest = 10;
			p += 1;
		} else if (!strncmp(p, "%.40s", 5)) {
			longest = 40;
			p += 4;
		} else if (!strncmp(p, "%s", 2)) {
			longest = room;
			room = BANNER_MAX;
			p += 1;
		}
		memset(out + len, longest > 1 ? 'x' : *p, longest);
		len += longest;
	}
	out[len] = '\0';
	return len;
}

int
main(void)
{
	for (enum reply_name name = 0; name < REPLY_NAMES; name++) {
		const char *format = reply_format(name);
		char line[2048];
		int class, subject, detail, code = atoi(format);
		size_t len = expand(format, line);
		bool shape = strlen(format) > 4 && code >= 200 && code <= 599 &&
		             (format[3] == ' ' || format[3] == '-');

		ok_of(shape, "is a reply", format);
		if (!shape)
			continue;
		for (const char *p = line; *p; p++)
			shape = shape && *p >= ' ' && *p <= '~';
		ok_of(shape && line[len - 1] != ' ', "is printable ASCII", format);
		/* RFC 5321 section 4.5.3.1.5; a challenge is bounded by RFC 4954. */
		ok_of(len + 2 <= 512 || name == REPLY_AUTH_CHALLENGE, "fits a reply line", format);
		if (enhanced(format + 4, &class, &subject, &detail)) {
			ok_of(class == code / 100, "has the class of its code", format);
			ok_of(is_registered(subject, detail), "has a registered code", format);
			ok_of(strlen(format) > 11, "says something", format);
		} else {
			ok_of(!needs_enhanced(name), "has no enhanced code", format);
		}
		if (code >= 400)
			ok_of(says_what_next(format), "says what to do", format);
		/* What is temporary or a success is no client's mistake. */
		ok_of(code / 100 == 5 || !reply_is_client_error(name), "blames justly", format);
		for (enum reply_name other = 0; other < name; other++)
			if (!strcmp(format, reply_format(other)) && strncmp(format, "250-", 4) != 0)
				ok_of(false, "is there once", format);
	}
	return tap_end();
}
