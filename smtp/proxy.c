#include "smtp/proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

/* The specification is HAProxy's proxy-protocol.txt, versions 1 and 2.
 *
 * Whoever may send a header decides whom limits, bans and Received fields speak of, so nothing is
 * guessed: spaces are single, numbers are decimal without leading zeros, lengths are what they must
 * be, and what the specification reserves is refused. Two things are ignored because it says so:
 * what follows UNKNOWN, and everything in a LOCAL header but its length. TLVs are skipped. A client
 * by UDP or by a Unix socket cannot be a client of this service. */

#define V1_MAX 107
#define V2_MIN 16

static const uint8_t signature[12] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                      '\n', 'Q',  'U',  'I',  'T', '\n'};
static const char opening[] = "PROXY ";

enum { COMMAND_LOCAL = 0x20, COMMAND_PROXY = 0x21 };
enum { FAMILY_UNSPEC = 0x00, FAMILY_TCP4 = 0x11, FAMILY_TCP6 = 0x21, FAMILY_UNIX = 0x31 };

static enum proxy_result
bad(const char **why, const char *text)
{
	*why = text;
	return PROXY_BAD;
}

/* Moves *at behind the next word and the one space after it; false when there is none. The last
 * word, at the end, has no space. */
static bool
word(const char **at, const char *end, bool last, char *out, size_t size)
{
	const char *space = memchr(*at, ' ', (size_t)(end - *at));
	const char *stop = last ? end : space;
	size_t len;

	if (stop == NULL || (last && space != NULL))
		return false;
	len = (size_t)(stop - *at);
	if (len == 0 || len >= size)
		return false;
	memcpy(out, *at, len);
	out[len] = '\0';
	*at = last ? end : stop + 1;
	return strlen(out) == len;
}

static bool
port_of(const char *text, in_port_t *out)
{
	unsigned long value = 0;
	size_t len = strlen(text);

	if (len == 0 || len > 5 || (text[0] == '0' && len > 1))
		return false;
	for (const char *p = text; *p != '\0'; p++) {
		if (*p < '0' || *p > '9')
			return false;
		value = value * 10 + (unsigned long)(*p - '0');
	}
	*out = htons((uint16_t)value);
	return value <= UINT16_MAX;
}

/* What stands between "PROXY TCP4 " and CRLF. The destination is us, and only has to be right. */
static bool
addresses(const char *at, const char *end, int family, struct sockaddr_storage *client)
{
	char text[4][INET6_ADDRSTRLEN];
	struct in6_addr waste;
	struct sockaddr_in *in4 = (struct sockaddr_in *)(void *)client;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)client;
	void *to = family == AF_INET ? (void *)&in4->sin_addr : (void *)&in6->sin6_addr;
	in_port_t port = 0, waste_port;

	for (int i = 0; i < 4; i++)
		if (!word(&at, end, i == 3, text[i], sizeof(text[i])))
			return false;
	memset(client, 0, sizeof(*client));
	if (inet_pton(family, text[0], to) != 1 || inet_pton(family, text[1], &waste) != 1 ||
	    !port_of(text[2], &port) || !port_of(text[3], &waste_port))
		return false;
	client->ss_family = (sa_family_t)family;
	*(family == AF_INET ? &in4->sin_port : &in6->sin6_port) = port;
	return true;
}

static enum proxy_result
parse_v1(const char *data, size_t len, size_t *used, struct sockaddr_storage *client,
         const char **why)
{
	static const char unknown[] = "UNKNOWN";
	const char *at = data + sizeof(opening) - 1, *end;
	const size_t look = len < V1_MAX ? len : V1_MAX;

	/* Without an end, the last octet may be the CR of a CRLF still to come. */
	for (size_t i = 0; i < look; i++)
		if (data[i] == '\n' || (data[i] == '\r' && i + 1 < look && data[i + 1] != '\n'))
			return bad(why, "line ends with something else than CRLF");
		else if (data[i] == '\r' && i + 1 < look) {
			*used = i + 2;
			break;
		}
	if (*used == 0 && len < V1_MAX)
		return PROXY_MORE;
	if (*used == 0)
		return bad(why, "line has more than 107 octets");
	end = data + *used - 2;
	if (end - at >= 7 && memcmp(at, unknown, 7) == 0 && (at + 7 == end || at[7] == ' '))
		return PROXY_SELF;
	if (end - at > 5 && memcmp(at, "TCP4 ", 5) == 0 && addresses(at + 5, end, AF_INET, client))
		return PROXY_CLIENT;
	if (end - at > 5 && memcmp(at, "TCP6 ", 5) == 0 && addresses(at + 5, end, AF_INET6, client))
		return PROXY_CLIENT;
	return bad(why, "malformed addresses");
}

static enum proxy_result
parse_v2(const uint8_t *data, size_t len, size_t *used, struct sockaddr_storage *client,
         const char **why)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)(void *)client;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)client;
	const uint8_t *block = data + V2_MIN;
	size_t size;

	if (len > 12 && data[12] != COMMAND_LOCAL && data[12] != COMMAND_PROXY)
		return bad(why, "unknown version or command");
	if (len < V2_MIN)
		return PROXY_MORE;
	size = (size_t)data[14] << 8 | data[15];
	if (size > PROXY_MAX - V2_MIN)
		return bad(why, "more addresses and TLVs than are read");
	if (data[12] == COMMAND_PROXY) {
		if (data[13] == FAMILY_UNIX || data[13] == FAMILY_UNIX + 1)
			return bad(why, "the client came by a Unix socket");
		if (data[13] != FAMILY_UNSPEC && data[13] != FAMILY_TCP4 && data[13] != FAMILY_TCP6)
			return bad(why, "the client did not come by TCP");
		if (size < (data[13] == FAMILY_TCP4 ? 12 : data[13] == FAMILY_TCP6 ? 36 : 0))
			return bad(why, "addresses are cut short");
	}
	if (len < V2_MIN + size)
		return PROXY_MORE;
	*used = V2_MIN + size;
	if (data[12] == COMMAND_LOCAL || data[13] == FAMILY_UNSPEC)
		return PROXY_SELF;
	memset(client, 0, sizeof(*client));
	if (data[13] == FAMILY_TCP4) {
		in4->sin_family = AF_INET;
		memcpy(&in4->sin_addr, block, 4);
		memcpy(&in4->sin_port, block + 8, 2);
	} else {
		in6->sin6_family = AF_INET6;
		memcpy(&in6->sin6_addr, block, 16);
		memcpy(&in6->sin6_port, block + 32, 2);
	}
	return PROXY_CLIENT;
}

enum proxy_result
proxy_parse(const uint8_t *data, size_t len, size_t *used, struct sockaddr_storage *client,
            const char **why)
{
	const size_t v1 = sizeof(opening) - 1, v2 = sizeof(signature);

	*used = 0;
	*why = "";
	if (memcmp(data, opening, len < v1 ? len : v1) == 0)
		return len < v1 ? PROXY_MORE : parse_v1((const char *)data, len, used, client, why);
	if (memcmp(data, signature, len < v2 ? len : v2) == 0)
		return len < v2 ? PROXY_MORE : parse_v2(data, len, used, client, why);
	return bad(why, "does not begin with one; does the balancer send it?");
}
