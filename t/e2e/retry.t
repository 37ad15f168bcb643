#!/usr/bin/perl
# Setup: two receiving sites, one good and one that refuses for now, for good, or hangs up; the shared test clock moves from attempt to attempt; queue and
# relays are killed in between.
# Expectation: a message refused for now is attempted exactly when the schedule says (10 % either way), waits in the retry lane, later in fallback, and is
# delivered once when the site recovers or expires at its age; one refused for good bounces at once; each recipient has an outcome of its own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;
use Time::Local qw(timegm);

my ($minute, $hour) = (60_000, 3_600_000);
my $good = Sekisho->new(no_start => 1); # only its sink is used
my $silent = IO::Socket::INET->new(Listen => 8, LocalAddr => '127.0.0.1') or die $!;
my $s = Sekisho->new(clock => 1, no_sink => 1, no_start => 1);
# Notifications to our own senders go to the good one.
$s->{extra} = qq(routes:\n  "good.example": "127.0.0.1:$good->{ports}{sink}"\n  "example.test": "127.0.0.1:$good->{ports}{sink}"\n  "silent.example": "127.0.0.1:${\ $silent->sockport}"\n  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start_sink('-r', 'rcpt');
$s->start;
my $me = 'alice@example.test';
$s->account($me);

sub ms { # of an RFC 3339 time
	my ($y, $mo, $d, $h, $mi, $se, $zone, $zh, $zm) = ($_[0] // '') =~ /^(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(?:\.\d+)?(?:Z|([+-])(\d+):(\d+))$/ or return 0;
	my $away = $zone ? ($zh * 60 + $zm) * 60 * ($zone eq '-' ? -1 : 1) : 0;
	return 1000 * (timegm($se, $mi, $h, $d, $mo - 1, $y) - $away);
}

sub send_one {
	my ($body, @to) = @_;
	my $c = $s->login($me) or return;
	my $said = $c->send_mail($me, \@to, $body);
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/;
	ok($id, "accepted for @to") or diag $said;
	return $id;
}


sub attempted {
	my ($id, $n) = @_;
	my $m;
	# Attempts count before the move to another lane: wait for both.
	my $yes = Sekisho::wait_for(20, sub { $m = $s->show($id); ($m->{attempts} // -1) >= $n && ($m->{finished} || $m->{lane} ne 'fresh' && ms($m->{due}) > $s->now) });
	ok($yes && $m->{attempts} == $n, "attempt $n is made") or diag explain $m;
	return $m;
}

sub state_of { my ($m) = @_; return join ' ', map { $_->{state} } @{ $m->{rcpt} // [] } }
sub arrived { my ($sink, $what) = @_; return scalar(grep { /^\Q$what\E\r?$/m } $sink->delivered) }

sub conserved {
	my ($queued, $what) = @_;
	my $a;
	ok(Sekisho::wait_for(20, sub { $a = $s->json('queue', 'audit'); $a && $a->{queued} == $queued && $a->{conserved} }), "conserved: $what")
		or diag $s->ctl('queue', 'audit');
	return $a;
}

sub kill_all {
	my ($name) = @_;
	my %old = map { $_ => 1 } my @old = $s->pids($name);
	kill 'KILL', @old;
	ok(Sekisho::wait_for(20, sub { my @new = grep { !$old{$_} } $s->pids($name); @new == @old && $s->json('queue', 'audit') }), "$name is back");
}

# What is due has been handed out once another message has gone all the way to the retry lane, and away.
sub another {
	my $other = send_one('another', 'dave@other.example');
	attempted($other, 1);
	$s->ctl('queue', 'remove', $other, '--yes');
	ok(Sekisho::wait_for(20, sub { $s->show($other)->{finished} }), 'another came and went');
}

my $id = send_one('first-message', 'carol@slow.example');
my $before = $s->now;
my $m = attempted($id, 1);
my $n = 1;
for my $wait (2, 5, 10) {
	is($m->{lane}, 'retry', 'it waits in the retry lane');
	like($m->{last_reply}, qr/\b4\d\d\b/, 'its last reply is told');
	is(state_of($m), 'queued', 'its recipient is queued');
	my $rest = ms($m->{due}) - $before;
	ok($rest >= 0.9 * $wait * $minute - 3000 && $rest <= 1.1 * $wait * $minute + 5000, "due in $wait min, 10 % either way") or diag $rest;
	$s->advance(ms($m->{due}) - $s->now - 3000);
	another();
	my $made = $s->show($id)->{attempts};
	ok($made == $n || $s->now >= ms($m->{due}), 'not before it is due') or diag $made;
	if ($wait == 5) { kill_all('sekisho-queue') }
	if ($wait == 10) { kill_all('sekisho-relay') }
	$s->advance(ms($m->{due}) + 2000 - $s->now);
	$before = $s->now;
	$m = attempted($id, ++$n);
	another();
	is($s->show($id)->{attempts}, $n, 'and only once');
}
conserved(1, 'still one');
$s->stop_sink;
$s->start_sink;
is(arrived($s, 'first-message'), 0, 'not delivered yet');
$s->advance(ms($m->{due}) + 2000 - $s->now);
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'the site is well again: finished') or diag explain $s->show($id);
is(state_of($s->show($id)), 'delivered', 'delivered');
is(arrived($s, 'first-message'), 1, 'once');
conserved(0, 'nothing left');

# Old mail.
$s->stop_sink;
$s->start_sink('-q', 'rcpt'); # hangs up
$id = send_one('old-message', 'carol@slow.example');
my $accepted = $s->now;
$m = attempted($id, $n = 1);
is($m->{lane}, 'retry', 'a site that hangs up: retry');
my ($lanes_right, $last) = (1, 0);
while ($n < 100 && !$m->{finished}) {
	my $age = ms($m->{due}) + 2000 - $accepted;
	$s->advance(ms($m->{due}) + 2000 - $s->now);
	$m = attempted($id, ++$n);
	last unless $m->{attempts} && $m->{attempts} == $n;
	if ($n == 4) { kill_all('sekisho-relay') }
	if ($n == 6) { kill_all('sekisho-queue') }
	next if $m->{finished};
	my $want = $age > 4 * $hour + 5000 ? 'fallback' : $age < 4 * $hour - 5000 ? 'retry' : $m->{lane};
	$lanes_right = 0, diag "age $age: $m->{lane}" if $m->{lane} ne $want;
	$last = $age;
}
ok($lanes_right, 'below 4 h in the retry lane, above in fallback');
ok($m->{finished}, "finished after $n attempts") or diag explain $m;
is(state_of($m), 'expired', 'expired');
ok($s->now - $accepted >= 96 * $hour && $s->now - $accepted < 97 * $hour, 'after 4 days') or diag $s->now - $accepted;
is(conserved(0, 'nothing left')->{expired}, 1, 'the audit knows of it');
is(arrived($s, 'old-message'), 0, 'and nobody got it');

# One site has refused for now, the other says nothing until the time is over.
$id = send_one('two-ends', 'carol@slow.example', 'dave@silent.example');
ok(Sekisho::wait_for(20, sub { grep { $_->{reply} } @{ $s->show($id)->{rcpt} // [] } }), 'one site has hung up') or diag explain $s->show($id);
ok(my $held = $silent->accept, 'one says nothing');
$s->advance(96 * $hour + $minute);
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'at the end of their time both end, and not at the next attempt') or diag explain $s->show($id);
is(state_of($s->show($id)), 'expired expired', 'expired');

# Refused for good.
$s->stop_sink;
$s->start_sink('-f', 'rcpt');
$id = send_one('bad-message', 'carol@bad.example');
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'refused for good: finished at once');
$m = $s->show($id);
is(state_of($m), 'bounced', 'bounced');
like($m->{rcpt}[0]{reply}, qr/^5\d\d/, 'with the reply of the site');
is($m->{attempts}, 1, 'after one attempt');
is(conserved(0, 'nothing left')->{bounced}, 1, 'the audit knows of it');

# Each recipient by itself.
$id = send_one('two-sites', 'carol@good.example', 'dave@bad.example');
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'a good and a refusing site: finished');
my %state = map { $_->{address} => $_->{state} } @{ $s->show($id)->{rcpt} };
is_deeply(\%state, { 'carol@good.example' => 'delivered', 'dave@bad.example' => 'bounced' }, 'each recipient has its own outcome');
$s->stop_sink;
$s->start_sink('-r', 'rcpt');
$id = send_one('two-sites-again', 'carol@good.example', 'dave@slow.example');
$m = attempted($id, 1);
%state = map { $_->{address} => $_->{state} } @{ $m->{rcpt} };
is_deeply(\%state, { 'carol@good.example' => 'delivered', 'dave@slow.example' => 'queued' }, 'one delivered, one waits');
is($m->{unfinished}, 1, 'one is unfinished');
kill_all('sekisho-queue');
kill_all('sekisho-relay');
$s->advance(ms($m->{due}) + 2000 - $s->now);
$m = attempted($id, 2);
$s->stop_sink;
$s->start_sink;
$s->advance(ms($m->{due}) + 2000 - $s->now);
ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'finished when the other is well again') or diag explain $s->show($id);
is(state_of($s->show($id)), 'delivered delivered', 'both delivered');
is(arrived($good, 'two-sites'), 1, 'the good site got each');
is(arrived($good, 'two-sites-again'), 1, 'once');
is(arrived($s, 'two-sites-again'), 1, 'and so did the other');
conserved(0, 'nothing left');
done_testing;
