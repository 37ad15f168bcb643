#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/proxy.h"
#include "t/unit/tap.h"

/* Each header of the table, good or bad, at every truncation and with a client's octets behind it.
 */

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define FOUR                                                                                       \
	"\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x02\x4b" /* 192.0.2.1:56324, 198.51.100.2:587 */
#define SIX                                                                                        \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"                                               \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\xdc\x04\x02\x4b"
#define ROW(text, result, ip)                                                                      \
	{                                                                                          \
		text, sizeof(text) - 1, result, ip                                                 \
	}
#define X20 "xxxxxxxxxxxxxxxxxxxx"

static const struct {
	const char *text;
	size_t len;
	enum proxy_result result;
	const char *client;
} rows[] = {
    /* version 1 */
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 587\r\n", PROXY_CLIENT, "192.0.2.1:56324"),
    ROW("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", PROXY_CLIENT,
        "255.255.255.255:65535"),
    ROW("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", PROXY_CLIENT, "0.0.0.0:0"),
    ROW("PROXY TCP6 2001:db8::1 2001:DB8::2 56324 465\r\n", PROXY_CLIENT, "2001:db8::1:56324"),
    ROW("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        PROXY_CLIENT, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:65535"),
    ROW("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", PROXY_CLIENT, "::ffff:192.0.2.1:1"),
    ROW("PROXY UNKNOWN\r\n", PROXY_SELF, ""),
    ROW("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        PROXY_SELF, ""), /* the longest there is, 107 octets */
    ROW("PROXY UNKNOWN \x01 what ever\r\n", PROXY_SELF, ""),
    ROW("PROXY UNKNOWN " X20 X20 X20 X20 "xxxxxxxxxxxx\r\n", PROXY_BAD, ""), /* 108 octets */
    ROW("PROXY UNKNOWNS\r\n", PROXY_BAD, ""),
    ROW("PROXY \r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 \r\n", PROXY_BAD, ""),
    ROW("PROXY TCP5 192.0.2.1 198.51.100.2 56324 587\r\n", PROXY_BAD, ""),
    ROW("PROXY tcp4 192.0.2.1 198.51.100.2 56324 587\r\n", PROXY_BAD, ""),
    ROW("PROXY UDP4 192.0.2.1 198.51.100.2 56324 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 587 1\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 587 \r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4  192.0.2.1 198.51.100.2 56324 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1\t198.51.100.2 56324 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 65536 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 1 065\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 +1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 -1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 0x1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 100000 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.256 198.51.100.2 1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.01 198.51.100.2 1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2 198.51.100.2 1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1\0 198.51.100.2 1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 2001:db8::1 2001:db8::2 1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP6 192.0.2.1 198.51.100.2 1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP6 2001:db8::1::2 2001:db8::2 1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP6 fe80::1%eth0 2001:db8::2 1 587\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 587\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 587\rx", PROXY_BAD, ""),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 587\r\r\n", PROXY_BAD, ""),
    ROW("PROXY TCP4 " X20 X20 X20 X20 "xxxxxxxxxxxxxxxx", PROXY_BAD, ""), /* 107 octets, no end */
    ROW(" PROXY UNKNOWN\r\n", PROXY_BAD, ""),
    ROW("proxy UNKNOWN\r\n", PROXY_BAD, ""),
    ROW("PROXYUNKNOWN\r\n", PROXY_BAD, ""),
    ROW("EHLO client.example.test\r\n", PROXY_BAD, ""),
    ROW("\x16\x03\x01\x02", PROXY_BAD, ""),
    ROW("\r\n", PROXY_MORE, ""), /* the signature may follow */
    ROW("\r\nEHLO", PROXY_BAD, ""),
    /* version 2 */
    ROW(SIGNATURE "\x21\x11\0\x0c" FOUR, PROXY_CLIENT, "192.0.2.1:56324"),
    ROW(SIGNATURE "\x21\x11\0\x13" FOUR "\x01\0\x04smtp", PROXY_CLIENT, "192.0.2.1:56324"),
    ROW(SIGNATURE "\x21\x21\0\x24" SIX, PROXY_CLIENT, "2001:db8::1:56324"),
    ROW(SIGNATURE "\x21\x21\0\x27" SIX "\x04\xff\xff", PROXY_CLIENT, "2001:db8::1:56324"),
    ROW(SIGNATURE "\x20\0\0\0", PROXY_SELF, ""),
    ROW(SIGNATURE "\x20\x11\0\x0c" FOUR, PROXY_SELF, ""),
    ROW(SIGNATURE "\x20\xff\0\x02xx", PROXY_SELF, ""),
    ROW(SIGNATURE "\x20\x31\0\0", PROXY_SELF, ""),
    ROW(SIGNATURE "\x21\0\0\0", PROXY_SELF, ""),
    ROW(SIGNATURE "\x21\0\0\x04\x01\0\x01x", PROXY_SELF, ""),
    ROW(SIGNATURE "\x21\x11\0\x0b" FOUR, PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x11\0\0", PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x21\0\x23" SIX, PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x21\0\x0c" FOUR, PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x12\0\x0c" FOUR, PROXY_BAD, ""), /* UDP */
    ROW(SIGNATURE "\x21\x22\0\x24" SIX, PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x31\0\xd8", PROXY_BAD, ""), /* AF_UNIX */
    ROW(SIGNATURE "\x21\x32\0\xd8", PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x10\0\x0c" FOUR, PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x01\0\x0c" FOUR, PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x13\0\x0c" FOUR, PROXY_BAD, ""),
    ROW(SIGNATURE "\x21\x41\0\x0c" FOUR, PROXY_BAD, ""),
    ROW(SIGNATURE "\x22\x11\0\x0c" FOUR, PROXY_BAD, ""), /* command 2 */
    ROW(SIGNATURE "\x11\x11\0\x0c" FOUR, PROXY_BAD, ""), /* version 1 in binary */
    ROW(SIGNATURE "\x31\x11\0\x0c" FOUR, PROXY_BAD, ""), /* version 3 */
    ROW(SIGNATURE "\x21\x11\x0f\xf1", PROXY_BAD, ""),    /* one octet more than PROXY_MAX */
    ROW(SIGNATURE "\x20\0\xff\xff", PROXY_BAD, ""),
    ROW("\r\n\r\n\0\r\nQUIT\r\n", PROXY_BAD, ""),
};

static enum proxy_result
parse(const char *text, size_t len, size_t *used, char client[80])
{
	struct sockaddr_storage out;
	const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)&out;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&out;
	const char *why = NULL;
	/* Exactly as long as it is, so that a look beyond the end is seen. */
	char *copy = malloc(len + 1), ip[INET6_ADDRSTRLEN];
	const size_t gap = 1;

	memcpy(copy + gap, text, len);
	enum proxy_result result = proxy_parse((const uint8_t *)copy + gap, len, used, &out, &why);
	free(copy);
	client[0] = '\0';
	if (result == PROXY_CLIENT && out.ss_family == AF_INET)
		sprintf(client, "%s:%u", inet_ntop(AF_INET, &in4->sin_addr, ip, sizeof(ip)),
		        ntohs(in4->sin_port));
	else if (result == PROXY_CLIENT)
		sprintf(client, "%s:%u", inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip)),
		        ntohs(in6->sin6_port));
	if ((result == PROXY_BAD) != (why[0] != '\0'))
		return PROXY_MORE + 100;
	return result;
}

