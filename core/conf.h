/* The configuration: one table row per option, one immutable snapshot per generation.
 *
 * A row has key, type, field, default, bounds, whether a reload may change it, and help. Parsing,
 * checking, dumping (sekishod -T), shipping to the children and the test that table, sample and man
 * page agree all come from the table (core/conf.c). */
#ifndef CORE_CONF_H
#define CORE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/buf.h"
#include "core/clock.h"

struct conf_address { /* one listener: "127.0.0.1:587", "[::1]:587", ":587" is every address */
	struct sockaddr_storage addr;
	socklen_t len;
};
struct conf_addresses {
	struct conf_address *list;
	size_t count;
};
struct conf_durations {
	msec_t *list;
	size_t count;
};
enum conf_tls {
	CONF_TLS_MAY,      /* when the host offers it, unverified (RFC 7435) */
	CONF_TLS_NONE,     /* never */
	CONF_TLS_REQUIRE,  /* no mail without it, unverified */
	CONF_TLS_VERIFY,   /* no mail without it, and the certificate must be the host's */
	CONF_TLS_IMPLICIT, /* from the start, and the certificate must be the host's */
};
#define CONF_SECRET_MAX 1024 /* octets of a route's user, and of its password */
struct conf_route {
	char *domain; /* lower case: "example.org"; "*.example.org" for all below it; "*" for all
	                 others */
	bool mx;      /* by the domain's MX records; nothing below has a meaning then */
	char *host;   /* a name or an address literal without brackets */
	uint16_t port;
	enum conf_tls tls;
	char *user;          /* logs in there; "": does not */
	char *password_file; /* path, "" without user */
};
struct conf_routes {
	struct conf_route *list;
	size_t count;
};

/* One syntax: "100 then 50/5min" is 100 at once, and from then on 50 come back every 5 min. */
struct conf_burst {
	uint32_t at_once;
	uint32_t count; /* 0: no limit ("off") */
	msec_t period;
};
#define CONF_CLASS_SIZE 32
#define CONF_WEIGHT_MAX 100
struct conf_class {          /* a plan: what accounts of that class may do */
	char *name;          /* NULL of "standard" */
	uint64_t recipients; /* a day */
	uint64_t messages;   /* a day */
	bool calendar;       /* the day begins at midnight; otherwise it is the last 24 hours */
	struct conf_burst burst_recipients, burst_messages;
	bool any_sender;            /* may send as anybody, not only as what it was granted */
	char pool[CONF_CLASS_SIZE]; /* whose addresses its mail leaves from, see conf_pool */
	uint64_t priority;          /* the highest MT-PRIORITY (RFC 6710), 0 to 9 */
	uint64_t weight;            /* its mail's share beside that of other accounts */
};
struct conf_classes {
	struct conf_class *list;
	size_t count;
};

/* What a server's reply means beyond its code. */
enum conf_reply_action {
	CONF_REPLY_DEFER,   /* try again by the schedule, also after a 5xx */
	CONF_REPLY_BOUNCE,  /* the last word, also of a 4xx */
	CONF_REPLY_SUSPEND, /* try again, and leave the site alone for a while */
	CONF_REPLY_SLOWER,  /* try again, and halve what the site gets for a while */
	CONF_REPLY_BLOCK,   /* by its code, unless another source address may try; not from
	                       this one to that site for a while */
	CONF_REPLY_UNKNOWN, /* by its code; the recipient does not exist */
};
struct conf_reply_rule { /* what is "" matches everything */
	char *name;
	char *code;      /* how the reply code begins: "4", "55", "421" */
	char *enhanced;  /* how the enhanced code begins: "5.1.1", "4.7." */
	char *text;      /* POSIX extended regular expression, of any case, anywhere in the text */
	char *site;      /* a domain pattern: of the site, or of the recipient */
	unsigned action; /* enum conf_reply_action */
	msec_t period;   /* "for": of suspend, slower and block */
};
struct conf_reply_rules { /* the first that matches counts */
	struct conf_reply_rule *list;
	size_t count;
};

struct conf_pool { /* addresses of this machine, each in one pool only */
	char *name;
	struct conf_addresses sources; /* without port; at least one */
};
struct conf_pools {
	struct conf_pool *list;
	size_t count;
};

