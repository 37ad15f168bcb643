/* Verifiers against RFC 7677's example, the cache's rules, the store on disk, and whole PLAIN
 * exchanges. */
#include "auth/mech.h"
#include "auth/turns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static unsigned tests, bad;

static void
ok(bool good, const char *name)
{
	printf("%sok %u - %s\n", good ? "" : "not ", ++tests, name);
	bad += !good;
}

static void
test_verifier(void)
{
	static const uint8_t salt[] = {0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e,
	                               0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};
	static const char message[] =
	    "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
	    "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,"
	    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
	/* p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ= and
	 * v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4= */
	static const uint8_t proof[32] = {0x74, 0x7c, 0xdb, 0x65, 0xaa, 0x56, 0x22, 0x4e,
	                                  0x23, 0x52, 0x13, 0x7e, 0x52, 0xd7, 0xbd, 0xca,
	                                  0xd6, 0xa0, 0xf7, 0x38, 0xdf, 0x30, 0x78, 0x2c,
	                                  0xaa, 0x69, 0xa2, 0xcf, 0xb0, 0x27, 0x75, 0x54};
	static const uint8_t signature[32] = {0xea, 0xba, 0xe2, 0x4d, 0x10, 0x62, 0xdb, 0x75,
	                                      0xa9, 0x45, 0x1f, 0xf0, 0xb6, 0xea, 0x7e, 0x98,
	                                      0xc8, 0x54, 0x65, 0x49, 0xff, 0x74, 0x1e, 0x67,
	                                      0x2d, 0x32, 0x51, 0xb2, 0x39, 0x7d, 0xe4, 0x6e};
	struct verifier v = {.iterations = 4096};
	uint8_t got[32], key[32];

	memcpy(v.salt, salt, sizeof(salt));
	verify_derive(&v, "pencil", 6);
	crypt_hmac_sha256(v.server_key, 32, message, sizeof(message) - 1, got);
	ok(memcmp(got, signature, 32) == 0, "ServerKey gives RFC 7677's server signature");
	crypt_hmac_sha256(v.stored_key, 32, message, sizeof(message) - 1, got);
	for (unsigned i = 0; i < 32; i++)
		key[i] = got[i] ^ proof[i];
	crypt_sha256(key, 32, got);
	ok(memcmp(got, v.stored_key, 32) == 0, "StoredKey accepts RFC 7677's client proof");
	ok(verify_check(&v, "pencil", 6) && !verify_check(&v, "pencils", 7),
	   "a verifier knows its password");
	ok(verify_policy("1234567", 7) != NULL && verify_policy("12345678", 8) == NULL &&
	       verify_policy("1234\0005678", 9) != NULL,
	   "password policy");
}

static void
test_cache(void)
{
	struct verifier v = {.iterations = 1}, other = {.iterations = 1, .stored_key = {1}};
	struct cache *cache = cache_new(1000);

	ok(!cache_has(cache, "a@b.c", &v, "pw", 2, 10), "an empty cache knows nothing");
	cache_add(cache, "a@b.c", &v, "pw", 2, 10);
	ok(cache_has(cache, "a@b.c", &v, "pw", 2, 1009), "a success is remembered");
	ok(!cache_has(cache, "a@b.c", &v, "pw", 2, 1010), "for its time");
	ok(!cache_has(cache, "a@b.c", &v, "px", 2, 10) &&
	       !cache_has(cache, "b@b.c", &v, "pw", 2, 10),
	   "for that account and password only");
	ok(!cache_has(cache, "a@b.c", &other, "pw", 2, 10), "a changed verifier invalidates it");
	cache_free(cache);
	cache = cache_new(0);
	cache_add(cache, "a@b.c", &v, "pw", 2, 10);
	ok(!cache_has(cache, "a@b.c", &v, "pw", 2, 10), "a cache with no hold remembers nothing");
	cache_free(cache);
}

static int
prepared(const char *text, char out[VERIFY_PREPARED_SIZE])
{
	return verify_prepare(text, strlen(text), out);
}

