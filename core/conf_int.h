/* What the files of the configuration share: the table and the snapshot (conf.c), single values
 * (conf_value.c), YAML (conf_tree.c), the tree against the table (conf_read.c), the effective
 * configuration (conf_dump.c), snapshots for other processes (conf_snapshot.c). */
#ifndef CORE_CONF_INT_H
#define CORE_CONF_INT_H

#include "core/conf.h"

#define TEXT_MAX    (1024u * 1024)
#define DEPTH_MAX   6 /* the deepest meaningful node is routes -> domain -> value */
#define NODES_MAX   50000
#define LIST_MAX    64   /* listeners of a kind, steps of a schedule */
#define ROUTES_MAX  4000 /* the duplicate check is quadratic */
#define CLASSES_MAX 200
#define CONTACT_MAX 100
#define STRING_MAX  1024
#define ERRORS_MAX  40
#define SECONDS(n)  ((uint64_t)(n)*1000)
#define MINUTES(n)  (SECONDS(n) * 60)
#define HOURS(n)    (MINUTES(n) * 60)
#define DAYS(n)     (HOURS(n) * 24)
#define KIB         ((uint64_t)1024)
#define MIB         (KIB * 1024)
#define GIB         (MIB * 1024)
#define TIB         (GIB * 1024)

enum type {
	TYPE_HOSTNAME,  /* char *: a domain name; the default is this machine's name */
	TYPE_PATH,      /* char * */
	TYPE_USER,      /* char * */
	TYPE_LEVEL,     /* char *: one of levels[] */
	TYPE_ZONE,      /* char *: a name of the time zone database, or empty */
	TYPE_TEXT,      /* char *: a few printable words */
	TYPE_COUNT,     /* uint64_t */
	TYPE_SIZE,      /* uint64_t octets */
	TYPE_MODE,      /* uint64_t, written in octal */
	TYPE_QUOTA,     /* uint64_t per day */
	TYPE_SEPARATOR, /* char *: one of a few characters, or "off" */
	TYPE_CHOICE,    /* bool: the second of two words */
	TYPE_BURST,     /* struct conf_burst */
	TYPE_DURATION,  /* msec_t */
	TYPE_DURATIONS, /* struct conf_durations */
	TYPE_ADDRESSES, /* struct conf_addresses: to listen on */
	TYPE_SERVERS,   /* struct conf_addresses: to ask, on port 53 unless told */
	TYPE_NETWORKS,  /* struct conf_networks */
	TYPE_NAMES,     /* struct conf_names */
	TYPE_CLASSES,   /* struct conf_classes */
	TYPE_ROUTES,    /* struct conf_routes */
	TYPE_ROUTE,     /* struct conf_route without domain; or empty */
	TYPE_LABEL,     /* char[CONF_CLASS_SIZE]: a name of ours */
	TYPE_WORD,      /* unsigned: which of option->list */
	TYPE_PATTERN,   /* char *: a domain, "*.suffix" or "*", lower case; or empty */
	TYPE_SOURCES,   /* struct conf_addresses: to send from, without port */
	TYPE_RECORDS,   /* a list and its count, as struct records: see struct record */
};

struct option {
	const char *key;
	enum type type;
	size_t field; /* offset in struct conf */
	const char
	    *standard; /* the default as an operator would write it; lists separated by commas */
	uint64_t min, max; /* of numbers, in base units */
	bool reloadable;
	const char *help;
	const char *words[2];        /* of a choice */
	const char *const *list;     /* of a word; NULL behind the last */
	const struct record *record; /* of records */
};
/* A list of maps: each map is one struct, each of its keys a row of a table of its own, with the
 * offset in that struct. A row without default is one that every map must have. */
struct record {
	const char *noun; /* "a rule" */
	size_t size, max; /* of the struct; how many */
	const struct option *fields;
	size_t count;
	/* Whether the whole is right, beside those before it; what is wrong with it, or NULL. */
	const char *(*check)(const void *list, size_t index);
};
/* How every field of TYPE_RECORDS begins: a pointer to the structs, and how many they are. */
struct records {
	void *list;
	size_t count;
};

/* core/conf_records.c */
extern const struct record conf_reply_rule_record, conf_pool_record, conf_site_record,
    conf_lane_rule_record;

extern const struct option conf_options[];
extern const size_t conf_option_count;
extern const char *const conf_levels[]; /* CONF_LEVELS of them */
#define CONF_LEVELS 4
extern const char *const conf_tls_names[]; /* by enum conf_tls */

struct place {
	uint32_t line; /* counted from 1; 0 while it is a default */
	uint32_t column;
};

struct snapshot {
	struct conf conf; /* first: what callers hold */
	unsigned references;
	struct place places[]; /* of each option */
};

/* conf.c */

/* In the struct that the option's table is for. */
void *conf_field(void *base, const struct option *option);
const void *conf_field_of(const void *base, const struct option *option);
bool conf_is_text(enum type type);
bool conf_is_list(enum type type);
/* With one reference, and nothing set. */
struct snapshot *conf_snapshot_new(void);
const struct option *conf_option_find(const char *key);
void conf_route_clear(struct conf_route *route);
/* Frees what the option holds. */
void conf_value_clear(void *base, const struct option *option);

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
	enum node_kind kind;
	unsigned line, column; /* from 1 */
	char *text;            /* of a scalar */
	bool plain;            /* an unquoted scalar: empty, "~" and "null" then mean nothing */
	struct node **list;    /* elements; of a map: key, value, key, value … */
	size_t count;
};

struct reader {
	const char *file;
	const char *text;
	size_t len;
	struct buf *errors;
	unsigned mistakes;
	struct yaml_parser_s *parser; /* of libyaml */
	size_t nodes;
	struct snapshot *snapshot;
	const struct node *classes; /* looked at last: they begin as copies of quota */
};

/* conf_value.c */

/* One scalar: the whole value, or one element of a list. Parsers return NULL, or what is wrong. */
const char *conf_parse_scalar(const struct option *option, const char *text, void *base);
/* "" where none is needed. */
const char *conf_parse_pattern(const char *text, char **out);
void conf_print_number(const struct option *option, uint64_t value, struct buf *out);
void conf_print_burst(const struct conf_burst *burst, struct buf *out);
/* What to do about a wrong value. */
void conf_print_advice(const struct option *option, struct buf *out);
bool conf_is_domain(const char *text);
/* The name of a class or pool: a-z, 0-9, - and _, at most 31. */
bool conf_is_label(const char *text);
bool conf_parse_port(const char *text, unsigned min, uint16_t *port);
void conf_add_address(struct conf_addresses *list, const void *addr, size_t len);
const char *conf_parse_route_domain(const char *text, struct conf_route *route);
const char *conf_parse_route_host(const char *text, struct conf_route *route);
/* Control characters, and what YAML would read differently. */
bool conf_has_control(const char *text);
/* Its default is empty and stands for something. */
bool conf_may_be_empty(const struct option *option);

/* conf_tree.c */

void conf_node_free(struct node *node);
bool conf_is_nothing(const struct node *node);
/* Opens one error line; the caller adds the text and a newline. False once there are enough. */
bool conf_mistake(struct reader *reader, unsigned line, unsigned column, const char *key);
void conf_mistake_at(struct reader *reader, const struct node *node, const char *key,
                     const char *what);
void conf_print_shown(const char *text, struct buf *out);
/* The whole text; NULL after a mistake, and for an empty document, which is a legal file of
 * defaults. */
struct node *conf_read_document(struct reader *reader);

/* conf_dump.c */

void conf_print_value(const void *base, const struct option *option, struct buf *out);

#endif
