#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "smtp/header.h"

/* Neither the verdict nor what is handed on may depend on how the content was sliced, and what is
 * handed on holds no field that must not leave. The first octet says where to cut. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
gather(void *arg, const uint8_t *data, size_t len)
{
	buf_add(arg, data, len);
}

/* What is handed on is the input without some of its lines. */
static void
is_part(const uint8_t *data, size_t size, const struct buf *out)
{
	size_t at = 0;

	for (size_t i = 0; at < out->len; i++) {
		assert(i < size);
		if (data[i] == out->data[at])
			at++;
	}
}

/* A reader of its own: fields up to the empty line, none of them one that must not leave or has no
 * value. */
static void
look_for_hidden(struct buf *out)
{
	static const char *const gone[] = {"Bcc", "Resent-Bcc", "Return-Path"};
	static const char *const filled[] = {"Date", "Message-ID"};
	char *text = strdup(buf_str(out)), *rest = text, *line, *colon;

	while ((line = strsep(&rest, "\n")) != NULL) {
		line[strcspn(line, "\r")] = '\0';
		if (*line == '\0')
			break;
		if ((colon = strchr(line, ':')) == NULL)
			continue;
		size_t name = strcspn(line, " \t:");
		for (size_t i = 0; i < 3; i++)
			assert(name != strlen(gone[i]) || strncasecmp(line, gone[i], name) ||
			       line[name + strspn(line + name, " \t")] != ':');
		for (size_t i = 0; i < 2; i++)
			if (name == strlen(filled[i]) && !strncasecmp(line, filled[i], name) &&
			    line + name + strspn(line + name, " \t") == colon)
				assert(colon[1 + strspn(colon + 1, " \t")] != '\0' ||
				       (rest && (*rest == ' ' || *rest == '\t')));
	}
	free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	const struct header_opts opts = {.size_max = 4096, .received_max = 5, .remove_bcc = true};
	size_t cut = data[0] % size, n, m;
	struct arena *arena = arena_new();
	struct header *whole = header_new(arena, &opts), *cuts = header_new(arena, &opts);
	bool usual = data[0] & 1; /* line ends are made CRLF first, as the data phase does */
	struct buf content, all, some;

	buf_init(&content);
	buf_init(&all);
	buf_init(&some);
	data++;
	size--;
	for (size_t i = 0; i < size; i++)
		if (!usual || (data[i] != '\r' && data[i] != '\n'))
			buf_add_char(&content, (char)data[i]);
		else if (data[i] == '\n')
			buf_add_str(&content, "\r\n");
	data = (const uint8_t *)buf_str(&content);
	size = content.len;
	cut = cut < size ? cut : size;
	header_feed(whole, data, size, gather, &all);
	header_end(whole, gather, &all);
	header_feed(cuts, data, cut, gather, &some);
	for (size_t at = cut; at < size; at++)
		header_feed(cuts, data + at, 1, gather, &some);
	header_end(cuts, gather, &some);
	assert(header_error(whole) == header_error(cuts));
	if (!header_error(whole)) {
		assert(all.len == some.len && !memcmp(buf_str(&all), buf_str(&some), all.len));
		is_part(data, size, &all);
		if (header_is_missing(whole))
			assert(all.len == size);
		else if (usual && size > 0 && !memchr(data, 0, size))
			look_for_hidden(&all);
	}
	assert(header_is_missing(whole) == header_is_missing(cuts) &&
	       header_has_date(whole) == header_has_date(cuts) &&
	       header_has_message_id(whole) == header_has_message_id(cuts) &&
	       header_has_from(whole) == header_has_from(cuts) &&
	       header_needs_sender(whole) == header_needs_sender(cuts) &&
	       header_is_tls_optional(whole) == header_is_tls_optional(cuts));
	const struct address *a = header_authors(whole, &n), *b = header_authors(cuts, &m);
	assert(n == m);
	for (size_t i = 0; i < n; i++)
		assert(address_equal(&a[i], &b[i]));
	buf_clear(&content);
	buf_clear(&all);
	buf_clear(&some);
	arena_free(arena);
	return 0;
}
