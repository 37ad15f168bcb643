/* What a server's reply means beyond its code: the operator's rules, and behind them those for what
 * large providers usually say. Pure but for the counts; private to sekisho-queue. */
#ifndef QUEUE_REPLY_RULES_H
#define QUEUE_REPLY_RULES_H

#include <stdint.h>

#include "core/conf.h"
#include "queue/worker.h"
#include "smtp/reply.h"

struct reply_rules;

/* The rules are copied. */
struct reply_rules *reply_rules_new(const struct conf *conf);
/* NULL is harmless. */
void reply_rules_free(struct reply_rules *rules);
/* Rules of the same name go on counting. */
void reply_rules_reload(struct reply_rules *rules, const struct conf *conf);

/* The first rule that fits, which is counted; NULL: none does, or the reply is one of success or
 * our own words. site is named as in queue_contact. Borrowed until the next reload. */
const struct conf_reply_rule *reply_rules_match(struct reply_rules *rules, const char *site,
                                                const char *domain, const struct reply *reply);

struct reply_rule_view {
	const struct conf_reply_rule *rule;
	bool is_shipped;
	uint64_t count; /* replies since the start */
	msec_t last;    /* wall clock; 0: never */
};
/* In the order in which they are asked. False behind the last. */
bool reply_rules_view(const struct reply_rules *rules, size_t index, struct reply_rule_view *out);
/* "defer" … as in the configuration. */
const char *reply_action_name(enum conf_reply_action action);

/* Why mail waits or failed. */
enum reply_class {
	REPLY_OTHER,
	REPLY_CONTACT,  /* no connection, or it ended too early */
	REPLY_TIMEOUT,  /* no answer in time */
	REPLY_GREYLIST, /* come again later */
	REPLY_RATE,     /* too much of it from us */
	REPLY_BLOCK,    /* not from our address */
	REPLY_FULL,     /* the mailbox */
	REPLY_UNKNOWN,  /* no such recipient */
	REPLY_POLICY,   /* what the message is, or who sends it */
	REPLY_CLASSES
};
const char *reply_class_name(enum reply_class class);
/* rule: what reply_rules_match gave for it. */
enum reply_class reply_classify(const struct reply *reply, enum queue_contact_end end,
                                const struct conf_reply_rule *rule);

#endif
