/* The table of commands: what there is, what it takes, who does it. */
#include "admin/command.h"

#define PATIENCE        10000  /* msec */
#define PATIENCE_AUDIT  60000  /* reads every record; a share of a check waits for one */
#define PATIENCE_LOOK   5000   /* status tells also who does not answer */
#define PATIENCE_RELOAD 100000 /* core/service gives up before */

#define ACCOUNT                                                                                    \
	{                                                                                          \
		"account", ARGUMENT_ACCOUNT, true                                                  \
	}
#define OF_ACCOUNT                                                                                 \
	{                                                                                          \
		"account", ARGUMENT_ACCOUNT, false                                                 \
	}
/* Which messages: what is given must all be true, queue/selector.h. */
#define SELECTOR                                                                                   \
	{"message", ARGUMENT_MESSAGE, false}, {"account", ARGUMENT_ACCOUNT, false},                \
	    {"sender", ARGUMENT_MAILBOX, false}, {"recipient", ARGUMENT_MAILBOX, false},           \
	    {"site", ARGUMENT_SITE, false}, {"lane", ARGUMENT_TEXT, false},                        \
	    {"older", ARGUMENT_DURATION, false}, {"younger", ARGUMENT_DURATION, false},            \
	    {"larger", ARGUMENT_SIZE, false}, {"smaller", ARGUMENT_SIZE, false},                   \
	{                                                                                          \
		"reply", ARGUMENT_TEXT, false                                                      \
	}
#define FOR                                                                                        \
	{                                                                                          \
		"for", ARGUMENT_DURATION, false                                                    \
	}
/* A share of an act, and where the next one goes on. */
#define SHARE                                                                                      \
	{"dry_run", ARGUMENT_FLAG, false},                                                         \
	{                                                                                          \
		"after", ARGUMENT_TEXT, false                                                      \
	}
#define SITE                                                                                       \
	{                                                                                          \
		"site", ARGUMENT_SITE, true                                                        \
	}
#define REASON                                                                                     \
	{                                                                                          \
		"reason", ARGUMENT_TEXT, false                                                     \
	}

