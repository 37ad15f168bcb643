#include "queue/age.h"

/* Problem: a million messages may wait, and somebody wants to see at one glance where and since
 * when. Counts that are kept would have to follow each message as it ages; walking costs nothing
 * while nobody asks. So it is walked in shares, each bounded in messages and in rows, and who asks
 * adds them up; between two shares everything else gets its turn. It is no snapshot: what moves
 * meanwhile may be counted twice or not at all. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "queue/proto.h"

#define LOOK_MAX        500  /* messages of one share */
#define LOOK_RECIPIENTS 5000 /* and of them, about */
#define CHUNK           10
#define SITES_MAX       20 /* that one message is counted at */
#define ROWS_MAX        (PROTO_AGES_PAGE - CHUNK * SITES_MAX)

static const msec_t limits[QUEUE_AGES - 1] = {
    5 * 60 * 1000,       60 * 60 * 1000,      4 * 60 * 60 * 1000,
    12 * 60 * 60 * 1000, 24 * 60 * 60 * 1000, 48 * 60 * 60 * 1000,
};

struct share {
	struct store *store;
	match_site *site;
	void *arg;
	msec_t now;
	struct queue_id last;
	struct queue_age_row rows[PROTO_AGES_PAGE];
	size_t count;
	size_t looked; /* recipients */
};

static unsigned
age_of(const struct share *share, const struct store_message *message)
{
	unsigned age = 0;

	while (age < QUEUE_AGES - 1 && share->now - message->created > limits[age])
		age++;
	return age;
}

static struct queue_age_row *
row_of(struct share *share, enum queue_lane lane, const char *site)
{
	struct queue_age_row *row;

	for (size_t i = 0; i < share->count; i++) {
		row = &share->rows[i];
		if (row->lane == lane && strcmp(row->site, site) == 0)
			return row;
	}
	row = &share->rows[share->count++];
	row->lane = lane;
	snprintf(row->site, sizeof(row->site), "%s", site);
	return row;
}

static void
on_message(void *arg, const struct store_message *listed)
{
	struct share *share = arg;
	struct store_message *message = store_load_message(share->store, listed->lane, &listed->id);
	struct queue_age_row *at[SITES_MAX];
	size_t count = 0;

	share->last = listed->id;
	share->looked += listed->total;
	for (size_t i = 0; message && i < message->recipient_count && count < SITES_MAX; i++) {
		const struct store_recipient *recipient = &message->recipients[i];
		const char *domain = recipient->address.domain;
		const char *site = recipient->next_hop;
		struct queue_age_row *row;
		bool known = false;

		if (recipient->state != STORE_QUEUED)
			continue;
		if (!site[0])
			site = share->site(share->arg, domain);
		row = row_of(share, message->lane, site ? site : domain);
		for (size_t k = 0; k < count; k++)
			known |= at[k] == row;
		if (known)
			continue;
		at[count++] = row;
		row->messages[age_of(share, message)]++;
	}
	store_message_free(message);
}

void
age_share(struct store *store, const struct queue_id *after, match_site *site, void *arg,
          struct buf *out)
{
	struct share *share = xcalloc(1, sizeof(*share));
	bool more = true;

	share->store = store;
	share->site = site;
	share->arg = arg;
	share->now = clock_wall();
	for (size_t i = 0;
	     more && i < LOOK_MAX && share->count < ROWS_MAX && share->looked < LOOK_RECIPIENTS;
	     i += CHUNK) {
		if (store_list(store, NULL, after, CHUNK, on_message, share, &more) == 0)
			break;
		after = &share->last;
	}
	wire_put_u8(out, QUEUE_DONE);
	wire_put_u16(out, (uint16_t)share->count);
	for (size_t i = 0; i < share->count; i++) {
		wire_put_u8(out, (uint8_t)share->rows[i].lane);
		wire_put_str(out, share->rows[i].site);
		for (size_t k = 0; k < QUEUE_AGES; k++)
			wire_put_u32(out, share->rows[i].messages[k]);
	}
	wire_put_u8(out, more);
	proto_put_id(out, &share->last);
	free(share);
}