/* A description that can be printed. */
static const char *
shown(const char *text, size_t len)
{
	static char out[1024];
	char *p = out;

	for (size_t i = 0; i < len && i < 200; i++)
		p += sprintf(p, text[i] > ' ' && text[i] <= '~' && text[i] != '#' ? "%c" : "<%02x>",
		             (unsigned char)text[i]);
	*p = '\0';
	return out;
}

int
main(void)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *text = rows[i].text, *name = shown(text, rows[i].len);
		const bool good = rows[i].result == PROXY_CLIENT || rows[i].result == PROXY_SELF;
		char client[80], longer[512];
		size_t used = 99;

		ok_of(parse(text, rows[i].len, &used, client) == rows[i].result &&
		          strcmp(client, rows[i].client) == 0 &&
		          used == (good ? rows[i].len : used),
		      "a header", name);
		/* Cut short, a good one needs more; a bad one may be found out early, and then
		 * stays bad. */
		bool right = true, bad = false;
		for (size_t len = 0; len < rows[i].len; len++) {
			enum proxy_result result = parse(text, len, &used, client);
			right = right && (result == PROXY_MORE || (!good && result == PROXY_BAD)) &&
			        !(bad && result != PROXY_BAD);
			bad = result == PROXY_BAD;
		}
		ok_of(right, "at every truncation", name);
		if (!good)
			continue;
		memcpy(longer, text, rows[i].len);
		memcpy(longer + rows[i].len, "\x16\r\nPROXY UNKNOWN\r\n", 18);
		right = true;
		for (size_t extra = 1; extra <= 18; extra++)
			right =
			    right &&
			    parse(longer, rows[i].len + extra, &used, client) == rows[i].result &&
			    used == rows[i].len && strcmp(client, rows[i].client) == 0;
		ok_of(right, "what follows is the client's", name);
	}
	/* The largest that is read. */
	static char large[PROXY_MAX + 1] = SIGNATURE "\x21\x11\x0f\xf0" FOUR;
	char client[80];
	size_t used;
	ok_of(parse(large, PROXY_MAX - 1, &used, client) == PROXY_MORE &&
	          parse(large, PROXY_MAX, &used, client) == PROXY_CLIENT && used == PROXY_MAX,
	      "a header", "of PROXY_MAX octets");
	return tap_end();
}
