#!/usr/bin/perl
# Setup: a service whose queue is killed, or whose disk fails, at one named step of a move (t/durability/fault.c): between all lanes, there and back, by
# rules that ask what the next hop answered, and by an operator's reroute.
# Expectation: whatever the step, the message is in one place, the books are conserved and a check finds nothing, also while the second half of a move cannot
# be written; a reroute that was interrupted is begun again. When its host takes it, it comes once, because nobody was given it when the queue died, and
# its history is told whole, each move once. A disk that works again, or has room, is enough for all to go on.
# Every third step is taken; SEKISHO_FAULTS=1 takes them all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Errno qw(EIO ENOSPC);
use Fault;
use NextHop;
use Test::More;

plan skip_all => 'the fault layer and the address sanitizer both want to be loaded first' if $Sekisho::BUILD =~ /san/;
my ($later, $full) = ({ RCPT => '450 4.2.1 later' }, { RCPT => '452 4.2.2 mailbox full' });
my $hop = NextHop->new(port => Sekisho::free_port());
my $fault = Fault->new(no_start => 1);
my $s = $fault->service;
$s->{extra} = "${Sekisho::UNLIMITED}limits: { messages: 10000 }\nroutes: { \"*\": \"127.0.0.1:$hop->{port}\" }\n"
	. "lanes: { rules: [{ to: retry, reply: full }, { to: fallback, attempts: 2 }] }\n";
$s->write_conf;
$s->start;
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 1800;
my $me = 'alice@example.test';
$s->account($me);
my ($count, @names) = (0);

