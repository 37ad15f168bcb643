#!/usr/bin/perl
# Setup: a service whose queue is killed, or whose disk fails, at one named step of a compaction (t/durability/fault.c): a segment of which only mail that
# waits is left, in retry and fallback (its domain is held) and in fresh (its sender holds it). Every third step is taken; SEKISHO_FAULTS=1 takes them all.
# Expectation: whatever the step, each message stays in one place with its body, check and audit find nothing, the old segment goes in the end, or all but its front, and all of
# it is delivered once: nobody was given any of it when the queue died, so nothing may come twice. A queue that is started while the disk is full is there as soon as it is not.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Errno qw(EIO ENOSPC);
use Fault;
use Test::More;

plan skip_all => 'the fault layer and the address sanitizer both want to be loaded first' if $Sekisho::BUILD =~ /san/;
my $fault = Fault->new(no_start => 1);
my $s = $fault->service;
my $later_port = Sekisho::free_port();
$s->{extra} = "${Sekisho::UNLIMITED}limits: { messages: 10000, future_release: 30d }\n"
	. "routes:\n  later.example: \"127.0.0.1:$later_port\"\n  \"*\": \"127.0.0.1:$s->{ports}{sink}\"\n";
$s->write_conf;
$s->start;
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 900;
my $me = 'alice@example.test';
$s->account($me);
my $spool = "$s->{dir}/spool";
my ($client, $count, @accepted, @waiting, @due);

