#include "admin/process.h"

#include <stdio.h>
#include <string.h>

bool
process_parse(const char *text, struct process *out)
{
	const size_t len = strcspn(text, ".");
	const char *number = text[len] == '.' ? text + len + 1 : NULL;
	const size_t digits = number != NULL ? strspn(number, "0123456789") : 0;

	*out = (struct process){SERVICE_ROLES, -1};
	if (strcmp(text, "all") == 0)
		return true;
	for (int role = 0; role < SERVICE_ROLES; role++) {
		const char *name = service_role_name((enum service_role)role);

		if (strlen(name) == len && strncmp(name, text, len) == 0)
			out->role = (enum service_role)role;
	}
	if (number == NULL)
		return out->role != SERVICE_ROLES;
	if (digits == 0 || digits > 4 || number[digits] != '\0')
		return false;
	out->index = 0;
	for (size_t i = 0; i < digits; i++)
		out->index = out->index * 10 + (number[i] - '0');
	return out->role != SERVICE_ROLES && out->role != SERVICE_SEKISHOD;
}

bool
process_covers(const struct process *process, enum service_role role, unsigned index)
{
	return (process->role == SERVICE_ROLES || process->role == role) &&
	       (process->index < 0 || (unsigned)process->index == index);
}

char *
process_name(enum service_role role, unsigned index, char out[PROCESS_NAME_SIZE])
{
	if (role == SERVICE_SEKISHOD)
		snprintf(out, PROCESS_NAME_SIZE, "%s", service_role_name(role));
	else
		snprintf(out, PROCESS_NAME_SIZE, "%s.%u", service_role_name(role), index);
	return out;
}
