#include "relay/login.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/mem.h"
#include "smtp/command.h"

/* Both show the password to the server, which the route's TLS has to make sure of. SCRAM would not;
 * but a smarthost that has it has PLAIN too, and the password is in our hands anyway. What a
 * server's challenge says is not looked at: LOGIN was never specified, and only the order counts.
 */

enum login_mechanism
login_offered(const char *text, size_t len)
{
	enum login_mechanism best = LOGIN_NONE;
	size_t at = 5;

	/* "AUTH=" is how some said it before RFC 2554. */
	if (len < 5 || strncasecmp(text, "AUTH", 4) != 0 || (text[4] != ' ' && text[4] != '='))
		return LOGIN_NONE;
	while (at < len) {
		const char *word = text + at;
		size_t n = 0;

		while (at + n < len && word[n] != ' ')
			n++;
		if (n == 5 && !strncasecmp(word, "PLAIN", n))
			best = LOGIN_PLAIN;
		else if (n == 5 && !strncasecmp(word, "LOGIN", n) && best == LOGIN_NONE)
			best = LOGIN_LOGIN;
		at += n + 1;
	}
	return best;
}

static size_t
encode(const char *before, const char *data, size_t len, char out[LOGIN_LINE_SIZE])
{
	const size_t at = strlen(before);

	assert(at + COMMAND_BASE64_SIZE(len) <= LOGIN_LINE_SIZE);
	memcpy(out, before, at);
	command_base64_encode((const uint8_t *)data, len, out + at);
	return strlen(out);
}

size_t
login_line(enum login_mechanism mechanism, unsigned step, const char *user, const char *password,
           char out[LOGIN_LINE_SIZE])
{
	char plain[2 * LOGIN_SECRET_MAX + 3];
	size_t len;
	int n;

	assert(strlen(user) <= LOGIN_SECRET_MAX && strlen(password) <= LOGIN_SECRET_MAX);
	if (mechanism == LOGIN_PLAIN && step == 0) {
		n = snprintf(plain, sizeof plain, "%c%s%c%s", '\0', user, '\0', password);
		len = encode("AUTH PLAIN ", plain, (size_t)n, out);
		mem_wipe(plain, sizeof plain);
		return len;
	}
	if (mechanism == LOGIN_LOGIN && step == 0)
		return (size_t)snprintf(out, LOGIN_LINE_SIZE, "AUTH LOGIN");
	if (mechanism == LOGIN_LOGIN && step <= 2)
		return encode("", step == 1 ? user : password, strlen(step == 1 ? user : password),
		              out);
	return 0;
}
