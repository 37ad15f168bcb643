#!/usr/bin/perl
# Setup: a service without routes, a real nsd that it asks, and MX hosts on addresses of the loopback network, all on relay.port: a Postfix and an
# OpenSMTPD (as root; their masters drop privileges), sinks that take mail, answer 421 or refuse in their greeting, and an address where nobody
# listens, and one that is silent: its backlog is full, so that connecting neither works nor fails.
# Expectation: mail goes to the most preferred host that takes it, in the attempt that found the others unable; whether a domain bounces or waits is
# what RFC 5321 and RFC 7505 say, with a status and words that a sender understands; what a real server received is what was sent, octet for octet.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use NextHop;
use IO::Select;
use IO::Socket::INET;
use Test::More;

my $me = 'alice@example.test';
my $port = Sekisho::free_port();
my $dns_port = Sekisho::free_port();
my $zone = <<'ZONE';
h2.hosts. A 127.0.0.2
h3.hosts. A 127.0.0.3
h4.hosts. A 127.0.0.4
h5.hosts. A 127.0.0.5
h6.hosts. A 127.0.0.6
h7.hosts. A 127.0.0.7
h8.hosts. A 127.0.0.8
h9.hosts. A 127.0.0.9
h10.hosts. A 127.0.0.10
h11.hosts. A 127.0.0.11
h12.hosts. A 127.0.0.12
h13.hosts. A 127.0.0.13
h14.hosts. A 127.0.0.14
equal.example. MX 10 h13.hosts.
equal.example. MX 10 h14.hosts.
later.example. MX 10 h9.hosts.
later.example. MX 20 h4.hosts.
gone.example. MX 10 h10.hosts.
gone.example. MX 20 h4.hosts.
unsure.example. MX 10 h11.hosts.
unsure.example. MX 20 h4.hosts.
partly.example. MX 10 h2.hosts.
partly.example. MX 20 h4.hosts.
twins.hosts. A 127.0.0.8
twins.hosts. A 127.0.0.5
postfix.example. MX 10 h2.hosts.
opensmtpd.example. MX 10 h3.hosts.
both.example. MX 20 h5.hosts.
both.example. MX 10 h4.hosts.
down.example. MX 10 h8.hosts.
down.example. MX 20 h4.hosts.
busy.example. MX 10 h6.hosts.
busy.example. MX 20 h4.hosts.
unwilling.example. MX 10 h7.hosts.
unwilling.example. MX 20 h4.hosts.
sessions.example. MX 10 h6.hosts.
sessions.example. MX 20 h7.hosts.
sessions.example. MX 30 h4.hosts.
twins.example. MX 10 twins.hosts.
silent.example. MX 10 half.hosts.
half.hosts. A 127.0.0.12
half.hosts. A 127.0.0.5
asleep.example. MX 10 h12.hosts.
asleep.example. MX 20 h4.hosts.
implicit.example. A 127.0.0.5
fresh.example. A 127.0.0.5
alias.example. CNAME both.example.
null.example. MX 0 .
empty.example. TXT "no mail here"
ours.example. MX 10 mail.example.test.
nobody.example. MX 10 h8.hosts.
x.deep.example. MX 10 h5.hosts.
ZONE

my $nsd = Peers->nsd($dns_port, $zone);
my %sink = (h4 => Peers->sink('127.0.0.4', $port), h5 => Peers->sink('127.0.0.5', $port),
	h6 => Peers->sink('127.0.0.6', $port, '-Q', 'connect'), h7 => Peers->sink('127.0.0.7', $port, '-f', 'connect'),
	h9 => Peers->sink('127.0.0.9', $port, '-r', 'rcpt'), h10 => Peers->sink('127.0.0.10', $port, '-q', 'data'),
	h11 => Peers->sink('127.0.0.11', $port, '-q', '.'));
