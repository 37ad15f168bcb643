#include "sekishod/notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* WATCHDOG=1 is not sent. From sekishod it would prove only that sekishod runs, which does next to
 * nothing; a process of the service that hangs is seen in its peers' answers, and one that dies is
 * restarted here. */

static struct sockaddr_un to;
static socklen_t to_len; /* 0: nobody */

void
notify_init(void)
{
	const char *name = getenv("NOTIFY_SOCKET");
	size_t len = name != NULL ? strlen(name) : 0;
	if (len < 2 || len >= sizeof(to.sun_path) || (name[0] != '/' && name[0] != '@'))
		return;
	to.sun_family = AF_UNIX;
	memcpy(to.sun_path, name, len);
	if (name[0] == '@') /* abstract */
		to.sun_path[0] = '\0';
	to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

void
notify_send(const char *format, ...)
{
	char text[1024];
	va_list args;
	if (to_len == 0)
		return;
	va_start(args, format);
	int len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (len > 0 && (size_t)len < sizeof(text))
		(void)!sendto(fd, text, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL,
		              (const struct sockaddr *)&to, to_len);
	close(fd);
}
