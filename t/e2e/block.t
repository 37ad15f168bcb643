#!/usr/bin/perl
# Setup: an egress pool of two addresses, a next hop that calls the address that mail comes from blocked, the shared test clock.
# Expectation: an address that was blocked is kept away from that site for as long as the rule says, the message is tried again from the other one; nothing
# is paused for that. When no address is left the reply's code counts. Afterwards the first address is used again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my $minute = 60_000;
my $port = Sekisho::free_port();
my $hop = NextHop->new(port => $port);
my $s = Sekisho->new(clock => 1, no_sink => 1, no_start => 1);
$s->{extra} = <<"CONF";
quota: { $Sekisho::UNPACED, pool: ours }
egress:
  - { name: ours, sources: ["127.0.0.2", "127.0.0.3"] }
routes: { "*": "127.0.0.1:$port" }
retry: { schedule: [5min] }
CONF
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);

sub mail {
	my ($body) = @_;
	my $c = $s->login($me) or die 'no login';
	my ($id) = $c->send_mail($me, 'b@one.example', $body) =~ /Queued as (\w+)/ or die 'not taken';
	return $id;
}
sub fate {
	my ($id) = @_;
	my $m;
	Sekisho::wait_for(20, sub { $m = $s->json('queue', 'show', $id); $m = {} if !ref $m; $m->{finished} || ($m->{lane} // '') ne 'fresh' });
	return "$m->{rcpt}[0]{state} $m->{rcpt}[0]{reply}";
}
# In order; a notification that is under way when an address is blocked meets it once more.
sub blocked { my %seen; return grep { !$seen{$_}++ } $s->log =~ / reply-rule rule=blocklisted site=\S+ action=block source=(\S+)/g }

my $no = { RCPT => '554 5.7.1 listed at spamhaus' };
$hop->offers($no);
my $id = mail('first');
is(fate($id), 'queued tried again by rule blocklisted; last: 554 5.7.1 listed at spamhaus', 'a block of one address is not the last word');
my ($one) = blocked();
like($one, qr/^127\.0\.0\.[23]$/, 'the log says which');
my ($other) = grep { $_ ne $one } '127.0.0.2', '127.0.0.3';
unlike($s->log, qr/ site-paused /, 'nothing is paused');
my ($queue) = $s->pids('sekisho-queue');
kill 'TERM', $queue;
ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $queue && $s->json('queue', 'audit') }), 'the queue is started anew');
$hop->offers;
$s->advance(6 * $minute);
my @from;
ok(Sekisho::wait_for(20, sub { @from = $hop->sources(qr/^first\r?$/m) }), 'it arrives') or diag $s->ctl('queue', 'list'), $s->log;
is("@from", $other, 'from the other address');
$hop->offers($no);
like(fate(mail('second')), qr/^bounced 554 5\.7\.1 listed/, 'none is left: the code counts');
is_deeply([blocked()], [$one, $other], 'both are blocked');
my $late = mail('third');
like(fate($late), qr/^queued .*egress pool ours has no address left/, 'nothing leaves for there');
$hop->offers;
$s->advance(6 * 60 * $minute);
ok(Sekisho::wait_for(30, sub { $hop->sources(qr/^third\r?$/m) }), 'until their time is over') or diag $s->ctl('queue', 'list'), $s->log;
done_testing;
