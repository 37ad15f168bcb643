# The other side, for whole-system tests: real name and mail servers on loopback addresses, unpacked below build/peers. Each
# stops when its object goes.
package Peers;
use strict;
use warnings;
use File::Temp qw(tempdir);
use File::Path qw(make_path);
use File::Basename qw(dirname);
use Sekisho;

our $PEERS = "$Sekisho::TOP/build/peers";

# Runs a program in a child; with a directory of its own, which strangers may enter.
sub start {
	my ($class, %self) = @_;
	my $self = bless { %self, owner => $$ }, $class;
	my $pid = fork // die $!;
	if (!$pid) {
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$self->{dir}/out" or die $!;
		open STDERR, '>&', \*STDOUT;
		chdir $self->{dir};
		$ENV{LD_LIBRARY_PATH} = "$PEERS/usr/lib/postfix" if $self->{postfix};
		exec @{ $self->{command} } or die "$self->{command}[0]: $!";
	}
	$self->{pid} = $pid;
	return $self;
}

sub directory {
	my $dir = tempdir('sekisho-peer-XXXXXX', TMPDIR => 1, CLEANUP => 1);
	chmod 0755, $dir;
	return $dir;
}

sub write_file {
	my ($path, $text) = @_;
	open my $f, '>', $path or die "$path: $!";
	print $f $text;
	close $f;
	chmod 0644, $path;
}

sub read_file {
	my ($path) = @_;
	local $/;
	open my $f, '<', $path or return '';
	return <$f> // '';
}

sub listens {
	my ($self, $address, $port) = @_;
	Sekisho::wait_for(20, sub { IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port) })
		or die "$self->{command}[0] does not listen on $address:$port:\n" . $self->log;
	return $self;
}

sub log { my ($self) = @_; return join '', map { read_file("$self->{dir}/$_") } 'out', 'log' }

# It and all processes it has started.
sub family {
	my ($self) = @_;
	my %parent;
	for (glob '/proc/[0-9]*/stat') {
		my ($pid, $of) = read_file($_) =~ /^(\d+) \(.*\) \S (\d+)/ or next;
		$parent{$pid} = $of;
	}
	my @family = ($self->{pid});
	for my $one (@family) { push @family, grep { $parent{$_} == $one } keys %parent }
	return @family;
}

# CPU seconds of all of them, those that have ended included.
sub cpu {
	my ($self) = @_;
	my $ticks = 0;
	for my $pid ($self->family) {
		my @stat = split ' ', read_file("/proc/$pid/stat") =~ s/.*\) //r;
		$ticks += $_ // 0 for @stat[11 .. 14];
	}
	return $ticks / 100;
}

# The messages that arrived, each as it is on disk.
sub delivered { my ($self) = @_; return map { read_file($_) } glob $self->{mail} }

sub stop {
	my ($self) = @_;
	return unless $self->{pid} && $self->{owner} == $$;
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
}

sub DESTROY { my ($self) = @_; local $?; $self->stop }

# nsd, which answers from a root zone of ours: records as in a zone file. Names below "broken." are answered SERVFAIL. With records of their
# own, names below "signed." are proved by DNSSEC to who trusts the file of {anchor}.
sub nsd {
	my ($class, $port, $records, $signed) = @_;
	my $dir = directory();
	my $zone = '';
	if ($signed) {
		write_file("$dir/signed.zone", "\$ORIGIN signed.\n\$TTL 60\n\@ SOA ns host 1 3600 600 86400 60\n\@ NS ns\nns A 127.0.0.1\n$signed");
		system("cd $dir && key=\$(ldns-keygen -a ECDSAP256SHA256 -k signed) && ldns-signzone -f signed.done signed.zone \$key && cp \$key.key anchor") == 0
			or die 'ldns-signzone';
		chmod 0644, glob "$dir/*";
		$zone = "zone:\n name: \"signed.\"\n zonefile: signed.done\n";
	}
	write_file("$dir/root.zone", "\$TTL 1\n. SOA ns. host. 1 3600 600 86400 1\n. NS ns.\nns. A 127.0.0.1\n$records");
	write_file("$dir/nsd.conf", <<"CONF");
server:
 ip-address: 127.0.0.1\@$port
 username: ""
 chroot: ""
 zonesdir: "$dir"
 database: ""
 pidfile: ""
 zonelistfile: "$dir/list"
 xfrdfile: "$dir/xfrd"
 xfrdir: "$dir"
 logfile: "$dir/log"
 server-count: 1
 rrl-ratelimit: 0
remote-control:
 control-enable: no
zone:
 name: "."
 zonefile: root.zone
zone:
 name: "broken."
 zonefile: no-such.zone
$zone
CONF
	return $class->start(anchor => "$dir/anchor", dir => $dir, command => ["$PEERS/usr/sbin/nsd", '-d', '-c', "$dir/nsd.conf"])->listens('127.0.0.1', $port);
}

# smtp-sink on an address; what it gets is in its directory.
sub sink {
	my ($class, $address, $port, @args) = @_;
	my $dir = directory();
	mkdir "$dir/mail";
	chmod 0777, "$dir/mail";
	my $self = $class->start(dir => $dir, mail => "$dir/mail/m.*", postfix => 1, command => ["$PEERS/usr/sbin/smtp-sink",
		($> == 0 ? ('-u', 'nobody') : ()), '-d', "$dir/mail/m.", @args, "$address:$port", 100]);
	return $self->listens($address, $port);
}

# A server that keeps what it gets octet for octet.
sub receiver {
	my ($class, $address, $port) = @_;
	my $dir = directory();
	mkdir "$dir/mail";
	my $self = $class->start(dir => $dir, mail => "$dir/mail/[0-9]*", command => [$^X, dirname(__FILE__) . '/receiver.pl', $address, $port, "$dir/mail"]);
	return $self->listens($address, $port);
}

