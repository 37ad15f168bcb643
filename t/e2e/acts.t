#!/usr/bin/perl
# Setup: a service whose queue is killed, or whose disk fails, at one named step (t/durability/fault.c) of what operators do: a flush, a bounce, a removal or
# a reroute of many messages that wait, what stays in force (directives, orders about sites) while it is set, while it meets mail, and while it ends, and what is
# kept of sites.
# Expectation: what was answered is so after a restart; what was not is done by asking again. Whatever the step, the books are conserved, a check finds
# nothing, each message ends as it was told to, once, with one notification where one is due.
# Every third step is taken; SEKISHO_FAULTS=1 takes them all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Errno qw(EIO ENOSPC);
use Fault;
use NextHop;
use POSIX ();
use Test::More;

plan skip_all => 'the fault layer and the address sanitizer both want to be loaded first' if $Sekisho::BUILD =~ /san/;
my $hop = NextHop->new(port => Sekisho::free_port());
my $fault = Fault->new(no_start => 1);
my $s = $fault->service;
$s->{extra} = "${Sekisho::UNLIMITED}limits: { messages: 10000 }\nretry: { schedule: [3h] }\nlanes: { rules: [{ to: retry, attempts: 1 }] }\n"
	. "routes: { later.example: \"127.0.0.1:$hop->{port}\", \"*\": \"127.0.0.1:$s->{ports}{sink}\" }\n";
$s->write_conf;
$s->start;
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 1800;
my ($me, $many) = ('alice@example.test', 12);
$s->account($me);
my ($count, %sum) = (0, map { $_ => 0 } qw(accepted delivered bounced removed generated));

sub recent { return join "\n", grep { defined } (split /\n/, $s->log)[-25 .. -1] }

# One more accepted, however often the service has to be asked: its id.
sub mail {
	my ($to) = @_;
	my $id;
	Sekisho::wait_for(30, sub { $id = eval { $s->submit($me, 'case-' . ++$count . '-end', $to) } }) or die "nothing is accepted:\n" . $s->log;
	$sum{accepted}++;
	return $id;
}

# Nothing is under way and no process is young any more, so the next restart comes at once.
sub at_rest { return $fault->at_rest && ($s->advance(11_000), 1)[1] }