static void
test_prepare(void)
{
	char a[VERIFY_PREPARED_SIZE], b[VERIFY_PREPARED_SIZE];

	/* The examples of RFC 4013 section 3. */
	ok(prepared("I\xc2\xadX", a) == 2 && strcmp(a, "IX") == 0, "SASLprep: soft hyphen");
	ok(prepared("USER", a) == 4 && strcmp(a, "USER") == 0, "SASLprep: case stays");
	ok(prepared("\xc2\xaa", a) == 1 && strcmp(a, "a") == 0, "SASLprep: NFKC");
	ok(prepared("\xe2\x85\xa8", a) == 2 && strcmp(a, "IX") == 0, "SASLprep: roman nine");
	ok(prepared("\a", a) == -1 && prepared("\xd8\xa7\x31", a) == -1,
	   "SASLprep: prohibited and bidirectional");
	ok(prepared("caf\xc3\xa9", a) == prepared("cafe\xcc\x81", b) && strcmp(a, b) == 0,
	   "composed and decomposed are one password");
	ok(prepared("\xff\xfe", a) == -1, "what is no UTF-8 is no password");
	ok(prepared("\xf0\x9f\x90\x8e horse", a) == 10, "but characters newer than SASLprep are");
	ok(verify_policy("1234567\xc2\xad", 9) != NULL && verify_policy("12345678\a", 9) != NULL,
	   "the policy looks at what counts");
}

/* The order in which the jobs of text come out: each letter is a client, in order of arrival. */
static struct turns_job jobs[100];

static void
test_turns(void)
{
	struct turns *turns = turns_new(6);
	struct turns_job *order[6];

	ok(turns_take(turns) == NULL, "nobody waits");
	for (unsigned i = 0; i < 4; i++)
		ok(turns_add(turns, "192.0.2.1", &jobs[i]) == NULL, "a client may wait with many");
	turns_add(turns, "192.0.2.2", &jobs[4]);
	turns_add(turns, "2001:db8::1", &jobs[5]);
	ok(turns_add(turns, "2001:db8::2", &jobs[6]) == &jobs[3],
	   "when all is full, the one with most loses its newest");
	for (unsigned i = 0; i < 6; i++)
		order[i] = turns_take(turns);
	ok(order[0] == &jobs[0] && order[1] == &jobs[4] && order[2] == &jobs[5] &&
	       order[3] == &jobs[1] && order[4] == &jobs[6] && order[5] == &jobs[2] &&
	       turns_take(turns) == NULL,
	   "clients take turns; a /64 is one client");
	for (unsigned i = 0; i < 6; i++)
		turns_add(turns, "192.0.2.1", &jobs[i]);
	ok(turns_add(turns, "192.0.2.1", &jobs[6]) == &jobs[6] && turns_take(turns) == &jobs[0] &&
	       turns_add(turns, "192.0.2.1", &jobs[7]) == NULL,
	   "a client alone loses its own newest, and its list stays whole");
	turns_free(turns);
}

static enum auth_outcome
plain(const char *message, size_t len, char account[AUTH_ACCOUNT_MAX + 1])
{
	struct mech *mech = mech_new("PLAIN");
	const uint8_t *challenge;
	size_t challenge_len;
	enum auth_outcome outcome =
	    mech_step(mech, (const uint8_t *)message, len, &challenge, &challenge_len);

	strcpy(account, mech_account(mech)->account);
	mech_free(mech);
	return outcome;
}
#define PLAIN(text) plain(text, sizeof(text) - 1, who)

/* The least CPU that a wrong password for the account took. */
static clock_t
cost(const char *account)
{
	char message[128], who[AUTH_ACCOUNT_MAX + 1];
	int len = snprintf(message, sizeof(message), "%c%s%cwrong horse", 0, account, 0);
	clock_t least = 0;

	for (unsigned i = 0; i < 5; i++) {
		clock_t start = clock();

		plain(message, (size_t)len, who);
		start = clock() - start;
		if (i == 0 || start < least)
			least = start;
	}
	return least;
}

