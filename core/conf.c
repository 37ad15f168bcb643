#include "core/conf_int.h"

#include <assert.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"

/* Problem: an operator's mistake must be found before anything starts, with the place where it was
 * made; and what is checked, dumped, shipped and documented must never disagree.
 *
 * Idea: everything follows from conf_options[] below. The YAML text becomes a small tree of nodes
 * that remember line and column (libyaml's event API: its document API hides duplicate keys, and
 * its cost for deep nesting is quadratic, so depth and number of nodes are bounded here while
 * events arrive). The tree is then walked against the table. Defaults are texts in the table and go
 * through the same parsers as the operator's values, so they obey the same bounds.
 *
 * Invariants: a snapshot is never changed once conf_parse or conf_decode returned it. struct
 * snapshot begins with the public struct conf, so the pointer handed out finds the places behind
 * it. The rows of one section stand together, because the dump opens a section once.
 *
 * Deliberately not done: anchors, aliases and several documents. They would let one line of the
 * file mean two things, and an error's place would be ambiguous. */

static const char *const type_names[] = {
    "hostname",  "path",      "user",    "level",     "zone",    "text",    "count",
    "size",      "mode",      "quota",   "separator", "choice",  "burst",   "duration",
    "durations", "addresses", "servers", "networks",  "names",   "classes", "routes",
    "route",     "label",     "word",    "pattern",   "sources", "list"};
const char *const conf_levels[] = {"error", "warn", "info", "debug"};

/* --- the table */

