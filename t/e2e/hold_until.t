#!/usr/bin/perl
# Setup: the shared test clock; messages that their senders want to leave later (FUTURERELEASE, RFC 4865); the queue is killed, the wall clock is set.
# Expectation: EHLO tells the bounds and they hold; a held message is charged at once, shown as held by its sender with its time, and leaves then and not
# before: not by a flush, not over a kill, not because the wall clock was set ahead or, having been ahead, back. It expires, and its delay is told, counted
# from then. An operator may hold and remove it. The books are conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use POSIX qw(strftime);
use Time::Local qw(timegm);

my ($second, $minute, $hour, $day) = (1000, 60_000, 3_600_000, 86_400_000);
my $refusing = Sekisho->new(no_start => 1, no_sink => 1);
my $s = Sekisho->new(clock => 1, no_start => 1);
$s->{extra} = "${Sekisho::UNLIMITED}limits: { future_release: 7d, messages: 1000, account_sessions: 1000, prefix_sessions: 1000 }\n"
	. qq(retry: { schedule: [10min], fallback_after: 1h, expire: 1h, delay_notice: [30min] }\nroutes:\n  "refusing.example": "127.0.0.1:$refusing->{ports}{sink}"\n)
	. qq(  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start;
$refusing->start_sink('-r', 'rcpt');
my $me = 'alice@example.test';
$s->account($me);

sub ms { # of an RFC 3339 time
	my ($y, $mo, $d, $h, $mi, $se, $sign, $zh, $zm) = ($_[0] // '') =~ /^(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(?:Z|([+-])(\d+):(\d+))$/ or return 0;
	return 1000 * (timegm($se, $mi, $h, $d, $mo - 1, $y) - ($sign ? ($zh * 60 + $zm) * 60 * ($sign eq '-' ? -1 : 1) : 0));
}

my $c = $s->login($me) or die 'no login';

sub mail {
	my ($params, $name, $to) = @_;
	$c = $s->login($me) or return ''; # when time has passed, the session before has ended
	my $said = $c->cmd("MAIL FROM:<$me> $params");
	return $said unless $said =~ /^250/;
	$c->cmd('RCPT TO:<' . ($to // 'bob@example.org') . '>');
	$c->cmd('DATA');
	$c->raw("From: <$me>\r\n\r\n$name\r\n.\r\n");
	return $c->reply;
}

sub arrived { my ($name) = @_; return scalar grep { /^\Q$name\E\r?$/m } $s->delivered }
sub waits { my ($id) = @_; return ($s->show($id)->{state} // '') eq 'held-by-sender' }

sub kill_queue {
	my ($old) = $s->pids('sekisho-queue');
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && ($s->json('status') // {})->{queue} }), 'the queue was killed and is back');
}

# Whether it leaves; what follows it in the queue has left already then, so that "not yet" takes no waiting.
sub leaves_with {
	my ($name, $expected, $what) = @_;
	my $marker = "marker-$name-" . int rand 1e9;
	like(mail('', $marker), qr/^250/, "$what: a message without a time");
	ok(Sekisho::wait_for(20, sub { arrived($marker) }), "$what: leaves at once");
	ok($expected ? Sekisho::wait_for(20, sub { arrived($name) }) : !arrived($name), $what) or diag $s->ctl('queue', 'list');
}

# --- what is offered and what is taken ---

my $ehlo = $c->cmd('EHLO client.example.test');
my ($longest, $last) = $ehlo =~ /^250-FUTURERELEASE (\d+) (\S+)\r?$/m;
is($longest, 7 * 86400, 'EHLO tells for how long');
ok($last =~ /Z$/ && abs(ms($last) - $s->now - 7 * $day) < 60 * $second, 'and until when') or diag $last;
like($c->cmd("MAIL FROM:<$me> HOLDFOR=" . (7 * 86400 + 1)), qr/^501 5\.5\.4 .* 604800 seconds/, 'not for longer');
like($c->cmd("MAIL FROM:<$me> HOLDUNTIL=" . strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(($s->now + 7 * $day) / 1000 + 60))), qr/^501 5\.5\.4 /, 'not until later');
like($c->cmd("MAIL FROM:<$me> HOLDFOR=604800"), qr/^250/, 'for exactly that long');
$c->cmd('RSET');
like(mail('HOLDUNTIL=2020-01-01T00:00:00Z', 'past'), qr/^250 2\.0\.0 Queued as \w+\r?$/, 'a time in the past is no time');
ok(Sekisho::wait_for(20, sub { arrived('past') }), 'it leaves at once');

# --- until then ---

my $before = $s->json('quota', 'show', $me)->{used};
my $at = $s->now;
my $said = mail('HOLDFOR=7200', 'two-hours');
like($said, qr/^250 2\.0\.0 Queued as \w+; held for you until \S+\r?$/, 'held, and the reply says until when');
my ($id, $until) = $said =~ /Queued as (\w+); held for you until (\S+)/;
ok(ms($until) >= $at + 7198 * $second && ms($until) <= $s->now + 7200 * $second, 'in two hours') or diag $until;
is($s->json('quota', 'show', $me)->{used}, $before + 1, 'charged at once');
my $m = $s->show($id);
is_deeply([@$m{qw(state lane attempts)}], ['held-by-sender', 'fresh', 0], 'shown as held by its sender');
ok(abs(ms($m->{due}) - ms($until)) <= $second, 'with its time') or diag $m->{due};
like($s->ctl('queue', 'list', '--state', 'held-by-sender'), qr/\Q$id\E/, 'listed by that state');
$s->ctl('queue', 'flush', '--all', '--reason', 'test');
leaves_with('two-hours', 0, 'a flush does not release it');
kill_queue();
leaves_with('two-hours', 0, 'nor does a kill');
ok(waits($id), 'it is shown as before');
$s->advance(ms($until) - $s->now - 5 * $second);
leaves_with('two-hours', 0, 'five seconds before its time it waits');
$s->advance(7 * $second);
leaves_with('two-hours', 1, 'then it leaves');
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'and is done with');
like($s->log, qr/\b$id hold-over what="message $id" by=sender/, 'the log says why it left');

# --- times that passed while nobody was there ---

($id) = mail('HOLDFOR=600', 'nobody-there') =~ /Queued as (\w+)/;
$s->stop;
$s->advance(30 * $minute);
$s->start;
ok(Sekisho::wait_for(20, sub { arrived('nobody-there') }), 'a time that passed while the service was down is over at its start');

# --- somebody sets the wall clock ---

($id) = mail('HOLDUNTIL=' . strftime('%Y-%m-%dT%H:%M:%SZ', gmtime($s->now / 1000 + 86400)), 'tomorrow') =~ /Queued as (\w+); held/;
ok($id, 'until tomorrow');
$s->jump(2 * $day);
$s->advance($minute + $second);
leaves_with('tomorrow', 0, 'a wall clock that jumps two days ahead does not release it');
kill_queue();
$s->advance($minute + $second);
leaves_with('tomorrow', 0, 'not after a kill either');
$s->jump(-2 * $day);
$s->advance(15 * $minute);
leaves_with('tomorrow', 0, 'nor when it is set right again');
ok(waits($id), 'it waits');
$s->jump(-5 * $hour);
$s->advance(21 * $hour);
leaves_with('tomorrow', 0, 'nor by a clock that goes slow');
$s->advance(8 * $hour);
leaves_with('tomorrow', 1, 'only when its day has come');

# --- expiry and delay count from then ---

($id) = mail('HOLDFOR=172800', 'refused', 'carol@refusing.example') =~ /Queued as (\w+)/;
$s->advance(2 * $day + 2 * $second);
ok(Sekisho::wait_for(20, sub { $m = $s->show($id); ($m->{attempts} // 0) == 1 && $m->{lane} eq 'retry' }), 'after two days it is attempted, and refused for now') or diag explain $m;
is($m->{rcpt}[0]{state}, 'queued', 'it has not expired, though four days of waiting are two');
my $notices = sub { scalar grep { /^Subject: .*(?:elay|not)/im && /\Q$id\E/ } $s->delivered };
is($notices->(), 0, 'nobody is told of a delay');
for (1 .. 4) {
	$s->advance(12 * $minute);
	my $n = $_ + 1;
	last unless ok(Sekisho::wait_for(20, sub { $m = $s->show($id); ($m->{attempts} // 0) >= $n && ms($m->{due}) > $s->now }), "attempt $n");
}
is($notices->(), 1, 'the delay is told, once, half an hour after its time') or diag $s->log;
for (1 .. 3) {
	last if $s->show($id)->{finished};
	$s->advance(12 * $minute);
	Sekisho::wait_for(5, sub { $m = $s->show($id); $m->{finished} || ms($m->{due}) > $s->now });
}
is($s->show($id)->{rcpt}[0]{state}, 'expired', 'and an hour after it, it expires');

# --- operators ---

($id) = mail('HOLDFOR=600', 'operator') =~ /Queued as (\w+)/;
$s->ctl('queue', 'hold', $id, '--reason', 'test');
is($s->show($id)->{state}, 'held', "an operator's hold stands before it");
$s->advance(11 * $minute);
leaves_with('operator', 0, 'beyond its time, too');
$s->ctl('queue', 'release', $id, '--reason', 'test');
ok(Sekisho::wait_for(20, sub { arrived('operator') }), 'it leaves when both are over');
my ($gone) = mail('HOLDFOR=600', 'removed') =~ /Queued as (\w+)/;
$s->ctl('queue', 'remove', $gone, '--yes', '--reason', 'test');
ok(Sekisho::wait_for(20, sub { $s->show($gone)->{finished} }), 'what is held may be removed');
my ($half) = do {
	$c = $s->login($me);
	$c->cmd("MAIL FROM:<$me> HOLDFOR=600");
	$c->cmd("RCPT TO:<half\@$_>") for 'example.org', 'example.net';
	$c->cmd('DATA');
	$c->raw("From: <$me>\r\n\r\nhalf\r\n.\r\n");
	$c->reply =~ /Queued as (\w+)/;
};
$s->ctl('queue', 'remove', '--recipient', 'example.net', '--yes', '--reason', 'test');
ok(Sekisho::wait_for(20, sub { ($s->show($half)->{rcpt}[1]{state} // '') eq 'removed' }), 'and half of it') or diag explain $s->show($half);
ok(waits($half), 'while the other half waits');
$s->advance(11 * $minute);
leaves_with('half', 1, 'for its time');
ok(!arrived('removed'), 'what was removed never left');

# --- many at once ---

sub begin {
	my ($c, $params, $name) = @_;
	$c->cmd($_) =~ /^[23]5/ or return ok(0, "$name: $_") for "MAIL FROM:<$me> $params", 'RCPT TO:<bob@example.org>', 'DATA';
	$c->raw("From: <$me>\r\n\r\n$name\r\n");
}

my $common = int($s->now / 1000) + 3600;
$c = $s->login($me);
for my $n (1 .. 520) {
	begin($c, 'HOLDUNTIL=' . strftime('%Y-%m-%dT%H:%M:%SZ', gmtime $common), "many-$n");
	$c->raw(".\r\n");
	$c->reply =~ /held for you/ or ok(0, "message $n");
}
$s->advance(1000 * ($common - 60) - $s->now);
my @others = map { $s->login($me) } 1 .. 150;
begin($_, 'HOLDFOR=86400', 'later') for @others;
my ($queue) = $s->pids('sekisho-queue');
kill 'STOP', $queue; # so that what is to be held comes in beside what is released
$_->raw(".\r\n") for @others;
my $left = 1000 * $common + 200 - $s->now;
$s->advance($left) if $left > 0;
kill 'CONT', $queue;
ok(Sekisho::wait_for(30, sub { 520 == grep { /^many-\d+\r?$/m } $s->delivered }), 'hundreds whose time comes together all leave, whoever else wants to be held then');
is(scalar(grep { $_->reply !~ /held for you/ } @others), 0, 'and those are');
$s->advance(86401 * $second);
my $audit;
ok(Sekisho::wait_for(60, sub { $audit = $s->json('queue', 'audit'); $audit && $audit->{conserved} && $audit->{queued} == 0 }), 'conserved') or diag $s->ctl('queue', 'audit');
done_testing;
