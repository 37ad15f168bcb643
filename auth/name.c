#include "auth/name.h"

#include <string.h>

#include "core/text.h"
#include "smtp/idna.h"

bool
name_of_address(const struct address *address, char out[AUTH_ACCOUNT_MAX + 1])
{
	char text[ADDRESS_TEXT_SIZE], normal[ADDRESS_TEXT_SIZE];
	const char *usual = text;

	out[0] = '\0';
	address_format(address, text, sizeof(text));
	if (!text_is_ascii(text)) {
		if (!idna_normalize(text, normal, sizeof(normal)))
			return false;
		usual = normal;
	}
	if (usual[0] == '\0' || strlen(usual) > AUTH_ACCOUNT_MAX)
		return false;
	strcpy(out, usual);
	for (char *c = out; *c != '\0'; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	return true;
}

bool
name_canonical(const char *text, size_t len, char out[AUTH_ACCOUNT_MAX + 1])
{
	struct address address;
	char told[AUTH_ACCOUNT_MAX + 1], normal[AUTH_ACCOUNT_MAX + 1];

	out[0] = '\0';
	/* What is no UTF-8 would become a replacement character: the same for all of it. */
	if (len == 0 || len > AUTH_ACCOUNT_MAX || !text_is_printable(text, len))
		return false;
	memcpy(told, text, len);
	told[len] = '\0';
	return idna_normalize(told, normal, sizeof(normal)) &&
	       address_parse(normal, strlen(normal), &address) == ADDRESS_OK &&
	       name_of_address(&address, out);
}

const char *
name_of_state(bool suspended)
{
	return suspended ? "suspended" : "active";
}
