#!/usr/bin/perl
# Setup: forty sites that take connections and never say a word, and one that answers, which has been met before. Mail of several accounts for all of them is
# held, moved to the retry lane, that for the site that answers last, and let go all at once: as after a start without memory, nobody has met the silent ones.
# Expectation: the silent sites together get half of the lane's places, one each, and mail for the site that answers is delivered while they keep these. The
# fresh lane is as it was: a site that nobody has met gets its first places there.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use IO::Socket::INET;
use Test::More;

my $silent = IO::Socket::INET->new(Listen => 512, LocalAddr => '0.0.0.0', LocalPort => 0) or die $!;
my $port = $silent->sockport;
my $s = Sekisho->new(no_start => 1);
$s->{extra} = "${Sekisho::UNLIMITED}relay: { connections: 20 }\nroutes:\n" . join('', map { qq(  s$_.example: "127.0.1.$_:$port"\n) } 1 .. 41)
	. qq(  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start;
my @who = map { "a$_\@example.test" } 1 .. 4;
$s->account(@who);

sub in_flight { return $s->json('status')->{queue}{in_flight} // -1 }
sub site { my ($name) = @_; return (grep { $_->{site} eq $name } @{ $s->json('site', 'list')->{sites} })[0] // {} }

my $first = $s->submit($who[0], 'x', 'a@good.example');
ok(Sekisho::wait_for(20, sub { $s->show($first)->{finished} }), 'one site answers');
$s->ctl('queue', 'hold', '--account', $_) for @who;
for my $n (1 .. 40) { $s->submit($who[$n % 4], 'x', "a\@s$n.example") for 1 .. 2 }
my @good = map { $s->submit($_, 'x', 'a@good.example') } (@who) x 3;
like($s->ctl('queue', 'reroute', '--lane', 'fresh', '--to', 'retry'), qr/^moved: 92 /m, 'all that is held is in retry');
$s->ctl('queue', 'release', '--account', $_) for @who;
ok(Sekisho::wait_for(60, sub { @good == grep { $s->show($_)->{finished} } @good }), 'mail for the site that answers is delivered') or diag $s->ctl('queue', 'list');
ok(Sekisho::wait_for(20, sub { in_flight() == 10 }), 'while the silent ones have half of the places') or diag in_flight();
my @places = map { site("127.0.1.$_:$port")->{in_flight} // site("s$_.example")->{in_flight} // 0 } 1 .. 40;
is(scalar(grep { $_ == 1 } @places), 10, 'ten of them') or diag "@places";
is(scalar(grep { $_ > 1 } @places), 0, 'one each');

$s->submit($_, 'x', 'a@s41.example') for @who, @who;
ok(Sekisho::wait_for(20, sub { in_flight() == 15 }), 'in the fresh lane one that nobody has met gets five') or diag in_flight();
my $audit = $s->json('queue', 'audit');
ok($audit->{conserved}, 'conserved');
done_testing;
