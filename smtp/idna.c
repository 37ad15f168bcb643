#include "smtp/idna.h"

#include <idn2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uninorm.h>

#include "core/text.h"

/* Domains are compared, looked up and sent as A-labels, so U-labels are turned at the border:
 * IDNA2008 with the mapping of UTS 46, non-transitional, as browsers and mail programs do it, which
 * folds case and takes the ideographic full stop for a dot. What needs no mapping costs a fifth
 * without it.
 *
 * libidn2 checks only what is not ASCII: "_" or "/" in a label, even one that a mapping has made
 * (U+2100 is "a/c"), goes by, and its flag against that drops such characters silently. So they are
 * looked for in the A-label, in which all that is ASCII stands as it is (RFC 3492 section 3.1).
 * Labels that are ASCII are none of its business: it refuses names that exist ("ab--cd"). */

#define LABEL_MAX (63 * 4) /* octets of a U-label that could have an A-label at all */

static bool
is_ldh(const char *text)
{
	for (; *text; text++)
		if (!(*text >= 'a' && *text <= 'z') && !(*text >= '0' && *text <= '9') &&
		    *text != '-' && *text != '.')
			return false;
	return true;
}

/* Of one label, to be freed with idn2_free; NULL when it has none. */
static char *
a_label(const char *label, size_t len)
{
	char text[LABEL_MAX + 1], *ascii = NULL;

	if (len > LABEL_MAX || memchr(label, 0, len) || label[0] == '-' || label[len - 1] == '-')
		return NULL;
	memcpy(text, label, len);
	text[len] = 0;
	if (idn2_lookup_u8((const uint8_t *)text, (uint8_t **)&ascii,
	                   IDN2_NFC_INPUT | IDN2_NO_TR46) != IDN2_OK &&
	    idn2_lookup_u8((const uint8_t *)text, (uint8_t **)&ascii,
	                   IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
		return NULL;
	if (is_ldh(ascii))
		return ascii;
	idn2_free(ascii);
	return NULL;
}

bool
idna_to_ascii(const char *name, size_t len, char out[IDNA_NAME_MAX + 1])
{
	const char *end = name + len, *dot;
	size_t used = 0;

	for (;; name = dot + 1) {
		dot = memchr(name, '.', (size_t)(end - name));
		size_t label = (size_t)((dot ? dot : end) - name);
		char *ascii = text_is_7bit(name, label) ? NULL : a_label(name, label);
		const char *text = ascii ? ascii : name;
		size_t add = ascii ? strlen(ascii) : label;
		bool good = text_is_7bit(text, add) && used + add + (dot != NULL) <= IDNA_NAME_MAX;

		if (good) {
			memcpy(out + used, text, add);
			used += add;
			if (dot)
				out[used++] = '.';
		}
		idn2_free(ascii);
		out[used] = 0;
		if (!good || !dot)
			return good;
	}
}

const char *
idna_to_unicode(const char *name, char out[IDNA_UNICODE_SIZE])
{
	char *unicode = NULL, again[IDNA_NAME_MAX + 1];
	const char *show = name;

	/* What does not come back as the same name would show another one. */
	if (idn2_to_unicode_8z8z(name, &unicode, 0) == IDN2_OK &&
	    idna_to_ascii(unicode, strlen(unicode), again) && !strcmp(again, name))
		show = unicode;
	snprintf(out, IDNA_UNICODE_SIZE, "%s", show);
	idn2_free(unicode);
	return out;
}

bool
idna_normalize(const char *text, char *out, size_t size)
{
	size_t len;
	uint8_t *normal =
	    u8_normalize(UNINORM_NFC, (const uint8_t *)text, strlen(text), NULL, &len);
	const bool good = normal && len < size;

	if (good) {
		memcpy(out, normal, len);
		out[len] = 0;
	}
	free(normal);
	return good;
}
