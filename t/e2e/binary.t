#!/usr/bin/perl
# Setup: a service whose next hop is a server of this test that offers CHUNKING and BINARYMIME, or not. An account sends binary content by BDAT, cut anywhere.
# Expectation: a hop that takes it gets the content to the octet, announced in the right size; for one that does not the mail fails with 5.6.3 and is not
# sent in any other way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my $me = 'alice@example.test';
my $s = Sekisho->new(no_sink => 1, no_start => 1, conf => $Sekisho::UNLIMITED);
my $hop = NextHop->new(port => $s->{ports}{sink});
$s->start;
$s->account($me);

# All octets, and what matters most between lines; nothing that could be taken for our mark.
my $octets = join '', map { chr } 0 .. 255;
my $body = "\0\r\n.\r\n\r\n.\n\r.\r\r\r\n\n\n" . $octets . reverse($octets) . "\xff" x 3000 . "\r";
my $head = "From: $me\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n";

sub send_binary {
	my ($mark, $body, $chunk) = @_;
	my $content = "${head}Subject: $mark\r\n\r\n$body";
	my ($c, $said) = ($s->login($me), '');
	$c->cmd("MAIL FROM:<$me> BODY=BINARYMIME") =~ /^250/ && $c->cmd('RCPT TO:<bob@example.net>') =~ /^250/ or return 'refused';
	for (my $at = 0; $at < length $content; $at += $chunk) {
		my $piece = substr $content, $at, $chunk;
		$c->raw('BDAT ' . length($piece) . ($at + $chunk >= length $content ? ' LAST' : '') . "\r\n$piece");
		$said = $c->reply;
	}
	return $said;
}
sub settled { return Sekisho::wait_for(60, sub { ($s->json('queue', 'audit') // {})->{queued} == 0 }) }

$hop->offers('8BITMIME', 'CHUNKING', 'BINARYMIME');
my %bodies = (small => [$body, 100000], cut => [$body, 37], odd => [$body x 3, 4097], large => ["\r$body\n" x 60, 50000], none => ['', 7]);
for my $mark (sort keys %bodies) { like(send_binary($mark, @{$bodies{$mark}}), qr/^250 2\.0\.0 Queued/, "$mark: accepted") }
settled() or die $s->log;
my %got;
for my $text ($hop->taken) {
	my ($mark) = $text =~ /^Subject: (\w+)\r$/m;
	$got{$mark} = $text =~ s/\A.*?\r\n\r\n//sr;
}
is(scalar(grep { / BODY=BINARYMIME/ } $hop->heard(qr/^MAIL/)), scalar keys %bodies, 'each is announced as binary');
for my $mark (sort keys %bodies) { is($got{$mark} && unpack('H*', $got{$mark}), unpack('H*', $bodies{$mark}[0]), "$mark: to the octet") }

my $before = () = $hop->taken;
$hop->offers('8BITMIME', 'CHUNKING');
$s->stop;
$s->start; # no connection is kept on which more was offered
like(send_binary('lost', $body, 1000), qr/^250 2\.0\.0 Queued/, 'mail for a hop that takes no binary content is accepted');
ok(Sekisho::wait_for(60, sub { $s->log =~ /fate=failed.*text="[^"]*binary/ }), 'and fails');
like($s->log, qr/enhanced=5\.6\.3 fate=failed/, 'as 5.6.3');
my $after = () = $hop->taken;
is($after, $before, 'without having been sent');
done_testing;