sub recent { return join "\n", grep { defined } (split /\n/, $s->log)[-25 .. -1] }
sub signal_relays { kill $_[0], $s->pids('sekisho-relay') }
sub waits { my ($id, $lane, $attempts) = @_; my $m = $s->show($id); return ($m->{state} // '') eq 'deferred' && (!$lane || $m->{lane} eq $lane) && $m->{attempts} >= ($attempts // 1) }
sub alone { my $a = $s->json('queue', 'audit'); return ref $a && $a->{conserved} && $a->{messages} == 1 }

# One that the next hop does not take yet, at rest in the lane; in fresh not yet attempted.
sub one_in {
	my ($lane, $what) = @_;
	$hop->offers($later);
	$s->advance(11_000); # no process is young any more, so the next restart comes at once
	my $name = 'case-' . ++$count . '-end';
	my $id;
	signal_relays('STOP') if $lane eq 'fresh';
	ok(Sekisho::wait_for(30, sub { $id = eval { $s->submit($me, $name, 'carol@later.example') } }), "$what: accepted") or diag recent();
	push @names, $name;
	my $there = $lane eq 'fresh' || Sekisho::wait_for(30, sub { waits($id, 'retry') });
	if ($lane eq 'fallback') {
		$s->ctl('queue', 'reroute', $id, '--to', 'fallback');
		$there &&= waits($id, 'fallback');
	}
	ok($there && $fault->at_rest, "$what: it waits in $lane") or diag recent(), $s->ctl('queue', 'show', $id);
	return $id;
}

sub arm {
	my ($from, $to, $point, $action, $skip, $error) = @_;
	$point =~ s/FROM/$from/;
	$point =~ s/TO/$to/;
	$fault->arm($point, $action, skip => $skip, error => $error // 0);
}

sub called {
	my ($from, $to, $point, $action, $skip, $error) = @_;
	local $! = $error // 0;
	return "$from to $to, $point " . ($error ? "fails ($!)" : "killed $action") . ($skip ? ', of the second commit' : '');
}

# What must hold now; then its host takes it.
sub ends_well {
	my ($id, $what, $moves) = @_;
	ok(Sekisho::wait_for(30, sub { alone() && waits($id) }), "$what: it waits in one place, conserved") or diag recent(), $s->ctl('queue', 'audit'), $s->ctl('queue', 'show', $id);
	my $said = $s->ctl('queue', 'check');
	is($?, 0, "$what: nothing is wrong") or diag $said;
	$hop->offers();
	ok(Sekisho::wait_for(30, sub { $s->ctl('queue', 'flush', $id); $s->show($id)->{finished} }), "$what: it goes") or diag recent(), $s->ctl('queue', 'show', $id);
	my $life = '';
	ok(Sekisho::wait_for(20, sub { $s->advance(1000); $life = join ' ', map { $_->{event} } @{ ($s->json('trace', $id) // {})->{events} // [] }; $life =~ / ended$/ }),
		"$what: its history has an end");
	like($life, $moves, "$what: and is whole");
}

# --- by rules, after an attempt ---

my @steps = ( # FROM the one lane TO the other
	['FROM.write', 'before', 0], ['FROM.meta', 'before', 0], ['FROM.meta', 'after', 0],                    # the outcome
	['TO.write', 'before', 0], ['TO.sync', 'after', 0], ['TO.meta', 'before', 0], ['TO.meta', 'after', 0], # the target
	['FROM.write', 'before', 1], ['FROM.meta', 'before', 1], ['FROM.meta', 'after', 1],                    # the source
	['TO.write', 'fail', 0, EIO], ['TO.sync', 'fail', 0, ENOSPC], ['TO.meta', 'fail', 0, EIO],
	['FROM.write', 'fail', 1, ENOSPC], ['FROM.sync', 'fail', 1, EIO], ['FROM.meta', 'fail', 1, EIO],
	['history.write', 'before', 0], ['history.meta', 'after', 0], ['history.meta', 'before', 1], ['history.sync', 'after', 1], # what both tell of it
	['history.write', 'fail', 0, ENOSPC], ['history.meta', 'fail', 1, ENOSPC],
);
my %before = (fresh => '', retry => 'deferred moved ', fallback => 'deferred moved moved ');
my $first = 0;
for my $way (['fresh', 'retry', 1], ['retry', 'fallback', 2], ['fallback', 'retry', 2]) {
	my ($from, $to, $attempts) = @$way;
	for (Fault::share($first++, @steps)) {
		my @step = ($from, $to, @$_);
		my $what = called(@step);
		my $id = one_in($from, $what) or next;
		$hop->offers($full) if $from eq 'fallback';
		if ($from ne 'fresh') { signal_relays('STOP'); $s->advance(150_000) }
		arm(@step);
		signal_relays('CONT');
		ok(Sekisho::wait_for(20, sub { $fault->fired || do { $s->advance(1000) if $step[2] =~ /^history/; 0 } }), "$what: it was") or diag recent();
		ok(Sekisho::wait_for(20, \&alone), "$what: one, while the source cannot forget it") if $step[2] =~ /^FROM/ && $step[5] && $step[2] !~ /meta/;
		$fault->disarm;
		ok(Sekisho::wait_for(30, sub { waits($id, undef, $attempts) }), "$what: attempted and still there") or diag recent(), $s->ctl('queue', 'show', $id);
		ends_well($id, $what, qr/^accepted $before{$from}(?:deferred )+(?:moved )?delivered ended$/);
	}
}

# --- by an operator ---

my @rerouting = (
	['TO.write', 'before', 0], ['TO.sync', 'after', 0], ['TO.meta', 'before', 0], ['TO.meta', 'after', 0],
	['FROM.write', 'before', 0], ['FROM.meta', 'before', 0], ['FROM.meta', 'after', 0],
	['TO.write', 'fail', 0, ENOSPC], ['TO.meta', 'fail', 0, ENOSPC], ['FROM.write', 'fail', 0, EIO], ['FROM.meta', 'fail', 0, ENOSPC],
);
for my $way (['retry', 'fallback'], ['fallback', 'retry'], ['retry', 'fresh']) {
	my ($from, $to) = @$way;
	for (Fault::share($first++, @rerouting)) {
		my @step = ($from, $to, @$_);
		my $what = 'rerouted: ' . called(@step);
		my $id = one_in($from, $what) or next;
		arm(@step);
		my $asker = fork // die $!;
		if (!$asker) { $s->ctl('queue', 'reroute', $id, '--to', $to); require POSIX; POSIX::_exit(0) }
		ok(Sekisho::wait_for(20, sub { $fault->fired }), "$what: it was") or diag recent();
		$fault->disarm;
		waitpid $asker, 0;
		ok(Sekisho::wait_for(30, \&alone), "$what: in one place, conserved") or diag $s->ctl('queue', 'audit');
		ok(Sekisho::wait_for(30, sub { waits($id, $to) or $s->ctl('queue', 'reroute', $id, '--to', $to) and 0 }), "$what: begun again, it moves") or diag recent(), $s->ctl('queue', 'show', $id);
		ends_well($id, $what, qr/^accepted $before{$from}moved delivered ended$/);
	}
}

# --- the sum ---

my $audit = $s->json('queue', 'audit');
is_deeply([@$audit{qw(accepted delivered queued conserved)}], [scalar(@names), scalar(@names), 0, JSON::PP::true()], 'all is delivered, conserved') or diag explain $audit;
my %arrived;
for ($hop->taken) { $arrived{$1}++ if /^(case-\d+-end)/m }
is_deeply({ %arrived }, { map { $_ => 1 } @names }, @names . ' messages are delivered once');
is($s->json('quota', 'show', $me)->{used}, @names, 'and charged once');
done_testing;
