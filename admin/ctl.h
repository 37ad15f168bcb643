/* What sekishoctl's commands share: the row that describes one, and the functions behind the rows.
 *
 * A new command is one row in ctl_commands.c, and a function that prints its result for people
 * where the general ones do not fit. */
#ifndef ADMIN_CTL_H
#define ADMIN_CTL_H

#include <jansson.h>
#include <stdbool.h>

#define CTL_ARGUMENTS_MAX 2
#define CTL_OPTIONS_MAX   16

struct ctl_command {
	const char *words, *synopsis, *help;
	const char *command;                          /* of the request */
	const char *arguments[CTL_ARGUMENTS_MAX + 1]; /* its keys for the words that follow */
	/* "reason" is "--reason TEXT" and the key "reason"; "dry-run!" takes no text and is true */
	const char *options[CTL_OPTIONS_MAX + 1];
	bool optional; /* the words that follow may be left out */
	bool many; /* the last of them may be several ids: an array "messages" beside the first */
	const char *pages; /* the array of a result that comes in pages */
	int patience;      /* s; 0: as usual */
	/* Completes the request: a password, a number. */
	void (*prepare)(json_t *request);
	/* Before the result is printed, also for --json: the exit status. NULL: 0. */
	int (*finish)(const json_t *result);
	/* For people; for a list once per page. */
	void (*print)(const json_t *request, const json_t *result);
	/* Instead of all that. */
	int (*run)(json_t *request);
};
extern const struct ctl_command ctl_commands[]; /* ends with a row without words */

/* --json was given. */
bool ctl_wants_json(void);

void ctl_accounts_print(const json_t *request, const json_t *result);
void ctl_account_print_added(const json_t *request, const json_t *result);
void ctl_account_print_removed(const json_t *request, const json_t *result);
void ctl_password_prepare(json_t *request);

void ctl_identities_print(const json_t *request, const json_t *result);
void ctl_identity_print_removed(const json_t *request, const json_t *result);
void ctl_sender_print(const json_t *request, const json_t *result);
int ctl_sender_finish(const json_t *result);

void ctl_quota_prepare(json_t *request);
void ctl_quota_print(const json_t *request, const json_t *result);
void ctl_quota_print_clock(const json_t *request, const json_t *result);

void ctl_queue_print_list(const json_t *request, const json_t *result);
void ctl_queue_print_holds(const json_t *request, const json_t *result);
void ctl_queue_prepare(json_t *request);
int ctl_age_run(json_t *request);
int ctl_queue_run_show(json_t *request);
int ctl_queue_run_hold(json_t *request);
int ctl_queue_run_bounce(json_t *request);
int ctl_queue_run_reroute(json_t *request);
int ctl_queue_run_flush(json_t *request);
int ctl_queue_run_remove(json_t *request);
void ctl_queue_print_audit(const json_t *request, const json_t *result);
int ctl_queue_finish_audit(const json_t *result);
int ctl_queue_run_check(json_t *request);

int ctl_trace_run(json_t *request);
void ctl_account_print_history(const json_t *request, const json_t *result);

void ctl_site_print_list(const json_t *request, const json_t *result);
void ctl_site_print_rules(const json_t *request, const json_t *result);
void ctl_site_print(const json_t *request, const json_t *result);
void ctl_site_prepare_limit(json_t *request);

void ctl_session_print_list(const json_t *request, const json_t *result);
void ctl_session_prepare_kill(json_t *request);
void ctl_session_print_killed(const json_t *request, const json_t *result);

void ctl_log_prepare(json_t *request);
void ctl_log_print(const json_t *request, const json_t *result);
void ctl_reload_print(const json_t *request, const json_t *result);
int ctl_watch_run(json_t *request);

void ctl_status_print(const json_t *request, const json_t *result);
void ctl_stop_print(const json_t *request, const json_t *result);
int ctl_stop_finish(const json_t *result);

#endif
