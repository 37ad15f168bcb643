#!/usr/bin/perl
# Setup: a service with the default limit of 25 MiB, delivering to an smtp-sink that keeps nothing.
# Expectation: a message of exactly the limit passes and one octet more does not, by DATA, by BDAT and as SIZE says. While 20 sessions of each way are
# in the middle of 25 MiB, while they end, and while all of it is delivered, no process that holds content grows by more than 256 KiB for each.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $LIMIT = 25 * 1024 * 1024;
my $UPLOADS = 20;
my $MOST = 256; # KiB a session
my $me = 'alice@example.test';
my $s = Sekisho->new(no_sink => 1, no_start => 1, conf => "msa: { processes: 1 }\n$Sekisho::UNLIMITED");
$s->{sink} = fork // die $!;
if (!$s->{sink}) {
	$ENV{LD_LIBRARY_PATH} = "$Sekisho::TOP/build/peers/usr/lib/postfix";
	open STDERR, '>', '/dev/null';
	exec "$Sekisho::TOP/build/peers/usr/sbin/smtp-sink", ($> == 0 ? ('-u', 'nobody') : ()), "127.0.0.1:$s->{ports}{sink}", 512;
	die "smtp-sink: $!";
}
$s->start;
$s->account($me);

my $head = "From: <$me>\r\nSubject: large\r\n\r\n";
my $line = ('x' x 70) . "\r\n";

# Content of exactly so many octets, as the service keeps it.
sub content {
	my ($size) = @_;
	my $body = $line x int(($size - length $head) / length $line);
	my $rest = $size - length($head) - length $body;
	# What is left makes the first lines longer.
	substr $body, 0, 0, 'y' x $rest;
	return $head . $body;
}

sub open_transaction {
	my ($c, $more) = @_;
	my $said = $c->cmd("MAIL FROM:<$me>" . ($more // ''));
	return $said if $said !~ /^250/;
	return $c->cmd('RCPT TO:<bob@example.net>');
}

sub by_data {
	my ($content) = @_;
	my $c = $s->login($me);
	open_transaction($c) =~ /^250/ && $c->cmd('DATA') =~ /^354/ or die;
	$c->raw("$content.\r\n");
	return $c->reply;
}

sub by_chunks {
	my ($content, $chunk) = @_;
	my ($c, $said) = ($s->login($me), '');
	open_transaction($c) =~ /^250/ or die;
	for (my $at = 0; $at < length $content; $at += $chunk) {
		my $last = $at + $chunk >= length $content;
		my $piece = substr $content, $at, $chunk;
		$c->raw('BDAT ' . length($piece) . ($last ? ' LAST' : '') . "\r\n$piece");
		$said = $c->reply;
		last if $said !~ /^250/;
	}
	return $said;
}

my ($full, $over) = (content($LIMIT), content($LIMIT + 1));
is(length $full, $LIMIT, 'a message of exactly the limit');
my $too_big = qr/^552 5\.3\.4 Message size exceeds limit of $LIMIT octets/;
like(by_data($full), qr/^250 2\.0\.0 Queued/, 'passes by DATA');
like(by_data($over), $too_big, 'one octet more does not');
like(by_data($full =~ s/^y/../mr =~ s/\r\n\.\./\r\n../r =~ s/y//r), qr/^250 2\.0\.0 Queued/, 'the dot that stuffing adds is not counted');
like(by_chunks($full, 8 * 1024 * 1024), qr/^250 2\.0\.0 Queued/, 'it passes by BDAT');
like(by_chunks($over, 8 * 1024 * 1024), $too_big, 'one octet more does not');
like(by_chunks($over, $LIMIT + 1), $too_big, 'in one chunk neither');
{
	my $c = $s->login($me);
	like(open_transaction($c, " SIZE=$LIMIT"), qr/^250/, 'SIZE of exactly the limit');
	$c->cmd('RSET');
	like(open_transaction($c, ' SIZE=' . ($LIMIT + 1)), $too_big, 'SIZE of one octet more');
}
Sekisho::wait_for(120, sub { ($s->json('queue', 'audit') // {})->{queued} == 0 }) or die $s->log;

# KiB of memory of its own.
sub memory {
	my ($pid) = @_;
	open my $f, '<', "/proc/$pid/status" or return 0;
	my ($anon) = map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$f>;
	return $anon // 0;
}

my @watched = grep { $_->[0] =~ /^sekisho-(?:msa|queue|relay)$/ } $s->processes;
my %before = map { $_->[1] => memory($_->[1]) } @watched;
my %peak = %before;
sub look { for (@watched) { my $now = memory($_->[1]); $peak{$_->[1]} = $now if $now > $peak{$_->[1]} } }

# A session in the middle of its message costs what its connection costs; that is counted, too.
my @clients = map { $s->login($me, $_ % 2 ? 'submissions' : undef) } 1 .. $UPLOADS;
for my $i (0 .. $#clients) {
	open_transaction($clients[$i]) =~ /^250/ or die;
	if ($i % 4 < 2) { $clients[$i]->cmd('DATA') =~ /^354/ or die }
	else { $clients[$i]->raw("BDAT $LIMIT LAST\r\n") }
}
my $piece = 512 * 1024;
for (my $at = 0; $at < $LIMIT; $at += $piece) {
	for my $c (@clients) {
		$c->raw(substr $full, $at, $piece);
		look();
	}
}
for my $i (0 .. $#clients) { $clients[$i]->raw(".\r\n") if $i % 4 < 2 }
my $accepted = grep { look(); $_->reply =~ /^250 2\.0\.0 Queued/ } @clients;
is($accepted, $UPLOADS, "$UPLOADS messages of the full size at once");
Sekisho::wait_for(120, sub { look(); ($s->json('queue', 'audit') // {})->{queued} == 0 }) or die $s->log;
SKIP: {
	skip 'the address sanitizer keeps what was freed', scalar @watched if $Sekisho::BUILD =~ /san$/;
	for (@watched) {
		my ($name, $pid) = @$_;
		my $growth = $peak{$pid} - $before{$pid};
		cmp_ok($growth, '<', $MOST * $UPLOADS, sprintf '%s grows by %.0f KiB for each of them', $name, $growth / $UPLOADS);
		diag(sprintf '%s: %d KiB before, %d KiB at most', $name, $before{$pid}, $peak{$pid}) if $ENV{SEKISHO_VERBOSE};
	}
}
done_testing;
