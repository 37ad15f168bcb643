#!/usr/bin/perl
# Setup: a service with one account, a receiver that keeps what it gets octet for octet, and one that refuses every recipient.
# Expectation: what leaves is what came, octet for octet, with the fields in front that RFC 6409 makes ours and without those that must not leave
# (Bcc, Return-Path, a Date or Message-ID without a value). So it is in bodies that travel in a frame and in those that stream into a file,
# and in what a notification returns. What a configuration changes, it changes from the next message on.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Peers;
use Sekisho;
use Test::More;

my $refusing = Sekisho::free_port();
my $s = Sekisho->new(no_sink => 1, no_start => 1);
my $receiver = Peers->receiver('127.0.0.1', $s->{ports}{sink});
my $refuser = Peers->sink('127.0.0.1', $refusing, '-f', 'rcpt');
my $usual = "${Sekisho::UNLIMITED}routes: { refusing.example: \"127.0.0.1:$refusing\", \"*\": \"127.0.0.1:$s->{ports}{sink}\" }\n";
$s->{extra} = $usual;
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);
my $from = "From: Alice <$me>\r\n";

# Sends content as it is (CRLF.CRLF, or .CRLF, must not be in it but for stuffing here); the last reply.
my $client;
sub submit {
	my ($content, $to) = @_;
	$client = $s->login($me, 'submissions') if !$client || $client->cmd('NOOP') !~ /^250/;
	$client->cmd("MAIL FROM:<$me> BODY=8BITMIME");
	$client->cmd('RCPT TO:<' . ($to // 'carol@example.org') . '>');
	my $said = $client->cmd('DATA');
	return $said unless $said =~ /^354/;
	$client->raw(($content =~ s/^\./../mgr) . ($content =~ /(?:^|\r\n)\z/ ? '' : "\r\n") . ".\r\n");
	return $client->reply;
}

# The next message that arrives: what was put in front, and the rest.
my $seen = 0;
sub arrived {
	my $path = "$receiver->{dir}/mail/" . ++$seen;
	Sekisho::wait_for(30, sub { -e $path }) or return ('nothing arrived', $s->log);
	my $message = Peers::read_file($path);
	my $front = $message =~ s/^(Received: [^\n]*\r\n(?:\t[^\n]*\r\n)*)//r;
	return ($1, $front);
}

# name, content, what is expected behind Received: regex for added fields, then text.
my $date = qr/Date: \w{3}, \d+ \w{3} \d{4} \d\d:\d\d:\d\d [-+]\d{4}\r\n/;
my $id = qr/Message-ID: <[0-9a-z]{26}\@mail\.example\.test>\r\n/;
my $both = "Date: Wed, 25 Nov 2026 10:00:00 +0900\r\nMessage-ID: <1\@example.test>\r\n";
my $large = join '', map { sprintf "line %06d \x80\xff %s\r\n", $_, 'x' x ($_ % 97) } 1 .. 4000;
my @rows = (
	['a whole message', "$from${both}Subject: x\r\n\r\nhello\r\n"],
	['no line end at the end gets one', "$from$both\r\nhello", qr//, "$from$both\r\nhello\r\n"],
	['an empty body', "$from$both\r\n"],
	['a header section without an empty line', "$from$both"],
	['trailing blanks and tabs everywhere', "${from}${both}Subject: \t x \t \r\n\t \t\r\nX-Empty:\r\nX-Blank: \t\r\n \t \r\n\r\n \t \r\nx \t\r\n\t\r\n   \r\n"],
	['many empty lines at the end', "$from$both\r\nx\r\n\r\n\r\n\r\n"],
	['8-bit in header and body', "From: \xe9\x96\xa2 <$me>\r\n${both}Subject: \xff\xfe\x80\r\nX-\x80: y\r\n\r\n\x80\x81\xa0\xff\r\n"],
	['lines of 998 octets', "$from${both}Subject: " . 'x' x 989 . "\r\nX: a\r\n " . 'y' x 997 . "\r\n\r\n" . 'z' x 998 . "\r\n"],
	['dots', "$from$both\r\n.\r\n..\r\n...\r\n.x\r\n. \r\n"],
	['order, case and doubles of fields', "subject: 1\r\nSUBJECT : 2\r\nX:y\r\n${both}fRoM:$me\r\nTo:\r\nReceived: from x\r\n by y; then\r\nX:y\r\n\r\n"],
	['control characters', "$from${both}X: \x01\x0b\x0c\x1b\x7f\r\n\r\n\x01\x0b\x0c\x1b\x7f\r\n"],
	['References without end', "$from${both}References:" . join('', map { "\r\n <$_.0123456789abcdef\@mail.example.com>" } 1 .. 1500) . "\r\n\r\nx\r\n"],
	['a large body', "$from$both\r\n$large"],

	['no Date', "${from}Message-ID: <1>\r\n\r\nx\r\n", $date],
	['no Message-ID', "${from}Date: today\r\n\r\nx\r\n", $id],
	['neither', "$from\r\nx\r\n", qr/$date$id/],
	['nobody\'s', "${both}Subject: x\r\n\r\nx\r\n", qr/From: \Q$me\E\r\n/],
	['no header at all', "hello\r\n\r\nFrom: in the body\r\n", qr/$date${id}From: \Q$me\E\r\n\r\n/],
	['the body begins at once', "\r\nhello\r\n", qr/$date${id}From: \Q$me\E\r\n/],
	['nothing', '', qr/$date${id}From: \Q$me\E\r\n\r\n/, ''],
	['Resent fields are no fields of ours', "${from}Resent-Date: x\r\nResent-Message-ID: <x>\r\nResent-From: a\@b.example\r\nResent-Sender: y\r\n\r\n", qr/$date$id/],
	['Date and Message-ID without a value', "Date:\r\n${from}Message-ID: \r\n\t\r\nSubject:\r\n\r\nDate:\r\n", qr/$date$id/, "${from}Subject:\r\n\r\nDate:\r\n"],
	['two Dates are the author\'s affair', "${from}Date: 1\r\nDate: 2\r\nMessage-ID: 3\r\nMessage-ID: 4\r\n\r\n"],
	['several authors, no Sender', "From: Alice <$me>,\r\n Alice again <$me>\r\n$both\r\nx\r\n", qr/Sender: \Q$me\E\r\n/],
	['several authors and a Sender', "From: $me, $me\r\nSender: $me\r\n$both\r\nx\r\n"],

	['Bcc', "Bcc: a\@example.net\r\n$from${both}bcc : b\@example.net,\r\n\tc\@example.net,\r\n d\@example.net\r\nSubject: x\r\nBcc:\r\n\r\nBcc: e\r\n", qr//,
		"$from${both}Subject: x\r\n\r\nBcc: e\r\n"],
	['Bcc and nothing else', "Bcc: a\@example.net\r\n\r\nx\r\n", qr/$date${id}From: \Q$me\E\r\n/, "\r\nx\r\n"],
	['Resent-Bcc', "$from${both}Resent-To: a\@example.net\r\nResent-Bcc: b\@example.net\r\n\r\n", qr//, "$from${both}Resent-To: a\@example.net\r\n\r\n"],
	['Bcc is no field', "$from${both}X-Bcc: a\r\nBcc-To: b\r\nSubject: c\r\n Bcc: d\r\n\r\n"],
	['Bcc before a large body', "Bcc: " . join(",\r\n ", map { "blind$_\@example.net" } 1 .. 1000) . "\r\n$from$both\r\n$large", qr//, "$from$both\r\n$large"],
	['Bcc behind much else', "X: " . 'x' x 900 . "\r\n" . ("X: " . 'y' x 900 . "\r\n") x 100 . "${both}Bcc: a\@example.net\r\n$from\r\n$large", qr//,
		"X: " . 'x' x 900 . "\r\n" . ("X: " . 'y' x 900 . "\r\n") x 100 . "$both$from\r\n$large"],
	['Return-Path', "Return-Path: <mallory\@example.net>\r\n${from}return-path:\r\n\t<>\r\n$both\r\nx\r\n", qr//, "$from$both\r\nx\r\n"],
);
for my $row (@rows) {
	my ($name, $content, $added, $rest) = @$row;
	$rest //= $content;
	$added //= qr//;
	like(submit($content), qr/^250 2\.0\.0 Queued/, $name) or next;
	my ($received, $message) = arrived();
	ok($message =~ s/^$added//, "$name: what is added") or diag substr $message, 0, 500;
	ok($message eq $rest, "$name: the rest is as it came") or diag explain [substr($message, 0, 500), length $message, length $rest];
}

# From is whom the envelope names, where it names somebody.
$s->ctl('account', 'identity', 'add', $me, 'sales@example.test');
is($?, 0, 'another address is granted');
undef $client;
for (['<sales@example.test>', 'sales@example.test'], ['<>', $me]) {
	my ($sender, $author) = @$_;
	$client //= $s->login($me, 'submissions');
	like($client->cmd($_), qr/^250/, $_) for "MAIL FROM:$sender", 'RCPT TO:<carol@example.org>';
	$client->cmd('DATA');
	$client->raw("${both}\r\nx\r\n.\r\n");
	like($client->reply, qr/^250/, "nobody's, from $sender");
	is((arrived())[1], "From: $author\r\n$both\r\nx\r\n", "is ${author}'s");
}

# Received.
my $address = qr/\(\[127\.0\.0\.1\]\)\r\n/;
sub received {
	my ($ehlo) = @_;
	my $c = $s->connect('submissions');
	$c->reply;
	$c->cmd("EHLO $ehlo");
	$c->cmd('AUTH PLAIN ' . MIME::Base64::encode("\0$me\0$Sekisho::PASSWORD", ''));
	my ($queued) = $c->send_mail($me, 'carol@example.org', 'x') =~ /^250 2\.0\.0 Queued as ([0-9a-z]{26})/ or return 'refused';
	my ($received) = arrived();
	like($received, qr/^\tid \Q$queued\E;\r\n\t\w{3}, \d+ \w{3} \d{4} \d\d:\d\d:\d\d [-+]\d{4}\r\n\z/m, 'the id of the reply, and when');
	like($received, qr/\r\n\tby mail\.example\.test with ESMTPSA\r\n\t\(TLSv1\.[23] [A-Z0-9_-]+\)\r\n/, 'by whom, how, with which TLS');
	return ($received, $queued);
}
like((received('client.example.test'))[0], qr/^Received: from client\.example\.test\r\n\t$address/, 'the name and address of the client');
like((received('[192.0.2.7]'))[0], qr/^Received: from \[192\.0\.2\.7\]\r\n\t$address/, 'a client without a name');
like((received('x([6.6.6.6])by;evil"\\<>'))[0], qr/^Received: from x\?\?6\.6\.6\.6\?\?by\?evil\?\?\?\?\r\n\t$address/, 'a name that would be more than a name');

# A notification returns the header as it left.
like(submit("Bcc: blind\@example.net\r\n${from}${both}Subject: my subject\r\nBCC:\r\n blind\@example.net\r\n\r\nx\r\n", 'bob@refusing.example'),
	qr/^250/, 'mail that will bounce');
my ($front, $notification) = arrived();
like($notification // '', qr/^Subject: my subject\r$/m, 'its sender is told, with the header');
unlike($notification // '', qr/^bcc|blind/mi, 'and without Bcc');

# By configuration. What Received masks, queue and log keep.
$s->{extra} = "${usual}content: { bcc: keep, client_address: mask }\n";
$s->write_conf;
$s->ctl('reload');
is($?, 0, 'a reload');
undef $client;
like(submit("Bcc: a\@example.net\r\n$from$both\r\nx\r\n"), qr/^250/, 'Bcc, which may be kept now');
is((arrived())[1], "Bcc: a\@example.net\r\n$from$both\r\nx\r\n", 'and is');
my ($received, $queued) = received('[192.0.2.7]');
like($received, qr/^Received: from client\.invalid\r\n\t\(address withheld\)\r\n\tby /, 'the address is masked, and the name that may be one');
unlike($received, qr/127\.0\.0\.1|192\.0\.2/, 'everywhere');
my ($session) = $s->log =~ / (\S+) accepted id=\Q$queued\E /;
like($s->log, qr/ \Q$session\E connect ip=127\.0\.0\.1 port=\d+ /, 'the log tells from where the message came');
$s->ctl('queue', 'hold', '--account', $me);
my ($held) = submit("$from$both\r\nx\r\n") =~ /Queued as (\w+)/;
my $record = $s->json('queue', 'show', $held);
is($record->{client_ip}, '127.0.0.1', 'so does the queue') or diag explain $record;
$s->ctl('queue', 'release', '--account', $me);
like((arrived())[0], qr/^Received: from client\.invalid\r\n/, 'and it leaves without');

ok(Sekisho::wait_for(10, sub { my $a = $s->json('queue', 'audit'); $a->{conserved} && $a->{queued} == 0 }), 'the audit agrees');
is($s->stop, 0, 'stops cleanly');
done_testing;
