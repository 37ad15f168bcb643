#!/usr/bin/perl
# Setup: a service with one account, and a receiver that keeps what it gets octet for octet. Expectation: every conversation in t/dialog goes as
# written, however its octets are cut. With arguments, those whose names begin so: perl t/e2e/dialog.t bcc from-
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Peers;
use Sekisho;

my $s = Sekisho->new(no_sink => 1, conf => "auth: { failure_delay: 10ms }\n$Sekisho::UNLIMITED");
$s->account('alice@example.test');
my $receiver = Peers->receiver('127.0.0.1', $s->{ports}{sink});
my @names = @ARGV ? @ARGV : '';
my $status = system($^X, "$FindBin::Bin/../dialog.pl", '--submission', "127.0.0.1:$s->{ports}{submission}", '--submissions',
	"127.0.0.1:$s->{ports}{submissions}", '--slices', 'octets,whole,random', '--seed', $ENV{SEKISHO_SEED} // 1, '--jobs', 8,
	'--left', "$receiver->{dir}/mail", map { sort glob "$FindBin::Bin/../dialog/$_*.dialog" } @names);
print STDERR $s->log if $status && $ENV{SEKISHO_VERBOSE};
exit($status ? 1 : 0);