#define F(name) offsetof(struct conf, name)
const struct option conf_options[] = {
    {"hostname", TYPE_HOSTNAME, F(hostname), "", 0, 0, false,
     "name in greeting, Received and Message-ID; default: this machine's name"},
    {"zone", TYPE_ZONE, F(zone), "", 0, 0, false,
     "time zone of days, logs and replies, such as Asia/Tokyo; default: this machine's"},
    {"contact", TYPE_TEXT, F(contact), "your provider's support", 0, 0, true,
     "whom the holder of a suspended account is told to ask"},
    {"listen.submission", TYPE_ADDRESSES, F(submission), ":587", 0, 0, true,
     "listeners with STARTTLS"},
    {"listen.submissions", TYPE_ADDRESSES, F(submissions), ":465", 0, 0, true,
     "listeners with TLS from the start"},
    {"listen.balancers", TYPE_NETWORKS, F(balancers), "", 0, 0, true,
     "load balancers: each connection from there must begin with a PROXY header, version 1 or 2"},
    {"listen.banner", TYPE_TEXT, F(banner), "Sekisho", 0, 0, true,
     "what the greeting says behind \"220 hostname ESMTP\""},
    {"listen.greeting_delay", TYPE_DURATION, F(greeting_delay), "0s", 0, SECONDS(30), true,
     "wait before the greeting; a client that has not waited for it by then is refused"},
    {"tls.certificate", TYPE_PATH, F(tls_certificate), "/etc/sekisho/tls/certificate.pem", 0, 0,
     true, "PEM certificate chain"},
    {"tls.key", TYPE_PATH, F(tls_key), "/etc/sekisho/tls/key.pem", 0, 0, true, "PEM private key"},
    {"spool", TYPE_PATH, F(spool), "/var/spool/sekisho", 0, 0, false, "directory of the queue"},
    {"accounts", TYPE_PATH, F(accounts), "/var/lib/sekisho/accounts", 0, 0, false,
     "directory of the account store"},
    {"admin.socket", TYPE_PATH, F(admin_socket), "/run/sekisho/admin.sock", 0, 0, false,
     "socket of sekishoctl"},
    {"admin.mode", TYPE_MODE, F(admin_socket_mode), "0666", 0, 0777, false,
     "permissions of the socket: who may try; what one may do is up to the next three"},
    {"admin.look", TYPE_NAMES, F(admin_look), "", 0, 0, true,
     "users and @groups that may see everything and change nothing"},
    {"admin.operate", TYPE_NAMES, F(admin_operate), "", 0, 0, true,
     "users and @groups that may also steer queue, sessions and quotas, and suspend accounts"},
    {"admin.admin", TYPE_NAMES, F(admin_admin), "", 0, 0, true,
     "users and @groups that may do everything, as root and the service's own user always may"},
    {"privilege.user", TYPE_USER, F(user), "sekisho", 0, 0, false,
     "owner of spool and accounts; used when started as root"},
    {"privilege.network_user", TYPE_USER, F(network_user), "sekisho-net", 0, 0, false,
     "user of the processes that face the network or hold keys"},
    {"msa.processes", TYPE_COUNT, F(msa_processes), "0", 0, 64, false,
     "accepting processes; 0: one per core"},
    {"log.level", TYPE_LEVEL, F(log_level), "info", 0, 0, true, "error, warn, info or debug"},
    {"limits.message_size", TYPE_SIZE, F(message_size), "25MiB", KIB, 2 * GIB - 1, true,
     "of one message"},
    {"limits.recipients", TYPE_COUNT, F(recipients), "500", 1, 10000, true, "of one message"},
    {"limits.messages", TYPE_COUNT, F(messages), "100", 1, 1000000, true, "of one session"},
    {"limits.sessions", TYPE_COUNT, F(sessions), "2000", 1, 100000, true,
     "at once in one accepting process"},
    {"limits.account_sessions", TYPE_COUNT, F(account_sessions), "30", 1, 100000, true,
     "at once of one account"},
    {"limits.prefix_sessions", TYPE_COUNT, F(prefix_sessions), "50", 1, 100000, true,
     "at once from one IPv4 address or IPv6 /64"},
    {"limits.header_size", TYPE_SIZE, F(header_size), "128KiB", KIB, 16 * MIB, true,
     "of one message's header"},
    {"limits.received_hops", TYPE_COUNT, F(received_hops), "50", 1, 1000, true,
     "Received fields that mean a mail loop"},
    {"limits.future_release", TYPE_DURATION, F(future_release), "30d", 0, DAYS(365), true,
     "for how long a sender may have a message held (FUTURERELEASE); 0 does not offer it"},
    {"limits.auth_failures", TYPE_COUNT, F(auth_failures), "3", 1, 100, true, "of one session"},
    {"limits.errors_soft", TYPE_COUNT, F(errors_soft), "10", 0, 1000, true,
     "errors in a session after which replies are late"},
    {"limits.errors_hard", TYPE_COUNT, F(errors_hard), "20", 1, 1000, true,
     "errors that end a session"},
    {"limits.data_rate", TYPE_SIZE, F(data_rate), "500", 0, MIB, true,
     "octets per second a client must keep up while sending data"},
    {"timeouts.command", TYPE_DURATION, F(command_timeout), "300s", 100, HOURS(1), true,
     "wait for a command"},
    {"timeouts.data", TYPE_DURATION, F(data_timeout), "300s", 100, HOURS(1), true,
     "wait for a block of data, and what a message may take beyond limits.data_rate"},
    {"timeouts.handshake", TYPE_DURATION, F(handshake_timeout), "60s", 100, HOURS(1), true,
     "wait for a TLS handshake"},
    {"content.bcc",
     TYPE_CHOICE,
     F(keep_bcc),
     "remove",
     0,
     0,
     true,
     "the Bcc and Resent-Bcc fields of mail: remove takes them out before anybody reads them, keep "
     "leaves them in",
     {"remove", "keep"}},
    {"content.client_address",
     TYPE_CHOICE,
     F(mask_client),
     "show",
     0,
     0,
     true,
     "the client's address in Received: show, or mask; queue and log have it either way",
     {"show", "mask"}},
    {"content.bare_line_ends",
     TYPE_CHOICE,
     F(refuse_bare_line_ends),
     "normalize",
     0,
     0,
     true,
     "a CR or LF that stands alone: normalize makes it CRLF, reject refuses the message",
     {"normalize", "reject"}},
    {"content.long_lines",
     TYPE_CHOICE,
     F(refuse_long_lines),
     "fold",
     0,
     0,
     true,
     "lines of more than 998 octets: fold makes several of one, reject refuses the message",
     {"fold", "reject"}},
    {"auth.failure_delay", TYPE_DURATION, F(auth_failure_delay), "2s", 0, SECONDS(15), true,
     "before the answer to a failed login; doubles up to 15s"},
    {"auth.cache", TYPE_DURATION, F(auth_cache), "5min", 0, DAYS(1), true,
     "how long a verified credential is remembered"},
    {"auth.detail_separator", TYPE_SEPARATOR, F(detail_separator), "+", 0, 0, true,
     "what divides user and detail in an account's address: who is user@ may send as user+detail@, "
     "too; off: only as user@"},
    {"auth.scram_iterations", TYPE_COUNT, F(scram_iterations), "15000", 4096, 65536, true,
     "of new passwords"},
    {"quota.recipients", TYPE_QUOTA, F(standard.recipients), "500/day", 0, 100000000, true,
     "of one account"},
    {"quota.messages", TYPE_QUOTA, F(standard.messages), "500/day", 0, 100000000, true,
     "of one account"},
    {"quota.window",
     TYPE_CHOICE,
     F(standard.calendar),
     "rolling",
     0,
     0,
     true,
     "what a day is: rolling is any 24 hours, calendar begins at midnight",
     {"rolling", "calendar"}},
    {"quota.burst_recipients", TYPE_BURST, F(standard.burst_recipients), "100 then 50/5min", 1,
     1000000, true, "recipients sent on at once, and how many more with time; the rest is paced"},
    {"quota.burst_messages", TYPE_BURST, F(standard.burst_messages), "30 then 30/1min", 1, 1000000,
     true, "messages sent on at once, and how many more with time; the rest is paced"},
    {"quota.senders",
     TYPE_CHOICE,
     F(standard.any_sender),
     "own",
     0,
     0,
     true,
     "as whom an account may send: own are its name and what it was granted; any, which only a "
     "class may say, is everybody, and each such message is logged",
     {"own", "any"}},
    {"quota.priority", TYPE_COUNT, F(standard.priority), "0", 0, 9, true,
     "highest priority that mail may ask for (MT-PRIORITY); what asks for more gets that"},
    {"quota.weight", TYPE_COUNT, F(standard.weight), "1", 1, CONF_WEIGHT_MAX, true,
     "share of what is sent on, while others' mail waits too: twice the weight, twice as much"},
    {"quota.pool", TYPE_LABEL, F(standard.pool), "default", 0, 0, true,
     "pool of egress that its mail leaves from; default, where egress names none of that name, is "
     "any address"},
    {"quota.pace_horizon", TYPE_DURATION, F(pace_horizon), "1h", 0, DAYS(1), true,
     "mail that would be paced for longer is refused for now"},
    {"classes", TYPE_CLASSES, F(classes), "", 0, 0, true,
     "other classes of accounts: a name, and below it what differs from quota"},
    {"queue.disk_reserve", TYPE_SIZE, F(disk_reserve), "4GiB", 0, 1024 * TIB, true,
     "refuse mail below this much free space, or 10 %, whichever is smaller; larger mail, whose "
     "size is announced, sooner"},
    {"queue.map_size", TYPE_SIZE, F(map_size), "64GiB", 16 * MIB, 16 * TIB, false,
     "of each database, sparse: new mail is refused when one is 90 % full of it"},
    {"retry.schedule", TYPE_DURATIONS, F(retry_schedule),
     "2min, 5min, 10min, 15min, 30min, 1h, 2h, 4h", 100, DAYS(7), true,
     "waits between attempts; the last one repeats"},
    {"retry.fallback_after", TYPE_DURATION, F(retry_fallback), "4h", 100, DAYS(30), true,
     "age at which a message moves to the fallback lane"},
    {"retry.expire", TYPE_DURATION, F(retry_expire), "4d", 100, DAYS(30), true,
     "age at which a message bounces"},
    {"retry.delay_notice", TYPE_DURATIONS, F(delay_notice), "4h, 24h", MINUTES(1), DAYS(30), true,
     "ages of undelivered mail at which its sender is told"},
    {"replies.rules", TYPE_RECORDS, F(reply_rules), "", 0, 0, true,
     "what servers' replies mean beyond their codes; the first rule that matches counts",
     .record = &conf_reply_rule_record},
    {"replies.shipped",
     TYPE_CHOICE,
     F(no_shipped_replies),
     "on",
     0,
     0,
     true,
     "rules for what large providers usually reply, behind those of replies.rules",
     {"on", "off"}},
    {"sites", TYPE_RECORDS, F(sites), "", 0, 0, true,
     "what sites get that are not like others; the first that matches counts",
     .record = &conf_site_record},
    {"lanes.rules", TYPE_RECORDS, F(lane_rules), "", 0, 0, true,
     "where mail waits that could not be delivered; the first rule that fits counts, and where "
     "none "
     "does it is fallback if the site is slow or the mail older than retry.fallback_after, else "
     "retry",
     .record = &conf_lane_rule_record},
    {"lanes.fresh_relays", TYPE_COUNT, F(lane_relays[0]), "1", 1, 16, false,
     "relay processes for mail that was never attempted"},
    {"lanes.retry_relays", TYPE_COUNT, F(lane_relays[1]), "1", 1, 16, false,
     "relay processes for mail in retry"},
    {"lanes.fallback_relays", TYPE_COUNT, F(lane_relays[2]), "1", 1, 16, false,
     "relay processes for mail in fallback"},
    {"lanes.retry_connections", TYPE_COUNT, F(retry_connections), "100", 1, 10000, true,
     "at once for mail in retry, by all its relays together; at most half of them to sites that "
     "have "
     "not answered"},
    {"lanes.fallback_connections", TYPE_COUNT, F(fallback_connections), "50", 1, 10000, true,
     "at once for mail in fallback, by all its relays together; at most half of them to sites that "
     "have "
     "not answered"},
    {"history.keep", TYPE_DURATION, F(history_keep), "30d", MINUTES(1), DAYS(3650), true,
     "how long what became of a message is known after its end"},
    {"history.size", TYPE_SIZE, F(history_size), "4GiB", 16 * MIB, 16 * TIB, true,
     "of that at most: beyond it, or three quarters of queue.map_size, the oldest is forgotten"},
    {"dns.servers", TYPE_SERVERS, F(dns_servers), "", 0, 0, true,
     "resolvers to ask; default: those of /etc/resolv.conf"},
    {"dns.trust_anchor", TYPE_PATH, F(dns_trust_anchor), "", 0, 0, false,
     "file of DS or DNSKEY records to validate answers with; default: answers are trusted"},
    {"dns.timeout", TYPE_DURATION, F(dns_timeout), "10s", 100, MINUTES(5), true,
     "wait for an answer"},
    {"relay.port", TYPE_COUNT, F(relay_port), "25", 1, 65535, true, "of MX hosts"},
    {"relay.deliveries", TYPE_COUNT, F(relay_deliveries), "100", 1, 100000, true,
     "on one connection"},
    {"relay.idle", TYPE_DURATION, F(relay_idle), "10s", 0, HOURS(1), true,
     "how long an unused connection is kept"},
    {"relay.ca_file", TYPE_PATH, F(relay_ca_file), "/etc/ssl/certs/ca-certificates.crt", 0, 0, true,
     "PEM certificates that vouch for hosts which a route or a message (REQUIRETLS) wants "
     "verified"},
    {"relay.connections", TYPE_COUNT, F(relay_connections), "100", 1, 10000, false,
     "at once in one relay process"},
    {"relay.site_connections", TYPE_COUNT, F(relay_site_connections), "20", 1, 10000, true,
     "at once to one site"},
    {"relay.connect_timeout", TYPE_DURATION, F(connect_timeout), "30s", 100, HOURS(1), true,
     "wait to connect"},
    {"relay.reply_timeout", TYPE_DURATION, F(reply_timeout), "300s", 100, HOURS(1), true,
     "wait for a reply before the data"},
    {"relay.data_timeout", TYPE_DURATION, F(relay_data_timeout), "180s", 100, HOURS(1), true,
     "wait for the reply to DATA and for each block"},
    {"relay.final_timeout", TYPE_DURATION, F(final_timeout), "600s", 100, HOURS(1), true,
     "wait for the reply to the final dot"},
    {"egress", TYPE_RECORDS, F(egress), "", 0, 0, true,
     "pools of this machine's addresses to send from; which one is up to the account's class",
     .record = &conf_pool_record},
    {"fallback.host", TYPE_ROUTE, F(fallback_host), "", 0, 0, true,
     "host to hand mail in the fallback lane to instead of MX hosts, with what a route has; "
     "default: none"},
    {"routes", TYPE_ROUTES, F(routes), "", 0, 0, true,
     "where mail for a domain, \"*.suffix\" or \"*\" goes; without a line: to its MX hosts"},
};
const size_t conf_option_count = sizeof(conf_options) / sizeof(conf_options[0]);

