#!/bin/sh
# Installs the Debian packages that building, the demonstration and the tests need, if they are missing.
# Usage: packages.sh build|run|test|fuzz|lint …
#
# Postfix is unpacked below build/peers and not installed: installing it would replace this machine's own mail system.
set -eu
cd "$(dirname "$0")/.."

packages=
for set in "$@"; do
	case $set in
	build) packages="$packages gcc libc6-dev pkg-config libevent-dev libssl-dev libsasl2-dev libsasl2-modules liblmdb-dev
		libyaml-dev libjansson-dev libseccomp-dev libxxhash-dev" ;;
	run) packages="$packages openssl curl libdb5.3 libicu72 libnsl2" ;;
	test) packages="$packages perl libio-socket-ssl-perl libauthen-sasl-perl libcmocka-dev swaks msmtp" ;;
	fuzz) packages="$packages clang libclang-rt-14-dev" ;;
	lint) packages="$packages clang clang-tidy clang-format cppcheck" ;;
	*) echo "packages.sh: no set is called $set" >&2; exit 64 ;;
	esac
done

missing=
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $p"
done
peer=build/peers/usr/sbin/smtp-sink
case " $* " in *" run "*) ;; *) peer=/dev/null ;; esac

if [ -n "$missing" ] || [ ! -e "$peer" ]; then
	become=
	[ "$(id -u)" = 0 ] || become=sudo
	if [ -n "$missing" ]; then
		echo "installing:$missing"
		$become apt-get -qq update >/dev/null
		DEBIAN_FRONTEND=noninteractive $become apt-get -qq install -y --no-install-recommends $missing >/dev/null || {
			echo "These packages could not be installed; install them by hand and try again:$missing" >&2
			exit 1
		}
	fi
	if [ ! -e "$peer" ]; then
		mkdir -p build/peers
		echo "unpacking Postfix's test programs below build/peers"
		(cd build/peers && apt-get -qq download postfix 2>/dev/null ||
			{ $become apt-get -qq update >/dev/null && apt-get -qq download postfix 2>/dev/null; }) || {
			echo "apt-get download postfix failed: is the package list current?" >&2
			exit 1
		}
		for deb in build/peers/postfix_*.deb; do dpkg -x "$deb" build/peers; done
	fi
fi
