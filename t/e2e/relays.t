#!/usr/bin/perl
# Setup: two relays for fresh mail, two for retry and one for fallback; next hops that take mail at once, or keep each attempt waiting until the test says
# more; relays and the queue are killed in the middle.
# Expectation: the right number of each runs and is shown with its lane; both relays of a lane deliver, within the lane's budget; one that dies gives back
# what it had and nothing else, and the other goes on at once; a queue that comes anew hears both before it hands anything out. The books are conserved, and
# nothing arrives twice. The numbers change by a restart only, and a reload says so.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my $slow = NextHop->new(address => '0.0.0.0', port => Sekisho::free_port()); # ten sites
my $s = Sekisho->new(no_start => 1);
sub conf {
	my ($fresh) = @_;
	$s->{extra} = <<"CONF";
${Sekisho::UNLIMITED}lanes: { fresh_relays: $fresh, retry_relays: 2, retry_connections: 6 }
relay: { connections: 20 }
retry: { schedule: [1s] }
routes:
  "*": "127.0.0.1:$s->{ports}{sink}"
CONF
	$s->{extra} .= qq(  d$_.slow.example: "127.0.1.$_:$slow->{port}"\n) for 1 .. 10;
	$s->write_conf;
}
conf(2);
$s->start;
my $me = 'alice@example.test';
$s->account($me);

sub relays { return grep { $_->{role} eq 'relay' } @{ $s->json('status')->{processes} // [] } }
sub in_flight { return $s->json('status')->{queue}{in_flight} // -1 }
sub queued { my $a = $s->json('queue', 'audit'); return $a && $a->{conserved} ? $a->{queued} : -1 }
# Open connections to the port, by the pid of the relay.
sub connections {
	my ($port) = @_;
	my %n;
	my $hex = sprintf '%04X', $port;
	open my $f, '<', '/proc/net/tcp' or die $!;
	my %inode = map { my @f = split; ($f[2] // '') =~ /:$hex$/ && $f[3] eq '01' ? ($f[9] => 1) : () } <$f>;
	for my $pid ($s->pids('sekisho-relay')) {
		$n{$pid} = grep { /^socket:\[(\d+)\]/ && $inode{$1} } map { readlink($_) // '' } glob "/proc/$pid/fd/*";
	}
	return \%n;
}

is(join(' ', map { "$_->{index}:$_->{lane}" } sort { $a->{index} <=> $b->{index} } relays()), '0:fresh 1:fresh 2:retry 3:retry 4:fallback', 'each relay, and its lane');
like($s->ctl('status'), qr/^relay +3 +retry +\d+ +up /m, 'for people too');
is(scalar($s->pids('sekisho-relay')), 5, 'as many run');

# --- both deliver ---

$slow->offers({ DATA => 'silent' });
my %id = map { $_ => $s->submit($me, "number $_-", "a\@d$_.slow.example") } 1 .. 5;
ok(Sekisho::wait_for(20, sub { my $n = connections($slow->{port}); 5 == grep({ /^DATA/ } $slow->heard) && 2 == grep { $_ } values %$n }), 'both relays of fresh have some of it')
	or diag explain connections($slow->{port});
my %pid = map { $_->{index} => $_->{pid} } relays();
my $n = connections($slow->{port});
my ($first, $second) = @pid{ 0, 1 };
ok(abs($n->{$first} - $n->{$second}) <= 1 && $n->{$first} + $n->{$second} == 5, 'about as much each') or diag explain $n;

# --- one dies ---

my $heard = grep { /^MAIL/ } $slow->heard;
kill 'KILL', $first;
ok(Sekisho::wait_for(20, sub { $heard + $n->{$first} == grep { /^MAIL/ } $slow->heard }), 'what it had is attempted again') or diag join "\n", $slow->heard;
is(connections($slow->{port})->{$second} >= $n->{$second}, 1, 'the other has not been disturbed');
like($s->log, qr/ relay-gone lane=fresh relay=0 in_flight=$n->{$first}$/m, 'which is told');
ok(Sekisho::wait_for(20, sub { 5 == grep { $_->{state} eq 'up' } relays() }), 'another one comes');
is(scalar(grep { /^MAIL/ } $slow->heard), $heard + $n->{$first}, 'and nothing is attempted twice') or diag join "\n", $slow->heard;
my $good = $s->submit($me, 'good', 'a@good.example');
ok(Sekisho::wait_for(20, sub { $s->show($good)->{finished} }), 'other mail goes');

# --- the queue comes anew, and what both have is cut off and attempted again ---

$slow->offers;
kill 'KILL', $s->pids('sekisho-queue');
ok(Sekisho::wait_for(30, sub { queued() == 0 }), 'all of it is delivered') or diag $s->ctl('queue', 'list');
is(scalar($slow->taken), 5, 'each once') or diag join "\n", map { /(number.*)/ } $slow->taken;

# --- the lane's budget is of both ---

$slow->offers({ RCPT => '451 4.7.1 later' });
for my $n (1 .. 10) { $s->submit($me, "later $n-", "a\@d$n.slow.example") for 1 .. 2 }
ok(Sekisho::wait_for(30, sub { 20 == ($s->json('status')->{queue}{lanes}{retry}{messages} // 0) }), 'twenty wait in retry');
$slow->offers({ DATA => 'silent' });
my $most = 0;
ok(Sekisho::wait_for(30, sub { my ($n, $now) = (connections($slow->{port}), in_flight()); $most = $now if $most < $now; $now >= 6 && $n->{ $pid{2} } && $n->{ $pid{3} } }),
	'both relays of retry have some of it') or diag explain connections($slow->{port});
ok(Sekisho::wait_for(20, sub { 20 == grep { ($_->{state} // '') ne 'deferred' } @{ $s->json('queue', 'list', '--lane', 'retry')->{messages} } }), 'all are due');
cmp_ok($_, '<=', 6, 'together no more than the lane may have') for $most, in_flight();
kill 'KILL', $pid{2}, $s->pids('sekisho-queue');
$slow->offers;
ok(Sekisho::wait_for(60, sub { queued() == 0 }), 'all of it is delivered') or diag $s->ctl('queue', 'list');
is(scalar($slow->taken), 25, 'each once');

# --- reload ---

conf(3);
like($s->ctl('reload'), qr/lanes\.fresh_relays: is 2 until a restart/, 'another number takes a restart');
is($s->stop, 0, 'stops cleanly');
$s->start;
is(join(' ', map { $_->{lane} } sort { $a->{index} <=> $b->{index} } relays()), 'fresh fresh fresh retry retry fallback', 'which brings them');
is($s->stop, 0, 'and stops again');
done_testing;
