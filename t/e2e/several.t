#!/usr/bin/perl
# Setup: three messages that wait for a site where nobody listens.
# Expectation: queue show, hold, release, flush, bounce, reroute and remove take several ids; one that is not there is named, even alone, and nothing is done, or, where
# nothing can be harmed, the others are; there are only so many at a time.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use JSON::PP;
use Test::More;

my $slow_port = Sekisho::free_port();
my $s = Sekisho->new(conf => qq(${Sekisho::UNLIMITED}retry: { schedule: [3h] }\nroutes: { "slow.example": "127.0.0.1:$slow_port" }\n));
my $me = 'alice@example.test';
$s->account($me);
sub says { my ($what, $status, $pattern, @words) = @_; my $said = $s->ctl(@words); is($? >> 8, $status, "$what: status") or diag $said; like($said, $pattern, $what); return $said }
sub programs { my (@words) = @_; return decode_json(`$Sekisho::BUILD/sekishoctl -s $s->{dir}/admin.sock --json @words 2>/dev/null`) }

my @ids = map { $s->submit($me, "several-$_", 'carol@slow.example') } 1 .. 3;
ok(Sekisho::wait_for(20, sub { 3 == grep { ($s->show($_)->{state} // '') eq 'deferred' } @ids }), 'three wait');
my $none = '01' . ('0' x 24);
says('hold one that is not there', 1, qr/^not queued: $none\nsekishoctl: nothing was done$/m, 'queue', 'hold', @ids, $none);
says('or that one alone', 1, qr/^not queued: $none$/m, 'queue', 'hold', $none);
is_deeply([grep { /^message/ } map { $_->{what} } @{ $s->json('queue', 'holds')->{holds} }], [], 'nothing is held');
is_deeply(programs('queue', 'remove', $none, @ids, '--yes'), { unknown => [$none] }, 'to programs, too');
says("$_->[0]: one that nobody knows", 1, qr/^not queued: $none\nsekishoctl: nothing was done$/m, 'queue', $_->[0], $none, @$_[1 .. $#$_])
	for ['remove', '--yes'], ['bounce', '--yes'], ['flush'], ['reroute', '--to', 'fallback'], ['remove', '--dry-run'];
says('hold', 0, qr/\A(?:held: message \w+, until it is released\n){3}\z/, 'queue', 'hold', @ids);
is_deeply([map { $s->show($_)->{state} } @ids], ['held', 'held', 'held'], 'all are held');
is_deeply([map { $_->{size} } @{ $s->json('queue', 'list')->{messages} }], [map { $s->show($_)->{size} } @ids], 'list and show tell the same size');
my $shown = says('show', 0, qr/^id +$ids[0]\n.*\n\nid +$ids[1]\n.*\n\nid +$ids[2]\n/ms, 'queue', 'show', @ids);
is(scalar(() = $shown =~ /^RECIPIENT +STATE +TRIES +LAST TRY +REPLY\b/mg), 3, 'each with the same columns') or diag $shown;
says('and one that nobody knows', 1, qr/^id +$ids[0]\n.*^not found: $none$/ms, 'queue', 'show', $none, $ids[0]);
is_deeply([map { ref $_ eq 'ARRAY' ? map { ref $_ ? $_->{id} : $_ } @$_ : () } @{ programs('queue', 'show', @ids[0, 1], $none) }{qw(results unknown)}], [@ids[0, 1], $none], 'to programs, too');
says('release one that is not held', 1, qr/^released: message $ids[0]\n.*^not found: $none$/ms, 'queue', 'release', $ids[0], $none);
says('release', 0, qr/\A(?:released: message \w+\n){2}\z/, 'queue', 'release', @ids[1, 2]);
ok(Sekisho::wait_for(20, sub { 3 == grep { ($s->show($_)->{state} // '') eq 'deferred' } @ids }), 'none is held');
says('flush', 0, qr/^would be due now: 2 recipients of 2 messages$/m, 'queue', 'flush', @ids[0, 1], '--dry-run');
says('reroute', 0, qr/^moved: 3 recipients of 3 messages$/m, 'queue', 'reroute', @ids, '--to', 'fallback');
says('one goes to a host', 0, qr/^rerouted: 1 recipients of 1 messages$/m, 'queue', 'reroute', $ids[0], '--to', '127.0.0.1:9');
says('and only that one says so', 0, qr/TRIES +LAST TRY +REPLY\n.*TRIES +LAST TRY +NEXT HOP +REPLY\n.*TRIES +LAST TRY +REPLY\n/s, 'queue', 'show', @ids[1, 0, 2]);
says('of one lane only', 0, qr/^removed: 0 /m, 'queue', 'remove', @ids, '--lane', 'retry', '--yes');
says('wrong id', 1, qr/message/, 'queue', 'remove', @ids, 'nonsense', '--yes');
says('too many', 64, qr/at most 500/, 'queue', 'remove', ('x') x 501, '--yes');
says('nobody can be asked', 64, qr/--yes/, 'queue', 'remove', @ids);
says('bounce', 0, qr/^bounced: 2 recipients of 2 messages$/m, 'queue', 'bounce', @ids[0, 1], '--yes');
says('the same twice', 0, qr/^removed: 1 recipients of 1 messages$/m, 'queue', 'remove', $ids[2], $ids[2], '--yes');
ok(Sekisho::wait_for(20, sub { $s->json('queue', 'audit')->{conserved} }), 'conserved');
is($s->stop, 0, 'stops cleanly');
done_testing;
