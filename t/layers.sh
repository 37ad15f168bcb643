#!/bin/sh
# Proves the layer rule of ARCHITECTURE.md: a folder includes only itself and what stands left of it, with the folder in the
# name; each foreign library has one home.
set -eu
cd "$(dirname "$0")/.."
bad=0

allowed() {
	case $1 in
	core) echo "core" ;;
	smtp) echo "core smtp" ;;
	auth) echo "core smtp auth" ;;
	ratelimit) echo "core smtp ratelimit" ;;
	keys) echo "core keys" ;;
	queue) echo "core smtp auth ratelimit keys queue" ;;
	msa) echo "core smtp auth ratelimit keys queue msa" ;;
	relay) echo "core smtp auth ratelimit keys queue relay" ;;
	admin) echo "core smtp auth ratelimit keys queue admin" ;;
	sekishod) echo "core sekishod" ;;
	esac
}
for d in core smtp auth ratelimit keys queue msa relay admin sekishod; do
	may=$(allowed $d)
	for f in "$d"/*.[ch]; do
		[ -e "$f" ] || continue
		for inc in $(sed -n 's/^[[:space:]]*#[[:space:]]*include "\([^"]*\)".*/\1/p' "$f"); do
			case " $may " in
			*" ${inc%%/*} "*) ;;
			*) echo "$f includes \"$inc\": $d may include only: $may"; bad=1 ;;
			esac
			[ -e "$inc" ] || { echo "$f includes \"$inc\", which does not exist"; bad=1; }
		done
	done
done

# library header : files that may include it (a shell pattern)
home() {
	for f in $(grep -lE "^[[:space:]]*#[[:space:]]*include <$1" -r core smtp auth ratelimit keys queue msa relay admin sekishod || true); do
		ok=0
		for p in $2; do
			case $f in $p) ok=1 ;; esac
		done
		[ $ok = 1 ] || { echo "$f includes <$1…>, whose home is $2"; bad=1; }
	done
}
home 'event2/'  'core/*'
home 'openssl/' 'core/*'
home 'yaml'     'core/conf*.c'
home 'seccomp'  'core/sandbox.c'
home 'sasl/'    'auth/*'
home 'lmdb'     'core/* auth/accounts_int.h queue/*'
home 'jansson'  'admin/*'
home 'unbound' 'relay/dns.c'
home 'idn2'     'smtp/idna.c'
home 'uninorm'  'smtp/idna.c'
home 'cmocka'   ''

[ $bad = 0 ] && echo "layers: every folder includes only what stands left of it"
exit $bad
