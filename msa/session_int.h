/* What the life of a session (session.c) and its driver (driver.c) know of each other. */
#ifndef MSA_SESSION_INT_H
#define MSA_SESSION_INT_H

#include "msa/session.h"

/* session.c */

/* The address as text, and its port. An IPv4 address in IPv6 clothes is shown as what it is. */
uint16_t session_peer(const struct sockaddr *peer, char ip[INET6_ADDRSTRLEN]);
/* Around every call from outside: the session is freed by the outermost leave, once it has ended.
 */
void session_enter(struct session *session);
void session_leave(struct session *session);
/* Hands what was said to the connection. */
void session_flush(struct session *session);
/* Says nothing more: what was said is written, then the connection ends. */
void session_hang_up(struct session *session);
/* Says last_word and hangs up. */
void session_say_last_word(struct session *session);

/* driver.c */

extern const struct conn_events driver_events;
/* Takes what has arrived, as far as it may be taken now. */
void driver_run(struct session *session);
/* TLS begins behind what was said. */
void driver_start_tls(struct session *session);
/* The client's turn: from now on its deadline runs. */
void driver_await_client(struct session *session);
/* The same with what the process' load has become; nothing while it is not the client's turn. */
void driver_await_client_again(struct session *session);
/* Our greeting, listen.greeting_delay from now. */
void driver_greet(struct session *session);
/* The client's time is over; arg is the session. */
void driver_on_deadline(void *arg);

#endif
