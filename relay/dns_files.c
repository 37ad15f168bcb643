#include "relay/dns_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* Read once, by ourselves: in the sandbox there are no files, also not for the resolver of a later
 * configuration. */

/* Calls on_line for each line without its comment and line end. */
static int
read_lines(const char *path, const char *comments,
           void (*on_line)(struct dns_files *files, char *line), struct dns_files *files)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	if (!file)
		return -1;
	while (getline(&line, &size, file) > 0) {
		line[strcspn(line, comments)] = '\0';
		on_line(files, line);
	}
	free(line);
	fclose(file);
	return 0;
}

static void
on_hosts_line(struct dns_files *files, char *line)
{
	struct known found = {0};
	char *save, *word = strtok_r(line, " \t\r", &save);

	if (!word)
		return;
	found.is_v6 = inet_pton(AF_INET6, word, &found.v6) == 1;
	if (!found.is_v6 && inet_pton(AF_INET, word, &found.v4) != 1)
		return;
	while ((word = strtok_r(NULL, " \t\r", &save)))
		if (answer_host_name(word, found.name)) {
			struct known **last = &files->known;

			while (*last)
				last = &(*last)->next;
			*last = xmalloc(sizeof **last);
			**last = found;
		}
}

static void
on_resolv_line(struct dns_files *files, char *line)
{
	char *save, *word = strtok_r(line, " \t\r", &save);
	struct in6_addr any;

	if (!word || strcmp(word, "nameserver") != 0 || !(word = strtok_r(NULL, " \t\r", &save)))
		return;
	if (inet_pton(AF_INET, word, &any) == 1 || inet_pton(AF_INET6, word, &any) == 1)
		buf_add(&files->servers, word, strlen(word) + 1);
}

static void
on_anchor_line(struct dns_files *files, char *line)
{
	if (line[strspn(line, " \t\r")])
		buf_add(&files->anchors, line, strlen(line) + 1);
}

struct dns_files *
dns_files_new(const char *trust_anchor, char *error, size_t size)
{
	struct dns_files *files = xcalloc(1, sizeof *files);

	buf_init(&files->servers);
	buf_init(&files->anchors);
	/* A machine may do without these two. */
	(void)read_lines("/etc/hosts", "#\n", on_hosts_line, files);
	(void)read_lines("/etc/resolv.conf", "#;\n", on_resolv_line, files);
	if (trust_anchor[0] && read_lines(trust_anchor, ";\n", on_anchor_line, files) < 0) {
		snprintf(error, size, "%s: %s", trust_anchor, strerror(errno));
		dns_files_free(files);
		return NULL;
	}
	return files;
}

void
dns_files_free(struct dns_files *files)
{
	if (!files)
		return;
	while (files->known) {
		struct known *next = files->known->next;
		free(files->known);
		files->known = next;
	}
	buf_clear(&files->servers);
	buf_clear(&files->anchors);
	free(files);
}
