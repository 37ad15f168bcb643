#!/usr/bin/perl
# Setup: an account with the default cap of 500 recipients a day, then 20 sessions at once that try to exceed it.
# Expectation: exactly 500 recipients are accepted, whatever the interleaving; the 501st is refused with limit and reset time; refused, reset and
# dropped transactions cost nothing; a cap raised by the NOC holds for the next RCPT of a session already open; a restart forgets nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $s = Sekisho->new(conf => "quota: { $Sekisho::UNPACED }\n");
my $me = 'alice@example.test';
$s->account($me);

# Transactions that end without acceptance.
my $c = $s->login($me);
$c->cmd("MAIL FROM:<$me>");
like($c->cmd("RCPT TO:<r$_\@example.org>"), qr/^250/, "reserved $_") for 1 .. 3;
like($c->cmd('RSET'), qr/^250/, 'RSET');
$c->cmd("MAIL FROM:<$me>");
$c->cmd("RCPT TO:<r$_\@example.org>") for 1 .. 3;
undef $c;
ok(Sekisho::wait_for(10, sub { my $q = $s->json('quota', 'show', $me); $q->{used} == 0 && $q->{reserved} == 0 }), 'RSET and disconnect release');

my @readers;
for my $n (1 .. 20) {
	pipe my $r, my $w or die $!;
	my $pid = fork // die $!;
	if (!$pid) {
		my ($accepted, $refused, $odd) = (0, 0, '');
		my $c = $s->login($me) or do { print $w "0 0 no-login\n"; close $w; POSIX::_exit(1) };
		for my $message (1 .. 7) {
			$c->cmd("MAIL FROM:<$me>");
			my $ok = 0;
			for (1 .. 4) {
				my $said = $c->cmd("RCPT TO:<s$n.m$message.r$_\@example.org>");
				$said =~ /^250/ ? $ok++ : $said =~ /^450 4\.7\.1 .*500/ ? $refused++ : ($odd .= $said);
			}
			if (!$ok) { $c->cmd('RSET'); next }
			if ($message == 3) { $c->cmd('RSET'); next } # a transaction given up
			$c->cmd('DATA');
			$c->raw("From: <$me>\r\n\r\nx\r\n.\r\n");
			my $said = $c->reply;
			$said =~ /^250/ ? ($accepted += $ok) : ($odd .= $said);
		}
		$odd =~ s/\s+/ /g;
		print $w "$accepted $refused $odd\n";
		close $w;
		POSIX::_exit(0);
	}
	close $w;
	push @readers, [$r, $pid];
}
my ($accepted, $odd) = (0, '');
for (@readers) {
	my ($r, $pid) = @$_;
	my ($a, undef, $o) = split ' ', scalar(<$r>), 3;
	$accepted += $a;
	$odd .= $o // '';
	waitpid $pid, 0;
}
is($odd, '', 'no reply but 250 and 450 4.7.1');
cmp_ok($accepted, '<=', 500, 'never over');
is($s->json('quota', 'show', $me)->{used}, $accepted, 'what was accepted is what is charged');

$c = $s->login($me);
$c->cmd("MAIL FROM:<$me>");
my $rest = 500 - $accepted;
my @said = map { $c->cmd("RCPT TO:<last$_\@example.org>") } 1 .. $rest;
is(scalar(grep { /^250/ } @said), $rest, "never under: $rest more fit");
if ($rest) {
	$c->cmd('DATA');
	$c->raw("From: <$me>\r\n\r\nx\r\n.\r\n");
	like($c->reply, qr/^250/, 'accepted');
	$c->cmd("MAIL FROM:<$me>");
}
like($c->cmd('RCPT TO:<over@example.org>'), qr/^450 4\.7\.1 .*500.*resets \d{4}-\d\d-\d\dT\d\d:\d\d/, 'recipient 501 is refused, with limit and reset time');
$s->ctl('quota', 'set', $me, 501, '--reason', 'test');
is($?, 0, 'the NOC raises the cap');
like($c->cmd('RCPT TO:<next@example.org>'), qr/^250/, 'it holds for the very next RCPT of the open session');
like($c->cmd('RCPT TO:<over@example.org>'), qr/^450 4\.7\.1 .*501/, 'and no further');

kill 'KILL', $s->pids('sekisho-queue');
ok(Sekisho::wait_for(20, sub { ($s->json('quota', 'show', $me) // {})->{used} // -1 >= 500 }), 'the queue is back');
is($s->json('quota', 'show', $me)->{used}, 500, 'a killed queue forgets no charge');
is($s->json('quota', 'show', $me)->{limit}, 501, 'nor the override');
$c = $s->login($me);
$c->cmd("MAIL FROM:<$me>");
like($c->cmd('RCPT TO:<one@example.org>'), qr/^250/, 'one fits');
like($c->cmd('RCPT TO:<two@example.org>'), qr/^450/, 'two do not');
undef $c;
ok(Sekisho::wait_for(30, sub { $s->json('queue', 'audit')->{queued} == 0 }), 'all is delivered');
ok($s->json('queue', 'audit')->{conserved}, 'conserved') or diag $s->ctl('queue', 'audit');
is($s->stop, 0, 'it stops cleanly');
done_testing;
