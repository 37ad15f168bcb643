#!/usr/bin/perl
# Setup: a service whose only route leads to a server of this test, which plays a part for each message: it hangs up, says 421, answers in pieces, answers
# nonsense, answers what was not asked, or says nothing to QUIT.
# Expectation: whatever it does, the message has the one outcome that follows: delivered only when the reply to the final dot, and nothing before it, said so;
# bounced only by a 5xx about the mail; otherwise queued with the reason. A connection that did well is used again, a hundred times at most, and no more than its host says (LIMITS, RFC 9422); one that is of no
# use any more costs nothing. With one connection allowed, a server that is silent to QUIT holds nobody up.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use IO::Socket::INET;
use IO::Socket::SSL;
use Test::More;

my $s = Sekisho->new(no_sink => 1, no_start => 1, clock => 1, conf => "quota: { $Sekisho::UNPACED }\nrelay: { connections: 1 }\n");
my $me = 'alice@example.test';
my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => $s->{ports}{sink}, ReuseAddr => 1) or die $!;
my $events = "$s->{dir}/events";

sub part { # the part to be played from the next connection on
	open my $f, '>', "$s->{dir}/part.new" or die $!;
	print $f join "\t", @_;
	close $f;
	rename "$s->{dir}/part.new", "$s->{dir}/part";
}
sub current { open my $f, '<', "$s->{dir}/part" or return ('ok'); return split /\t/, <$f> // 'ok' }
sub event { open my $f, '>>', $events or die $!; syswrite $f, "$_[0]\n" }
sub happened { my ($what) = @_; open my $f, '<', $events or return 0; return scalar grep { /$what/ } <$f> }

sub play {
	my ($c) = @_;
	my ($buf, $served) = ('', 0);
	my $say = sub {
		my ($text) = @_;
		my ($part) = current();
		return syswrite $c, $text if $part ne 'bytes';
		syswrite $c, $_ for split //, $text;
	};
	my $turn = sub { # at a phase: plays the part, true when that was all
		my ($phase) = @_;
		my ($part, $when, $what) = current();
		event("$$ $phase");
		return 0 if !defined $when || $when ne $phase || ($part =~ s/^kept-// && !$served);
		exit 0 if $part eq 'close';
		$say->($what . "\r\n"), return 1 if $part eq 'say';
		if ($part eq 'raw') { syswrite $c, eval $what or 1; exit 0 }
		return 0;
	};
	my $line = sub {
		while ($buf !~ /\n/) { sysread $c, $buf, 4096, length $buf or exit 0 }
		$buf =~ s/^([^\n]*)\r?\n//;
		return $1 =~ s/\r$//r;
	};
	$c->setsockopt(6, 1, 1); # TCP_NODELAY
	$turn->('greeting') or $say->("220 ready\r\n");
	while (1) {
		my $command = $line->();
		my ($verb) = $command =~ /^(\w+)/;
		next if $turn->($verb);
		exit 0 if $verb eq 'QUIT' && (current())[0] eq 'ok';
		if ($verb eq 'QUIT') { 1 while sysread $c, my $ignored, 4096; exit 0 }
		my $is_secure = ref $c eq 'IO::Socket::SSL';
		if ($verb eq 'EHLO') { $say->("250-remote\r\n" . (-e "$s->{dir}/offers-tls" && !$is_secure ? "250-STARTTLS\r\n" : '') . (-e "$s->{dir}/offers-limits" ? "250-LIMITS RCPTMAX=100 MAILMAX=2 MAILMAX=none\r\n" : '') . "250 PIPELINING\r\n"); next }
		if ($verb eq 'STARTTLS') {
			$say->("220 go\r\n");
			$c = IO::Socket::SSL->start_SSL($c, SSL_server => 1, SSL_cert_file => "$s->{dir}/cert.pem", SSL_key_file => "$s->{dir}/key.pem") or die;
			event("$$ secure");
			next;
		}
		if ($verb ne 'DATA') { $say->("250 ok\r\n"); next }
		$say->("354 go\r\n");
		my $first = $line->();
		$turn->('body') and next;
		while ($line->() ne '.') { }
		event("$$ complete");
		$turn->('dot') or $say->("250 taken\r\n");
		$served++;
	}
}

my $server = fork // die $!;
if (!$server) {
	$SIG{CHLD} = 'IGNORE';
	while (1) {
		my $c = $listener->accept or next;
		event('connection');
		my $pid = fork // die $!;
		next if $pid;
		play($c);
		exit 0;
	}
}
close $listener;
END { my $status = $?; kill 'TERM', $server if $server; $? = $status }

$s->write_conf;
$s->start;
$s->account($me);
my $c = $s->login($me) or BAIL_OUT $s->log;


my ($number, $more) = (0, '');
sub outcome { # sends one message to the part and returns its state and last reply after the attempt
	my (@part) = @_;
	part(@part);
	my ($id) = $c->send_mail($me, 'carol@d' . ++$number . '.example', "message $number$more") =~ /^250 2\.0\.0 Queued as (\w+)/ or return ('not accepted', '');
	my $m;
	Sekisho::wait_for(30, sub { $m = $s->show($id); $m->{finished} || ($m->{lane} // '') eq 'retry' });
	# What waits would be woken by the next message that its host takes, and make connections of its own.
	$s->ctl('queue', 'remove', $id, '--yes', '--reason', 'seen') if !$m->{finished};
	return (join(' ', map { $_->{state} } @{ $m->{rcpt} // [] }), $m->{rcpt}[0]{reply} // $m->{last_reply} // '');
}

sub expect {
	my ($name, $state, $words, @part) = @_;
	my ($is, $reply) = outcome(@part);
	ok($is eq $state && $reply =~ $words, $name) or diag "$is: $reply";
}

# No part before this one leaves a connection that could be used again.
expect('a 5xx greeting is about the host', 'queued', qr/554/, 'say', 'greeting', '554 no service');
expect("hangs up at $_", 'queued', qr/closed the connection/, 'close', $_) for qw(greeting EHLO MAIL RCPT DATA body dot);
expect("421 at $_", 'queued', qr/421/, 'say', $_, '421 4.3.2 going down') for qw(greeting EHLO MAIL RCPT DATA dot);
expect('4xx to the dot', 'queued', qr/451/, 'say', 'dot', '451 4.3.0 later');
expect('5xx to the dot', 'bounced', qr/554/, 'say', 'dot', '554 5.7.1 no');
expect('5xx to MAIL', 'bounced', qr/550/, 'say', 'MAIL', '550 5.7.1 not you');
expect('a reply that would forge the log', 'bounced', qr/550/, 'say', 'MAIL', '550 5.7.1 no" fate=delivered');
unlike($s->log, qr/no" fate=delivered/, 'cannot');
expect("530 to $_ is about our login", 'queued', qr/530/, 'say', $_, '530 5.7.0 log in first') for qw(MAIL RCPT DATA);
expect('every recipient refused', 'bounced', qr/550/, 'say', 'RCPT', '550 5.1.1 unknown');
expect('2xx to DATA', 'queued', qr/250/, 'say', 'DATA', '250 what?');
expect('garbage', 'queued', qr/no SMTP reply/, 'raw', 'greeting', '"\x00\xff\r\n" x 10');
expect('a line without end', 'queued', qr/no SMTP reply/, 'raw', 'EHLO', '"250-" . "x" x 100_000');
expect('a reply without end', 'queued', qr/no SMTP reply/, 'raw', 'MAIL', '"250-x\r\n" x 100_000');
expect('an answer to the dot before the dot', 'queued', qr/250/, 'raw', 'DATA', '"354 go\r\n250 taken\r\n"');
$more = "\r\n" . ('x' x 78 . "\r\n") x 100_000; # more than all buffers on the way hold
expect("5xx in the middle of the content and hangs up, $_", 'bounced', qr/552/, 'raw', 'body', '"552 5.3.4 too big\r\n"') for 1 .. 3;
expect('4xx in the middle of the content and hangs up', 'queued', qr/452/, 'raw', 'body', '"452 4.3.1 full\r\n"');
open my $offer, '>', "$s->{dir}/offers-tls" or die $!;
my $secure = happened('secure');
expect("5xx in the middle of the content over TLS and hangs up, $_", 'bounced', qr/552/, 'raw', 'body', '"552 5.3.4 too big\r\n"') for 1 .. 3;
expect('4xx in the middle of the content over TLS and hangs up', 'queued', qr/452/, 'raw', 'body', '"452 4.3.1 full\r\n"');
cmp_ok(happened('secure') - $secure, '>=', 4, 'it was TLS');
unlink "$s->{dir}/offers-tls";
$more = '';
expect('answers in single octets', 'delivered', qr/250/, 'bytes');

# Connections that are kept.
my $connections = happened('connection');
expect("message $_ on the kept connection", 'delivered', qr/250/, 'ok') for 1 .. 3;
is(happened('connection'), $connections, 'needs no other');
for (['kept-close', 'MAIL', ''], ['kept-say', 'MAIL', '421 4.3.2 enough'], ['kept-say', 'MAIL', '550 5.7.1 enough']) {
	expect("of no use any more, @$_", 'delivered', qr/250/, @$_);
	is(happened('connection'), ++$connections, 'another one is made');
}
part('ok');
my $quits = happened('QUIT');
$s->advance(11_000);
ok(Sekisho::wait_for(10, sub { happened('QUIT') == $quits + 1 }), 'after 10 s without work: QUIT');
open $offer, '>', "$s->{dir}/offers-limits" or die $!;
$connections = happened('connection');
expect("message $_ to a host that takes two on a connection", 'delivered', qr/250/, 'ok') for 1 .. 5;
is(happened('connection'), $connections + 3, 'goes over three');
unlink "$s->{dir}/offers-limits";
$s->advance(11_000);
$connections = happened('connection');
my $complete = happened('complete');
for my $i (0 .. 101) {
	$c = $s->login($me) if $i % 51 == 0;
	$c->send_mail($me, "carol\@many.example", "many $i") =~ /^250/ or fail("message $i");
}
ok(Sekisho::wait_for(30, sub { happened('complete') == $complete + 102 }), '102 messages are delivered');
is(happened('connection'), $connections + 2, 'over two connections');
is($s->json('queue', 'audit')->{conserved}, JSON::PP::true, 'conserved');
done_testing;