struct snapshot *
conf_snapshot_new(void)
{
	struct snapshot *snapshot =
	    xcalloc(1, sizeof(*snapshot) + conf_option_count * sizeof(snapshot->places[0]));
	snapshot->references = 1;
	return snapshot;
}

void *
conf_field(void *base, const struct option *option)
{
	return (char *)base + option->field;
}

const void *
conf_field_of(const void *base, const struct option *option)
{
	return (const char *)base + option->field;
}

bool
conf_is_text(enum type type)
{
	return type == TYPE_HOSTNAME || type == TYPE_PATH || type == TYPE_USER ||
	       type == TYPE_LEVEL || type == TYPE_ZONE || type == TYPE_TEXT ||
	       type == TYPE_SEPARATOR || type == TYPE_PATTERN;
}

bool
conf_is_list(enum type type)
{
	return type == TYPE_DURATIONS || type == TYPE_ADDRESSES || type == TYPE_SERVERS ||
	       type == TYPE_NETWORKS || type == TYPE_NAMES || type == TYPE_SOURCES;
}

const struct option *
conf_option_find(const char *key)
{
	for (size_t i = 0; i < conf_option_count; i++)
		if (strcmp(conf_options[i].key, key) == 0)
			return &conf_options[i];
	return NULL;
}

