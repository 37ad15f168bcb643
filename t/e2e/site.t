#!/usr/bin/perl
# Setup: a real nsd that says two domains have one MX host and another domain another one; both are next hops that answer as the test says; the shared
# test clock; the service is restarted in between.
# Expectation: the two domains are one site for every command. What an operator orders of a site holds at once, over a restart and until its time, for all
# that it serves, and is on record; what waits comes when it ends. The lists say what holds and why; a slow site is ranked, and recovers; each reply rule
# counts, also over a reload.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use NextHop;
use IO::Socket::UNIX;
use JSON::PP;
use Test::More;

my $minute = 60_000;
my $port = Sekisho::free_port();
my $dns_port = Sekisho::free_port();
my $nsd = Peers->nsd($dns_port, <<'ZONE');
h2.hosts. A 127.0.0.2
h3.hosts. A 127.0.0.3
one.example. MX 10 h2.hosts.
two.example. MX 10 h2.hosts.
other.example. MX 10 h3.hosts.
ZONE
my %hop = (h2 => NextHop->new(address => '127.0.0.2', port => $port), h3 => NextHop->new(address => '127.0.0.3', port => $port));
my $s = Sekisho->new(clock => 1, no_start => 1, no_sink => 1);
my $base = "${Sekisho::UNLIMITED}routes: { \"*.deep.example\": mx }\nrelay: { port: $port }\ndns: { servers: [\"127.0.0.1:$dns_port\"], timeout: 5s }\n";
$s->{extra} = "${base}replies:\n  rules:\n    - { name: mine, text: \"hold on\", action: defer }\n";
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);

