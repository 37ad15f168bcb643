#include "queue/reply_rules.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/mem.h"

/* Problem: large providers say with one code what calls for different answers: "too fast", "not
 * from this address", "no such user". Idea: a list of rules, the first that fits counts; whoever
 * runs the service puts theirs in front. A rule without a site fits everywhere.
 *
 * A reply is a stranger's: it is bounded and printable already (smtp/reply.h), expressions cannot
 * refer back (core/conf.c), so a match takes time in proportion to both. */

#define MINUTE 60000
#define HOUR   (60 * MINUTE)

/* Short, and about what is said for years, not about this month's wording. */
static const struct conf_reply_rule shipped[] = {
    {"gmail-rate", "4", "4.7.", "unusual rate|rate limit|receiving mail too quickly",
     "*.google.com", CONF_REPLY_SLOWER, 30 * MINUTE},
    {"gmail-block", "5", "5.7.", "likely unsolicited|unsolicited mail originating", "*.google.com",
     CONF_REPLY_BLOCK, 6 * HOUR},
    {"outlook-rate", "4", "", "rate limit|RP-00[0-9]|server busy|temporarily rate", "*.outlook.com",
     CONF_REPLY_SLOWER, 30 * MINUTE},
    {"outlook-block", "5", "5.7.", "block list|banned sending IP|\\(S[0-9]{4}\\)|\\(AS[0-9]+\\)",
     "*.outlook.com", CONF_REPLY_BLOCK, 6 * HOUR},
    {"yahoo-rate", "4", "", "\\[(TSS?|GL|RL)[0-9]+\\]|resources temporarily unavailable",
     "*.yahoodns.net", CONF_REPLY_SLOWER, 30 * MINUTE},
    {"yahoo-block", "5", "", "\\[BL[0-9]+\\]", "*.yahoodns.net", CONF_REPLY_BLOCK, 6 * HOUR},
    {"icloud-block", "5", "5.7.", "\\[(CS|HM|PRX)[0-9]+\\]", "*.icloud.com", CONF_REPLY_BLOCK,
     6 * HOUR},
    {"docomo-rate", "4", "", "too many|busy|try again|congest", "*.docomo.ne.jp", CONF_REPLY_SLOWER,
     10 * MINUTE},
    {"au-rate", "4", "", "too many|busy|try again|congest", "*.ezweb.ne.jp", CONF_REPLY_SLOWER,
     10 * MINUTE},
    {"softbank-rate", "4", "", "too many|busy|try again|congest", "*.softbank.ne.jp",
     CONF_REPLY_SLOWER, 10 * MINUTE},
    {"greylisted", "4", "", "gr[ae]y-?list", "", CONF_REPLY_DEFER, 0},
    {"blocklisted", "", "",
     "spamhaus|barracuda ?(central|reputation)|spamcop|block-? ?list|"
     "black-? ?list|dnsbl",
     "", CONF_REPLY_BLOCK, 6 * HOUR},
    {"rate", "4", "4.7.28", "", "", CONF_REPLY_SLOWER, 30 * MINUTE},
    {"unknown-mailbox", "5", "5.1.1", "", "", CONF_REPLY_UNKNOWN, 0},
    {"unknown-words", "55", "",
     "(user|recipient|mailbox|account) (is )?(unknown|not found|does(n't| not) exist)|"
     "(no such|unknown|invalid) (user|recipient|mailbox|account)|"
     "doesn't have a [a-z.]+ account",
     "", CONF_REPLY_UNKNOWN, 0},
};
#define SHIPPED (sizeof(shipped) / sizeof(shipped[0]))

struct rule {
	struct conf_reply_rule rule;
	regex_t text;
	bool is_shipped;
	uint64_t count;
	msec_t last;
};

struct reply_rules {
	struct rule *list;
	size_t count;
};

static void
add(struct reply_rules *rules, const struct conf_reply_rule *from, bool is_shipped)
{
	struct rule *rule = &rules->list[rules->count];

	rule->rule = *from;
	rule->rule.name = xstrdup(from->name);
	rule->rule.code = xstrdup(from->code);
	rule->rule.enhanced = xstrdup(from->enhanced);
	rule->rule.text = xstrdup(from->text);
	rule->rule.site = xstrdup(from->site);
	rule->is_shipped = is_shipped;
	/* It was tried when the configuration was checked; only memory can be lacking. */
	if (regcomp(&rule->text, from->text, REG_EXTENDED | REG_ICASE | REG_NOSUB) != 0)
		abort();
	rules->count++;
}

struct reply_rules *
reply_rules_new(const struct conf *conf)
{
	struct reply_rules *rules = xcalloc(1, sizeof(*rules));

	rules->list = xcalloc(conf->reply_rules.count + SHIPPED, sizeof(*rules->list));
	for (size_t i = 0; i < conf->reply_rules.count; i++)
		add(rules, &conf->reply_rules.list[i], false);
	for (size_t i = 0; i < SHIPPED && !conf->no_shipped_replies; i++)
		add(rules, &shipped[i], true);
	return rules;
}

