#include "auth/name.h"

#include <ctype.h>
#include <string.h>

#include "smtp/address.h"

bool
name_canonical(const char *text, size_t len, char out[AUTH_ACCOUNT_MAX + 1])
{
	struct address address;
	char text_form[ADDRESS_TEXT_SIZE];

	out[0] = '\0';
	if (len == 0 || len > AUTH_ACCOUNT_MAX ||
	    address_parse(text, len, &address) != ADDRESS_OK || address_is_null(&address))
		return false;
	address_format(&address, text_form, sizeof(text_form));
	if (strlen(text_form) > AUTH_ACCOUNT_MAX)
		return false;
	strcpy(out, text_form);
	for (char *c = out; *c != '\0'; c++)
		*c = (char)tolower((unsigned char)*c);
	return true;
}

const char *
name_of_state(bool suspended)
{
	return suspended ? "suspended" : "active";
}