sub mail { return $s->submit($me, "x
", @_) }
sub gone { my (@ids) = @_; return Sekisho::wait_for(30, sub { @ids == grep { $s->show($_)->{finished} } @ids }) }
sub put_off { # until it was not attempted; its reply
	my ($id) = @_;
	my $m;
	Sekisho::wait_for(20, sub { $m = $s->show($id); $m->{finished} || ($m->{lane} // '') ne 'fresh' });
	return $m->{last_reply};
}
sub site { my $m = $s->json('site', 'show', $_[0]); return ref $m ? $m : {} }
sub logged { my ($what) = @_; return scalar(() = $s->log =~ /$what/g) }

ok(gone(map { mail("a\@$_.example") } qw(one two other)), 'mail to three domains');
my ($one, $two, $other) = map { site("$_.example") } qw(one two other);
is($one->{site}, 'h2.hosts', 'a site is named by its MX host') or diag explain $one, $s->log;
is($two->{site}, $one->{site}, 'two domains with one MX set are one site');
is($other->{site}, 'h3.hosts', 'another is not');
is_deeply([sort @{ $one->{domains} }], ['one.example', 'two.example'], 'it tells whom it serves');
is($one->{delivered}, 2, 'and counts for both');
cmp_ok($one->{reply}{p50}, '>=', 0, 'with times');
is(site('H2.hosts')->{site}, 'h2.hosts', 'it is found by its name, too');
like($s->ctl('site', 'show', 'nowhere.example'), qr/no such site/, 'one that nobody knows is not');
is_deeply([sort map { $_->{site} } @{ $s->json('site', 'list')->{sites} }], ['h2.hosts', 'h3.hosts'], 'both are listed');

# suspend
like($s->ctl('site', 'suspend', 'two.example', '--reason', 'x'), qr/for/, 'a suspension takes its time');
my $m = $s->json('site', 'suspend', 'two.example', '--for', '2h', '--reason', 'their storm');
is("$m->{site} $m->{paused}", 'h2.hosts operator', 'suspended by one of its domains');
like($m->{why}, qr/^suspended by .+: their storm$/, 'by whom and why');
ok(logged(qr/ site-suspend site=h2\.hosts until=\S+ by="[^"]+" reason="their storm"/), 'on the record');
my @waiting = map { mail("b\@$_.example") } qw(one two);
like(put_off($_), qr/^not attempted: site h2\.hosts waits until \S+ \(suspended by the operator of this service\)/, 'nothing is attempted, which it says') for @waiting;
$m = $s->show($waiting[0]);
is($m->{state}, 'suspended', 'its mail is shown as suspended');
like($m->{rule}, qr/^site h2\.hosts until \d\S+: suspended by .+: their storm$/, 'by whom and why');
is_deeply([sort($s->listed('--state', 'suspended'))], [sort @waiting], 'and listed so');
like($s->ctl('queue', 'list'), qr/^$waiting[1] +suspended +retry /m, 'for people, too');
like($s->ctl('queue', 'flush', '--recipient', 'one.example'), qr/^due now: 0 /m, 'a flush leaves it alone');
ok(gone(mail('b@other.example')), 'others are not concerned');
is(scalar(() = $hop{h2}->heard(qr/^MAIL/)), 2, 'nothing came');

$s->stop;
$s->start;
is(site('one.example')->{paused}, 'operator', 'a restart does not end it');
push @waiting, mail('c@one.example');
like(put_off($waiting[-1]), qr/^not attempted: site h2\.hosts/, 'nor lets anything through');
$m = $s->json('site', 'resume', 'h2.hosts');
is($m->{paused}, undef, 'resumed');
ok(logged(qr/ site-resume site=h2\.hosts by="/), 'on the record');
ok(gone(@waiting), 'and what waited comes') or diag $s->ctl('queue', 'list');
like($s->ctl('site', 'resume', 'one.example'), qr/nothing to end/, 'which is nothing to end any more');
$s->json('site', 'suspend', 'one.example', '--for', '30min');
my $late = mail('d@one.example');
put_off($late);
$s->advance(31 * $minute);
ok(gone($late), 'its time ends it, too');
ok(Sekisho::wait_for(10, sub { logged(qr/ site-resume site=h2\.hosts by="its time"/) }), 'which is told');

# A domain nobody has asked about.
$s->json('site', 'suspend', 'fresh.example', '--for', '1h');
like(put_off(mail('a@fresh.example')), qr/^not attempted: site fresh\.example/, 'a domain of which the site is unknown is suspended before anything is tried');
$s->json('site', 'resume', 'fresh.example');

# limit
$m = $s->json('site', 'limit', 'one.example', '--connections', '1', '--rate', '2/min', '--for', '1h', '--reason', 'asked to');
is("$m->{site} $m->{limit} $m->{rate}{count} $m->{rate}{seconds}", 'h2.hosts 1 2 60', 'limited');
like($m->{by_operator}{why}, qr/^limited by .+: asked to$/, 'by whom and why');
my @paced = map { mail("e$_\@two.example") } 1 .. 3;
ok(Sekisho::wait_for(20, sub { 1 == grep { $s->show($_)->{finished} } @paced }), 'one goes');
is(site('one.example')->{waiting}, 2, 'the others are in line');
$s->advance(31_000);
ok(Sekisho::wait_for(20, sub { 2 == grep { $s->show($_)->{finished} } @paced }), 'the next half a minute later');
$m = $s->json('site', 'limit', 'h2.hosts', '--clear');
is($m->{by_operator}, undef, 'back to normal');
ok(gone(@paced), 'and the rest goes at once');
like($s->ctl('site', 'limit', 'one.example', '--for', '1h'), qr/connections/, 'a limit says of what');
like($s->ctl('site', 'limit', 'one.example', '--rate', 'much', '--for', '1h'), qr{10/min}, 'in a form that it tells');

# rules
$hop{h2}->offers({ RCPT => '450 4.3.0 hold on' });
put_off(mail('f@one.example'));
sub rule { my ($name) = @_; return (grep { $_->{name} eq $name } @{ $s->json('site', 'rules')->{rules} })[0] }
is(rule('mine')->{count}, 1, 'a rule counts');
ok(rule('mine')->{last} && !rule('mine')->{shipped} && rule('greylisted')->{shipped}, 'says when last, and whose it is');
$s->{extra} = "${base}replies:\n  rules:\n    - { name: mine, text: \"hold\", action: defer }\n    - { name: next, text: \"on\", code: \"4\", action: defer }\n";
$s->write_conf;
$s->ctl('reload');
is(rule('mine')->{count}, 1, 'a reload keeps its count');
is(rule('next')->{count}, 0, 'and knows others');
$hop{h2}->offers;
$s->advance(70 * $minute);
my $a;
ok(Sekisho::wait_for(30, sub { $a = $s->json('queue', 'audit'); $a && $a->{conserved} }), 'conserved') or diag $s->ctl('queue', 'audit');
like($s->ctl('site', 'list'), qr/^SITE +STATE.*^h2\.hosts +- /ms, 'a table for people');
like($s->ctl('site', 'show', 'one.example'), qr/^site +h2\.hosts\n.*^serves +(one|two)\.example$/ms, 'and a page');

# slow
is_deeply($s->json('site', 'slow')->{sites}, [], 'nobody is slow');
$hop{h3}->offers({ RCPT => 'silent' });
my @silent = map { mail("g$_\@other.example") } 1 .. 3;
ok(Sekisho::wait_for(20, sub { site('h3.hosts')->{in_flight} == 3 && $hop{h3}->heard(qr/^RCPT TO:<g/) == 3 }), 'three wait for an answer');
$s->advance(6 * $minute);
ok(Sekisho::wait_for(20, sub { my $slow = $s->json('site', 'slow')->{sites}; @$slow == 1 && $slow->[0]{site} eq 'h3.hosts' && $slow->[0]{timeouts} == 3 }), 'three that get none: it is slow')
	or diag explain site('h3.hosts');
like($s->ctl('site', 'slow'), qr/^h3\.hosts +slow /m, 'which the list says');
$hop{h3}->offers;
$s->advance(11 * $minute);
ok(gone(map { mail("h$_\@other.example") } 1 .. 40), 'it answers again');
ok(Sekisho::wait_for(20, sub { @{ $s->json('site', 'slow')->{sites} } == 0 }), 'and is not slow any more') or diag explain site('h3.hosts');

# bounds
my $r = IO::Socket::UNIX->new(Peer => "$s->{dir}/admin.sock");
my @said = map { syswrite $r, qq({"command":"site.limit","site":"s$_.example","connections":1,"for":"1h"}\n); decode_json(scalar <$r>) } 0 .. 1000;
is_deeply([map { $_->{error} } grep { !$_->{ok} } @said[0 .. 999]], [], 'a thousand orders may be in force');
is($said[1000]{ok} ? 'taken' : $said[1000]{error}{code}, 'refused', 'and no more');
like($s->ctl('site', 'suspend', 'one.example', '--for', '1h'), qr/as many .* as there may be/, 'which it says');
is($? >> 8, 1, 'with 1');
like($s->ctl('site', 'limit', 's7.example', '--connections', 2, '--for', '2h'), qr/^ +connections +2$/m, 'one that is in force can be changed');
is(ref $s->json('site', 'limit', 's8.example', '--clear'), 'HASH', 'and ended');
is($s->json('site', 'suspend', 'one.example', '--for', '1h')->{paused}, 'operator', 'which makes room');
done_testing;
