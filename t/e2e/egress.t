#!/usr/bin/perl
# Setup: a service with two egress pools, 127.0.0.2 for everybody and 127.0.0.3 for accounts of class probation, and a next hop that notes from where mail
# comes, and takes it, or not, as the test says.
# Expectation: no mail of an account on probation ever leaves from the clean address: not from a kept connection, not what was accepted before the class
# changed, in no lane, not after restarts of everything or kills of the queue and auth, not what an account left that was removed since, and not the
# notifications about its mail. A pool without an address of the host's family sends nothing from elsewhere. Addresses that are not ours refuse to start.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use IO::Socket::IP;
use Test::More;

my ($clean, $tainted) = ('127.0.0.2', '127.0.0.3');
my ($hop_port, $no_port) = (Sekisho::free_port(), Sekisho::free_port());
my $hop = NextHop->new(port => $hop_port);
my $no = NextHop->new(port => $no_port)->offers({ RCPT => '550 5.1.1 unknown' });
my $six = IO::Socket::IP->new(Listen => 5, LocalHost => '::1', LocalPort => 0);
my $s = Sekisho->new(no_sink => 1, no_start => 1);
sub configure {
	my ($sources, $more) = @_;
	$s->{extra} = <<"CONF" . ($more // '');
quota: { $Sekisho::UNPACED, pool: clean }
classes: { probation: { pool: probation } }
egress:
  - { name: clean, sources: ["$sources"] }
  - { name: probation, sources: ["$tainted"] }
routes: { no.example: "127.0.0.1:$no_port", six.example: "[::1]:${\ ($six ? $six->sockport : 9)}", "*": "127.0.0.1:$hop_port" }
retry: { schedule: [1s], fallback_after: 5s }
relay: { idle: 60s }
CONF
	$s->write_conf;
}

configure('192.0.2.1');
my $told = qx("$Sekisho::BUILD/sekishod" -t -c "$s->{dir}/sekisho.yaml" 2>&1);
isnt($?, 0, 'an address of another machine is a mistake');
like($told, qr/^\S+:\d+:\d+: egress: pool clean: 192\.0\.2\.1 cannot be sent from: .*name addresses of this machine/m, 'which is told') or diag $told;

configure($clean);
$s->start;
my %who = map { $_ => "$_\@example.test" } qw(good bad later gone told);
$s->account(values %who);
sub class { my ($name, $class) = @_; $s->ctl('account', 'class', $who{$name}, $class); is($?, 0, "$name: $class") }
sub send_as {
	my ($name, $to, $body) = @_;
	my $c = $s->login($who{$name}) or BAIL_OUT $s->log;
	my $said = $c->send_mail($who{$name}, $to, $body);
	my ($id) = $said =~ /Queued as (\w+)/ or BAIL_OUT $said . $s->log;
	return $id;
}
sub leaves_from {
	my ($what, @from) = @_;
	my @seen;
	ok(Sekisho::wait_for(30, sub { @seen = $hop->sources(qr/^\Q$what\E\r?$/m) }), "$what: arrives") or diag $s->ctl('queue', 'list'), $s->log;
	is("@seen", "@from", "from @from");
}

class('bad', 'probation');
send_as('good', 'a@one.example', 'of good');
leaves_from('of good', $clean);
send_as('bad', 'a@one.example', 'of bad');
leaves_from('of bad', $tainted);
send_as('good', 'a@one.example', 'of good again');
leaves_from('of good again', $clean);
is(scalar $hop->heard(qr/^EHLO/), 2, 'each on a connection of its own, kept');
like($s->log, qr/ attempt .*ip=127\.0\.0\.1 source=\Q$tainted\E /, 'the log says from where');

# While it waits, in each lane.
$hop->offers({ RCPT => '451 4.7.1 later' });
my %id = map { ("later in $_" => send_as('later', 'a@one.example', "later in $_")) } qw(retry fallback);
my $left = send_as('gone', 'a@one.example', 'of who is gone');
my $kept = send_as('good', 'a@one.example', 'of good, in fallback');
ok(Sekisho::wait_for(20, sub { ($s->show($id{'later in retry'})->{lane} // '') eq 'retry' }), 'in the retry lane') or diag $s->log;
class($_, 'probation') for qw(later gone);
$s->ctl('account', 'remove', $who{gone});
is($?, 0, 'gone is removed');
is($s->stop, 0, 'all of it stops');
$s->start;
kill 'KILL', $s->pids('sekisho-queue'), $s->pids('sekisho-auth');
ok(Sekisho::wait_for(30, sub { ($s->show($id{'later in fallback'})->{lane} // '') eq 'fallback' }), 'in the fallback lane') or diag $s->log;
$hop->offers;
leaves_from($_, $tainted) for sort keys %id;
leaves_from('of who is gone', $tainted);
leaves_from('of good, in fallback', $clean);

# Notifications, the other way round too.
class('told', 'probation');
send_as('told', 'a@no.example', 'bounces');
ok(Sekisho::wait_for(30, sub { $hop->sources(qr/told\@example\.test.*multipart\/report/s) }), 'the sender is told') or diag $s->log;
is(join(' ', $hop->sources(qr/told\@example\.test.*multipart\/report/s)), $tainted, "from $tainted");
class('told', 'standard');
send_as('told', 'a@one.example', 'told is clean');
leaves_from('told is clean', $clean);

SKIP: {
	skip 'this machine has no ::1', 1 unless $six;
	my $id = send_as('good', 'a@six.example', 'by IPv6 only');
	my $m;
	ok(Sekisho::wait_for(30, sub { $m = $s->show($id); $m->{attempts} && $m->{last_reply} =~ /\[::1\]: the egress pool clean has no address of this kind/ }), 'it waits, with the reason')
		or diag explain $m;
	ok(!IO::Select->new($six)->can_read(0), 'and nobody called');
}

ok($s->json('queue', 'audit')->{conserved}, 'nothing is lost');
is($s->stop, 0, 'stops cleanly');
done_testing;
