/* Which texts sekisho-keys puts the server's key to. */
#ifndef KEYS_TEXT_H
#define KEYS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"

/* The request, and what its payload holds: the generation of the key as u64, digest and padding as
 * strings of at most 15 octets, the text as bytes. The reply is the bare signature; empty means
 * refused. */
#define KEYS_SIGN     1
#define KEYS_NAME_MAX 16 /* with the NUL */
#define KEYS_TEXT_MAX 512

/* True for a TLS 1.3 server CertificateVerify content (RFC 8446 section 4.4.3; never with padding
 * "pkcs1") and for TLS 1.2 ECDHE parameters behind the two randoms (RFC 8422 section 5.4), false
 * for everything else. */
bool keys_text_is_signable(const uint8_t *text, size_t len, const char *padding);

/* At most per_second signatures, and as many at once; *spent starts as 0 and belongs to the caller.
 */
bool keys_rate_allows(msec_t *window, unsigned *spent, msec_t now, unsigned per_second);

#endif