# A whole Postfix that takes all mail for one domain, with STARTTLS. Needs root: its master drops privileges. With passwords (a hash) it
# wants AUTH from everybody, who may then send anywhere.
sub postfix {
	my ($class, $address, $port, $domain, $more, $certificate, $passwords) = @_;
	my $dir = directory();
	make_path(map { "$dir/$_" } 'conf', 'data', 'mail', map { "queue/$_" } qw(active bounce corrupt defer deferred flush hold incoming
		maildrop private public pid saved trace));
	chown scalar(getpwnam 'daemon'), -1, "$dir/data", map { "$dir/queue/$_" } qw(active bounce corrupt defer deferred flush hold incoming
		maildrop private public saved trace);
	chown 65534, 65534, "$dir/mail";
	if ($passwords) {
		make_path("$dir/conf/sasl"); # Debian's place for it
		write_file("$dir/conf/sasl/smtpd.conf", "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: $dir/sasldb\nmech_list: PLAIN LOGIN\n");
		for my $user (keys %$passwords) {
			open my $pipe, '|-', "$PEERS/usr/sbin/saslpasswd2", '-p', '-c', '-f', "$dir/sasldb", '-u', 'sasl.test', $user or die $!;
			print $pipe $passwords->{$user};
			close $pipe or die 'saslpasswd2';
		}
		chmod 0644, "$dir/sasldb";
		$more .= "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_local_domain = sasl.test\nsmtpd_tls_auth_only = yes\n"
			. "smtpd_recipient_restrictions = permit_sasl_authenticated, reject\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject\n";
	}
	else { $more .= "smtpd_relay_restrictions = reject_unauth_destination\n" }
	my $tls = $certificate ? "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = $certificate\n" : '';
	write_file("$dir/conf/main.cf", <<"CONF");
compatibility_level = 3.6
command_directory = $PEERS/usr/sbin
daemon_directory = $PEERS/usr/lib/postfix/sbin
shlib_directory = $PEERS/usr/lib/postfix
meta_directory = $PEERS/etc/postfix
data_directory = $dir/data
queue_directory = $dir/queue
import_environment = MAIL_CONFIG LD_LIBRARY_PATH LANG=C
export_environment = LD_LIBRARY_PATH LANG=C
mail_owner = daemon
setgid_group = mail
default_privs = nobody
maillog_file = $dir/log
maillog_file_prefixes = $dir
inet_interfaces = all
inet_protocols = ipv4
myhostname = postfix.example.test
mynetworks =
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
virtual_mailbox_domains = $domain
virtual_mailbox_maps = static:box/
virtual_mailbox_base = $dir/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
smtputf8_enable = no
$tls$more
CONF
	write_file("$dir/conf/master.cf", <<"CONF");
$address:$port inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
CONF
	my $self = $class->start(dir => $dir, mail => "$dir/mail/box/new/*", postfix => 1,
		command => ["$PEERS/usr/lib/postfix/sbin/master", '-c', "$dir/conf", '-d']);
	return $self->listens($address, $port);
}

# A whole OpenSMTPD that takes all mail for one domain, in a root directory of its own, since its paths are fixed. Needs root.
sub opensmtpd {
	my ($class, $address, $port, $domain) = @_;
	my $dir = directory();
	make_path(map { "$dir/$_" } qw(bin dev etc mail run tmp usr/sbin usr/libexec var/lib/opensmtpd/empty var/run var/spool/smtpd));
	chmod 0711, "$dir/var/spool/smtpd";
	chown 65533, 65533, "$dir/mail";
	system('cp', "$PEERS/usr/sbin/smtpd", "$dir/usr/sbin") == 0 or die 'cp';
	system('cp', '-r', "$PEERS/usr/libexec/opensmtpd", "$dir/usr/libexec") == 0 or die 'cp';
	system('cp', '-L', '/bin/sh', "$dir/bin/sh") == 0 or die 'cp';
	for my $library (map { m{(/\S+)} ? $1 : () } map { `ldd $_` } "$dir/usr/sbin/smtpd", glob("$dir/usr/libexec/opensmtpd/*"), '/bin/sh') {
		next if -e "$dir$library" || $library =~ /^\Q$dir\E/;
		make_path("$dir" . dirname($library));
		system('cp', '-L', $library, "$dir$library") == 0 or die 'cp';
	}
	system("mknod -m 666 $dir/dev/null c 1 3") == 0 or write_file("$dir/dev/null", '');
	write_file("$dir/etc/passwd", "root:x:0:0:root:/:/bin/sh\nopensmtpd:x:65531:65531::/var/lib/opensmtpd/empty:/bin/false\n"
		. "opensmtpq:x:65532:65532::/var/lib/opensmtpd/empty:/bin/false\nbox:x:65533:65533::/mail:/bin/sh\n");
	write_file("$dir/etc/group", "root:x:0:\nopensmtpd:x:65531:\nopensmtpq:x:65532:\nbox:x:65533:\n");
	write_file("$dir/etc/smtpd.conf", <<"CONF");
listen on $address port $port hostname opensmtpd.example.test
table everybody { "@" = box }
action "deliver" maildir "/mail/box" virtual <everybody>
match from any for domain "$domain" action "deliver"
CONF
	my $self = $class->start(dir => $dir, mail => "$dir/mail/box/new/*", command => ['chroot', $dir, '/usr/sbin/smtpd', '-d', '-f', '/etc/smtpd.conf']);
	return $self->listens($address, $port);
}

1;
