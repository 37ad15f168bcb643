#!/usr/bin/perl
# Setup: a host that refuses for now; the wall clock alone is set back by two days, by hours, and the queue killed under it.
# Expectation: time that passes makes retries due, whatever the wall clock says; after a restart nothing waits longer than the longest step of the schedule;
# fresh mail goes out at once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my ($minute, $hour) = (60_000, 3_600_000);
my $good = Sekisho->new(no_start => 1); # only its sink is used
my $s = Sekisho->new(clock => 1, no_sink => 1, no_start => 1);
$s->{extra} = qq(retry: { schedule: [5min, 15min, 15min, 15min, 15min], fallback_after: 1d }\nroutes:\n  "good.example": "127.0.0.1:$good->{ports}{sink}"\n  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start_sink('-r', 'rcpt');
$s->start;
my $me = 'alice@example.test';
$s->account($me);
my $c = $s->login($me) or die 'no login';

sub attempts {
	my ($id, $n, $what) = @_;
	my $m;
	ok(Sekisho::wait_for(10, sub { $m = $s->json('queue', 'show', $id); ref $m && $m->{attempts} == $n && $m->{lane} eq 'retry' }), $what) or diag explain $m;
}

my ($id) = $c->send_mail($me, 'carol@later.example', 'x') =~ /^250 2\.0\.0 Queued as (\w+)/;
attempts($id, 1, 'refused for now');
$s->jump(-48 * $hour);
$s->advance(6 * $minute);
attempts($id, 2, 'the wall clock is set back by two days: six minutes later it is tried again');
$s->jump(-2 * $hour);
$s->advance(17 * $minute);
attempts($id, 3, 'two hours more: tried again by the schedule');
$c = $s->login($me) or die 'no login';
like($c->send_mail($me, 'carol@good.example', "fresh-mail\r\n"), qr/^250/, 'fresh mail is accepted');
ok(Sekisho::wait_for(5, sub { grep { /^fresh-mail/m } $good->delivered }), 'and delivered at once');
my ($old) = $s->pids('sekisho-queue');
kill 'KILL', $old;
ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && ($s->json('status') // {})->{queue} }), 'the queue is killed and back');
attempts($id, 4, 'due in the impossible future: due now');
$s->advance(17 * $minute);
attempts($id, 5, 'and by the schedule from then on');
done_testing;
