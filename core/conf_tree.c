#include "core/conf_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "core/mem.h"

void
conf_node_free(struct node *node)
{
	if (node == NULL)
		return;
	for (size_t i = 0; i < node->count; i++)
		conf_node_free(node->list[i]);
	free(node->list);
	free(node->text);
	free(node);
}

bool
conf_is_nothing(const struct node *node)
{
	return node->kind == NODE_SCALAR && node->plain &&
	       (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
	        strcmp(node->text, "null") == 0);
}

/* A value from the file inside a message: bounded, and no terminal ever sees its control
 * characters. */
void
conf_print_shown(const char *text, struct buf *out)
{
	buf_add_char(out, '"');
	for (size_t i = 0; text[i] != '\0'; i++) {
		if (i == 60) {
			buf_add_str(out, "...");
			break;
		}
		if ((unsigned char)text[i] < ' ' || (unsigned char)text[i] >= 0x7f)
			buf_printf(out, "\\x%02X", (unsigned char)text[i]);
		else
			buf_add_char(out, text[i]);
	}
	buf_add_char(out, '"');
}

/* Opens one error line; the caller adds the text and a newline. False once there are enough of
 * them. A key may be a stranger's: what is not ASCII becomes "?". */
bool
conf_mistake(struct reader *reader, unsigned line, unsigned column, const char *key)
{
	if (++reader->mistakes > ERRORS_MAX)
		return false;
	buf_printf(reader->errors, "%s:%u:%u: ", reader->file, line, column);
	for (const char *c = key; *c != '\0'; c++)
		buf_add_char(reader->errors, (unsigned char)*c < 0x7f ? *c : '?');
	buf_add_str(reader->errors, ": ");
	return true;
}

void
conf_mistake_at(struct reader *reader, const struct node *node, const char *key, const char *what)
{
	if (conf_mistake(reader, node->line, node->column, key))
		buf_printf(reader->errors, "%s\n", what);
}

static void
mistake_mark(struct reader *reader, const yaml_mark_t *mark, const char *what)
{
	if (conf_mistake(reader, (unsigned)mark->line + 1, (unsigned)mark->column + 1, "yaml"))
		buf_printf(reader->errors, "%s\n", what);
}

/* Octets count as columns; close enough for an editor to get there. */
static yaml_mark_t
mark_of(const struct reader *reader, size_t offset)
{
	yaml_mark_t mark = {.index = offset};
	for (size_t i = 0; i < offset && i < reader->len; i++) {
		mark.column++;
		if (reader->text[i] == '\n') {
			mark.line++;
			mark.column = 0;
		}
	}
	return mark;
}

static bool
next_event(struct reader *reader, yaml_event_t *event)
{
	if (yaml_parser_parse(reader->parser, event))
		return true;
	const yaml_parser_t *p = reader->parser;
	yaml_mark_t mark =
	    p->problem_mark.line != 0 || p->problem_mark.column != 0 ? p->problem_mark : p->mark;
	if (p->error == YAML_READER_ERROR) /* has no mark, but the octet's offset */
		mark = mark_of(reader, p->problem_offset);
	char what[256];
	snprintf(what, sizeof(what), "%s%s%s; correct the YAML",
	         p->problem != NULL ? p->problem : "unreadable", p->context != NULL ? " " : "",
	         p->context != NULL ? p->context : "");
	mistake_mark(reader, &mark, what);
	return false;
}

static struct node *
node_new(struct reader *reader, const yaml_event_t *event)
{
	const yaml_mark_t *mark = &event->start_mark;
	const yaml_char_t *anchor = NULL, *tag = NULL;
	if (++reader->nodes > NODES_MAX) {
		mistake_mark(reader, mark, "too many values; shorten the file");
		return NULL;
	}
	struct node *node = xcalloc(1, sizeof(*node));
	node->line = (unsigned)mark->line + 1;
	node->column = (unsigned)mark->column + 1;
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		node->kind = NODE_SCALAR;
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
		node->text = xmemdup0(event->data.scalar.value, event->data.scalar.length);
		node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
		if (strlen(node->text) != event->data.scalar.length) {
			mistake_mark(reader, mark, "a value holds a NUL; remove it");
			conf_node_free(node);
			return NULL;
		}
		break;
	case YAML_SEQUENCE_START_EVENT:
		node->kind = NODE_LIST;
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
		break;
	default:
		node->kind = NODE_MAP;
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
	}
	if (anchor != NULL || tag != NULL) {
		mistake_mark(reader, mark,
		             "anchors and tags have no meaning here; write the value itself");
		conf_node_free(node);
		return NULL;
	}
	return node;
}

/* Reads the node that begins with event, which is consumed. Bounded by DEPTH_MAX. NULL after a
 * mistake. */
static struct node *
read_node(struct reader *reader, yaml_event_t *event, unsigned depth)
{
	if (event->type == YAML_ALIAS_EVENT) {
		mistake_mark(reader, &event->start_mark,
		             "aliases have no meaning here; write the value itself");
		yaml_event_delete(event);
		return NULL;
	}
	if (depth > DEPTH_MAX) {
		mistake_mark(reader, &event->start_mark, "nested too deeply; no option needs this");
		yaml_event_delete(event);
		return NULL;
	}
	struct node *node = node_new(reader, event);
	yaml_event_delete(event);
	if (node == NULL || node->kind == NODE_SCALAR)
		return node;
	yaml_event_type_t end =
	    node->kind == NODE_LIST ? YAML_SEQUENCE_END_EVENT : YAML_MAPPING_END_EVENT;
	for (;;) {
		yaml_event_t inner;
		if (!next_event(reader, &inner))
			break;
		if (inner.type == end) {
			yaml_event_delete(&inner);
			return node;
		}
		struct node *child = read_node(reader, &inner, depth + 1);
		if (child == NULL)
			break;
		if ((node->count & (node->count - 1)) == 0) /* grows at powers of two */
			node->list =
			    xreallocarray(node->list, node->count == 0 ? 1 : node->count * 2,
			                  sizeof(*node->list));
		node->list[node->count++] = child;
	}
	conf_node_free(node);
	return NULL;
}

static struct node *
read_events(struct reader *reader)
{
	struct node *root = NULL;
	yaml_event_t event;
	unsigned documents = 0;
	for (;;) {
		if (!next_event(reader, &event))
			break;
		switch (event.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			yaml_event_delete(&event);
			continue;
		case YAML_DOCUMENT_START_EVENT:
			if (++documents > 1) {
				mistake_mark(reader, &event.start_mark,
				             "a second document; remove it");
				yaml_event_delete(&event);
				goto fail;
			}
			yaml_event_delete(&event);
			continue;
		case YAML_STREAM_END_EVENT:
			yaml_event_delete(&event);
			return root;
		default:
			root = read_node(reader, &event, 1);
			if (root == NULL)
				return NULL;
		}
	}
fail:
	conf_node_free(root);
	return NULL;
}

struct node *
conf_read_document(struct reader *reader)
{
	yaml_parser_t parser;
	int ok = yaml_parser_initialize(&parser);
	assert(ok); /* fails only without memory */
	yaml_parser_set_input_string(&parser, (const unsigned char *)reader->text, reader->len);
	reader->parser = &parser;
	struct node *root = read_events(reader);
	yaml_parser_delete(&parser);
	reader->parser = NULL;
	return root;
}
