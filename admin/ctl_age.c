#include "admin/ctl.h"

/* age: shares of a walk through the queue, added up here. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/ctl_ask.h"
#include "admin/ctl_print.h"

#define PATIENCE       15 /* s, of one share */
#define PROGRESS_AFTER 2  /* s */
#define TOP            20

static const char *const lanes[] = {"fresh", "retry", "fallback"};
static const char *const ages[] = {"5min", "1h", "4h", "12h", "1d", "2d", "older"};
#define LANES (sizeof(lanes) / sizeof(lanes[0]))
#define AGES  (sizeof(ages) / sizeof(ages[0]))

static json_int_t
number(const json_t *row, const char *key)
{
	return json_integer_value(json_object_get(row, key));
}

static const char *
text(const json_t *row, const char *key)
{
	return json_string_value(json_object_get(row, key));
}

/* Adds to the row of that site in rows, which is keyed by sites. */
static void
add_row(json_t *rows, const char *lane, const char *site, const json_t *more)
{
	json_t *row = json_object_get(rows, site);

	if (row == NULL) {
		row = json_pack("{s:s,s:s}", "lane", lane, "site", site);
		json_object_set_new(rows, site, row);
	}
	for (size_t i = 0; i < AGES; i++) {
		const json_int_t n = number(more, ages[i]);

		json_object_set_new(row, ages[i], json_integer(number(row, ages[i]) + n));
		json_object_set_new(row, "total", json_integer(number(row, "total") + n));
	}
}

/* All shares; an object of rows for each lane. */
static void
walk(json_t *request, json_t *rows[LANES])
{
	time_t told = time(NULL);
	json_int_t seen = 0;

	for (bool more = true; more;) {
		json_t *share = ctl_ask(json_deep_copy(request), PATIENCE), *row;
		json_t *next = json_object_get(share, "next");
		size_t i;

		json_array_foreach(json_object_get(share, "rows"), i, row)
		{
			for (size_t k = 0; k < LANES; k++)
				if (strcmp(text(row, "lane"), lanes[k]) == 0)
					add_row(rows[k], lanes[k], text(row, "site"), row);
			for (size_t k = 0; k < AGES; k++)
				seen += number(row, ages[k]);
		}
		more = json_is_string(next);
		if (more)
			json_object_set(request, "after", next);
		json_decref(share);
		if (more && time(NULL) - told >= PROGRESS_AFTER) {
			told = time(NULL);
			fprintf(stderr, "%lld messages so far\n", (long long)seen);
		}
	}
}

static int
fuller_first(const void *a, const void *b)
{
	json_t *const *x = a, *const *y = b;
	const json_int_t more = number(*y, "total") - number(*x, "total");

	return more != 0 ? (more > 0) - (more < 0) : strcmp(text(*x, "site"), text(*y, "site"));
}

/* The first sites of the lane, what the others come to, and the sum. */
static void
rank(json_t *rows, const char *lane, size_t top, json_t *list)
{
	const size_t count = json_object_size(rows);
	json_t **sorted = malloc((count + 1) * sizeof(json_t *)), *row;
	json_t *ends = json_object();
	const char *site;
	size_t at = 0;

	if (sorted == NULL)
		abort();
	json_object_foreach(rows, site, row) sorted[at++] = row;
	qsort(sorted, count, sizeof(json_t *), fuller_first);
	for (size_t i = 0; i < count; i++) {
		if (i < top)
			json_array_append(list, sorted[i]);
		else
			add_row(ends, lane, "(others)", sorted[i]);
		add_row(ends, lane, "(all)", sorted[i]);
	}
	json_array_append(list, json_object_get(ends, "(others)")); /* harmless without */
	json_array_append(list, json_object_get(ends, "(all)"));
	json_decref(ends);
	free(sorted);
}

int
ctl_age_run(json_t *request)
{
	static struct ctl_column columns[] = {{.key = "lane", .head = "LANE"},
	                                      {.key = "site", .head = "SITE"},
	                                      {.key = "total", .head = "MESSAGES", .right = true},
	                                      {.key = "5min", .head = "5MIN", .right = true},
	                                      {.key = "1h", .head = "1H", .right = true},
	                                      {.key = "4h", .head = "4H", .right = true},
	                                      {.key = "12h", .head = "12H", .right = true},
	                                      {.key = "1d", .head = "1D", .right = true},
	                                      {.key = "2d", .head = "2D", .right = true},
	                                      {.key = "older", .head = "OLDER", .right = true},
	                                      {.key = NULL}};
	const char *typed = text(request, "top");
	const int top = typed != NULL ? atoi(typed) : TOP;
	json_t *rows[LANES], *result = json_pack("{s:[]}", "rows");

	if (top <= 0 || (typed != NULL && strspn(typed, "0123456789") != strlen(typed)))
		ctl_usage("--top takes a number of sites, such as 20");
	json_object_del(request, "top");
	for (size_t i = 0; i < LANES; i++)
		rows[i] = json_object();
	walk(request, rows);
	for (size_t i = 0; i < LANES; i++) {
		rank(rows[i], lanes[i], (size_t)top, json_object_get(result, "rows"));
		json_decref(rows[i]);
	}
	if (ctl_wants_json()) {
		ctl_json(result);
		putchar('\n');
	} else {
		ctl_table(columns, json_object_get(result, "rows"));
	}
	json_decref(result);
	return 0;
}
