/* International names (RFC 5890) and text in its normal form (Unicode, NFC). Home of libidn2 and
 * libunistring. */
#ifndef SMTP_IDNA_H
#define SMTP_IDNA_H

#include <stdbool.h>
#include <stddef.h>

#define IDNA_NAME_MAX 255 /* octets of a name in DNS */

/* Each label with an octet over 127 becomes its A-label, the others stay as they are; the result is
 * ASCII, and not checked for what DNS asks of a host's name. False when a label is none by
 * IDNA2008, or it all is too long. */
bool idna_to_ascii(const char *name, size_t len, char out[IDNA_NAME_MAX + 1]);
/* For people: the name with its U-labels, or as it is when it has none. Returns out. */
#define IDNA_UNICODE_SIZE (4 * IDNA_NAME_MAX + 1)
const char *idna_to_unicode(const char *name, char out[IDNA_UNICODE_SIZE]);
/* UTF-8 text in NFC; false when it has no room. */
bool idna_normalize(const char *text, char *out, size_t size);

#endif
