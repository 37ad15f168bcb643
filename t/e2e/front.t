#!/usr/bin/perl
# Setup: a service behind a load balancer (127.0.0.2), with a limit of three sessions for one client; another one that greets late.
# Expectation: a PROXY header of the balancer, and of nobody else, says who the client is, for limits, log, session list and Received; whatever is
# wrong with it closes the connection before anything is said. Who speaks before the greeting is refused.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use IO::Socket::INET;
use MIME::Base64;
use Sekisho;
use Socket qw(inet_aton inet_pton AF_INET6 IPPROTO_TCP TCP_NODELAY);
use Test::More;

my $s = Sekisho->new(listen => 'balancers: [127.0.0.2, "2001:db8::/64"]', conf => "limits: { prefix_sessions: 3 }\nmsa: { processes: 1 }\n", clock => 1);
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 200;
my $me = 'alice@example.test';
$s->account($me);

# A connection from that address, and what it says first.
sub from {
	my ($on, $local, $kind, @said) = @_;
	my $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $on->{ports}{$kind}, LocalAddr => $local, Timeout => 20) or return;
	setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1;
	my $c = bless { s => $sock, buf => '', tls => 0 }, 'Sekisho::Client';
	$c->raw($_) for @said;
	return $c;
}

sub v1 { my ($ip, $port) = @_; return sprintf "PROXY TCP%d %s %s %d 587\r\n", $ip =~ /:/ ? 6 : 4, $ip, $ip, $port // 4321 }
sub v2 {
	my ($ip, $more) = @_;
	my $block = ($ip =~ /:/ ? inet_pton(AF_INET6, $ip) x 2 : inet_aton($ip) x 2) . pack('nn', 4321, 465) . ($more // '');
	return "\r\n\r\n\0\r\nQUIT\n\x21" . ($ip =~ /:/ ? "\x21" : "\x11") . pack('n', length $block) . $block;
}
sub listed { return map { "$_->{ip} $_->{port}" } @{$s->json('session', 'list')->{sessions}} }
sub until_listed { my ($want) = @_; return Sekisho::wait_for(10, sub { join(',', sort +listed()) eq $want }) || diag $s->ctl('session', 'list') }
sub bye { $_->cmd('QUIT') for @_; ok(until_listed(''), 'and they are gone') }

# Who the client is
{
	my $c = from($s, '127.0.0.2', 'submission', v1('203.0.113.7'));
	ok($c->open_session, 'version 1, STARTTLS');
	ok(until_listed('203.0.113.7 4321'), 'the session is the client\'s');
	like($c->cmd('AUTH PLAIN ' . encode_base64("\0$me\0$Sekisho::PASSWORD", '')), qr/^235/, 'it logs in');
	like($c->send_mail($me, 'bob@example.org', 'by version 1'), qr/^250/, 'and sends');
	bye($c);
	like($s->log, qr/connect ip=203\.0\.113\.7 port=4321 listener=submission via=127\.0\.0\.2$/m, 'the log has both');
	like($s->log, qr/login account=\Q$me\E ip=203\.0\.113\.7 /, 'a login has the client\'s');

	$c = from($s, '127.0.0.2', 'submissions', split //, v2('2001:db8:7::9', "\x04\0\x03xyz"));
	ok($c->tls && $c->open_session, 'version 2 with a TLV, octet by octet, TLS from the start');
	ok(until_listed('2001:db8:7::9 4321'), 'likewise');
	like($c->cmd('AUTH PLAIN ' . encode_base64("\0$me\0$Sekisho::PASSWORD", '')), qr/^235/, 'it logs in');
	like($c->send_mail($me, 'bob@example.org', 'by version 2'), qr/^250/, 'and sends');
	bye($c);
	for (['203\.0\.113\.7', 'by version 1'], ['IPv6:2001:db8:7::9', 'by version 2']) {
		my ($ip, $text) = @$_;
		my ($mail) = Sekisho::wait_for(20, sub { grep { /$text/ } $s->delivered });
		($mail) = grep { /$text/ } $s->delivered;
		like($mail, qr/^Received: from client\.example\.test\s+\(\[$ip\]/m, 'Received has the client');
	}

	my @c = (from($s, '127.0.0.2', 'submission', "PROXY UNKNOWN\r\n"), from($s, '127.0.0.2', 'submission', "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
		from($s, '127.0.0.1', 'submission'));
	ok($_->open_session, 'UNKNOWN, LOCAL, and a client that comes directly') for @c;
	is_deeply([sort map { s/ .*//r } listed()], ['127.0.0.1', '127.0.0.2', '127.0.0.2'], 'have their own address');
	bye(@c);
	$c = from($s, '127.0.0.2', 'submission', v1('::ffff:192.0.2.200'));
	ok($c->open_session && until_listed('192.0.2.200 4321'), 'an IPv4 address in IPv6 clothes is one');
	bye($c);
}

# Limits are the client's; of IPv6, a network's
{
	my @c = map { from($s, '127.0.0.2', 'submission', v1("2001:db8:1:1::$_")) } 1 .. 3;
	like($_->reply, qr/^220/, 'a session of a /64') for @c;
	like(join('', map { my $c = from($s, '127.0.0.2', 'submission', v1('2001:db8:1:1:ffff::9')); $c->reply . $c->reply } 1), qr/^421 4\.7\.0 Limit of 3 sessions/m,
		'a fourth is one too many, whatever its lower half');
	like(from($s, '127.0.0.2', 'submission', v1('203.0.113.9'))->reply, qr/^220/, 'another client by the same balancer is none');
	push @c, from($s, '127.0.0.2', 'submission', v1('2001:db8:1:2::1'));
	like($c[-1]->reply, qr/^220/, 'nor is the next /64');
	bye(@c);
}

# What is no header
my $at = length $s->log;
for (['EHLO x', "EHLO client.example.test\r\n", 'does not begin with one; does the balancer send it\?'],
	['malformed', "PROXY TCP4 203.0.113.7\r\n", 'malformed addresses'],
	['too long', 'PROXY TCP4 ' . 'x' x 200, 'line has more than 107 octets'],
	['bare LF', "PROXY UNKNOWN\n", 'line ends with something else than CRLF'],
	['AF_UNIX', "\r\n\r\n\0\r\nQUIT\n\x21\x31" . pack('n', 216) . 'x' x 216, 'the client came by a Unix socket'],
	['too large', "\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", 'more addresses and TLVs than are read']) {
	my ($what, $said, $why) = @$_;
	for my $kind (qw(submission submissions)) {
		is(from($s, '127.0.0.2', $kind, $said)->reply, '', "$what ($kind): closed without a word");
		ok(Sekisho::wait_for(10, sub { substr($s->log, $at) =~ /refused rule=proxy-header ip=127\.0\.0\.2 reason="$why"/ }), 'and the log says why');
		$at = length $s->log;
	}
}
{
	my @c = (from($s, '127.0.0.2', 'submission'), from($s, '127.0.0.2', 'submissions', 'PROXY TC'), from($s, '127.0.0.2', 'submission', "\r\n\r\n\0\r\nQ"));
	my $other = from($s, '127.0.0.2', 'submission', v1('203.0.113.7'));
	like($other->reply, qr/^220/, 'whoever waits for a header is nobody else\'s trouble');
	$s->advance(5100);
	is($_->reply, '', 'nothing, or half of it: closed after five seconds') for @c;
	is(scalar(() = substr($s->log, $at) =~ /reason="it did not come in time"/g), 3, 'and logged');
	like($other->cmd('NOOP'), qr/^250/, 'the other goes on');
	$at = length $s->log;
	close $_->{s} for from($s, '127.0.0.2', 'submission'), from($s, '127.0.0.2', 'submissions');
	bye($other);
	unlike(substr($s->log, $at), qr/proxy-header/, 'a balancer that only looks is no news');
	my $cut = from($s, '127.0.0.2', 'submission', 'PROXY ');
	close $cut->{s};
	ok(Sekisho::wait_for(10, sub { substr($s->log, $at) =~ /reason="the connection ended within it"/ }), 'one that leaves within it is');
}
{
	my $c = from($s, '127.0.0.2', 'submission', v1('203.0.113.7') . "EHLO client.example.test\r\n");
	like($c->reply, qr/^554 5\.5\.1 .*before the greeting/, 'a client that speaks right behind the header does not wait for the greeting');
	is($c->reply, '', 'and is let go');
	like(from($s, '127.0.0.2', 'submission', v1('203.0.113.7') . v1('203.0.113.8'))->reply, qr/^554 5\.5\.1 /, 'so does a second header');
}
close $_->{s} for map { from($s, '127.0.0.2', 'submission') } 1 .. 3; # and one that waits when the service stops
my $waiting = from($s, '127.0.0.2', 'submission', 'PRO');
$s->{listen} = '';
$s->write_conf;
is(($s->ctl('reload'), $?)[1], 0, 'a reload');
like(from($s, '127.0.0.2', 'submission')->reply, qr/^220/, 'without balancers nobody has to');
is($s->stop, 0, 'stops cleanly');
is($waiting->reply, '', 'who waits for a header does not hold it up');

# The greeting
$s = Sekisho->new(listen => 'greeting_delay: 20s, banner: "Kita submission, help: 0570-000"' =~ s/, b/\n  b/r, conf => "msa: { processes: 1 }\n", clock => 1, no_sink => 1);
for my $kind (qw(submission submissions)) {
	for ('EHLO client.example.test', 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2') {
		my $c = $s->connect($kind);
		like($c->cmd($_), qr/^554 5\.5\.1 .*before the greeting/, "$kind: who speaks first is refused");
		is($c->reply, '', 'and let go');
	}
	my $c = $s->connect($kind);
	my $n = () = $s->log =~ /connect/g;
	ok(Sekisho::wait_for(10, sub { $s->advance(1000); IO::Select->new($c->{s})->can_read(0.05) }), 'who waits');
	like($c->reply, qr/^220 mail\.example\.test ESMTP Kita submission, help: 0570-000\r\n$/, 'is greeted');
	like($c->cmd('EHLO client.example.test'), qr/^250/m, 'and may speak');
}
my $hello = from($s, '127.0.0.1', 'submission', "\x16\x03\x01\x00\xa5\x01\x00\x00");
like($hello->reply, qr/^554 5\.5\.1 .*check its port and its TLS setting/, 'a client that begins with TLS where STARTTLS is spoken');
like($s->log, qr/refused rule=early-talker ip=127\.0\.0\.1 sent=$_$/m, "is told apart in the log: $_") for qw(tls-handshake text proxy-header);
my $quiet = $s->connect;
is($s->stop, 0, 'stops cleanly');
like($quiet->reply, qr/^421 4\.3\.2 /, 'and tells who waits for the greeting');
done_testing;
