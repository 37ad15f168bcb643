#!/usr/bin/perl
# Setup: a small supervisor in place of systemd: a notify socket by path or by abstract name, and listening sockets handed over.
# Expectation: it is told when the service is ready, reloads (with the time), has done so, and stops; handed-over sockets are used, outlive a restart
# with the connections that wait on them, and one that the configuration does not name is refused; the units in etc/ are right.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use IO::Socket::UNIX;
use Socket;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
use Sekisho;
use Test::More;

my $me = 'alice@example.test';

# A notify socket; its path as in NOTIFY_SOCKET.
sub notify_socket {
	my ($name) = @_;
	socket my $s, AF_UNIX, SOCK_DGRAM, 0 or die $!;
	bind $s, pack_sockaddr_un($name =~ s/^@/\0/r) or die "$name: $!";
	return $s;
}

# The next message with the given text in it, as a hash.
sub told {
	my ($s, $what) = @_;
	my $end = time + 30;
	while (time < $end) {
		vec(my $ready = '', fileno $s, 1) = 1;
		next unless select $ready, undef, undef, 1;
		recv $s, my $text, 4096, 0;
		my %fields = map { /^([A-Z_]+)=(.*)$/ ? ($1, $2) : () } split /\n/, $text;
		return \%fields if $text =~ $what;
	}
	return {};
}

