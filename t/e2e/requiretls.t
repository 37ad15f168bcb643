#!/usr/bin/perl
# Setup: a service that asks a real nsd, with one zone signed; MX hosts on loopback addresses that offer REQUIRETLS, do not, have no TLS, or the wrong
# certificate; a verified host that takes what goes to senders, and one that logs in.
# Expectation (RFC 8689): a message with REQUIRETLS goes only by TLS, only to a host whose certificate has the name that DNSSEC or the operator gave, and
# that offers REQUIRETLS; else it comes back at once, as long as no host of the domain is merely away. Its notification travels no less safely, and returns
# no body. TLS-Required: No lets a message go in clear where a route wants TLS, but never where a password would go, and never against REQUIRETLS.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use NextHop;
use Test::More;

my $me = 'alice@example.test';
my ($port, $dns_port, $sender_port) = map { Sekisho::free_port() } 1 .. 3;
my $nsd = Peers->nsd($dns_port, "open.example. MX 10 good.signed.\n", <<'ZONE');
good A 127.0.0.2
plain A 127.0.0.3
bare A 127.0.0.4
wrong A 127.0.0.5
away A 127.0.0.6
good-d MX 10 good
plain-d MX 10 plain
bare-d MX 10 bare
wrong-d MX 10 wrong
both-d MX 10 plain
both-d MX 20 good
away-d MX 10 away
away-d MX 20 plain
ZONE
my $s = Sekisho->new(no_sink => 1, no_start => 1);
system("cd $s->{dir} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=mx -addext "
	. "'subjectAltName=DNS:good.signed,DNS:plain.signed,DNS:bare.signed' -keyout mx.key -out mx.cert 2>/dev/null && cat mx.cert cert.pem > ca.pem") == 0 or die 'openssl';
my %mx = (cert => "$s->{dir}/mx.cert", key => "$s->{dir}/mx.key");
my $good = NextHop->new(address => '127.0.0.2', port => $port, %mx)->offers('DSN', { TLS => ['REQUIRETLS'] });
my $plain = NextHop->new(address => '127.0.0.3', port => $port, %mx)->offers('DSN');
my $bare = NextHop->new(address => '127.0.0.4', port => $port)->offers('DSN', 'REQUIRETLS');
my $wrong = NextHop->new(address => '127.0.0.5', port => $port, %mx)->offers({ TLS => ['REQUIRETLS'] });
my $back = NextHop->new(port => $sender_port, cert => "$s->{dir}/cert.pem", key => "$s->{dir}/key.pem")->offers({ TLS => ['REQUIRETLS', 'AUTH PLAIN'] });
Peers::write_file("$s->{dir}/password", "pass word\n");
chmod 0600, "$s->{dir}/password";
$s->{extra} = <<"CONF";
routes:
  example.test: { host: localhost, port: $sender_port }
  verified.example: { host: localhost, port: $sender_port, tls: verify }
  login.example: { host: localhost, port: $sender_port, tls: verify, user: relay, password_file: $s->{dir}/password }
  strict.example: { host: 127.0.0.4, port: $port, tls: verify }
  secret.example: { host: 127.0.0.4, port: $port, tls: require, user: relay, password_file: $s->{dir}/password }
dns: { servers: ["127.0.0.1:$dns_port"], trust_anchor: $nsd->{anchor}, timeout: 5s }
relay: { port: $port, ca_file: $s->{dir}/ca.pem }
retry: { schedule: [1h] }
CONF
$s->write_conf;
$s->start;
$s->account($me);
my $c = $s->login($me) or BAIL_OUT $s->log;
my $number = 0;

