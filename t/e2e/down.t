#!/usr/bin/perl
# Setup: the processes that msa asks are stopped (SIGSTOP) or killed one after the other, at the moments that hurt; timeouts pass on the shared test clock.
# Expectation: a silent auth is 454 and a silent queue 451 within their timeouts, and both work again afterwards; a queue lost between the final dot and its
# answer gives 250 for a message that is delivered, or 451 for one that is not, never anything else; after keys, auth or msa are killed logins work again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use MIME::Base64;
use Time::HiRes qw(time sleep);

my $s = Sekisho->new(clock => 1, conf => "auth: { failure_delay: 10ms, cache: 0s }\n$Sekisho::UNLIMITED");
my $me = 'alice@example.test';
$s->account($me);
my $plain = 'AUTH PLAIN ' . encode_base64("\0$me\0$Sekisho::PASSWORD", '');

sub logs_in { my $c = eval { $s->login($me) }; return $c }
sub arrived { my ($what) = @_; return scalar(grep { /^\Q$what\E\r?$/m } $s->delivered) }

# Lets seconds pass until there is something to read; how many it took.
sub seconds_until_reply {
	my ($c) = @_;
	my $n = 0;
	for (; $n < 300; $n++) {
		my $bits = '';
		vec($bits, fileno $c->{s}, 1) = 1;
		last if length $c->{buf} || select($bits, undef, undef, 0.05);
		$s->advance(1000);
	}
	return $n;
}

# auth says nothing.
my $c = $s->connect;
ok($c->open_session, 'a session before its login');
my ($auth) = $s->pids('sekisho-auth');
kill 'STOP', $auth;
$c->raw("$plain\r\n");
cmp_ok(seconds_until_reply($c), '>=', 29, 'no reply within 29 s');
like($c->reply, qr/^454 4\.7\.0 /, 'auth does not answer for 30 s: 454 4.7.0');
kill 'CONT', $auth;
ok(Sekisho::wait_for(20, sub { $c->cmd($plain) =~ /^235/ }), 'auth goes on: the same session can log in');
like($c->send_mail($me, 'carol@example.org', 'after-auth'), qr/^250/, 'and send');
undef $c;

kill 'KILL', $s->pids('sekisho-auth');
ok(Sekisho::wait_for(20, \&logs_in), 'auth killed: logins work again');