void
conf_route_clear(struct conf_route *route)
{
	free(route->domain);
	free(route->host);
	free(route->user);
	free(route->password_file);
}

static void
records_clear(const struct record *record, struct records *records)
{
	for (size_t i = 0; i < records->count; i++)
		for (size_t j = 0; j < record->count; j++)
			conf_value_clear((char *)records->list + i * record->size,
			                 &record->fields[j]);
	free(records->list);
}

void
conf_value_clear(void *base, const struct option *option)
{
	void *at = conf_field(base, option);

	if (conf_is_text(option->type)) {
		free(*(char **)at);
		return;
	}
	switch (option->type) {
	case TYPE_DURATIONS:
		free(((struct conf_durations *)at)->list);
		return;
	case TYPE_ADDRESSES:
	case TYPE_SERVERS:
	case TYPE_SOURCES:
		free(((struct conf_addresses *)at)->list);
		return;
	case TYPE_NETWORKS:
		free(((struct conf_networks *)at)->list);
		return;
	case TYPE_NAMES: {
		struct conf_names *names = at;
		for (size_t i = 0; i < names->count; i++)
			free(names->list[i].name);
		free(names->list);
		return;
	}
	case TYPE_CLASSES: {
		struct conf_classes *classes = at;
		for (size_t i = 0; i < classes->count; i++)
			free(classes->list[i].name);
		free(classes->list);
		return;
	}
	case TYPE_ROUTES: {
		struct conf_routes *routes = at;
		for (size_t i = 0; i < routes->count; i++)
			conf_route_clear(&routes->list[i]);
		free(routes->list);
		return;
	}
	case TYPE_ROUTE:
		conf_route_clear(at);
		return;
	case TYPE_RECORDS:
		records_clear(option->record, at);
		return;
	default: /* nothing of its own */
		return;
	}
}

