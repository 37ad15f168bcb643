/* The mechanism LOGIN, which old mail programs still ask for first: an in-process plug-in of Cyrus
 * SASL, whose own one is on its way out. */
#ifndef AUTH_MECH_LOGIN_H
#define AUTH_MECH_LOGIN_H

#include <sasl/sasl.h>
#include <sasl/saslplug.h>

sasl_server_plug_init_t mech_login_init;

#endif
