#include "core/conf_int.h"

/* The lists of maps: what one of them may say, and what no single value of it can. */

#include <regex.h>
#include <stddef.h>
#include <string.h>

#define F(name) offsetof(struct conf_reply_rule, name)
static const char *const reply_actions[] = {"defer", "bounce",       "suspend", "slower",
                                            "block", "user-unknown", NULL};
static const struct option reply_rule_fields[] = {
    {"name", TYPE_TEXT, F(name), NULL, 0, 0, true, "what log and sekishoctl call it"},
    {"code", TYPE_TEXT, F(code), "", 0, 0, true, "how the reply code begins, such as 421 or 4"},
    {"enhanced", TYPE_TEXT, F(enhanced), "", 0, 0, true,
     "how the enhanced status code begins, such as 5.7.1 or 4.7."},
    {"text", TYPE_TEXT, F(text), "", 0, 0, true,
     "POSIX extended regular expression that fits anywhere in the text, in any case"},
    {"site", TYPE_PATTERN, F(site), "", 0, 0, true,
     "only of a site, or to a recipient domain, of that name; \"*.suffix\" covers all below it"},
    {"action", TYPE_WORD, F(action), NULL, 0, 0, true,
     "defer tries again, bounce does not, whatever the code says; suspend and slower try again "
     "and for a while spare the site or halve what it gets; block goes by the code, unless "
     "another address of the pool may try, and for a while avoids this one for that site; "
     "user-unknown goes by the code and is counted",
     .list = reply_actions},
    {"for", TYPE_DURATION, F(period), "30min", SECONDS(1), DAYS(7), true,
     "how long suspend, slower and block last"},
};
#undef F

/* How a code begins: digits, with dots in an enhanced one. */
static bool
is_code(const char *text, size_t max, const char *characters)
{
	return strlen(text) <= max && strspn(text, characters) == strlen(text);
}

/* That may take any time to match. */
static bool
refers_back(const char *expression)
{
	for (const char *c = expression; (c = strchr(c, '\\')) != NULL && c[1] != '\0'; c += 2)
		if (c[1] >= '1' && c[1] <= '9')
			return true;
	return false;
}

static const char *
check_reply_rule(const void *list, size_t index)
{
	const struct conf_reply_rule *rules = list, *rule = &rules[index];
	regex_t compiled;

	for (size_t i = 0; i < index; i++)
		if (strcmp(rules[i].name, rule->name) == 0)
			return "a second rule of the same name; give it another";
	if (rule->code[0] == '\0' && rule->enhanced[0] == '\0' && rule->text[0] == '\0')
		return "a rule that matches every reply; add code, enhanced or text";
	if (!is_code(rule->code, 3, "0123456789"))
		return "code is not how a reply code begins; write 4, 55 or 421";
	if (!is_code(rule->enhanced, 9, "0123456789."))
		return "enhanced is not how an enhanced status code begins; write 5.7.1 or 4.7.";
	if (refers_back(rule->text))
		return "text must not refer back (\\1); write it out";
	if (regcomp(&compiled, rule->text, REG_EXTENDED | REG_ICASE | REG_NOSUB) != 0)
		return "text is no POSIX extended regular expression; look for an unclosed bracket";
	regfree(&compiled);
	return NULL;
}
const struct record conf_reply_rule_record = {"a rule",
                                              sizeof(struct conf_reply_rule),
                                              200,
                                              reply_rule_fields,
                                              sizeof(reply_rule_fields) /
                                                  sizeof(reply_rule_fields[0]),
                                              check_reply_rule};

#define F(name) offsetof(struct conf_pool, name)
static const struct option pool_fields[] = {
    {"name", TYPE_TEXT, F(name), NULL, 0, 0, true, "what classes call it"},
    {"sources", TYPE_SOURCES, F(sources), NULL, 0, 0, true, "its addresses, of both families"},
};
#undef F

