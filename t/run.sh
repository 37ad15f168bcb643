#!/bin/sh
# The demonstration behind "make run": the whole service on 127.0.0.1 with its state in run/, a message sent through it, and what a
# newcomer types next. A second run keeps accounts and queue. Ctrl-C stops everything it started.
set -eu
cd "$(dirname "$0")/.."
umask 077

if ! mkdir -p run/delivered || ! [ -O run ] || ! true >run/lock; then
	echo "run/ cannot be used: it belongs to another user or is no directory. Run as that user, or remove it to start afresh: rm -rf run" >&2
	exit 1
fi
# Held by this shell and by sekishod, so it ends with whichever of them lives longer.
exec 9>run/lock
flock -n 9 || {
	echo "make run is running already: build/sekishoctl status shows it, build/sekishoctl stop ends it" >&2
	exit 1
}

# A certificate without its key, or the other way round, is the rest of an interrupted run.
if ! [ -s run/cert.pem ] || ! [ -s run/key.pem ]; then
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=localhost \
		-addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout run/key.pem.new -out run/cert.pem.new 2>run/openssl.log || {
		cat run/openssl.log >&2
		exit 1
	}
	mv run/key.pem.new run/key.pem
	mv run/cert.pem.new run/cert.pem
fi

privilege= sink_user=
if [ "$(id -u)" = 0 ]; then
	privilege='privilege: { user: nobody, network_user: nobody }'
	sink_user='-u nobody'
	chmod 711 run
	chmod 777 run/delivered
fi
cat >run/sekisho.yaml <<CONF
hostname: localhost.example.test
listen:
  submission: ["127.0.0.1:5587"]
  submissions: ["127.0.0.1:5465"]
tls: { certificate: run/cert.pem, key: run/key.pem }
spool: run/spool
accounts: run/accounts
admin: { socket: run/admin.sock }
$privilege
routes:
  "*": "127.0.0.1:5525"
CONF
build/sekishod -t -c run/sekisho.yaml >/dev/null || {
	echo "run/ holds something unusable; \"rm -rf run\" starts afresh, without the accounts and messages in it" >&2
	exit 1
}

sink= daemon=
stop() {
	trap '' INT TERM HUP PIPE
	trap - EXIT
	[ -z "$daemon" ] || { kill -TERM "$daemon" 2>/dev/null || :; wait "$daemon" 2>/dev/null || :; }
	[ -z "$sink" ] || { kill -TERM "$sink" 2>/dev/null || :; wait "$sink" 2>/dev/null || :; }
	echo "stopped" 2>/dev/null || :
}
interrupted() { stop; exit 0; }
trap interrupted INT TERM HUP PIPE
trap stop EXIT
give_up() { echo "$1" >&2; exit 1; }

# smtp-sink takes a second to say so, and mail must not go to somebody else's program meanwhile. 1595 is 5525; 0A means listening.
listens() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ':1595 [0-9A-F]*:0000 0A'; }
! listens || give_up "127.0.0.1:5525, meant for the loopback destination, is in use by another program; stop it"

peers=$PWD/build/peers
(
	trap '' INT
	cd run/delivered
	LD_LIBRARY_PATH=$peers/usr/lib/postfix exec "$peers/usr/sbin/smtp-sink" $sink_user -d %Y%m%d-%H%M%S. 127.0.0.1:5525 128 9>&-
) &
sink=$!
build/sekishod -c run/sekisho.yaml &
daemon=$!

ctl="build/sekishoctl -s run/admin.sock"
tries=0
until $ctl status >/dev/null 2>&1; do
	kill -0 "$daemon" 2>/dev/null || { daemon=; give_up "sekishod did not start; the lines above say why"; }
	tries=$((tries + 1))
	[ $tries -lt 150 ] || give_up "the service did not answer on run/admin.sock within 30 s"
	sleep 0.2
done
tries=0
until listens; do
	tries=$((tries + 1))
	[ $tries -lt 150 ] || give_up "the loopback destination did not start within 30 s"
	sleep 0.2
done
for account in alice@example.test bob@example.test; do
	$ctl account show $account >/dev/null 2>&1 || printf 'sekisho-demo\n' | $ctl account add $account
done

stamp=$(date +%s).$$
printf 'From: Alice <alice@example.test>\r\nTo: Carol <carol@example.org>\r\nSubject: Hello through the checkpoint\r\n\r\nDemonstration %s\r\n' \
	"$stamp" >run/message.eml
echo "--- sending a message with curl, port 5587, STARTTLS, as alice@example.test"
if curl -sS --cacert run/cert.pem --ssl-reqd --url smtp://localhost:5587/laptop.example.test --resolve localhost:5587:127.0.0.1 \
	--login-options AUTH=PLAIN --user alice@example.test:sekisho-demo \
	--mail-from alice@example.test --mail-rcpt carol@example.org --upload-file run/message.eml; then
	file= tries=0
	until [ -n "$file" ]; do
		file=$(grep -ls "Demonstration $stamp" run/delivered/* || :)
		tries=$((tries + 1))
		[ $tries -lt 150 ] || { echo "the message was accepted but did not arrive within 30 s: $ctl queue list" >&2; break; }
		[ -n "$file" ] || sleep 0.2
	done
	[ -z "$file" ] || { echo "--- delivered to the loopback destination: $file"; sed 's/\r$//; s/^/    /' "$file"; }
else
	echo "the message was refused; the lines above say why. The service goes on." >&2
fi
echo "--- what is left of today's quota"
$ctl quota show alice@example.test || :
cat <<NEXT
--- Sekisho is running: 127.0.0.1:5587 (STARTTLS) and 127.0.0.1:5465 (TLS), account alice@example.test, password sekisho-demo.
    In another terminal, in $PWD:
        build/sekishoctl status
        build/sekishoctl quota set alice@example.test 1000
        build/sekishoctl queue list
    Ctrl-C stops it.
NEXT
status=0
wait "$daemon" || status=$?
daemon=
exit $status
