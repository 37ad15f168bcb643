#!/usr/bin/perl
# Setup: a service with one account and a receiving smtp-sink.
# Expectation: swaks, curl, msmtp and a plain client submit by both ports; the mail arrives with the fields RFC 6409 wants; the quota is charged
# once per recipient; the queue is empty afterwards and the audit agrees. Every wrong way in gets its clear refusal and costs nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use Time::HiRes qw(time);

my $s = Sekisho->new;
my ($dir, $p, $me) = ($s->{dir}, $s->{ports}, 'alice@example.test');
$s->account($me, 'bob@example.test');

open my $f, '>', "$dir/mail" or die $!;
print $f "From: Alice <$me>\nTo: carol\@example.org\nSubject: clients\n\nsent by a client\n";
close $f;
my @curl = ('curl', '-sS', '--cacert', "$dir/cert.pem", '--login-options', 'AUTH=PLAIN', '--user', "$me:$Sekisho::PASSWORD",
	'--mail-from', $me, '--mail-rcpt', 'carol@example.org', '--crlf', '--upload-file', "$dir/mail");
my @swaks = ('swaks', '--silent', 2, '--server', '127.0.0.1', '--auth', 'PLAIN', '--auth-user', $me, '--auth-password', $Sekisho::PASSWORD,
	'--from', $me, '--to', 'carol@example.org');
my $msmtp = "msmtp --host=127.0.0.1 --auth=plain --user=$me --passwordeval='echo $Sekisho::PASSWORD' --tls=on --tls-certcheck=off"
	. " --from=$me carol\@example.org < $dir/mail";
is(system(@curl, '--ssl-reqd', '--url', "smtp://localhost:$p->{submission}"), 0, 'curl, STARTTLS');
is(system(@curl, '--url', "smtps://localhost:$p->{submissions}"), 0, 'curl, implicit TLS');
is(system(@swaks, '--port', $p->{submission}, '--tls'), 0, 'swaks, STARTTLS');
is(system(@swaks, '--port', $p->{submissions}, '--tls-on-connect'), 0, 'swaks, implicit TLS');
is(system("$msmtp --port=$p->{submission} --tls-starttls=on" =~ s/(< \S+)(.*)/$2 $1/r), 0, 'msmtp, STARTTLS');
is(system("$msmtp --port=$p->{submissions} --tls-starttls=off" =~ s/(< \S+)(.*)/$2 $1/r), 0, 'msmtp, implicit TLS');

ok(Sekisho::wait_for(20, sub { $s->delivered == 6 }), 'all six arrive') or diag $s->log;
my ($one) = $s->delivered;
like($one, qr/^Received: from \S+.*with ESMTPSA/ms, 'Received with ESMTPSA');
like($one, qr/^Date: /m, 'Date');
like($one, qr/^Message-I[dD]: </m, 'Message-ID');
is($s->json('quota', 'show', $me)->{used}, 6, 'six recipients charged');

my $c = $s->connect;
like($c->reply, qr/^220 mail\.example\.test ESMTP/, 'greeting');
like($c->cmd('EHLO x'), qr/^250[- ]STARTTLS\r$/m, 'STARTTLS is offered');
like($c->cmd("MAIL FROM:<$me>"), qr/^530 5\.7\.0/, 'MAIL in clear text');
like($c->cmd('AUTH PLAIN AGEAYQ=='), qr/^5(30|38) 5\.7\./, 'AUTH in clear text');
$c->raw("STARTTLS\r\nNOOP\r\n");
like($c->reply, qr/^220|^$/, 'octets behind STARTTLS are not taken for encrypted ones');
ok(!$c->tls || $c->reply eq '', 'and the connection is closed');

$c = $s->connect('submissions');
ok($c->open_session, 'a session by implicit TLS');
like($c->cmd("MAIL FROM:<$me>"), qr/^530 5\.7\.0 Authentication required/, 'MAIL before AUTH');
like($c->cmd('AUTH PLAIN ' . MIME::Base64::encode("\0$me\0wrong password", '')), qr/^535 5\.7\.8/, 'a wrong password');
like($c->cmd('AUTH PLAIN ' . MIME::Base64::encode("\0nobody\@example.test\0wrong", '')), qr/^535 5\.7\.8/, 'an unknown account, the same words');