for my $kind ('path', 'abstract') {
	my $service = Sekisho->new(no_start => 1);
	my $name = $kind eq 'path' ? "$service->{dir}/notify" : "\@sekisho-test-$$";
	my $s = notify_socket($name);
	$service->{env}{NOTIFY_SOCKET} = $name;
	$service->launch;
	is(told($s, qr/READY/)->{READY}, 1, "$kind: it is told that the service is ready");
	ok($service->connect, "$kind: which it is");
	$service->account($me);
	my $before = clock_gettime(CLOCK_MONOTONIC) * 1e6;
	kill 'HUP', $service->{daemon};
	my $reloading = told($s, qr/RELOADING/);
	is($reloading->{RELOADING}, 1, "$kind: that it reloads");
	cmp_ok($reloading->{MONOTONIC_USEC} // 0, '>=', int $before, "$kind: since when");
	cmp_ok($reloading->{MONOTONIC_USEC} // 0, '<=', clock_gettime(CLOCK_MONOTONIC) * 1e6, "$kind: by systemd's clock");
	like(told($s, qr/READY/)->{STATUS}, qr/Configuration 2 in force/, "$kind: that it has");
	$service->{extra} = "nonsense: 1\n";
	$service->write_conf;
	kill 'HUP', $service->{daemon};
	like(told($s, qr/READY/)->{STATUS}, qr/refused.*configuration 2 stays/i, "$kind: that it refused to, and is ready all the same");
	is((grep { my $f; (open $f, "<", $_) && do { local $/; <$f> =~ /NOTIFY_SOCKET/ } } map { "/proc/$_/environ" } $service->pids), 0, "$kind: no process inherits the way to systemd");
	kill 'TERM', $service->{daemon};
	is(told($s, qr/STOPPING/)->{STOPPING}, 1, "$kind: that it stops");
	waitpid delete $service->{daemon}, 0;
	is($?, 0, "$kind: well");
}

# Activation.

sub listener {
	my ($port, %opt) = @_;
	return IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1, %opt) || die $!;
}

# What the process that becomes sekishod does: the sockets from descriptor 3 on, and the variables.
sub hand_over {
	my ($names, @sockets) = @_;
	return sub {
		POSIX::dup2(fileno $sockets[$_], 100 + $_) for 0 .. $#sockets;
		POSIX::dup2(100 + $_, 3 + $_) for 0 .. $#sockets;
		POSIX::close(100 + $_) for 0 .. $#sockets;
		@ENV{qw(LISTEN_PID LISTEN_FDS LISTEN_FDNAMES)} = ($$, scalar @sockets, $names);
	};
}

my $s = Sekisho->new(no_start => 1);
my @sockets = map { listener($s->{ports}{$_}) } qw(submission submissions);
my $admin = IO::Socket::UNIX->new(Listen => 16, Local => "$s->{dir}/admin.sock") or die $!;
chmod 0666, "$s->{dir}/admin.sock";
my $hand_over = hand_over('submission:submissions:admin', @sockets, $admin);
$s->start(before => $hand_over);
like($s->log, qr/listen kind=$_ address=127\.0\.0\.1:$s->{ports}{$_} from=systemd/, "the socket $_ is taken over") for qw(submission submissions);
$s->account($me);
like($s->login($me, $_)->send_mail($me, 'x@example.org', 'over a socket of systemd'), qr/^250/, "mail by $_") for qw(submission submissions);
kill 'HUP', $s->{daemon};
ok(Sekisho::wait_for(20, sub { $s->log =~ /reload done generation=2/ }), 'a reload keeps them');
ok($s->login($me, $_), "mail by $_ after it") for qw(submission submissions);
is($s->stop, 0, 'it stops');
ok(-S "$s->{dir}/admin.sock", 'and leaves the admin socket to systemd');
my $early = $s->connect or die 'systemd listens no more';
$s->start(before => $hand_over);
like($early->reply, qr/^220/, 'who connected while it was down is served by the next');
$s->stop;
close $admin;
unlink "$s->{dir}/admin.sock";

# Mistakes.
my $stranger = listener(Sekisho::free_port());
my $unix = IO::Socket::UNIX->new(Listen => 1, Local => "$s->{dir}/other.sock") or die $!;
socket my $datagram, AF_INET, SOCK_DGRAM, 0 or die $!;
for (['submission', $stranger, qr/listen\.submission: systemd hands over 127\.0\.0\.1:\d+, which is not named here; make the socket unit and this file agree/],
	['submissions', $sockets[0], qr/listen\.submissions: systemd hands over 127\.0\.0\.1:\d+, which is not named here/],
	['smtp', $sockets[0], qr/systemd hands over .* named "smtp"; set FileDescriptorName= to submission, submissions or admin/],
	['admin', $unix, qr/admin\.socket: systemd hands over \S+other\.sock, which is not named here/],
	['submission', $datagram, qr/no listening stream socket/]) {
	my ($name, $socket, $says) = @$_;
	my $wrong = Sekisho->new(no_start => 1, no_sink => 1);
	$wrong->launch(before => hand_over($name, $socket));
	waitpid delete $wrong->{daemon}, 0;
	is($? >> 8, 1, "a socket that does not fit ($name): no start");
	like($wrong->log, $says, 'and why');
}

# Somebody else's variables.
my $other = Sekisho->new(no_start => 1);
$other->start(before => sub { @ENV{qw(LISTEN_PID LISTEN_FDS)} = (1, 5) });
ok($other->connect, 'variables meant for another process are nothing to us');
$other->stop;

# A terminal that is gone stops a service; kill -HUP reloads one that still has it.
my $pty = Sekisho->new(no_start => 1);
open my $master, '+<', '/dev/ptmx' or plan skip_all => 'no terminals';
my $number = pack 'i', 0;
ioctl $master, 0x80045430, $number or die $!; # TIOCGPTN
ioctl $master, 0x40045431, my $unlock = pack('i', 0) or die $!; # TIOCSPTLCK
my $slave = '/dev/pts/' . unpack 'i', $number;
$pty->launch(before => sub {
	POSIX::setsid();
	open my $tty, '+<', $slave or die "$slave: $!";
	POSIX::dup2(fileno $tty, 0);
	close $master;
});
$pty->wait_ready;
kill 'HUP', $pty->{daemon};
ok(Sekisho::wait_for(20, sub { $pty->log =~ /reload done generation=2/ }), 'with its terminal, SIGHUP reloads');
close $master;
waitpid delete $pty->{daemon}, 0;
is($?, 0, 'without it, it stops');
like($pty->log, qr/service stopped/, 'in order');

# Stop: a transaction under way ends well, an idle session is told.
$s = Sekisho->new;
$s->account($me);
my ($busy, $idle) = ($s->login($me), $s->login($me));
$busy->cmd("MAIL FROM:<$me>");
$busy->cmd('RCPT TO:<x@example.org>');
like($busy->cmd('DATA'), qr/^354/, 'data under way');
kill 'TERM', $s->{daemon};
like($idle->reply, qr/^421/, 'an idle session is told that it ends');
$busy->raw("From: <$me>\r\nSubject: last\r\n\r\nunder way\r\n.\r\n");
like($busy->reply, qr/^250/, 'the message under way is accepted');
waitpid delete $s->{daemon}, 0;
is($?, 0, 'it stops');
$s->start;
$busy = $s->login($me);
$busy->cmd("MAIL FROM:<$me>");
$busy->cmd('RCPT TO:<x@example.org>');
$busy->cmd('DATA');
my $seen = length $s->log; # an earlier stop is on record, too
kill 'TERM', $s->{daemon};
ok(Sekisho::wait_for(10, sub { substr($s->log, $seen) =~ /service stopping$/m }), 'somebody who never ends his data holds it up');
my $from = time;
kill 'TERM', $s->{daemon};
waitpid delete $s->{daemon}, 0;
is($?, 0, 'until SIGTERM comes a second time');
cmp_ok(time - $from, '<', 15, 'which shortens it');

# The units.
SKIP: {
	skip 'no systemd-analyze here', 1 unless grep { -x "$_/systemd-analyze" } split /:/, $ENV{PATH};
	my $root = "$s->{dir}/root";
	mkdir $root;
	for my $unit (glob "$Sekisho::TOP/etc/systemd/*") {
		open my $in, '<', $unit or die $!;
		open my $out, '>', $root . '/' . ($unit =~ s{.*/}{}r) or die $!;
		print $out map { s/\@sbindir\@/$Sekisho::BUILD/r } <$in>;
		close $out;
	}
	my $said = join '', grep { /sekisho/ && !/Failed to (?:open|prepare)|man / } qx(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no $root/sekisho.service $root/sekisho-submission.socket $root/sekisho-submissions.socket 2>&1);
	is($said, '', 'systemd-analyze finds nothing wrong with the units');
}

# Users and directories, in a root of their own.
SKIP: {
	skip 'no root, or no systemd here', 3 if $> || grep { my $tool = $_; !grep { -x "$_/$tool" } split /:/, $ENV{PATH} } 'systemd-sysusers', 'systemd-tmpfiles';
	my $root = "$s->{dir}/machine";
	my $said = `mkdir -p $root/etc $root/usr/lib && cp -r $Sekisho::TOP/etc/sysusers.d $Sekisho::TOP/etc/tmpfiles.d $root/usr/lib && systemd-sysusers --root=$root sekisho.conf 2>&1`;
	is($?, 0, 'systemd-sysusers makes the users') or diag $said;
	$said = `systemd-tmpfiles --root=$root --create sekisho.conf 2>&1`;
	is($?, 0, 'systemd-tmpfiles makes the directories') or diag $said;
	is(join(' ', map { sprintf '%o', (stat "$root/$_")[2] & 07777 } 'etc/sekisho/tls', 'var/spool/sekisho', 'var/lib/sekisho/accounts'), '700 700 700', 'which are closed to others');
}
done_testing;
