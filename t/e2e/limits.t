#!/usr/bin/perl
# Setup: a service and a next hop that says what it bears: LIMITS (RFC 9422), CHUNKING.
# Expectation: what a session or a transaction may carry is never exceeded, and nobody is kept from his mail by it: a message to more recipients goes in
# several transactions, on as many connections as that takes, each left with QUIT; a refusal in one is no word about those who were not yet asked, but
# one that says "later" is. Content arrives octet for octet, in a chunk where those are taken.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my $me = 'alice@example.test';
my $hop_port = Sekisho::free_port();
my $hop = NextHop->new(port => $hop_port);
my $s = Sekisho->new(no_start => 1);
$s->{extra} = <<"CONF";
quota: { $Sekisho::UNPACED }
routes: { example.test: "127.0.0.1:$s->{ports}{sink}", "*": "127.0.0.1:$hop_port" }
relay: { idle: 60s }
CONF
$s->write_conf;
$s->start;
$s->account($me);
my $c = $s->login($me) or BAIL_OUT $s->log;

my $seen = 0;
sub heard { my @all = $hop->heard; return @all[$seen .. $#all] }
sub verbs { return join ' ', map { /^(\w+)/ ? uc $1 : '?' } heard() }

# To so many in a domain; returns what became of it when that is settled (or was deferred).
sub send_to {
	my ($count, $domain, @offers) = @_;
	$hop->offers(@offers);
	$seen = () = $hop->heard;
	my $said = $c->send_mail($me, [ map { "r$_\@$domain" } 1 .. $count ], "to $count in $domain\r\n.\r\n..two");
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/ or BAIL_OUT $said . $s->log;
	ok(Sekisho::wait_for(30, sub { my $m = $s->show($id); $m->{finished} || $m->{attempts} }), "to $count in $domain: attempted") or diag $s->log;
	return $s->show($id);
}

sub states { my %n; $n{ $_->{state} }++ for @{ $_[0]{rcpt} }; return join ' ', map { "$_:$n{$_}" } sort keys %n }

# Each part has connections of its own: the offers of a kept one are those of its beginning.
my $m = send_to(5, 'five.example', 'PIPELINING', 'LIMITS RCPTMAX=2 MAILMAX=2');
is(states($m), 'delivered:5', 'all five get it');
is(verbs(), 'EHLO MAIL RCPT RCPT DATA MAIL RCPT RCPT DATA QUIT EHLO MAIL RCPT DATA', 'two at a time, two messages in a session');
is(scalar(grep { /^\.\r\n\.\.two\r\n\z/m } $hop->taken), 3, 'as it was sent');

$m = send_to(1, 'five.example', 'PIPELINING', 'LIMITS RCPTDOMAINMAX=1');
is(verbs(), 'MAIL RCPT DATA QUIT', 'the next message is the last of its session, as was announced');
$m = send_to(1, 'one.example', 'PIPELINING', 'LIMITS RCPTDOMAINMAX=1 RCPTMAX=none MAILMAX=12345678');
is(verbs(), 'EHLO MAIL RCPT DATA', 'what is no number limits nothing');
send_to(1, 'one.example', 'PIPELINING', 'LIMITS RCPTDOMAINMAX=1');
is(verbs(), 'MAIL RCPT DATA', 'the same domain: the same session');
send_to(1, 'another.example', 'PIPELINING', 'CHUNKING', 'LIMITS MAILMAX=1');
is(verbs(), 'EHLO MAIL RCPT BDAT QUIT', 'another domain: a session of its own; a chunk, where it takes chunks');
like(($hop->taken)[-1], qr/^\.\r\n\.\.two\r\n\z/m, 'in the chunk no dot is doubled');

$m = send_to(3, 'none.example', 'LIMITS RCPTMAX=1', { RCPT => '550 5.1.1 unknown' });
is(states($m), 'bounced:3', 'each is asked, whatever became of the one before');
is(verbs(), join(' ', ('EHLO MAIL RCPT QUIT') x 3), 'in a session of its own, since nothing was sent in it');
$m = send_to(3, 'later.example', 'LIMITS RCPTMAX=1', { RCPT => '451 4.7.1 later' });
is(states($m), 'queued:3', 'later for one is later for all');
is(verbs(), 'EHLO MAIL RCPT QUIT', 'nobody else is asked now');

ok($s->json('queue', 'audit')->{conserved}, 'nothing is lost');
is($s->stop, 0, 'stops cleanly');
done_testing;