const struct conf *
conf_ref(const struct conf *conf)
{
	((struct snapshot *)conf)->references++;
	return conf;
}

void
conf_free(const struct conf *held)
{
	struct conf *conf = (struct conf *)held;
	if (conf == NULL || --((struct snapshot *)conf)->references > 0)
		return;
	for (size_t i = 0; i < conf_option_count; i++)
		conf_value_clear(conf, &conf_options[i]);
	free(conf); /* the first member of its snapshot */
}

bool
conf_may_follow(const struct conf *running, const struct conf *next, const char *file,
                struct buf *errors)
{
	bool may = true;
	for (size_t i = 0; i < conf_option_count; i++) {
		struct buf was, is;
		unsigned line, column;
		if (conf_options[i].reloadable)
			continue;
		buf_init(&was);
		buf_init(&is);
		conf_print_value(running, &conf_options[i], &was);
		conf_print_value(next, &conf_options[i], &is);
		if (strcmp(buf_str(&was), buf_str(&is)) != 0) {
			conf_where(next, conf_options[i].key, &line, &column);
			buf_printf(errors,
			           "%s:%u:%u: %s: is %s until a restart; restart the service, or "
			           "set it back\n",
			           file, line != 0 ? line : 1, line != 0 ? column : 1,
			           conf_options[i].key, buf_str(&was));
			may = false;
		}
		buf_clear(&was);
		buf_clear(&is);
	}
	return may;
}

unsigned
conf_msa_count(const struct conf *conf)
{
	const long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (conf->msa_processes != 0)
		return (unsigned)conf->msa_processes;
	return cores < 1 ? 1 : cores > 64 ? 64 : (unsigned)cores;
}

unsigned
conf_relay_count(const struct conf *conf)
{
	unsigned sum = 0;

	for (size_t i = 0; i < CONF_LANES; i++)
		sum += (unsigned)conf->lane_relays[i];
	return sum;
}