struct conf_site {              /* what one site, or all that serve certain domains, may get */
	char *match;            /* a domain pattern: of the site, or of a domain that it serves */
	uint64_t connections;   /* at once, at most; 0: relay.site_connections */
	uint64_t start;         /* at once, to begin with */
	uint64_t probe;         /* percent of that are tried after a pause */
	struct conf_burst rate; /* attempts */
	uint64_t session_recipients; /* on one connection; 0: no bound */
	uint64_t session_messages;   /* the same; 0: relay.deliveries */
	unsigned tls;                /* enum conf_tls, of MX hosts */
	char pool[CONF_CLASS_SIZE];  /* instead of quota.pool; "default": that */
};
struct conf_sites { /* the first that matches counts */
	struct conf_site *list;
	size_t count;
};
#define CONF_LANES 3 /* fresh, retry, fallback */
/* In which lane mail that could not be delivered waits. */
enum conf_lane { CONF_LANE_RETRY, CONF_LANE_FALLBACK };
struct conf_lane_rule {    /* all that it says must be so */
	unsigned to;       /* enum conf_lane */
	uint64_t attempts; /* at least */
	msec_t age;        /* at least */
	unsigned reply;    /* 0: any; else one more than enum reply_class of queue/reply_rules.h */
	bool slow;         /* only if the site is slow */
};
struct conf_lane_rules { /* the first that matches counts */
	struct conf_lane_rule *list;
	size_t count;
};

struct conf_name { /* who may use the admin socket */
	char *name;
	bool group;  /* written "@name" */
	uint32_t id; /* filled in by sekishod's checking child; CONF_NO_ID before */
};
#define CONF_NO_ID UINT32_MAX
struct conf_network { /* "192.0.2.0/24", "2001:db8::/32"; without a length, one address */
	int family;
	uint8_t prefix[16]; /* of an IPv4 network the first 4 */
	uint8_t bits;
};
struct conf_networks {
	struct conf_network *list;
	size_t count;
};
struct conf_names {
	struct conf_name *list;
	size_t count;
};

