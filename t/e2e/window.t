#!/usr/bin/perl
# Setup: an account that spends its 500 recipients in two parts an hour apart; the shared test clock moves by hours; the wall clock alone is set ahead and
# back; the queue is killed in between.
# Expectation: the window is rolling and exact to the minute; a part comes back when it is 24 h old and not before; setting the clock frees nothing until it
# has stayed ten minutes, and setting it back frees nothing; no restart changes any of it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my ($minute, $hour) = (60_000, 3_600_000);
my $s = Sekisho->new(clock => 1, conf => "quota: { $Sekisho::UNPACED }\nlimits: { errors_soft: 1000, errors_hard: 1000 }\n");
my ($me, $other) = ('alice@example.test', 'bob@example.test');
$s->account($me, $other);

sub used { my $q = $s->json('quota', 'show', $_[0] // $me); return $q ? $q->{used} : -1 }

# One message to so many recipients; the reply to its end.
sub spend {
	my ($account, $n) = @_;
	my $c = $s->login($account) or return 'no login';
	return $c->send_mail($account, [map { "r$_\@example.org" } 1 .. $n], 'x');
}

sub one_more {
	my ($account) = @_;
	my $c = $s->login($account // $me) or return 'no login';
	$c->cmd('MAIL FROM:<' . ($account // $me) . '>');
	my $said = $c->cmd('RCPT TO:<more@example.org>');
	$c->cmd('RSET');
	return $said;
}

sub kill_queue {
	my ($old) = $s->pids('sekisho-queue');
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && used() >= 0 }), 'the queue is back');
	ok(Sekisho::wait_for(20, sub { one_more($other) =~ /^250/ }), 'and msa has found it');
}

# Away from a minute's edge, so that "the same minute" is one.
$s->advance($minute + 2000 - $s->now % $minute);
my $start = $s->now;
like(spend($me, 300), qr/^250/, '300 recipients');
is(used(), 300, 'are charged');
$s->advance($hour);
like(spend($me, 200), qr/^250/, '200 an hour later');
is(used(), 500, 'that is all');
like(one_more(), qr/^450 4\.7\.1 .*500.*resets \d{4}-\d\d-\d\dT\d\d:\d\d/, 'no further, with the reset time');

$s->advance(22 * $hour + 59 * $minute);
is(used(), 500, 'after 23 h 59 min nothing has come back');
like(one_more(), qr/^450 4\.7\.1 /, 'and one more is refused');
kill_queue();
is(used(), 500, 'a killed queue keeps it so');
like(one_more(), qr/^450 4\.7\.1 /, 'and refuses as before');

$s->advance(2 * $minute);
is(used(), 200, 'after 24 h and a minute the first part is back, the second is not');
like(spend($me, 300), qr/^250/, 'exactly that fits again');
like(one_more(), qr/^450 4\.7\.1 /, 'and no more');
kill_queue();
is(used(), 500, 'known after a kill');
$s->advance($hour);
is(used(), 300, 'an hour later the second part comes back');
like(spend($me, 200), qr/^250/, 'and is spent');
like(one_more(), qr/^450/, 'all is spent');

# Time as such has stood still since; now the wall clock alone goes astray.
$s->jump(30 * $hour);
is(used(), 500, 'a wall clock set 30 h ahead frees nothing');
like(one_more(), qr/^450/, 'and grants nothing');
ok(Sekisho::wait_for(10, sub { ($s->json('status')->{queue}{ledger_held} // 0) }), 'status tells that the ledger does not follow')
	or diag $s->ctl('--json', 'status');
like($s->ctl('status'), qr/^LEDGER HELD/m, 'the text for humans too');
$s->advance(9 * $minute);
is(used(), 500, 'nor after nine minutes');
$s->jump(-30 * $hour);
is(used(), 500, 'set back: nothing is free');
like(one_more(), qr/^450/, 'nothing is granted');
ok(Sekisho::wait_for(10, sub { !$s->json('status')->{queue}{ledger_held} }), 'and the ledger is not held any more');
$s->jump(-48 * $hour);
is(used(), 500, 'two days back: nothing is free');
like(one_more(), qr/^450/, 'nothing is granted, and nothing goes over');
kill_queue();
is(used(), 500, 'not by a restart either');
like(one_more(), qr/^450/, 'refused as before');
$s->jump(48 * $hour);
is(used(), 500, 'the right time again');

$s->jump(30 * $hour);
is(used(), 500, '30 h ahead once more');
kill_queue();
is(used(), 500, 'a restart does not believe it');
$s->advance(11 * $minute);
ok(Sekisho::wait_for(10, sub { used() == 0 }), 'it stayed for ten minutes: it is believed') or diag used();
like(spend($me, 500), qr/^250/, 'all 500 fit');
like(one_more(), qr/^450/, 'and no more');
$s->jump(-30 * $hour);
is(used(), 500, 'set back after that: nothing is free');
like(one_more(), qr/^450/, 'nothing is granted');
$s->jump(60 * $hour);
is(used(), 500, 'ahead again, this time without a restart: nothing is free');
$s->advance(9 * $minute);
is(used(), 500, 'nor after nine minutes');
$s->advance(2 * $minute);
is(used(), 0, 'after eleven it is believed');
like(spend($me, 500), qr/^250/, 'all 500 fit');
like(one_more(), qr/^450/, 'and no more');

$s->jump(60 * $hour);
is(used(), 500, 'ahead a third time: nothing is free');
like($s->ctl('quota', 'clock'), qr/^quota time +\d{4}-/, 'an operator vouches for the clock');
is(used(), 0, 'and it is believed at once');
ok(!$s->json('status')->{queue}{ledger_held}, 'nothing is held any more');

ok(Sekisho::wait_for(60, sub { my $a = $s->json('queue', 'audit'); $a && $a->{queued} == 0 && $a->{conserved} }), 'all is delivered and conserved')
	or diag $s->ctl('queue', 'audit');
done_testing;
