#!/usr/bin/perl
# Setup: one next hop that answers RCPT as the test says, rules of the operator before the shipped ones, the shared test clock, a restart.
# Expectation: a rule changes what a reply does to the recipient (a 5xx waits, a 4xx bounces) and to the site (left alone, slower), and says so by its name
# in the log and beside the last reply; without a rule the code counts; nonsense and a lost connection are nobody's rule; other rules hold from the next
# reload on.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use NextHop;
use Test::More;

my $minute = 60_000;
my $port = Sekisho::free_port();
my $hop = NextHop->new(port => $port);
my $site = "127.0.0.1:$port";
my $s = Sekisho->new(clock => 1, no_start => 1);
sub rules { return "${Sekisho::UNLIMITED}routes:\n  \"*.example\": \"$site\"\nreplies:\n  rules:\n" . join '', map { "    - { $_ }\n" } @_ }
$s->{extra} = rules(
	'name: ours-defer, code: "550", text: "come back", action: defer',
	'name: ours-final, code: "450", text: "never again", action: bounce',
	'name: ours-rest, code: "4", text: "leave us alone", action: suspend, for: 20min',
	'name: ours-fast, code: "4", text: "too fast", action: slower, for: 30min');
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);

sub mail {
	my ($reply, $to) = @_;
	$hop->offers($reply ? { RCPT => $reply } : ());
	my $c = $s->login($me) or die 'no login';
	my ($id) = $c->send_mail($me, $to // 'b@one.example', "x\r\n") =~ /^250 2\.0\.0 Queued as (\w+)/ or die 'not taken';
	return $id;
}
sub fate { # "queued REPLY" once it was attempted
	my ($id) = @_;
	my $m;
	Sekisho::wait_for(20, sub { $m = $s->show($id); $m->{finished} || ($m->{lane} // '') ne 'fresh' });
	return "$m->{rcpt}[0]{state} $m->{rcpt}[0]{reply}";
}
sub logged { my ($what) = @_; return scalar(() = $s->log =~ /$what/g) }
sub told { my ($rule, $action) = @_; return Sekisho::wait_for(10, sub { logged(qr/ reply-rule rule=$rule site=\Q$site\E action=$action/) }) }

my $deferred = mail('550 5.7.1 come back later');
is(fate($deferred), 'queued tried again by rule ours-defer; last: 550 5.7.1 come back later', 'defer: a 5xx waits');
ok(told('ours-defer', 'defer'), 'and is told');
is(fate(mail('450 4.2.1 never again')), 'bounced 5.0.0 not tried again by rule ours-final; last: 450 4.2.1 never again', 'bounce: a 4xx is final');
ok(told('ours-final', 'bounce'), 'and is told');
ok(Sekisho::wait_for(10, sub { logged(qr/ generated about=\w+ kind=failed/) }), 'also to its sender');
is(fate(mail('550 5.1.1 whoever that is')), 'bounced 550 5.1.1 whoever that is', 'a shipped rule, user-unknown: by the code');
ok(told('unknown-mailbox', 'user-unknown'), 'and is told');
is(fate(mail('550 5.7.1 bad day')), 'bounced 550 5.7.1 bad day', 'no rule: a 5xx is final');
like(fate(mail('450 4.2.1 busy')), qr/^queued 450 4\.2\.1 busy/, 'a 4xx is not');
like(fate(mail('450 4.2.0 greylisted, see you')), qr/^queued 450 4\.2\.0 greylisted/, 'greylisting waits');
ok(told('greylisted', 'defer'), 'and is told');
like(fate(mail('554 5.7.1 listed at spamhaus')), qr/^bounced 554/, 'block: a 5xx is final');
ok(told('blocklisted', 'block'), 'and is told');
my $rules = logged(qr/ reply-rule /);
like(fate(mail('what? this is no SMTP')), qr/^queued /, 'nonsense waits');
like(fate(mail('close')), qr/^queued /, 'a lost connection, too');
is(logged(qr/ reply-rule /), $rules, 'neither is a rule\'s');

my $fast = mail('450 4.3.2 too fast');
like(fate($fast), qr/^queued 450 4\.3\.2 too fast/, 'slower: it waits');
ok(told('ours-fast', 'slower'), 'and is told');

my $rest = mail('450 4.3.2 leave us alone');
like(fate($rest), qr/^queued 450 4\.3\.2 leave us alone/, 'suspend: it waits');
ok(Sekisho::wait_for(10, sub { logged(qr/ site-paused site=\Q$site\E until=\S+ rule=ours-rest /) }), 'the site is left alone, by that rule');
my $heard = () = $hop->heard(qr/^MAIL/);
my $met = mail(undef, 'c@one.example');
like(fate($met), qr/^queued not attempted: site \Q$site\E waits until \S+ \(reply rule ours-rest\)$/, 'further mail is not attempted, and says by which rule');
is(scalar(() = $hop->heard(qr/^MAIL/)), $heard, 'nothing came');
$s->stop;
$s->start;
my $late = mail(undef, 'd@one.example');
like(fate($late), qr/^queued not attempted: site \Q$site\E waits until \S+ \(reply rule ours-rest\)$/, 'a restart does not end that');
$s->advance(70 * $minute);
ok(Sekisho::wait_for(30, sub { $s->show($met)->{finished} && $s->show($rest)->{finished} }), 'after that time it goes') or diag $s->ctl('queue', 'list');
ok(Sekisho::wait_for(30, sub { $s->show($deferred)->{finished} }), 'what a rule deferred was tried again');

ok(Sekisho::wait_for(30, sub { my $a = $s->json('queue', 'audit'); $a && $a->{queued} == 0 }), 'and all the others') or diag $s->ctl('queue', 'list');
like(fate(mail('450 4.7.1 address is listed at spamcop')), qr/^queued 450/, 'block: a 4xx waits');
ok(Sekisho::wait_for(10, sub { logged(qr/ site-paused site=\Q$site\E until=\S+ rule=blocklisted /) }), 'and so does the site, for a step');
$hop->offers;
$s->advance(70 * $minute);

$s->{extra} = rules('name: other, code: "550", text: "come back", action: bounce');
$s->write_conf;
$s->ctl('reload');
is(fate(mail('550 5.7.1 come back later')), 'bounced 550 5.7.1 come back later', 'another rule after a reload');
ok(told('other', 'bounce'), 'and is told');
$hop->offers;
$s->advance(70 * $minute);
my $a;
ok(Sekisho::wait_for(30, sub { $a = $s->json('queue', 'audit'); $a && $a->{conserved} && $a->{queued} == 0 }), 'conserved at the end') or diag $s->ctl('queue', 'audit'), $s->ctl('queue', 'list');
done_testing;