sub recent { return join "\n", grep { defined } (split /\n/, $s->log)[-25 .. -1] }
sub lanes { my $q = ($s->json('status') // {})->{queue} or return {}; return $q->{lanes} }

# Waits while time passes, but not much of it, however long that takes: nothing becomes due that shall wait.
sub wait_passing {
	my ($step, $most, $condition) = @_;
	my $passed = 0;
	return Sekisho::wait_for(60, sub {
		if ($passed < $most) { $passed += $step; $s->advance($step) }
		return $condition->();
	});
}
sub ready { return wait_passing(1000, 60_000, sub { $client //= $s->login($me) and lanes()->{fresh} }) }
sub sound { my $out = $s->ctl('queue', 'check'); return 1 if $? == 0; diag $out; return 0 }
sub send_mail {
	my ($to, $size, @param) = @_;
	my $name = 'wait-' . ++$count . '-end';
	$client->cmd(join ' ', "MAIL FROM:<$me>", @param);
	$client->cmd("RCPT TO:<$to>");
	$client->cmd('DATA');
	$client->raw("From: <$me>\r\n\r\n$name\r\n" . ("x" x 78 . "\r\n") x ($size / 80) . ".\r\n");
	$client->reply =~ /^250/ or return '';
	push @accepted, $name;
	return $name;
}
sub kill_queue { kill 'KILL', $s->pids('sekisho-queue'); undef $client; return ready() }

my $hold = 200_000; # s
sub slow { my $l = lanes(); return ($l->{retry}{messages} // 0) + ($l->{fallback}{messages} // 0) }
# A segment nobody appends to, in which two messages of retry, one of fallback and one of fresh live. Those of retry and fallback have been attempted, their
# host wants to see them later, and their domain is held then.
sub fill {
	$s->ctl('queue', 'release', '--recipient', 'later.example') if @waiting;
	push @waiting, send_mail('bob@later.example', 1000);
	push @waiting, send_mail('bob@held.example', 50_000, "HOLDFOR=$hold");
	push @due, $s->now + $hold * 1000;
	send_mail('carol@example.org', 60_000) for 1 .. 25;
	push @waiting, send_mail('bob@later.example', 30_000), send_mail('slow@later.example', 20_000);
	Sekisho::wait_for(30, sub { slow() == @waiting / 4 * 3 && lanes()->{fresh}{messages} == @waiting / 4 }) or return 0;
	Sekisho::wait_for(30, sub { $s->ctl('queue', 'reroute', '--recipient', 'slow@later.example', '--to', 'fallback'); lanes()->{fallback}{messages} }) or return 0;
	$s->ctl('queue', 'hold', '--recipient', 'later.example');
	return 0 if $?;
	# What is at a relay still moves when it ends.
	Sekisho::wait_for(30, sub { ($s->json('status') // {})->{queue}{in_flight} == 0 }) or return 0;
	return kill_queue() && $fault->at_rest;
}
sub segment { my ($size, $name) = (0, ''); for (glob "$spool/bodies/*") { ($size, $name) = (-s, $_) if -s > $size } return $name }

my @steps = (
	(map { my $point = $_; map { [$point, $_] } 'before', 'after' } qw(segment.make bodies.sync segment.write segment.sync
		retry.write retry.sync retry.meta fallback.write fallback.sync fallback.meta fresh.write fresh.sync fresh.meta segment.remove)),
	(map { my $point = $_; map { [$point, 'fail', $_] } EIO, ENOSPC } qw(segment.make bodies.sync segment.write segment.sync
		retry.write retry.sync retry.meta fallback.write fallback.sync fallback.meta fresh.write fresh.sync fresh.meta)),
);
sub start_later {
	my (@how) = @_;
	local $s->{sink};
	local $s->{ports}{sink} = $later_port;
	$s->start_sink(@how);
	return $s->{sink};
}
my $later = start_later('-r', 'rcpt');
ok(ready(), 'ready');
for (Fault::share(0, @steps)) {
	my ($point, $action, $error) = @$_;
	local $! = $error // 0;
	my $what = "$point, " . ($error ? $! : "killed $action it");
	undef $client; # its session may have timed out meanwhile
	ok(ready() && fill(), "$what: ready") or diag recent(), $s->ctl('queue', 'list');
	my $old = segment();
	$fault->arm($point, $action, error => $error // 0, times => $error ? 1 : 0);
	my $fired = wait_passing(5000, 600_000, sub { $fault->fired });
	ok($fired, "$what: it was") or diag recent();
	$fault->disarm;
	undef $client;
	ok(ready(), "$what: the service goes on");
	ok(sound(), "$what: nothing is wrong");
	# What is left when one lane's commit was lost may stand at its front: the start has cut the rest, and that is not worth a file.
	ok(wait_passing(5000, 600_000, sub { (-s $old // 0) < 256 * 1024 }), "$what: the old segment goes") or diag $old, recent();
	ok(sound(), "$what: nothing is wrong then");
	is(slow() + lanes()->{fresh}{messages}, @waiting, "$what: all of it waits") or diag $s->ctl('queue', 'list'), recent();
}

# --- a start on a full disk ---

$fault->arm('fresh.write', 'fail', error => ENOSPC);
kill 'KILL', $s->pids('sekisho-queue');
undef $client;
ok(wait_passing(1000, 60_000, sub { $fault->fired }), 'the queue cannot start while the disk is full');
$fault->disarm;
ok(ready(), 'and does as soon as it is not');
ok(sound(), 'with nothing wrong');

# --- the end ---

kill 'TERM', $later;
waitpid $later, 0;
$later = start_later();
$s->ctl('queue', 'release', '--recipient', 'later.example');
$s->ctl('queue', 'flush', '--all');
ok(Sekisho::wait_for(60, sub { !slow() }), 'what waits in retry and fallback ends') or diag $s->ctl('queue', 'list'), recent();
# Time passes only while nothing is under way: a jump would end the wait for an answer, and what the next hop has taken by then would come again.
my $left = @due;
for my $due (@due) {
	# Ledger time takes no more than an hour at once.
	while ((my $wait = $due + 1000 - $s->now) > 0) {
		$s->advance($wait < 3_000_000 ? $wait : 3_000_000);
		lanes();
	}
	$left--;
	Sekisho::wait_for(60, sub { ($s->json('status') // {})->{queue}{lanes}{fresh}{messages} <= $left }) or last;
}
my $audit;
ok(Sekisho::wait_for(30, sub { $audit = $s->json('queue', 'audit'); $audit && $audit->{conserved} && !$audit->{queued} }), 'and so does what its senders hold')
	or diag $s->ctl('queue', 'list'), recent();
is($audit->{delivered}, @accepted, 'all of it by delivery');
my %arrived;
for ($s->delivered) { $arrived{$1}++ if /^(wait-\d+-end)/m }
my @wrong = grep { ($arrived{$_} // 0) != 1 } @accepted;
is_deeply(\@wrong, [], @accepted . ' messages, of which ' . @waiting . ' waited, are delivered once')
	or diag explain({ map { $_ => $arrived{$_} // 0 } @wrong }), join "\n", grep { /fate=deferred.*timed out| (?:expired|bounced|generated|body-\w+) / } split /\n/, $s->log;
kill 'TERM', $later;
waitpid $later, 0;
done_testing;
