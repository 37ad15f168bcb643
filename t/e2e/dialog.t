#!/usr/bin/perl
# Setup: a service with one account. Expectation: every conversation in t/dialog goes as written, however its octets are cut.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;

my $s = Sekisho->new(conf => "auth: { failure_delay: 10ms }\n$Sekisho::UNLIMITED");
$s->account('alice@example.test');
my $status = system($^X, "$FindBin::Bin/../dialog.pl", '--submission', "127.0.0.1:$s->{ports}{submission}", '--submissions',
	"127.0.0.1:$s->{ports}{submissions}", '--slices', 'octets,whole,random', '--seed', $ENV{SEKISHO_SEED} // 1, '--jobs', 8,
	sort glob "$FindBin::Bin/../dialog/*.dialog");
print STDERR $s->log if $status && $ENV{SEKISHO_VERBOSE};
exit($status ? 1 : 0);
