/* Framed messages between our processes over private Unix sockets.
 *
 * sekishod makes every socket pair and hands the two ends out; when a process is restarted both
 * sides get a new pair. Three objects: a channel (struct ipc) is one such pair's end; a link
 * (struct ipc_link) is the calling side: one peer process across all its restarts; a hub (struct
 * ipc_hub) is the serving side: all peers of a process.
 *
 * SOCK_SEQPACKET, so one frame is one packet and carries at most one descriptor. A frame is at most
 * IPC_FRAME_MAX octets of payload. What does not fit the socket waits in a bounded queue
 * (IPC_BACKLOG_MAX octets); a peer that lets it overflow is treated as down, which is a state every
 * caller handles anyway. */
#ifndef CORE_IPC_H
#define CORE_IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/loop.h"

#define IPC_FRAME_MAX   (320u * 1024)
#define IPC_BACKLOG_MAX (64u * 1024 * 1024)

struct ipc_frame {
	uint16_t type;       /* of the request's module, or IPC_REPLY */
	uint32_t id;         /* of the call; 0 expects no reply */
	const uint8_t *data; /* borrowed for the call */
	size_t len;
	int fd; /* -1, or a descriptor: closed after the call unless the callee takes it by setting
	           -1 here */
};

/* The calling side. */
struct ipc_link;

enum ipc_status {
	IPC_OK,      /* the frame is the reply */
	IPC_DOWN,    /* the peer went down after the call left: whether it acted is unknown */
	IPC_TIMEOUT, /* no answer within the call's deadline: whether it acted is unknown */
};
/* frame is NULL unless status is IPC_OK. */
typedef void ipc_on_reply(void *arg, enum ipc_status status, struct ipc_frame *frame);

struct ipc_link_events {
	void (*on_up)(void *arg); /* a channel was attached; may be NULL */
	void (*on_down)(
	    void *arg); /* it is gone; pending calls get IPC_DOWN after this returns; may be NULL */
	void (*on_push)(void *arg, struct ipc_frame *frame); /* an unasked frame; may be NULL */
};

/* name is for the log ("queue"); events and arg are borrowed for the link's life. */
struct ipc_link *ipc_link_new(struct loop *loop, const char *name,
                              const struct ipc_link_events *events, void *arg);
/* Pending calls are forgotten without a callback. */
void ipc_link_free(struct ipc_link *link);
/* Takes a fresh channel's descriptor; an older channel goes down first. */
void ipc_link_attach(struct ipc_link *link, int fd_take);
bool ipc_link_is_up(const struct ipc_link *link);
/* Sends a request; on_reply is called exactly once, never from inside this call, unless
 * ipc_link_cancel comes first. payload is borrowed and may be NULL; fd is borrowed (duplicated by
 * the kernel), -1 for none. Returns the call's handle, or 0 when the link is down: then nothing was
 * sent and on_reply will not come. */
uint32_t ipc_link_call(struct ipc_link *link, uint16_t type, const struct buf *payload, int fd,
                       msec_t timeout, ipc_on_reply *on_reply, void *arg);
/* Forgets a pending call; its late answer is a harmless miss. 0 is harmless. */
void ipc_link_cancel(struct ipc_link *link, uint32_t call);
/* Sends a frame that expects no reply. False when the link is down. */
bool ipc_link_tell(struct ipc_link *link, uint16_t type, const struct buf *payload, int fd);

/* The serving side. */
struct ipc_hub;

/* Where a request came from; a value that stays safe to reply to after the peer is gone (the reply
 * is then dropped). */
struct ipc_from {
	uint32_t channel; /* unique in this process for ever: one incarnation of one peer process */
	uint32_t call;    /* id to answer; 0 when no answer is expected */
	unsigned role;    /* enum service_role of the peer */
	unsigned index;   /* which of several of that role */
};

struct ipc_hub_events {
	void (*on_frame)(void *arg, struct ipc_from from, struct ipc_frame *frame);
	void (*on_attach)(void *arg, struct ipc_from peer); /* may be NULL */
	void (*on_gone)(void *arg, struct ipc_from peer);   /* may be NULL */
};

struct ipc_hub *ipc_hub_new(struct loop *loop, const struct ipc_hub_events *events, void *arg);
void ipc_hub_free(struct ipc_hub *hub);
/* Takes a fresh channel to a peer; an older channel of the same role and index goes first. */
void ipc_hub_attach(struct ipc_hub *hub, unsigned role, unsigned index, int fd_take);
/* Answers a request. fd is borrowed, -1 for none. */
void ipc_hub_reply(struct ipc_hub *hub, struct ipc_from to, const struct buf *payload, int fd);
/* Sends an unasked frame to one channel (id 0); false when it is gone. */
bool ipc_hub_push(struct ipc_hub *hub, struct ipc_from to, uint16_t type, const struct buf *payload,
                  int fd);
/* The same to every peer of a role. */
void ipc_hub_push_all(struct ipc_hub *hub, unsigned role, uint16_t type, const struct buf *payload);

#define IPC_REPLY 0xffffu

#endif
