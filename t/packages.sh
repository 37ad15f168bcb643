#!/bin/sh
# Installs the Debian packages that building, the demonstration and the tests need, if they are missing.
# Usage: packages.sh build|run|test|fuzz|lint …
#
# Postfix, OpenSMTPD, nsd and sasl2-bin are unpacked below build/peers and not installed: installing them would replace this machine's own
# mail system and start servers.
set -eu
cd "$(dirname "$0")/.."

packages=
peers= # each with a program in it
for set in "$@"; do
	case $set in
	build) packages="$packages gcc libc6-dev pkg-config libevent-dev libssl-dev libsasl2-dev libsasl2-modules libidn-dev libidn2-dev libunistring-dev
		liblmdb-dev libyaml-dev libjansson-dev libseccomp-dev libxxhash-dev libunbound-dev openssl" ;;
	run) packages="$packages curl libdb5.3 libicu72 libnsl2"
		peers="$peers postfix:usr/sbin/smtp-sink" ;;
	test) packages="$packages perl libio-socket-ssl-perl libauthen-sasl-perl libcmocka-dev swaks msmtp gsasl python3 libmime-tools-perl
		s-nail git git-email libnet-smtp-ssl-perl libmailtools-perl nodejs node-nodemailer
		ldnsutils libfstrm0 libprotobuf-c1 libsasl2-modules-db mandoc"
		peers="$peers nsd:usr/sbin/nsd opensmtpd:usr/sbin/smtpd sasl2-bin:usr/sbin/saslpasswd2" ;;
	fuzz) packages="$packages clang libclang-rt-14-dev" ;;
	lint) packages="$packages clang clang-tidy clang-format cppcheck" ;;
	*) echo "packages.sh: no set is called $set" >&2; exit 64 ;;
	esac
done

missing=
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $p"
done
become=
if [ "$(id -u)" != 0 ]; then
	become=sudo
	[ -z "$missing" ] || command -v sudo >/dev/null 2>&1 || {
		echo "These packages are missing, and there is no sudo. As root: apt-get install$missing" >&2
		exit 1
	}
fi
if [ -n "$missing" ]; then
	echo "installing:$missing"
	# Through env: sudo does not pass variables on.
	{ $become apt-get -qq update >/dev/null &&
		$become env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null; } || {
		echo "These packages could not be installed; install them by hand and try again:$missing" >&2
		exit 1
	}
fi
for peer in $peers; do
	package=${peer%%:*}
	[ ! -e "build/peers/${peer#*:}" ] || continue
	echo "unpacking $package below build/peers"
	rm -rf build/peers.new
	mkdir -p build/peers build/peers.new
	fetch() { (cd build/peers.new && apt-get -qq download "$package" 2>/dev/null); }
	fetch || { $become apt-get -qq update >/dev/null && fetch; } || {
		echo "apt-get download $package failed: is the package list current?" >&2
		exit 1
	}
	# The program that is looked for arrives last, so a half-unpacked package is unpacked again.
	for deb in build/peers.new/"$package"_*.deb; do dpkg -x "$deb" build/peers.new/root; done
	mv "build/peers.new/root/${peer#*:}" build/peers.new/program
	cp -a build/peers.new/root/. build/peers
	mv build/peers.new/program "build/peers/${peer#*:}"
	rm -rf build/peers.new
done
