#!/usr/bin/perl
# Setup: a service that takes binary content (BINARYMIME, by BDAT) and a next hop that offers and answers what the test says; another service of ours
# between the two, as a smarthost.
# Expectation (RFC 3030): binary content arrives octet for octet, whatever is in it, by BDAT; it is delivered by the 2xx to the last chunk and by nothing
# else. A next hop that does not offer BINARYMIME and CHUNKING gets none of it: it comes back with words that say what to do. Ordinary mail goes by
# DATA where there is no CHUNKING.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use NextHop;
use Test::More;

my $me = 'alice@example.test';
my $hop_port = Sekisho::free_port();
my $hop = NextHop->new(port => $hop_port);
my $middle = Sekisho->new(no_sink => 1, no_start => 1);
my $s = Sekisho->new(no_start => 1);
$middle->{extra} = qq(routes: { "*": "127.0.0.1:$hop_port" }\n);
$middle->write_conf;
$middle->start;
$middle->account($me);
Peers::write_file("$s->{dir}/password", "$Sekisho::PASSWORD\n");
chmod 0600, "$s->{dir}/password";
$s->{extra} = <<"CONF";
quota: { $Sekisho::UNPACED }
routes:
  example.test: "127.0.0.1:$s->{ports}{sink}"
  far.example: { host: localhost, port: $middle->{ports}{submission}, tls: verify, user: "$me", password_file: $s->{dir}/password }
  "*": "127.0.0.1:$hop_port"
relay: { deliveries: 1, ca_file: $middle->{dir}/cert.pem }
CONF
$s->write_conf;
$s->start;
$s->account($me);
my $c = $s->login($me) or BAIL_OUT $s->log;
my $number = 0;

# All octets, what would end DATA, what a dot would be doubled for, bare line ends, no line end at the end.
my $octets = join('', map { chr } 0 .. 255) . "\r\n.\r\n..\r\n\n.\n\r.\r\nQUIT\r\n" . ("\x00\xff" x 500) . '.';

sub send_one {
	my ($parameters, $to, $body) = @_;
	my $content = "From: <$me>\r\nSubject: number-" . ++$number . "-\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
		. "Content-Transfer-Encoding: binary\r\n\r\n$body";
	my @said = ($c->cmd("MAIL FROM:<$me> BODY=BINARYMIME$parameters"), $c->cmd("RCPT TO:<$to>"));
	is(join('', grep { !/^250/ } @said), '', "to $to: taken");
	my $half = int(length($content) / 2);
	$c->raw("BDAT $half\r\n" . substr($content, 0, $half) . 'BDAT ' . (length($content) - $half) . " LAST\r\n" . substr $content, $half);
	$c->reply;
	my $said = $c->reply;
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/ or BAIL_OUT $said . $s->log;
	return $id;
}


sub ends {
	my ($id, $state, $words) = @_;
	my $m;
	Sekisho::wait_for(60, sub { $m = $s->show($id); ($m->{attempts} // 0) >= 1 && ($m->{finished} || ($m->{lane} // '') ne 'fresh') });
	is(($m->{rcpt}[0] // {})->{state}, $state, $state);
	like($m->{rcpt}[0]{reply} || $m->{last_reply}, $words, 'for this reason') or diag explain $m;
}

# What arrived of the last message, behind its header section.
sub arrived {
	my $found;
	Sekisho::wait_for(60, sub { ($found) = grep { /^Subject: number-$number-/m } $hop->taken; $found });
	return ($found // '') =~ s/^.*?\r\n\r\n//sr;
}

$hop->offers(qw(PIPELINING 8BITMIME CHUNKING BINARYMIME));
my $large = join '', map { chr(($_ * 7919) % 256) } 0 .. 2_999_999;
for (['small', $octets], ['large', $large]) {
	my ($what, $body) = @$_;
	ends(send_one('', 'a@near.example', $body), 'delivered', qr/^250/);
	ok(arrived() eq $body, "$what: arrived octet for octet");
	like(($hop->heard(qr/^MAIL/))[-1], qr/ BODY=BINARYMIME/, 'declared');
	ends(send_one('', 'a@far.example', $body), 'delivered', qr/^250/);
	ok(arrived() eq $body, "$what: through another service too");
}
is(scalar $hop->heard(qr/^DATA/), 0, 'DATA was never said');
$hop->offers(qw(PIPELINING 8BITMIME));
like($c->send_mail($me, 'b@near.example', 'ordinary'), qr/^250/, 'ordinary mail');
ok(Sekisho::wait_for(30, sub { grep { /ordinary/ } $hop->taken }), 'arrives');
is(scalar $hop->heard(qr/^DATA/), 1, 'by DATA');

# Only the 2xx to the last chunk delivers.
$hop->offers(qw(CHUNKING BINARYMIME), { BDAT => '554 5.6.0 not that' });
ends(send_one('', 'a@near.example', $octets), 'bounced', qr/^554/);
$hop->offers(qw(CHUNKING BINARYMIME), { BDAT => '451 4.3.0 later' });
ends(send_one('', 'a@near.example', $octets), 'queued', qr/^451/);
$hop->offers(qw(CHUNKING BINARYMIME), { BDAT => 'close' });
ends(send_one('', 'a@near.example', $octets), 'queued', qr/closed the connection/);

# Who cannot take it gets nothing of it.
for (['CHUNKING'], ['BINARYMIME', '8BITMIME'], []) {
	$hop->offers(@$_);
	my $before = $hop->heard(qr/^MAIL/);
	ends(send_one(' RET=FULL', 'a@near.example', $octets), 'bounced', qr/^5\.6\.3 .*base64/);
	is(scalar $hop->heard(qr/^MAIL/), $before, 'nothing was said of it');
	ok(Sekisho::wait_for(30, sub { grep { /^Subject: number-$number-/m && !/\x00/ } $s->delivered }), 'the sender is told, without the content');
}
is($s->json('queue', 'audit')->{conserved}, JSON::PP::true, 'conserved');
is($_->stop, 0, 'stops cleanly') for $s, $middle;
done_testing;
