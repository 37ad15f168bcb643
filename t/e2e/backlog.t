#!/usr/bin/perl
# Setup: one domain's host takes connections and never says a word, another's is the sink; 3000 messages for the first, then one for the second; then the
# queue is killed, so that it has to find everything on disk again. The same with twelve silent domains, and with the one message behind them on disk when
# the queue comes back.
# Expectation: the one for the good domain is delivered within two seconds, before and after the restart, although the backlog does not move.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use IO::Socket::INET;
use Test::More;

my $backlog = $ENV{SEKISHO_BACKLOG} // 3000;
my $silent = IO::Socket::INET->new(Listen => 512, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
my $s = Sekisho->new(no_sink => 1, no_start => 1);
$s->{extra} = "${Sekisho::UNLIMITED}limits: { messages: 10000 }\nroutes:\n" . join('', map { "  dead$_.example: \"127.0.0.1:" . $silent->sockport . "\"\n" } 1 .. 13) . "  \"*\": \"127.0.0.1:$s->{ports}{sink}\"\n";
$s->write_conf;
$s->start_sink;
$s->start;
my $me = 'alice@example.test';
$s->account($me);
my $c = $s->login($me) or die 'no login';
sub backlog {
	my ($n, @domains) = @_;
	my $taken = 0;
	for (1 .. $n) { $taken++ if $c->send_mail($me, "nobody\@$domains[$_ % @domains].example", 'x') =~ /^250/ }
	is($taken, $n, "$n messages to " . @domains . ' dead domains are accepted');
}
sub accepted { my ($name) = @_; like($c->send_mail($me, 'carol@example.org', "$name\r\n"), qr/^250/, "$name is accepted") }
sub delivered { my ($name) = @_; ok(Sekisho::wait_for(2, sub { grep { /^\Q$name\E/m } $s->delivered }), "$name is delivered within two seconds") }
sub restart {
	my ($old) = $s->pids('sekisho-queue');
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { my ($new) = $s->pids('sekisho-queue'); $new && $new != $old && ($s->json('status') // {})->{queue} }), 'the queue is back');
	ok(Sekisho::wait_for(20, sub { $c->cmd("MAIL FROM:<$me>"); $c->cmd('RCPT TO:<x@example.org>') =~ /^250/ ? 1 : do { $c->cmd('RSET'); 0 } }), 'and msa knows');
	$c->cmd('RSET');
}
sub arrives { accepted(@_); delivered(@_) }

backlog($backlog, 'dead1');
arrives('while-the-backlog-waits');
restart();
arrives('after-the-restart');
backlog($backlog, map { "dead$_" } 2 .. 13);
arrives('while-twelve-wait');
kill 'STOP', $s->pids('sekisho-relay');
accepted('behind-all-of-them');
restart();
kill 'CONT', $s->pids('sekisho-relay');
delivered('behind-all-of-them');
arrives('after-all-of-them');
ok($s->json('queue', 'audit')->{conserved}, 'conserved') or diag $s->ctl('queue', 'audit');
done_testing;
