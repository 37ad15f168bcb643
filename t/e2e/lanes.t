#!/usr/bin/perl
# Setup: one site that is silent until time is out and answers later, one that refuses for now in several ways; rules for lanes; the shared test clock moves
# from attempt to attempt; a site with a rate and one with few connections, changed by a reload.
# Expectation: mail waits where the first rule that fits says: by attempts, age and what the answer was about; mail for a slow site goes to fallback at its
# first deferral and comes back to retry once the site is well; what a site gets is what its entry says, and a new one counts at once. The books are
# conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use IO::Socket::INET;
use Test::More;

my $minute = 60_000;
my ($later, $few) = map { NextHop->new(port => Sekisho::free_port()) } 1 .. 2;
# Made last: nobody else holds it.
my $silent = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => Sekisho::free_port(), ReuseAddr => 1) or die $!;
my $port = $silent->sockport;
my $s = Sekisho->new(clock => 1, no_start => 1);
sub conf {
	my ($connections, $timeout) = @_;
	$s->{extra} = <<"CONF";
${Sekisho::UNLIMITED}relay: { reply_timeout: $timeout }
routes:
  slow.example: "127.0.0.1:$port"
  "*.later.example": "127.0.0.1:$later->{port}"
  few.example: "127.0.0.1:$few->{port}"
  "*": "127.0.0.1:$s->{ports}{sink}"
sites:
  - { match: few.example, connections: $connections, start: $connections }
  - { match: 127.0.0.1, rate: off }
lanes:
  rules:
    - { to: retry, reply: full }
    - { to: fallback, attempts: 2, reply: greylist }
    - { to: fallback, age: 30min }
CONF
	$s->write_conf;
}
conf(1, '400ms');
$s->start;
my $me = 'alice@example.test';
$s->account($me);
sub mail { return $s->submit($me, "x
", @_) }
sub in_lane {
	my ($id, $lane, $attempts, $what) = @_;
	ok(Sekisho::wait_for(20, sub { my $m = $s->show($id); ($m->{lane} // '') eq $lane && ($m->{attempts} // 0) == $attempts }), $what) or diag explain $s->show($id);
}

# --- rules ---

$later->offers({ RCPT => '452 4.2.2 mailbox full' });
my $full = mail('a@one.later.example');
in_lane($full, 'retry', 1, 'a full mailbox: retry');
$s->advance(3 * $minute);
in_lane($full, 'retry', 2, 'and again');
$later->offers({ RCPT => '451 4.7.1 greylisted, come back later' });
my $grey = mail('b@two.later.example');
in_lane($grey, 'retry', 1, 'greylisted: retry after the first attempt');
$s->advance(3 * $minute);
in_lane($grey, 'fallback', 2, 'by its rule in fallback after the second');
$later->offers({ RCPT => '450 4.3.0 not now' });
$s->advance(6 * $minute);
in_lane($grey, 'retry', 3, 'another answer, which no rule is about: back in retry');
$s->advance(30 * $minute);
in_lane($grey, 'fallback', 4, 'and in fallback for its age');

# --- slow ---

my @slow = map {
	my $id = mail('c@slow.example');
	Sekisho::wait_for(20, sub { my $m = $s->show($id); ($m->{lane} // 'fresh') ne 'fresh' });
	$s->advance(1000);
	$id;
} 1 .. 3;
in_lane($slow[0], 'retry', 1, 'the first that is not answered waits in retry');
in_lane($slow[2], 'fallback', 1, 'the third makes the site slow, and waits in fallback');
like($s->log, qr/ site-slow site=127\.0\.0\.1:$port p90=-1 timeouts=3/, 'which is told');
close $silent;
my $well = NextHop->new(port => $port);
$well->offers({ RCPT => '450 4.3.0 not now' });
$s->advance(11 * $minute);
in_lane($slow[2], 'retry', 2, 'it answers, and no answer was missing for ten minutes: back in retry');
like($s->log, qr/ site-recovered site=127\.0\.0\.1:$port /, 'which is told');

# --- what a site gets ---

sub at_once { # attempts that have got as far as MAIL, while nobody's is answered
	my ($want) = @_;
	return Sekisho::wait_for(20, sub { $want == ($s->json('status')->{queue}{in_flight} // -1) });
}
conf(1, '60s');
$s->ctl('reload');
kill 'STOP', $few->{pid};
mail("d$_\@few.example") for 1 .. 6;
ok(at_once(1), 'one connection at once') or diag explain $s->json('status')->{queue};
conf(3, '60s');
$s->ctl('reload');
is($?, 0, 'another entry');
ok(at_once(3), 'three at once, without waiting for the one') or diag explain $s->json('status')->{queue};
kill 'CONT', $few->{pid};
$_->offers() for $few, $later, $well;
for (1 .. 30) {
	last if Sekisho::wait_for(1, sub { my $a = $s->json('queue', 'audit'); $a && $a->{queued} == 0 });
	$s->advance(20 * $minute);
}
my $audit;
ok(Sekisho::wait_for(20, sub { $audit = $s->json('queue', 'audit'); $audit && $audit->{queued} == 0 && $audit->{conserved} && $audit->{orphans} == 0 }), 'all is delivered, conserved')
	or diag $s->ctl('queue', 'audit'), $s->ctl('queue', 'list');
done_testing;