static const char *
check_pool(const void *list, size_t index)
{
	const struct conf_pool *pools = list, *pool = &pools[index];

	if (!conf_is_label(pool->name))
		return "not the name of a pool; write at most 31 of a-z, 0-9, - and _";
	if (pool->sources.count == 0)
		return "a pool without addresses; name one";
	/* What leaves from one must not leave from the other. */
	for (size_t i = 0; i <= index; i++) {
		if (i < index && strcmp(pools[i].name, pool->name) == 0)
			return "a second pool of the same name; give it another";
		for (size_t j = 0; j < pools[i].sources.count; j++)
			for (size_t k = 0; k < (i < index ? pool->sources.count : j); k++)
				if (memcmp(&pools[i].sources.list[j].addr,
				           &pool->sources.list[k].addr,
				           pool->sources.list[k].len) == 0)
					return "an address that is named twice; an address is in "
					       "one pool only";
	}
	return NULL;
}
const struct record conf_pool_record = {"a pool",
                                        sizeof(struct conf_pool),
                                        64,
                                        pool_fields,
                                        sizeof(pool_fields) / sizeof(pool_fields[0]),
                                        check_pool};

#define F(name) offsetof(struct conf_site, name)
/* In order of enum conf_tls; from the start makes no sense with MX hosts. */
static const char *const tls_words[] = {"may", "none", "require", "verify", NULL};
static const struct option site_fields[] = {
    {"match", TYPE_PATTERN, F(match), NULL, 0, 0, true,
     "the site, or a domain that it serves, as is known after the first mail to it; \"*.suffix\" "
     "covers all below it"},
    {"connections", TYPE_COUNT, F(connections), "0", 0, 10000, true,
     "at once, at most; 0 is relay.site_connections"},
    {"start", TYPE_COUNT, F(start), "5", 1, 10000, true, "at once, to begin with"},
    {"probe", TYPE_COUNT, F(probe), "20", 1, 100, true,
     "percent of its connections that are tried after a pause, until one is answered"},
    {"rate", TYPE_BURST, F(rate), "off", 1, 1000000, true, "attempts"},
    {"session_recipients", TYPE_COUNT, F(session_recipients), "0", 0, 100000, true,
     "recipients on one connection, at most; 0 is as many as the host takes"},
    {"session_messages", TYPE_COUNT, F(session_messages), "0", 0, 100000, true,
     "messages on one connection, at most; 0 is relay.deliveries"},
    {"tls", TYPE_WORD, F(tls), "may", 0, 0, true,
     "with hosts found by MX, as routes have it; from the first mail on, and only of mail to a "
     "site "
     "or domain that itself matches",
     .list = tls_words},
    {"pool", TYPE_LABEL, F(pool), "default", 0, 0, true,
     "pool of egress that its mail leaves from, unless the account's class has another than "
     "quota.pool; default is the class's"},
};
#undef F
const struct record conf_site_record = {"a site",
                                        sizeof(struct conf_site),
                                        4000,
                                        site_fields,
                                        sizeof(site_fields) / sizeof(site_fields[0]),
                                        NULL};

#define F(name) offsetof(struct conf_lane_rule, name)
static const char *const lane_words[] = {"retry", "fallback", NULL};
static const char *const reply_words[] = {"any",      "other",  "contact", "timeout",
                                          "greylist", "rate",   "block",   "full",
                                          "unknown",  "policy", NULL};
static const struct option lane_rule_fields[] = {
    {"to", TYPE_WORD, F(to), NULL, 0, 0, true, "where it waits", .list = lane_words},
    {"attempts", TYPE_COUNT, F(attempts), "0", 0, 1000, true, "at least"},
    {"age", TYPE_DURATION, F(age), "0s", 0, DAYS(30), true, "at least"},
    {"reply", TYPE_WORD, F(reply), "any", 0, 0, true, "what the last answer was about",
     .list = reply_words},
    {"slow", TYPE_CHOICE, F(slow), "no", 0, 0, true, "only for slow sites", {"no", "yes"}},
};
#undef F
const struct record conf_lane_rule_record = {"a rule",
                                             sizeof(struct conf_lane_rule),
                                             100,
                                             lane_rule_fields,
                                             sizeof(lane_rule_fields) / sizeof(lane_rule_fields[0]),
                                             NULL};
