/* Least privilege once a process runs: no new privileges, no core dumps, no ptrace by its equals, a
 * system-call filter, and no file system beyond what its job needs. Each layer is used where the
 * kernel offers it. */
#ifndef CORE_SANDBOX_H
#define CORE_SANDBOX_H

#include <stddef.h>

#define SANDBOX_ACCEPT  1u /* accept(2) on inherited sockets */
#define SANDBOX_CONNECT 2u /* outbound TCP and UDP */
#define SANDBOX_OWN_DIR                                                                            \
	4u /* read and write below the working directory; without it no file can be opened at all  \
	    */
#define SANDBOX_THREADS 8u /* starts threads */

/* What a sanitizer needs in its own process; see sandbox.c. */
#ifndef __has_feature /* clang's way to say it; gcc defines the names below */
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANDBOX_SANITIZED 1
#else
#define SANDBOX_SANITIZED 0
#endif

/* No core dumps and no ptrace by equals from here on; part of sandbox_enter, and for those that
 * hold something before they can enter. 0, or -1 with errno. */
int sandbox_no_dumps(void);
/* Enters the sandbox; there is no way back. Writes the names of the active layers, comma-separated,
 * to layers. A layer the kernel lacks is left out; one that fails otherwise returns -1 with the
 * reason in error. */
int sandbox_enter(unsigned allowed, char *layers, size_t layers_size, char *error,
                  size_t error_size);

#endif
