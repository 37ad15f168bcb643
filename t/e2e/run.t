#!/usr/bin/perl
# Setup: what "make run" does, in a folder of its own (t and the programs are links) and a network of its own, because its ports are fixed.
# Expectation: it shows a message delivered, what is used and what remains, and three commands that work when they are typed; a second one at the
# same time is told so; whatever ends it (Ctrl-C, a closed terminal, a refused message, a dead service) leaves no process and no socket; a half-made
# run/ recovers or says what to do.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Socket qw(AF_INET SOCK_DGRAM);
use Test::More;

my @alone = ('unshare', '-n', $> == 0 ? () : ('-c', '--keep-caps'));
if (!$ENV{SEKISHO_ALONE}) {
	plan skip_all => 'no network namespaces here' if system("@alone true 2>/dev/null") != 0;
	$ENV{SEKISHO_ALONE} = 1;
	exec @alone, $^X, $0;
}
# The loopback interface of a new network is down: SIOCSIFFLAGS, IFF_UP.
socket my $control, AF_INET, SOCK_DGRAM, 0 or die $!;
my $up = pack 'a16 s x22', 'lo', 1;
ioctl $control, 0x8914, $up or plan skip_all => "no loopback interface: $!";

my $dir = File::Temp::tempdir('sekisho-XXXXXX', TMPDIR => 1, CLEANUP => 1);
symlink "$Sekisho::TOP/t", "$dir/t";
mkdir "$dir/build";
# The product itself, but for a sanitizer's build.
my $programs = $Sekisho::BUILD =~ /san$/ ? $Sekisho::BUILD : "$Sekisho::TOP/build";
symlink $_, "$dir/build/" . File::Basename::basename($_) for glob("$programs/sekisho*"), "$Sekisho::TOP/build/peers";
my ($pid, $output);

sub text { local $/; open my $f, '<', $output or return ''; return <$f> // '' }
sub ctl { my $said = `cd $dir && build/sekishoctl @_ 2>&1`; return $said }

# Starts it as the leader of a process group, as a terminal would.
sub launch {
	$output = "$dir/output";
	unlink $output;
	$pid = fork // die $!;
	return if $pid;
	setpgrp;
	open STDIN, '<', '/dev/null';
	open STDOUT, '>>', $output;
	open STDERR, '>&', \*STDOUT;
	exec 'sh', "$dir/t/run.sh";
}

sub group {
	my @left;
	for (glob '/proc/[0-9]*/stat') {
		open my $f, '<', $_ or next;
		push @left, $_ if (<$f> // '') =~ /^\d+ \(.*\) [^Z] \d+ $pid /;
	}
	return @left;
}

# Its exit status once it has ended, and whatever it had started.
sub ended {
	my ($what, $expect) = @_;
	my $done = Sekisho::wait_for(40, sub { waitpid($pid, POSIX::WNOHANG()) == $pid });
	my $status = $?;
	ok($done, "$what: it ends") or return;
	is($status, $expect << 8, "$what: exit status $expect") or diag text();
	ok(Sekisho::wait_for(5, sub { !group() }), "$what: no process is left");
	ok(!-e "$dir/run/admin.sock", "$what: no socket is left");
	Sekisho::note_report(text());
}

sub running { return Sekisho::wait_for(60, sub { text() =~ /Ctrl-C stops it/ || waitpid($pid, POSIX::WNOHANG()) }) && text() =~ /Ctrl-C stops it/ }

launch();
ok(running(), 'it runs') or diag text();
like(text(), qr/delivered to the loopback destination.*Subject: Hello/s, 'shows the message delivered');
like(text(), qr/^METER +LIMIT +USED +RESERVED +REMAINING .*\nrecipients +500 +1 +0 +499 /m, 'shows what is used and what remains');
my @next = text() =~ /^ {8}(build\/\S.*)$/mg;
is(scalar @next, 3, 'names three commands');
for (@next) {
	my $said = `cd $dir && $_ 2>&1`;
	is($?, 0, "\"$_\" works when it is typed") or diag $said;
}
my $again = `sh $dir/t/run.sh 2>&1`;
is($? >> 8, 1, 'a second one at the same time ends');
like($again, qr/running already/, 'and says why');
like(ctl('account', 'list'), qr/bob\@example/, 'the first goes on');
ctl('quota', 'set', 'alice@example.test', 1);
kill 'INT', -$pid;
ended('Ctrl-C', 0);

launch();
ok(running(), 'a refused message does not end it') or diag text();
like(text(), qr/The service goes on/, 'it says so');
like(ctl('quota', 'show', 'alice@example.test'), qr/^recipients +1 +1 /m, 'accounts and queue were kept');
kill 'HUP', -$pid;
ended('a closed terminal', 0);

unlink "$dir/run/key.pem";
launch();
ok(running(), 'a certificate without its key is made anew') or diag text();
my ($daemon) = map { m{/proc/(\d+)} } grep { (readlink("$_/exe") // '') =~ m{/sekishod$} } map { s{/stat$}{}r } group();
kill 'KILL', $daemon if $daemon;
waitpid $pid, 0;
ok($? != 0, 'sekishod killed: it ends and is no success');
ok(Sekisho::wait_for(5, sub { !group() }), 'sekishod killed: no process is left');

launch();
ok(running(), 'the socket of a killed service is no obstacle') or diag text();
kill 'TERM', $pid;
ended('TERM', 0);

for my $port (5525, 5587) {
	my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1) or die $!;
	launch();
	ended("port $port in use", 1);
	like(text(), qr/127\.0\.0\.1:$port/, "port $port in use: it says so");
}

open my $key, '>', "$dir/run/key.pem" or die $!;
print $key "garbage\n";
close $key;
launch();
ended('a broken run/', 1);
like(text(), qr/rm -rf run/, 'a broken run/: it says what to do');
done_testing;
