#include "auth/cache.h"

/* Keys are HMAC(process-random key, account, NUL, password): a core dump or a read gadget that
 * shows the table shows no password and nothing that can be tried without the key.
 *
 * Invalidation needs no messages: an entry also holds the StoredKey it was proved against, and only
 * counts for a caller who has just read the same one from the store. A changed password or a
 * removed and re-made account has another salt, hence another StoredKey; a removed account has no
 * record to ask with.
 *
 * The table is four-way associative and of fixed size: a full set loses its oldest entry. No
 * failure is ever remembered. */

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/random.h"

#define WAYS 4
#define SETS (CACHE_ENTRIES / WAYS)

struct entry {
	uint8_t key[CRYPT_SHA256_SIZE];
	uint8_t stored_key[CRYPT_SHA256_SIZE];
	msec_t until; /* monotonic; 0 for an empty place */
};

struct cache {
	pthread_mutex_t lock; /* guards sets */
	_Atomic msec_t hold;
	uint8_t secret[32];
	struct entry (*sets)[WAYS]; /* SETS of them */
};

struct cache *
cache_new(msec_t hold)
{
	struct cache *cache = xcalloc(1, sizeof(*cache));

	pthread_mutex_init(&cache->lock, NULL);
	cache->hold = hold;
	random_bytes(cache->secret, sizeof(cache->secret));
	cache->sets = xcalloc(SETS, sizeof(*cache->sets));
	return cache;
}

void
cache_free(struct cache *cache)
{
	if (cache == NULL)
		return;
	pthread_mutex_destroy(&cache->lock);
	free(cache->sets);
	mem_wipe(cache, sizeof(*cache));
	free(cache);
}

void
cache_hold(struct cache *cache, msec_t hold)
{
	pthread_mutex_lock(&cache->lock);
	if (hold < cache->hold)
		memset(cache->sets, 0, SETS * sizeof(*cache->sets));
	cache->hold = hold;
	pthread_mutex_unlock(&cache->lock);
}

static struct entry *
find_set(struct cache *cache, const char *account, const char *password, size_t len,
         uint8_t key[CRYPT_SHA256_SIZE])
{
	size_t account_len = strlen(account) + 1;
	uint8_t *text = xmalloc(account_len + len + 1);
	uint64_t number;

	memcpy(text, account, account_len);
	memcpy(text + account_len, password, len);
	crypt_hmac_sha256(cache->secret, sizeof(cache->secret), text, account_len + len, key);
	mem_wipe(text, account_len + len);
	free(text);
	memcpy(&number, key, sizeof(number));
	return cache->sets[number % SETS];
}

bool
cache_has(struct cache *cache, const char *account, const struct verifier *verifier,
          const char *password, size_t len, msec_t now)
{
	uint8_t key[CRYPT_SHA256_SIZE];
	struct entry *set;
	bool found = false;

	if (cache->hold <= 0)
		return false;
	set = find_set(cache, account, password, len, key);
	pthread_mutex_lock(&cache->lock);
	for (unsigned i = 0; i < WAYS; i++)
		if (set[i].until > now && mem_equal(set[i].key, key, sizeof(key)) &&
		    mem_equal(set[i].stored_key, verifier->stored_key, sizeof(set[i].stored_key)))
			found = true;
	pthread_mutex_unlock(&cache->lock);
	return found;
}

void
cache_add(struct cache *cache, const char *account, const struct verifier *verifier,
          const char *password, size_t len, msec_t now)
{
	uint8_t key[CRYPT_SHA256_SIZE];
	struct entry *set, *place;

	if (cache->hold <= 0)
		return;
	set = find_set(cache, account, password, len, key);
	pthread_mutex_lock(&cache->lock);
	place = &set[0];
	for (unsigned i = 0; i < WAYS; i++) {
		if (mem_equal(set[i].key, key, sizeof(key))) {
			place = &set[i];
			break;
		}
		if (set[i].until < place->until)
			place = &set[i];
	}
	memcpy(place->key, key, sizeof(key));
	memcpy(place->stored_key, verifier->stored_key, sizeof(place->stored_key));
	place->until = now + cache->hold;
	pthread_mutex_unlock(&cache->lock);
}