/* One row a line, as the eye compares them. */
/* clang-format off */
const struct command commands[] = {
    {"help",           ROLE_LOOK,    PATIENCE,       cmd_help,           NULL, {{0}}},
    {"status",         ROLE_LOOK,    PATIENCE_LOOK,  cmd_status,         cmd_status_late, {{0}}},

    {"account.list",   ROLE_LOOK,    PATIENCE,       cmd_account_list,   NULL, {{"after", ARGUMENT_ACCOUNT, false}}},
    {"account.show",   ROLE_LOOK,    PATIENCE,       cmd_account_show,   NULL, {ACCOUNT}},
    {"account.add",    ROLE_ADMIN,   PATIENCE,       cmd_account_add,    NULL, {ACCOUNT, {"password", ARGUMENT_SECRET, true}}},
    {"account.passwd", ROLE_ADMIN,   PATIENCE,       cmd_account_passwd, NULL, {ACCOUNT, {"password", ARGUMENT_SECRET, true}}},
    {"account.class",  ROLE_ADMIN,   PATIENCE,       cmd_account_class,  NULL, {ACCOUNT, {"class", ARGUMENT_TEXT, true}}},
    {"account.suspend", ROLE_OPERATE, PATIENCE,       cmd_account_suspend, NULL, {ACCOUNT, REASON}},
    {"account.resume", ROLE_OPERATE, PATIENCE,       cmd_account_resume, NULL, {ACCOUNT}},
    {"account.remove", ROLE_ADMIN,   PATIENCE,       cmd_account_remove, NULL, {ACCOUNT}},
    {"account.history", ROLE_LOOK,   PATIENCE,       cmd_account_history, NULL, {ACCOUNT}},

    {"account.identity.list", ROLE_LOOK, PATIENCE,   cmd_account_identity_list, NULL, {ACCOUNT}},
    {"account.identity.add", ROLE_ADMIN, PATIENCE,   cmd_account_identity_add, NULL, {ACCOUNT, {"identity", ARGUMENT_IDENTITY, true}, {"details", ARGUMENT_FLAG, false}, {"delegate", ARGUMENT_FLAG, false}}},
    {"account.identity.remove", ROLE_ADMIN, PATIENCE, cmd_account_identity_remove, NULL, {ACCOUNT, {"identity", ARGUMENT_IDENTITY, true}}},
    {"sender.explain", ROLE_LOOK,    PATIENCE,       cmd_sender_explain, NULL, {ACCOUNT, {"sender", ARGUMENT_ADDRESS, true}}},

    {"quota.show",     ROLE_LOOK,    PATIENCE,       cmd_quota_show,     NULL, {ACCOUNT}},
    {"quota.set",      ROLE_OPERATE, PATIENCE,       cmd_quota_set,      NULL, {ACCOUNT, {"limit", ARGUMENT_COUNT, true}, REASON}},
    {"quota.clear",    ROLE_OPERATE, PATIENCE,       cmd_quota_clear,    NULL, {ACCOUNT, REASON}},
    {"quota.reset",    ROLE_OPERATE, PATIENCE,       cmd_quota_reset,    NULL, {ACCOUNT, REASON}},
    {"quota.clock",    ROLE_OPERATE, PATIENCE,       cmd_quota_clock,    NULL, {{0}}},

    {"age",            ROLE_LOOK,    PATIENCE,       cmd_age,            NULL, {{"after", ARGUMENT_TEXT, false}}},
    {"queue.list",     ROLE_LOOK,    PATIENCE,       cmd_queue_list,     NULL, {SELECTOR, {"state", ARGUMENT_TEXT, false}, {"after", ARGUMENT_TEXT, false}}},
    {"queue.show",     ROLE_LOOK,    PATIENCE,       cmd_queue_show,     NULL, {{"message", ARGUMENT_MESSAGE, true}}},
    {"queue.holds",    ROLE_LOOK,    PATIENCE,       cmd_queue_holds,    NULL, {{"after", ARGUMENT_COUNT, false}}},
    {"queue.hold",     ROLE_OPERATE, PATIENCE,       cmd_queue_hold,     NULL, {SELECTOR, FOR, SHARE, REASON}},
    {"queue.release",  ROLE_OPERATE, PATIENCE,       cmd_queue_release,  NULL, {SELECTOR, SHARE, REASON}},
    {"queue.flush",    ROLE_OPERATE, PATIENCE,       cmd_queue_flush,    NULL, {SELECTOR, {"all", ARGUMENT_FLAG, false}, {"rate", ARGUMENT_COUNT, false}, SHARE, REASON}},
    {"queue.bounce",   ROLE_OPERATE, PATIENCE,       cmd_queue_bounce,   NULL, {SELECTOR, FOR, SHARE, REASON}},
    {"queue.reroute",  ROLE_OPERATE, PATIENCE,       cmd_queue_reroute,  NULL, {SELECTOR, {"to", ARGUMENT_TEXT, true}, FOR, SHARE, REASON}},
    {"queue.remove",   ROLE_OPERATE, PATIENCE,       cmd_queue_remove,   NULL, {SELECTOR, FOR, SHARE, REASON}},
    {"queue.audit",    ROLE_LOOK,    PATIENCE_AUDIT, cmd_queue_audit,    NULL, {{0}}},
    {"queue.check",    ROLE_LOOK,    PATIENCE_AUDIT, cmd_queue_check,    NULL, {{"check", ARGUMENT_NUMBER, false}}},

    {"trace",          ROLE_LOOK,    PATIENCE,       cmd_trace,          NULL, {{"message", ARGUMENT_MESSAGE, false}, {"message_id", ARGUMENT_LINE, false}, {"address", ARGUMENT_ADDRESS, false}, {"since", ARGUMENT_DURATION, false}, {"limit", ARGUMENT_COUNT, false}, {"after", ARGUMENT_TEXT, false}}},

    {"site.list",      ROLE_LOOK,    PATIENCE,       cmd_site_list,      NULL, {{"after", ARGUMENT_COUNT, false}}},
    {"site.slow",      ROLE_LOOK,    PATIENCE,       cmd_site_slow,      NULL, {{"after", ARGUMENT_COUNT, false}}},
    {"site.rules",     ROLE_LOOK,    PATIENCE,       cmd_site_rules,     NULL, {{"after", ARGUMENT_COUNT, false}}},
    {"site.show",      ROLE_LOOK,    PATIENCE,       cmd_site_show,      NULL, {SITE}},
    {"site.suspend",   ROLE_OPERATE, PATIENCE,       cmd_site_suspend,   NULL, {SITE, {"for", ARGUMENT_DURATION, true}, REASON}},
    {"site.resume",    ROLE_OPERATE, PATIENCE,       cmd_site_resume,    NULL, {SITE, REASON}},
    {"site.limit",     ROLE_OPERATE, PATIENCE,       cmd_site_limit,     NULL, {SITE, {"connections", ARGUMENT_COUNT, false}, {"rate", ARGUMENT_TEXT, false}, {"for", ARGUMENT_DURATION, true}, REASON}},
    {"site.unlimit",   ROLE_OPERATE, PATIENCE,       cmd_site_unlimit,   NULL, {SITE, REASON}},

    {"session.list",   ROLE_LOOK,    PATIENCE,       cmd_session_list,   NULL, {OF_ACCOUNT, {"after", ARGUMENT_NUMBER, false}}},
    {"session.kill",   ROLE_OPERATE, PATIENCE,       cmd_session_kill,   NULL, {OF_ACCOUNT, {"session", ARGUMENT_NUMBER, false}}},

    {"log.show",       ROLE_LOOK,    PATIENCE_LOOK,  cmd_log_show,       NULL, {{0}}},
    {"log.set",        ROLE_OPERATE, PATIENCE,       cmd_log_set,        NULL, {{"process", ARGUMENT_PROCESS, true}, {"level", ARGUMENT_LEVEL, true}, {"for", ARGUMENT_DURATION, false}}},
    {"watch",          ROLE_LOOK,    PATIENCE,       cmd_watch,          NULL, {OF_ACCOUNT, {"event", ARGUMENT_TEXT, false}, {"process", ARGUMENT_PROCESS, false}}},

    {"reload",         ROLE_ADMIN,   PATIENCE_RELOAD, cmd_reload,        NULL, {{0}}},
    {"stop",           ROLE_ADMIN,   PATIENCE,       cmd_stop,           NULL, {{0}}},
    {NULL,             ROLE_NONE,    0,              NULL,               NULL, {{0}}},
};
/* clang-format on */
