#!/usr/bin/perl
# Setup: a service with mail that waits; between two starts somebody flips bits in its spool.
# Expectation: queue check finds nothing wrong with what was written, also while mail comes and goes, and each flipped bit, by name; the service starts
# and goes on with all the rest. No next hop takes a body that is not what was written, however it comes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use NextHop;
use Sekisho;
use Test::More;

my $later = Sekisho::free_port();
my $hop = NextHop->new(port => $later)->offers({ RCPT => '450 4.2.1 later' });
my $s = Sekisho->new(conf => "${Sekisho::UNLIMITED}limits: { messages: 10000 }\nroutes: { later.example: \"127.0.0.1:$later\", \"*\": \"127.0.0.1:PORT\" }\n",
	no_start => 1);
$s->{extra} =~ s/PORT/$s->{ports}{sink}/;
$s->write_conf;
$s->start;
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 200;
my $me = 'alice@example.test';
$s->account($me);
my $client = $s->login($me);

sub send_to {
	my ($to, $text) = @_;
	my ($id) = $client->send_mail($me, $to, $text) =~ /Queued as (\w+)/ or die;
	return $id;
}
sub check { my $out = $s->ctl('queue', 'check'); return ($? >> 8, $out) }

my %id = (small => send_to('bob@later.example', "small body, unmistakable-1\r\n"), large => send_to('bob@later.example', "unmistakable-2\r\n" . "large body\r\n" x 20_000),
	record => send_to('unmistakable-3@later.example', "x\r\n"), good => send_to('carol@later.example', "good\r\n"));
ok(Sekisho::wait_for(30, sub { my $q = $s->json('status')->{queue}; $q->{lanes}{retry}{messages} == 4 }), 'four messages wait in retry') or diag $s->ctl('queue', 'list');
my ($status, $out) = check();
is($status, 0, 'nothing is wrong');
like($out, qr/^\d+ records and 4 bodies of 0 MiB: nothing is wrong$/m, 'which it says');
my $json = $s->json('queue', 'check');
is_deeply([@$json{qw(faults bodies)}, $json->{records} > 10], [[], 4, 1], 'to programs, too');

# While mail comes and goes.
my $ctl = fork // die $!;
if (!$ctl) { for (1 .. 10) { my ($got, $said) = check(); if ($got) { print STDERR $said; require POSIX; POSIX::_exit(1) } } require POSIX; POSIX::_exit(0) }
send_to(($_ % 5 ? 'dave@example.org' : 'dave@later.example'), "beside\r\n" . "y" x 900 . "\r\n" x ($_ % 7 * 10)) for 1 .. 150;
waitpid $ctl, 0;
is($?, 0, 'nothing is wrong while mail comes and goes');
ok(Sekisho::wait_for(30, sub { my $q = $s->json('status')->{queue}; !$q->{lanes}{fresh}{messages} }), 'which it has');

# In a file: every place at which the text stands.
sub flip {
	my ($file, $text) = @_;
	open my $f, '+<:raw', $file or die "$file: $!";
	local $/;
	my $all = <$f>;
	my $n = 0;
	for (my $at = index $all, $text; $at >= 0; $at = index $all, $text, $at + 1) {
		seek $f, $at, 0;
		syswrite $f, chr(ord(substr $text, 0, 1) ^ 1), 1, 0 or die $!;
		sysseek $f, $at, 0;
		syswrite $f, chr(ord(substr $text, 0, 1) ^ 1);
		$n++;
	}
	return $n;
}
undef $client;
$s->stop;
my $spool = "$s->{dir}/spool";
is(eval { my $n = 0; $n += flip($_, 'unmistakable-1') for glob "$spool/bodies/*"; $n }, 1, 'a bit of a small body');
is(flip("$spool/large/$id{large}", 'unmistakable-2'), 1, 'of a large one');
cmp_ok(flip("$spool/retry/data.mdb", 'unmistakable-3'), '>', 0, 'and of a recipient in a record is flipped');
$s->start;
($status, $out) = check();
is($status, 1, 'something is wrong');
like($out, qr{^retry/message/$id{small}: its body is not what was written\n +\S}m, 'the small body');
like($out, qr{^retry/message/$id{large}: its body is not what was written\n +\S}m, 'the large one');
like($out, qr{^retry/recipient/$id{record}/0: the recipient does not read\n +\S}m, 'the recipient');
unlike($out, qr/\Q$id{good}\E/, 'and no other');
like($out, qr/ bodies of \d+ MiB: 3 faults$/m, 'three in all') or diag $out;
is(scalar @{$s->json('queue', 'check')->{faults} // []}, 3, 'to programs, too');
$client = $s->login($me);
ok(send_to('carol@example.org', "after\r\n"), 'mail is taken');
ok(Sekisho::wait_for(30, sub { grep { /^after\r?$/m } $s->delivered }), 'and delivered');
my $read = 0;
for my $offers ([], ['CHUNKING']) {
	my $how = $offers->[0] // 'DATA';
	$hop->offers(@$offers);
	Sekisho::wait_for(20, sub { 2 == grep { $s->show($id{$_})->{state} eq 'deferred' } qw(small large) }); # what is not written yet is not flushed
	$s->ctl('queue', 'flush', '--all');
	$read += 2;
	ok(Sekisho::wait_for(30, sub { my $n = () = $s->log =~ /^.* (?:$id{small}|$id{large}) attempt .* fate=deferred .*our copy of the message could not be read/mg; $n == $read }),
		"$how: what is not what was written is tried") or diag $s->log;
	ok(Sekisho::wait_for(30, sub { grep { /^good\r?$/m } $hop->taken }), "$how: the good one is taken");
	is_deeply([grep { /nmistakable-[12]/ } $hop->taken], [], "$how: and what was not written is not");
}
undef $client;
$s->stop;
done_testing;
