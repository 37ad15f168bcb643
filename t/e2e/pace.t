#!/usr/bin/perl
# Setup: a class that may send 100 recipients at once and then one a minute; the shared test clock; the queue is killed while mail waits.
# Expectation: a burst of 100 leaves at once; what follows is accepted, told when it will start, shown as due then, and leaves then and not before, after
# a kill too; a message goes whole and its rest is debt for the next; what would wait longer than an hour is refused with the time to wait, at the first
# recipient and again at the end of data; the cap of messages refuses by its own name; a reset frees everything.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use Time::Local qw(timegm);

my $at_once = qr/^250 2\.0\.0 Queued as \w+\r?$/;
my ($second, $minute, $hour) = (1000, 60_000, 3_600_000);
my $s = Sekisho->new(clock => 1, conf => <<'CONF');
quota: { recipients: 1000/day, messages: 40/day, burst_recipients: 100 then 10/10min, burst_messages: off }
limits: { errors_soft: 1000, errors_hard: 1000 }
CONF
my ($alice, $bob, $carol, $dave) = map { "$_\@example.test" } qw(alice bob carol dave);
$s->account($alice, $bob, $carol, $dave);

sub ms { # of an RFC 3339 time
	my ($y, $mo, $d, $h, $mi, $se, $sign, $zh, $zm) = ($_[0] // '') =~ /^(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(?:Z|([+-])(\d+):(\d+))$/ or return 0;
	return 1000 * (timegm($se, $mi, $h, $d, $mo - 1, $y) - ($sign ? ($zh * 60 + $zm) * 60 * ($sign eq '-' ? -1 : 1) : 0));
}

sub to { my ($n, $name) = @_; return [map { ($name // 'r') . "$_\@example.org" } 1 .. $n] }

sub send_to {
	my ($account, $n) = @_;
	my $c = $s->login($account) or return 'no login';
	return $c->send_mail($account, to($n), 'x');
}

sub delivered { return ($s->json('queue', 'audit') // {})->{delivered} // -1 }
sub queued { my $l = $s->json('queue', 'list'); return $l ? @{ $l->{messages} // [] } : () }

sub has_left {
	my ($n, $what) = @_;
	ok(Sekisho::wait_for(20, sub { delivered() == $n }), "$what: $n recipients have left") or diag delivered();
}

sub kill_queue {
	my ($old) = $s->pids('sekisho-queue');
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && delivered() >= 0 }), 'the queue was killed and is back');
}

# A burst, and what follows it.
my $start = $s->now;
like(send_to($alice, 10), $at_once, "message $_ of 10 recipients goes at once") for 1 .. 10;
my $within = $s->now - $start;
my @paced = map { send_to($alice, 2) } 1 .. 3;
like($paced[0], qr/^250 2\.0\.0 Queued as \w+; paced, expected start within 1 min/, 'recipient 101 has to wait a minute, and is told');
like($paced[1], qr/^250 .*; paced, expected start within 3 min/, 'its second recipient is debt for the next');
like($paced[2], qr/^250 .*; paced, expected start within 5 min/, 'and so on');
has_left(100, 'the burst');
my @due = sort { $a <=> $b } map { ms($_->{due}) } queued();
is(scalar @due, 3, 'three messages wait');
cmp_ok($due[0], '>=', $start + $minute - $second, 'the first is not due before the bucket says');
cmp_ok($due[0], '<=', $start + $within + $minute + $second, 'nor later');
is($due[1] - $due[0], 2 * $minute, 'the second two minutes later');
is($due[2] - $due[1], 2 * $minute, 'the third another two');

$s->advance($due[0] - $s->now - 3 * $second);
is(delivered(), 100, 'three seconds before its time nothing has left');
$s->advance(5 * $second);
has_left(102, 'two seconds after it');
kill_queue();
$s->advance($due[1] - $s->now - 3 * $second) if $due[1] - $s->now > 3 * $second;
is(delivered(), 102, 'after a kill the next one waits for its time as well');
$s->advance(5 * $second);
has_left(104, 'and then leaves');
like(send_to($alice, 1), qr/paced, expected start within 4 min/, 'the bucket is as it was before the kill');
$s->advance(10 * $minute);
has_left(107, 'after ten minutes');
like(send_to($alice, 1), $at_once, 'and there is room again');
has_left(108, 'which is used at once');

# A message goes whole; the horizon.
like(send_to($bob, 150), $at_once, 'a message of 150 goes whole');
has_left(258, 'it');
like(send_to($bob, 10), qr/^250 .*paced, expected start within 51 min/, 'the next one waits for all of its debt');
my $said = send_to($bob, 1);
like($said, qr/^450 4\.7\.1 Sending too fast; retry after (\d+) s; code B1/, 'the one after that would wait for more than an hour: refused at RCPT');
my ($wait) = $said =~ /after (\d+) s/;
cmp_ok($wait, '<=', 60, 'for a minute');
cmp_ok($wait, '>=', 30, 'about');
kill_queue();
like(send_to($bob, 1), qr/^450 4\.7\.1 Sending too fast; retry after \d+ s; code B1/, 'after a kill too');
my $q = $s->json('quota', 'show', $bob);
is_deeply([@$q{qw(used reserved)}], [160, 0], 'what was refused costs nothing');
$s->advance($wait * $second);
my @two = map { my $c = $s->login($bob); $c->cmd("MAIL FROM:<$bob>"); like($c->cmd('RCPT TO:<x@example.org>'), qr/^250/, 'when it said, it is taken'); $c } 1, 2;
for my $c (@two) {
	$c->cmd('DATA');
	$c->raw("From: <$bob>\r\n\r\nx\r\n.\r\n");
}
my @last = map { $_->reply } @two;
is(scalar(grep { /^250 .*paced, expected start within 60 min/ } @last), 1, 'of two at once one is accepted') or diag @last;
is(scalar(grep { /^450 4\.7\.1 Sending too fast; retry after \d+ s; code B1/ } @last), 1, 'the other refused at the end of data') or diag @last;
$s->advance($hour);
has_left(269, 'all that was accepted');

# The cap of messages.
like(send_to($carol, 1), qr/^250/, "message $_") for 1 .. 40;
like(send_to($carol, 1), qr/^450 4\.7\.1 Daily message limit 40 reached; resets \d{4}-\d\d-\d\dT\d\d:\d\d\S*; code Q2/, 'message 41 is refused by name, with the time');
$q = $s->json('quota', 'show', $carol);
is_deeply([@$q{qw(used reserved)}], [40, 0], 'of the recipients only 40 are used');
ok(Sekisho::wait_for(20, sub { delivered() == 309 }), 'all 40 have left') or diag delivered();
$s->ctl('quota', 'reset', $carol, '--reason', 'test');
is($?, 0, 'a reset');
like(send_to($carol, 150), $at_once, 'frees the meter');
kill_queue();
$q = $s->json('quota', 'show', $carol);
is_deeply([$q->{used}, $q->{messages}{used}], [150, 1], 'for good');
like(send_to($carol, 1), qr/^250 .*paced/, 'the pace has begun afresh with it');
$s->ctl('quota', 'reset', $carol, '--reason', 'test');
like(send_to($carol, 1), $at_once, 'and may be reset as well');
# Paced mail whose sender wants it back before its pace lets it leave.
like(send_to($carol, 150), qr/^250/, 'a burst');
my $c = $s->login($carol);
$c->cmd("MAIL FROM:<$carol> BY=600;R");
$c->cmd('RCPT TO:<x@example.org>');
$c->cmd('DATA');
$c->raw("From: <$carol>\r\n\r\nx\r\n.\r\n");
my ($id) = $c->reply =~ /^250 2\.0\.0 Queued as (\w+); paced/;
ok($id, 'is followed by a message with a time to deliver it by');
$s->advance(9 * $minute);
is($s->json('queue', 'show', $id)->{rcpt}[0]{state}, 'queued', 'R: a minute before its time it waits');
$s->advance($minute + $second);
my $shown;
ok(Sekisho::wait_for(20, sub { $shown = $s->json('queue', 'show', $id); $shown && $shown->{finished} }), 'R: at its time it ends, long before its pace') or diag explain $shown;
like($shown->{rcpt}[0]{reply}, qr/^5\.4\.7 .*no attempt was made/, 'R: as 5.4.7, and was not attempted');

$c = $s->login($dave);
$c->cmd("MAIL FROM:<$dave>");
like($c->cmd("RCPT TO:<r$_\@example.org>"), qr/^250/, "recipient $_ of one message") for 1 .. 45;
$c->cmd('RSET');
ok($s->json('queue', 'audit')->{conserved}, 'conserved') or diag $s->ctl('queue', 'audit');
done_testing;
