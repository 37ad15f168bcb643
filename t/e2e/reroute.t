#!/usr/bin/perl
# Setup: a site that nobody listens at, so that mail to it waits; another service of ours as relay host; a next hop that says "later"; the shared test clock.
# Expectation: queue reroute to a host sends what is selected there, and no other recipient of the same message, at its next attempt; it survives a restart
# and moves between lanes, is shown, logged and traced, and is taken back with "default". A directive with --for does so for what comes, too, and nothing
# after its end. What is pending for the old host is taken along. A host that the configuration has a route to is spoken to as that route says. A bad host
# is refused and nothing changes; a host that does not exist delays mail and does not bounce it. The books are conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my ($minute, $hour) = (60_000, 3_600_000);
my $dead_port = Sekisho::free_port();
my $later_port = Sekisho::free_port();
my $me = 'alice@example.test';
my $other = Sekisho->new;
$other->account($me);
my $hop = NextHop->new(port => $later_port)->offers({ RCPT => '451 4.7.1 later' });
my $s = Sekisho->new(clock => 1, no_start => 1);
Peers::write_file("$s->{dir}/password", "$Sekisho::PASSWORD\n");
chmod 0600, "$s->{dir}/password";
my $login = "host: localhost, port: $other->{ports}{submission}, tls: verify, user: \"$me\", password_file: $s->{dir}/password";
$s->{extra} = qq(${Sekisho::UNLIMITED}retry: { schedule: [3h] }\nrelay: { ca_file: $other->{dir}/cert.pem }\nroutes:\n)
	. qq(  "dead.example": "127.0.0.1:$dead_port"\n  "later.example": "127.0.0.1:$later_port"\n  "nobody.example": { $login }\n  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start;
$s->account($me);
my $relay = "127.0.0.1:$s->{ports}{sink}";

sub arrived { my ($what) = @_; return scalar(grep { /^\Q$what\E\r?$/m } $s->delivered) }
sub hops { my ($id) = @_; return join ' ', map { $_->{next_hop} // '-' } @{ $s->show($id)->{rcpt} // [] } }
sub waits { my ($id, $what) = @_; ok(Sekisho::wait_for(20, sub { ($s->show($id)->{state} // '') eq 'deferred' }), $what // 'it waits') or diag explain $s->show($id) }
sub says { my ($what, $status, $pattern, @words) = @_; my $said = $s->ctl(@words); is($? >> 8, $status, "$what: status") or diag $said; like($said, $pattern, $what) }
sub flush { my ($id) = @_; says('flush', 0, qr/^due now: /, 'queue', 'flush', $id) }

sub restart_queue {
	my ($old) = $s->pids('sekisho-queue');
	$s->advance(11_000);
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && $s->json('queue', 'audit') }), 'queue is back');
}

# --- wrong words ---

my $m = $s->submit($me, 'first', 'carol@dead.example');
waits($m);
my @bad = ('relay', 'falback', 'mx', '127.0.0.1:', '127.0.0.1:0', '127.0.0.1:65536', '300.1.1.1:25', '[::1', '[::g]:25', 'relay..example', 'relay.example:25:25', 'user@relay.example', '[]', ':25', 'relay.example 25');
says("no host: $_", 1, qr/takes a lane \(fresh, retry, fallback\), a host such as .* or default/, 'queue', 'reroute', $m, '--to', $_) for @bad;
says('nowhere', 64, qr/say where/, 'queue', 'reroute', $m);
says('nothing', 64, qr/say which/, 'queue', 'reroute', '--to', $relay);
says('default changes nothing where nothing is', 0, qr/^rerouted: 0 recipients of 0 messages$/m, 'queue', 'reroute', $m, '--to', 'default');
is(hops($m), '-', 'and nothing changed');
unlike($s->log, qr/ rerouted next_hop/, 'nor was logged');

# --- there and back ---

says('dry run', 0, qr/^would be rerouted: 1 recipients of 1 messages$/m, 'queue', 'reroute', '--site', 'dead.example', '--to', $relay, '--dry-run');
is(hops($m), '-', 'changes nothing');
says('reroute', 0, qr/^rerouted: 1 recipients of 1 messages$/m, 'queue', 'reroute', $m, '--to', "[127.0.0.1]:$s->{ports}{sink}", '--reason', 'their MX is down');
is(hops($m), $relay, 'shown');
says('for people', 0, qr/^carol\@dead\.example +queued +1 +\S+ +\Q$relay\E /m, 'queue', 'show', $m);
is($s->show($m)->{state}, 'deferred', 'due as before');
says('again', 0, qr/^rerouted: 0 /m, 'queue', 'reroute', $m, '--to', $relay);
like($s->log, qr/ $m rerouted next_hop=\Q$relay\E recipients=1$/m, 'logged');
like($s->log, qr/ reroute what="message $m" to=\Q$relay\E messages=1 .*by="[^"]+" reason="their MX is down"/, 'and by whom and why');
ok(Sekisho::wait_for(20, sub { $s->ctl('trace', $m) =~ /rerouted .*\Q$relay\E .*rerouted by .*: their MX is down/ }), 'traced') or diag $s->ctl('trace', $m);
says('default', 0, qr/^rerouted: 1 /m, 'queue', 'reroute', $m, '--to', 'default');
is(hops($m), '-', 'taken back');
says('there again', 0, qr/^rerouted: 1 /m, 'queue', 'reroute', $m, '--to', $relay);
says('another lane', 0, qr/^moved: 1 /m, 'queue', 'reroute', $m, '--to', 'fallback');
restart_queue();
is(hops($m), $relay, 'after a move and a restart');
says('check', 0, qr/nothing is wrong/, 'queue', 'check');
flush($m);
ok(Sekisho::wait_for(20, sub { arrived('first') }), 'it goes there') or diag $s->ctl('trace', $m), $s->log;
ok(Sekisho::wait_for(20, sub { $s->ctl('trace', $m) =~ /delivered .*127\.0\.0\.1/ }), 'and the trace tells where it went');

# --- only what is selected ---

$m = $s->submit($me, 'two of three', 'a@dead.example', 'b@later.example', 'c@dead.example');
waits($m);
says('one domain', 0, qr/^rerouted: 2 recipients of 1 messages$/m, 'queue', 'reroute', '--recipient', 'dead.example', '--to', $relay);
is(hops($m), "$relay - $relay", 'the others stay');
is_deeply([sort grep { !/^\(/ } map { $_->{site} } @{ $s->json("age")->{rows} }], [sort $relay, "127.0.0.1:$later_port"], 'counted where they go');
is_deeply([$s->listed('--site', $relay)], [$m], 'and found by that');
my $heard = $hop->heard(qr/^RCPT TO:<b\@later/);
flush($m);
ok(Sekisho::wait_for(20, sub { join(' ', map { $_->{state} } @{ $s->show($m)->{rcpt} }) eq 'delivered queued delivered' }), 'each goes where it is to go') or diag explain $s->show($m);
ok(Sekisho::wait_for(20, sub { $hop->heard(qr/^RCPT TO:<b\@later/) > $heard }), 'the other one to its own host');
waits($m);
says('remove', 0, qr/^removed: 1 /m, 'queue', 'remove', $m, '--yes');

# --- what comes, for a time ---

my $before = $s->submit($me, 'was there', 'carol@dead.example');
waits($before);
says('directive', 0, qr/^rerouted: 1 recipients of 1 messages$/m, 'queue', 'reroute', '--recipient', 'dead.example', '--to', $relay, '--for', '2h');
is(hops($before), '-', 'the message is not changed');
says('listed', 0, qr/^recipient dead\.example +\S+ +\d\S+ +reroute +\Q$relay\E /m, 'queue', 'holds');
like($s->ctl('queue', 'show', $before), qr/^recipient dead\.example .*\Q$relay\E/m, 'and shown with the message');
ok(Sekisho::wait_for(20, sub { $s->ctl('trace', $before) =~ /rerouted .*\Q$relay\E +by / }), 'and traced') or diag $s->ctl('trace', $before);
like($s->log, qr/ directive rule="reroute recipient dead\.example to \Q$relay\E" until=/, 'and logged');
restart_queue();
$s->submit($me, 'comes', 'carol@dead.example');
ok(Sekisho::wait_for(20, sub { arrived('comes') }), 'what comes goes there, also after a restart') or diag $s->log;
flush($before);
ok(Sekisho::wait_for(20, sub { arrived('was there') }), 'and what was there');
$s->advance(2 * $hour + $minute);
ok(Sekisho::wait_for(90, sub { !@{ $s->json('queue', 'holds')->{holds} } }), 'its time is over');
my $after = $s->submit($me, 'after', 'carol@dead.example');
waits($after, 'and what comes then goes to its own host');
says('directive', 0, qr/^rerouted: 1 /m, 'queue', 'reroute', '--recipient', 'dead.example', '--to', $relay, '--for', '2h');
says('its end', 0, qr/^released/, 'queue', 'release', '--recipient', 'dead.example');
flush($after);
ok(Sekisho::wait_for(20, sub { ($s->show($after)->{attempts} // 0) == 2 }), 'attempted at its own host');
is(arrived('after'), 0, 'a release takes it back');

# --- a host that a route speaks of ---

waits($after);
says('to a host that wants a login', 0, qr/^rerouted: 1 /m, 'queue', 'reroute', $after, '--to', "LOCALHOST:$other->{ports}{submission}");
flush($after);
ok(Sekisho::wait_for(20, sub { grep { /^after\r?$/m } $other->delivered }), 'it logs in, as the route says') or diag $s->ctl('trace', $after), $s->log;

# --- hosts that are no good ---

$m = $s->submit($me, 'stray', 'carol@dead.example');
waits($m);
says('no such host', 0, qr/^rerouted: 1 /m, 'queue', 'reroute', $m, '--to', 'no-such-host.invalid:25');
flush($m);
ok(Sekisho::wait_for(30, sub { ($s->show($m)->{rcpt}[0]{reply} // '') =~ /cannot be resolved|no-such-host/ }), 'the reply says so') or diag explain $s->show($m);
is($s->show($m)->{rcpt}[0]{state}, 'queued', 'and it is not bounced');
waits($m);
says('back', 0, qr/^rerouted: 1 /m, 'queue', 'reroute', $m, '--to', 'default');
says('remove', 0, qr/^removed: 1 /m, 'queue', 'remove', $m, '--yes');

# --- while messages move ---

says('one at a time', 0, qr/later\.example/, 'site', 'limit', 'later.example', '--connections', '1', '--for', '1h');
$hop->offers({ DATA => 'silent' });
my @many = map { $s->submit($me, "many-$_", "u$_\@later.example") } 1 .. 20;
ok(Sekisho::wait_for(20, sub { $hop->heard(qr/^DATA/) }), 'one is at the relay, the others stand in line');
like($s->ctl('queue', 'reroute', '--recipient', 'later.example', '--to', $relay), qr/^rerouted: 19 recipients of 19 messages\nleft alone, because they are being attempted: 1$/m, 'those are taken along');
ok(Sekisho::wait_for(30, sub { 19 == grep { arrived("many-$_") } 1 .. 20 }), 'and go at once') or diag $s->ctl('queue', 'list');
$s->json('queue', 'remove', '--all', '--yes');
my $audit = $s->json('queue', 'audit');
ok($audit->{conserved}, 'conserved') or diag explain $audit;
says('check', 0, qr/nothing is wrong/, 'queue', 'check');
is($_->stop, 0, 'stops cleanly') for $s, $other;
done_testing;
