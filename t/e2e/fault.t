#!/usr/bin/perl
# Setup: a service whose every process has t/durability/fault.c preloaded, which kills it or fails its disk at one named step. Relays are stopped while
# messages are accepted, so that what happens at the step is the message's doing alone.
# Expectation: whatever the step, the client hears exactly one reply; 250 if and only if the message is kept, charged once and delivered once; 451 or 452
# if and only if nothing of it is left. A lost reply is answered by the restarted queue, both ways. Outcomes and the copy to history lose nothing
# and repeat nothing, and each life is told whole and once; a bounce and its notification are one, and so are a delivery and the word that it was. When the disk works again, so does the service, without anybody's help.
# Every third step is taken; SEKISHO_FAULTS=1 takes them all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Errno qw(EIO ENOSPC);
use Fault;
use Sekisho;
use Test::More;

plan skip_all => 'the fault layer and the address sanitizer both want to be loaded first' if $Sekisho::BUILD =~ /san/;
my ($refusing_port, $turning_port, $silent_port) = map { Sekisho::free_port() } 1 .. 3;
my $fault = Fault->new(no_start => 1);
my $s = $fault->service;
$s->{extra} = "${Sekisho::UNLIMITED}limits: { messages: 10000 }\nroutes:\n"
	. "  refusing.example: \"127.0.0.1:$refusing_port\"\n  turning.example: \"127.0.0.1:$turning_port\"\n"
	. "  silent.example: \"127.0.0.1:$silent_port\"\n"
	. "  \"*\": \"127.0.0.1:$s->{ports}{sink}\"\n";
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);
sub arm { $fault->arm(@_) }
sub disarm { $fault->disarm }
sub fired { return $fault->fired }
sub at_rest { return $fault->at_rest }

sub recent { return join "\n", (split /\n/, $s->log)[-25 .. -1] }
sub signal_relays { kill $_[0], $s->pids('sekisho-relay') }
sub large { return "$_[0]\r\n" . "large body\r\n" x 8000 }

my $client;
my (%kept, %gone, $count);

# Until msa and queue are both there and agree; the message that shows it is one of the kept.
sub accepts {
	$s->advance(11_000); # no process is young any more, so the next restart comes at once
	return Sekisho::wait_for(30, sub {
		my $name = 'plain-' . ++$count . '-end';
		$client //= $s->login($me) or return 0;
		my $said = $client->send_mail($me, 'carol@example.org', "$name\r\n");
		if ($said =~ /^250/) { return $kept{$name} = 1 }
		$gone{$name} = 1;
		undef $client;
		return 0;
	});
}

