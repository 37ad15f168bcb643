/* The client's side of AUTH (RFC 4954): PLAIN (RFC 4616), or LOGIN where a server has only that.
 * Text in, text out. */
#ifndef RELAY_LOGIN_H
#define RELAY_LOGIN_H

#include <stddef.h>

#include "core/conf.h"

#define LOGIN_SECRET_MAX CONF_SECRET_MAX /* octets of user and of password */
#define LOGIN_LINE_SIZE  4096

enum login_mechanism { LOGIN_NONE, LOGIN_PLAIN, LOGIN_LOGIN };

/* The better one that a line of an EHLO reply offers. */
enum login_mechanism login_offered(const char *text, size_t len);

/* What to send: AUTH itself at step 0, afterwards the answer to the challenge of that number, in
 * base64 and without CRLF. Returns its length, 0 when there is no answer to a further challenge.
 * The caller wipes out. */
size_t login_line(enum login_mechanism mechanism, unsigned step, const char *user,
                  const char *password, char out[LOGIN_LINE_SIZE]);

#endif
