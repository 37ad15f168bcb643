/* What the functions behind the admin commands share: the row that describes a command, and the
 * request it is run for.
 *
 * A new command is one row in commands.c and one function in a cmd_*.c. The function finds
 * its arguments checked and canonical, asks the owner, and ends with request_answer or
 * request_refuse: once, now or from the owner's callback. */
#ifndef ADMIN_COMMAND_H
#define ADMIN_COMMAND_H

#include <jansson.h>
#include <stdbool.h>

#include "admin/protocol.h"
#include "admin/watch.h"
#include "core/clock.h"
#include "queue/control.h"
#include "queue/id.h"
#include "smtp/address.h"

struct request;

enum argument_type {
	ARGUMENT_ACCOUNT,  /* request_account gives it in its canonical spelling */
	ARGUMENT_MESSAGE,  /* request_message */
	ARGUMENT_TEXT,     /* one line of at most ARGUMENT_TEXT_MAX octets: request_text */
	ARGUMENT_LINE,     /* the same of at most ARGUMENT_LINE_MAX octets */
	ARGUMENT_SECRET,   /* any text: request_text */
	ARGUMENT_COUNT,    /* 0 to 4294967295: request_count */
	ARGUMENT_PROCESS,  /* admin/process.h: request_text */
	ARGUMENT_LEVEL,    /* of the log: request_text */
	ARGUMENT_DURATION, /* "10min", as in the configuration: request_duration */
	ARGUMENT_NUMBER,   /* any number above 0, of something: request_number */
	ARGUMENT_SIZE,     /* "5MiB", as in the configuration: request_size */
	ARGUMENT_MAILBOX,  /* an address or a domain: request_mailbox */
	ARGUMENT_SITE,     /* a site, or a domain that it serves: request_text or request_site */
	ARGUMENT_FLAG,     /* true or false: request_flag */
	ARGUMENT_ADDRESS,  /* request_identity, of the kind ADDRESS */
	ARGUMENT_IDENTITY, /* an address, a domain or all below one: request_identity */
};
#define ARGUMENT_TEXT_MAX 127
#define ARGUMENT_LINE_MAX 998 /* RFC 5322 section 2.1.1 */

struct argument {
	const char *name; /* NULL ends the list */
	enum argument_type type;
	bool needed;
};

struct command {
	const char *name;
	enum role role;  /* what it takes at least; from ROLE_OPERATE on it changes something, and
	                    goes on record */
	msec_t patience; /* how long its owners may take */
	void (*run)(struct request *request);
	void (*late)(struct request *request); /* patience is over; NULL: say so */
	struct argument arguments[18];
};
extern const struct command commands[]; /* ends with a row without name */

/* Arguments; those not given are "" or 0 or NULL. */
const char *request_account(const struct request *request);
const struct queue_id *request_message(const struct request *request);
const char *request_text(const struct request *request, const char *name);
uint32_t request_count(const struct request *request, const char *name);
/* In its canonical spelling, as queue/selector.h has it. */
void request_mailbox(const struct request *request, const char *name, char out[ADDRESS_TEXT_SIZE]);
uint64_t request_size(const struct request *request, const char *name);
const struct identity *request_identity(const struct request *request);
/* The argument "site", a domain in its canonical spelling. */
void request_site(const struct request *request, char out[QUEUE_SITE_SIZE]);
bool request_flag(const struct request *request, const char *name);
uint64_t request_number(const struct request *request, const char *name);
msec_t request_duration(const struct request *request, const char *name);

enum role request_role(const struct request *request);
const struct protocol_peers *request_peers(const struct request *request);
/* Who asks, for the record. */
const char *request_by(const struct request *request);
/* A place for what a command that asks twice heard first: an object, borrowed. */
json_t *request_notes(struct request *request);

/* Both end the request. result is taken. */
void request_answer(struct request *request, json_t *result);
void request_refuse(struct request *request, const char *code, const char *text);
/* The same, with a member details (taken) in the error. */
void request_refuse_with(struct request *request, const char *code, const char *text,
                         const char *name, json_t *details);
/* After the answer, which the caller still gives, the connection is a watcher. False when there are
 * too many. */
bool request_watch(struct request *request, const struct watch_filter *filter);
/* For a command that would act on what it heard first: true, and the request is gone, when its
 * asker has been told already that nobody answered. */
bool request_is_over(struct request *request);
/* True for AUTH_DONE or QUEUE_DONE; otherwise ends the request. */
bool request_auth_done(struct request *request, enum auth_result result, const char *error);
bool request_queue_done(struct request *request, enum queue_answer got);

/* Structs to JSON: a time (null for 0), a number, text that may be a stranger's. */
json_t *json_time(msec_t wall);
json_t *json_number(uint64_t n);
json_t *json_text(const char *text);
json_t *json_hold(const struct queue_hold *hold);
json_t *json_entry(const struct queue_entry *entry);

void cmd_age(struct request *request);
void cmd_account_add(struct request *request);
void cmd_account_class(struct request *request);
void cmd_account_history(struct request *request);
void cmd_account_identity_add(struct request *request);
void cmd_account_identity_list(struct request *request);
void cmd_account_identity_remove(struct request *request);
void cmd_account_list(struct request *request);
void cmd_account_passwd(struct request *request);
void cmd_account_remove(struct request *request);
void cmd_account_resume(struct request *request);
void cmd_account_show(struct request *request);
void cmd_account_suspend(struct request *request);
void cmd_help(struct request *request);
void cmd_log_set(struct request *request);
void cmd_log_show(struct request *request);
void cmd_queue_audit(struct request *request);
void cmd_queue_bounce(struct request *request);
void cmd_queue_check(struct request *request);
void cmd_queue_flush(struct request *request);
void cmd_queue_hold(struct request *request);
void cmd_queue_holds(struct request *request);
void cmd_queue_list(struct request *request);
void cmd_queue_release(struct request *request);
void cmd_queue_remove(struct request *request);
void cmd_queue_reroute(struct request *request);
void cmd_queue_show(struct request *request);
void cmd_quota_clear(struct request *request);
void cmd_quota_reset(struct request *request);
void cmd_quota_clock(struct request *request);
void cmd_quota_set(struct request *request);
void cmd_quota_show(struct request *request);
void cmd_reload(struct request *request);
void cmd_sender_explain(struct request *request);
void cmd_session_kill(struct request *request);
void cmd_session_list(struct request *request);
void cmd_site_limit(struct request *request);
void cmd_site_list(struct request *request);
void cmd_site_resume(struct request *request);
void cmd_site_rules(struct request *request);
void cmd_site_show(struct request *request);
void cmd_site_slow(struct request *request);
void cmd_site_suspend(struct request *request);
void cmd_site_unlimit(struct request *request);
void cmd_status(struct request *request);
void cmd_status_late(struct request *request);
void cmd_stop(struct request *request);
void cmd_trace(struct request *request);
void cmd_watch(struct request *request);

#endif