sub queue_pid { return ($s->pids('sekisho-queue'))[0] // 0 }
sub used { my $q; Sekisho::wait_for(20, sub { $q = $s->json('quota', 'show', $me); ref $q && defined $q->{used} }); return $q->{used} }

# --- accepting ---

my @accepting = ( # large, point, action, the reply expected
	[0, 'segment.write', 'before', 451], [0, 'segment.write', 'after', 451],
	[0, 'segment.sync',  'before', 451], [0, 'segment.sync',  'after', 451],
	[0, 'fresh.write',   'before', 451], [0, 'fresh.write',   'after', 451],
	[0, 'fresh.sync',    'before', 451], [0, 'fresh.sync',    'after', 451],
	[0, 'fresh.meta',    'before', 451], [0, 'fresh.meta',    'after', 250],
	[1, 'large.make',    'before', 451], [1, 'large.make',    'after', 451],
	[1, 'large.sync',    'before', 451], [1, 'large.sync',    'after', 451],
	[1, 'large-dir.sync', 'before', 451], [1, 'large-dir.sync', 'after', 451],
	[1, 'fresh.write',   'before', 451], [1, 'fresh.meta',    'before', 451],
	[1, 'fresh.meta',    'after',  250],
	[1, 'body.write',    'before', 0],   [1, 'body.write',    'after', 0], # msa itself: no reply at all
);
for (Fault::share(0, @accepting)) {
	my ($is_large, $point, $action, $expected) = @$_;
	my $what = ($is_large ? 'large' : 'small') . ", killed $action $point";
	ok(accepts(), "$what: ready") or diag recent();
	signal_relays('STOP');
	my ($before, $pid) = (used(), queue_pid());
	my $name = 'case-' . ++$count . '-end';
	arm($point, $action);
	my $said = $client->send_mail($me, 'carol@example.org', $is_large ? large($name) : "$name\r\n");
	is(fired(), 1, "$what: it was");
	like($said, $expected ? qr/^$expected / : qr/^$/, "$what: " . ($expected || 'no') . ' reply');
	disarm();
	$said =~ /^250/ ? $kept{$name} = 1 : $gone{$name} = 1;
	undef $client if $said !~ /^\d/;
	is(used() - $before, $expected == 250 ? 1 : 0, "$what: the charge");
	cmp_ok(queue_pid(), $point =~ /^body/ ? '==' : '!=', $pid, "$what: who died");
	signal_relays('CONT');
}

# --- a disk that fails ---

my @failing = map { my $case = $_; map { [@$case, $_] } EIO, ENOSPC } ( # large, point
	[0, 'segment.make'], [0, 'bodies.sync'],
	[0, 'segment.write'], [0, 'segment.sync'], [0, 'fresh.write'], [0, 'fresh.sync'], [0, 'fresh.meta'],
	[1, 'large.make'], [1, 'large.give'], [1, 'large.sync'], [1, 'large-dir.sync'], [1, 'body.write'], [1, 'fresh.write'],
);
for (Fault::share(1, @failing)) {
	my ($is_large, $point, $error) = @$_;
	local $! = $error;
	my $what = ($is_large ? 'large' : 'small') . ", $point: $!";
	ok(accepts(), "$what: ready") or diag recent();
	if ($point =~ /^segment.make|^bodies/) { # the next message shall find no segment that could be appended to
		kill 'KILL', queue_pid();
		ok(Sekisho::wait_for(30, sub { $s->advance(11_000); ref $s->json('status')->{queue} }), "$what: started anew");
		$client = $s->login($me);
		at_rest();
	}
	signal_relays('STOP');
	my $before = used();
	my $name = 'case-' . ++$count . '-end';
	# The queue ends with a failed meta write; its successor is to be there before msa has asked long enough.
	arm($point, 'fail', error => $error, times => $point eq 'fresh.meta' ? 1 : 0);
	my $said = $client->send_mail($me, 'carol@example.org', $is_large ? large($name) : "$name\r\n");
	cmp_ok(fired(), '>', 0, "$what: it was");
	# After a failed meta write nobody knows, so the queue starts anew and is asked, as after a kill.
	like($said, $point eq 'large.give' ? qr/^45[12] 4\.3\.[01] / : $error == ENOSPC && $point ne 'fresh.meta' ? qr/^452 4\.3\.1 / : qr/^451 4\.3\.0 /, "$what: refused for now");
	disarm();
	$gone{$name} = 1;
	ok(accepts(), "$what: the disk works again, and so does the service") or diag recent();
	is(used() - $before, 1, "$what: the charge");
	signal_relays('CONT');
}

# The system tells only once that a part of a file could not be written: what heard it while the content still came is not the sync.
{
	ok(accepts(), 'large.give, early: ready');
	$client->cmd("MAIL FROM:<$me>");
	$client->cmd('RCPT TO:<carol@example.org>');
	like($client->cmd('DATA'), qr/^354/, 'large.give, early: content');
	arm('large.give', 'fail', error => EIO, times => 1);
	my $name = 'case-' . ++$count . '-end';
	$gone{$name} = 1;
	$client->raw("Subject: early\r\n\r\n" . large($name) x 3);
	ok(Sekisho::wait_for(20, sub { $s->advance(60); fired() }), 'large.give, early: it failed before the end');
	$client->raw(".\r\n");
	like($client->reply, qr/^451 4\.3\.0 /, 'large.give, early: refused for now');
	disarm();
	ok(accepts(), 'large.give, early: the next one is taken');
}

# --- outcomes, and their way into history ---

sub arrived { my ($name) = @_; return scalar grep { /^\Q$name\E\r?$/m } $s->delivered }

sub finished {
	my ($id) = @_;
	my ($m, $ticks);
	my $life = {};
	return 1 if Sekisho::wait_for(30, sub { $m = $s->json('queue', 'show', $id); ref $m && $m->{finished} })
		&& @{$m->{rcpt}} == 1 && $m->{rcpt}[0]{state} eq 'delivered'
		&& Sekisho::wait_for(30, sub { $s->advance(1000) if $ticks++ < 20; $life = $s->json('trace', $id); ref $life && join(' ', map { $_->{event} } @{ $life->{events} // [] }) =~ /^accepted delivered (?:notified )?ended$/ })
		&& Sekisho::wait_for(30, sub { my $found = $s->json('trace', "<$life->{message_id}>"); ref $found && ($found->{id} // '') eq $id });
	diag explain $m, $life;
	return 0;
}

my @delivering = ( # point, action, passes before it
	['fresh.write', 'before', 0], ['fresh.write', 'after', 0], ['fresh.sync', 'after', 0], ['fresh.meta', 'before', 0], ['fresh.meta', 'after', 0],
	['history.write', 'before', 0], ['history.meta', 'before', 0], ['history.meta', 'after', 0],
	['fresh.write', 'before', 1], ['fresh.meta', 'before', 1], ['fresh.meta', 'after', 1], # deleted from the outbox
	['fresh.write', 'fail', 0], ['fresh.sync', 'fail', 0], ['fresh.meta', 'fail', 0],
	['history.write', 'fail', 0], ['history.sync', 'fail', 0], ['history.meta', 'fail', 0],
	['history.write', 'fail', 0, ENOSPC], ['history.sync', 'fail', 0, ENOSPC],
);
my $told; # a message of which history knows all
for (Fault::share(2, @delivering)) {
	my ($point, $action, $skip, $error) = @$_;
	my $what = "outcome, $point $action" . ($skip ? ', of the second commit' : '');
	ok(accepts(), "$what: ready") or diag recent();
	ok(at_rest(), "$what: at rest");
	signal_relays('STOP');
	my $name = 'case-' . ++$count . '-end';
	my $said = $client->send_mail($me, 'carol@example.org', "$name\r\n");
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/;
	ok($id, "$what: accepted") or next;
	$kept{$name} = 1;
	ok(at_rest(), "$what: history knows of the acceptance");
	arm($point, $action, skip => $skip, error => $error // EIO);
	signal_relays('CONT');
	ok(Sekisho::wait_for(20, sub { fired() }), "$what: it was");
	disarm();
	ok(finished($id), "$what: finished, with one outcome") or diag recent();
	is(arrived($name), 1, "$what: delivered once");
	$told = $id;
}

# --- the end of a large body ---

for my $action (Fault::share(0, 'before', 'after')) {
	my $what = "large body, killed $action its removal";
	ok(accepts() && at_rest(), "$what: ready") or diag recent();
	my $name = 'case-' . ++$count . '-end';
	$kept{$name} = 1;
	arm('large.remove', $action);
	like($client->send_mail($me, 'carol@example.org', large($name)), qr/^250/, "$what: accepted");
	ok(Sekisho::wait_for(20, sub { fired() }), "$what: it was") or diag recent();
	disarm();
	ok(accepts(), "$what: the service goes on");
	ok(Sekisho::wait_for(20, sub { !(my @left = glob "$s->{dir}/spool/large/*") }), "$what: it is gone");
	is(arrived($name), 1, "$what: delivered once");
}

# --- a start while history cannot be written ---

for (Fault::share(0, ['history.write', ENOSPC], ['history.meta', ENOSPC], ['history.sync', EIO], ['history.meta', EIO])) {
	my ($point, $error) = @$_;
	local $! = $error;
	my $what = "start, $point: $!";
	ok(accepts() && at_rest(), "$what: ready") or diag recent();
	arm($point, 'fail', error => $error);
	kill 'KILL', queue_pid();
	ok(Sekisho::wait_for(20, sub { $s->advance(1000); fired() > 1 }), "$what: it was, whenever it is tried") or diag recent();
	disarm();
	ok(accepts(), "$what: the disk works again, and so does the service") or diag recent();
	ok(finished($told), "$what: history is there");
}
ok(!-e "$s->{dir}/spool/history.bad", 'and was never put aside');

# --- what a sender held is released once ---

my @releasing = (['fresh.write', 'before'], ['fresh.write', 'after'], ['fresh.sync', 'after'], ['fresh.meta', 'before'], ['fresh.meta', 'after'],
	['fresh.write', 'fail'], ['fresh.meta', 'fail']);
for (Fault::share(1, @releasing)) {
	my ($point, $action) = @$_;
	my $what = "release, $point $action";
	ok(accepts(), "$what: ready") or diag recent();
	$client = $s->login($me);
	my $name = 'case-' . ++$count . '-end';
	$client->cmd("MAIL FROM:<$me> HOLDFOR=600");
	$client->cmd('RCPT TO:<carol@example.org>');
	$client->cmd('DATA');
	$client->raw("From: <$me>\r\n\r\n$name\r\n.\r\n");
	my ($id) = $client->reply =~ /^250 2\.0\.0 Queued as (\w+); held/;
	ok($id, "$what: accepted and held") or next;
	undef $client;
	$kept{$name} = 1;
	ok(at_rest(), "$what: at rest");
	is(arrived($name), 0, "$what: it waits");
	arm($point, $action, error => EIO);
	$s->advance(601_000);
	ok(Sekisho::wait_for(20, sub { fired() }), "$what: it was");
	disarm();
	Sekisho::wait_for(20, sub { $s->json('queue', 'audit') }) and $s->advance(6_000);
	ok(finished($id), "$what: finished") or diag recent();
	is(arrived($name), 1, "$what: delivered once");
}

# --- bounces: the outcome and its notification are one ---

sub start_refusing {
	my ($port, @how) = @_;
	local $s->{sink};
	local $s->{ports}{sink} = $port;
	$s->start_sink(@how ? @how : ('-f', 'rcpt'));
	return $s->{sink};
}

sub told { my ($id) = @_; return scalar grep { /^X-Mail-Args: <>/m && /\b\Q$id\E\b/ } $s->delivered }

my $refusing = start_refusing($refusing_port);
my @steps = (
	['segment.write', 'before', 0], ['segment.write', 'after', 0], ['segment.write', 'fail', 0],
	['segment.sync', 'before', 0], ['segment.sync', 'after', 0], ['segment.sync', 'fail', 0],
	['LANE.write', 'before', 0], ['LANE.write', 'after', 0], ['LANE.write', 'fail', 0],
	['LANE.sync', 'before', 0], ['LANE.sync', 'after', 0], ['LANE.sync', 'fail', 0],
	['LANE.meta', 'before', 0], ['LANE.meta', 'after', 0], ['LANE.meta', 'fail', 0],
);
my @made = (['segment.make', 'before', 0], ['segment.make', 'after', 0], ['segment.make', 'fail', 0],
	['bodies.sync', 'before', 0], ['bodies.sync', 'after', 0], ['bodies.sync', 'fail', 0]);
my $bounced = 0;
for my $lane ('fresh', 'retry') {
	for ($lane eq 'retry' ? Fault::share(2, @made, @steps) : Fault::share(1, @steps)) {
		my ($point, $action, $skip) = @$_;
		$point =~ s/LANE/$lane/;
		my $what = "bounce in $lane, $point $action";
		ok(accepts(), "$what: ready") or diag recent();
		ok(at_rest(), "$what: at rest");
		signal_relays('STOP') if $lane eq 'fresh';
		my $name = 'case-' . ++$count . '-end';
		my $said = $client->send_mail($me, $lane eq 'fresh' ? 'carol@refusing.example' : 'carol@turning.example', "$name\r\n");
		my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/;
		ok($id, "$what: accepted") or next;
		$bounced++;
		my ($m, $turned);
		if ($lane eq 'retry') {
			ok(Sekisho::wait_for(30, sub { $m = $s->json('queue', 'show', $id); ref $m && $m->{attempts} && $m->{lane} eq 'retry' }), "$what: it waits there");
			$turned = start_refusing($turning_port);
			# The next start shall find no segment that could be appended to.
			if ($point =~ /^segment.make|^bodies/) { kill 'KILL', queue_pid(); ok(accepts(), "$what: started anew") }
			at_rest();
			signal_relays('STOP');
			$s->advance(150_000);
		}
		arm($point, $action, skip => $skip, error => EIO);
		signal_relays('CONT');
		ok(Sekisho::wait_for(20, sub { fired() }), "$what: it was") or diag recent();
		disarm();
		ok(Sekisho::wait_for(60, sub { $m = $s->json('queue', 'show', $id); ref $m && $m->{finished} }), "$what: finished") or diag explain($m), recent();
		is(ref $m && $m->{rcpt} && $m->{rcpt}[0]{state}, 'bounced', "$what: bounced");
		ok(Sekisho::wait_for(60, sub { my $a = $s->json('queue', 'audit'); $a && $a->{conserved} && !$a->{queued} && $a->{generated} == $bounced }), "$what: conserved")
			or diag $s->ctl('queue', 'audit');
		is(told($id), 1, "$what: its sender is told once");
		if ($turned) { kill 'TERM', $turned; waitpid $turned, 0 }
	}
}
kill 'TERM', $refusing;
waitpid $refusing, 0;

# --- success where the next hop (without ESMTP) does not tell: the delivery and the word of it are one ---

my $silent = start_refusing($silent_port, '-e');
my $relayed = 0;
for (Fault::share(0, @steps)) {
	my ($point, $action, $skip) = @$_;
	$point =~ s/LANE/fresh/;
	my $what = "delivery without confirmation, $point $action";
	ok(accepts(), "$what: ready") or diag recent();
	ok(at_rest(), "$what: at rest");
	signal_relays('STOP');
	my $name = 'case-' . ++$count . '-end';
	$client->cmd($_) for "MAIL FROM:<$me>", 'RCPT TO:<carol@silent.example> NOTIFY=SUCCESS', 'DATA';
	$client->raw("From: <$me>\r\n\r\n$name\r\n.\r\n");
	my ($id) = $client->reply =~ /^250 2\.0\.0 Queued as (\w+)/;
	ok($id, "$what: accepted") or next;
	$kept{$name} = 1;
	$relayed++;
	arm($point, $action, skip => $skip, error => EIO);
	signal_relays('CONT');
	ok(Sekisho::wait_for(20, sub { fired() }), "$what: it was") or diag recent();
	disarm();
	ok(finished($id), "$what: finished, with one outcome") or diag recent();
	ok(Sekisho::wait_for(60, sub { my $a = $s->json('queue', 'audit'); $a && $a->{conserved} && !$a->{queued} && $a->{generated} == $bounced + $relayed }),
		"$what: conserved") or diag $s->ctl('queue', 'audit');
	is(arrived($name), 1, "$what: delivered once");
	is(told($id), 1, "$what: its sender is told once");
}
kill 'TERM', $silent;
waitpid $silent, 0;

# --- the sum ---

ok(Sekisho::wait_for(60, sub { my $a = $s->json('queue', 'audit'); $a && $a->{conserved} && $a->{queued} == 0 }), 'the queue drains, conserved')
	or diag $s->ctl('queue', 'audit');
my %arrived;
for ($s->delivered) { $arrived{$1}++ if /^((?:plain|case)-\d+-end)/m }
is_deeply([grep { ($arrived{$_} // 0) != 1 } sort keys %kept], [], keys(%kept) . ' messages got their 250 and were delivered once');
is_deeply([grep { $arrived{$_} } sort keys %gone], [], keys(%gone) . ' got none and left nothing');
is(used(), $bounced + keys %kept, 'each is charged once, notifications never');
is(scalar(my @left = glob "$s->{dir}/spool/large/*"), 0, 'no large body is left');
done_testing;