struct conf {
	/* who we are */
	char *hostname;                    /* hostname: in greeting, Received, Message-ID */
	char *zone;                        /* zone: IANA name; "" is the system's */
	char *contact;                     /* contact: whom a suspended account is sent to */
	struct conf_addresses submission;  /* listen.submission: STARTTLS */
	struct conf_addresses submissions; /* listen.submissions: implicit TLS */
	struct conf_networks balancers;    /* listen.balancers: who must send a PROXY header */
	char *banner;                      /* listen.banner: behind "220 hostname ESMTP" */
	msec_t
	    greeting_delay; /* listen.greeting_delay: who speaks before it is over is refused, 0s */
	char *tls_certificate;           /* tls.certificate: path */
	char *tls_key;                   /* tls.key: path */
	char *spool;                     /* spool: directory of the queue */
	char *accounts;                  /* accounts: directory of the account store */
	char *admin_socket;              /* admin.socket: path */
	uint64_t admin_socket_mode;      /* admin.mode: octal, default 0666 */
	struct conf_names admin_look;    /* admin.look: may see */
	struct conf_names admin_operate; /* admin.operate: may steer the queue and sessions, too */
	struct conf_names admin_admin;   /* admin.admin: may do everything */
	char *user; /* privilege.user: owner of spool and accounts; used when started as root */
	char *network_user;     /* privilege.network_user: msa, relay, keys */
	uint64_t msa_processes; /* msa.processes: 0 (auto) is one per core */
	char *log_level;        /* log.level: error, warn, info, debug */
	/* limits of a session */
	uint64_t message_size;     /* limits.message_size: octets, 25MiB */
	uint64_t recipients;       /* limits.recipients: per message, 500 */
	uint64_t messages;         /* limits.messages: per session, 100 */
	uint64_t sessions;         /* limits.sessions: per msa process, 2000 */
	uint64_t account_sessions; /* limits.account_sessions: of one account, 30 */
	uint64_t prefix_sessions;  /* limits.prefix_sessions: of one IPv4 address or IPv6 /64, 50 */
	uint64_t header_size;      /* limits.header_size: octets, 128KiB */
	uint64_t received_hops;    /* limits.received_hops: 50 */
	msec_t future_release;     /* limits.future_release: RFC 4865, 30d; 0: not offered */
	uint64_t auth_failures;    /* limits.auth_failures: per session, 3 */
	uint64_t errors_soft; /* limits.errors_soft: 10, each further one is answered 1 s late */
	uint64_t errors_hard; /* limits.errors_hard: 20, then 421 */
	bool keep_bcc;        /* content.bcc: remove or keep */
	bool mask_client;     /* content.client_address: show or mask */
	bool refuse_bare_line_ends; /* content.bare_line_ends: normalize or reject */
	bool refuse_long_lines;     /* content.long_lines: fold or reject */
	msec_t command_timeout;     /* timeouts.command: 300s */
	msec_t data_timeout;        /* timeouts.data: 300s, see msa/driver.c */
	msec_t handshake_timeout;   /* timeouts.handshake: 60s */
	uint64_t data_rate; /* limits.data_rate: octets per second a client must keep up while
	                       sending data, 500 */
	msec_t auth_failure_delay; /* auth.failure_delay: 2s, doubles with each failure in the
	                              session, up to 15 s */
	msec_t auth_cache;      /* auth.cache: how long a verified credential is remembered, 5min */
	char *detail_separator; /* auth.detail_separator: one character, or "off": + */
	uint64_t scram_iterations; /* auth.scram_iterations: 15000 (4096 to 65536) */
	/* rate control */
	struct conf_class standard;  /* quota.*: the class of every account without another */
	struct conf_classes classes; /* classes: what they leave out is as in quota */
	msec_t pace_horizon; /* quota.pace_horizon: mail that would wait longer is refused, 1h */
	/* queue */
	uint64_t disk_reserve; /* queue.disk_reserve: refuse mail below this much free space, or 10
	                          %, whichever is smaller: 4GiB */
	uint64_t map_size;     /* queue.map_size: LMDB map of each environment, sparse, 64GiB */
	struct conf_durations retry_schedule; /* retry.schedule: [2min, 5min, 10min, 15min, 30min,
	                                         1h, 2h, 4h], last one repeats */
	msec_t retry_fallback; /* retry.fallback_after: age at which a message moves to the fallback
	                          lane, 4h */
	msec_t retry_expire;   /* retry.expire: 4d */
	struct conf_durations delay_notice; /* retry.delay_notice: ages at which the sender is told,
	                                       once each: [4h, 24h] */
	struct conf_reply_rules reply_rules; /* replies.rules */
	struct conf_sites sites;             /* sites */
	struct conf_lane_rules lane_rules;   /* lanes.rules */
	uint64_t lane_relays[CONF_LANES];    /* lanes.fresh_relays and so on: relay processes, 1 */
	uint64_t retry_connections;          /* lanes.retry_connections: 100 */
	uint64_t fallback_connections;       /* lanes.fallback_connections: 50 */
	bool no_shipped_replies;             /* replies.shipped: on or off */
	msec_t history_keep;                 /* history.keep: 30d */
	uint64_t history_size;               /* history.size: 4GiB */
	/* relay */
	struct conf_addresses dns_servers; /* dns.servers: none is /etc/resolv.conf's */
	char *dns_trust_anchor;            /* dns.trust_anchor: path, "" validates nothing */
	msec_t dns_timeout;                /* dns.timeout: of one question, 10s */
	struct conf_routes routes;         /* routes: in order of the file */
	struct conf_pools egress;          /* egress */
	struct conf_route fallback_host;   /* fallback.host: host "" is none, domain NULL */
	uint64_t relay_port;               /* relay.port: of MX hosts, 25 */
	uint64_t relay_deliveries;         /* relay.deliveries: on one connection, 100 */
	msec_t relay_idle;                 /* relay.idle: an unused connection is kept, 10s */
	char *relay_ca_file;               /* relay.ca_file: PEM, for hosts to be verified */
	uint64_t relay_connections;        /* relay.connections: per relay process, 100 */
	uint64_t relay_site_connections;   /* relay.site_connections: at once to one site, 20 */
	msec_t connect_timeout;            /* relay.connect_timeout: 30s */
	msec_t reply_timeout;      /* relay.reply_timeout: greeting, EHLO, MAIL, RCPT, 300s */
	msec_t relay_data_timeout; /* relay.data_timeout: DATA and each block, 180s */
	msec_t final_timeout;      /* relay.final_timeout: final dot, 600s */
};

