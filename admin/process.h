/* Processes as people name them: "msa" is every one, "msa.1" the one that status shows as 1, "all"
 * the whole service. */
#ifndef ADMIN_PROCESS_H
#define ADMIN_PROCESS_H

#include "core/service.h"

struct process {
	enum service_role role; /* SERVICE_ROLES: all */
	int index;              /* -1: every one */
};
bool process_parse(const char *text, struct process *out);
bool process_covers(const struct process *process, enum service_role role, unsigned index);
#define PROCESS_NAME_SIZE 24
/* Returns out. */
char *process_name(enum service_role role, unsigned index, char out[PROCESS_NAME_SIZE]);

#endif
