#!/usr/bin/perl
# Setup: an account with a cap of 150 recipients and one of 70 messages; ten sessions at once that try to exceed both with messages of one to four recipients;
# the queue is killed twice meanwhile.
# Expectation: what was accepted is what is charged, on both meters, and neither goes over; what then still fits, fits, and the meter that is full is the one
# that is named; a raised cap of recipients leaves the one of messages alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my ($recipients, $messages) = (150, 70);
my $s = Sekisho->new(conf => "quota: { recipients: $recipients/day, messages: $messages/day, $Sekisho::UNPACED }\nlimits: { errors_soft: 1000, errors_hard: 1000 }\n");
my $me = 'alice@example.test';
$s->account($me);
my $seed = $ENV{SEKISHO_SEED} // 3;

sub view { my $q = $s->json('quota', 'show', $me); return ref $q && $q->{messages} ? $q : undef }

my @readers;
for my $n (1 .. 10) {
	pipe my $r, my $w or die $!;
	my $pid = fork // die $!;
	if (!$pid) {
		srand $seed * 100 + $n;
		my ($accepted, $taken, $lost, $c) = (0, 0, 0);
		for my $message (1 .. 12) {
			$c //= $s->login($me) or next; # the authenticator is there, but all ten come at once
			my $ok = grep { $c->cmd("RCPT TO:<s$n.m$message.r$_\@example.org>") =~ /^250/ } $c->cmd("MAIL FROM:<$me>") =~ /^250/ ? (1 .. 1 + int rand 4) : ();
			if (!$ok || rand() < 0.15) { undef $c if rand() < 0.5 || $c->cmd('RSET') !~ /^250/; next }
			my $said = $c->cmd('DATA');
			if ($said =~ /^354/) {
				$c->raw("From: <$me>\r\n\r\nx\r\n.\r\n");
				$said = $c->reply;
			}
			if ($said =~ /^250/) { $accepted += $ok; $taken++ }
			elsif ($said !~ /^45/) { $lost++; undef $c }
		}
		print $w "$accepted $taken $lost\n";
		close $w;
		POSIX::_exit(0);
	}
	close $w;
	push @readers, [$r, $pid];
}
for my $at (15, 40) {
	ok(Sekisho::wait_for(60, sub { my $q = view(); $q && $q->{messages}{used} >= $at }), "$at messages later") or diag $s->ctl('quota', 'show', $me);
	kill 'KILL', $s->pids('sekisho-queue');
}
my ($accepted, $taken, $lost) = (0, 0, 0);
for (@readers) {
	my ($r, $pid) = @$_;
	my ($a, $t, $l) = split ' ', scalar(<$r>) // '';
	$accepted += $a;
	$taken += $t;
	$lost += $l;
	waitpid $pid, 0;
}
is($lost, 0, 'every end of data had an answer');
my $q;
ok(Sekisho::wait_for(30, sub { $q = view(); $q && $q->{reserved} == 0 && $q->{messages}{reserved} == 0 }), 'nothing stays reserved') or diag $s->ctl('quota', 'show', $me);
cmp_ok($accepted, '<=', $recipients, 'never over the recipients');
cmp_ok($taken, '<=', $messages, 'nor over the messages');
is($q->{used}, $accepted, 'the recipients charged are those accepted');
is($q->{messages}{used}, $taken, 'and so are the messages');

# The rest, to the last one.
my $c = $s->login($me);
my $last = '';
while (($last = $c->send_mail($me, 'rest@example.org', 'x')) =~ /^250/) { $accepted++; $taken++ }
my $code = $accepted == $recipients ? qr/recipient limit $recipients reached; .*code Q1/ : qr/message limit $messages reached; .*code Q2/;
ok($accepted == $recipients || $taken == $messages, "what fits is taken, until one meter is full: $accepted recipients, $taken messages");
like($last, $code, 'and that one is named');
$c->cmd('RSET');
$s->ctl('quota', 'set', $me, 1000, '--reason', 'test');
while (($last = $c->send_mail($me, 'rest@example.org', 'x')) =~ /^250/) { $accepted++; $taken++ }
is($taken, $messages, 'with more recipients allowed, the messages are used up');
like($last, qr/^450 4\.7\.1 Daily message limit $messages reached; .*code Q2/, 'and named');
$q = view();
is_deeply([$q->{used}, $q->{messages}{used}], [$accepted, $taken], 'all of it is charged');
ok(Sekisho::wait_for(60, sub { my $a = $s->json('queue', 'audit'); $a && $a->{queued} == 0 && $a->{conserved} && $a->{accepted} == $accepted }), 'delivered, conserved')
	or diag $s->ctl('queue', 'audit');
done_testing;
