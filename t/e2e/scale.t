#!/usr/bin/perl
# Setup: 20,000 messages that wait in retry and fallback for 10,000 dead sites are all due when the service starts; nobody listens at most sites,
# every 200th never answers. Meanwhile one client sends fresh mail, and the queue is killed once.
# Expectation: the service starts; each fresh message is delivered by its first attempt while the backlog is still being attempted; whatever refuses is
# attempted or put off once and waits again; memory is bounded; the books are right, before and after the kill.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Backlog;
use Test::More;

my ($domains, $retry, $fallback) = (10_000, 15_000, 5_000);
my $all = $retry + $fallback;
my $refused = $all - $all / 200;
my $me = 'alice@example.test';
my $backlog = Backlog->new(domains => $domains, silent => 200);
my $s = $backlog->service(accounts => [$me], relay => 'connect_timeout: 300s');
$backlog->fill($s, 'retry', $retry, -3600, 3600);
$backlog->fill($s, 'fallback', $fallback, -3600, 3600);
$s->start_sink;
ok($s->start, 'it starts');

my ($name, $c, %accepted) = 0;
sub deferred { my %seen = map { $_ => 1 } $s->log =~ / (\w{26}) deferred to=r\d+\@d\d+\.dead /g; return scalar keys %seen }
sub audit {
	my ($what, %want) = @_;
	my $a;
	ok(Sekisho::wait_for(60, sub { $a = $s->json('queue', 'audit'); ref $a && $a->{conserved} && $a->{orphans} == 0 && $a->{queued} >= $all }), $what)
		or diag $s->ctl('queue', 'audit');
}

sub fresh {
	my ($what, $count) = @_;
	$c //= $s->login($me) or die 'no login';
	for (1 .. $count) {
		my ($id) = $c->send_mail($me, 'carol@example.org', 'fresh-' . ++$name . "-end\r\n") =~ /^250 2\.0\.0 Queued as (\w+)/;
		$accepted{$id // ''} = $name;
	}
	ok(!$accepted{''}, "$what: $count fresh messages are accepted");
	ok(Sekisho::wait_for(60, sub { my %seen = map { $_ => 1 } map { /^fresh-(\d+)-end/m } $s->delivered; keys %seen == $name }), "$what: all are delivered");
	is(scalar(grep { $accepted{$_} } $s->log =~ / (\w{26}) deferred /g), 0, "$what: at once");
	cmp_ok(deferred(), '<', $all, "$what: while the backlog is still being attempted");
}

ok(Sekisho::wait_for(60, sub { deferred() >= 1 }), 'the backlog is being attempted') or diag $s->log;
fresh('in the middle of it', 50);
my ($old) = $s->pids('sekisho-queue');
kill 'KILL', $old;
ok(Sekisho::wait_for(60, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && ($s->json('status') // {})->{queue} }), 'the queue was killed and is back');
undef $c;
ok(Sekisho::wait_for(60, sub { $c = $s->login($me); $c && $c->send_mail($me, 'carol@example.org', 'ready') =~ /^250/ }), 'and takes mail');
fresh('after that', 50);
audit('the books are right');
ok(Sekisho::wait_for(120, sub { deferred() >= $refused }), 'all that is refused has been attempted or put off') or diag deferred();
fresh('behind it', 20);
cmp_ok(Backlog::memory($s), '<', 600_000, 'memory is bounded');
audit('and still are');
is($s->stop, 0, 'stops cleanly');
done_testing;
