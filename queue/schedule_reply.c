#include "queue/schedule_int.h"

/* Reply rules and the schedule: what a rule says of the recipient changes its fate before anything
 * else looks at it; what it says of the site is done when the attempt has told which site that is.
 * A rule that several recipients of one job met is told of once. */

#include "core/log.h"

/* Whether the message may leave for that site from another address than the one that was blocked.
 */
static bool
has_another_source(const struct schedule *schedule, const struct queue_id *id,
                   const struct queue_contact *contact, msec_t now)
{
	const struct conf_pool *pool = egress_pool_of(&schedule->conf->egress, contact->source);
	struct queue_egress egress;

	return pool && egress_choose(schedule->egress, pool, id, contact->site, now, &egress);
}

const struct conf_reply_rule *
reply_judge(struct schedule *schedule, const struct queue_id *id, const char *domain,
            const struct queue_contact *contact, struct queue_outcome *outcome)
{
	const msec_t now = schedule_now(schedule);
	const struct conf_reply_rule *rule =
	    outcome->fate == QUEUE_DELIVERED
	        ? NULL
	        : reply_rules_match(schedule->replies, contact->site, domain, &outcome->reply);

	if (rule == NULL)
		return NULL;
	switch (rule->action) {
	case CONF_REPLY_DEFER:
	case CONF_REPLY_SUSPEND:
	case CONF_REPLY_SLOWER:
		outcome->fate = QUEUE_DEFERRED;
		break;
	case CONF_REPLY_BOUNCE:
		outcome->fate = QUEUE_FAILED;
		break;
	case CONF_REPLY_BLOCK:
		egress_block(schedule->egress, contact->source, contact->site, now + rule->period);
		if (has_another_source(schedule, id, contact, now))
			outcome->fate = QUEUE_DEFERRED;
		break;
	default:
		break; /* by its code */
	}
	return rule;
}

/* A block that is temporary is waited for: mail may come through later, not while we insist. */
static msec_t
first_step(const struct conf *conf)
{
	return conf->retry_schedule.count > 0 ? conf->retry_schedule.list[0] : 5 * 60 * 1000;
}

static unsigned
obey(const struct job *job, struct site *site, const struct queue_contact *contact,
     const struct conf_reply_rule *rule, const struct queue_outcome *outcome)
{
	const struct schedule *schedule = job->lane->schedule;
	const msec_t now = schedule_now(job->lane->schedule);

	switch (rule->action) {
	case CONF_REPLY_SUSPEND:
		return site_suspend(site, rule->name, now + rule->period, now) ? SITE_PAUSED : 0;
	case CONF_REPLY_SLOWER:
		site_slow_down(site, sites_bounds(site), rule->name, job->began, now + rule->period,
		               now);
		return 0;
	case CONF_REPLY_BLOCK:
		return outcome->fate == QUEUE_DEFERRED &&
		               !has_another_source(schedule, &job->id, contact, now) &&
		               site_suspend(site, rule->name, now + first_step(schedule->conf), now)
		           ? SITE_PAUSED
		           : 0;
	default:
		return 0;
	}
}

unsigned
replies_told(const struct job *job, struct site *site, const struct queue_contact *contact,
             const struct conf_reply_rule *const *rules, const struct queue_outcome *outcomes,
             size_t count)
{
	unsigned events = 0;

	for (size_t i = 0; i < count; i++) {
		char id[QUEUE_ID_TEXT_SIZE], word[4 * 256], source[4 * 64];
		bool is_told = rules[i] == NULL;

		for (size_t k = 0; k < i && !is_told; k++)
			is_told = rules[k] == rules[i];
		if (is_told)
			continue;
		log_info(queue_id_format(&job->id, id), "reply-rule",
		         "rule=%s site=%s action=%s source=%s",
		         log_word(rules[i]->name, word, sizeof(word)), site->name,
		         reply_action_name(rules[i]->action),
		         log_word(contact->source, source, sizeof(source)));
		events |= obey(job, site, contact, rules[i], &outcomes[i]);
	}
	return events;
}
