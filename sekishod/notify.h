/* Telling systemd how the service is: sd_notify(3). */
#ifndef SEKISHOD_NOTIFY_H
#define SEKISHOD_NOTIFY_H

/* Remembers where to; before the environment is cleaned. */
void notify_init(void);
/* Lines such as "READY=1\nSTATUS=…". Without anybody to tell, nothing happens; it never waits. */
void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
