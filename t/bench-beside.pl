#!/usr/bin/perl
# The part of make bench about large messages: the latency of small ones alone and beside 20 uploads of 25 MiB, in turn, at a rate that people's lines have
# and as fast as they are taken; delivery to an smtp-sink that keeps nothing. SEKISHO_RATE is the octets per second of each upload (1000000), SEKISHO_PAIRS
# the number of pairs (7), SEKISHO_SECONDS the length of a phase (30). TMPDIR says on which disk.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
BEGIN { $ENV{SEKISHO_BUILD} //= "$FindBin::Bin/../build" }
use Sekisho;

my ($uploads, $size) = (20, 25 * 1024 * 1024 - 4096);
my $pairs   = $ENV{SEKISHO_PAIRS}   // 7;
my $seconds = $ENV{SEKISHO_SECONDS} // 30;
my $s = Sekisho->new(no_sink => 1, no_start => 1, conf => "limits: { messages: 1000000, account_sessions: 100, prefix_sessions: 100 }\n$Sekisho::UNLIMITED");
$s->{sink} = fork // die $!;
if (!$s->{sink}) {
	$ENV{LD_LIBRARY_PATH} = "$Sekisho::TOP/build/peers/usr/lib/postfix";
	exec "$Sekisho::TOP/build/peers/usr/sbin/smtp-sink", ($> == 0 ? ('-u', 'nobody') : ()), "127.0.0.1:$s->{ports}{sink}", 512;
	die "smtp-sink: $!";
}
$s->start;
$s->account('alice@example.test');

sub beside {
	my ($rate, $pairs, $how) = @_;
	my @r = split ' ', `$Sekisho::BUILD/bench/beside $s->{ports}{submissions} $uploads $size $rate $pairs $seconds alice\@example.test $Sekisho::PASSWORD`;
	die "beside failed\n" if @r != 6;
	printf "%-40s p50 %6.2f ms, p99 %6.2f ms\n", '4 KB messages, 100/s, alone', @r[0, 1];
	printf "%-40s p50 %6.2f ms, p99 %6.2f ms: p99 is %.2f x alone, median of %d pairs\n", "beside $uploads uploads of 25 MiB, $how", @r[2 .. 4], $pairs;
	printf "%-40s %.1f MB/s\n", '', $r[5];
}
my $rate = $ENV{SEKISHO_RATE} // 1000000;
beside($rate, $pairs, sprintf '%.1f Mbit/s each', $rate * 8 / 1e6) if $rate;
beside(0, $ENV{SEKISHO_RATE} ? $pairs : 3, 'as fast as they are taken: they compete for the cores, too') if !$rate || !$ENV{SEKISHO_RATE};