static void
test_store_and_mech(void)
{
	char dir[] = "/tmp/sekisho-auth-XXXXXX", error[256], who[AUTH_ACCOUNT_MAX + 1];
	struct accounts_record record = {0};
	struct auth_entry list[2];
	struct accounts *store;
	struct mech *mech;
	const uint8_t *challenge;
	size_t len, count;
	bool more;

	if (mkdtemp(dir) == NULL || chdir(dir) != 0)
		exit(99);
	store = accounts_open(1u << 24, error, sizeof(error));
	ok(store != NULL, "the store opens");
	if (store == NULL)
		return;
	strcpy(record.entry.account, "alice@example.net");
	strcpy(record.entry.class, "standard");
	strcpy(record.entry.state, "active");
	verify_make(&record.verifier, "correct horse", 13, 4096);
	ok(accounts_add(store, &record) == ACCOUNTS_OK &&
	       accounts_add(store, &record) == ACCOUNTS_EXISTS,
	   "add, once");
	strcpy(record.entry.account, "bob@example.net");
	ok(accounts_add(store, &record) == ACCOUNTS_OK, "add another");
	accounts_close(store);
	store = accounts_open(1u << 24, error, sizeof(error));
	ok(accounts_list(store, "", list, 1, &count, &more) == ACCOUNTS_OK && count == 1 && more &&
	       accounts_list(store, list[0].account, list, 2, &count, &more) == ACCOUNTS_OK &&
	       count == 1 && !more && strcmp(list[0].account, "bob@example.net") == 0,
	   "both are there after reopening, page by page");

	struct cache *cache = cache_new(60000);
	struct mech_opts opts = {
	    .store = store, .cache = cache, .iterations = 65536, .hostname = "mx.example.net"};

	ok(mech_init(&opts, error, sizeof(error)) == 0, "Cyrus SASL starts");
	ok(PLAIN("\0alice@example.net\0correct horse") == AUTH_OK &&
	       strcmp(who, "alice@example.net") == 0,
	   "PLAIN logs in");
	ok(PLAIN("\0ALICE@Example.NET\0correct horse") == AUTH_OK &&
	       strcmp(who, "alice@example.net") == 0,
	   "whatever the case of the name");
	ok(PLAIN("alice@example.net\0alice@example.net\0correct horse") == AUTH_OK,
	   "authzid may be the same");
	ok(PLAIN("bob@example.net\0alice@example.net\0correct horse") == AUTH_REFUSED,
	   "authzid may not be another");
	ok(PLAIN("\0alice@example.net\0wrong horse") == AUTH_REFUSED,
	   "a wrong password is refused");
	ok(PLAIN("\0nobody@example.net\0correct horse") == AUTH_REFUSED,
	   "an unknown account is refused");
	ok(PLAIN("\0\"Alice\"@example.net\0correct horse") == AUTH_OK, "a quoted name is the same");
	ok(PLAIN("alice@EXAMPLE.net\0ALICE@example.net\0correct horse") == AUTH_OK,
	   "authzid is compared as accounts are");
	ok(PLAIN("x\0alice@example.net\0correct horse") == AUTH_REFUSED,
	   "authzid that is no account is nobody's");
	ok(PLAIN("\0cafe\xcc\x81@example.net\0correct horse") == AUTH_REFUSED &&
	       PLAIN("\0alice@example.net\0\xff\xfe\xfd") == AUTH_REFUSED,
	   "names and passwords in other scripts and none");
	ok(PLAIN("\0\xff@example.net\0correct horse") == AUTH_REFUSED, "a name that is no UTF-8");
	ok(cost("nobody@example.net") < 3 * cost("alice@example.net") &&
	       cost("alice@example.net") < 3 * cost("nobody@example.net"),
	   "an account made when checks were cheaper is not told by its speed");
	ok(PLAIN("\0alice\0correct horse") == AUTH_REFUSED, "a name that is no address is refused");
	ok(PLAIN("") == AUTH_REFUSED && PLAIN("\0\0") == AUTH_REFUSED &&
	       PLAIN("xyz") == AUTH_REFUSED && PLAIN("\0alice@example.net\0") == AUTH_REFUSED &&
	       PLAIN("\0alice@example.net\0correct horse\0x") == AUTH_REFUSED,
	   "broken messages are refused");
	mech = mech_new("PLAIN");
	ok(mech_step(mech, NULL, 0, &challenge, &len) == AUTH_CONTINUE && len == 0 &&
	       mech_step(mech, (const uint8_t *)"\0bob@example.net\0correct horse", 30, &challenge,
	                 &len) == AUTH_OK,
	   "without initial response: an empty challenge, then in");
	mech_free(mech);
	mech = mech_new("ANONYMOUS");
	ok(mech_step(mech, (const uint8_t *)"x", 1, &challenge, &len) == AUTH_NO_MECHANISM,
	   "no other mechanism");
	mech_free(mech);
	ok(accounts_remove(store, "alice@example.net") == ACCOUNTS_OK &&
	       accounts_remove(store, "alice@example.net") == ACCOUNTS_UNKNOWN &&
	       PLAIN("\0alice@example.net\0correct horse") == AUTH_REFUSED,
	   "a removed account is out at once, cached or not");
	mech_done();
	cache_free(cache);
	accounts_close(store);
	unlink("accounts.lmdb");
	unlink("accounts.lmdb-lock");
	if (chdir("/") == 0)
		rmdir(dir);
}

int
main(void)
{
	test_verifier();
	test_cache();
	test_prepare();
	test_turns();
	test_store_and_mech();
	printf("1..%u\n", tests);
	return bad != 0;
}