/* msa.processes, or one per core. Asks the system, so before a sandbox is closed. */
unsigned conf_msa_count(const struct conf *conf);
/* Relay processes of all lanes. */
unsigned conf_relay_count(const struct conf *conf);
/* The lane that the relay process of that index drains: 0 to 2; CONF_LANES when there is none. */
unsigned conf_relay_lane(const struct conf *conf, unsigned index);
/* The class of that name, "standard" when there is none of that name; never NULL. */
const struct conf_class *conf_class(const struct conf *conf, const char *name);
/* The pool of that name; NULL: there is none. */
const struct conf_pool *conf_pool_named(const struct conf *conf, const char *name);
/* The pool that mail of a class leaves from; NULL: from whatever address the system chooses. */
const struct conf_pool *conf_pool(const struct conf *conf, const struct conf_class *class);
/* Whether an address, which may be an IPv4 one in IPv6 clothes, is in one of the networks. */
bool conf_networks_hold(const struct conf_networks *networks, const struct sockaddr *address);
/* Whether "example.org", "*.example.org" (all below it) or "*" fits a domain; both in lower case.
 */
bool conf_pattern_covers(const char *pattern, const char *domain);
/* The first of the sites before that place which fits a domain, or the name of a site: its host's,
 * which stands before what makes it unique. None: that place. */
size_t conf_site_match(const struct conf *conf, const char *name, size_t before);
/* The route for a domain in lower case: its own line, else the longest "*.suffix", else "*"; NULL
 * when none fits, which means by MX. */
const struct conf_route *conf_route(const struct conf *conf, const char *domain);

/* Parses one YAML document of at most 1 MiB. Every mistake becomes one line "FILE:LINE:COLUMN: KEY:
 * what is wrong; what to do" in errors; NULL when there was one. Unknown keys name the nearest
 * known one. Paths are checked as text only. */
struct conf *conf_parse(const char *file, const char *text, size_t len, struct buf *errors);
/* A snapshot is immutable and counted: whoever outlives a reload holds one more reference. Both
 * from one thread only. */
const struct conf *conf_ref(const struct conf *conf);
void conf_free(const struct conf *conf);
/* Whether next may replace a running configuration: options that take a restart are the same. Each
 * one that is not becomes a line in errors as in conf_parse. */
bool conf_may_follow(const struct conf *running, const struct conf *next, const char *file,
                     struct buf *errors);

/* "30s", "10min", "4h" or "2d", as in the file. False when it is none. */
bool conf_duration(const char *text, msec_t *out);
/* A host with a port as a route has it: "mx.example.org:25", "192.0.2.1" or "[2001:db8::1]:2525",
 * 25 without one. NULL, or what is wrong with it. */
struct conf_host {
	char name[256]; /* in lower case, or an address, without brackets */
	uint16_t port;
};
#define CONF_HOST_TEXT_SIZE 264
const char *conf_host(const char *text, struct conf_host *out);
/* What that reads, port and all. Returns out. */
char *conf_host_text(const struct conf_host *host, char out[CONF_HOST_TEXT_SIZE]);
/* "5MiB", "100KiB", or octets. */
bool conf_size(const char *text, uint64_t *out);
/* What those read. */
void conf_print_duration(msec_t value, struct buf *out);
void conf_print_size(uint64_t value, struct buf *out);

/* The effective configuration as YAML with units, in the table's order. */
void conf_dump(const struct conf *conf, struct buf *out);
/* A snapshot for another process of the same build. */
void conf_encode(const struct conf *conf, struct buf *out);
struct conf *conf_decode(const void *data, size_t len);

/* Where in the file an option was set, for errors found later (an unreadable certificate); line 0
 * when it is a default. */
void conf_where(const struct conf *conf, const char *key, unsigned *line, unsigned *column);

/* The table as "key<TAB>type<TAB>default<TAB>bounds<TAB>reloadable<TAB>help" lines, for man page
 * and test. */
void conf_describe(struct buf *out);

#endif
