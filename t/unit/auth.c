/* Verifiers against RFC 7677's example, the cache's rules, the store on disk, whole exchanges of
 * each mechanism, and the table of sessions. */
#include "auth/mech.h"
#include "auth/sessions.h"
#include "auth/turns.h"
#include "core/buf.h"
#include "core/mem.h"
#include "smtp/command.h"
#include "t/unit/tap.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

	strcpy(account, mech_record(mech)->entry.account);
	mech_free(mech);
	return outcome;
}
#define PLAIN(text) plain(text, sizeof(text) - 1, who)

/* A LOGIN of these messages, the first of which may be NULL; how it ended. */
static enum auth_outcome
login(const char *const *messages)
{
	struct mech *mech = mech_new("LOGIN");
	enum auth_outcome outcome = AUTH_CONTINUE;
	const uint8_t *challenge;
	size_t len;

	for (unsigned i = 0; i < 3 && outcome == AUTH_CONTINUE; i++) {
		const char *prompt = messages[0] == NULL && i == 0 ? "Username:" : "Password:";

		outcome =
		    mech_step(mech, (const uint8_t *)messages[i],
		              messages[i] != NULL ? strlen(messages[i]) : 0, &challenge, &len);
		if (outcome == AUTH_CONTINUE &&
		    (len != strlen(prompt) || memcmp(challenge, prompt, len) != 0))
			outcome = AUTH_UNAVAILABLE;
	}
	mech_free(mech);
	return outcome;
}
#define LOGIN(...) login((const char *const[]){__VA_ARGS__})

/* A client of SCRAM-SHA-256 (RFC 7677). */
struct scram {
	struct mech *mech;
	enum auth_outcome outcome;
	char server_first[512];
	struct verifier verifier; /* as the server's first message and the password make it */
	bool proved;              /* the server knows its key */
};

static enum auth_outcome
scram_say(struct scram *scram, const char *text, char *answer, size_t size)
{
	const uint8_t *challenge;
	size_t len;

	scram->outcome =
	    mech_step(scram->mech, (const uint8_t *)text, strlen(text), &challenge, &len);
	snprintf(answer, size, "%.*s", (int)len, (const char *)challenge);
	return scram->outcome;
}

static void
scram_begin(struct scram *scram, const char *name)
{
	char first[400];

	memset(scram, 0, sizeof(*scram));
	scram->mech = mech_new("SCRAM-SHA-256");
	snprintf(first, sizeof(first), "n,,n=%s,r=rOprNGfwEbeRWgbNEkqO", name);
	scram_say(scram, first, scram->server_first, sizeof(scram->server_first));
}

static void
scram_finish(struct scram *scram, const char *name, const char *password)
{
	uint8_t salted[32], client_key[32], signature[32], decoded[64];
	char bare[400], message[1200], proof[64], answer[512], wanted[64], final[700], salt[128];
	const char *nonce = scram->server_first + 2, *s = strstr(nonce, ",s="),
	           *i = strstr(nonce, ",i=");

	if (scram->outcome != AUTH_CONTINUE || s == NULL || i == NULL)
		return;
	snprintf(salt, sizeof(salt), "%.*s", (int)(i - s - 3), s + 3);
	if (command_base64_decode(salt, strlen(salt), decoded) != VERIFY_SALT_SIZE)
		return;
	memcpy(scram->verifier.salt, decoded, VERIFY_SALT_SIZE);
	scram->verifier.iterations = (uint32_t)atoi(i + 3);
	verify_derive(&scram->verifier, password, strlen(password));
	crypt_pbkdf2_sha256(password, strlen(password), scram->verifier.salt, VERIFY_SALT_SIZE,
	                    scram->verifier.iterations, salted);
	crypt_hmac_sha256(salted, 32, "Client Key", 10, client_key);
	snprintf(bare, sizeof(bare), "n=%s,r=rOprNGfwEbeRWgbNEkqO", name);
	snprintf(message, sizeof(message), "%s,%s,c=biws,r=%.*s", bare, scram->server_first,
	         (int)(s - nonce), nonce);
	crypt_hmac_sha256(scram->verifier.stored_key, 32, message, strlen(message), signature);
	for (unsigned n = 0; n < 32; n++)
		client_key[n] ^= signature[n];
	command_base64_encode(client_key, 32, proof);
	snprintf(final, sizeof(final), "c=biws,r=%.*s,p=%s", (int)(s - nonce), nonce, proof);
	crypt_hmac_sha256(scram->verifier.server_key, 32, message, strlen(message), signature);
	command_base64_encode(signature, 32, wanted);
	if (scram_say(scram, final, answer, sizeof(answer)) != AUTH_CONTINUE)
		return;
	scram->proved = strncmp(answer, "v=", 2) == 0 && strcmp(answer + 2, wanted) == 0;
	scram_say(scram, "", answer, sizeof(answer));
}

