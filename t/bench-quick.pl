#!/usr/bin/perl
# make bench-quick: messages/s, latency percentiles and CPU per message of each process, for a closed loop of 8 clients with a new connection per
# message and with 20 messages per connection; 4 KB messages, durable acceptance, delivery to an smtp-sink running beside it. Medians of three runs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
BEGIN { $ENV{SEKISHO_BUILD} //= "$FindBin::Bin/../build" }
use Sekisho;

my $count = $ENV{SEKISHO_MESSAGES} // 2000;
my $s = Sekisho->new(conf => $Sekisho::UNLIMITED);
$s->account('alice@example.test');

# CPU seconds of each program, all its processes together.
sub cpu {
	my %cpu;
	for ($s->processes) {
		my ($name, $pid) = @$_;
		# All threads: the sum over the tasks.
		for my $task (glob "/proc/$pid/task/*/schedstat") {
			open my $t, '<', $task or next;
			$cpu{$name} += (split ' ', scalar <$t>)[0] / 1e9;
		}
	}
	return \%cpu;
}

sub median { (sort { $a <=> $b } @_)[@_ / 2] }

printf "%-24s %9s %8s %8s %8s %8s\n", 'closed loop, 8 clients', 'msg/s', 'p50 ms', 'p95 ms', 'p99 ms', 'max ms';
my @cpu_rows;
for ([1, 'new connection each'], [20, '20 per connection']) {
	my ($per, $name) = @$_;
	my (@runs, %cpu);
	for (1 .. 3) {
		my $before = cpu();
		my @r = split ' ', `$Sekisho::BUILD/bench/load $s->{ports}{submissions} 8 $count $per 4096 alice\@example.test $Sekisho::PASSWORD`;
		die "load failed\n" . $s->log if @r != 7;
		Sekisho::wait_for(60, sub { ($s->json('queue', 'audit') // {})->{queued} == 0 });
		my $after = cpu();
		push @runs, \@r;
		push @{$cpu{$_}}, 1000 * ($after->{$_} - ($before->{$_} // 0)) / $count for keys %$after;
	}
	printf "%-24s %9.0f %8.2f %8.2f %8.2f %8.2f\n", $name, map { my $i = $_; median(map { $_->[$i] } @runs) } 2 .. 6;
	push @cpu_rows, [$name, { map { $_ => median(@{$cpu{$_}}) } keys %cpu }];
}
print "\nCPU ms per message\n";
my @names = sort keys %{$cpu_rows[0][1]};
printf "%-24s" . ' %9s' x (@names + 1) . "\n", '', (map { s/^sekisho-//r } @names), 'all';
for (@cpu_rows) {
	my ($name, $cpu) = @$_;
	my $all = 0;
	$all += $_ for values %$cpu;
	printf "%-24s" . ' %9.3f' x (@names + 1) . "\n", $name, (map { $cpu->{$_} // 0 } @names), $all;
}
