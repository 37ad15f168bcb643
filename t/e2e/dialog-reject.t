#!/usr/bin/perl
# Setup: a service that refuses what it would otherwise put right. Expectation: every conversation in t/dialog/reject goes as written, however its
# octets are cut.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;

my $s = Sekisho->new(conf => "content: { bare_line_ends: reject, long_lines: reject }\n$Sekisho::UNLIMITED");
$s->account('alice@example.test');
my $status = system($^X, "$FindBin::Bin/../dialog.pl", '--submission', "127.0.0.1:$s->{ports}{submission}", '--submissions',
	"127.0.0.1:$s->{ports}{submissions}", '--slices', 'octets,whole,random', '--seed', $ENV{SEKISHO_SEED} // 1, '--jobs', 8,
	sort glob "$FindBin::Bin/../dialog/reject/*.dialog");
exit($status ? 1 : 0);
