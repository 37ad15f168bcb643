#!/usr/bin/perl
# The part of make bench about large queues: what fresh mail gets with nothing queued, with 20,000 and with SEKISHO_BACKLOG (1000000) messages queued to
# 10,000 dead sites, of which a hundred never answer (for 2 s) and the others refuse; while none of that is due, and while all of it is. One service for each, measured
# in turn, the others stopped meanwhile: at a rate of 50 messages a second, and as fast as 8 clients go. SEKISHO_ROUNDS (3) of SEKISHO_SECONDS (10) for each
# measurement; medians, and ratios to the empty queue of the same round. Then what single mails get beside messages to 500 recipients of somebody else.
# Takes about 3 GB in TMPDIR, and a quarter of an hour.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
BEGIN { $ENV{SEKISHO_BUILD} //= "$FindBin::Bin/../build" }
use Sekisho;
use Backlog;
use File::Path qw(remove_tree);
use Time::HiRes qw(time);

my $rounds  = $ENV{SEKISHO_ROUNDS}  // 3;
my $seconds = $ENV{SEKISHO_SECONDS} // 10;
my @sizes   = (0, 20_000, $ENV{SEKISHO_BACKLOG} // 1_000_000);
my ($me, $other) = ('alice@example.test', 'bulk@example.test');
my $rate = 50;
my $hop  = Sekisho::free_port();
my $backlog = Backlog->new(silent => 100);

sub median { my @sorted = sort { $a <=> $b } @_; return $sorted[@sorted / 2] }
sub load { return (split ' ', Peers::read_file('/proc/loadavg'))[0] }

# sekishod first and last, so that it misses none of its processes.
sub stopped { my ($s) = @_; kill 'STOP', $s->{daemon}, $s->pids }
sub continued { my ($s) = @_; kill 'CONT', $s->pids, $s->{daemon} }

my @fields = qw(per_s accept50 accept99 attempt50 attempt99 delivered50 delivered99 missing);
sub flow {
	my ($s, @args) = @_;
	my %r;
	@r{@fields} = split ' ', `$Sekisho::BUILD/bench/flow $s->{ports}{submissions} $hop $args[0] $seconds $me $Sekisho::PASSWORD @args[1 .. $#args]`;
	die "flow failed\n" . substr $s->log, -2000 if $?;
	die "$r{missing} messages did not arrive within a minute\n" if $r{missing};
	return \%r;
}

# Attempted or put off since the last call.
sub deferred {
	my ($s) = @_;
	open my $f, '<', "$s->{dir}/log" or die $!;
	seek $f, $s->{counted} // 0, 0;
	my $count = grep { / deferred to=r\d+\@d\d+\.dead / } <$f>;
	$s->{counted} = tell $f;
	return $count;
}

sub compare {
	my ($what, $from, $span) = @_;
	my @cases;
	for my $size (@sizes) {
		my $s = $backlog->service(accounts => [$me, $other], hop => $hop, relay => 'connect_timeout: 2s');
		my $start = time;
		$backlog->fill($s, 'retry', $size * 0.7, $from, $span), $backlog->fill($s, 'fallback', $size * 0.3, $from, $span) if $size;
		my $filled = time - $start;
		$start = time;
		$s->start;
		push @cases, { size => $size, s => $s, ready => time - $start, filled => $filled, memory => 0, rows => [] };
		printf STDERR "  %d messages, %s: filled in %.0f s, load %s\n", $size, $what, $filled, load();
		stopped($s);
	}
	for (1 .. $rounds) {
		for my $case (@cases) {
			my $s = $case->{s};
			continued($s);
			my ($start, $before) = (time, deferred($s));
			my ($paced, $closed) = (flow($s, $rate), flow($s, 0));
			my %row = (%$paced, rate => $closed->{per_s}, retries => deferred($s) / (time - $start));
			my $memory = Backlog::memory($s);
			$case->{memory} = $memory if $memory > $case->{memory};
			push @{ $case->{rows} }, \%row;
			printf STDERR "  %8d %s: %.0f/s, accepted %.2f %.2f, attempted %.2f %.2f, delivered %.2f %.2f ms, %.0f retries/s, load %s\n", $case->{size}, $what,
				@row{qw(rate accept50 accept99 attempt50 attempt99 delivered50 delivered99 retries)}, load();
			stopped($s);
		}
	}
	for my $case (@cases) {
		my $s = $case->{s};
		my $column = sub { my ($name) = @_; return median(map { $_->{$name} } @{ $case->{rows} }) };
		my $ratio = sub { my ($name) = @_; return median(map { $case->{rows}[$_]{$name} / ($cases[0]{rows}[$_]{$name} || 0.01) } 0 .. $rounds - 1) };
		printf "%-24s %8.1f %7.1f %8.0f %6.2f %7.2f %7.2f %7.2f %7.2f %7.2f %7.2f %6.2f %9.0f\n", $case->{size} ? "$case->{size}, $what" : 'nothing queued',
			$case->{ready}, $case->{memory} / 1024, $column->('rate'), $ratio->('rate'),
			(map { $column->($_) } qw(accept50 accept99 attempt50 attempt99 delivered50 delivered99)), $ratio->('delivered99'), $column->('retries');
		continued($s);
		$s->stop;
		remove_tree("$s->{dir}/spool");
	}
}

$| = 1;
printf "%-24s %8s %7s %8s %6s %15s %15s %15s %6s %9s\n", '', '', '', 'accepted', '', 'accepted in', 'then attempted', 'then delivered', 'ratio', '';
printf "%-24s %8s %7s %8s %6s %7s %7s %7s %7s %7s %7s %6s %9s\n", 'queued', 'ready s', 'Rss MB', 'per s', 'ratio', ('p50 ms', 'p99 ms') x 3, 'p99', 'retries/s';
compare('none due', 3600, 3600);
compare('all due', -3600, 3600);

# The bulk sender's account is not the one that is measured.
my $s = $backlog->service(accounts => [$me, $other], hop => $hop, relay => 'connect_timeout: 2s');
$s->start;
my (@alone, @beside);
for (1 .. $rounds) {
	push @alone, flow($s, $rate)->{delivered99};
	push @beside, flow($s, $rate, $other, 1)->{delivered99};
}
printf "\n%-48s delivered p99 %7.2f ms\n", 'single mails alone', median(@alone);
printf "%-48s delivered p99 %7.2f ms: %.2f x alone\n", 'beside 500-recipient mails of another account', median(@beside), median(map { $beside[$_] / $alone[$_] } 0 .. $rounds - 1);
