#!/usr/bin/perl
# The part of make bench about large messages: the latency of small ones alone and beside 20 uploads of 25 MiB, in turn; delivery to an smtp-sink that keeps
# nothing. SEKISHO_RATE is the octets per second of each upload (1000000), SEKISHO_PAIRS the number of pairs (5). Where the disk is slow to flush what
# it was given, that is most of what there is to see; TMPDIR=/dev/shm shows what is left without it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
BEGIN { $ENV{SEKISHO_BUILD} //= "$FindBin::Bin/../build" }
use Sekisho;

my ($uploads, $size) = (20, 25 * 1024 * 1024 - 4096);
my $s = Sekisho->new(no_sink => 1, no_start => 1, conf => "limits: { messages: 1000000 }\n$Sekisho::UNLIMITED");
$s->{sink} = fork // die $!;
if (!$s->{sink}) {
	$ENV{LD_LIBRARY_PATH} = "$Sekisho::TOP/build/peers/usr/lib/postfix";
	exec "$Sekisho::TOP/build/peers/usr/sbin/smtp-sink", ($> == 0 ? ('-u', 'nobody') : ()), "127.0.0.1:$s->{ports}{sink}", 512;
	die "smtp-sink: $!";
}
$s->start;
$s->account('alice@example.test');
my @r = split ' ', `$Sekisho::BUILD/bench/beside $s->{ports}{submissions} $uploads $size @{[$ENV{SEKISHO_RATE} // 1000000]} @{[$ENV{SEKISHO_PAIRS} // 5]} alice\@example.test $Sekisho::PASSWORD`;
die "beside failed\n" . $s->log if @r != 6;
printf "%-40s p50 %6.2f ms, p99 %6.2f ms\n", '4 KB messages alone', @r[0, 1];
printf "%-40s p50 %6.2f ms, p99 %6.2f ms: p99 is %.2f x alone\n", "beside $uploads uploads of 25 MiB", @r[2 .. 4];
