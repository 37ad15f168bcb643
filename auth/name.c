#include "auth/name.h"

#include <string.h>

#include "smtp/address.h"
#include "smtp/idna.h"

bool
name_canonical(const char *text, size_t len, char out[AUTH_ACCOUNT_MAX + 1])
{
	struct address address;
	char told[AUTH_ACCOUNT_MAX + 1], normal[AUTH_ACCOUNT_MAX + 1];
	char text_form[ADDRESS_TEXT_SIZE];

	out[0] = '\0';
	if (len == 0 || len > AUTH_ACCOUNT_MAX || memchr(text, '\0', len) != NULL)
		return false;
	memcpy(told, text, len);
	told[len] = '\0';
	if (!idna_normalize(told, normal, sizeof(normal)) ||
	    address_parse(normal, strlen(normal), &address) != ADDRESS_OK)
		return false;
	address_format(&address, text_form, sizeof(text_form));
	if (strlen(text_form) > AUTH_ACCOUNT_MAX)
		return false;
	strcpy(out, text_form);
	for (char *c = out; *c != '\0'; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	return true;
}

const char *
name_of_state(bool suspended)
{
	return suspended ? "suspended" : "active";
}
