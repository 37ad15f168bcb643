/* The manual tells the truth about options: every row of the table stands in sekisho.yaml(5), and
 * nothing else does. */
#include "core/conf.h"

/* "--entries" prints the entries as the page must have them; without it, they are compared with the
 * page. A page that has drifted is repaired by pasting the output between its .Bl and .El. Also
 * parses the sample configuration, which so holds known keys only. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned tests;
static int failed;

static void
ok(int good, const char *what)
{
	printf("%sok %u - %s\n", good ? "" : "not ", ++tests, what);
	failed |= !good;
}

static void
load(const char *path, struct buf *out)
{
	FILE *file = fopen(path, "r");
	size_t n;

	buf_init(out);
	if (file == NULL)
		return;
	do {
		n = fread(buf_reserve(out, 4096), 1, 4096, file);
		buf_commit(out, n);
	} while (n > 0);
	fclose(file);
}

/* Lines of a page have at most 80 octets. */
#define WIDTH 80

/* Adds the line, broken at spaces. */
static void
add_line(struct buf *out, const char *text)
{
	while (strlen(text) > WIDTH) {
		int at = WIDTH;

		while (at > 0 && text[at] != ' ')
			at--;
		if (at == 0)
			break;
		buf_printf(out, "%.*s\n", at, text);
		text += at + 1;
	}
	buf_printf(out, "%s\n", text);
}

/* The five texts of a row: key, type, default, bounds, reloadable; the sixth, help, ends the line.
 */
static void
entry(char *row, struct buf *out)
{
	char *part[6];
	const char *standard;
	struct buf line;

	for (int i = 0; i < 6; i++)
		part[i] = i < 5 ? strsep(&row, "\t") : row;
	standard = part[2];
	if (*standard == '\0')
		standard = strcmp(part[0], "hostname") == 0 ? "this machine's name" : "none";
	buf_printf(out, ".It Cm %s Pq %s\n", part[0], part[1]);
	add_line(out, part[5]);
	buf_add_str(out, ".br\n");
	buf_init(&line);
	buf_printf(&line, "Default: %s", standard);
	buf_printf(&line, "%s%s", *part[3] != '\0' ? "; bounds: " : "", part[3]);
	buf_add_str(&line, ".");
	add_line(out, buf_str(&line));
	if (strcmp(part[4], "no") == 0)
		add_line(out, "A change takes a restart.");
	buf_clear(&line);
}

int
main(int argc, char **argv)
{
	struct buf rows, page, text, errors;
	char *next, *row, label[160];
	size_t count = 0, found = 0;
	struct conf *conf;

	buf_init(&rows);
	conf_describe(&rows);
	load("man/sekisho.yaml.5", &page);
	next = strdup(buf_str(&rows));
	while ((row = strsep(&next, "\n")) != NULL) {
		char *key;

		if (*row == '\0')
			continue;
		count++;
		key = strndup(row, strcspn(row, "\t"));
		buf_init(&text);
		entry(row, &text);
		if (argc > 1 && strcmp(argv[1], "--entries") == 0) {
			fputs(buf_str(&text), stdout);
		} else {
			snprintf(label, sizeof(label), "%s stands in the page as in the table",
			         key);
			ok(strstr(buf_str(&page), buf_str(&text)) != NULL, label);
		}
		buf_clear(&text);
		free(key);
	}
	if (tests > 0) {
		for (const char *at = buf_str(&page); (at = strstr(at, "\n.It Cm ")) != NULL; at++)
			found++;
		ok(found == count, "and the page has no other option");
		load("etc/sekisho.yaml", &text);
		buf_init(&errors);
		conf = conf_parse("etc/sekisho.yaml", buf_str(&text), text.len, &errors);
		ok(conf != NULL, "the sample configuration is right");
		if (conf == NULL)
			printf("# %s", buf_str(&errors));
		conf_free(conf);
		buf_clear(&errors);
		buf_clear(&text);
		printf("1..%u\n", tests);
	}
	buf_clear(&page);
	buf_clear(&rows);
	return failed;
}
