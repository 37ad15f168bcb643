#include "auth/turns.h"

/* A ring of the clients that have jobs waiting, each with its own first-in-first-out list; the one
 * served moves to the end. At most max clients exist, so that they are looked up by walking: that
 * is microseconds where a job is milliseconds. */

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "auth/prefix.h"
#include "core/mem.h"

struct client {
	TAILQ_ENTRY(client) entry;
	struct turns_job *head, **tail;
	size_t count;
	char key[PREFIX_SIZE];
};

struct turns {
	TAILQ_HEAD(, client) clients;
	size_t count, max;
};

struct turns *
turns_new(size_t max)
{
	struct turns *turns = xcalloc(1, sizeof(*turns));

	TAILQ_INIT(&turns->clients);
	turns->max = max;
	return turns;
}

static void
client_free(struct turns *turns, struct client *client)
{
	TAILQ_REMOVE(&turns->clients, client, entry);
	free(client);
}

void
turns_free(struct turns *turns)
{
	struct client *client;

	if (turns == NULL)
		return;
	while ((client = TAILQ_FIRST(&turns->clients)) != NULL)
		client_free(turns, client);
	free(turns);
}

static struct client *
find_client(struct turns *turns, const char *name)
{
	struct client *client;
	char key[PREFIX_SIZE];

	prefix_of(name, key);
	TAILQ_FOREACH(client, &turns->clients, entry)
	if (strcmp(client->key, key) == 0)
		return client;
	client = xcalloc(1, sizeof(*client));
	client->tail = &client->head;
	strcpy(client->key, key);
	TAILQ_INSERT_TAIL(&turns->clients, client, entry);
	return client;
}

static struct turns_job *
drop_newest(struct turns *turns)
{
	struct client *client, *most = TAILQ_FIRST(&turns->clients);
	struct turns_job **at, *job;

	TAILQ_FOREACH(client, &turns->clients, entry)
	if (client->count > most->count)
		most = client;
	for (at = &most->head; (*at)->next != NULL;)
		at = &(*at)->next;
	job = *at;
	*at = NULL;
	most->tail = at;
	turns->count--;
	if (--most->count == 0)
		client_free(turns, most);
	return job;
}

struct turns_job *
turns_add(struct turns *turns, const char *client_name, struct turns_job *job)
{
	struct client *client = find_client(turns, client_name);

	job->next = NULL;
	*client->tail = job;
	client->tail = &job->next;
	client->count++;
	turns->count++;
	return turns->count > turns->max ? drop_newest(turns) : NULL;
}

struct turns_job *
turns_take(struct turns *turns)
{
	struct client *client = TAILQ_FIRST(&turns->clients);
	struct turns_job *job;

	if (client == NULL)
		return NULL;
	job = client->head;
	client->head = job->next;
	if (client->head == NULL)
		client->tail = &client->head;
	turns->count--;
	if (--client->count == 0) {
		client_free(turns, client);
	} else {
		TAILQ_REMOVE(&turns->clients, client, entry);
		TAILQ_INSERT_TAIL(&turns->clients, client, entry);
	}
	return job;
}