my @silent = (IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.12', LocalPort => $port) or die $!);
do { push @silent, IO::Socket::INET->new(PeerAddr => '127.0.0.12', PeerPort => $port, Blocking => 0) }
	while IO::Select->new($silent[-1])->can_write(0.2);
my $s = Sekisho->new(no_sink => 1, no_start => 1);
$s->{extra} = <<"CONF";
routes:
  "*.deep.example": mx
  routed.example: "127.0.0.4:$port"
dns: { servers: ["127.0.0.1:$dns_port"], timeout: 5s }
relay: { port: $port }
retry: { schedule: [1s] }
CONF
$s->write_conf;
$s->start;
$s->account($me);
my $c = $s->login($me);
ok($c, 'login') or BAIL_OUT $s->log;

my $number = 0;
sub send_one {
	my @to = @_;
	my $said = $c->send_mail($me, \@to, 'number-' . ++$number . '-');
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/;
	ok($id, "accepted for @to") or diag $said;
	return $id;
}

sub at { my ($host) = @_; return scalar grep { /number-$number-/ } $sink{$host}->delivered }
sub recipient { my ($id, $n) = @_; return ($s->show($id)->{rcpt} // [])->[$n // 0] // {} }

sub goes_to {
	my ($domain, $host, $what) = @_;
	my $id = send_one("carol\@$domain");
	ok(Sekisho::wait_for(20, sub { at($host) && $s->show($id)->{finished} }), "$what: at $host") or diag $s->ctl('queue', 'show', $id), $s->log;
	is($s->show($id)->{attempts}, 1, 'at the first attempt');
	is(scalar(grep { at($_) } keys %sink), 1, 'and nowhere else');
}

sub bounces {
	my ($domain, $why, $what) = @_;
	my $id = send_one("carol\@$domain");
	ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), "$what: finished") or diag $s->ctl('queue', 'show', $id), $s->log;
	is(recipient($id)->{state}, 'bounced', 'bounced');
	like(recipient($id)->{reply}, $why, 'it says why') or diag explain $s->show($id);
	is($s->show($id)->{attempts}, 1, 'after one attempt');
}

sub waits {
	my ($domain, $why, $what) = @_;
	my $id = send_one("carol\@$domain");
	my $m;
	ok(Sekisho::wait_for(30, sub { $m = $s->show($id); ($m->{attempts} // 0) >= 2 }), "$what: attempted again") or diag $s->ctl('queue', 'show', $id), $s->log;
	is(recipient($id)->{state}, 'queued', 'it waits');
	like($m->{last_reply}, $why, 'it says why') or diag explain $m;
	return $id;
}

goes_to('both.example', 'h4', 'the preferred host');
goes_to('implicit.example', 'h5', 'a domain without MX');
goes_to('alias.example', 'h4', 'an alias');
goes_to('x.deep.example', 'h5', 'a wild card that says mx');
goes_to('routed.example', 'h4', 'a route of its own');
goes_to('down.example', 'h4', 'the next host, nobody at the first');
goes_to('busy.example', 'h4', 'the next host, the first busy');
goes_to('unwilling.example', 'h4', 'the next host, the first unwilling');
goes_to('later.example', 'h4', 'the next host, the first wants the recipient later');
goes_to('gone.example', 'h4', 'the next host, the first hung up at DATA');
goes_to('twins.example', 'h5', 'the second address of a host') for 1 .. 3;

goes_to('silent.example', 'h5', 'the address that answers, not the one that is silent') for 1 .. 3;
goes_to('asleep.example', 'h4', 'the next host, the first silent');

bounces('null.example', qr/^556 5\.1\.10 .*null MX/, 'null MX');
bounces('no-such-domain.example', qr/5\.1\.2 .*does not exist/, 'no such domain');
bounces('empty.example', qr/5\.4\.4 .*neither MX nor address/, 'no host');
bounces('ours.example', qr/5\.4\.6 .*loops back/, 'ourselves');

waits('name.broken', qr/4\.4\.3 .*name servers/, 'SERVFAIL');
waits('nobody.example', qr/4\.4\.1 .*h8\.hosts.*127\.0\.0\.8.*refused/i, 'nobody listens');
waits('sessions.example', qr/5\d\d|421/, 'two sessions were refused');
is(at('h4'), 0, 'a third host is not asked in the same attempt');
waits('unsure.example', qr/4\.4\.2 h11\.hosts .*final dot/, 'a host that may have the message');
is(at('h4'), 0, 'keeps the next one from getting it too');

# The name server goes and comes.
$nsd->stop;
my $id = waits('down.example', qr/4\.4\.3 .*name servers/, 'no name server (the answers have a TTL of 1 s)');
$nsd = Peers->nsd($dns_port, $zone);
ok(Sekisho::wait_for(60, sub { $s->show($id)->{finished} }), 'it is back: delivered') or diag $s->ctl('queue', 'show', $id), $s->log;

# A new configuration while a question is under way: the attempt ends as it began.
sub generation { return ($s->json('status') // {})->{configuration}{generation} // 0 }
my %before = map { $_ => 1 } $s->pids('sekisho-relay');
my $generation = generation();
kill 'STOP', $nsd->family;
$id = send_one('carol@fresh.example');
kill 'HUP', $s->{daemon};
ok(Sekisho::wait_for(20, sub { generation() > $generation }), 'a reload meanwhile') or diag $s->log;
kill 'CONT', $nsd->family;
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} && at('h5') }), 'delivered') or diag $s->ctl('queue', 'show', $id), $s->log;
goes_to('both.example', 'h4', 'the next one, by the new configuration');
is(scalar(grep { $before{$_} } $s->pids('sekisho-relay')), scalar(keys %before), 'by the same processes') or diag $s->log;

# Real servers.
sub octets {
	my $date = 'Wed, 25 Nov 2026 10:00:00 +0900';
	my $text = "X-Start: here\r\nFrom: <$me>\r\nTo: <carol\@$_[0]>\r\nDate: $date\r\nMessage-ID: <octets\@example.test>\r\n"
		. "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nSubject: octets\r\n\r\n";
	return $text . ".\r\n..\r\n.leading dot\r\n \r\ntrailing space \r\n\r\n\tT\xc3\xb6ne \xe9\x96\xa2\xe6\x89\x80\r\nFrom the start of a line\r\n"
		. ('long' x 240) . "\r\n" . join('', map { "line $_ of many\r\n" } 1 .. 20_000) . "\r\n.end\r\n";
}

sub arrives {
	my ($domain, $peer) = @_;
	my $text = octets($domain);
	like($c->cmd("MAIL FROM:<$me> BODY=8BITMIME"), qr/^250/, 'MAIL');
	like($c->cmd("RCPT TO:<carol\@$domain>"), qr/^250/, 'RCPT');
	like($c->cmd('DATA'), qr/^354/, 'DATA');
	(my $stuffed = $text) =~ s/^\./../mg;
	$c->raw("$stuffed.\r\n");
	like($c->reply, qr/^250/, 'accepted');
	my @got;
	ok(Sekisho::wait_for(30, sub { @got = grep { /octets\@example/ } $peer->delivered }), "$domain: arrived") or diag $s->log, $peer->log;
	(my $expected = $text) =~ s/\r\n/\n/g;
	my ($tail) = ($got[0] // '') =~ /^(X-Start: here\n.*)\z/ms;
	ok(($tail // '') eq $expected, 'octet for octet') or diag length($tail // ''), ' octets instead of ', length $expected;
	like($got[0] // '', qr/^Received: from mail\.example\.test/m, 'and it says from where');
}

SKIP: {
	skip 'Postfix and OpenSMTPD need root', 1 if $> != 0;
	my $pem = "$s->{dir}/both.pem";
	Peers::write_file($pem, join '', map { Peers::read_file("$s->{dir}/$_.pem") } 'key', 'cert');
	my $postfix = Peers->postfix('127.0.0.2', $port, 'postfix.example partly.example',
		"smtpd_recipient_restrictions = check_recipient_access inline:{{refused\@postfix.example=550 5.7.1 not here},{later\@postfix.example=450 4.2.1 later},{later\@partly.example=450 4.2.1 later}}\n", $pem);
	my $opensmtpd = Peers->opensmtpd('127.0.0.3', $port, 'opensmtpd.example');
	arrives('postfix.example', $postfix);
	like($postfix->log . join('', $postfix->delivered), qr/using TLS|with ESMTPS/, 'by TLS, as it was offered');
	arrives('opensmtpd.example', $opensmtpd);
	$id = send_one('one@postfix.example', 'refused@postfix.example', 'later@postfix.example', 'two@postfix.example');
	my $m;
	ok(Sekisho::wait_for(30, sub { $m = $s->show($id); ($m->{unfinished} // -1) == 1 }), 'four recipients of one message') or diag explain $m;
	is_deeply([map { $_->{state} } @{ $m->{rcpt} }], [qw(delivered bounced queued delivered)], 'each has an outcome of its own');
	like($m->{rcpt}[1]{reply}, qr/^550 5\.7\.1 .*not here/, 'with its reply');
	ok(Sekisho::wait_for(20, sub { 2 == grep { /number-$number-/ } $postfix->delivered }), 'two arrived') or diag $postfix->log;
	$id = send_one('one@partly.example', 'later@partly.example');
	ok(Sekisho::wait_for(30, sub { $s->show($id)->{finished} }), 'whom the first host wants later') or diag $s->ctl('queue', 'show', $id), $s->log;
	is($s->show($id)->{attempts}, 1, 'the next one takes in the same attempt');
	like((grep { /number-$number-/ } $sink{h4}->delivered)[0] // '', qr/^X-Rcpt-Args: <later\@partly\.example>/m, 'that recipient');
	unlike((grep { /number-$number-/ } $sink{h4}->delivered)[0] // '', qr/^X-Rcpt-Args: <one\@/m, 'and nobody else');
}

# Two hosts are as good as each other: whom the one with the kept connection wants later, the other one takes.
my %equal = map { $_ => NextHop->new(address => $_, port => $port) } '127.0.0.13', '127.0.0.14';
my $elsewhere = 0;
for (1 .. 8) {
	$id = send_one('carol@equal.example');
	ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'one of two equal hosts takes it') or diag $s->log;
	my ($taker) = grep { grep { /number-$number-/ } $equal{$_}->taken } keys %equal;
	$equal{$taker}->offers({ RCPT => '450 4.2.1 later' });
	$id = send_one('carol@equal.example');
	ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'the next one is taken too') or diag $s->log;
	$elsewhere++ if ($s->show($id)->{attempts} // 0) == 1;
	$equal{$taker}->offers;
}
is($elsewhere, 8, 'by the other host, in the same attempt');
my $audit = $s->json('queue', 'audit');
ok($audit->{conserved}, 'nothing is lost') or diag explain $audit;
is($s->stop, 0, 'stops cleanly');
done_testing;
