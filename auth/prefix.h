/* Who counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which a provider gives
 * to one customer. */
#ifndef AUTH_PREFIX_H
#define AUTH_PREFIX_H

#define PREFIX_SIZE 64

/* The prefix of an address in text form; any other text stands for itself. */
void prefix_of(const char *client, char out[PREFIX_SIZE]);

#endif
