#!/usr/bin/perl
# Setup: two accounts; a site that takes mail, one that refuses for now, one that is slow to answer; the shared test clock.
# Expectation: what is held is not attempted, nor what arrives later, and says which hold it waits for; a hold survives a restart, ends when released or at
# its time, and what it held then goes. Held mail does not expire: after the release it has its attempt first. A flush makes deferred mail due once. A
# removal counts with --dry-run, asks for --yes, ends exactly what it selects with the operator's name and reason, nobody is notified, what is being
# attempted is left alone; repeated it does nothing. The books are conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use Time::HiRes qw(time);

my ($minute, $hour) = (60_000, 3_600_000);
my $slow_port = Sekisho::free_port();
my $hang_port = Sekisho::free_port();
my $s = Sekisho->new(clock => 1, no_start => 1);
$s->{extra} = qq(${Sekisho::UNLIMITED}limits: { messages: 100000, account_sessions: 500, prefix_sessions: 500 }\nroutes:\n  "slow.example": "127.0.0.1:$slow_port"\n)
	. qq(  "hang.example": "127.0.0.1:$hang_port"\n  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start;
my ($me, $bob) = ('alice@example.test', 'bob@example.test');
$s->account($me, $bob);

sub state_of { my ($m) = @_; return join ' ', map { $_->{state} } @{ $m->{rcpt} // [] } }
sub arrived { my ($what) = @_; return scalar(grep { /^\Q$what\E\r?$/m } $s->delivered) }
sub says { my ($what, $status, $pattern, @words) = @_; my $said = $s->ctl(@words); is($? >> 8, $status, "$what: status") or diag $said; like($said, $pattern, $what) }

sub conserved {
	my ($what, %want) = @_;
	my $a;
	ok(Sekisho::wait_for(20, sub {
		$a = $s->json('queue', 'audit');
		return $a && $a->{conserved} && !grep { $a->{$_} != $want{$_} } keys %want;
	}), "conserved: $what") or diag $s->ctl('queue', 'audit'), explain \%want;
}

sub at_rest { # everything that may be attempted has been
	ok(Sekisho::wait_for(20, sub { !grep { $_->{state} =~ /active|queued/ } @{ ($s->json('queue', 'list') // {})->{messages} // [{ state => 'active' }] } }), 'at rest')
		or diag $s->ctl('queue', 'list');
}

sub restart_queue {
	my ($old) = $s->pids('sekisho-queue');
	$s->advance(11_000);
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && $s->json('queue', 'audit') }), 'queue is back');
}

# --- holds ---

says('hold of an account', 0, qr/^held: account alice\@example\.test, until it is released$/m, 'queue', 'hold', '--account', 'Alice@Example.test', '--reason', 'looks odd');
my $held = $s->submit($me, 'held-account', 'carol@example.org');
my $free = $s->submit($bob, 'free-account', 'carol@example.org');
ok(Sekisho::wait_for(20, sub { arrived('free-account') }), 'mail of another account goes');
my $m = $s->show($held);
is($m->{state}, 'held', 'mail of the held one is accepted and held');
is($m->{rule}, 'hold account alice@example.test', 'and says by what');
is($m->{attempts}, 0, 'not attempted');
is($m->{holds}[0]{reason}, 'looks odd', 'the reason');
like($m->{holds}[0]{by}, qr/\w/, 'and who');
like($s->log, qr/\b$held held rule="hold account alice\@example\.test"/, 'the log says so too');
restart_queue();
is($s->show($held)->{state}, 'held', 'held after a restart');
is_deeply([$s->listed('--state', 'held')], [$held], 'queue list --state held');
says('hold of a domain', 0, qr/^held: recipient refused\.example, until \d{4}-/m, 'queue', 'hold', '--recipient', 'REFUSED.example', '--for', '2h');
says('queue holds', 0, qr/^account alice\@example\.test +\S+ +- +\S.* looks odd.*^recipient refused\.example/ms, 'queue', 'holds');
my $both = $s->submit($bob, 'half-held', 'carol@example.org', 'carol@refused.example');
my $other = $s->submit($bob, 'domain-held', 'carol@refused.example');
ok(Sekisho::wait_for(20, sub { arrived('half-held') }), 'a held domain: other recipients get theirs');
ok(Sekisho::wait_for(20, sub { $s->show($both)->{state} eq 'held' }), 'the rest is held');
is(state_of($s->show($both)), 'delivered queued', 'and queued');
is_deeply([sort($s->listed('--recipient', 'refused.example'))], [sort $both, $other], 'queue list --recipient');
is_deeply([$s->listed('--account', $me)], [$held], 'queue list --account');
is_deeply([sort($s->listed('--lane', 'fresh', '--account', $bob))], [sort $both, $other], 'queue list --lane with --account');
is_deeply([$s->listed('--lane', 'retry')], [], 'queue list --lane retry');
says('no such state', 1, qr/there are: queued active paced deferred held/, 'queue', 'list', '--state', 'nonsense');
says('release of what is not held', 1, qr/no such hold/, 'queue', 'release', '--account', $bob);
$s->advance(2 * $hour + $minute);
ok(Sekisho::wait_for(20, sub { arrived('half-held') == 2 && arrived('domain-held') == 1 }), 'the time of the hold is over: delivered');
unlike($s->ctl('queue', 'holds'), qr/refused/, 'and it is gone');
$s->advance(5 * 24 * $hour);
restart_queue();
is($s->show($held)->{state}, 'held', 'five days later it is still held, and has not expired');
is(arrived('held-account'), 0, 'not attempted');
says('release', 0, qr/^released: account alice\@example\.test$/m, 'queue', 'release', '--account', $me);
ok(Sekisho::wait_for(20, sub { arrived('held-account') }), 'released: delivered at once');
conserved('after the holds', accepted => 5, delivered => 5, queued => 0, generated => 0);

# A hold of one message while it waits for its turn.
$held = $s->submit($me, 'deferred', 'carol@slow.example');
ok(Sekisho::wait_for(20, sub { $s->show($held)->{state} eq 'deferred' }), 'deferred') or diag explain $s->show($held);
says('hold of a message', 0, qr/^held: message $held/m, 'queue', 'hold', $held);
$s->advance(10 * $minute);
is($s->show($held)->{attempts}, 1, 'held: its time passes without an attempt');
is($s->show($held)->{state}, 'held', 'held');
says('release', 0, qr/^released/m, 'queue', 'release', $held);
ok(Sekisho::wait_for(20, sub { $s->show($held)->{attempts} == 2 && $s->show($held)->{state} eq 'deferred' }), 'released: attempted');

# --- flush ---

my @late = map { $s->submit($me, "late-$_", 'carol@slow.example') } 1 .. 3;
at_rest();
is(scalar($s->listed('--state', 'deferred')), 4, 'four are deferred');
says('flush --dry-run', 0, qr/^would be due now: 4 recipients of 4 messages$/m, 'queue', 'flush', '--all', '--dry-run');
is($s->show($late[0])->{attempts}, 1, 'and nothing happened');
$s->ctl('queue', 'hold', $late[2]);
says('flush: held mail is left alone', 0, qr/^would be due now: 3 recipients of 3 messages$/m, 'queue', 'flush', '--all', '--dry-run');
says('flush of a held one', 0, qr/^due now: 0 /m, 'queue', 'flush', $late[2]);
$s->ctl('queue', 'release', $late[2]);
at_rest();
is($s->show($late[2])->{attempts}, 1, 'and waits for its time after the release');
says('flush of one', 0, qr/^due now: 1 recipients of 1 messages$/m, 'queue', 'flush', $late[0]);
ok(Sekisho::wait_for(20, sub { $s->show($late[0])->{attempts} == 2 }), 'it was attempted');
at_rest();
is($s->show($late[1])->{attempts}, 1, 'and no other');
says('flush of a domain', 0, qr/^due now: 4 /m, 'queue', 'flush', '--recipient', 'slow.example', '--reason', 'it is back');
$s->advance($minute); # the site may be left alone just now
ok(Sekisho::wait_for(20, sub { $s->show($late[1])->{attempts} == 2 && $s->show($held)->{attempts} == 3 }), 'all were attempted');
at_rest();
is($s->show($late[0])->{attempts}, 3, 'once');
says('flush of another account', 0, qr/^due now: 0 /m, 'queue', 'flush', '--account', $bob);

# --- removal ---

says('remove --dry-run', 0, qr/^would be removed: 1 recipients of 1 messages$/m, 'queue', 'remove', $late[0], '--dry-run');
says('remove needs --yes', 64, qr/--yes/, 'queue', 'remove', $late[0]);
says('remove', 0, qr/^removed: 1 recipients of 1 messages$/m, 'queue', 'remove', $late[0], '--yes', '--reason', 'asked for');
$m = $s->show($late[0]);
is(state_of($m), 'removed', 'removed');
like($m->{rcpt}[0]{reply}, qr/^removed by \S.*: asked for$/, 'by whom and why');
says('remove again', 1, qr/^not queued: $late[0]\n/m, 'queue', 'remove', $late[0], '--yes');
my $mixed = $s->submit($bob, 'mixed', 'carol@slow.example', 'dave@hang.example');
at_rest();
says('remove a domain', 0, qr/^removed: 4 recipients of 4 messages$/m, 'queue', 'remove', '--recipient', 'slow.example', '--yes');
is(state_of($s->show($mixed)), 'removed queued', 'only its recipients');
conserved('nobody is notified', accepted => 11, delivered => 5, removed => 5, queued => 1, generated => 0);

# What is being attempted is left alone.
my $listener = IO::Socket::INET->new(Listen => 16, LocalAddr => '127.0.0.1', LocalPort => $hang_port, ReuseAddr => 1) or die $!;
$s->ctl('queue', 'flush', $mixed);
ok(Sekisho::wait_for(20, sub { $s->show($mixed)->{state} eq 'active' }), 'it is being attempted');
says('remove what is being attempted', 0, qr/^removed: 0 .*^left alone, because they are being attempted: 1$/ms, 'queue', 'remove', '--account', $bob, '--yes');
says('hold what is being attempted', 0, qr/^held/, 'queue', 'hold', '--account', $bob);
is($s->show($mixed)->{state}, 'active', 'what is under way ends');
close $listener;
ok(Sekisho::wait_for(20, sub { $s->show($mixed)->{state} eq 'held' }), 'and is held then') or diag explain $s->show($mixed);
says('remove what is held', 0, qr/^removed: 1 /m, 'queue', 'remove', '--account', $bob, '--yes');
says('release', 0, qr/^released/m, 'queue', 'release', '--account', $bob);
conserved('after the removals', accepted => 11, delivered => 5, removed => 6, queued => 0);

# --- many, with a restart in between, and acceptance beside it ---

my $many = $ENV{SEKISHO_MANY} // 600;
says('hold', 0, qr/^held/, 'queue', 'hold', '--account', $me);
$s->submit($me, "many-$_", 'carol@example.org') for 1 .. $many;
is(scalar($s->listed('--state', 'held')), $many, "$many are held");
is($s->json('queue', 'remove', '--account', $me, '--dry-run')->{recipients}, $many, 'counted');
my $pid = fork // die $!;
if (!$pid) { $s->ctl('queue', 'remove', '--account', $me, '--yes'); require POSIX; POSIX::_exit(0) }
ok(Sekisho::wait_for(20, sub { my $a = $s->json('queue', 'audit'); $a && $a->{removed} > 6 }), 'a removal is under way');
restart_queue();
waitpid $pid, 0;
conserved('between', accepted => 11 + $many, delivered => 5);
$s->ctl('queue', 'remove', '--account', $me, '--yes');
conserved('begun again, it ends', accepted => 11 + $many, delivered => 5, removed => 6 + $many, queued => 0);
says('release', 0, qr/^released/m, 'queue', 'release', '--account', $me);
is(scalar(grep { /^many-/m } $s->delivered), 0, 'nobody got any of it');
ok($s->submit($me, 'last', 'carol@example.org'), 'and new mail');
ok(Sekisho::wait_for(20, sub { arrived('last') }), 'goes at once');
done_testing;
