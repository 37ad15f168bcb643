#!/usr/bin/perl
# Setup: accounts of a class whose window is the calendar day, in Tokyo and in Berlin; the shared test clock goes to the Sundays of 2027 on which Berlin's
# days have 23 and 25 hours; the queue is killed in the middle of the day.
# Expectation: everything comes back at the local midnight, not a minute before, whatever the day's length; the reply names that midnight; a kill changes
# nothing; a rolling class beside it counts the same charges its own way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use Time::Local qw(timegm);

my ($minute, $hour) = (60_000, 3_600_000);
my $me = 'alice@example.test';
my $s;

sub used { my $q = $s->json('quota', 'show', $me); return $q ? $q->{used} : -1 }

sub try_one { # whether one more recipient fits
	my $c = $s->login($me) or return 'no login';
	$c->cmd("MAIL FROM:<$me>");
	my $said = $c->cmd('RCPT TO:<more@example.org>');
	$c->cmd('RSET');
	return $said;
}

sub spend {
	my ($n) = @_;
	my $c = $s->login($me) or return 'no login';
	return $c->send_mail($me, [map { "r$_\@example.org" } 1 .. $n], 'x');
}

# In one step: ledger time would not follow the clock back.
sub ten_minutes_before { my ($y, $mo, $d, $h, $mi) = @_; $s->advance(1000 * timegm(0, $mi, $h, $d, $mo - 1, $y) - 10 * $minute - $s->now) }

sub begin {
	my ($zone) = @_;
	$s = Sekisho->new(clock => 1, env => { TZ => $zone },
		conf => "quota: { window: calendar, $Sekisho::UNPACED }\nlimits: { errors_soft: 1000, errors_hard: 1000 }\n");
	$s->account($me);
}

# One day: what is left of the day before, then all of this one, to its last minute.
sub day {
	my ($name, $midnight, $hours, $next) = @_;
	ten_minutes_before(@$midnight);
	like(spend(300), qr/^250/, "$name: 300 recipients at 23:50 the day before");
	$s->advance(9 * $minute);
	like(spend(200), qr/^250/, 'and 200 at 23:59');
	like(try_one(), qr/^450 .*limit 500 reached; resets \d{4}-\d\d-\d\dT00:00/, 'no more, until midnight');
	$s->advance(2 * $minute);
	is(used(), 0, 'at 00:01 nothing is used');
	like(spend(500), qr/^250/, '500 recipients');
	like(try_one(), qr/^450 4\.7\.1 Daily recipient limit 500 reached; resets \Q$next\E; code Q1/, 'no more; the next midnight is told');
	my ($old) = $s->pids('sekisho-queue');
	$s->advance(12 * $hour);
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && used() == 500 }), 'killed at noon, the queue knows them');
	ok(Sekisho::wait_for(20, sub { try_one() =~ /^450 4\.7\.1 .*resets \Q$next\E/ }), 'and refuses as before');
	$s->advance(($hours - 12) * $hour - 2 * $minute);
	is(used(), 500, "after $hours h less a minute all are used");
	like(try_one(), qr/^450 /, 'and one more is refused');
	$s->advance($minute + 1000);
	is(used(), 0, "after $hours h the day is over");
	like(try_one(), qr/^250/, 'one more fits');
}

begin('Asia/Tokyo');
day('Tokyo', [2027, 3, 27, 15, 0], 24, '2027-03-29T00:00:00+09:00');
begin('Europe/Berlin');
day('Berlin in March', [2027, 3, 27, 23, 0], 23, '2027-03-29T00:00:00+02:00');
day('Berlin in October', [2027, 10, 30, 22, 0], 25, '2027-11-01T00:00:00+01:00');
ok(Sekisho::wait_for(60, sub { my $a = $s->json('queue', 'audit'); $a && $a->{queued} == 0 && $a->{conserved} }), 'all is delivered and conserved')
	or diag $s->ctl('queue', 'audit');
done_testing;
