#!/usr/bin/perl
# Setup: a service whose mail goes to a host that says "later" (an MX host: the domain is its address), with fallback.host: another service of ours, which
# wants a login; a domain with a route of its own to the same host.
# Expectation: mail that has come to the fallback lane is handed to the fallback host instead of the MX host, with its TLS and login; a domain with a
# route of its own keeps it; without fallback.host, after a reload, mail in the fallback lane goes to its MX host again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use NextHop;
use Test::More;

my $me = 'alice@example.test';
my $port = Sekisho::free_port();
my $hop = NextHop->new(port => $port)->offers({ RCPT => '451 4.7.1 later' });
my $other = Sekisho->new;
$other->account($me);
my $s = Sekisho->new(no_sink => 1, no_start => 1);
Peers::write_file("$s->{dir}/password", "$Sekisho::PASSWORD\n");
chmod 0600, "$s->{dir}/password";
sub configure {
	$s->{extra} = <<"CONF" . join '', @_;
quota: { $Sekisho::UNPACED }
routes: { routed.example: "127.0.0.1:$port" }
retry: { schedule: [1s], fallback_after: 3s }
relay: { port: $port, ca_file: $other->{dir}/cert.pem }
CONF
	$s->write_conf;
}
configure(qq(fallback: { host: { host: localhost, port: $other->{ports}{submission}, tls: verify, user: "$me", password_file: $s->{dir}/password } }\n));
$s->start;
$s->account($me);
my $c = $s->login($me) or BAIL_OUT $s->log;
sub send_to {
	my ($to, $body) = @_;
	my $said = $c->send_mail($me, $to, $body);
	my ($id) = $said =~ /Queued as (\w+)/ or BAIL_OUT $said . $s->log;
	return $id;
}

my $routed = send_to('a@routed.example', 'by its route');
my $id = send_to('a@[127.0.0.1]', 'handed over');
ok(Sekisho::wait_for(30, sub { grep { /handed over/ } $other->delivered }), 'the fallback host gets it') or diag $s->ctl('queue', 'show', $id), $s->log;
ok(scalar $hop->heard(qr/^RCPT TO:<a\@\[127/), 'after the MX host was asked');
ok(Sekisho::wait_for(30, sub { $s->show($id)->{finished} }), 'and that is the end of it');
ok(Sekisho::wait_for(30, sub { ($s->show($routed)->{lane} // '') eq 'fallback' }), 'what has a route is in the fallback lane too');
my $asked = $hop->heard(qr/^RCPT TO:<a\@routed/);
ok(Sekisho::wait_for(30, sub { $hop->heard(qr/^RCPT TO:<a\@routed/) > $asked + 1 }), 'and goes by its route');

my $before = send_to('a@[127.0.0.1]', 'back again');
configure();
$s->ctl('reload');
is($?, 0, 'a reload takes fallback.host away');
ok(Sekisho::wait_for(30, sub { ($s->show($before)->{lane} // '') eq 'fallback' }), 'in the fallback lane') or diag $s->log;
$hop->offers;
ok(Sekisho::wait_for(30, sub { grep { /^back again\r?$/m } $hop->taken }), 'mail goes to the MX host') or diag $s->log;
is(scalar(grep { /back again/ } $other->delivered), 0, 'and to nobody else');
ok($s->json('queue', 'audit')->{conserved}, 'nothing is lost');
is($_->stop, 0, 'stops cleanly') for $s, $other;
done_testing;
