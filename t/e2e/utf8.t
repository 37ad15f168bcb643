#!/usr/bin/perl
# Setup: a service with an account whose name is international and one whose name is not, a real nsd, and as next hops a Postfix that offers SMTPUTF8 (as root;
# its master drops privileges) and sinks that do not offer it.
# Expectation: a message with an international address or header section goes with SMTPUTF8 to a host that offers it, found behind one that does not, and
# arrives octet for octet; where no host offers it those recipients fail with 5.6.7, and their sender is told in a form that he can read. A message that does
# not need SMTPUTF8 goes without, whatever MAIL said. A domain is one, written as U-labels or as A-labels: to DNS, to routes, to the next hop, to operators.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use MIME::Base64;
use MIME::Parser;
use Test::More;

plan skip_all => 'only root can run Postfix' if $> != 0;

my ($me, $joerg) = ('alice@example.test', "j\xc3\xb6rg\@example.test");
my $kanji = "\xe9\x96\xa2\xe6\x89\x80";
my ($u_label, $a_label) = ("b\xc3\xb6rse.example", 'xn--brse-5qa.example');
my $port = Sekisho::free_port();
my $dns_port = Sekisho::free_port();
my $nsd = Peers->nsd($dns_port, <<"ZONE");
h2.hosts. A 127.0.0.2
h4.hosts. A 127.0.0.4
h5.hosts. A 127.0.0.5
modern.example. MX 10 h2.hosts.
plain.example. MX 10 h4.hosts.
plain.example. MX 20 h5.hosts.
mixed.example. MX 10 h4.hosts.
mixed.example. MX 20 h2.hosts.
$a_label. MX 10 h4.hosts.
ZONE
my $postfix = Peers->postfix('127.0.0.2', $port, 'modern.example mixed.example example.test', "smtputf8_enable = yes\n");
my %sink = (h4 => Peers->sink('127.0.0.4', $port), h5 => Peers->sink('127.0.0.5', $port));
my $s = Sekisho->new(no_sink => 1, no_start => 1, conf => <<"CONF");
routes:
  example.test: "127.0.0.2:$port"
dns: { servers: ["127.0.0.1:$dns_port"], timeout: 5s }
relay: { port: $port }
CONF
$s->start;
$s->account($me, "jo\xcc\x88rg\@EXAMPLE.test"); # not in its normal form

my $number = 0;