static void
clear(struct reply_rules *rules)
{
	for (size_t i = 0; i < rules->count; i++) {
		free(rules->list[i].rule.name);
		free(rules->list[i].rule.code);
		free(rules->list[i].rule.enhanced);
		free(rules->list[i].rule.text);
		free(rules->list[i].rule.site);
		regfree(&rules->list[i].text);
	}
	free(rules->list);
}

void
reply_rules_free(struct reply_rules *rules)
{
	if (!rules)
		return;
	clear(rules);
	free(rules);
}

void
reply_rules_reload(struct reply_rules *rules, const struct conf *conf)
{
	struct reply_rules *next = reply_rules_new(conf);

	for (size_t i = 0; i < next->count; i++)
		for (size_t k = 0; k < rules->count; k++)
			if (!strcmp(next->list[i].rule.name, rules->list[k].rule.name) &&
			    next->list[i].is_shipped == rules->list[k].is_shipped) {
				next->list[i].count = rules->list[k].count;
				next->list[i].last = rules->list[k].last;
			}
	clear(rules);
	*rules = *next;
	free(next);
}

static bool
begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

static bool
fits(const struct rule *rule, const char *host, const char *domain, const struct reply *reply)
{
	char code[8];

	snprintf(code, sizeof(code), "%d", reply->code);
	return begins(code, rule->rule.code) && begins(reply->enhanced, rule->rule.enhanced) &&
	       (!rule->rule.site[0] || conf_pattern_covers(rule->rule.site, host) ||
	        conf_pattern_covers(rule->rule.site, domain)) &&
	       (!rule->rule.text[0] || !regexec(&rule->text, reply->text, 0, NULL, 0));
}

const struct conf_reply_rule *
reply_rules_match(struct reply_rules *rules, const char *site, const char *domain,
                  const struct reply *reply)
{
	char host[QUEUE_SITE_SIZE];

	if (reply->code < 400)
		return NULL;
	snprintf(host, sizeof(host), "%.*s", (int)strcspn(site, "+:"), site);
	for (size_t i = 0; i < rules->count; i++)
		if (fits(&rules->list[i], host, domain, reply)) {
			rules->list[i].count++;
			rules->list[i].last = clock_wall();
			return &rules->list[i].rule;
		}
	return NULL;
}

bool
reply_rules_view(const struct reply_rules *rules, size_t index, struct reply_rule_view *out)
{
	if (index >= rules->count)
		return false;
	const struct rule *rule = &rules->list[index];
	*out = (struct reply_rule_view){&rule->rule, rule->is_shipped, rule->count, rule->last};
	return true;
}

const char *
reply_action_name(enum conf_reply_action action)
{
	static const char *const names[] = {"defer",  "bounce", "suspend",
	                                    "slower", "block",  "user-unknown"};
	return names[action];
}

const char *reply_class_name(enum reply_class class)
{
	static const char *const names[REPLY_CLASSES] = {"other",    "contact", "timeout",
	                                                 "greylist", "rate",    "block",
	                                                 "full",     "unknown", "policy"};
	return names[class];
}

enum reply_class
reply_classify(const struct reply *reply, enum queue_contact_end end,
               const struct conf_reply_rule *rule)
{
	/* The enhanced code's subject and detail (RFC 3463). */
	const char *about = reply->enhanced[0] ? reply->enhanced + 2 : "";

	if (rule && rule->action == CONF_REPLY_UNKNOWN)
		return REPLY_UNKNOWN;
	if (rule && rule->action == CONF_REPLY_BLOCK)
		return REPLY_BLOCK;
	if (rule && rule->action == CONF_REPLY_SLOWER)
		return REPLY_RATE;
	if (!reply->code)
		return end == QUEUE_CONTACT_TIMEOUT                               ? REPLY_TIMEOUT
		       : end == QUEUE_CONTACT_FAILED || end == QUEUE_CONTACT_LOST ? REPLY_CONTACT
		                                                                  : REPLY_OTHER;
	if (strcasestr(reply->text, "greylist") || strcasestr(reply->text, "graylist"))
		return REPLY_GREYLIST;
	if (!strcmp(about, "1.1") || !strcmp(about, "1.6") || !strcmp(about, "1.10") ||
	    !strcmp(about, "2.1"))
		return REPLY_UNKNOWN;
	if (!strcmp(about, "2.2"))
		return REPLY_FULL;
	if (!strcmp(about, "7.28"))
		return REPLY_RATE;
	return begins(about, "7.") ? REPLY_POLICY : REPLY_OTHER;
}
