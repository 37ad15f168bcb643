#!/usr/bin/perl
# Setup: two accounts; two sites that nobody listens at, so that mail to them is deferred; a sink for the rest; the shared test clock.
# Expectation: age tells where what waits has been waiting how long. Every condition selects what it says, alone and with others, in lists and in the counts of each verb; what a dry run counts is what is then
# done. A hold with several conditions also holds what arrives later, of a message only the recipients that it means, and survives a restart. A bounce tells
# the sender the reason, and not who did it. A flush comes at its rate. A bounce of many, whose queue is killed in between, is begun again: nothing is lost.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use IO::Socket::UNIX;
use JSON::PP;
use Test::More;

my ($minute, $hour) = (60_000, 3_600_000);
my ($slow_port, $busy_port) = (Sekisho::free_port(), Sekisho::free_port());
my $s = Sekisho->new(clock => 1, no_start => 1);
$s->{extra} = qq(${Sekisho::UNLIMITED}limits: { messages: 100000, account_sessions: 500, prefix_sessions: 500 }\nretry: { schedule: [3h] }\nroutes:\n)
	. qq(  "slow.example": "127.0.0.1:$slow_port"\n  "busy.example": "127.0.0.1:$busy_port"\n  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start;
my ($me, $bob) = ('alice@example.test', 'bob@example.test');
$s->account($me, $bob);

sub state_of { my ($m) = @_; return join ' ', map { $_->{state} } @{ $m->{rcpt} // [] } }
sub says { my ($what, $status, $pattern, @words) = @_; my $said = $s->ctl(@words); is($? >> 8, $status, "$what: status") or diag $said; like($said, $pattern, $what) }

sub conserved {
	my ($what, %want) = @_;
	my $a;
	ok(Sekisho::wait_for(30, sub { $a = $s->json('queue', 'audit'); return $a && $a->{conserved} && !grep { $a->{$_} != $want{$_} } keys %want }), "conserved: $what")
		or diag $s->ctl('queue', 'audit'), explain \%want;
}

sub deferred { # all of these
	my ($what, @ids) = @_;
	my %state;
	ok(Sekisho::wait_for(30, sub { %state = map { $_->{id} => $_->{state} } @{ $s->json('queue', 'list')->{messages} }; !grep { ($state{$_} // '') ne 'deferred' } @ids }), "deferred: $what")
		or diag explain \%state;
}

sub restart_queue {
	my ($old) = $s->pids('sekisho-queue');
	$s->advance(11_000);
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && $s->json('queue', 'audit') }), 'queue is back');
}

# --- what each condition selects ---

my $big = join "\n", ('x' x 70) x 100;
my %id = (
	small => $s->submit($me, 'small', 'carol@slow.example'),
	big   => $s->submit($me, $big, 'dave@busy.example'),
	both  => $s->submit($bob, 'both', 'carol@slow.example', 'Dave@busy.example'),
	one   => $s->submit($bob, 'one', 'erin@slow.example'),
);
deferred('the first', values %id);
$s->advance($hour);
$id{late} = $s->submit($bob, 'late', 'dave@busy.example');
deferred('the last', values %id);

my @stories = ( # condition, messages, recipients
	[['--account', 'Alice@example.test'], [qw(small big)], 2],
	[['--sender', $bob], [qw(both one late)], 4],
	[['--sender', 'example.test'], [qw(small big both one late)], 6],
	[['--sender', '<>'], [], 0],
	[['--recipient', 'slow.example'], [qw(small both one)], 3],
	[['--recipient', 'dave@BUSY.example'], [qw(big both late)], 3],
	[['--site', 'slow.example'], [qw(small both one)], 3],
	[['--site', "127.0.0.1:$busy_port"], [qw(big both late)], 3],
	[['--lane', 'retry'], [qw(small big both one late)], 6],
	[['--lane', 'fallback'], [], 0],
	[['--older', '30min'], [qw(small big both one)], 5],
	[['--younger', '30min'], [qw(late)], 1],
	[['--larger', '4KiB'], [qw(big)], 1],
	[['--smaller', '4KiB'], [qw(small both one late)], 5],
	[['--reply', 'connection REFUSED'], [qw(small big both one late)], 6],
	[['--reply', '451'], [], 0],
	[['--account', $bob, '--recipient', 'busy.example', '--older', '30min'], [qw(both)], 1],
	[['--account', $me, '--smaller', '4KiB', '--lane', 'retry', '--reply', 'refused'], [qw(small)], 1],
	[[$id{both}], [qw(both)], 2],
	[[$id{both}, '--recipient', 'slow.example'], [qw(both)], 1],
);
for (@stories) {
	my ($which, $messages, $recipients) = @$_;
	is_deeply([sort($s->listed(@$which))], [sort map { $id{$_} } @$messages], "queue list @$which");
	for my $verb (qw(hold bounce remove)) {
		my $count = $s->json('queue', $verb, @$which, '--dry-run');
		is("$count->{messages} $count->{recipients}", @$messages . " $recipients", "queue $verb @$which --dry-run");
	}
	is($s->json('queue', 'flush', @$which, '--dry-run')->{messages}, @$messages, "queue flush @$which --dry-run");
}
my $rows = ($s->json('age') // {})->{rows};
is_deeply([map { "$_->{lane} $_->{site} $_->{total}: $_->{'5min'} $_->{'1h'} $_->{'4h'} $_->{older}" } @$rows],
	[(map { "retry 127.0.0.1:$_ 3: " . ($_ == $busy_port ? '1 0 2 0' : '0 0 3 0') } sort $slow_port, $busy_port), 'retry (all) 6: 1 0 5 0'], 'age: lanes, sites, ages') or diag explain $rows;
says('age for people', 0, qr/^LANE +SITE +MESSAGES +5MIN .*\nretry +127\.0\.0\.1:\d+ +3 .*^retry +\(others\) +3 .*^retry +\(all\) +6 +1 +0 +5 /ms, 'age', '--top', '1');
says('age of no number', 64, qr/--top takes/, 'age', '--top', 'x');
says('no condition', 64, qr/say which messages.*--recipient/, 'queue', 'bounce', '--yes');
says('no such lane', 1, qr/there are: fresh retry fallback/, 'queue', 'hold', '--lane', 'nonsense');
says('no size', 1, qr/"larger" is no size/, 'queue', 'list', '--larger', 'much');
says('no address', 1, qr/"recipient" is no mail address/, 'queue', 'list', '--recipient', 'a b');
says('a quotation mark', 1, qr/quotation mark/, 'queue', 'list', '--reply', 'a"b');
conserved('nothing was done', accepted => 6, queued => 6, generated => 0);

# --- a bounce ---

says('bounce', 0, qr/^bounced: 1 recipients of 1 messages$/m, 'queue', 'bounce', $id{both}, '--recipient', 'busy.example', '--yes', '--reason', 'that host is closed for good');
my $m = $s->show($id{both});
is(state_of($m), 'queued bounced', 'only the recipient that was meant');
like($m->{rcpt}[1]{reply}, qr/^5\.7\.0 .*: that host is closed for good$/, 'the reason');
my ($notice) = ('');
ok(Sekisho::wait_for(20, sub { ($notice) = grep { /closed for good/ } $s->delivered; $notice }), 'its sender is told');
like($notice // '', qr/^Status: 5\.7\.0\r?$/m, 'with the code');
unlike($notice // '', qr/uid|root/, 'and not who did it');
like($s->log, qr/ bounce what="message $id{both} recipient busy\.example" messages=1 recipients=1 busy=0 failed=0 by="[^"]+" reason="that host/, 'that is in the log');
says('bounce again', 0, qr/^bounced: 0 /m, 'queue', 'bounce', $id{both}, '--recipient', 'busy.example', '--yes');
like($s->ctl('account', 'history', $bob), qr/ Dave\@busy\.example +\d+ +not delivered: the reply says why +5\.7\.0 /i, 'nor does its history blame a server that was never asked');
my $dry = $s->json('queue', 'remove', '--site', 'busy.example', '--dry-run');
my $done = $s->json('queue', 'remove', '--site', 'busy.example', '--yes');
is_deeply($done, $dry, 'what was counted is done');
conserved('after the acts', accepted => 6, bounced => 1, removed => 2, queued => 3, generated => 1);

# --- a hold with conditions ---

says('hold', 0, qr/^held: sender \Q$bob\E recipient example\.org larger 4KiB, until it is released$/m, 'queue', 'hold', '--sender', $bob, '--recipient', 'example.org', '--larger', '4KiB');
my $held = $s->submit($bob, $big, 'carol@example.org', 'carol@example.com');
$s->submit($bob, 'bob-small', 'carol@example.org');
$s->submit($me, "alice-big\n$big", 'carol@example.org');
ok(Sekisho::wait_for(20, sub { my $all = join "\n", $s->delivered; $all =~ /^bob-small/m && $all =~ /^alice-big/m }), 'what it does not mean goes');
ok(Sekisho::wait_for(20, sub { state_of($s->show($held)) eq 'queued delivered' && $s->show($held)->{state} eq 'held' }), 'of a message only the recipient that it means waits') or diag explain $s->show($held);
is($s->show($held)->{rule}, "hold sender $bob recipient example.org larger 4KiB", 'and says for what');
restart_queue();
is_deeply([$s->listed('--state', 'held')], [$held], 'held after a restart');
says('release of another', 1, qr/no such hold/, 'queue', 'release', '--sender', $bob, '--recipient', 'example.org');
says('release', 0, qr/^released: sender/m, 'queue', 'release', '--sender', $bob, '--recipient', 'example.org', '--larger', '4KiB');
ok(Sekisho::wait_for(20, sub { state_of($s->show($held)) eq 'delivered delivered' }), 'released: delivered');

# A hold of young mail ends as the mail ages.
says('hold', 0, qr/^held: younger 1h/m, 'queue', 'hold', '--younger', '1h');
my $young = $s->submit($me, 'young', 'carol@example.org');
ok(Sekisho::wait_for(20, sub { $s->show($young)->{state} eq 'held' }), 'held while it is young');
$s->advance($hour + 2 * $minute);
ok(Sekisho::wait_for(90, sub { state_of($s->show($young)) eq 'delivered' }), 'and goes when it is not');
says('release', 0, qr/^released/m, 'queue', 'release', '--younger', '1h');

# --- a paced flush ---

my @many = map { $s->submit($me, "flush-$_", 'carol@slow.example') } 1 .. 20;
deferred('the backlog', @many);
says('flush', 0, qr/^due now: 20 recipients of 20 messages$/m, 'queue', 'flush', '--account', $me, '--younger', '30min', '--rate', '1/s');
my %due = map { $_->{id} => $_->{due} // '' } @{ $s->json('queue', 'list', '--account', $me, '--younger', '30min')->{messages} };
my %times = map { substr($_, 0, 19) => 1 } grep { $_ } @due{@many};
cmp_ok(scalar keys %times, '>', 10, 'it is spread') or diag explain \%due;
says('no rate', 64, qr/--rate takes/, 'queue', 'flush', '--all', '--rate', 'fast');

# --- killed in between ---

my $count = $ENV{SEKISHO_MANY} // 400;
my $before = $s->json('queue', 'audit');
says('hold', 0, qr/^held/, 'queue', 'hold', '--account', $bob);
$s->submit($bob, "many-$_", 'carol@example.org') for 1 .. $count;
my $pid = fork // die $!;
if (!$pid) { $s->ctl('queue', 'bounce', '--account', $bob, '--smaller', '4KiB', '--recipient', 'example.org', '--yes'); require POSIX; POSIX::_exit(0) }
ok(Sekisho::wait_for(20, sub { my $a = $s->json('queue', 'audit'); $a && $a->{bounced} > $before->{bounced} }), 'a bounce is under way');
restart_queue();
waitpid $pid, 0;
$s->ctl('queue', 'bounce', '--account', $bob, '--smaller', '4KiB', '--recipient', 'example.org', '--yes');
conserved('begun again, it ends', accepted => $before->{accepted} + $count, bounced => $before->{bounced} + $count, generated => $before->{generated} + $count, queued => $before->{queued});
is(scalar(grep { /^many-/m && !/delivery-status/i } $s->delivered), 0, 'nobody got any of it');
# --- many recipients ---

# However many recipients, a share looks at few: the loop that accepts mail waits for it.
my @wide = map { $s->submit($me, "wide-$_", map { "wide$_\@slow.example" } 1 .. 200) } 1 .. 36;
deferred('the wide', @wide);
my $r = IO::Socket::UNIX->new(Peer => "$s->{dir}/admin.sock");
for my $request ({ command => 'queue.list', recipient => 'wide7@slow.example' }, { command => 'queue.remove', recipient => 'wide7@slow.example', dry_run => JSON::PP::true }, { command => 'age' }) {
	syswrite $r, encode_json($request) . "\n";
	my $share = decode_json(scalar <$r>)->{result};
	ok($share->{next}, "$request->{command}: a share of them") or diag explain $share;
}
is(scalar($s->listed('--recipient', 'wide7@slow.example')), 36, 'all shares are all');
is_deeply($s->json('queue', 'remove', '--recipient', 'wide7@slow.example', '--yes'), { messages => 36, recipients => 36, busy => 0 }, 'of acts, too');
done_testing;
