#!/usr/bin/perl
# make bench-quick: messages/s, latency percentiles and CPU per message of each process, for a closed loop of 8 clients with a new connection per
# message and with 20 messages per connection; 4 KB messages, durable acceptance, delivery to an smtp-sink running beside it. A Postfix does the
# same in turn with it, as a yardstick (needs root): machines differ, and the same machine from hour to hour. Medians of three runs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
BEGIN { $ENV{SEKISHO_BUILD} //= "$FindBin::Bin/../build" }
use Sekisho;
use Peers;

my $count = $ENV{SEKISHO_MESSAGES} // 2000;
my $s = Sekisho->new(conf => $Sekisho::UNLIMITED);
$s->account('alice@example.test');

my ($postfix, $postfix_port) = (undef, Sekisho::free_port());
if ($> == 0) {
	my $pem = "$s->{dir}/both.pem";
	Peers::write_file($pem, join '', map { Peers::read_file("$s->{dir}/$_.pem") } 'key', 'cert');
	$postfix = Peers->postfix('127.0.0.1', $postfix_port, 'nowhere.example',
		"smtpd_tls_wrappermode = yes\nrelayhost = [127.0.0.1]:$s->{ports}{sink}\n", $pem, { alice => $Sekisho::PASSWORD });
}

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

# One run: what the load program measured, and the CPU time of each process.
sub run {
	my ($per, $port, $account, $cpu, $is_done) = @_;
	my $before = $cpu->();
	my @r = split ' ', `$Sekisho::BUILD/bench/load $port 8 $count $per 4096 $account $Sekisho::PASSWORD`;
	die "load failed\n" . $s->log . ($postfix ? $postfix->log : '') if @r != 7;
	Sekisho::wait_for(120, $is_done);
	my $after = $cpu->();
	return (\@r, { map { $_ => 1000 * ($after->{$_} - ($before->{$_} // 0)) / $count } keys %$after });
}

printf "%-32s %9s %8s %8s %8s %8s\n", 'closed loop, 8 clients', 'msg/s', 'p50 ms', 'p95 ms', 'p99 ms', 'max ms';
my @cpu_rows;
for ([1, 'new connection each'], [20, '20 per connection']) {
	my ($per, $name) = @$_;
	my (%runs, %cpu);
	for (1 .. 3) {
		my ($r, $used) = run($per, $s->{ports}{submissions}, 'alice@example.test', \&cpu, sub { ($s->json('queue', 'audit') // {})->{queued} == 0 });
		push @{ $runs{''} }, $r;
		push @{ $cpu{$_} }, $used->{$_} for keys %$used;
		next if !$postfix;
		($r, $used) = run($per, $postfix_port, 'alice@sasl.test', sub { { postfix => $postfix->cpu } },
			sub { my @left = glob "$postfix->{dir}/queue/{maildrop,incoming,active,deferred}/*"; !@left });
		push @{ $runs{', Postfix'} }, $r;
		push @{ $cpu{postfix} }, $used->{postfix};
	}
	for my $who (sort keys %runs) {
		printf "%-32s %9.0f %8.2f %8.2f %8.2f %8.2f\n", "$name$who", map { my $i = $_; median(map { $_->[$i] } @{ $runs{$who} }) } 2 .. 6;
	}
	push @cpu_rows, [$name, { map { $_ => median(@{ $cpu{$_} }) } keys %cpu }];
}
print "\nCPU ms per message\n";
my @names = grep { $_ ne 'postfix' } sort keys %{ $cpu_rows[0][1] };
printf "%-24s" . ' %9s' x @names . " %9s %9s %7s\n", '', (map { s/^sekisho-//r } @names), 'all', 'Postfix', 'ratio';
for (@cpu_rows) {
	my ($name, $cpu) = @$_;
	my $all = 0;
	$all += $cpu->{$_} // 0 for @names;
	printf "%-24s" . ' %9.3f' x (@names + 1), $name, (map { $cpu->{$_} // 0 } @names), $all;
	printf $postfix ? (" %9.3f %7.2f\n", $cpu->{postfix}, $all / $cpu->{postfix}) : (" %9s %7s\n", '-', '-');
}
undef $postfix; # before the sink and its directory go
