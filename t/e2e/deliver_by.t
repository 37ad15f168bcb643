#!/usr/bin/perl
# Setup: the shared test clock; hosts that offer DELIVERBY, of which one refuses for now and later takes mail, and one that does not; classes with different priorities. Messages whose senders set a time to
# deliver them by (DELIVERBY, RFC 2852) or a priority (MT-PRIORITY, RFC 6710).
# Expectation: at its time, and not at the next attempt by the schedule, a message with R bounces as 5.4.7 with the last answer, and its sender is told;
# with N its sender is told once that it is late, and it is delivered when the host takes it. What is delivered in time is not spoken of. A kill of the queue
# before and at that time changes nothing. A priority is what the account's class allows at most. The books are conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my ($second, $minute, $hour) = (1000, 60_000, 3_600_000);
my $good = Sekisho->new(no_start => 1); # only its sink is used
my ($slow_port, $fast_port) = (Sekisho::free_port(), Sekisho::free_port());
my ($slow, $fast) = map { NextHop->new(port => $_) } $slow_port, $fast_port;
my $silent = IO::Socket::INET->new(Listen => 8, LocalAddr => '127.0.0.1') or die $!;
my $s = Sekisho->new(clock => 1, no_start => 1);
$s->{extra} = "quota: { recipients: 100000/day, messages: 100000/day, $Sekisho::UNPACED, priority: 2 }\nclasses: { urgent: { priority: 9 }, low: { priority: 0 } }\n"
	. qq(retry: { schedule: [4h], fallback_after: 1d, expire: 4d, delay_notice: [20h] }\nroutes:\n  "good.example": "127.0.0.1:$fast_port"\n  "slow.example": "127.0.0.1:$slow_port"\n  "silent.example": "127.0.0.1:${\ $silent->sockport}"\n)
	. qq(  "example.test": "127.0.0.1:$good->{ports}{sink}"\n  "*": "127.0.0.1:$s->{ports}{sink}"\nrelay: { deliveries: 1 }\n);
$s->write_conf;
$slow->offers('DELIVERBY', { RCPT => '450 4.2.1 not now' });
$fast->offers('DELIVERBY 10');
$s->start;
my ($me, $urgent, $low) = map { "$_\@example.test" } qw(alice bob carol);
$s->account($me, $urgent, $low);
$s->ctl('account', 'class', $urgent, 'urgent');
$s->ctl('account', 'class', $low, 'low');

sub mail {
	my ($params, $name, $to) = @_;
	my $c = $s->login($me) or return '';
	my $said = $c->cmd("MAIL FROM:<$me> $params");
	return $said unless $said =~ /^250/;
	$c->cmd("RCPT TO:<$to>");
	$c->cmd('DATA');
	$c->raw("From: <$me>\r\nSubject: $name\r\n\r\n$name\r\n.\r\n");
	my ($id) = $c->reply =~ /^250 2\.0\.0 Queued as (\w+)/;
	return $id;
}