unsigned
conf_relay_lane(const struct conf *conf, unsigned index)
{
	unsigned lane = 0;

	while (lane < CONF_LANES && index >= conf->lane_relays[lane])
		index -= (unsigned)conf->lane_relays[lane++];
	return lane;
}

const struct conf_class *
conf_class(const struct conf *conf, const char *name)
{
	for (size_t i = 0; i < conf->classes.count; i++)
		if (strcmp(conf->classes.list[i].name, name) == 0)
			return &conf->classes.list[i];
	return &conf->standard;
}

const struct conf_pool *
conf_pool_named(const struct conf *conf, const char *name)
{
	for (size_t i = 0; i < conf->egress.count; i++)
		if (strcmp(conf->egress.list[i].name, name) == 0)
			return &conf->egress.list[i];
	return NULL;
}

const struct conf_pool *
conf_pool(const struct conf *conf, const struct conf_class *class)
{
	return conf_pool_named(conf, class->pool);
}

static bool
holds(const struct conf_network *network, int family, const uint8_t *address)
{
	const size_t whole = network->bits / 8;
	const unsigned rest = network->bits % 8;
	return network->family == family && memcmp(network->prefix, address, whole) == 0 &&
	       (rest == 0 || (network->prefix[whole] ^ address[whole]) >> (8 - rest) == 0);
}

bool
conf_networks_hold(const struct conf_networks *networks, const struct sockaddr *address)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
	const uint8_t *octets = v6->sin6_addr.s6_addr;
	int family = address->sa_family;
	if (family == AF_INET)
		octets = (const uint8_t *)&v4->sin_addr;
	else if (family != AF_INET6)
		return false;
	if (family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
		family = AF_INET;
		octets += 12;
	}
	for (size_t i = 0; i < networks->count; i++)
		if (holds(&networks->list[i], family, octets))
			return true;
	return false;
}

bool
conf_pattern_covers(const char *pattern, const char *domain)
{
	size_t suffix = strlen(pattern + 1), len = strlen(domain);
	if (pattern[0] != '*')
		return strcmp(pattern, domain) == 0;
	return len > suffix && strcmp(domain + len - suffix, pattern + 1) == 0;
}

size_t
conf_site_match(const struct conf *conf, const char *name, size_t before)
{
	char host[264];
	size_t i = 0;

	snprintf(host, sizeof(host), "%.*s", (int)strcspn(name, "+:"), name);
	while (i < before && !conf_pattern_covers(conf->sites.list[i].match, host))
		i++;
	return i;
}

const struct conf_route *
conf_route(const struct conf *conf, const char *domain)
{
	const struct conf_route *best = NULL;
	for (size_t i = 0; i < conf->routes.count; i++) {
		const struct conf_route *route = &conf->routes.list[i];
		if (strcmp(route->domain, domain) == 0)
			return route;
		if (conf_pattern_covers(route->domain, domain) &&
		    (best == NULL || strlen(route->domain) > strlen(best->domain)))
			best = route;
	}
	return best;
}

void
conf_where(const struct conf *conf, const char *key, unsigned *line, unsigned *column)
{
	const struct option *option = conf_option_find(key);
	assert(option != NULL);
	const struct place *place = &((const struct snapshot *)conf)->places[option - conf_options];
	*line = place->line;
	*column = place->column;
}

static void
describe(const struct option *option, const char *of, struct buf *out)
{
	buf_printf(out, "%s%s\t%s\t%s\t", of, option->key, type_names[option->type],
	           option->standard ? option->standard : "none, it must be given");
	if (option->type == TYPE_WORD) {
		for (size_t i = 0; option->list[i] != NULL; i++)
			buf_printf(out, "%s%s", i > 0 ? ", " : "", option->list[i]);
	} else if (option->max != 0) {
		conf_print_number(option, option->min, out);
		buf_add_str(out, " to ");
		conf_print_number(option, option->max, out);
	}
	buf_printf(out, "\t%s\t%s\n", option->reloadable ? "yes" : "no", option->help);
}

void
conf_describe(struct buf *out)
{
	for (size_t i = 0; i < conf_option_count; i++) {
		const struct option *option = &conf_options[i];
		char of[80];

		describe(option, "", out);
		snprintf(of, sizeof(of), "%s[].", option->key);
		for (size_t j = 0; option->record && j < option->record->count; j++)
			describe(&option->record->fields[j], of, out);
	}
}
