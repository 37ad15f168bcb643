#!/usr/bin/perl
# Setup: two accounts; sites that take mail, refuse it for now, and refuse it for good; the shared test clock.
# Expectation: trace tells a message's whole life by its queue id and its Message-ID: acceptance, each attempt of each recipient with the host and its
# reply, moves, holds and releases, the notification, the end; and what an address sent and got, newest first, within bounds, queued mail with what it
# waits for. A restart, a kill in the middle and a history that cannot be opened change none of it, or no mail. account history is the subscriber's view:
# its own mail only, without operators' names, from before its account was made nothing. What is older than history.keep is gone, from everywhere.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use Test::More;

my ($minute, $hour) = (60_000, 3_600_000);
my ($later_port, $gone_port) = map { Sekisho::free_port() } 1 .. 2;
my $s = Sekisho->new(clock => 1, no_start => 1);
$s->{extra} = qq(${Sekisho::UNLIMITED}limits: { messages: 100000, account_sessions: 500, prefix_sessions: 500 }\nhistory: { keep: 20d }\nroutes:\n)
	. qq(  "later.example": "127.0.0.1:$later_port"\n  "gone.example": "127.0.0.1:$gone_port"\n  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start;
my $gone = Peers->sink('127.0.0.1', $gone_port, '-f', 'rcpt');
my $later = Peers->sink('127.0.0.1', $later_port, '-r', 'rcpt');
my ($me, $bob) = ('alice@example.test', 'bob@example.test');
$s->account($me, $bob);

sub send_one {
	my ($account, $header, @to) = @_;
	my $c = $s->login($account) or return;
	$c->cmd("MAIL FROM:<$account>");
	$c->cmd("RCPT TO:<$_>") for @to;
	$c->cmd('DATA');
	$c->raw("From: <$account>\r\nSubject: sesame\r\n$header\r\nbody\r\n.\r\n");
	my $said = $c->reply;
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/;
	ok($id, "accepted for @to") or diag $said;
	return $id;
}

sub trace { my $t = $s->json('trace', @_); return ref $t ? $t : {} }
sub events { return map { $_->{event} } @{ $_[0]{events} // [] } }
sub story { return join ' ', events(trace($_[0])) }
sub rows { return @{ trace(@_)->{recipients} // [] } }
sub says { my ($what, $status, $pattern, @words) = @_; my $said = $s->ctl(@words); is($? >> 8, $status, "$what: status") or diag $said; like($said, $pattern, $what); return $said }
sub waits { my ($id, $what) = @_; return ok(Sekisho::wait_for(20, sub { my $t = trace($id); ($t->{lane} // '') eq 'retry' && $t->{state} eq 'deferred' }), $what) }
sub ends { my ($id, $what) = @_; ok(Sekisho::wait_for(20, sub { trace($id)->{finished} }), $what) or diag $s->ctl('trace', $id) }

# Whatever happened so far is in the index: it is made a second behind.
sub indexed { my ($n, @what) = @_; ok(Sekisho::wait_for(20, sub { rows(@what) == $n }), "$n known of @what") or diag $s->ctl('trace', @what) }

# --- delivered at once ---

my $first = send_one($me, "Message-ID: <one\@pc.example>\r\n", 'carol@example.org');
ends($first, 'delivered');
my $t = trace($first);
is(join(' ', events($t)), 'accepted delivered ended', 'its life');
is_deeply([@$t{qw(message_id protocol account from recipients client_ip)}], ['one@pc.example', 'ESMTPSA', $me, $me, 1, '127.0.0.1'], 'who, and how it came');
my $delivered = $t->{events}[1];
is_deeply([@$delivered{qw(to attempt lane ip)}], ['carol@example.org', 1, 'fresh', '127.0.0.1'], 'the attempt');
like($delivered->{text}, qr/^250 /, 'the reply');
like($delivered->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*(?:Z|[+-]\d\d:\d\d)$/, 'times have a zone');
unlike($s->ctl('--json', 'trace', $first), qr/sesame|body/, 'no content');
says('for people', 0, qr/^message-id +one\@pc\.example\n.*^\S+ +delivered +carol\@example\.org +1 +fresh +\S+ \[127\.0\.0\.1\] +250 /ms, 'trace', $first);
indexed(1, 'carol@example.org');
is(trace('<one@pc.example>')->{id}, $first, 'by its Message-ID');
is((rows('CAROL@Example.org'))[0]{id}, $first, 'by its recipient, however it is written');
is((rows($me))[0]{to}, 'carol@example.org', 'by its sender');
says('an unknown id', 1, qr/does not know/, 'trace', '0' x 26);
says('an unknown Message-ID', 1, qr/no message with that Message-ID/, 'trace', '<none@pc.example>');
says('an unknown address', 1, qr/a Message-ID goes in <>/, 'trace', 'nobody@example.org');
says('less than no time ago', 1, qr/no time at all/, 'trace', $me, '--since', '0s');
says('nothing of the kind', 64, qr/a queue id, a Message-ID in <>, or an address/, 'trace', 'nonsense');

# --- held, released, deferred, moved, delivered ---

$s->ctl('queue', 'hold', '--account', $me, '--reason', 'looks odd');
my $second = send_one($me, "Message-ID: <two\@pc.example>\r\n", 'dave@later.example', 'erin@example.org');
indexed(1, 'dave@later.example');
my ($row) = rows('dave@later.example');
is_deeply([@$row{qw(state rule attempts)}], ['held', "hold account $me", 0], 'what is queued says what it waits for');
$s->ctl('queue', 'release', '--account', $me);
waits($second, 'attempted and moved') or diag $s->ctl('trace', $second);
$t = trace($second);
is(join(' ', sort(events($t))), 'accepted deferred delivered moved released', 'its life so far: the hold came before it');
is($t->{lane}, 'retry', 'where it is');
like($t->{due}, qr/^\d{4}-/, 'and until when');
my ($deferred) = grep { $_->{event} eq 'deferred' } @{ $t->{events} };
is_deeply([@$deferred{qw(to attempt lane ip)}], ['dave@later.example', 1, 'fresh', '127.0.0.1'], 'the attempt that was refused for now');
like($deferred->{text}, qr/^4\d\d /, 'its reply');
my ($released) = grep { $_->{event} eq 'released' } @{ $t->{events} };
like($released->{text}, qr/^by \w/, 'who released it');
($row) = rows('dave@later.example');
is_deeply([@$row{qw(state lane attempts)}], ['deferred', 'retry', 1], 'found by its address in the retry lane');
$s->ctl('queue', 'hold', $second, '--reason', 'once more');
ok(Sekisho::wait_for(20, sub { story($second) =~ /held/ }), 'a hold of the message');
like((grep { $_->{event} eq 'held' } @{ trace($second)->{events} })[0]{text}, qr/^by .*: once more$/, 'who, and why');
unlike(story($first), qr/held|released/, 'what had ended was not held');
$s->ctl('queue', 'release', $second);
ok(Sekisho::wait_for(20, sub { story($second) =~ /released\z/ }), 'and its release');

# Killed and back, the story is the same.
my $before = story($second);
my ($old) = $s->pids('sekisho-queue');
$s->advance(11_000);
kill 'KILL', $old;
ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && $s->json('queue', 'audit') }), 'queue is back');
is(story($second), $before, 'a restart keeps it');
$later->stop;
$later = Peers->sink('127.0.0.1', $later_port);
$s->advance($hour);
ends($second, 'delivered in the end');
like(story($second), qr/^accepted .*moved.* delivered ended\z/, 'its whole life');
is((grep { $_->{event} eq 'delivered' && $_->{attempt} > 1 } @{ trace($second)->{events} })[0]{lane}, 'retry', 'delivered from the retry lane');

# --- refused for good ---

my $third = send_one($me, '', 'frank@gone.example');
ends($third, 'bounced');
$t = trace($third);
is(join(' ', events($t)), 'accepted bounced notified ended', 'its life');
like($t->{message_id}, qr/^\Q$third\E@/, 'it has the Message-ID that it was given');
my $notice = $t->{events}[2]{message};
ends($notice, 'the notification is delivered');
$t = trace($notice);
is($t->{events}[0]{event}, 'generated', 'it was generated');
is($t->{events}[0]{message}, $third, 'about that one');
ok($t->{generated}, 'and says so');

# --- removed ---

$later->stop;
$later = Peers->sink('127.0.0.1', $later_port, '-r', 'rcpt');
my $fourth = send_one($me, '', 'gina@later.example');
waits($fourth, 'deferred');
$s->ctl('queue', 'remove', $fourth, '--yes', '--reason', 'a secret reason');
ends($fourth, 'removed');
is(join(' ', events(trace($fourth))), 'accepted deferred moved removed ended', 'its life');
like((grep { $_->{event} eq 'removed' } @{ trace($fourth)->{events} })[0]{text}, qr/removed by .*: a secret reason/, 'by whom, and why');

# --- not attempted, because an operator suspended the site ---

my $fifth = send_one($me, '', 'hana@later.example');
waits($fifth, 'deferred');
$s->ctl('site', 'suspend', 'later.example', '--for', '2h', '--reason', 'a secret reason');
$s->advance($hour);
ok(Sekisho::wait_for(20, sub { ($row) = rows('hana@later.example'); $row && $row->{reply} =~ /^not/ && $row->{rule} }), 'put off') or diag $s->ctl('trace', $fifth);
like($row->{reply}, qr/^not attempted: site \S+ waits until \S+ \(suspended by the operator of this service\); last: 4\d\d /, 'what its sender may read');
is_deeply([map { [@$_{qw(attempt lane host ip)}] } (grep { $_->{event} eq 'deferred' } @{ trace($fifth)->{events} })[1]], [[2, 'retry', undef, undef]], 'it met nobody') or diag $s->ctl('trace', $fifth);
like($row->{rule}, qr/suspended by .*: a secret reason/, 'the NOC sees by whom, and why');
my $subscribed = $s->ctl('--json', 'account', 'history', $me);
like($subscribed, qr/hana\@later\.example.*"waiting"/, 'and the subscriber that it waits');
unlike($subscribed, qr/secret|uid/, 'not by whom, nor why');
$s->ctl('queue', 'remove', $fifth, '--yes');
$s->ctl('site', 'resume', 'later.example');
ends($fifth, 'removed');

# --- lists ---

send_one($bob, '', map { "user$_\@example.org" } 1 .. 30) for 1 .. 8;
indexed(8, 'user7@example.org');
is(rows($bob), 100, 'a hundred when no number is given');
is(rows($bob, '--limit', '7'), 7, 'and no more');
my @all = rows($bob, '--limit', '1000');
is(@all, 240, 'pages make up the whole, each recipient once');
my %seen; $seen{"$_->{id} $_->{to}"}++ for @all;
is(keys %seen, 240, 'none twice');
is_deeply([map { $_->{id} } @all], [reverse sort map { $_->{id} } @all], 'newest first');
$s->advance($hour);
my $young = send_one($bob, '', 'user7@example.org');
ok(Sekisho::wait_for(20, sub { rows('user7@example.org') == 9 }), 'one more');
is_deeply([map { $_->{id} } rows('user7@example.org', '--since', '10min')], [$young], 'since');
ends($young, 'delivered'); # what ends later is kept longer

# --- the subscriber's view ---

my $h = $s->json('account', 'history', $me);
is_deeply([map { $_->{to} } @{ $h->{entries} }], ['hana@later.example', 'gina@later.example', 'frank@gone.example', 'dave@later.example', 'erin@example.org', 'carol@example.org'], 'its mail, newest first');
is_deeply([map { $_->{state} } @{ $h->{entries} }], [qw(removed removed bounced delivered delivered delivered)], 'what became of it');
like($h->{entries}[2]{reply}, qr/^5\d\d /, 'the last reply');
my $said = $s->ctl('--json', 'account', 'history', $me);
unlike($said, qr/secret|uid|sesame|pc\.example|retry|fresh|bob/, 'no operator, no content, no Message-ID, nobody else');
says('for people', 0, qr/^TIME .*gina\@later\.example +\d+ +not delivered: removed by the mail service/ms, 'account', 'history', $me);
is(@{ $s->json('account', 'history', $bob)->{entries} }, 241, 'another account');
says('no such account', 1, qr/\S/, 'account', 'history', 'nobody@example.test');
$s->ctl('account', 'remove', $bob);
is(rows($bob), 100, 'the NOC still finds the mail of an account that was removed');
$s->advance(1000);
$s->account($bob);
is(@{ $s->json('account', 'history', $bob)->{entries} }, 0, 'who gets the name next does not');

# --- forgetting ---

$s->advance(19 * 24 * $hour);
is(rows($me), 7, 'within history.keep it is known');
$s->advance(2 * 24 * $hour);
# It is looked at once a minute, and not while the look before is not through.
ok(Sekisho::wait_for(20, sub { $s->advance(60_000); !trace($first)->{id} && rows($me) == 0 && rows('user7@example.org') == 0 }), 'after it nothing is') or diag $s->ctl('trace', $me);
is($s->json('queue', 'audit')->{conserved}, $JSON::PP::true // 1, 'conserved');

# --- a history that cannot be opened ---

my $last = send_one($me, '', 'carol@example.org');
ends($last, 'delivered');
indexed(1, 'carol@example.org');
$s->stop;
open my $f, '+<:raw', "$s->{dir}/spool/history/data.mdb" or die $!;
print $f "\0" x 8192;
close $f;
$s->launch;
$s->wait_ready;
like($s->log, qr/history-aside/, 'a history that cannot be opened is put aside');
my $new = send_one($me, '', 'zoe@example.org');
ends($new, 'and mail goes on');
indexed(1, 'zoe@example.org');
done_testing;
