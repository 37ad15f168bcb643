/* The frames of the control channel, private to service.c and sekishod.
 *
 * One SOCK_SEQPACKET packet is one frame: a type octet, then its fields in the encoding of
 * core/buf.h; at most one descriptor travels with it. Both ends are the same build, so there is no
 * version. */
#ifndef CORE_SERVICE_PROTO_H
#define CORE_SERVICE_PROTO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/buf.h"

#ifndef SEKISHO_VERSION
#define SEKISHO_VERSION "0.1"
#endif

#define SERVICE_FRAME_MAX (32u * 1024)
#define SERVICE_TEXT_MAX  (30u * 1024) /* of mistakes in one frame */
#define SERVICE_KEEP_USER UINT32_MAX   /* uid and gid stay as they are */

enum service_frame {
	/* from sekishod */
	SERVICE_FRAME_CONFIG = 1, /* u64 generation, u32 index, u32 uid, u32 gid; fd: sealed
	                             snapshot (conf_encode) */
	SERVICE_FRAME_FILE,       /* u8 enum service_file, u32 index; fd */
	SERVICE_FRAME_LISTENER,   /* u8 enum service_listener; fd */
	SERVICE_FRAME_LINK,       /* u8 enum service_role of the peer, u32 its index; fd */
	SERVICE_FRAME_START,      /* nothing */
	SERVICE_FRAME_STOP,       /* nothing */
	SERVICE_FRAME_NEXT,       /* u64 generation, u32 offer; fd: sealed snapshot. Its files and
	                             listeners, all of them, follow; then */
	SERVICE_FRAME_PREPARE,    /* nothing */
	SERVICE_FRAME_COMMIT,     /* nothing */
	SERVICE_FRAME_DROP,       /* nothing */
	SERVICE_FRAME_LOG_LEVEL,  /* u8 enum log_level */
	SERVICE_FRAME_TAP,        /* nothing; fd: where log lines go, too */
	SERVICE_FRAME_PROCESSES,  /* u32 ask, u64 generation, u64 loaded, string file, u64 expires,
	                             u8 log level,  u32  count, then per process: u8 role, u32 index,
	                             u32 pid, u64  since,  u32 restarts, u8 log level, u8 load,
	                             string layers
	                           */
	SERVICE_FRAME_RELOADED,   /* u32 ask, u64 generation in force, string mistakes */
	SERVICE_FRAME_LEVEL_SET,  /* u32 ask, u32 how many processes */
	SERVICE_FRAME_TAPPED,     /* u8 role, u32 index; fd: that process's log lines */
	/* to sekishod */
	SERVICE_FRAME_READY,         /* string layers */
	SERVICE_FRAME_LOAD,          /* u8 enum service_load */
	SERVICE_FRAME_PREPARED,      /* u32 offer, string refusal ("": prepared) */
	SERVICE_FRAME_ASK_PROCESSES, /* u32 ask */
	SERVICE_FRAME_ASK_STOP,      /* nothing */
	SERVICE_FRAME_ASK_RELOAD,    /* u32 ask */
	SERVICE_FRAME_ASK_LOG_LEVEL, /* u32 ask, u8 role, u32 index, u8 enum log_level */
	SERVICE_FRAME_ASK_TAP,       /* u8 whether */
};

/* Sends one frame without waiting; fields may be NULL, pass is borrowed, -1 for none. 0, or -1 with
 * errno. */
int service_frame_send(int fd, enum service_frame type, const struct buf *fields, int pass);
/* Receives one frame into data (SERVICE_FRAME_MAX octets), its descriptor (close-on-exec) into
 * pass, or -1. Returns its length, 0 at the end of the channel, -1 with errno (EAGAIN: nothing
 * there). */
ssize_t service_frame_recv(int fd, uint8_t *data, int *pass);

/* service_ask.c's part of the control channel: what only sekisho-admin hears. False when the frame
 * is none of these, or malformed. */
bool service_ask_frame(enum service_frame type, struct wire *wire, int *pass);

#endif
