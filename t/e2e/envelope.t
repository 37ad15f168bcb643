#!/usr/bin/perl
# Setup: as many recipients in one message as may be allowed, each with the longest ORCPT there is, and a small and a large body.
# Expectation: more than 500 are taken; from then on RCPT is refused for now, as of too many, and what was taken is accepted, charged, delivered, with each
# original recipient; the books are conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my $port = Sekisho::free_port();
my $hop = NextHop->new(port => $port);
$hop->offers('PIPELINING', 'DSN');
my $s = Sekisho->new(no_start => 1);
$s->{extra} = "${Sekisho::UNLIMITED}limits: { recipients: 1000, errors_soft: 1000, errors_hard: 1000 }\nroutes:\n  \"*\": \"127.0.0.1:$port\"\n";
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);

my $all = 0;
for my $body ("small\r\n", "large body\r\n" x 10000) {
	my $c = $s->login($me) or die 'no login';
	$c->cmd("MAIL FROM:<$me>");
	my ($taken, $refused) = (0, '');
	for my $n (1 .. 1000) {
		my $orcpt = "rfc822;r$n-" . 'x' x (500 - length "rfc822;r$n-");
		my $said = $c->cmd("RCPT TO:<r$n\@example.org> ORCPT=$orcpt");
		$refused = $said, last if $said !~ /^250/;
		$taken++;
	}
	cmp_ok($taken, '>', 500, "$taken are taken");
	like($refused, qr/^452 4\.5\.3 /, 'the next one is one too many for now');
	$c->cmd('DATA');
	$c->raw("From: <$me>\r\n\r\n$body.\r\n");
	like($c->reply, qr/^250 2\.0\.0 Queued/, 'and the message is accepted');
	$all += $taken;
}
my $audit;
ok(Sekisho::wait_for(60, sub { $audit = $s->json('queue', 'audit'); $audit && $audit->{delivered} == $all }), 'all are delivered') or diag $s->ctl('queue', 'audit');
ok($audit->{conserved}, 'conserved');
is($s->json('quota', 'show', $me)->{used}, $all, 'and charged');
is(scalar($hop->heard(qr/^RCPT TO:<r\d+\@example\.org> ORCPT=rfc822;r\d+-x{480}/)), $all, 'each with who it was for');
done_testing;