# The queue says nothing at RCPT.
$c = logs_in();
like($c->cmd("MAIL FROM:<$me>"), qr/^250/, 'MAIL');
my ($queue) = $s->pids('sekisho-queue');
{
	my $d = logs_in();
	kill 'STOP', $queue;
	$d->raw("EHLO client.example.test\r\n");
	cmp_ok(seconds_until_reply($d), '<=', 2, 'EHLO behind a login asks it, too, and waits a second');
	like($d->reply, qr/^250-LIMITS RCPTMAX=500 MAILMAX=100\r$/m, 'then it tells what holds for anybody');
	kill 'CONT', $queue;
	like($d->cmd('EHLO client.example.test'), qr/^250-LIMITS /m, 'the queue goes on');
}
kill 'STOP', $queue;
$c->raw("RCPT TO:<carol\@example.org>\r\n");
cmp_ok(seconds_until_reply($c), '>=', 9, 'no reply within 9 s');
like($c->reply, qr/^451 4\.3\.0 /, 'the queue does not answer for 10 s: 451 4.3.0');
kill 'CONT', $queue;
ok(Sekisho::wait_for(20, sub { $c->cmd('RCPT TO:<carol@example.org>') =~ /^250/ }), 'the queue goes on: the same transaction as well');
like($c->cmd('RSET'), qr/^250/, 'RSET');
ok(Sekisho::wait_for(10, sub { ($s->json('quota', 'show', $me) // {})->{reserved} == 0 }), 'nothing stays reserved, not by the lost answer either')
	or diag $s->ctl('quota', 'show', $me);

# The queue is lost around the final dot.
my (%promised, %refused);
for my $round (1 .. 12) {
	my $name = "round-$round";
	my $large = $round % 2 ? '' : "large body\r\n" x 100_000;
	ok(Sekisho::wait_for(20, sub { $c = logs_in() or return; $c->cmd("MAIL FROM:<$me>"); return $c->cmd('RCPT TO:<carol@example.org>') =~ /^250/ }), "$name: ready");
	like($c->cmd('DATA'), qr/^354/, 'DATA');
	$c->raw("From: <$me>\r\nSubject: test\r\n\r\n$name\r\n$large");
	($queue) = $s->pids('sekisho-queue');
	if ($round <= 4) {
		kill 'STOP', $queue;
		$c->raw(".\r\n");
		sleep 0.2;
		kill 'KILL', $queue;
	} else { # the answer races with the kill
		$c->raw(".\r\n");
		sleep 0.0003 * ($round - 5);
		kill 'KILL', $queue;
	}
	seconds_until_reply($c); # retries of the question may wait on the clock
	my $said = $c->reply;
	like($said, qr/^(?:250 2\.0\.0 Queued|451 4\.3\.0 )/, "$name: a clear answer");
	$said =~ /^250/ ? $promised{$name}++ : $refused{$name}++;
}
ok(Sekisho::wait_for(30, sub { my $a = $s->json('queue', 'audit'); $a && $a->{conserved} && $a->{queued} == 0 }), 'the queue drains')
	or diag $s->ctl('queue', 'audit');
is_deeply([grep { arrived($_) != 1 } sort keys %promised], [], scalar(keys %promised) . ' promised: delivered once');
is_deeply([grep { arrived($_) } sort keys %refused], [], scalar(keys %refused) . ' refused: not delivered');
is($s->json('quota', 'show', $me)->{used}, $s->json('queue', 'audit')->{accepted}, 'charged is what was accepted');

# keys: silent, then dead.
my ($keys) = $s->pids('sekisho-keys');
kill 'STOP', $keys;
$c = $s->connect;
$c->reply;
$c->cmd('EHLO x');
like($c->cmd('STARTTLS'), qr/^220/, 'keys stopped: STARTTLS is granted');
my $pid = fork // die $!;
if (!$pid) {
	$s->advance(1000) while sleep 0.05; # until the handshake has failed
}
my $begin = time;
ok(!$c->tls, 'but the handshake fails');
cmp_ok(time - $begin, '<', 10, 'within its timeout');
kill 'KILL', $pid;
waitpid $pid, 0;
kill 'KILL', $keys;
ok(Sekisho::wait_for(20, \&logs_in), 'keys killed: new handshakes work again');
ok(Sekisho::wait_for(20, sub { my $c = $s->login($me, 'submissions') or return; return $c->send_mail($me, 'carol@example.org', 'after-keys') =~ /^250/ }), 'TLS from the start too');
$c = logs_in();
kill 'KILL', $s->pids('sekisho-keys');
like($c->send_mail($me, 'carol@example.org', 'without-keys'), qr/^250/, 'a session that has its TLS needs no keys');

# All at once; first let deliveries end, because a relay killed between the site's answer and its own record delivers again.
ok(Sekisho::wait_for(30, sub { my $a = $s->json('queue', 'audit'); $a && $a->{queued} == 0 && arrived('without-keys') }), 'nothing is on its way');
kill 'KILL', $s->pids;
ok(Sekisho::wait_for(30, \&logs_in), 'every process killed: logins work again');
ok(Sekisho::wait_for(20, sub { my $c = logs_in() or return; return $c->send_mail($me, 'carol@example.org', 'after-all') =~ /^250/ }), 'and mail is accepted');
ok(Sekisho::wait_for(30, sub { my $a = $s->json('queue', 'audit'); $a && $a->{conserved} && $a->{queued} == 0 && arrived('after-all') }), 'delivered and conserved')
	or diag $s->ctl('queue', 'audit');
is(arrived($_), 1, "$_ arrived") for 'after-auth', 'without-keys';
done_testing;