static enum auth_outcome
scram(const char *name, const char *password)
{
	struct scram scram;

	scram_begin(&scram, name);
	scram_finish(&scram, name, password);
	mech_free(scram.mech);
	return scram.outcome == AUTH_OK && !scram.proved ? AUTH_UNAVAILABLE : scram.outcome;
}

/* What the server's first message gives away besides its nonce. */
static const char *
scram_salt(const char *name, char out[512])
{
	struct scram scram;
	const char *s;

	scram_begin(&scram, name);
	mech_free(scram.mech);
	s = strstr(scram.server_first, ",s=");
	snprintf(out, 512, "%s", s != NULL ? s : "");
	return out;
}

static void
test_login_and_scram(struct accounts *store)
{
	char long_name[400], a[512], b[512], c[512];
	struct accounts_change change = {.reason = "spam", .suspended = true, .now = 77};
	struct accounts_record record, other;
	struct scram half;

	ok(LOGIN(NULL, "alice@example.net", "correct horse") == AUTH_OK, "LOGIN");
	ok(LOGIN("Alice@EXAMPLE.net", "correct horse") == AUTH_OK, "with an initial response");
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	ok(LOGIN(NULL, "alice@example.net", "wrong horse") == AUTH_REFUSED &&
	       LOGIN(NULL, "nobody@example.net", "correct horse") == AUTH_REFUSED &&
	       LOGIN(NULL, "", "correct horse") == AUTH_REFUSED &&
	       LOGIN(NULL, "alice@example.net", "") == AUTH_REFUSED &&
	       LOGIN(NULL, long_name, "correct horse") == AUTH_REFUSED &&
	       LOGIN("", "correct horse") == AUTH_REFUSED,
	   "LOGIN refuses everything else, and always at its end");
	ok(scram("alice@example.net", "correct horse") == AUTH_OK &&
	       scram("ALICE@example.net", "correct horse") == AUTH_OK,
	   "SCRAM-SHA-256, and the server proves itself, too");
	ok(scram("alice@example.net", "wrong horse") == AUTH_REFUSED &&
	       scram("nobody@example.net", "correct horse") == AUTH_REFUSED &&
	       scram("nonsense", "correct horse") == AUTH_REFUSED,
	   "SCRAM refuses a wrong password and unknown names");
	scram_begin(&half, "nobody@example.net");
	ok(half.outcome == AUTH_CONTINUE && strstr(half.server_first, ",i=4096") != NULL,
	   "a name nobody has is asked for its proof, with the iterations that most accounts have");
	mech_free(half.mech);
	ok(strcmp(scram_salt("nobody@example.net", a), scram_salt("NOBODY@example.net", b)) == 0 &&
	       strcmp(a, scram_salt("noone@example.net", c)) != 0 &&
	       strcmp(scram_salt("alice@example.net", a), scram_salt("ALICE@example.net", b)) == 0,
	   "its salt is its own, and the same each time");
	ok(scram("alice@example.net,x=y", "correct horse") == AUTH_REFUSED &&
	       scram("=", "correct horse") == AUTH_REFUSED &&
	       scram(long_name, "correct horse") == AUTH_REFUSED,
	   "broken SCRAM messages are refused");
	for (const char *const *text =
	         (const char *const[]){"", "n", "n,,", "n,,n=,r=", "p=tls-unique,,n=a,r=b",
	                               "n,a=bob@example.net,n=alice@example.net,r=abc",
	                               "y,,n=a@b.c", "n,,r=x,n=a@b.c", "n,,m=1,n=a@b.c,r=x", NULL};
	     *text != NULL; text++) {
		struct scram bad_one = {.mech = mech_new("SCRAM-SHA-256")};
		char answer[512];

		if (scram_say(&bad_one, *text, answer, sizeof(answer)) == AUTH_CONTINUE)
			scram_say(&bad_one, "c=biws,r=x,p=AAAA", answer, sizeof(answer));
		ok(bad_one.outcome == AUTH_REFUSED || bad_one.outcome == AUTH_CONTINUE, *text);
		ok(bad_one.outcome != AUTH_OK, "is no login");
		mech_free(bad_one.mech);
	}
	struct mech *mech = mech_new("SCRAM-SHA-1");
	const uint8_t *challenge;
	size_t len;

	ok(mech_step(mech, (const uint8_t *)"n,,n=a,r=b", 10, &challenge, &len) ==
	       AUTH_NO_MECHANISM,
	   "what the library brings besides is not served");
	mech_free(mech);

	scram_begin(&half, "alice@example.net");
	verify_make(&other.verifier, "another horse", 13, 4096);
	ok(accounts_change(store, "alice@example.net",
	                   &(struct accounts_change){.verifier = &other.verifier, .now = 78},
	                   &record) == ACCOUNTS_OK &&
	       record.entry.changed == 78 && !record.entry.suspended,
	   "a password is changed");
	scram_finish(&half, "alice@example.net", "correct horse");
	ok(half.outcome == AUTH_OK && memcmp(mech_record(half.mech)->verifier.stored_key,
	                                     record.verifier.stored_key, 32) != 0,
	   "an exchange under way proves the old one, and says so");
	mech_free(half.mech);
	ok(scram("alice@example.net", "another horse") == AUTH_OK &&
	       scram("alice@example.net", "correct horse") == AUTH_REFUSED &&
	       LOGIN(NULL, "alice@example.net", "correct horse") == AUTH_REFUSED,
	   "the next needs the new one, cached or not");
	ok(accounts_change(store, "alice@example.net", &change, &record) == ACCOUNTS_OK &&
	       accounts_get(store, "alice@example.net", &record) == ACCOUNTS_OK &&
	       record.entry.suspended && strcmp(record.entry.reason, "spam") == 0 &&
	       strcmp(record.entry.class, "standard") == 0 && record.entry.changed == 77,
	   "an account is suspended, with a reason");
	ok(scram("alice@example.net", "another horse") == AUTH_OK,
	   "which is not the mechanism's business");
	ok(accounts_change(store, "nobody@example.net", &change, &record) == ACCOUNTS_UNKNOWN,
	   "an unknown one is not");
}