# A transaction with these parameters of MAIL; the header section's other lines. Returns the message's id and what was sent.
sub send_one {
	my ($from, $param, $to, $header, $login) = @_;
	my $c = $s->login($login // $from) or BAIL_OUT 'login';
	for ("MAIL FROM:<$from>$param", map { "RCPT TO:<$_>" } @$to) {
		my $said = $c->cmd($_);
		like($said, qr/^250/, 'taken') or diag $_;
	}
	$c->cmd('DATA');
	my $sent = "From: <$from>\r\nX-Number: number-" . ++$number . "-\r\n$header\r\nbody\r\n";
	$c->raw("$sent.\r\n");
	my ($id) = $c->reply =~ /^250 2\.0\.0 Queued as (\w+)/;
	ok($id, 'queued');
	return ($id, $sent);
}
sub finished { my ($id) = @_; ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'finished') or diag $s->ctl('queue', 'show', $id), $s->log }
sub states { my ($id) = @_; return join ' ', map { $_->{state} } @{ $s->show($id)->{rcpt} // [] } }
sub at { my ($peer) = @_; my @found; Sekisho::wait_for(20, sub { @found = grep { /number-$number-/ } $peer->delivered }); return @found }
sub told { my ($peer, $id) = @_; my @told; Sekisho::wait_for(20, sub { @told = grep { /known here as \Q$id\E/ } $peer->delivered }); return @told }
sub has { my ($text, $sent) = @_; return index($text, $sent =~ s/\r//gr) >= 0 }

# ---- a next hop that offers it
my ($id, $sent) = send_one($me, ' SMTPUTF8', ["$kanji\@modern.example"], "To: <$kanji\@modern.example>\r\nSubject: $kanji\r\n");
finished($id);
is(states($id), 'delivered', 'an international recipient is reached');
my ($got) = at($postfix);
ok($got && has($got, $sent), 'with all its octets') or diag $got;
like($got, qr/^Delivered-To: \Q$kanji\E\@modern\.example$/m, 'under its name');
like($got, qr/^Received: from client[^\n]*\n[^\n]*\n\tby mail\.example\.test with UTF8SMTPSA$/m, 'Received has the word for it');
like($got, qr/^Received: from mail\.example\.test [^\n]*\n\tby postfix\.example\.test \(Postfix\) with UTF8SMTPS? id/m, 'so has that of the next host');

($id, $sent) = send_one($joerg, ' SMTPUTF8', ['bob@modern.example'], "Subject: $kanji\r\n");
finished($id);
($got) = at($postfix);
ok($got && has($got, $sent), 'from an international account') or diag $s->ctl('queue', 'show', $id);
like($got, qr/^Return-Path: <\Q$joerg\E>$/m, 'whose address arrives');

my $python = open my $run, '-|', 'python3', "$FindBin::Bin/../lib/utf8.py", $s->{ports}{submission}, $me, $Sekisho::PASSWORD,
	"grp\xc3\xbc\xc3\x9fe\@modern.example", 'number-' . ++$number . '-' or die $!;
my $said = do { local $/; <$run> };
ok(close $run, 'Python smtplib sends one') or diag $said;
($got) = at($postfix);
like($got, qr/^To: grp\xc3\xbc\xc3\x9fe\@modern\.example$/m, 'with its header section in UTF-8');

# ---- one that does not
($id) = send_one($me, ' SMTPUTF8', ["$kanji\@plain.example", "bob\@plain.example"], "Subject: $kanji\r\n");
finished($id);
is(states($id), 'bounced bounced', 'without it nobody gets an international header section');
like($s->show($id)->{rcpt}[0]{reply}, qr/^5\.6\.7 .*SMTPUTF8/, 'and it says why');
is($s->show($id)->{attempts}, 1, 'at the first attempt');
my @told = told($postfix, $id);
is(scalar @told, 1, 'the sender is told') or BAIL_OUT $s->log . $postfix->log;
my $parser = MIME::Parser->new;
$parser->output_to_core(1);
my $entity = $parser->parse_data($told[0]);
is($entity->parts(1)->mime_type, 'message/delivery-status', 'with fields that any program reads');
like($told[0], qr/^Final-Recipient: utf-8; \\x\{95A2\}\\x\{6240\}\@plain\.example$/m, 'in ASCII');
like($told[0], qr/^Status: 5\.6\.7$/m, 'with the status');
like($entity->parts(0)->bodyhandle->as_string, qr/^  \Q$kanji\E\@plain\.example$/m, 'and in words');
is($entity->parts(2)->mime_type, 'message/global-headers', 'with the header section');
like($entity->parts(2)->bodyhandle->as_string, qr/^Subject: \Q$kanji\E\r?$/m, 'decoded it is what was sent');
unlike($told[0], qr/^Received: [^;]*UTF8SMTP[^;]*by postfix/ms, 'sent without SMTPUTF8');

($id) = send_one($joerg, ' SMTPUTF8', ['bob@plain.example'], '');
finished($id);
is(states($id), 'bounced', 'an international sender cannot be told to it either');
@told = told($postfix, $id);
like($told[0], qr/^To: <\Q$joerg\E>$/m, 'and hears of it under his address');
like($told[0], qr{^Content-Type: message/global-delivery-status$}m, 'in the form for him');

($id) = send_one($me, ' SMTPUTF8', ["$kanji\@mixed.example"], '');
finished($id);
is(states($id), 'delivered', 'the next host is asked when the first does not offer it');
is($s->show($id)->{attempts}, 1, 'in the same attempt');
ok(at($postfix), 'and gets it');

# ---- what does not need it
($id, $sent) = send_one($me, ' SMTPUTF8', ['bob@plain.example', "$kanji\@modern.example"], "Subject: plain\r\n");
finished($id);
is(states($id), 'delivered delivered', 'of an ASCII message each recipient is judged by itself');
($got) = at($sink{h4});
like($got, qr/^X-Mail-Args: <\Q$me\E>(?!.*SMTPUTF8)/m, 'and who needs no SMTPUTF8 gets it without');

($id, $sent) = send_one($me, ' SMTPUTF8', ["bob\@$u_label", "carol\@$a_label"], "Subject: plain\r\n");
finished($id);
($got) = at($sink{h4});
is(join(' ', $got =~ /^X-Rcpt-Args: <(.*?)>/mg), "bob\@$a_label carol\@$a_label", 'a name has one spelling, one transaction and needs nothing');

($id, $sent) = send_one($me, '', ['bob@plain.example'], "Subject: $kanji \xe9\r\n");
finished($id);
($got) = at($sink{h4});
ok(has($got, $sent), 'a header section with 8-bit octets that was never called UTF-8 goes as it came');

my $c = $s->login($joerg);
$c->cmd($_) for 'MAIL FROM:<>', 'RCPT TO:<bob@modern.example>', 'DATA';
$c->raw('X-Number: number-' . ++$number . "-\r\n\r\nbody\r\n.\r\n");
like($c->reply, qr/^250/, 'a program that knows nothing of it leaves From to us');
($got) = at($postfix);
like($got, qr/^From: \Q$joerg\E$/m, 'which we add');
like($got, qr/by postfix\.example\.test \(Postfix\) with UTF8SMTPS? id/m, 'and say so to the next host');

# ---- operators
like($s->ctl('queue', 'hold', '--recipient', $u_label), qr/\Q$a_label\E/, 'a domain is held by its U-labels');
($id) = send_one($me, ' SMTPUTF8', ["$kanji\@$a_label", "bob\@$a_label"], '');
ok(Sekisho::wait_for(20, sub { ($s->show($id)->{state} // '') eq 'held' }), 'which are its A-labels') or diag $s->ctl('queue', 'show', $id);
$s->stop;
$s->start;
$s->ctl('queue', 'release', '--recipient', $u_label);
finished($id);
is(states($id), 'bounced delivered', 'after a restart each has its fate');
like($s->log, qr/ attempt to=<\Q$kanji\E\@modern\.example> /, 'the log shows addresses as they are');
like($s->ctl('account', 'show', "J\xc3\xb6rg\@example.test"), qr/\Q$joerg\E/, 'an account has one name');
like($s->ctl('quota', 'show', $joerg), qr/\Q$joerg\E/, 'and a quota');

$c = $s->login($joerg);
like($c->cmd("MAIL FROM:<\xe9\@example.test> SMTPUTF8"), qr/^501 5\.1\.7/, 'no UTF-8, no address');
like($c->cmd("MAIL FROM:<k\xc3\xb6nig\@example.test> SMTPUTF8"), qr/^553 5\.7\.1 <k\xc3\xb6nig\@example\.test>: /, 'a reply shows it to who said SMTPUTF8');
like($c->cmd("MAIL FROM:<jo\xcc\x88rg\@example.test> SMTPUTF8"), qr/^250/, 'another form of the own address is the own');
done_testing;
