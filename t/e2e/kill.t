#!/usr/bin/perl
# Setup: four clients submit without pause, each message with its own number; meanwhile every kind of process, sekishod included, is killed with SIGKILL in turn
# (SEKISHO_KILLS times, 21 unless told). Which of several processes is killed, and how far the load gets before, comes from SEKISHO_SEED, which is printed.
# Expectation: every message that got its 250 is delivered; no message without a 250 or a lost reply appears; conservation holds; the account was charged exactly
# what was accepted; no more messages arrive twice than were under
# way (one for each client) when a relay, the queue or sekishod died.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use Time::HiRes qw(time sleep);

my $kills = $ENV{SEKISHO_KILLS} // 21;
my $seed = $ENV{SEKISHO_SEED} // 1;
srand $seed;
diag "$kills kills, SEKISHO_SEED=$seed";
my $later_port = Sekisho::free_port();
my $s = Sekisho->new(no_start => 1);
$s->{extra} = "${Sekisho::UNLIMITED}auth: { failure_delay: 10ms }\nlimits: { messages: 10000 }\nretry: { schedule: [1s], fallback_after: 2s }\n"
	. "routes:\n  later.example: \"127.0.0.1:$later_port\"\n  \"*\": \"127.0.0.1:$s->{ports}{sink}\"\n";
$s->write_conf;
my ($parent, $later) = $$;
sub start_later {
	local ($s->{sink}, $s->{ports}{sink}) = (undef, $later_port);
	$s->start_sink(@_);
	return $s->{sink};
}
sub stop_later { local $?; kill 'TERM', $later; waitpid $later, 0 }
END { stop_later() if $later && $$ == $parent }
$later = start_later('-r', 'rcpt');
$s->start;
my $me = 'alice@example.test';
$s->account($me);

my @clients;
for my $n (1 .. 4) {
	my $pid = fork // die $!;
	if (!$pid) {
		open my $out, '>', "$s->{dir}/client.$n" or die $!;
		$out->autoflush(1);
		my ($c, $i) = (undef, 0);
		until (-e "$s->{dir}/enough" || getppid != $parent) {
			$c //= $s->login($me) or do { sleep 0.05; next };
			my $name = "n$n-" . ++$i . '-end';
			my $said = $c->send_mail($me, $i % 5 ? 'carol@example.org' : 'carol@later.example', "$name\r\n" . ($i % 10 ? '' : "large body\r\n" x 8000));
			my ($id) = $said =~ /Queued as (\w+)/;
			print $out $said =~ /^250 2\.0\.0 Queued/ ? "promised $name $id\n" : $said eq '' ? "unknown $name\n" : "refused $name $said";
			undef $c unless $said =~ /^250/;
		}
		close $out;
		POSIX::_exit(0);
	}
	push @clients, $pid;
}

my @kinds = qw(sekishod sekisho-msa sekisho-auth sekisho-queue sekisho-relay sekisho-keys sekisho-admin);
my ($killed, $between) = (0, 0); # between: deaths that can fall between a remote's 250 and its record
for my $k (0 .. $kills - 1) {
	my $name = $kinds[$k % @kinds];
	$between++ if $name =~ /^sekisho(d|-relay|-queue)$/;
	my $size = sub { my $n = 0; $n += -s $_ // 0 for glob "$s->{dir}/client.*"; $n };
	my $before = $size->();
	my $further = 100 + int rand 400;
	ok(Sekisho::wait_for(30, sub { $size->() > $before + $further }), 'under load: replies keep coming');
	if ($name eq 'sekishod') { # everything goes down with it, and an operator (or init) starts it again
		kill 'KILL', $s->{daemon};
		waitpid $s->{daemon}, 0;
		$killed++;
		ok($s->start, "$name is started again");
		next;
	}
	my @pids = $s->pids($name);
	ok(@pids, "$name is running") or next;
	my $victim = $pids[rand @pids];
	kill 'KILL', $victim;
	$killed++;
	ok(Sekisho::wait_for(20, sub { @pids == grep { $_ != $victim } $s->pids($name) }), "$name is back");
}
open my $enough, '>', "$s->{dir}/enough";
waitpid $_, 0 for @clients;
is($killed, $kills, "$kills kills");
ok(Sekisho::wait_for(30, sub { ($s->json('status') // {})->{queue} }), 'the service is up');
ok((($s->json('status') // {})->{queue}{lanes}{fallback}{messages} // 0) > 0, 'some messages have come to the fallback lane') or diag $s->ctl('queue', 'list');
stop_later();
$later = start_later();

my (%promised, %unknown, %refused);
for (map { open my $f, '<', $_; <$f> } glob "$s->{dir}/client.*") {
	/^promised (\S+)/ ? $promised{$1}++ : /^unknown (\S+)/ ? $unknown{$1}++ : /^refused (\S+)/ ? $refused{$1}++ : 0;
}
ok(Sekisho::wait_for(60, sub { my $a = $s->json('queue', 'audit'); $a && $a->{conserved} && $a->{queued} == 0 }), 'the queue drains')
	or diag $s->ctl('queue', 'audit'), $s->ctl('queue', 'list');
my %arrived;
for ($s->delivered) { $arrived{$1}++ if /^(n\d+-\d+-end)/m }
my @lost = grep { !$arrived{$_} } sort keys %promised;
is_deeply(\@lost, [], scalar(keys %promised) . ' messages were promised and none is lost');
my @forged = grep { !$promised{$_} && !$unknown{$_} && !$refused{$_} } sort keys %arrived;
is_deeply(\@forged, [], 'nothing arrives that nobody sent');
my @refused = grep { $arrived{$_} } sort keys %refused;
is_deeply(\@refused, [], 'nothing that was refused arrives');
my $twice = grep { $_ > 1 } values %arrived;
cmp_ok($twice, '<=', 4 * $between, "$twice arrived twice, of at most 4 under way at each of $between deaths that can cause it");
my $used = $s->json('quota', 'show', $me)->{used};
my $audit = $s->json('queue', 'audit');
is($used, $audit->{accepted}, 'the account is charged exactly what was accepted');
is($audit->{accepted}, scalar(grep { $promised{$_} || $unknown{$_} } keys %arrived), 'and that is what arrived');
ok($audit->{conserved}, 'conserved') or diag $s->ctl('queue', 'audit');
done_testing;