# The client's kernel sends nothing more before what was sent last is acknowledged, which without an octet of ours takes some 40 ms.
my $least = 1;
for (1 .. 10) {
	$c = $s->connect;
	$c->reply;
	$c->cmd($_) for 'EHLO x', 'STARTTLS';
	$c->tls;
	my $begun = time;
	$c->cmd('EHLO x') =~ /^250/ or die $s->log;
	my $took = time - $begun;
	$least = $took if $took < $least;
}
cmp_ok($least, '<', 0.02, 'who speaks first behind STARTTLS is answered at once');

$c = $s->login($me);
ok($c, 'login') or diag $s->log;
like($c->cmd('MAIL FROM:<bob@example.test>'), qr/^553 5\.7\.1 .*not owned/, 'a foreign envelope sender');
like($c->cmd("MAIL FROM:<$me> SIZE=99999999"), qr/^552 5\.3\.4/, 'an oversize message by its SIZE');
like($c->cmd("MAIL FROM:<$me>"), qr/^250/, 'MAIL');
like($c->cmd('RCPT TO:<x@localhost>'), qr/^5\d\d 5\.1\./, 'an unqualified domain');
like($c->cmd('RCPT TO:<dave@example.org>'), qr/^250/, 'RCPT');
is($s->json('quota', 'show', $me)->{reserved}, 1, 'RCPT reserves');
like($c->cmd('DATA'), qr/^354/, 'DATA');
$c->raw("From: Mallory <mallory\@example.org>\r\n\r\nx\r\n.\r\n");
like($c->reply, qr/^55\d 5\.7\.1 .*not owned/, 'a foreign header From');
like($c->cmd('RSET'), qr/^250/, 'RSET');
is_deeply([@{$s->json('quota', 'show', $me)}{qw(used reserved)}], [6, 0], 'none of it costs anything');

like($c->send_mail($me, 'dave@example.org', "first\r\n.\nstill content\r\n..stuffed"), qr/^250 2\.0\.0 Queued as /, 'a bare-LF dot line is content');
ok(Sekisho::wait_for(20, sub { grep { /still content/ && /\n\.+stuffed/ } $s->delivered }), 'and arrives') or diag $s->log;
like($c->send_mail($me, 'erin@example.org', 'L' x 60 . "\r\n" . ("large body line $_\r\n" x 20000)), qr/^250/, 'a body too large for a frame')
	for 1 .. 2;
ok(Sekisho::wait_for(30, sub { 2 == grep { /L{60}/ && length > 300_000 } $s->delivered }), 'arrives whole') or diag $s->log;

$c = $s->connect('submissions');
ok($c->open_session, 'another session');
$c->raw("\x00\xff\x80garbage\r\n");
like($c->reply, qr/^500/, 'garbage octets');
$c->raw(('A' x 100_000) . "\r\n");
like($c->reply, qr/^500|^421|^$/, 'an endless line');

ok(Sekisho::wait_for(10, sub { my $a = $s->json('queue', 'audit'); $a->{conserved} && $a->{queued} == 0 && $a->{delivered} == 9 }), 'the audit agrees')
	or diag $s->ctl('queue', 'audit');
is(scalar(my @list = $s->json('queue', 'list')->{messages} ? @{$s->json('queue', 'list')->{messages}} : ()), 0, 'nothing is queued');
my $accepted = () = $s->log =~ / accepted id=/g;
$c = $s->login($me);
$c->cmd($_) for "MAIL FROM:<$me>", 'RCPT TO:<frank@example.org>', 'DATA';
$c->raw("From: $me\r\n\r\nnobody waits\r\n.\r\n");
close $c->{s};
ok(Sekisho::wait_for(20, sub { grep { /nobody waits/ } $s->delivered }), 'a client that leaves before its reply has sent its mail');
is(scalar(() = $s->log =~ / accepted id=/g), $accepted + 1, 'and the log says who did') or diag $s->log;

is($s->stop, 0, 'stops cleanly');
unlike($s->log, qr/\Q$Sekisho::PASSWORD\E|wrong password/, 'no secret is in the log');
done_testing;