/* The store as version 1 wrote it. */
static void
write_old_store(void)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi account, meta;
	MDB_val key = {7, "version"}, value;
	struct verifier verifier = {.iterations = 4096};
	struct buf buf;

	mdb_env_create(&env);
	mdb_env_set_maxdbs(env, 4);
	mdb_env_open(env, "accounts.lmdb", MDB_NOSUBDIR, 0600);
	mdb_txn_begin(env, NULL, 0, &txn);
	mdb_dbi_open(txn, "account", MDB_CREATE, &account);
	mdb_dbi_open(txn, "meta", MDB_CREATE, &meta);
	buf_init(&buf);
	wire_put_u32(&buf, 1);
	value = (MDB_val){buf.len, buf.data};
	mdb_put(txn, meta, &key, &value, 0);
	buf_clear(&buf);
	verify_make(&verifier, "correct horse", 13, 4096);
	wire_put_u16(&buf, 1);
	wire_put_str(&buf, "standard");
	wire_put_str(&buf, "active");
	wire_put_u64(&buf, 5);
	wire_put_u64(&buf, 6);
	wire_put_u32(&buf, verifier.iterations);
	wire_put_raw(&buf, verifier.salt, sizeof(verifier.salt));
	wire_put_raw(&buf, verifier.stored_key, sizeof(verifier.stored_key));
	wire_put_raw(&buf, verifier.server_key, sizeof(verifier.server_key));
	key = (MDB_val){15, "old@example.net"};
	value = (MDB_val){buf.len, buf.data};
	mdb_put(txn, account, &key, &value, 0);
	buf_clear(&buf);
	mdb_txn_commit(txn);
	mdb_env_close(env);
}

static void
test_upgrade(void)
{
	char error[256];
	struct accounts_record record;
	struct accounts_change change = {.class = "gold", .now = 9};
	uint8_t secret[ACCOUNTS_SECRET_SIZE];

	write_old_store();
	struct accounts *store = accounts_open(1u << 24, error, sizeof(error));
	ok(store != NULL && accounts_get(store, "old@example.net", &record) == ACCOUNTS_OK &&
	       !record.entry.suspended && record.entry.reason[0] == '\0' &&
	       record.entry.created == 5 && verify_check(&record.verifier, "correct horse", 13),
	   "a store of the first version is read");
	memcpy(secret, accounts_secret(store), sizeof(secret));
	ok(accounts_change(store, "old@example.net", &change, &record) == ACCOUNTS_OK &&
	       strcmp(record.entry.class, "gold") == 0,
	   "and changed");
	accounts_close(store);
	store = accounts_open(1u << 24, error, sizeof(error));
	ok(store != NULL && accounts_get(store, "old@example.net", &record) == ACCOUNTS_OK &&
	       strcmp(record.entry.class, "gold") == 0 && record.entry.created == 5 &&
	       verify_check(&record.verifier, "correct horse", 13),
	   "and is there when it is opened again");
	ok(memcmp(secret, accounts_secret(store), sizeof(secret)) == 0, "its secret stays");
	accounts_close(store);
	unlink("accounts.lmdb");
	unlink("accounts.lmdb-lock");
}

static char seen[100];

static void
see(void *arg, struct ipc_from owner, const struct auth_session *session)
{
	(void)arg;
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%u/%u ", owner.channel,
	         (unsigned)session->number);
}

