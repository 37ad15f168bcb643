#!/usr/bin/perl
# Setup: clients in every state a session can be in, then the service is stopped in order.
# Expectation: each hears 421 4.3.2 and nothing else, at once; a message whose content has begun is still taken, and its client hears 250 first;
# who is in the middle of a handshake is closed. A reload before that hurts none of them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use IO::Socket::INET;
use MIME::Base64;
use Sekisho;
use Test::More;

my $s = Sekisho->new(conf => "msa: { processes: 1 }\nauth: { failure_delay: 10s }\n");
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 200;
my $me = 'alice@example.test';
$s->account($me);
my $plain = 'AUTH PLAIN ' . encode_base64("\0$me\0$Sekisho::PASSWORD", '');

# Walks a client through these commands; each must get its reply, but for the last when it is undef.
sub walk {
	my ($kind, @steps) = @_;
	my $c = $s->connect($kind);
	like($c->reply, qr/^220/, 'greeted') or return $c;
	while (my ($said, $code) = splice @steps, 0, 2) {
		if ($said eq 'TLS') { ok($c->tls, 'TLS'); next }
		if (!defined $code) { $c->raw("$said\r\n"); next }
		like($c->cmd($said), qr/^$code/m, $said);
	}
	return $c;
}
my @login = ('EHLO c.example.test', 250, $plain, 235);
my @mail = (@login, "MAIL FROM:<$me>", 250);
my @rcpt = (@mail, 'RCPT TO:<bob@example.org>', 250);
my %idle = (
	'nothing said' => walk('submission'),
	'nothing said in TLS' => walk('submissions'),
	'EHLO in clear text' => walk('submission', 'EHLO c.example.test', 250),
	'TLS by STARTTLS' => walk('submission', 'EHLO c.example.test', 250, 'STARTTLS', 220, 'TLS', undef),
	'half a command' => do { my $c = walk('submissions', 'EHLO c.example.test', 250); $c->raw('NO'); $c },
	'a challenge' => walk('submissions', 'EHLO c.example.test', 250, 'AUTH SCRAM-SHA-256', 334),
	'a failed login whose answer is late' => walk('submissions', 'EHLO c.example.test', 250, 'AUTH PLAIN AGFAYgBj', undef),
	'a login' => walk('submissions', @login),
	'MAIL' => walk('submissions', @mail),
	'RCPT' => walk('submissions', @rcpt),
	'RCPT refused' => walk('submissions', @mail, 'RCPT TO:<x>', 501),
);
my %content = map { $_ => walk('submissions', @rcpt, 'DATA', 354) } 'DATA', 'half of it';
$content{'half of it'}->raw("From: <$me>\r\n\r\nhalf");
if (walk('submissions', @login)->cmd('EHLO c.example.test') =~ /CHUNKING/) {
	$content{'between chunks'} = walk('submissions', @rcpt, "BDAT 6\r\nhalf", 250);
	$content{'within a chunk'} = walk('submissions', @rcpt, "BDAT 100 LAST\r\nhalf", undef);
}
my $handshake = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->{ports}{submissions});
$handshake->syswrite("\x16\x03\x01\x00");
ok(Sekisho::wait_for(10, sub { $s->log =~ /rule=auth_failure_delay/ }), 'the failed login is waiting');

my $gone = () = $s->log =~ / disconnect /g;
$s->ctl('reload');
is($?, 0, 'a reload');
is(scalar(() = $s->log =~ / disconnect /g), $gone, 'hurts nobody');

kill 'TERM', $s->{daemon};
for (sort keys %idle) {
	is($idle{$_}->reply, "421 4.3.2 mail.example.test Service is shutting down, try again later\r\n", "$_: 421");
	is($idle{$_}->reply, '', "$_: and the end");
}
is($handshake->sysread(my $octet, 1), 0, 'half a handshake: closed');
for (sort keys %content) {
	my $c = $content{$_};
	$c->raw(/chunks/ ? "BDAT 0 LAST\r\n" : /chunk/ ? 'x' x 94 : "\r\n.\r\n");
	like($c->reply, qr/^250 2\.0\.0 Queued|^250 2\.0\.0 .*octets/, "$_: the message is taken");
	like($c->reply, qr/^421 4\.3\.2 |^$/, "$_: then 421");
}
is($s->stop, 0, 'stops cleanly');
is(scalar(() = $s->log =~ / accepted id=/g), scalar(keys %content), 'each message once');
done_testing;
