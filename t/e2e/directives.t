#!/usr/bin/perl
# Setup: two accounts; a site that nobody listens at, so that mail to it is deferred; a sink for the rest; the shared test clock.
# Expectation: a bounce, removal or reroute with --for befalls what is there and what arrives until its time is over, and nothing after that; it survives a
# restart, is listed, is ended by a release, and yields to a hold. A reroute moves what waits to a lane and back, and what is being attempted is left alone.
# A reroute whose queue is killed in between is begun again: nothing is lost. There are only so many that every message is compared with.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use Time::HiRes qw(time);

my ($minute, $hour) = (60_000, 3_600_000);
my $slow_port = Sekisho::free_port();
my $s = Sekisho->new(clock => 1, no_start => 1);
$s->{extra} = qq(${Sekisho::UNLIMITED}limits: { messages: 100000, account_sessions: 500, prefix_sessions: 500 }\nretry: { schedule: [3h] }\nroutes:\n)
	. qq(  "slow.example": "127.0.0.1:$slow_port"\n  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start;
my ($me, $bob) = ('alice@example.test', 'bob@example.test');
$s->account($me, $bob);

sub state_of { my ($m) = @_; return join ' ', map { $_->{state} } @{ $m->{rcpt} // [] } }
sub becomes { my ($id, $state, $what) = @_; ok(Sekisho::wait_for(20, sub { state_of($s->show($id)) eq $state }), $what) or diag explain $s->show($id) }
sub lane_is { my ($id, $lane, $what) = @_; ok(Sekisho::wait_for(20, sub { my $m = $s->show($id); ($m->{lane} // '') eq $lane && $m->{state} eq 'deferred' }), $what) or diag explain $s->show($id) }
sub in_force { return map { "$_->{action} $_->{what}" } @{ $s->json('queue', 'holds')->{holds} } }
sub says { my ($what, $status, $pattern, @words) = @_; my $said = $s->ctl(@words); is($? >> 8, $status, "$what: status") or diag $said; like($said, $pattern, $what) }

sub conserved {
	my ($what, %want) = @_;
	my $a;
	ok(Sekisho::wait_for(30, sub { $a = $s->json('queue', 'audit'); return $a && $a->{conserved} && !grep { $a->{$_} != $want{$_} } keys %want }), "conserved: $what")
		or diag $s->ctl('queue', 'audit'), explain \%want;
}

sub restart_queue {
	my ($old) = $s->pids('sekisho-queue');
	$s->advance(11_000);
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && $s->json('queue', 'audit') }), 'queue is back');
}

# --- bounces ---

my $waits = $s->submit($me, 'waits', 'carol@slow.example');
lane_is($waits, 'retry', 'deferred');
says('bounce what is there and what comes', 0, qr/^bounced: 1 recipients of 1 messages$/m, 'queue', 'bounce', '--recipient', 'slow.example', '--for', '2h', '--yes', '--reason', 'closed');
becomes($waits, 'bounced', 'what was there');
is_deeply([in_force()], ['bounce recipient slow.example'], 'listed');
says('for people', 0, qr/^recipient slow\.example +\S+ +\d\S+ +bounce .* closed$/m, 'queue', 'holds');
my $m = $s->submit($me, 'comes', 'carol@example.org', 'carol@slow.example');
becomes($m, 'delivered bounced', 'what comes: only that recipient');
like($s->show($m)->{rcpt}[1]{reply}, qr/^5\.7\.0 .*: closed$/, 'with the reason');
is($s->show($m)->{rcpt}[1]{attempts}, 0, 'and was not attempted');
restart_queue();
becomes($s->submit($me, 'comes', 'dave@slow.example'), 'bounced', 'in force after a restart');
says('hold', 0, qr/^held/, 'queue', 'hold', '--account', $bob);
my $held = $s->submit($bob, 'held', 'carol@slow.example');
ok(Sekisho::wait_for(20, sub { $s->show($held)->{state} eq 'held' }), 'a hold comes first');
is(state_of($s->show($held)), 'queued', 'held mail is not bounced');
says('release', 0, qr/^released/, 'queue', 'release', '--account', $bob);
becomes($held, 'bounced', 'but when it is released');
$s->advance(2 * $hour + $minute);
ok(Sekisho::wait_for(90, sub { !in_force() }), 'its time is over');
$m = $s->submit($me, 'after', 'carol@slow.example');
lane_is($m, 'retry', 'and what comes then is attempted');
like($s->log, qr/ directive rule="bounce recipient slow\.example" until=\S+ by="[^"]+" reason="closed"/, 'the log tells who and why');
like($s->log, qr/ hold-over what="recipient slow\.example"/, 'and that it is over');

# --- removals ---

says('remove', 0, qr/^removed: 0 /m, 'queue', 'remove', '--sender', $bob, '--recipient', 'carol@example.org', '--for', '1h', '--yes');
my $generated = $s->json('queue', 'audit')->{generated};
becomes($s->submit($bob, 'unwanted', 'carol@example.org', 'dave@example.org'), 'removed delivered', 'what comes is removed');
is($s->json('queue', 'audit')->{generated}, $generated, 'and nobody is told');
says('release', 0, qr/^released/, 'queue', 'release', '--sender', $bob, '--recipient', 'carol@example.org');
becomes($s->submit($bob, 'wanted', 'carol@example.org'), 'delivered', 'released: delivered');

# --- reroutes ---

says('reroute --dry-run', 0, qr/^would be moved: 1 recipients of 1 messages$/m, 'queue', 'reroute', '--site', 'slow.example', '--to', 'fallback', '--dry-run');
says('reroute', 0, qr/^moved: 1 recipients of 1 messages$/m, 'queue', 'reroute', '--site', 'slow.example', '--to', 'fallback', '--for', '1h');
lane_is($m, 'fallback', 'what was there waits in the other lane');
says('again', 0, qr/^moved: 0 /m, 'queue', 'reroute', '--site', 'slow.example', '--to', 'fallback');
my $new = $s->submit($bob, 'rerouted', 'carol@slow.example');
lane_is($new, 'fallback', 'what comes goes there, too');
says('release', 0, qr/^released/, 'queue', 'release', '--site', 'slow.example');
says('and back', 0, qr/^moved: 2 /m, 'queue', 'reroute', '--site', 'slow.example', '--to', 'retry');
lane_is($_, 'retry', 'back') for $m, $new;
says('even to the first lane', 0, qr/^moved: 1 /m, 'queue', 'reroute', $m, '--to', 'fresh');
lane_is($m, 'fresh', 'it waits there');
says('check', 0, qr/nothing is wrong/, 'queue', 'check');
says('and back', 0, qr/^moved: 1 /m, 'queue', 'reroute', $m, '--to', 'retry');
says('check', 0, qr/nothing is wrong/, 'queue', 'check');
says('nowhere', 64, qr/say where/, 'queue', 'reroute', $m);
says('no such lane', 1, qr/takes a lane \(fresh, retry, fallback\)/, 'queue', 'reroute', $m, '--to', 'nowhere');
my $audit = $s->json('queue', 'audit');
ok($audit->{conserved}, 'conserved');

# --- killed in between ---

my $count = $ENV{SEKISHO_MANY} // 400;
says('hold', 0, qr/^held/, 'queue', 'hold', '--account', $bob);
$s->submit($bob, "many-$_", 'carol@example.org') for 1 .. $count;
my $pid = fork // die $!;
if (!$pid) { $s->ctl('queue', 'reroute', '--account', $bob, '--recipient', 'example.org', '--to', 'fallback'); require POSIX; POSIX::_exit(0) }
ok(Sekisho::wait_for(20, sub { scalar $s->listed('--account', $bob, '--lane', 'fallback') }), 'a reroute is under way');
restart_queue();
waitpid $pid, 0;
conserved('between', accepted => $audit->{accepted} + $count, queued => $audit->{queued} + $count);
$s->ctl('queue', 'reroute', '--account', $bob, '--recipient', 'example.org', '--to', 'fallback');
is(scalar($s->listed('--lane', 'fallback')), $count, 'begun again, it ends');
my $began = time;
says('remove', 0, qr/^removed: $count /m, 'queue', 'remove', '--lane', 'fallback', '--yes');
cmp_ok(time - $began, '>=', 0.95 * $count / 1000, 'no faster than 1000 a second');
says('release', 0, qr/^released/, 'queue', 'release', '--account', $bob);
conserved('in the end', accepted => $audit->{accepted} + $count, removed => $audit->{removed} + $count, queued => $audit->{queued});

# --- bounds ---

says("for no time: $_->[0]", 1, qr/no time at all/, 'queue', @$_, '--account', $bob, '--for', '0s') for ['hold'], ['bounce', '--yes'], ['remove', '--yes'], ['reroute', '--to', 'retry'];
is_deeply([in_force()], [], 'nothing is in force');
says('beyond what a clock tells', 1, qr/is longer than 36500d/, 'queue', 'hold', '--account', $bob, '--for', '106751991167d');
says('nothing is meant', 1, qr/nothing is younger than that/, 'queue', 'remove', '--account', $bob, '--yes', '--younger', '0s');

$s->json('queue', 'hold', '--larger', 1_000_000_000 + $_) for 1 .. 100;
says('one too many', 1, qr/as many .* as there may be/, 'queue', 'hold', '--larger', 1_000_000_000);
says('but by account', 0, qr/^held/, 'queue', 'hold', '--account', $me);
done_testing;
