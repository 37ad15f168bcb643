#!/usr/bin/perl
# Setup: sekishod started by somebody careless, with children that are killed, broken, hostile or cannot be started, with no descriptors left, with a
# log that nobody reads, and killed itself.
# Expectation: nothing careless reaches the processes; what is down comes back, without a leak and without a fork bomb; the rest of the service works
# meanwhile; a service killed a moment ago is no obstacle to the next.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use File::Copy qw(copy);
use POSIX qw(SIG_BLOCK SIGTERM);
use Sekisho;
use Test::More;

my $me = 'alice@example.test';
sub slurp { local $/; open my $f, '<', $_[0] or return ''; return <$f> // '' }
sub descriptors { my @list = glob "/proc/$_[0]/fd/*"; return scalar @list }
sub unread { my ($s, $event) = @_; my $log = $s->log; return scalar(() = $log =~ /$event/g) }

# Somebody careless.
my $s = Sekisho->new(no_start => 1);
my $conf = slurp("$s->{dir}/sekisho.yaml") =~ s{spool: \S+}{spool: $s->{dir}/var/spool}r;
open my $f, '>', "$s->{dir}/sekisho.yaml" or die $!;
print $f $conf;
close $f;
$s->start(before => sub {
	$^F = 99;
	open my $secret, '>', "$s->{dir}/secret" or die $!;
	POSIX::dup2(fileno $secret, 60);
	umask 0077;
	$ENV{CARELESS} = 'yes';
	$SIG{CHLD} = 'IGNORE';
	POSIX::sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGTERM));
});
my @pids = $s->pids;
is_deeply([grep { slurp("/proc/$_/environ") =~ /CARELESS/ } @pids], [], 'no process has the environment of whoever started the service');
is_deeply([grep { (readlink($_) // '') =~ /secret/ } map { glob "/proc/$_/fd/*" } @pids], [], 'or an open file');
is_deeply([grep { slurp("/proc/$_/limits") !~ /^Max core file size +0 +0 /m } @pids, $s->{daemon}], [], 'none leaves a core');
is_deeply([grep { my $cwd = readlink "/proc/$_/cwd"; $cwd && $cwd !~ m{^/$|/accounts$|/spool$} } @pids], [], 'none stands in a directory that is not its own');
is((stat "$s->{dir}/var")[2] & 0777, 0755, 'directories above its own are made for everybody');
is($s->stop, 0, 'a blocked SIGTERM stops it all the same');

# Killed.
$s = Sekisho->new(clock => 1, conf => "msa: { processes: 2 }\n");
$s->account($me);
@pids = $s->pids;
$s->wait_ready;
my $before = descriptors($s->{daemon});
my %held; # by the one of each kind that holds most
for my $each ($s->processes) {
	my ($name, $pid) = @$each;
	my $now = descriptors($pid);
	$held{$name} = $now if ($held{$name} // 0) < $now;
}
my $rounds = $ENV{SEKISHO_KILLS} // 30;
for my $round (1 .. $rounds) {
	my %old = map { $_ => 1 } my @victims = $round % 3 == 0 ? $s->pids : ($s->pids('sekisho-msa'), $s->pids($round % 3 == 1 ? 'sekisho-queue' : 'sekisho-auth'));
	$s->advance(2000); # nobody dies young
	kill 'KILL', @victims;
	Sekisho::wait_for(20, sub { my @now = $s->pids; @now == @pids && !grep { $old{$_} } @now }) or fail("all are back after round $round");
}
$s->wait_ready;
ok(Sekisho::wait_for(10, sub { descriptors($s->{daemon}) == $before }), "sekishod holds what it held after $rounds rounds") or diag descriptors($s->{daemon}), " of $before";
for my $each ($s->processes) {
	my ($name, $pid) = @$each;
	ok(Sekisho::wait_for(10, sub { descriptors($pid) <= $held{$name} }), "so does $name") or diag descriptors($pid), " of $held{$name}";
}
ok($s->login($me), 'and it works');

# Without descriptors. One free number: enough for the control channel of a new process, not for the links to its peers.
my $spare = sub {
	my $limit = shift;
	system 'prlimit', "--pid=$s->{daemon}", "--nofile=$limit:1024";
};
my %open = map { m{/(\d+)$} && ($1 => 1) } glob "/proc/$s->{daemon}/fd/*";
SKIP: {
	skip 'cannot look into sekishod', 2 unless %open && $> == 0;
	my ($victim) = $s->pids('sekisho-queue');
	my $limit = 0;
	for (my $free = 0; $free < 1; $limit++) { $free++ unless $open{$limit} }
	$spare->($limit);
	kill 'KILL', $victim;
	ok(Sekisho::wait_for(20, sub { $s->log =~ /socketpair error/ }), 'a shortage of descriptors is told');
	$spare->(1024);
	$s->advance(6000);
	ok(Sekisho::wait_for(20, sub { my $c = $s->login($me); $c && $c->send_mail($me, 'x@example.org', 'after the shortage') =~ /^250/ }),
		'and over when it is over: nobody stays without its peers');
}

# Killed itself.
for my $round (1 .. 8) {
	kill 'KILL', $s->{daemon};
	waitpid $s->{daemon}, 0;
	$s->start;
}
pass('a service killed a moment ago is no obstacle to the next');
$s->stop;
my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $s->{ports}{submission}, ReuseAddr => 1) or die $!;
$s->launch;
select undef, undef, undef, 0.5;
close $taken;
ok($s->wait_ready, 'nor is a port that is given back while it starts');
my $other = Sekisho->new(no_start => 1, no_sink => 1);
my $stolen = slurp("$other->{dir}/sekisho.yaml") =~ s{accounts: \S+}{accounts: $s->{dir}/accounts}r;
open $f, '>', "$other->{dir}/sekisho.yaml" or die $!;
print $f $stolen;
close $f;
my $said = `$Sekisho::BUILD/sekishod -c $other->{dir}/sekisho.yaml 2>&1`;
like($said, qr/: accounts: \S+ is in use by another sekishod/, 'the accounts of a running service are not shared');
$s->stop;

# Broken, hostile, or no program at all.
$s = Sekisho->new(no_start => 1);
my $programs = "$s->{dir}/programs";
mkdir $programs;
copy("$Sekisho::BUILD/sekishod", "$programs/sekishod") or die $!;
symlink "$Sekisho::BUILD/$_", "$programs/$_" for qw(sekisho-msa sekisho-auth sekisho-queue sekisho-keys);
my %broken = ('sekisho-admin' => "#!/bin/sh\nexit 3\n", 'sekisho-relay' => "#!$^X\nopen my \$c, '+<&=', 3; 1 while syswrite \$c, chr 99;\nsleep 60;\n");
for (keys %broken) {
	open $f, '>', "$programs/$_" or die $!;
	print $f $broken{$_};
	close $f;
}
chmod 0755, glob "$programs/*";
$s->launch(programs => $programs);
ok(Sekisho::wait_for(30, sub { unread($s, 'down name=admin') >= 4 && unread($s, 'down name=relay') >= 4 }), 'broken children are started again and again') or diag $s->log;
like($s->log, qr/name=admin index=0 pid=\d+ status=exit:3/, 'with what they said');
like($s->log, qr/unexpected name=relay .*name=relay index=\d pid=\d+ status=signal:9/s, 'one that says what it may not is ended');
my ($starts, $from) = (unread($s, 'down name=admin'), time);
my $c = Sekisho::wait_for(20, sub { $s->connect });
like($c ? $c->reply : '', qr/^220/, 'the rest of the service answers');
Sekisho::wait_for(2, sub { 0 });
cmp_ok(unread($s, 'down name=admin') - $starts, '<=', 4, 'it is no fork bomb');
unlink "$programs/sekisho-admin";
open $f, '>', "$programs/sekisho-admin" or die $!;
print $f "neither program nor script\n";
close $f;
chmod 0755, "$programs/sekisho-admin";
ok(Sekisho::wait_for(20, sub { $s->log =~ /name=admin index=0 pid=\d+ status=exit:72/ }), 'what cannot be executed is told');
is($s->stop, 0, 'such a service stops as well');

# A log that nobody reads.
pipe my $reader, my $writer or die $!;
fcntl $writer, 1031, 4096; # F_SETPIPE_SZ
$s = Sekisho->new(no_start => 1, conf => "log: { level: debug }\n");
$s->start(before => sub { open STDERR, '>&', $writer or die $! });
close $writer;
$s->account($me);
$c = $s->login($me);
is(scalar(grep { $c->send_mail($me, 'x@example.org', "unlogged $_") =~ /^250/ } 1 .. 40), 40, 'a log that nobody reads holds up no mail');
my $log = '';
ok(Sekisho::wait_for(20, sub {
	sysread $reader, $log, 65536, length $log;
	$c->cmd('NOOP') && $c->send_mail($me, 'x@example.org', 'logged again');
	return $log =~ /log_dropped lines=[1-9]/;
}), 'and says how much is missing');
is($s->stop, 0, 'and stops');
done_testing;