static const char *
walk(const struct sessions *sessions, const char *account, size_t max)
{
	uint64_t after = 0;

	seen[0] = '\0';
	while (sessions_walk(sessions, account, &after, max, see, NULL))
		strcat(seen, "| ");
	return seen;
}

static void
test_sessions(void)
{
	struct sessions *sessions = sessions_new();
	struct ipc_from one = {.channel = 1}, two = {.channel = 2};
	struct auth_session session = {.ip = "192.0.2.1"};

	for (session.number = 1; session.number <= 5; session.number++)
		sessions_open(sessions, session.number % 2 ? one : two, &session);
	strcpy(session.ip, "2001:db8::1");
	sessions_open(sessions, two, &session);
	strcpy(session.ip, "2001:db8::ffff");
	session.number++;
	sessions_open(sessions, one, &session);
	ok(sessions_of_client(sessions, "192.0.2.1") == 5 &&
	       sessions_of_client(sessions, "192.0.2.2") == 0 &&
	       sessions_of_client(sessions, "2001:db8::2") == 2 &&
	       sessions_of_client(sessions, "2001:db8:0:1::2") == 0,
	   "sessions of an address, and of a /64");
	ok(strcmp(walk(sessions, "", 100), "1/1 2/2 1/3 2/4 1/5 2/6 1/7 ") == 0 &&
	       strcmp(walk(sessions, "", 3), "1/1 2/2 1/3 | 2/4 1/5 2/6 | 1/7 ") == 0,
	   "all of them, page by page");
	ok(sessions_login(sessions, one, 3, "a@b.c", "PLAIN", "TLSv1.3") &&
	       sessions_login(sessions, two, 2, "a@b.c", "PLAIN", "TLSv1.3") &&
	       !sessions_login(sessions, one, 2, "a@b.c", "PLAIN", "TLSv1.3") &&
	       sessions_of_account(sessions, "a@b.c") == 2,
	   "sessions of an account, each in the name of its owner");
	ok(strcmp(walk(sessions, "a@b.c", 1), "2/2 | 1/3 ") == 0 &&
	       strcmp(walk(sessions, "nobody@b.c", 1), "") == 0,
	   "and a list of them");
	sessions_close(sessions, two, 3);
	sessions_close(sessions, one, 3);
	sessions_close(sessions, one, 3);
	ok(sessions_of_account(sessions, "a@b.c") == 1 &&
	       sessions_of_client(sessions, "192.0.2.1") == 4 &&
	       sessions_visit_one(sessions, 4, see, NULL) &&
	       !sessions_visit_one(sessions, 3, see, NULL),
	   "one is closed by its owner, once");
	sessions_drop(sessions, two);
	ok(strcmp(walk(sessions, "", 100), "1/1 1/5 1/7 ") == 0 &&
	       sessions_of_account(sessions, "a@b.c") == 0,
	   "a channel takes its sessions along");
	sessions_free(sessions);
}

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
	char class[CONF_CLASS_SIZE];
	struct accounts_record record = {0};
	struct auth_entry list[2];
	struct accounts *store;
	struct mech *mech;
	const uint8_t *challenge;
	size_t len, count;
	struct buf ended;
	bool more;

	buf_init(&ended);
	if (mkdtemp(dir) == NULL || chdir(dir) != 0)
		exit(99);
	store = accounts_open(1u << 24, error, sizeof(error));
	ok(store != NULL, "the store opens");
	if (store == NULL)
		return;
	strcpy(record.entry.account, "alice@example.net");
	strcpy(record.entry.class, "standard");
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
	test_login_and_scram(store);
	(void)accounts_change(store, "alice@example.net",
	                      &(struct accounts_change){.class = "gold"}, &record);
	ok(accounts_remove(store, "alice@example.net", &ended) == ACCOUNTS_OK &&
	       accounts_remove(store, "alice@example.net", &ended) == ACCOUNTS_UNKNOWN &&
	       PLAIN("\0alice@example.net\0another horse") == AUTH_REFUSED,
	   "a removed account is out at once, cached or not");
	ok(accounts_class(store, "alice@example.net", class) == ACCOUNTS_OK &&
	       strcmp(class, "gold") == 0 &&
	       accounts_class(store, "bob@example.net", class) == ACCOUNTS_OK &&
	       accounts_class(store, "nobody@example.net", class) == ACCOUNTS_UNKNOWN,
	   "but its class is remembered, for mail of it that waits");
	buf_clear(&ended);
	mech_done();
	cache_free(cache);
	accounts_close(store);
	unlink("accounts.lmdb");
	unlink("accounts.lmdb-lock");
	test_upgrade();
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
	test_sessions();
	test_store_and_mech();
	return tap_end();
}