sub called { my ($point, $action, $skip, $error) = @_; local $! = $error // 0; return "$point " . ($error ? "fails ($!)" : "killed $action") . ($skip ? ', the second' : '') }

# The command meets the fault; its exit status.
sub meets {
	my ($what, $step, @words) = @_;
	my ($point, $action, $skip, $error) = @$step;
	$fault->arm($point, $action, skip => $skip, error => $error // 0);
	my $asker = fork // die $!;
	if (!$asker) { $s->ctl(@words); POSIX::_exit($? >> 8) }
	ok(Sekisho::wait_for(20, sub { $fault->fired }), "$what: it was") or diag recent();
	$fault->disarm;
	waitpid $asker, 0;
	return $? >> 8;
}

sub succeeds { my (@words) = @_; my $said; return Sekisho::wait_for(30, sub { $said = $s->ctl(@words); $? == 0 }) || (diag($said, recent()), 0)[1] }

sub answers { return Sekisho::wait_for(30, sub { ref $s->json('queue', 'audit') }) }

sub sound {
	my ($what) = @_;
	my $audit;
	ok(Sekisho::wait_for(30, sub { $audit = $s->json('queue', 'audit'); ref $audit && $audit->{conserved} && !grep { $audit->{$_} != $sum{$_} } keys %sum }), "$what: the books are conserved")
		or diag explain($audit, \%sum), recent();
	ok(succeeds('queue', 'check'), "$what: a check finds nothing");
}

sub told { my ($id) = @_; return scalar grep { /^X-Mail-Args: <>/m && /\b\Q$id\E\b/ } $s->delivered }
sub state_is { my ($id, $state) = @_; my $m; return Sekisho::wait_for(30, sub { $m = $s->show($id); ($m->{rcpt}[0]{state} // '') eq $state }) || (diag(explain $m), 0)[1] }

# The notifications of what has bounced are delivered and counted.
sub bounced {
	my ($what, @ids) = @_;
	is(scalar(grep { !state_is($_, 'bounced') } @ids), 0, "$what: all have bounced");
	$sum{$_} += @ids for qw(bounced generated delivered);
	sound($what);
	is_deeply([grep { told($_) != 1 } @ids], [], "$what: their sender is told of each once");
}

# --- many at once ---

my @steps = (['retry.write', 'before', 0], ['retry.write', 'after', 1], ['retry.sync', 'after', 0], ['retry.meta', 'before', 0], ['retry.meta', 'after', 0],
	['retry.meta', 'before', 1], ['retry.meta', 'after', 1], ['retry.write', 'fail', 1, ENOSPC], ['retry.sync', 'fail', 0, EIO], ['retry.meta', 'fail', 0, EIO]);
my @bodies = (['segment.write', 'before', 0], ['segment.write', 'after', 1], ['segment.sync', 'after', 0], ['segment.write', 'fail', 1, ENOSPC], ['segment.sync', 'fail', 0, EIO]);
my @moving = (['retry.write', 'before', 0], ['retry.sync', 'after', 0], ['retry.meta', 'before', 0], ['retry.meta', 'after', 0], ['retry.write', 'fail', 0, ENOSPC], ['retry.meta', 'fail', 0, EIO],
	['fallback.write', 'before', 0], ['fallback.meta', 'before', 0], ['fallback.meta', 'after', 0], ['fallback.write', 'fail', 0, ENOSPC], ['fallback.meta', 'fail', 0, EIO]);
my %way = (flush => [['--rate', '100000'], @steps], remove => [['--yes'], @steps], bounce => [['--yes'], @steps, @bodies], reroute => [['--to', 'fallback'], @moving],
	'reroute to a host' => [['--to', "127.0.0.1:$s->{ports}{sink}"], @steps]);
my $first = 0;
for my $kind (sort keys %way) {
	my ($options, @all) = @{ $way{$kind} };
	my $sent = $kind =~ /host/ ? $options->[1] : undef;
	my ($verb) = $kind =~ /^(\w+)/;
	for my $step (Fault::share($first++, @all)) {
		my $what = "$kind: " . called(@$step);
		$hop->offers({ RCPT => '450 4.2.1 later' });
		my @ids = map { mail('carol@later.example') } 1 .. $many;
		ok(Sekisho::wait_for(30, sub { my %in; $in{ $_->{lane} }++ for @{ ($s->json('queue', 'list', '--lane', 'retry') // {})->{messages} // [] }; ($in{retry} // 0) == @ids }), "$what: they wait")
			or diag $s->ctl('queue', 'list');
		at_rest();
		$hop->offers() if $verb eq 'flush';
		my @words = ('queue', $verb, '--recipient', 'later.example', @$options);
		meets($what, $step, @words);
		sound("$what, interrupted") if $verb eq 'reroute';
		ok(succeeds(@words), "$what: begun again, it is done");
		if ($verb eq 'bounce') {
			bounced($what, @ids);
			next;
		}
		if ($sent) {
			is(scalar(grep { ($s->show($_)->{rcpt}[0]{next_hop} // '') ne $sent } @ids), 0, "$what: all are to go there");
			ok(succeeds('queue', 'flush', '--recipient', 'later.example', '--rate', '100000'), "$what: and go");
		} elsif ($verb eq 'reroute') {
			ok(Sekisho::wait_for(30, sub { $s->ctl(@words); (() = $s->listed('--lane', 'fallback')) == @ids }), "$what: all are there") or diag $s->ctl('queue', 'list');
			$hop->offers();
			ok(succeeds('queue', 'flush', '--lane', 'fallback', '--rate', '100000'), "$what: and go from there");
		}
		my $end = $verb eq 'remove' ? 'removed' : 'delivered';
		is(scalar(grep { !state_is($_, $end) } @ids), 0, "$what: all are $end");
		$sum{$end} += @ids;
		sound($what);
	}
}

# --- what stays in force ---

my @setting = (['fresh.write', 'before', 0], ['fresh.write', 'after', 0], ['fresh.sync', 'after', 0], ['fresh.meta', 'before', 0], ['fresh.meta', 'after', 0],
	['fresh.write', 'fail', 0, ENOSPC], ['fresh.sync', 'fail', 0, EIO], ['fresh.meta', 'fail', 0, ENOSPC]);
my $site = "127.0.0.1:$hop->{port}";
my @standing = ( # set, end, and where it is seen
	[['queue', 'bounce', '--recipient', 'closed.example', '--for', '2h', '--yes'], ['queue', 'release', '--recipient', 'closed.example'], ['queue', 'holds'], qr/closed\.example.* bounce/],
	[['queue', 'hold', '--recipient', 'held.example'], ['queue', 'release', '--recipient', 'held.example'], ['queue', 'holds'], qr/held\.example/],
	[['site', 'suspend', $site, '--for', '2h'], ['site', 'resume', $site], ['site', 'show', $site], qr/suspended by/],
);
for my $standing (@standing) {
	my ($set, $end, $seen, $pattern) = @$standing;
	for my $step (Fault::share($first++, @setting)) {
		for ([$set, 1], [$end, 0]) {
			my ($words, $is) = @$_;
			my $what = "@$words: " . called(@$step);
			ok(answers() && at_rest(), "$what: at rest");
			my $status = meets($what, $step, @$words);
			my $said;
			my $force = sub { answers(); return ($said = $s->ctl(@$seen)) =~ $pattern ? 1 : 0 };
			my $now = $force->();
			ok($status != 0 || $now == $is, "$what: what was answered is so") or diag $said, recent();
			ok($now == $is || succeeds(@$words), "$what: asked again, it is done");
			is($force->(), $is, "$what: and in force or not, as asked") or diag $said;
			$s->advance(11_000);
			kill 'KILL', $s->pids('sekisho-queue');
			is($force->(), $is, "$what: after a restart, too") or diag $said;
		}
		sound("@$set: " . called(@$step));
	}
}

# What a directive meets ends or moves once; the second commit is the one that does it. (A commit is one sync, but some writes.)
my @meeting = (['fresh.sync', 'before', 1], ['fresh.sync', 'after', 1], ['fresh.meta', 'before', 1], ['fresh.meta', 'after', 1], ['fresh.sync', 'fail', 1, ENOSPC], ['fresh.meta', 'fail', 1, EIO]);
my %meeting = (bounce => [['--yes'], @meeting, ['segment.sync', 'after', 1], ['segment.sync', 'fail', 1, EIO]],
	remove => [['--yes'], @meeting], reroute => [['--to', 'fallback'], @meeting, ['fallback.write', 'before', 0], ['fallback.meta', 'after', 0], ['fallback.write', 'fail', 0, ENOSPC]]);
for my $verb (sort keys %meeting) {
	my ($options, @all) = @{ $meeting{$verb} };
	ok(succeeds('queue', $verb, '--recipient', 'met.example', @$options, '--for', '30d'), "$verb what comes");
	for my $step (Fault::share($first++, @all)) {
		my $what = "met by $verb: " . called(@$step);
		mail('carol@example.org'); # somebody is logged in
		$sum{delivered}++;
		at_rest();
		my ($point, $action, $skip, $error) = @$step;
		my ($old) = $s->pids('sekisho-queue');
		$fault->arm($point, $action, skip => $skip, error => $error // 0);
		my $id = mail('carol@met.example');
		ok(Sekisho::wait_for(20, sub { $fault->fired }), "$what: it was") or diag recent();
		$fault->disarm;
		# What could not be written is tried again after a while.
		my $tried = 0;
		ok(Sekisho::wait_for(30, sub { $s->advance(1000) if $tried++ < 20; my $m = $s->show($id); $verb eq 'reroute' ? $m->{finished} : ($m->{rcpt}[0]{state} // 'queued') ne 'queued' }), "$what: it is met")
			or diag recent(), $s->ctl('queue', 'show', $id);
		is(($s->pids('sekisho-queue'))[0] == $old, !!($error && $point !~ /meta/), "$what: who died");
		if ($verb eq 'bounce') {
			bounced($what, $id);
			next;
		}
		my $end = $verb eq 'remove' ? 'removed' : 'delivered';
		ok(state_is($id, $end), "$what: $end");
		$sum{$end}++;
		sound($what);
	}
	ok(succeeds('queue', 'release', '--recipient', 'met.example'), 'no more');
}

# --- what is known of sites is written now and then ---

my $known = "127.0.0.1:$s->{ports}{sink}";
for my $step (Fault::share($first++, ['history.write', 'before', 0], ['history.meta', 'before', 0], ['history.meta', 'after', 0], ['history.write', 'fail', 0, ENOSPC], ['history.meta', 'fail', 0, EIO])) {
	my $what = 'sites: ' . called(@$step);
	my ($point, $action, $skip, $error) = @$step;
	mail('carol@example.org');
	$sum{delivered}++;
	ok(at_rest(), "$what: history knows");
	$fault->arm($point, $action, error => $error // 0);
	ok(Sekisho::wait_for(20, sub { $s->advance(10_000); $fault->fired }), "$what: it was") or diag recent();
	$fault->disarm;
	ok(succeeds('site', 'list'), "$what: sites are listed");
	sound($what);
	mail('carol@example.org');
	$sum{delivered}++;
	ok($fault->at_rest, "$what: history knows");
	my $delivered = $s->json('site', 'show', $known)->{delivered};
	$s->advance(31_000);
	ok(at_rest(), "$what: what is known is written again");
	kill 'KILL', $s->pids('sekisho-queue');
	ok(succeeds('site', 'show', $known), "$what: and there at the next start");
	is($s->json('site', 'show', $known)->{delivered}, $delivered, "$what: as it was");
}

# --- the sum ---

my (%arrived, @twice);
for ($s->delivered, $hop->taken) { $arrived{$1}++ if !/^Content-Type: multipart\/report/m && /^(case-\d+-end)\r?$/m }
is_deeply([grep { $arrived{$_} > 1 } sort keys %arrived], [], 'nothing came twice');
is($s->json('queue', 'audit')->{queued}, 0, 'nothing is left');
is($s->json('quota', 'show', $me)->{used}, $sum{accepted}, 'each is charged once');
done_testing;
