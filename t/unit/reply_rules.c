/* Which rule a reply meets: whose come first, what each part of a rule asks for, what is counted.
 */
#include "queue/reply_rules.h"

#include <string.h>

#include "t/unit/tap.h"

static struct conf_reply_rule list[] = {
    {"mine", "550", "", "^no$", "", CONF_REPLY_DEFER, 0},
    {"site", "4", "4.7.", "", "*.example.net", CONF_REPLY_SUSPEND, 1000},
    {"exact", "", "5.2.2", "", "one.example", CONF_REPLY_BOUNCE, 0},
};
static struct reply_rules *rules;

static const char *
met(const char *site, const char *domain, int code, const char *enhanced, const char *text)
{
	struct reply reply = {.code = code};
	const struct conf_reply_rule *rule;

	snprintf(reply.enhanced, sizeof(reply.enhanced), "%s", enhanced);
	snprintf(reply.text, sizeof(reply.text), "%s", text);
	rule = reply_rules_match(rules, site, domain, &reply);
	return rule ? rule->name : "";
}

static void
is(const char *got, const char *expected, const char *name)
{
	if (!ok(strcmp(got, expected) == 0, name))
		printf("# got \"%s\", expected \"%s\"\n", got, expected);
}

static uint64_t
counted(const char *name)
{
	struct reply_rule_view view;

	for (size_t i = 0; reply_rules_view(rules, i, &view); i++)
		if (strcmp(view.rule->name, name) == 0)
			return view.count;
	return UINT64_MAX;
}

static enum reply_class
class_of(int code, const char *enhanced, const char *text, enum queue_contact_end end)
{
	struct reply reply = {.code = code};

	snprintf(reply.enhanced, sizeof(reply.enhanced), "%s", enhanced);
	snprintf(reply.text, sizeof(reply.text), "%s", text);
	return reply_classify(&reply, end,
	                      reply_rules_match(rules, "mx.example", "a.example", &reply));
}

static void
test_parts(void)
{
	is(met("s", "d", 550, "", "no"), "mine", "code and text");
	is(met("s", "d", 550, "", "NO"), "mine", "in any case");
	is(met("s", "d", 551, "", "no"), "", "another code");
	is(met("s", "d", 550, "", "no, not"), "", "another text");
	is(met("mx.example.net", "d", 450, "4.7.0", ""), "site", "a site below the suffix");
	is(met("mx.example.net+3f2a", "d", 450, "4.7.0", ""), "site", "a set of hosts is its best");
	is(met("mx.example.net:25", "d", 421, "4.7.1", ""), "site", "and so is a host with a port");
	is(met("s", "a.example.net", 450, "4.7.0", ""), "site", "or a domain below it");
	is(met("example.net", "example.net", 450, "4.7.0", ""), "", "not the suffix itself");
	is(met("mx.example.net", "d", 450, "4.2.0", ""), "", "another enhanced code");
	is(met("mx.example.net", "d", 550, "5.7.0", ""), "", "another first digit");
	is(met("one.example", "d", 552, "5.2.2", "full"), "exact", "a whole name");
	is(met("x.one.example", "d", 552, "5.2.2", "full"), "", "nothing below it");
	is(met("one.example", "d", 250, "5.2.2", "no"), "", "success is nobody's concern");
	is(met("one.example", "d", 0, "5.2.2", "no"), "", "nor our own words");
}

static void
test_shipped(void)
{
	is(met("gmail-smtp-in.l.google.com+77aa", "gmail.com", 421, "4.7.28",
	       "Our system has detected an unusual rate of unsolicited mail"),
	   "gmail-rate", "a provider that is in a hurry");
	is(met("a-com.mail.protection.outlook.com", "a.com", 550, "5.7.1",
	       "Unfortunately, messages from [192.0.2.1] weren't sent. part of their network is on "
	       "our block list (S3140)."),
	   "outlook-block", "one that blocks us");
	is(met("mta5.am0.yahoodns.net+1234", "yahoo.com", 421, "4.7.0",
	       "[TSS04] Messages from 192.0.2.1 temporarily deferred"),
	   "yahoo-rate", "one that waits");
	is(met("mx.a.example", "a.example", 554, "5.7.1",
	       "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"),
	   "blocklisted", "a block list");
	is(met("mx.a.example", "a.example", 450, "4.2.0", "Greylisted, see postgrey.example"),
	   "greylisted", "greylisting");
	is(met("mx.a.example", "a.example", 550, "", "User unknown"), "unknown-words",
	   "a user who does not exist, in words");
	is(met("mx.a.example", "a.example", 550, "5.1.1", "hello"), "unknown-mailbox",
	   "or by the code");
	is(met("mx.a.example", "a.example", 450, "4.3.2", "busy"), "", "what says nothing special");
}

static void
test_counts(void)
{
	struct reply_rule_view view;
	struct conf none = {.reply_rules = {list + 1, 1}, .no_shipped_replies = true};
	const uint64_t before = counted("mine");

	met("s", "d", 550, "", "no");
	met("s", "d", 550, "", "yes");
	ok(counted("mine") == before + 1, "each reply that fits is counted");
	ok(reply_rules_view(rules, 0, &view) && !view.is_shipped && view.last > 0,
	   "and when the last one was");
	const uint64_t site = counted("site");
	reply_rules_reload(rules, &none);
	ok(counted("site") == site, "counts outlive a reload");
	ok(counted("mine") == UINT64_MAX && counted("greylisted") == UINT64_MAX,
	   "of the rules that are still there");
	ok(!reply_rules_view(rules, 1, &view), "what was shipped can be switched off");
}

static void
test_classes(void)
{
	ok(class_of(0, "", "timed out", QUEUE_CONTACT_TIMEOUT) == REPLY_TIMEOUT &&
	       class_of(0, "", "refused", QUEUE_CONTACT_FAILED) == REPLY_CONTACT &&
	       class_of(0, "", "closed", QUEUE_CONTACT_LOST) == REPLY_CONTACT &&
	       class_of(0, "", "no DNS", QUEUE_CONTACT_NONE) == REPLY_OTHER,
	   "without a reply, by how far it came");
	ok(class_of(550, "5.1.1", "", QUEUE_CONTACT_OK) == REPLY_UNKNOWN &&
	       class_of(452, "4.2.2", "", QUEUE_CONTACT_OK) == REPLY_FULL &&
	       class_of(451, "4.7.1", "Greylisting in action", QUEUE_CONTACT_OK) ==
	           REPLY_GREYLIST &&
	       class_of(421, "4.7.28", "", QUEUE_CONTACT_OK) == REPLY_RATE &&
	       class_of(554, "5.7.1", "listed by spamhaus", QUEUE_CONTACT_OK) == REPLY_BLOCK &&
	       class_of(550, "5.7.26", "no DMARC", QUEUE_CONTACT_OK) == REPLY_POLICY &&
	       class_of(451, "4.3.0", "later", QUEUE_CONTACT_OK) == REPLY_OTHER,
	   "with one, by rule, words and enhanced code");
	for (int i = 0; i < REPLY_CLASSES; i++)
		if (!reply_class_name((enum reply_class)i))
			ok(false, "every class has a name");
}

int
main(void)
{
	const struct conf conf = {
	    .reply_rules = {list, sizeof(list) / sizeof(list[0])},
	};

	rules = reply_rules_new(&conf);
	test_parts();
	test_shipped();
	test_classes();
	test_counts();
	reply_rules_free(rules);
	return tap_end();
}
