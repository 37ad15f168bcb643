#include "relay/answer.h"

#include <arpa/nameser.h>
#include <stdio.h>
#include <string.h>

/* The C library takes messages apart (ns_initparse, ns_parserr, ns_name_uncompress: bounds and
 * compression loops are its matter); here is only what an answer means. One pass is enough:
 * libunbound puts the records in the order of the CNAME chain and drops what does not belong to
 * it, and what would not follow the chain is not taken. */

bool
answer_host_name(const char *name, char out[ANSWER_NAME_SIZE])
{
	size_t len = strlen(name), label = 0;

	out[0] = '\0';
	if (len && name[len - 1] == '.')
		len--;
	if (!len || len >= ANSWER_NAME_SIZE)
		return false;
	for (size_t i = 0; i < len; i++) {
		const char c = name[i];

		if (c >= 'A' && c <= 'Z')
			out[i] = (char)(c - 'A' + 'a');
		else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
		         (c == '.' && label))
			out[i] = c;
		else
			return out[0] = '\0', false;
		label = c == '.' ? 0 : label + 1;
		if (label > 63)
			return out[0] = '\0', false;
	}
	out[len] = '\0';
	return true;
}

/* The name at a place in the message, as answer_record.host has it. -1: malformed. */
static int
read_name(const ns_msg *message, const uint8_t *at, char out[ANSWER_NAME_SIZE])
{
	char text[NS_MAXDNAME];

	if (ns_name_uncompress(ns_msg_base(*message), ns_msg_end(*message), at, text, sizeof text) <
	    0)
		return -1;
	if (!text[0] || !strcmp(text, "."))
		strcpy(out, ".");
	else
		answer_host_name(text, out);
	return 0;
}

static int
read_record(const ns_msg *message, const ns_rr *rr, struct answer_record *out)
{
	const uint8_t *data = ns_rr_rdata(*rr);
	const size_t len = ns_rr_rdlen(*rr);

	memset(out, 0, sizeof *out);
	switch (ns_rr_type(*rr)) {
	case ns_t_mx:
		if (len < 3)
			return -1;
		out->preference = ns_get16(data);
		return read_name(message, data + 2, out->host);
	case ns_t_a:
	case ns_t_aaaa:
		if (len != (ns_rr_type(*rr) == ns_t_a ? 4 : 16))
			return -1;
		memcpy(out->address, data, len);
		return 0;
	default:
		return -1;
	}
}

enum answer_kind
answer_parse(const uint8_t *data, size_t len, const char *name, enum answer_type type,
             answer_on_record *on_record, void *arg, char canonical[ANSWER_NAME_SIZE])
{
	ns_msg message;
	bool any = false;

	answer_host_name(name, canonical);
	if (len > NS_MAXMSG || ns_initparse(data, (int)len, &message) < 0 ||
	    !ns_msg_getflag(message, ns_f_qr))
		return ANSWER_MALFORMED;
	switch (ns_msg_getflag(message, ns_f_rcode)) {
	case ns_r_noerror:
		break;
	case ns_r_nxdomain:
		return ANSWER_NO_NAME;
	default:
		return ANSWER_FAILED;
	}
	for (int i = 0; i < ns_msg_count(message, ns_s_an); i++) {
		char owner[ANSWER_NAME_SIZE];
		struct answer_record record;
		ns_rr rr;

		if (ns_parserr(&message, ns_s_an, i, &rr) < 0)
			return ANSWER_MALFORMED;
		answer_host_name(ns_rr_name(rr), owner);
		if (ns_rr_class(rr) != ns_c_in || !owner[0] || strcmp(owner, canonical) != 0)
			continue;
		if (ns_rr_type(rr) == ns_t_cname && !any) {
			if (read_name(&message, ns_rr_rdata(rr), canonical) < 0)
				return ANSWER_MALFORMED;
		} else if ((int)ns_rr_type(rr) == (int)type) {
			if (read_record(&message, &rr, &record) < 0)
				return ANSWER_MALFORMED;
			any = true;
			on_record(arg, &record);
		}
	}
	return any ? ANSWER_DATA : ANSWER_NO_DATA;
}
