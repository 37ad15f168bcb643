#!/usr/bin/perl
# Setup: two domains at one site where nobody listens, one at another that does; the shared test clock moves past the site's back-off; then somebody listens,
# and the service is restarted in between.
# Expectation: after a few failures the site is left alone: further mail for either domain waits in the retry lane without an attempt, with the reason, its
# last answer and the rule; mail for the other site goes at once. As soon as one message arrives, all others that wait for the site do, long before they are
# due. The books and the index are right.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $minute = 60_000;
my $site = Sekisho->new(no_start => 1, no_sink => 1); # only its sink is used
my $where = "127.0.0.1:$site->{ports}{sink}";
my $s = Sekisho->new(clock => 1, no_start => 1);
$s->{extra} = "${Sekisho::UNLIMITED}log: { level: debug }\nroutes:\n" . join('', map { qq(  "$_.example": "$where"\n) } 'one', 'two') . qq(  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);

sub mail { return $s->submit($me, "x
", @_) }
sub waits { my ($id) = @_; my $m = $s->show($id); return ($m->{lane} // '') eq 'retry' && ($m->{attempts} // 0) >= 1 && !$m->{finished} && $m }
sub logged { my ($what) = @_; return () = $s->log =~ /$what/g }
sub audit {
	my ($queued, $what) = @_;
	my $a;
	ok(Sekisho::wait_for(20, sub { $a = $s->json('queue', 'audit'); $a && $a->{queued} == $queued && $a->{conserved} && $a->{orphans} == 0 }), $what)
		or diag $s->ctl('queue', 'audit');
}

# One at a time, so that each is a failure of its own: 5, 2, 1 at once, and a pause.
my @waiting;
for my $n (1 .. 3) {
	push @waiting, my $id = mail('a@one.example');
	ok(Sekisho::wait_for(20, sub { waits($id) }), "failure $n: it waits") or diag explain $s->show($id);
	unlike($s->show($id)->{last_reply}, qr/^not attempted/, "failure $n: it was attempted");
	$s->advance(1000);
}
ok(Sekisho::wait_for(20, sub { logged(qr/ site-paused site=\Q$where\E until=\S+ rule=back-off failures=1 /) }), 'then the site is paused');
is(logged(qr/ site-learned domain=one\.example site=\Q$where\E/), 1, 'whose name was learned');
# Made due within the pause it would be put off by a step, without an attempt, and come later than without a flush.
my $until = $s->json('site', 'show', 'one.example')->{until};
like($s->ctl('queue', 'flush', $waiting[0]), qr/^due now: 1 /m, 'a flush meanwhile');
is($s->show($waiting[0])->{due}, $until, 'is for the end of the pause');

push @waiting, my $id = mail('b@one.example');
ok(Sekisho::wait_for(20, sub { waits($id) }), 'more for the domain waits in the retry lane') or diag explain $s->show($id);
like($s->show($id)->{last_reply}, qr/^not attempted: site \Q$where\E waits until \S+ \(back-off\)$/, 'without an attempt');
push @waiting, mail('c@two.example') for 1 .. 3;
ok(Sekisho::wait_for(20, sub { waits($waiting[-1]) && logged(qr/ site-learned domain=two\.example site=\Q$where\E/) }), 'the other domain turns out to be there too');
push @waiting, $id = mail('c@two.example');
ok(Sekisho::wait_for(20, sub { waits($id) }), 'and waits');
like($s->show($id)->{last_reply}, qr/^not attempted: site \Q$where\E waits/, 'without an attempt');
my $good = mail('d@good.example');
ok(Sekisho::wait_for(20, sub { $s->show($good)->{finished} }), 'mail for another site goes at once');

# What is due and meets the pause keeps its last answer.
for my $n (2 .. 5) {
	$s->advance(35 * $minute);
	ok(Sekisho::wait_for(20, sub { @waiting == grep { my $m = waits($_); $m && $m->{attempts} >= $n } @waiting }), "step $n: each has had it") or diag $s->ctl('queue', 'list');
}
my @kept = grep { ($s->show($_)->{last_reply} // '') =~ /^not attempted: site \Q$where\E waits until \S+ \(back-off\); last: (?!not attempted)/ } @waiting;
cmp_ok(scalar @kept, '>=', 1, 'what meets a pause keeps its last answer') or diag explain [map { $s->show($_)->{last_reply} } @waiting];
my $pauses = logged(qr/ site-paused /);
cmp_ok($pauses, '>=', 2, 'longer pauses follow');
audit(scalar @waiting, 'conserved, with the index');

$site->start_sink;
$s->advance(2 * 60 * $minute); # behind any pause, before some are due
ok(Sekisho::wait_for(30, sub { @waiting == grep { $s->show($_)->{finished} } @waiting }), 'somebody listens: all are delivered') or diag $s->ctl('queue', 'list');
is(logged(qr/ site-resumed site=\Q$where\E/), 1, 'the site is resumed') or diag $s->log;
is(scalar($site->delivered), scalar @waiting, 'each once');
audit(0, 'conserved');

# Woken: the pause is over, and nothing is due for hours but one new message.
$site->stop_sink;
@waiting = map { my $id = mail('e@one.example'); Sekisho::wait_for(20, sub { waits($id) }); $s->advance(1000); $id } 1 .. 60;
for my $n (2 .. 7) {
	$s->advance(75 * $minute);
	ok(Sekisho::wait_for(20, sub { @waiting == grep { my $m = $s->show($_); ($m->{attempts} // 0) >= $n && $m->{lane} ne 'fresh' } @waiting }), "again, step $n") or diag $s->ctl('queue', 'list');
}
$s->stop;
$s->start;
audit(60, 'conserved: all wait');
my $tell = mail('f@one.example');
ok(Sekisho::wait_for(20, sub { waits($tell) }), 'one more waits');
like($s->show($tell)->{last_reply}, qr/^not attempted: site \Q$where\E waits/, 'without an attempt: the site and its pause are remembered');
my $waiting = grep { !$s->show($_)->{finished} } @waiting;
is($waiting, 60, 'still all wait');
$site->start_sink;
my $before = $s->now;
$s->advance(70 * $minute); # behind any pause, but none of the sixty is due
ok(Sekisho::wait_for(30, sub { @waiting == grep { $s->show($_)->{finished} } @waiting }), 'one is delivered, and wakes all the others') or diag $s->ctl('queue', 'list');
ok($s->now - $before < 75 * $minute, 'before they were due');
ok(Sekisho::wait_for(20, sub { logged(qr/ site-woken site=\Q$where\E messages=\d+/) }), 'which is told');
audit(0, 'conserved at the end');
done_testing;