sub state_of { my $m = $s->show($_[0]); return ($m->{rcpt} // [{}])->[0]{state} // '' }
sub told { my ($id) = @_; return grep { /^X-Mail-Args: <>/m && /\b\Q$id\E\b/ } $good->delivered }

sub attempted {
	my ($id, $n, $what) = @_;
	ok(Sekisho::wait_for(20, sub { my $m = $s->show($id); ($m->{attempts} // 0) >= $n && $m->{lane} ne 'fresh' }), $what) or diag explain $s->show($id);
}

sub kill_queue {
	my ($old) = $s->pids('sekisho-queue');
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && ($s->json('status') // {})->{queue} }), 'the queue was killed and is back');
}

# --- back by then ---

my $id = mail('BY=3600;R', 'return', 'carol@slow.example');
attempted($id, 1, 'R: refused for now');
$s->advance($hour - 2 * $minute);
is(state_of($id), 'queued', 'R: two minutes before its time it waits');
is(scalar told($id), 0, 'R: and nobody is told');
$s->advance(2 * $minute + $second);
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'R: at its time it ends, hours before the next attempt') or diag explain $s->show($id);
is(state_of($id), 'bounced', 'R: bounced');
like($s->show($id)->{rcpt}[0]{reply}, qr/^5\.4\.7 not delivered by the time its sender gave; last: 450 /, 'R: as 5.4.7, with the last answer');
ok(Sekisho::wait_for(20, sub { told($id) }), 'R: its sender is told');
my ($notice) = told($id);
like($notice, qr/^Action: failed\r?$/m, 'R: that it failed');
like($notice, qr/^Status: 5\.4\.7\r?$/m, 'R: because of its time');

my @twice = map { mail('BY=3600;R', "killed $_", 'carol@slow.example') } 1, 2;
attempted($_, 1, 'R: refused for now') for @twice;
kill_queue();
$s->advance($hour - 2 * $minute);
is(state_of($_), 'queued', 'R, killed: it waits') for @twice;
my ($pid) = $s->pids('sekisho-queue');
kill 'STOP', $pid;
$s->advance(3 * $minute);
kill 'KILL', $pid;
ok(Sekisho::wait_for(30, sub { 2 == grep { $s->show($_)->{finished} } @twice }), 'R: a time that passes while the queue is down is over at its start');
is(state_of($_), 'bounced', 'R, killed: bounced') for @twice;
ok(Sekisho::wait_for(20, sub { my $n = $_; 1 == told($twice[0]) && 1 == told($twice[1]) }), 'R, killed: told once');

# One host has refused already, the other is silent until the time is over.
my $c = $s->login($me);
$c->cmd("MAIL FROM:<$me> BY=3600;R");
$c->cmd("RCPT TO:<carol\@$_.example>") for 'slow', 'silent';
$c->cmd('DATA');
$c->raw("From: <$me>\r\nSubject: two\r\n\r\ntwo\r\n.\r\n");
($id) = $c->reply =~ /^250 2\.0\.0 Queued as (\w+)/;
ok(Sekisho::wait_for(20, sub { ($s->show($id)->{rcpt}[0]{reply} // '') =~ /^450 / }), 'R, two hosts: one has refused') or diag explain $s->show($id);
ok(my $held = $silent->accept, 'R, two hosts: one says nothing');
$s->advance($hour + $second);
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'R, two hosts: at its time both end') or diag explain $s->show($id);
ok(Sekisho::wait_for(20, sub { 2 == (() = join('', told($id)) =~ /^Status: 5\.4\.7\r?$/mg) }), 'R, two hosts: the sender is told of both');

$id = mail('BY=3600;R', 'in time', 'dave@good.example');
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'R: what arrives in time');
is(state_of($id), 'delivered', 'R: is delivered');
is(scalar told($id), 0, 'R: and nobody is told');
my ($by) = join('', $fast->heard) =~ /BY=(\d+);R/;
ok(defined $by && $by <= 3600 && $by > 3500, 'R: the next hop hears what is left of the time') or diag $fast->heard;
$id = mail('BY=3600;R', 'no promise', 'dave@other.example');
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'R: a next hop that promises nothing');
is(state_of($id), 'bounced', 'R: gets nothing');

# --- told by then ---

$id = mail('BY=3600;N', 'notify', 'carol@slow.example');
my $past = mail('BY=-60;N', 'past', 'carol@slow.example');
attempted($_, 1, 'N: refused for now') for $id, $past;
$s->advance($hour - 2 * $minute);
is(scalar told($id), 0, 'N: two minutes before its time nobody is told');
$s->advance(2 * $minute + $second);
ok(Sekisho::wait_for(20, sub { told($id) }), 'N: at its time its sender is told') or diag explain $s->show($id);
like((told($id))[0], qr/^Action: delayed\r?$/m, 'N: that it is late');
is(state_of($id), 'queued', 'N: it is tried on');
$slow->offers('DELIVERBY');
$s->advance(5 * $hour);
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} && $s->show($past)->{finished} }), 'N: and arrives') or diag $s->ctl('queue', 'list');
is(state_of($id), 'delivered', 'N: late');
is(scalar told($id), 1, 'N: told once');
is(scalar told($past), 0, 'N: of a time that had passed before, who let it pass has told');

# --- priorities ---

for ([$me, 3, qr/^250 2\.3\.6 2 /], [$me, 2, qr/^250 2\.1\.0 /], [$me, -9, qr/^250 2\.1\.0 /], [$urgent, 9, qr/^250 2\.1\.0 /], [$low, 1, qr/^250 2\.3\.6 0 /]) {
	my ($account, $priority, $expected) = @$_;
	my $c = $s->login($account) or die 'no login';
	like($c->cmd("MAIL FROM:<$account> MT-PRIORITY=$priority"), $expected, "$account asks for $priority");
}
my $audit;
ok(Sekisho::wait_for(30, sub { $audit = $s->json('queue', 'audit'); $audit && $audit->{conserved} && $audit->{queued} == 0 }), 'conserved') or diag $s->ctl('queue', 'audit');
done_testing;
