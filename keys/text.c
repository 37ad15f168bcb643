#include "keys/text.h"

/* The judge in front of the key.
 *
 * Whoever takes over an msa process can ask for signatures as long as it holds on, but only for
 * texts that a TLS server signs while it greets a client. It must not get, say, a client's
 * CertificateVerify or something that means anything outside of TLS. The two texts cannot be
 * mistaken for each other: octet 64 is the 'T' of the one and the curve type of the other. */

#include <string.h>

static const char context[] = "TLS 1.3, server CertificateVerify"; /* the NUL is part of it */

#define PAD          64 /* spaces, or the two randoms */
#define NAMED_CURVE  3
#define POINT_MAX    133 /* P-521, uncompressed */
#define PARAMS_FIXED 4   /* curve type, curve, length of the point */

static bool
is_tls13(const uint8_t *text, size_t len)
{
	size_t hash;

	if (len <= PAD + sizeof(context))
		return false;
	hash = len - PAD - sizeof(context);
	for (size_t i = 0; i < PAD; i++)
		if (text[i] != ' ')
			return false;
	return memcmp(text + PAD, context, sizeof(context)) == 0 && (hash == 32 || hash == 48);
}

static bool
is_tls12(const uint8_t *text, size_t len)
{
	size_t point;

	if (len <= PAD + PARAMS_FIXED || len > PAD + PARAMS_FIXED + POINT_MAX)
		return false;
	point = len - PAD - PARAMS_FIXED;
	return text[PAD] == NAMED_CURVE && text[PAD + 3] == point && point >= 32;
}

bool
keys_text_is_signable(const uint8_t *text, size_t len, const char *padding)
{
	if (is_tls13(text, len))
		return strcmp(padding, "pkcs1") != 0;
	return is_tls12(text, len);
}

bool
keys_rate_allows(msec_t *window, unsigned *spent, msec_t now, unsigned per_second)
{
	if (now - *window >= 1000 || now < *window) {
		*window = now;
		*spent = 0;
	}
	if (*spent >= per_second)
		return false;
	++*spent;
	return true;
}
