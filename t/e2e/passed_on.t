#!/usr/bin/perl
# Setup: the shared test clock and a next hop that offers what the test says.
# Expectation: the priority of a message (MT-PRIORITY, RFC 6710) and the time that its sender gave it (DELIVERBY, RFC 2852), less what has passed, go to a
# next hop that offers the extension. What must be delivered in time or returned comes back from one that does not, or that wants more time than is left;
# who wanted to be told of a delay hears that nobody will tell any more, and with the trace modifier of each hop. The books are conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my $hop_port = Sekisho::free_port();
my $hop = NextHop->new(port => $hop_port);
my $s = Sekisho->new(clock => 1, no_start => 1);
$s->{extra} = <<"CONF";
quota: { $Sekisho::UNPACED, priority: 4 }
routes:
  example.test: "127.0.0.1:$s->{ports}{sink}"
  "*": "127.0.0.1:$hop_port"
relay: { deliveries: 1 } # each message meets the offers of its time
retry: { schedule: [1h] }
CONF
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);
my $c = $s->login($me) or BAIL_OUT $s->log;
my ($number, $told) = (0, 0);

sub send_one {
	my ($parameters, $notify) = @_;
	my @said = ($c->cmd("MAIL FROM:<$me>$parameters"), $c->cmd('RCPT TO:<a@hop.example>' . ($notify // '')));
	is(join('', grep { !/^250/ } @said), '', "$parameters: taken");
	$c->cmd('DATA');
	$c->raw("From: <$me>\r\nSubject: number-" . ++$number . "-\r\n\r\nbody\r\n.\r\n");
	my ($id) = $c->reply =~ /^250 2\.0\.0 Queued as (\w+)/ or BAIL_OUT $s->log;
	return $id;
}

sub ends {
	my ($id, $state, $words) = @_;
	my $m;
	Sekisho::wait_for(30, sub { $m = $s->json('queue', 'show', $id); ref $m && ($m->{attempts} // 0) >= 1 && ($m->{finished} || $m->{lane} ne 'fresh') });
	is(ref $m && $m->{rcpt}[0]{state}, $state, $state);
	like($m->{rcpt}[0]{reply} || $m->{last_reply}, $words, 'for this reason');
}

sub last_mail { return ($hop->heard(qr/^MAIL/))[-1] // '' }

# How many more notifications there are about the last message, each of the given kind.
sub is_told {
	my ($count, $action) = @_;
	$told += $count;
	my $a;
	ok(Sekisho::wait_for(20, sub { $a = $s->json('queue', 'audit'); ref $a && $a->{conserved} && $a->{generated} == $told }), "$count notifications") or diag explain $a;
	ok(Sekisho::wait_for(20, sub { grep { /number-$number-/ && /^Action: $action\r?$/m } $s->delivered }), $action) if $count;
}

$hop->offers('MT-PRIORITY STANAG4406', 'DSN');
ends(send_one(' MT-PRIORITY=3'), 'delivered', qr/^250/);
is(last_mail(), "MAIL FROM:<$me> MT-PRIORITY=3", 'a priority goes on');
ends(send_one(' MT-PRIORITY=-9'), 'delivered', qr/^250/);
is(last_mail(), "MAIL FROM:<$me> MT-PRIORITY=-9", 'a low one too');
ends(send_one(' MT-PRIORITY=9'), 'delivered', qr/^250/);
is(last_mail(), "MAIL FROM:<$me> MT-PRIORITY=4", 'no higher than the class allows');
ends(send_one(''), 'delivered', qr/^250/);
is(last_mail(), "MAIL FROM:<$me>", 'none without one');
$hop->offers;
ends(send_one(' MT-PRIORITY=3'), 'delivered', qr/^250/);
is(last_mail(), "MAIL FROM:<$me>", 'nor to who does not know it');
is_told(0);

$hop->offers('DELIVERBY 60');
ends(send_one(' BY=3600;R'), 'delivered', qr/^250/);
like(last_mail(), qr/^MAIL FROM:<\Q$me\E> BY=3(?:600|5\d\d);R$/, 'the time that is left goes on');
ends(send_one(' BY=3600;N'), 'delivered', qr/^250/);
like(last_mail(), qr/ BY=3(?:600|5\d\d);N$/, 'to be told of, too');
is_told(0);
ends(send_one(' BY=3600;RT'), 'delivered', qr/^250/);
like(last_mail(), qr/ BY=3(?:600|5\d\d);RT$/, 'and to be traced');
is_told(1, 'relayed');

$hop->offers('DELIVERBY 7200');
my $before = $hop->heard(qr/^MAIL/);
ends(send_one(' BY=3600;R'), 'bounced', qr/^5\.4\.7 .*too little/);
is_told(1, 'failed');
$hop->offers('DSN');
ends(send_one(' BY=3600;R'), 'bounced', qr/^5\.4\.7 .*in time/);
is_told(1, 'failed');
is(scalar $hop->heard(qr/^MAIL/), $before, 'nothing was said of them');
ends(send_one(' BY=3600;N'), 'delivered', qr/^250/);
is(last_mail(), "MAIL FROM:<$me>", 'who does not know it is not asked');
is_told(1, 'relayed');
ends(send_one(' BY=3600;N', ' NOTIFY=NEVER'), 'delivered', qr/^250/);
is_told(0);

$hop->offers('DELIVERBY', { RCPT => '450 4.2.1 later' });
my $id = send_one(' BY=60;N', ' NOTIFY=FAILURE');
ends($id, 'queued', qr/^450/);
my $oldest = send_one(' BY=-999999999;N', ' NOTIFY=FAILURE');
ends($oldest, 'queued', qr/^450/);
$hop->offers('DELIVERBY');
$s->advance(2 * 3_600_000);
for ($id, $oldest) {
	my $message = $_;
	Sekisho::wait_for(30, sub { my $m = $s->json('queue', 'show', $message); ref $m && $m->{finished} });
}
my @last = ($hop->heard(qr/^MAIL/))[-2, -1];
is(scalar(grep { / BY=-7[01]\d\d;N$/ } @last), 1, 'a time that is over goes on below zero') or diag @last;
is(scalar(grep { / BY=-999999999;N$/ } @last), 1, 'by as much as can be said') or diag @last;
is($s->stop, 0, 'stops cleanly');
done_testing;
