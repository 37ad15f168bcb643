#!/usr/bin/perl
# Setup: a service that asks a real nsd, with MX hosts that have the right certificate, the wrong one, or no TLS; entries of sites for some of the domains
# and hosts; three egress pools, one of them of a class, one of a site.
# Expectation: what an entry says of TLS holds from the first mail on, by domain and by host, and the first that fits counts; a connection carries as many
# messages as it says; mail leaves from the site's pool, but that of a class with a pool of its own never does. A pool that is none is a mistake.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use NextHop;
use Test::More;

my ($port, $dns_port) = map { Sekisho::free_port() } 1 .. 2;
my $nsd = Peers->nsd($dns_port, join '', map { my ($host, $address, @domains) = @$_; "$host A $address\n", map { "$_ MX 10 $host\n" } @domains }
	['good.hosts.', '127.0.0.2', 'verified.example.', 'clear.none.example.', 'first.none.example.'],
	['two.hosts.', '127.0.0.5', 'two.example.'],
	['own.hosts.', '127.0.0.6', 'own.example.', 'plain.example.'],
	['wrong.hosts.', '127.0.0.3', 'fake.example.', 'any.example.'],
	['bare.hosts.', '127.0.0.4', 'strict.example.', 'loose.example.']);
my $s = Sekisho->new(no_sink => 1, no_start => 1);
system("cd $s->{dir} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=mx -addext 'subjectAltName=DNS:good.hosts' "
	. '-keyout mx.key -out mx.cert 2>/dev/null') == 0 or die 'openssl';
my %mx = (cert => "$s->{dir}/mx.cert", key => "$s->{dir}/mx.key", port => $port);
my $good = NextHop->new(address => '127.0.0.2', %mx);
my $wrong = NextHop->new(address => '127.0.0.3', %mx);
my ($bare, $two, $other) = map { NextHop->new(address => "127.0.0.$_", port => $port) } 4 .. 6;
my ($clean, $tainted, $own) = map { "127.0.0.$_" } 12 .. 14;
sub conf {
	my ($pool) = @_;
	$s->{extra} = <<"CONF";
quota: { $Sekisho::UNPACED, pool: clean }
classes: { probation: { pool: probation } }
egress:
  - { name: clean, sources: [$clean] }
  - { name: probation, sources: [$tainted] }
  - { name: own, sources: [$own] }
sites:
  - { match: verified.example, tls: verify }
  - { match: fake.example, tls: verify }
  - { match: first.none.example, tls: require }
  - { match: "*.none.example", tls: none }
  - { match: two.example, session_messages: 2 }
  - { match: own.example, pool: $pool }
  - { match: bare.hosts, tls: require }
routes: { example.test: "127.0.0.1:9" }
dns: { servers: ["127.0.0.1:$dns_port"], timeout: 5s }
relay: { port: $port, ca_file: $s->{dir}/mx.cert, idle: 60s }
retry: { schedule: [1h] }
CONF
	$s->write_conf;
}
conf('none');
like(scalar(qx("$Sekisho::BUILD/sekishod" -t -c "$s->{dir}/sekisho.yaml" 2>&1)), qr/sites: own\.example: egress has no pool none/, 'a pool that is none');
conf('own');
$s->start;
my ($me, $bad) = map { "$_\@example.test" } 'alice', 'bad';
$s->account($me, $bad);

# What became of one in its first attempt, and the last words.
sub ends {
	my ($domain, $state, $words) = @_;
	my $id = $s->submit($me, "to $domain", "a\@$domain");
	my $m;
	Sekisho::wait_for(30, sub { $m = $s->show($id); ($m->{attempts} // 0) >= 1 && ($m->{finished} || $m->{lane} ne 'fresh') });
	is(($m->{rcpt}[0] // {})->{state}, $state, "$domain: $state") or diag $s->log;
	like($m->{last_reply} // $m->{rcpt}[0]{reply}, $words, 'for this reason') or diag explain $m;
}
sub heard_of { my ($hop, $what) = @_; return scalar grep { /to \Q$what\E/ } $hop->taken }

# --- TLS ---

ends('strict.example', 'queued', qr/TLS is required, and not offered/);
ends('loose.example', 'queued', qr/TLS is required, and not offered/);
is(scalar($bare->taken), 0, 'by the host name: nothing went, not even at first');
ends('fake.example', 'queued', qr/certificate|TLS/);
ends('any.example', 'delivered', qr/250/);
is(join(' ', map { heard_of($wrong, $_) } 'fake.example', 'any.example'), '0 1', 'the wrong name, where it matters');
ends('verified.example', 'delivered', qr/250/);
is(scalar($good->heard(qr/^STARTTLS/)), 1, 'the right name');
ends('clear.none.example', 'delivered', qr/250/);
is(scalar($good->heard(qr/^STARTTLS/)), 1, 'none: in clear');
ends('first.none.example', 'delivered', qr/250/);
is(scalar($good->heard(qr/^STARTTLS/)), 1, 'the first entry counts: required, on the connection that has it');

# --- messages on one connection ---

ends('two.example', 'delivered', qr/250/) for 1 .. 5;
is(join(' ', map { /^(MAIL|QUIT)/ ? $1 : () } $two->heard), 'MAIL MAIL QUIT MAIL MAIL QUIT MAIL', 'two messages, and it is left');

# --- pools ---

sub leaves_from {
	my ($what, $account, $to, $from) = @_;
	$s->submit($account, $what, $to);
	ok(Sekisho::wait_for(30, sub { $other->sources(qr/^\Q$what\E\r?$/m) }), "$what: arrives") or diag $s->log;
	is(join(' ', $other->sources(qr/^\Q$what\E\r?$/m)), $from, "from $from");
}
leaves_from('to the site with a pool', $me, 'a@own.example', $own);
leaves_from('the same site, which nobody knows yet', $me, 'a@plain.example', $clean);
leaves_from('the same site, which is known', $me, 'a@plain.example', $own);
$s->ctl('account', 'class', $bad, 'probation');
leaves_from('of a class with a pool', $bad, 'a@own.example', $tainted);
my $audit = $s->json('queue', 'audit');
ok($audit->{conserved}, 'conserved');
is($s->stop, 0, 'stops cleanly');
done_testing;