sub send_one {
	my ($parameters, $to, $header) = @_;
	my @said = ($c->cmd("MAIL FROM:<$me>$parameters"), $c->cmd("RCPT TO:<$to>"));
	is(join('', grep { !/^250/ } @said), '', "to $to$parameters: taken");
	$c->cmd('DATA');
	$c->raw("From: <$me>\r\nSubject: number-" . ++$number . "-\r\n" . ($header // '') . "\r\nthe-secret-$number-\r\n.\r\n");
	my ($id) = $c->reply =~ /^250 2\.0\.0 Queued as (\w+)/ or BAIL_OUT $s->log;
	return $id;
}


# What became of a message in its first attempt, and the last words.
sub ends {
	my ($id, $state, $words) = @_;
	my $m;
	Sekisho::wait_for(30, sub { $m = $s->show($id); ($m->{attempts} // 0) >= 1 && ($m->{finished} || $m->{lane} ne 'fresh') });
	is(($m->{rcpt}[0] // {})->{state}, $state, $state);
	like($m->{last_reply} // $m->{rcpt}[0]{reply}, $words, 'for this reason') or diag explain $m;
}

sub took { my ($hop) = @_; return Sekisho::wait_for(20, sub { grep { /the-secret-$number-/ } $hop->taken }) }
sub last_mail { my ($hop) = @_; return ($hop->heard(qr/^MAIL/))[-1] // '' }

# An ordinary connection is there, and not good enough.
ends(send_one('', 'a@good-d.signed'), 'delivered', qr/^250/);
is(last_mail($good), "MAIL FROM:<$me>", 'nothing is asked that the sender did not ask');
ends(send_one(' REQUIRETLS', 'a@good-d.signed'), 'delivered', qr/^250/);
ok(took($good), 'arrived');
is(last_mail($good), "MAIL FROM:<$me> REQUIRETLS", 'with the demand');
is(scalar $good->heard(qr/^STARTTLS/), 2, 'over a connection of its own');
ends(send_one(' REQUIRETLS', 'b@good-d.signed'), 'delivered', qr/^250/);
is(scalar $good->heard(qr/^STARTTLS/), 2, 'which is used again');
ends(send_one(' REQUIRETLS', 'a@both-d.signed'), 'delivered', qr/^250/);
ok(took($good), 'a host that cannot is passed over');
ends(send_one(' REQUIRETLS', 'a@verified.example'), 'delivered', qr/^250/);
ok(took($back), 'a host of the operator needs no DNSSEC');
ends(send_one(' REQUIRETLS', 'a@login.example'), 'delivered', qr/^250/);
is(last_mail($back), "MAIL FROM:<$me> REQUIRETLS AUTH=<>", 'who logs in there says that it is not the author');

# What comes back.
sub comes_back {
	my ($to, $words, $parameters) = @_;
	my $before = $back->taken;
	ends(send_one(' REQUIRETLS' . ($parameters // ''), $to), 'bounced', $words);
	my @dsn;
	ok(Sekisho::wait_for(20, sub { @dsn = grep { /number-$number-/ } $back->taken; @dsn }), 'the sender is told');
	is(last_mail($back), 'MAIL FROM:<> REQUIRETLS', 'no less safely');
	unlike($dsn[0] // '', qr/the-secret/, 'and without the body');
}
comes_back('a@open.example', qr/^5\.7\.30 good\.signed .*DNSSEC/, ' RET=FULL');
comes_back('a@plain-d.signed', qr/^5\.7\.30 plain\.signed .*REQUIRETLS/);
comes_back('a@bare-d.signed', qr/^5\.7\.30 bare\.signed .*TLS, and it is not offered/);
comes_back('a@wrong-d.signed', qr/^5\.7\.5 wrong\.signed .*hostname mismatch/i);
ends(send_one(' REQUIRETLS', 'a@away-d.signed'), 'queued', qr/^5\.7\.30 plain\.signed /);
is(scalar(grep { /the-secret/ } $plain->taken, $bare->taken, $wrong->taken), 0, 'nothing of it was said to those that cannot');

# Rather in clear than not at all.
ends(send_one('', 'a@strict.example'), 'queued', qr/^4\.7\.4 /);
ends(send_one('', 'a@strict.example', "TLS-Required: No\r\n"), 'delivered', qr/^250/);
ok(took($bare), 'it went in clear');
ends(send_one('', 'a@secret.example', "TLS-Required: No\r\n"), 'queued', qr/^4\.7\.4 /);
is(scalar $bare->heard(qr/^AUTH/), 0, 'a password did not');
ends(send_one(' REQUIRETLS', 'a@strict.example', "TLS-Required: No\r\n"), 'bounced', qr/^5\.7\.30 /);

is($s->json('queue', 'audit')->{conserved}, JSON::PP::true, 'conserved');
is($s->stop, 0, 'stops cleanly');
done_testing;
